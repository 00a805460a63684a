//! From the document to steps in an order in which they can be run.
//!
//! ```text
//! Catalog ─nodes─> graph ─order─> one sequence ─split─> pre_data | post_data stages
//! ```
//!
//! Pre-data is what rows need: all that tables need and all functions that can be made
//! without keys and matviews. Views come before the data only when something
//! there needs them. Everything else waits for the data, in [`StageName`]'s order.
//!
//! Invariants: each object of the document is in exactly one main step (an identity
//! sequence: in its table's); the same document gives the same plan.

use super::order::{Node, Slot, sort};
use super::render;
use super::render::vetted;
use scry_wire::catalog::{
    BaseType, Catalog, Class, Entry, LeftOut, NativeFunction, Object, ObjectId, QualifiedName, RoutineRef,
    Sequence, Table, TypeRef,
};
use std::collections::{HashMap, HashSet};

/// What is run on the shadow, in order.
#[derive(Debug, Default)]
pub struct Plan {
    /// Before the rows.
    pub pre_data: Vec<Step>,
    /// After the rows.
    pub post_data: Vec<Stage>,
    /// What is made otherwise than it is on the source.
    pub notes: Vec<LeftOut>,
}

/// Steps that belong together after the data.
#[derive(Debug)]
pub struct Stage {
    /// Which.
    pub name: StageName,
    /// In an order that works; of a parallel stage, in any order.
    pub steps: Vec<Step>,
}

/// The stages after the data, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StageName {
    /// Indexes of tables, those of keys too.
    Indexes,
    /// Keys over their indexes; exclusion constraints.
    Keys,
    /// Partitions' indexes put under their parents'.
    IndexPartitions,
    /// Check constraints that a child has of its own beside its parent's: the other way round the
    /// server refuses a valid one under one that is not.
    ChildChecks,
    /// Check constraints.
    Checks,
    /// Foreign keys.
    ForeignKeys,
    /// Statistics objects.
    Statistics,
    /// Views, materialized views without rows, what else had to wait.
    Definitions,
    /// Rows of materialized views.
    Refresh,
    /// Indexes of materialized views.
    MaterializedIndexes,
    /// Rules, triggers, policies.
    Behaviour,
    /// Row security, replica identity, owners of sequences.
    Settings,
    /// Comments.
    Comments,
}

impl StageName {
    /// Its name in status and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Indexes => "indexes",
            Self::Keys => "keys",
            Self::IndexPartitions => "index partitions",
            Self::ChildChecks => "check constraints of children",
            Self::Checks => "check constraints",
            Self::ForeignKeys => "foreign keys",
            Self::Statistics => "statistics objects",
            Self::Definitions => "views",
            Self::Refresh => "materialized views",
            Self::MaterializedIndexes => "indexes of materialized views",
            Self::Behaviour => "triggers",
            Self::Settings => "settings",
            Self::Comments => "comments",
        }
    }

    /// Its steps do not need each other.
    #[must_use]
    pub fn parallel(self) -> bool {
        matches!(
            self,
            Self::Indexes | Self::Keys | Self::Checks | Self::ForeignKeys | Self::MaterializedIndexes
        )
    }
}

/// One thing to do, in one transaction.
#[derive(Debug, Clone)]
pub struct Step {
    /// For which object of the document.
    pub object: ObjectId,
    /// Kind and name, for people.
    pub describe: String,
    /// What of the object: `create`, `attach`, ...
    pub part: &'static str,
    /// The statements, each alone.
    pub sql: Vec<String>,
    /// Statements that go with them and say what a value is at this moment: another round of
    /// the copy has others, and is not another step for that.
    pub values: Vec<String>,
    /// What undoes it, for main steps.
    pub undo: Option<String>,
    /// What it asks of whoever runs it.
    pub need: Need,
    /// The relation that it makes; the ledger keeps its OID, so that it is found when renamed.
    pub makes: Option<QualifiedName>,
    /// The table whose rows it reads: of a parallel stage, the largest are begun with.
    pub reads: Option<QualifiedName>,
}

