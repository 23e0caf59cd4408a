//! The note in a stripped file that names the file with its debug information.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::endian::Endian;

use crate::Options;

/// Contents of `.gnu_debuglink`, as gdb's manual has it (Debugging Information in Separate Files):
/// a file name, NUL bytes up to a multiple of four, a CRC-32 of the file.
pub(crate) struct DebugLink {
    name: PathBuf,
    crc: u32,
}

impl DebugLink {
    /// The link in a section's bytes; `None` when they make no sense.
    pub(crate) fn parse(section: &[u8], endian: Endianness) -> Option<DebugLink> {
        let end = section
            .iter()
            .position(|&byte| byte == 0)
            .filter(|&end| end > 0)?;
        let at = (end + 1).next_multiple_of(4);
        let crc = section.get(at..)?.first_chunk::<4>()?;
        let name = PathBuf::from(OsStr::from_bytes(&section[..end]));
        // Only the name counts: a link must not lead anywhere else.
        let name = PathBuf::from(name.file_name()?);
        Some(DebugLink {
            name,
            crc: endian.read_u32(*crc),
        })
    }

    /// The linked file: beside `own`, in `.debug` beside it, or in a debug directory under the same
    /// path. `None` when none is there; an error when one is there with another checksum.
    pub(crate) fn follow(&self, own: &Path, options: &Options) -> Option<Result<PathBuf, String>> {
        let own = own.canonicalize().ok()?;
        let dir = own.parent()?;
        let below = dir.strip_prefix("/").unwrap_or(dir);
        let debug_dirs = options
            .all_debug_dirs()
            .into_iter()
            .map(|debug| debug.join(below));
        let dirs = [dir.to_path_buf(), dir.join(".debug")]
            .into_iter()
            .chain(debug_dirs);
        let mut wrong = None;
        for path in dirs.map(|dir| dir.join(&self.name)) {
            if path == own || !path.is_file() {
                continue;
            }
            if checksum(&path) == Some(self.crc) {
                return Some(Ok(path));
            }
            wrong = Some(Err(format!(
                "the checksum of {} is not the recorded one",
                path.display()
            )));
        }
        wrong
    }
}

/// The CRC-32 of a file.
fn checksum(path: &Path) -> Option<u32> {
    let mut file = File::open(path).ok()?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hasher.finalize()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_a_name_padding_and_a_checksum() {
        let link =
            DebugLink::parse(b"ls.debug\0\0\0\0\x01\x02\x03\x04", Endianness::Little).unwrap();
        assert_eq!(
            (link.name, link.crc),
            (PathBuf::from("ls.debug"), 0x0403_0201)
        );
    }

    #[test]
    fn a_link_cannot_leave_its_directories_or_make_no_sense() {
        let link = DebugLink::parse(b"/etc/passwd\0\0\0\0\0", Endianness::Little).unwrap();
        assert_eq!(link.name, PathBuf::from("passwd"));
        for bad in [
            &b""[..],
            b"name",
            b"name\0\0\0\0\x01\x02",
            b"\0\0\0\0\0\0\0\0",
            b"..\0\0\0\0\0\0",
        ] {
            assert!(
                DebugLink::parse(bad, Endianness::Little).is_none(),
                "{bad:?}"
            );
        }
    }
}
