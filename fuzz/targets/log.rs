//! A whole log: index, merge, replay, and every answer that reports are made of.

use std::fs;
use std::path::Path;

use memspy_analysis::log::Log;
use memspy_analysis::replay::replay;
use memspy_analysis::site::{Kind, Sites};
use memspy_analysis::space::{Moment, Picture, Space, Story, Timeline, Trace, View};
use memspy_analysis::summary::Summary;
use memspy_analysis::tree::Tree;
use memspy_analysis::verdict::suppression::Date;
use memspy_analysis::verdict::{
    Budgets, Evidence, KindSet, Measures, Policy, Window, doubt_lost_images, judge,
};

/// Reads the bytes as a log file.
pub fn run(data: &[u8]) {
    let path = super::place("log", "memspy.fuzz.1.jsonl");
    fs::write(&path, data).expect("the file can be written");
    read(&path);
}

/// Reads a file in every way that there is.
pub(super) fn read(path: &Path) {
    let logs = match Log::open_all(&[path.to_owned()]) {
        Ok(logs) => logs,
        Err(why) => {
            assert!(!why.to_string().contains(char::is_control), "{why:?}");
            return;
        }
    };
    let starts: Vec<_> = logs.iter().map(Log::start).collect();
    let _ = Tree::of(&starts);
    let mut sites = Sites::new(Kind::All, 3);
    for log in &logs {
        answers(log, &mut sites);
    }
    let mut evidence: Vec<Evidence> = logs
        .iter()
        .filter_map(|log| Evidence::read(log, &Window::default()).ok())
        .collect();
    doubt_lost_images(&mut evidence);
    let processes = evidence.into_iter().map(|one| one.process).collect();
    let policy = Policy {
        fail_on: KindSet::ALL,
        suppressions: Vec::new(),
        fail_on_unused: true,
        baseline: None,
        budgets: Budgets::default(),
        budgets_only: false,
        today: Date::from_unix_seconds(1_800_000_000),
    };
    let _ = judge(&policy, processes, Measures::default(), None, Vec::new());
}

fn answers(log: &Log, sites: &mut Sites) {
    let Ok(summary) = Summary::read_with_sites(log, sites) else {
        return;
    };
    let _ = sites.total();
    let mut sum = summary.totals.clone();
    sum.merge(&summary.totals);
    let _ = log.mono_ns(u64::MAX);
    let (mut timeline, mut story, mut trace) =
        (Timeline::default(), Story::default(), Trace::new(0x1000));
    let mut space = Space::default();
    let mut all = ((&mut timeline, &mut story), (&mut trace, &mut space));
    let Ok(outcome) = replay(log, &mut all) else {
        return;
    };
    timeline.finish(&outcome.memory);
    story.finish();
    let _ = trace.neighbours(&outcome.memory);
    let _ = Picture::at_end(&space, &outcome).totals();
    for moment in [Moment::Start, Moment::Time(1000), Moment::Peak, Moment::End] {
        let _ = View::read(log, moment).map(|view| view.picture.total());
    }
}
