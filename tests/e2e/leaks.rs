//! Leak mode, held against Valgrind: kinds, blocks and bytes of each program; and against what checks do to hosts.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::{
    Finished, Log, TestDir, clean, compile, compile_with, finish, memspy, preloaded, shim,
};

/// Blocks and bytes of each kind that has any.
type Kinds = BTreeMap<String, (u64, u64)>;

/// Kinds as the log names them and as Valgrind's summary does.
const KINDS: [(&str, &str); 4] = [
    ("definite", "definitely lost"),
    ("indirect", "indirectly lost"),
    ("possible", "possibly lost"),
    ("reachable", "still reachable"),
];

/// Valgrind, the witness. The library is loaded there too, switched off: it has thread-local variables, for which the
/// loader allocates a little in each thread.
fn valgrind() -> Command {
    let mut command = clean("valgrind");
    command
        .args(["--leak-check=full", "--show-leak-kinds=all"])
        .args(["--run-libc-freeres=no", "--run-cxx-freeres=no"])
        .env("LD_PRELOAD", shim())
        .env("MEMSPY_MODE", "off");
    command
}

/// The sums that Valgrind printed.
#[track_caller]
fn summary(finished: &Finished) -> Kinds {
    let text = finished.stderr();
    assert!(
        text.contains("LEAK SUMMARY") || text.contains("no leaks are possible"),
        "{finished}"
    );
    let mut kinds = Kinds::new();
    for (kind, name) in KINDS {
        let Some((_, numbers)) = text.split_once(&format!("{name}: ")) else {
            continue;
        };
        let mut numbers = numbers
            .split(' ')
            .filter_map(|word| word.replace(',', "").parse::<u64>().ok());
        let bytes = numbers.next().expect("a number of bytes");
        let blocks = numbers.next().expect("a number of blocks");
        if blocks > 0 {
            kinds.insert(kind.to_owned(), (blocks, bytes));
        }
    }
    kinds
}

/// The sums of a log's last check, mappings apart.
fn judged(log: &Log) -> Kinds {
    let check = log.ops("check").last().expect("a check");
    assert_eq!(check["complete"], true, "{check}");
    let mut kinds = Kinds::new();
    let leaks = log.ops("leak").filter(|leak| leak["check"] == check["id"]);
    let mut groups = 0;
    for leak in leaks {
        groups += 1;
        let kind = leak["kind"].as_str().expect("a kind").to_owned();
        if kind != "mapping" {
            let sum = kinds.entry(kind).or_default();
            sum.0 += leak["blocks"].as_u64().expect("a number");
            sum.1 += leak["bytes"].as_u64().expect("a number");
        }
    }
    assert_eq!(check["groups"], groups);
    let all = kinds
        .values()
        .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert_eq!(
        (&check["live_blocks"], &check["live_bytes"]),
        (&all.0.into(), &all.1.into())
    );
    kinds
}

/// Runs a command in leak mode.
fn in_leak_mode(command: &[&OsStr]) -> (Kinds, Finished) {
    let logs = TestDir::new();
    let finished = finish(
        preloaded(command[0], &logs)
            .args(&command[1..])
            .env("MEMSPY_MODE", "leaks"),
    );
    (judged(&Log::only_in(&logs)), finished)
}

/// Both, on one command; the host must behave alike.
#[track_caller]
fn assert_equal(command: &[&OsStr]) {
    let host = finish(valgrind().args(command));
    let (kinds, recorded) = in_leak_mode(command);
    let truth = summary(&host);
    assert_eq!(
        kinds, truth,
        "{command:?}: memspy's on the left, Valgrind's on the right"
    );
    assert_eq!(recorded.status, host.status);
    assert_eq!(recorded.stdout_bytes, host.stdout_bytes);
}

/// A program without and with optimisation.
fn variants(name: &str) -> [PathBuf; 2] {
    [compile(name), compile_with(name, &["-O2"])]
}

macro_rules! equal_to_valgrind {
    ($($fact:ident $program:literal;)*) => {
        $(
            #[test]
            fn $fact() {
                for program in variants($program) {
                    assert_equal(&[program.as_os_str()]);
                }
            }
        )*
    };
}

