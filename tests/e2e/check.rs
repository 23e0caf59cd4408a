//! `memspy check` on logs: verdict, exit codes, suppressions, baselines, budgets, formats.
//!
//! The logs here are written by hand from FORMAT.md, so that what is judged is known to the byte.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Finished, TestDir, finish, memspy};

/// A log of one thread under construction.
struct MadeLog {
    pid: u32,
    start: Value,
    lines: Vec<String>,
}

impl MadeLog {
    /// A log of mode `leaks`.
    fn new(pid: u32) -> MadeLog {
        let start = json!({
            "op": "start", "v": 1, "pid": pid, "ppid": 4700, "exe": "/opt/app/tests",
            "argv": ["tests"], "cwd": "/", "unix_ns": 1_790_000_000_000_000_000_u64,
            "mono_ns": 1000, "boot_id": "00000000-1111-2222-3333-444444444444",
            "start_ticks": 1, "pid_ns": 1, "memspy": "0.1.0", "libc": "glibc 2.36",
            "allocator": "glibc", "inference": true, "clock": "tsc", "mode": "leaks",
            "stacks": "full", "page": 4096,
        });
        MadeLog {
            pid,
            start,
            lines: Vec::new(),
        }
    }

    fn with(mut self, key: &str, value: Value) -> MadeLog {
        self.start[key] = value;
        self
    }

    fn line(mut self, line: &str) -> MadeLog {
        self.lines.push(line.replace('\'', "\""));
        self
    }

    /// The modules app (1) and libz (2), and two stacks: 2 = app+0x1010 from app+0x1000, 3 = libz.
    fn stacks(self) -> MadeLog {
        self.line(
            "{'op':'module','t':1,'id':1,'base':'0x10000','size':65536,'path':'/opt/app/tests',\
             'bias':'0x10000'}",
        )
        .line(
            "{'op':'module','t':1,'id':2,'base':'0x50000','size':65536,\
             'path':'/opt/app/libz.so.1','bias':'0x50000'}",
        )
        .line("{'op':'stack','t':1,'id':1,'parent':0,'module':1,'ip':'0x11001'}")
        .line("{'op':'stack','t':1,'id':2,'parent':1,'module':1,'ip':'0x11011'}")
        .line("{'op':'stack','t':1,'id':3,'parent':1,'module':2,'ip':'0x51001'}")
    }

    /// A complete check at exit with these groups: kind, blocks, bytes, stack, other keys.
    fn check(self, groups: &[(&str, u64, u64, u32, &str)]) -> MadeLog {
        self.check_as("'complete':true", groups)
    }

    fn check_as(self, complete: &str, groups: &[(&str, u64, u64, u32, &str)]) -> MadeLog {
        let head = format!(
            "{{'op':'check','t':5,'id':1,'when':'exit','groups':{},'live_blocks':9,'live_bytes':99,\
             {complete},'pause_ns':1000}}",
            groups.len()
        );
        groups.iter().fold(
            self.line(&head),
            |log, (kind, blocks, bytes, stack, more)| {
                log.line(&format!(
                "{{'op':'leak','t':5,'check':1,'kind':'{kind}','blocks':{blocks},'bytes':{bytes},\
                 'stack':{stack}{more}}}"
            ))
            },
        )
    }

    /// Writes the log with its end, which names `how` the image ended.
    fn write_ended(mut self, dir: &TestDir, how: &str) {
        let events = self.lines.len() + 1;
        self.lines.push(format!(
            "{{\"op\":\"end\",\"t\":9,\"how\":\"{how}\",\"streams\":1,\"open\":[[1,{events}]],\
             \"lost\":0,\"abandoned\":0,\"mapped\":4096}}"
        ));
        self.write_cut(dir);
    }

    fn write(self, dir: &TestDir) {
        self.write_ended(dir, "exit");
    }

