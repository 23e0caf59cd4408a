use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Finished, Log, OwnStacks, TestDir, build_id, clean, compile, compile_with, finish, memspy,
    repository,
};

/// The program with debug information, whose functions the compiler may inline where told to.
fn program() -> PathBuf {
    compile_with("own_stacks.cpp", &["-O1"])
}

fn sites(log: &Path, arguments: &[&str]) -> Finished {
    finish(
        memspy()
            .args(["sites", "--depth", "0"])
            .args(arguments)
            .arg(log),
    )
    .success()
}

fn report(log: &Path, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    sites(log, &arguments).json()
}

/// All stack lines of a report.
fn frames(report: &Value) -> Vec<&Value> {
    let sites = report["sites"].as_array().unwrap();
    sites
        .iter()
        .flat_map(|site| site["stack"].as_array().unwrap())
        .collect()
}

/// The names of the program's own functions in a report, each once. What has no name stands as `?`.
fn functions(report: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = frames(report)
        .into_iter()
        .filter(|frame| {
            frame["module"]
                .as_str()
                .is_some_and(|name| name.starts_with("own_stacks"))
        })
        .map(|frame| frame["function"].as_str().unwrap_or("?"))
        .collect();
    names.sort();
    names.dedup();
    names
}

const ALL: [&str; 6] = [
    "Table::fill(int)",
    "Table::row(int)",
    "_start",
    "keep_name",
    "main",
    "take(unsigned long)",
];

fn why_unnamed<'a>(report: &'a Value, module: &Path) -> Vec<&'a str> {
    let unnamed = report["unnamed"].as_array().unwrap();
    let named = unnamed
        .iter()
        .filter(|entry| entry["module"] == module.to_str().unwrap());
    named.map(|entry| entry["why"].as_str().unwrap()).collect()
}

/// Runs a tool that changes or copies an ELF file.
fn tool(command: &mut Command) {
    finish(command).success();
}

#[test]
fn names_files_and_lines_are_addr2lines() {
    let directory = TestDir::new();
    let program = program();
    let report = report(&OwnStacks::of(&program).log(&directory), &[]);
    let mut by_address: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for site in report["sites"].as_array().unwrap() {
        let mut last = "";
        for frame in site["stack"].as_array().unwrap() {
            let address = frame["address"].as_str().unwrap();
            let known = by_address.entry(address).or_default();
            // The functions of one address follow each other.
            if address == last || known.is_empty() {
                known.push(frame);
            }
            last = address;
        }
    }
    let mut compared = 0;
    for (address, frames) in by_address {
        let Some(offset) = address.strip_prefix("own_stacks+") else {
            continue;
        };
        let answer = finish(
            clean("addr2line")
                .args(["-f", "-i", "-C", "-e"])
                .arg(&program)
                .arg(offset),
        );
        let text = answer.success().stdout().to_string();
        let theirs: Vec<&str> = text.lines().collect();
        let ours: Vec<String> = frames
            .iter()
            .flat_map(|frame| {
                let file = frame["file"].as_str().unwrap_or("??");
                let line = frame["line"]
                    .as_u64()
                    .map_or("?".to_string(), |line| line.to_string());
                [
                    frame["function"].as_str().unwrap().to_string(),
                    format!("{file}:{line}"),
                ]
            })
            .collect();
        let frames = ours.len() / 2;
        assert_eq!(
            ours[..frames.min(3)],
            theirs[..frames.min(3)],
            "{address}: {text}"
        );
        compared += 1;
    }
    assert!(compared >= 5, "{compared} addresses compared");
    assert_eq!(functions(&report), ALL);
}

#[test]
fn no_inlines_leaves_inlined_functions_out() {
    let directory = TestDir::new();
    let log = OwnStacks::of(&program()).log(&directory);
    let report = report(&log, &["--no-inlines"]);
    assert!(!functions(&report).contains(&"Table::row(int)"), "{report}");
    assert!(functions(&report).contains(&"Table::fill(int)"), "{report}");
}

#[test]
fn a_file_of_another_build_is_said_and_not_guessed_over() {
    let directory = TestDir::new();
    let mut own = OwnStacks::of(&program());
    own.program().build_id = Some("0123456789abcdef0123456789abcdef01234567".to_string());
    let path = own.program().path.clone();
    let log = own.log(&directory);
    let report = report(&log, &[]);
    assert_eq!(functions(&report), ["?"]);
    let why = why_unnamed(&report, &path);
    let found = build_id(&path).unwrap();
    assert!(
        why[0].contains("0123456789abcdef") && why[0].contains(&found),
        "{why:?}"
    );
    let text = sites(&log, &[]);
    assert!(text.stdout().contains("own_stacks+0x"), "{text}");
    assert!(
        text.stdout().contains("is not the file that was recorded"),
        "{text}"
    );
}

