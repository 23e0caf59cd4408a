//! Whose a buffer is, and whose turn it is to write it out: two words, and every step that they can take.
//!
//! ```text
//!          claim             (pointer stored)
//!  free ─────────> claiming ─────────────────> owned        each claim counts one up
//!                     ^                          │
//!                     │ claim, of a dead owner   │
//!                     └──────────────────────────┘
//! ```
//! A claim is one compare-exchange from the word that was read, so that of two threads one gets the buffer. The count
//! makes each claim's word another, also when thread ids come again. While the state is *claiming* the thread pointer
//! beside the word is still the last owner's, and nobody may be recognised by it.
//!
//! The lines of a dead owner are brought into the log before anybody begins in its buffer: by whoever takes the buffer
//! over, or by the end of the image, and only while holding the right to flush. The end looks at the owner again once it
//! has the right: a buffer that was taken over since belongs to somebody who lives.
//!
//! This file knows nothing of the rest of the shim: `tests/loom` runs it with loom's atomics through all interleavings.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

/// In an owner word: the owner's thread pointer is not there yet.
const CLAIMING: u64 = 1 << 32;

/// Who owns a buffer, at one moment. A later claim makes another word, also by a thread of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    /// The thread's id, 0: nobody.
    pub(crate) fn tid(self) -> u32 {
        self.0 as u32
    }
}

/// The owner of a buffer, at all times.
#[repr(C)]
pub(crate) struct OwnerWord {
    /// Thread id of the owner in the low half, 0: free; [`CLAIMING`]; above it the number of claims.
    word: AtomicU64,
    /// Thread pointer of the owner.
    thread_pointer: AtomicUsize,
}

impl OwnerWord {
    /// Of a buffer that nobody owns. Not `const` under loom, whose atomics are not.
    #[cfg(not(loom))]
    pub(crate) const fn free() -> OwnerWord {
        OwnerWord {
            word: AtomicU64::new(0),
            thread_pointer: AtomicUsize::new(0),
        }
    }

    /// Of a buffer that nobody owns.
    #[cfg(loom)]
    pub(crate) fn free() -> OwnerWord {
        OwnerWord {
            word: AtomicU64::new(0),
            thread_pointer: AtomicUsize::new(0),
        }
    }

    /// Who it is now.
    pub(crate) fn read(&self) -> Owner {
        Owner(self.word.load(Acquire))
    }

    /// Whether `owner`, as it was read, has or had this id or this thread pointer. Two living threads share neither: to
    /// a thread that owns no buffer this says that the owner is dead.
    pub(crate) fn was_of(&self, owner: Owner, tid: u32, pointer: usize) -> bool {
        let settled = owner.tid() != 0 && owner.0 & CLAIMING == 0;
        settled && (owner.tid() == tid || self.thread_pointer.load(Relaxed) == pointer)
    }

    /// Makes a thread the owner, unless the owner has changed since `from` was read.
    pub(crate) fn claim(&self, from: Owner, tid: u32, pointer: usize) -> bool {
        let claims = (from.0 & !(CLAIMING | u64::from(u32::MAX))).wrapping_add(CLAIMING << 1);
        let owner = claims | u64::from(tid);
        let claimed = self
            .word
            .compare_exchange(from.0, owner | CLAIMING, AcqRel, Relaxed)
            .is_ok();
        if claimed {
            self.thread_pointer.store(pointer, Relaxed);
            self.word.store(owner, Release);
        }
        claimed
    }

    /// Makes a thread the owner of a buffer that nobody owns.
    pub(crate) fn claim_free(&self, tid: u32, pointer: usize) -> bool {
        let owner = self.read();
        owner.tid() == 0 && self.claim(owner, tid, pointer)
    }

    /// Makes a thread the owner of a dead one's buffer, once `drain` has brought the lines into the log. When that fails
    /// the buffer is the dead owner's again: somebody else, or the end, will find the lines.
    pub(crate) fn inherit(
        &self,
        dead: Owner,
        tid: u32,
        pointer: usize,
        drain: impl FnOnce() -> bool,
    ) -> bool {
        if !self.claim(dead, tid, pointer) {
            return false;
        }
        if drain() {
            return true;
        }
        // Nobody takes a buffer from a living thread, so this one is still ours to give.
        self.claim(self.read(), dead.tid(), 0);
        false
    }

    /// Nobody owns the buffer any more, or not yet. Only where no other thread can claim it.
    pub(crate) fn disown(&self) {
        self.thread_pointer.store(0, Relaxed);
        self.word.store(0, Release);
    }
}

/// Does `write` while thread `me` has the right to flush that `flusher` stands for. `None`: another thread has it.
pub(crate) fn in_turn<T>(flusher: &AtomicU32, me: u32, write: impl FnOnce() -> T) -> Option<T> {
    flusher.compare_exchange(0, me, AcqRel, Relaxed).ok()?;
    let answer = write();
    flusher.store(0, Release);
    Some(answer)
}

/// Does `write` with the right to flush a dead owner's buffer. `None`: another thread has the right, or the buffer.
pub(crate) fn in_turn_of<T>(
    word: &OwnerWord,
    dead: Owner,
    flusher: &AtomicU32,
    me: u32,
    write: impl FnOnce() -> T,
) -> Option<T> {
    in_turn(flusher, me, || (word.read() == dead).then(write))?
}
