//! The shadow's schema follows the source's while the stream goes on.
//!
//! ```text
//! old document ─┐ changes by (class, oid) ─► places left, drops, renames ─┐
//! new document ─┤                                                         ▼
//!               └─► creation plan ─┐                    the shadow says what it has now
//!                                  ├─► settle: make absent objects, alter the others ◄─┘
//!                                  │          (looked at again, until nothing differs)
//!                                  └─► late drops ─► left out, ledger
//! ```
//!
//! Role: everything happens in the writer's open transaction, at the change's own place among
//! the rows. The source's DDL text is not replayed: two documents are compared, and what
//! makes one of the other is worked out here (docs/decisions/0010).
//!
//! Invariants: rows stay where they are through renames and moves; nothing is dropped with
//! CASCADE; what was changed is read back from the shadow and compared; what can't be made is
//! left out by name. A selected table that can't follow is named as [`Absent`]; where the
//! shadow's owner stands in the way (see `refusal`) it ends the transaction.
//!
//! What it does not do: copy rows of tables on hold, and know what a rewrite did to them.

mod after;
mod ahead;
mod changes;
mod drop;
mod identity;
mod leave;
mod missing;
mod names;
mod observe;
mod parents;
mod refresh;
mod rename;
mod run;
mod settle;
mod settle_attached;
mod settle_table;
mod settle_type;
#[cfg(test)]
mod tests;
mod work;

use super::plan::{Lookup, Need, Plan, Step, plan};
use super::quote::{ident, qualified};
use super::refusal::{Absent, is_beyond};
use super::session::Session;
use crate::{Error, Result};
pub use after::drop_later;
use changes::Changes;
use run::{Refused, Runner};
use scry_wire::catalog::{
    Catalog, Class, Column, Constraint, Entry, LeftOut, Object, ObjectId, SETTINGS, Table,
};
use settle::Context;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tokio_postgres::Client;
use work::Made;

/// A change of the schema.
pub struct SchemaChange<'a> {
    /// What the shadow was made from.
    pub old: &'a Catalog,
    /// What it shall be.
    pub new: &'a Catalog,
    /// Tables whose rows are copied again: they are emptied here.
    pub hold: &'a [u32],
    /// What is to be looked at though it has not changed.
    pub again: &'a [ObjectId],
    /// Materialized views to be filled anew, in this order.
    pub refresh: &'a [u32],
    /// A table whose rows stand in the way of its change is absent too; else all waits for
    /// whoever mends them.
    pub rows_too: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the shadow does not have of what has changed.
    pub left_out: Vec<LeftOut>,
    /// Kind and name of all that was looked at: what was said of it before is void.
    pub looked_at: BTreeSet<String>,
    /// Steps that made something, for the ledger.
    pub made: Vec<Step>,
    /// Selected tables that could not be made or changed so; they are in `left_out` too.
    pub absent: Vec<Absent>,
    /// Materialized views that were filled.
    pub filled: Vec<u32>,
    /// For [`drop_later`], once the transaction is committed; left out by [`DROPPED`] until then.
    pub later: Vec<Step>,
}

/// Stands behind the name of what the source has no more and the shadow still has.
pub const DROPPED: &str = " (dropped on the source)";

impl SchemaChange<'_> {
    /// Whether a superuser's connection may be of use.
    #[must_use]
    pub fn needs_superuser(&self) -> bool {
        let privileged = |catalog: &Catalog| -> BTreeSet<String> {
            let found = catalog.objects.iter().filter(|object| is_privileged(&object.entry));
            found.map(|object| format!("{:?}", object.entry)).collect()
        };
        privileged(self.old) != privileged(self.new)
    }

    /// Changes the shadow, in the transaction that is open on `client`.
    ///
    /// # Errors
    /// A selected table can't follow, or the shadow can't be spoken to: the transaction is to be
    /// rolled back.
    pub async fn apply(&self, client: &Client, admin: Option<&Client>) -> Result<Outcome> {
        enter(client).await?;
        let admin = match admin {
            Some(admin) => Some(Session::new(admin).await.map_err(Error::sql("ask for privileges"))?),
            None => None,
        };
        let outcome = Evolution::new(self, client, admin, current_role(client).await?).run().await?;
        client.batch_execute(LEAVE).await.map_err(Error::sql("go back to the settings of apply"))?;
        Ok(outcome)
    }
}

