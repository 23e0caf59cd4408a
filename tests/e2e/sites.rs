use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{
    Finished, OwnStacks, TestDir, clean, compile_with, finish, finish_with_input, memspy,
};

/// A log with call stacks.
fn own_stacks(directory: &TestDir) -> PathBuf {
    OwnStacks::of(&compile_with("own_stacks.cpp", &["-O1"])).log(directory)
}

/// A log of a real program, made by the shim.
fn sqlite3(directory: &TestDir) -> PathBuf {
    let logs = directory.join("logs");
    let sql = "create table t(a); insert into t select value from generate_series(1, 20000); \
               create index i on t(a); select sum(a) from t;";
    let mut run = memspy();
    run.args(["run", "--quiet", "-o"])
        .arg(&logs)
        .args(["--", "sqlite3", ":memory:", sql]);
    finish(&mut run).success();
    logs
}

fn command(name: &str, log: &Path, arguments: &[&str]) -> Finished {
    finish(memspy().arg(name).args(arguments).arg(log)).success()
}

fn report(log: &Path, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
    command("sites", log, &arguments).json()
}

fn sum(report: &Value, figure: &str) -> u64 {
    let sites = report["sites"].as_array().unwrap();
    sites
        .iter()
        .map(|site| site[figure].as_u64().unwrap())
        .sum()
}

/// Runs a Python script with standard input, and reads the JSON that it prints.
fn python(script: &str, input: &[u8], arguments: &[&Path]) -> Value {
    finish_with_input(
        clean("python3").arg("-c").arg(script).args(arguments),
        input,
    )
    .success()
    .json()
}

const FIGURES: [&str; 6] = [
    "blocks",
    "bytes",
    "live_blocks",
    "live_bytes",
    "peak_bytes",
    "failures",
];

#[test]
fn totals_are_what_python_counts_in_the_log() {
    let directory = TestDir::new();
    let logs = sqlite3(&directory);
    // Replays the lines by t, as FORMAT.md says; one thread, so their order is that of the file.
    let counted = python(
        r#"
import json, pathlib, sys
live, now = {}, 0
sums = dict.fromkeys(["blocks", "bytes", "live_blocks", "live_bytes", "peak_bytes", "failures"], 0)
for line in next(pathlib.Path(sys.argv[1]).glob("*.jsonl")).open():
    e = json.loads(line.strip("\0"))
    op = e["op"]
    if "err" in e:
        sums["failures"] += op in ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc")
        continue
    gone = e.get("old") if op == "realloc" else e["ptr"] if op == "free" else None
    now -= live.pop(gone, 0)
    if op in ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc") and "ptr" in e:
        size = e["size"] * e.get("count", 1)
        live[e["ptr"]] = size
        now += size
        sums["blocks"] += 1
        sums["bytes"] += size
        sums["peak_bytes"] = max(sums["peak_bytes"], now)
sums["live_blocks"], sums["live_bytes"] = len(live), sum(live.values())
print(json.dumps(sums))
"#,
        b"",
        &[&logs],
    );
    let report = report(&logs, &["--top", "0"]);
    assert!(report["complete"].as_bool().unwrap());
    for figure in FIGURES {
        assert_eq!(report["total"][figure], counted[figure], "{figure}");
        assert_eq!(
            sum(&report, figure),
            counted[figure].as_u64().unwrap(),
            "sum of {figure}"
        );
    }
    assert!(counted["blocks"].as_u64().unwrap() > 100, "{counted}");
}

#[test]
fn every_grouping_has_the_same_totals() {
    let directory = TestDir::new();
    for log in [own_stacks(&directory), sqlite3(&directory)] {
        let by_stack = report(&log, &["--top", "0"]);
        for by in ["function", "file", "module"] {
            let grouped = report(&log, &["--top", "0", "--by", by]);
            assert_eq!(grouped["total"], by_stack["total"], "{by}");
            for figure in FIGURES {
                assert_eq!(
                    sum(&grouped, figure),
                    sum(&by_stack, figure),
                    "{by} {figure}"
                );
            }
        }
    }
}

