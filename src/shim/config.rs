//! The environment variables, read once at the start from the process's own stack.
//!
//! libc's `environ` is not set yet when the loader makes the first allocation, so arguments, environment and auxiliary
//! vector are found where the kernel put them: above `__libc_stack_end`.

use crate::say::say;
use core::ffi::{CStr, c_char};

unsafe extern "C" {
    /// Set by the loader before anything else runs: the stack pointer at the program's entry, where argc is.
    static __libc_stack_end: *const usize;
}

/// What the kernel put on the stack of the new image.
pub(crate) struct Initial {
    pub(crate) args: &'static [*const c_char],
    env: &'static [*const c_char],
    aux: *const [usize; 2],
}

impl Initial {
    /// Finds it.
    pub(crate) fn find() -> Initial {
        // SAFETY: the loader set the pointer to argc; argc pointers, a null, the environment's pointers, a null and
        // the auxiliary vector follow (System V ABI, x86-64, 3.4.1).
        unsafe {
            let argc = *__libc_stack_end;
            let argv = __libc_stack_end.add(1).cast::<*const c_char>();
            let envp = argv.add(argc + 1);
            let mut count = 0;
            while !(*envp.add(count)).is_null() {
                count += 1;
            }
            Initial {
                args: core::slice::from_raw_parts(argv, argc),
                env: core::slice::from_raw_parts(envp, count),
                aux: envp.add(count + 1).cast(),
            }
        }
    }

    /// The value of an auxiliary vector entry, such as AT_EXECFN.
    pub(crate) fn aux(&self, key: u64) -> Option<usize> {
        let mut entry = self.aux;
        loop {
            // SAFETY: the vector ends with AT_NULL (0), where this loop ends too.
            let [kind, value] = unsafe { *entry };
            if kind as u64 == key {
                return Some(value);
            }
            if kind == 0 {
                return None;
            }
            // SAFETY: the entry before was not the last.
            entry = unsafe { entry.add(1) };
        }
    }

    /// The value of an environment variable.
    pub(crate) fn var(&self, name: &[u8]) -> Option<&'static CStr> {
        // Most of the environment is told apart by its first byte, without a search for its end.
        let first = name.first().map(|byte| *byte as c_char)?;
        // SAFETY: each string has at least its NUL.
        let begins = |entry: &*const c_char| unsafe { **entry } == first;
        self.env.iter().copied().filter(begins).find_map(|entry| {
            // SAFETY: the kernel ends each of its strings with NUL.
            let entry = unsafe { CStr::from_ptr(entry) };
            let value = entry.to_bytes().strip_prefix(name)?.strip_prefix(b"=")?;
            // SAFETY: a suffix of a NUL-terminated string, which ends at the same NUL.
            Some(unsafe { CStr::from_ptr(value.as_ptr().cast()) })
        })
    }
}

/// What to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each call, one line.
    Events,
    /// Live blocks only, judged at the end.
    Leaks,
    /// Both.
    Full,
    /// Nothing.
    Off,
}

impl Mode {
    /// The name as the environment and the log have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Events => "events",
            Mode::Leaks => "leaks",
            Mode::Full => "full",
            Mode::Off => "off",
        }
    }
}

/// How call stacks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stacks {
    /// By unwind tables.
    Full,
    /// By frame pointers.
    Fp,
    /// Not at all.
    Off,
}

impl Stacks {
    /// The name as the environment and the log have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stacks::Full => "full",
            Stacks::Fp => "fp",
            Stacks::Off => "off",
        }
    }
}

/// All settings.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    pub(crate) stacks: Stacks,
    /// Most frames of a stack.
    pub(crate) depth: u32,
    /// Whether releases carry stacks too.
    pub(crate) free_stacks: bool,
    /// Whether each remembered stack is walked again and compared (slow; the `end` line has the counts).
    pub(crate) check_stacks: bool,
    /// Whether the address space is pictured at start and end.
    pub(crate) maps: bool,
    /// Most bytes of all event buffers together.
    pub(crate) buffer_limit: usize,
    /// The signal on which an idle process looks for a request, 0: none.
    pub(crate) signal: i32,
    /// Template or directory of the log, empty: the default.
    pub(crate) log: &'static CStr,
}

impl Config {
    /// The settings of an empty environment.
    pub(crate) const DEFAULT: Config = Config {
        mode: Mode::Events,
        stacks: Stacks::Full,
        depth: 256,
        free_stacks: false,
        check_stacks: false,
        maps: true,
        buffer_limit: 16 << 20,
        signal: 0,
        log: c"",
    };

