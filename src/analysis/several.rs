//! The events of several logs in one order of time.
//!
//! All processes of a machine share CLOCK_MONOTONIC, and each log says what it was at the image's
//! start. A log is opened when its first event is next and closed after its last, so that memory
//! and descriptors hold the logs of those processes that ran at the same time.

use crate::complete::{Completeness, Witness};
use crate::error::Error;
use crate::event::Start;
use crate::log::{Log, Place};
use crate::merge::{Merge, Step};
use crate::model::{Change, Memory};
use crate::replay::inherited;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::PathBuf;
use std::rc::Rc;

/// Something that watches the events of several logs. Times are nanoseconds since the first image
/// of them all started.
pub trait Watcher {
    /// Called before a log's first event.
    fn begin(&mut self, log: &Log, time: u64);

    /// Called at each moment of each event, as [`crate::replay::Visitor::step`] is for one log.
    /// `change` says nothing where the blocks are not followed.
    fn step(&mut self, log: &Log, step: &Step, change: &Change, time: u64);

    /// Called after a log's last event; not when no more were wanted before.
    fn end(&mut self, log: &Log, completeness: &Completeness);

    /// Whether no more events are wanted.
    fn is_done(&self) -> bool;
}

/// Several logs, none of them open yet.
#[derive(Debug)]
pub struct Several {
    places: Vec<Place>,
    clock: Clock,
}

impl Several {
    /// Finds the logs that `paths` name, see [`Log::open_all`], and reads their first lines.
    ///
    /// # Errors
    /// At the first path that can't be read or is not a log.
    pub fn find(paths: &[PathBuf]) -> Result<Several, Error> {
        let logs = Log::each(paths)?;
        // One file is not decompressed twice.
        let keep = logs.paths_left() == 1;
        let places = logs
            .map(|log| log.map(|log| Place::of(&log, keep)))
            .collect::<Result<Vec<_>, _>>()?;
        let clock = Clock::of(&places);
        Ok(Several { places, clock })
    }

    /// The logs, by the order of their paths.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Leaves out the logs of other processes. Times stay as they were.
    pub fn only(&mut self, pids: &[u32]) {
        self.places.retain(|place| {
            let pid = place.start.as_ref().map(|start| start.pid);
            pid.is_some_and(|pid| pids.contains(&pid))
        });
    }

    /// Whether they come from different boots of the machine, or different machines: these have
    /// only the wall clock in common, which may be wrong.
    pub fn have_several_boots(&self) -> bool {
        self.clock.boots.len() > 1
    }

    /// Goes through the events of all logs. Follows each process's blocks when `blocks`, which
    /// takes memory for those that are live.
    ///
    /// # Errors
    /// When a log can't be read any more, or has no first line.
    pub fn run(self, blocks: bool, watcher: &mut impl Watcher) -> Result<(), Error> {
        let mut turns = BinaryHeap::new();
        for (number, place) in self.places.iter().enumerate() {
            let start = place.start.as_ref().ok_or_else(|| Error::NoOrigin {
                path: place.path().into(),
            })?;
            turns.push(Reverse((self.clock.time(start, start.mono_ns), number)));
        }
        let mut running: HashMap<usize, Running> = HashMap::new();
        while let Some(Reverse((time, number))) = turns.pop() {
            if watcher.is_done() {
                break;
            }
            let mut reader = match running.remove(&number) {
                Some(reader) => reader,
                None => {
                    let log = Rc::new(self.places[number].open()?);
                    watcher.begin(&log, time);
                    Running::new(log, blocks)
                }
            };
            let limit = turns.peek().map(|turn| turn.0);
            match reader.run_to(number, limit, &self.clock, watcher)? {
                Some(time) => {
                    turns.push(Reverse((time, number)));
                    running.insert(number, reader);
                }
                // Of a log that was not read to its end nothing can be said.
                None if watcher.is_done() => break,
                None => {
                    let log = &reader.log;
                    let mut damage = log.damage().clone();
                    damage.add(reader.merge.damage());
                    watcher.end(log, &reader.witness.judge(log, &damage));
                }
            }
        }
        Ok(())
    }
}

/// A log that is open.
struct Running {
    log: Rc<Log>,
    merge: Merge<Rc<Log>>,
    memory: Option<Memory>,
    witness: Witness,
}

impl Running {
    fn new(log: Rc<Log>, blocks: bool) -> Running {
        Running {
            merge: Merge::new(Rc::clone(&log)),
            memory: blocks.then(|| inherited(&log, 0).0),
            witness: Witness::new(&log),
            log,
        }
    }

    /// Goes on until another log's turn, of which `limit` is the first, is before this one's.
    /// Answers the time of the next event, `None` when there is none.
    fn run_to(
        &mut self,
        number: usize,
        limit: Option<(u64, usize)>,
        clock: &Clock,
        watcher: &mut impl Watcher,
    ) -> Result<Option<u64>, Error> {
        let Some(start) = self.log.start() else {
            return Ok(None);
        };
        while !watcher.is_done()
            && let Some(t) = self.merge.next_time()?
        {
            let time = clock.time(start, self.log.mono_ns(t).unwrap_or(t));
            if limit.is_some_and(|limit| (time, number) > limit) {
                return Ok(Some(time));
            }
            let Some(step) = self.merge.next_step()? else {
                break;
            };
            let change = match &mut self.memory {
                Some(memory) => memory.apply(&step),
                None => Change::default(),
            };
            self.witness.step(&step);
            watcher.step(&self.log, &step, &change, time);
        }
        Ok(None)
    }
}