#[test]
fn the_largest_come_first_and_what_is_left_out_is_counted() {
    let directory = TestDir::new();
    let log = sqlite3(&directory);
    let all = report(&log, &["--top", "0"]);
    let count = all["sites"].as_array().unwrap().len();
    for (sort, figure) in [
        ("bytes", "bytes"),
        ("count", "blocks"),
        ("peak", "peak_bytes"),
        ("live", "live_bytes"),
    ] {
        let top = report(&log, &["--top", "3", "--sort", sort]);
        let figures: Vec<u64> = top["sites"]
            .as_array()
            .unwrap()
            .iter()
            .map(|site| site[figure].as_u64().unwrap())
            .collect();
        assert_eq!(figures.len(), 3);
        assert!(figures.is_sorted_by(|a, b| a >= b), "{sort}: {figures:?}");
        let largest = all["sites"]
            .as_array()
            .unwrap()
            .iter()
            .map(|site| site[figure].as_u64().unwrap())
            .max();
        assert_eq!(Some(figures[0]), largest, "{sort}");
        assert_eq!(top["left_out"], json!(count - 3), "{sort}");
    }
}

#[test]
fn functions_are_those_outside_the_standard_library() {
    let directory = TestDir::new();
    let log = own_stacks(&directory);
    let report = report(&log, &["--by", "function"]);
    let names: Vec<&str> = report["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| site["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["take(unsigned long)"]);
    assert_eq!(report["sites"][0]["sites"], 2);
    let skipping = self::report(
        &log,
        &["--by", "function", "--skip", "take", "--skip", "Table::row"],
    );
    let names: Vec<&Value> = skipping["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| &site["name"])
        .collect();
    assert_eq!(names, ["Table::fill(int)", "keep_name"]);
}

#[test]
fn a_log_without_stacks_is_grouped_by_call_and_size_and_the_text_says_so() {
    let directory = TestDir::new();
    let log = directory.write(
        "memspy.x.1.jsonl",
        concat!(
            r#"{"op":"start","v":1,"pid":1,"exe":"/x","stacks":"off"}"#,
            "\n",
            r#"{"op":"malloc","t":1,"size":64,"ptr":"0x10"}"#,
            "\n",
            r#"{"op":"malloc","t":2,"size":64,"ptr":"0x20"}"#,
            "\n"
        ),
    );
    let text = command("sites", &log, &[]);
    assert!(
        text.stdout().contains("no call stacks in the log"),
        "{text}"
    );
    assert!(text.stdout().contains("malloc(64)"), "{text}");
    assert!(text.stdout().contains("INCOMPLETE"), "{text}");
    let report = report(&log, &[]);
    assert_eq!(
        report["sites"][0]["call"],
        json!({"op": "malloc", "size": 64})
    );
    assert_eq!(report["sites"][0]["blocks"], 2);
}

#[test]
fn folded_stacks_and_the_flamegraph_weigh_what_the_sites_weigh() {
    let directory = TestDir::new();
    for log in [own_stacks(&directory), sqlite3(&directory)] {
        let total = &report(&log, &[])["total"];
        for (by, figure) in [
            ("bytes", "bytes"),
            ("count", "blocks"),
            ("peak", "peak_bytes"),
            ("leaked", "live_bytes"),
        ] {
            let expected = total[figure].as_u64().unwrap();
            let folded = command("export", &log, &["--to", "folded", "--by", by]);
            let weight = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
            let sum: u64 = folded.stdout().lines().map(weight).sum();
            assert_eq!(sum, expected, "folded by {by}");
            for direction in [&["--by", by][..], &["--by", by, "--reverse"]] {
                let svg = command("flamegraph", &log, direction);
                let drawn = python(
                    r#"
import json, re, sys, xml.dom.minidom as dom
svg = dom.parseString(sys.stdin.buffer.read()).documentElement
frames = svg.getElementsByTagName("svg")[-1]
print(json.dumps({"total": int(frames.getAttribute("total_samples")),
    "titles": [t.firstChild.data for t in svg.getElementsByTagName("title") if t.firstChild]}))
"#,
                    &svg.stdout_bytes,
                    &[],
                );
                assert_eq!(drawn["total"], expected, "flamegraph {direction:?}");
                assert!(drawn["titles"].as_array().unwrap().len() > 2);
            }
        }
    }
}

/// Decodes a pprof file with nothing but Python's standard library and the field numbers of
/// profile.proto.
const PPROF: &str = r#"
import gzip, json, sys

def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]; at += 1
        value |= (byte & 127) << shift; shift += 7
        if byte < 128: return value, at

