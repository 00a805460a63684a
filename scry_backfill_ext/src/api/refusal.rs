//! An error for the user: what, why, what to do. A value until the border,
//! where it becomes the server's ERROR.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::spi::SpiError;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: PgSqlErrorCode,
    message: String,
    detail: String,
    hint: String,
}

impl Refusal {
    /// A refusal with its message (no full stop, lower case, as the server's).
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), detail: String::new(), hint: String::new() }
    }

    /// An argument that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    /// The server or the database is not ready for it.
    pub fn not_ready(message: impl Into<String>) -> Refusal {
        Refusal::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
    }

    /// Adds the detail: sentences.
    pub fn detail(mut self, detail: impl Into<String>) -> Refusal {
        self.detail = detail.into();
        self
    }

    /// Adds more of the same kind below the detail.
    pub fn also(mut self, more: &str) -> Refusal {
        if !self.detail.is_empty() {
            self.detail.push('\n');
        }
        self.detail.push_str("Also: ");
        self.detail.push_str(more);
        self
    }

    /// Adds the remedy: sentences.
    pub fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = hint.into();
        self
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Message and detail on one line.
    pub fn finding(&self) -> String {
        if self.detail.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.message, self.detail)
        }
    }

    /// The remedy.
    pub fn remedy(&self) -> &str {
        &self.hint
    }

    fn report(self, level: PgLogLevel) {
        let mut report = ErrorReport::new(self.code, self.message, "scry_backfill");
        if !self.detail.is_empty() {
            report = report.set_detail(self.detail);
        }
        if !self.hint.is_empty() {
            report = report.set_hint(self.hint);
        }
        report.report(level);
    }

    /// Reports it as a WARNING.
    pub fn warn(self) {
        self.report(PgLogLevel::WARNING);
    }

    /// Reports it as a NOTICE.
    pub fn notice(self) {
        self.report(PgLogLevel::NOTICE);
    }

    /// Reports it as an ERROR: the statement ends here.
    pub fn raise(self) -> ! {
        let message = self.message.clone();
        self.report(PgLogLevel::ERROR);
        // Not reached: an ERROR does not return.
        pgrx::error!("{message}")
    }
}

impl From<SpiError> for Refusal {
    fn from(error: SpiError) -> Refusal {
        Refusal::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("could not read the catalogs for scry_backfill: {error}"),
        )
    }
}

/// Raises the refusal, if it is one.
pub fn or_raise<T>(result: Result<T, Refusal>) -> T {
    result.unwrap_or_else(|refusal| refusal.raise())
}

/// The server's ending for more than one.
pub fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// A text as an SQL literal, for hints.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