equal_to_valgrind! {
    of_a_lost_list_the_head_is_definite_and_the_rest_indirect "leak_list.c";
    of_two_trees_the_held_one_is_reachable "leak_tree.c";
    of_a_lost_cycle_one_member_is_definite "leak_cycle.c";
    a_later_head_takes_over_an_earlier_one "leak_backward.c";
    blocks_held_by_their_middle_are_possible "leak_interior.c";
    a_start_pointer_lifts_what_a_middle_pointer_found "leak_upgrade.c";
    encoded_pointers_are_no_references "leak_hidden.c";
    pointers_at_odd_addresses_are_no_references "leak_unaligned.c";
    thread_local_variables_are_roots "leak_tls.c";
    frames_above_exit_are_roots "leak_local.c";
    registers_of_exits_caller_are_roots "leak_register.c";
    mapped_memory_is_a_root_while_it_is_writable "leak_mmapped_root.c";
    shared_memory_is_a_root_even_where_its_file_is_too_short "leak_shared_root.c";
    freed_memory_is_no_root "leak_freed_memory.c";
    lists_of_free_chunks_are_no_references "leak_free_lists.c";
    dead_frames_are_no_roots "leak_stale_slot.c";
    blocks_with_mappings_of_their_own_are_judged_alike "leak_large.c";
    every_allocating_function_counts_what_was_asked_for "leak_sizes.c";
    realloc_moves_blocks_and_a_failed_one_leaves_them "leak_realloc.c";
    memory_from_the_break_is_a_root_if_the_program_took_it "leak_program_break.c";
    stacks_of_ended_threads_are_no_roots "leak_threads_joined.c";
    stacks_and_registers_of_live_threads_are_roots "leak_threads_alive.c";
    exit_by_another_thread_leaves_the_first_ones_frames "leak_thread_exits.c";
    memory_around_a_stack_of_the_programs_own_is_a_root "leak_own_stack.c";
    exit_handlers_and_destructors_come_before_the_verdict "leak_atexit.c";
    untouched_pages_of_huge_memory_are_no_trouble "leak_sparse.c";
    unreadable_parts_of_blocks_are_passed_over "leak_protected.c";
    a_length_before_the_rest_stands_for_the_start "leak_length_prefix.c";
    a_counted_array_is_held_by_its_first_element "leak_array.cpp";
    an_object_is_held_by_its_later_base "leak_inheritance.cpp";
    an_old_string_is_held_by_its_characters "leak_old_string.cpp";
    handlers_of_quick_exit_come_before_the_verdict "leak_quick_exit.c";
    destructors_of_globals_come_before_the_verdict "leak_globals.cpp";
    frames_of_a_coroutine_are_found_through_its_stack "leak_coroutine.c";
}

/// Ninety megabytes are so much that some word of the program points into them by chance, in the one layout or in the
/// other: of the 600 lost blocks a few may count as possible.
#[test]
fn heaps_of_thread_arenas_are_no_roots() {
    for program in variants("leak_thread_arena.c") {
        let truth = summary(&finish(valgrind().arg(&program)));
        let (kinds, _) = in_leak_mode(&[program.as_os_str()]);
        let of = |kinds: &Kinds, kind| kinds.get(kind).copied().unwrap_or_default();
        let lost = |kinds: &Kinds| {
            let (definite, possible) = (of(kinds, "definite"), of(kinds, "possible"));
            (definite.0 + possible.0, definite.1 + possible.1)
        };
        assert_eq!(lost(&kinds), lost(&truth));
        assert_eq!(of(&kinds, "reachable"), of(&truth, "reachable"));
        let chance = of(&kinds, "definite").0.abs_diff(of(&truth, "definite").0);
        assert!(chance <= 4, "{kinds:?} {truth:?}");
    }
}

#[test]
fn data_of_a_closed_library_is_no_root() {
    let library = compile_with("leak_dlclose_library.c", &["-shared", "-fPIC"]);
    for program in variants("leak_dlclose.c") {
        assert_equal(&[program.as_os_str(), library.as_os_str()]);
    }
}

#[test]
fn registers_at_underscore_exit_are_roots_which_valgrind_does_not_look_at() {
    for program in variants("leak_register_exit.c") {
        // Without the library, whose hook saves the registers in memory.
        let mut alone = valgrind();
        alone.arg(&program).env_remove("LD_PRELOAD");
        let truth = summary(&finish(&mut alone));
        assert_eq!(truth, Kinds::from([("definite".to_owned(), (2, 64 + 65))]));
        let (kinds, _) = in_leak_mode(&[program.as_os_str()]);
        let held = ("reachable".to_owned(), (1, 64));
        assert_eq!(kinds, Kinds::from([held, ("definite".to_owned(), (1, 65))]));
    }
}

