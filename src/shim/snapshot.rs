//! A picture of the address space: /proc/self/smaps as lines of the log. Never on the event path.
//!
//! A mapping of the kernel's that is partly memspy's (the kernel merges neighbours) is cut at its borders, and what
//! this file maps for itself while it works is left out.

use crate::scratch::Scratch;
use crate::{clock, glibc, log, memory, sys};
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use memspy_log::{Line, Op, key, tag};

/// Longest text of /proc/self/smaps that is taken: about ten thousand mappings. Only what is used costs memory.
const MAX_TEXT: usize = 8 << 20;
/// Room for the lines made of it.
const MAX_LINES: usize = 4 << 20;

static LAST_ID: AtomicU64 = AtomicU64::new(0);
/// There was one by [`write_once`].
static ONCE: AtomicBool = AtomicBool::new(false);

/// Numbers the snapshots from 1 again (a new image).
pub(crate) fn restart() {
    LAST_ID.store(0, Relaxed);
    ONCE.store(false, Relaxed);
}

/// Adds a snapshot to `scratch`. A map that can't be read is left out: the log then has none.
pub(crate) fn add(scratch: &mut Scratch, when: &str) {
    add_at(scratch, when, b"");
}

/// The same, of the moment of a mark; an empty name is none.
pub(crate) fn add_at(scratch: &mut Scratch, when: &str, mark: &[u8]) {
    let began = clock::before();
    let brk = glibc::current_break();
    // Without smaps (a kernel may lack it) the sizes in memory are missing.
    let read = Text::read(c"/proc/self/smaps").or_else(|_| Text::read(c"/proc/self/maps"));
    let Ok(text) = read else { return };
    let id = LAST_ID.fetch_add(1, Relaxed) + 1;
    let until = clock::after();
    let mut passing = [scratch.range(), text.range()];
    passing.sort_unstable();
    // After the kernel's list and before the shim's: what is in the first alone was in the making then.
    let making = memory::in_the_making();
    let owned = Owned {
        ranges: text.own_ranges(),
        passing,
    };
    let mut count = 0;
    text.heads(|map| owned.pieces(map.from, map.to, |_, _, _| count += 1));
    scratch.line(const { &tag(Op::Snapshot) }, |line| {
        line.num(const { &key("t") }, began);
        line.num(const { &key("dt") }, until - began);
        line.num(const { &key("id") }, id);
        line.name(const { &key("when") }, when);
        if !mark.is_empty() {
            line.text(log::MARK, mark);
        }
        line.num(const { &key("maps") }, count);
        line.addr(const { &key("brk") }, brk);
        line.num(
            const { &key("stack_limit") },
            sys::rlimit(libc::RLIMIT_STACK),
        );
        if making != 0 {
            line.num(const { &key("making") }, making as u64);
        }
    });
    text.maps(|map| {
        owned.pieces(map.from, map.to, |from, to, own| {
            scratch.line(const { &tag(Op::Map) }, |line| {
                line.num(const { &key("t") }, until);
                line.num(const { &key("snapshot") }, id);
                map.put(line, from, to, own);
            });
        })
    });
}

/// Writes a snapshot by itself, once in the life of an image.
#[cold]
pub(crate) fn write_once(when: &str) {
    if ONCE.swap(true, Relaxed) {
        return;
    }
    let mask = sys::block_signals();
    if let Ok(mut scratch) = scratch() {
        add(&mut scratch, when);
        let _ = scratch.write();
    }
    sys::restore_signals(mask);
}

/// A scratch that is large enough for a snapshot.
pub(crate) fn scratch() -> sys::Result<Scratch> {
    Scratch::new(MAX_LINES)
}

/// What of the address space is memspy's, as it was when the list was made.
struct Owned<'a> {
    /// Ranges in order; none touches another.
    ranges: &'a [(usize, usize)],
    /// Ranges, in order, that are gone as soon as the snapshot is done: it leaves them out.
    passing: [(usize, usize); 2],
}

impl Owned<'_> {
    /// Calls `each` with start, end and whether it is memspy's of every part of a range.
    fn pieces(&self, from: usize, to: usize, mut each: impl FnMut(usize, usize, bool)) {
        let mut at = from;
        while at < to {
            let (passing, border) = covered(&self.passing, at);
            let end = to.min(border);
            if passing {
                at = end;
                continue;
            }
            let (own, border) = covered(self.ranges, at);
            let end = end.min(border);
            each(at, end, own);
            at = end;
        }
    }
}

