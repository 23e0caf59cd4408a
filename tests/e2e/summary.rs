//! `memspy summary`: the story of a program's memory, as text and as JSON.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{
    Finished, TestDir, clean, compile, compile_with, finish, finish_with_input, memspy, preloaded,
    repository,
};

/// Records `cat` reading a file into a pipe, which makes it allocate its 128 KiB buffer.
fn record_cat(logs: &TestDir) {
    let file = logs.write("file.txt", "hello\n");
    let cat = finish(preloaded("cat", logs).arg(file)).success();
    assert_eq!(cat.stdout(), "hello\n", "{cat}");
}

fn summary(logs: &TestDir, options: &[&str]) -> Finished {
    finish(memspy().arg("summary").args(options).arg(logs.path())).success()
}

fn line_with<'a>(text: &'a str, what: &str) -> &'a str {
    let found = text.lines().find(|line| line.contains(what));
    found.unwrap_or_else(|| panic!("no line with {what:?} in:\n{text}"))
}

#[test]
fn cat_gets_its_buffer_by_mmap_and_the_rest_from_the_brk_heap() {
    let logs = TestDir::new();
    record_cat(&logs);
    let told = summary(&logs, &[]);
    let text = told.stdout();
    assert!(
        text.lines().any(|line| line.contains(", complete")),
        "{told}"
    );
    let buffer = line_with(text, "  aligned_alloc");
    assert!(
        buffer.contains(" 1 ") && buffer.contains("128.0 KiB"),
        "{told}"
    );
    let mapped = line_with(text, "mmap by malloc");
    assert!(
        mapped.contains("136.0 KiB") && mapped.contains("in aligned_alloc"),
        "{told}"
    );
    let unmapped = line_with(text, "unmapped");
    assert!(
        unmapped.contains("136.0 KiB") && unmapped.contains("in free"),
        "{told}"
    );
    let grown = line_with(text, "brk heap grown");
    assert!(
        grown.contains("132.0 KiB") && grown.contains("1 call "),
        "{told}"
    );
    assert!(
        text.contains("aligned_alloc(4096, 131072) mapped 139,264 bytes"),
        "{told}"
    );
}

#[test]
fn the_kernel_calls_behind_malloc_are_those_that_strace_sees() {
    let logs = TestDir::new();
    let file = logs.write("file.txt", "hello\n");
    let trace = logs.join("trace.txt");
    let mut strace = clean("strace");
    strace.args(["-e", "trace=mmap,munmap", "-o"]).arg(&trace);
    strace.args(["-E", "LC_ALL=C", "cat"]).arg(&file);
    finish(&mut strace).success();
    let seen = std::fs::read_to_string(&trace).expect("strace wrote its trace");
    assert!(seen.contains("mmap(NULL, 139264, "), "{seen}");
    assert!(seen.contains(", 139264)"), "no munmap of it in {seen}");

    finish(preloaded("cat", &logs).env("LC_ALL", "C").arg(&file)).success();
    let told = summary(&logs, &["--json"]).json();
    let kernel = told["totals"]["kernel"].as_array().expect("an array");
    let bytes = |call: &str| -> Vec<u64> {
        let rows = kernel.iter().filter(|row| row["call"] == call);
        rows.filter_map(|row| row["bytes"].as_u64()).collect()
    };
    assert_eq!(bytes("mmap"), [139_264], "{told}");
    assert_eq!(bytes("munmap"), [139_264], "{told}");
}

#[test]
fn blocks_and_bytes_are_those_that_valgrind_counts() {
    let logs = TestDir::new();
    let program = compile("fixed_calls.c");
    finish(&mut preloaded(&program, &logs)).success();
    let told = summary(&logs, &["--json"]).json();
    let heap = &told["logs"][0]["heap"];
    let mut valgrind = clean("valgrind");
    valgrind.args(["--run-libc-freeres=no", "--run-cxx-freeres=no"]);
    let judged = finish(valgrind.arg(&program)).success();
    let expected = format!(
        "total heap usage: {} allocs, {} frees, {} bytes allocated",
        with_commas(&heap["allocated"]["blocks"]),
        with_commas(&heap["freed"]["blocks"]),
        with_commas(&heap["allocated"]["bytes"])
    );
    assert!(judged.stderr().contains(&expected), "{expected}\n{judged}");
}

fn with_commas(number: &Value) -> String {
    let digits = number.as_u64().expect("a number").to_string();
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    let parts: Vec<_> = parts.into_iter().map(String::from_utf8_lossy).collect();
    parts.join(",")
}

#[test]
fn json_is_as_its_schema_says() {
    let logs = TestDir::new();
    record_cat(&logs);
    record_cat(&logs);
    let document = logs.write("summary.json", &summary(&logs, &["--json"]).stdout_bytes);
    let schema = repository().join("src/cli/summary.schema.json");
    holds(&schema, &document, false);
}

