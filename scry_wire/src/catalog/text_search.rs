//! Text search parsers, templates, dictionaries and configurations of the document.

use super::{QualifiedName, RoutineRef};
use serde::{Deserialize, Serialize};

/// A text search dictionary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_ts_dict")]
pub struct TextSearchDictionary {
    pub schema: String,
    pub name: String,
    pub template: QualifiedName,
    /// The list of options as the server keeps it, in SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
}

/// A text search configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_ts_config")]
pub struct TextSearchConfiguration {
    pub schema: String,
    pub name: String,
    pub parser: QualifiedName,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<TextSearchMapping>,
}

/// The dictionaries asked for one kind of token, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_ts_config_map")]
pub struct TextSearchMapping {
    pub token: String,
    pub dictionaries: Vec<QualifiedName>,
}

/// A text search parser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_ts_parser")]
pub struct TextSearchParser {
    pub schema: String,
    pub name: String,
    pub start: RoutineRef,
    pub token: RoutineRef,
    pub end: RoutineRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headline: Option<RoutineRef>,
    pub lextype: RoutineRef,
}

/// A text search template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_ts_template")]
pub struct TextSearchTemplate {
    pub schema: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<RoutineRef>,
    pub lexize: RoutineRef,
}
