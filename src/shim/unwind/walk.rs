//! One walk up a stack, frame by frame, with a note of every word that was read on the way.
//!
//! The walk is a function of the first frame's registers, the modules, and those words: that is what makes the memo
//! right (see `memo`).

use super::Cut;
use super::bounds::{self, Bounds, OwnStack};
use super::cfi::{self, Caller, SavedBp};
use super::memo::{self, Memo, Probe, Suffix};
use super::rule::{Found, Key, Place, Rule, Rules, Step};
use crate::modules;

/// A frame that was reached. Half a cache line: a walk writes one for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) ip: usize,
    pub(super) sp: usize,
    bp: usize,
    /// Number of the module, 0: none.
    pub(super) module: u32,
    words: u16,
    flags: u16,
}

const _: () = assert!(size_of::<Frame>() == 32);

/// `ip` is where a signal interrupted the frame, not a return address.
const INTERRUPTED: u16 = 1;
/// The step to its caller needed its frame pointer.
const USED_BP: u16 = 2;
/// The stack lies in bounds that last as long as the thread does.
const LASTING: u16 = 4;
/// `bp` is the frame pointer, and not where it lies.
const BP_IS: u16 = 8;

impl Frame {
    /// The address to look up: inside the call instruction.
    #[inline(always)]
    pub(super) fn lookup_address(&self) -> usize {
        self.ip.wrapping_sub(usize::from(!self.interrupted()))
    }

    /// The address as the log has it: one that is looked up at itself - 1.
    #[inline(always)]
    pub(super) fn logged_ip(&self) -> usize {
        self.ip.wrapping_add(usize::from(self.interrupted()))
    }

    /// The frame pointer.
    #[inline(always)]
    pub(super) fn bp(&self) -> SavedBp {
        match self.flags & BP_IS {
            0 => SavedBp::At(self.bp),
            _ => SavedBp::Is(self.bp),
        }
    }

    /// The number of words that had been read when it was reached.
    #[inline(always)]
    pub(super) fn words(&self) -> usize {
        self.words.into()
    }

    #[inline(always)]
    pub(super) fn interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    #[inline(always)]
    pub(super) fn used_bp(&self) -> bool {
        self.flags & USED_BP != 0
    }

