//! A process or thread that stops where its tracer wants it to, by ptrace(2).

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long a traced process may go without a stop before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(60);

/// Why a traced process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A step is done, or a breakpoint in the program was reached.
    Trap,
    /// Before or after a system call.
    Syscall,
    /// It made another process or thread, which is traced too and stopped: its id.
    Made(i32),
    /// It has replaced its image.
    Exec,
    /// A signal is about to be delivered.
    Signal(i32),
    /// It has ended with a status.
    Exited(i32),
    /// A signal has ended it.
    Killed(i32),
}

/// A traced process or thread, stopped unless a method is waiting for it. Killed when dropped.
///
/// Only the thread that made it can use it: the kernel's tracers are threads.
pub(crate) struct Tracee {
    id: i32,
    ended: bool,
    stops: Arc<AtomicU64>,
    watch: Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>,
    not_sent: std::marker::PhantomData<*const ()>,
}

impl Tracee {
    /// Starts a command, stopped after its exec.
    #[expect(clippy::zombie_processes, reason = "waited for as a tracee")]
    pub(crate) fn start(command: &mut Command) -> Self {
        // SAFETY: the call is a system call, which a child between fork and exec may make.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
        let mut tracee = Self::new(child.id() as i32);
        assert_eq!(tracee.wait(), Stop::Trap, "{command:?}");
        let options = libc::PTRACE_O_EXITKILL
            | libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_TRACECLONE;
        tracee.request(libc::PTRACE_SETOPTIONS, options as usize);
        tracee
    }

    /// Follows forked children from now on, too.
    pub(crate) fn follow_forks(&self) {
        let options = libc::PTRACE_O_EXITKILL
            | libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK;
        self.request(libc::PTRACE_SETOPTIONS, options as usize);
    }

    /// The process or thread that a [`Stop::Made`] told of.
    pub(crate) fn made(id: i32) -> Self {
        let mut tracee = Self::new(id);
        assert_eq!(tracee.wait(), Stop::Signal(libc::SIGSTOP));
        tracee
    }

