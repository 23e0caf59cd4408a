//! The malloc family: one call, one event, whatever the arguments, the moment and the allocator underneath.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::oracle::{assert_complete, assert_told_calls_are_logged, calls, number, record};
use crate::support::{Log, TestDir, address, clean, compile, compile_with, finish, preloaded};

/// Every allocation function, as the programs name them.
const FUNCTIONS: [&str; 10] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "pvalloc",
    "free",
];

#[test]
fn each_call_is_one_event_with_its_own_arguments_and_result() {
    let recorded = record("heap_calls", &[]);
    let log = recorded.log();
    assert_complete(&log);
    assert_eq!(calls(&log.lines), recorded.told());
}

#[test]
fn any_function_may_be_the_first_call_of_the_image() {
    for function in FUNCTIONS {
        let recorded = record("first_call", &[function]);
        assert_complete(&recorded.log());
        assert_eq!(calls(&recorded.log().lines), recorded.told(), "{function}");
    }
}

#[test]
fn any_function_may_be_called_before_every_constructor() {
    for function in FUNCTIONS {
        let recorded = record("first_call", &[function, "early"]);
        assert_complete(&recorded.log());
        assert_eq!(calls(&recorded.log().lines), recorded.told(), "{function}");
    }
}

#[test]
fn the_heap_segment_that_the_first_call_of_the_image_makes_is_told_of() {
    let log = record("first_call", &["malloc", "early"]).log();
    let first = log.ops("malloc").next().expect("a call");
    let made = log.ops("brk").next().expect("it made the heap segment");
    assert_eq!(made["via"], "malloc");
    assert_eq!(made["t"], first["t"]);
    let segment = address(&made["from"])..address(&made["to"]);
    assert!(segment.contains(&address(&first["ptr"])), "{made} {first}");
}

#[test]
fn any_function_may_be_the_first_call_of_a_thread() {
    for function in FUNCTIONS {
        let recorded = record("first_call", &[function, "thread"]);
        assert_complete(&recorded.log());
        assert_told_calls_are_logged(&recorded.told(), &recorded.log().lines);
    }
}

#[test]
fn a_program_with_an_allocator_of_its_own_runs_on_it() {
    let recorded = record("own_allocator", &[]);
    recorded.run.success();
    let log = Log::only_in(&recorded.logs);
    assert_eq!(log.ops("reallocarray").count(), 11);
    assert_eq!(log.start()["inference"], false);
    assert_eq!(
        log.start()["allocator"],
        compile("own_allocator.c").to_str().unwrap()
    );
}

#[test]
fn a_program_with_an_allocator_of_its_own_has_its_other_calls_logged() {
    let recorded = record("own_allocator", &[]);
    assert_told_calls_are_logged(&recorded.told(), &recorded.log().lines);
}

#[test]
fn a_library_bound_past_the_preload_can_trade_blocks_with_the_program() {
    let library = compile_with("deep_bind_library.c", &["-shared", "-fPIC"]);
    let recorded = record("deep_bind", &[library.to_str().unwrap()]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    assert_eq!(log.ops("malloc").filter(|e| e["size"] == 20011).count(), 0);
}

/// What a log leaves in use, replayed in the order of its times.
#[derive(Default)]
struct Replay {
    blocks: BTreeMap<u64, (u64, Value)>,
    pages: BTreeSet<u64>,
    anomalies: Vec<String>,
}

/// One half of an event: what it releases or what it acquires, at its time.
struct Step<'a> {
    time: u64,
    acquires: bool,
    event: &'a Value,
}

/// The halves of all events in the order that FORMAT.md gives: by time, releases first, then as in the file.
fn steps(lines: &[Value]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for event in lines.iter().filter(|line| line.get("err").is_none()) {
        let op = event["op"].as_str().unwrap_or_default();
        let releases = match op {
            "free" => event["ptr"] != "0x0",
            "realloc" | "reallocarray" => event["old"] != "0x0",
            "munmap" | "mmap" => true,
            _ => false,
        };
        let acquires = event.get("ptr").is_some() && op != "free" || op == "mmap";
        if !releases && !acquires {
            continue;
        }
        let begun = number(event, "t");
        let ended = begun + event.get("dt").and_then(Value::as_u64).unwrap_or(0);
        let halves = [(releases, begun, false), (acquires, ended, true)];
        for (_, time, acquires) in halves.into_iter().filter(|half| half.0) {
            steps.push(Step {
                time,
                acquires,
                event,
            });
        }
    }
    steps.sort_by_key(|step| (step.time, step.acquires));
    steps
}