/// Kinds whose making may take a superuser.
fn is_privileged(entry: &Entry) -> bool {
    match entry {
        Entry::Function(function) => function.native.is_some(),
        Entry::Policy(policy) => !policy.roles.is_empty(),
        Entry::Table(table) => !table.roles.is_empty(),
        Entry::Extension(_)
        | Entry::Aggregate(_)
        | Entry::BaseType(_)
        | Entry::Cast(_)
        | Entry::OperatorFamily(_)
        | Entry::OperatorClass(_)
        | Entry::AccessMethod(_)
        | Entry::Language(_)
        | Entry::Transform(_)
        | Entry::EventTrigger(_)
        | Entry::ForeignDataWrapper(_)
        | Entry::Server(_)
        | Entry::TextSearchParser(_)
        | Entry::TextSearchTemplate(_) => true,
        _ => false,
    }
}

async fn current_role(client: &Client) -> Result<String> {
    let row = client.query_one("SELECT CURRENT_USER::text", &[]).await;
    row.map(|row| row.get(0)).map_err(Error::sql("ask for the role"))
}

async fn enter(client: &Client) -> Result<()> {
    let cannot = || Error::sql("prepare the transaction for a change of the schema");
    client.batch_execute(ENTER).await.map_err(cannot())?;
    for (name, value) in SETTINGS {
        let sql = "SELECT pg_catalog.set_config($1, $2, true)";
        client.execute(sql, &[name, value]).await.map_err(cannot())?;
    }
    Ok(())
}

struct Evolution<'a> {
    change: &'a SchemaChange<'a>,
    changes: Changes<'a>,
    client: &'a Client,
    runner: Runner<'a>,
    emptied: HashSet<u32>,
    /// Tables that could not follow so far.
    absent: BTreeMap<u32, Absent>,
}

impl<'a> Evolution<'a> {
    fn new(
        change: &'a SchemaChange<'a>,
        client: &'a Client,
        admin: Option<Session<'a>>,
        role: String,
    ) -> Self {
        Evolution {
            change,
            changes: Changes::new(change.old, change.new),
            client,
            runner: Runner { client, admin, role, left_out: Vec::new(), done: Vec::new() },
            emptied: change.hold.iter().copied().collect(),
            absent: BTreeMap::new(),
        }
    }

    async fn run(mut self) -> Result<Outcome> {
        self.empty_tables().await?;
        let SchemaChange { again, refresh, .. } = self.change;
        if self.changes.is_empty() && again.is_empty() && refresh.is_empty() {
            return Ok(Outcome::default());
        }
        let plan = plan(self.change.new);
        if let Some(admin) = &self.runner.admin {
            let notes = ahead::extensions(admin, &self.runner.role, &self.changes, &plan).await?;
            self.runner.left_out.extend(notes);
            ahead::needs(admin, &self.runner.role, &self.changes, &plan).await?;
        }
        let loosened = self.detach().await?;
        let waiting = self.drop_and_rename(&plan).await?;
        let refused = self.settle(&plan, &loosened).await?;
        self.finish(refused, waiting, &plan).await
    }

    /// Rows that are copied again go at once: what they are now, the new columns cannot tell.
    async fn empty_tables(&mut self) -> Result<()> {
        let SchemaChange { old, new, .. } = self.change;
        // One that was absent may be there all the same, as it was before; its name is no other's.
        let is_back = |object: &&Object| {
            let is_it = |before: &&Object| {
                before.class == Class::Relation && before.oid == object.oid
                    || before.describe() == object.describe()
            };
            !old.objects.iter().any(|before| is_it(&before))
        };
        let tables = old
            .objects
            .iter()
            .chain(new.objects.iter().filter(|o| self.emptied.contains(&o.oid)).filter(is_back))
            .filter(|object| object.class == Class::Relation && self.emptied.contains(&object.oid));
        let mut steps = Vec::new();
        for object in tables {
            let Entry::Table(table) = &object.entry else { continue };
            if !table.partitioned {
                let name = qualified(&table.schema, &table.name);
                steps.push((object, format!("TRUNCATE ONLY {name}"), format!("DELETE FROM ONLY {name}")));
            }
        }
        for (object, quick, sure) in steps {
            let quick = Step::new(object, "empty", vec![quick]);
            if !self.runner.rounds(vec![quick]).await?.is_empty() {
                // A foreign key refers to it.
                let sure = Step::new(object, "empty", vec![sure]).need(Need::Success);
                let refused = self.runner.rounds(vec![sure]).await?;
                self.judge(&refused)?;
            }
        }
        Ok(())
    }