#[test]
fn a_deleted_file_leaves_module_and_offset() {
    let directory = TestDir::new();
    let copy = directory.join("own_stacks");
    fs::copy(program(), &copy).unwrap();
    let log = OwnStacks::of(&copy).log(&directory);
    fs::remove_file(&copy).unwrap();
    let report = report(&log, &[]);
    assert_eq!(functions(&report), ["?"]);
    assert!(
        why_unnamed(&report, &copy)[0].contains("cannot be opened"),
        "{report}"
    );
}

#[test]
fn a_sysroot_stands_for_the_recorded_machine() {
    let directory = TestDir::new();
    let copy = directory.join("own_stacks");
    fs::copy(program(), &copy).unwrap();
    let log = OwnStacks::of(&copy).log(&directory);
    let root = directory.join("root");
    let moved = root.join(copy.strip_prefix("/").unwrap());
    fs::create_dir_all(moved.parent().unwrap()).unwrap();
    fs::rename(&copy, &moved).unwrap();
    let report = report(&log, &["--sysroot", root.to_str().unwrap()]);
    assert_eq!(functions(&report), ALL);
}

/// A stripped copy of the program, its debug information in a file of its own, and a log of it.
fn stripped(directory: &TestDir) -> (PathBuf, PathBuf, PathBuf) {
    let copy = directory.join("own_stacks");
    let debug = directory.join("split.debug");
    fs::copy(program(), &copy).unwrap();
    tool(
        clean("objcopy")
            .arg("--only-keep-debug")
            .arg(&copy)
            .arg(&debug),
    );
    tool(clean("strip").arg(&copy));
    let log = OwnStacks::of(&copy).log(directory);
    (copy, debug, log)
}

#[test]
fn a_stripped_program_has_few_names_and_the_report_says_why() {
    let directory = TestDir::new();
    let (copy, _, log) = stripped(&directory);
    let report = report(&log, &[]);
    assert_eq!(functions(&report), ["?"]);
    assert!(
        why_unnamed(&report, &copy)[0].contains("is stripped"),
        "{report}"
    );
}

