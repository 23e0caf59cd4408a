//! Children of every kind: each image has a log of its own, with its own calls and nobody else's.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::oracle::{
    Recorded, assert_complete, assert_told_calls_are_logged, number, record, record_alone,
    record_program, tails,
};
use crate::support::{Log, TestDir, clean, finish, preloaded, shim};

/// The one log of the directory whose start line has, or has not, a parent.
#[track_caller]
fn log_of(recorded: &Recorded, child: bool) -> Log {
    let mut logs = Log::all_in(recorded.logs.path());
    logs.retain(|log| log.start().get("forked_from").is_some() == child);
    assert_eq!(logs.len(), 1, "{:?}", recorded.logs.names());
    logs.remove(0)
}

#[test]
fn a_child_by_any_kind_of_fork_has_a_log_of_its_own() {
    for kind in ["fork", "_fork", "clone"] {
        let recorded = record("process_kinds", &[kind]);
        let (parent, child) = (log_of(&recorded, false), log_of(&recorded, true));
        assert_complete(&parent);
        assert_complete(&child);
        assert_eq!(calls_of_size(&parent, 20001), 100, "{kind}");
        assert_eq!(calls_of_size(&parent, 30001), 0, "{kind}");
        assert_eq!(calls_of_size(&child, 20001), 0, "{kind}");
        assert_eq!(calls_of_size(&child, 30001), 50, "{kind}");
        assert_told_calls_are_logged(&recorded.told(), &parent.lines);
        assert_told_calls_are_logged(&recorded.child_told(), &child.lines);
    }
}

fn calls_of_size(log: &Log, size: u64) -> usize {
    log.ops("malloc")
        .filter(|event| event["size"] == size)
        .count()
}

#[test]
fn a_childs_log_names_its_parent_and_the_moment_of_the_fork() {
    for kind in ["fork", "orphan", "_fork", "clone"] {
        let recorded = record("process_kinds", &[kind]);
        let (parent, child) = (log_of(&recorded, false), log_of(&recorded, true));
        let start = child.start();
        assert_eq!(start["forked_from"]["pid"], parent.start()["pid"], "{kind}");
        // An orphan has another parent when its image begins.
        let is_childs = start["ppid"] == parent.start()["pid"];
        assert_eq!(is_childs, kind != "orphan", "{kind}");
        assert_ne!(start["pid"], parent.start()["pid"], "{kind}");
        let named = Path::new(start["forked_from"]["log"].as_str().unwrap()).file_name();
        assert_eq!(named, parent.path.file_name(), "{kind}");
        // Of the parent's first thread everything up to the fork, and nothing after it.
        let cut = start["forked_from"]["cut"]
            .as_array()
            .unwrap()
            .iter()
            .find(|pair| pair[0] == 1);
        let n = cut.expect("the forking thread is in the cut")[1]
            .as_u64()
            .unwrap();
        let events: Vec<&Value> = events_of_first_thread(&parent);
        let before = &events[..n as usize];
        assert_eq!(
            before.iter().filter(|e| e["size"] == 20001).count(),
            100,
            "{kind}"
        );
        assert_eq!(
            before.iter().filter(|e| e["size"] == 20003).count(),
            0,
            "{kind}"
        );
    }
}

/// The events of thread 1, number 1 first.
fn events_of_first_thread(log: &Log) -> Vec<&Value> {
    let mut events = Vec::new();
    let mut lines = log.lines.iter().skip(1);
    while let Some(block) = lines.next() {
        let own: Vec<&Value> = lines
            .by_ref()
            .take(number(block, "events") as usize)
            .collect();
        if block["thread"] == 1 {
            events.extend(own);
        }
    }
    events
}

