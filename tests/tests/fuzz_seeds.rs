//! The seeds of the fuzz targets, replayed, and changed at random a few thousand times: a small fuzzer on every compiler.
//!
//! Invariant: what is changed follows from the number in this file, so that what fails once fails always. Not here: looking
//! for what was never reached, which `cargo xtask fuzz` does.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use naq_tests::fuzz::TARGETS;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Files of one target: few enough to be looked at.
const SEEDS_MAX: usize = 60;
/// Bytes of one file.
const SEED_MAX: usize = 4096;
/// Bytes that a reader may hold at once for each byte of its input, and besides: a reader that copies as often as its input
/// tells it to holds thousands.
const HELD_PER_BYTE: u64 = 256;
const HELD: u64 = 64 << 10;

fn fuzz_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Files of a target, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz_crate().join("seeds").join(target);
    let read = |name: String| (name.clone(), fs::read(folder.join(name)).unwrap());
    names(&folder).into_iter().map(read).collect()
}

/// Gives an input to a target; a failure names it.
fn run(target: fn(&[u8]), from: &str, input: &[u8]) {
    assert!(
        catch_unwind(|| target(input)).is_ok(),
        "a change of the seed {from} breaks a promise; make it a seed: b\"{}\"",
        input.escape_ascii()
    );
}

/// Some changes of an input: bits, bytes, cuts, and pieces of it or of another.
fn changed(input: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..=16)).min(bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..end].to_vec();
                let place = random.random_range(0..=bytes.len());
                drop(bytes.splice(place..place, piece));
            }
            _ => {
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// Replays the seeds of a target, and so many changes of each.
fn check(name: &str, changes: usize) {
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for (file, seed) in &seeds {
        run(target, file, seed);
    }
    let mut random = StdRng::seed_from_u64(20_261_123);
    for (file, seed) in &seeds {
        for _ in 0..changes {
            let (_, other) = &seeds[random.random_range(0..seeds.len())];
            run(target, file, &changed(seed, other, &mut random));
        }
    }
}

#[test]
fn envelopes_keep_their_promises() {
    check("envelope", 200);
}

#[test]
fn configurations_keep_their_promises() {
    check("config", 40);
}

#[test]
fn cron_expressions_keep_their_promises() {
    check("cron", 100);
}

#[test]
fn lines_keep_their_promises() {
    check("jsonl", 300);
}

#[test]
fn records_of_other_systems_keep_their_promises() {
    check("migration", 150);
}

#[test]
fn every_target_has_seeds_that_can_be_looked_at() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz_crate().join("seeds")), known);
    let files = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(
        names(&fuzz_crate().join("fuzz_targets")),
        files,
        "each has its program, or cargo-fuzz does not know it"
    );
    for (name, _) in TARGETS {
        let seeds = seeds(name);
        assert!((1..=SEEDS_MAX).contains(&seeds.len()), "{name}: {}", seeds.len());
        for (file, seed) in seeds {
            assert!(seed.len() <= SEED_MAX, "{name}/{file}: {} bytes", seed.len());
        }
    }
}

/// A record of another system is somebody else's, and as large as its store allows.
#[test]
fn readers_of_other_systems_hold_no_more_than_they_are_given() {
    let (_, target) = TARGETS.into_iter().find(|(name, _)| *name == "migration").unwrap();
    for (file, seed) in seeds("migration") {
        let held = allocation_counter::measure(|| target(&seed)).bytes_max;
        let bound = HELD + HELD_PER_BYTE * seed.len() as u64;
        assert!(held <= bound, "{file}: {held} bytes for {}", seed.len());
    }
}
