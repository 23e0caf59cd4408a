//! `memspy sites --kind mappings`: what programs map themselves, held against jq, strace and the kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{TestDir, clean, compile, finish, finish_with_input, memspy};

/// The log of a command, and what it printed.
fn record(directory: &TestDir, command: &[&str]) -> (PathBuf, String) {
    let logs = directory.join("logs");
    let mut run = memspy();
    run.args(["run", "--quiet", "-o"])
        .arg(&logs)
        .arg("--")
        .args(command);
    let finished = finish(&mut run).success();
    (logs, finished.stdout().to_string())
}

fn sites(log: &Path, kind: &str, arguments: &[&str]) -> Value {
    let mut run = memspy();
    run.args(["sites", "--json", "--top", "5", "--kind", kind])
        .args(arguments)
        .arg(log);
    finish(&mut run).success().json()
}

/// Calls of the program itself that mapped, their pages in bytes, and those that failed, as jq counts them in the logs.
const COUNT: &str = r#"
def pages: (. / 4096 | ceil) * 4096;
map(select((.op == "mmap" or .op == "mremap") and (has("via") | not)))
| {blocks: map(select(has("err") | not)) | length,
   bytes: (map(select(has("err") | not) | .size | pages) | add // 0),
   failures: map(select(has("err"))) | length}"#;

fn jq(logs: &Path) -> Value {
    let mut lines = Vec::new();
    for entry in logs.read_dir().unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        lines.extend(text.into_iter().filter(|&byte| byte != 0));
    }
    finish_with_input(clean("jq").args(["--slurp", COUNT]), &lines)
        .success()
        .json()
}

#[test]
fn what_is_mapped_is_what_jq_counts_and_no_call_that_malloc_made() {
    let program = compile("mapping_calls.c");
    for command in [
        &[program.to_str().unwrap()][..],
        &[
            "/usr/bin/python3",
            "-c",
            "import json, mmap; m = mmap.mmap(-1, 300001); x = bytearray(10**6)",
        ],
        &[
            "/usr/bin/git",
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "status",
            "--short",
        ],
        &["/usr/bin/cat", "/etc/passwd"],
    ] {
        let directory = TestDir::new();
        let (logs, _) = record(&directory, command);
        let counted = jq(&logs);
        let report = sites(&logs, "mappings", &["--sort", "count"]);
        for figure in ["blocks", "bytes", "failures"] {
            assert_eq!(
                report["total"][figure], counted[figure],
                "{command:?} {figure}"
            );
        }
        let (heap, both) = (sites(&logs, "heap", &[]), sites(&logs, "all", &[]));
        for figure in ["blocks", "bytes"] {
            assert_eq!(
                heap["program_mapped"][figure], counted[figure],
                "{command:?}"
            );
            let sum = |key: &str| {
                heap["total"][key].as_u64().unwrap() + report["total"][key].as_u64().unwrap()
            };
            assert_eq!(both["total"][figure], sum(figure), "{command:?} {figure}");
        }
    }
}

#[test]
fn what_is_live_at_the_end_is_what_the_kernel_has_left() {
    let directory = TestDir::new();
    let (logs, printed) = record(&directory, &[compile("leak_mappings.c").to_str().unwrap()]);
    let left: u64 = printed.trim().parse().unwrap();
    let report = sites(&logs, "mappings", &["--sort", "live"]);
    assert_eq!(report["total"]["live_bytes"], left);
    let live = report["sites"].as_array().unwrap().iter();
    let sum: u64 = live.map(|site| site["live_bytes"].as_u64().unwrap()).sum();
    assert_eq!(sum, left);
    assert!(left > 0);
}

#[test]
fn calls_that_failed_are_those_that_strace_saw_fail() {
    let directory = TestDir::new();
    let program = compile("mapping_calls.c");
    let trace = directory.join("trace.txt");
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=mmap,mremap", "-o"]).arg(&trace);
    finish(strace.arg(&program)).success();
    let trace = std::fs::read_to_string(trace).unwrap();
    let failed = trace.lines().filter(|line| line.contains(" = -1 ")).count();
    assert!(failed > 3, "{trace}");

    let (logs, _) = record(&directory, &[program.to_str().unwrap()]);
    let report = sites(&logs, "mappings", &["--sort", "failures"]);
    assert_eq!(report["total"]["failures"], failed);
    let mut text = memspy();
    text.args(["sites", "--kind", "mappings", "--sort", "failures"]);
    let text = finish(text.arg(&logs)).success();
    assert!(text.stdout().contains("1 failed"), "{text}");
    assert!(text.stdout().contains("main"), "{text}");
}

#[test]
fn the_default_says_that_there_is_more_and_pictures_and_exports_show_it() {
    let directory = TestDir::new();
    let (logs, _) = record(&directory, &[compile("leak_mappings.c").to_str().unwrap()]);
    let command = |name: &str, arguments: &[&str]| {
        finish(memspy().arg(name).args(arguments).arg(&logs)).success()
    };
    let heap = command("sites", &[]);
    assert!(heap.stdout().contains("--kind mappings"), "{heap}");
    let total = &sites(&logs, "mappings", &[])["total"];
    for (by, figure) in [("bytes", "bytes"), ("leaked", "live_bytes")] {
        let options = ["--kind", "mappings", "--by", by];
        let folded = command("export", &[&["--to", "folded"], &options[..]].concat());
        let weight = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        let sum: u64 = folded.stdout().lines().map(weight).sum();
        assert_eq!(total[figure], sum, "{by}: {folded}");
        let picture = command("flamegraph", &options);
        let drawn = format!("total_samples=\"{sum}\"");
        assert!(picture.stdout().contains(&drawn), "{by}");
        assert!(picture.stdout().contains("mapped"), "{by}");
    }
}
