//! Ends of every kind: each call that had returned is in the log, or in the log and its tail.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::oracle::{
    Recorded, assert_complete, assert_told_calls_are_logged, number, record, tails,
};
use crate::remains::{Events, assert_contiguous, remains};
use crate::support::{Log, TestDir, clean, compile, compile_with, finish, memspy, preloaded, shim};

/// The log of a run and everything that its tail adds.
fn everything(recorded: &Recorded) -> (Log, Events) {
    let log = recorded.log();
    let events = remains(&log.path);
    assert_contiguous(&events);
    (log, events)
}

#[test]
fn a_tidy_end_leaves_one_file_that_says_how_it_ended() {
    for (kind, how) in [
        ("return", "exit"),
        ("exit", "exit"),
        ("_exit", "_exit"),
        ("_Exit", "_Exit"),
        ("quick_exit", "quick_exit"),
        ("exit_in_thread", "exit"),
        ("_exit_in_thread", "_exit"),
    ] {
        let recorded = record("exit_kinds", &[kind, "1000"]);
        let log = recorded.log();
        assert_complete(&log);
        assert_eq!(log.end()["how"], how, "{kind}");
        assert_told_calls_are_logged(&recorded.told(), &log.lines);
        assert_eq!(tails(recorded.logs.path()).len(), 0, "{kind}");
    }
}

#[test]
fn every_returned_call_survives_a_sudden_end() {
    for kind in [
        "abort",
        "segv",
        "trap",
        "kill",
        "exit_group",
        "exit_main_thread",
    ] {
        for count in ["0", "1", "1000", "20000"] {
            let recorded = record("exit_kinds", &[kind, count]);
            let (_, events) = everything(&recorded);
            let lines: Vec<_> = events.into_values().flat_map(|s| s.into_values()).collect();
            assert_told_calls_are_logged(&recorded.told(), &lines);
        }
    }
}

#[test]
fn calls_after_the_end_line_are_in_the_log() {
    let library = compile_with("late_library.c", &["-shared", "-fPIC"]);
    let recorded = record("late_calls", &[library.to_str().unwrap()]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    for size in [20_001, 20_002, 20_003, 20_004, 20_005] {
        let found = log.ops("malloc").filter(|event| event["size"] == size);
        assert_eq!(found.count(), 1, "{size}");
    }
}

#[test]
fn a_thread_whose_first_call_is_under_way_at_the_end_loses_no_event() {
    let (logs, work) = (TestDir::new(), TestDir::new());
    let counter = work.join("oracle");
    // The thread is held where it has seen that the image goes on and has no buffer yet, and the process, when all is
    // written out, before it is over.
    let late = "inject=gettid:delay_enter=400000:when=1";
    let last = "inject=exit_group:delay_enter=600000";
    let mut strace = clean("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", late, "-e", last, "-E"]);
    strace.arg(format!("LD_PRELOAD={}", shim().display()));
    strace.arg(compile("begins_at_the_end.c"));
    strace
        .env("ORACLE", &counter)
        .env("MEMSPY_LOG", logs.path());
    finish(&mut strace).success();
    let log = Log::only_in(&logs);
    let counter = fs::read(counter).unwrap();
    let returned = u64::from_le_bytes(counter[..8].try_into().unwrap());
    let events = remains(&log.path);
    assert_contiguous(&events);
    let lines = events.values().flat_map(|stream| stream.values());
    let logged = lines.filter(|line| line["op"] == "malloc" && line["size"] == 20_001);
    let logged = logged.count() as u64;
    assert!(
        (returned..=returned + 1).contains(&logged),
        "{logged} of {returned} calls, {:?}",
        logs.names()
    );
}

/// A running `until_killed` and the counters that it shares.
struct Running {
    child: Child,
    counters: std::path::PathBuf,
}

