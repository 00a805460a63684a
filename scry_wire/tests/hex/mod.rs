//! The golden files: hexadecimal bytes with comments.
//!
//! A line is pairs of hexadecimal digits, and may end in a comment that `#`
//! begins. The bytes of all lines, one after another, are the file's bytes.
//! They were written from the format's description, not by the crate's
//! writers, so that both sides of the crate are held against something.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The names of all golden files, sorted.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "hex"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// The bytes of one golden file.
pub fn golden(name: &str) -> Vec<u8> {
    let path = folder().join(name).with_extension("hex");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes(&text).unwrap_or_else(|bad| panic!("{}: {bad:?} is no byte", path.display()))
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .map(|pair| u8::from_str_radix(pair, 16).map_err(|_| pair.to_owned()))
        .collect()
}

/// Fails with both sides in hexadecimal, a line for 16 bytes.
pub fn assert_bytes(name: &str, written: &[u8], golden: &[u8]) {
    let rows = |bytes: &[u8]| bytes.chunks(16).map(|row| format!("{row:02x?}\n")).collect::<String>();
    assert!(
        written == golden,
        "{name} is written as\n{}but the golden file has\n{}",
        rows(written),
        rows(golden)
    );
}
