//! Tables: columns, settings, places in a tree.
//!
//! What a parent brings to its children (columns, their types) is done at the parent; a
//! child is looked at again afterwards. Steps that rows need ([`Need::Success`]) stop
//! everything if they fail; settings do not.

use super::missing;
use super::settle::{Context, Settle, option_changes};
use crate::apply::schema::plan::{Need, Step};
use crate::apply::schema::quote::{ident, qualified};
use crate::apply::schema::render::datatype::collate;
use crate::apply::schema::render::sequence::sequence_options;
use crate::apply::schema::render::{compression_word, storage_word};
use scry_wire::catalog::{Class, Column, Object, ObjectId, Parent, Table};

pub(super) fn table(context: &Context<'_>, want: &Object, a: &Table, b: &Table) -> Settle {
    let mut altered = Altered {
        context,
        want,
        table: b,
        name: qualified(&b.schema, &b.name),
        emptied: context.emptied.contains(&want.oid),
        settle: Settle::default(),
    };
    altered.own_type(a);
    for column in b.columns.iter().filter(|c| !c.dropped) {
        match a.columns.iter().find(|old| !old.dropped && old.name == column.name) {
            None => altered.add(a, column),
            Some(old) => altered.column(old, column),
        }
    }
    altered.settings(a);
    altered.parents(a);
    altered.settle
}

struct Altered<'a> {
    context: &'a Context<'a>,
    want: &'a Object,
    table: &'a Table,
    name: String,
    /// It holds no row, and none that it gets before it is copied counts.
    emptied: bool,
    settle: Settle,
}