impl Running {
    fn start(threads: usize, buffer: &str, logs: &TestDir, work: &TestDir) -> Self {
        let counters = work.join("oracle");
        let child = preloaded(compile("until_killed.c"), logs)
            .arg(threads.to_string())
            .env("ORACLE", &counters)
            .env("MEMSPY_BUFFER", buffer)
            .stdin(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self { child, counters }
    }

    /// The calls that have returned, of all threads.
    fn returned(&self) -> u64 {
        let bytes = fs::read(&self.counters).unwrap_or_default();
        let counters = bytes.chunks_exact(8);
        counters
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .sum()
    }

    /// Waits until so many calls have returned, then kills it.
    fn kill_after(mut self, calls: u64) -> u64 {
        while self.returned() < calls {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "it ended by itself"
            );
            std::thread::yield_now();
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.returned()
    }
}

/// Kills a program again and again after ever more calls and counts what is left.
fn kill_sweep(place: fn() -> TestDir, threads: usize, buffer: &str) {
    for round in 0..12 {
        let (logs, work) = (place(), TestDir::new());
        let returned = Running::start(threads, buffer, &logs, &work).kill_after(1 + round * 3313);
        let log = only_log(logs.path());
        let events = remains(&log);
        assert_contiguous(&events);
        let mut found = 0;
        for line in events.values().flat_map(|stream| stream.values()) {
            let counted = match line["op"].as_str().unwrap() {
                "malloc" => number(line, "size") <= 1000,
                "free" => true,
                _ => false,
            };
            found += u64::from(counted);
        }
        let most = returned + threads as u64;
        let shown = log.display();
        assert!(
            (returned..=most).contains(&found),
            "{found} of {returned} calls in {shown}"
        );
        // Of the shorter logs memspy's own reader says the same; the long ones take it a while.
        if round < 4 {
            let told = finish(memspy().args(["summary", "--json"]).arg(&log)).success();
            assert_eq!(told.json()["logs"][0]["reasons"], json!([]), "{shown}");
        }
    }
}

fn only_log(directory: &Path) -> std::path::PathBuf {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.remove(0)
}

#[test]
fn a_kill_at_any_moment_loses_no_returned_call_on_a_disk() {
    kill_sweep(TestDir::new, 1, "16M");
}

#[test]
fn a_kill_at_any_moment_loses_no_returned_call_on_tmpfs() {
    kill_sweep(TestDir::on_tmpfs, 1, "16M");
}

#[test]
fn a_kill_at_any_moment_loses_no_returned_call_of_several_threads() {
    kill_sweep(TestDir::new, 3, "16M");
    kill_sweep(TestDir::on_tmpfs, 3, "16M");
}

#[test]
fn a_kill_leaves_no_gap_among_the_calls_of_threads_without_buffers() {
    kill_sweep(TestDir::new, 8, "64K");
    kill_sweep(TestDir::on_tmpfs, 8, "64K");
}

/// Asserts that a log takes no more of the disk than its bytes need, where memspy sets anything aside: on ext4.
#[track_caller]
fn assert_takes_its_bytes_alone(log: &Path) {
    let kind = finish(Command::new("stat").args(["-f", "-c", "%t"]).arg(log)).success();
    if kind.stdout().trim() != "ef53" {
        return;
    }
    let file = fs::metadata(log).expect("the log is there");
    let needed = file.len().next_multiple_of(64 << 10);
    let taken = file.blocks() * 512;
    assert!(
        file.len() > 1 << 20,
        "{file:?}: too short to have room set aside"
    );
    assert!(
        taken <= needed,
        "{taken} bytes of the disk for {}",
        file.len()
    );
}

#[test]
fn what_was_set_aside_for_a_log_goes_back_at_its_end_and_with_its_recovery() {
    let recorded = record("many_events", &["60000"]);
    assert_takes_its_bytes_alone(&recorded.log().path);

    let (logs, work) = (TestDir::new(), TestDir::new());
    Running::start(1, "16M", &logs, &work).kill_after(100_000);
    let log = only_log(logs.path());
    finish(memspy().arg("recover").arg(&log)).success();
    assert_takes_its_bytes_alone(&log);
}
