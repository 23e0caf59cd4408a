//! Whole logs through the reader: order between threads, loss, damage, tails.

use crate::complete::{Ending, Reason};
use crate::log::Log;
use crate::merge::{Half, Step};
use crate::model::{Change, Level, Memory};
use crate::recover::{Recovered, recover};
use crate::replay::{Inheritance, Outcome, Visitor, replay};
use crate::testlog::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Notes what passes by: "time half text".
#[derive(Default)]
struct Notes(Vec<String>);

impl Visitor for Notes {
    fn step(&mut self, step: &Step, _: &Change, _: &Memory) {
        let half = match step.half {
            Half::Release => "release ",
            Half::Acquire => "acquire ",
            Half::Whole => "",
        };
        let text = String::from_utf8_lossy(step.text());
        let op = text.split('"').nth(3).unwrap_or_default();
        self.0.push(format!(
            "{} {half}{op} #{}.{}",
            step.time, step.thread, step.n
        ));
    }
}

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(TempDir::new().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("memspy.cat.4711.jsonl");
        std::fs::write(&path, bytes).expect("the test's directory is writable");
        path
    }
}

fn read(path: &Path) -> (Vec<String>, Outcome) {
    let log = Log::open(path).expect("a log");
    let mut notes = Notes::default();
    let outcome = replay(&log, &mut notes).expect("readable");
    (notes.0, outcome)
}

fn read_text(text: &str) -> (Vec<String>, Outcome) {
    let place = Place::new();
    read(&place.write(text.as_bytes()))
}

fn level(bytes: u64, blocks: u64) -> Level {
    Level { bytes, blocks }
}

#[test]
fn events_of_two_threads_come_in_the_order_of_time() {
    let mut log = TestLog::new("");
    log.block(
        1,
        &[
            &malloc(10, 1, 0x10),
            &malloc(40, 1, 0x40),
            &malloc(50, 1, 0x50),
        ],
    );
    log.block(
        2,
        &[
            &malloc(20, 1, 0x20),
            &malloc(30, 1, 0x30),
            &malloc(60, 1, 0x60),
        ],
    );
    log.block(1, &[&malloc(55, 1, 0x55)]);
    log.end(1, 70);
    let (notes, outcome) = read_text(&log.text);
    assert_eq!(
        notes,
        [
            "10 malloc #1.1",
            "20 malloc #2.1",
            "30 malloc #2.2",
            "40 malloc #1.2",
            "50 malloc #1.3",
            "55 malloc #1.4",
            "60 malloc #2.3",
            "70 end #1.5"
        ]
    );
    assert_eq!(outcome.completeness.reasons, []);
    assert_eq!(outcome.completeness.ending, Ending::Said("exit".into()));
    assert_eq!(outcome.memory.heap.now(), level(7, 7));
    assert_eq!(outcome.events, 8);
}

#[test]
fn at_equal_times_releases_come_first_between_threads_and_a_thread_keeps_its_order() {
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(5, 1, 0x10), &malloc(10, 2, 0x20)]);
    log.block(2, &[&free(10, 0x10), &malloc(10, 3, 0x10), &free(10, 0x10)]);
    log.end(1, 70);
    let (notes, outcome) = read_text(&log.text);
    let first = ["5 malloc #1.1", "10 free #2.1"];
    assert_eq!(notes[..2], first);
    let of_two: Vec<_> = notes.iter().filter(|note| note.contains("#2.")).collect();
    assert_eq!(of_two, ["10 free #2.1", "10 malloc #2.2", "10 free #2.3"]);
    assert_eq!(outcome.memory.heap.oddities().total(), 0);
    assert_eq!(outcome.memory.heap.now(), level(2, 1));
}

#[test]
fn a_block_that_moves_is_free_for_others_before_the_move_is_over() {
    let mut log = TestLog::new("");
    log.block(
        1,
        &[&malloc(1, 100, 0x10), &realloc(10, 20, 0x10, 300, 0x90)],
    );
    log.block(2, &[&malloc(15, 50, 0x10)]);
    log.end(1, 70);
    let (notes, outcome) = read_text(&log.text);
    assert_eq!(
        notes[1..4],
        [
            "10 release realloc #1.2",
            "15 malloc #2.1",
            "30 acquire realloc #1.2"
        ]
    );
    assert_eq!(outcome.memory.heap.oddities().total(), 0);
    assert_eq!(outcome.memory.heap.now(), level(350, 2));
    assert_eq!(outcome.memory.heap.peak().level, level(350, 2));
    assert_eq!(outcome.memory.heap.counts().allocated, level(450, 3));
    assert_eq!(outcome.events, 4);
}