    /// Returns what is to be dropped once nothing needs it any more.
    async fn drop_and_rename(&mut self, plan: &Plan) -> Result<Vec<Object>> {
        let keeps_public = !self.change.new.whole_database;
        let drops = drop::drops(&self.changes).into_iter();
        let drops = drops.filter(|step| !(keeps_public && step.describe == "schema public"));
        let mut refused = self.runner.rounds(drops.collect()).await?;
        if refused.iter().any(|r| r.code == "2BP01") {
            self.runner.rounds(drop::entangled(&self.changes)).await?;
            refused = self.runner.rounds(refused.into_iter().map(|r| r.step).collect()).await?;
        }
        let refused: Vec<Refused> = refused.into_iter().filter(|r| !is_absent(&r.code)).collect();
        let columns: Vec<Step> =
            refused.iter().filter(|r| r.step.part != "drop").map(|r| r.step.clone()).collect();
        let waits: HashSet<ObjectId> =
            refused.iter().filter(|r| r.step.part == "drop").map(|r| r.step.object).collect();
        let in_the_way: Vec<&Object> =
            self.changes.dropped.iter().copied().filter(|object| waits.contains(&object.id())).collect();
        let (renames, waiting) = rename::renames(&self.changes, &in_the_way);
        let mut refused = self.runner.rounds(renames.schemas).await?;
        let schemas = self.changes.created.iter().filter_map(|object| match &object.entry {
            Entry::Schema(_) => Some(object.id()),
            _ => None,
        });
        let schemas: HashSet<ObjectId> = schemas.collect();
        if !schemas.is_empty() {
            let steps = plan.pre_data.iter().filter(|step| schemas.contains(&step.object));
            // One that is there already is found there.
            self.runner.rounds(steps.cloned().collect()).await?;
        }
        // In the order given: a temporary name first.
        for step in renames.objects {
            for refusal in self.runner.rounds(vec![step]).await? {
                refused.extend(self.beside(refusal).await?);
            }
        }
        refused.extend(self.runner.rounds(columns).await?);
        self.judge(&refused)?;
        Ok(waiting)
    }

    /// What only a superuser may give another name gets it on his own connection: it stays if the
    /// open transaction is rolled back, and is found so the next time. Returns what is refused.
    async fn beside(&mut self, refused: Refused) -> Result<Option<Refused>> {
        let entry = self.changes.changed.iter().find(|(old, _)| old.id() == refused.step.object);
        let is_superusers = entry.is_some_and(|(old, _)| after::is_superusers(&old.entry));
        let Some(admin) = self.runner.admin.as_ref().filter(|_| is_superusers && refused.code == "42501")
        else {
            return Ok(Some(refused));
        };
        let mut list = vec![ahead::PATIENCE.to_owned()];
        list.extend(refused.step.sql.iter().cloned());
        match admin.run(list).await {
            Ok(()) => {
                self.runner.done.push(refused.step);
                Ok(None)
            }
            Err(error) if error.as_db_error().is_none() => Err(Error::sql("give another name")(error)),
            Err(_) => Ok(Some(refused)),
        }
    }

    /// Passes until the shadow says what the document says, or nothing more can be done.
    /// `loosened`: also to be looked at.
    async fn settle(&mut self, plan: &Plan, loosened: &[ObjectId]) -> Result<Vec<Refused>> {
        let lookup = Lookup::new(self.change.new);
        let context = Context {
            lookup: &lookup,
            bypasses_row_security: bypasses_row_security(self.client).await?,
            emptied: &self.empty().await?,
        };
        let mut interest: HashSet<ObjectId> = self.changes.created.iter().map(|object| object.id()).collect();
        interest.extend(self.changes.changed.iter().map(|(_, new)| new.id()));
        interest.extend(self.change.again.iter().chain(loosened));
        interest.extend(self.drop_foreign_keys(&lookup).await?);
        // What is done to a table reaches those below it, changed or not.
        let mut level: Vec<u32> = tables(&interest);
        while !level.is_empty() {
            let below = lookup.children(&level).into_iter();
            let new = below.map(|(oid, _)| ObjectId { class: Class::Relation, oid });
            level = tables(&new.filter(|id| interest.insert(*id)).collect());
        }
        let mut made = Made::default();
        let mut last: Vec<Refused> = Vec::new();
        for number in 0..PASSES_MAX {
            let wanted: Vec<&Object> =
                self.change.new.objects.iter().filter(|object| interest.contains(&object.id())).collect();
            let mut have = observe::observe(self.client, &wanted).await?;
            self.believe(number == 0, &mut have);
            let pass = work::work(&context, self.change.new, plan, &interest, &have, &made);
            for (id, by) in &pass.stuck {
                self.stuck(*id, by);
                interest.remove(id);
            }
            if pass.drops.is_empty() && pass.steps.is_empty() {
                return Ok(Vec::new());
            }
            interest.extend(&pass.dropped);
            made.forget(&pass.dropped);
            let before = self.runner.done.len();
            let mut refused = self.runner.rounds(pass.drops).await?;
            refused.extend(self.runner.rounds(pass.steps).await?);
            let not_valid: Vec<Step> = refused.iter().filter_map(|r| not_valid(&lookup, r)).collect();
            refused.extend(self.runner.rounds(not_valid).await?);
            made.extend(self.runner.done.iter().skip(before));
            last = refused;
            if self.runner.done.len() == before {
                break;
            }
        }
        Ok(last)
    }

