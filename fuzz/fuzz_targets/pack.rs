//! Headers of packs: kinds, lengths, and how they bound one another.
#![no_main]
#![allow(dead_code, reason = "each target calls one entry point")]

#[path = "../entry_points.rs"]
mod entry_points;

libfuzzer_sys::fuzz_target!(|input: &[u8]| entry_points::pack(input));
