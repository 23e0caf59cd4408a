//! What may be done with a mapping's bytes.

use std::fmt;

/// The permissions of a mapping, as the four letters of /proc/PID/maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Perms {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Executing.
    pub exec: bool,
    /// Whether a write is seen by other processes and by the file. The letter is `s`; without it `p`.
    pub shared: bool,
}

impl Perms {
    /// The permissions of letters such as `rw-p`.
    pub fn from_letters(letters: &str) -> Perms {
        let has = |letter| letters.contains(letter);
        Perms {
            read: has('r'),
            write: has('w'),
            exec: has('x'),
            shared: has('s'),
        }
    }

    /// The permissions that mmap(2) gives for `prot` and `flags`.
    pub fn from_call(prot: u32, flags: u32) -> Perms {
        const MAP_TYPE: u32 = 0xf;
        let shared = libc::MAP_SHARED as u32;
        let validated = libc::MAP_SHARED_VALIDATE as u32;
        Perms {
            shared: flags & MAP_TYPE == shared || flags & MAP_TYPE == validated,
            ..Perms::default().with_prot(prot)
        }
    }

    /// The same mapping after mprotect(2) with `prot`.
    pub fn with_prot(self, prot: u32) -> Perms {
        let has = |bit: i32| prot & bit as u32 != 0;
        Perms {
            read: has(libc::PROT_READ),
            write: has(libc::PROT_WRITE),
            exec: has(libc::PROT_EXEC),
            ..self
        }
    }

    /// The permissions in words: `read and write, private (copy-on-write)`.
    pub fn words(self) -> String {
        let mut may = Vec::new();
        for (has, word) in [
            (self.read, "read"),
            (self.write, "write"),
            (self.exec, "execute"),
        ] {
            if has {
                may.push(word);
            }
        }
        let may = match may.as_slice() {
            [] => "no access".to_string(),
            [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
            only => only.join(""),
        };
        let sharing = if self.shared {
            "shared"
        } else {
            "private (copy-on-write)"
        };
        format!("{may}, {sharing}")
    }
}

impl fmt::Display for Perms {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let letter = |has, letter| if has { letter } else { '-' };
        write!(
            f,
            "{}{}{}{}",
            letter(self.read, 'r'),
            letter(self.write, 'w'),
            letter(self.exec, 'x'),
            if self.shared { 's' } else { 'p' }
        )
    }
}