    /// Writes the log as it is, without an end.
    fn write_cut(self, dir: &TestDir) {
        let body: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let mut text = format!("{}\n", ordered(&self.start));
        writeln!(
            text,
            "{{\"op\":\"block\",\"thread\":1,\"tid\":{},\"n\":1,\"events\":{},\"bytes\":{},\
             \"t\":1,\"until\":9}}",
            self.pid,
            self.lines.len(),
            body.len()
        )
        .expect("a String takes all");
        let mut path = dir.path().join(format!("memspy.tests.{}.jsonl", self.pid));
        if path.exists() {
            path = dir
                .path()
                .join(format!("memspy.tests.{}.2.jsonl", self.pid));
        }
        fs::write(path, text + &body).expect("the log can be written");
    }
}

/// `op` must come first.
fn ordered(start: &Value) -> String {
    let text = start.to_string();
    let rest = text
        .replacen("\"op\":\"start\",", "", 1)
        .replacen(",\"op\":\"start\"", "", 1);
    format!("{{\"op\":\"start\",{}", rest.trim_start_matches('{'))
}

fn one_leak(pid: u32) -> MadeLog {
    MadeLog::new(pid).stacks().check(&[
        ("definite", 3, 96, 2, ""),
        ("indirect", 1, 32, 3, ""),
        ("reachable", 2, 2000, 1, ""),
    ])
}

/// `memspy check ARGS… .` in the directory.
fn check(dir: &TestDir, args: &[&str]) -> Finished {
    finish(command(dir).args(args).arg("."))
}

fn command(dir: &TestDir) -> Command {
    let mut command = memspy();
    command.current_dir(dir.path()).arg("check");
    command
}

fn document(dir: &TestDir, args: &[&str], code: i32) -> Value {
    let mut all = vec!["--format", "json"];
    all.extend(args);
    check(dir, &all).code(code).json()
}

#[test]
fn leaks_end_with_23_and_are_counted_by_kind() {
    let dir = TestDir::new();
    one_leak(4711).write(&dir);
    let json = document(&dir, &[], 23);
    assert_eq!(json["schema"], 1);
    assert_eq!(json["verdict"], "leaks");
    assert_eq!(json["program_status"], Value::Null);
    assert_eq!(
        json["kinds"],
        json!({
            "definite": {"bytes": 96, "blocks": 3},
            "indirect": {"bytes": 32, "blocks": 1},
            "possible": {"bytes": 0, "blocks": 0},
            "reachable": {"bytes": 2000, "blocks": 2},
        })
    );
    assert_eq!(json["leaks"][0]["stack"][0]["module"], "/opt/app/tests");
    assert_eq!(json["leaks"][0]["stack"][0]["address"], "0x1010");
    assert_eq!(json["processes"][0]["judged"], true);
}

#[test]
fn the_text_names_each_leak_on_standard_error_and_nothing_on_standard_output() {
    let dir = TestDir::new();
    one_leak(4711).write(&dir);
    let text = check(&dir, &[]).code(23);
    assert_eq!(text.stdout(), "");
    let err = text.stderr();
    assert!(
        err.contains("definite leak of 96 bytes in 3 blocks, process 4711 (tests)"),
        "{err}"
    );
    assert!(err.contains("tests+0x1010"), "{err}");
    assert!(!err.contains("reachable leak"), "only counted: {err}");
    assert!(err.contains("reachable: 2,000 bytes in 2 blocks"), "{err}");
    let last = err.lines().last().expect("a verdict line");
    assert!(
        last.starts_with("memspy check: leaks: 128 bytes in 4 blocks"),
        "{last}"
    );
    let all = check(&dir, &["--show", "all"]).code(23);
    assert!(
        all.stderr().contains("reachable leak of 2,000 bytes"),
        "{all}"
    );
}

#[test]
fn the_kinds_that_fail_and_the_code_are_the_users_choice() {
    let dir = TestDir::new();
    MadeLog::new(4711)
        .stacks()
        .check(&[("reachable", 1, 8, 2, "")])
        .write(&dir);
    check(&dir, &[]).success();
    check(&dir, &["--fail-on", "all"]).code(23);
    check(&dir, &["--fail-on", "reachable", "--leak-exit-code", "7"]).code(7);
    check(&dir, &["--fail-on", "direct"]).code(125);
}

