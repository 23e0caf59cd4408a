//! Who called a hook.

/// The registers of a hook's caller, as they are when the hook returns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Return address.
    pub(crate) ip: usize,
    /// Stack pointer after the return.
    pub(crate) sp: usize,
    /// Frame pointer register; a frame pointer only in code that keeps one.
    pub(crate) bp: usize,
}

impl Caller {
    /// From the registers at a hook's first instruction.
    ///
    /// # Safety
    /// `sp` must point to the return address.
    #[inline(always)]
    pub(crate) unsafe fn at(sp: *const usize, bp: usize) -> Caller {
        // SAFETY: the caller vouches for `sp`.
        Caller {
            ip: unsafe { *sp },
            sp: sp as usize + size_of::<usize>(),
            bp,
        }
    }
}

impl Caller {
    /// Appends the number of the caller's stack to a line of a call that acquires memory.
    #[inline(always)]
    pub(crate) fn put_stack(&self, _line: &mut memspy_log::Line) {}

    /// The same for a call that releases memory, where stacks are an option.
    #[inline(always)]
    pub(crate) fn put_stack_of_release(&self, _line: &mut memspy_log::Line) {}
}
