//! The command line itself: what `--help` teaches, what a wrong one gets.

use crate::support::{finish, memspy};

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

#[test]
fn every_subcommand_has_a_manual_page() {
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
    let names = listed.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        if name.starts_with(' ') {
            None
        } else {
            name.split_whitespace().next()
        }
    });
    let mut pages = 0;
    for name in names.filter(|name| *name != "help") {
        let page = finish(memspy().args(["man", name])).success();
        let shown = name.replace('-', "\\-");
        assert!(
            page.stdout().contains(&format!("memspy\\-{shown}")),
            "{page}"
        );
        pages += 1;
    }
    assert!(pages >= 4, "{help}");
    let page = finish(memspy().args(["man", "frobnicate"])).code(1);
    assert!(
        page.stderr().contains("no subcommand 'frobnicate'"),
        "{page}"
    );
}
