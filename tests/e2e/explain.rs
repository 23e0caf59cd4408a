//! `memspy explain`: each kernel call with its reason.

use serde_json::Value;

use crate::support::{TestDir, compile, finish, memspy, preloaded};

/// Records a program and tells its kernel calls, libc's and the program's own.
#[track_caller]
fn told(program: &str, arguments: &[&str]) -> Vec<Value> {
    let dir = TestDir::new();
    finish(preloaded(program, &dir).args(arguments)).success();
    let mut command = memspy();
    command
        .args(["explain", "--json", "--top", "0"])
        .arg(dir.path());
    let report = finish(&mut command).success().json();
    report["calls"].as_array().expect("a list").clone()
}

fn reasons(calls: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    calls
        .iter()
        .map(|call| (text(&call["op"]), text(&call["reason"])))
        .collect()
}

#[test]
fn the_two_calls_that_started_it_all_are_explained_in_cat() {
    let calls = told("cat", &["/etc/passwd"]);
    let expected = [
        ("brk", "first_heap", 135_168),
        ("mmap", "at_threshold", 139_264),
        ("munmap", "freed_and_raised_threshold", -139_264),
    ];
    assert_eq!(calls.len(), expected.len(), "{calls:?}");
    for (call, (op, reason, bytes)) in calls.iter().zip(expected) {
        assert_eq!(
            (&call["op"], &call["reason"], &call["bytes"]),
            (&op.into(), &reason.into(), &bytes.into())
        );
    }
    assert_eq!(calls[1]["asked"]["op"], "aligned_alloc");
    assert_eq!(calls[1]["asked"]["bytes"], 131_072);
}

#[test]
fn each_rule_of_malloc_is_recognised() {
    let program = compile("thresholds.c");
    let calls = told(program.to_str().expect("a path in UTF-8"), &[]);
    let reasons = reasons(&calls);
    let reasons: Vec<(&str, &str)> = reasons
        .iter()
        .map(|(op, reason)| (op.as_str(), reason.as_str()))
        .collect();
    let expected = [
        ("brk", "first_heap"),
        ("brk", "top_too_small"),
        ("mmap", "at_threshold"),
        ("mremap", "realloc_resized"),
        ("munmap", "freed_and_raised_threshold"),
        ("brk", "top_too_small"),
        ("mmap", "at_threshold"),
        ("munmap", "freed_and_raised_threshold"),
        ("mmap", "at_threshold"),
        ("mremap", "realloc_resized"),
        ("munmap", "freed"),
    ];
    assert_eq!(reasons[..expected.len()], expected, "{reasons:?}");
    let rest = &reasons[expected.len()..];
    assert!(rest.contains(&("brk", "top_too_small")), "{rest:?}");
    assert_eq!(rest.last(), Some(&("brk", "trimmed")), "{rest:?}");
    let mremap = &calls[3];
    assert_eq!(mremap["asked"]["bytes"], 900_001);
    let main = mremap["stack"][0].as_str().expect("a name");
    assert!(main.starts_with("main (thresholds.c:"), "{main}");
}

#[test]
fn a_lowered_threshold_is_not_explained_away() {
    let dir = TestDir::new();
    let program = compile("thresholds.c");
    let mut run = preloaded(&program, &dir);
    finish(run.env("MALLOC_MMAP_THRESHOLD_", "50000")).success();
    let mut command = memspy();
    let report = finish(command.args(["explain", "--json"]).arg(dir.path())).success();
    let report = report.json();
    let calls = report["calls"].as_array().expect("a list");
    let below = calls
        .iter()
        .filter(|call| call["reason"] == "below_threshold");
    assert!(below.count() >= 1, "{calls:?}");
}

#[test]
fn the_programs_own_calls_are_told_as_its_own() {
    let program = compile("remap.c");
    let calls = told(program.to_str().expect("a path in UTF-8"), &["50"]);
    let own = calls.iter().filter(|call| call["reason"] == "program");
    for call in own.clone() {
        assert_eq!(call["via"], Value::Null);
    }
    assert!(own.count() > 10);
}

/// The entries of a text report: for each how many calls it tells of.
fn entries(text: &str) -> Vec<u64> {
    let number = |words: &str| -> Option<u64> {
        let last = words.rsplit(' ').next()?;
        last.replace(',', "").parse().ok()
    };
    let mut entries = Vec::new();
    for line in text.lines() {
        let is_head = line
            .split_once(". ")
            .is_some_and(|(start, _)| start.parse::<u64>().is_ok());
        if is_head {
            let several = line.split_once(" calls of ");
            entries.push(several.and_then(|(before, _)| number(before)).unwrap_or(1));
        } else if let Some((before, _)) = line.split_once(" such calls until ") {
            *entries.last_mut().expect("an entry") = number(before).expect("a number");
        }
    }
    entries
}

#[test]
fn calls_that_tell_the_same_are_told_once_and_none_is_left_out() {
    let dir = TestDir::new();
    let program = compile("remap.c");
    finish(preloaded(&program, &dir).arg("200")).success();
    let explain = |options: &[&str]| {
        let mut command = memspy();
        command.arg("explain").args(options).arg(dir.path());
        finish(&mut command).success()
    };
    let document = explain(&["--json", "--top", "0"]).json();
    let calls = document["calls"].as_array().expect("a list").len();

    let each = explain(&["--all"]);
    let each = entries(each.stdout());
    assert_eq!(each.len(), calls);
    assert_eq!(each.iter().sum::<u64>(), document["kernel_calls"]);

    let told = explain(&["--top", "0"]);
    let rule = "The program, or a library, made this call itself";
    assert_eq!(told.stdout().matches(rule).count(), 1, "{told}");
    let entries = entries(told.stdout());
    assert!(entries.len() < calls / 4, "{told}");
    assert_eq!(
        entries.iter().sum::<u64>(),
        document["kernel_calls"],
        "{told}"
    );
}
