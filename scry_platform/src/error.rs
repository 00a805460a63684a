//! What can go wrong with a connection, by whose fault it is.
//!
//! One match, [`Error::refuse`], decides what the peer is told and whether it
//! may try again. No text here holds a value of a row: of the shadow's errors
//! only the primary message is passed on, and not even that where PostgreSQL
//! puts input into it.

use scry_wire::message::{Refuse, RefuseKind};
use tokio_postgres::error::{DbError, SqlState};

/// A result of the platform.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes were not what the format says.
    #[error(transparent)]
    Wire(#[from] scry_wire::Error),
    /// The bytes were right, their order or meaning was not.
    #[error("{0}")]
    Protocol(String),
    /// Token or certificate.
    #[error("{0}")]
    Auth(String),
    /// The shadow belongs to another source, job or history.
    #[error("{message}")]
    Identity {
        /// What does not fit.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// Another connection holds this role now.
    #[error("{0}")]
    Busy(String),
    /// The shadow cannot do what it was asked, before any statement.
    #[error("{message}")]
    Shadow {
        /// What happened.
        message: String,
        /// What to do about it; may be empty.
        hint: String,
        /// Whether the same attempt can succeed later.
        retry: bool,
    },
    /// A statement on the shadow failed.
    #[error("could not {action}: {}", describe(.source))]
    Sql {
        /// What the statement was for, with the object's name.
        action: String,
        /// The driver's error.
        source: tokio_postgres::Error,
    },
    /// An update or delete did not find exactly its row.
    #[error(
        "{operation} on \"{schema}\".\"{relation}\" found {found} rows on the shadow instead of {wanted}"
    )]
    Conflict {
        /// UPDATE or DELETE.
        operation: &'static str,
        /// The relation's schema.
        schema: String,
        /// The relation's name.
        relation: String,
        /// How many rows it had to find.
        wanted: u64,
        /// How many rows it found.
        found: u64,
    },
    /// A test wanted a step to fail.
    #[error(transparent)]
    Failpoint(#[from] scry_failpoint::Failed),
    /// The journal's files cannot be used.
    #[error("{message}")]
    Journal {
        /// What happened, with the file.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A large transaction cannot be put aside.
    #[error("{0}")]
    Spool(String),
    /// What the shadow's applier ended with, for the connection whose changes
    /// it applies.
    #[error("{}", .0.message)]
    Applier(Box<Refuse>),
    /// The platform is stopping.
    #[error("the platform is stopping")]
    Stopping,
    /// The peer went away; nobody is left to tell.
    #[error("the connection was closed by the peer")]
    Gone,
}

impl Error {
    /// An error of a statement: `action` completes "could not …".
    pub fn sql(action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Error {
        let action = action.into();
        move |source| Error::Sql { action, source }
    }

    /// A violation of the order or meaning of messages.
    pub fn protocol(message: impl Into<String>) -> Error {
        Error::Protocol(message.into())
    }

    /// What the peer is told; `None` when nobody is left to tell.
    #[must_use]
    pub fn refuse(&self) -> Option<Refuse> {
        let (kind, retry, hint) = match self {
            Error::Gone => return None,
            Error::Applier(refuse) => return Some((**refuse).clone()),
            Error::Wire(scry_wire::Error::Version { .. }) => {
                (RefuseKind::Version, false, "Install the same release on both sides.")
            }
            Error::Wire(_) | Error::Protocol(_) => (RefuseKind::Protocol, true, ""),
            Error::Auth(_) => (RefuseKind::Auth, true, "Check the token file on both sides."),
            Error::Identity { hint, .. } => (RefuseKind::Identity, false, hint.as_str()),
            Error::Journal { hint, .. } => (RefuseKind::Shadow, true, hint.as_str()),
            Error::Spool(_) => (RefuseKind::Shadow, true, SPOOL_HINT),
            Error::Busy(_) | Error::Failpoint(_) => (RefuseKind::Busy, true, ""),
            Error::Shadow { hint, retry, .. } => (RefuseKind::Shadow, *retry, hint.as_str()),
            Error::Sql { source, .. } => (RefuseKind::Shadow, true, sql_hint(source)),
            Error::Conflict { .. } => (RefuseKind::Shadow, true, CONFLICT_HINT),
            Error::Stopping => (RefuseKind::Stopping, true, ""),
        };
        Some(Refuse { kind, retry, message: self.to_string(), detail: String::new(), hint: hint.to_owned() })
    }

    /// Whether the shadow has refused a change for what it is: the same change
    /// again is refused again, and others need not be. All else (a lost
    /// session, a full disk, a lock, missing privileges) is no matter of rows.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Conflict { .. } | Error::Shadow { .. } => true,
            Error::Sql { source, .. } => {
                source.code().is_some_and(|state| !NO_REFUSALS.iter().any(|no| state.code().starts_with(no)))
            }
            _ => false,
        }
    }

    /// Whether a refusal is about the shadow's table rather than about a row:
    /// the table may look another way by now.
    #[must_use]
    pub fn is_of_table(&self) -> bool {
        let state = self.sqlstate().map_or("", SqlState::code);
        matches!(self, Error::Shadow { .. }) || state.starts_with("42") || state.starts_with("0A")
    }

    /// The server's detail: it holds values of rows.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Error::Sql { source, .. } => source.as_db_error()?.detail().map(ToOwned::to_owned),
            _ => None,
        }
    }

    /// The SQLSTATE, where the shadow gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Error::Sql { source, .. } => source.code(),
            _ => None,
        }
    }
}

