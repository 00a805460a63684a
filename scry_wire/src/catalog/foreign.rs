//! Foreign-data wrappers, servers and foreign tables of the document.
//!
//! User mappings are no part of it: they hold passwords.

use super::{RoutineRef, Table};
use serde::{Deserialize, Serialize};

/// A foreign-data wrapper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_foreign_data_wrapper")]
pub struct ForeignDataWrapper {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<ForeignOption>,
}

/// A foreign server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_foreign_server")]
pub struct Server {
    pub name: String,
    pub wrapper: String,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub server_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<ForeignOption>,
}

/// A foreign table: its shape, and where its rows are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForeignTable {
    /// As of a table.
    #[serde(flatten)]
    pub table: Table,
    /// The foreign server.
    pub server: String,
    /// Of the table; those of columns stand with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_options: Vec<ForeignOption>,
}

/// An option in `OPTIONS (...)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "a name and a value")]
pub struct ForeignOption {
    pub name: String,
    pub value: String,
}
