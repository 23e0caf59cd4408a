use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Log, TestDir, address, clean, compile, compile_with, finish, preloaded, shim,
};

/// The stacks of one log.
struct Stacks<'a> {
    nodes: HashMap<u64, &'a Value>,
    modules: HashMap<u64, &'a Value>,
}

impl<'a> Stacks<'a> {
    fn of(log: &'a Log) -> Self {
        let by_id = |op: &str| {
            let pair = |line: &'a Value| (line["id"].as_u64().expect("an id"), line);
            log.lines
                .iter()
                .filter(|line| line["op"] == op)
                .map(pair)
                .collect()
        };
        Stacks {
            nodes: by_id("stack"),
            modules: by_id("module"),
        }
    }

    /// The nodes of a line's stack, innermost first.
    #[track_caller]
    fn frames(&self, line: &Value) -> Vec<&'a Value> {
        let mut frames = Vec::new();
        let mut id = line["stack"]
            .as_u64()
            .unwrap_or_else(|| panic!("no stack: {line}"));
        while id != 0 {
            let node = self
                .nodes
                .get(&id)
                .unwrap_or_else(|| panic!("no node {id}"));
            frames.push(*node);
            id = node["parent"].as_u64().expect("a parent");
        }
        frames
    }

    fn addresses(&self, line: &Value) -> Vec<u64> {
        self.frames(line)
            .iter()
            .map(|frame| address(&frame["ip"]))
            .collect()
    }
}

/// Lines of allocations in a range of sizes, in the order of their calls.
fn blocks(log: &Log, sizes: std::ops::Range<u64>) -> Vec<&Value> {
    let mut found: Vec<&Value> = log
        .ops("malloc")
        .filter(|line| {
            line["size"]
                .as_u64()
                .is_some_and(|size| sizes.contains(&size))
        })
        .collect();
    found.sort_by_key(|line| line["t"].as_u64());
    found
}

/// What gdb prints for each call of malloc with a size in a range: the frames behind the shim's own, as addresses.
/// Frames that a signal interrupted are written as the log writes them, plus one. Frames that are not on the stack
/// (inlined functions, and those that gdb adds for calls in tail position) are left out.
const GDB: &str = r#"
import gdb, json
def stop(event):
    frame, found, struck = gdb.newest_frame().older(), [], False
    while frame:
        library = gdb.solib_name(frame.pc()) or ""
        real = frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)
        if real and "libmemspy" not in library:
            found.append(frame.pc() + struck)
            struck = frame.type() == gdb.SIGTRAMP_FRAME
        frame = frame.older()
    print("FRAMES", json.dumps([int(gdb.parse_and_eval("$rdi")), found]))
gdb.events.stop.connect(lambda event: stop(event) if isinstance(event, gdb.BreakpointEvent) else None)
"#;

/// Runs a program under gdb with the shim in it; answers (size, frames) of each call of malloc in a range of sizes.
fn gdb(program: &Path, directory: &TestDir, sizes: std::ops::Range<u64>) -> Vec<(u64, Vec<u64>)> {
    let script = directory.write("frames.py", GDB);
    let logs = directory.join("logs/");
    std::fs::create_dir(&logs).expect("a directory");
    let wrapper = format!(
        "set exec-wrapper env LD_PRELOAD={} MEMSPY_LOG={}",
        shim().display(),
        logs.display()
    );
    let (from, to) = (sizes.start, sizes.end);
    let at = format!("break __libc_malloc if $rdi >= {from} && $rdi < {to}");
    let mut command = clean("gdb");
    command.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    for line in [
        "set pagination off",
        "set breakpoint pending on",
        "set backtrace past-main on",
        "set backtrace past-entry on",
        &wrapper,
    ] {
        command.args(["-ex", line]);
    }
    command
        .arg("-ex")
        .arg(format!("source {}", script.display()));
    for line in ["handle SIGUSR1 SIGALRM nostop noprint pass", &at, "run"] {
        command.args(["-ex", line]);
    }
    for _ in 0..200 {
        command.args(["-ex", "continue"]);
    }
    let answer = finish(command.arg(program));
    let frames = |line: &str| {
        let text = line.split_once("FRAMES ")?.1;
        Some(serde_json::from_str(text).expect("what the script prints"))
    };
    answer.stdout().lines().filter_map(frames).collect()
}

/// Asserts that the log's stacks of some blocks are gdb's, frame by frame.
#[track_caller]
fn assert_gdbs(program: &Path, sizes: std::ops::Range<u64>, at_least: usize) {
    let directory = TestDir::new();
    let theirs = gdb(program, &directory, sizes.clone());
    assert!(
        theirs.len() >= at_least,
        "gdb stopped {} times",
        theirs.len()
    );
    let log = Log::all_in(&directory.join("logs")).remove(0);
    let stacks = Stacks::of(&log);
    let ours: Vec<(u64, Vec<u64>)> = blocks(&log, sizes)
        .into_iter()
        .map(|line| (line["size"].as_u64().unwrap(), stacks.addresses(line)))
        .collect();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.0, theirs.0);
        // Behind a coroutine's first function gdb finds frames that are none; glibc's unwind data say that it is the
        // outermost.
        let frames = if ours.0 == IN_A_COROUTINE {
            ours.1.len()
        } else {
            theirs.1.len()
        };
        assert_eq!(
            Some(&ours.1[..]),
            theirs.1.get(..frames),
            "{:x?} {:x?}",
            ours.1,
            theirs.1
        );
    }
}