    /// Of a kind that the shadow cannot be asked about, what the old document says is there first,
    /// and then what the new one says: it is made again once, if at all.
    fn believe(&self, first: bool, have: &mut HashMap<String, Object>) {
        let pairs = self.changes.changed.iter().filter(|(_, new)| !observe::is_readable(new.class));
        have.extend(pairs.map(|(old, new)| {
            let there: &Object = if first { old } else { new };
            (new.describe(), there.clone())
        }));
    }

    /// Foreign keys to a table that is empty for now and gets other types: with the key the
    /// server would look for the rows once more. They come back without a look at the rows.
    async fn drop_foreign_keys(&mut self, lookup: &Lookup<'_>) -> Result<Vec<ObjectId>> {
        let retyped = |key: &Constraint| {
            let id = ObjectId { class: Class::Relation, oid: key.referenced_oid };
            let pair = self.changes.changed.iter().find(|(_, new)| new.id() == id);
            let (Some((old, new)), Some((_, list))) = (pair, key.definition.split_once(" REFERENCES "))
            else {
                return false;
            };
            match (&old.entry, &new.entry) {
                (Entry::Table(a), Entry::Table(b)) => retyped(a, b).any(|column| refers_to(list, column)),
                _ => false,
            }
        };
        let here = self.changes.changed.iter().chain(&self.changes.same).map(|(_, new)| *new);
        let keys: Vec<&Object> = here
            .filter(|object| match &object.entry {
                Entry::Constraint(key) => {
                    key.contype == "f"
                        && self.emptied.contains(&key.referenced_oid)
                        && !self.emptied.contains(&key.table_oid)
                        && retyped(key)
                }
                _ => false,
            })
            .filter(|object| lookup.get(object.id()).is_some())
            .collect();
        let steps = keys.iter().filter_map(|object| drop::drop_step(object, "make again")).collect();
        self.runner.rounds(steps).await?;
        Ok(keys.iter().map(|object| object.id()).collect())
    }

    /// Tables whose columns' values do not matter: emptied, or rewritten on the source and empty.
    async fn empty(&self) -> Result<HashSet<u32>> {
        let mut empty = self.emptied.clone();
        for (old, new) in &self.changes.changed {
            let (Entry::Table(before), Entry::Table(after)) = (&old.entry, &new.entry) else { continue };
            if empty.contains(&new.oid) || types(before) == types(after) && before.filenode == after.filenode
            {
                continue;
            }
            let sql = format!("SELECT FROM {} LIMIT 1", qualified(&after.schema, &after.name));
            if self.runner.has_rows(&sql).await? == Some(false) {
                empty.insert(new.oid);
            }
        }
        Ok(empty)
    }

    fn stuck(&mut self, id: ObjectId, by: &str) {
        if let Some(object) = self.change.new.objects.iter().find(|object| object.id() == id) {
            self.runner.left_out.push(LeftOut {
                object: object.describe(),
                reason: format!("it has changed in a way that cannot be followed while {by} needs it"),
                sqlstate: None,
            });
        }
    }

