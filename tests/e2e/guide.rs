//! `docs/memory.md`: its commands run, and print what stands in it.
//!
//! `MEMSPY_BLESS=1 cargo test --test e2e guide` writes the present output into the guide; read the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::{TestDir, clean, finish, memspy, repository};

/// A command of the guide and the lines that it prints there.
struct Example {
    command: String,
    output: String,
}

/// The guide in parts: text as it is, and examples.
enum Part {
    Text(String),
    Example(Example),
}

fn parts(guide: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut console = false;
    for line in guide.lines() {
        let command = line.strip_prefix("$ ").filter(|_| console);
        if let Some(command) = command {
            parts.push(Part::Example(Example {
                command: command.to_string(),
                output: String::new(),
            }));
            continue;
        }
        if line.starts_with("```") {
            console = line == "```console";
        }
        match parts.last_mut() {
            Some(Part::Example(example)) if console => {
                example.output.push_str(line);
                example.output.push('\n');
            }
            Some(Part::Text(text)) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => parts.push(Part::Text(format!("{line}\n"))),
        }
    }
    parts
}

/// The first program of the guide.
fn program(guide: &str) -> &str {
    let (_, rest) = guide.split_once("```c\n").expect("the guide has a program");
    rest.split_once("```").expect("its end").0
}

fn run(dir: &Path, example: &Example) -> String {
    let memspy = memspy();
    let binary = Path::new(memspy.get_program());
    let path = std::env::var("PATH").expect("a PATH");
    let mut shell = clean("sh");
    for (name, value) in memspy.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let directory = binary.parent().expect("the program lies in a directory");
    shell
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", directory.display()))
        .args(["-c", &example.command]);
    finish(&mut shell).success().stdout().to_string()
}

/// Text without what differs from run to run: addresses, times, process numbers, sizes, width of columns.
fn settled(text: &str) -> Vec<String> {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "\u{b5}s", "ms", "s"];
    let line = |line: &str| {
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            let last = words.last().cloned().unwrap_or_default();
            let number = |text: &str| {
                let text = text.trim_start_matches('(');
                text.starts_with(|c: char| c.is_ascii_digit()) && !text.starts_with("0x")
            };
            if units.contains(&bare) && number(&last) {
                words.pop();
                words.push(word.replace(bare, "N"));
            } else if last == "(pid" {
                words.push("N".to_string());
            } else if let Some((before, _)) = word.split_once("0x") {
                words.push(format!("{before}0xN"));
            } else if is_range(word) {
                words.push("N-N".to_string());
            } else {
                // Directories of the machine.
                words.push(match word.rsplit_once('/') {
                    Some((_, name)) => name.to_string(),
                    None => word.to_string(),
                });
            }
        }
        words.join(" ")
    };
    text.lines().map(line).collect()
}

/// Whether a word is two addresses, as /proc/PID/maps has them.
fn is_range(word: &str) -> bool {
    let is_address = |text: &str| text.len() >= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    word.split_once('-')
        .is_some_and(|(from, to)| is_address(from) && is_address(to))
}

#[test]
fn every_command_of_the_memory_guide_prints_what_the_guide_says() {
    let path = repository().join("docs/memory.md");
    let guide = fs::read_to_string(&path).expect("the guide can be read");
    let dir = TestDir::new();
    dir.write("lesson.c", program(&guide));
    let bless = std::env::var_os("MEMSPY_BLESS").is_some();
    let mut blessed = String::new();
    let mut examples = 0;
    for part in parts(&guide) {
        match part {
            Part::Text(text) => blessed.push_str(&text),
            Part::Example(example) => {
                examples += 1;
                let output = run(dir.path(), &example);
                let shown = output.replace(&format!("{}/", dir.path().display()), "");
                let _ = write!(blessed, "$ {}\n{shown}", example.command);
                if !bless {
                    assert_eq!(
                        settled(&output),
                        settled(&example.output),
                        "{}",
                        example.command
                    );
                }
            }
        }
    }
    assert!(examples > 15, "{examples}");
    if bless {
        fs::write(&path, blessed).expect("the guide can be written");
    }
}
