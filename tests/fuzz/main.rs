//! The readers of hostile input under mutated seeds: a bounded form of `fuzz`, on the stable toolchain.
//!
//! The mutations are the same in every run, unless `FUZZ_SEED` says otherwise; `FUZZ_ROUNDS` says how many there are of
//! each seed. An input over which a reader panics is left in a file that `cargo fuzz run` takes.

// A crate of its own for cargo-fuzz, a module here.
#[allow(unreachable_pub)]
#[path = "../../fuzz/targets/mod.rs"]
mod targets;

mod mutation;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mutation::Mutator;
use targets::TARGETS;

/// Mutations of each seed when nobody says otherwise: the whole of it takes a few seconds.
const ROUNDS: u64 = 60;

/// The seeds of all targets, a folder for each.
fn seeds() -> &'static Path {
    static SEEDS: OnceLock<PathBuf> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-seeds");
        let _ = fs::remove_dir_all(&place);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let made = Command::new(script)
            .arg(env!("CARGO_BIN_EXE_memspy"))
            .arg(&place)
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "fuzz/seeds failed"
        );
        place
    })
}

/// The seeds of one target, in the order of their names.
fn seeds_of(target: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(seeds().join(target)).expect("each target has seeds");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("it can be read"))
        .collect()
}

fn number(variable: &str, usual: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(usual, |text| text.parse().expect("a number"))
}

/// Keeps the input that is being tried, for the case that trying it panics.
struct Trial<'a> {
    target: &'a str,
    input: &'a [u8],
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let place =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}-input", self.target));
            let kept = fs::write(&place, self.input);
            let shown = place.display();
            eprintln!(
                "to repeat it: cargo fuzz run {} {shown} ({kept:?})",
                self.target
            );
        }
    }
}

#[test]
fn no_mutated_input_makes_a_reader_panic() {
    let mut executions = 0;
    for (target, run) in TARGETS {
        let seeds = seeds_of(target);
        let mut mutator = Mutator::new(number("FUZZ_SEED", 1));
        let rounds = number("FUZZ_ROUNDS", ROUNDS);
        for seed in &seeds {
            for round in 0..=rounds {
                let input = match round {
                    0 => seed.clone(),
                    _ => mutator.mutate(seed, &seeds),
                };
                let trial = Trial {
                    target,
                    input: &input,
                };
                run(trial.input);
                executions += 1;
            }
        }
    }
    targets::clean_up();
    println!("{executions} executions");
}
