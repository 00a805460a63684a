//! The catalog document: what the shadow must look like, as data.
//!
//! The source runs the queries of `sql/catalog` ([`query`]) and sets their rows together
//! ([`assemble`](Catalog::assemble)); the document crosses the wire as JSON; the platform
//! turns it into DDL. The same files run on the shadow make a second document, and
//! [`Catalog::differences`] of the two answers whether the shadow still is a twin.
//!
//! ```text
//! closure.sql -> ids ──> one query a kind -> entries ──┐
//!                └─────> depends.sql      -> edges   ──┴─> Catalog ──JSON──> DDL
//! ```
//!
//! Invariants: names are data, and stand unquoted; text in SQL is only what the server
//! itself wrote (expressions, definitions, type names with their modifiers) and is
//! qualified by schema. Fields that a reader does not know are passed over, so is an object
//! of an unknown kind ([`Entry::Unknown`]).
//!
//! What it does not do: run anything, or decide in which order objects are made.

mod access;
mod around;
mod assemble;
mod attached;
mod compare;
mod datatype;
mod describe;
mod foreign;
mod language;
mod query;
mod relation;
mod routine;
mod text_search;
mod without;

pub use access::{AccessMethod, FamilyFunction, FamilyOperator, OperatorClass, OperatorFamily};
pub use assemble::{CatalogError, ClosureRow, DependsRow, closure_objects};
pub use attached::{BackingIndex, Constraint, Index, IndexStatistics, Policy, Rule, Statistics, Trigger};
pub use compare::Difference;
pub use datatype::{Attribute, BaseType, Collation, Composite, Domain, DomainConstraint, EnumType, Range};
pub use foreign::{ForeignDataWrapper, ForeignOption, ForeignTable, Server};
pub use language::{Conversion, EventTrigger, Language, Transform};
pub use query::{CatalogQuery, SETTINGS, closure_query, depends_query, queries};
pub use relation::{
    Column, ColumnDefault, MaterializedColumn, MaterializedView, Parent, Sequence, SequenceOwner, Table,
    View, ViewColumn,
};
pub use routine::{
    Aggregate, AggregateFunctions, Cast, CastFunction, Function, NativeFunction, Operator, RoutineRef,
};
pub use text_search::{
    TextSearchConfiguration, TextSearchDictionary, TextSearchMapping, TextSearchParser, TextSearchTemplate,
};

use serde::{Deserialize, Serialize};

/// Version of the document; raised when a reader of the old one would build something else.
pub const CATALOG_FORMAT: u32 = 1;

/// Everything that the shadow needs, and what was left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// [`CATALOG_FORMAT`] of the writer.
    pub format: u32,
    /// The document covers the whole database, not chosen tables.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_database: bool,
    /// The objects, by kind and name.
    pub objects: Vec<Object>,
    /// What the source does not send, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// One object of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// The system catalog that holds it.
    pub class: Class,
    /// Its OID on the server that wrote the document.
    pub oid: u32,
    /// It belongs to the user's choice; otherwise it is only there because something chosen
    /// needs it (of a table: its shape without its rows).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub selected: bool,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What must exist before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ObjectId>,
    /// What it is.
    pub entry: Entry,
}

impl Object {
    /// Its identity within the document.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        ObjectId { class: self.class, oid: self.oid }
    }
}

/// Identity of an object on the server that wrote the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectId {
    /// The system catalog that holds it.
    pub class: Class,
    /// Its OID.
    pub oid: u32,
}

impl ObjectId {
    /// Whether it is the relation with this OID.
    #[must_use]
    pub fn is_relation(self, oid: u32) -> bool {
        self.class == Class::Relation && self.oid == oid
    }
}

