//! Where journals are kept and how large they may become: `--journal`.

use super::store::{Identity, Journal};
use crate::{Error, Result};
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The journals of this platform, one a shadow.
#[derive(Debug, Clone)]
pub struct Journals {
    dir: PathBuf,
    bytes_max: u64,
}

impl Journals {
    /// Journals below `data_dir`, each of at most `bytes_max`.
    #[must_use]
    pub fn new(data_dir: &Path, bytes_max: u64) -> Self {
        Journals { dir: data_dir.join("journal"), bytes_max }
    }

    /// Bytes that one may take.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Opens a shadow's journal; those of its earlier histories go. Reads files:
    /// not on a thread that others wait for.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(&self, identity: Identity, job: &str) -> Result<Arc<Journal>> {
        let job = job_dir(&identity, job);
        let own = format!("{job}-{:x}", identity.generation);
        let cannot = |dir: &Path, error: std::io::Error| failed("open", dir, &error);
        super::files::make_dir(&self.dir).map_err(|e| cannot(&self.dir, e))?;
        for entry in std::fs::read_dir(&self.dir).map_err(|e| cannot(&self.dir, e))?.flatten() {
            let name = entry.file_name();
            let of_job = name.to_str().is_some_and(|name| {
                let history = name.strip_prefix(&job).and_then(|rest| rest.strip_prefix('-'));
                history.is_some_and(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
            });
            if of_job && name.to_str() != Some(&own) {
                tracing::info!(journal = %entry.path().display(), "removing the journal of an earlier history");
                std::fs::remove_dir_all(entry.path()).map_err(|e| cannot(&entry.path(), e))?;
            }
        }
        let dir = self.dir.join(own);
        Journal::open(&dir, identity, self.bytes_max).map(Arc::new).map_err(|e| cannot(&dir, e))
    }

    /// Whether the shadow of this history has a journal with something in it.
    #[must_use]
    pub fn has(&self, identity: &Identity, job: &str) -> bool {
        let dir = format!("{}-{:x}", job_dir(identity, job), identity.generation);
        std::fs::read_dir(self.dir.join(dir)).is_ok_and(|mut entries| entries.next().is_some())
    }
}

/// A file name for a job: what is not plain in its name is written in
/// hexadecimal.
fn job_dir(identity: &Identity, job: &str) -> String {
    let mut name = format!("{}-{}-", identity.system_identifier, identity.database_oid);
    for byte in job.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

/// An error of the journal's files: what was tried, where, why, and what to do.
pub(super) fn failed(what: &str, at: &Path, error: &std::io::Error) -> Error {
    Error::Journal {
        message: format!("could not {what} the journal {}: {error}", at.display()),
        hint:
            "Mend the disk of the platform's --data-dir; or run it with --journal none, and the source keeps \
               its WAL until the shadow has the changes."
                .to_owned(),
    }
}

/// Whether the disk has so little room that the journal must not grow. The
/// embedded shadow needs its place too.
pub(crate) fn is_disk_short(dir: &Path) -> bool {
    let Ok(disk) = statvfs(dir) else { return false };
    let unit = disk.fragment_size();
    let (total, free) = (disk.blocks() * unit, disk.blocks_available() * unit);
    free < FREE_MIN.min(total / 20)
}

/// Reads a size: bytes, or with a unit (`kB`, `MB`, `GB`, `TB`; powers of 1024,
/// as PostgreSQL has them; `MiB` and the like mean the same).
///
/// # Errors
/// It is none, or too small for a journal.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(format!("\"{text}\" is no size; expected for example 8GB or 512MB")),
    };
    let size = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    let size = size.ok_or_else(|| format!("\"{text}\" is no size; expected for example 8GB or 512MB"))?;
    if size < SIZE_MIN {
        return Err(format!("a journal of {text} is too small; 16MB is the least"));
    }
    Ok(size)
}

/// Room that is left to others on the disk, or a twentieth of it if that is less.
const FREE_MIN: u64 = 1 << 30;
/// Several of the largest records, and room to go on.
const SIZE_MIN: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        assert_eq!(parse_size("8GB"), Ok(8 << 30));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("16777216"), Ok(16 << 20));
        for bad in ["", "GB", "8 GBs", "1MB", "99999999999999999999", "9999999999TB", "-1GB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_a_directory_for_any_job() {
        let identity = Identity { system_identifier: 7, database_oid: 5, generation: 1 };
        assert_eq!(job_dir(&identity, "default"), "7-5-default");
        assert_eq!(job_dir(&identity, "../é-1"), "7-5-%2e%2e%2f%c3%a9%2d1");
        assert!(job_dir(&identity, &"/".repeat(63)).len() < 240);
    }
}
