//! The marking: which blocks are reachable, possibly, indirectly or definitely lost.
//!
//! The kinds are those of Valgrind's manual ("Memory leak detection"). First everything that the roots lead to: a
//! block is reachable when a chain of pointers to starts of blocks leads to it, possible when each chain has a pointer
//! into the middle of one. Then, in ascending order, each block that is still unreached becomes the head of a group,
//! and all that it leads to is indirect; a head that a later one leads to is indirect as well.
//!
//! The algorithm knows memory only through [`Memory`], so that it runs on made-up heaps as well. Pointers go through a
//! short queue between being seen and being judged, long enough for the prefetches in between to arrive. A pointer to
//! the next block in memory, as in a list that was built in one go, is judged at once, and that block is scanned next:
//! the processor reads ahead there by itself.

use super::blocks::{Blocks, State};
use super::heuristics::stands_for_start;

/// The frozen memory of a process.
pub(super) trait Memory {
    /// The word at an aligned address inside a block or a module.
    fn word(&self, at: usize) -> u64;
    /// Calls `visit` with each whole aligned word of a range inside a block that may be other than 0.
    fn each_word(&self, from: usize, to: usize, visit: impl FnMut(u64));
    /// Says that the word at an address, which need not exist, may be wanted soon.
    fn prefetch(&self, at: usize);
    /// Whether the word at an address lies in a readable mapping of a file.
    fn is_module(&self, at: usize) -> bool;
    /// Whether an address lies in an executable mapping of a file.
    fn is_code(&self, at: usize) -> bool;
}

/// Pointers on their way.
const QUEUE: usize = 32;

/// How far on memory is fetched while one block leads to the next: the processor's own reading ahead ends with the page.
const AHEAD: usize = 2048;
const LINE: usize = 64;
const PAGE: usize = 4096;

#[derive(Clone, Copy)]
struct Pointer {
    at: usize,
    /// Whether what holds it is itself reached by starts of blocks only.
    sure: bool,
}

/// The work in hand.
pub(super) struct Marker<'a, 'b, M> {
    memory: &'a M,
    blocks: &'a mut Blocks<'b>,
    /// Blocks to scan; room for one entry for each block.
    stack: &'a mut [u32],
    top: usize,
    queue: [Pointer; QUEUE],
    begin: usize,
    waiting: usize,
    /// The head of the group that is being followed; `None` while it is the roots.
    head: Option<u32>,
}

impl<'a, 'b, M: Memory> Marker<'a, 'b, M> {
    /// `stack` needs room for as many entries as there are blocks.
    pub(super) fn new(memory: &'a M, blocks: &'a mut Blocks<'b>, stack: &'a mut [u32]) -> Self {
        let nothing = Pointer { at: 0, sure: false };
        Marker {
            memory,
            blocks,
            stack,
            top: 0,
            queue: [nothing; QUEUE],
            begin: 0,
            waiting: 0,
            head: None,
        }
    }

    /// Takes a word of the roots.
    #[inline(always)]
    pub(super) fn root(&mut self, word: u64) {
        self.offer(word, true);
    }

    /// Follows what was offered to its end, then judges the rest: afterwards each block has its state.
    pub(super) fn finish(&mut self) {
        self.follow();
        for number in 0..self.blocks.len() as u32 {
            if self.blocks.state(number) == State::Unreached {
                self.head = Some(number);
                self.push(number);
                self.follow();
            }
        }
    }

    #[inline(always)]
    fn offer(&mut self, word: u64, sure: bool) {
        let (lowest, span) = self.blocks.span();
        if (word as usize).wrapping_sub(lowest) >= span {
            return;
        }
        let at = word as usize;
        if let Some(granule) = self.blocks.granule(at) {
            prefetch(granule);
        }
        self.memory.prefetch(at);
        if self.waiting == QUEUE {
            self.judge_oldest();
        }
        if let Some(slot) = self.queue.get_mut((self.begin + self.waiting) % QUEUE) {
            *slot = Pointer { at, sure };
            self.waiting += 1;
        }
        // Half way through the queue the index has arrived: fetch the block's word.
        if let Some(half) = self.queue.get((self.begin + self.waiting / 2) % QUEUE)
            && self.waiting > QUEUE / 2
            && let Some(granule) = self.blocks.granule(half.at)
            && let Some(word) = self.blocks.word(granule.saturating_sub(1))
        {
            prefetch(word);
        }
    }

