//! The peak of a process tree: the most that all its processes held at one time.
//!
//! Exact in bytes, coarse in time: within one slot of 10 ms each process counts with its highest
//! level, so two peaks closer than that add up even when one followed the other. Memory grows with
//! the time of the run, not with its events.

/// Nanoseconds of a slot.
const SLOT_NS: u64 = 10_000_000;

/// The live bytes of one process over time.
#[derive(Clone, Debug, Default)]
pub struct Levels(Vec<Slot>);

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// CLOCK_MONOTONIC in slots.
    at: u64,
    /// The highest level within it.
    most: u64,
    /// The level at its end.
    last: u64,
}

impl Levels {
    /// Notes that `bytes` are live from `mono_ns` on. Times do not decrease.
    pub fn record(&mut self, mono_ns: u64, bytes: u64) {
        let at = mono_ns / SLOT_NS;
        match self.0.last_mut() {
            Some(slot) if slot.at >= at => {
                slot.most = slot.most.max(bytes);
                slot.last = bytes;
            }
            before => {
                // What was live before the slot's first event was live in the slot.
                let carried = before.map_or(0, |slot| slot.last);
                self.0.push(Slot {
                    at,
                    most: carried.max(bytes),
                    last: bytes,
                });
            }
        }
    }
}

/// The highest sum of the processes' levels. A process holds nothing after its last event's slot.
pub fn tree_peak(processes: &[&Levels]) -> u64 {
    // (slot, process, most, last); behind each process's last slot one with nothing.
    let mut slots: Vec<(u64, usize, u64, u64)> = Vec::new();
    for (index, levels) in processes.iter().enumerate() {
        slots.extend(
            levels
                .0
                .iter()
                .map(|slot| (slot.at, index, slot.most, slot.last)),
        );
        slots.extend(levels.0.last().map(|slot| (slot.at + 1, index, 0, 0)));
    }
    slots.sort_unstable();
    let mut last = vec![0; processes.len()];
    let mut held: u64 = 0;
    let mut peak = 0;
    for slot in slots.chunk_by(|a, b| a.0 == b.0) {
        for (_, process, most, _) in slot {
            held = held.saturating_sub(last[*process]).saturating_add(*most);
        }
        peak = peak.max(held);
        for (_, process, most, end) in slot {
            held = held.saturating_sub(*most).saturating_add(*end);
            last[*process] = *end;
        }
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(points: &[(u64, u64)]) -> Levels {
        let mut levels = Levels::default();
        points
            .iter()
            .for_each(|(slot, bytes)| levels.record(slot * SLOT_NS, *bytes));
        levels
    }

    #[test]
    fn one_process_peaks_at_its_highest_level() {
        assert_eq!(
            tree_peak(&[&levels(&[(0, 10), (0, 90), (0, 5), (7, 20)])]),
            90
        );
        assert_eq!(tree_peak(&[]), 0);
    }

    #[test]
    fn levels_that_last_add_up_and_those_that_follow_each_other_do_not() {
        let long = levels(&[(0, 100), (9, 100)]);
        let inside = levels(&[(4, 50), (5, 0)]);
        let after = levels(&[(20, 60), (21, 60)]);
        assert_eq!(tree_peak(&[&long, &inside, &after]), 150);
        let (first, second) = (levels(&[(0, 70), (1, 70)]), levels(&[(3, 60), (4, 60)]));
        assert_eq!(tree_peak(&[&first, &second]), 70);
    }

    #[test]
    fn a_level_from_before_a_slot_counts_inside_of_it() {
        let falls = levels(&[(0, 100), (5, 0), (9, 0)]);
        let grows = levels(&[(5, 30), (6, 30)]);
        assert_eq!(tree_peak(&[&falls, &grows]), 130);
    }
}
