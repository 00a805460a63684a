//! What hangs on a table: constraints, indexes, statistics, triggers, rules, policies.

use serde::{Deserialize, Serialize};

/// A constraint of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_constraint")]
pub struct Constraint {
    pub name: String,
    pub table_oid: u32,
    pub schema: String,
    pub table: String,
    /// The table is partitioned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partitioned: bool,
    /// `p`, `u`, `c`, `f` or `x`.
    #[serde(rename = "type")]
    pub contype: String,
    /// What stands after `CONSTRAINT name`.
    pub definition: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferrable: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub validated: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_inherit: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    #[serde(default)]
    pub inherited: i32,
    /// The partitioned table's constraint that this one is a part of; 0 if none.
    #[serde(default)]
    pub parent_oid: u32,
    /// The table that a foreign key refers to; 0 if none.
    #[serde(default)]
    pub referenced_oid: u32,
    /// The index of a primary key, unique or exclusion constraint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<BackingIndex>,
}

/// The index behind a constraint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_index")]
pub struct BackingIndex {
    pub oid: u32,
    pub name: String,
    pub method: String,
    /// `CREATE UNIQUE INDEX ...`
    pub definition: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clustered: bool,
    /// The partitioned index that this one is a part of; a constraint's or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_oid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// An index that no constraint owns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_index")]
pub struct Index {
    pub schema: String,
    pub name: String,
    pub table_oid: u32,
    pub table_schema: String,
    pub table: String,
    /// `r`, `p` or `m`.
    pub table_kind: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
    /// `CREATE INDEX ...`
    pub definition: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clustered: bool,
    /// The partitioned index that this one is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_oid: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statistics: Vec<IndexStatistics>,
}

/// A statistics target of an expression of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_attribute")]
pub struct IndexStatistics {
    pub attnum: i16,
    pub target: i32,
}

/// An extended statistics object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_statistic_ext")]
pub struct Statistics {
    pub schema: String,
    pub name: String,
    pub table_oid: u32,
    pub table_schema: String,
    pub table: String,
    /// `CREATE STATISTICS ...`
    pub definition: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<i32>,
}

/// A trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_trigger")]
pub struct Trigger {
    pub name: String,
    pub table_oid: u32,
    pub schema: String,
    pub table: String,
    /// It stands on a view.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub view: bool,
    /// `CREATE TRIGGER ...`
    pub definition: String,
    /// `O`, `D`, `R` or `A`.
    pub enabled: String,
    /// The partitioned table's trigger that this one is a copy of; 0 if none.
    #[serde(default)]
    pub parent_oid: u32,
}

/// A rewrite rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_rewrite")]
pub struct Rule {
    pub name: String,
    pub table_oid: u32,
    pub schema: String,
    pub table: String,
    /// It stands on a view.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub view: bool,
    /// `CREATE RULE ...`
    pub definition: String,
    /// `O`, `D`, `R` or `A`.
    pub enabled: String,
}

/// A row security policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_policy")]
pub struct Policy {
    pub name: String,
    pub table_oid: u32,
    pub schema: String,
    pub table: String,
    pub permissive: bool,
    /// `r`, `a`, `w`, `d` or `*`.
    pub command: String,
    /// Empty: PUBLIC.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub using: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}