#[test]
fn overlapping_blocks_of_one_thread_are_sorted_together() {
    // A signal handler's events reach the log before the call that it interrupted.
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10), &malloc(30, 1, 0x30)]);
    log.block(1, &[&free(20, 0x10), &malloc(40, 1, 0x40)]);
    log.end(1, 70);
    let (notes, outcome) = read_text(&log.text);
    assert_eq!(notes[1], "20 free #1.3");
    assert_eq!(outcome.damage.disorder, 0);
}

#[test]
fn odd_frees_are_counted_and_totals_stay_at_zero() {
    let mut log = TestLog::new("");
    log.block(
        1,
        &[
            &malloc(1, 10, 0x10),
            &free(2, 0x10),
            &free(3, 0x10),
            &free(4, 0x7770),
            &free(5, 0),
            &malloc(6, 10, 0x20),
            &malloc(7, 30, 0x20),
            r#"{"op":"realloc","t":8,"dt":1,"old":"0x20","size":99,"err":"ENOMEM"}"#,
            r#"{"op":"realloc","t":10,"dt":1,"old":"0x20","size":0}"#,
            r#"{"op":"malloc","t":12,"size":18446744073709551615,"err":"ENOMEM"}"#,
        ],
    );
    log.end(1, 70);
    let (_, outcome) = read_text(&log.text);
    let heap = &outcome.memory.heap;
    assert_eq!(heap.now(), level(0, 0));
    assert_eq!(heap.oddities().freed_twice, 1);
    assert_eq!(heap.oddities().unknown_freed, 1);
    assert_eq!(heap.oddities().allocated_over_live, 1);
    assert_eq!(heap.counts().failures, 2);
    assert_eq!(heap.counts().free_null, 1);
    assert_eq!(heap.peak().level, level(30, 1));
}

#[test]
fn a_missing_block_is_proven_by_its_numbers() {
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(1, 1, 0x10)]);
    log.make_block(1, &[&malloc(2, 1, 0x20), &malloc(3, 1, 0x30)], "");
    log.block(1, &[&malloc(4, 1, 0x40)]);
    log.make_block(2, &[&malloc(5, 1, 0x50)], "");
    log.end(1, 70);
    let (_, outcome) = read_text(&log.text);
    assert_eq!(
        outcome.completeness.reasons,
        [
            Reason::Gap {
                thread: 1,
                events: 2
            },
            Reason::Short {
                thread: 2,
                events: 1
            },
            Reason::Threads(1)
        ]
    );
}

#[test]
fn a_log_cut_at_any_byte_is_read_to_the_cut_or_refused_in_one_line() {
    let mut whole = TestLog::new("");
    whole.block(1, &[&malloc(1, 10, 0x10), &realloc(2, 1, 0x10, 20, 0x30)]);
    whole.block(2, &[&malloc(2, 10, 0x20)]);
    whole.last_block(2, &[]);
    whole.end(1, 70);
    let place = Place::new();
    for len in 0..whole.text.len() {
        let path = place.write(&whole.text.as_bytes()[..len]);
        match Log::open(&path) {
            Ok(log) => {
                let outcome = replay(&log, &mut Notes::default()).expect("readable");
                assert!(!outcome.completeness.complete, "cut at {len}");
                assert!(outcome.memory.heap.now().blocks <= 3);
            }
            Err(why) => assert_eq!(why.to_string().lines().count(), 1, "cut at {len}"),
        }
    }
}

