//! `memspy check -- CMD`: real programs through the gate. What they leak is known to the byte.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    Finished, TestDir, clean, compile, compile_with, finish, memspy, musl_program, preloaded,
    repository, setuid_program,
};

/// The program that leaks what it is told to.
fn gate() -> PathBuf {
    compile("gate.c")
}

/// `memspy check OPTIONS… -- gate ACTS…` in a fresh directory.
fn check(dir: &TestDir, options: &[&str], acts: &[&str]) -> Finished {
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .arg("check")
        .args(options)
        .arg("--")
        .arg(gate())
        .args(acts);
    finish(&mut command)
}

/// The JSON document of such a run.
fn judged(acts: &[&str], code: i32) -> Value {
    check(&TestDir::new(), &["--format", "json"], acts)
        .code(code)
        .json()
}

fn amount(bytes: u64, blocks: u64) -> Value {
    json!({"bytes": bytes, "blocks": blocks})
}

#[test]
fn a_program_that_keeps_its_memory_reachable_is_clean() {
    let json = judged(&["keep=64"], 0);
    assert_eq!(json["verdict"], "clean");
    assert_eq!(json["program_status"], 0);
    assert_eq!(json["kinds"]["reachable"], amount(64, 1));
}

#[test]
fn a_leak_is_named_with_function_source_line_and_process() {
    let json = judged(&["lose=111"], 23);
    assert_eq!(json["verdict"], "leaks");
    assert_eq!(json["kinds"]["definite"], amount(111, 1));
    let leak = &json["leaks"][0];
    assert_eq!(leak["stack"][0]["function"], "lose");
    assert!(
        leak["stack"][0]["file"]
            .as_str()
            .is_some_and(|file| file.ends_with("gate.c"))
    );
    assert_eq!(leak["stack"][1]["function"], "main");
    assert_eq!(leak["pid"], json["processes"][0]["pid"]);
    // The line that calls malloc, from the source itself.
    let source = fs::read_to_string("tests/programs/gate.c").expect("the program's source");
    let line = source
        .lines()
        .position(|line| line.contains("malloc(size)"))
        .expect("there")
        + 1;
    assert_eq!(leak["stack"][0]["line"], line);
}

#[test]
fn the_programs_own_failure_is_told_apart_from_the_leak() {
    for (end, code) in [("exit=3", 3), ("_exit=3", 3), ("exit=125", 125)] {
        let json = judged(&["lose=111", end], code);
        assert_eq!(json["program_status"], code);
        assert_eq!(json["verdict"], "leaks", "{end}");
    }
    let json = judged(&["keep=64", "exit=23"], 23);
    assert_eq!(
        (&json["verdict"], &json["program_status"]),
        (&json!("failed"), &json!(23))
    );
}

#[test]
fn every_way_to_end_well_is_judged() {
    for end in ["exit=0", "_exit=0"] {
        assert_eq!(
            judged(&["lose=111", end], 23)["kinds"]["definite"],
            amount(111, 1),
            "{end}"
        );
        assert_eq!(
            judged(&["keep=111", end], 0)["kinds"]["reachable"],
            amount(111, 1),
            "{end}"
        );
    }
}

#[test]
fn a_program_that_a_signal_ended_is_never_clean() {
    for signal in [9, 15] {
        let json = judged(&["keep=64", &format!("kill={signal}")], 125);
        assert_eq!(json["verdict"], "inconclusive");
        assert_eq!(json["program_status"], 128 + signal);
    }
}

