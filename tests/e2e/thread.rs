//! Threads: many, short, small, late, and the memory of the buffers that they leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::oracle::{Recorded, assert_complete, assert_told_calls_are_logged, number, record};
use crate::support::{TestDir, clean, compile, compile_with, finish, preloaded};

#[test]
fn ten_thousand_threads_are_told_apart() {
    let recorded = record("many_threads", &["10000", "4"]);
    let log = recorded.log();
    assert_complete(&log);
    // A thread that finds no buffer in time has the common number 0.
    let streams = number(log.end(), "streams");
    assert!((9_900..=10_001).contains(&streams), "{streams}");
    let first = |line: &&Value| line["op"] == "malloc" && line["size"] == 20_001;
    assert_eq!(log.lines.iter().filter(first).count(), 10_000);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
}

#[test]
fn each_threads_events_are_under_its_own_number() {
    let log = record("many_threads", &["400", "4"]).log();
    let mut mallocs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut lines = log.lines.iter().skip(1);
    while let Some(block) = lines.next() {
        for line in lines.by_ref().take(number(block, "events") as usize) {
            if line["op"] == "malloc" {
                let sizes = mallocs.entry(number(block, "thread")).or_default();
                sizes.push(number(line, "size"));
            }
            assert_eq!(line.get("tid"), None, "{line} under {block}");
        }
    }
    let mut common = mallocs.remove(&0).unwrap_or_default(); // threads that found no buffer in time
    common.retain(|size| *size == 20_001);
    let workers = mallocs
        .values()
        .filter(|sizes| sizes.as_slice() == [20_001, 20_002]);
    assert_eq!(workers.count() + common.len(), 400);
    assert!(common.len() < 10, "{common:?}");
}

#[test]
fn a_thread_of_the_past_costs_no_memory() {
    let mapped = |count: &str| number(record("many_threads", &[count, "4"]).log().end(), "mapped");
    let (few, many) = (mapped("1000"), mapped("8000"));
    // A busy thread's large buffer, and some more of the small ones: not the 450 MB of a buffer for each thread.
    let buffers_more_or_less = 4 << 20;
    assert!(
        many <= few + buffers_more_or_less,
        "{few} bytes after 1000 threads, {many} after 8000"
    );
}

#[test]
fn more_threads_at_once_than_buffers_at_the_limit_lose_nothing() {
    let recorded = record("many_threads", &["640", "64"]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
}

#[test]
fn destructors_of_thread_specific_data_are_logged_in_every_round() {
    let recorded = record("thread_ends", &[]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
}

#[test]
fn the_main_thread_may_end_first() {
    let recorded = record("main_ends_first", &[]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    assert_eq!(
        log.ops("malloc")
            .filter(|event| event["size"] == 20_001)
            .count(),
        100
    );
}

#[test]
fn thread_data_of_libraries_loaded_later_does_not_recurse() {
    let mut directory = None;
    for number in 0..40 {
        let name = format!("-DNAME={number}");
        let library = compile_with("tls_library.c", &["-shared", "-fPIC", &name]);
        let place = library.parent().unwrap().parent().unwrap().join("tls");
        fs::create_dir_all(&place).unwrap();
        fs::copy(&library, place.join(format!("libtls{number}.so"))).unwrap();
        directory = Some(place);
    }
    let directory = directory.unwrap();
    let recorded = record("tls_libraries", &[directory.to_str().unwrap(), "40"]);
    assert_complete(&recorded.log());
    recorded.run.success();
}

/// The sizes of the blocks that the tight places of `small_stacks` ask for.
fn tight_calls(recorded: &Recorded) -> Vec<Value> {
    let log = recorded.log();
    assert_complete(&log);
    let sizes: BTreeSet<u64> = [20_001, 20_002, 300_003].into();
    let asked = |line: &&Value| {
        line.get("via").is_none()
            && line["size"]
                .as_u64()
                .is_some_and(|size| sizes.contains(&size))
    };
    log.lines.iter().filter(asked).cloned().collect()
}

/// Stack that `small_stacks` needs on its alternate stack without memspy, in steps of 64 bytes.
fn least_margin() -> u64 {
    let program = compile("small_stacks.c");
    let fits = |margin: &u64| {
        let ended = finish(clean(&program).arg(margin.to_string()));
        ended.status.success()
    };
    (0..).step_by(64).find(fits).expect("some stack is enough")
}

#[test]
fn a_hook_without_stacks_takes_at_most_512_bytes_of_the_programs_stack() {
    let (work, logs) = (TestDir::new(), TestDir::new());
    let mut command = preloaded(compile("small_stacks.c"), &logs);
    command
        .current_dir(work.path())
        .env("MEMSPY_STACKS", "off")
        .arg((least_margin() + 512).to_string());
    finish(&mut command).success();
}

#[test]
fn a_hook_with_stacks_lives_with_1024_bytes_and_records_the_caller_alone() {
    let recorded = record("small_stacks", &[&(least_margin() + 1024).to_string()]);
    assert_eq!(tight_calls(&recorded).len(), 6);
}
