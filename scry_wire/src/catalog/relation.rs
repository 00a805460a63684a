//! Tables, sequences and views of the document.
//!
//! Columns are identified by `attnum`: a new name under an old number is a rename.

use super::foreign::ForeignOption;
use super::{ObjectId, QualifiedName, TypeRef};
use serde::{Deserialize, Serialize};

/// A table or partitioned table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_class")]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub partitioned: bool,
    /// Its rows leave nothing in the WAL: only its shape is here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlogged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_method: Option<String>,
    /// The type of `CREATE TABLE ... OF`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_type: Option<TypeRef>,
    /// `name=value`, as in `reloptions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub toast_options: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub row_security: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_row_security: bool,
    /// `d`, `n`, `f` or `i`.
    pub replica_identity: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_identity_index: Option<String>,
    /// What stands after `PARTITION BY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_key: Option<String>,
    /// `FOR VALUES ...` or `DEFAULT`, of a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_bound: Option<String>,
    /// The partitioned table or the inheritance parents; they need not be in the document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// `relfilenode`: another one means that the table was rewritten or truncated.
    #[serde(default)]
    pub filenode: u32,
    /// Roles that values of its columns may name: not empty where a column's type names roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    pub columns: Vec<Column>,
}

/// A table that another inherits from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_class")]
pub struct Parent {
    pub oid: u32,
    pub schema: String,
    pub name: String,
}

/// A column of a table, dropped ones included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_attribute")]
pub struct Column {
    pub attnum: i16,
    pub name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
    /// None for a dropped column.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub data_type: Option<TypeRef>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null: bool,
    /// The constraint's name, where the server has one (18 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_null_name: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null_no_inherit: bool,
    /// The default or, of a generated column, its expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<ColumnDefault>,
    /// Empty, `s` (stored) or `v` (virtual).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub generated: String,
    /// Empty, `a` (always) or `d` (by default).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<QualifiedName>,
    /// `p`, `e`, `m` or `x`, where it is not the type's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// Empty, `p` (pglz) or `l` (lz4).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub compression: String,
    /// Statistics target, where it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Of a column of a foreign table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_options: Vec<ForeignOption>,
    /// Defined in this table, not only by a parent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// How many parents have it.
    #[serde(default)]
    pub inherited: i32,
    /// `attmissingval`, as text of an array of one: the value of rows older than the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// The default of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnDefault {
    /// OID in `pg_attrdef`.
    pub oid: u32,
    /// The expression.
    pub sql: String,
    /// What it needs (functions, sequences).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ObjectId>,
}

/// A sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_sequence")]
pub struct Sequence {
    pub schema: String,
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: String,
    pub start: i64,
    pub increment: i64,
    pub min: i64,
    pub max: i64,
    pub cache: i64,
    pub cycle: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlogged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SequenceOwner>,
    /// Filled in by whoever reads values; the queries do not, see `sequence.sql`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_value: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_called: bool,
}

/// The column that a sequence belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_depend, resolved")]
pub struct SequenceOwner {
    pub table_oid: u32,
    pub schema: String,
    pub table: String,
    pub attnum: i16,
    pub column: String,
    /// It makes an identity column, and comes with the table.
    pub identity: bool,
}

/// A view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_class")]
pub struct View {
    pub schema: String,
    pub name: String,
    /// The query.
    pub definition: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ViewColumn>,
}

/// A column of a view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_attribute")]
pub struct ViewColumn {
    pub attnum: i16,
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: TypeRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<QualifiedName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<ColumnDefault>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A materialized view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_class")]
pub struct MaterializedView {
    pub schema: String,
    pub name: String,
    /// The query.
    pub definition: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_method: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub toast_options: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub populated: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<MaterializedColumn>,
}

/// What is set on a column of a materialized view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_attribute")]
pub struct MaterializedColumn {
    pub attnum: i16,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub compression: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}
