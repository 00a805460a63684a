//! A change of the schema in the stream: from the document to the shadow.
//!
//! ```text
//! document ─► evolve, in the open transaction ─► scry_shadow.catalog, left_out, schema_step
//! ```
//!
//! Invariants: the shadow's objects, the stored document and the position move in one
//! transaction, so that a repeated change meets the document that it starts from. What it does
//! not do: put tables on hold (see `hold`), and decide what changes (see `schema::evolve`).

use super::lead::tidy;
use super::quarantine::Policy;
use super::refill;
use super::schema::{Absent, DROPPED, Outcome, SchemaChange, Step, drop_later, quote};
use crate::origin;
use crate::shadow::{Session, Shadow};
use crate::{Error, Result};
use scry_wire::catalog::{Catalog, Entry, Object, ObjectId};
use scry_wire::message::LeftOutText;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What a change of the schema starts from, beside the shadow itself.
pub struct Start<'a> {
    /// The document that is in force.
    pub before: &'a Catalog,
    /// Tables that are copied again: they lose their rows here.
    pub emptied: &'a [u32],
    /// Tables that the shadow does not have; those that are copied again are tried again.
    pub absent: &'a BTreeSet<u32>,
    /// Materialized views that were refreshed, in that order.
    pub refreshed: &'a [u32],
    /// What is done where rows are in the way.
    pub policy: Policy,
}

/// What came of a change of the schema, for whoever must be told once it is committed.
pub struct Followed {
    /// Tables that the shadow could not make or change so.
    pub absent: Vec<Absent>,
    /// What it lacks since now, tables too.
    pub left_out: Vec<LeftOutText>,
    /// For [`after_commit`].
    pub later: Vec<Step>,
}

/// Makes the shadow what `after` says. Nothing else may be under way on `session`.
pub async fn follow(
    shadow: &Shadow,
    session: &Session,
    start: &Start<'_>,
    after: &Catalog,
) -> Result<Followed> {
    super::lead::check_names(after)?;
    let still = start.absent.iter().copied().filter(|relid| !start.emptied.contains(relid)).collect();
    let left_behind = left_behind(session, start, after).await?;
    let unknown = start.absent.difference(&left_behind).copied().collect();
    let (old, new) = (without(start.before, &unknown), without(after, &still));
    let rows_too = start.policy == Policy::Quarantine;
    let (hold, refresh) = (start.emptied, start.refreshed);
    let change = SchemaChange { old: &old, new: &new, hold, again: &[], refresh, rows_too };
    let admin = match &shadow.admin {
        Some(connector) if change.needs_superuser() => {
            Some(connector.client().await.map_err(Error::sql("connect as superuser"))?.0)
        }
        _ => None,
    };
    let outcome = change.apply(session, admin.as_ref()).await?;
    tracing::info!(
        shadow = %shadow.database, objects = outcome.looked_at.len(), left_out = outcome.left_out.len(),
        "the schema has changed"
    );
    let left_out = note_left_out(session, &outcome).await?;
    note_steps(session, &outcome).await?;
    refill::note(session, &new, &outcome.filled, start.emptied).await?;
    Ok(Followed { absent: outcome.absent, left_out, later: outcome.later })
}

/// Tables that could not follow, and are gone on the source: what this shadow has made of them
/// goes as well, so that their names are free.
async fn left_behind(session: &Session, start: &Start<'_>, after: &Catalog) -> Result<BTreeSet<u32>> {
    let is_there = |relid: u32| after.objects.iter().any(|object| object.id().is_relation(relid));
    let mut found = BTreeSet::new();
    for object in &start.before.objects {
        let Entry::Table(table) = &object.entry else { continue };
        if !start.absent.contains(&object.oid) || is_there(object.oid) {
            continue;
        }
        let name = quote::qualified(&table.schema, &table.name);
        let made = session.query_opt(MADE, &[&name]).await;
        if made.map_err(Error::sql("look for a table in scry_shadow.schema_step"))?.is_some() {
            found.insert(object.oid);
        }
    }
    Ok(found)
}

/// Drops what only a superuser may, after the transaction of a change is committed. Returns what
/// is gone, as it stood among what is left out.
pub async fn after_commit(shadow: &Shadow, session: &Session, later: Vec<Step>) -> Result<Vec<String>> {
    let Some(connector) = &shadow.admin else { return Ok(Vec::new()) };
    let (admin, _) = connector.client().await.map_err(Error::sql("connect as superuser"))?;
    let row =
        session.query_one("SELECT CURRENT_USER::text", &[]).await.map_err(Error::sql("ask for the role"))?;
    let mut gone = drop_later(&admin, row.get(0), later).await?;
    gone.iter_mut().for_each(|title| title.push_str(DROPPED));
    let mut list = origin::left_out(&**session).await?;
    list.retain(|item| !gone.contains(&item.object));
    origin::store_left_out(&**session, &list).await?;
    Ok(gone)
}

