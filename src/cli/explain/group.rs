//! Calls that tell the same, wherever they stand in the story: one function, one reason, one site.

use std::collections::{BTreeSet, HashMap};
use std::mem::{Discriminant, discriminant};

use memspy_analysis::event::{Address, Errno, Via};
use memspy_analysis::model::Memory;
use memspy_analysis::space::{Chapter, Reason};
use memspy_log::Op;

/// What calls of one group have in common. The site is the function that asked, not the whole stack.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    op: Op,
    via: Option<Via>,
    reason: Discriminant<Reason>,
    err: Option<Errno>,
    site: Option<(u32, Address)>,
}

/// Calls that tell the same, in the order of time; at least one.
pub(super) struct Group<'a> {
    /// The first of them.
    pub(super) first: &'a Chapter,
    /// The others.
    pub(super) rest: Vec<&'a Chapter>,
}

impl<'a> Group<'a> {
    /// Every call on its own.
    pub(super) fn of_each(chapters: &'a [Chapter]) -> Vec<Group<'a>> {
        chapters.iter().map(Group::of).collect()
    }

    /// The groups in the order of their first calls. `memory` knows the stacks.
    pub(super) fn of_equal(chapters: &'a [Chapter], memory: &Memory) -> Vec<Group<'a>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<Key, usize> = HashMap::new();
        for chapter in chapters {
            if is_unique(chapter.reason) {
                groups.push(Group::of(chapter));
                continue;
            }
            let node = memory.stacks.node(chapter.stack);
            let key = Key {
                op: chapter.op,
                via: chapter.via,
                reason: discriminant(&chapter.reason),
                err: chapter.err,
                site: node.map(|node| (node.module, node.ip)),
            };
            match places.get(&key) {
                Some(place) => groups[*place].rest.push(chapter),
                None => {
                    places.insert(key, groups.len());
                    groups.push(Group::of(chapter));
                }
            }
        }
        groups
    }

    fn of(first: &'a Chapter) -> Group<'a> {
        Group {
            first,
            rest: Vec::new(),
        }
    }

    /// All of them.
    pub(super) fn chapters(&self) -> impl Iterator<Item = &'a Chapter> {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// How many calls they are.
    pub(super) fn times(&self) -> u64 {
        self.chapters().map(|chapter| chapter.times).sum()
    }

    /// By how much they changed the mapped bytes, all together.
    pub(super) fn bytes(&self) -> i64 {
        let bytes = self.chapters().map(|chapter| chapter.bytes);
        bytes.fold(0, i64::saturating_add)
    }

    /// When the last of them was.
    pub(super) fn until(&self) -> u64 {
        let until = self.chapters().map(|chapter| chapter.until);
        until.max().unwrap_or(self.first.until)
    }

    /// How many call stacks led to them.
    pub(super) fn stacks(&self) -> usize {
        let stacks: BTreeSet<_> = self.chapters().map(|chapter| chapter.stack).collect();
        stacks.len()
    }

    /// How many threads made them.
    pub(super) fn threads(&self) -> usize {
        let threads: BTreeSet<_> = self.chapters().map(|chapter| chapter.thread).collect();
        threads.len()
    }
}

/// Whether a reason tells something that is so only once: a first time, a number, a threshold that moved.
fn is_unique(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::FirstHeap { .. }
            | Reason::ArenaMade { .. }
            | Reason::Unmapped { moved: Some(_), .. }
    )
}
