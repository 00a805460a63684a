//! `docs/wire-format.md` says what the crate does: tags, widths that are
//! constants, limits, versions. A field's meaning is for people to keep true.
#![allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is the finding")]

mod hex;

use scry_wire::catalog::{CATALOG_FORMAT, queries};
use scry_wire::frame::{CONTENT_TYPE, Tag};
use scry_wire::{limits, pack, version};

const PAGE: &str = include_str!("../../docs/wire-format.md");

/// A number as the page writes it: `1,048,576`.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).map(|g| std::str::from_utf8(g).unwrap()).collect();
    groups.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn require(text: &str) {
    assert!(PAGE.contains(text), "docs/wire-format.md does not say {text:?}");
}

#[test]
fn every_frame_tag_has_its_row() {
    let tags: Vec<u8> = (0..=u8::MAX).filter(|byte| Tag::from_byte(*byte).is_ok()).collect();
    for byte in &tags {
        require(&format!("| `{}` | 0x{byte:02X} |", char::from(*byte)));
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| `") && line.contains(" | 0x")).count();
    assert_eq!(rows, tags.len(), "the page has rows for tags that the crate does not know");
}

#[test]
fn every_change_has_its_heading() {
    for name in hex::names().iter().filter(|name| name.starts_with("change_")) {
        let tag = char::from(hex::golden(name)[0]);
        let kind = name.split('_').nth(1).unwrap();
        require(&format!("### {kind}, {tag}"));
    }
    for name in hex::names().iter().filter_map(|name| name.strip_prefix("mark_")) {
        require(&format!("### {name}, {}", char::from(hex::golden(&format!("mark_{name}"))[0])));
    }
}

#[test]
fn limits_are_the_crates() {
    for limit in [
        limits::FRAME_PAYLOAD_MAX,
        limits::MESSAGE_BYTES_MAX,
        limits::NAME_BYTES_MAX,
        limits::TEXT_BYTES_MAX,
        limits::COLUMNS_MAX,
        limits::RELATIONS_MAX,
        limits::JOB_TABLES_MAX,
        limits::MARKS_MAX,
        limits::CAUSE_BYTES_MAX,
        limits::PACK_BYTES_MAX,
        limits::PACK_RATIO_MAX,
        usize::try_from(limits::CHUNKS_MAX).unwrap(),
    ] {
        require(&with_commas(limit));
    }
    assert_eq!(limits::CATALOG_BYTES_MAX, 1 << 30);
    require("| catalog document | 1 GiB |");
}

#[test]
fn versions_are_the_crates() {
    for version in version::VERSION_MIN..=version::VERSION_MAX {
        assert!(PAGE.lines().any(|line| line.starts_with(&format!("| {version} | 20"))), "version {version}");
    }
    require(&format!("version of the document, {CATALOG_FORMAT};"));
    require(&format!("`{CONTENT_TYPE}`"));
}

#[test]
fn packs_are_the_crates() {
    require(&format!("| `{}` | the answer | `{}` |", pack::HEADER, pack::ZSTD));
    for name in ["pack_plain", "pack_zstd", "pack_end"] {
        require(&format!("`{}` ", char::from(hex::golden(name)[0])));
    }
    require(&format!("1 to {};", with_commas(limits::PACK_BYTES_MAX)));
    require(&format!("`raw` / {};", limits::PACK_RATIO_MAX));
}

#[test]
fn every_kind_of_catalog_object_is_named() {
    for query in queries() {
        require(&format!("`{}`", query.kind));
    }
}
