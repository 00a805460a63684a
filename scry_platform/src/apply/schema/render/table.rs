//! Tables: shape, defaults, place among partitions and parents.
//!
//! A partition is made as a table of its own with all its columns in their order, then
//! attached: column order may differ from the parent's. So is a child by inheritance that has all
//! columns by itself; another is made with `INHERITS` and its own columns only.
//!
//! Defaults that call functions are steps of their own, because a function may need the
//! table; generated columns stay in the table, which the server then cannot be fooled about.

use super::datatype::{collate, part_node};
use super::foreign::options as foreign_options;
use super::sequence::{sequence_options, set_value};
use super::{Rendered, compression_word, options, storage_word};
use crate::apply::schema::plan::{Lookup, Need, StageName, Step, main_node};
use crate::apply::schema::quote::{ident, qualified};
use scry_wire::catalog::{
    Class, Column, ColumnDefault, Entry, ForeignTable, Object, ObjectId, Parent, Sequence, Table,
};
use std::collections::BTreeMap;

pub(super) fn table(lookup: &Lookup<'_>, object: &Object, table: &Table, out: &mut Rendered) {
    shape(lookup, object, table, None, out);
}

/// A foreign table: its shape, without anything that reads through it.
pub(super) fn foreign(lookup: &Lookup<'_>, object: &Object, foreign: &ForeignTable, out: &mut Rendered) {
    shape(lookup, object, &foreign.table, Some(foreign), out);
}

fn shape<'a>(
    lookup: &'a Lookup<'a>,
    object: &'a Object,
    table: &'a Table,
    foreign: Option<&'a ForeignTable>,
    out: &mut Rendered,
) {
    let parents: Vec<(&Parent, &Table)> =
        table.parents.iter().filter_map(|parent| Some((parent, lookup.table(parent.oid)?))).collect();
    let shape = Shape {
        lookup,
        object,
        table,
        foreign,
        name: qualified(&table.schema, &table.name),
        attached: table.partition_bound.is_some() && !parents.is_empty(),
        whole: table.partition_bound.is_none()
            && !parents.is_empty()
            && table.columns.iter().all(|column| column.dropped || column.local),
        sequences: lookup.identity_sequences(object.oid).collect(),
        parents,
    };
    shape.create(out);
    out.nodes.extend(table.roles.iter().map(|role| super::attached::role(object, role)));
    shape.attach(out);
    shape.settings(out);
}

struct Shape<'a> {
    lookup: &'a Lookup<'a>,
    object: &'a Object,
    table: &'a Table,
    foreign: Option<&'a ForeignTable>,
    name: String,
    /// It is a partition, and its parent is here.
    attached: bool,
    /// It is a child by inheritance, and all its columns are its own.
    whole: bool,
    parents: Vec<(&'a Parent, &'a Table)>,
    /// By attnum.
    sequences: BTreeMap<i16, &'a Sequence>,
}

