//! `memspy maps`, `where` and `timeline`: the address space, against /proc and strace.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{Log, TestDir, address, clean, compile, finish, memspy, preloaded, shim};

/// The logs in a directory of a run.
fn logs(dir: &TestDir) -> Vec<PathBuf> {
    let logs = dir.names().into_iter();
    let logs = logs.filter(|name| name.ends_with(".jsonl"));
    logs.map(|name| dir.join(name)).collect()
}

/// `memspy COMMAND LOG ARGUMENTS --json` as JSON.
#[track_caller]
fn report(command: &str, log: &PathBuf, arguments: &[&str]) -> Value {
    let mut memspy = memspy();
    memspy.arg(command).arg(log).args(arguments).arg("--json");
    finish(&mut memspy).success().json()
}

fn record(dir: &TestDir, program: &str, arguments: &[&str]) -> String {
    let mut command = preloaded(program, dir);
    let run = finish(command.args(arguments)).success();
    run.stdout().to_string()
}

fn unexplained(report: &Value) -> Vec<Value> {
    let snapshots = report["snapshots"].as_array().expect("a list");
    let all = snapshots.iter().flat_map(|snapshot| {
        let differences = snapshot["differences"].as_array().expect("a list");
        let bad = differences
            .iter()
            .filter(|one| one["cause"] == "unexplained");
        bad.cloned().collect::<Vec<_>>()
    });
    all.collect()
}

/// Permissions of each page in a range, from the kernel's text.
fn pages(maps: &str) -> BTreeMap<u64, String> {
    let mut pages = BTreeMap::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (from, to) = fields
            .next()
            .and_then(|range| range.split_once('-'))
            .expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        let perms = fields.next().expect("permissions");
        for page in (number(from)..number(to)).step_by(4096) {
            pages.insert(page, perms.to_string());
        }
    }
    pages
}

/// The same from a report, without memspy's own.
fn pages_of(report: &Value) -> BTreeMap<u64, (String, String)> {
    let mut pages = BTreeMap::new();
    for row in report["ranges"].as_array().expect("a list") {
        let (from, to) = (address(&row["from"]), address(&row["to"]));
        let text = |key: &str| row[key].as_str().expect("text").to_string();
        for page in (from..to).step_by(4096) {
            pages.insert(page, (text("perms"), text("kind")));
        }
    }
    pages
}

#[test]
fn every_difference_between_calls_and_kernel_is_explained_in_real_programs() {
    let scripts = [
        "cat /etc/passwd",
        "hostname",
        "ls -l /",
        "bash -c 'for i in 1 2 3; do x=$(echo $i); done; echo $x'",
        "git --version",
        "sqlite3 :memory: 'create table t(a); insert into t values (1); select * from t'",
        "/usr/bin/python3 -c 'import json, decimal; print(json.dumps([1]))'",
        "PYTHONMALLOC=malloc /usr/bin/python3 -c 'import json; print(json.dumps([1]))'",
        "perl -e 'use POSIX; print floor(1.5)'",
    ];
    for script in scripts {
        let dir = TestDir::new();
        record(&dir, "sh", &["-c", script]);
        let logs = logs(&dir);
        assert!(!logs.is_empty(), "{script}");
        for log in logs {
            let report = report("maps", &log, &[]);
            assert_eq!(unexplained(&report), [Value::Null; 0], "{script}: {log:?}");
            let rows = report["ranges"].as_array().expect("a list");
            let unknown = rows.iter().find(|row| row["kind"] == "unknown");
            assert_eq!(unknown, None, "{script}: {log:?}");
        }
    }
}

#[test]
fn a_picture_of_twenty_thousand_mappings_is_whole() {
    let program = compile("many_mappings.c");
    let dir = TestDir::new();
    let program = program.to_str().expect("a path in UTF-8");
    let kernel = record(&dir, program, &["20000"]);
    let kernel: u64 = kernel.trim().parse().expect("a number");
    let log = Log::only_in(&dir);
    let picture = log.ops("snapshot").find(|line| line["when"] == "exit");
    let picture = picture.expect("a picture of the end");
    let maps = picture["maps"].as_u64().expect("a number");
    // libc may give back a mapping for its file meanwhile; a mapping that is memspy's in part has two lines.
    assert!(maps.abs_diff(kernel) < 10, "{maps}, not {kernel}");
    let lines = log
        .ops("map")
        .filter(|line| line["snapshot"] == picture["id"]);
    assert_eq!(lines.count() as u64, maps);
    assert_eq!(
        unexplained(&report("maps", &logs(&dir)[0], &[])),
        Vec::<Value>::new()
    );
}