    #[inline(always)]
    pub(super) fn lasting(&self) -> bool {
        self.flags & LASTING != 0
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

/// Where a walk is.
#[derive(Clone, Copy)]
struct Position {
    ip: usize,
    sp: usize,
    bp: usize,
    /// How many frames there are inside of it.
    index: usize,
    /// [`BP_IS`] and [`INTERRUPTED`], as for a frame. No gap between fields: copies are of whole registers.
    flags: u32,
    /// Where its rule may be.
    expected: Place,
}

impl Position {
    fn interrupted(self) -> bool {
        self.flags as u16 & INTERRUPTED != 0
    }
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
    at: Position,
    bounds: Bounds,
    own: &'a OwnStack,
    generation: u32,
    /// The mappings' generation when the walk began.
    pub(super) mappings: u32,
    by_frame_pointer: bool,
    /// A rule was not where it was expected.
    surprised: bool,
    /// [`LASTING`], if the bounds are.
    lasting: u16,
}

impl<'a> Walk<'a> {
    /// Begins at a caller, whose frame is all that is known when its stack can't be read.
    ///
    /// `frames` has room for one frame more than a stack may have.
    #[inline(always)]
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
        let known = own.known(caller.sp);
        let bounds = known.unwrap_or_else(|| own.find(caller.sp).unwrap_or(nothing));
        Walk {
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
            surprised: false,
            lasting: if bounds.lasting { LASTING } else { 0 },
            at: Position {
                ip: caller.ip,
                sp: caller.sp,
                bp: caller.bp,
                index: 0,
                flags: BP_IS.into(),
                expected: Place::ANY,
            },
        }
    }

    /// The frames that were reached; a memo's frame follows them.
    #[inline(always)]
    pub(super) fn frames(&self) -> &[Frame] {
        self.frames.get(..self.count).unwrap_or_default()
    }

    /// The words that were read, in order.
    #[inline(always)]
    pub(super) fn words(&self) -> &[Word] {
        self.words.get(..self.words_count).unwrap_or_default()
    }

    #[inline(always)]
    pub(super) fn frame(&self, index: usize) -> Option<&Frame> {
        self.frames().get(index)
    }

    /// A frame, or the memo's frame behind the last.
    #[inline(always)]
    pub(super) fn reached(&self, index: usize) -> Option<&Frame> {
        self.frames.get(..self.pushed)?.get(index)
    }

    /// A word of the stack, noted.
    #[inline(always)]
    pub(super) fn read(&mut self, address: usize) -> Option<usize> {
        let value = self.bounds.read(address)?;
        *self.words.get_mut(self.words_count)? = (address, value);
        self.words_count += 1;
        Some(value)
    }

    /// The frame pointer of a frame, noted.
    #[inline(always)]
    pub(super) fn bp(&mut self, index: usize) -> Option<usize> {
        let frame = self.frames.get_mut(index)?;
        frame.flags |= USED_BP;
        match frame.bp() {
            SavedBp::Is(value) => Some(value),
            SavedBp::At(address) => self.read(address),
        }
    }

    /// Walks up to `limit` frames. Without a memo it walks to the end.
    #[inline(always)]
    pub(super) fn run(&mut self, limit: usize, memo: Option<&Memo>) -> End {
        let probe = memo.map_or(Probe::of_nothing(), Memo::probe);
        // The frame that the memo was asked for; the first one's caller has asked.
        let mut asked = 0;
        loop {
            if let Some(rules) = Rules::get()
                && !self.at.interrupted()
                && self.at.sp.is_multiple_of(8)
                && self.step_quickly(limit, asked, probe, rules)
            {
                return End::Root;
            }
            if self.at.index > asked {
                asked = self.at.index;
                if let Some(known) = self.known(limit, memo) {
                    return End::Known(known);
                }
            } else if let Some(end) = self.step(limit) {
                return end;
            }
        }
    }

    /// Goes on for as long as frames are such that a rule that is known leads from each to the next, and the memo knows
    /// none of them; answers whether it reached the outermost. Calls nothing, so that everything stays in registers.
    #[inline(always)]
    fn step_quickly(&mut self, limit: usize, asked: usize, probe: Probe, rules: Rules) -> bool {
        let mut at = self.at;
        let Bounds { from, to, .. } = self.bounds;
        let (generation, lasting) = (self.generation, u32::from(self.lasting));
        let mut words = self.words_count;
        let mut is_root = false;
        let (frames, room) = (&mut *self.frames, &mut *self.words);
        // The last frame that is kept needs no step.
        while at.index + 1 < limit {
            if memo::is_landmark(at.sp) && at.index > asked && probe.may_know(at.ip, at.sp) {
                break;
            }
            let key = Key::new(at.ip, false, generation);
            let found = match rules.at(at.expected, key) {
                Some(found) => found,
                None => {
                    let Some(found) = rules.find(key) else { break };
                    self.surprised = true;
                    found
                }
            };
            let mut flags = lasting | at.flags;
            let mut next = words;
            // In the order of how often: the processor predicts comparisons, not a table of jumps.
            let (cfa, bp) = if let Step::FromSp { cfa, bp } = found.rule.step {
                (at.sp.wrapping_add(cfa), bp)
            } else if let Step::FromBp { cfa, bp } = found.rule.step.of_frame_pointer() {
                flags |= u32::from(USED_BP);
                let mut base = at.bp;
                if at.flags & u32::from(BP_IS) == 0 {
                    if at.bp < from || at.bp >= to || !at.bp.is_multiple_of(8) {
                        break;
                    }
                    // SAFETY: the word lies in the bounds.
                    base = unsafe { (at.bp as *const usize).read_volatile() };
                    let Some(word) = room.get_mut(next) else {
                        break;
                    };
                    *word = (at.bp, base);
                    next += 1;
                }
                let cfa = base.wrapping_add(cfa);
                if base < at.sp || cfa <= at.sp || !cfa.is_multiple_of(8) {
                    break;
                }
                (cfa, bp)
            } else if found.rule.step == Step::End {
                is_root = true;
                (at.sp, 0)
            } else {
                break;
            };
            let (Some(frame), Some(word)) = (frames.get_mut(at.index), room.get_mut(next)) else {
                break;
            };
            let address = cfa.wrapping_sub(8);
            if !is_root {
                if address >= to {
                    break;
                }
                // SAFETY: the word lies in the bounds: above the stack pointer, as CFAs do, and below their end.
                let caller = unsafe { (address as *const usize).read_volatile() };
                let by_bp = flags & u32::from(USED_BP) != 0;
                if caller == 0 || (by_bp && !CODE.contains(&caller)) {
                    break;
                }
                *word = (address, caller);
                next += 1;
            }
            *frame = Frame {
                ip: at.ip,
                sp: at.sp,
                bp: at.bp,
                module: found.rule.module,
                words: words as u16,
                flags: flags as u16,
            };
            at.index += 1;
            if is_root {
                break;
            }
            words = next;
            if bp != 0 {
                at.bp = cfa.wrapping_sub(bp);
                at.flags = 0;
            }
            at.ip = word.1;
            at.sp = cfa;
            at.expected = found.caller;
        }
        self.words_count = words;
        self.count = at.index;
        self.pushed = at.index;
        self.at = at;
        is_root
    }

    /// Whether a rule was not where it was expected.
    pub(super) fn was_surprised(&self) -> bool {
        self.surprised
    }

    /// Notes for the next walks where they find the rules of callers.
    #[cold]
    #[inline(never)]
    pub(super) fn teach(&self) {
        let Some(rules) = Rules::get() else { return };
        let mut outer = None;
        // Of a recursion the innermost frame is to be remembered, whose caller is most often the right one.
        for frame in self.frames().iter().rev() {
            let key = Key::new(frame.ip, frame.interrupted(), self.generation);
            let found = rules.find(key).map(|found| found.place);
            if let (Some(found), Some(outer)) = (found, outer) {
                rules.teach(found, outer);
            }
            outer = found;
        }
    }

    /// Notes that a frame was reached.
    fn push(&mut self, at: Position) -> Option<()> {
        *self.frames.get_mut(at.index)? = Frame {
            ip: at.ip,
            sp: at.sp,
            bp: at.bp,
            module: 0,
            words: self.words_count as u16,
            flags: self.lasting | at.flags as u16,
        };
        self.pushed = at.index + 1;
        Some(())
    }

    /// One step of whatever kind, unless the walk ends here.
    #[inline(never)]
    fn step(&mut self, limit: usize) -> Option<End> {
        let at = self.at;
        if self.push(at).is_none() {
            return Some(End::Cut(Cut::Depth));
        }
        let found = self.rule(at);
        if let Some(frame) = self.frames.get_mut(at.index) {
            frame.module = found.rule.module;
        }
        self.count = at.index + 1;
        if self.count >= limit {
            return Some(End::Cut(Cut::Depth));
        }
        let caller = match self.caller(at.index, found.rule.step) {
            Ok(Some(caller)) => caller,
            Ok(None) => return Some(End::Root),
            Err(cut) => return Some(End::Cut(cut)),
        };
        if caller.interrupted && !(caller.sp > at.sp && caller.sp < self.bounds.to) {
            // The handler ran on a stack of its own.
            let Some(bounds) = self.own.find(caller.sp) else {
                return Some(End::Cut(Cut::Bounds));
            };
            self.bounds = bounds;
            self.lasting = if bounds.lasting { LASTING } else { 0 };
        } else if caller.sp <= at.sp {
            return Some(End::Cut(Cut::Unwind));
        }
        let (bp, is) = match caller.bp {
            SavedBp::At(address) => (address, 0),
            SavedBp::Is(value) => (value, BP_IS),
        };
        let interrupted = if caller.interrupted { INTERRUPTED } else { 0 };
        self.at = Position {
            ip: caller.ip,
            sp: caller.sp,
            bp,
            index: at.index + 1,
            flags: (is | interrupted).into(),
            expected: found.caller,
        };
        None
    }

    /// The caller of a frame; `None` for the outermost.
    fn caller(&mut self, index: usize, step: Step) -> Result<Option<Caller>, Cut> {
        let sp = self.frame(index).map_or(0, |frame| frame.sp);
        let caller = match step {
            Step::FromSp { cfa, bp } => self.restore(index, sp.wrapping_add(cfa), bp)?,
            Step::FromBp { cfa, bp } => {
                let base = self.bp(index).ok_or(Cut::Bounds)?;
                self.restore(index, base.wrapping_add(cfa), bp)?
            }
            Step::FramePointer => self.follow_frame_pointer(index)?,
            Step::Slow => cfi::step(self, index)?,
            Step::End => None,
        };
        Ok(caller.filter(|caller| caller.ip != 0))
    }

    /// What the memo knows about the frame that was reached.
    #[inline(never)]
    fn known(&mut self, limit: usize, memo: Option<&Memo>) -> Option<Suffix> {
        let at = self.at;
        let room = limit.checked_sub(at.index)?;
        let bounds = &mut self.bounds;
        let bp = || match at.flags as u16 & BP_IS {
            0 => bounds.read(at.bp),
            _ => Some(at.bp),
        };
        let interrupted = at.interrupted();
        let known = memo?.find(at.ip, interrupted, at.sp, bp, self.generation, self.own)?;
        let fits = if known.cut_by_depth {
            known.frames == room
        } else {
            known.frames <= room
        };
        if !fits {
            return None;
        }
        self.push(at)?;
        Some(known)
    }

    /// The rule for a frame, worked out if nobody has done so before.
    fn rule(&self, at: Position) -> Found {
        let key = Key::new(at.ip, at.interrupted(), self.generation);
        let rules = Rules::get();
        if let Some(found) = rules.and_then(|rules| rules.find(key)) {
            return found;
        }
        let rule = self.work_out(at.ip.wrapping_sub(usize::from(!at.interrupted())));
        if let Some(rules) = rules {
            rules.keep(key, rule);
        }
        Found {
            rule,
            place: Place::ANY,
            caller: Place::ANY,
        }
    }

    #[cold]
    #[inline(never)]
    fn work_out(&self, address: usize) -> Rule {
        match modules::find(address) {
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
        }
    }

    /// The caller of a frame that has this CFA, and has saved the frame pointer `bp` below it.
    fn restore(&mut self, index: usize, cfa: usize, bp: usize) -> Result<Option<Caller>, Cut> {
        let frame = *self.frame(index).ok_or(Cut::Unwind)?;
        let ip = self.read(cfa.wrapping_sub(8)).ok_or(Cut::Bounds)?;
        let bp = if bp == 0 {
            frame.bp()
        } else {
            SavedBp::At(cfa.wrapping_sub(bp))
        };
        Ok(Some(Caller {
            ip,
            sp: cfa,
            bp,
            interrupted: false,
        }))
    }

    /// For code without unwind data: whoever keeps frame pointers keeps (caller's frame pointer, return address) at
    /// its own. A frame pointer that can't be one ends the walk.
    fn follow_frame_pointer(&mut self, index: usize) -> Result<Option<Caller>, Cut> {
        let bp = self.bp(index).ok_or(Cut::Unwind)?;
        let frame = *self.frame(index).ok_or(Cut::Unwind)?;
        // The ABI's mark of the outermost frame. Generated code may have a zero there by chance.
        if bp == 0 && (self.by_frame_pointer || frame.module != 0) {
            return Ok(None);
        }
        if bp < frame.sp || bp >= self.bounds.to.max(frame.sp + MAX_UNKNOWN_FRAME) {
            return Err(Cut::Unwind);
        }
        let ip = self.read(bp.wrapping_add(8)).ok_or(Cut::Unwind)?;
        match ip {
            0 => Ok(None),
            _ if !CODE.contains(&ip) => Err(Cut::Unwind),
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

/// Where code can be.
const CODE: core::ops::Range<usize> = 0x1000..1 << 47;

/// How far away a frame pointer is followed on a stack whose end is not known, in bytes.
const MAX_UNKNOWN_FRAME: usize = 1 << 20;