    fn judge_oldest(&mut self) {
        let Some(pointer) = self.queue.get(self.begin % QUEUE).copied() else {
            return;
        };
        self.begin = (self.begin + 1) % QUEUE;
        self.waiting -= 1;
        if let Some(number) = self.blocks.find(pointer.at) {
            match self.head {
                None => self.reached(number, pointer),
                Some(head) => self.lost_with(number, head),
            }
        }
    }

    fn reached(&mut self, number: u32, pointer: Pointer) {
        let state = self.blocks.state(number);
        if state == State::Reachable {
            return;
        }
        if pointer.sure {
            let (from, size) = self.blocks.extent(number);
            let at = pointer.at;
            if at == from || stands_for_start(self.memory, at, from, size) {
                self.blocks.set_state(number, State::Reachable);
                self.push(number);
                return;
            }
        }
        if state == State::Unreached {
            self.blocks.set_state(number, State::Possible);
            self.push(number);
        }
    }

    fn lost_with(&mut self, number: u32, head: u32) {
        if number != head && self.blocks.state(number) == State::Unreached {
            self.blocks.set_state(number, State::Indirect);
            self.push(number);
        }
    }

    #[inline(always)]
    fn push(&mut self, number: u32) {
        if self.blocks.queue(number)
            && let Some(slot) = self.stack.get_mut(self.top)
        {
            *slot = number;
            self.top += 1;
        }
    }

    fn follow(&mut self) {
        loop {
            while self.top > 0 {
                self.top -= 1;
                let mut number = self.stack.get(self.top).copied().unwrap_or(0);
                let mut ahead = 0;
                while self.scan(number, ahead) {
                    number += 1;
                    ahead = AHEAD;
                }
            }
            if self.waiting == 0 {
                return;
            }
            while self.waiting > 0 && self.top == 0 {
                self.judge_oldest();
            }
        }
    }

    /// Takes the words of a block; answers whether the next block in memory is to be scanned because of them, and
    /// nobody else will. `ahead`: how far on the next words will be wanted, in bytes.
    #[inline(always)]
    fn scan(&mut self, number: u32, ahead: usize) -> bool {
        self.blocks.unqueue(number);
        let sure = self.blocks.state(number) == State::Reachable;
        let (from, size) = self.blocks.extent(number);
        let next = self.blocks.start(number + 1);
        let (lowest, span) = self.blocks.span();
        let memory = self.memory;
        if ahead > 0 && size <= PAGE {
            for line in (0..size + LINE).step_by(LINE) {
                memory.prefetch(from + ahead + line);
            }
        }
        let mut goes_on = false;
        // Of a hundred words a few are pointers: only these leave the loop.
        memory.each_word(from, from + size, |word| {
            if (word as usize).wrapping_sub(lowest) < span {
                goes_on |= self.meet(word, (number, next), sure);
            }
        });
        goes_on
    }

    /// Judges a pointer if it is one to the start of the block behind `number`, else later; answers whether that block
    /// is to be scanned because of it.
    #[inline(never)]
    fn meet(&mut self, word: u64, (number, next): (u32, Option<usize>), sure: bool) -> bool {
        if next != Some(word as usize) {
            self.offer(word, sure);
            return false;
        }
        self.meet_neighbour(number + 1, sure)
    }

    /// Judges a pointer to the start of a block; answers whether the block is to be scanned because of it.
    #[inline(always)]
    fn meet_neighbour(&mut self, number: u32, sure: bool) -> bool {
        let reached = match (self.head, sure) {
            (None, true) => State::Reachable,
            (None, false) => State::Possible,
            (Some(head), _) if head == number => return false,
            (Some(_), _) => State::Indirect,
        };
        let state = self.blocks.state(number);
        let better = match self.head {
            None => reached > state,
            Some(_) => state == State::Unreached,
        };
        if better {
            self.blocks.set_state(number, reached);
        }
        better && self.blocks.queue(number)
    }
}

