//! Types and collations of the document.

use super::{ObjectId, QualifiedName, RoutineRef, TypeRef};
use serde::{Deserialize, Serialize};

/// A collation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_collation")]
pub struct Collation {
    pub schema: String,
    pub name: String,
    /// `c`, `i` (ICU), `b` (builtin) or `d`.
    pub provider: String,
    pub deterministic: bool,
    /// None: of every encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctype: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
}

/// An enum type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_type and pg_enum")]
pub struct EnumType {
    pub schema: String,
    pub name: String,
    /// In their order.
    pub labels: Vec<String>,
    /// Their oids in `pg_enum`, in the same order: a label with another text is renamed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_oids: Vec<u32>,
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_type")]
pub struct Domain {
    pub schema: String,
    pub name: String,
    pub base: TypeRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<QualifiedName>,
    pub not_null: bool,
    /// An expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<DomainConstraint>,
}

/// A check constraint of a domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_constraint")]
pub struct DomainConstraint {
    pub oid: u32,
    pub name: String,
    /// From `CHECK` on.
    pub definition: String,
    pub validated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What the check needs (functions, above all).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ObjectId>,
}

/// A composite type made by `CREATE TYPE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_type")]
pub struct Composite {
    pub schema: String,
    pub name: String,
    pub attributes: Vec<Attribute>,
}

/// An attribute of a composite type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_attribute")]
pub struct Attribute {
    pub attnum: i16,
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: TypeRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<QualifiedName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A range type with its multirange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_range")]
pub struct Range {
    pub schema: String,
    pub name: String,
    pub subtype: TypeRef,
    /// Where it is not the subtype's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_class: Option<QualifiedName>,
    /// Where it is not the subtype's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<QualifiedName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<QualifiedName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype_diff: Option<QualifiedName>,
    pub multirange: QualifiedName,
}

/// A base type, or a shell that nobody has filled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_type")]
pub struct BaseType {
    pub schema: String,
    pub name: String,
    /// Only the name is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shell: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modifier_input: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modifier_output: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analyze: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscript: Option<RoutineRef>,
    /// In bytes; -1 is variable, -2 a C string.
    pub length: i16,
    pub by_value: bool,
    /// `c`, `s`, `i` or `d`.
    pub alignment: String,
    /// `p`, `e`, `m` or `x`.
    pub storage: String,
    pub category: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preferred: bool,
    pub delimiter: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub collatable: bool,
    /// A value in its outer form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<TypeRef>,
}
