//! `__lsan_default_suppressions`: suppressions that a program brings along for LeakSanitizer.
//!
//! The function returns a string, and in general only running it can tell which. But compilers
//! make of the usual `return "leak:…";` nothing but the load of an address, and those exact
//! instructions can mean nothing else. So: exactly these are understood, and anything else is
//! reported as not applied, never guessed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use memspy_analysis::verdict::suppression::parse;
use memspy_analysis::verdict::{Evidence, Policy};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};

use crate::terminal::show;

const SYMBOL: &str = "__lsan_default_suppressions";

/// Adds the suppressions of each judged program to the policy, each program once. What can't be
/// added becomes a note.
pub(super) fn apply(evidence: &[Evidence], policy: &mut Policy, notes: &mut Vec<String>) {
    let programs: BTreeSet<(&[u8], Option<&str>)> = evidence
        .iter()
        .map(|one| (&*one.lineage.exe, build_id(one)))
        .collect();
    for (exe, build_id) in programs {
        let path = Path::new(OsStr::from_bytes(exe));
        let Ok(bytes) = fs::read(path) else { continue };
        let place = format!("{}:{SYMBOL}", path.display());
        match find(&bytes, build_id) {
            Ok(None) => {}
            Ok(Some(text)) => match parse(&place, &text) {
                Ok(entries) => policy.suppressions.extend(entries),
                Err(error) => notes.push(format!("not applied: {error}")),
            },
            Err(why) => notes.push(format!("{SYMBOL} of {} is not applied: {why}", show(path))),
        }
    }
}

/// The build id of a process's executable, in hex as the log has it.
fn build_id(evidence: &Evidence) -> Option<&str> {
    let module = evidence
        .memory
        .modules
        .iter()
        .find(|module| module.path == evidence.lineage.exe)?;
    (!module.build_id.is_empty()).then_some(&*module.build_id)
}

/// The string that the function of this file returns; `None` when there is no such function.
fn find(bytes: &[u8], build_id: Option<&str>) -> Result<Option<String>, &'static str> {
    let Ok(file) = object::File::parse(bytes) else {
        return Ok(None);
    };
    let symbols = file.symbols().chain(file.dynamic_symbols());
    let mut defined = symbols.filter(|symbol| symbol.is_definition());
    let Some(symbol) = defined.find(|symbol| symbol.name_bytes() == Ok(SYMBOL.as_bytes())) else {
        return Ok(None);
    };
    if let (Some(recorded), Ok(Some(present))) = (build_id, file.build_id()) {
        let present: String = present.iter().map(|byte| format!("{byte:02x}")).collect();
        if present != recorded {
            return Err("the file was built anew since");
        }
    }
    let code = constant(&file, symbol.address()).ok_or("its code can't be read")?;
    let address = returned_address(code, symbol.address())
        .ok_or("it does more than return one string; move the entries to a --suppressions file")?;
    let text = constant(&file, address).ok_or("its string is not constant")?;
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .ok_or("its string has no end")?;
    let text = std::str::from_utf8(&text[..end]).map_err(|_| "its string is not UTF-8")?;
    Ok(Some(text.to_owned()))
}

/// The bytes from an address to the end of its segment, where that is mapped without write access:
/// what the file holds there is what the program sees.
fn constant<'a>(file: &object::File<'a>, address: u64) -> Option<&'a [u8]> {
    let segment = file.segments().find(|segment| {
        address
            .checked_sub(segment.address())
            .is_some_and(|offset| offset < segment.size())
    })?;
    let object::SegmentFlags::Elf { p_flags, .. } = segment.flags() else {
        return None;
    };
    if p_flags.0 & object::elf::PF_W.0 != 0 {
        return None;
    }
    let offset = usize::try_from(address - segment.address()).ok()?;
    segment.data().ok()?.get(offset..)
}

/// The address that a function returns which does nothing but return one: x86-64, with or without
/// `endbr64` and a frame pointer.
fn returned_address(code: &[u8], at: u64) -> Option<u64> {
    let mut rest = code;
    let skip = |rest: &mut &[u8], bytes: &[u8]| {
        let found = rest.strip_prefix(bytes);
        *rest = found.unwrap_or(rest);
        found.is_some()
    };
    skip(&mut rest, &[0xf3, 0x0f, 0x1e, 0xfa]); // endbr64
    let framed = skip(&mut rest, &[0x55, 0x48, 0x89, 0xe5]); // push rbp; mov rbp, rsp
    let operand = |rest: &[u8]| Some(i32::from_le_bytes(*rest.first_chunk()?));
    let address = if skip(&mut rest, &[0x48, 0x8d, 0x05]) {
        // lea rax, [rip + disp32]: relative to the next instruction.
        let next = at + (code.len() - rest.len()) as u64 + 4;
        next.wrapping_add_signed(operand(rest)?.into())
    } else if skip(&mut rest, &[0xb8]) {
        // mov eax, imm32: zero-extended.
        u64::from(operand(rest)?.cast_unsigned())
    } else {
        return None;
    };
    rest = rest.get(4..)?;
    let unframed = !framed || skip(&mut rest, &[0x5d]); // pop rbp
    (unframed && rest.first() == Some(&0xc3)).then_some(address) // ret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_function_that_returns_a_constant_address_is_understood() {
        let lea = [0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0xc3];
        assert_eq!(returned_address(&lea, 0x1000), Some(0x1017));
        let framed = [
            0x55, 0x48, 0x89, 0xe5, 0x48, 0x8d, 0x05, 0xf0, 0xff, 0xff, 0xff, 0x5d, 0xc3,
        ];
        assert_eq!(returned_address(&framed, 0x1000), Some(0x1000 + 11 - 16));
        let fixed = [0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 0x10, 0x20, 0x40, 0x00, 0xc3];
        assert_eq!(returned_address(&fixed, 0x401000), Some(0x402010));
        for other in [
            &[0xc3][..],
            &lea[..7],
            &framed[..11],
            &[0x31, 0xc0, 0xc3],
            &[],
        ] {
            assert_eq!(returned_address(other, 0x1000), None, "{other:x?}");
        }
    }
}
