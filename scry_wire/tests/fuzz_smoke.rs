//! The fuzz targets' entry points on stable Rust: golden bytes, mutated at
//! random from a fixed seed, for a few seconds.
//!
//! `SCRY_FUZZ_SEED` and `SCRY_FUZZ_ROUNDS` in the environment choose another
//! run; a failure prints the seed, the input's name and its bytes.
#![allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is the finding")]

#[path = "../../fuzz/entry_points.rs"]
mod entry_points;
mod hex;

use scry_wire::limits::FRAME_HEADER_LEN;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Mutations of each input.
const ROUNDS: u64 = 4_000;
const SEED: u64 = 0x5343_5259;

type EntryPoint = fn(&[u8]);

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// xorshift64*: enough to choose places and bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// One to four changes: flipped bits, other bytes, extreme numbers, pieces
/// removed, doubled, or taken from another input.
fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let len = random.below(9).min(bytes.len() - at);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.byte(),
            2 => bytes[at..at + len].fill([0, 0xff, 0x7f, 0x80][random.below(4)]),
            3 => drop(bytes.drain(at..at + len)),
            4 => {
                let piece = bytes[at..at + len].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            5 => {
                let from = random.below(other.len() + 1);
                let to = from + random.below(33).min(other.len() - from);
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn run(name: &str, entry_point: EntryPoint, seeds: &[(String, Vec<u8>)]) {
    let seed = from_env("SCRY_FUZZ_SEED", SEED);
    let mut random = Random(seed | 1);
    for (seed_name, bytes) in seeds {
        for round in 0..=from_env("SCRY_FUZZ_ROUNDS", ROUNDS) {
            let other = &seeds[random.below(seeds.len())].1;
            let input = if round == 0 { bytes.clone() } else { mutate(bytes, other, &mut random) };
            let result = catch_unwind(AssertUnwindSafe(|| entry_point(&input)));
            assert!(result.is_ok(), "{name}: seed {seed}, round {round} of {seed_name}: {input:02x?}");
        }
    }
}

fn golden(of_entry_point: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let seeds: Vec<_> = hex::names()
        .into_iter()
        .filter_map(|name| of_entry_point(&name, hex::golden(&name)).map(|bytes| (name, bytes)))
        .collect();
    assert!(!seeds.is_empty());
    seeds
}

fn is_frame(name: &str) -> bool {
    name != "tuple" && !["change_", "mark_", "pack_"].iter().any(|other| name.starts_with(other))
}

#[test]
fn frames() {
    run("frame", entry_points::frame, &golden(|name, bytes| is_frame(name).then_some(bytes)));
}

#[test]
fn control_messages() {
    // The tag, then the payload: behind the checksum, where mutations reach the readers.
    let seeds =
        golden(|name, bytes| is_frame(name).then(|| [&bytes[4..5], &bytes[FRAME_HEADER_LEN..]].concat()));
    run("control", entry_points::control, &seeds);
}

#[test]
fn changes() {
    let seeds = golden(|name, bytes| match name {
        "batch" => Some([&[7], &bytes[FRAME_HEADER_LEN..]].concat()),
        _ if name.starts_with("change_") || name.starts_with("mark_") => Some([&[3], &bytes[..]].concat()),
        _ => None,
    });
    run("change", entry_points::change, &seeds);
}

#[test]
fn tuples() {
    run("tuple", entry_points::tuple, &golden(|name, bytes| (name == "tuple").then_some(bytes)));
}

#[test]
fn catalog_documents() {
    let document = include_bytes!("../../fuzz/corpus/catalog/two_tables");
    run("catalog", entry_points::catalog, &[("two_tables".to_owned(), document.to_vec())]);
}

#[test]
fn packs() {
    run("pack", entry_points::pack, &golden(|name, bytes| name.starts_with("pack_").then_some(bytes)));
}
