//! `memspy snapshot` and `memspy mark`: a service that goes on is asked, and `--since`, `--until` and `--growing` tell
//! what happened between the answers.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::yield_now;

use serde_json::{Value, json};

use crate::oracle::assert_complete;
use crate::support::{Finished, Log, TestDir, clean, compile, compile_with, finish, memspy};
use crate::support::{preloaded, repository};

/// A running `tests/programs/service.c`.
struct Service {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pid: u32,
    logs: TestDir,
}

impl Service {
    fn start(settings: &[(&str, &str)], arguments: &[&str]) -> Service {
        let logs = TestDir::new();
        let mut command = preloaded(compile("service.c"), &logs);
        command.args(arguments).envs(settings.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the service can be started");
        let mut service = Service {
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(child.stdout.take().expect("a pipe")),
            pid: child.id(),
            child,
            logs,
        };
        assert_eq!(service.answer(), service.pid.to_string());
        service
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    fn send(&mut self, command: char) -> String {
        write!(self.input, "{command}").expect("the service reads");
        self.answer()
    }

    fn handle(&mut self, commands: &str) {
        for command in commands.chars() {
            assert_eq!(self.send(command), "ok");
        }
    }

    /// Runs `memspy` on it, while it has something to do.
    fn ask(&mut self, what: &str, more: &[&str]) -> Finished {
        let mut asker = memspy();
        asker.arg(what).arg(self.pid.to_string()).args(more);
        let asker = std::thread::spawn(move || finish(&mut asker));
        while !asker.is_finished() {
            self.handle("g");
            yield_now();
        }
        asker.join().expect("memspy can be run")
    }

    fn snapshot(&mut self, name: &str) -> Value {
        self.ask("snapshot", &["--name", name, "--json"])
            .success()
            .json()
    }

    /// Runs `memspy` on it while it is idle.
    fn ask_idle(&self, what: &str, more: &[&str]) -> Finished {
        finish(memspy().arg(what).arg(self.pid.to_string()).args(more))
    }

    fn end(mut self) -> TestDir {
        write!(self.input, "q").expect("the service reads");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        self.logs
    }
}

/// Blocks and bytes of each function that allocated, as `memspy leaks` tells them: by kind, and the second frame.
fn held(logs: &TestDir, more: &[&str]) -> Vec<(String, String, u64, u64)> {
    let mut command = memspy();
    command.args(["leaks", "--top", "0", "--json"]).args(more);
    let document = finish(command.arg(logs.path())).success().json();
    let mut held = Vec::new();
    for process in document["processes"].as_array().expect("processes") {
        for group in process["groups"].as_array().expect("groups") {
            let number = |key: &str| group[key].as_u64().expect("a number");
            held.push((
                group["kind"].as_str().unwrap_or("").to_owned(),
                group["stack"][1]["function"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned(),
                number("blocks"),
                number("bytes"),
            ));
        }
    }
    held.sort();
    held
}

fn one(kind: &str, function: &str, blocks: u64, bytes: u64) -> (String, String, u64, u64) {
    (kind.into(), function.into(), blocks, bytes)
}

fn kinds(snapshot: &Value, kind: &str) -> (u64, u64) {
    let sums = &snapshot["check"]["kinds"][kind];
    assert_eq!(snapshot["check"]["complete"], true, "{snapshot}");
    let number = |key: &str| sums[key].as_u64().expect("a number");
    (number("blocks"), number("bytes"))
}

#[test]
fn what_leaked_between_two_snapshots_is_listed_alone_and_the_service_goes_on() {
    let mut service = Service::start(&[("MEMSPY_MODE", "leaks")], &[]);
    service.handle("lhg");
    let before = service.snapshot("before");
    assert_eq!(kinds(&before, "definite"), (3, 3000));
    assert_eq!(kinds(&before, "reachable"), (1, 504));
    service.handle("llhg");
    let after = service.snapshot("after");
    assert_eq!(kinds(&after, "definite"), (9, 9000));
    service.handle("lg");
    // The copies that made the checks are no children of the service's.
    assert_eq!(service.send('w'), "none");
    let logs = service.end();

    let window = ["--since", "before", "--until", "after"];
    assert_eq!(
        held(&logs, &window),
        [
            one("definite", "leaky_handler", 6, 6000),
            one("reachable", "keeping_handler", 1, 504)
        ]
    );
    assert_eq!(
        held(&logs, &["--since", "after"]),
        [one("definite", "leaky_handler", 3, 3000)]
    );
    assert_eq!(
        held(&logs, &[]),
        [
            one("definite", "leaky_handler", 12, 12000),
            one("reachable", "keeping_handler", 2, 1008)
        ]
    );
    let check = |more: &[&str]| finish(memspy().arg("check").args(more).arg(logs.path()));
    let found = check(&[&window[..], &["--format", "json"]].concat()).code(23);
    assert_eq!(
        found.json()["kinds"]["definite"],
        json!({"blocks": 6, "bytes": 6000})
    );
    check(&["--since", "after", "--max-leaked", "3blocks"]).success();
    check(&["--until", "before", "--max-leaked", "2blocks"]).code(23);
    let missing = check(&["--since", "befor"]).code(125);
    assert!(
        missing.stderr().contains("befor; there are after, before"),
        "{missing}"
    );

    let log = Log::only_in(&logs);
    assert_complete(&log);
    let marks: Vec<&Value> = log.ops("mark").map(|mark| &mark["name"]).collect();
    assert_eq!(marks, ["before", "after"]);
    let carried = |op: &str| log.ops(op).filter(|line| line["mark"] == "after").count();
    assert_eq!((carried("snapshot"), carried("check")), (1, 1));
    let schema = repository().join("src/log/schema.json");
    crate::summary::holds(&schema, &log.path, true);
}

#[test]
fn a_thread_that_can_not_be_stopped_goes_on_as_if_nothing_had_been() {
    let settings = [("MEMSPY_MODE", "leaks")];
    let mut service = Service::start(&settings, &["deaf"]);
    service.handle("l");
    let asked = service.snapshot("deaf");
    assert_eq!(asked["check"]["complete"], false);
    // The signal that it could not take meets it now, with libc's handler in place again.
    service.handle("uls");
    service.end();
}

#[test]
fn an_idle_service_answers_on_its_signal_and_nothing_but_its_threads_is_disturbed() {
    let settings = [("MEMSPY_MODE", "full"), ("MEMSPY_SIGNAL", "USR2")];
    let mut service = Service::start(&settings, &["threads"]);
    service.handle("lg");
    let asked = service.ask_idle("snapshot", &["--json"]).success().json();
    assert_eq!(asked["mark"], "snapshot-1");
    assert_eq!(kinds(&asked, "definite"), (3, 3000));
    service.ask_idle("mark", &["now"]).success();
    // By hand, without a request.
    let pid = service.pid.to_string();
    finish(clean("kill").args(["-USR2", &pid])).success();
    let log = service.logs.names();
    let log = log.iter().find(|name| name.ends_with(".jsonl"));
    let log = service.logs.join(log.expect("a log"));
    let answered = |text: &str| {
        let is_check = |line: &&str| line.starts_with(r#"{"op":"check""#);
        let mut checks = text.lines().filter(is_check);
        checks.any(|line| line.contains(r#""mark":"snapshot-2""#))
    };
    while !answered(&fs::read_to_string(&log).expect("the log can be read")) {
        yield_now();
    }
    service.handle("g");
    assert_eq!(service.send('w'), "none");
    let logs = service.end();
    let log = Log::only_in(&logs);
    assert_complete(&log);
    let marks: Vec<&Value> = log.ops("mark").map(|mark| &mark["name"]).collect();
    assert_eq!(marks, ["snapshot-1", "now", "snapshot-2"]);
}

#[test]
fn without_the_variable_no_handler_is_installed() {
    let caught = |service: &Service| {
        let status = fs::read_to_string(format!("/proc/{}/status", service.pid)).expect("runs");
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        u64::from_str_radix(line.expect("a line").trim(), 16).expect("a number")
    };
    let plain = Service::start(&[("MEMSPY_MODE", "leaks")], &[]);
    let named = Service::start(&[("MEMSPY_MODE", "leaks"), ("MEMSPY_SIGNAL", "40")], &[]);
    assert_eq!(caught(&plain) | 1 << (40 - 1), caught(&named));
    assert_eq!(caught(&plain) >> (40 - 1) & 1, 0);
    plain.end();
    named.end();
}

#[test]
fn what_grew_in_every_window_is_told_from_what_grew_once() {
    for mode in ["leaks", "events"] {
        let mut service = Service::start(&[("MEMSPY_MODE", mode)], &[]);
        for (name, commands) in [("a", "lhg"), ("b", "lhohg"), ("c", "lhg")] {
            service.handle(commands);
            service.ask("snapshot", &["--name", name]).success();
        }
        let logs = service.end();
        let growing = |more: &[&str]| -> Vec<_> {
            let all = held(&logs, &[&["--growing"], more].concat());
            let name = |(_, function, blocks, _)| (function, blocks);
            all.into_iter().map(name).collect()
        };
        let grew = [("keeping_handler".into(), 4), ("leaky_handler".into(), 9)];
        assert_eq!(growing(&[]), grew, "{mode}");
        let text = finish(memspy().args(["leaks", "--growing"]).arg(logs.path())).success();
        assert!(
            text.stdout().contains("each of 2 windows: a, b, c"),
            "{text}"
        );
        assert!(text.stdout().contains("3,000 bytes in 3 blocks"), "{text}");
    }
}

#[test]
fn a_log_of_events_knows_windows_too_and_says_that_it_has_no_kinds() {
    let mut service = Service::start(&[], &[]);
    service.handle("lh");
    let first = service.ask("snapshot", &["--name", "first"]).success();
    assert!(
        first.stderr().contains("MEMSPY_MODE=leaks or full"),
        "{first}"
    );
    service.handle("l");
    service.ask("mark", &["second"]).success();
    service.handle("l");
    let logs = service.end();
    let window = ["--since", "first", "--until", "second"];
    assert_eq!(held(&logs, &window), [one("", "leaky_handler", 3, 3000)]);
    let log = Log::only_in(&logs);
    assert_complete(&log);
    let made: Vec<&Value> = log.ops("snapshot").map(|made| &made["when"]).collect();
    assert_eq!(made, ["start", "request", "exit"]);
}

#[test]
fn a_process_that_stays_idle_is_waited_for_and_then_left_alone() {
    let mut service = Service::start(&[("MEMSPY_MODE", "leaks")], &[]);
    // Printing the pid may end with a memory call; answering "ok" does not.
    service.handle("g");
    let late = service.ask_idle("snapshot", &["--timeout", "1"]).code(124);
    assert!(late.stderr().contains("no memory call in 1 s"), "{late}");
    assert!(late.stderr().contains("MEMSPY_SIGNAL=USR2"), "{late}");
    service.handle("g");
    let logs = service.end();
    let log = Log::only_in(&logs);
    assert_complete(&log);
    assert_eq!(log.ops("mark").count() + log.ops("leak").count(), 0);
}

#[test]
fn who_can_not_be_asked_is_told_apart() {
    #[track_caller]
    fn refused(pid: u32, why: &str) {
        let asked = finish(memspy().args(["mark", &pid.to_string(), "now"])).code(1);
        assert!(asked.stderr().contains(why), "{asked}");
        assert_eq!(asked.stderr().lines().count(), 1, "{asked}");
    }
    refused(u32::MAX, "there is no process 4294967295");
    refused(
        std::process::id(),
        "is not recorded: start it with memspy run",
    );
    finish(memspy().args(["mark", "1", ""])).code(2);
    let still = |command: &mut Command, why: &str| {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a service");
        // It has printed its pid: it runs.
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        refused(child.id(), why);
        drop(child.stdin.take());
        child.wait().expect("it ends");
    };
    let logs = TestDir::new();
    let fixed = compile_with("service.c", &["-static"]);
    still(&mut preloaded(fixed, &logs), "is statically linked");
    let mut off = preloaded(compile("service.c"), &logs);
    still(off.env("MEMSPY_MODE", "off"), "records nothing");

    let mut service = Service::start(&[], &[]);
    let child = service.send('f').parse().expect("a pid");
    refused(child, "no memory call since it was forked");
    service.end();
}

#[test]
fn another_users_process_is_not_asked() {
    let as_nobody = |program: &std::ffi::OsStr| {
        let mut command = clean("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(program);
        command
    };
    let program = memspy().get_program().to_owned();
    if !finish(as_nobody(&program).arg("--version"))
        .status
        .success()
    {
        // Not root, or the build lies where nobody else can read.
        return;
    }
    let service = Service::start(&[("MEMSPY_MODE", "leaks")], &[]);
    let pid = service.pid.to_string();
    let asked = finish(as_nobody(&program).args(["snapshot", &pid])).code(1);
    assert!(asked.stderr().contains("is another user's"), "{asked}");
    service.end();
}
