//! Signals, jumps and cancellation: whatever interrupts a hook, later events are all there and nothing hangs.

use crate::oracle::{assert_complete, assert_told_calls_are_logged, number, record, record_alone};
use crate::support::compile;

#[test]
fn calls_of_a_handler_are_logged_whatever_it_interrupted() {
    let recorded = record_alone(&compile("handler_allocates.c"), &["100000"]);
    let log = recorded.log();
    assert_complete(&log);
    let printed: Vec<usize> = recorded
        .run
        .success()
        .stdout()
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let [maps, blocks, loops] = printed[..] else {
        panic!("{printed:?}");
    };
    assert_eq!(
        log.ops("mmap")
            .filter(|event| event["size"] == 12_288)
            .count(),
        maps
    );
    assert_eq!(
        log.ops("munmap")
            .filter(|event| event["size"] == 12_288)
            .count(),
        maps
    );
    assert_eq!(
        log.ops("malloc")
            .filter(|event| event["size"] == 30_001)
            .count(),
        blocks
    );
    let small = log
        .ops("malloc")
        .filter(|event| (40..140).contains(&number(event, "size")));
    assert_eq!(small.count(), loops);
}

#[test]
fn a_jump_out_of_a_call_costs_at_most_that_call() {
    let recorded = record("jump_out", &["400"]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    assert!(number(log.end(), "abandoned") <= 400);
}

#[test]
fn no_hook_is_a_cancellation_point() {
    let recorded = record("cancel", &["200"]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    let wanted = |size: u64| log.ops("malloc").filter(move |e| e["size"] == size).count();
    assert_eq!(wanted(100), wanted(299), "a loop of 200 calls was cut");
}

#[test]
fn a_thread_that_ends_in_a_handler_leaves_nothing_locked() {
    let recorded = record("thread_exits_in_handler", &["60"]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
}

#[test]
fn a_handler_of_a_stack_overflow_may_allocate() {
    let recorded = record("deep_recursion", &[]);
    let log = recorded.log();
    assert_complete(&log);
    assert_eq!(
        log.ops("malloc")
            .filter(|event| event["size"] == 20_042)
            .count(),
        1
    );
    let levels = log
        .ops("malloc")
        .filter(|event| event["size"] == 24)
        .count();
    assert!(levels > 100, "{levels}");
}
