//! The mapping calls that a program makes itself, and the kernel calls that malloc makes for it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::oracle::{assert_complete, assert_told_calls_are_logged, calls, number, record};
use crate::support::{Log, TestDir, address, clean, finish, finish_with_input, memspy, shim};

#[test]
fn each_mapping_call_is_one_event_with_its_own_arguments_and_result() {
    let recorded = record("mapping_calls", &[]);
    let log = recorded.log();
    assert_complete(&log);
    assert_eq!(calls(&log.lines), recorded.told());
}

#[test]
fn a_terabyte_of_reserved_addresses_is_as_the_kernel_has_it() {
    let recorded = record("reserves_terabyte", &[]);
    let log = recorded.log();
    assert_complete(&log);
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    let maps = finish(memspy().args(["maps", "--json"]).arg(&log.path)).success();
    assert!(maps.stdout().contains("\"schema\""), "{maps}");
}

#[test]
fn brk_and_sbrk_stay_in_step_with_malloc() {
    let recorded = record("brk_calls", &[]);
    let log = recorded.log();
    assert_complete(&log);
    let moves = |call: &Value| {
        let op = call["op"].as_str().unwrap();
        (op == "sbrk" && call["delta"] != 0) || op == "brk"
    };
    let logged: Vec<Value> = calls(&log.lines).into_iter().filter(moves).collect();
    assert_eq!(logged, recorded.told());
}

#[test]
fn the_break_in_the_log_has_no_jumps() {
    let log = record("brk_calls", &[]).log();
    let mut current = None;
    for event in &log.lines {
        let moved =
            matches!(event["op"].as_str(), Some("brk" | "sbrk")) && event.get("err").is_none();
        if !moved || event["op"] == "sbrk" && event["delta"] == 0 {
            continue;
        }
        let from = address(&event["from"]);
        assert_eq!(*current.get_or_insert(from), from, "{event}");
        current = Some(address(&event["to"]));
    }
    assert!(current.is_some());
}

/// One kernel call: its name, address and length.
type KernelCall = (String, u64, u64);

/// What strace saw of a command under the shim: mmap, munmap and mremap with their results, and the last break.
struct Witness {
    calls: BTreeMap<KernelCall, usize>,
    last_break: u64,
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

/// The witness of one image: strace's lines of its pid.
fn witness(trace: &str) -> Witness {
    let mut found = Witness {
        calls: BTreeMap::new(),
        last_break: 0,
    };
    for line in trace.lines() {
        let Some((call, rest)) = line.split_once('(') else {
            continue;
        };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else {
            continue;
        };
        let arguments = arguments.trim_end().trim_end_matches(')');
        let call = call.rsplit(' ').next().unwrap_or_default();
        let arguments: Vec<&str> = arguments.split(", ").collect();
        let result = result.split(' ').next().unwrap_or_default();
        let length = |place: usize| arguments.get(place).and_then(|text| text.parse().ok());
        let seen = match call {
            "brk" => {
                found.last_break = hex(result).unwrap_or(found.last_break);
                None
            }
            "mmap" => hex(result).zip(length(1)),
            "munmap" if result == "0" => hex(arguments[0]).zip(length(1)),
            "mremap" => hex(result).zip(length(2)),
            _ => None,
        };
        if let Some((address, length)) = seen {
            *found
                .calls
                .entry((call.to_owned(), address, length))
                .or_default() += 1;
        }
    }
    found
}

/// Runs a command under strace and the shim; the log of its image and what strace saw.
fn traced(command: &[&str], input: &str) -> (Log, Witness) {
    let (work, logs) = (TestDir::new(), TestDir::new());
    let trace = work.join("trace");
    let mut strace = clean("strace");
    strace
        .current_dir(work.path())
        .args(["-qq", "-e", "trace=brk,mmap,munmap,mremap", "-o"])
        .arg(&trace)
        .arg(format!("-ELD_PRELOAD={}", shim().display()))
        .arg(format!("-EMEMSPY_LOG={}/", logs.path().display()))
        .args(command);
    finish_with_input(&mut strace, input.as_bytes()).success();
    let trace = std::fs::read_to_string(trace).expect("strace wrote its file");
    (Log::only_in(&logs), witness(&trace))
}

/// A Python that is a program and not a script in front of it.
fn python() -> &'static str {
    ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("python3 is installed")
}

#[test]
fn inferred_kernel_calls_are_straces_calls() {
    let repository = TestDir::new();
    let git = |arguments: &[&str]| {
        let mut command = clean("git");
        finish(command.arg("-C").arg(repository.path()).args(arguments)).success();
    };
    git(&["init", "-q"]);
    repository.write("file", "text\n".repeat(100_000));
    git(&["add", "file"]);
    let place = repository.path().to_str().expect("a plain path");
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<30000) \
               SELECT count(DISTINCT printf('%d', i*7919%10007)), max(hex(zeroblob(100000))) FROM n;\n";
    let perl = "my %h; $h{$_} = 'x' x $_ for 1..3000; my $s = 'y' x 5000000; %h = ();";
    let json = "import json; d = json.loads(json.dumps([{'n': list(range(300))}] * 300)); b = bytearray(40 << 20)";
    let commands: [(&[&str], &str); 5] = [
        (&["cat", "/etc/passwd"], ""),
        (&["sqlite3", ":memory:"], sql),
        (&[python(), "-c", json], ""),
        (&["git", "-C", place, "ls-files", "-s"], ""),
        (&["perl", "-e", perl], ""),
    ];
    for (command, input) in commands {
        let (log, mut witness) = traced(command, input);
        assert_complete(&log);
        let mut last_break = None;
        for event in &log.lines {
            let op = event["op"].as_str().unwrap_or_default();
            if matches!(op, "brk" | "sbrk") && event.get("to").is_some() {
                last_break = Some(address(&event["to"]));
            }
            if !matches!(op, "mmap" | "munmap" | "mremap") || event.get("err").is_some() {
                continue;
            }
            let key = (
                op.to_owned(),
                address(&event["addr"]),
                number(event, "size"),
            );
            match witness.calls.get_mut(&key) {
                Some(count) if *count > 0 => *count -= 1,
                _ => panic!("{command:?}: strace has no {event}"),
            }
        }
        if let Some(last_break) = last_break {
            assert_eq!(last_break, witness.last_break, "{command:?}");
        }
    }
}

#[test]
fn a_block_above_the_threshold_shows_its_mapping_and_what_made_it() {
    let log = record("heap_calls", &[]).log();
    let block = log.only("malloc", Some(300_001));
    let place = log.lines.iter().position(|line| line == block).unwrap();
    let mapping = &log.lines[place - 1];
    assert_eq!(
        (&mapping["op"], &mapping["via"]),
        (&"mmap".into(), &"malloc".into())
    );
    assert_eq!(address(&mapping["addr"]) + 16, address(&block["ptr"]));
    assert_eq!(number(mapping, "size"), 303_104); // 300,001 + 16 bytes of header in whole pages
    let unmapping = &log.lines[place + 2];
    assert_eq!(
        (&unmapping["op"], &unmapping["via"]),
        (&"munmap".into(), &"free".into())
    );
    assert_eq!(unmapping["addr"], mapping["addr"]);
    assert_eq!(unmapping["size"], mapping["size"]);
}