#[test]
fn every_line_of_a_log_is_as_the_schema_of_the_log_says() {
    let logs = TestDir::new();
    record_cat(&logs);
    finish(&mut preloaded(
        compile_with("many_lines.c", &["-pthread"]),
        &logs,
    ))
    .success();
    let schema = repository().join("src/log/schema.json");
    let mut held = 0;
    for name in logs.names() {
        if name.ends_with(".jsonl") {
            holds(&schema, &logs.join(name), true);
            held += 1;
        }
    }
    // cat, the program, its forked child.
    assert_eq!(held, 3);
}

/// Asks python's jsonschema whether a document, or each line of it, is valid.
pub(crate) fn holds(schema: &std::path::Path, document: &std::path::Path, lines: bool) {
    const SCRIPT: &str = "\
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
text = open(sys.argv[2], encoding='utf-8').read()
for part in text.splitlines() if sys.argv[3] == 'lines' else [text]:
    for error in validator.iter_errors(json.loads(part)):
        sys.exit(f'{part[:300]}: {error.message}')
";
    // Debian's own python, for which python3-jsonschema is.
    let mut python: Command = clean("/usr/bin/python3");
    python.args(["-c", SCRIPT]).arg(schema).arg(document);
    finish(python.arg(if lines { "lines" } else { "whole" })).success();
}

#[test]
fn a_stream_and_a_compressed_log_are_read_like_the_log() {
    let logs = TestDir::new();
    record_cat(&logs);
    let told = summary(&logs, &[]);
    let log = logs
        .names()
        .into_iter()
        .find(|name| name.ends_with(".jsonl"));
    let log = std::fs::read(logs.join(log.expect("a log"))).expect("readable");
    let streamed = finish_with_input(memspy().args(["summary", "-"]), &log).success();
    assert_eq!(streamed.stdout(), told.stdout());
    let packed = finish_with_input(clean("zstd").arg("-qc"), &log).success();
    let streamed = finish_with_input(memspy().args(["summary", "-"]), &packed.stdout_bytes);
    assert_eq!(streamed.success().stdout(), told.stdout());
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let logs = TestDir::new();
    record_cat(&logs);
    let mut shell = clean("bash");
    shell.args(["-c", "\"$0\" summary \"$1\" | true; exit ${PIPESTATUS[0]}"]);
    finish(shell.arg(env!("CARGO_BIN_EXE_memspy")).arg(logs.path())).success();
}

#[test]
fn what_is_no_log_gets_one_line_and_exit_code_1() {
    let place = TestDir::new();
    let garbage = place.write("garbage.jsonl", b"\x7fELF\x01\x02\x00\xff\n\x1b]0;x\x07\n");
    let empty = place.write("empty.jsonl", "");
    let newer = place.write("newer.jsonl", "{\"op\":\"start\",\"v\":2}\n");
    let fifo = place.join("fifo.jsonl");
    finish(clean("mkfifo").arg(&fifo)).success();
    for (path, said) in [
        (&garbage, "not a memspy log"),
        (&empty, "is empty"),
        (&newer, "version 2"),
        (&fifo, "is a FIFO"),
        (&place.join("missing.jsonl"), "No such file"),
    ] {
        let refused = finish(memspy().arg("summary").arg(path)).code(1);
        assert!(refused.stdout_bytes.is_empty(), "{refused}");
        assert_eq!(refused.stderr().lines().count(), 1, "{refused}");
        assert!(refused.stderr().contains(said), "{refused}");
    }
}

#[test]
fn a_call_site_without_a_name_is_told_by_its_place_in_its_module() {
    let logs = TestDir::new();
    let program = compile_with("versions.c", &["-s"]);
    finish(&mut preloaded(program, &logs)).success();
    let told = summary(&logs, &["--json"]).json();
    let functions = told["sites"][0]["functions"].as_array().expect("a list");
    // The function that asks and main have lost their names; who calls main has one.
    let names = functions
        .iter()
        .map(|name| name.as_str().expect("a name"))
        .collect::<Vec<_>>();
    let [asks, main, calls_main] = names.as_slice() else {
        panic!("{names:?}");
    };
    assert!(asks.contains("+0x") && main.contains("+0x"), "{names:?}");
    assert!(asks.starts_with("versions"), "{names:?}");
    assert!(!calls_main.starts_with("versions"), "{names:?}");
}

#[test]
fn what_is_not_in_the_log_yet_is_told_of_a_running_process_and_of_a_killed_one() {
    let logs = TestDir::new();
    let mut cat = preloaded("cat", &logs);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let cat = cat.as_mut().expect("cat starts");
    let mut answer = [0; 2];
    let input = cat.stdin.as_mut().expect("a pipe");
    input.write_all(b"x\n").expect("cat reads");
    let output = cat.stdout.as_mut().expect("a pipe");
    output.read_exact(&mut answer).expect("cat writes");
    let told = summary(&logs, &[]);
    assert!(
        told.stdout().contains(", complete, still running"),
        "{told}"
    );
    let note = line_with(told.stdout(), "in the tail file");
    assert!(
        note.contains("has not written them to the log yet"),
        "{told}"
    );
    cat.kill().expect("it runs");
    cat.wait().expect("it ends");
    let told = summary(&logs, &[]);
    let note = line_with(told.stdout(), "in the tail file");
    assert!(note.contains("memspy recover"), "{told}");
}
