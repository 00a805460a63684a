//! Rules of the repository that no compiler checks: versions of dependencies,
//! the extension's SQL, guarded callbacks, and that what the documents promise
//! names tests that exist. Reads files only.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below `dir` whose names end so.
fn files(dir: &str, end: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(dir)]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if name.ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// `major.minor.patch` as numbers.
fn version(text: &str) -> (u64, u64, u64) {
    let mut parts = text.split(['-', '+']).next().unwrap().split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Every package of the lock file, with its version.
fn locked() -> Vec<(String, String)> {
    let text = read("Cargo.lock");
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let mut lines = text.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(name) = value(line, "name = ") {
            found.push((name, value(lines.peek().unwrap(), "version = ").unwrap()));
        }
    }
    assert!(found.len() > 100, "the lock file was read");
    found
}

/// The bans of `deny.toml` that name a version: crate, and the lowest that is allowed.
fn floors() -> Vec<(String, String)> {
    let text = read("deny.toml");
    let specs = text.lines().filter_map(|line| line.split_once("crate = \"")?.1.split('"').next());
    let bounds = specs.filter_map(|spec| spec.split_once("@<"));
    bounds.map(|(name, bound)| (name.to_owned(), bound.trim_end_matches("-0").to_owned())).collect()
}

#[test]
fn no_dependency_is_older_than_what_its_advisories_ask_for() {
    let (floors, locked) = (floors(), locked());
    assert!(floors.len() >= 9, "{floors:?}");
    for (name, floor) in &floors {
        for (_, found) in locked.iter().filter(|(locked, _)| locked == name) {
            assert!(version(found) >= version(floor), "{name} {found} is older than {floor}");
        }
    }
    let must_be_there =
        ["h2", "rustls", "rustls-webpki", "bytes", "tokio", "tokio-postgres", "postgres-protocol"];
    for name in must_be_there {
        assert!(floors.iter().any(|(floor, _)| floor == name), "deny.toml has no floor for {name}");
        assert!(locked.iter().any(|(locked, _)| locked == name), "{name} is not used any more");
    }
}

/// One library inflates, in one file, whose limits have tests of their own: nothing else can be inflated
/// without bound, not in answers of HTTP. Whoever adds one of these adds its limits.
#[test]
fn only_packs_are_decompressed() {
    const INFLATERS: [&str; 10] = [
        "async-compression",
        "brotli",
        "brotli-decompressor",
        "bzip2",
        "flate2",
        "libflate",
        "lz4",
        "lz4_flex",
        "snap",
        "xz2",
    ];
    let found: Vec<_> = locked().into_iter().filter(|(name, _)| INFLATERS.contains(&name.as_str())).collect();
    assert!(found.is_empty(), "{found:?}");
    // None of it in the server: neither the extension nor the format that it links has a compressor.
    for package in ["scry_wire", "scry_backfill_ext"] {
        assert!(!read(&format!("{package}/Cargo.toml")).contains("zstd"), "{package} has a compressor");
    }
    let inflates = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        let program = text.split("#[cfg(test)]").next().unwrap_or_default();
        program.contains("zstd::") && program.to_lowercase().contains("decompress")
    };
    let sources = ["scry_sender/src", "scry_platform/src"].iter().flat_map(|dir| files(dir, ".rs"));
    let found: Vec<_> = sources.filter(inflates).collect();
    assert!(matches!(&found[..], [one] if one.ends_with("accept/packs.rs")), "{found:?}");
}

/// SQL without comments, texts and qualified operators: what is left of an
/// operator is one that is looked up along a search_path.
fn bare(sql: &str) -> String {
    let mut out = String::new();
    for line in sql.lines().filter(|line| !line.starts_with('\\')) {
        out.push_str(line.split("--").next().unwrap());
        out.push('\n');
    }
    let texts: Vec<&str> = out.split('\'').collect();
    let out: String = texts.iter().step_by(2).copied().collect::<Vec<_>>().join("''");
    let mut rest = out.as_str();
    let mut left = String::new();
    while let Some((before, after)) = rest.split_once("OPERATOR(pg_catalog.") {
        left.push_str(before);
        left.push(',');
        rest = after.split_once(')').unwrap().1;
    }
    (left + rest).replace("(*)", "")
}