/// What a step asks of whoever runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Nothing: a failure leaves this object out.
    Nothing,
    /// A failure is the whole table's: without it there is nowhere to put rows.
    Success,
    /// Perhaps a superuser.
    Extension(ExtensionNeed),
    /// A superuser, where the role may not.
    Superuser(Privileged),
    /// It is fine if it exists.
    MayExist,
    /// A role that row security does not bind.
    BypassRowSecurity,
}

/// When a superuser may do what the shadow's role may not, and how.
///
/// The source is not trusted: what a superuser runs is put together from names alone, and where it
/// could reach memory (machine code under another signature), `guard` asks the shadow whether
/// the server or an extension brings the very same already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileged {
    /// A query of one boolean: it does no harm. None: it never does.
    pub guard: Option<String>,
    /// The statements, where they are not those of the step.
    pub instead: Vec<String>,
    /// `ALTER ...` that `OWNER TO role` ends.
    pub owner: Option<String>,
    /// The superuser must do it even if the role may.
    pub first: bool,
    /// It is fine if it is not done.
    pub optional: bool,
    /// Added to the server's reason where it is not done.
    pub otherwise: &'static str,
}

/// What is known of an extension to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionNeed {
    /// Its name.
    pub name: String,
    /// The statement without a version, for a shadow that does not have the source's.
    pub any_version: String,
    /// The version on the source.
    pub version: String,
    /// The schema that must be there before; None where its script makes it.
    pub schema: Option<String>,
    /// `COMMENT ON EXTENSION ...`, and the comment.
    pub comment: Option<(String, String)>,
}

