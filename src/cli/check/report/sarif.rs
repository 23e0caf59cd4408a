//! SARIF 2.1.0: one result for each leak, for code scanning services.
//!
//! Results carry a stable `partialFingerprints` entry and repository-relative paths below
//! `%SRCROOT%`. Accepted leaks are results too, with the suppression or baseline state that SARIF
//! has for them; reachable blocks and pools are not: they are no findings.

use memspy_analysis::verdict::{Finding, Frame, Kind, Outcome, Standing};
use serde::Serialize;
use serde_json::{Value, json};

use super::Report;
use super::source::uri_path;
use crate::terminal::{clean, visible};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// The results that GitHub accepts in one file.
const MOST_RESULTS: usize = 25_000;

#[derive(Serialize)]
struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    invocations: [Invocation; 1],
    results: Vec<SarifResult>,
    column_kind: &'static str,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    version: &'static str,
    semantic_version: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: String,
    short_description: Message,
    default_configuration: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    /// Whether memspy could judge; leaks are results, not failures of the tool.
    execution_successful: bool,
    exit_code: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_execution_notifications: Vec<Notification>,
}

#[derive(Serialize)]
struct Notification {
    level: &'static str,
    message: Message,
}

#[derive(Serialize)]
struct Message {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifResult {
    rule_id: String,
    rule_index: usize,
    level: &'static str,
    message: Message,
    locations: Vec<Location>,
    partial_fingerprints: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stacks: Vec<Stack>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressions: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_state: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logical_locations: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactLocation {
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri_base_id: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
}

#[derive(Serialize)]
struct Stack {
    message: Message,
    frames: Vec<StackFrame>,
}

#[derive(Serialize)]
struct StackFrame {
    location: Location,
}

pub(super) fn write(report: &Report) -> String {
    let verdict = report.verdict;
    let judged = verdict.outcome != Outcome::Inconclusive;
    let level = if judged { "note" } else { "error" };
    let remarks = verdict.why.iter().map(|why| (level, why));
    let remarks = remarks.chain(report.notes.iter().map(|note| ("note", note)));
    let results = verdict
        .findings
        .iter()
        .filter_map(|finding| result(report, finding));
    let log = Log {
        schema: SCHEMA,
        version: "2.1.0",
        runs: [Run {
            tool: Tool {
                driver: Driver {
                    name: "memspy",
                    version: env!("CARGO_PKG_VERSION"),
                    semantic_version: env!("CARGO_PKG_VERSION"),
                    rules: Kind::ALL.into_iter().map(rule).collect(),
                },
            },
            invocations: [Invocation {
                execution_successful: judged,
                exit_code: report.exit_code,
                tool_execution_notifications: remarks
                    .map(|(level, text)| Notification {
                        level,
                        message: message(text),
                    })
                    .collect(),
            }],
            results: results.take(MOST_RESULTS).collect(),
            column_kind: "utf16CodeUnits",
        }],
    };
    let text = serde_json::to_string(&log);
    visible(&text.expect("strings, numbers and lists always serialise")) + "\n"
}

fn rule(kind: Kind) -> Rule {
    let text = match kind {
        Kind::Definite => "Memory that nothing points at any more",
        Kind::Indirect => "Memory that only leaked memory points at",
        Kind::Possible => "Memory to which only pointers into its middle were found",
        Kind::Reachable => "Memory that was never freed and is still pointed at",
        Kind::Mapping => "A mapping that was never unmapped",
    };
    let level = if kind == Kind::Reachable {
        "note"
    } else {
        "error"
    };
    Rule {
        id: rule_id(kind),
        short_description: Message { text: text.into() },
        default_configuration: json!({"level": level}),
    }
}

fn rule_id(kind: Kind) -> String {
    format!("memspy/{kind}-leak")
}

fn result(report: &Report, finding: &Finding) -> Option<SarifResult> {
    let level = match finding.standing {
        Standing::Fails => "error",
        Standing::Suppressed(_) | Standing::Known | Standing::Budgeted => "note",
        Standing::Allowed | Standing::Pool | Standing::Inherited => return None,
    };
    let suppressions = matches!(finding.standing, Standing::Suppressed(_)).then(|| {
        let why = report.standing(finding).unwrap_or_default();
        vec![json!({"kind": "external", "justification": why})]
    });
    let process = report.process(finding);
    let text = format!(
        "{} in {}, allocated by {}",
        report.headline(finding),
        process.program,
        report.origin(finding)
    );
    let fingerprint = finding.fingerprint.to_string();
    let place = finding.culprit().map(|frame| location(report, frame));
    Some(SarifResult {
        rule_id: rule_id(finding.leak.kind),
        rule_index: Kind::ALL
            .iter()
            .position(|kind| *kind == finding.leak.kind)?,
        level,
        message: message(&text),
        locations: vec![place.unwrap_or_else(|| nowhere(&process.program))],
        partial_fingerprints: json!({"memspyLeak/v1": fingerprint}),
        stacks: stack(report, finding),
        suppressions,
        baseline_state: baseline_state(report, finding),
    })
}

/// How a result stands to the baseline: on every result of a run that has one, on none otherwise.
fn baseline_state(report: &Report, finding: &Finding) -> Option<&'static str> {
    report
        .against_baseline
        .then_some(match (finding.standing, finding.grown_from) {
            (_, Some(_)) => "updated",
            (Standing::Known, None) => "unchanged",
            (_, None) => "new",
        })
}

fn stack(report: &Report, finding: &Finding) -> Vec<Stack> {
    let frames = finding.leak.frames.iter();
    let frames: Vec<StackFrame> = frames
        .map(|frame| StackFrame {
            location: location(report, frame),
        })
        .collect();
    match frames.is_empty() {
        true => Vec::new(),
        false => vec![Stack {
            message: message("allocated here"),
            frames,
        }],
    }
}

fn location(report: &Report, frame: &Frame) -> Location {
    let (file, region) = match (&frame.file, &frame.module) {
        (Some(file), _) => {
            let line = frame.line.filter(|line| *line > 0);
            (file.clone(), line.map(|start_line| Region { start_line }))
        }
        (None, Some(module)) => (module.clone(), None),
        (None, None) => return nowhere(&frame.label()),
    };
    let artifact_location = match report.sources.relative(&file) {
        Some(below) => ArtifactLocation {
            uri: uri_path(&below),
            uri_base_id: Some("%SRCROOT%"),
        },
        None if file.starts_with('/') => ArtifactLocation {
            uri: format!("file://{}", uri_path(&file)),
            uri_base_id: None,
        },
        None => ArtifactLocation {
            uri: uri_path(&file),
            uri_base_id: None,
        },
    };
    Location {
        physical_location: PhysicalLocation {
            artifact_location,
            region,
        },
        logical_locations: vec![
            json!({"fullyQualifiedName": clean(&frame.label()), "kind": "function"}),
        ],
    }
}

/// A result must have a place; without any, the program's name is one.
fn nowhere(name: &str) -> Location {
    let artifact_location = ArtifactLocation {
        uri: uri_path(name),
        uri_base_id: None,
    };
    Location {
        physical_location: PhysicalLocation {
            artifact_location,
            region: None,
        },
        logical_locations: Vec::new(),
    }
}

/// A plain text message: brackets would begin a link (SARIF 3.11.6).
fn message(text: &str) -> Message {
    Message {
        text: clean(text)
            .replace('\\', "\\\\")
            .replace('[', "\\[")
            .replace(']', "\\]"),
    }
}
