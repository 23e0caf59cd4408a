//! `memspy events` and `memspy recover`: the events of real programs, in order, also of killed ones.

use serde_json::Value;

use crate::support::{
    TestDir, clean, compile, compile_with, finish, finish_with_input, memspy, preloaded,
};

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

    let missing = finish(memspy().arg("recover").arg(logs.join("nothing.jsonl"))).code(1);
    assert!(missing.stderr().contains("can't open it"), "{missing}");
    finish(memspy().arg("recover").arg(logs.path())).success();
    assert!(!logs.names().iter().any(|name| name.ends_with(".tail")));
    assert_eq!(sizes(&logs), expected);
    let told = finish(memspy().arg("summary").arg(logs.path())).success();
    assert!(told.stdout().contains(", complete, recovered"), "{told}");
}

/// The witness: of each event of each log in the directory its moment by the clock that all share,
/// its process, what it is. From FORMAT.md alone, in whole numbers.
const MOMENTS: &str = r#"
import glob, json, sys

def moment(event):
    op, t, dt = event["op"], event["t"], event.get("dt", 0)
    failed = "err" in event
    if op.startswith("free") or op == "munmap":
        return t
    if op in ("realloc", "reallocarray"):
        return t + dt if failed or event["old"] == "0x0" else t
    if op in ("mremap", "mmap"):
        return t + dt if failed else t
    if op in ("brk", "sbrk") and not failed and int(event["to"], 16) < int(event["from"], 16):
        return t
    return t + dt

for name in glob.glob(sys.argv[1] + "/*.jsonl"):
    lines = [json.loads(line) for line in open(name, encoding="utf-8", errors="surrogatepass")]
    start = lines[0]
    pairs = [(line["at"], line["mono_ns"]) for line in lines if line["op"] == "block" and "at" in line]
    at, mono = max(pairs, default=(0, 0))
    real = mono - start["mono_ns"]
    for event in lines[1:]:
        if event["op"] != "block":
            t = moment(event)
            t = t * real // at if at > 0 and real > 0 else t
            where = event.get("ptr") or event.get("addr") or ""
            print(start["mono_ns"] + t, start["pid"], event["op"], where, sep="\t")
"#;

#[test]
fn the_events_of_a_process_tree_come_in_the_order_of_the_clock_that_all_share() {
    let logs = TestDir::new();
    let script =
        "for turn in 1 2; do cat /etc/passwd | sort | wc -l; done; (true; exec cat /etc/hostname)";
    finish(
        memspy()
            .args(["run", "-o"])
            .arg(logs.path())
            .args(["--", "sh", "-c", script]),
    )
    .success();
    let count = logs
        .names()
        .iter()
        .filter(|name| name.ends_with(".jsonl"))
        .count();
    assert!(count > 6, "{:?}", logs.names());

    let printed = finish(memspy().args(["events", "--json"]).arg(logs.path())).success();
    let mut shown = std::process::Command::new("jq");
    shown.args([
        "-r",
        "select(.op != \"start\") | [.mono_ns, .pid, .op, (.ptr // .addr // \"\")] | @tsv",
    ]);
    let shown = finish_with_input(&mut shown, &printed.stdout_bytes).success();
    let mut shown: Vec<&str> = shown.stdout().lines().collect();
    let clock = |line: &&str| -> u64 {
        let field = line.split('\t').next().unwrap_or_default();
        field.parse().expect("a time")
    };
    assert!(shown.is_sorted_by_key(clock));

    let mut witness = std::process::Command::new("python3");
    let witness = finish(witness.args(["-c", MOMENTS]).arg(logs.path())).success();
    let mut seen: Vec<&str> = witness.stdout().lines().collect();
    shown.sort_unstable();
    seen.sort_unstable();
    assert_eq!(shown.len(), seen.len());
    assert!(
        shown == seen,
        "the first that differs: {:?}",
        shown.iter().zip(&seen).find(|(a, b)| a != b)
    );

    // As text: a start line for each image, and each event in the same place.
    let text = finish(memspy().arg("events").arg(logs.path())).success();
    let lines: Vec<&str> = text.stdout().lines().collect();
    assert_eq!(lines.len(), seen.len() + count);
    let starts = lines
        .iter()
        .filter(|line| line.split_whitespace().nth(3) == Some("start"));
    assert_eq!(starts.count(), count);
    let pids = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let in_json: Vec<_> = printed
        .stdout()
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("each line is JSON");
            Some(line["pid"].to_string())
        })
        .collect();
    let in_text: Vec<_> = lines.iter().map(|line| pids(line)).collect();
    assert!(in_json == in_text);
}

