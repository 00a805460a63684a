//! What the sender shows the platform: the token.
//!
//! Invariants: the token is read from its file for each request, so that a new
//! one serves at once; the file must belong to us or root and be closed to
//! others; the token is never shown, logged or kept in the configuration.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use http::HeaderValue;

use crate::error::{Failure, FailureKind};

/// Bytes of a token file; tokens have less than a hundred, signed ones a few thousand.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// The `authorization` header, from the token's file.
pub fn authorization(file: &Path) -> Result<HeaderValue, Failure> {
    let token = read_private(file, "token file")?;
    let token = token.trim();
    if token.is_empty() {
        return Err(fail(format!("token file \"{}\" is empty", file.display())));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
        fail(format!("token file \"{}\" holds characters that no token has", file.display()))
            .hint("Write the token alone, on one line.")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a small file that others must not be able to read.
pub fn read_private(file: &Path, what: &str) -> Result<String, Failure> {
    let shown = file.display();
    let cannot =
        |error: std::io::Error| fail(format!("could not read {what} \"{shown}\"")).detail(&error.to_string());
    // NONBLOCK: a pipe in its place must not stop the sender.
    let open = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(file);
    let mut opened: File = open.map_err(cannot)?;
    let meta = opened.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(fail(format!("{what} \"{shown}\" is not a regular file")));
    }
    let own = nix::unistd::Uid::effective().as_raw();
    if meta.uid() != own && meta.uid() != 0 {
        return Err(fail(format!("{what} \"{shown}\" belongs to user {}", meta.uid()))
            .hint("It must belong to the user that runs scry_sender, or to root."));
    }
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(fail(format!("{what} \"{shown}\" has mode {mode:04o}: others can read it"))
            .hint(format!("Run: chmod 0600 '{shown}'")));
    }
    let mut text = String::new();
    (&mut opened).take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(cannot)?;
    Ok(text)
}

fn fail(message: String) -> Failure {
    Failure::new(FailureKind::Credentials, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn accepts_a_private_file_and_hides_the_token() {
        let file = file("s3cret\n", 0o600);
        let value = authorization(file.path()).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer s3cret");
        assert!(!format!("{value:?}").contains("s3cret"));
    }

    #[test]
    fn rejects_files_that_are_open_empty_missing_or_not_a_token() {
        let open = authorization(file("t", 0o644).path()).unwrap_err();
        assert!(open.message.contains("mode 0644"), "{open}");
        assert!(authorization(file(" \n", 0o600).path()).is_err());
        let two = authorization(file("s3cret\nx", 0o600).path()).unwrap_err();
        assert!(!format!("{two:?}").contains("s3cret"));
        assert!(authorization(Path::new("/nonexistent")).is_err());
        assert!(authorization(Path::new("/dev/null")).is_err());
    }
}