    fn new(id: i32) -> Self {
        let stops = Arc::new(AtomicU64::new(0));
        let (alive, gone) = mpsc::channel();
        let seen = Arc::clone(&stops);
        let watch = thread::spawn(move || {
            let mut before = 0;
            while gone.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                if seen.load(Relaxed) == before {
                    eprintln!("{id}: no stop in {LIMIT:?}, killed");
                    // SAFETY: a system call; the tracee has not been waited for, so its id is its own.
                    unsafe { libc::kill(id, libc::SIGKILL) };
                }
                before = seen.load(Relaxed);
            }
        });
        Self {
            id,
            ended: false,
            stops,
            watch: Some((alive, watch)),
            not_sent: std::marker::PhantomData,
        }
    }

    /// The id of the process or thread.
    pub(crate) fn id(&self) -> i32 {
        self.id
    }

    /// Executes one instruction; with a signal, its handler's first.
    pub(crate) fn step(&mut self, signal: i32) -> Stop {
        self.request(libc::PTRACE_SINGLESTEP, signal as usize);
        self.wait()
    }

    /// Runs on, with a signal if it is not 0.
    pub(crate) fn resume(&mut self, signal: i32) -> Stop {
        self.request(libc::PTRACE_CONT, signal as usize);
        self.wait()
    }

    /// Runs on without being waited for.
    pub(crate) fn release(&self) {
        self.request(libc::PTRACE_CONT, 0);
    }

    /// Runs on until the beginning or the end of a system call.
    pub(crate) fn resume_to_syscall(&mut self, signal: i32) -> Stop {
        self.request(libc::PTRACE_SYSCALL, signal as usize);
        self.wait()
    }

    /// Executes one instruction. If it is a call out of `code`, all of what is called; answers the stop then.
    pub(crate) fn step_over(&mut self, code: &Range<u64>) -> Stop {
        let was_inside = code.contains(&self.ip());
        let stop = self.step(0);
        if !was_inside || stop != Stop::Trap || code.contains(&self.ip()) {
            return stop;
        }
        let stack = self.registers().rsp;
        let answer = self.peek(stack);
        if !code.contains(&answer) {
            return stop; // a jump, or the hook's own return
        }
        let instruction = self.peek(answer);
        self.poke(answer, instruction & !0xff | 0xcc);
        loop {
            let stop = self.resume(0);
            let mut registers = self.registers();
            if stop != Stop::Trap || registers.rsp > stack {
                self.poke(answer, instruction);
                registers.rip = answer;
                self.set_registers(&registers);
                return stop;
            }
            // The same instruction, reached by a call within the call.
            self.poke(answer, instruction);
            registers.rip = answer;
            self.set_registers(&registers);
            assert_eq!(self.step(0), Stop::Trap);
            self.poke(answer, instruction & !0xff | 0xcc);
        }
    }

    /// Whether the last stop was at a breakpoint in the program, not behind a step.
    pub(crate) fn is_at_breakpoint(&self) -> bool {
        // SAFETY: the kernel writes one `siginfo_t`, for which all-zero is a valid value.
        let info = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let answer = libc::ptrace(libc::PTRACE_GETSIGINFO, self.id, 0, &raw mut info);
            assert_eq!(answer, 0, "{}", io::Error::last_os_error());
            info
        };
        // int3 has the kernel's own code, a step has TRAP_TRACE.
        const SI_KERNEL: i32 = 0x80;
        info.si_code == SI_KERNEL
    }

    fn peek(&self, address: u64) -> u64 {
        // SAFETY: reads the tracee's memory; glibc's wrapper returns the word.
        unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, self.id, address, 0) as u64 }
    }

    fn poke(&self, address: u64, word: u64) {
        // SAFETY: writes into the tracee's memory only.
        let answer = unsafe { libc::ptrace(libc::PTRACE_POKEDATA, self.id, address, word) };
        assert_eq!(answer, 0, "{}", io::Error::last_os_error());
    }

    /// Kills it as SIGKILL does, at the instruction where it is; a process with all its threads.
    pub(crate) fn kill(&mut self) {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id));
        let tasks = tasks.into_iter().flatten().flatten();
        let threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
        let ids: Vec<i32> = threads.filter(|id| *id != self.id).collect();
        // SAFETY: a system call; the tracee has not been waited for, so its id is its own.
        unsafe { libc::kill(self.id, libc::SIGKILL) };
        // The kernel keeps a process until its traced threads have been waited for.
        for id in ids.into_iter().chain([self.id]) {
            let mut status = 0;
            // SAFETY: a system call that fills `status`.
            while unsafe { libc::waitpid(id, &raw mut status, libc::__WALL) } == id
                && libc::WIFSTOPPED(status)
            {}
        }
        self.ended = true;
    }

    /// The address of the next instruction.
    pub(crate) fn ip(&self) -> u64 {
        const RIP: usize = 16 * 8;
        // SAFETY: reads the tracee's register; glibc's wrapper returns the word.
        unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, self.id, RIP, 0) as u64 }
    }

    /// The registers.
    pub(crate) fn registers(&self) -> libc::user_regs_struct {
        let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
        // SAFETY: the kernel fills the structure, for which all zeros are valid too.
        unsafe {
            let answer = libc::ptrace(libc::PTRACE_GETREGS, self.id, 0, registers.as_mut_ptr());
            assert_eq!(answer, 0, "{}", io::Error::last_os_error());
            registers.assume_init()
        }
    }

    /// Changes the registers.
    pub(crate) fn set_registers(&self, registers: &libc::user_regs_struct) {
        // SAFETY: the kernel reads the structure.
        let answer = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.id, 0, registers) };
        assert_eq!(answer, 0, "{}", io::Error::last_os_error());
    }

    fn request(&self, request: libc::c_uint, data: usize) {
        // SAFETY: requests that take a number and write nothing into this process.
        let answer = unsafe { libc::ptrace(request, self.id, 0, data) };
        assert_eq!(answer, 0, "{request}: {}", io::Error::last_os_error());
    }

    /// Waits for the next stop.
    pub(crate) fn wait(&mut self) -> Stop {
        let mut status = 0;
        // SAFETY: a system call that fills `status`.
        while unsafe { libc::waitpid(self.id, &raw mut status, libc::__WALL) } != self.id {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EINTR), "{error}");
        }
        self.stops.fetch_add(1, Relaxed);
        if libc::WIFEXITED(status) {
            self.ended = true;
            return Stop::Exited(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            self.ended = true;
            return Stop::Killed(libc::WTERMSIG(status));
        }
        match (libc::WSTOPSIG(status), status >> 16) {
            (libc::SIGTRAP, 0) => Stop::Trap,
            (libc::SIGTRAP, libc::PTRACE_EVENT_EXEC) => Stop::Exec,
            (libc::SIGTRAP, _) => Stop::Made(self.message()),
            (signal, _) if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
            (signal, _) => Stop::Signal(signal),
        }
    }

    fn message(&self) -> i32 {
        let mut message: libc::c_ulong = 0;
        // SAFETY: the kernel fills `message`.
        unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, self.id, 0, &raw mut message) };
        message as i32
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
        if let Some((alive, watch)) = self.watch.take() {
            drop(alive);
            let _ = watch.join();
        }
    }
}
