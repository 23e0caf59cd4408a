//! The pool's threads and handlers, as loom's.

use crate::owner::{Owner, OwnerWord, in_turn, in_turn_of};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Ids and thread pointers of threads. The dead one's stack, and so its thread pointer, is used again by the heir.
const DEAD: (u32, usize) = (7, 0x7000);
const HEIR: (u32, usize) = (8, 0x7000);
const OTHER: (u32, usize) = (9, 0x9000);
const LATER: (u32, usize) = (10, 0xa000);

/// A buffer: its words, and what it holds.
struct Buffer {
    owner: OwnerWord,
    flusher: AtomicU32,
    lines: UnsafeCell<Lines>,
}

#[derive(Default)]
struct Lines {
    /// Who began here last.
    of: u32,
    pending: u32,
    written: u32,
}

impl Buffer {
    /// As `pool::start` makes it.
    fn free() -> Arc<Buffer> {
        let owner = OwnerWord::free();
        owner.disown();
        Arc::new(Buffer {
            owner,
            flusher: AtomicU32::new(0),
            lines: UnsafeCell::new(Lines::default()),
        })
    }

    /// A buffer in which a thread that is dead by now left two lines.
    fn of_the_dead() -> Arc<Buffer> {
        let buffer = Buffer::free();
        assert!(buffer.owner.claim_free(DEAD.0, DEAD.1));
        buffer.live(DEAD.0);
        buffer
    }