#[test]
fn one_process_of_a_tree_is_printed_as_its_log_by_itself() {
    let logs = TestDir::new();
    finish(memspy().args(["run", "-o"]).arg(logs.path()).args([
        "--",
        "sh",
        "-c",
        "cat /etc/passwd | sort",
    ]))
    .success();
    let name = |program: &str| {
        let mut names = logs.names().into_iter();
        names
            .find(|name| name.contains(program) && name.ends_with(".jsonl"))
            .expect("its log")
    };
    let sort = name(".sort.");
    let pid = sort
        .split('.')
        .nth(2)
        .expect("the name has the pid")
        .to_owned();
    let of_one = events(&logs, &sort, &["--op", "malloc,free,mmap"]);
    let printed = finish(
        memspy()
            .args([
                "events",
                "--json",
                "--op",
                "malloc,free,mmap",
                "--pid",
                &pid,
            ])
            .arg(logs.path()),
    )
    .success();
    let of_tree: Vec<Value> = printed
        .stdout()
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    // Exec keeps the pid: the shell's child was a copy of the shell before it was sort.
    let ended = of_tree.len() - of_one.len();
    assert!(!of_one.is_empty());
    for (one, same) in of_one.iter().zip(&of_tree[ended..]) {
        let mut same = same.clone();
        assert_eq!(same["pid"].to_string(), pid);
        assert!(same["mono_ns"].is_u64());
        let keys = same.as_object_mut().expect("a line is an object");
        keys.remove("pid");
        keys.remove("mono_ns");
        assert_eq!(*one, same);
    }

    let wrong = finish(memspy().args(["events", "--op", "mallok", "LOG"])).code(2);
    assert!(wrong.stderr().contains("malloc, calloc"), "{wrong}");
    let none = finish(memspy().args(["events", "--pid", "1"]).arg(logs.path())).code(1);
    assert!(none.stderr().contains("--pid"), "{none}");

    // A compressed log and one on standard input stand in the same order.
    let cat = name(".cat.");
    finish(
        std::process::Command::new("zstd")
            .args(["-q", "--rm"])
            .arg(logs.join(&sort)),
    )
    .success();
    let input = std::fs::read(logs.join(&cat)).expect("the log");
    let mut command = memspy();
    command
        .args(["events", "--json", "-"])
        .arg(logs.join(format!("{sort}.zst")));
    let both = finish_with_input(&mut command, &input).success();
    let clock = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        line["mono_ns"].as_u64().expect("a time")
    };
    assert!(both.stdout().lines().map(clock).is_sorted());
    let sorts = format!("\"pid\":{pid}");
    let (of_sort, of_cat): (Vec<&str>, Vec<&str>) = both
        .stdout()
        .lines()
        .partition(|line| line.contains(&sorts));
    assert!(of_sort.len() > 100 && of_cat.len() > 100);
}

/// A log of one process that takes a block and gives it back, 1000 ns after `mono_ns`.
fn small_log(pid: u32, mono_ns: u64) -> String {
    let start = format!(
        "{{\"op\":\"start\",\"v\":1,\"pid\":{pid},\"ppid\":1,\"exe\":\"/x\",\"argv\":[\"x\"],\"cwd\":\"/\",\
         \"unix_ns\":1790000000000000000,\"mono_ns\":{mono_ns},\"boot_id\":\"\",\"start_ticks\":1,\"pid_ns\":1,\
         \"memspy\":\"0.1.0\",\"libc\":\"glibc\",\"allocator\":\"glibc\",\"inference\":false,\"clock\":\"monotonic\",\
         \"mode\":\"events\",\"stacks\":\"off\",\"page\":4096}}\n"
    );
    let lines = "{\"op\":\"malloc\",\"t\":1000,\"size\":5,\"ptr\":\"0x10\"}\n\
                 {\"op\":\"free\",\"t\":1500,\"ptr\":\"0x10\"}\n\
                 {\"op\":\"end\",\"t\":1600,\"how\":\"exit\",\"streams\":1,\"open\":[[1,3]],\"lost\":0,\
                 \"abandoned\":0,\"mapped\":0}\n";
    let bytes = lines.len();
    format!(
        "{start}{{\"op\":\"block\",\"thread\":1,\"tid\":{pid},\"n\":1,\"events\":3,\"bytes\":{bytes},\"t\":1000,\
         \"until\":1600}}\n{lines}"
    )
}

