//! Languages, transforms, conversions and event triggers of the document.

use super::{RoutineRef, TypeRef};
use serde::{Deserialize, Serialize};

/// A procedural language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_language")]
pub struct Language {
    pub name: String,
    pub trusted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<RoutineRef>,
}

/// A transform of a type for a language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_transform")]
pub struct Transform {
    #[serde(rename = "type")]
    pub data_type: TypeRef,
    pub language: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_sql: Option<RoutineRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_sql: Option<RoutineRef>,
}

/// A conversion between two encodings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_conversion")]
pub struct Conversion {
    pub schema: String,
    pub name: String,
    pub from: String,
    pub to: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    pub function: RoutineRef,
}

/// An event trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_event_trigger")]
pub struct EventTrigger {
    pub name: String,
    pub event: String,
    /// Empty: every command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub function: RoutineRef,
    /// On the source; on the shadow it is disabled.
    pub enabled: String,
}
