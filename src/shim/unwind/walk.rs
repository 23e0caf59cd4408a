//! One walk up a stack, frame by frame, with a note of every word that was read on the way.
//!
//! The walk is a function of the first frame's registers, the modules, and those words: that is what makes the memo
//! right (see `memo`).

use super::Cut;
use super::bounds::{self, Bounds, OwnStack};
use super::cfi::{self, Caller, SavedBp};
use super::memo::{Memo, Suffix};
use super::rule::{Key, Rule, Step};
use crate::modules;

/// A frame that was reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) ip: usize,
    pub(super) sp: usize,
    pub(super) bp: SavedBp,
    /// Number of the module, 0: none.
    pub(super) module: u32,
    /// The number of words that had been read when it was reached.
    pub(super) words: usize,
    /// `ip` is where a signal interrupted the frame, not a return address.
    pub(super) interrupted: bool,
    /// The step to its caller needed its frame pointer.
    pub(super) used_bp: bool,
    /// The stack lies in bounds that last as long as the thread does.
    pub(super) lasting: bool,
}

impl Frame {
    /// The address to look up: inside the call instruction.
    pub(super) fn lookup_address(&self) -> usize {
        self.ip.wrapping_sub(usize::from(!self.interrupted))
    }

    /// The address as the log has it: one that is looked up at itself - 1.
    pub(super) fn logged_ip(&self) -> usize {
        self.lookup_address().wrapping_add(1)
    }
}

/// A word that was read: where, and what it was.
pub(super) type Word = (usize, usize);

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the outermost frame.
    Root,
    /// Before it.
    Cut(Cut),
    /// At a frame whose callers the memo knows. That frame is the one behind the last counted.
    Known(Suffix),
}

/// A walk under way, in memory that its owner lends it.
pub(super) struct Walk<'a> {
    frames: &'a mut [Frame],
    /// Frames of the stack that are this walk's.
    count: usize,
    /// Frames that were reached: one more when the last is the memo's.
    pushed: usize,
    words: &'a mut [Word],
    words_count: usize,
    bounds: Bounds,
    own: &'a OwnStack,
    generation: u32,
    /// The mappings' generation when the walk began.
    pub(super) mappings: u32,
    by_frame_pointer: bool,
}

