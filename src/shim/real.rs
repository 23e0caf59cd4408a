//! The real functions: each hooked name's next definition, found once, before the first call goes through.
//!
//! The only user of redhook and of dlsym. Names that every glibc has are looked up by redhook's `dlsym_next`; names
//! that some lack, by our own walk. No lock: racing resolvers compute the same pointers.

use crate::{bootstrap, elf, sys};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};

macro_rules! table {
    ($(always $name:ident $text:literal;)* $(maybe $other:ident $other_text:literal;)*) => {
        #[expect(non_snake_case, reason = "the fields are named as the functions, _Exit among them")]
        /// Places of the real functions' addresses; 0 until [`resolve`] has found them, or when there is none.
        pub(crate) struct Table {
            $(pub(crate) $name: AtomicUsize,)*
            $(pub(crate) $other: AtomicUsize,)*
        }

        /// The real functions.
        pub(crate) static REAL: Table = Table {
            $($name: AtomicUsize::new(0),)*
            $($other: AtomicUsize::new(0),)*
        };

        fn find_all() {
            $(
                // SAFETY: the name ends with NUL, and every glibc has it: redhook panics on a missing one.
                let found = unsafe { redhook::ld_preload::dlsym_next(concat!($text, "\0")) };
                REAL.$name.store(found as usize, Release);
            )*
            $(
                let name = const {
                    match CStr::from_bytes_with_nul(concat!($other_text, "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("one NUL, at the end"),
                    }
                };
                REAL.$other.store(elf::next_symbol(name).unwrap_or(0), Release);
            )*
        }
    };
}

table! {
    always malloc "malloc";
    always calloc "calloc";
    always realloc "realloc";
    always free "free";
    always posix_memalign "posix_memalign";
    always aligned_alloc "aligned_alloc";
    always memalign "memalign";
    always valloc "valloc";
    always pvalloc "pvalloc";
    always mmap "mmap";
    always mmap64 "mmap64";
    always munmap "munmap";
    always mremap "mremap";
    always mprotect "mprotect";
    always brk "brk";
    always sbrk "sbrk";
    always _exit "_exit";
    always _Exit "_Exit";
    always quick_exit "quick_exit";
    always execve "execve";
    always execv "execv";
    always execvp "execvp";
    always execvpe "execvpe";
    always execl "execl";
    always execlp "execlp";
    always execle "execle";
    always fexecve "fexecve";
    always posix_spawn "posix_spawn";
    always posix_spawnp "posix_spawnp";
    always prctl "prctl";
    always syscall "syscall";
    always chroot "chroot";
    always mount "mount";
    always setuid "setuid";
    always seteuid "seteuid";
    always setreuid "setreuid";
    always setresuid "setresuid";
    maybe reallocarray "reallocarray";
    maybe free_sized "free_sized";
    maybe free_aligned_sized "free_aligned_sized";
    maybe execveat "execveat";
    maybe dlclose "dlclose";
}

static RESOLVER: AtomicU64 = AtomicU64::new(0);
static RESOLVED: AtomicU64 = AtomicU64::new(0);

/// Finds all functions, if that has not happened. False inside the search itself: dlsym may allocate.
#[cold]
pub(crate) fn resolve() -> bool {
    if RESOLVED.load(Acquire) != 0 {
        return true;
    }
    let me = u64::from(sys::gettid() as u32);
    if RESOLVER.swap(me, AcqRel) == me {
        return false;
    }
    find_all();
    RESOLVED.store(1, Release);
    RESOLVER.store(0, Release);
    true
}

/// The address in `place`, after resolving if need be; 0 inside the search.
#[inline(always)]
pub(crate) fn address(place: &AtomicUsize) -> usize {
    match place.load(Relaxed) {
        0 => address_slowly(place),
        address => address,
    }
}

#[cold]
#[inline(never)]
fn address_slowly(place: &AtomicUsize) -> usize {
    resolve();
    place.load(Acquire)
}

/// Whether a block came from [`bootstrap`] and must stay away from the real functions.
#[inline(always)]
pub(crate) fn is_bootstrap(ptr: usize) -> bool {
    bootstrap::contains(ptr)
}
