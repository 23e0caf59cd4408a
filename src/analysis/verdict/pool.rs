//! The one-time pools of libc, libstdc++ and the loader: memory that they take once and keep, by
//! design. They are counted as what they are and named, so that nobody hunts them.

use super::frame::is_runtime;
use super::pattern::Pattern;
use super::{Frame, Kind, Leak};

/// A pool: its name in reports, the module that takes it, and the functions between that module's
/// innermost frame and the program that give it away. No function: the whole stack decides.
struct Pool {
    name: &'static str,
    module: &'static str,
    functions: &'static [&'static str],
}

/// The first match counts.
const POOLS: [Pool; 8] = [
    Pool {
        name: "stdio buffer",
        module: "libc.so",
        functions: &["_IO_file_doallocate"],
    },
    Pool {
        name: "thread-local storage of a thread",
        module: "ld-linux",
        functions: &[
            "_dl_allocate_tls*",
            "allocate_dtv",
            "*tls_get_addr*",
            "_dl_resize_dtv",
        ],
    },
    Pool {
        name: "loader's list of libraries",
        module: "ld-linux",
        functions: &[
            "_dl_new_object",
            "_dl_map_object*",
            "_dl_check_map_versions",
        ],
    },
    Pool {
        name: "exit handlers",
        module: "libc.so",
        functions: &[
            "__new_exitfn",
            "__cxa_atexit",
            "__cxa_thread_atexit_impl",
            "on_exit",
        ],
    },
    Pool {
        name: "locale data",
        module: "libc.so",
        functions: &[
            "setlocale",
            "newlocale",
            "_nl_*",
            "bindtextdomain",
            "textdomain",
        ],
    },
    Pool {
        name: "time zone",
        module: "libc.so",
        functions: &["tzset*", "__tz*", "localtime*"],
    },
    Pool {
        name: "environment",
        module: "libc.so",
        functions: &["setenv", "putenv", "__add_to_*"],
    },
    Pool {
        name: "exception globals",
        module: "libstdc++.so",
        functions: &["__cxa_get_globals", "__cxa_allocate_exception"],
    },
];

/// The name of the runtime pool that `leak` is, if it is one.
///
/// Only blocks that something still points at, or points into, can be a pool: what is definitely
/// lost is a leak, whoever allocated it.
pub(super) fn pool_of(leak: &Leak) -> Option<&'static str> {
    if matches!(leak.kind, Kind::Definite | Kind::Mapping) {
        return None;
    }
    let inner: Vec<&Frame> = leak
        .frames
        .iter()
        .take_while(|frame| frame.module_name().is_some_and(is_runtime))
        .collect();
    let innermost = inner.first()?.module_name()?;
    let named = POOLS.iter().find(|pool| {
        innermost.starts_with(pool.module)
            && inner
                .iter()
                .any(|frame| pool.functions.iter().any(|name| is_named(frame, name)))
    });
    if let Some(pool) = named {
        return Some(pool.name);
    }
    // libstdc++ takes its emergency pool in a static constructor without a symbol: the whole
    // stack is libstdc++ called by the loader, before main.
    let before_main = inner.len() == leak.frames.len() && inner.len() > 1;
    let by_loader = inner.iter().skip(1).any(|frame| {
        frame
            .module_name()
            .is_some_and(|module| module.starts_with("ld-"))
    });
    (before_main && by_loader && innermost.starts_with("libstdc++.so") && leak.blocks == 1)
        .then_some("emergency pool of libstdc++")
}

fn is_named(frame: &Frame, pattern: &str) -> bool {
    let pattern = Pattern::whole(pattern);
    // Symbols may carry a version: `setlocale@@GLIBC_2.2.5`.
    frame
        .names()
        .any(|name| pattern.matches(name.split('@').next().unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str) -> Frame {
        Frame {
            function: (!function.is_empty()).then(|| function.into()),
            module: Some(format!("/usr/lib/{module}")),
            ..Frame::default()
        }
    }

    fn leak(kind: Kind, frames: Vec<Frame>) -> Leak {
        Leak {
            kind,
            blocks: 1,
            bytes: 72704,
            frames,
            cut: false,
            inherited: false,
        }
    }

    #[test]
    fn the_emergency_pool_is_known_by_a_stack_that_never_reaches_the_program() {
        let stack = vec![
            frame("", "libstdc++.so.6.0.30"),
            frame("", "ld-linux-x86-64.so.2"),
            frame("_dl_init", "ld-linux-x86-64.so.2"),
        ];
        let pool = pool_of(&leak(Kind::Reachable, stack.clone()));
        assert_eq!(pool, Some("emergency pool of libstdc++"));
        assert_eq!(pool_of(&leak(Kind::Definite, stack.clone())), None);
        let mut reaches_main = stack;
        reaches_main.push(frame("main", "app"));
        assert_eq!(pool_of(&leak(Kind::Reachable, reaches_main)), None);
    }

    #[test]
    fn a_stdio_buffer_is_a_pool_whoever_prints() {
        let stack = vec![
            frame("_IO_file_doallocate", "libc.so.6"),
            frame("printf", "libc.so.6"),
            frame("main", "app"),
        ];
        assert_eq!(pool_of(&leak(Kind::Reachable, stack)), Some("stdio buffer"));
    }

    #[test]
    fn memory_that_libc_takes_on_the_programs_order_is_no_pool() {
        let stack = vec![frame("strdup", "libc.so.6"), frame("main", "app")];
        assert_eq!(pool_of(&leak(Kind::Reachable, stack)), None);
        let own = vec![frame("setlocale", "app"), frame("main", "app")];
        assert_eq!(
            pool_of(&leak(Kind::Reachable, own)),
            None,
            "the program's own function"
        );
        assert_eq!(pool_of(&leak(Kind::Reachable, Vec::new())), None);
    }
}
