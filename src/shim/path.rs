//! Paths under construction, in the shim's own memory: a small thread's stack has no room for them.

use crate::memory;
use core::ffi::CStr;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

const MAX: usize = 4096;

/// A path being put together; always NUL-terminated. What it does not need goes back in the end, if no memory was taken
/// since.
pub(crate) struct PathText {
    bytes: &'static mut [u8],
    /// Bytes of the path, and of the longest that there was.
    len: usize,
    longest: usize,
}

impl PathText {
    /// The empty path; `None` when there is no memory.
    pub(crate) fn new() -> Option<PathText> {
        let place = memory::bump(MAX, 1)?;
        // SAFETY: `bump` gave out MAX bytes, zeroed and to nobody else.
        let bytes = unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), MAX) };
        Some(PathText {
            bytes,
            len: 0,
            longest: 0,
        })
    }

    /// Appends; `None` when the path would be too long.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.bytes
            .get_mut(self.len..end)
            .filter(|_| end < MAX)?
            .copy_from_slice(bytes);
        self.len = end;
        self.longest = self.longest.max(end);
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
        // Until it has answered nobody knows how much it has written.
        self.longest = MAX;
        self.len = call(self.bytes)?.len();
        self.longest = self.len;
        Ok(self.bytes())
    }

    /// What there is so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// `path` as the `number`th of its name: `a.jsonl`, `a.2.jsonl`, `a.3.jsonl`.
    pub(crate) fn numbered(path: &CStr, number: u64) -> Option<PathText> {
        let mut numbered = PathText::new()?;
        let path = path.to_bytes();
        if number == 1 {
            numbered.push(path)?;
            return Some(numbered);
        }
        let (stem, end) = match path.strip_suffix(b".jsonl") {
            Some(stem) => (stem, &b".jsonl"[..]),
            None => (path, &b""[..]),
        };
        numbered.push(stem)?;
        numbered.push(b".")?;
        numbered.push_number(number)?;
        numbered.push(end)?;
        Some(numbered)
    }

    /// The path as a C string. Its memory is never freed.
    pub(crate) fn keep(self) -> Option<&'static CStr> {
        let mut path = ManuallyDrop::new(self);
        let len = path.len + 1;
        path.give_back(len);
        // SAFETY: the memory is never freed, and nobody but this reference knows the place any more.
        let kept = unsafe { core::slice::from_raw_parts(path.bytes.as_ptr(), len) };
        CStr::from_bytes_until_nul(kept).ok()
    }

    fn give_back(&mut self, keep: usize) {
        let place = NonNull::from(&mut *self.bytes).cast();
        // SAFETY: the place of MAX bytes is a call of `bump`, and the caller uses `keep` of it.
        unsafe { memory::give_back(place, MAX, keep, self.longest) };
    }
}

impl Drop for PathText {
    fn drop(&mut self) {
        self.give_back(0);
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
        let path = path.keep().expect("short");
        let numbered = |path, number| PathText::numbered(path, number).expect("short");
        assert_eq!(numbered(path, 2).to_bytes(), b"/tmp/memspy.cat.12.2.jsonl");
        assert_eq!(numbered(path, 1).to_bytes(), path.to_bytes());
        assert_eq!(numbered(c"log", 10).to_bytes(), b"log.10");
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let mut path = PathText::new().expect("memory");
        assert_eq!(path.push(&[b'a'; 4095]), Some(()));
        assert_eq!(path.push(b"b"), None);
        assert_eq!(path.to_bytes().len(), 4095);
    }
}