    /// Reads the environment. A value that makes no sense is said once on standard error and ignored.
    pub(crate) fn read(initial: &Initial) -> Config {
        let mut config = Config::DEFAULT;
        if let Some(log) = initial.var(b"MEMSPY_LOG") {
            config.log = log;
        }
        let set = |name: &str, apply: &mut dyn FnMut(&[u8]) -> Option<()>| {
            let Some(value) = initial.var(name.as_bytes()) else {
                return;
            };
            if !value.is_empty() && apply(value.to_bytes()).is_none() {
                say(&[
                    b"ignored ",
                    name.as_bytes(),
                    b"=",
                    value.to_bytes(),
                    b": not a known value",
                ]);
            }
        };
        set("MEMSPY_MODE", &mut |value| {
            config.mode = match value {
                b"events" => Mode::Events,
                b"leaks" => Mode::Leaks,
                b"full" => Mode::Full,
                b"off" => Mode::Off,
                _ => return None,
            };
            Some(())
        });
        set("MEMSPY_STACKS", &mut |value| {
            config.stacks = match value {
                b"full" => Stacks::Full,
                b"fp" => Stacks::Fp,
                b"off" => Stacks::Off,
                _ => return None,
            };
            Some(())
        });
        set("MEMSPY_STACK_DEPTH", &mut |value| {
            config.depth = number(value).filter(|depth| (1..=4096).contains(depth))? as u32;
            Some(())
        });
        set("MEMSPY_FREE_STACKS", &mut |value| {
            config.free_stacks = switch(value)?;
            Some(())
        });
        set("MEMSPY_STACK_CHECK", &mut |value| {
            config.check_stacks = switch(value)?;
            Some(())
        });
        set("MEMSPY_MAPS", &mut |value| {
            config.maps = switch(value)?;
            Some(())
        });
        set("MEMSPY_BUFFER", &mut |value| {
            config.buffer_limit = size(value).filter(|bytes| *bytes >= 64 << 10)?;
            Some(())
        });
        set("MEMSPY_SIGNAL", &mut |value| {
            config.signal = signal(value)?;
            Some(())
        });
        config
    }
}

fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"on" | b"1" | b"yes" => Some(true),
        b"off" | b"0" | b"no" => Some(false),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<usize> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0usize, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(usize::from(digit))
    })
}

/// A signal that a program may leave unused, with or without `SIG`, or a real-time one by its number.
fn signal(value: &[u8]) -> Option<i32> {
    let name = value.strip_prefix(b"SIG").unwrap_or(value);
    Some(match name {
        b"HUP" => libc::SIGHUP,
        b"USR1" => libc::SIGUSR1,
        b"USR2" => libc::SIGUSR2,
        b"URG" => libc::SIGURG,
        b"VTALRM" => libc::SIGVTALRM,
        b"PROF" => libc::SIGPROF,
        b"WINCH" => libc::SIGWINCH,
        b"IO" | b"POLL" => libc::SIGIO,
        b"PWR" => libc::SIGPWR,
        // 32 and 33 are glibc's own.
        _ => number(value).filter(|number| (34..=64).contains(number))? as i32,
    })
}

/// Bytes, optionally with K, M or G (powers of 1024), optionally followed by `iB`.
fn size(value: &[u8]) -> Option<usize> {
    let value = value.strip_suffix(b"iB").unwrap_or(value);
    let (digits, shift) = match value.split_last()? {
        (b'K' | b'k', digits) => (digits, 10),
        (b'M' | b'm', digits) => (digits, 20),
        (b'G' | b'g', digits) => (digits, 30),
        _ => (value, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::{Initial, signal, size};

    #[test]
    fn signals_have_names_and_real_time_ones_numbers() {
        assert_eq!(signal(b"USR2"), Some(libc::SIGUSR2));
        assert_eq!(signal(b"SIGUSR2"), Some(libc::SIGUSR2));
        assert_eq!(signal(b"40"), Some(40));
        assert_eq!(signal(b"KILL"), None);
        assert_eq!(signal(b"33"), None);
        assert_eq!(signal(b"SIG40"), None);
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size(b"65536"), Some(65536));
        assert_eq!(size(b"64K"), Some(65536));
        assert_eq!(size(b"16MiB"), Some(16 << 20));
        assert_eq!(size(b"x"), None);
        assert_eq!(size(b""), None);
        assert_eq!(size(b"99999999999999999999"), None);
    }

    #[test]
    fn arguments_and_environment_are_where_the_kernel_put_them() {
        let initial = Initial::find();
        assert_eq!(initial.args.len(), std::env::args_os().len());
        let path = initial.var(b"PATH").expect("PATH is set");
        assert_eq!(path.to_str().ok(), std::env::var("PATH").ok().as_deref());
        assert_eq!(initial.var(b"PAT"), None);
        assert_eq!(initial.aux(6), Some(4096));
    }
}