def fields(data):
    at, found = 0, {}
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0: value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at); value = data[at:at + size]; at += size
        else: raise ValueError(key)
        found.setdefault(key >> 3, []).append(value)
    return found

def numbers(values):
    out = []
    for value in values:
        if isinstance(value, int): out.append(value); continue
        at = 0
        while at < len(value):
            number, at = varint(value, at); out.append(number)
    return out

profile = fields(gzip.decompress(open(sys.argv[1], "rb").read()))
strings = [s.decode() for s in profile[6]]
one = lambda message, field: message.get(field, [0])[0]
kinds = [fields(t) for t in profile[1]]
functions = {one(f, 1): strings[one(f, 2)] for f in map(fields, profile.get(5, []))}
locations = {one(l, 1): l for l in map(fields, profile[4])}
mappings = {one(m, 1): m for m in map(fields, profile.get(3, []))}
samples = []
for sample in map(fields, profile[2]):
    stack = []
    for number in numbers(sample[1]):
        location = locations[number]
        mapping = mappings.get(one(location, 2))
        if mapping: assert one(mapping, 2) <= one(location, 3) < one(mapping, 3)
        stack += [functions[one(fields(line), 1)] for line in location[4]]
    samples.append({"stack": stack, "values": numbers(sample[2])})
print(json.dumps({"types": [[strings[one(k, 1)], strings[one(k, 2)]] for k in kinds], "samples": samples,
    "first": strings[0], "mappings": [[strings[one(m, 5)], strings[one(m, 6)]] for m in mappings.values()]}))
"#;

#[test]
fn pprof_files_hold_the_sites_in_four_values() {
    let directory = TestDir::new();
    for log in [own_stacks(&directory), sqlite3(&directory)] {
        let file = directory.join("profile.pb.gz");
        command(
            "export",
            &log,
            &["--to", "pprof", "-o", file.to_str().unwrap()],
        );
        let profile = python(PPROF, b"", &[&file]);
        assert_eq!(profile["first"], "");
        let types = json!([
            ["alloc_objects", "count"],
            ["alloc_space", "bytes"],
            ["inuse_objects", "count"],
            ["inuse_space", "bytes"]
        ]);
        assert_eq!(profile["types"], types);
        let total = &report(&log, &[])["total"];
        for (at, figure) in ["blocks", "bytes", "live_blocks", "live_bytes"]
            .into_iter()
            .enumerate()
        {
            let samples = profile["samples"].as_array().unwrap();
            let sum: u64 = samples
                .iter()
                .map(|sample| sample["values"][at].as_u64().unwrap())
                .sum();
            assert_eq!(json!(sum), total[figure], "{figure}");
        }
    }
}

