//! Names, files and lines are those of binutils' addr2line, at every address of real programs.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memspy_symbol::worker::serve;
use serde_json::{Value, json};

#[test]
fn c_names_and_lines_are_addr2lines() {
    let dir = Dir::new("c");
    let program = dir.compile("gcc", &["-g", "-O2"], "plain.c");
    compare(&program, &["keep", "make_table", "main"]);
}

#[test]
fn cpp_inlined_names_and_lines_are_addr2lines() {
    let dir = Dir::new("cpp");
    let program = dir.compile("g++", &["-g", "-O2"], "inlines.cpp");
    compare(
        &program,
        &["Words::add(int)", "outer(unsigned long)", "main"],
    );
}

#[test]
fn rust_names_and_lines_are_addr2lines() {
    let dir = Dir::new("rust");
    let program = dir.compile(
        "rustc",
        &["-g", "-Copt-level=2", "--edition=2021"],
        "owned.rs",
    );
    compare(&program, &["owned::rows", "owned::main"]);
}

/// Asks both about the program's functions named in `functions`, at every third byte, and holds
/// the answers against each other.
fn compare(program: &Path, functions: &[&str]) {
    let mut addresses = Vec::new();
    for function in functions {
        let (start, size) = symbol(program, function);
        addresses.extend((start..start + size).step_by(3));
    }
    let ours = memspy(program, &addresses);
    let theirs = addr2line(program, &addresses);
    let (mut inlined, mut doubtful) = (0, 0);
    for ((address, ours), theirs) in addresses.iter().zip(&ours).zip(&theirs) {
        // Nothing here recurses: where they differ and addr2line has a function inside itself, it
        // took the outer function for the inlined one.
        let names: HashSet<&String> = theirs.iter().map(|(name, _)| name).collect();
        if ours != theirs && names.len() < theirs.len() {
            doubtful += 1;
            assert_eq!(lines(ours), lines(theirs), "at {address:#x}");
            continue;
        }
        assert_eq!(ours, theirs, "at {address:#x} of {}", program.display());
        inlined += usize::from(ours.len() > 1);
    }
    println!(
        "{} addresses, {inlined} with inlined functions",
        addresses.len()
    );
    assert!(
        doubtful * 10 < addresses.len(),
        "{doubtful} answers of addr2line make no sense"
    );
}

fn lines(places: &[Place]) -> Vec<Option<u64>> {
    places.iter().map(|(_, line)| *line).collect()
}

type Place = (String, Option<u64>);

fn memspy(program: &Path, addresses: &[u64]) -> Vec<Vec<Place>> {
    use std::os::unix::ffi::OsStrExt;
    let path = program.as_os_str().as_bytes();
    let options = json!({"inlines": true, "debug_dirs": [], "sysroot": b"/", "debuginfod": false});
    let request = json!({"Name": {"files": {"debug": path, "symbols": path}, "options": options, "addresses": addresses}});
    let mut answers = Vec::new();
    serve(format!("{request}\n").as_bytes(), &mut answers).unwrap();
    let text = String::from_utf8(answers).unwrap();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(lines.next().unwrap(), json!({"Opened": {"problem": null}}));
    lines
        .map(|answer| {
            let frames = answer["Frames"].as_array().unwrap().clone();
            frames
                .iter()
                .map(|frame| {
                    let function = frame["function"].as_str().unwrap_or("??");
                    (function.to_string(), frame["line"].as_u64())
                })
                .collect()
        })
        .collect()
}

/// addr2line's answer for each address: two lines a frame, after a line with the address.
fn addr2line(program: &Path, addresses: &[u64]) -> Vec<Vec<Place>> {
    let output = Command::new("addr2line")
        .args(["-f", "-i", "-C", "-a", "-e"])
        .arg(program)
        .args(addresses.iter().map(|address| format!("{address:#x}")))
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut answers: Vec<Vec<Place>> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            answers.push(Vec::new());
            continue;
        }
        let place = lines.next().unwrap();
        let line_number = place
            .split(" (")
            .next()
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap();
        let line_number = line_number.parse().ok().filter(|&number| number > 0);
        answers
            .last_mut()
            .unwrap()
            .push((line.to_string(), line_number));
    }
    answers
}

/// Start and size of a function, by nm.
fn symbol(program: &Path, function: &str) -> (u64, u64) {
    let output = Command::new("nm")
        .args(["-C", "-S"])
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.splitn(4, ' ').nth(3) == Some(function));
    let mut words = line
        .unwrap_or_else(|| panic!("no {function} in {text}"))
        .split(' ');
    let mut number = || u64::from_str_radix(words.next().unwrap(), 16).unwrap();
    (number(), number())
}

/// A directory of compiled programs, gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("memspy-symbol-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Dir(dir)
    }

    fn compile(&self, compiler: &str, flags: &[&str], source: &str) -> PathBuf {
        let program = self.0.join("program");
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/programs")
            .join(source);
        let status = Command::new(compiler)
            .args(flags)
            .arg("-o")
            .arg(&program)
            .arg(source)
            .status();
        assert!(status.unwrap().success());
        program
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