#[test]
fn a_vfork_child_leaves_its_parents_log_whole() {
    let recorded = record("process_kinds", &["vfork"]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    assert_eq!(calls_of_size(&log, 30011), 1);
    assert_eq!(log.ops("end").count(), 1);
}

#[test]
fn a_spawned_program_and_one_that_can_not_be_spawned_leave_the_parents_log_whole() {
    let recorded = record("process_kinds", &["spawn"]);
    let parent = Log::of_program(recorded.logs.path(), "process_kinds");
    assert_complete(&parent);
    assert_told_calls_are_logged(&recorded.told(), &parent.lines);
    assert_complete(&Log::of_program(recorded.logs.path(), "true"));
}

#[test]
fn a_failed_exec_is_followed_by_more_events() {
    let recorded = record("process_kinds", &["exec_fails"]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    assert_eq!(calls_of_size(&log, 20003), 50);
}

#[test]
fn an_exec_ends_one_log_and_begins_another_of_the_same_pid() {
    let recorded = record("process_kinds", &["exec"]);
    let logs = Log::all_in(recorded.logs.path());
    assert_eq!(logs.len(), 2, "{:?}", recorded.logs.names());
    let (first, second) = match calls_of_size(&logs[0], 20001) {
        0 => (&logs[1], &logs[0]),
        _ => (&logs[0], &logs[1]),
    };
    assert_eq!(first.start()["pid"], second.start()["pid"]);
    assert_complete(first);
    assert_complete(second);
    assert_told_calls_are_logged(&recorded.told(), &first.lines);
    assert_told_calls_are_logged(&recorded.child_told(), &second.lines);
    assert_eq!(
        tails(recorded.logs.path()),
        Vec::<std::path::PathBuf>::new()
    );
}

#[test]
fn a_child_that_only_becomes_another_program_pictures_its_memory_once() {
    let recorded = record("process_kinds", &["fork_exec"]);
    let logs = Log::all_in(recorded.logs.path());
    assert_eq!(logs.len(), 3, "{:?}", recorded.logs.names());
    for log in &logs {
        assert_complete(log);
        let forked = log.start().get("forked_from").is_some();
        let pictures: Vec<_> = log.ops("snapshot").map(|line| &line["when"]).collect();
        let expected: &[&str] = if forked {
            &["start"]
        } else {
            &["start", "exit"]
        };
        assert_eq!(pictures, expected, "{}", log.path.display());
    }
}

#[test]
fn forks_among_allocating_threads_never_hang_and_never_share_a_log() {
    let recorded = record("fork_torture", &["120"]);
    let logs = Log::all_in(recorded.logs.path());
    assert_eq!(logs.len(), 121);
    let mut pids = BTreeSet::new();
    for log in &logs {
        assert_complete(log);
        assert!(pids.insert(number(log.start(), "pid")));
        if log.start().get("forked_from").is_some() {
            let own = log.ops("mmap").filter(|event| event["size"] == 8192);
            assert_eq!(own.count(), 20, "{}", log.path.display());
            let foreign = log.ops("mmap").filter(|event| event["size"] == 4096);
            assert_eq!(foreign.count(), 0, "{}", log.path.display());
        }
    }
}

#[test]
fn three_images_of_one_pid_make_three_logs() {
    let script = "exec sh -c 'exec sh -c true'";
    let recorded = record_program(Path::new("/bin/sh"), &["-c", script]);
    let logs = Log::all_in(recorded.logs.path());
    assert_eq!(logs.len(), 3, "{:?}", recorded.logs.names());
    for log in &logs {
        assert_complete(log);
        assert_eq!(log.start()["pid"], logs[0].start()["pid"]);
    }
}

#[test]
fn equal_pids_of_two_namespaces_make_two_logs() {
    let logs = TestDir::new();
    for _ in 0..2 {
        let mut unshare = clean("unshare");
        unshare
            .args(["-Urpf", "env"])
            .arg(format!("LD_PRELOAD={}", shim().display()))
            .arg(format!("MEMSPY_LOG={}/", logs.path().display()))
            .args(["cat", "/dev/null"]);
        finish(&mut unshare).success();
    }
    let cats: Vec<Log> = Log::all_in(logs.path())
        .into_iter()
        .filter(|log| log.start()["exe"].as_str().unwrap().ends_with("/cat"))
        .collect();
    assert_eq!(cats.len(), 2, "{:?}", logs.names());
    for log in &cats {
        assert_complete(log);
        assert_eq!(log.start()["pid"], 1);
    }
}

#[test]
fn pythons_subprocesses_leave_every_log_whole() {
    let script = "import subprocess, os\n\
        for _ in range(20):\n\
        \x20   try: subprocess.run(['/nonexistent'])\n\
        \x20   except FileNotFoundError: pass\n\
        \x20   subprocess.run(['true'], check=True)\n\
        pid = os.fork()\n\
        if pid == 0: os._exit(3)\n\
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3\n\
        print('done')";
    let recorded = record_program(Path::new("/usr/bin/python3"), &["-c", script]);
    assert_eq!(recorded.run.stdout(), "done\n");
    let logs = Log::all_in(recorded.logs.path());
    assert_eq!(logs.len(), 22, "{:?}", recorded.logs.names());
    logs.iter().for_each(assert_complete);
}

#[test]
fn a_shells_pipeline_gives_each_program_its_log() {
    let script = "cat /etc/passwd | sort | (wc -l; true) & wait; f() { echo $(echo nested); }; f";
    let recorded = record_program(Path::new("/bin/bash"), &["-c", script]);
    let logs = Log::all_in(recorded.logs.path());
    logs.iter().for_each(assert_complete);
    for program in ["cat", "sort", "wc"] {
        Log::of_program(recorded.logs.path(), program);
    }
}

#[test]
fn each_of_many_short_processes_leaves_a_whole_log() {
    let script = "for i in $(seq 250); do /bin/true; done";
    let recorded = record_alone(Path::new("/bin/sh"), &["-c", script]);
    let logs = Log::all_in(recorded.logs.path());
    let programs = logs
        .iter()
        .filter(|log| log.start()["exe"].as_str().unwrap().ends_with("/true"));
    assert_eq!(programs.count(), 250);
    logs.iter().for_each(assert_complete);
    recorded.run.success();
}

#[test]
fn a_child_that_outlives_its_parent_keeps_logging() {
    let logs = TestDir::new();
    let script = "(read line; cat /etc/passwd >/dev/null; echo over) & exit 5";
    let mut shell = preloaded("/bin/bash", &logs);
    let ended = finish(shell.args(["-c", script])).code(5);
    assert_eq!(ended.stdout(), "over\n");
    assert_complete(&Log::of_program(logs.path(), "cat"));
}