#[test]
fn a_log_of_every_kind_of_line_cut_anywhere_gets_an_answer_from_every_analysis() {
    let mut whole = TestLog::new(
        ",\"forked_from\":{\"pid\":1,\"log\":\"/nowhere\",\"streams\":1,\"cut\":[[1,9]]}",
    );
    whole.block(
        1,
        &[
            r#"{"op":"thread","t":1,"thread":1,"name":"cat","sp":"0x7ffd00001000"}"#,
            r#"{"op":"snapshot","t":2,"dt":5,"id":1,"when":"start","maps":2,"brk":"0x30000","stack_limit":8388608}"#,
            r#"{"op":"map","t":7,"snapshot":1,"from":"0x10000","to":"0x30000","perms":"rw-p","offset":0,"inode":0,"path":"[heap]","rss":8192}"#,
            r#"{"op":"map","t":7,"snapshot":1,"from":"0x7ffd00000000","to":"0x7ffd00020000","perms":"rw-p","offset":0,"inode":0,"path":"[stack]","own":true}"#,
            r#"{"op":"module","t":8,"id":1,"base":"0x400000","size":8192,"path":"/usr/bin/cat","build_id":"00"}"#,
            r#"{"op":"stack","t":9,"id":1,"parent":0,"module":1,"ip":"0x400010","cut":"depth"}"#,
            r#"{"op":"brk","t":10,"from":"0x30000","to":"0x51000","via":"malloc","stack":1}"#,
            r#"{"op":"malloc","t":10,"size":24,"ptr":"0x10010","stack":1}"#,
            r#"{"op":"mmap","t":11,"dt":1,"addr":"0x7f0000000000","hint":"0x7f0000000000","size":8192,"prot":3,"flags":50,"fd":-1,"offset":0,"stack":1}"#,
            r#"{"op":"mprotect","t":13,"addr":"0x7f0000001000","size":4096,"prot":1}"#,
            r#"{"op":"mremap","t":14,"dt":2,"old":"0x7f0000000000","old_size":8192,"size":16384,"flags":1,"addr":"0x7f1000000000"}"#,
        ],
    );
    whole.last_block(
        2,
        &[
            r#"{"op":"arena","t":12,"tid":4712,"base":"0x7f2000000000","size":135168,"change":"made","arena":"0x7f2000000030","via":"calloc"}"#,
            r#"{"op":"calloc","t":12,"tid":4712,"count":3,"size":5,"ptr":"0x7f2000000100"}"#,
            r#"{"op":"munmap","t":20,"tid":4712,"addr":"0x7f1000000000","size":4096}"#,
        ],
    );
    whole.block(
        1,
        &[
            r#"{"op":"realloc","t":21,"dt":3,"old":"0x10010","size":200000,"ptr":"0x7f3000000010"}"#,
            r#"{"op":"mark","t":30,"name":"half"}"#,
            r#"{"op":"check","t":31,"id":1,"when":"exit","groups":1,"live_blocks":1,"live_bytes":5,"complete":true,"pause_ns":9}"#,
            r#"{"op":"leak","t":31,"check":1,"kind":"definite","blocks":1,"bytes":5,"stack":1}"#,
            r#"{"op":"stopped","t":40,"why":"ENOSPC","lost":0}"#,
            r#"{"op":"resumed","t":41,"why":"ENOSPC","lost":4}"#,
            r#"{"op":"free","t":50,"ptr":"0x7f3000000010"}"#,
        ],
    );
    whole.end(1, 70);
    let place = Place::new();
    let mut read = 0;
    // At the end of each line and beside it, and at every eleventh byte.
    let ends = whole.text.match_indices('\n').map(|(at, _)| at);
    let beside = ends.flat_map(|at| [at, at + 1, at + 2]);
    let mut cuts: Vec<usize> = beside.chain((0..whole.text.len()).step_by(11)).collect();
    cuts.retain(|len| *len <= whole.text.len());
    for len in &cuts {
        let len = *len;
        let path = place.write(&whole.text.as_bytes()[..len]);
        let answers = Log::open(&path).and_then(|log| every_analysis(&log));
        match answers {
            Ok(()) => read += 1,
            Err(why) => assert_eq!(why.to_string().lines().count(), 1, "cut at {len}: {why}"),
        }
    }
    assert!(read > cuts.len() / 2);
    let log = Log::open(&place.write(whole.text.as_bytes())).expect("a log");
    assert_eq!(log.damage().bad_lines, 0);
}