#[test]
fn a_log_that_can_not_be_judged_ends_with_125_whatever_it_holds() {
    let cut = MadeLog::new(4711).stacks().check_as(
        "'complete':false,'why':'no registers of thread 12'",
        &[("definite", 1, 8, 2, "")],
    );
    let foreign = one_leak(4711).with("allocator", json!("/usr/lib/libjemalloc.so.2"));
    let cases = [
        ("exit", foreign, "jemalloc"),
        ("exit", MadeLog::new(4711), "no leak check"),
        ("exit", cut, "no registers of thread 12"),
        ("execve", one_leak(4711), "left no log"),
    ];
    for (how, log, why) in cases {
        let dir = TestDir::new();
        log.write_ended(&dir, how);
        let json = document(&dir, &[], 125);
        assert_eq!(json["verdict"], "inconclusive", "{json}");
        assert!(json["why"].to_string().contains(why), "{why}: {json}");
        assert_eq!(json["processes"][0]["judged"], false);
    }
}

#[test]
fn a_log_without_an_end_or_with_missing_lines_is_never_clean() {
    let dir = TestDir::new();
    MadeLog::new(4711).stacks().check(&[]).write_cut(&dir);
    let json = document(&dir, &[], 125);
    assert!(
        json["why"].to_string().contains("the end is missing"),
        "{json}"
    );

    let dir = TestDir::new();
    let mut log = one_leak(4711);
    log.lines.pop();
    log.write(&dir);
    let json = document(&dir, &[], 125);
    assert!(
        json["why"]
            .to_string()
            .contains("lines of its leak check are missing"),
        "{json}"
    );
}

#[test]
fn an_image_that_became_another_program_is_judged_with_it() {
    let dir = TestDir::new();
    one_leak(4711).write_ended(&dir, "execve");
    MadeLog::new(4711)
        .with("mono_ns", json!(2000))
        .check(&[])
        .write(&dir);
    let json = document(&dir, &[], 23);
    assert_eq!(json["leaks"][0]["live_at_exec"], true);
    let text = check(&dir, &[]).code(23);
    assert!(text.stderr().contains("live at exec"), "{text}");
}

#[test]
fn inherited_blocks_are_listed_and_are_nobodys_leak() {
    let dir = TestDir::new();
    MadeLog::new(4711)
        .stacks()
        .check(&[("definite", 1, 64, 2, ",'inherited':true")])
        .write(&dir);
    let json = document(&dir, &[], 0);
    assert_eq!(json["kinds"]["definite"]["blocks"], 0);
    assert_eq!(json["inherited"], json!({"bytes": 64, "blocks": 1}));
    assert_eq!(json["leaks"][0]["inherited"], true);
}

#[test]
fn one_verdict_covers_all_processes_and_a_skipped_one_is_left_out() {
    let dir = TestDir::new();
    MadeLog::new(1).check(&[]).write(&dir);
    one_leak(2).with("exe", json!("/bin/helper")).write(&dir);
    let json = document(&dir, &[], 23);
    assert_eq!(json["processes"].as_array().map(Vec::len), Some(2));
    let json = document(&dir, &["--skip", "helper"], 0);
    assert_eq!(json["processes"][1]["skipped"], true);
}

#[test]
fn suppressions_of_both_syntaxes_take_leaks_out_and_unused_ones_are_told() {
    let dir = TestDir::new();
    one_leak(4711).write(&dir);
    let text = "leak:libz.so\n{\n  known\n  Memcheck:Leak\n  fun:malloc\n  obj:/opt/app/*\n}\n\
                leak:never\n";
    fs::write(dir.path().join("known.supp"), text).expect("written");
    let json = document(&dir, &["--suppressions", "known.supp"], 0);
    assert_eq!(json["kinds"]["definite"]["blocks"], 0);
    assert_eq!(
        json["suppressed"]["blocks"], 6,
        "Valgrind's entry matches reachable blocks too"
    );
    assert_eq!(json["suppressed"]["entries"][2]["used"], false);
    let text = check(&dir, &["--suppressions", "known.supp"]).success();
    assert!(
        text.stderr()
            .contains("known.supp:8: never: matched nothing"),
        "{text}"
    );
    check(&dir, &["--suppressions", "known.supp", "--fail-on-unused"]).code(23);
}

