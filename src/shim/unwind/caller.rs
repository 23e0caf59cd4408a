//! The registers of the code that called a hook.

/// The caller's registers as they will be when the call has returned.
///
/// A hook's entry stub finds them without touching anything: with `rsp` at its first instruction, `ip` is the word at
/// `rsp`, `sp` is `rsp` + 8, and `bp` is `rbp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The return address.
    pub(crate) ip: usize,
    /// The stack pointer.
    pub(crate) sp: usize,
    /// The frame pointer, whether or not the caller uses it as one.
    pub(crate) bp: usize,
}

impl Caller {
    /// Of a call whose stack nobody wants.
    pub(crate) const UNKNOWN: Caller = Caller {
        ip: 0,
        sp: 0,
        bp: 0,
    };

    /// From the registers at a hook's first instruction.
    ///
    /// # Safety
    /// `sp` must point to the return address.
    #[inline(always)]
    pub(crate) unsafe fn at(sp: *const usize, bp: usize) -> Caller {
        // SAFETY: the caller vouches for `sp`.
        let ip = unsafe { *sp };
        let sp = sp as usize + size_of::<usize>();
        Caller { ip, sp, bp }
    }
}