#[test]
fn the_model_equals_the_kernel_after_every_random_map_move_and_unmap() {
    let program = compile("remap.c");
    for (steps, seed, every) in [("3000", "1", "97"), ("300", "2", "1"), ("300", "3", "1")] {
        let dir = TestDir::new();
        let program = program.to_str().expect("a path in UTF-8");
        let kernel = pages(&record(&dir, program, &[steps, seed, every]));
        let log = &logs(&dir)[0];
        let report = report("maps", log, &[]);
        let snapshots = report["snapshots"].as_array().expect("a list");
        let number = |text: &str| text.parse::<usize>().expect("a number");
        assert!(
            snapshots.len() > number(steps) / number(every),
            "seed {seed}"
        );
        let not_ours = |one: &&Value| one["cause"] != "memspy";
        for snapshot in snapshots {
            let differences = snapshot["differences"].as_array().expect("a list");
            assert_eq!(differences.iter().find(not_ours), None, "seed {seed}");
        }
        // What the program itself read of /proc, page by page.
        let ours = pages_of(&report);
        for (page, perms) in &kernel {
            let found = ours.get(page).map(|(perms, _)| perms);
            let own = ours.get(page).is_none_or(|(_, kind)| kind == "memspy");
            assert!(
                own || found == Some(perms),
                "seed {seed}: {page:#x} {perms} {found:?}"
            );
        }
    }
}

/// Runs a command in gdb up to its last system call, after memspy's last snapshot, and answers what `pmap -x` prints
/// of the process then.
fn pmap_at_the_end(dir: &TestDir, command: &[&str]) -> String {
    let listing = dir.join("pmap.txt");
    let wrapper = format!(
        "set exec-wrapper env LD_PRELOAD={} MEMSPY_LOG={}/",
        shim().display(),
        dir.path().display()
    );
    let pmap = format!(
        "python import os; os.system('pmap -x %d > {}' % gdb.selected_inferior().pid)",
        listing.display()
    );
    let mut gdb = clean("gdb");
    gdb.args([
        "-batch",
        "-nx",
        "-ex",
        &wrapper,
        "-ex",
        "catch syscall exit_group",
    ])
    .args(["-ex", "run", "-ex", &pmap, "-ex", "continue", "--args"])
    .args(command);
    finish(&mut gdb).success();
    fs::read_to_string(listing).expect("pmap's listing")
}

#[test]
fn the_totals_are_pmaps_at_that_moment() {
    for command in [
        &["/bin/cat", "/etc/passwd"][..],
        &["/bin/bash", "-c", "for i in 1 2 3; do x+=$i; done; echo $x"],
        &[
            "/usr/bin/python3",
            "-c",
            "import json; print(json.dumps([1]))",
        ],
    ] {
        let dir = TestDir::new();
        let listing = pmap_at_the_end(&dir, command);
        let report = report("maps", &logs(&dir)[0], &[]);
        assert_eq!(report["snapshot"]["when"], "exit", "{command:?}");
        let ours: BTreeMap<u64, &Value> = report["ranges"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| (address(&row["from"]), row))
            .collect();
        // Address, Kbytes, RSS, dirty, mode, mapping; the last line has the totals.
        let (mut matched, mut total, mut resident) = (0, 0, (0, 0));
        for line in listing.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let kib = |at: usize| fields[at].parse::<u64>().expect("a number") * 1024;
            if fields.first() == Some(&"total") {
                total = kib(2);
            }
            let address = fields.first().filter(|text| text.len() == 16);
            let Some(address) = address.and_then(|text| u64::from_str_radix(text, 16).ok()) else {
                continue;
            };
            if let Some(row) = ours.get(&address)
                && row["kind"] != "memspy"
                && row["size"] == kib(1)
                && let Some(bytes) = row["resident"].as_u64()
            {
                matched += 1;
                resident = (resident.0 + bytes, resident.1 + kib(2));
            }
        }
        assert_eq!(report["total"]["size"], total, "{command:?}: {listing}");
        assert!(matched > 20, "{command:?}: {matched} of {listing}");
        // After the snapshot the process went on to its end, through a few more pages.
        let (ours, theirs) = resident;
        assert!(
            ours.abs_diff(theirs) < ours / 5,
            "{command:?}: {ours}, pmap {theirs}"
        );
    }
}

