//! Runs a program with all its threads and children traced, and makes system calls that a library's code issues fail.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::support::TestDir;

/// How long a run may take before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(60);

/// Which of the library's system calls fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// The number of the first, from 1; 0: none.
    pub(crate) first: usize,
    /// Whether all the later ones fail too, where the error fits the call.
    pub(crate) persistent: bool,
    /// Which of the errors that fit the first one.
    pub(crate) error: usize,
}

/// What came of a run.
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Whether it had to be killed.
    pub(crate) hung: bool,
    /// The library's system calls that could be refused, in their order.
    pub(crate) calls: Vec<i64>,
    /// The first that was refused, and its error.
    pub(crate) refused: Option<(i64, i32)>,
}

/// Errors that a system call can fail with: what the kernel says when something is used up, and what a sandbox says.
/// Empty for calls that can't fail (getpid) or that every sandbox allows (rt_sigprocmask, exit).
pub(crate) fn errors(call: i64) -> &'static [i32] {
    use libc::{
        EACCES, EAGAIN, ECHILD, EDQUOT, EINTR, EIO, EMFILE, ENODEV, ENOMEM, ENOSPC, ENOSYS,
        EOPNOTSUPP, EPERM, EROFS,
    };
    match call {
        libc::SYS_getpid
        | libc::SYS_gettid
        | libc::SYS_getppid
        | libc::SYS_rt_sigprocmask
        | libc::SYS_rt_sigreturn
        | libc::SYS_exit
        | libc::SYS_exit_group => &[],
        libc::SYS_open | libc::SYS_openat => {
            &[EMFILE, ENOSPC, EACCES, EINTR, ENOMEM, EROFS, EIO, ENOSYS]
        }
        libc::SYS_write | libc::SYS_pwrite64 => &[ENOSPC, EIO, EINTR, EDQUOT, EPERM],
        libc::SYS_fallocate => &[ENOSPC, EOPNOTSUPP, EINTR, EIO, ENOSYS],
        libc::SYS_mmap => &[ENOMEM, ENODEV, EPERM, EAGAIN],
        libc::SYS_close => &[EINTR, EIO],
        libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3 => {
            &[EAGAIN, ENOMEM, ENOSYS, EPERM]
        }
        libc::SYS_wait4 => &[ECHILD],
        libc::SYS_futex | libc::SYS_nanosleep | libc::SYS_poll => &[EINTR],
        _ => &[EPERM, ENOSYS, ENOMEM, EINTR, EIO],
    }
}

/// Runs a command to its end and refuses system calls issued by code of `library`, a file's name.
pub(crate) fn run_refusing(command: &mut Command, library: &'static str, refusal: Refusal) -> Run {
    let output = TestDir::on_tmpfs();
    let file = |name| File::create(output.join(name)).expect("the output can be kept");
    command
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .process_group(0);
    // SAFETY: the call is a system call, which a child between fork and exec may make.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
    let pid = child.id() as i32;
    let watch = Watch::over(pid);
    let mut refuser = Refuser {
        library,
        refusal,
        code: HashMap::new(),
        pending: HashMap::new(),
        known: HashSet::from([pid]),
        calls: Vec::new(),
        refused: None,
    };
    let status = refuser.run(pid);
    // Its end has been waited for; this forgets it.
    let _ = child.try_wait();
    Run {
        status: ExitStatus::from_raw(status),
        stdout: fs::read(output.join("stdout")).unwrap(),
        stderr: fs::read(output.join("stderr")).unwrap(),
        hung: watch.hung(),
        calls: refuser.calls,
        refused: refuser.refused,
    }
}

/// Kills a process group that takes too long.
struct Watch {
    over: mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watch {
    fn over(group: i32) -> Self {
        let (over, waiting) = mpsc::channel();
        let thread = thread::spawn(move || {
            let hangs = waiting.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
            if hangs {
                // SAFETY: a system call; the group's leader is waited for after this thread only.
                unsafe { libc::kill(-group, libc::SIGKILL) };
            }
            hangs
        });
        Self { over, thread }
    }

    fn hung(self) -> bool {
        drop(self.over);
        self.thread.join().expect("the watch does not panic")
    }
}

struct Refuser {
    library: &'static str,
    refusal: Refusal,
    /// Of each process or thread, the library's code, once it is loaded.
    code: HashMap<i32, Range<u64>>,
    /// Refused calls that have not returned yet, with what they will answer.
    pending: HashMap<i32, i32>,
    known: HashSet<i32>,
    calls: Vec<i64>,
    refused: Option<(i64, i32)>,
}

impl Refuser {
    /// Until all traced processes have ended; answers the first one's status.
    fn run(&mut self, root: i32) -> i32 {
        let mut answer = 0;
        let mut started = false;
        loop {
            let mut status = 0;
            // Other threads of the tests have children of their own.
            let options = libc::__WALL | libc::__WNOTHREAD;
            // SAFETY: a system call that fills `status`.
            let id = unsafe { libc::waitpid(-1, &raw mut status, options) };
            if id < 0 {
                let error = io::Error::last_os_error().raw_os_error();
                assert!(matches!(error, Some(libc::ECHILD | libc::EINTR)));
                if error == Some(libc::ECHILD) {
                    return answer;
                }
                continue;
            }
            if !libc::WIFSTOPPED(status) {
                self.known.remove(&id);
                if id == root {
                    answer = status;
                }
                continue;
            }
            if !started {
                started = true;
                let follow = libc::PTRACE_O_EXITKILL
                    | libc::PTRACE_O_TRACESYSGOOD
                    | libc::PTRACE_O_TRACEEXEC
                    | libc::PTRACE_O_TRACECLONE
                    | libc::PTRACE_O_TRACEFORK
                    | libc::PTRACE_O_TRACEVFORK;
                request(libc::PTRACE_SETOPTIONS, id, follow as usize);
            }
            let signal = self.stopped(id, status);
            request(libc::PTRACE_SYSCALL, id, signal as usize);
        }
    }