/// Asks everything of a log that the reports ask.
fn every_analysis(log: &Log) -> Result<(), crate::Error> {
    use crate::site::{Kind, Sites};
    use crate::space::{Moment, Space, Story, Timeline, View};
    let mut sites = Sites::new(Kind::All, 1);
    crate::summary::Summary::read_with_sites(log, &mut sites)?;
    for moment in [Moment::Start, Moment::Time(15), Moment::Peak, Moment::End] {
        View::read(log, moment)?;
    }
    let mut story = Story::default();
    replay(log, &mut (&mut story, Space::default()))?;
    story.finish();
    let mut line = Timeline::default();
    let outcome = replay(log, &mut line)?;
    line.finish(&outcome.memory);
    crate::verdict::Evidence::read(log, &Default::default())?;
    Ok(())
}

#[test]
fn a_log_without_block_lines_is_read_in_the_order_of_the_file() {
    let text = [malloc(30, 1, 0x30), malloc(10, 1, 0x10), free(20, 0x10)].join("\n");
    let (notes, outcome) = read_text(&text);
    assert_eq!(
        notes,
        [
            "30 malloc #4294967295.1",
            "10 malloc #4294967295.2",
            "20 free #4294967295.3"
        ]
    );
    assert_eq!(
        outcome.completeness.reasons,
        [Reason::NoStart, Reason::NoBlocks, Reason::NoEnd]
    );
}

#[test]
fn a_lines_thread_is_its_blocks_and_unknown_outside_of_blocks() {
    struct Tids(Vec<u32>);
    impl Visitor for Tids {
        fn step(&mut self, step: &Step, _: &Change, _: &Memory) {
            self.0.push(step.event.tid);
        }
    }
    let tids = |text: &[u8]| {
        let place = Place::new();
        let log = Log::open(&place.write(text)).expect("a log");
        let mut tids = Tids(Vec::new());
        replay(&log, &mut tids).expect("readable");
        tids.0
    };
    let (first, second) = (malloc(10, 1, 0x10), malloc(20, 1, 0x20));
    let whole = [block(1, 1, &[&first], ""), block(2, 1, &[&second], "")].concat();
    assert_eq!(tids(whole.as_bytes()), [PID, PID + 1]);
    assert_eq!(tids(format!("{first}\n{second}\n").as_bytes()), [0, 0]);
}

#[test]
fn a_filtered_log_that_kept_its_block_lines_is_still_in_the_order_of_time() {
    let mut log = TestLog::new("");
    log.block(
        1,
        &[&malloc(10, 1, 0x10), &free(15, 0x10), &malloc(40, 1, 0x40)],
    );
    log.block(
        2,
        &[&malloc(20, 1, 0x20), &free(25, 0x20), &malloc(30, 1, 0x30)],
    );
    let kept: Vec<&str> = log
        .text
        .lines()
        .filter(|line| !line.contains("free"))
        .collect();
    let (notes, outcome) = read_text(&(kept.join("\n") + "\n"));
    assert_eq!(
        notes,
        [
            "10 malloc #1.1",
            "20 malloc #2.1",
            "30 malloc #2.2",
            "40 malloc #1.2"
        ]
    );
    assert_eq!(outcome.damage.bad_blocks, 2);
    assert!(!outcome.completeness.complete);
}

#[test]
fn nuls_between_blocks_are_skipped() {
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]);
    log.text.push_str(&"\0".repeat(5000));
    log.block(1, &[&malloc(20, 1, 0x20)]);
    log.end(1, 70);
    let (_, outcome) = read_text(&log.text);
    assert_eq!(outcome.completeness.reasons, []);
    assert_eq!(outcome.memory.heap.now(), level(2, 2));
}

#[test]
fn pending_lines_of_the_tail_are_folded_in() {
    let place = Place::new();
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]);
    let path = place.write(log.text.as_bytes());
    let abandoned = "\0\"op\":\"malloc\",\"t\":11}\n";
    let pending = format!(
        "{abandoned}{}\n{}   \n",
        malloc(20, 2, 0x20),
        malloc(30, 4, 0x40)
    );
    let buffer = TestBuffer {
        thread: 1,
        first_n: 2,
        text: pending.into(),
        flush: None,
    };
    let never_used = TestBuffer {
        first_n: 99,
        ..TestBuffer::default()
    };
    std::fs::write(
        place.path("memspy.cat.4711.jsonl.tail"),
        tail(0, 1, 0, &[buffer, never_used]),
    )
    .expect("writable");
    let (notes, outcome) = read(&path);
    assert_eq!(
        notes,
        ["10 malloc #1.1", "20 malloc #1.2", "30 malloc #1.3"]
    );
    assert_eq!(outcome.completeness.reasons, []);
    assert_eq!(outcome.completeness.ending, Ending::Killed);
}

