//! The row of unwind data that holds at an address: the rules for the registers that a walk asks for, and no others.
//!
//! gimli decodes the instructions; they are carried out here because gimli's own table of rows takes kilobytes of the
//! host's stack, and hosts allocate on signal stacks of two.

use gimli::{
    BaseAddresses, CallFrameInstruction, CallFrameInstructionIter, CfaRule, CommonInformationEntry,
    EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, Register, RegisterRule, X86_64,
};

type Bytes = EndianSlice<'static, LittleEndian>;

/// `remember_state` inside `remember_state`: compilers use one.
const REMEMBERED: usize = 2;

/// The rules of a row: the CFA's, the return address's, the frame pointer's, and one other register's. No rule: the
/// register is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) cfa: CfaRule<usize>,
    pub(super) ip: Option<RegisterRule<usize>>,
    pub(super) bp: Option<RegisterRule<usize>>,
    pub(super) other: Option<RegisterRule<usize>>,
}

impl Rules {
    const NONE: Rules = Rules {
        cfa: CfaRule::RegisterAndOffset {
            register: Register(0),
            offset: 0,
        },
        ip: None,
        bp: None,
        other: None,
    };
}

/// What carries out the instructions.
struct Machine {
    rules: Rules,
    initial: Rules,
    remembered: [Rules; REMEMBERED],
    depth: usize,
    other: Register,
    at: u64,
    code_factor: u64,
    data_factor: i64,
}

/// The row for `address`, with `other` as the further register; `None` when the data are not what they should be.
#[inline(never)]
pub(super) fn row(
    entry: &FrameDescriptionEntry<Bytes>,
    section: &EhFrame<Bytes>,
    bases: &BaseAddresses,
    address: u64,
    other: Register,
) -> Option<Rules> {
    let common: &CommonInformationEntry<Bytes> = entry.cie();
    let mut machine = Machine {
        rules: Rules::NONE,
        initial: Rules::NONE,
        remembered: [Rules::NONE; REMEMBERED],
        depth: 0,
        other,
        at: 0,
        code_factor: common.code_alignment_factor(),
        data_factor: common.data_alignment_factor(),
    };
    machine.run(common.instructions(section, bases), u64::MAX)?;
    machine.initial = machine.rules.clone();
    machine.at = entry.initial_address();
    machine.run(entry.instructions(section, bases), address)?;
    Some(machine.rules)
}

impl Machine {
    /// Carries out instructions up to the row that holds at `address`.
    fn run(&mut self, mut code: CallFrameInstructionIter<'_, Bytes>, address: u64) -> Option<()> {
        while let Some(instruction) = code.next().ok()? {
            match instruction {
                CallFrameInstruction::SetLoc { address: to } => self.at = to,
                CallFrameInstruction::AdvanceLoc { delta } => {
                    let bytes = u64::from(delta).checked_mul(self.code_factor)?;
                    self.at = self.at.checked_add(bytes)?;
                }
                other => self.change(other)?,
            }
            if self.at > address {
                break;
            }
        }
        Some(())
    }

    fn change(&mut self, instruction: CallFrameInstruction<usize>) -> Option<()> {
        match instruction {
            CallFrameInstruction::DefCfa { register, offset } => {
                self.rules.cfa = from(register, i64::try_from(offset).ok()?);
            }
            CallFrameInstruction::DefCfaSf {
                register,
                factored_offset,
            } => {
                self.rules.cfa = from(register, self.factored(factored_offset)?);
            }
            CallFrameInstruction::DefCfaRegister { register } => {
                self.rules.cfa = from(register, self.cfa()?.1);
            }
            CallFrameInstruction::DefCfaOffset { offset } => {
                self.rules.cfa = from(self.cfa()?.0, i64::try_from(offset).ok()?);
            }
            CallFrameInstruction::DefCfaOffsetSf { factored_offset } => {
                self.rules.cfa = from(self.cfa()?.0, self.factored(factored_offset)?);
            }
            CallFrameInstruction::DefCfaExpression { expression } => {
                self.rules.cfa = CfaRule::Expression(expression);
            }
            CallFrameInstruction::Undefined { register } => {
                self.set(register, Some(RegisterRule::Undefined));
            }
            CallFrameInstruction::SameValue { register } => {
                self.set(register, Some(RegisterRule::SameValue));
            }
            CallFrameInstruction::Offset {
                register,
                factored_offset,
            } => {
                let offset = self.factored(i64::try_from(factored_offset).ok()?)?;
                self.set(register, Some(RegisterRule::Offset(offset)));
            }
            CallFrameInstruction::OffsetExtendedSf {
                register,
                factored_offset,
            } => {
                let offset = self.factored(factored_offset)?;
                self.set(register, Some(RegisterRule::Offset(offset)));
            }
            CallFrameInstruction::ValOffset {
                register,
                factored_offset,
            } => {
                let offset = self.factored(i64::try_from(factored_offset).ok()?)?;
                self.set(register, Some(RegisterRule::ValOffset(offset)));
            }
            CallFrameInstruction::ValOffsetSf {
                register,
                factored_offset,
            } => {
                let offset = self.factored(factored_offset)?;
                self.set(register, Some(RegisterRule::ValOffset(offset)));
            }
            CallFrameInstruction::Register {
                dest_register,
                src_register,
            } => {
                self.set(dest_register, Some(RegisterRule::Register(src_register)));
            }
            CallFrameInstruction::Expression {
                register,
                expression,
            } => {
                self.set(register, Some(RegisterRule::Expression(expression)));
            }
            CallFrameInstruction::ValExpression {
                register,
                expression,
            } => {
                self.set(register, Some(RegisterRule::ValExpression(expression)));
            }
            CallFrameInstruction::Restore { register } => {
                let initial = of(&mut self.initial, register, self.other).and_then(|it| it.clone());
                self.set(register, initial);
            }
            CallFrameInstruction::RememberState => {
                *self.remembered.get_mut(self.depth)? = self.rules.clone();
                self.depth += 1;
            }
            CallFrameInstruction::RestoreState => {
                self.depth = self.depth.checked_sub(1)?;
                self.rules = self.remembered.get(self.depth)?.clone();
            }
            CallFrameInstruction::ArgsSize { .. } | CallFrameInstruction::Nop => {}
            _ => return None,
        }
        Some(())
    }

