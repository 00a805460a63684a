//! What can go wrong on the way to the platform, sorted by whose fault it is
//! and what the sender does about it.
//!
//! Role: every failure between "the worker said hello" and "the stream ended"
//! becomes a [`Failure`]; [`FailureKind::policy`] is the one place that decides
//! whether the sender tries again, how soon, or refuses the worker.
//! Invariant: texts hold addresses, file names and the platform's own words
//! (bounded, control characters removed); never a token, never a row's value.
//! What it does not do: errors at start are `anyhow` and end the program.

use std::time::Duration;

use scry_wire::message::{Refuse, RefuseKind};

/// Bytes of a peer's own words that are kept as detail.
pub const DETAIL_BYTES_MAX: usize = 1024;

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The endpoint's name could not be resolved.
    Resolve,
    /// No TCP connection, or none in time.
    Connect,
    /// The endpoint's certificate has expired or is not valid yet.
    CertificateExpired,
    /// The endpoint's certificate is for another name.
    CertificateName,
    /// The endpoint's certificate is signed by nobody we trust.
    CertificateIssuer,
    /// TLS failed in another way.
    Tls,
    /// The endpoint does not speak HTTP/2.
    NotHttp2,
    /// The token, CA or client certificate file could not be used.
    Credentials,
    /// The platform answered 401 or 403.
    Auth,
    /// The platform answered that it is busy or not ready (408, 425, 429, 5xx).
    Busy,
    /// The platform answered with a status that no retry mends.
    Status,
    /// The platform did not answer in time.
    Silent,
    /// The connection or the stream broke.
    Lost,
    /// The platform sent bytes that are not frames, or the wrong ones.
    Protocol,
}

/// What the sender does about a failure before the welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Try again with back-off, and say why to the worker.
    Retry,
    /// The same, from the back-off's slow end: somebody has to mend a file or a
    /// certificate first.
    RetrySlowly,
    /// Tell the worker and end its connection.
    Refuse,
}

impl FailureKind {
    /// The policy, in one place.
    #[must_use]
    pub fn policy(self) -> Policy {
        use FailureKind as K;
        match self {
            K::Resolve | K::Connect | K::Busy | K::Silent | K::Lost => Policy::Retry,
            K::CertificateExpired
            | K::CertificateName
            | K::CertificateIssuer
            | K::Tls
            | K::NotHttp2
            | K::Credentials => Policy::RetrySlowly,
            K::Auth | K::Status | K::Protocol => Policy::Refuse,
        }
    }

    /// The kind that the worker is told when the failure ends its connection.
    #[must_use]
    pub fn refuse_kind(self) -> RefuseKind {
        use FailureKind as K;
        match self {
            K::Auth
            | K::Credentials
            | K::CertificateExpired
            | K::CertificateName
            | K::CertificateIssuer
            | K::Tls => RefuseKind::Auth,
            K::Protocol | K::Status => RefuseKind::Protocol,
            K::Resolve | K::Connect | K::NotHttp2 | K::Busy | K::Silent | K::Lost => RefuseKind::Unreachable,
        }
    }

    /// A word for logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        use FailureKind as K;
        match self {
            K::Resolve => "resolve",
            K::Connect => "connect",
            K::CertificateExpired => "certificate_expired",
            K::CertificateName => "certificate_name",
            K::CertificateIssuer => "certificate_issuer",
            K::Tls => "tls",
            K::NotHttp2 => "not_http2",
            K::Credentials => "credentials",
            K::Auth => "auth",
            K::Busy => "busy",
            K::Status => "status",
            K::Silent => "silent",
            K::Lost => "lost",
            K::Protocol => "protocol",
        }
    }
}

/// A failure on the way to the platform: object, cause, remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// What happened, with the object's name.
    pub message: String,
    /// The cause's own words; may be empty.
    pub detail: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The earliest moment for the next attempt that the platform asked for.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without detail or hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            detail: String::new(),
            hint: String::new(),
            retry_after: None,
        }
    }

    /// With the cause's own words, made safe to show.
    #[must_use]
    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = readable(detail.as_bytes());
        self
    }

    /// With the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Message and detail in one line.
    #[must_use]
    pub fn line(&self) -> String {
        if self.detail.is_empty() {
            return self.message.clone();
        }
        format!("{}: {}", self.message, self.detail)
    }

    /// The refusal that tells the worker. The worker may always try again: what
    /// failed lies outside it and can be mended.
    #[must_use]
    pub fn to_refuse(&self) -> Refuse {
        Refuse {
            kind: self.kind.refuse_kind(),
            retry: true,
            message: self.message.clone(),
            detail: self.detail.clone(),
            hint: self.hint.clone(),
        }
    }
}

/// A peer's bytes as one bounded line of text: control characters become
/// spaces, so that nothing can forge a line of the log.
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    let cut = bytes.get(..bytes.len().min(DETAIL_BYTES_MAX)).unwrap_or_default();
    let text: String =
        String::from_utf8_lossy(cut).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_are_one_bounded_line() {
        assert_eq!(readable(b"no\nsuch\r\n\0token \x1b[31m"), "no such token [31m");
        assert!(readable(&[b'x'; 10_000]).len() <= DETAIL_BYTES_MAX);
        assert_eq!(readable(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn mendable_things_are_retried_and_answers_are_told() {
        assert_eq!(FailureKind::Connect.policy(), Policy::Retry);
        assert_eq!(FailureKind::CertificateExpired.policy(), Policy::RetrySlowly);
        assert_eq!(FailureKind::Auth.policy(), Policy::Refuse);
        assert!(Failure::new(FailureKind::Auth, "x").to_refuse().retry);
    }
}
