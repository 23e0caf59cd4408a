//! Suppression files of both syntaxes, matched against leaks whose names come from the same bytes.

use memspy_analysis::verdict::suppression::{Date, Syntax, generate, parse};
use memspy_analysis::verdict::{Finding, Fingerprint, Frame, Kind, Leak, Standing};

/// Parses, matches, and writes entries for leaks with hostile names, which must be read again and match.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let findings = findings(&text);
    match parse("fuzz.supp", &text) {
        Ok(entries) => {
            for entry in &entries {
                let _ = entry.expired(Date::from_unix_seconds(1_800_000_000));
                for finding in &findings {
                    let _ = entry.matches(&finding.leak);
                }
            }
        }
        Err(why) => assert!(why.line > 0 && why.column > 0, "{why:?}"),
    }
    for finding in &findings {
        for syntax in [Syntax::Valgrind, Syntax::Lsan] {
            let Some(entry) = generate(finding, syntax) else {
                continue;
            };
            let read =
                parse("generated.supp", &entry).unwrap_or_else(|why| panic!("{why} in {entry:?}"));
            assert!(
                read.iter().any(|one| one.matches(&finding.leak)),
                "{entry:?} for {finding:?}"
            );
        }
    }
}

/// Two leaks: the lines of the text are the functions, modules and files of their frames.
fn findings(text: &str) -> Vec<Finding> {
    let frame = |line: &str| {
        let mut words = line.split(':').map(|word| Some(word.to_owned()));
        Frame {
            function: words.next().flatten(),
            module: words.next().flatten(),
            symbol: words.next().flatten(),
            file: words.next().flatten(),
            line: u32::try_from(line.len()).ok(),
            ..Frame::default()
        }
    };
    let frames: Vec<Frame> = text.lines().take(30).map(frame).collect();
    let finding = |kind, frames: Vec<Frame>| Finding {
        fingerprint: Fingerprint::new(kind, &frames),
        leak: Leak {
            kind,
            blocks: 1,
            bytes: 16,
            frames,
            cut: false,
            inherited: false,
        },
        process: 0,
        pool: None,
        standing: Standing::Fails,
        grown_from: None,
    };
    let later = frames.iter().skip(1).cloned().collect();
    vec![
        finding(Kind::Definite, frames),
        finding(Kind::Possible, later),
    ]
}