/// Finds objects of a document.
pub(super) struct Lookup<'a> {
    objects: HashMap<ObjectId, &'a Object>,
    /// By the table's OID.
    identity: HashMap<u32, Vec<(i16, &'a Sequence)>>,
    /// Table and name of checks that children inherit.
    checks: HashSet<(u32, &'a str)>,
    schemas: HashSet<&'a str>,
    /// By schema, name and arguments.
    natives: HashMap<String, &'a NativeFunction>,
    /// By schema and name.
    base_types: HashMap<(&'a str, &'a str), &'a BaseType>,
    /// Schema and name by OID, of indexes with and without a constraint.
    indexes: HashMap<u32, (&'a str, &'a str)>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        let mut lookup = Self {
            objects: catalog.objects.iter().map(|object| (object.id(), object)).collect(),
            identity: HashMap::new(),
            checks: HashSet::new(),
            schemas: HashSet::new(),
            natives: HashMap::new(),
            base_types: HashMap::new(),
            indexes: HashMap::new(),
        };
        for object in &catalog.objects {
            match &object.entry {
                Entry::Sequence(sequence) => {
                    if let Some(owner) = sequence.owner.as_ref().filter(|owner| owner.identity) {
                        let columns = lookup.identity.entry(owner.table_oid).or_default();
                        columns.push((owner.attnum, sequence));
                    }
                }
                Entry::Constraint(constraint) => {
                    if constraint.contype == "c" && !constraint.no_inherit {
                        lookup.checks.insert((constraint.table_oid, &constraint.name));
                    }
                    if let Some(index) = &constraint.index {
                        lookup.indexes.insert(index.oid, (&constraint.schema, &index.name));
                    }
                }
                Entry::Function(function) => {
                    if let Some(native) = &function.native {
                        let key = vetted::signature(&function.schema, &function.name, &native.arguments);
                        lookup.natives.insert(key, native);
                    }
                }
                Entry::BaseType(base) => {
                    lookup.base_types.insert((&base.schema, &base.name), base);
                }
                Entry::Index(index) => {
                    lookup.indexes.insert(object.oid, (&index.schema, &index.name));
                }
                Entry::Schema(schema) => {
                    lookup.schemas.insert(&schema.name);
                }
                _ => {}
            }
        }
        lookup
    }

    /// The sequences of a table's identity columns, by attnum.
    pub(super) fn identity_sequences(&self, table: u32) -> impl Iterator<Item = (i16, &'a Sequence)> {
        self.identity.get(&table).into_iter().flatten().copied()
    }

    /// How far the table is from the top of its tree.
    pub(super) fn depth(&self, table: u32) -> usize {
        let mut depth = 0;
        let mut level = vec![table];
        while !level.is_empty() && depth < 64 {
            let tables = level.iter().filter_map(|oid| self.table(*oid));
            level = tables.flat_map(|table| table.parents.iter().map(|parent| parent.oid)).collect();
            depth += 1;
        }
        depth
    }

    /// The tables right below these, with their OIDs.
    pub(super) fn children(&self, tables: &[u32]) -> Vec<(u32, &'a Table)> {
        let tables_of = self.objects.values().filter_map(|object| match &object.entry {
            Entry::Table(table) => Some((object.oid, table)),
            _ => None,
        });
        tables_of.filter(|(_, table)| table.parents.iter().any(|p| tables.contains(&p.oid))).collect()
    }

    /// The table has a check of this name that its children inherit.
    pub(super) fn has_check(&self, table: u32, name: &str) -> bool {
        self.checks.contains(&(table, name))
    }

    /// Schema and name of an index.
    pub(super) fn index(&self, oid: Option<u32>) -> Option<(&'a str, &'a str)> {
        self.indexes.get(&oid?).copied()
    }

    /// The machine code behind a routine, if the document brings it.
    pub(super) fn native(&self, routine: &RoutineRef) -> Option<&'a NativeFunction> {
        let key = vetted::signature(&routine.schema, &routine.name, &routine.arguments);
        self.natives.get(&key).copied()
    }

    pub(super) fn base_type(&self, name: &TypeRef) -> Option<&'a BaseType> {
        self.base_types.get(&(name.schema.as_str(), name.name.as_str())).copied()
    }

    /// The table of this OID, foreign ones too.
    pub(super) fn table(&self, oid: u32) -> Option<&'a Table> {
        match &self.get(ObjectId { class: Class::Relation, oid })?.entry {
            Entry::Table(table) => Some(table),
            Entry::ForeignTable(foreign) => Some(&foreign.table),
            _ => None,
        }
    }

    pub(super) fn has_schema(&self, name: &str) -> bool {
        self.schemas.contains(name)
    }

    pub(super) fn get(&self, id: ObjectId) -> Option<&'a Object> {
        self.objects.get(&id).copied()
    }
}

/// Plans the creation of everything in the document.
#[must_use]
pub fn plan(catalog: &Catalog) -> Plan {
    let lookup = Lookup::new(catalog);
    let mut rendered = render::Rendered::default();
    for object in &catalog.objects {
        render::object(&lookup, object, &mut rendered);
    }
    let render::Rendered { nodes, mut stages, notes } = rendered;
    let mut plan = Plan { notes, ..Plan::default() };
    let sorted = sort(nodes);
    for node in sorted {
        match node.slot {
            Slot::Pre => plan.pre_data.push(node.step),
            Slot::Post => stages.entry(StageName::Definitions).or_default().push(node.step),
        }
    }
    order_refreshes(&mut stages);
    order_child_checks(catalog, &lookup, &mut stages);
    let mut names: Vec<StageName> = stages.keys().copied().collect();
    names.sort();
    for name in names {
        let steps = stages.remove(&name).unwrap_or_default();
        plan.post_data.push(Stage { name, steps });
    }
    plan
}

/// Materialized views are filled in the order in which they are made.
fn order_refreshes(stages: &mut render::Stages) {
    let made: HashMap<ObjectId, usize> = stages
        .get(&StageName::Definitions)
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(place, step)| (step.object, place))
        .collect();
    if let Some(refreshes) = stages.get_mut(&StageName::Refresh) {
        refreshes.sort_by_key(|step| made.get(&step.object).copied().unwrap_or(usize::MAX));
    }
}

