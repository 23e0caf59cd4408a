//! Unwind data (`.eh_frame`, DWARF call frame information) read by gimli, without taking memory.
//!
//! Usually a row of the data becomes a one-word [`Step`], which is kept. What needs other registers or expressions
//! (signal frames, realigned stacks, glibc's lazy binding) is worked out by [`step`] each time.

use super::Cut;
use super::row::{self, Rules};
use super::rule::Step;
use super::walk::Walk;
use crate::elf::Span;
use crate::modules::Module;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, Evaluation,
    EvaluationResult, EvaluationStorage, FrameDescriptionEntry, LittleEndian, Location,
    ParsedEhFrameHdr, Piece, Register, RegisterRule, UnwindExpression, UnwindSection, Value,
    X86_64,
};

type Bytes = EndianSlice<'static, LittleEndian>;

/// Room for expressions as compilers make them.
struct Fixed;

impl EvaluationStorage<Bytes> for Fixed {
    type Stack = [Value; 8];
    type ExpressionStack = [(Bytes, Bytes); 1];
    type Result = [Piece<Bytes>; 1];
}

/// Operations that one expression may take: a hostile one must not hold up its host.
const MAX_OPERATIONS: u32 = 64;

/// Where a frame that was found stands: see [`Walk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) ip: usize,
    pub(super) sp: usize,
    pub(super) bp: SavedBp,
    /// The frame did not call: a signal interrupted it, and `ip` is not a return address.
    pub(super) interrupted: bool,
}

/// Where a frame's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SavedBp {
    /// In memory. Read when it is needed only: most frames save it without using it.
    At(usize),
    /// Known.
    Is(usize),
}

/// The rules of one frame.
struct Row {
    section: EhFrame<Bytes>,
    encoding: Encoding,
    signal: bool,
    rules: Rules,
}

/// Memory that the loader mapped, as gimli wants it.
fn bytes(span: Span) -> Bytes {
    let slice: &'static [u8] = match span.len {
        0 => &[],
        // SAFETY: spans come from the program headers of a loaded object. Code of it is on the stack that is being
        // unwound, so it stays loaded while this is read.
        _ => unsafe { core::slice::from_raw_parts(span.at as *const u8, span.len) },
    };
    EndianSlice::new(slice, LittleEndian)
}

fn search_table(table: Span) -> Option<(ParsedEhFrameHdr<Bytes>, BaseAddresses)> {
    let bases = BaseAddresses::default().set_eh_frame_hdr(table.at as u64);
    let parsed = EhFrameHdr::from(bytes(table)).parse(&bases, 8).ok()?;
    Some((parsed, bases))
}

/// Where the unwind data that a search table belongs to begin.
pub(crate) fn unwind_data_of(table: Span) -> Option<usize> {
    let (table, _) = search_table(table)?;
    Some(table.eh_frame_ptr().direct().ok()? as usize)
}

/// The entry (FDE) of a module's unwind data for `address`.
#[inline(never)]
fn entry(
    module: &Module,
    section: &EhFrame<Bytes>,
    address: u64,
) -> Option<(FrameDescriptionEntry<Bytes>, BaseAddresses)> {
    let (table, bases) = search_table(module.unwind_table)?;
    let bases = bases.set_eh_frame(module.unwind_data.at as u64);
    let table = table.table()?;
    let pointer = table.lookup(address, &bases).ok()?;
    let offset = table.pointer_to_offset(pointer).ok()?;
    let entry = section
        .fde_from_offset(&bases, offset, EhFrame::cie_from_offset)
        .ok()?;
    entry.contains(address).then_some((entry, bases))
}

/// The row for `address` in a module; `other` is a further register to ask for.
#[cold]
#[inline(never)]
fn row(module: &Module, address: usize, other: Register) -> Option<Row> {
    let section = EhFrame::from(bytes(module.unwind_data));
    let address = address as u64;
    let (entry, bases) = entry(module, &section, address)?;
    let rules = row::row(&entry, &section, &bases, address, other)?;
    let common = entry.cie();
    let (encoding, signal) = (common.encoding(), common.is_signal_trampoline());
    Some(Row {
        section,
        encoding,
        signal,
        rules,
    })
}

/// The step from a frame in `module`; [`Step::FramePointer`] when its unwind data do not say.
#[cold]
#[inline(never)]
pub(super) fn rule(module: &Module, address: usize) -> Step {
    row(module, address, X86_64::RBX).map_or(Step::FramePointer, |row| row.short())
}

impl Row {
    /// The row as a one-word step, [`Step::Slow`] when it does not fit.
    fn short(&self) -> Step {
        match self.rules.ip {
            None | Some(RegisterRule::Undefined) => return Step::End,
            Some(RegisterRule::Offset(-8)) if !self.signal => {}
            _ => return Step::Slow,
        }
        let bp = match self.rules.bp {
            None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Some(0),
            Some(RegisterRule::Offset(offset @ ..=-8)) if offset % 8 == 0 => {
                usize::try_from(-offset).ok()
            }
            _ => None,
        };
        match (&self.rules.cfa, bp) {
            (CfaRule::RegisterAndOffset { register, offset }, Some(bp))
                if *offset > 0 && offset % 8 == 0 =>
            {
                match (*register, usize::try_from(*offset)) {
                    (X86_64::RSP, Ok(cfa)) => Step::FromSp { cfa, bp },
                    (X86_64::RBP, Ok(cfa)) => Step::FromBp { cfa, bp },
                    _ => Step::Slow,
                }
            }
            _ => Step::Slow,
        }
    }

