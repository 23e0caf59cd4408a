//! The bytes of a log, by position: a file, or a temporary file into which a stream was spooled.
//!
//! Files are read with pread, never mapped: a live log may grow or be cut under the reader.

use crate::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// First bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A log's bytes.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    path: PathBuf,
    len: u64,
    cut: bool,
}

impl Source {
    /// Opens a log by its path; `-` is standard input. Compressed logs are known by their first
    /// bytes, not by their names.
    ///
    /// # Errors
    /// When the path is not a regular file or can't be read. A FIFO or device is never waited for.
    pub(crate) fn open(path: &Path) -> Result<Source, Error> {
        if path == Path::new("-") {
            return Source::spool(path, io::stdin().lock());
        }
        // O_NONBLOCK: the open of a FIFO returns at once; it means nothing for a regular file.
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|why| Error::io(path, "open", why))?;
        let about = file
            .metadata()
            .map_err(|why| Error::io(path, "read", why))?;
        if !about.is_file() {
            return Err(Error::NotAFile {
                path: path.into(),
                kind: kind(&about.file_type()),
            });
        }
        if is_compressed(&file) {
            file.seek(SeekFrom::Start(0))
                .map_err(|why| Error::io(path, "read", why))?;
            return Source::spool(path, file);
        }
        Ok(Source {
            file,
            path: path.into(),
            len: about.len(),
            cut: false,
        })
    }

    /// Copies a stream into a temporary file without a name, decompressing it where needed.
    fn spool(path: &Path, mut stream: impl Read) -> Result<Source, Error> {
        let failed = |why| Error::io(path, "copy to a temporary file", why);
        let mut file = tempfile::tempfile().map_err(failed)?;
        let mut head = Vec::new();
        let read = |why| Error::io(path, "read", why);
        (&mut stream).take(4).read_to_end(&mut head).map_err(read)?;
        let compressed = head == ZSTD_MAGIC;
        let whole = io::Cursor::new(head).chain(stream);
        let mut cut = false;
        if compressed {
            let mut plain = zstd::stream::read::Decoder::new(whole).map_err(read)?;
            let mut part = vec![0; 1 << 16];
            loop {
                match plain.read(&mut part) {
                    Ok(0) => break,
                    Ok(len) => io::Write::write_all(&mut file, &part[..len]).map_err(failed)?,
                    Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                    // A file that is cut, or still being written: what came out is good.
                    Err(_) => {
                        cut = true;
                        break;
                    }
                }
            }
        } else {
            let mut whole = whole;
            io::copy(&mut whole, &mut file).map_err(failed)?;
        }
        let len = file.metadata().map_err(failed)?.len();
        Ok(Source {
            file,
            path: path.into(),
            len,
            cut,
        })
    }

    /// The path by which it was opened; `-` for standard input.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes at the moment of opening.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether there was no byte.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Leaves out what stands behind a position.
    pub(crate) fn cut_at(&mut self, end: u64) {
        self.len = self.len.min(end);
    }

    /// Whether the compressed stream ended before its end, or holds damaged data.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Fills `buf` from position `at` on; answers how many bytes there were before the end.
    ///
    /// The end is where it was at the opening: what a live log has gained since does not exist.
    ///
    /// # Errors
    /// When the read fails.
    pub(crate) fn read_at(&self, buf: &mut [u8], mut at: u64) -> Result<usize, Error> {
        let wanted = self.len.saturating_sub(at).min(buf.len() as u64) as usize;
        let mut buf = &mut buf[..wanted];
        while !buf.is_empty() {
            match self.file.read_at(buf, at) {
                Ok(0) => break,
                Ok(len) => {
                    buf = &mut buf[len..];
                    at += len as u64;
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(Error::io(&self.path, "read", why)),
            }
        }
        Ok(wanted - buf.len())
    }
}

fn is_compressed(file: &File) -> bool {
    let mut head = [0; 4];
    matches!(file.read_at(&mut head, 0), Ok(4)) && head == ZSTD_MAGIC
}

fn kind(kind: &std::fs::FileType) -> &'static str {
    if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }
}

/// The log files that `paths` name: files as they are, and of each directory all logs in it and in
/// its subdirectories (one level), in the order of their names.
///
/// # Errors
/// When a directory can't be read or holds no log.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for path in paths {
        if path != Path::new("-") && path.is_dir() {
            let before = found.len();
            collect(path, 1, &mut found)?;
            if found.len() == before {
                return Err(Error::NoLogs(path.clone()));
            }
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn collect(directory: &Path, levels: u32, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |why| Error::io(directory, "read", why);
    let mut entries = std::fs::read_dir(directory)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && levels > 0 {
            collect(&entry.path(), levels - 1, found)?;
        } else if kind.is_file() && has_log_name(&entry.path()) {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn has_log_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let name = name.as_encoded_bytes();
    name.ends_with(b".jsonl") || name.ends_with(b".jsonl.zst")
}