impl Shape<'_> {
    fn create(&self, out: &mut Rendered) {
        let mut depends_on = self.object.depends_on.clone();
        let mut elements = Vec::new();
        let mut later: Vec<(String, Vec<ObjectId>)> = Vec::new();
        for column in self.columns() {
            let inline = column.default.as_ref().is_some_and(|d| self.is_inline(column, d));
            if let Some(default) = &column.default {
                if inline && self.is_printed(column) {
                    depends_on.extend(default.depends_on.iter().copied());
                } else if column.generated.is_empty() {
                    later.push((
                        format!("ALTER COLUMN {} SET DEFAULT {}", ident(&column.name), default.sql),
                        default.depends_on.clone(),
                    ));
                }
            }
            if self.is_printed(column) {
                elements.extend(self.element(column, inline));
            }
        }
        let mut sql = vec![self.statement(&elements)];
        for column in self.columns() {
            sql.extend(self.column_actions(column).into_iter().map(|action| {
                format!("ALTER TABLE ONLY {} ALTER COLUMN {} {action}", self.name, ident(&column.name))
            }));
        }
        for sequence in self.sequences.values().filter(|s| s.unlogged != self.table.unlogged) {
            let word = if sequence.unlogged { "UNLOGGED" } else { "LOGGED" };
            let name = qualified(&sequence.schema, &sequence.name);
            sql.push(format!("ALTER SEQUENCE {name} SET {word}"));
        }
        let values = self.sequences.values().filter_map(|sequence| set_value(sequence)).collect();
        let need = if self.object.selected { Need::Success } else { Need::Nothing };
        let step = Step::new(self.object, "create", sql)
            .values(values)
            .undo(format!("DROP {} IF EXISTS {} CASCADE", self.kind(), self.name))
            .makes(&self.table.schema, &self.table.name)
            .need(need);
        let mut node = main_node(self.object, step);
        node.depends_on = depends_on;
        out.nodes.push(node);
        for (action, mut depends_on) in later {
            depends_on.push(self.object.id());
            let sql = vec![format!("ALTER TABLE ONLY {} {action}", self.name)];
            out.nodes.push(part_node(depends_on, 10, Step::new(self.object, "default", sql)));
        }
    }

    fn kind(&self) -> &'static str {
        if self.foreign.is_some() { "FOREIGN TABLE" } else { "TABLE" }
    }

    fn statement(&self, elements: &[String]) -> String {
        let unlogged = if self.table.unlogged { "UNLOGGED " } else { "" };
        let mut sql = format!("CREATE {unlogged}{} {}", self.kind(), self.name);
        if let Some(of_type) = &self.table.of_type {
            sql.push_str(&format!(" OF {}", qualified(&of_type.schema, &of_type.name)));
            if !elements.is_empty() {
                sql.push_str(&format!(" (\n    {}\n)", elements.join(",\n    ")));
            }
        } else if elements.is_empty() {
            sql.push_str(" ()");
        } else {
            sql.push_str(&format!(" (\n    {}\n)", elements.join(",\n    ")));
        }
        if !self.stands_alone() && !self.parents.is_empty() {
            let names: Vec<String> =
                self.parents.iter().map(|(p, _)| qualified(&p.schema, &p.name)).collect();
            sql.push_str(&format!(" INHERITS ({})", names.join(", ")));
        }
        if let Some(key) = &self.table.partition_key {
            sql.push_str(&format!(" PARTITION BY {key}"));
        }
        if let Some(foreign) = self.foreign {
            sql.push_str(&format!(
                " SERVER {}{}",
                ident(&foreign.server),
                foreign_options(&foreign.foreign_options)
            ));
            return sql;
        }
        if let Some(method) = self.table.access_method.as_ref().filter(|method| *method != "heap") {
            sql.push_str(&format!(" USING {}", ident(method)));
        }
        let with = options(&self.table.options, &self.table.toast_options);
        if !with.is_empty() {
            sql.push_str(&format!(" WITH {with}"));
        }
        sql
    }

    /// The column in `CREATE TABLE`; None for a column of the type of a typed table that has
    /// nothing of its own.
    fn element(&self, column: &Column, inline_default: bool) -> Option<String> {
        let typed = self.table.of_type.is_some();
        let mut sql = ident(&column.name);
        if typed {
            sql.push_str(" WITH OPTIONS");
        } else {
            sql.push_str(&format!(" {}", column.data_type.as_ref()?.sql));
            sql.push_str(&foreign_options(&column.foreign_options));
            if let Some(word) = compression_word(&column.compression) {
                sql.push_str(&format!(" COMPRESSION {word}"));
            }
            sql.push_str(&collate(column.collation.as_ref()));
        }
        let before = sql.len();
        if let Some(default) = &column.default {
            match column.generated.as_str() {
                "" if inline_default => sql.push_str(&format!(" DEFAULT {}", default.sql)),
                // A child takes the expression from its parent, and may not name it.
                "s" | "v" if self.inherits_expression(column) => {}
                "s" => sql.push_str(&format!(" GENERATED ALWAYS AS ({}) STORED", default.sql)),
                "v" => sql.push_str(&format!(" GENERATED ALWAYS AS ({}) VIRTUAL", default.sql)),
                _ => {}
            }
        } else if !self.stands_alone() && self.parent_columns(column).any(|c| c.default.is_some()) {
            sql.push_str(" DEFAULT NULL");
        }
        sql.push_str(&self.identity(column));
        if column.not_null {
            sql.push_str(&self.not_null(column));
        }
        (!typed || sql.len() > before).then_some(sql)
    }

    fn identity(&self, column: &Column) -> String {
        let Some(sequence) = self.sequences.get(&column.attnum) else { return String::new() };
        let when = if column.identity == "a" { "ALWAYS" } else { "BY DEFAULT" };
        let name = qualified(&sequence.schema, &sequence.name);
        let options = sequence_options(sequence);
        format!(" GENERATED {when} AS IDENTITY (SEQUENCE NAME {name}{options})")
    }

    /// A name only where the server would not choose it itself.
    fn not_null(&self, column: &Column) -> String {
        let default_name = format!("{}_{}_not_null", self.table.name, column.name);
        let named = column.not_null_name.as_ref().filter(|name| **name != default_name);
        let name = named.map_or_else(String::new, |name| format!(" CONSTRAINT {}", ident(name)));
        let no_inherit = if column.not_null_no_inherit { " NO INHERIT" } else { "" };
        format!("{name} NOT NULL{no_inherit}")
    }

    /// What is set on a column after the table is there.
    fn column_actions(&self, column: &Column) -> Vec<String> {
        let mut actions = Vec::new();
        if !self.is_printed(column) {
            let inherited_default = self.parent_columns(column).any(|c| c.default.is_some());
            if column.default.is_none() && inherited_default {
                actions.push("DROP DEFAULT".to_owned());
            }
            if column.not_null && !self.parent_columns(column).any(|c| c.not_null) {
                actions.push("SET NOT NULL".to_owned());
            }
            let identity = self.identity(column);
            if !identity.is_empty() {
                actions.push(format!("ADD{identity}"));
            }
        }
        if let Some(word) = column.storage.as_deref().and_then(storage_word) {
            actions.push(format!("SET STORAGE {word}"));
        }
        if self.table.of_type.is_some() || !self.is_printed(column) {
            let word = compression_word(&column.compression);
            actions.extend(word.map(|word| format!("SET COMPRESSION {word}")));
        }
        if let Some(target) = column.statistics {
            actions.push(format!("SET STATISTICS {target}"));
        }
        if !column.options.is_empty() {
            actions.push(format!("SET {}", options(&column.options, [])));
        }
        actions
    }

    fn attach(&self, out: &mut Rendered) {
        if self.whole {
            self.inherit(out);
        }
        let (Some(bound), Some((parent, _)), true) =
            (&self.table.partition_bound, self.parents.first(), self.attached)
        else {
            return;
        };
        let parent_name = qualified(&parent.schema, &parent.name);
        let sql = format!("ALTER TABLE ONLY {parent_name} ATTACH PARTITION {} {bound}", self.name);
        let step = Step::new(self.object, "attach", vec![sql]);
        let depends_on = vec![self.object.id(), ObjectId { class: Class::Relation, oid: parent.oid }];
        out.nodes.push(part_node(depends_on, 9, step));
    }

    fn inherit(&self, out: &mut Rendered) {
        let inherit = |(parent, _): &(&Parent, &Table)| {
            format!("ALTER TABLE ONLY {} INHERIT {}", self.name, qualified(&parent.schema, &parent.name))
        };
        let sql = self.parents.iter().map(inherit).collect();
        let mut depends_on = vec![self.object.id()];
        depends_on.extend(self.parents.iter().map(|(p, _)| ObjectId { class: Class::Relation, oid: p.oid }));
        out.nodes.push(part_node(depends_on, 9, Step::new(self.object, "inherit", sql)));
    }

    fn settings(&self, out: &mut Rendered) {
        let mut setting = |part: &'static str, action: String, need: Need| {
            let sql = vec![format!("ALTER TABLE ONLY {} {action}", self.name)];
            out.stage(StageName::Settings, Step::new(self.object, part, sql).need(need));
        };
        match (self.table.replica_identity.as_str(), &self.table.replica_identity_index) {
            // A foreign table has none, and says "n".
            _ if self.foreign.is_some() => {}
            ("n", _) => setting("replica identity", "REPLICA IDENTITY NOTHING".to_owned(), Need::Nothing),
            ("f", _) => setting("replica identity", "REPLICA IDENTITY FULL".to_owned(), Need::Nothing),
            ("i", Some(index)) if self.object.selected || self.table.unlogged => {
                let action = format!("REPLICA IDENTITY USING INDEX {}", ident(index));
                setting("replica identity", action, Need::Nothing);
            }
            _ => {}
        }
        if self.table.row_security {
            setting("row security", "ENABLE ROW LEVEL SECURITY".to_owned(), Need::Nothing);
        }
        if self.table.force_row_security {
            let action = "FORCE ROW LEVEL SECURITY".to_owned();
            setting("forced row security", action, Need::BypassRowSecurity);
        }
        if !self.attached && self.table.partition_bound.is_some() {
            out.note(self.object, "its partitioned table is not selected: it stands alone");
        } else if self.table.parents.len() > self.parents.len() {
            out.note(self.object, "a table it inherits from is not selected: its columns are its own");
        }
        if !self.object.selected {
            let reason = match (self.foreign, self.table.unlogged) {
                (Some(_), _) => "foreign tables cannot be read on the shadow: only its shape is here",
                (None, true) => "unlogged tables leave nothing in the WAL: only its shape is here",
                (None, false) => "it is not selected: only its shape is here, because something needs it",
            };
            out.note(self.object, reason);
        }
    }

    /// It is made with all its columns, and put under its parents then.
    fn stands_alone(&self) -> bool {
        self.attached || self.whole
    }

    fn columns(&self) -> impl Iterator<Item = &Column> {
        self.table.columns.iter().filter(|column| !column.dropped)
    }

    /// It stands in `CREATE TABLE`, instead of coming from a parent.
    fn is_printed(&self, column: &Column) -> bool {
        self.stands_alone() || column.local || self.parent_columns(column).next().is_none()
    }

    fn inherits_expression(&self, column: &Column) -> bool {
        !self.stands_alone() && self.parent_columns(column).any(|parent| !parent.generated.is_empty())
    }

    fn parent_columns<'c>(&'c self, column: &'c Column) -> impl Iterator<Item = &'c Column> {
        let columns = self.parents.iter().flat_map(|(_, table)| table.columns.iter());
        columns.filter(move |other| !other.dropped && other.name == column.name)
    }

    /// The default can stand in `CREATE TABLE`: it needs no function and no other relation
    /// but free sequences. A generated column has no choice.
    fn is_inline(&self, column: &Column, default: &ColumnDefault) -> bool {
        let simple = |id: &ObjectId| match id.class {
            Class::Proc => false,
            Class::Relation => {
                let found = self.lookup.get(*id);
                *id == self.object.id() || found.is_some_and(|o| matches!(o.entry, Entry::Sequence(_)))
            }
            _ => true,
        };
        !column.generated.is_empty() || default.depends_on.iter().all(simple)
    }
}