    /// The address or value that an expression ends with.
    #[cold]
    #[inline(never)]
    fn evaluate(
        &self,
        expression: &UnwindExpression<usize>,
        cfa: Option<usize>,
        walk: &mut Walk,
        frame: usize,
    ) -> Option<usize> {
        let expression = expression.get(&self.section).ok()?;
        let mut evaluation = Evaluation::<Bytes, Fixed>::new_in(expression.0, self.encoding);
        evaluation.set_max_iterations(MAX_OPERATIONS);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa as u64);
        }
        let mut state = evaluation.evaluate().ok()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = register_of(walk, frame, register)?;
                    evaluation
                        .resume_with_register(Value::Generic(value as u64))
                        .ok()?
                }
                EvaluationResult::RequiresMemory {
                    address,
                    size: 8,
                    space: None,
                    ..
                } => {
                    let value = walk.read(usize::try_from(address).ok()?)?;
                    evaluation
                        .resume_with_memory(Value::Generic(value as u64))
                        .ok()?
                }
                _ => return None,
            };
        }
        match evaluation.as_result().last()?.location {
            Location::Address { address } => usize::try_from(address).ok(),
            _ => None,
        }
    }

    /// The value that a register had in the caller; `same` is its value if it has not changed.
    fn restore(
        &self,
        rule: Option<&RegisterRule<usize>>,
        cfa: usize,
        walk: &mut Walk,
        frame: usize,
        same: impl FnOnce(&mut Walk) -> Option<usize>,
    ) -> Option<usize> {
        match rule {
            None | Some(RegisterRule::SameValue) => same(walk),
            Some(RegisterRule::Offset(offset)) => {
                walk.read(cfa.checked_add_signed(isize::try_from(*offset).ok()?)?)
            }
            Some(RegisterRule::ValOffset(offset)) => {
                cfa.checked_add_signed(isize::try_from(*offset).ok()?)
            }
            Some(RegisterRule::Register(register)) => register_of(walk, frame, *register),
            Some(RegisterRule::Expression(expression)) => {
                let at = self.evaluate(expression, Some(cfa), walk, frame)?;
                walk.read(at)
            }
            Some(RegisterRule::ValExpression(expression)) => {
                self.evaluate(expression, Some(cfa), walk, frame)
            }
            _ => None,
        }
    }
}

/// A register as frame number `frame` has it.
fn register_of(walk: &mut Walk, frame: usize, register: Register) -> Option<usize> {
    match register {
        X86_64::RSP => Some(walk.frame(frame)?.sp),
        X86_64::RA => Some(walk.frame(frame)?.ip),
        X86_64::RBP => walk.bp(frame),
        X86_64::RBX | X86_64::R12 | X86_64::R13 | X86_64::R14 | X86_64::R15 => {
            saved(walk, frame, register)
        }
        _ => None,
    }
}

/// A register that calls preserve: whoever changed it last on the way in has saved it.
#[cold]
#[inline(never)]
fn saved(walk: &mut Walk, frame: usize, register: Register) -> Option<usize> {
    for inner in (0..frame).rev() {
        let address = walk.frame(inner)?.lookup_address();
        let cfa = walk.frame(inner + 1)?.sp;
        let module = crate::modules::find(address)?;
        let row = row(module, address, register)?;
        match &row.rules.other {
            None | Some(RegisterRule::SameValue) => {}
            // Expressions of inner frames could need their registers in turn; those of signal frames do not.
            Some(RegisterRule::Expression(_)) if !row.signal => return None,
            rule => return row.restore(rule.as_ref(), cfa, walk, inner, |_| None),
        }
    }
    None
}

/// The caller of frame number `frame`, by its row. `Ok(None)`: it has none.
#[cold]
#[inline(never)]
pub(super) fn step(walk: &mut Walk, frame: usize) -> Result<Option<Caller>, Cut> {
    let address = walk.frame(frame).ok_or(Cut::Unwind)?.lookup_address();
    let module = crate::modules::find(address).ok_or(Cut::Unwind)?;
    let row = row(module, address, X86_64::RBX).ok_or(Cut::Unwind)?;
    let cfa = match &row.rules.cfa {
        CfaRule::RegisterAndOffset { register, offset } => register_of(walk, frame, *register)
            .and_then(|base| base.checked_add_signed(isize::try_from(*offset).ok()?)),
        CfaRule::Expression(expression) => row.evaluate(expression, None, walk, frame),
    };
    let cfa = cfa.ok_or(Cut::Unwind)?;
    let ip = row
        .restore(row.rules.ip.as_ref(), cfa, walk, frame, |_| None)
        .ok_or(Cut::Unwind)?;
    let same = walk.frame(frame).ok_or(Cut::Unwind)?.bp();
    let bp = match &row.rules.bp {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => same,
        rule => SavedBp::Is(
            row.restore(rule.as_ref(), cfa, walk, frame, |_| None)
                .ok_or(Cut::Unwind)?,
        ),
    };
    let found = Caller {
        ip,
        sp: cfa,
        bp,
        interrupted: row.signal,
    };
    Ok((ip != 0).then_some(found))
}