impl<'a> Walk<'a> {
    /// Begins at a caller. `None` when its stack can't be read at all.
    ///
    /// `frames` has room for one frame more than a stack may have.
    pub(super) fn new(
        caller: &super::Caller,
        generation: u32,
        own: &'a OwnStack,
        (frames, words): (&'a mut [Frame], &'a mut [Word]),
        by_frame_pointer: bool,
    ) -> Walk<'a> {
        let mappings = bounds::mappings();
        let nothing = Bounds {
            from: caller.sp,
            to: caller.sp,
            lasting: true,
        };
        let bounds = own.find(caller.sp).unwrap_or(nothing);
        let mut walk = Walk {
            frames,
            count: 0,
            pushed: 0,
            words,
            words_count: 0,
            bounds,
            own,
            generation,
            mappings,
            by_frame_pointer,
        };
        let bp = SavedBp::Is(caller.bp);
        walk.push(Caller {
            ip: caller.ip,
            sp: caller.sp,
            bp,
            interrupted: false,
        });
        walk
    }

    /// The frames that were reached; a memo's frame follows them.
    pub(super) fn frames(&self) -> &[Frame] {
        self.frames.get(..self.count).unwrap_or_default()
    }

    /// The words that were read, in order.
    pub(super) fn words(&self) -> &[Word] {
        self.words.get(..self.words_count).unwrap_or_default()
    }

    pub(super) fn frame(&self, index: usize) -> Option<&Frame> {
        self.frames().get(index)
    }

    /// A frame, or the memo's frame behind the last.
    pub(super) fn reached(&self, index: usize) -> Option<&Frame> {
        self.frames.get(..self.pushed)?.get(index)
    }

    /// A word of the stack, noted.
    pub(super) fn read(&mut self, address: usize) -> Option<usize> {
        let value = self.bounds.read(address)?;
        *self.words.get_mut(self.words_count)? = (address, value);
        self.words_count += 1;
        Some(value)
    }

    /// The frame pointer of a frame, noted.
    pub(super) fn bp(&mut self, index: usize) -> Option<usize> {
        let frame = self.frames.get_mut(index)?;
        frame.used_bp = true;
        match frame.bp {
            SavedBp::Is(value) => Some(value),
            SavedBp::At(address) => self.read(address),
        }
    }

    fn push(&mut self, caller: Caller) -> bool {
        let Some(place) = self.frames.get_mut(self.count) else {
            return false;
        };
        *place = Frame {
            ip: caller.ip,
            sp: caller.sp,
            bp: caller.bp,
            module: 0,
            words: self.words_count,
            interrupted: caller.interrupted,
            used_bp: false,
            lasting: self.bounds.lasting,
        };
        self.count += 1;
        self.pushed = self.count;
        true
    }

    /// Walks up to `limit` frames. Without a memo it walks to the end.
    pub(super) fn run(&mut self, limit: usize, memo: Option<&Memo>) -> End {
        loop {
            let index = self.count.saturating_sub(1);
            let Some(frame) = self.frame(index).copied() else {
                return End::Cut(Cut::Depth);
            };
            if index > 0
                && let Some(known) = memo.and_then(|memo| self.known(memo, &frame, limit - index))
            {
                self.count = index;
                return End::Known(known);
            }
            let rule = self.rule(&frame);
            if let Some(frame) = self.frames.get_mut(index) {
                frame.module = rule.module;
            }
            if self.count >= limit {
                return End::Cut(Cut::Depth);
            }
            match self.step(index, &frame, rule.step) {
                Ok(Some(caller)) => {
                    if !self.push(caller) {
                        return End::Cut(Cut::Depth);
                    }
                }
                Ok(None) => return End::Root,
                Err(cut) => return End::Cut(cut),
            }
        }
    }

    fn known(&mut self, memo: &Memo, frame: &Frame, room: usize) -> Option<Suffix> {
        let bounds = &mut self.bounds;
        let bp = || match frame.bp {
            SavedBp::Is(value) => Some(value),
            SavedBp::At(address) => bounds.read(address),
        };
        let known = memo.find(
            frame.ip,
            frame.interrupted,
            frame.sp,
            bp,
            self.generation,
            self.own,
        )?;
        let fits = if known.cut_by_depth {
            known.frames == room
        } else {
            known.frames <= room
        };
        fits.then_some(known)
    }

    fn rule(&mut self, frame: &Frame) -> Rule {
        let key = Key::new(frame.ip, frame.interrupted, self.generation);
        if let Some(rule) = key.find() {
            return rule;
        }
        let address = frame.lookup_address();
        let rule = match modules::find(address) {
            Some(module) if self.by_frame_pointer => Rule {
                step: Step::FramePointer,
                module: module.id,
            },
            Some(module) => Rule {
                step: cfi::rule(module, address),
                module: module.id,
            },
            None => Rule {
                step: Step::FramePointer,
                module: 0,
            },
        };
        key.keep(rule);
        rule
    }

    fn step(&mut self, index: usize, frame: &Frame, step: Step) -> Result<Option<Caller>, Cut> {
        // In the order of how often: the processor predicts comparisons, not a table of jumps.
        let caller = if let Step::FromSp { cfa, bp } = step {
            self.restore(frame, frame.sp.wrapping_add(cfa), bp)?
        } else if let Step::FromBp { cfa, bp } = step {
            let base = self.bp(index).ok_or(Cut::Bounds)?;
            self.restore(frame, base.wrapping_add(cfa), bp)?
        } else {
            return self.step_oddly(index, frame, step);
        };
        self.check(frame, caller)
    }

    #[cold]
    fn step_oddly(
        &mut self,
        index: usize,
        frame: &Frame,
        step: Step,
    ) -> Result<Option<Caller>, Cut> {
        match step {
            Step::FramePointer => self.follow_frame_pointer(index, frame),
            Step::Slow => match cfi::step(self, index)? {
                Some(caller) => self.check(frame, caller),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Whether a frame can have this caller. Stacks grow downwards, but for handlers on stacks of their own.
    fn check(&mut self, frame: &Frame, caller: Caller) -> Result<Option<Caller>, Cut> {
        if caller.ip == 0 {
            return Ok(None);
        }
        if caller.interrupted && !(caller.sp > frame.sp && caller.sp < self.bounds.to) {
            // The handler ran on a stack of its own.
            self.bounds = self.own.find(caller.sp).ok_or(Cut::Bounds)?;
        } else if caller.sp <= frame.sp {
            return Err(Cut::Unwind);
        }
        Ok(Some(caller))
    }

    fn restore(&mut self, frame: &Frame, cfa: usize, bp: usize) -> Result<Caller, Cut> {
        let ip = self.read(cfa.wrapping_sub(8)).ok_or(Cut::Bounds)?;
        let bp = if bp == 0 {
            frame.bp
        } else {
            SavedBp::At(cfa.wrapping_sub(bp))
        };
        Ok(Caller {
            ip,
            sp: cfa,
            bp,
            interrupted: false,
        })
    }

    /// For code without unwind data: whoever keeps frame pointers keeps (caller's frame pointer, return address) at
    /// its own. A frame pointer that can't be one ends the walk.
    fn follow_frame_pointer(&mut self, index: usize, frame: &Frame) -> Result<Option<Caller>, Cut> {
        let bp = self.bp(index).ok_or(Cut::Unwind)?;
        // The ABI's mark of the outermost frame. Generated code may have a zero there by chance.
        let module = self.frame(index).map_or(0, |frame| frame.module);
        if bp == 0 && (self.by_frame_pointer || module != 0) {
            return Ok(None);
        }
        if bp < frame.sp || bp >= self.bounds.to.max(frame.sp + MAX_UNKNOWN_FRAME) {
            return Err(Cut::Unwind);
        }
        let ip = self.read(bp.wrapping_add(8)).ok_or(Cut::Unwind)?;
        match ip {
            0 => Ok(None),
            1..0x1000 | 0x8000_0000_0000.. => Err(Cut::Unwind),
            _ => {
                let sp = bp + 16;
                Ok(Some(Caller {
                    ip,
                    sp,
                    bp: SavedBp::At(bp),
                    interrupted: false,
                }))
            }
        }
    }
}

/// How far away a frame pointer is followed on a stack whose end is not known, in bytes.
const MAX_UNKNOWN_FRAME: usize = 1 << 20;
