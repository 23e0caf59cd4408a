//! Paths under construction, in the shim's own memory: a small thread's stack has no room for them.

use crate::memory;
use core::ffi::CStr;

const MAX: usize = 4096;

/// A path being put together; always NUL-terminated.
pub(crate) struct PathText {
    bytes: &'static mut [u8],
    len: usize,
}

impl PathText {
    /// The empty path; `None` when there is no memory.
    pub(crate) fn new() -> Option<PathText> {
        let place = memory::bump(MAX, 1)?;
        // SAFETY: `bump` gave out MAX bytes, zeroed and to nobody else.
        let bytes = unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), MAX) };
        Some(PathText { bytes, len: 0 })
    }

    /// Appends; `None` when the path would be too long.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.bytes
            .get_mut(self.len..end)
            .filter(|_| end < MAX)?
            .copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    /// Appends a number in decimal.
    pub(crate) fn push_number(&mut self, number: u64) -> Option<()> {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            *digits.get_mut(at)? = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.push(digits.get(at..)?);
            }
        }
    }

    /// Lets a system call fill in the path.
    pub(crate) fn fill<E>(
        &mut self,
        call: impl FnOnce(&mut [u8]) -> Result<&[u8], E>,
    ) -> Result<&[u8], E> {
        self.len = call(self.bytes)?.len();
        Ok(self.bytes())
    }

    /// What there is so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The same path as the `number`th of its name: `a.jsonl`, `a.2.jsonl`, `a.3.jsonl`.
    pub(crate) fn numbered(&self, number: u64) -> Option<PathText> {
        let mut path = PathText::new()?;
        if number == 1 {
            path.push(self.bytes())?;
            return Some(path);
        }
        let (stem, end) = match self.bytes().strip_suffix(b".jsonl") {
            Some(stem) => (stem, &b".jsonl"[..]),
            None => (self.bytes(), &b""[..]),
        };
        path.push(stem)?;
        path.push(b".")?;
        path.push_number(number)?;
        path.push(end)?;
        Some(path)
    }

    /// The path as a C string. Its memory is never freed.
    pub(crate) fn keep(self) -> Option<&'static CStr> {
        CStr::from_bytes_until_nul(self.bytes).ok()
    }
}

impl core::ops::Deref for PathText {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        CStr::from_bytes_until_nul(self.bytes).unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use super::PathText;

    #[test]
    fn a_taken_name_is_numbered_before_its_extension() {
        let mut path = PathText::new().expect("memory");
        path.push(b"/tmp/memspy.cat.12.jsonl").expect("short");
        let second = path.numbered(2).expect("short");
        assert_eq!(second.to_bytes(), b"/tmp/memspy.cat.12.2.jsonl");
        assert_eq!(path.numbered(1).expect("short").to_bytes(), path.bytes());
        let mut plain = PathText::new().expect("memory");
        plain.push(b"log").expect("short");
        assert_eq!(plain.numbered(10).expect("short").to_bytes(), b"log.10");
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let mut path = PathText::new().expect("memory");
        assert_eq!(path.push(&[b'a'; 4095]), Some(()));
        assert_eq!(path.push(b"b"), None);
        assert_eq!(path.to_bytes().len(), 4095);
    }
}