/// The materialized views that were refreshed on the source just before this document.
#[must_use]
pub fn refreshed(document: &[u8]) -> Vec<u32> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        refreshed: Vec<u32>,
    }
    serde_json::from_slice::<Head>(document).map_or_else(|_| Vec::new(), |head| head.refreshed)
}

/// Fills what waits for tables that were on hold when this process last saw them.
pub async fn catch_up(session: &Session) -> Result<()> {
    if !refill::is_any_noted(session).await? {
        return Ok(());
    }
    let Some(catalog) = super::lead::stored_catalog(session).await? else { return Ok(()) };
    again(session, &catalog, &[]).await
}

fn without<'c>(catalog: &'c Catalog, tables: &BTreeSet<u32>) -> Cow<'c, Catalog> {
    if tables.is_empty() { Cow::Borrowed(catalog) } else { Cow::Owned(catalog.without(tables)) }
}

/// A table is whole again: foreign keys from and to it that could not be looked at are now, and
/// materialized views that were filled without its rows are filled. In a transaction of its own;
/// what fails is noted.
pub async fn after_hold(session: &Session, relid: u32) -> Result<()> {
    let Some(catalog) = super::lead::stored_catalog(session).await? else { return Ok(()) };
    let keys = catalog.objects.iter().filter(|object| match &object.entry {
        Entry::Constraint(key) => key.contype == "f" && [key.table_oid, key.referenced_oid].contains(&relid),
        _ => false,
    });
    let keys: Vec<ObjectId> = keys.map(Object::id).collect();
    if keys.is_empty() && !refill::is_any_noted(session).await? {
        return Ok(());
    }
    again(session, &catalog, &keys).await
}

/// Looks at `keys` again, and fills what can be filled now.
async fn again(session: &Session, catalog: &Catalog, keys: &[ObjectId]) -> Result<()> {
    session.batch_execute("BEGIN").await.map_err(Error::sql("begin"))?;
    let done = async {
        let refresh = refill::take_due(session, catalog).await?;
        let change = SchemaChange {
            old: catalog,
            new: catalog,
            hold: &[],
            again: keys,
            refresh: &refresh,
            rows_too: false,
        };
        let outcome = change.apply(session, None).await?;
        note_left_out(session, &outcome).await
    };
    match done.await {
        Ok(_) => session
            .batch_execute("COMMIT")
            .await
            .map_err(Error::sql("commit what a late copy makes possible")),
        Err(error) if session.is_closed() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "could not do what a late copy makes possible");
            session.batch_execute("ROLLBACK").await.map_err(Error::sql("roll back"))
        }
    }
}

/// What was said of the objects before is void. Returns what was not said yet.
async fn note_left_out(session: &Session, outcome: &Outcome) -> Result<Vec<LeftOutText>> {
    let noted = origin::left_out(&**session).await?;
    let mut list = noted.clone();
    // A part of an object stands in parentheses behind it.
    let is_of = |item: &LeftOutText, object: &String| {
        item.object
            .strip_prefix(object.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
    };
    list.retain(|item| !outcome.looked_at.iter().any(|object| is_of(item, object)));
    let new = outcome.left_out.iter();
    list.extend(new.map(|l| LeftOutText { object: l.object.clone(), reason: l.reason.clone() }));
    tidy(&mut list);
    if list != noted {
        origin::store_left_out(&**session, &list).await?;
    }
    list.retain(|item| !noted.contains(item));
    Ok(list)
}

/// Steps of the plan that now are done, so that a new history can undo them.
async fn note_steps(session: &Session, outcome: &Outcome) -> Result<()> {
    let steps: Vec<String> = outcome.made.iter().map(super::schema::Step::key).collect();
    let undo: Vec<Option<&str>> = outcome.made.iter().map(|step| step.undo.as_deref()).collect();
    let relations: Vec<Option<String>> = outcome
        .made
        .iter()
        .map(|step| step.makes.as_ref().map(|name| quote::qualified(&name.schema, &name.name)))
        .collect();
    let cannot = || Error::sql("write scry_shadow.schema_step");
    session.execute(NOTE_STEPS, &[&steps, &undo, &relations]).await.map(drop).map_err(cannot())
}

/// A relation of this name, if it was made for the source: one of the shadow's own is not touched.
const MADE: &str = "SELECT FROM scry_shadow.schema_step \
    WHERE relation OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::text)::pg_catalog.oid LIMIT 1";

const NOTE_STEPS: &str = "INSERT INTO scry_shadow.schema_step (step, undo, relation) \
    SELECT n.step, n.undo, pg_catalog.to_regclass(n.relation)::pg_catalog.oid \
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), \
        pg_catalog.unnest($3::text[])) WITH ORDINALITY AS n (step, undo, relation, place) \
    WHERE NOT EXISTS (SELECT FROM scry_shadow.schema_step AS s WHERE s.step OPERATOR(pg_catalog.=) n.step) \
    ORDER BY n.place";