/// An error of the driver in words that hold no value of a row.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => describe_db(db),
        None if error.is_closed() => "the connection to the shadow was lost".to_owned(),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

fn describe_db(db: &DbError) -> String {
    let code = db.code().code();
    // Class 22 (data exception) and 42804 quote the input they refuse.
    let text = if code.starts_with("22") { "the shadow refused a value" } else { db.message() };
    let object = match (db.table(), db.constraint()) {
        (Some(table), Some(constraint)) => format!(", table \"{table}\", constraint \"{constraint}\""),
        (Some(table), None) => format!(", table \"{table}\""),
        _ => String::new(),
    };
    format!("{text} (SQLSTATE {code}{object})")
}

/// What to do about errors that the shadow's owner can mend.
fn sql_hint(error: &tokio_postgres::Error) -> &'static str {
    match error.code().map(SqlState::code) {
        Some("53100") => "Free space on the shadow's disk; the stream then goes on by itself.",
        Some("53300") => "Close sessions on the shadow, or raise its max_connections.",
        Some("55P03") => "Someone holds a lock on the shadow; end that session.",
        Some("28P01" | "28000") => "Check user and password of the shadow.",
        Some("42501") => "Grant the shadow's owner what it lacks.",
        Some(state) if !NO_REFUSALS.iter().any(|no| state.starts_with(no)) => REFUSAL_HINT,
        _ => "",
    }
}

const SPOOL_HINT: &str = "Mend the disk of the platform's --data-dir. Meanwhile the transaction is sent whole when it \
     ends; scry_backfill.stream_in_progress = off keeps all of them on the source until then.";

const CONFLICT_HINT: &str = "The shadow was changed by hand, or a copy is incomplete. The row's key stands in \
     scry_shadow.conflict on the shadow; put the row back as it was, or start the job anew.";

const REFUSAL_HINT: &str = "Something on the shadow refuses what the source holds. Take it away there, and the \
     stream goes on by itself, with scry_backfill.resume() at once; or start the job with \"on_error\": \"quarantine\".";

/// SQLSTATEs, or classes of them, that say nothing about a change: connection,
/// transaction state, authorization, resources, locks, operators, the system.
/// (08P01 is what a binary value that ends too early is refused with.)
const NO_REFUSALS: [&str; 13] =
    ["0800", "25", "26", "28", "3D", "40", "42501", "53", "55", "57", "58", "F0", "XX"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_kind_and_retry_by_fault() {
        let version =
            Error::Wire(scry_wire::Error::Version { ours_min: 1, ours_max: 1, theirs_min: 2, theirs_max: 2 });
        let told = |e: Error| e.refuse().map(|r| (r.kind, r.retry));
        assert_eq!(told(version), Some((RefuseKind::Version, false)));
        assert_eq!(told(Error::protocol("x")), Some((RefuseKind::Protocol, true)));
        assert_eq!(told(Error::Stopping), Some((RefuseKind::Stopping, true)));
        assert_eq!(told(Error::Gone), None);
    }
}
