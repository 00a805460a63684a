//! Functions, procedures, aggregates, operators and casts of the document.

use super::QualifiedName;
use serde::{Deserialize, Serialize};

/// A function, window function or procedure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_proc")]
pub struct Function {
    pub schema: String,
    pub name: String,
    /// `f`, `w` or `p`.
    pub prokind: String,
    pub language: String,
    /// The arguments that tell it from its namesakes.
    pub arguments: String,
    /// `CREATE OR REPLACE FUNCTION ...`
    pub definition: String,
}

/// An aggregate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_aggregate")]
pub struct Aggregate {
    pub schema: String,
    pub name: String,
    /// What stands in the parentheses of `CREATE AGGREGATE`.
    pub arguments: String,
    pub identity_arguments: String,
    /// `n`, `o` or `h`.
    pub aggkind: String,
    pub parallel: String,
    pub transition: String,
    pub state_type: String,
    #[serde(default)]
    pub state_space: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
    pub final_function: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub final_extra: bool,
    pub final_modify: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serialize: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deserialize: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_transition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_inverse: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_state_type: Option<String>,
    #[serde(default)]
    pub moving_state_space: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_initial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_final: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moving_final_extra: bool,
    pub moving_final_modify: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort_operator: Option<QualifiedName>,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_operator")]
pub struct Operator {
    pub schema: String,
    pub name: String,
    /// Type of the left argument; None for a prefix operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
    pub function: QualifiedName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commutator: Option<QualifiedName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negator: Option<QualifiedName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restrict: Option<QualifiedName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<QualifiedName>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merges: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hashes: bool,
}

/// A cast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_cast")]
pub struct Cast {
    pub source: String,
    pub target: String,
    /// `f` (function), `i` (by input and output) or `b` (binary coercible).
    pub method: String,
    /// `e` (explicit), `a` (in assignment) or `i` (implicit).
    pub context: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<CastFunction>,
}

/// The function of a cast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_proc")]
pub struct CastFunction {
    pub schema: String,
    pub name: String,
    pub arguments: String,
}
