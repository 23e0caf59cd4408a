//! A report with hostile names, and what no format may let through.

use std::path::PathBuf;

use memspy_analysis::verdict::suppression::{Date, Suppression, parse};
use memspy_analysis::verdict::{
    Budgets, Ending, Frame, Kind, KindSet, Leak, Measures, Policy, Process, Verdict, judge,
};
use serde_json::Value;

use super::{Format, Report, Sources};

/// Breaks out of a terminal line, an XML attribute and element, a CDATA section, a GitHub command,
/// a Markdown table, link, code span and HTML tag, if anything lets it.
const HOSTILE: &str = "evil\r\n::error file=x,title=y::owned%0A\u{1b}]0;t\u{7}\u{9b}31m\"'><![CDATA[]]>\
    <script>`a|b`[l](http://x) @all ![i](u) &amp; \u{202e}\u{fffe}\u{0}";

fn hostile_frame() -> Frame {
    Frame {
        function: Some(HOSTILE.into()),
        symbol: Some(HOSTILE.into()),
        module: Some(format!("/opt/{HOSTILE}")),
        file: Some(format!("/repo/src/{HOSTILE}.c")),
        line: Some(3),
        ..Frame::default()
    }
}

fn plain_frame() -> Frame {
    Frame {
        function: Some("make_node".into()),
        module: Some("/repo/build/app".into()),
        file: Some("/repo/src/list.c".into()),
        line: Some(12),
        ..Frame::default()
    }
}

fn leak(kind: Kind, bytes: u64, frames: Vec<Frame>) -> Leak {
    Leak {
        kind,
        blocks: 1,
        bytes,
        frames,
        cut: true,
        inherited: false,
    }
}

fn process(program: &str, leaks: Vec<Leak>) -> Process {
    Process {
        pid: 4711,
        parent: Some(4700),
        program: program.into(),
        log: format!("memspy.{program}.jsonl"),
        ending: Ending::Exit("exit".into()),
        skipped: false,
        doubts: Vec::new(),
        leaks,
        measures: Measures::default(),
    }
}

struct Case {
    verdict: Verdict,
    suppressions: Vec<Suppression>,
    sources: Sources,
    notes: Vec<String>,
}

impl Case {
    fn new(processes: Vec<Process>, suppressions: &str, doubts: Vec<String>) -> Case {
        let suppressions = parse("a\u{1b}b.supp", suppressions).expect("a valid file");
        let policy = Policy {
            fail_on: KindSet::LOST,
            suppressions: suppressions.clone(),
            fail_on_unused: false,
            baseline: None,
            budgets: Budgets::default(),
            budgets_only: false,
            today: Date::from_unix_seconds(0),
        };
        Case {
            verdict: judge(&policy, processes, Measures::default(), Some(0), doubts),
            suppressions,
            sources: Sources::new(PathBuf::from("/repo")),
            notes: vec![HOSTILE.into()],
        }
    }

    fn hostile() -> Case {
        let leaks = vec![
            leak(Kind::Definite, 96, vec![hostile_frame(), plain_frame()]),
            leak(Kind::Possible, 8, Vec::new()),
            leak(
                Kind::Indirect,
                4,
                vec![Frame {
                    function: Some("g".into()),
                    ..plain_frame()
                }],
            ),
        ];
        let mut doubtful = process("child", Vec::new());
        doubtful.doubts.push(HOSTILE.into());
        let processes = vec![process(HOSTILE, leaks), doubtful];
        Case::new(
            processes,
            "leak:^g$\nleak:\u{1b}[2Junused",
            vec![HOSTILE.into()],
        )
    }

    fn many(leaks: u64) -> Case {
        let frame = |n| Frame {
            function: Some(format!("f{n}")),
            ..plain_frame()
        };
        let leaks = (0..leaks)
            .map(|n| leak(Kind::Definite, n + 1, vec![frame(n)]))
            .collect();
        Case::new(vec![process("app", leaks)], "", Vec::new())
    }

    fn write(&self, format: Format) -> String {
        let report = Report {
            verdict: &self.verdict,
            suppressions: &self.suppressions,
            show: KindSet::ALL,
            against_baseline: false,
            sources: &self.sources,
            notes: &self.notes,
            exit_code: 23,
        };
        report.write(format)
    }
}

/// Characters that no report may hold, in any format.
fn assert_tame(text: &str) {
    let raw = text.chars().find(|c| {
        (c.is_control() && *c != '\n') || matches!(c, '\u{202e}' | '\u{fffe}' | '\u{ffff}')
    });
    assert_eq!(raw, None, "{text}");
}