#[test]
fn a_flush_that_death_cut_short_is_taken_from_the_tail() {
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]);
    let at = log.text.len();
    let flushed = log.make_block(1, &[&malloc(20, 2, 0x20), &malloc(30, 4, 0x40)], "");
    let after = log.make_block(2, &[&malloc(25, 8, 0x80)], "");
    let buffer = |len| TestBuffer {
        thread: 1,
        first_n: 2,
        text: Vec::new(),
        flush: Some((flushed.clone().into(), at as u64, len)),
    };
    let whole = flushed.len();
    for arrived in [0, 1, whole / 2, whole - 1, whole] {
        for followed in [false, true] {
            let place = Place::new();
            let mut text = log.text.clone() + &flushed[..arrived];
            if followed {
                text.push_str(&"\0".repeat(whole - arrived));
                text.push_str(&after);
            }
            let path = place.write(text.as_bytes());
            let streams = if followed { 2 } else { 1 };
            std::fs::write(
                place.path("memspy.cat.4711.jsonl.tail"),
                tail(0, streams, 0, &[buffer(whole as u64)]),
            )
            .expect("writable");
            let (_, outcome) = read(&path);
            let expected = if followed { level(15, 4) } else { level(7, 3) };
            assert_eq!(outcome.memory.heap.now(), expected, "{arrived} {followed}");
            assert_eq!(outcome.completeness.reasons, [], "{arrived} {followed}");
        }
    }
}

/// A log with a block of stream 0 that is to be cut: what stands before it, the block, and a thread's block behind it.
fn aside(lines: &[&str]) -> (TestLog, String, String) {
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]);
    log.block(0, &[&malloc(15, 2, 0x20)]);
    let aside = log.make_block(0, lines, "");
    let after = log.make_block(1, &[&malloc(25, 8, 0x80)], "");
    (log, aside, after)
}

/// The tail of an image whose thread 1 has so many events in the log, and nothing else.
fn emptied_tail(events: u64, log_end: usize) -> Vec<u8> {
    let buffer = TestBuffer {
        thread: 1,
        first_n: events + 1,
        ..TestBuffer::default()
    };
    tail(log_end as u64, 1, 0, &[buffer])
}

#[test]
fn a_write_of_a_thread_without_a_buffer_that_death_cut_is_a_call_that_had_not_returned() {
    let (one, more) = (malloc(20, 4, 0x40), malloc(21, 16, 0x100));
    for lines in [&[&one[..]][..], &[&one, &more, &more]] {
        let (log, aside, after) = aside(lines);
        for (arrived, followed) in (0..aside.len()).flat_map(|at| [(at, false), (at, true)]) {
            let mut text = log.text.clone() + &aside[..arrived];
            let mut log_end = log.text.len() + aside.len();
            let mut events = 1;
            if followed {
                text.push_str(&"\0".repeat(aside.len() - arrived));
                text.push_str(&after);
                log_end += after.len();
                events = 2;
            }
            let place = Place::new();
            let path = place.write(text.as_bytes());
            let tail_path = place.path("memspy.cat.4711.jsonl.tail");
            std::fs::write(&tail_path, emptied_tail(events, log_end)).expect("writable");
            let expected = if followed { level(11, 3) } else { level(3, 2) };
            for recovered in [false, true] {
                if recovered {
                    recover(&path, true).expect("recovers");
                }
                let (_, outcome) = read(&path);
                let what = format!("{arrived} {followed} {recovered}");
                assert_eq!(outcome.completeness.reasons, [], "{what}");
                assert!(outcome.damage.is_none(), "{what}: {:?}", outcome.damage);
                assert_eq!(outcome.memory.heap.now(), expected, "{what}");
            }
        }
    }
}