    /// Sees to a stop; answers the signal to go on with.
    fn stopped(&mut self, id: i32, status: i32) -> i32 {
        let signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP | 0x80 {
            self.system_call(id);
            return 0;
        }
        let is_new = self.known.insert(id);
        match (signal, status >> 16) {
            (libc::SIGTRAP, event) => {
                if event == libc::PTRACE_EVENT_EXEC {
                    self.code.remove(&id);
                }
                0
            }
            (libc::SIGSTOP, _) if is_new => 0,
            _ => signal,
        }
    }

    fn system_call(&mut self, id: i32) {
        let Some(info) = call_info(id) else { return };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            if let Some(error) = self.pending.remove(&id) {
                let mut registers = registers(id);
                registers.rax = (-i64::from(error)) as u64;
                set_registers(id, &registers);
            }
            return;
        }
        let library = self.library;
        if !self.code.contains_key(&id) {
            self.code
                .extend(code_of(id, library).map(|code| (id, code)));
        }
        let inside = self.code.get(&id);
        if !inside.is_some_and(|code| code.contains(&info.instruction_pointer)) {
            return;
        }
        // SAFETY: the stop is that of an entry, so the kernel filled this member.
        let call = unsafe { info.u.entry.nr } as i64;
        let errors = errors(call);
        if errors.is_empty() {
            return;
        }
        self.calls.push(call);
        let error = match (self.calls.len().cmp(&self.refusal.first), self.refused) {
            (std::cmp::Ordering::Equal, _) => errors[self.refusal.error % errors.len()],
            (std::cmp::Ordering::Greater, Some((_, error)))
                if self.refusal.persistent && errors.contains(&error) =>
            {
                error
            }
            _ => return,
        };
        self.refused.get_or_insert((call, error));
        self.pending.insert(id, error);
        // A close that fails has closed its file.
        if call != libc::SYS_close {
            let mut registers = registers(id);
            registers.orig_rax = u64::MAX;
            set_registers(id, &registers);
        }
    }
}

/// The executable mapping of a library, from /proc.
fn code_of(pid: i32, library: &str) -> Option<Range<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let is_code = |line: &&str| line.contains(" r-xp ") && line.ends_with(library);
    let line = maps.lines().find(is_code)?;
    let (from, to) = line.split(' ').next()?.split_once('-')?;
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    Some(number(from)?..number(to)?)
}

/// A request that takes a number. A process that has been killed meanwhile can't take any; its end is reported next.
fn request(request: libc::c_uint, id: i32, data: usize) {
    // SAFETY: such requests write nothing into this process.
    if unsafe { libc::ptrace(request, id, 0, data) } != 0 {
        let error = io::Error::last_os_error();
        assert_eq!(
            error.raw_os_error(),
            Some(libc::ESRCH),
            "{request}: {error}"
        );
    }
}

fn call_info(id: i32) -> Option<libc::ptrace_syscall_info> {
    let mut info = std::mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel fills at most `size` bytes; all zeros are a valid value, too.
    unsafe {
        let filled = libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, id, size, info.as_mut_ptr());
        (filled > 0).then(|| info.assume_init())
    }
}

fn registers(id: i32) -> libc::user_regs_struct {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    // SAFETY: the kernel fills the structure; all zeros are a valid value, too.
    unsafe {
        libc::ptrace(libc::PTRACE_GETREGS, id, 0, registers.as_mut_ptr());
        registers.assume_init()
    }
}

fn set_registers(id: i32, registers: &libc::user_regs_struct) {
    // SAFETY: the kernel reads the structure.
    unsafe { libc::ptrace(libc::PTRACE_SETREGS, id, 0, registers) };
}