/// A function that stands in no schema, in a line of [`bare`] SQL.
fn unqualified_call(line: &str) -> Option<&str> {
    const WORDS: [&str; 22] = [
        "ANY", "AND", "AS", "CASE", "CHECK", "COALESCE", "EXTRACT", "FILTER", "FROM", "GREATEST", "IN",
        "JOIN", "KEY", "LATERAL", "LEAST", "NOT", "NULLIF", "OR", "TABLE", "VALUES", "WHEN", "WHERE",
    ];
    let calls = line.match_indices('(').map(|(at, _)| line[..at].trim_end());
    calls
        .filter_map(|before| before.rsplit(|c: char| !(c.is_alphanumeric() || "_.\"".contains(c))).next())
        .find(|word| {
            !word.is_empty() && !word.contains('.') && !WORDS.contains(&word.to_uppercase().as_str())
        })
}

#[test]
fn the_extensions_sql_calls_nothing_that_others_could_plant() {
    let mut scripts = files("scry_backfill_ext/src/api/sql", ".sql");
    scripts.extend(files("scry_backfill_ext/sql", ".sql"));
    scripts.extend(files("sql/source", ".sql"));
    assert!(scripts.len() >= 6, "{scripts:?}");
    for script in scripts {
        let sql = bare(&std::fs::read_to_string(&script).unwrap());
        let upper = sql.to_uppercase();
        for word in ["IF NOT EXISTS", "OR REPLACE", "SECURITY DEFINER", "TO PUBLIC"] {
            assert!(!upper.contains(word), "{}: {word}", script.display());
        }
        for line in sql.lines() {
            let operator = line.chars().find(|c| "=<>+/*%~|&^#@!-".contains(*c));
            assert!(operator.is_none(), "{}: an operator without a schema: {line}", script.display());
            let call = unqualified_call(line);
            assert!(call.is_none(), "{}: {call:?} without a schema: {line}", script.display());
        }
    }
    let control = read("scry_backfill_ext/scry_backfill.control");
    for line in ["relocatable = false", "trusted = false", "superuser = true"] {
        assert!(control.contains(line), "{line}");
    }
}

#[test]
fn the_checks_above_find_what_they_are_for() {
    let sql =
        "SELECT a OPERATOR(pg_catalog.=) 'x = y' FROM t -- a = b\nWHERE pg_catalog.count(*) IN (SELECT 1)";
    assert!(!bare(sql).contains('='));
    assert!(bare(sql).lines().all(|line| unqualified_call(line).is_none()));
    assert!(bare("WHERE a = b").contains('='));
    assert_eq!(unqualified_call("SELECT now()"), Some("now"));
    assert!(version("0.103.9") < version("0.103.13"));
}

/// An error that leaves a callback by another way than as an error ends the server.
#[test]
fn every_function_that_the_server_calls_is_guarded() {
    let mut seen = 0;
    for file in files("scry_backfill_ext/src", ".rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let words = line.trim_start().trim_start_matches("pub ").trim_start_matches("unsafe ");
            if !words.starts_with("extern \"C-unwind\" fn ") {
                continue;
            }
            seen += 1;
            let attributes =
                lines[..number].iter().rev().take_while(|line| line.trim_start().starts_with("#["));
            let guarded = attributes.into_iter().any(|line| line.contains("pg_guard]"));
            assert!(guarded, "{}:{}: not guarded: {line}", file.display(), number + 1);
        }
    }
    assert!(seen > 15, "{seen} callbacks");
    assert!(read("Cargo.toml").contains("panic = \"unwind\""));
}

/// Names of functions and files that the documents may point to.
fn known_tests() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for file in files(".", ".rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines() {
            let line = line.trim_start().trim_start_matches("async ").trim_start_matches("pub ");
            if let Some(rest) = line.strip_prefix("fn ") {
                known.insert(rest.split(['(', '<']).next().unwrap().to_owned());
            }
        }
    }
    known
}

/// The tests in a line: names in backticks with `::`, braces spread out.
fn tests_of(line: &str) -> Vec<String> {
    let quoted = line.split('`').skip(1).step_by(2).filter(|text| text.contains("::"));
    let last = quoted.filter_map(|text| text.rsplit_once("::").map(|(_, last)| last));
    last.flat_map(|last| last.trim_matches(['{', '}']).split(',').map(|name| name.trim().to_owned()))
        .collect()
}

#[test]
fn every_defence_names_tests_that_exist() {
    let (page, known) = (read("docs/security.md"), known_tests());
    for number in 1..=20 {
        let row = page.lines().find(|line| line.starts_with(&format!("| S{number} |")));
        let row = row.unwrap_or_else(|| panic!("docs/security.md has no row S{number}"));
        let tests = tests_of(row);
        assert!(!tests.is_empty(), "no test is named: {row}");
        for test in tests {
            assert!(known.contains(&test), "S{number}: there is no test {test}");
        }
    }
}
