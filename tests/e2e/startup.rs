//! Loading: other preloads, sanitizers, sandboxes, odd launchers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::oracle::{
    assert_complete, assert_same, assert_told_calls_are_logged, record, tails, told,
};
use crate::remains::{assert_contiguous, remains};
use crate::support::{Finished, Log, TestDir, clean, compile, compile_with, finish, shim};

/// Where the loader finds a library of this name.
fn library(name: &str) -> PathBuf {
    let listed = finish(clean("sh").args(["-c", "/sbin/ldconfig -p"])).success();
    let line = listed
        .stdout()
        .lines()
        .find(|line| line.trim().starts_with(name));
    let path = line.and_then(|line| line.split(" => ").nth(1));
    PathBuf::from(path.unwrap_or_else(|| panic!("{name} is not installed")))
}

/// Runs a program of the tests with an LD_PRELOAD of this form, `SHIM` in it replaced; its log and what it told.
fn preloaded_as(preload: &str, program: &Path, work: &TestDir, logs: &TestDir) -> Finished {
    let mut command = clean(program);
    command
        .current_dir(work.path())
        .env(
            "LD_PRELOAD",
            preload.replace("SHIM", shim().to_str().unwrap()),
        )
        .env("MEMSPY_LOG", format!("{}/", logs.path().display()))
        .env("ORACLE", work.join("oracle"));
    finish(&mut command)
}

#[test]
fn foreign_allocators_work_before_and_after_memspy() {
    for allocator in [
        "libjemalloc.so.2",
        "libtcmalloc_minimal.so.4",
        "libmimalloc.so.2",
    ] {
        let allocator = library(allocator);
        let allocator = allocator.to_str().unwrap();
        let plain_work = TestDir::new();
        for program in ["ordinary_calls.c", "thread_ends.c"] {
            let plain = preloaded_as(allocator, &compile(program), &plain_work, &TestDir::new());
            for order in [format!("SHIM:{allocator}"), format!("{allocator}:SHIM")] {
                let (work, logs) = (TestDir::new(), TestDir::new());
                let recorded = preloaded_as(&order, &compile(program), &work, &logs);
                assert_same(&plain, &recorded);
                let log = Log::only_in(&logs);
                assert_complete(&log);
                assert_eq!(log.start()["inference"], false, "{order}");
                if order.starts_with("SHIM") && program == "thread_ends.c" {
                    assert_told_calls_are_logged(&told(&work.join("oracle")), &log.lines);
                }
            }
        }
    }
}

#[test]
fn a_program_with_address_sanitizer_runs_and_finds_its_leak() {
    let program = compile_with("leaks_under_asan.c", &["-fsanitize=address"]);
    let asan = finish(clean("cc").arg("-print-file-name=libasan.so")).success();
    let real = std::fs::canonicalize(asan.stdout().trim()).expect("libasan is installed");
    let runtime = real.to_str().unwrap();
    let plain = finish(&mut clean(&program)).code(1);
    let (work, logs) = (TestDir::new(), TestDir::new());
    let recorded = preloaded_as(&format!("{runtime}:SHIM"), &program, &work, &logs).code(1);
    assert_eq!(recorded.stdout(), plain.stdout());
    for run in [&plain, &recorded] {
        let leaked = run
            .stderr()
            .contains("SUMMARY: AddressSanitizer: 40 byte(s) leaked in 1 allocation(s)");
        assert!(leaked, "{run}");
    }
}

#[test]
fn exceptions_pass_through_allocating_frames() {
    let program = compile("exceptions.cpp");
    let none: [&str; 0] = [];
    let recorded = crate::oracle::record_program(&program, &none);
    assert_complete(&recorded.log());
    assert_eq!(recorded.run.stdout(), "500\n500\nbad_alloc\n200\n");
}

/// How many of a thread's events are mallocs of a size in the range.
fn sized(events: &BTreeMap<u64, Value>, sizes: std::ops::Range<u64>) -> usize {
    let fits = |event: &&Value| {
        event["op"] == "malloc"
            && event["size"]
                .as_u64()
                .is_some_and(|size| sizes.contains(&size))
    };
    events.values().filter(fits).count()
}

#[test]
fn a_sandbox_that_allows_no_call_of_ours_kills_nobody_and_costs_no_event() {
    for how in ["prctl", "seccomp"] {
        let recorded = record("seccomp_filter", &[how]);
        assert_eq!(recorded.run.stdout(), "alive\n");
        let log = recorded.log();
        let events = remains(&log.path);
        assert_contiguous(&events);
        assert_eq!(sized(&events[&1], 1000..1100), 100);
        assert_eq!(sized(&events[&1], 2000..3000), 20_000);
    }
}

#[test]
fn strict_seccomp_kills_nobody_and_costs_no_event() {
    let recorded = record("seccomp_strict", &[]);
    assert_eq!(recorded.run.stdout(), "alive\n");
    let events = remains(&recorded.log().path);
    assert_contiguous(&events);
    assert_eq!(sized(&events[&1], 1000..1100), 100);
    assert_eq!(sized(&events[&1], 2000..2500), 500);
    assert_eq!(tails(recorded.logs.path()).len(), 1);
}

