//! The bearer token: one secret in a file that only its owner can read.
//!
//! The file is read again when it changes, so that a token can be replaced
//! without a restart; a file that has become unreadable keeps the last good
//! token and says so. Comparison takes the same time wherever tokens differ.

use crate::{Error, Result};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Checks tokens; without a file everybody may speak.
#[derive(Debug)]
pub struct Auth {
    source: Option<Source>,
}

#[derive(Debug)]
struct Source {
    file: PathBuf,
    held: Mutex<Held>,
}

struct Held {
    token: Vec<u8>,
    stamp: Stamp,
    looked: Instant,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held { token: <hidden> }")
    }
}

/// What changes when a file does.
type Stamp = (u64, i64, i64, u64);

impl Auth {
    /// Reads the token's file, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, is open to others, or holds no usable token.
    pub fn new(file: Option<&Path>) -> std::result::Result<Self, String> {
        let source = match file {
            None => None,
            Some(file) => {
                let (token, stamp) = read(file)?;
                let held = Held { token, stamp, looked: Instant::now() };
                Some(Source { file: file.to_owned(), held: Mutex::new(held) })
            }
        };
        Ok(Auth { source })
    }

    /// Looks at the file at the next request, however recently it was read.
    pub fn reread(&self) {
        if let Some(source) = &self.source {
            let mut held = source.held.lock().unwrap_or_else(PoisonError::into_inner);
            source.renew(&mut held);
        }
    }

    /// Checks a request's headers.
    pub fn check(&self, headers: &HeaderMap) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let shown = headers
            .get(AUTHORIZATION)
            .map(http::HeaderValue::as_bytes)
            .ok_or_else(|| Error::Auth("the request shows no token".to_owned()))?;
        let shown =
            shown.strip_prefix(b"Bearer ").or_else(|| shown.strip_prefix(b"bearer ")).unwrap_or_default();
        let mut held = source.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.elapsed() >= LOOK_EVERY {
            source.renew(&mut held);
        }
        if bool::from(shown.ct_eq(&held.token)) {
            return Ok(());
        }
        Err(Error::Auth("the token is not the platform's".to_owned()))
    }
}

impl Source {
    fn renew(&self, held: &mut Held) {
        held.looked = Instant::now();
        if std::fs::metadata(&self.file).is_ok_and(|m| stamp(&m) == held.stamp) {
            return;
        }
        match read(&self.file) {
            Ok((token, stamp)) => {
                tracing::info!(file = %self.file.display(), "token read again");
                held.token = token;
                held.stamp = stamp;
            }
            Err(error) => tracing::error!(%error, "keeping the last token"),
        }
    }
}

fn stamp(meta: &std::fs::Metadata) -> Stamp {
    (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size())
}

fn read(file: &Path) -> std::result::Result<(Vec<u8>, Stamp), String> {
    let cannot = |e: &dyn std::fmt::Display| format!("cannot use --auth-token-file {}: {e}", file.display());
    let meta = std::fs::metadata(file).map_err(|e| cannot(&e))?;
    if meta.mode() & 0o077 != 0 {
        return Err(cannot(&format!(
            "its mode is {:o}; run: chmod 600 {}",
            meta.mode() & 0o777,
            file.display()
        )));
    }
    let text = std::fs::read(file).map_err(|e| cannot(&e))?;
    let token = text.trim_ascii().to_vec();
    if token.len() < TOKEN_MIN || token.len() > TOKEN_MAX || !token.iter().all(u8::is_ascii_graphic) {
        return Err(cannot(&format!(
            "a token is {TOKEN_MIN} to {TOKEN_MAX} visible ASCII characters on one line"
        )));
    }
    Ok((token, stamp(&meta)))
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shorter ones can be guessed over the network.
const TOKEN_MIN: usize = 8;
const TOKEN_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    fn token_file(dir: &Path, token: &str, mode: u32) -> PathBuf {
        let file = dir.join("token");
        std::fs::write(&file, token).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn accepts_only_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::new(Some(&token_file(dir.path(), "s3cret-token\n", 0o600))).unwrap();
        assert!(auth.check(&headers("Bearer s3cret-token")).is_ok());
        for bad in ["Bearer s3cret-toke", "Bearer ", "s3cret-token", "Basic s3cret-token"] {
            assert!(auth.check(&headers(bad)).is_err(), "{bad}");
        }
        assert!(auth.check(&HeaderMap::new()).is_err());
        assert!(Auth::new(None).unwrap().check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn reads_a_new_token() {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::new(Some(&token_file(dir.path(), "first-token", 0o600))).unwrap();
        token_file(dir.path(), "second-token!", 0o600);
        auth.reread();
        assert!(auth.check(&headers("Bearer first-token")).is_err());
        assert!(auth.check(&headers("Bearer second-token!")).is_ok());
    }

    #[test]
    fn rejects_open_files_and_empty_tokens() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            Auth::new(Some(&token_file(dir.path(), "s3cret-token", 0o644)))
                .unwrap_err()
                .contains("chmod 600")
        );
        assert!(Auth::new(Some(&token_file(dir.path(), "\n", 0o600))).is_err());
        assert!(Auth::new(Some(&dir.path().join("none"))).is_err());
    }
}
