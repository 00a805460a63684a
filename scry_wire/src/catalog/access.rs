//! Access methods, operator families and operator classes of the document.

use super::{QualifiedName, RoutineRef, TypeRef};
use serde::{Deserialize, Serialize};

/// An access method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_am")]
pub struct AccessMethod {
    pub name: String,
    /// `i` (index) or `t` (table).
    #[serde(rename = "type")]
    pub amtype: String,
    pub handler: RoutineRef,
}

/// An operator family with what none of its classes holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_opfamily")]
pub struct OperatorFamily {
    pub schema: String,
    pub name: String,
    pub access_method: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<FamilyOperator>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FamilyFunction>,
}

/// An operator class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_opclass")]
pub struct OperatorClass {
    pub schema: String,
    pub name: String,
    pub access_method: String,
    /// It is the input type's default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    pub family: QualifiedName,
    pub input: TypeRef,
    /// The type stored, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<TypeRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<FamilyOperator>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FamilyFunction>,
}

/// An operator of a family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_amop")]
pub struct FamilyOperator {
    pub strategy: i16,
    pub operator: QualifiedName,
    pub left: TypeRef,
    pub right: TypeRef,
    /// The family that its results are ordered by: it is an ordering operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_family: Option<QualifiedName>,
}

/// A support function of a family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "columns of pg_amproc")]
pub struct FamilyFunction {
    pub number: i16,
    pub left: TypeRef,
    pub right: TypeRef,
    pub function: RoutineRef,
}