    /// The owner begins and makes two lines.
    fn live(&self, tid: u32) {
        self.change(|lines| {
            lines.of = tid;
            lines.pending += 1;
        });
        self.change(|lines| {
            assert_eq!(lines.of, tid, "two threads live in one buffer");
            lines.pending += 1;
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Lines) -> T) -> T {
        // SAFETY: loom ends the test when another thread has the cell.
        self.lines.with_mut(|lines| change(unsafe { &mut *lines }))
    }

    fn drain(&self) {
        self.change(|lines| lines.written += std::mem::take(&mut lines.pending));
    }

    /// As `pool::inherit`.
    fn inherit(&self, dead: Owner, (tid, pointer): (u32, usize)) -> bool {
        let drain = || in_turn(&self.flusher, tid, || self.drain()).is_some();
        self.owner.inherit(dead, tid, pointer, drain)
    }

    /// As `pool::own_dead`, by a thread that lives in the buffer if it gets it.
    fn inherit_own(&self, me: (u32, usize)) -> bool {
        let owner = self.owner.read();
        let got = self.owner.was_of(owner, me.0, me.1) && self.inherit(owner, me);
        if got {
            self.live(me.0);
        }
        got
    }

    /// As `pool::other_dead`: the kernel says of the dead one alone that it is.
    fn inherit_other(&self, me: (u32, usize)) -> bool {
        let owner = self.owner.read();
        let got = owner.tid() == DEAD.0 && self.inherit(owner, me);
        if got {
            self.live(me.0);
        }
        got
    }

    /// As `close_out::take_out`, as long as the owner is dead; answers whether it drained the buffer. Of a living owner it
    /// would write what is committed, which needs no right to the rest.
    fn end(&self) -> bool {
        loop {
            let owner = self.owner.read();
            if owner.tid() != DEAD.0 {
                return false;
            }
            let drain = || self.drain();
            if in_turn_of(&self.owner, owner, &self.flusher, OTHER.0, drain).is_some() {
                return true;
            }
            thread::yield_now();
        }
    }

    /// Lines, wherever they are.
    fn all(&self) -> u32 {
        self.change(|lines| lines.pending + lines.written)
    }

    fn written(&self) -> u32 {
        self.change(|lines| lines.written)
    }
}

/// Runs a model through all interleavings, and prints how many there were.
fn explore(what: &str, model: impl Fn() + Send + Sync + 'static) {
    let executions = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    loom::model(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    println!("explored\t{what}\t{}", executions.load(Relaxed));
}

/// The first free buffer, as `pool::claim` finds it.
fn claim_first(pool: &[Arc<Buffer>], (tid, pointer): (u32, usize)) -> Option<usize> {
    let got = pool
        .iter()
        .position(|buffer| buffer.owner.claim_free(tid, pointer))?;
    pool[got].live(tid);
    Some(got)
}

#[test]
fn threads_that_claim_at_once_never_get_the_same_buffer() {
    explore("three threads claim one free buffer", || {
        let pool = [Buffer::free()];
        let threads = [OTHER, LATER].map(|me| {
            let pool = pool.clone();
            thread::spawn(move || claim_first(&pool, me))
        });
        let mut got = vec![claim_first(&pool, HEIR)];
        got.extend(threads.map(|thread| thread.join().unwrap()));
        got.sort();
        assert_eq!(got, [None, None, Some(0)]);
    });
    explore("two threads claim two free buffers", || {
        let pool = [Buffer::free(), Buffer::free()];
        let beside = pool.clone();
        let other = thread::spawn(move || claim_first(&beside, OTHER));
        let mut got = [claim_first(&pool, HEIR), other.join().unwrap()];
        got.sort();
        assert_eq!(got, [Some(0), Some(1)]);
    });
}

#[test]
fn a_claim_of_a_handler_between_reading_and_claiming_is_noticed() {
    explore("a handler claims inside a claim, beside a thread", || {
        let pool = [Buffer::free(), Buffer::free(), Buffer::free()];
        let beside = pool.clone();
        let other = thread::spawn(move || claim_first(&beside, OTHER));
        let mut got = Vec::new();
        let outer = pool.iter().position(|buffer| {
            let owner = buffer.owner.read();
            if got.is_empty() {
                got.push(claim_first(&pool, HEIR));
            }
            owner.tid() == 0 && buffer.owner.claim(owner, HEIR.0, HEIR.1)
        });
        if let Some(outer) = outer {
            pool[outer].live(HEIR.0);
        }
        got.extend([outer, other.join().unwrap()]);
        got.sort();
        assert_eq!(got, [Some(0), Some(1), Some(2)]);
    });
}

#[test]
fn one_thread_inherits_and_the_lines_are_written_once() {
    explore("two threads inherit from the dead", || {
        let buffer = Buffer::of_the_dead();
        let beside = buffer.clone();
        let other = thread::spawn(move || beside.inherit_other(OTHER));
        let heir = buffer.inherit_own(HEIR);
        let other = other.join().unwrap();
        assert!(heir != other, "one of them, whoever comes first");
        assert_eq!((buffer.written(), buffer.all()), (2, 4));
    });
}

#[test]
fn a_new_owner_is_not_taken_for_the_dead_one_by_the_old_thread_pointer() {
    explore("a third thread inherits from two that were faster", || {
        let buffer = Buffer::of_the_dead();
        let threads = [OTHER, LATER].map(|me| {
            let buffer = buffer.clone();
            thread::spawn(move || buffer.inherit_other(me))
        });
        let heir = buffer.inherit_own(HEIR);
        let others = threads.map(|thread| thread.join().unwrap());
        assert_eq!(
            1,
            u32::from(heir) + others.map(u32::from).iter().sum::<u32>()
        );
        assert_eq!((buffer.written(), buffer.all()), (2, 4));
    });
}

#[test]
fn an_owner_that_has_come_back_with_the_same_id_is_another() {
    explore("an id comes again while its word is held", || {
        let buffer = Buffer::of_the_dead();
        // The kernel said of this one that it is dead.
        let dead = buffer.owner.read();
        let beside = buffer.clone();
        let again = thread::spawn(move || beside.inherit_own((DEAD.0, LATER.1)));
        let other = buffer.inherit(dead, OTHER);
        if other {
            buffer.live(OTHER.0);
        }
        assert!(again.join().unwrap() != other);
        assert_eq!((buffer.written(), buffer.all()), (2, 4));
    });
}

#[test]
fn the_end_and_an_heir_never_flush_at_once_and_the_end_leaves_the_living_alone() {
    explore("the image ends while a thread inherits", || {
        let buffer = Buffer::of_the_dead();
        let beside = buffer.clone();
        let end = thread::spawn(move || beside.end());
        let heir = buffer.inherit_own(HEIR);
        let ended = end.join().unwrap();
        let written = if heir || ended { 2 } else { 0 };
        assert_eq!(buffer.written(), written, "no line of the living");
        assert_eq!(buffer.all(), if heir { 4 } else { 2 });
        assert_eq!(
            buffer.owner.read().tid(),
            if heir { HEIR.0 } else { DEAD.0 }
        );
    });
}

#[test]
fn a_buffer_that_was_handed_back_can_be_inherited_by_the_next() {
    explore(
        "two threads inherit while the dead one's buffer is flushed",
        || {
            let buffer = Buffer::of_the_dead();
            let dead = buffer.owner.read();
            let threads = in_turn_of(&buffer.owner, dead, &buffer.flusher, LATER.0, || {
                let heir = buffer.clone();
                let other = buffer.clone();
                let threads = [
                    thread::spawn(move || heir.inherit_own(HEIR)),
                    thread::spawn(move || other.inherit_other(OTHER)),
                ];
                buffer.drain();
                threads
            });
            let got = threads.unwrap().map(|thread| thread.join().unwrap());
            assert_ne!(got, [true, true], "a buffer with two owners");
            let taken = got.contains(&true) || buffer.inherit_other(LATER);
            assert!(taken, "nobody has it, and nobody can have it");
            assert_eq!((buffer.written(), buffer.all()), (2, 4));
        },
    );
}