#[test]
fn pprof_stacks_are_the_reports_innermost_first_and_mappings_have_build_ids() {
    let directory = TestDir::new();
    let log = own_stacks(&directory);
    let file = directory.join("profile.pb.gz");
    command(
        "export",
        &log,
        &["--to", "pprof", "-o", file.to_str().unwrap()],
    );
    let profile = python(PPROF, b"", &[&file]);
    let report = report(&log, &["--depth", "0", "--top", "0"]);
    let names = |site: &Value| -> Value {
        let stack = site["stack"].as_array().unwrap();
        stack
            .iter()
            .map(|frame| frame["function"].clone())
            .collect()
    };
    let ours: Vec<Value> = report["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(names)
        .collect();
    for sample in profile["samples"].as_array().unwrap() {
        assert!(
            ours.contains(&sample["stack"]),
            "{sample} is not among {ours:?}"
        );
    }
    let mapping = &profile["mappings"][0];
    assert!(
        mapping[0].as_str().unwrap().ends_with("/own_stacks"),
        "{mapping}"
    );
    assert_eq!(mapping[1].as_str().unwrap().len(), 40, "{mapping}");
}

#[test]
fn speedscope_files_hold_the_sites_outermost_first() {
    let directory = TestDir::new();
    let log = own_stacks(&directory);
    let document = command("export", &log, &["--to", "speedscope"]).json();
    assert_eq!(
        document["$schema"],
        "https://www.speedscope.app/file-format-schema.json"
    );
    let frames = document["shared"]["frames"].as_array().unwrap();
    assert!(frames.iter().all(|frame| frame["name"].is_string()));
    let total = &report(&log, &[])["total"];
    let figures = ["bytes", "blocks", "peak_bytes", "live_bytes"];
    for (profile, figure) in document["profiles"].as_array().unwrap().iter().zip(figures) {
        assert_eq!(
            (&profile["type"], &profile["startValue"]),
            (&json!("sampled"), &json!(0))
        );
        let weights = profile["weights"].as_array().unwrap();
        let samples = profile["samples"].as_array().unwrap();
        assert_eq!(weights.len(), samples.len());
        let sum: u64 = weights.iter().map(|weight| weight.as_u64().unwrap()).sum();
        assert_eq!(json!(sum), total[figure], "{figure}");
        assert_eq!(profile["endValue"], total[figure], "{figure}");
        for sample in samples {
            let names: Vec<&Value> = sample
                .as_array()
                .unwrap()
                .iter()
                .map(|frame| &frames[frame.as_u64().unwrap() as usize]["name"])
                .collect();
            assert_eq!(
                (names[0], names[names.len() - 1]),
                (&json!("_start"), &json!("take(unsigned long)"))
            );
        }
    }
}

#[test]
fn two_logs_of_one_program_share_their_sites() {
    let (first, second) = (TestDir::new(), TestDir::new());
    let program = compile_with("own_stacks.cpp", &["-O1"]);
    let logs = [
        OwnStacks::of(&program).log(&first),
        OwnStacks::of(&program).log(&second),
    ];
    let one = report(&logs[0], &[]);
    let mut both = memspy();
    let both = finish(both.args(["sites", "--json"]).args(&logs))
        .success()
        .json();
    assert_eq!(
        both["sites"].as_array().unwrap().len(),
        one["sites"].as_array().unwrap().len()
    );
    assert_eq!(
        both["total"]["bytes"].as_u64().unwrap(),
        2 * one["total"]["bytes"].as_u64().unwrap()
    );
}

#[test]
fn an_empty_flamegraph_is_an_error_that_says_what_is_missing() {
    let directory = TestDir::new();
    let log = directory.write(
        "memspy.x.1.jsonl",
        "{\"op\":\"start\",\"v\":1,\"pid\":1,\"exe\":\"/x\"}\n",
    );
    let svg = directory.join("x.svg");
    let answer = finish(memspy().arg("flamegraph").arg(&log).arg("-o").arg(&svg)).code(1);
    assert!(answer.stderr().contains("nothing to draw"), "{answer}");
    assert!(!svg.exists());
}

#[test]
fn the_summary_names_the_largest_sites() {
    let directory = TestDir::new();
    let log = own_stacks(&directory);
    let summary = command("summary", &log, &["--json"]).json();
    let sites = report(&log, &[]);
    for (shown, site) in summary["sites"]
        .as_array()
        .unwrap()
        .iter()
        .zip(sites["sites"].as_array().unwrap())
    {
        assert_eq!(shown["bytes"], site["bytes"]);
        assert_eq!(shown["functions"][0], "take(unsigned long)");
    }
    assert_eq!(summary["sites"].as_array().unwrap().len(), 2);
    let text = command("summary", &log, &[]);
    let line = "take(unsigned long) < Table::row(int) < Table::fill(int)  own_stacks.cpp:";
    assert!(text.stdout().contains(line), "{text}");
}