/// Joins ranges, which are in order, with the neighbours that they touch.
fn join(ranges: &mut [(usize, usize)]) -> &[(usize, usize)] {
    let mut joined = 0;
    for next in 1..ranges.len() {
        let Some(range) = ranges.get(next).copied() else {
            break;
        };
        match ranges.get_mut(joined) {
            Some(last) if range.0 <= last.1 => last.1 = last.1.max(range.1),
            _ => {
                joined += 1;
                ranges.swap(joined, next);
            }
        }
    }
    ranges.get(..=joined).unwrap_or_default()
}

/// Whether one of the ranges, which are in order, contains an address, and the first border above it.
fn covered(ranges: &[(usize, usize)], at: usize) -> (bool, usize) {
    let next = ranges.partition_point(|(_, end)| *end <= at);
    match ranges.get(next) {
        Some((start, end)) if *start <= at => (true, *end),
        Some((start, _)) => (false, *start),
        None => (false, usize::MAX),
    }
}

/// The text of /proc/self/smaps or maps, in pages of its own, with room for a list of memspy's ranges behind it.
struct Text {
    base: *mut u8,
    len: usize,
}

impl Text {
    fn read(path: &CStr) -> sys::Result<Text> {
        let fd = sys::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
        let base = memory::map_own(Text::LEN, memory::ZEROED, -1, 0);
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

    const LEN: usize = MAX_TEXT + memory::MAX_OWN * size_of::<(usize, usize)>();

    fn range(&self) -> (usize, usize) {
        (self.base as usize, self.base as usize + Text::LEN)
    }

    /// The shim's ranges now, in order, neighbours joined.
    fn own_ranges(&self) -> &[(usize, usize)] {
        // SAFETY: the pages behind the text are zeroed, aligned and long enough, and only this function uses them.
        let room = unsafe {
            let at = self.base.add(MAX_TEXT).cast::<(usize, usize)>();
            core::slice::from_raw_parts_mut(at, memory::MAX_OWN)
        };
        let mut count = 0;
        for (place, range) in room.iter_mut().zip(memory::own_ranges()) {
            *place = range;
            count += 1;
        }
        let (ranges, _) = room.split_at_mut(count);
        ranges.sort_unstable();
        join(ranges)
    }

    /// Calls `each` with every mapping, without its sizes in memory.
    fn heads(&self, mut each: impl FnMut(&Map)) {
        let heads = Lines(self.bytes()).filter(|line| is_head(line));
        heads.filter_map(Map::parse).for_each(|map| each(&map));
    }

    /// Calls `each` with every mapping, its sizes in memory filled in.
    fn maps(&self, mut each: impl FnMut(&Map)) {
        let mut open: Option<Map> = None;
        for line in Lines(self.bytes()) {
            if !is_head(line) {
                if let (Some(map), Some((word, bytes))) = (&mut open, size(line)) {
                    map.count(word, bytes);
                }
                continue;
            }
            let next = Map::parse(line);
            if let Some(done) = core::mem::replace(&mut open, next) {
                each(&done);
            }
        }
        if let Some(last) = open {
            each(&last);
        }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        memory::unmap_own(self.base, Text::LEN);
    }
}

/// The lines of a text, each with its newline. Most of smaps is passed over: a byte at a time costs as much as the
/// kernel's making of it.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        // SAFETY: memchr only reads the bytes of the slice.
        let found = unsafe { libc::memchr(self.0.as_ptr().cast(), i32::from(b'\n'), self.0.len()) };
        let len = match found.is_null() {
            true => self.0.len(),
            false => found as usize - self.0.as_ptr() as usize + 1,
        };
        let (line, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(line)
    }
}

/// Whether a mapping begins with this line, and a lower-case digit; lines about one begin with a capital letter.
fn is_head(line: &[u8]) -> bool {
    !line.first().is_some_and(u8::is_ascii_uppercase)
}

