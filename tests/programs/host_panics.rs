//! What a Rust program sees of itself while it allocates: panics that are caught with everything dropped on the way, a
//! backtrace, a panic that ends a thread. Prints names and counts, which memspy must not change.

use std::backtrace::Backtrace;
use std::hint::black_box;
use std::panic::{catch_unwind, set_hook};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static DROPPED: AtomicUsize = AtomicUsize::new(0);

struct Counted(Vec<String>);

impl Drop for Counted {
    fn drop(&mut self) {
        // Allocates while a panic unwinds.
        self.0.push("x".repeat(300));
        DROPPED.fetch_add(self.0.len(), Relaxed);
    }
}

#[inline(never)]
fn deep(depth: usize) -> usize {
    let counted = Counted(vec![format!("{depth}")]);
    assert!(depth > 0, "at the bottom, after {} drops", DROPPED.load(Relaxed));
    black_box(deep(depth - 1) + counted.0.len())
}

#[inline(never)]
fn backtrace(depth: usize) -> String {
    if depth > 0 {
        return black_box(backtrace(depth - 1) + ".");
    }
    Backtrace::force_capture().to_string()
}

fn main() {
    set_hook(Box::new(|panic| println!("{panic}")));
    for depth in (0..60).map(|i| i % 12) {
        let caught = catch_unwind(|| deep(depth)).expect_err("panics");
        let text = caught.downcast::<String>().expect("a message");
        println!("caught {text}");
    }
    println!("{}", backtrace(3));
    println!("{}", std::thread::spawn(|| deep(5)).join().is_err());
    println!("{}", DROPPED.load(Relaxed));
}
