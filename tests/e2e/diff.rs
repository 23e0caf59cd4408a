use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Finished, Log, TestDir, compile_with, finish, memspy, preloaded};

/// Logs of the older and of the newer version of a program.
fn versions(directory: &TestDir) -> [PathBuf; 2] {
    [("old", vec!["-g"]), ("new", vec!["-g", "-DNEWER"])].map(|(name, arguments)| {
        let log = directory.join(format!("{name}.jsonl"));
        let program = compile_with("versions.c", &arguments);
        finish(preloaded(program, directory).env("MEMSPY_LOG", &log)).success();
        log
    })
}

fn diff(logs: &[PathBuf; 2], arguments: &[&str]) -> Finished {
    finish(memspy().arg("diff").args(arguments).args(logs)).success()
}

fn sites(report: &Value) -> Vec<(String, i64)> {
    let sites = report["sites"].as_array().expect("a list");
    let site = |site: &Value| {
        let bytes = |side: &str| site[side]["bytes"].as_i64().expect("a number");
        let name = site["site"][0].as_str().expect("a name");
        (name.to_string(), bytes("new") - bytes("old"))
    };
    sites.iter().map(site).collect()
}

#[test]
fn what_the_newer_version_asks_for_more_and_less_is_told_by_function() {
    let directory = TestDir::new();
    let logs = versions(&directory);
    let report = diff(&logs, &["--by", "function", "--json"]).json();
    // As versions.c has it.
    let expected = [
        ("rows", 10_000),
        ("removed", -900),
        ("added", 700),
        ("cells", -300),
    ];
    let expected: Vec<(String, i64)> = expected
        .iter()
        .map(|(name, bytes)| (name.to_string(), *bytes))
        .collect();
    assert_eq!(sites(&report), expected);
    assert_eq!(report["unchanged"], 1, "{report}");
    // What was not freed is another question.
    let live = diff(&logs, &["--by", "function", "--sort", "live", "--json"]).json();
    let names: Vec<String> = sites(&live).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["rows", "added"]);
    assert_eq!(live["unchanged"], 3, "{live}");
    assert_eq!(live["changed_otherwise"], 2, "removed and cells: {live}");
    let told = diff(&logs, &["--by", "function", "--sort", "failures"]);
    let last = told.stdout().lines().last();
    let nothing = "No site has changed in what is compared (failed calls), \
                   4 changed in another figure alone (--sort), 1 alike in both";
    assert_eq!(last, Some(nothing));
}

#[test]
fn the_totals_are_those_of_the_logs_lines() {
    let directory = TestDir::new();
    let logs = versions(&directory);
    let report = diff(&logs, &["--json"]).json();
    for (log, side) in logs.iter().zip(["old", "new"]) {
        let log = Log::read(log);
        let sizes: Vec<u64> = log
            .ops("malloc")
            .map(|line| line["size"].as_u64().expect("a number"))
            .collect();
        assert_eq!(report[side]["total"]["blocks"], json!(sizes.len()));
        assert_eq!(
            report[side]["total"]["bytes"],
            json!(sizes.iter().sum::<u64>())
        );
        assert_eq!(report[side]["complete"], true);
    }
}

#[test]
fn stacks_are_the_same_when_their_functions_are_and_equal_recordings_have_no_changes() {
    let directory = TestDir::new();
    let logs = versions(&directory);
    let report = diff(&logs, &["--json"]).json();
    let main_calls_rows = &report["sites"][0]["site"];
    let text = |at: usize| main_calls_rows[at].as_str().expect("a name");
    assert!(text(0).starts_with("rows  [versions"), "{main_calls_rows}");
    assert!(text(1).starts_with("main  [versions"), "{main_calls_rows}");
    // The same stack in both, though the code lies at other addresses and lines.
    assert_eq!(report["sites"][0]["old"]["blocks"], 20);
    assert_eq!(report["sites"][0]["new"]["blocks"], 30);
    let same = [logs[0].clone(), logs[0].clone()];
    let report = diff(&same, &["--json"]).json();
    assert_eq!(report["sites"], json!([]));
    assert!(report["unchanged"].as_u64().expect("a number") >= 4);
    let told = diff(&same, &[]);
    let (_, told) = told
        .stdout()
        .split_once("\n\nNo site has changed, ")
        .expect("the words");
    assert!(told.ends_with(" alike in both\n"), "{told:?}");
}

#[test]
fn the_text_names_old_new_and_change() {
    let directory = TestDir::new();
    let told = diff(&versions(&directory), &["--by", "function"]);
    let lines: Vec<Vec<&str>> = told
        .stdout()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let has = |words: &[&str]| lines.iter().any(|line| line == words);
    assert!(
        has(&["allocations", "30", "37", "+7", "+23.3%"]),
        "{told:?}"
    );
    assert!(
        has(&[
            "#1", "+9.8", "KiB", "+50.0%:", "19.5", "KiB", "→", "29.3", "KiB"
        ]),
        "{told:?}"
    );
    assert!(
        has(&["#3", "+700", "B", "new:", "0", "B", "→", "700", "B"]),
        "{told:?}"
    );
}

#[test]
fn what_the_program_maps_itself_is_compared_when_asked_for() {
    let directory = TestDir::new();
    let logs = versions(&directory);
    let arguments = ["--kind", "mappings", "--by", "function"];
    let report = diff(&logs, &[&arguments[..], &["--json"]].concat()).json();
    // 3 and 10 pages, as versions.c has it.
    assert_eq!(sites(&report), [("pages".to_string(), 7 * 4096)]);
    let told = diff(&logs, &arguments);
    let lines: Vec<Vec<&str>> = told
        .stdout()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let not_unmapped = [
        "not", "unmapped", "12.0", "KiB", "40.0", "KiB", "+28.0", "KiB", "+233.3%",
    ];
    assert!(lines.iter().any(|line| line == &not_unmapped), "{told:?}");
}

#[test]
fn a_missing_recording_gets_one_line_and_exit_code_1() {
    let directory = TestDir::new();
    let [old, _] = versions(&directory);
    let missing = directory.join("nothing.jsonl");
    let told = finish(memspy().arg("diff").arg(old).arg(&missing)).code(1);
    assert_eq!(told.stderr().lines().count(), 1, "{told:?}");
    assert!(told.stderr().contains("nothing.jsonl"), "{told:?}");
}
