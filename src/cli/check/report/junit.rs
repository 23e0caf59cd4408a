//! JUnit XML: a suite for the run and one for each program, a failed case for each failing leak.
//!
//! Names of suites and cases hold no pids and no addresses, so that a CI's history can follow a
//! leak from run to run.

use std::collections::{BTreeMap, HashMap};

use memspy_analysis::verdict::{Finding, Outcome, Standing};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::Report;
use crate::terminal::clean;

pub(super) fn write(report: &Report) -> String {
    let mut document = quick_junit::Report::new("memspy check");
    document.add_test_suite(run_suite(report));
    for (program, indices) in programs(report) {
        document.add_test_suite(program_suite(report, &program, &indices));
    }
    let text = document.to_string();
    text.expect("a JUnit document of plain strings always serialises")
}

/// The indices of each program's processes.
fn programs(report: &Report) -> BTreeMap<String, Vec<usize>> {
    let mut programs = BTreeMap::<String, Vec<usize>>::new();
    for (index, process) in report.verdict.processes.iter().enumerate() {
        programs
            .entry(xml(&process.program))
            .or_default()
            .push(index);
    }
    programs
}

/// What is about the run as a whole: the verdict, budgets, unused suppressions.
fn run_suite(report: &Report) -> TestSuite {
    let verdict = report.verdict;
    let mut suite = TestSuite::new("memspy");
    let line = xml(&report.verdict_line());
    let why = verdict
        .why
        .iter()
        .map(|why| xml(why))
        .collect::<Vec<_>>()
        .join("\n");
    suite.add_test_case(match verdict.outcome {
        Outcome::Clean => passed("memspy", "verdict"),
        Outcome::Inconclusive => case("memspy", "verdict", NonSuccessKind::Error, &line, &why),
        _ => case("memspy", "verdict", NonSuccessKind::Failure, &line, &why),
    });
    for over in &verdict.exceeded {
        let (name, words) = (
            format!("budget: {}", over.budget.name()),
            over.words(&verdict.processes),
        );
        let words = xml(&words);
        suite.add_test_case(case(
            "memspy",
            &name,
            NonSuccessKind::Failure,
            &words,
            &words,
        ));
    }
    for unused in report.unused() {
        let mut status = TestCaseStatus::skipped();
        status.set_message(xml(&unused));
        let mut skipped = TestCase::new("suppression not used", status);
        skipped.set_classname("memspy");
        suite.add_test_case(skipped);
    }
    suite
}

fn program_suite(report: &Report, program: &str, processes: &[usize]) -> TestSuite {
    let mut suite = TestSuite::new(program);
    let doubts = processes.iter().flat_map(|index| {
        let process = &report.verdict.processes[*index];
        process.doubts.iter().filter(|_| !process.skipped)
    });
    let doubts: Vec<String> = doubts.map(|doubt| xml(doubt)).collect();
    if let Some(first) = doubts.first() {
        let all = doubts.join("\n");
        suite.add_test_case(case(program, "judged", NonSuccessKind::Error, first, &all));
    } else {
        suite.add_test_case(passed(program, "judged"));
    }
    for same in by_fingerprint(report, processes) {
        let failing: Vec<&Finding> = same
            .iter()
            .copied()
            .filter(|finding| finding.standing == Standing::Fails)
            .collect();
        match (
            failing.as_slice(),
            same.first().map(|finding| finding.standing),
        ) {
            ([], Some(Standing::Suppressed(_) | Standing::Known | Standing::Budgeted)) => {
                suite.add_test_case(accepted_leak(report, program, same[0]));
            }
            ([], _) => {}
            ([first, ..], _) => {
                suite.add_test_case(failed_leak(report, program, first, &failing));
            }
        }
    }
    suite
}

/// The findings of some processes, those of one fingerprint together: one case each.
fn by_fingerprint<'a>(report: &'a Report, processes: &[usize]) -> Vec<Vec<&'a Finding>> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    let mut places = HashMap::new();
    for finding in report
        .verdict
        .findings
        .iter()
        .filter(|f| processes.contains(&f.process))
    {
        let place = *places.entry(finding.fingerprint).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
}

/// `definite leak in make_node [fingerprint]`
fn leak_name(finding: &Finding) -> String {
    let function = finding
        .culprit()
        .map_or("unknown".into(), |frame| match frame.function {
            Some(_) => frame.label(),
            None => frame.module_name().unwrap_or("unknown").to_owned(),
        });
    xml(&format!(
        "{} leak in {function} [{}]",
        finding.leak.kind, finding.fingerprint
    ))
}

fn failed_leak(report: &Report, program: &str, first: &Finding, all: &[&Finding]) -> TestCase {
    let text = all.iter().map(|finding| {
        let origin = xml(&report.origin(finding));
        let head = format!("{}, allocated by {origin}", xml(&report.headline(finding)));
        let stack = report
            .stack_lines(finding)
            .iter()
            .map(|line| xml(line))
            .collect::<Vec<_>>();
        format!("{head}\n{}", stack.join("\n"))
    });
    let text = text.collect::<Vec<_>>().join("\n\n");
    let message = xml(&report.headline(first));
    case(
        program,
        &leak_name(first),
        NonSuccessKind::Failure,
        &message,
        &text,
    )
}

fn accepted_leak(report: &Report, program: &str, finding: &Finding) -> TestCase {
    let mut status = TestCaseStatus::skipped();
    status.set_message(xml(&report.standing(finding).unwrap_or_default()));
    let mut case = TestCase::new(leak_name(finding), status);
    case.set_classname(program);
    case
}

fn passed(class: &str, name: &str) -> TestCase {
    let mut case = TestCase::new(name, TestCaseStatus::success());
    case.set_classname(class);
    case
}

fn case(class: &str, name: &str, kind: NonSuccessKind, message: &str, text: &str) -> TestCase {
    let mut status = TestCaseStatus::non_success(kind);
    status
        .set_message(message)
        .set_type("memspy")
        .set_description(text);
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case
}

/// Text that XML 1.0 can hold. quick-junit drops control characters and escapes markup; here they
/// become visible first, and the two characters that it lets pass although XML forbids them go.
fn xml(text: &str) -> String {
    clean(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}