#[test]
fn a_sandbox_that_refuses_a_call_of_ours_costs_the_whole_log_or_nothing() {
    let program = compile("ordinary_calls.c");
    let plain = finish(&mut clean(&program));
    for (call, recorded) in [
        (libc::SYS_pwrite64, true),
        (libc::SYS_fallocate, true),
        (libc::SYS_fstatfs, true),
        (libc::SYS_membarrier, true),
        (libc::SYS_fchmod, true),
        (libc::SYS_prlimit64, true),
        (libc::SYS_readlinkat, true),
        (libc::SYS_unlink, true),
        (libc::SYS_fstat, false),
        (libc::SYS_madvise, false),
    ] {
        let logs = TestDir::new();
        let mut sandbox = clean(compile("refuses_one_call.c"));
        sandbox.args([call.to_string().as_str(), "env"]);
        sandbox.arg(format!("LD_PRELOAD={}", shim().display()));
        sandbox.arg(format!("MEMSPY_LOG={}/", logs.path().display()));
        let ended = finish(sandbox.arg(&program));
        assert_eq!(ended.status, plain.status, "{call}: {ended}");
        assert_eq!(ended.stdout_bytes, plain.stdout_bytes, "{call}: {ended}");
        if recorded {
            assert_eq!(ended.stderr_bytes, plain.stderr_bytes, "{call}: {ended}");
            assert_complete(&Log::only_in(&logs));
        } else {
            assert!(
                ended.stderr().contains("is not recorded"),
                "{call}: {ended}"
            );
            assert_eq!(ended.stderr().lines().count(), 1, "{call}: {ended}");
            assert_eq!(logs.names(), Vec::<String>::new(), "{call}");
        }
    }
}

#[test]
fn a_filter_inherited_by_exec_does_not_kill_the_program() {
    // bwrap's own way: the filter is installed by a parent, the program starts under it.
    let program = compile("ordinary_calls.c");
    let (work, logs) = (TestDir::new(), TestDir::new());
    let mut bwrap = clean("bwrap");
    bwrap
        .current_dir(work.path())
        .args(["--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc"])
        .args(["--setenv", "LD_PRELOAD", shim().to_str().unwrap()])
        .args([
            "--setenv",
            "MEMSPY_LOG",
            &format!("{}/", logs.path().display()),
        ])
        .arg(&program);
    finish(&mut bwrap).success();
    assert_complete(&Log::of_program(logs.path(), "ordinary_calls"));
}

#[test]
fn a_program_may_still_make_a_user_namespace() {
    assert_complete(&record("user_namespace", &[]).log());
}

#[test]
fn odd_launchers_change_nothing_about_the_program_or_the_log() {
    let launchers: [&[&str]; 7] = [
        &["stdbuf", "-oL"],
        &["setpriv", "--no-new-privs"],
        &["unshare", "-Urpf"],
        &["fakeroot"],
        &["faketime", "2020-01-01 00:00:00"],
        &["nice", "-n", "5"],
        &["env", "-u", "HOME"],
    ];
    for launcher in launchers {
        let logs = TestDir::new();
        let program = compile("ordinary_calls.c");
        let mut command = clean(launcher[0]);
        // The launcher's own preload must come along: it is in the environment when sh runs.
        let script = "export LD_PRELOAD=\"$LD_PRELOAD:$SHIM\"; exec \"$0\"";
        command
            .args(&launcher[1..])
            .args(["sh", "-c", script])
            .arg(&program)
            .env("SHIM", shim())
            .env("MEMSPY_LOG", format!("{}/", logs.path().display()));
        finish(&mut command).success();
        let log = Log::of_program(logs.path(), "ordinary_calls");
        assert_complete(&log);
        let steps = log.ops("malloc").count() + log.ops("calloc").count();
        assert!(steps > 9000, "{launcher:?}: {steps}");
    }
}

#[test]
fn valgrind_gdb_and_strace_run_a_recorded_program_to_its_end() {
    let program = compile("ordinary_calls.c");
    let tools: [&[&str]; 3] = [
        &[
            "valgrind",
            "-q",
            "--error-exitcode=9",
            "--trace-children=yes",
        ],
        &["strace", "-f", "-o", "/dev/null"],
        &[
            "gdb",
            "-batch",
            "-ex",
            "set startup-with-shell off",
            "-ex",
            "run",
            "--args",
        ],
    ];
    for tool in tools {
        let (work, logs) = (TestDir::new(), TestDir::new());
        let mut command = clean(tool[0]);
        command
            .current_dir(work.path())
            .args(&tool[1..])
            .arg("env")
            .arg(format!("LD_PRELOAD={}", shim().display()))
            .arg(format!("MEMSPY_LOG={}/", logs.path().display()))
            .arg(&program);
        finish(&mut command).success();
        let log = Log::of_program(logs.path(), "ordinary_calls");
        if tool[0] != "valgrind" {
            assert_complete(&log); // valgrind replaces the hooks themselves
        }
    }
}