/// The size of the blocks that `stack_shapes.cpp` asks for in its coroutine.
const IN_A_COROUTINE: u64 = 41004;

#[test]
fn frames_are_gdbs_for_every_kind_of_call() {
    assert_gdbs(&compile("callers.c"), 31001..31006, 5);
}

#[test]
fn frames_are_gdbs_for_stacks_of_every_shape() {
    assert_gdbs(&compile("stack_shapes.cpp"), 41001..41010, 59);
}

#[test]
fn frames_are_gdbs_without_frame_pointers() {
    let arguments = ["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"];
    assert_gdbs(
        &compile_with("stack_shapes.cpp", &arguments),
        41001..41010,
        59,
    );
}

/// The Python interpreter itself: what is called so may be a script that looks for it.
fn python3() -> String {
    let answer = finish(clean("python3").args(["-c", "import sys; print(sys.executable)"]));
    answer.success().stdout().trim_end().to_owned()
}

/// Runs a command with each hit of the memo proved by a walk; answers how many were checked.
#[track_caller]
fn assert_no_mistake(command: &mut Command, directory: &TestDir) -> u64 {
    let finished = finish(command.env("MEMSPY_STACK_CHECK", "1"));
    assert!(finished.status.success(), "{finished}");
    let mut checked = 0;
    for name in directory.names() {
        // A compiler's log is too long to be kept as values.
        let log = std::fs::File::open(directory.join(&name)).expect("a log");
        for line in BufReader::new(log).split(b'\n') {
            let line = line.expect("a line");
            if line.starts_with(br#"{"op":"end""#) {
                let end: Value = serde_json::from_slice(&line).expect("JSON");
                assert_eq!(end["mistaken"].as_u64().unwrap_or(0), 0, "{name}: {end}");
                checked += end["checked"].as_u64().unwrap_or(0);
            }
        }
    }
    checked
}

#[test]
fn no_hit_of_the_memo_is_mistaken_in_real_programs() {
    let sql = "create table t(a, b); insert into t select value, hex(value) from \
               generate_series(1, 3000); create index i on t(b); select sum(a) from t where b like '%3%';";
    let python = "import json\nd = {str(i): [i] * 5 for i in range(300)}\n\
                  def f(n): return [f(n - 1)] if n else []\n\
                  for i in range(9): d = json.loads(json.dumps(d)); f(i * 9)\n";
    let perl = "my %h; $h{$_} = [$_, 'x' x ($_ % 50)] for 1..3000; print scalar keys %h";
    let text = crate::support::repository().join("Cargo.lock");
    let text = text.to_str().expect("a path");
    let source = TestDir::new();
    let source = source.write(
        "t.cpp",
        "#include <vector>\nint main() { return std::vector<int>(3)[1]; }\n",
    );
    let source = source.to_str().expect("a path");
    let interpreter = python3();
    let programs: [(&str, &[&str]); 5] = [
        ("sqlite3", &[":memory:", sql]),
        (&interpreter, &["-c", python]),
        ("perl", &["-e", perl]),
        ("git", &["grep", "--no-index", "--count", "e", "--", text]),
        ("c++", &["-std=c++17", "-fsyntax-only", source]),
    ];
    for (program, arguments) in programs {
        let directory = TestDir::new();
        let mut command = preloaded(program, &directory);
        let checked = assert_no_mistake(
            command.args(arguments).env("PYTHONMALLOC", "malloc"),
            &directory,
        );
        assert!(checked > 10, "{program}: {checked}");
    }
}

#[test]
fn no_hit_of_the_memo_is_mistaken_on_stacks_of_every_shape() {
    for (program, at_least) in [
        ("stack_shapes.cpp", 10),
        ("exceptions.cpp", 100),
        ("host_unwinds.cpp", 10),
        ("host_panics.rs", 10),
    ] {
        let directory = TestDir::new();
        let checked = assert_no_mistake(&mut preloaded(compile(program), &directory), &directory);
        assert!(checked > at_least, "{program}: {checked}");
    }
}

#[test]
fn no_hit_of_the_memo_is_mistaken_on_ways_that_stacks_seldom_take() {
    let program = compile("stack_paths.c");
    let library = |room: &str| compile_with("stack_library.c", &["-shared", "-fPIC", room]);
    let libraries = [library("-DROOM=100"), library("-DROOM=300")];
    for way in ["recursion", "jumps", "coroutines", "libraries"] {
        let directory = TestDir::new();
        let mut command = preloaded(&program, &directory);
        let checked = assert_no_mistake(command.arg(way).args(&libraries), &directory);
        assert!(checked > 50, "{way}: {checked}");
    }
}

