//! The bearer tokens: secrets in a file that only its owner can read, one a
//! line; more than one while a token is being replaced.
//!
//! The file is read again when it changes, so that a token can be replaced
//! without a restart; a file that has become unreadable keeps the last good
//! tokens and says so. A stream whose token is taken out ends. Comparison takes
//! the same time wherever tokens differ.

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
    tokens: Vec<Vec<u8>>,
    stamp: Stamp,
    looked: Instant,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held { tokens: <hidden> }")
    }
}

/// What a request was let in by.
#[derive(Clone, Default)]
pub struct Pass(Option<Vec<u8>>);

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pass(<hidden>)")
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
                let (tokens, stamp) = read(file)?;
                let held = Held { tokens, stamp, looked: Instant::now() };
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
    pub fn check(&self, headers: &HeaderMap) -> Result<Pass> {
        let Some(source) = &self.source else { return Ok(Pass::default()) };
        let shown = headers
            .get(AUTHORIZATION)
            .map(http::HeaderValue::as_bytes)
            .ok_or_else(|| Error::Auth("the request shows no token".to_owned()))?;
        let shown =
            shown.strip_prefix(b"Bearer ").or_else(|| shown.strip_prefix(b"bearer ")).unwrap_or_default();
        if source.accepts(shown) {
            return Ok(Pass(Some(shown.to_vec())));
        }
        Err(Error::Auth("the token is not the platform's".to_owned()))
    }

    /// Ends when the token that `pass` was given for is no longer accepted.
    pub async fn revoked(&self, pass: &Pass) -> Error {
        if let (Some(source), Some(token)) = (&self.source, &pass.0) {
            while source.accepts(token) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            return Error::Auth("the token has been replaced on the platform".to_owned());
        }
        std::future::pending().await
    }
}

impl Source {
    /// Whether a token is one of the file's, which is looked at again if that is due.
    fn accepts(&self, shown: &[u8]) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.elapsed() >= LOOK_EVERY {
            self.renew(&mut held);
        }
        // All of them are compared, wherever the right one stands.
        let equal = held.tokens.iter().fold(subtle::Choice::from(0), |any, token| any | shown.ct_eq(token));
        bool::from(equal)
    }

    fn renew(&self, held: &mut Held) {
        held.looked = Instant::now();
        if std::fs::metadata(&self.file).is_ok_and(|m| stamp(&m) == held.stamp) {
            return;
        }
        match read(&self.file) {
            Ok((tokens, stamp)) => {
                tracing::info!(file = %self.file.display(), tokens = tokens.len(), "token file read again");
                held.tokens = tokens;
                held.stamp = stamp;
            }
            Err(error) => tracing::error!(%error, "keeping the last tokens"),
        }
    }
}

fn stamp(meta: &std::fs::Metadata) -> Stamp {
    (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size())
}

fn read(file: &Path) -> std::result::Result<(Vec<Vec<u8>>, Stamp), String> {
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
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let tokens: Vec<Vec<u8>> = lines.take(TOKENS_MAX + 1).map(<[u8]>::to_vec).collect();
    if tokens.is_empty() || !tokens.iter().all(|token| is_token(token)) {
        return Err(cannot(&format!(
            "a token is {TOKEN_MIN} to {TOKEN_MAX} visible ASCII characters on one line"
        )));
    }
    if tokens.len() > TOKENS_MAX {
        return Err(cannot(&format!("it holds more than {TOKENS_MAX} tokens")));
    }
    Ok((tokens, stamp(&meta)))
}

fn is_token(text: &[u8]) -> bool {
    (TOKEN_MIN..=TOKEN_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shorter ones can be guessed over the network.
const TOKEN_MIN: usize = 8;
const TOKEN_MAX: usize = 4096;
/// The old one and the new one, for a few sources.
const TOKENS_MAX: usize = 16;

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

    #[tokio::test]
    async fn an_old_token_serves_beside_the_new_one_until_it_is_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::new(Some(&token_file(dir.path(), "first-token\n", 0o600))).unwrap();
        let old = auth.check(&headers("Bearer first-token")).unwrap();
        token_file(dir.path(), "first-token\n\nsecond-token!\n", 0o600);
        auth.reread();
        let new = auth.check(&headers("Bearer second-token!")).unwrap();
        assert!(auth.check(&headers("Bearer first-token")).is_ok());
        assert!(auth.check(&headers("Bearer first-tokensecond-token!")).is_err());
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, auth.revoked(&old)).await.is_err(), "both serve");
        token_file(dir.path(), "second-token!", 0o600);
        auth.reread();
        let error = tokio::time::timeout(soon, auth.revoked(&old)).await.unwrap();
        assert!(
            error.refuse().is_some_and(|refuse| refuse.retry && !format!("{refuse:?}").contains("first"))
        );
        assert!(tokio::time::timeout(soon, auth.revoked(&new)).await.is_err());
        assert!(!format!("{new:?}{auth:?}").contains("second"));
        // A file that does not fit changes nothing.
        token_file(dir.path(), "short", 0o600);
        auth.reread();
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