#[test]
fn generated_suppressions_suppress_exactly_what_they_were_made_from() {
    for syntax in ["valgrind", "lsan"] {
        let dir = TestDir::new();
        one_leak(4711).write(&dir);
        let args = [
            "--suppression-syntax",
            syntax,
            "--gen-suppressions=made.supp",
        ];
        check(&dir, &args).code(23);
        let json = document(
            &dir,
            &["--suppressions", "made.supp", "--fail-on-unused"],
            0,
        );
        assert_eq!(json["kinds"]["definite"]["blocks"], 0, "{syntax}");
    }
    let dir = TestDir::new();
    one_leak(4711).write(&dir);
    let made = check(&dir, &["--gen-suppressions"]).code(23);
    assert_eq!(made.stdout().matches("Memcheck:Leak").count(), 2, "{made}");
}

#[test]
fn bad_files_end_with_125_and_name_line_and_column() {
    let dir = TestDir::new();
    one_leak(4711).write(&dir);
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    write("a.supp", "leak:x\n  race:y\n");
    write("b.json", "{\"memspy_baseline\":1,\n\"leaks\":7}");
    write("c.json", "{\"memspy_baseline\":2}");
    for (args, message) in [
        (
            ["--suppressions", "a.supp"],
            "a.supp:2:3: unknown suppression type",
        ),
        (
            ["--suppressions", "missing.supp"],
            "can't read the suppressions missing.supp",
        ),
        (["--baseline", "b.json"], "b.json:2:9: not a baseline"),
        (["--baseline", "c.json"], "version 2"),
        (["--baseline", "missing.json"], "can't read the baseline"),
        (["--max-peak", "64Mi"], "not a size"),
        (["--max-allocs", "many"], "not a number"),
        (["--output", "sarif"], "expected FORMAT=FILE"),
        (["--source-root", "missing"], "can't use the source root"),
    ] {
        let ended = check(&dir, &args).code(125);
        assert!(ended.stderr().contains(message), "{message}: {ended}");
        assert_eq!(ended.stdout(), "");
    }
}

#[test]
fn only_new_and_grown_leaks_fail_against_a_baseline() {
    let dir = TestDir::new();
    one_leak(4711).write(&dir);
    check(&dir, &["--write-baseline", "known.json"]).code(23);
    let json = document(&dir, &["--baseline", "known.json"], 0);
    assert_eq!(json["leaks"][0]["standing"], "known");
    assert_eq!(
        json["kinds"]["definite"]["blocks"], 3,
        "known leaks are leaks"
    );

    // The same program, built and loaded elsewhere, with one block more.
    fs::remove_file(dir.path().join("memspy.tests.4711.jsonl")).expect("removed");
    MadeLog::new(12)
        .stacks()
        .check(&[("definite", 4, 128, 2, "")])
        .write(&dir);
    let json = document(&dir, &["--baseline", "known.json"], 23);
    assert_eq!(
        json["leaks"][0]["grown_from"],
        json!({"bytes": 96, "blocks": 3})
    );
    assert_eq!(json["baseline"]["stale"][0]["kind"], "indirect");
}

#[test]
fn a_baseline_is_not_written_from_half_the_truth() {
    let dir = TestDir::new();
    one_leak(4711)
        .with("allocator", json!("/lib/other.so"))
        .write(&dir);
    let ended = check(&dir, &["--write-baseline", "known.json"]).code(125);
    assert!(
        ended.stderr().contains("no baseline was written"),
        "{ended}"
    );
    assert!(!dir.path().join("known.json").exists());
}