/// System catalogs whose rows are objects of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// Schemas.
    #[serde(rename = "pg_namespace")]
    Namespace,
    /// Extensions.
    #[serde(rename = "pg_extension")]
    Extension,
    /// Collations.
    #[serde(rename = "pg_collation")]
    Collation,
    /// Enums, domains, composites, ranges, base types.
    #[serde(rename = "pg_type")]
    Type,
    /// Functions, procedures, aggregates.
    #[serde(rename = "pg_proc")]
    Proc,
    /// Tables, foreign tables, sequences, indexes, views, materialized views.
    #[serde(rename = "pg_class")]
    Relation,
    /// Column defaults; parts of a table, never objects.
    #[serde(rename = "pg_attrdef")]
    AttributeDefault,
    /// Constraints of tables (of domains: parts of the domain).
    #[serde(rename = "pg_constraint")]
    Constraint,
    /// Statistics objects.
    #[serde(rename = "pg_statistic_ext")]
    Statistics,
    /// Rules.
    #[serde(rename = "pg_rewrite")]
    Rewrite,
    /// Triggers.
    #[serde(rename = "pg_trigger")]
    Trigger,
    /// Row security policies.
    #[serde(rename = "pg_policy")]
    Policy,
    /// Operators.
    #[serde(rename = "pg_operator")]
    Operator,
    /// Casts.
    #[serde(rename = "pg_cast")]
    Cast,
    /// Text search dictionaries.
    #[serde(rename = "pg_ts_dict")]
    TextSearchDictionary,
    /// Text search configurations.
    #[serde(rename = "pg_ts_config")]
    TextSearchConfiguration,
    /// Operator families.
    #[serde(rename = "pg_opfamily")]
    OperatorFamily,
    /// Operator classes.
    #[serde(rename = "pg_opclass")]
    OperatorClass,
    /// Access methods.
    #[serde(rename = "pg_am")]
    AccessMethod,
    /// Conversions.
    #[serde(rename = "pg_conversion")]
    Conversion,
    /// Languages.
    #[serde(rename = "pg_language")]
    Language,
    /// Transforms.
    #[serde(rename = "pg_transform")]
    Transform,
    /// Text search parsers.
    #[serde(rename = "pg_ts_parser")]
    TextSearchParser,
    /// Text search templates.
    #[serde(rename = "pg_ts_template")]
    TextSearchTemplate,
    /// Foreign-data wrappers.
    #[serde(rename = "pg_foreign_data_wrapper")]
    ForeignDataWrapper,
    /// Foreign servers.
    #[serde(rename = "pg_foreign_server")]
    Server,
    /// Event triggers.
    #[serde(rename = "pg_event_trigger")]
    EventTrigger,
    /// A catalog that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Class {
    /// The class whose catalog has this OID; these OIDs are the same on every server.
    #[must_use]
    pub fn from_oid(oid: u32) -> Self {
        match oid {
            2615 => Self::Namespace,
            3079 => Self::Extension,
            3456 => Self::Collation,
            1247 => Self::Type,
            1255 => Self::Proc,
            1259 => Self::Relation,
            2604 => Self::AttributeDefault,
            2606 => Self::Constraint,
            3381 => Self::Statistics,
            2618 => Self::Rewrite,
            2620 => Self::Trigger,
            3256 => Self::Policy,
            2617 => Self::Operator,
            2605 => Self::Cast,
            3600 => Self::TextSearchDictionary,
            3602 => Self::TextSearchConfiguration,
            2753 => Self::OperatorFamily,
            2616 => Self::OperatorClass,
            2601 => Self::AccessMethod,
            2607 => Self::Conversion,
            2612 => Self::Language,
            3576 => Self::Transform,
            3601 => Self::TextSearchParser,
            3764 => Self::TextSearchTemplate,
            2328 => Self::ForeignDataWrapper,
            1417 => Self::Server,
            3466 => Self::EventTrigger,
            _ => Self::Unknown,
        }
    }
}

/// What an object is; its form follows from the kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is documented at its type")]
pub enum Entry {
    Schema(Schema),
    Extension(Extension),
    Collation(Collation),
    Enum(EnumType),
    Domain(Domain),
    Composite(Composite),
    Range(Range),
    BaseType(BaseType),
    Sequence(Sequence),
    Table(Table),
    ForeignTable(ForeignTable),
    Constraint(Constraint),
    Index(Index),
    Statistics(Statistics),
    View(View),
    MaterializedView(MaterializedView),
    Function(Function),
    Aggregate(Aggregate),
    Operator(Operator),
    Cast(Cast),
    OperatorFamily(OperatorFamily),
    OperatorClass(OperatorClass),
    AccessMethod(AccessMethod),
    Conversion(Conversion),
    Language(Language),
    Transform(Transform),
    EventTrigger(EventTrigger),
    ForeignDataWrapper(ForeignDataWrapper),
    Server(Server),
    TextSearchParser(TextSearchParser),
    TextSearchTemplate(TextSearchTemplate),
    TextSearchDictionary(TextSearchDictionary),
    TextSearchConfiguration(TextSearchConfiguration),
    Trigger(Trigger),
    Rule(Rule),
    Policy(Policy),
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Its name.
    pub name: String,
}

/// An extension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The schema its objects are in.
    pub schema: String,
    /// The version installed on the source.
    pub version: String,
    /// It can be moved to another schema.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relocatable: bool,
}

/// A name in a schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QualifiedName {
    /// The schema.
    pub schema: String,
    /// The name in it.
    pub name: String,
}

/// A type as a column has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeRef {
    /// The schema of the type.
    pub schema: String,
    /// Its name in `pg_type` (an array's begins with an underscore).
    pub name: String,
    /// As `format_type` writes it, with modifier, qualified where it must be.
    pub sql: String,
}

/// Something that the shadow does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its kind and name.
    pub object: String,
    /// Why.
    pub reason: String,
    /// The error of the server that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
}
