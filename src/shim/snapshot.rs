//! A picture of the address space: /proc/self/maps as lines of the log. Never on the event path.

use crate::scratch::Scratch;
use crate::{clock, glibc, memory, sys};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memspy_log::{Line, Op, key, tag};

/// Longest text of /proc/self/maps that is taken: about ten thousand mappings.
const MAX_TEXT: usize = 1 << 20;
/// Room for the lines made of it.
const MAX_LINES: usize = 4 << 20;

static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Numbers the snapshots from 1 again (a new image).
pub(crate) fn restart() {
    LAST_ID.store(0, Relaxed);
}

/// Adds a snapshot to `scratch`. A map that can't be read is left out: the log then has none.
pub(crate) fn add(scratch: &mut Scratch, when: &str) {
    let Ok(text) = Text::read() else { return };
    let id = LAST_ID.fetch_add(1, Relaxed) + 1;
    let now = clock::before();
    let own = [scratch.range(), text.range()];
    let is_scratch = |from, to| own.iter().any(|range| (from, to) == *range);
    let lines = || {
        text.bytes()
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(Map::parse)
    };
    let maps = lines().filter(|map| !is_scratch(map.from, map.to)).count();
    scratch.line(const { &tag(Op::Snapshot) }, |line| {
        line.num(const { &key("t") }, now);
        line.num(const { &key("id") }, id);
        line.name(const { &key("when") }, when);
        line.num(const { &key("maps") }, maps as u64);
        line.addr(const { &key("brk") }, glibc::current_break());
    });
    for map in lines().filter(|map| !is_scratch(map.from, map.to)) {
        scratch.line(const { &tag(Op::Map) }, |line| map.put(line, now, id));
    }
}

/// A scratch that is large enough for a snapshot.
pub(crate) fn scratch() -> sys::Result<Scratch> {
    Scratch::new(MAX_LINES)
}

/// The text of /proc/self/maps, in pages of its own.
struct Text {
    base: *mut u8,
    len: usize,
}

impl Text {
    fn read() -> sys::Result<Text> {
        let fd = sys::open(c"/proc/self/maps", libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: no address is asked for, so nothing existing is touched.
        let base = unsafe { sys::mmap(0, MAX_TEXT, prot, flags, -1, 0) };
        let mut text = Text {
            base: base.inspect_err(|_| sys::close(fd))?,
            len: 0,
        };
        loop {
            // SAFETY: the pages from `len` on are this value's and not borrowed.
            let room = unsafe {
                core::slice::from_raw_parts_mut(text.base.add(text.len), MAX_TEXT - text.len)
            };
            match sys::read(fd, room) {
                Ok(0) => break,
                Ok(len) => text.len += len,
                Err(_) => break,
            }
        }
        sys::close(fd);
        Ok(text)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the kernel filled these bytes.
        unsafe { core::slice::from_raw_parts(self.base, self.len) }
    }

    fn range(&self) -> (usize, usize) {
        (self.base as usize, self.base as usize + MAX_TEXT)
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: the pages are this value's, and it is gone.
        unsafe { sys::munmap(self.base, MAX_TEXT) };
    }
}

/// One line of /proc/self/maps: `from-to perms offset dev inode path`.
struct Map<'a> {
    from: usize,
    to: usize,
    perms: &'a [u8],
    offset: usize,
    inode: usize,
    path: &'a [u8],
}

impl Map<'_> {
    /// A line with its newline; `None` for one that is cut off.
    fn parse(line: &[u8]) -> Option<Map<'_>> {
        let line = line.strip_suffix(b"\n")?;
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut range = fields.next()?.split(|byte| *byte == b'-');
        let (from, to) = (number(range.next()?, 16)?, number(range.next()?, 16)?);
        let perms = fields.next()?;
        let offset = number(fields.next()?, 16)?;
        let _device = fields.next()?;
        let inode = number(fields.next()?, 10)?;
        let path = fields.next().unwrap_or_default().trim_ascii_start();
        Some(Map {
            from,
            to,
            perms,
            offset,
            inode,
            path,
        })
    }

    fn put(&self, line: &mut Line, now: u64, id: u64) {
        line.num(const { &key("t") }, now);
        line.num(const { &key("snapshot") }, id);
        line.addr(const { &key("from") }, self.from);
        line.addr(const { &key("to") }, self.to);
        line.text(const { &key("perms") }, self.perms);
        line.num(const { &key("offset") }, self.offset as u64);
        line.num(const { &key("inode") }, self.inode as u64);
        line.text(const { &key("path") }, self.path);
        if memory::is_own(self.from, self.to) {
            line.flag(const { &key("own") }, true);
        }
    }
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    usize::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::Map;

    #[test]
    fn a_line_with_blanks_in_its_path_is_read_whole() {
        let line =
            b"7f00a000-7f00b000 r-xp 00001000 fe:00 42                 /tmp/a  b (deleted)\n";
        let map = Map::parse(line).expect("is a line");
        assert_eq!(
            (map.from, map.to, map.offset, map.inode),
            (0x7f00a000, 0x7f00b000, 0x1000, 42)
        );
        assert_eq!(map.perms, b"r-xp");
        assert_eq!(map.path, b"/tmp/a  b (deleted)");
    }

    #[test]
    fn a_line_that_is_cut_off_is_left_out() {
        assert!(Map::parse(b"7f00a000-7f00b000 r-xp 00001000 fe").is_none());
        assert!(Map::parse(b"nonsense\n").is_none());
    }
}