/// 1000 bytes live for a moment, 100 of them at the end; two allocations, one mmap of its own.
fn events(pid: u32) -> MadeLog {
    MadeLog::new(pid)
        .with("mode", json!("events"))
        .line("{'op':'malloc','t':2,'size':900,'ptr':'0x1000'}")
        .line("{'op':'malloc','t':3,'size':100,'ptr':'0x2000'}")
        .line("{'op':'free','t':4,'ptr':'0x1000'}")
        .line("{'op':'mmap','t':5,'addr':'0x9000','size':4096,'prot':3,'flags':34,'fd':-1,'offset':0}")
        .line(
            "{'op':'mmap','t':6,'addr':'0xa000','size':4096,'prot':3,'flags':34,'fd':-1,'offset':0,\
             'via':'malloc'}",
        )
}

#[test]
fn budgets_of_an_event_log_are_judged_and_its_leaks_are_not() {
    let dir = TestDir::new();
    events(4711).write(&dir);
    document(&dir, &[], 125);
    let budget = |option: &str, limit: &str, code: i32| {
        let json = document(&dir, &[option, limit], code);
        assert_eq!(
            json["verdict"],
            if code == 0 { "clean" } else { "failed" },
            "{option} {limit}"
        );
    };
    budget("--max-peak", "1000", 0);
    budget("--max-peak", "999", 23);
    budget("--max-allocs", "2", 0);
    budget("--max-allocs", "1", 23);
    budget("--max-mmaps", "1", 0);
    budget("--max-mmaps", "0", 23);
    document(&dir, &["--max-peak", "1MiB", "--max-leaked", "0"], 125);
}

#[test]
fn a_budget_without_events_is_inconclusive() {
    let dir = TestDir::new();
    MadeLog::new(4711).check(&[]).write(&dir);
    let json = document(&dir, &["--max-allocs", "10"], 125);
    assert!(
        json["why"].to_string().contains("MEMSPY_MODE=full"),
        "{json}"
    );
}

#[test]
fn budgets_hold_for_the_tree_or_for_each_process() {
    let dir = TestDir::new();
    events(1).write(&dir);
    events(2).write(&dir);
    check(&dir, &["--max-allocs", "3"]).code(23);
    check(&dir, &["--max-allocs", "3", "--per-process"]).success();
    check(&dir, &["--max-peak", "1999"]).code(23);
    check(&dir, &["--max-peak", "2000"]).success();
}

#[test]
fn leaks_within_the_budget_pass() {
    let dir = TestDir::new();
    one_leak(4711).write(&dir);
    check(&dir, &["--max-leaked", "128"]).success();
    check(&dir, &["--max-leaked", "127"]).code(23);
    check(&dir, &["--max-leaked", "4blocks"]).success();
    check(&dir, &["--max-leaked", "1KiB", "--max-leaked", "3blocks"]).code(23);
}

#[test]
fn every_format_is_accepted_by_an_independent_reader_of_it() {
    let dir = TestDir::new();
    one_leak(4711)
        .with("exe", json!("/opt/<&\"'\u{1b}[31m%0A::error::"))
        .write(&dir);
    let formats = ["json", "junit", "sarif", "github", "markdown", "text"];
    let outputs: Vec<String> = formats
        .iter()
        .map(|format| format!("--output={format}=out.{format}"))
        .collect();
    check(
        &dir,
        &outputs.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .code(23);
    let script = r##"
import json, xml.etree.ElementTree as tree
root = tree.parse("out.junit").getroot()
assert root.tag == "testsuites" and root.get("failures") == "3", root.attrib
failed = [c for c in root.iter("testcase") if c.find("failure") is not None]
assert len(failed) == 3 and all(c.get("classname") for c in failed)
assert "#0" in failed[1].find("failure").text
document = json.load(open("out.json"))
assert document["verdict"] == "leaks"
sarif = json.load(open("out.sarif"))
assert len(sarif["runs"][0]["results"]) == 2
for name in ["out.junit", "out.github", "out.markdown", "out.text"]:
    assert not any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 for c in open(name).read()), name
"##;
    finish(
        Command::new("python3")
            .current_dir(dir.path())
            .args(["-c", script]),
    )
    .success();
}