#[test]
fn a_tree_of_hundreds_of_processes_is_read_with_few_of_its_logs_open() {
    let logs = TestDir::new();
    // Each one overlaps with the next seven.
    for pid in 1..=300 {
        logs.write(
            &format!("memspy.x.{pid}.jsonl"),
            small_log(pid, u64::from(pid) * 200),
        );
    }
    let mut shell = crate::support::clean("sh");
    let few = "ulimit -n 24; exec \"$0\" \"$@\"";
    shell.args([
        "-c",
        few,
        env!("CARGO_BIN_EXE_memspy"),
        "events",
        "--op",
        "malloc,free",
    ]);
    let printed = finish(shell.arg(logs.path())).success();
    assert!(printed.stderr_bytes.is_empty(), "{printed}");
    let lines: Vec<&str> = printed.stdout().lines().collect();
    assert_eq!(lines.len(), 600);
    let field = |line: &str, at| line.split_whitespace().nth(at).map(str::to_owned);
    assert!(lines.is_sorted_by_key(|line| field(line, 0)));
    // Each starts 200 ns after the one before it.
    let first: Vec<_> = lines[..4]
        .iter()
        .map(|line| (field(line, 0), field(line, 1)))
        .collect();
    let expected = [
        ("0.000001000", "1"),
        ("0.000001200", "2"),
        ("0.000001400", "3"),
        ("0.000001500", "1"),
    ];
    let expected = expected.map(|(time, pid)| (Some(time.to_owned()), Some(pid.to_owned())));
    assert_eq!(first, expected);

    let mut shell = crate::support::clean("sh");
    shell.args(["-c", few, env!("CARGO_BIN_EXE_memspy"), "summary"]);
    let told = finish(shell.arg(logs.path())).success();
    assert!(told.stdout().contains("300 processes"), "{told}");
}

#[test]
fn a_log_cut_anywhere_gets_an_answer_or_one_line_from_every_command() {
    let logs = TestDir::new();
    finish(&mut preloaded(compile("fixed_calls.c"), &logs)).success();
    let text = std::fs::read(logs.join(log_of_parent(&logs))).expect("the log");
    let cut = TestDir::new();
    // 173 and 997 share no factor with what lines and blocks are long.
    let places = (1..text.len())
        .step_by(text.len() / 9 + 173)
        .chain([0, 1, 997]);
    for len in places {
        let log = cut.write("memspy.cut.1.jsonl", &text[..len.min(text.len())]);
        for command in [
            "summary", "events", "maps", "explain", "sites", "leaks", "timeline",
        ] {
            let answer = finish(memspy().arg(command).arg(&log));
            let status = answer.status.code();
            assert!(
                matches!(status, Some(0 | 1)),
                "{command}, cut at {len}: {answer}"
            );
            assert!(
                !answer.stderr().contains("panicked"),
                "{command}, cut at {len}: {answer}"
            );
            if status == Some(1) {
                let said: Vec<&str> = answer.stderr().lines().collect();
                assert!(
                    said.len() == 1 && said[0].starts_with("memspy: "),
                    "{command}: {answer}"
                );
            }
        }
    }
}

#[test]
fn a_reader_of_several_logs_that_has_seen_enough_is_told_of_no_loss() {
    let logs = TestDir::new();
    for _ in 0..2 {
        // More lines than fit into a pipe and what is collected before it.
        let mut program = preloaded(compile("many_events.c"), &logs);
        finish(program.arg("5000").current_dir(logs.path())).success();
    }
    let script = r#""$0" events "$1" | head -n 1"#;
    let mut shell = clean("sh");
    let memspy = memspy().get_program().to_owned();
    shell.args(["-c", script]).arg(memspy).arg(logs.path());
    let told = finish(&mut shell).success();
    assert_eq!(told.stdout().lines().count(), 1, "{told}");
    assert_eq!(told.stderr(), "", "{told}");
}
