//! The command line itself: what `--help` teaches, what a wrong one gets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::{finish, memspy, repository};

#[test]
fn help_shows_an_example_and_the_exit_codes() {
    let help = finish(memspy().arg("--help")).success();
    assert!(
        help.stdout().contains("memspy run -- cat README.md"),
        "{help}"
    );
    assert!(help.stdout().contains("Exit codes:"), "{help}");
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let wrong = finish(memspy().arg("frobnicate")).code(2);
    assert!(wrong.stdout_bytes.is_empty(), "{wrong}");
    assert!(wrong.stderr().contains("frobnicate"), "{wrong}");
    finish(&mut memspy()).code(2);
}

#[test]
fn a_wrong_command_line_of_run_exits_with_125_not_with_a_code_of_the_program() {
    finish(memspy().args(["run", "--frobnicate", "--", "true"])).code(125);
    finish(memspy().arg("run")).code(125);
}

#[test]
fn version_is_the_package_version() {
    let version = finish(memspy().arg("--version")).success();
    assert_eq!(
        version.stdout(),
        concat!("memspy ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn bash_accepts_the_bash_completions() {
    let script = finish(memspy().args(["completions", "bash"])).success();
    let mut bash = crate::support::clean("bash");
    let checked = finish(bash.args(["-n", "-c", script.stdout()])).success();
    assert!(checked.stderr_bytes.is_empty(), "{checked}");
    assert!(script.stdout().contains("shim-path"), "{script}");
}

/// The subcommands that `--help` lists.
fn subcommands() -> Vec<String> {
    let help = finish(memspy().arg("--help")).success();
    let listed = help
        .stdout()
        .split("Commands:")
        .nth(1)
        .expect("--help lists the commands");
    let listed = listed
        .split("\n\n")
        .next()
        .expect("a blank line ends the list");
    let name = |line: &str| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    };
    let names: Vec<String> = listed.lines().filter_map(name).collect();
    assert!(names.len() >= 4, "{help}");
    names
}

/// The words beginning with `MEMSPY_` in the sources below a directory.
fn variables(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("the sources can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            variables(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source is text");
            for rest in text.split("MEMSPY_").skip(1) {
                let end = rest
                    .find(|c: char| !c.is_ascii_uppercase() && c != '_')
                    .unwrap_or(rest.len());
                if end > 0 {
                    found.insert(format!("MEMSPY_{}", &rest[..end]));
                }
            }
        }
    }
}

#[test]
fn the_readme_names_every_subcommand_and_every_variable() {
    let mut readme = fs::read_to_string(repository().join("README.md")).expect("there is a README");
    for name in subcommands() {
        assert!(
            readme.contains(&format!("`memspy {name}")),
            "README.md lacks memspy {name}"
        );
    }
    let mut names = BTreeSet::new();
    variables(&repository().join("src"), &mut names);
    // How the build script tells the program where the shim is.
    names.remove("MEMSPY_SHIM_FILE");
    assert!(names.contains("MEMSPY_LOG"), "{names:?}");
    for name in names {
        let quoted = format!("`{name}`");
        assert!(readme.contains(&quoted), "README.md lacks {name}");
        readme = readme.replace(&quoted, "");
    }
    assert!(
        !readme.contains("`MEMSPY_"),
        "README.md names a variable that nobody reads"
    );
}

#[test]
fn every_subcommand_has_a_manual_page() {
    for name in subcommands() {
        let page = finish(memspy().args(["man", &name])).success();
        let shown = name.replace('-', "\\-");
        assert!(
            page.stdout().contains(&format!("memspy\\-{shown}")),
            "{page}"
        );
    }
    let page = finish(memspy().args(["man", "frobnicate"])).code(1);
    assert!(
        page.stderr().contains("no subcommand 'frobnicate'"),
        "{page}"
    );
}
