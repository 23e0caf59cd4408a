//! The exported functions: the one list on which entries, tests and `scripts/check-symbols` agree.
//!
//! An entry is a few instructions: it hands the stack pointer and the frame pointer of the caller to a body and jumps,
//! so that the shim's own frames never appear in a stack. `entry N` is a function of N arguments in registers;
//! `entry_on_stack` has too many to add two; `forward` looks at the call and jumps on to the real function with all
//! arguments as they were, variadic ones included; `last` does the same for calls after which the image may be gone, and
//! hands its body the registers that a callee keeps and the arguments (a `process::Entered`).

mod heap;
mod mapping;
mod process;
mod short;

use core::arch::naked_asm;

/// Saves the registers that hold a call's arguments, 56 bytes: `rax` says how many of a variadic one's are vectors.
macro_rules! push_arguments {
    () => {
        "push rdi
         push rsi
         push rdx
         push rcx
         push r8
         push r9
         push rax"
    };
}

/// The reverse of [`push_arguments`].
macro_rules! pop_arguments {
    () => {
        "pop rax
         pop r9
         pop r8
         pop rcx
         pop rdx
         pop rsi
         pop rdi"
    };
}

macro_rules! entry {
    (1, $body:path) => { naked_asm!(".cfi_startproc", "mov rsi, rsp", "mov rdx, rbp", "jmp {}", ".cfi_endproc", sym $body) };
    (2, $body:path) => { naked_asm!(".cfi_startproc", "mov rdx, rsp", "mov rcx, rbp", "jmp {}", ".cfi_endproc", sym $body) };
    (3, $body:path) => { naked_asm!(".cfi_startproc", "mov rcx, rsp", "mov r8, rbp", "jmp {}", ".cfi_endproc", sym $body) };
    (on_stack, $body:path) => {
        naked_asm!(
            ".cfi_startproc",
            "mov rax, rsp",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "push rbp",
            ".cfi_adjust_cfa_offset 8",
            "push rax",
            ".cfi_adjust_cfa_offset 8",
            "call {}",
            "add rsp, 24",
            ".cfi_adjust_cfa_offset -24",
            "ret",
            ".cfi_endproc",
            sym $body
        )
    };
    (last, $body:path) => {
        naked_asm!(
            ".cfi_startproc",
            push_arguments!(),
            // A `leaks::Registers`, from its last field to its first.
            "push r15",
            "push r14",
            "push r13",
            "push r12",
            "push rbx",
            "push rbp",
            "lea rax, [rsp + 104]",
            "push rax",
            "mov rdi, rsp",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 120",
            "call {}",
            "mov r11, rax",
            "add rsp, 64",
            pop_arguments!(),
            ".cfi_adjust_cfa_offset -120",
            "jmp r11",
            ".cfi_endproc",
            sym $body
        )
    };
    (forward, $body:path) => {
        naked_asm!(
            ".cfi_startproc",
            push_arguments!(),
            ".cfi_adjust_cfa_offset 56",
            "call {}",
            "mov r11, rax",
            pop_arguments!(),
            ".cfi_adjust_cfa_offset -56",
            "jmp r11",
            ".cfi_endproc",
            sym $body
        )
    };
}

macro_rules! hooks {
    ($($name:ident ($kind:tt) $body:path;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`, hooked.")]
            ///
            /// # Safety
            /// As for the function of that name.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub(crate) unsafe extern "C" fn $name() {
                entry!($kind, $body)
            }
        )*
    };
}

hooks! {
    malloc (1) heap::malloc;
    calloc (2) heap::calloc;
    realloc (2) heap::realloc;
    reallocarray (3) heap::reallocarray;
    free (1) heap::free;
    free_sized (2) heap::free_sized;
    free_aligned_sized (3) heap::free_aligned_sized;
    posix_memalign (3) heap::posix_memalign;
    aligned_alloc (2) heap::aligned_alloc;
    memalign (2) heap::memalign;
    valloc (1) heap::valloc;
    pvalloc (1) heap::pvalloc;
    mmap (on_stack) mapping::mmap;
    mmap64 (on_stack) mapping::mmap64;
    munmap (2) mapping::munmap;
    mremap (on_stack) mapping::mremap;
    mprotect (3) mapping::mprotect;
    brk (1) mapping::brk;
    sbrk (1) mapping::sbrk;
    _exit (last) process::before_exit;
    _Exit (last) process::before_exit_c99;
    quick_exit (last) process::before_quick_exit;
    execve (last) process::before_execve;
    execv (last) process::before_execv;
    execvp (last) process::before_execvp;
    execvpe (last) process::before_execvpe;
    execl (last) process::before_execl;
    execlp (last) process::before_execlp;
    execle (last) process::before_execle;
    fexecve (last) process::before_fexecve;
    execveat (last) process::before_execveat;
    posix_spawn (on_stack) process::posix_spawn;
    posix_spawnp (on_stack) process::posix_spawnp;
    prctl (forward) process::before_prctl;
    syscall (forward) process::before_syscall;
    chroot (forward) process::before_chroot;
    mount (forward) process::before_mount;
    setuid (forward) process::before_setuid;
    seteuid (forward) process::before_seteuid;
    setreuid (forward) process::before_setreuid;
    setresuid (forward) process::before_setresuid;
    dlclose (1) process::dlclose;
}