impl Altered<'_> {
    /// A statement without which rows would not fit.
    fn needed(&mut self, part: &'static str, action: &str) {
        let need = if self.want.selected { Need::Success } else { Need::Nothing };
        let sql = vec![format!("ALTER TABLE {} {action}", self.name)];
        self.settle.own.push(Step::new(self.want, part, sql).need(need));
    }

    /// A setting; for this table alone.
    fn setting(&mut self, part: &'static str, action: &str) {
        let sql = vec![format!("ALTER TABLE ONLY {} {action}", self.name)];
        self.settle.own.push(Step::new(self.want, part, sql));
    }

    fn late(&mut self, part: &'static str, action: &str) {
        let sql = vec![format!("ALTER TABLE ONLY {} {action}", self.name)];
        self.settle.late.push(Step::new(self.want, part, sql));
    }

    fn own_type(&mut self, a: &Table) {
        let name = |t: &Table| t.of_type.as_ref().map(|of| qualified(&of.schema, &of.name));
        match (name(a), name(self.table)) {
            (old, new) if old == new => {}
            (_, Some(new)) => self.setting("of", &format!("OF {new}")),
            (_, None) => self.setting("of", "NOT OF"),
        }
    }

    /// A parent that is here brings the column.
    fn is_brought(&self, a: &Table, column: &Column) -> bool {
        column.inherited > 0 && !column.local && !a.parents.is_empty()
    }

    fn add(&mut self, a: &Table, column: &Column) {
        let Some(data_type) = &column.data_type else { return };
        if self.table.of_type.is_some() || self.is_brought(a, column) {
            return;
        }
        let mut sql = format!("ADD COLUMN {} {}", ident(&column.name), data_type.sql);
        if let Some(word) = compression_word(&column.compression) {
            sql.push_str(&format!(" COMPRESSION {word}"));
        }
        sql.push_str(&collate(column.collation.as_ref()));
        let stored = column.missing.as_deref().or_else(|| self.missing_below(&column.name));
        let missing = stored.and_then(|m| missing::literal_of(m, &data_type.sql));
        match (column.generated.as_str(), &column.default, &missing) {
            ("s", Some(default), _) => {
                sql.push_str(&format!(" GENERATED ALWAYS AS ({}) STORED", default.sql))
            }
            ("v", Some(default), _) => {
                sql.push_str(&format!(" GENERATED ALWAYS AS ({}) VIRTUAL", default.sql))
            }
            (_, _, Some(value)) => sql.push_str(&format!(" DEFAULT {value}")),
            _ => {}
        }
        if let Some(identity) = self.identity(column) {
            sql.push_str(&format!(" {identity}"));
        }
        if column.not_null {
            sql.push_str(" NOT NULL");
        }
        self.needed("add column", &sql);
        if column.generated.is_empty() && column.identity.is_empty() {
            match (&column.default, &missing) {
                (Some(default), _) => self.default(column, Some(&default.sql)),
                (None, Some(_)) => self.default(column, None),
                (None, None) => {}
            }
        }
        self.column_settings(None, column);
    }

    /// A partitioned table has no rows of its own: the value stands at its partitions.
    fn missing_below(&self, column: &str) -> Option<&str> {
        let mut level = vec![self.want.oid];
        // Trees are never this deep.
        for _ in 0..64 {
            let below = self.context.lookup.children(&level);
            let columns = below.iter().flat_map(|(_, table)| &table.columns).filter(|c| !c.dropped);
            let found = columns.filter(|c| c.name == column).find_map(|c| c.missing.as_deref());
            if found.is_some() || below.is_empty() {
                return found;
            }
            level = below.into_iter().map(|(oid, _)| oid).collect();
        }
        None
    }

    fn default(&mut self, column: &Column, expression: Option<&str>) {
        let action = match expression {
            Some(sql) => format!("ALTER COLUMN {} SET DEFAULT {sql}", ident(&column.name)),
            None => format!("ALTER COLUMN {} DROP DEFAULT", ident(&column.name)),
        };
        self.setting("default", &action);
    }

    fn identity(&self, column: &Column) -> Option<String> {
        let (_, sequence) = self
            .context
            .lookup
            .identity_sequences(self.want.oid)
            .find(|(attnum, _)| *attnum == column.attnum)?;
        let name = qualified(&sequence.schema, &sequence.name);
        Some(format!(
            "GENERATED {} AS IDENTITY (SEQUENCE NAME {name}{})",
            identity_word(&column.identity),
            sequence_options(sequence)
        ))
    }

    fn column(&mut self, old: &Column, new: &Column) {
        let name = ident(&new.name);
        let expression = |c: &Column| c.default.as_ref().map(|d| d.sql.clone());
        let plain = |c: &Column| c.generated.is_empty();
        // In the order in which the server can take them: see each.
        if !plain(old) && plain(new) && old.inherited == 0 {
            self.needed("expression", &format!("ALTER COLUMN {name} DROP EXPRESSION"));
        }
        if !old.identity.is_empty() && new.identity.is_empty() {
            self.setting("identity", &format!("ALTER COLUMN {name} DROP IDENTITY IF EXISTS"));
        }
        let retyped = self.retype(old, new);
        if old.not_null != new.not_null {
            let word = if new.not_null { "SET" } else { "DROP" };
            self.needed("not null", &format!("ALTER COLUMN {name} {word} NOT NULL"));
        }
        if plain(new) {
            let had = if plain(old) && !retyped { expression(old) } else { None };
            if had != expression(new) {
                self.default(new, expression(new).as_deref());
            }
        } else if !plain(old) && expression(old) != expression(new) && old.inherited == 0 && !retyped {
            let sql = expression(new).unwrap_or_default();
            self.needed("expression", &format!("ALTER COLUMN {name} SET EXPRESSION AS ({sql})"));
        }
        if old.identity.is_empty()
            && !new.identity.is_empty()
            && let Some(identity) = self.identity(new)
        {
            self.setting("identity", &format!("ALTER COLUMN {name} ADD {identity}"));
        } else if !old.identity.is_empty() && !new.identity.is_empty() && old.identity != new.identity {
            let word = identity_word(&new.identity);
            self.setting("identity", &format!("ALTER COLUMN {name} SET GENERATED {word}"));
        }
        self.column_settings(Some(old), new);
    }

    /// Another type or collation. Values stay as they are: where the source has written others,
    /// the table is empty here and copied again.
    fn retype(&mut self, old: &Column, new: &Column) -> bool {
        let Some(data_type) = &new.data_type else { return false };
        let same = old.data_type.as_ref().map(|t| &t.sql) == Some(&data_type.sql);
        if (same && old.collation == new.collation) || old.inherited > 0 || self.table.of_type.is_some() {
            return false;
        }
        let name = ident(&new.name);
        if old.default.is_some() && old.generated.is_empty() {
            self.default(new, None);
        }
        let using = match (new.generated.is_empty(), self.emptied) {
            (false, _) => String::new(),
            (true, true) => format!(" USING NULL::{}", data_type.sql),
            (true, false) => format!(" USING {name}::{}", data_type.sql),
        };
        // Without COLLATE the type's own would be taken, which is what None means.
        let collation = collate(new.collation.as_ref());
        self.needed("type", &format!("ALTER COLUMN {name} TYPE {}{collation}{using}", data_type.sql));
        old.default.is_some()
    }

    fn column_settings(&mut self, old: Option<&Column>, new: &Column) {
        let name = ident(&new.name);
        let mut actions = Vec::new();
        let storage = old.and_then(|c| c.storage.as_deref());
        if storage != new.storage.as_deref() {
            let word = match new.storage.as_deref() {
                Some(code) => storage_word(code),
                None => Some(default_storage(new)),
            };
            actions.extend(word.map(|word| format!("SET STORAGE {word}")));
        }
        let typed = self.table.of_type.is_some();
        if old.map_or(typed && !new.compression.is_empty(), |c| c.compression != new.compression) {
            let word = compression_word(&new.compression).unwrap_or("default");
            actions.push(format!("SET COMPRESSION {word}"));
        }
        if old.and_then(|c| c.statistics) != new.statistics {
            actions.push(format!("SET STATISTICS {}", new.statistics.unwrap_or(-1)));
        }
        let had = old.map(|c| c.options.as_slice()).unwrap_or_default();
        actions.extend(option_changes(had, &new.options, ""));
        for action in actions {
            self.setting("settings", &format!("ALTER COLUMN {name} {action}"));
        }
    }

    fn settings(&mut self, a: &Table) {
        let b = self.table;
        for action in option_changes(&a.options, &b.options, "") {
            self.setting("options", &action);
        }
        for action in option_changes(&a.toast_options, &b.toast_options, "toast.") {
            self.setting("options", &action);
        }
        if a.access_method != b.access_method
            && let Some(method) = &b.access_method
        {
            self.setting("access method", &format!("SET ACCESS METHOD {}", ident(method)));
        }
        if a.row_security != b.row_security {
            let word = if b.row_security { "ENABLE" } else { "DISABLE" };
            self.late("row security", &format!("{word} ROW LEVEL SECURITY"));
        }
        if a.force_row_security != b.force_row_security
            && (self.context.bypasses_row_security || !b.force_row_security)
        {
            let word = if b.force_row_security { "FORCE" } else { "NO FORCE" };
            self.late("forced row security", &format!("{word} ROW LEVEL SECURITY"));
        }
        let identity = |t: &Table| (t.replica_identity.clone(), t.replica_identity_index.clone());
        if identity(a) != identity(b) && self.want.selected {
            let action = match (b.replica_identity.as_str(), &b.replica_identity_index) {
                ("n", _) => "NOTHING".to_owned(),
                ("f", _) => "FULL".to_owned(),
                ("i", Some(index)) => format!("USING INDEX {}", ident(index)),
                // The index is gone: the source has no identity either.
                ("i", None) => return,
                _ => "DEFAULT".to_owned(),
            };
            self.late("replica identity", &format!("REPLICA IDENTITY {action}"));
        }
    }

    fn parents(&mut self, a: &Table) {
        let here =
            |p: &&Parent| self.context.lookup.get(ObjectId { class: Class::Relation, oid: p.oid }).is_some();
        let is_parent = |p: &&Parent| a.parents.iter().any(|q| (&q.schema, &q.name) == (&p.schema, &p.name));
        let new: Vec<String> = self
            .table
            .parents
            .iter()
            .filter(here)
            .filter(|p| !is_parent(p))
            .map(|p| qualified(&p.schema, &p.name))
            .collect();
        for parent in new {
            let sql = match &self.table.partition_bound {
                Some(bound) => format!("ALTER TABLE ONLY {parent} ATTACH PARTITION {} {bound}", self.name),
                None => format!("ALTER TABLE {} INHERIT {parent}", self.name),
            };
            self.settle.attach.push(Step::new(self.want, "attach", vec![sql]));
        }
    }
}

fn identity_word(code: &str) -> &'static str {
    if code == "a" { "ALWAYS" } else { "BY DEFAULT" }
}

/// How the type itself is stored. The server has no word for it before version 16.
fn default_storage(column: &Column) -> &'static str {
    match column.data_type.as_ref().map(|t| t.name.as_str()) {
        Some("numeric" | "inet" | "cidr") => "MAIN",
        _ => "EXTENDED",
    }
}