/// The environment that Valgrind gives its program, as long, but with the shim alone and in leak mode.
fn valgrinds_environment(logs: &TestDir) -> Vec<(OsString, OsString)> {
    let mut command = clean("valgrind");
    command
        .args(["-q", "/usr/bin/env", "-0"])
        .env("LD_PRELOAD", shim())
        .env("MEMSPY_MODE", "off")
        .env("MEMSPY_LOG", logs.join(""));
    let printed = finish(&mut command).success();
    let entries = printed.stdout().split('\0');
    entries
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| {
            let value = match name {
                "LD_PRELOAD" => {
                    let shim = shim().display().to_string();
                    "/".repeat(value.len() - shim.len()) + &shim
                }
                "MEMSPY_MODE" => "leaks".to_owned(),
                _ => value.to_owned(),
            };
            (name.into(), value.into())
        })
        .collect()
}

/// On a program that other people wrote. Some copy their environment, so that must be equal: blocks are equal then,
/// and bytes but for the two letters by which `leaks` is longer than `off`, as often as somebody copies them.
#[track_caller]
fn assert_equal_on(program: &str, arguments: &[&str]) {
    let logs = TestDir::new();
    let environment = valgrinds_environment(&logs);
    let mut recorded = Command::new(program);
    recorded.args(arguments).env_clear().envs(environment);
    // perl's tables would grow by chance.
    recorded.env("PERL_HASH_SEED", "0");
    let recorded = finish(&mut recorded);
    let mut host = valgrind();
    host.arg(program)
        .args(arguments)
        .env("MEMSPY_LOG", logs.join(""))
        .env("PERL_HASH_SEED", "0");
    let host = finish(&mut host);

    let (kinds, truth) = (judged(&Log::only_in(&logs)), summary(&host));
    let blocks = |kinds: &Kinds| -> Vec<(String, u64)> {
        let entry = |(kind, sum): (&String, &(u64, u64))| (kind.clone(), sum.0);
        kinds.iter().map(entry).collect()
    };
    assert_eq!(blocks(&kinds), blocks(&truth), "{program}");
    let bytes = |kinds: &Kinds| kinds.values().map(|sum| sum.1).sum::<u64>();
    let copies = bytes(&kinds).abs_diff(bytes(&truth));
    assert!(copies <= 16, "{program}: {kinds:?}, Valgrind {truth:?}");
    assert_eq!(recorded.status, host.status);
    assert_eq!(recorded.stdout_bytes, host.stdout_bytes);
}

#[test]
fn git_is_judged_as_valgrind_judges_it() {
    let directory = TestDir::new();
    let git = |arguments: &[&str]| {
        let mut command = clean("git");
        command.arg("-C").arg(directory.path()).args(arguments);
        finish(&mut command).success();
    };
    let file = directory.write("file", "text\n");
    // Older than the index, or each status reads it and writes the index again.
    finish(clean("touch").args(["-d", "2001-01-01"]).arg(file)).success();
    git(&["init", "-q"]);
    git(&["add", "file"]);
    git(&[
        "-c",
        "user.name=n",
        "-c",
        "user.email=e",
        "commit",
        "-q",
        "-m",
        "text",
    ]);
    let path = directory.path().to_str().expect("UTF-8");
    assert_equal_on("/usr/bin/git", &["-C", path, "--no-pager", "log", "--stat"]);
    assert_equal_on("/usr/bin/git", &["-C", path, "status", "--short"]);
}

#[test]
fn sqlite3_is_judged_as_valgrind_judges_it() {
    let statements = "create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n \
                      limit 2000) insert into t select i, hex(i) from n; select count(*), sum(a) from t;";
    assert_equal_on("/usr/bin/sqlite3", &[":memory:", statements]);
}

#[test]
fn python3_is_judged_as_valgrind_judges_it() {
    let program = "import json; print(len(json.dumps({str(i): [i] * 5 for i in range(500)})))";
    assert_equal_on("/usr/bin/python3", &["-I", "-c", program]);
}

/// Python's `join` waits until a thread's work is done, not until the thread has ended, and a thread that is still
/// ending when the program does leaves its `PyThreadState`: 360 reachable bytes. Which threads do is chance, and another
/// chance under Valgrind, which runs one thread at a time; so the program waits until its thread is gone.
#[test]
fn python3_with_a_thread_is_judged_as_valgrind_judges_it() {
    let program = "import os, threading, time
thread = threading.Thread(target=print, args=(1,))
thread.start()
thread.join()
while len(os.listdir('/proc/self/task')) > 1: time.sleep(0.001)";
    assert_equal_on("/usr/bin/python3", &["-I", "-c", program]);
}