/// The deepest first.
fn order_child_checks(catalog: &Catalog, lookup: &Lookup<'_>, stages: &mut render::Stages) {
    let Some(checks) = stages.get_mut(&StageName::ChildChecks) else { return };
    let tables: HashMap<ObjectId, u32> = catalog
        .objects
        .iter()
        .filter_map(|object| match &object.entry {
            Entry::Constraint(constraint) => Some((object.id(), constraint.table_oid)),
            _ => None,
        })
        .collect();
    checks.sort_by_cached_key(|step| {
        std::cmp::Reverse(tables.get(&step.object).map_or(0, |table| lookup.depth(*table)))
    });
}

impl Step {
    pub(super) fn new(object: &Object, part: &'static str, sql: Vec<String>) -> Self {
        Self {
            object: object.id(),
            describe: object.describe(),
            part,
            sql,
            values: Vec::new(),
            undo: None,
            need: Need::Nothing,
            makes: None,
            reads: None,
        }
    }

    pub(super) fn makes(mut self, schema: &str, name: &str) -> Self {
        self.makes = Some(QualifiedName { schema: schema.to_owned(), name: name.to_owned() });
        self
    }

    pub(super) fn reads(mut self, schema: &str, table: &str) -> Self {
        self.reads = Some(QualifiedName { schema: schema.to_owned(), name: table.to_owned() });
        self
    }

    pub(super) fn values(mut self, sql: Vec<String>) -> Self {
        self.values = sql;
        self
    }

    pub(super) fn undo(mut self, sql: String) -> Self {
        self.undo = Some(sql);
        self
    }

    pub(super) fn need(mut self, need: Need) -> Self {
        self.need = need;
        self
    }

    /// Kind, name and part, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        if self.part == "create" {
            self.describe.clone()
        } else {
            format!("{} ({})", self.describe, self.part)
        }
    }

    /// What tells this step from all others, also from one for an object of the same name
    /// with another definition.
    #[must_use]
    pub fn key(&self) -> String {
        // FNV-1a: the same in every release, unlike the standard library's hasher.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.sql.iter().flat_map(|sql| sql.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("{} {} {hash:016x}", self.describe, self.part)
    }
}

/// Where an object's entry decides its place among those that are free to be made.
pub(super) fn rank(entry: &Entry) -> u8 {
    match entry {
        Entry::Schema(_) => 0,
        Entry::Extension(_) => 1,
        Entry::Collation(_) => 2,
        Entry::Enum(_) => 3,
        Entry::Domain(_) | Entry::Composite(_) | Entry::Range(_) | Entry::BaseType(_) => 4,
        Entry::Function(_) => 5,
        Entry::Aggregate(_)
        | Entry::Operator(_)
        | Entry::Cast(_)
        | Entry::TextSearchDictionary(_)
        | Entry::TextSearchParser(_)
        | Entry::TextSearchTemplate(_)
        | Entry::TextSearchConfiguration(_)
        | Entry::OperatorFamily(_)
        | Entry::OperatorClass(_)
        | Entry::AccessMethod(_)
        | Entry::Conversion(_)
        | Entry::Language(_)
        | Entry::Transform(_)
        | Entry::ForeignDataWrapper(_)
        | Entry::Server(_) => 6,
        Entry::Sequence(_) => 7,
        Entry::Table(_) | Entry::ForeignTable(_) => 8,
        Entry::View(_) => 11,
        Entry::MaterializedView(_) => 12,
        _ => 13,
    }
}

pub(super) fn main_node(object: &Object, step: Step) -> Node {
    Node {
        provides: Some(object.id()),
        depends_on: object.depends_on.clone(),
        rank: rank(&object.entry),
        late: matches!(object.entry, Entry::MaterializedView(_)) || needs_key(object),
        lazy: matches!(object.entry, Entry::View(_)),
        stand_in: None,
        slot: Slot::Pre,
        step,
    }
}

/// A query that groups by a primary key needs the key itself.
fn needs_key(object: &Object) -> bool {
    object.depends_on.iter().any(|id| id.class == Class::Constraint)
}
