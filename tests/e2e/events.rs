//! `memspy events` and `memspy recover`: the events of real programs, in order, also of killed ones.

use serde_json::Value;

use crate::support::{TestDir, compile, compile_with, finish, memspy, preloaded};

fn events(logs: &TestDir, name: &str, options: &[&str]) -> Vec<Value> {
    let printed = finish(
        memspy()
            .args(["events", "--json"])
            .args(options)
            .arg(logs.join(name)),
    );
    let printed = printed.success();
    let lines = printed.stdout().lines();
    lines
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

/// The log of the program itself, not of a child: the one that was not forked.
fn log_of_parent(logs: &TestDir) -> String {
    let names = logs
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".jsonl"));
    let mut forked = names.filter(|name| {
        let text = std::fs::read_to_string(logs.join(name)).expect("a log");
        !text
            .lines()
            .next()
            .unwrap_or_default()
            .contains("\"forked_from\"")
    });
    forked.next().expect("the program has a log")
}

#[test]
fn every_event_of_the_log_is_printed_once_with_its_thread_in_the_order_of_time() {
    let logs = TestDir::new();
    finish(&mut preloaded(
        compile_with("many_lines.c", &["-pthread"]),
        &logs,
    ))
    .success();
    let name = log_of_parent(&logs);
    let printed = events(&logs, &name, &[]);
    let text = std::fs::read_to_string(logs.join(&name)).expect("the log");
    let in_log = text
        .lines()
        .filter(|line| !line.starts_with("{\"op\":\"block\""));
    assert_eq!(printed.len(), in_log.count());
    assert!(printed.iter().all(|line| line["tid"].is_u64()));
    // A call that only takes memory stands where it ended.
    let moment = |line: &Value| {
        let t = line["t"].as_u64().unwrap_or(0);
        let takes = line["old"] == "0x0" || line["err"].is_string();
        t + if takes {
            line["dt"].as_u64().unwrap_or(0)
        } else {
            0
        }
    };
    assert!(printed.is_sorted_by_key(moment));
}

#[test]
fn filters_leave_what_they_say() {
    let logs = TestDir::new();
    finish(&mut preloaded(compile("fixed_calls.c"), &logs)).success();
    let name = log_of_parent(&logs);
    let large = events(&logs, &name, &["--op", "malloc", "--min-size", "300000"]);
    assert_eq!(large.len(), 1);
    assert_eq!(large[0]["size"], 300_007);
    assert!(events(&logs, &name, &["--tid", "1"]).is_empty());
    assert!(events(&logs, &name, &["--from", "1000s"]).is_empty());

    // An address inside a block finds its beginning and its end.
    let first = &events(&logs, &name, &["--op", "malloc", "--max-size", "20001"])[0];
    let start = crate::support::address(&first["ptr"]);
    let inside = format!("{:#x}", start + 20_000);
    let life = events(&logs, &name, &["--op", "malloc,free", "--address", &inside]);
    let ops: Vec<_> = life
        .iter()
        .map(|line| line["op"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(ops, ["malloc", "free"]);
}

#[test]
fn text_names_calls_as_programmers_write_them() {
    let logs = TestDir::new();
    finish(&mut preloaded(compile("fixed_calls.c"), &logs)).success();
    let name = log_of_parent(&logs);
    let printed = finish(memspy().arg("events").arg(logs.join(name))).success();
    for call in [
        "malloc(20001) = 0x",
        "calloc(3, 20002) = 0x",
        "posix_memalign(64, 20005) = 0x",
        "memalign(256, 20006) = 0x",
    ] {
        assert!(printed.stdout().contains(call), "{call} in {printed}");
    }
}

#[test]
fn a_killed_program_loses_nothing_and_recover_completes_its_log() {
    let logs = TestDir::new();
    finish(&mut preloaded(compile("killed.c"), &logs)).killed_by(libc::SIGKILL);
    let mut names = logs.names();
    names.retain(|name| name.ends_with(".jsonl"));
    let [name] = names.as_slice() else {
        panic!("one log, not {names:?}");
    };
    let sizes = |logs: &TestDir| -> Vec<u64> {
        let blocks = events(logs, name, &["--op", "malloc", "--min-size", "70000"]);
        blocks
            .iter()
            .filter_map(|line| line["size"].as_u64())
            .collect()
    };
    let expected: Vec<u64> = (0..1000).map(|n| 70_000 + n).collect();
    assert_eq!(sizes(&logs), expected);
    assert!(logs.names().iter().any(|name| name.ends_with(".tail")));

    finish(memspy().arg("recover").arg(logs.path())).success();
    assert!(!logs.names().iter().any(|name| name.ends_with(".tail")));
    assert_eq!(sizes(&logs), expected);
    let told = finish(memspy().arg("summary").arg(logs.path())).success();
    assert!(told.stdout().contains(", complete, recovered"), "{told}");
}