#[test]
fn a_cut_write_is_a_loss_where_numbers_or_bytes_tell_that_its_call_had_returned() {
    let call = malloc(20, 4, 0x40);
    let (log, aside, after) = aside(&[&call]);
    let place = Place::new();
    let tail_path = place.path("memspy.cat.4711.jsonl.tail");
    for arrived in 1..aside.len() {
        let cut = log.text.clone() + &aside[..arrived];
        let filled = cut.clone() + &"\0".repeat(aside.len() - arrived);

        let path = place.write((filled.clone() + &block(0, 3, &[&call], "")).as_bytes());
        std::fs::write(&tail_path, emptied_tail(1, 0)).expect("writable");
        let later_number = read(&path).1.completeness;
        assert!(!later_number.complete, "{arrived}");

        let log_end = cut.len() + aside.len() + 5000;
        std::fs::write(&tail_path, emptied_tail(1, log_end)).expect("writable");
        let path = place.write(cut.as_bytes());
        assert!(!read(&path).1.completeness.complete, "{arrived}: bytes");
        std::fs::remove_file(&tail_path).expect("removable");

        let mut ended = log.clone();
        ended.text = filled + &after;
        let path = place.write(ended.end(1, 70).text.as_bytes());
        let vouched = read(&path).1.completeness;
        assert!(!vouched.complete, "{arrived}: the end vouches for it");
    }
}

#[test]
fn a_tail_block_that_stands_in_the_log_counts_once() {
    let place = Place::new();
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10), &malloc(20, 2, 0x20)]);
    let path = place.write(log.text.as_bytes());
    let buffer = TestBuffer {
        thread: 1,
        first_n: 1,
        text: format!("{}\n", malloc(10, 1, 0x10)).into(),
        flush: None,
    };
    std::fs::write(
        place.path("memspy.cat.4711.jsonl.tail"),
        tail(0, 1, 0, &[buffer]),
    )
    .expect("writable");
    let (notes, outcome) = read(&path);
    assert_eq!(notes.len(), 2);
    assert_eq!(outcome.completeness.reasons, []);
}

#[test]
fn a_forked_child_begins_with_its_parents_blocks() {
    let place = Place::new();
    let mut parent = TestLog::new("");
    parent.block(
        1,
        &[&malloc(10, 1, 0x10), &malloc(20, 2, 0x20), &free(30, 0x10)],
    );
    parent.block(2, &[&malloc(12, 4, 0x40)]);
    parent.last_block(3, &[&malloc(13, 16, 0x50)]);
    parent.block(4, &[&malloc(14, 32, 0x60)]);
    parent.end(1, 99);
    parent.write(&place.path("memspy.sh.4711.jsonl"));
    let mut child = TestLog::new(
        ",\"forked_from\":{\"pid\":4711,\"log\":\"/gone/memspy.sh.4711.jsonl\",\"streams\":3,\
         \"cut\":[[1,2],[2,0]]}",
    );
    child.block(1, &[&free(5, 0x10), &malloc(6, 8, 0x80)]);
    child.end(1, 99);
    let path = place.path("memspy.child.1.jsonl");
    child.write(&path);
    let (_, outcome) = read(&path);
    assert!(matches!(
        outcome.inheritance,
        Inheritance::Read { complete: true, .. }
    ));
    assert_eq!(outcome.memory.heap.inherited(), level(19, 3));
    assert_eq!(outcome.memory.heap.now(), level(26, 3));
    assert_eq!(outcome.memory.heap.oddities().total(), 0);

    std::fs::remove_file(place.path("memspy.sh.4711.jsonl")).expect("there");
    let (_, outcome) = read(&path);
    assert!(matches!(outcome.inheritance, Inheritance::Missing { .. }));
    assert_eq!(outcome.memory.heap.oddities().unknown_freed, 1);
}

#[test]
fn several_logs_in_one_file_are_told_apart() {
    let place = Place::new();
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]).end(1, 99);
    let path = place.write((log.text.clone() + &log.text).as_bytes());
    let logs = Log::open_all(&[path]).expect("two logs");
    assert_eq!(logs.len(), 2);
    for log in &logs {
        let outcome = replay(log, &mut Notes::default()).expect("readable");
        assert!(outcome.completeness.complete);
        assert_eq!(outcome.events, 2);
    }
}