#[test]
fn a_program_that_brings_its_own_suppressions_has_them_applied() {
    let source = "const char *__lsan_default_suppressions(void) { return \"leak:libz\\n\"; }\n\
                  int main(void) { return 0; }\n";
    let odd = "#include <stdlib.h>\nconst char *__lsan_default_suppressions(void)\n\
               { return getenv(\"SUPPRESSIONS\"); }\nint main(void) { return 0; }\n";
    for options in ["-O0", "-O2", "-O2 -fcf-protection=full", "-O1 -no-pie"] {
        let dir = TestDir::new();
        fs::write(dir.path().join("app.c"), source).expect("written");
        let built = format!("cc {options} -o app app.c");
        finish(
            Command::new("sh")
                .current_dir(dir.path())
                .args(["-c", &built]),
        )
        .success();
        one_leak(4711)
            .with("exe", json!(dir.path().join("app")))
            .write(&dir);
        let json = document(&dir, &[], 23);
        assert_eq!(json["suppressed"]["blocks"], 1, "{options}: {json}");
    }
    let dir = TestDir::new();
    fs::write(dir.path().join("app.c"), odd).expect("written");
    finish(
        Command::new("cc")
            .current_dir(dir.path())
            .args(["-o", "app", "app.c"]),
    )
    .success();
    one_leak(4711)
        .with("exe", json!(dir.path().join("app")))
        .write(&dir);
    let json = document(&dir, &[], 23);
    assert!(
        json["notes"].to_string().contains("is not applied"),
        "{json}"
    );
}

#[test]
fn no_log_that_is_named_may_be_missing_or_foreign() {
    let dir = TestDir::new();
    let ended = finish(command(&dir).arg("nothing.jsonl")).code(125);
    assert!(ended.stderr().contains("nothing.jsonl"), "{ended}");
    fs::write(dir.path().join("x.jsonl"), "not a log\n").expect("written");
    finish(command(&dir).arg("x.jsonl")).code(125);
    finish(command(&dir).arg(".")).code(125);
}

#[test]
fn a_program_that_is_not_there_or_can_not_run_ends_as_in_the_shell() {
    let dir = TestDir::new();
    finish(command(&dir).args(["--", "no-such-program"])).code(127);
    finish(command(&dir).args(["--", "/etc/passwd"])).code(126);
}

#[test]
fn memspy_leaks_lists_what_is_left_and_says_when_it_can_not_tell_kinds() {
    let dir = TestDir::new();
    let log = events(4711).stacks();
    log.line("{'op':'calloc','t':7,'count':3,'size':10,'ptr':'0x3000','stack':2}")
        .write(&dir);
    let leaks = |args: &[&str]| {
        let mut command = memspy();
        finish(
            command
                .current_dir(dir.path())
                .arg("leaks")
                .args(args)
                .arg("."),
        )
        .success()
    };
    let json = leaks(&["--json"]).json();
    let process = &json["processes"][0];
    assert_eq!(process["kinds_known"], false);
    assert_eq!(
        (&process["bytes"], &process["blocks"]),
        (&json!(130), &json!(2))
    );
    assert_eq!(process["groups"][1]["bytes"], 30);
    assert_eq!(process["groups"][1]["kind"], Value::Null);
    assert_eq!(process["groups"][1]["stack"][0]["address"], "0x1010");
    let text = leaks(&["--top", "1"]);
    assert!(
        text.stdout().contains("130 bytes in 2 blocks not freed"),
        "{text}"
    );
    assert!(text.stdout().contains("nothing tells whether"), "{text}");
    assert!(text.stdout().contains("1 more call stacks"), "{text}");

    let dir = TestDir::new();
    one_leak(1).write(&dir);
    let text = finish(memspy().current_dir(dir.path()).args(["leaks", "."])).success();
    assert!(
        text.stdout().contains("96 bytes in 3 blocks, definite"),
        "{text}"
    );
}