#[test]
fn no_hit_of_the_memo_is_mistaken_in_a_rust_program() {
    let logs = TestDir::new();
    finish(preloaded(compile("exceptions.cpp"), &logs).env("MEMSPY_STACKS", "off")).success();
    let directory = TestDir::new();
    let mut command = preloaded(env!("CARGO_BIN_EXE_memspy"), &directory);
    let checked = assert_no_mistake(command.arg("summary").arg(logs.path()), &directory);
    assert!(checked > 100, "{checked}");
}

#[test]
fn handlers_that_jump_out_of_walks_stop_nothing() {
    let directory = TestDir::new();
    let checked = assert_no_mistake(
        &mut preloaded(compile("stack_storm.c"), &directory),
        &directory,
    );
    assert!(checked > 1000, "{checked}");
    let log = Log::only_in(&directory);
    let stacks = Stacks::of(&log);
    // The last maps come from the recursion after the storm: their stacks are whole.
    let last: Vec<&Value> = log.ops("mmap").collect();
    for line in &last[last.len() - 21..] {
        let outermost = stacks.frames(line).last().copied().expect("a frame");
        assert!(outermost["cut"].is_null(), "{line} {outermost}");
    }
}

#[test]
fn stacks_without_room_for_a_walk_are_left_in_peace() {
    let program = compile("stack_room.c");
    finish(&mut clean(&program)).success();
    let directory = TestDir::new();
    finish(&mut preloaded(&program, &directory)).success();
    let log = Log::only_in(&directory);
    let stacks = Stacks::of(&log);
    for size in [51001, 51002, 51003] {
        let lines = blocks(&log, size..size + 1);
        assert!(!lines.is_empty());
        for line in lines {
            assert!(!stacks.frames(line).is_empty());
        }
    }
}

#[test]
fn a_childs_log_defines_every_number_that_it_uses() {
    let directory = TestDir::new();
    let mut command = preloaded(python3(), &directory);
    command.args(["-c", "import os\nx = [str(i) * 99 for i in range(999)]\nif os.fork() == 0:\n y = x * 3\n os._exit(0)\nos.wait()"]);
    finish(command.env("PYTHONMALLOC", "malloc")).success();
    let logs = Log::all_in(directory.path());
    assert_eq!(logs.len(), 2);
    for log in &logs {
        let stacks = Stacks::of(log);
        let mut used = 0;
        for line in log.lines.iter().filter(|line| line["stack"].is_u64()) {
            for frame in stacks.frames(line) {
                let module = frame["module"].as_u64();
                assert!(
                    module.is_none_or(|id| stacks.modules.contains_key(&id)),
                    "{frame}"
                );
            }
            used += 1;
        }
        assert!(used > 10, "{}: {used}", log.path.display());
    }
}

#[test]
fn settings_choose_how_stacks_are_followed() {
    let program = compile_with("callers.c", &["-fno-omit-frame-pointer"]);
    let run = |name: &str, value: &str| {
        let directory = TestDir::new();
        finish(preloaded(&program, &directory).env(name, value)).success();
        Log::only_in(&directory)
    };
    let none = run("MEMSPY_STACKS", "off");
    assert!(
        none.lines
            .iter()
            .all(|line| line["stack"].is_null() && line["op"] != "stack")
    );

    // With frame pointers: the same frames as far as they reach, relative to the program.
    let relative = |log: &Log| {
        let stacks = Stacks::of(log);
        let base =
            |frame: &Value| address(&stacks.modules[&frame["module"].as_u64()?]["base"]).into();
        let line = blocks(log, 31002..31003)[0];
        let frames = stacks.frames(line).into_iter();
        let relative = |frame: &Value| -> Option<u64> {
            let base: Option<u64> = base(frame);
            Some(address(&frame["ip"]) - base?)
        };
        frames.map(relative).collect::<Vec<Option<u64>>>()
    };
    let full = relative(&run("MEMSPY_STACKS", "full"));
    let by_frame_pointer = relative(&run("MEMSPY_STACKS", "fp"));
    assert_eq!(full[..22], by_frame_pointer[..22]);

    let cut = run("MEMSPY_STACK_DEPTH", "5");
    let stacks = Stacks::of(&cut);
    let frames = stacks.frames(blocks(&cut, 31002..31003)[0]);
    assert_eq!(frames.len(), 5);
    assert_eq!(frames[4]["cut"], "depth");
}

#[test]
fn the_hosts_own_unwinders_see_what_they_saw() {
    for program in ["host_unwinds.cpp", "host_panics.rs"] {
        let program = compile(program);
        let plain = finish(&mut clean(&program)).success();
        let directory = TestDir::new();
        let under_shim = finish(&mut preloaded(&program, &directory)).success();
        assert_eq!(plain.stdout(), under_shim.stdout());
    }
}