#[test]
fn an_image_killed_before_its_first_line_does_not_hide_the_others() {
    let place = Place::new();
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]).end(1, 99);
    place.write(log.text.as_bytes());
    for (name, bytes) in [("b.jsonl", 0), ("c.jsonl", 0), ("c.jsonl.tail", 36 << 10)] {
        std::fs::write(place.path(name), vec![0; bytes]).expect("writable");
    }
    let logs = Log::open_all(&[place.0.path().to_owned()]).expect("three logs");
    assert_eq!(logs.len(), 3);
    for log in &logs {
        let outcome = replay(log, &mut Notes::default()).expect("readable");
        let whole = log.start().is_some();
        assert_eq!(outcome.completeness.complete, whole, "{log:?}");
        assert_eq!(
            outcome.completeness.reasons.contains(&Reason::NoStart),
            !whole
        );
    }
}

#[test]
fn a_compressed_log_reads_like_the_plain_one() {
    let place = Place::new();
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]).end(1, 99);
    let packed = zstd::encode_all(log.text.as_bytes(), 1).expect("compresses");
    let path = place.path("a.jsonl.zst");
    std::fs::write(&path, &packed).expect("writable");
    assert!(read(&path).1.completeness.complete);
    std::fs::write(&path, &packed[..packed.len() - 3]).expect("writable");
    assert!(Log::open(&path).is_err() || !read(&path).1.completeness.complete);
}

#[test]
fn what_is_no_log_is_refused_in_one_clear_line() {
    let place = Place::new();
    let said = |bytes: &[u8]| {
        let why = Log::open(&place.write(bytes))
            .expect_err("is no log")
            .to_string();
        assert_eq!(why.lines().count(), 1);
        why
    };
    assert!(said(b"").contains("is empty"));
    assert!(said(b"\x7fELF\x02\x01\x01\0\0\0\n\xff\xfe").contains("not a memspy log"));
    assert!(said(b"{\"type\":\"begin\"}\n").contains("no \"op\""));
    assert!(said(b"\0\0\0").contains("NUL"));
    assert!(said(b"{\"op\":\"start\",\"v\":2,\"new\":[]}\n").contains("version 2"));
    let directory = Log::open(place.0.path())
        .expect_err("is no log")
        .to_string();
    assert!(directory.contains("directory"));
    let missing = Log::open(&place.path("x.jsonl"))
        .expect_err("is not there")
        .in_full();
    assert!(missing.contains("No such file"));
}

#[test]
fn a_line_too_long_to_keep_is_skipped_and_counted() {
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]);
    log.text.push_str(&"x".repeat(9 << 20));
    log.text.push('\n');
    log.block(1, &[&malloc(20, 1, 0x20)]);
    log.end(1, 70);
    let (notes, outcome) = read_text(&log.text);
    assert_eq!(notes.len(), 3);
    assert_eq!(outcome.damage.long_lines, 1);
    assert!(!outcome.completeness.complete);
}