    async fn finish(mut self, refused: Vec<Refused>, waiting: Vec<Object>, plan: &Plan) -> Result<Outcome> {
        self.judge(&refused)?;
        self.leave_out(refused, "");
        let (new, refresh) = (self.change.new, self.change.refresh);
        let refused = refresh::refresh_again(&mut self.runner, new, refresh).await?;
        self.leave_out(refused, "");
        let mut late = drop::copies(&self.changes, self.change.new);
        late.extend(waiting.iter().filter_map(|object| drop::drop_step(object, "drop")));
        let refused = self.runner.rounds(late).await?;
        self.judge(&refused)?;
        let later = after::later(&refused, &self.changes.dropped);
        self.leave_out(refused, DROPPED);
        let new =
            self.changes.created.iter().copied().chain(self.changes.changed.iter().map(|(_, new)| *new));
        let touched: HashSet<ObjectId> = new.clone().map(|object| object.id()).collect();
        let old =
            self.changes.dropped.iter().copied().chain(self.changes.changed.iter().map(|(old, _)| *old));
        let is_again = |object: &&Object| {
            self.change.again.contains(&object.id())
                || refresh.iter().any(|relid| object.id().is_relation(*relid))
        };
        let again = self.change.new.objects.iter().filter(is_again);
        let looked_at: BTreeSet<String> = new.chain(old).chain(again).map(Object::describe).collect();
        let noted = plan.notes.iter().filter(|note| looked_at.contains(&note.object)).cloned();
        self.runner.left_out.extend(noted);
        let lacks = |id: ObjectId| id.class == Class::Relation && self.absent.contains_key(&id.oid);
        let steps = plan.pre_data.iter().chain(plan.post_data.iter().flat_map(|stage| &stage.steps));
        let made = steps.filter(|step| touched.contains(&step.object) && !lacks(step.object)).cloned();
        Ok(Outcome {
            made: made.collect(),
            left_out: self.runner.left_out,
            looked_at,
            absent: self.absent.into_values().collect(),
            filled: refresh::filled(&self.runner.done).collect(),
            later,
        })
    }

    /// Names what was refused, but for parts of tables that are named themselves.
    fn leave_out(&mut self, refused: Vec<Refused>, remark: &str) {
        let parts: HashSet<ObjectId> = self
            .change
            .new
            .objects
            .iter()
            .filter(|object| object.entry.table_oid().is_some_and(|oid| self.absent.contains_key(&oid)))
            .map(Object::id)
            .collect();
        let is_told = |id: ObjectId| {
            parts.contains(&id) || id.class == Class::Relation && self.absent.contains_key(&id.oid)
        };
        let others = refused.into_iter().filter(|refused| !is_told(refused.step.object));
        self.runner.left_out.extend(others.map(|refused| LeftOut {
            object: format!("{}{remark}", refused.step.title()),
            ..left_out(refused)
        }));
        if remark.is_empty() {
            self.runner.left_out.extend(self.absent.values().map(|table| LeftOut {
                object: format!("table {}.{}", table.schema, table.name),
                reason: table.reason.clone(),
                sqlstate: None,
            }));
        }
    }

    /// Whether a table's rows may be others than the source's: before or after this change an
    /// update or delete of it does not say which row it means, and is not sent.
    fn follows_inserts_only(&self, relid: u32) -> bool {
        [self.change.old, self.change.new].into_iter().any(|catalog| identity::lacks(catalog, relid))
    }

    /// What a refusal is for the tables: those that the shadow cannot have so are absent from
    /// here on; one that its owner can help ends everything, with its cause and what to do.
    fn judge(&mut self, refused: &[Refused]) -> Result<()> {
        let gone = |r: &Refused| {
            matches!(r.step.part, "drop" | "drop column" | "detach" | "empty") && is_absent(&r.code)
        };
        for refused in refused.iter().filter(|r| r.step.need == Need::Success && !gone(r)) {
            let Refused { step, message, code, detail } = refused;
            let table = self.change.new.objects.iter().find(|object| object.id() == step.object);
            let reason =
                if step.part == "create" { message.clone() } else { format!("{}: {message}", step.part) };
            let table = table.and_then(|object| Absent::of(object, reason));
            let rows_too = self.change.rows_too || self.follows_inserts_only(step.object.oid);
            match table.filter(|_| is_beyond(step.part, code, detail, rows_too)) {
                Some(table) => {
                    self.absent.entry(table.relid).or_insert(table);
                }
                None if self.absent.contains_key(&step.object.oid) => {}
                None => return Err(stopped_by(refused)),
            }
        }
        Ok(())
    }
}

/// A foreign key whose rows are not all here yet: on hold, or refused at their copy. It holds
/// for new rows; that it is not valid is noted, and tried again when a table is whole.
fn not_valid(lookup: &Lookup<'_>, refused: &Refused) -> Option<Step> {
    let object = lookup.get(refused.step.object)?;
    match (&object.entry, refused.step.sql.as_slice()) {
        (Entry::Constraint(key), [sql]) if key.contype == "f" && refused.code == "23503" => {
            let is_new = refused.step.part == "create" && !sql.ends_with(" NOT VALID");
            is_new.then(|| Step::new(object, "not valid", vec![format!("{sql} NOT VALID")]))
        }
        _ => None,
    }
}

