//! An unwind rule in one word, and the table of the rules that were worked out.
//!
//! A rule says how to get from a frame to its caller's: the CFA (canonical frame address: the stack pointer after the
//! return), and where the frame pointer was saved. The return address is at CFA - 8. Frames that need more are `Slow`
//! and are worked out anew each time. The table is one for all threads.
//!
//! Each entry also says where the rule of the caller was the last time somebody looked: a walk that goes by these need
//! not wait for a return address to be read before it can look up what comes next.

use crate::memory;
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// How to get from a frame to its caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The outermost frame.
    End,
    /// By frame pointer, for want of unwind data.
    FramePointer,
    /// By the row of the unwind data itself: see `cfi::step`.
    Slow,
    /// CFA = stack pointer + `cfa`, which is a multiple of 8 and not 0; the frame pointer lies at CFA - `bp`, or is
    /// unchanged when that is 0.
    FromSp { cfa: usize, bp: usize },
    /// CFA = frame pointer + `cfa`; all as above.
    FromBp { cfa: usize, bp: usize },
}

impl Step {
    /// A step by frame pointer as what it is when the frame pointer is one: whoever keeps frame pointers keeps
    /// (caller's frame pointer, return address) at its own.
    #[inline(always)]
    pub(crate) fn of_frame_pointer(self) -> Step {
        match self {
            Step::FramePointer => Step::FromBp { cfa: 16, bp: 16 },
            other => other,
        }
    }
}

/// A step and the module that it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) step: Step,
    /// Number of the module, 0: none.
    pub(crate) module: u32,
}

// The packed form: 3 bits kind (never 0), 20 bits CFA / 8, 8 bits frame pointer / 8, 16 bits module, and in the table
// 14 bits for the place of the caller's rule.
const CFA: u32 = 3;
const BP: u32 = 23;
const MODULE: u32 = 31;
const CALLER: u32 = 47;

/// The bits that say where a caller's rule is: not part of the rule.
const CALLER_BITS: u64 = !0 << CALLER;

impl Rule {
    /// The rule in one word; `None` when a number is too large for it.
    fn pack(self) -> Option<u64> {
        let (kind, cfa, bp) = match self.step {
            Step::End => (1, 0, 0),
            Step::FramePointer => (2, 0, 0),
            Step::Slow => (3, 0, 0),
            Step::FromSp { cfa, bp } => (4, cfa as u64, bp as u64),
            Step::FromBp { cfa, bp } => (5, cfa as u64, bp as u64),
        };
        let (cfa, bp) = (cfa / 8, bp / 8);
        let fits = cfa < 1 << (BP - CFA) && bp < 1 << (MODULE - BP) && self.module < 1 << 16;
        fits.then(|| kind | cfa << CFA | bp << BP | u64::from(self.module) << MODULE)
    }

    #[inline(always)]
    fn unpack(word: u64) -> Rule {
        let cfa = (word >> CFA) as usize % (1 << (BP - CFA)) * 8;
        let bp = (word >> BP) as usize % (1 << (MODULE - BP)) * 8;
        let step = match word & 7 {
            4 => Step::FromSp { cfa, bp },
            5 => Step::FromBp { cfa, bp },
            1 => Step::End,
            2 => Step::FramePointer,
            _ => Step::Slow,
        };
        Rule {
            step,
            module: (word >> MODULE) as u32 % (1 << 16),
        }
    }
}

const ROWS: usize = 1 << 13;
/// Entries beside each other in which a rule may be.
const WAYS: usize = 2;

/// An entry proves itself: `sealed` is the key exclusive-or the rule, so that two writers at once make an entry that
/// nobody finds, and never one that is wrong.
struct Entry {
    sealed: AtomicU64,
    rule: AtomicU64,
}

static TABLE: AtomicPtr<Entry> = AtomicPtr::new(core::ptr::null_mut());

/// Makes the table. Without it everything works, slowly.
pub(super) fn start() {
    if TABLE.load(Relaxed).is_null()
        && let Some(table) = memory::map_pages(ROWS * WAYS * size_of::<Entry>())
    {
        TABLE.store(table.as_ptr().cast(), Release);
    }
}

/// What a rule is found by: an address, whether it is one that was interrupted (not a return address), and 16 bits of
/// the generation of the modules; see [`forget`] for the others.
#[derive(Clone, Copy)]
pub(super) struct Key(u64);

impl Key {
    /// User addresses have 47 bits.
    #[inline(always)]
    pub(super) fn new(ip: usize, exact: bool, generation: u32) -> Key {
        Key(ip as u64 ^ u64::from(exact) << 47 ^ u64::from(generation) << 48)
    }
}

/// Where an entry of the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// A place like any other, for a walk that begins.
    pub(super) const ANY: Place = Place(0);
}

/// A rule that was found: where, and where its caller's was the last time.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) rule: Rule,
    pub(super) place: Place,
    pub(super) caller: Place,
}