impl Replay {
    fn of(lines: &[Value]) -> Self {
        let mut replay = Self::default();
        for step in steps(lines) {
            replay.step(&step);
        }
        replay
    }

    fn step(&mut self, step: &Step<'_>) {
        let event = step.event;
        match event["op"].as_str().unwrap() {
            "mmap" | "munmap" => self.change_pages(step),
            "free" => self.release(address(&event["ptr"]), event),
            _ if step.acquires => {
                let count = event.get("count").and_then(Value::as_u64).unwrap_or(1);
                let size = count * number(event, "size");
                let was = self
                    .blocks
                    .insert(address(&event["ptr"]), (size, event.clone()));
                if let Some((_, other)) = was {
                    self.anomalies
                        .push(format!("{event} takes the place of {other}"));
                }
            }
            _ => self.release(address(&event["old"]), event),
        }
    }

    fn release(&mut self, block: u64, event: &Value) {
        if self.blocks.remove(&block).is_none() {
            self.anomalies
                .push(format!("{event} releases what is not there"));
        }
    }

    fn change_pages(&mut self, step: &Step<'_>) {
        let first = address(&step.event["addr"]) / 4096;
        for page in first..first + number(step.event, "size").div_ceil(4096) {
            if step.acquires {
                self.pages.insert(page * 4096);
            } else {
                self.pages.remove(&(page * 4096));
            }
        }
    }
}

#[test]
fn the_replayed_log_is_the_programs_live_set_for_any_number_of_threads() {
    for threads in ["1", "2", "4", "8"] {
        let recorded = record("live_set", &[threads, "20000"]);
        let log = recorded.log();
        assert_complete(&log);
        let replay = Replay::of(&log.lines);
        assert_eq!(replay.anomalies, Vec::<String>::new());
        let mut live = BTreeMap::new();
        let mut pages = BTreeSet::new();
        for line in recorded.told() {
            if line.get("live").is_some() {
                live.insert(address(&line["live"]), number(&line, "size"));
            } else {
                pages.insert(address(&line["mapped"]));
            }
        }
        let own = |block: &(&u64, &(u64, Value))| {
            block.1.1["op"] != "calloc" || live.contains_key(block.0)
        };
        let replayed: BTreeMap<u64, u64> = replay
            .blocks
            .iter()
            .filter(own) // the loader's callocs for the threads themselves
            .map(|(block, (size, _))| (*block, *size))
            .collect();
        assert_eq!(replayed, live, "{threads} threads");
        let in_areas = |page: &u64| (0x1000_0000_0000..0x1001_0000_0000).contains(page);
        let replayed: BTreeSet<u64> = replay.pages.into_iter().filter(in_areas).collect();
        assert_eq!(replayed, pages, "{threads} threads");
    }
}

#[test]
fn a_block_that_is_handed_over_is_released_after_its_malloc() {
    let program = compile("handed_over.c");
    for stacks in ["off", "full"] {
        let logs = TestDir::new();
        let mut command = preloaded(&program, &logs);
        finish(command.arg("4000").env("MEMSPY_STACKS", stacks)).success();
        let log = Log::only_in(&logs);
        assert_complete(&log);
        let replay = Replay::of(&log.lines);
        assert_eq!(replay.anomalies, Vec::<String>::new(), "stacks {stacks}");
        let handed = |line: &&Value| line["op"] == "malloc" && line["size"] == 700;
        assert_eq!(log.lines.iter().filter(handed).count(), 8000);
    }
}

#[test]
fn totals_equal_valgrinds_heap_usage() {
    let program = compile("ordinary_calls.c");
    let witness = finish(
        clean("valgrind")
            .args(["--run-libc-freeres=no", "--leak-check=no"])
            .arg(&program),
    )
    .success();
    let line = witness
        .stderr()
        .lines()
        .find(|line| line.contains("total heap usage"))
        .expect("valgrind prints its total")
        .replace(',', "");
    let counted: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let log = record("ordinary_calls", &[]).log();
    let mut totals = [0, 0, 0];
    for event in calls(&log.lines) {
        let released = match event["op"].as_str().unwrap() {
            "free" => event["ptr"] != "0x0",
            "realloc" => event["old"] != "0x0",
            _ => false,
        };
        totals[1] += u64::from(released);
        if event["op"] != "free" && event.get("ptr").is_some() {
            totals[0] += 1;
            totals[2] +=
                number(&event, "size") * event.get("count").and_then(Value::as_u64).unwrap_or(1);
        }
    }
    assert_eq!(totals.as_slice(), counted.as_slice(), "{line}");
}