fn tables(ids: &HashSet<ObjectId>) -> Vec<u32> {
    ids.iter().filter(|id| id.class == Class::Relation).map(|id| id.oid).collect()
}

fn types(table: &Table) -> Vec<Option<&str>> {
    let columns = table.columns.iter().filter(|c| !c.dropped);
    columns.map(|c| c.data_type.as_ref().map(|t| t.sql.as_str())).collect()
}

/// Whether a column is among those that stand in parentheses behind a foreign key's table,
/// quoted or not, as the server sees fit.
fn refers_to(list: &str, column: &str) -> bool {
    let (mut quoted, mut inside, mut item) = (false, false, String::new());
    let name = ident(column);
    for c in list.chars() {
        match c {
            '(' if !quoted && !inside => inside = true,
            ',' | ')' if inside && !quoted => {
                if item.trim() == column || item.trim() == name {
                    return true;
                }
                if c == ')' {
                    return false;
                }
                item.clear();
            }
            _ => {
                quoted ^= c == '"';
                if inside {
                    item.push(c);
                }
            }
        }
    }
    false
}

/// Names of columns that have another type.
fn retyped<'t>(before: &'t Table, after: &'t Table) -> impl Iterator<Item = &'t str> {
    let sql = |c: &Column| c.data_type.as_ref().map(|t| t.sql.clone());
    let columns = after.columns.iter().filter(|c| !c.dropped);
    let differs = move |c: &&Column| {
        before.columns.iter().any(|old| old.attnum == c.attnum && !old.dropped && sql(old) != sql(c))
    };
    columns.filter(differs).map(|c| c.name.as_str())
}

async fn bypasses_row_security(client: &Client) -> Result<bool> {
    let sql = "SELECT r.rolsuper OR r.rolbypassrls FROM pg_catalog.pg_roles AS r \
         WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER";
    let row = client.query_one(sql, &[]).await.map_err(Error::sql("ask for privileges"))?;
    Ok(row.get(0))
}

/// What is not there need not be dropped or detached.
fn is_absent(code: &str) -> bool {
    matches!(code, "42P01" | "42703" | "42704" | "42883" | "3F000")
}

fn left_out(refused: Refused) -> LeftOut {
    let sqlstate = (!refused.code.is_empty()).then_some(refused.code);
    LeftOut { object: refused.step.title(), reason: refused.message, sqlstate }
}

/// A refusal that ends everything: with its cause and what to do.
fn stopped_by(refused: &Refused) -> Error {
    let Refused { step, message, code, detail } = refused;
    let hint = match code.as_str() {
        "2BP01" | "0A000" if !detail.is_empty() => format!(
            "Something of the shadow's own depends on it; drop that, and the stream goes on by itself: {}",
            detail.replace('\n', "; ")
        ),
        "42501" => {
            "Give the table back to the shadow's role: ALTER TABLE ... OWNER TO; the stream then goes on."
                .to_owned()
        }
        "42P07" | "42710" => {
            "Something of the shadow's own has that name; rename it, and the stream goes on by itself."
                .to_owned()
        }
        _ => "Put the table on the shadow back as it was on the source, or start the job anew.".to_owned(),
    };
    Error::Shadow {
        message: format!(
            "could not follow a change of {} on the shadow ({}): {message} (SQLSTATE {code})",
            step.describe, step.part
        ),
        hint,
        retry: true,
    }
}

/// Settings for the rest of the transaction: those of creation (see `session`), and plans made
/// for catalogs instead of for single rows.
const ENTER: &str = "\
    SET LOCAL check_function_bodies = off; \
    SET LOCAL row_security = off; \
    SET LOCAL standard_conforming_strings = on; \
    SET LOCAL xmloption = content; \
    SET LOCAL default_tablespace = ''; \
    SET LOCAL default_table_access_method = heap; \
    SET LOCAL client_min_messages = warning; \
    SET LOCAL plan_cache_mode = auto; \
    SET LOCAL enable_seqscan = on";

/// What apply relies on for its speed.
const LEAVE: &str = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off";

/// A pass looks at what the one before has done: a tree's children follow in the second.
const PASSES_MAX: usize = 5;