/// The table of rules.
#[derive(Clone, Copy)]
pub(super) struct Rules(&'static [Entry; ROWS * WAYS]);

impl Rules {
    /// The table, if there was memory for it.
    #[inline(always)]
    pub(super) fn get() -> Option<Rules> {
        let table = TABLE.load(Acquire).cast::<[Entry; ROWS * WAYS]>();
        // SAFETY: the table has so many entries, and lives for ever.
        unsafe { table.as_ref() }.map(Rules)
    }

    /// The rule of a key if it is at this place.
    #[inline(always)]
    pub(super) fn at(self, place: Place, key: Key) -> Option<Found> {
        let entry = self.0.get(place.0 as usize % (ROWS * WAYS))?;
        let word = entry.rule.load(Relaxed);
        (entry.sealed.load(Relaxed) ^ (word & !CALLER_BITS) == key.0).then(|| Found {
            rule: Rule::unpack(word),
            place,
            caller: Place((word >> CALLER) as u32),
        })
    }

    #[inline(always)]
    fn row(key: Key) -> usize {
        let row = key.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ROWS.trailing_zeros());
        row as usize * WAYS
    }

    /// The rule of a key, if it was worked out before.
    #[inline(always)]
    pub(super) fn find(self, key: Key) -> Option<Found> {
        let row = Rules::row(key);
        (row..row + WAYS).find_map(|place| self.at(Place(place as u32), key))
    }

    /// Notes where the caller's rule was found. A loss: the next walk is slower.
    pub(super) fn teach(self, place: Place, caller: Place) {
        if let Some(entry) = self.0.get(place.0 as usize) {
            let word = entry.rule.load(Relaxed) & !CALLER_BITS | u64::from(caller.0) << CALLER;
            // Whoever has put another rule here by now has sealed it otherwise: it is lost, and not wrong.
            entry.rule.store(word, Relaxed);
        }
    }

    /// Keeps a rule; the older of two that share a place gives way.
    pub(super) fn keep(self, key: Key, rule: Rule) {
        let row = Rules::row(key);
        if let (Some([first, second]), Some(word)) = (self.0.get(row..row + WAYS), rule.pack()) {
            second.rule.store(first.rule.load(Relaxed), Relaxed);
            second.sealed.store(first.sealed.load(Relaxed), Relaxed);
            first.rule.store(word, Relaxed);
            first.sealed.store(key.0 ^ word, Relaxed);
        }
    }
}

static ERA: AtomicU32 = AtomicU32::new(0);

/// Changes when the rules were forgotten.
#[inline(always)]
pub(super) fn era() -> u32 {
    ERA.load(Relaxed)
}

/// Forgets all rules: to be called when the 16 bits of the modules' generation that keys have begin anew.
pub(crate) fn forget() {
    ERA.fetch_add(1, Relaxed);
    if let Some(rules) = Rules::get() {
        for entry in rules.0 {
            entry.rule.store(0, Relaxed);
            entry.sealed.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Place, Rule, Rules, Step};

    #[test]
    fn a_rule_survives_packing_or_is_refused() {
        for step in [
            Step::End,
            Step::FramePointer,
            Step::Slow,
            Step::FromSp { cfa: 8, bp: 0 },
            Step::FromSp {
                cfa: 8 * ((1 << 20) - 1),
                bp: 8 * 255,
            },
            Step::FromBp { cfa: 16, bp: 16 },
        ] {
            for module in [0, 1, 65535] {
                let rule = Rule { step, module };
                assert_eq!(rule.pack().map(Rule::unpack), Some(rule));
            }
        }
        assert_eq!(
            Rule {
                step: Step::FromSp {
                    cfa: 8 << 20,
                    bp: 0
                },
                module: 1
            }
            .pack(),
            None
        );
        assert_eq!(
            Rule {
                step: Step::FromSp { cfa: 8, bp: 8 << 8 },
                module: 1
            }
            .pack(),
            None
        );
        assert_eq!(
            Rule {
                step: Step::End,
                module: 65536
            }
            .pack(),
            None
        );
    }

    #[test]
    fn a_rule_is_found_by_its_address_kind_and_generation() {
        super::start();
        let rule = Rule {
            step: Step::FromSp { cfa: 48, bp: 16 },
            module: 3,
        };
        let rules = Rules::get().expect("started");
        let find = |ip, exact, generation| {
            let found = rules.find(Key::new(ip, exact, generation));
            found.map(|found| found.rule)
        };
        rules.keep(Key::new(0x7f00_1234, false, 7), rule);
        assert_eq!(find(0x7f00_1234, false, 7), Some(rule));
        assert_eq!(find(0x7f00_1234, true, 7), None);
        assert_eq!(find(0x7f00_1234, false, 8), None);
        assert_eq!(find(0x7f00_1235, false, 7), None);
    }

    #[test]
    fn a_callers_place_is_learnt_and_changes_no_rule() {
        super::start();
        let rules = Rules::get().expect("started");
        let rule = |cfa, bp| Rule {
            step: Step::FromBp { cfa, bp },
            module: 65535,
        };
        let keys = [1, 2].map(|ip| Key::new(0x7f11_0000 + ip, false, 7));
        rules.keep(keys[0], rule(16, 16));
        rules.keep(keys[1], rule(8 * ((1 << 20) - 1), 8 * 255));
        let find = |key| rules.find(key).expect("kept");
        let (first, second) = (find(keys[0]), find(keys[1]));
        rules.teach(first.place, second.place);
        rules.teach(second.place, Place((1 << 14) - 1));
        assert_eq!(find(keys[0]).rule, first.rule);
        assert_eq!(find(keys[0]).caller, second.place);
        assert_eq!(find(keys[1]).rule, second.rule);
        assert_eq!(find(keys[1]).caller, Place((1 << 14) - 1));
        let reached = rules.at(find(keys[0]).caller, keys[1]).expect("there");
        assert_eq!(reached.rule, second.rule);
        assert!(rules.at(first.place, keys[1]).is_none());
    }
}