#[test]
fn the_map_at_the_peak_is_what_cat_itself_saw() {
    let dir = TestDir::new();
    // Without a locale: its files are found by the next snapshot only.
    let mut cat = preloaded("cat", &dir);
    let cat = finish(cat.arg("/proc/self/maps").env("LC_ALL", "C")).success();
    let kernel = pages(cat.stdout());
    let log = &logs(&dir)[0];
    let end = pages_of(&report("maps", log, &[]));
    let ours = pages_of(&report("maps", log, &["--at", "peak"]));
    let mut buffer = 0;
    for (page, perms) in &kernel {
        match ours.get(page) {
            Some((found, kind)) => {
                assert_eq!(found, perms, "{page:#x} {kind}");
                buffer += u64::from(kind == "malloc_mapping");
            }
            // memspy's own mappings are no calls of the log.
            None => assert_eq!(end.get(page).map(|(_, kind)| kind.as_str()), Some("memspy")),
        }
    }
    assert_eq!(buffer * 4096, 139_264, "cat's buffer");
}

#[test]
fn the_kernel_calls_behind_malloc_are_in_straces_list() {
    for (program, arguments) in [
        ("cat", vec!["/etc/passwd"]),
        ("sqlite3", vec![":memory:", "select hex(zeroblob(300000))"]),
        ("perl", vec!["-e", "my $x = 'a' x 500000; print length $x"]),
    ] {
        let dir = TestDir::new();
        let trace = dir.join("strace.txt");
        let mut command = clean("strace");
        command
            .args(["-qq", "-e", "trace=%memory", "-o"])
            .arg(&trace)
            .arg("-E")
            .arg(format!("LD_PRELOAD={}", shim().display()))
            .arg("-E")
            .arg(format!("MEMSPY_LOG={}/", dir.path().display()))
            .arg(program)
            .args(&arguments);
        finish(&mut command).success();
        let trace = fs::read_to_string(trace).expect("strace wrote its output");
        let told = report("explain", &logs(&dir)[0], &["--top", "0"]);
        let calls = told["calls"].as_array().expect("a list");
        let mut seen = 0;
        for call in calls.iter().filter(|call| !call["via"].is_null()) {
            let text = call["call"].as_str().expect("text");
            let size = call["bytes"].as_i64().expect("a number").unsigned_abs();
            if call["times"] != 1 || text.starts_with("mremap") {
                continue;
            }
            let at = text
                .split(|c: char| !c.is_ascii_alphanumeric())
                .rfind(|word| word.starts_with("0x"))
                .expect("an address");
            let found = trace.lines().any(|line| match call["op"].as_str() {
                Some("mmap") => {
                    line.contains(&format!(", {size}, ")) && line.ends_with(&format!("= {at}"))
                }
                Some("munmap") => line.contains(&format!("munmap({at}, {size})")),
                Some("brk") => line.ends_with(&format!("= {at}")),
                _ => true,
            });
            assert!(found, "{program}: {text} is not in\n{trace}");
            seen += 1;
        }
        assert!(seen > 0, "{program}: no call inside malloc");
    }
}

#[test]
fn thread_stacks_guards_and_arenas_are_named() {
    let dir = TestDir::new();
    let program = compile("arenas.c");
    record(&dir, program.to_str().expect("a path in UTF-8"), &[]);
    let report = report("maps", &logs(&dir)[0], &[]);
    assert_eq!(unexplained(&report), [Value::Null; 0]);
    let ranges = |kind: &str| {
        let totals = report["totals"].as_array().expect("a list");
        let total = totals.iter().find(|total| total["kind"] == kind);
        total.map_or(0, |total| total["ranges"].as_u64().expect("a number"))
    };
    assert_eq!(ranges("thread_stack"), 4);
    assert_eq!(ranges("guard"), 4);
    assert!(ranges("arena") >= 1);
    assert_eq!(ranges("arena"), ranges("arena_reserve"));
    assert_eq!(ranges("main_stack"), 1);
    let handed: u64 = report["totals"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|total| total["kind"] == "arena")
        .map(|total| total["handed_out"]["bytes"].as_u64().expect("a number"))
        .sum();
    assert!(handed >= 4 * 40_001, "{handed}");
}