    fn factored(&self, offset: i64) -> Option<i64> {
        offset.checked_mul(self.data_factor)
    }

    fn cfa(&self) -> Option<(Register, i64)> {
        match self.rules.cfa {
            CfaRule::RegisterAndOffset { register, offset } => Some((register, offset)),
            CfaRule::Expression(_) => None,
        }
    }

    fn set(&mut self, register: Register, rule: Option<RegisterRule<usize>>) {
        if let Some(place) = of(&mut self.rules, register, self.other) {
            *place = rule;
        }
    }
}

fn from(register: Register, offset: i64) -> CfaRule<usize> {
    CfaRule::RegisterAndOffset { register, offset }
}

/// The rule of a register, if it is one of those that are asked for.
fn of(
    rules: &mut Rules,
    register: Register,
    other: Register,
) -> Option<&mut Option<RegisterRule<usize>>> {
    match register {
        X86_64::RA => Some(&mut rules.ip),
        X86_64::RBP => Some(&mut rules.bp),
        register if register == other => Some(&mut rules.other),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::row;
    use crate::elf::Span;
    use crate::modules;
    use gimli::{
        BaseAddresses, CieOrFde, EhFrame, EndianSlice, LittleEndian, Register, RegisterRule,
        UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow, X86_64,
    };

    /// Room for gimli's own rows, which need not be small here.
    struct Roomy;

    impl UnwindContextStorage<usize> for Roomy {
        type Rules = [(Register, RegisterRule<usize>); 64];
        type Stack = [UnwindTableRow<usize, Roomy>; 8];
    }

    #[test]
    fn every_row_of_libc_and_of_this_program_is_gimlis() {
        modules::start(b"");
        let mut rows = 0;
        for address in [
            libc::getpid as *const () as usize,
            super::row as *const () as usize,
        ] {
            let Span { at, len } = modules::find(address).expect("is loaded").unwind_data;
            // SAFETY: the unwind data of a loaded object.
            let bytes = unsafe { core::slice::from_raw_parts(at as *const u8, len) };
            let section = EhFrame::from(EndianSlice::new(bytes, LittleEndian));
            let bases = BaseAddresses::default().set_eh_frame(at as u64);
            let mut entries = section.entries(&bases);
            while let Ok(Some(entry)) = entries.next() {
                let CieOrFde::Fde(entry) = entry else {
                    continue;
                };
                let Ok(entry) = entry.parse(EhFrame::cie_from_offset) else {
                    continue;
                };
                let mut context = UnwindContext::<usize, Roomy>::new_in();
                let mut table = entry
                    .rows(&section, &bases, &mut context)
                    .expect("gimli reads it");
                while let Ok(Some(theirs)) = table.next_row() {
                    for at in [theirs.start_address(), theirs.end_address() - 1] {
                        let other = X86_64::RBX;
                        let ours = row(&entry, &section, &bases, at, other).expect("a row");
                        assert_eq!(&ours.cfa, theirs.cfa());
                        assert_eq!(ours.ip, theirs.register(X86_64::RA));
                        assert_eq!(ours.bp, theirs.register(X86_64::RBP));
                        assert_eq!(ours.other, theirs.register(other));
                        rows += 1;
                    }
                }
            }
        }
        assert!(rows > 10_000, "{rows}");
    }
}