#[test]
fn perl_is_judged_as_valgrind_judges_it() {
    let program = "my %h; $h{$_ % 7} .= $_ for 1 .. 2000; print length $h{3}";
    assert_equal_on("/usr/bin/perl", &["-e", program]);
}

/// Asks a daemon that listens on `socket` for a page and for one that is not there, then has it end.
fn visit(directory: &TestDir) -> JoinHandle<()> {
    let (socket, pid_file) = (directory.join("socket"), directory.join("pid"));
    thread::spawn(move || {
        for page in ["page", "none"] {
            // It may not listen yet.
            let mut tries = 0;
            let mut daemon = loop {
                match UnixStream::connect(&socket) {
                    Ok(daemon) => break daemon,
                    Err(error) if tries == 6000 => panic!("nobody listens: {error}"),
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
                tries += 1;
            };
            let request = format!("GET /{page} HTTP/1.0\r\n\r\n");
            daemon.write_all(request.as_bytes()).expect("it reads");
            let mut answer = String::new();
            daemon.read_to_string(&mut answer).expect("it answers");
            assert_eq!(answer.contains("200 OK"), page == "page", "{answer}");
        }
        let pid = fs::read_to_string(pid_file).expect("it runs");
        finish(clean("kill").args(["-INT", pid.trim()])).success();
    })
}

#[test]
fn a_daemon_that_is_told_to_end_is_judged_as_valgrind_judges_it() {
    // A socket's path is at most 107 bytes long.
    let directory = TestDir::on_tmpfs();
    directory.write("page", "hello\n");
    let place = directory.path().display();
    let configuration = format!(
        "server.document-root = \"{place}\"\nserver.bind = \"{place}/socket\"\n\
         server.pid-file = \"{place}/pid\"\nserver.errorlog = \"{place}/log\"\n"
    );
    let configuration = directory.write("configuration", &configuration);
    let daemon: [&OsStr; 4] = [
        "/usr/sbin/lighttpd".as_ref(),
        "-D".as_ref(),
        "-f".as_ref(),
        configuration.as_os_str(),
    ];
    let visited = |command: &mut Command| {
        let visitor = visit(&directory);
        let finished = finish(command).success();
        visitor.join().expect("the visitor does not panic");
        finished
    };
    let truth = summary(&visited(valgrind().args(daemon)));
    let logs = directory.join("logs");
    let mut check = memspy();
    check
        .args(["check", "--logs-in"])
        .arg(&logs)
        .arg("--")
        .args(daemon);
    visited(&mut check);
    let kinds = judged(&Log::of_program(&logs, "lighttpd"));
    assert_eq!(kinds, truth, "Valgrind's on the right");
}

/// What a program does with `MODE=leaks` and these arguments; its logs are in `logs`.
fn run(program: &Path, arguments: &[&str], logs: &TestDir) -> Finished {
    finish(
        preloaded(program, logs)
            .args(arguments)
            .env("MEMSPY_MODE", "leaks"),
    )
}

#[test]
fn each_way_out_keeps_its_status_and_is_judged() {
    let program = compile("leak_ways_out.c");
    for (way, status) in [
        ("return", 3),
        ("exit", 4),
        ("_exit", 5),
        ("_Exit", 6),
        ("quick_exit", 7),
    ] {
        let logs = TestDir::new();
        run(&program, &[way], &logs).code(status);
        let log = Log::only_in(&logs);
        let lost = judged(&log).remove("definite");
        assert_eq!(lost, Some((1, 1234)), "{way}");
        let how = if way == "return" { "exit" } else { way };
        assert_eq!(log.ops("end").last().expect("an end")["how"], how);
        assert!(
            logs.names().iter().all(|name| !name.ends_with(".tail")),
            "{way}"
        );
    }
}

#[test]
fn a_killed_program_has_no_verdict() {
    let program = compile("leak_ways_out.c");
    for (way, signal) in [("abort", 6), ("kill", 9), ("term", 15)] {
        let logs = TestDir::new();
        run(&program, &[way], &logs).killed_by(signal);
        assert_eq!(Log::only_in(&logs).ops("check").count(), 0, "{way}");
    }
}

#[test]
fn a_forked_child_marks_its_parents_blocks_as_inherited() {
    let program = compile("leak_fork.c");
    let logs = TestDir::new();
    run(&program, &[], &logs).success();
    let logs = Log::all_in(logs.path());
    assert_eq!(logs.len(), 2);
    for log in logs {
        let sizes = |inherited: bool| -> Vec<u64> {
            let mut sizes: Vec<u64> = log
                .ops("leak")
                .filter(|leak| (leak["inherited"] == true) == inherited)
                .filter_map(|leak| leak["bytes"].as_u64())
                .collect();
            sizes.sort();
            sizes
        };
        if log.start()["forked_from"].is_null() {
            assert_eq!((sizes(false), sizes(true)), (vec![1001, 1003], vec![]));
        } else {
            assert_eq!((sizes(false), sizes(true)), (vec![1002], vec![1001]));
        }
    }
}

#[test]
fn a_failed_exec_is_judged_and_leaves_no_trace_in_the_host() {
    let program = compile("leak_exec_fails.c");
    let logs = TestDir::new();
    let host = finish(&mut clean(&program)).success();
    let recorded = run(&program, &[], &logs).success();
    assert_eq!(recorded.stdout(), host.stdout());
    let log = Log::only_in(&logs);
    let when: Vec<_> = log
        .ops("check")
        .map(|check| check["when"].as_str())
        .collect();
    assert_eq!(when, [Some("exec"), Some("exit")]);
    judged(&log);
}

#[test]
fn blocks_live_at_exec_are_judged() {
    let logs = TestDir::new();
    let mut shell = preloaded("/bin/sh", &logs);
    shell.args(["-c", "exec true"]).env("MEMSPY_MODE", "leaks");
    finish(&mut shell).success();
    let log = Log::of_program(logs.path(), "dash");
    assert_eq!(log.ops("check").next().expect("a check")["when"], "exec");
    assert!(judged(&log)["reachable"].0 > 0);
}

#[test]
fn mappings_that_were_never_unmapped_are_a_kind_of_their_own() {
    let program = compile("leak_mappings.c");
    let logs = TestDir::new();
    let recorded = run(&program, &[], &logs).success();
    let log = Log::only_in(&logs);
    judged(&log);
    let mapped: u64 = log
        .ops("leak")
        .filter(|leak| leak["kind"] == "mapping")
        .filter_map(|leak| leak["bytes"].as_u64())
        .sum();
    // The program counts its own in /proc/self/maps.
    let truth: u64 = recorded.stdout().trim().parse().expect("a number");
    assert_eq!(mapped, truth);
}

#[test]
fn a_check_works_under_strace_and_gdb_which_see_one_process() {
    let program = compile("leak_list.c");
    let strace: &[&str] = &["strace", "-f", "-o", "/dev/null"];
    let gdb: &[&str] = &["gdb", "-q", "-batch", "-ex", "run", "--args"];
    let env = |logs: &TestDir| {
        let path = logs.join("").display().to_string();
        [
            format!("LD_PRELOAD={}", shim().display()),
            format!("MEMSPY_LOG={path}"),
            "MEMSPY_MODE=leaks".to_owned(),
        ]
    };
    for tracer in [strace, gdb] {
        let logs = TestDir::new();
        let mut command = clean(tracer[0]);
        command
            .args(&tracer[1..])
            .arg("/usr/bin/env")
            .args(env(&logs))
            .arg(&program);
        finish(&mut command).success();
        let log = Log::of_program(logs.path(), "leak_list");
        assert_eq!(judged(&log)["definite"], (1, 16), "{tracer:?}");
    }
}

#[test]
fn full_mode_has_the_events_too() {
    let program = compile("leak_list.c");
    let logs = TestDir::new();
    let mut command = preloaded(&program, &logs);
    finish(command.env("MEMSPY_MODE", "full")).success();
    let log = Log::only_in(&logs);
    let mallocs = log
        .ops("malloc")
        .filter(|malloc| malloc["size"] == 16)
        .count();
    let kinds = judged(&log);
    assert_eq!(mallocs as u64, kinds["definite"].0 + kinds["indirect"].0);
}

#[test]
fn each_leak_has_a_stack_that_the_log_defines() {
    let program = compile("leak_tree.c");
    let logs = TestDir::new();
    run(&program, &[], &logs).success();
    let log = Log::only_in(&logs);
    let defined: Vec<_> = log.ops("stack").map(|stack| &stack["id"]).collect();
    let mut leaks = 0;
    for leak in log.ops("leak") {
        assert!(defined.contains(&&leak["stack"]), "{leak}");
        leaks += 1;
    }
    assert!(leaks > 1);
    assert_eq!(log.ops("malloc").count() + log.ops("calloc").count(), 0);
}
