//! An unwind rule in one word, and the table of the rules that were worked out.
//!
//! A rule says how to get from a frame to its caller's: the CFA (canonical frame address: the stack pointer after the
//! return), and where the frame pointer was saved. The return address is at CFA - 8. Frames that need more are `Slow`
//! and are worked out anew each time. The table is one for all threads.

use crate::memory;
use core::sync::atomic::{
    AtomicPtr, AtomicU64,
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
    /// CFA = stack pointer + `cfa`; the frame pointer lies at CFA - `bp`, or is unchanged when that is 0.
    FromSp { cfa: usize, bp: usize },
    /// CFA = frame pointer + `cfa`; `bp` as above.
    FromBp { cfa: usize, bp: usize },
}

/// A step and the module that it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) step: Step,
    /// Number of the module, 0: none.
    pub(crate) module: u32,
}

// The packed form: 3 bits kind (never 0), 24 bits CFA / 8, 16 bits frame pointer / 8, 16 bits module.
const CFA: u32 = 3;
const BP: u32 = 27;
const MODULE: u32 = 43;

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
            module: (word >> MODULE) as u32,
        }
    }
}

const ROWS: usize = 1 << 13;

/// Two entries beside each other, one cache line with its neighbour.
type Row = [Entry; 2];

/// An entry proves itself: `sealed` is the key exclusive-or the rule, so that two writers at once make an entry that
/// nobody finds, and never one that is wrong.
struct Entry {
    sealed: AtomicU64,
    rule: AtomicU64,
}

static TABLE: AtomicPtr<Row> = AtomicPtr::new(core::ptr::null_mut());

/// Makes the table. Without it everything works, slowly.
pub(super) fn start() {
    if TABLE.load(Relaxed).is_null()
        && let Some(table) = memory::map_pages(ROWS * size_of::<Row>())
    {
        TABLE.store(table.as_ptr().cast(), Release);
    }
}

/// What a rule is found by: an address, whether it is one that was interrupted (not a return address), and the
/// generation of the modules, of which 16 bits are enough: see [`Key::new`].
#[derive(Clone, Copy)]
pub(super) struct Key(u64);

impl Key {
    /// User addresses have 47 bits. A rule that is 65536 generations old is taken for a new one: by then the table has
    /// been overwritten, and a wrong rule still reads inside the stack only.
    #[inline(always)]
    pub(super) fn new(ip: usize, exact: bool, generation: u32) -> Key {
        let ip = ip as u64 & ((1 << 47) - 1);
        Key(ip | u64::from(exact) << 47 | u64::from(generation) << 48)
    }

    #[inline(always)]
    fn row(self) -> Option<&'static Row> {
        let index = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ROWS.trailing_zeros());
        let table = TABLE.load(Acquire);
        // SAFETY: the table has `ROWS` rows, which the shift stays below, and lives for ever.
        unsafe { (!table.is_null()).then(|| &*table.add(index as usize)) }
    }

    /// The rule, if it was worked out before.
    #[inline(always)]
    pub(super) fn find(self) -> Option<Rule> {
        self.row()?.iter().find_map(|entry| {
            let rule = entry.rule.load(Relaxed);
            (entry.sealed.load(Relaxed) ^ rule == self.0).then(|| Rule::unpack(rule))
        })
    }

    /// Keeps a rule; the older of two that share a place gives way.
    pub(super) fn keep(self, rule: Rule) {
        if let (Some([first, second]), Some(word)) = (self.row(), rule.pack()) {
            second.rule.store(first.rule.load(Relaxed), Relaxed);
            second.sealed.store(first.sealed.load(Relaxed), Relaxed);
            first.rule.store(word, Relaxed);
            first.sealed.store(self.0 ^ word, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Rule, Step};

    #[test]
    fn a_rule_survives_packing_or_is_refused() {
        for step in [
            Step::End,
            Step::FramePointer,
            Step::Slow,
            Step::FromSp { cfa: 8, bp: 0 },
            Step::FromSp {
                cfa: 8 * ((1 << 24) - 1),
                bp: 8 * 65535,
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
                    cfa: 8 << 24,
                    bp: 0
                },
                module: 1
            }
            .pack(),
            None
        );
        assert_eq!(
            Rule {
                step: Step::FromSp {
                    cfa: 8,
                    bp: 8 << 16
                },
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
        Key::new(0x7f00_1234, false, 7).keep(rule);
        assert_eq!(Key::new(0x7f00_1234, false, 7).find(), Some(rule));
        assert_eq!(Key::new(0x7f00_1234, true, 7).find(), None);
        assert_eq!(Key::new(0x7f00_1234, false, 8).find(), None);
        assert_eq!(Key::new(0x7f00_1235, false, 7).find(), None);
    }
}