#[test]
fn no_format_passes_a_control_character_or_an_override_of_direction() {
    for format in [
        Format::Text,
        Format::Junit,
        Format::Github,
        Format::Markdown,
    ] {
        let text = Case::hostile().write(format).replace('\u{fffe}', "");
        assert_tame(&text);
    }
    // JSON keeps the names exactly, escaped by the syntax.
    let json = Case::hostile().write(Format::Json);
    assert!(!json.trim_end().chars().any(char::is_control), "{json}");
}

#[test]
fn json_gives_every_name_back_unchanged() {
    let json: Value = serde_json::from_str(&Case::hostile().write(Format::Json)).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["verdict"], "leaks");
    assert_eq!(json["leaks"][0]["stack"][0]["function"], HOSTILE);
    assert_eq!(json["kinds"]["definite"]["bytes"], 96);
    assert_eq!(json["kinds"]["indirect"]["bytes"], 0, "suppressed");
    assert_eq!(json["suppressed"]["bytes"], 4);
    assert_eq!(json["processes"][1]["judged"], false);
}

#[test]
fn a_github_report_holds_only_its_own_commands() {
    let text = Case::hostile().write(Format::Github);
    for line in text.lines() {
        assert!(line.starts_with("::error "), "{line}");
        let (properties, data) = line[2..].split_once("::").expect("a command has data");
        assert!(!data.contains('\r'), "{line}");
        let known = ["file", "line", "title"];
        let names = properties["error ".len()..]
            .split(',')
            .map(|one| one.split('=').next());
        assert!(
            names.into_iter().all(|name| known.contains(&name.unwrap())),
            "{line}"
        );
    }
    assert!(!text.contains("%0A\u{1b}"));
}

#[test]
fn github_gets_at_most_ten_errors_and_the_largest_leaks_come_first() {
    let text = Case::many(40).write(Format::Github);
    assert_eq!(text.matches("::error ").count(), 10);
    assert!(text.starts_with("::error file=src/list.c,line=12,title=definite leak of 40 bytes"));
    assert!(text.contains("title=31 more leaks::"), "{text}");
    assert_eq!(
        Case::many(10)
            .write(Format::Github)
            .matches("more leak")
            .count(),
        0
    );
}

#[test]
fn markdown_has_no_character_of_a_name_that_means_something() {
    let text = Case::hostile().write(Format::Markdown);
    for forbidden in ["<script", "[l]", "`", "@all", "![", "a|b"] {
        assert!(!text.contains(forbidden), "{forbidden} in {text}");
    }
}

#[test]
fn text_lists_at_most_a_hundred_leaks_and_counts_them_all() {
    let text = Case::many(150).write(Format::Text);
    assert_eq!(text.matches("definite leak of").count(), 100);
    assert!(text.contains("and 50 more"), "{text}");
    assert!(
        text.contains("definite: 11,325 bytes in 150 blocks"),
        "{text}"
    );
}

#[test]
fn sarif_has_what_code_scanning_needs_of_each_result() {
    let log: Value = serde_json::from_str(&Case::hostile().write(Format::Sarif)).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    let rules = log["runs"][0]["tool"]["driver"]["rules"]
        .as_array()
        .unwrap();
    for result in results {
        let index = result["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(result["ruleId"], rules[index]["id"]);
        assert!(result["partialFingerprints"]["memspyLeak/v1"].is_string());
        let location = &result["locations"][0]["physicalLocation"]["artifactLocation"];
        let uri = location["uri"].as_str().unwrap();
        assert!(
            uri.bytes()
                .all(|b| b.is_ascii_graphic() && !b"<>\"\\^`{|}[]".contains(&b)),
            "{uri}"
        );
    }
    let suppressed = results
        .iter()
        .filter(|result| result["suppressions"].is_array())
        .count();
    assert_eq!(suppressed, 1);
    assert_eq!(results[1]["suppressions"][0]["kind"], "external");
}

#[test]
fn junit_counts_failures_errors_and_skips_as_they_are() {
    let text = Case::hostile().write(Format::Junit);
    // Two leaks and the verdict fail; the child's judgement is an error; one leak is suppressed,
    // one suppression unused.
    assert!(
        text.contains("failures=\"3\"") && text.contains("errors=\"1\""),
        "{text}"
    );
    assert_eq!(text.matches("<skipped").count(), 2, "{text}");
    assert!(!text.contains("<script"), "{text}");
}

#[test]
fn a_clean_run_is_clean_in_every_format() {
    let case = Case::many(0);
    assert!(case.write(Format::Github).starts_with("::notice "));
    assert!(!case.write(Format::Junit).contains("<failure"));
    let json: Value = serde_json::from_str(&case.write(Format::Json)).unwrap();
    assert_eq!(json["verdict"], "clean");
    assert_eq!(json["why"], serde_json::json!([]));
    assert!(case.write(Format::Text).contains("clean"));
}