#[inline(always)]
fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address has no effect that a program could see.
        unsafe { _mm_prefetch(core::ptr::from_ref(place).cast(), _MM_HINT_T0) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::super::blocks::State::{self, *};
    use super::super::blocks::tests::blocks;
    use super::{Marker, Memory};
    use std::collections::HashMap;

    /// Memory as a map from aligned address to word; code is 0xc000..0xd000, modules 0xc000..0xe000.
    #[derive(Default)]
    struct Words(HashMap<usize, u64>);

    impl Memory for Words {
        fn word(&self, at: usize) -> u64 {
            *self.0.get(&at).unwrap_or(&0)
        }
        fn each_word(&self, from: usize, to: usize, mut visit: impl FnMut(u64)) {
            let mut at = from.next_multiple_of(8);
            while at + 8 <= to {
                visit(self.word(at));
                at += 8;
            }
        }
        fn prefetch(&self, _: usize) {}
        fn is_module(&self, at: usize) -> bool {
            (0xc000..0xe000).contains(&at)
        }
        fn is_code(&self, at: usize) -> bool {
            (0xc000..0xd000).contains(&at)
        }
    }

    /// The states of blocks, given `(address, size)`s, words `(address, value)` and roots.
    fn judge(of: &[(usize, usize)], words: &[(usize, usize)], roots: &[usize]) -> Vec<State> {
        let memory = Words(words.iter().map(|(at, to)| (*at, *to as u64)).collect());
        let mut blocks = blocks(of);
        let mut stack = vec![0; of.len()];
        let mut marker = Marker::new(&memory, &mut blocks, &mut stack);
        for root in roots {
            marker.root(*root as u64);
        }
        marker.finish();
        (0..of.len()).map(|i| blocks.state(i as u32)).collect()
    }

    const A: usize = 0x10000;
    const B: usize = 0x10100;
    const C: usize = 0x10200;
    const D: usize = 0x10300;
    const ABC: [(usize, usize); 3] = [(A, 40), (B, 40), (C, 40)];

    #[test]
    fn a_chain_from_a_root_is_reachable_and_the_rest_definitely_lost() {
        assert_eq!(
            judge(&ABC, &[(A + 8, B)], &[A]),
            [Reachable, Reachable, Unreached]
        );
    }

    #[test]
    fn what_a_lost_block_leads_to_is_indirectly_lost() {
        assert_eq!(
            judge(&ABC, &[(A, B), (B, C)], &[]),
            [Unreached, Indirect, Indirect]
        );
        assert_eq!(
            judge(&ABC, &[(C, B), (B, A)], &[]),
            [Indirect, Indirect, Unreached]
        );
    }

    #[test]
    fn of_a_lost_cycle_the_lowest_block_is_the_definite_one() {
        assert_eq!(
            judge(&ABC, &[(A, B), (B, C), (C, A)], &[]),
            [Unreached, Indirect, Indirect]
        );
        assert_eq!(judge(&ABC, &[(A, A)], &[]), [Unreached; 3]);
    }

    #[test]
    fn a_block_reached_only_by_its_middle_is_possibly_lost_and_so_is_what_follows() {
        assert_eq!(
            judge(&ABC, &[(A, B)], &[A + 16]),
            [Possible, Possible, Unreached]
        );
        assert_eq!(
            judge(&ABC, &[(A, B + 8)], &[A]),
            [Reachable, Possible, Unreached]
        );
    }

    #[test]
    fn a_start_pointer_found_later_lifts_all_that_follows() {
        let words = [(A, B), (B, C)];
        assert_eq!(judge(&ABC, &words, &[A + 16, A]), [Reachable; 3]);
        assert_eq!(judge(&ABC, &words, &[A, A + 16]), [Reachable; 3]);
    }

    #[test]
    fn a_lost_block_that_points_into_the_middle_makes_its_target_indirect() {
        assert_eq!(
            judge(&ABC, &[(A, B + 8)], &[]),
            [Unreached, Indirect, Unreached]
        );
    }

    #[test]
    fn one_past_the_end_is_no_reference_and_a_block_without_bytes_has_one() {
        assert_eq!(
            judge(&[(A, 32), (B, 0)], &[], &[A + 32, B]),
            [Unreached, Reachable]
        );
    }

    #[test]
    fn the_old_string_the_counted_array_and_the_length_prefix_stand_for_their_start() {
        let of = [
            (A, 24 + 10 + 1),
            (B, 8 + 3 * 12),
            (C, 8 + 100),
            (D, 8 + 3 * 12),
        ];
        let words = [(A, 5), (A + 8, 10), (B, 3), (C, 100), (D, 5)];
        let roots = [A + 24, B + 8, C + 8, D + 8];
        assert_eq!(
            judge(&of, &words, &roots),
            [Reachable, Reachable, Reachable, Possible]
        );
    }

    #[test]
    fn a_pointer_to_a_second_base_stands_for_its_object() {
        let table = [
            (0xd000, 0xc100),
            (0xd008, 0),
            (0xd010, 0xc200),
            (0xd100, 0xc100),
            (0xd108, 0xc120),
        ];
        let mut words = table.to_vec();
        words.extend([(A, 0xd000), (A + 16, 0xd100), (B, 0xd000), (B + 16, 0xd800)]);
        assert_eq!(
            judge(&ABC, &words, &[A + 16, B + 16]),
            [Reachable, Possible, Unreached]
        );
    }

    /// What the manual says, without queue, index or order of work: each state from its definition.
    fn by_definition(
        of: &[(usize, usize)],
        words: &[(usize, usize)],
        roots: &[usize],
    ) -> Vec<State> {
        let holder = |at: usize| {
            of.iter()
                .position(|(from, size)| at >= *from && at < from + size)
        };
        let edges = |i: usize| {
            words
                .iter()
                .filter(move |(at, _)| holder(*at) == Some(i))
                .filter_map(move |(_, to)| holder(*to).map(|j| (j, of[j].0 == *to)))
                .collect::<Vec<_>>()
        };
        let mut states = vec![Unreached; of.len()];
        let mut todo: Vec<(usize, State)> = roots
            .iter()
            .filter_map(|root| holder(*root).map(|i| (i, *root == of[i].0)))
            .map(|(i, start)| (i, if start { Reachable } else { Possible }))
            .collect();
        while let Some((i, state)) = todo.pop() {
            if states[i] < state {
                states[i] = state;
                for (j, start) in edges(i) {
                    todo.push((j, if start { state } else { Possible }));
                }
            }
        }
        for head in 0..of.len() {
            if states[head] == Unreached {
                let mut todo = vec![head];
                while let Some(i) = todo.pop() {
                    for (j, _) in edges(i) {
                        if j != head && states[j] == Unreached {
                            states[j] = Indirect;
                            todo.push(j);
                        }
                    }
                }
            }
        }
        states
    }

    #[test]
    fn random_heaps_are_judged_as_the_definition_says() {
        let mut seed = 7u64;
        let mut random = |below: usize| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        for _ in 0..300 {
            let of: Vec<_> = (0..60).map(|i| (A + i * 0x40, 17 + random(32))).collect();
            // Odd values in the first words keep the heuristics out of it.
            let target = |random: &mut dyn FnMut(usize) -> usize| {
                let (from, size) = of[random(60)];
                if random(3) == 0 {
                    from + 1 + random(size + 8)
                } else {
                    from
                }
            };
            let mut words = Vec::new();
            for (from, _) in &of {
                if random(3) > 0 {
                    words.push((from + 8 * random(2), target(&mut random)));
                }
            }
            let roots: Vec<_> = (0..4).map(|_| target(&mut random)).collect();
            assert_eq!(
                judge(&of, &words, &roots),
                by_definition(&of, &words, &roots)
            );
        }
    }
}