/// Brings the clocks of boots together.
#[derive(Debug, Default)]
struct Clock {
    /// By boot: the wall clock, nanoseconds since 1970, when CLOCK_MONOTONIC was zero, as the first
    /// image that started in that boot says.
    boots: HashMap<Box<str>, u64>,
    /// When the first image of all started, by the wall clock of its boot.
    zero: u64,
}

impl Clock {
    fn of(places: &[Place]) -> Clock {
        let mut starts: Vec<&Start> = places.iter().filter_map(|at| at.start.as_ref()).collect();
        starts.sort_by_key(|start| start.mono_ns);
        let mut clock = Clock::default();
        for start in &starts {
            let boot = clock.boots.entry(start.boot_id.clone());
            boot.or_insert(start.unix_ns.saturating_sub(start.mono_ns));
        }
        let began = starts.iter().map(|start| clock.wall(start, start.mono_ns));
        clock.zero = began.min().unwrap_or(0);
        clock
    }

    fn wall(&self, start: &Start, mono_ns: u64) -> u64 {
        let boot = self.boots.get(&start.boot_id).copied().unwrap_or(0);
        boot.saturating_add(mono_ns)
    }

    /// Nanoseconds from the start of the first image to a moment of another.
    fn time(&self, start: &Start, mono_ns: u64) -> u64 {
        self.wall(start, mono_ns).saturating_sub(self.zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testlog::{TestLog, free, malloc};

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Watcher for Notes {
        fn begin(&mut self, log: &Log, time: u64) {
            self.0.push(format!("{time} {} begins", log.pid()));
        }

        fn step(&mut self, log: &Log, step: &Step, change: &Change, time: u64) {
            let op = step.event.op.name();
            let died = change.died.map_or(0, |(_, block)| block.size);
            self.0.push(format!("{time} {} {op} {died}", log.pid()));
        }

        fn end(&mut self, log: &Log, completeness: &Completeness) {
            let complete = completeness.complete;
            self.0.push(format!("{} ends {complete}", log.pid()));
        }

        fn is_done(&self) -> bool {
            false
        }
    }

    /// A log of this process, boot and start; it takes a block and gives it back.
    fn log(pid: u32, boot: &str, unix_ns: u64, mono_ns: u64, times: [u64; 2]) -> String {
        let mut log = TestLog::new("");
        log.text = log
            .text
            .replace("\"pid\":4711,", &format!("\"pid\":{pid},"))
            .replace(crate::testlog::BOOT, boot)
            .replace(
                "\"unix_ns\":1790000000000000000",
                &format!("\"unix_ns\":{unix_ns}"),
            )
            .replace("\"mono_ns\":1000", &format!("\"mono_ns\":{mono_ns}"));
        log.block(1, &[&malloc(times[0], 7, 0x10), &free(times[1], 0x10)]);
        log.end(1, times[1] + 1);
        log.text
    }

    fn read(texts: &[String], blocks: bool, pids: &[u32]) -> Result<Vec<String>, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        for (number, text) in texts.iter().enumerate() {
            let path = dir.path().join(format!("memspy.cat.{number}.jsonl"));
            std::fs::write(path, text).expect("the test's directory is writable");
        }
        let mut several = Several::find(&[dir.path().into()])?;
        if !pids.is_empty() {
            several.only(pids);
        }
        let mut notes = Notes::default();
        several.run(blocks, &mut notes)?;
        Ok(notes.0)
    }

    #[test]
    fn processes_of_one_boot_share_a_clock() {
        // Wall clocks that were set in between are not believed.
        let texts = [
            log(2, "a", 9_000, 1_050, [10, 400]),
            log(1, "a", 5_000, 1_000, [20, 100]),
        ];
        let all = read(&texts, true, &[]).expect("readable");
        assert_eq!(
            all,
            [
                "0 1 begins",
                "20 1 malloc 0",
                "50 2 begins",
                "60 2 malloc 0",
                "100 1 free 7",
                "101 1 end 0",
                "1 ends true",
                "450 2 free 7",
                "451 2 end 0",
                "2 ends true",
            ]
        );
        let one = read(&texts, false, &[2]).expect("readable");
        assert_eq!(one[..2], ["50 2 begins", "60 2 malloc 0"]);
        assert_eq!(one.len(), 5);
        assert!(one.contains(&"450 2 free 0".to_string()), "{one:?}");
    }

    #[test]
    fn boots_stand_in_the_order_of_their_wall_clocks() {
        let texts = [
            log(1, "later", 5_000_000, 10, [1, 2]),
            log(2, "earlier", 3_000_000, 900_000, [1, 2]),
        ];
        let all = read(&texts, false, &[]).expect("readable");
        assert_eq!(all[0], "0 2 begins");
        assert!(all.contains(&"2000000 1 begins".to_string()), "{all:?}");
    }

    #[test]
    fn several_images_in_one_file_are_several_logs() {
        let one = log(1, "a", 5_000, 1_000, [20, 100]);
        let other = log(1, "a", 5_000, 700, [20, 100]);
        let all = read(&[one + &other], false, &[]).expect("readable");
        let begins: Vec<_> = all.iter().filter(|note| note.contains("begins")).collect();
        assert_eq!(begins, ["0 1 begins", "300 1 begins"]);
    }

    #[test]
    fn a_log_without_its_first_line_has_no_place_among_others() {
        let whole = log(1, "a", 5_000, 1_000, [20, 100]);
        let headless = whole.split_once('\n').expect("lines").1.to_string();
        let said = read(&[whole, headless], false, &[]).expect_err("has no origin");
        assert!(said.to_string().contains("memspy.cat.1.jsonl"), "{said}");
    }
}