#[test]
fn resident_sizes_are_the_kernels() {
    let dir = TestDir::new();
    // The shell's own words about itself, as late as possible.
    let script = "while read a b; do case $a in Rss:) set -- $b; s=$((s + $1));; esac; done \
                  < /proc/self/smaps; echo $s";
    let kib: u64 = record(&dir, "bash", &["-c", script])
        .trim()
        .parse()
        .expect("a number");
    let report = report("maps", &logs(&dir)[0], &[]);
    let exit = report["snapshots"]
        .as_array()
        .expect("a list")
        .last()
        .expect("one");
    let ours = exit["resident"].as_u64().expect("a number") / 1024;
    assert!(
        ours.abs_diff(kib) < kib / 5,
        "{ours} KiB at exit, {kib} KiB before"
    );
}

#[test]
fn maps_off_leaves_snapshots_out_and_the_report_says_so() {
    let dir = TestDir::new();
    finish(
        preloaded("cat", &dir)
            .arg("/dev/null")
            .env("MEMSPY_MAPS", "off"),
    )
    .success();
    let mut command = memspy();
    let told = finish(command.arg("maps").arg(&logs(&dir)[0])).success();
    assert!(told.stderr().contains("no snapshot"), "{told}");
    assert!(told.stdout().contains("[heap]"), "{told}");
}

#[test]
fn where_names_the_block_its_caller_and_its_neighbours() {
    let dir = TestDir::new();
    let program = compile("thresholds.c");
    record(&dir, program.to_str().expect("a path in UTF-8"), &[]);
    let log = &logs(&dir)[0];
    let text = fs::read_to_string(log).expect("the log can be read");
    let line = text
        .lines()
        .find(|line| line.contains("\"size\":60001,"))
        .expect("malloc(60001)");
    let line: Value = serde_json::from_str(line).expect("JSON");
    let inside = format!("{:#x}", address(&line["ptr"]) + 60_000);
    let told = report("where", log, &[&inside]);
    let block = told["blocks"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|block| block["size"] == 60_001)
        .expect("the block");
    assert_eq!(block["ptr"], line["ptr"]);
    assert_eq!(block["end"]["op"], "free");
    let stack = block["stack"].as_array().expect("a list");
    let names: Vec<&str> = stack.iter().filter_map(Value::as_str).collect();
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("main (thresholds.c:")),
        "{names:?}"
    );
    let below = address(&told["below"]["ptr"]);
    assert!(below < address(&line["ptr"]));
}

#[test]
fn pictures_are_well_formed_and_have_no_control_bytes() {
    let dir = TestDir::new();
    let odd = dir.join("a<&\u{1b}\"b");
    fs::copy("/bin/cat", &odd).expect("a copy of cat");
    record(
        &dir,
        odd.to_str().expect("a path in UTF-8"),
        &["/etc/passwd"],
    );
    let log = &logs(&dir)[0];
    for command in ["maps", "timeline"] {
        let file = dir.join(format!("{command}.svg"));
        finish(memspy().arg(command).arg(log).arg("--svg").arg(&file)).success();
        let parse = "import sys, xml.dom.minidom as x; print(len(x.parse(sys.argv[1]).getElementsByTagName('text')))";
        let mut python = Command::new("/usr/bin/python3");
        let texts = finish(python.args(["-c", parse]).arg(&file)).success();
        let texts: u32 = texts.stdout().trim().parse().expect("a number");
        assert!(texts > 10, "{texts} labels");
        let bytes = fs::read(&file).expect("the picture");
        assert!(bytes.iter().all(|byte| *byte >= 0x20 || *byte == b'\n'));
    }
}

#[test]
fn a_timeline_ends_with_what_is_live_and_knows_the_peak() {
    let dir = TestDir::new();
    let program = compile("thresholds.c");
    record(&dir, program.to_str().expect("a path in UTF-8"), &[]);
    let line = report("timeline", &logs(&dir)[0], &[]);
    let points = line["points"].as_array().expect("a list");
    let most = points
        .iter()
        .map(|point| point["in_use"].as_u64().expect("a number"))
        .max();
    assert_eq!(most, line["peak"]["bytes"].as_u64());
    assert!(most >= Some(64 * 100_003));
    // malloc(1) is all that the program keeps.
    assert_eq!(points.last().expect("a point")["in_use"], 1);
    assert!(!line["resident"].as_array().expect("a list").is_empty());
}
