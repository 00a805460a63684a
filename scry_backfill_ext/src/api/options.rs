//! The `options` argument of `start()`, checked into a type.

use std::collections::BTreeSet;

use pgrx::PgSqlErrorCode;
use serde_json::Value;

use super::names::{self, TablePattern};
use super::refusal::{Refusal, literal};
use crate::worker::pace::Limits;

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

/// What `drop_table()` has taken out of a job: no option of `start()`, but kept with them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alone {
    /// Names and globs with a schema: what is made later under such a name stays out too.
    pub patterns: Vec<TablePattern>,
    /// The tables themselves, whatever they are called now; what is below them stays out too.
    pub relids: BTreeSet<u32>,
}

impl Alone {
    /// Reads the patterns as the job's row keeps them; they were written by `drop_table()`.
    pub fn new(patterns: &[String], relids: BTreeSet<u32>) -> Alone {
        let patterns = patterns.iter().filter_map(|text| names::parse(text).ok()).flatten().collect();
        Alone { patterns, relids }
    }

    /// Whether nothing has been taken out.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.relids.is_empty()
    }
}

/// The options of a job.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobOptions {
    /// Tables without a usable key.
    pub keyless: Keyless,
    /// Only tables that fit one of these; empty for no such condition.
    pub include: Vec<TablePattern>,
    /// No table that fits one of these.
    pub exclude: Vec<TablePattern>,
    /// Changes that the shadow refuses; the platform reads it in the catalog document.
    pub on_error: OnError,
    /// How fast its copy may be, besides what the settings allow.
    pub limits: Limits,
    /// What was taken out later.
    pub alone: Alone,
}

/// The options there are.
const NAMES: [&str; 9] = [
    "keyless",
    "include",
    "exclude",
    "on_error",
    "max_rows_per_second",
    "rows_per_second",
    "max_bytes_per_second",
    "bytes_per_second",
    "burst_multiplier",
];

/// Names of the public product that are settings of the server here.
const SETTINGS: [(&str, &str); 6] = [
    ("snapshot_workers", "snapshot_workers"),
    ("batch_size", "batch_size"),
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
        options.limits.burst_multiplier = BURST_DEFAULT;
        for (short, long) in
            [("rows_per_second", "max_rows_per_second"), ("bytes_per_second", "max_bytes_per_second")]
        {
            if fields.contains_key(short) && fields.contains_key(long) {
                return Err(Refusal::invalid(format!("options \"{short}\" and \"{long}\" are the same")));
            }
        }
        for (name, value) in fields {
            match name.as_str() {
                "keyless" => options.keyless = keyless(value)?,
                "include" => options.include = patterns("include", value)?,
                "exclude" => options.exclude = patterns("exclude", value)?,
                "on_error" => options.on_error = on_error(value)?,
                "max_rows_per_second" | "rows_per_second" => {
                    options.limits.rows_per_second = value.as_u64().ok_or_else(|| no_rate(name))?;
                }
                "max_bytes_per_second" | "bytes_per_second" => {
                    options.limits.bytes_per_second = bytes(value).ok_or_else(|| no_rate(name))?;
                }
                "burst_multiplier" => options.limits.burst_multiplier = burst(value)?,
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

fn no_rate(name: &str) -> Refusal {
    Refusal::invalid(format!("option \"{name}\" must be a number, 0 for no limit"))
        .hint("Bytes may have a unit: \"20MB\".")
}

/// A number of bytes, or one with a unit as the server's settings have it.
fn bytes(value: &Value) -> Option<u64> {
    let Some(text) = value.as_str() else { return value.as_u64() };
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "kB" | "KB" | "KiB" => 10,
        "MB" | "MiB" => 20,
        "GB" | "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// As the setting's default.
const BURST_DEFAULT: f64 = 1.5;

fn burst(value: &Value) -> Result<f64, Refusal> {
    value.as_f64().filter(|burst| (0.01..=100.0).contains(burst)).ok_or_else(|| {
        Refusal::invalid("option \"burst_multiplier\" must be a number from 0.01 to 100")
            .hint("It is the seconds' worth of rows and bytes that may be sent at once.")
    })
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
    fn reads_rates_by_both_names_and_with_units() {
        let limits = |json| JobOptions::from_json(&json).unwrap().limits;
        let long = limits(json!({"max_rows_per_second": 100, "max_bytes_per_second": 20 << 20}));
        let short = limits(json!({"rows_per_second": 100, "bytes_per_second": "20MB"}));
        assert_eq!(long, short);
        assert_eq!((short.rows_per_second, short.bytes_per_second), (100, 20 << 20));
        assert_eq!(limits(json!({"bytes_per_second": "64 kB"})).bytes_per_second, 65536);
        assert_eq!(limits(json!({"bytes_per_second": "512"})).bytes_per_second, 512);
        assert_eq!(limits(json!({"burst_multiplier": 3})).burst_multiplier, 3.0);
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
            json!({"rows_per_second": "fast"}),
            json!({"rows_per_second": -1}),
            json!({"bytes_per_second": "20 parsecs"}),
            json!({"bytes_per_second": "99999999999GB"}),
            json!({"bytes_per_second": 1, "max_bytes_per_second": 1}),
            json!({"burst_multiplier": 0}),
            json!({"endpoint": "https://x"}),
        ] {
            assert!(JobOptions::from_json(&bad).is_err(), "{bad}");
        }
    }
}
