//! `docs/hazards.md` and `docs/torture.md` against what is there: a page that names a test that is gone proves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{clean, finish, repository};

/// How many hazards each section of `docs/hazards.md` has.
const SECTIONS: [(char, u32); 10] = [
    ('A', 12),
    ('B', 11),
    ('C', 5),
    ('D', 15),
    ('E', 12),
    ('F', 5),
    ('G', 3),
    ('H', 6),
    ('I', 3),
    ('J', 6),
];

fn page(name: &str) -> String {
    fs::read_to_string(repository().join("docs").join(name)).expect("the page is there")
}

/// The first cell and the last one of each line of the page's tables.
fn rows(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.lines().filter_map(|line| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some((line.split(" | ").next()?, line.rsplit(" | ").next()?))
    })
}

/// The words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// All tests of this binary, as `heap::each_call_…`.
fn end_to_end_tests() -> BTreeSet<String> {
    let own = std::env::current_exe().expect("the test knows its own path");
    let listed = finish(clean(own).arg("--list")).success();
    let names = listed
        .stdout()
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

/// Whether a file of the room has a function of this name.
fn is_defined(room: &Path, name: &str) -> bool {
    let entries = fs::read_dir(room).unwrap_or_else(|e| panic!("{}: {e}", room.display()));
    entries.map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return is_defined(&path, name);
        }
        let text = fs::read_to_string(path).unwrap_or_default();
        text.contains(&format!("fn {name}("))
    })
}

#[test]
fn every_hazard_names_tests_that_exist_or_says_why_it_is_not_tried() {
    let page = page("hazards.md");
    let tests = end_to_end_tests();
    let mut seen = Vec::new();
    for (hazard, said) in rows(&page) {
        let number = hazard.strip_prefix(|first: char| first.is_ascii_uppercase());
        if number.is_none_or(|number| number.parse::<u32>().is_err()) {
            continue;
        }
        seen.push(hazard.to_owned());
        let names: Vec<&str> = quoted(said).filter(|word| word.contains("::")).collect();
        let left_out = said
            .strip_prefix("Not tried: ")
            .is_some_and(|why| !why.is_empty());
        assert!(!names.is_empty() || left_out, "{hazard}: {said}");
        for name in names {
            let (room, test) = name.split_once("::").expect("it has one");
            let exists = match room {
                "e2e" => tests.contains(test),
                _ => is_defined(&repository().join("src").join(room), last(test)),
            };
            assert!(exists, "{hazard}: there is no test {name}");
        }
    }
    let all = SECTIONS
        .iter()
        .flat_map(|(section, count)| (1..=*count).map(move |n| format!("{section}{n}")));
    assert_eq!(seen, all.collect::<Vec<String>>());
}

fn last(test: &str) -> &str {
    test.rsplit("::").next().unwrap_or(test)
}

#[test]
fn every_row_of_the_torture_table_is_a_program_with_a_section_and_a_result() {
    let page = page("torture.md");
    let mut programs = BTreeSet::new();
    for entry in fs::read_dir(repository().join("scripts/torture.d")).expect("it is there") {
        let entry = entry.expect("it can be read");
        let mode = entry
            .metadata()
            .expect("it can be read")
            .permissions()
            .mode();
        if entry.path().is_file() && mode & 0o111 != 0 {
            programs.insert(entry.file_name().into_string().expect("a plain name"));
        }
    }
    let commands: BTreeSet<String> = rows(&page)
        .filter_map(|(_, command)| command.strip_prefix("`scripts/torture "))
        .map(|row| row.trim_end_matches('`').to_owned())
        .collect();
    assert_eq!(
        commands, programs,
        "rows of the table, programs in torture.d"
    );
    for row in &programs {
        assert!(
            page.contains(&format!("\n## {row}\n")),
            "{row} has no section"
        );
    }
    assert!(!page.contains("| not run |"), "a row was never run");
}