/// A line about a mapping, `Rss:      4 kB`, as its word and bytes; `None` for lines that do not matter.
fn size(line: &[u8]) -> Option<(&[u8], usize)> {
    if !matches!(line, [b'R', b's', ..] | [b'P', b'r', ..] | [b'S', b'h', ..]) {
        return None;
    }
    let mut fields = line.trim_ascii().splitn(2, |byte| *byte == b':');
    let word = fields.next()?;
    let number_of_kib = fields.next()?.trim_ascii().strip_suffix(b" kB")?;
    Some((word, number(number_of_kib, 10)?.checked_mul(1024)?))
}

/// What of a mapping is in memory, bytes.
#[derive(Clone, Copy, Default)]
struct Resident {
    all: usize,
    private: usize,
    dirty: usize,
}

/// One mapping: `from-to perms offset dev inode path`, and what smaps adds.
struct Map<'a> {
    from: usize,
    to: usize,
    perms: &'a [u8],
    offset: usize,
    inode: usize,
    path: &'a [u8],
    resident: Option<Resident>,
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
            resident: None,
        })
    }

    /// Takes in a size that smaps gives.
    fn count(&mut self, word: &[u8], bytes: usize) {
        let resident = self.resident.get_or_insert_default();
        match word {
            b"Rss" => resident.all = bytes,
            b"Private_Clean" => resident.private += bytes,
            b"Private_Dirty" => {
                resident.private += bytes;
                resident.dirty += bytes;
            }
            b"Shared_Dirty" => resident.dirty += bytes,
            _ => {}
        }
    }

    fn put(&self, line: &mut Line, from: usize, to: usize, own: bool) {
        line.addr(const { &key("from") }, from);
        line.addr(const { &key("to") }, to);
        line.text(const { &key("perms") }, self.perms);
        let skipped = if self.inode == 0 { 0 } else { from - self.from };
        line.num(const { &key("offset") }, (self.offset + skipped) as u64);
        line.num(const { &key("inode") }, self.inode as u64);
        line.text(const { &key("path") }, self.path);
        // Of a part nobody knows how much is in memory.
        if let Some(resident) = self.resident
            && (from, to) == (self.from, self.to)
        {
            line.num(const { &key("rss") }, resident.all as u64);
            line.num(const { &key("private") }, resident.private as u64);
            line.num(const { &key("dirty") }, resident.dirty as u64);
        }
        if own {
            line.flag(const { &key("own") }, true);
        }
    }
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    usize::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::{Lines, Map, Owned, join, size};

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

    #[test]
    fn a_size_is_read_in_bytes_and_other_lines_are_not_sizes() {
        assert_eq!(
            size(b"Rss:                  12 kB\n"),
            Some((&b"Rss"[..], 12 << 10))
        );
        assert_eq!(size(b"Pss:                  12 kB\n"), None);
        assert_eq!(size(b"VmFlags: rd wr mr mw me ac\n"), None);
        assert_eq!(size(b"ProtectionKey:         0\n"), None);
    }

    #[test]
    fn lines_are_all_of_the_text() {
        let lines: Vec<&[u8]> = Lines(b"one\n\nthree").collect();
        assert_eq!(lines, [&b"one\n"[..], b"\n", b"three"]);
        assert_eq!(Lines(b"").count(), 0);
    }

    #[test]
    fn neighbours_are_one_range() {
        let mut ranges = [(1, 3), (3, 4), (6, 7), (7, 9), (10, 11)];
        assert_eq!(join(&mut ranges), [(1, 4), (6, 9), (10, 11)]);
        assert_eq!(join(&mut []), []);
    }

    #[test]
    fn what_is_mapped_in_passing_is_cut_out_and_own_parts_are_told() {
        let owned = Owned {
            ranges: &[(0x2000, 0x5000), (0x6000, 0x7000), (0x8000, 0xa000)],
            passing: [(0x2000, 0x4000), (0x4000, 0x5000)],
        };
        let mut pieces = Vec::new();
        owned.pieces(0x1000, 0x9000, |from, to, own| pieces.push((from, to, own)));
        let expected = [
            (0x1000, 0x2000, false),
            (0x5000, 0x6000, false),
            (0x6000, 0x7000, true),
            (0x7000, 0x8000, false),
            (0x8000, 0x9000, true),
        ];
        assert_eq!(pieces, expected);
    }
}