#[test]
fn unknown_ops_are_counted_by_name_and_the_rest_is_read() {
    let mut log = TestLog::new("");
    log.block(1, &[r#"{"op":"teleport","t":1}"#, &malloc(20, 1, 0x20)]);
    log.end(1, 70);
    let (notes, outcome) = read_text(&log.text);
    assert_eq!(notes.len(), 2);
    assert_eq!(outcome.damage.unknown_op_names["teleport"], 1);
    assert_eq!(outcome.completeness.reasons, []);
}

#[test]
fn recovery_completes_the_log_and_may_be_killed_at_any_byte() {
    let mut log = TestLog::new("");
    log.block(1, &[&malloc(10, 1, 0x10)]);
    let at = log.text.len();
    let flushed = log.make_block(1, &[&malloc(20, 2, 0x20), &malloc(30, 4, 0x40)], "");
    let log_end = (at + flushed.len()) as u64;
    let buffers = [
        TestBuffer {
            thread: 1,
            first_n: 2,
            text: format!("{}\n", malloc(35, 16, 0x90)).into(),
            flush: Some((flushed.clone().into(), at as u64, flushed.len() as u64)),
        },
        TestBuffer {
            thread: 2,
            first_n: 1,
            text: format!("{}\n", malloc(25, 8, 0x80)).into(),
            flush: None,
        },
    ];
    let tail = tail(log_end, 2, 0, &buffers);
    let place = Place::new();
    let tail_path = place.path("memspy.cat.4711.jsonl.tail");
    let set_up = |text: &[u8]| {
        std::fs::write(&tail_path, &tail).expect("writable");
        place.write(text)
    };
    let path = set_up(log.text.as_bytes());
    assert!(
        recover(&path, false).is_err(),
        "the tail names no inode of this file"
    );
    assert_eq!(
        recover(&path, true).expect("recovers"),
        Recovered::Done { events: 4 }
    );
    assert!(!tail_path.exists());
    assert_eq!(recover(&path, false).expect("no tail"), Recovered::Nothing);
    let whole = std::fs::read(&path).expect("readable");
    let (_, outcome) = read(&path);
    assert_eq!(outcome.completeness.reasons, []);
    assert_eq!(
        outcome.completeness.ending,
        Ending::Said("recovered".into())
    );
    assert_eq!(outcome.memory.heap.now(), level(31, 5));

    for len in log.text.len()..whole.len() {
        let path = set_up(&whole[..len]);
        let (_, before) = read(&path);
        assert_eq!(
            before.memory.heap.now(),
            level(31, 5),
            "read when killed at {len}"
        );
        recover(&path, true).expect("recovers");
        assert_eq!(
            std::fs::read(&path).expect("readable"),
            whole,
            "killed at {len}"
        );
    }
}

#[test]
fn a_log_of_a_living_process_is_not_recovered() {
    let place = Place::new();
    let path = place.write(TestLog::new("").text.as_bytes());
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let ticks = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(19));
    let ticks: u64 = ticks
        .and_then(|field| field.parse().ok())
        .expect("field 22");
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").expect("Linux");
    let mut tail = tail(0, 0, 0, &[]);
    tail[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    tail[16..24].copy_from_slice(&ticks.to_le_bytes());
    tail[24..60].copy_from_slice(&boot[..36]);
    std::fs::write(place.path("memspy.cat.4711.jsonl.tail"), tail).expect("writable");
    let why = recover(&path, false).expect_err("it lives").to_string();
    assert!(why.contains("still runs"), "{why}");
    assert!(Log::open(&path).expect("readable").is_running());
}

#[test]
fn event_numbers_at_the_end_of_their_range_are_read_and_recovered() {
    const END: u64 = u64::MAX;
    let place = Place::new();
    let mut log = TestLog::new("");
    log.text.push_str(&block(
        0,
        END,
        &[&malloc(END, 1, 0x10), &free(END, 0x10)],
        "",
    ));
    log.text.push_str(&block(1, 0, &[], ""));
    let buffers = [END, 0].map(|first_n| TestBuffer {
        thread: 2,
        first_n,
        text: format!("{}\n{}\n", malloc(25, 8, 0x80), free(26, 0x80)).into(),
        flush: None,
    });
    for log_end in [0, log.text.len() as u64, END] {
        let path = place.write(log.text.as_bytes());
        let tail = tail(log_end, END, END, &buffers);
        std::fs::write(place.path("memspy.cat.4711.jsonl.tail"), tail).expect("writable");
        let (_, outcome) = read(&path);
        assert!(!outcome.completeness.complete);
        match recover(&path, true) {
            Ok(_) => assert!(Log::open(&path).is_ok(), "recovered up to {log_end}"),
            Err(why) => assert_eq!(log_end, END, "{why}"),
        }
    }
}

#[test]
fn a_tail_that_speaks_of_a_far_place_makes_no_huge_file() {
    const FAR: u64 = 1 << 40;
    let place = Place::new();
    let log = TestLog::new("");
    let near = log.text.len() as u64;
    let text = format!("{}\n", malloc(25, 8, 0x80));
    let waiting = |text: &str, flush| TestBuffer {
        thread: 1,
        first_n: 1,
        text: text.into(),
        flush,
    };
    let block = block(1, 1, &[text.trim_end()], "").into_bytes();
    let len = block.len() as u64;
    for (log_end, buffer) in [
        (FAR, waiting(&text, None)),
        (near, waiting("", Some((block, FAR, len)))),
    ] {
        let path = place.write(log.text.as_bytes());
        let tail = tail(log_end, 1, 0, &[buffer]);
        std::fs::write(place.path("memspy.cat.4711.jsonl.tail"), tail).expect("writable");
        for force in [false, true] {
            recover(&path, force).expect_err("it is too far");
        }
        let after = std::fs::read(&path).expect("it is there");
        assert_eq!(after, log.text.as_bytes());
        assert!(place.path("memspy.cat.4711.jsonl.tail").exists());
    }
}