#[test]
fn a_forked_child_does_not_repeat_its_parents_leak() {
    let json = judged(&["lose=111", "fork", "lose=222"], 23);
    assert_eq!(json["kinds"]["definite"], amount(333, 2));
    assert_eq!(json["inherited"], amount(111, 1));
    assert_eq!(json["processes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_leak_of_a_child_alone_fails_the_tree() {
    let json = judged(&["fork", "lose=222"], 23);
    assert_eq!(json["kinds"]["definite"], amount(222, 1));
    let leak = &json["leaks"][0];
    assert_ne!(leak["pid"], Value::Null);
}

#[test]
fn blocks_live_at_exec_are_reported_as_such() {
    let json = judged(&["lose=111", "exec", "lose=222"], 23);
    assert_eq!(json["kinds"]["definite"], amount(333, 2));
    let at_exec: Vec<(&Value, &Value)> = json["leaks"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|leak| leak["kind"] == "definite")
        .map(|leak| (&leak["bytes"], &leak["live_at_exec"]))
        .collect();
    assert_eq!(
        at_exec,
        [(&json!(222), &json!(false)), (&json!(111), &json!(true))]
    );
}

#[test]
fn a_mapping_that_is_never_unmapped_is_told_apart_from_the_heap() {
    let json = judged(&["map=8192"], 0);
    assert_eq!(json["mappings"], amount(8192, 1));
    check(&TestDir::new(), &["--fail-on", "mapping"], &["map=8192"]).code(23);
}

#[test]
fn the_programs_output_is_untouched_and_the_document_follows_it() {
    let dir = TestDir::new();
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .args(["check", "--format", "json", "--", "printf", "a\\nb\\n"]);
    let ended = finish(&mut command).success();
    let (output, document) = ended.stdout().split_at("a\nb\n".len());
    assert_eq!(output, "a\nb\n");
    let document: Value = serde_json::from_str(document).expect("one document");
    assert_eq!(document["verdict"], "clean");
    assert_eq!(
        ended.stderr().lines().count(),
        1,
        "the verdict line alone: {ended}"
    );
    assert_eq!(dir.names(), Vec::<String>::new(), "no log is left behind");
}

#[test]
fn a_program_that_can_not_be_judged_is_inconclusive_in_one_line_and_in_every_format() {
    let program = compile_with("gate.c", &["-static"]);
    let dir = TestDir::new();
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .args(["check", "--output", "json=out.json", "--"]);
    let ended = finish(command.arg(&program)).code(125);
    assert_eq!(ended.stderr().lines().count(), 1, "{ended}");
    assert!(ended.stderr().contains("statically linked"), "{ended}");
    let text = fs::read_to_string(dir.join("out.json")).expect("the document");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["verdict"], "inconclusive");
}

/// Runs a command line of the shell's through the gate.
fn check_shell(dir: &TestDir, more: &[&str], line: &str) -> Finished {
    let mut command = memspy();
    command.current_dir(dir.path()).arg("check").args(more);
    finish(command.args(["--fail-on", "definite", "--", "sh", "-c", line]))
}

/// The same, recorded.
fn run_shell(dir: &TestDir, options: &[&str], line: &str) -> Finished {
    let mut command = memspy();
    command.current_dir(dir.path()).arg("run").args(options);
    finish(command.args(["--", "sh", "-c", line]))
}

#[test]
fn a_child_that_goes_straight_into_a_static_program_is_never_called_clean() {
    let dir = TestDir::new();
    let fixed = compile_with("gate.c", &["-static"]);
    let fixed = fixed.to_str().expect("a plain path");
    let python = |code: &str| format!("/usr/bin/python3 -c '{code}'; true");
    let ways = [
        // dash: vfork and execve.
        format!("{fixed} keep=1; true"),
        // bash: fork and execve.
        format!("bash -c '{fixed} keep=1; true'"),
        python(&format!("import subprocess; subprocess.run([\"{fixed}\"])")),
        python(&format!(
            "import os; os.waitpid(os.posix_spawn(\"{fixed}\", [\"gate\"], os.environ), 0)"
        )),
        // The same without the preload: what becomes of setuid programs, too.
        "env -i /bin/true; true".to_owned(),
    ];
    for line in &ways {
        let ended = check_shell(&dir, &[], line).code(125);
        assert!(ended.stderr().contains("left no log"), "{ended}");
    }
    check_shell(&dir, &["--skip", "gate"], &ways[0]).success();
    // A leak that was proved elsewhere in the tree stays proved.
    let moving = compile("gate.c");
    let leaky = format!("{fixed} keep=1; {} lose=100; true", moving.display());
    check_shell(&dir, &[], &leaky).code(23);
}

#[test]
fn check_and_run_name_the_child_that_can_not_be_recorded_and_the_reason() {
    let dir = TestDir::new();
    let programs = [
        (setuid_program(&dir), "is setuid to user"),
        (musl_program("gate.c", &dir), "is linked with musl"),
        (compile_with("gate.c", &["-static"]), "is statically linked"),
    ];
    for (program, why) in programs {
        let path = program.display();
        let name = program.file_name().expect("a file").to_string_lossy();
        // vfork and exec: only the parent's log knows the child.
        let line = format!("{path} --version; true");
        let checked = check_shell(&dir, &[], &line).code(125);
        assert!(checked.stderr().contains(&format!("({name})")), "{checked}");
        assert!(checked.stderr().contains(why), "{checked}");
        assert!(
            checked.stderr().contains("1 of 2 processes judged"),
            "{checked}"
        );
        let ran = run_shell(&dir, &["-q"], &line).success();
        assert!(ran.stderr().contains(&format!("({path})")), "{ran}");
        assert!(ran.stderr().contains(why), "{ran}");
        // fork and exec: the forked image's log says that something followed.
        let line = format!("({path} --version; true) & wait; true");
        check_shell(&dir, &[], &line).code(125);
        let line = format!("bash -c '{path} --version & wait'; true");
        let checked = check_shell(&dir, &[], &line).code(125);
        let ran = run_shell(&dir, &["-q"], &line).success();
        for said in [&checked, &ran] {
            assert!(said.stderr().contains("bash"), "{said}");
            assert!(said.stderr().contains("left no log"), "{said}");
        }
    }
}

#[test]
fn run_names_no_child_where_none_are_to_be_recorded_or_all_are() {
    let dir = TestDir::new();
    for (options, line) in [
        (
            &["-q", "--no-follow"][..],
            "/bin/true; bash -c 'true & wait'; true",
        ),
        (
            &["-q"],
            "/bin/true; /nonexistent; bash -c 'true & wait'; true",
        ),
    ] {
        let ran = run_shell(&dir, options, line).success();
        assert!(!ran.stderr().contains("left no log"), "{ran}");
    }
}

#[test]
fn a_spawn_that_fails_or_is_recorded_raises_no_doubt() {
    let dir = TestDir::new();
    let code = "import os, subprocess
for name in [\"/nope\", \"/dev/null\"]:
    try: subprocess.run([name])
    except OSError: pass
    try: os.posix_spawn(name, [name], os.environ)
    except OSError: pass
os.waitpid(os.posix_spawn(\"/bin/true\", [\"true\"], os.environ), 0)
subprocess.run([\"true\"])";
    for line in [
        "nope; ./nope; /dev/null; true".to_owned(),
        "true; ls >ls.txt; true".to_owned(),
        format!("/usr/bin/python3 -c '{code}'; true"),
    ] {
        check_shell(&dir, &[], &line).success();
    }
}

#[test]
fn a_process_in_a_sandbox_is_inconclusive_and_says_why() {
    let dir = TestDir::new();
    let program = compile("seccomp_filter.c");
    let mut command = memspy();
    command.env("ORACLE", dir.join("oracle")).arg("check");
    let ended = finish(command.arg("--").arg(program).arg("seccomp")).code(125);
    assert_eq!(ended.stdout(), "alive\n");
    assert!(ended.stderr().contains("a seccomp sandbox"), "{ended}");
}

#[test]
fn budgets_are_judged_on_the_run() {
    let dir = TestDir::new();
    let acts = ["keep=1000", "keep=24"];
    check(&dir, &["--max-peak", "1024", "--max-allocs", "2"], &acts).success();
    check(&dir, &["--max-peak", "1023"], &acts).code(23);
    check(&dir, &["--max-allocs", "1"], &acts).code(23);
    check(&dir, &["--max-mmaps", "1"], &["map=4096"]).success();
    check(&dir, &["--max-mmaps", "0"], &["map=4096"]).code(23);
    check(&dir, &["--max-leaked", "111"], &["lose=111"]).success();
    check(&dir, &["--max-leaked", "110"], &["lose=111"]).code(23);
}

#[test]
fn a_baseline_survives_a_rebuild_and_catches_one_block_more() {
    let dir = TestDir::new();
    check(&dir, &["--write-baseline", "known.json"], &["lose=111"]).code(23);
    check(&dir, &["--baseline", "known.json"], &["lose=111"]).success();
    check(
        &dir,
        &["--baseline", "known.json"],
        &["lose=111", "lose=111"],
    )
    .code(23);
    let rebuilt = compile_with("gate.c", &["-O1", "-no-pie"]);
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .args(["check", "--baseline", "known.json", "--"]);
    finish(command.arg(rebuilt).arg("lose=111")).success();
}

#[test]
fn generated_suppressions_are_taken_by_memspy_and_by_valgrind() {
    let dir = TestDir::new();
    check(&dir, &["--gen-suppressions=made.supp"], &["lose=111"]).code(23);
    check(
        &dir,
        &["--suppressions", "made.supp", "--fail-on-unused"],
        &["lose=111"],
    )
    .success();
    let valgrind = |suppressions: &[&str]| {
        let mut command = clean("valgrind");
        command
            .current_dir(dir.path())
            .args(["-q", "--leak-check=full", "--error-exitcode=9"]);
        finish(command.args(suppressions).arg(gate()).arg("lose=111"))
    };
    valgrind(&[]).code(9);
    valgrind(&["--suppressions=made.supp"]).success();
}

#[test]
fn sarif_is_valid_and_its_paths_are_those_of_the_repository() {
    let dir = TestDir::new();
    let schema = repository().join("tests/e2e/sarif.schema.json");
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .args(["check", "--source-root"])
        .arg(repository());
    command.args([
        "--write-baseline",
        "known.json",
        "--output",
        "sarif=new.sarif",
        "--",
    ]);
    finish(command.arg(gate()).args(["lose=111", "lose=7"])).code(23);
    let grown = ["--baseline", "known.json", "--output", "sarif=grown.sarif"];
    check(&dir, &grown, &["lose=111", "lose=111", "lose=7"]).code(23);
    let script = r##"
import json, jsonschema, sys
schema = json.load(open(sys.argv[1]))
validator = jsonschema.Draft202012Validator(schema)
for name in ["new.sarif", "grown.sarif"]:
    document = json.load(open(name))
    validator.validate(document)
    results = document["runs"][0]["results"]
    assert results, name
    states = {result.get("baselineState") for result in results}
    assert states == ({None} if name == "new.sarif" else {"updated"}), states
first = json.load(open("new.sarif"))["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
assert first["artifactLocation"] == {"uri": "tests/programs/gate.c", "uriBaseId": "%SRCROOT%"}, first
assert first["region"]["startLine"] > 0
"##;
    // Debian's own python, for which python3-jsonschema is.
    let mut python = clean("/usr/bin/python3");
    finish(
        python
            .current_dir(dir.path())
            .args(["-c", script])
            .arg(schema),
    )
    .success();
}

#[test]
fn logs_made_by_hand_are_judged_alike() {
    let logs = TestDir::new();
    finish(
        preloaded(gate(), &logs)
            .env("MEMSPY_MODE", "leaks")
            .arg("lose=111"),
    )
    .success();
    let mut command = memspy();
    let json = finish(command.args(["check", "--format", "json"]).arg(logs.path()))
        .code(23)
        .json();
    assert_eq!(json["kinds"]["definite"], amount(111, 1));
    assert_eq!(json["program_status"], Value::Null);
}

#[test]
fn it_works_under_strace() {
    let dir = TestDir::new();
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .args(["check", "--format", "json", "--skip", "strace", "--"]);
    command.args(["strace", "-f", "-o", "trace"]).arg(gate());
    let json = finish(command.args(["lose=111", "fork", "lose=222"]))
        .code(23)
        .json();
    assert_eq!(json["kinds"]["definite"], amount(333, 2));
}

#[test]
fn a_child_that_outlives_the_program_is_inconclusive() {
    let dir = TestDir::new();
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .args(["check", "--", "sh", "-c"]);
    // The child closes its output, so that nobody waits for it, and goes when its pipe does.
    let script = "mkfifo wait; (read line <wait) >/dev/null 2>&1 & exit 0";
    let ended = finish(command.arg(script)).code(125);
    assert!(ended.stderr().contains("inconclusive"), "{ended}");
    let mut release = Command::new("sh");
    finish(
        release
            .current_dir(dir.path())
            .args(["-c", "echo go >wait"]),
    )
    .success();
}

#[test]
fn a_child_that_outlives_the_program_and_has_made_no_call_is_inconclusive() {
    let (program, dir) = (compile("leaves_child.c"), TestDir::new());
    finish(Command::new("mkfifo").arg(dir.join("wait"))).success();
    let start = |arguments: &[&str]| {
        let mut command = memspy();
        command
            .current_dir(dir.path())
            .args(arguments)
            .arg(&program);
        finish(&mut command)
    };
    let release = || fs::write(dir.join("wait"), "go").expect("the child reads");
    let judged = start(&["check", "--"]).code(125);
    let says = format!("({}) still runs and has no log", "leaves_child");
    assert!(judged.stderr().contains(&says), "{judged}");
    release();
    let recorded = start(&["run", "--"]).code(0);
    assert!(recorded.stderr().contains(&says), "{recorded}");
    release();
}

#[test]
fn the_pool_of_libstdcxx_is_named_and_reachable() {
    let dir = TestDir::new();
    let source = dir.write(
        "empty.cpp",
        "#include <string>\nint main() { return std::string(1, 'x').size() - 1; }\n",
    );
    finish(
        clean("c++")
            .args(["-O0", "-o"])
            .arg(dir.join("empty"))
            .arg(source),
    )
    .success();
    let mut command = memspy();
    command
        .args(["check", "--format", "json", "--"])
        .arg(dir.join("empty"));
    let json = finish(&mut command).success().json();
    assert_eq!(
        json["leaks"][0]["pool"], "emergency pool of libstdc++",
        "{json}"
    );
    assert_eq!(json["leaks"][0]["kind"], "reachable");
}

#[test]
fn every_option_and_key_that_the_ci_guide_names_exists() {
    let guide = fs::read_to_string("docs/ci.md").expect("the guide");
    let help = finish(memspy().args(["check", "--help"])).success();
    let names = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let options = words
            .filter(|word| word.starts_with("--") && !word.starts_with("---") && *word != "--");
        options.map(str::to_owned).collect()
    };
    let known = names(help.stdout());
    // Of other programs in the guide's examples: cargo install.
    let foreign = ["--locked", "--path"];
    for option in names(&guide) {
        let exists = known.contains(&option) || foreign.contains(&option.as_str());
        assert!(exists, "docs/ci.md names {option}");
    }
    let document = judged(&["lose=1"], 23);
    for key in document.as_object().expect("an object").keys() {
        assert!(
            guide.contains(&format!("| `{key}` |")),
            "docs/ci.md lacks the key {key}"
        );
    }
}
