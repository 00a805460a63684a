//! Where PostgreSQL's programs are.
//!
//! In this order: `--pg-bin`, `PG_CONFIG`, `pg_config` on PATH, the packages'
//! usual places, newest first. A cluster that exists already is run only by
//! programs of its own major version.

use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory with `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    dir: PathBuf,
    major: u32,
}

impl Programs {
    /// Finds programs; for an existing cluster, those of its `major` version.
    pub fn find(told: Option<&Path>, major: Option<u32>) -> Result<Self> {
        if let Some(dir) = told {
            let found = Programs::at(dir).ok_or_else(|| missing(&format!("--pg-bin {}", dir.display())))?;
            return match major {
                Some(major) if found.major != major => Err(wrong_major(major, &[found])),
                _ => Ok(found),
            };
        }
        let found = candidates();
        match major {
            None => found.into_iter().next().ok_or_else(|| missing("PG_CONFIG, PATH and the usual places")),
            Some(major) => match found.iter().find(|p| p.major == major) {
                Some(programs) => Ok(programs.clone()),
                None => Err(wrong_major(major, &found)),
            },
        }
    }

    /// The programs in `dir`, if `initdb` and `postgres` are there.
    fn at(dir: &Path) -> Option<Self> {
        if !dir.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let digits = |s: &str| s.chars().take_while(char::is_ascii_digit).collect::<String>();
        let major = text.split_whitespace().find_map(|word| digits(word).parse().ok())?;
        Some(Programs { dir: dir.to_owned(), major })
    }

    /// The path of one program.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Their major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }
}

fn candidates() -> Vec<Programs> {
    let named = [std::env::var_os("PG_CONFIG"), Some("pg_config".into())];
    let mut dirs: Vec<PathBuf> = named.into_iter().flatten().filter_map(bindir).collect();
    let mut found: Vec<Programs> = dirs.drain(..).filter_map(|d| Programs::at(&d)).collect();
    let mut usual: Vec<Programs> = ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local"]
        .iter()
        .flat_map(|root| subdirectories(root))
        .filter_map(|d| Programs::at(&d.join("bin")))
        .collect();
    usual.sort_by_key(|p| std::cmp::Reverse(p.major));
    found.extend(usual);
    found
}

fn bindir(pg_config: std::ffi::OsString) -> Option<PathBuf> {
    let output = Command::new(pg_config).arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(text.trim())).filter(|p| !p.as_os_str().is_empty())
}

fn subdirectories(root: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn missing(place: &str) -> Error {
    Error::Shadow {
        message: format!("no PostgreSQL server programs (initdb, postgres) in {place}"),
        hint: "Install the PostgreSQL server (Debian: apt install postgresql), name its programs with \
               --pg-bin, or use another server with --shadow-url."
            .to_owned(),
        retry: false,
    }
}

fn wrong_major(major: u32, found: &[Programs]) -> Error {
    let have: Vec<String> = found.iter().map(|p| format!("{} in {}", p.major, p.dir.display())).collect();
    Error::Shadow {
        message: format!(
            "the embedded shadow was made by PostgreSQL {major}, but only these are installed: [{}]",
            have.join(", ")
        ),
        hint: format!("Install PostgreSQL {major} or use a new --data-dir."),
        retry: false,
    }
}
