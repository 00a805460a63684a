//! The `options` argument of `start()`, checked into a type.

use pgrx::PgSqlErrorCode;
use serde_json::Value;

use super::names::{self, TablePattern};
use super::refusal::{Refusal, literal};

/// What to do with tables whose rows cannot be identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keyless {
    /// Refuse the start.
    #[default]
    Refuse,
    /// Leave them out.
    Skip,
    /// Copy them and send what is inserted; updates and deletes stop the job.
    InsertsOnly,
}

/// What to do with a change that the shadow refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The stream stops there, and tries again.
    #[default]
    Stop,
    /// The platform keeps the change aside, marks the table and goes on.
    Quarantine,
}

/// The options of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobOptions {
    /// Tables without a usable key.
    pub keyless: Keyless,
    /// Only tables that fit one of these; empty for no such condition.
    pub include: Vec<TablePattern>,
    /// No table that fits one of these.
    pub exclude: Vec<TablePattern>,
    /// Changes that the shadow refuses; the platform reads it in the catalog document.
    pub on_error: OnError,
}

/// The options there are.
const NAMES: [&str; 4] = ["keyless", "include", "exclude", "on_error"];

/// Names of the public product that are settings of the server here.
const SETTINGS: [(&str, &str); 11] = [
    ("snapshot_workers", "snapshot_workers"),
    ("batch_size", "batch_size"),
    ("max_rows_per_second", "max_rows_per_second"),
    ("rows_per_second", "max_rows_per_second"),
    ("max_bytes_per_second", "max_bytes_per_second"),
    ("bytes_per_second", "max_bytes_per_second"),
    ("burst_multiplier", "burst_multiplier"),
    ("adaptive", "adaptive"),
    ("shadow_id", "shadow_id"),
    ("endpoint", "endpoint"),
    ("wal_monitor", "max_wal_warning"),
];

impl JobOptions {
    /// Checks the JSON.
    pub fn from_json(json: &Value) -> Result<JobOptions, Refusal> {
        let Value::Object(fields) = json else {
            return Err(Refusal::invalid("options must be a JSON object").hint(example()));
        };
        let mut options = JobOptions::default();
        for (name, value) in fields {
            match name.as_str() {
                "keyless" => options.keyless = keyless(value)?,
                "include" => options.include = patterns("include", value)?,
                "exclude" => options.exclude = patterns("exclude", value)?,
                "on_error" => options.on_error = on_error(value)?,
                _ => return Err(unknown(name)),
            }
        }
        Ok(options)
    }
}

fn example() -> String {
    "For example '{\"keyless\": \"skip\", \"exclude\": [\"audit_*\"]}'.".to_owned()
}

fn keyless(value: &Value) -> Result<Keyless, Refusal> {
    match value.as_str() {
        Some("skip") => Ok(Keyless::Skip),
        Some("inserts_only") => Ok(Keyless::InsertsOnly),
        Some("resync") => Err(Refusal::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "option \"keyless\": \"resync\" is not supported yet",
        )
        .hint("Use \"skip\" or \"inserts_only\", or give the tables a replica identity.")),
        _ => Err(Refusal::invalid("option \"keyless\" must be \"skip\" or \"inserts_only\"")),
    }
}

fn on_error(value: &Value) -> Result<OnError, Refusal> {
    match value.as_str() {
        Some("stop") => Ok(OnError::Stop),
        Some("quarantine") => Ok(OnError::Quarantine),
        _ => Err(Refusal::invalid("option \"on_error\" must be \"stop\" or \"quarantine\"")),
    }
}

fn patterns(name: &str, value: &Value) -> Result<Vec<TablePattern>, Refusal> {
    let list = match value {
        Value::String(list) => vec![list.as_str()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let given = value.as_array().map_or(1, Vec::len);
    if list.is_empty() || list.len() != given {
        return Err(
            Refusal::invalid(format!("option \"{name}\" must be a list of names or globs")).hint(example())
        );
    }
    let mut patterns = Vec::new();
    for item in list {
        patterns.extend(names::parse(item)?);
    }
    Ok(patterns)
}

fn unknown(name: &str) -> Refusal {
    if let Some((_, setting)) = SETTINGS.iter().find(|(known, _)| *known == name) {
        return Refusal::invalid(format!("\"{name}\" is a setting of the server, not an option of a job"))
            .hint(format!("Set scry_backfill.{setting} in postgresql.conf or by ALTER SYSTEM, and reload."));
    }
    let refusal = Refusal::invalid(format!("unknown option {}", literal(name)));
    let near = names::near(name, NAMES.into_iter());
    if near.is_empty() {
        refusal.hint(format!("The options are: {}.", NAMES.join(", ")))
    } else {
        refusal.hint(format!("Perhaps you meant {}.", near.join(" or ")))
    }
}

#[cfg(test)]
mod tests {
    use super::{JobOptions, Keyless, OnError};
    use serde_json::json;

    #[test]
    fn reads_options() {
        let options = JobOptions::from_json(&json!({"keyless": "skip", "exclude": ["audit_*"]})).unwrap();
        assert_eq!(options.keyless, Keyless::Skip);
        assert_eq!(options.exclude.len(), 1);
        assert_eq!(options.on_error, OnError::Stop);
        let options = JobOptions::from_json(&json!({"on_error": "quarantine"})).unwrap();
        assert_eq!(options.on_error, OnError::Quarantine);
        assert_eq!(serde_json::to_value(options.on_error).unwrap(), json!("quarantine"));
    }

    #[test]
    fn rejects_what_it_does_not_know() {
        for bad in [
            json!([]),
            json!({"speed": 1}),
            json!({"keyless": "maybe"}),
            json!({"exclude": [1]}),
            json!({"on_error": "skip"}),
            json!({"on_error": true}),
            json!({"batch_size": 0}),
            json!({"endpoint": "https://x"}),
        ] {
            assert!(JobOptions::from_json(&bad).is_err(), "{bad}");
        }
    }
}
