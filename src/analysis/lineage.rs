//! The programs that came out of an image, as its own log tells them: what its process became by exec, and what its
//! children began while they worked in its memory (vfork, posix_spawn). Those that left no log are found by comparing:
//! nothing else tells of them.

use crate::decode;
use crate::error::Error;
use crate::event::{Event, What};
use crate::log::Log;
use memchr::memmem::Finder;
use std::collections::BTreeMap;

/// Why a program has no log, as far as that can be known: the end of a sentence.
pub const NO_LOG: &str =
    "left no log (static, setuid, another libc, a cleared environment, a sandbox?)";

/// How the lines that tell of other programs begin.
const OPENINGS: [&[u8]; 3] = [
    b"{\"op\":\"spawn\",",
    b"{\"op\":\"end\",",
    b"{\"op\":\"resumed\",",
];

/// What one log tells of the programs that came out of its image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The process.
    pub pid: u32,
    /// When it started, with `pid` its name for as long as the machine runs.
    start_ticks: u64,
    /// CLOCK_MONOTONIC when the image started, nanoseconds.
    pub began: u64,
    /// The executable's path, bytes from outside.
    pub exe: Box<[u8]>,
    /// The image ended with an exec that worked.
    became_another: bool,
    /// The children that began another program, and what it was called.
    spawned: BTreeMap<u32, Box<[u8]>>,
}

/// A child of which only its parent's log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostChild {
    /// The child.
    pub pid: u32,
    /// The program as its parent named it, bytes from outside; empty where that is not known.
    pub path: Box<[u8]>,
    /// The place of the parent among the images.
    pub parent: usize,
}

impl Lineage {
    /// Of an image of which no event is known yet.
    pub(crate) fn new(log: &Log) -> Lineage {
        log.start().map_or_else(Lineage::default, |start| Lineage {
            pid: start.pid,
            start_ticks: start.start_ticks,
            began: start.mono_ns,
            exe: start.exe.clone(),
            ..Lineage::default()
        })
    }

    /// Finds it in a log of which nothing else is wanted: a search for text, three times as fast as going through the
    /// events. Whoever goes through them has it already, see [`crate::replay::Outcome`].
    ///
    /// # Errors
    /// When the log can't be read any more.
    pub fn find(log: &Log) -> Result<Lineage, Error> {
        let mut lineage = Lineage::new(log);
        let mut told: Vec<Event> = Vec::new();
        let openings = OPENINGS.map(Finder::new);
        let mut text = Vec::new();
        for block in &log.index.blocks {
            text.clear();
            text.resize(block.len as usize, 0);
            log.read_lines(block, &mut text)?;
            for opening in &openings {
                let lines = opening.find_iter(&text);
                told.extend(lines.filter_map(|at| decode::first_line(&text[at..]).0.ok()));
            }
        }
        told.sort_by_key(|event| event.t);
        for event in &told {
            lineage.take(&event.what);
        }
        Ok(lineage)
    }

    /// Takes the image's next event in the order of time.
    pub(crate) fn take(&mut self, event: &What) {
        match event {
            What::Spawn {
                pid, failed: true, ..
            } => {
                self.spawned.remove(pid);
            }
            What::Spawn { pid, path, .. } => {
                self.spawned.insert(*pid, path.clone());
            }
            What::End(end) => self.became_another = is_exec(&end.how),
            // An exec that failed.
            What::Resumed { .. } => self.became_another = false,
            _ => {}
        }
    }
}

/// Whether the word of an `end` line is one of the exec family.
pub(crate) fn is_exec(how: &str) -> bool {
    how.starts_with("exec") || how == "fexecve"
}

/// The places of the images whose process went on to a program that left no log.
pub fn lost_images(images: &[&Lineage]) -> Vec<usize> {
    let followed = |image: &Lineage| {
        let process = (image.pid, image.start_ticks);
        images
            .iter()
            .any(|next| (next.pid, next.start_ticks) == process && next.began > image.began)
    };
    let lost = |place: &usize| images[*place].became_another && !followed(images[*place]);
    (0..images.len()).filter(lost).collect()
}

/// The children that began a program in the memory of one of these images, and left no log.
pub fn lost_children(images: &[&Lineage]) -> Vec<LostChild> {
    let mut lost = Vec::new();
    for (parent, image) in images.iter().enumerate() {
        for (pid, path) in &image.spawned {
            let is_it = |one: &&Lineage| one.pid == *pid && one.began >= image.began;
            if !images.iter().any(is_it) {
                lost.push(LostChild {
                    pid: *pid,
                    path: path.clone(),
                    parent,
                });
            }
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::Step;
    use crate::model::{Change, Memory};
    use crate::replay::{Visitor, replay};
    use crate::testlog::{PID, TestLog, malloc};

    /// Goes through a log for nothing but the outcome.
    struct Nothing;

    impl Visitor for Nothing {
        fn step(&mut self, _: &Step, _: &Change, _: &Memory) {}
    }

    const EXEC: &str = r#"{"op":"end","t":90,"how":"execve","streams":1,"open":[],"lost":0,"abandoned":0,"mapped":0}"#;
    const RESUMED: &str = r#"{"op":"resumed","t":95,"why":"execve","lost":0}"#;

    fn spawn(t: u64, pid: u32, failed: bool) -> String {
        let what = if failed {
            r#""failed":true"#
        } else {
            r#""path":"/bin/env""#
        };
        format!(r#"{{"op":"spawn","t":{t},"pid":{pid},{what}}}"#)
    }

    fn read(lines: &[&str]) -> Lineage {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = TestLog::new("");
        log.block(1, lines);
        let path = dir.path().join("log");
        log.write(&path);
        let log = Log::open(&path).expect("a log");
        let found = Lineage::find(&log).expect("it can be read");
        let met = replay(&log, &mut Nothing).expect("it can be read").lineage;
        assert_eq!(found, met);
        found
    }

    fn image(pid: u32, start_ticks: u64, began: u64) -> Lineage {
        Lineage {
            pid,
            start_ticks,
            began,
            ..Lineage::default()
        }
    }

    #[test]
    fn a_child_without_a_log_is_lost_unless_its_exec_failed() {
        let parent = read(&[
            &malloc(1, 5, 0x10),
            &spawn(2, 50, false),
            &spawn(3, 51, false),
            &spawn(4, 51, true),
            &spawn(5, 52, false),
        ]);
        let recorded = image(52, 9, parent.began + 1);
        let lost = lost_children(&[&recorded, &parent]);
        let child = LostChild {
            pid: 50,
            path: b"/bin/env"[..].into(),
            parent: 1,
        };
        assert_eq!(lost, [child]);
    }

    #[test]
    fn an_image_is_lost_when_no_later_one_of_its_process_is_there() {
        let shell = read(&[EXEC]);
        assert_eq!(shell.pid, PID);
        assert_eq!(lost_images(&[&shell]), [0]);
        let next = image(shell.pid, shell.start_ticks, shell.began + 1);
        assert_eq!(lost_images(&[&next, &shell]), [0; 0]);
        let pid_used_again = image(shell.pid, shell.start_ticks + 1, shell.began + 1);
        assert_eq!(lost_images(&[&pid_used_again, &shell]), [1]);
    }

    #[test]
    fn an_exec_that_failed_loses_no_image() {
        assert_eq!(lost_images(&[&read(&[EXEC, RESUMED])]), [0; 0]);
    }
}
