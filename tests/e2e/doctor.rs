//! `memspy doctor`: says whether a program can be recorded, in the words and codes that `run` refuses with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::{Finished, TestDir, clean, compile, finish, memspy, setuid_program};

fn doctor(program: impl AsRef<std::ffi::OsStr>) -> Finished {
    finish(memspy().args(["doctor", "--json", "--"]).arg(program))
}

/// The checks of a report that are not ok, as `name: text`.
fn complaints(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks is a list");
    let bad = checks.iter().filter(|check| check["verdict"] != "ok");
    let text = |check: &Value| format!("{}: {}", check["name"], check["text"]).replace('"', "");
    bad.map(text).collect()
}

#[test]
fn an_ordinary_program_can_be_recorded() {
    let report = doctor("cat").success().json();
    assert_eq!(report["recordable"], true, "{report}");
    assert!(
        complaints(&report)
            .iter()
            .all(|text| text.starts_with("seccomp")),
        "{report}"
    );
    let text = finish(memspy().args(["doctor", "cat"])).success();
    assert!(
        text.stdout().ends_with("The program can be recorded.\n"),
        "{text}"
    );
}

#[test]
fn doctor_and_run_refuse_the_same_programs_with_the_same_words() {
    let dir = TestDir::new();
    let source = dir.write("hello.c", "int main(void) { return 0; }\n");
    let build = |compiler: &str, flag: &str, name: &str| {
        let program = dir.join(name);
        finish(
            clean(compiler)
                .arg(flag)
                .arg("-o")
                .arg(&program)
                .arg(&source),
        )
        .success();
        program
    };
    let cases = [
        (build("cc", "-static", "static"), 125, "statically linked"),
        (build("musl-gcc", "-O0", "musl"), 125, "musl"),
        (setuid_program(&dir), 125, "setuid"),
        (dir.join("missing"), 127, "No such file"),
        (source.clone(), 126, "not executable"),
    ];
    for (program, code, why) in cases {
        let report = doctor(&program).code(code).json();
        assert_eq!(report["recordable"], false, "{report}");
        assert_eq!(report["exit_code"], code, "{report}");
        let complaints = complaints(&report);
        assert!(
            complaints.iter().any(|text| text.contains(why)),
            "{complaints:?}"
        );
        let refused = finish(memspy().current_dir(dir.path()).arg("run").arg(&program)).code(code);
        assert!(refused.stderr().contains(why), "{refused}");
    }
}

#[test]
fn a_program_with_its_own_malloc_can_be_recorded_with_a_warning() {
    let program = compile("own_allocator.c");
    let report = doctor(&program).success().json();
    assert!(
        complaints(&report)
            .iter()
            .any(|text| text.contains("malloc of its own")),
        "{report}"
    );
}

#[test]
fn a_sanitizer_is_named_before_the_start() {
    let dir = TestDir::new();
    let source = dir.write("hello.c", "int main(void) { return 0; }\n");
    let program = dir.join("hello");
    finish(
        clean("cc")
            .arg("-fsanitize=address")
            .arg("-o")
            .arg(&program)
            .arg(&source),
    )
    .success();
    let report = doctor(&program).success().json();
    assert!(
        complaints(&report)
            .iter()
            .any(|text| text.contains("libasan.so")),
        "{report}"
    );
    // ASan refuses to run behind any other preloaded library.
    let ran = finish(memspy().current_dir(dir.path()).arg("run").arg(&program)).success();
    assert!(ran.stderr().contains("sanitizer"), "{ran}");
}

#[test]
fn scripts_are_followed_to_their_interpreter() {
    let dir = TestDir::new();
    for (line, interpreter) in [
        ("#!/bin/sh", "/bin/sh"),
        ("#! /usr/bin/env -S perl -w", "perl"),
        ("#!/usr/bin/env perl", "perl"),
    ] {
        let script = dir.write("script", format!("{line}\nprint 1\n"));
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod works");
        let report = doctor(&script).success().json();
        let program = report["checks"][0]["text"]
            .as_str()
            .expect("a text")
            .to_owned();
        assert!(
            program.contains("run by") && program.ends_with(interpreter),
            "{program}"
        );
    }
}

#[test]
fn a_log_directory_that_can_not_be_written_is_found() {
    let report = finish(memspy().args(["doctor", "--json", "-o", "/proc", "--", "cat"])).code(125);
    assert!(
        complaints(&report.json())
            .iter()
            .any(|text| text.starts_with("log directory")),
        "{report}"
    );
}

#[test]
fn control_characters_of_a_path_do_not_reach_the_terminal() {
    let dir = TestDir::new();
    let program = dir.join("a\u{1b}]0;title\u{7}b");
    for output in [
        finish(memspy().arg("doctor").arg(&program)),
        finish(memspy().arg("run").arg(&program)),
    ] {
        let printed = format!("{}{}", output.stdout(), output.stderr());
        assert!(printed.contains("\\u{1b}]0;title\\u{7}"), "{printed:?}");
        assert!(!printed.contains(['\u{1b}', '\u{7}']), "{printed:?}");
    }
}
