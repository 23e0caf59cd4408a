//! Names from MiniDebugInfo, the packed symbol table in stripped files, made as gdb's manual says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{OwnStacks, TestDir, clean, compile_with, finish, memspy};

/// A stripped copy of `own_stacks.cpp`'s program with `table` (packed by xz) as its small symbol table.
fn stripped(directory: &TestDir, table: &Path) -> PathBuf {
    let program = directory.join("own_stacks");
    fs::copy(own_stacks(), &program).unwrap();
    finish(clean("strip").arg(&program)).success();
    let packed = directory.join("table.xz");
    let output = fs::File::create(&packed).unwrap();
    let mut xz = clean("xz");
    xz.args(["--stdout", "-6"]).arg(table).stdin(Stdio::null());
    assert!(xz.stdout(output).status().unwrap().success());
    let section = format!(".gnu_debugdata={}", packed.display());
    let mut objcopy = clean("objcopy");
    finish(objcopy.arg("--add-section").arg(section).arg(&program)).success();
    program
}

fn own_stacks() -> PathBuf {
    compile_with("own_stacks.cpp", &["-O1"])
}

/// The small symbol table of a program: its functions and nothing else.
fn table(directory: &TestDir, program: &Path) -> PathBuf {
    let listed = finish(
        clean("nm")
            .args(["--format=posix", "--defined-only"])
            .arg(program),
    );
    let mut names = String::new();
    for line in listed.success().stdout().lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some("T" | "t" | "W")) = (words.next(), words.next()) {
            names += &format!("{name}\n");
        }
    }
    let keep = directory.write("keep", &names);
    let (debug, table) = (directory.join("debug"), directory.join("table"));
    let mut objcopy = clean("objcopy");
    finish(objcopy.arg("--only-keep-debug").arg(program).arg(&debug)).success();
    let mut objcopy = clean("objcopy");
    objcopy.args(["--strip-all", "--remove-section=.comment"]);
    let keep = format!("--keep-symbols={}", keep.display());
    finish(objcopy.arg(keep).arg(&debug).arg(&table)).success();
    table
}

fn report(program: &Path, directory: &TestDir) -> Value {
    let log = OwnStacks::of(program).log(directory);
    let mut sites = memspy();
    sites.args(["sites", "--json", "--depth", "0", "--no-inlines"]);
    finish(sites.arg(log)).success().json()
}

/// The program's own functions in a report; what has no name stands as `?`.
fn functions(report: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for site in report["sites"].as_array().unwrap() {
        for frame in site["stack"].as_array().unwrap() {
            if frame["module"] == "own_stacks" {
                names.push(frame["function"].as_str().unwrap_or("?").to_string());
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_stripped_program_has_the_names_of_its_packed_symbol_table() {
    let directory = TestDir::new();
    let whole = functions(&report(&own_stacks(), &directory));
    assert!(
        whole.iter().any(|name| name == "take(unsigned long)"),
        "{whole:?}"
    );
    let program = stripped(&directory, &table(&directory, &own_stacks()));
    let found = report(&program, &directory);
    assert_eq!(functions(&found), whole);
    assert_eq!(found["unnamed"].as_array().unwrap().len(), 0, "{found}");

    // gdb reads such tables, too.
    let mut gdb = clean("gdb");
    gdb.args(["-batch", "-nx", "-ex", "info functions keep_name"]);
    let known = finish(gdb.arg(&program)).success();
    assert!(known.stdout().contains(" keep_name"), "{known}");
}

#[test]
fn a_packed_table_that_is_broken_or_too_large_costs_only_its_names_and_is_said() {
    let directory = TestDir::new();
    let zeros = directory.join("zeros");
    fs::File::create(&zeros).unwrap().set_len(80 << 20).unwrap();
    let text = directory.write("text", "no ELF file");
    for (table, said) in [(zeros, "unpacks to more than 64 MiB"), (text, "file magic")] {
        let program = stripped(&directory, &table);
        let report = report(&program, &directory);
        assert!(functions(&report).contains(&"?".to_string()), "{report}");
        let why = report["unnamed"][0]["why"].as_str().unwrap();
        assert!(
            why.contains(".gnu_debugdata") && why.contains(said),
            "{why}"
        );
    }
}
