//! Functions, procedures, aggregates, operators and casts of the document.
//!
//! Some are said twice: as the server's text, and in parts. What a superuser runs on the shadow
//! is put together from parts alone.

use super::{QualifiedName, TypeRef};
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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leakproof: bool,
    /// The planner's support function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub support: Option<RoutineRef>,
    /// Its arguments as data, of one with something that only a superuser may say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument_types: Option<Vec<TypeRef>>,
    /// It is machine code (`c`, `internal`) and has nothing that these parts do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFunction>,
}

/// A routine and what tells it from its namesakes, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_proc")]
pub struct RoutineRef {
    pub schema: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<TypeRef>,
}

/// What a function in a language of machine code is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_proc")]
pub struct NativeFunction {
    /// The symbol.
    pub source: String,
    /// The file that has it; None for the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<TypeRef>,
    /// Empty, or one for each argument.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    pub returns: TypeRef,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returns_set: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// `i`, `s` or `v`.
    pub volatile: String,
    /// `s`, `r` or `u`.
    pub parallel: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub security_definer: bool,
    pub cost: f64,
    #[serde(default)]
    pub rows: f64,
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
    /// The arguments again, as data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argument_types: Vec<TypeRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argument_names: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub variadic: bool,
    #[serde(default)]
    pub direct_arguments: i16,
    pub parallel: String,
    /// Its functions as data, where its state is of type `internal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<AggregateFunctions>,
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

/// The functions of an aggregate, as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_aggregate")]
pub struct AggregateFunctions {
    pub transition: RoutineRef,
    #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
    pub final_function: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serialize: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deserialize: Option<RoutineRef>,
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
    pub source_type: TypeRef,
    pub target_type: TypeRef,
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
    /// The arguments again, as data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argument_types: Vec<TypeRef>,
}
