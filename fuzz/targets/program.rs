//! Programs that are about to be run, of which the few facts are read that decide whether they can be recorded.

#[path = "../../src/cli/preflight/elf.rs"]
mod elf;

use elf::{Elf, Foreign};

/// Reads the facts, which must be of a bounded size.
pub fn run(data: &[u8]) {
    // Only files that begin so get that far.
    let mut file = b"\x7fELF".to_vec();
    file.extend_from_slice(data.get(4..).unwrap_or_default());
    match Elf::parse(&file) {
        Ok(facts) => {
            assert!(
                facts
                    .loader
                    .as_ref()
                    .is_none_or(|loader| loader.len() <= 4096)
            );
            let names = facts.sanitizers();
            assert!(names.iter().all(|name| !name.is_empty()));
            let _ = (facts.defines_malloc, facts.private_allocator, facts.is_go);
        }
        Err(Foreign::Malformed(why) | Foreign::Machine(why)) => assert!(!why.is_empty()),
    }
}