#[test]
fn a_debug_file_is_found_by_build_id() {
    let directory = TestDir::new();
    let (copy, debug, log) = stripped(&directory);
    let id = build_id(&copy).unwrap();
    let place = directory.join(format!("debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::rename(debug, &place).unwrap();
    let debug_dir = directory.join("debug");
    let arguments = ["--debug-dir", debug_dir.to_str().unwrap()];
    let found = report(&log, &arguments);
    assert_eq!(functions(&found), ALL);
    assert_eq!(why_unnamed(&found, &copy), [""; 0]);
    // Even without the program itself.
    fs::remove_file(&copy).unwrap();
    assert_eq!(functions(&report(&log, &arguments)), ALL);
}

#[test]
fn a_debug_file_of_another_build_under_the_build_id_is_not_used() {
    let directory = TestDir::new();
    let (copy, debug, log) = stripped(&directory);
    let id = build_id(&copy).unwrap();
    let place = directory.join(format!("debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy("/bin/ls", &place).unwrap();
    fs::remove_file(debug).unwrap();
    let report = report(
        &log,
        &["--debug-dir", directory.join("debug").to_str().unwrap()],
    );
    assert_eq!(functions(&report), ["?"]);
}

#[test]
fn a_debug_link_is_followed_and_its_checksum_is_held() {
    let directory = TestDir::new();
    let (copy, debug, log) = stripped(&directory);
    tool(
        clean("objcopy")
            .arg(format!("--add-gnu-debuglink={}", debug.display()))
            .arg(&copy),
    );
    assert_eq!(functions(&report(&log, &[])), ALL);
    let mut bytes = fs::read(&debug).unwrap();
    bytes.push(0);
    fs::write(&debug, bytes).unwrap();
    let broken = report(&log, &[]);
    assert_eq!(functions(&broken), ["?"]);
    assert!(
        why_unnamed(&broken, &copy)[0].contains("checksum"),
        "{broken}"
    );
}

#[test]
fn compressed_debug_information_is_read() {
    for kind in ["zlib", "zstd"] {
        let directory = TestDir::new();
        let copy = directory.join("own_stacks");
        let option = format!("--compress-debug-sections={kind}");
        let packed = finish(clean("objcopy").arg(option).arg(program()).arg(&copy));
        if kind == "zstd" && !packed.status.success() {
            // binutils before 2.40 can't make such files.
            continue;
        }
        packed.success();
        assert_eq!(
            functions(&report(&OwnStacks::of(&copy).log(&directory), &[])),
            ALL
        );
    }
}

#[test]
fn debuginfod_is_asked_once_for_each_module_and_only_when_its_servers_are_named() {
    let directory = TestDir::new();
    let (copy, debug, log) = stripped(&directory);
    let id = build_id(&copy).unwrap();
    let client = directory.write(
        "debuginfod-find",
        format!(
            "#!/bin/sh\necho \"$@\" >> {0}/asked\n[ \"$2\" = {id} ] && echo {1}\n",
            directory.path().display(),
            debug.display()
        ),
    );
    tool(clean("chmod").arg("+x").arg(client));
    let path = format!(
        "{}:{}",
        directory.path().display(),
        std::env::var("PATH").unwrap()
    );
    let ask = |urls: &str| {
        let mut command = memspy();
        command
            .args(["sites", "--json", "--depth", "0"])
            .arg(&log)
            .env("PATH", &path);
        finish(command.env("DEBUGINFOD_URLS", urls))
            .success()
            .json()
    };
    assert_eq!(functions(&ask("")), ["?"]);
    assert!(!directory.join("asked").exists());
    assert_eq!(functions(&ask("http://localhost:1/")), ALL);
    let asked = fs::read_to_string(directory.join("asked")).unwrap();
    assert_eq!(
        asked.matches(&format!("debuginfo {id}")).count(),
        1,
        "{asked}"
    );
}

#[test]
fn corrupt_files_cost_no_names_but_their_own() {
    let directory = TestDir::new();
    let mut own = OwnStacks::of(&program());
    let bytes = fs::read(program()).unwrap();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = move |limit: usize| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit as u64) as usize
    };
    for number in 0..200 {
        let mut mutant = bytes.clone();
        if number % 8 == 7 {
            mutant.truncate(next(bytes.len()));
        } else {
            for _ in 0..1 + next(64) {
                // One in three lands in the headers.
                let at = if next(3) == 0 {
                    next(1024)
                } else {
                    next(bytes.len())
                };
                mutant[at] = next(256) as u8;
            }
        }
        let mut module = own.program().clone();
        module.path = directory.write(&format!("mutant{number}"), mutant);
        // Without a build id more than the header is read.
        module.build_id = None;
        own.add_copy(module);
    }
    let report = report(&own.log(&directory), &["--top", "0"]);
    assert_eq!(functions(&report), ALL);
    let unnamed = report["unnamed"].as_array().unwrap();
    assert!(
        unnamed.len() > 20,
        "the mutants are not bad enough: {unnamed:?}"
    );
}

#[test]
fn hostile_symbol_names_reach_no_terminal_and_no_picture_raw() {
    let directory = TestDir::new();
    let plain = directory.join("own_stacks.plain");
    let copy = directory.join("own_stacks");
    tool(
        clean("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&plain)
            .arg(program()),
    );
    let evil = format!(
        "evil\u{1b}]52;c;{}\u{7}\u{202e}<script>&\"",
        "x".repeat(50_000)
    );
    let rename = directory.write("rename", format!("keep_name {evil}\n"));
    let mut objcopy = clean("objcopy");
    tool(
        objcopy
            .arg("--redefine-syms")
            .arg(&rename)
            .arg(&plain)
            .arg(&copy),
    );
    let log = OwnStacks::of(&copy).log(&directory);
    let text = sites(&log, &[]);
    assert!(text.stdout().contains("evil"), "{text}");
    let raw = |text: &str| {
        text.chars()
            .any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'))
    };
    assert!(!raw(text.stdout()));
    assert!(text.stdout().len() < 20_000);
    let svg = finish(memspy().args(["flamegraph", "-o", "-"]).arg(&log)).success();
    let parsed = finish(clean("python3").args([
        "-c",
        "import sys, xml.dom.minidom as d; d.parseString(sys.argv[1])",
        svg.stdout(),
    ]));
    parsed.success();
    assert!(!raw(svg.stdout()) && !svg.stdout().contains("<script>&"));
}

#[test]
fn a_path_that_is_no_file_is_not_waited_for() {
    let directory = TestDir::new();
    let pipe = directory.join("pipe");
    tool(clean("mkfifo").arg(&pipe));
    for path in [
        pipe,
        PathBuf::from("/dev/zero"),
        directory.path().to_path_buf(),
    ] {
        let mut own = OwnStacks::of(&program());
        own.program().path = path.clone();
        let report = report(&own.log(&directory), &[]);
        assert!(
            why_unnamed(&report, &path)[0].contains("is not a regular file"),
            "{report}"
        );
    }
}

#[test]
fn memory_without_a_file_keeps_its_addresses() {
    let directory = TestDir::new();
    let mut own = OwnStacks::of(&program());
    own.program().path = PathBuf::from("[vdso]");
    // A return address in code that a program made at run time.
    own.allocations[0].1[0] = 0x1234;
    let report = report(&own.log(&directory), &["--sort", "count"]);
    let addresses: Vec<&str> = frames(&report)
        .iter()
        .map(|frame| frame["address"].as_str().unwrap())
        .collect();
    assert!(addresses.contains(&"0x1233"), "{addresses:?}");
    assert!(
        addresses
            .iter()
            .any(|address| address.starts_with("[vdso]+0x")),
        "{addresses:?}"
    );
}

#[test]
fn source_lines_are_shown_where_the_files_are() {
    let directory = TestDir::new();
    let log = OwnStacks::of(&program()).log(&directory);
    let text = sites(&log, &["--source"]);
    let source = fs::read_to_string(repository().join("tests/programs/own_stacks.cpp")).unwrap();
    let call = source
        .lines()
        .find(|line| line.contains("table.fill(3)"))
        .unwrap()
        .trim();
    assert!(text.stdout().contains(&format!("| {call}")), "{text}");
}

/// Prints the functions of each call of malloc with one of the sizes in SIZES, as gdb sees them,
/// innermost first. Frames that gdb puts in for calls in tail position were never on the stack.
const GDB: &str = r#"
import gdb
class Malloc(gdb.Breakpoint):
    def stop(self):
        size = int(gdb.parse_and_eval("$rdi"))
        frame = gdb.newest_frame()
        if size in SIZES and frame.name() and "malloc" in frame.name():
            names, frame = [], frame.older()
            while frame:
                if frame.type() != gdb.TAILCALL_FRAME:
                    names.append(frame.name() or "?")
                frame = frame.older()
            print("STACK", size, "|".join(names))
        return False
for setting in ["pagination off", "confirm off", "backtrace past-main on", "backtrace past-entry on",
                "debuginfod enabled off"]:
    gdb.execute("set " + setting)
gdb.execute("starti")
Malloc("malloc")
gdb.execute("continue")
"#;

/// A name without its parameters, and without a symbol version.
fn bare(name: &str) -> &str {
    let name = name.split('@').next().unwrap();
    name.split('(').next().unwrap()
}

#[test]
fn recorded_stacks_are_gdbs_function_by_function() {
    // The size that gdb waits for, and the bytes of the site: own_stacks asks three times at one.
    let alone = |size: u64| (size, size);
    let programs = [
        (compile("callers.c"), (31001..=31005).map(alone).collect()),
        (program(), vec![(20000, 20000 + 20001 + 20002), alone(777)]),
    ];
    for (program, sites) in programs {
        let directory = TestDir::new();
        let logs = directory.join("logs");
        let mut run = memspy();
        run.args(["run", "--quiet", "-o"])
            .arg(&logs)
            .arg("--")
            .arg(&program);
        finish(&mut run).success();
        let log = Log::of_program(&logs, program.file_name().unwrap().to_str().unwrap()).path;
        let report = report(&log, &["--top", "0"]);

        let sizes: Vec<u64> = sites.iter().map(|(size, _): &(u64, u64)| *size).collect();
        let script = directory.write("stacks.py", format!("SIZES = {sizes:?}\n{GDB}"));
        let mut gdb = clean("gdb");
        gdb.args(["-batch", "-nx", "-x"])
            .arg(script)
            .arg("--args")
            .arg(&program);
        let gdb = finish(&mut gdb);
        for (size, bytes) in sites {
            let prefix = format!("STACK {size} ");
            let theirs = gdb
                .stdout()
                .lines()
                .find_map(|line| line.strip_prefix(&prefix));
            let theirs = theirs.unwrap_or_else(|| panic!("{size}: {gdb}"));
            let theirs: Vec<&str> = theirs.split('|').map(bare).collect();
            let site = report["sites"]
                .as_array()
                .unwrap()
                .iter()
                .find(|site| site["bytes"] == bytes);
            let site = site.unwrap_or_else(|| panic!("no site of {bytes} bytes in {report}"));
            assert_eq!(site["cut"], Value::Null);
            let ours: Vec<&str> = site["stack"]
                .as_array()
                .unwrap()
                .iter()
                .map(|frame| bare(frame["function"].as_str().unwrap_or("?")))
                .collect();
            assert_eq!(ours, theirs, "{size}");
        }
    }
}
