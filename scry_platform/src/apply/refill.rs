//! Materialized views that were filled while a table below them had no rows here.
//!
//! ```text
//! filled (refreshed, or made) ─┬─ no table below it is on hold ─► done
//!                              └─ else ─► scry_shadow.refill ─ the last such hold ends ─► filled again
//! ```
//!
//! Role: on the source a migration may rewrite a table and refresh what reads it in one go; here
//! the table is empty until its copy is complete. What is below a view is known by its
//! dependencies in the document, through views, and for a table its partitions and children too;
//! what a function reads is not.
//!
//! What it does not do: refresh. See `schema::evolve`.

use crate::shadow::Session;
use crate::{Error, Result};
use scry_wire::catalog::{Catalog, Class, Entry, MaterializedView, ObjectId};
use std::collections::{BTreeSet, HashMap};

/// Notes those of the views in `filled` that stand on tables on hold, in the open transaction;
/// the tables in `held` are about to be.
pub async fn note(session: &Session, catalog: &Catalog, filled: &[u32], held: &[u32]) -> Result<()> {
    if filled.is_empty() {
        return Ok(());
    }
    let mut without_rows = on_hold(session).await?;
    without_rows.extend(held);
    let below = Below::new(catalog);
    let views: Vec<u32> = filled.iter().copied().filter(|view| below.has_any(*view, &without_rows)).collect();
    // What was noted of an earlier filling is void.
    for (sql, relids) in [(FORGET, filled), (NOTE, &views)] {
        session.execute(sql, &[&relids]).await.map_err(Error::sql("write scry_shadow.refill"))?;
    }
    Ok(())
}

/// Takes those of the noted views that have all they read now, in the order in which they can be
/// filled: from the bottom. To be called in the transaction that fills them.
pub async fn take_due(session: &Session, catalog: &Catalog) -> Result<Vec<u32>> {
    let without_rows = on_hold(session).await?;
    let noted = oids(session, "SELECT relid FROM scry_shadow.refill").await?;
    let below = Below::new(catalog);
    let mut due: Vec<u32> = noted.into_iter().filter(|view| !below.has_any(*view, &without_rows)).collect();
    // What reads another has more below it.
    due.sort_by_key(|view| below.of(*view).len());
    session.execute(FORGET, &[&due]).await.map_err(Error::sql("write scry_shadow.refill"))?;
    Ok(due)
}

/// The materialized views that have rows on the source, those first that others read.
pub fn filled_on_source(catalog: &Catalog) -> Vec<&MaterializedView> {
    let below = Below::new(catalog);
    let mut views: Vec<(usize, &MaterializedView)> = catalog
        .objects
        .iter()
        .filter_map(|object| match &object.entry {
            Entry::MaterializedView(view) if view.populated => Some((below.of(object.oid).len(), view)),
            _ => None,
        })
        .collect();
    views.sort_by_key(|(read, _)| *read);
    views.into_iter().map(|(_, view)| view).collect()
}

/// Whether any view waits.
pub async fn is_any_noted(session: &Session) -> Result<bool> {
    Ok(!oids(session, "SELECT relid FROM scry_shadow.refill").await?.is_empty())
}

async fn on_hold(session: &Session) -> Result<BTreeSet<u32>> {
    oids(session, "SELECT relid FROM scry_shadow.hold").await
}

async fn oids(session: &Session, sql: &str) -> Result<BTreeSet<u32>> {
    let rows = session.query(sql, &[]).await.map_err(Error::sql("read what is on hold"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What relations read.
struct Below<'a> {
    needs: HashMap<ObjectId, &'a [ObjectId]>,
    /// Partitions and children by their parent.
    children: HashMap<u32, Vec<u32>>,
}

impl<'a> Below<'a> {
    fn new(catalog: &'a Catalog) -> Self {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for object in &catalog.objects {
            if let Entry::Table(table) = &object.entry {
                for parent in &table.parents {
                    children.entry(parent.oid).or_default().push(object.oid);
                }
            }
        }
        let relations = catalog.objects.iter().filter(|object| object.class == Class::Relation);
        let needs = relations.map(|object| (object.id(), object.depends_on.as_slice())).collect();
        Below { needs, children }
    }

    /// All relations that `view` reads, directly or not.
    fn of(&self, view: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut open = vec![view];
        while let Some(oid) = open.pop() {
            let id = ObjectId { class: Class::Relation, oid };
            let read = self.needs.get(&id).into_iter().flat_map(|needs| needs.iter());
            let read = read.filter(|need| need.class == Class::Relation).map(|need| need.oid);
            let parts = self.children.get(&oid).into_iter().flatten().copied();
            open.extend(read.chain(parts).filter(|oid| found.insert(*oid)));
        }
        found
    }

    fn has_any(&self, view: u32, relids: &BTreeSet<u32>) -> bool {
        !relids.is_empty() && !self.of(view).is_disjoint(relids)
    }
}

const FORGET: &str = "DELETE FROM scry_shadow.refill WHERE relid = ANY ($1)";
const NOTE: &str = "INSERT INTO scry_shadow.refill SELECT pg_catalog.unnest($1::oid[])";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// t (partitions p, q) ◄ view v ◄ materialized m; other ◄ materialized n
    fn catalog() -> Catalog {
        let table = |oid: u32, parents: serde_json::Value| {
            json!({
                "class": "pg_class", "oid": oid,
                "entry": { "kind": "table", "schema": "s", "name": format!("t{oid}"), "partitioned": oid == 1,
                           "replica_identity": "d", "columns": [], "parents": parents }
            })
        };
        let below = |oid: u32| json!([{ "oid": oid, "schema": "s", "name": "t1" }]);
        let view = |kind: &str, oid: u32, on: u32| {
            json!({
                "class": "pg_class", "oid": oid, "depends_on": [{ "class": "pg_class", "oid": on }],
                "entry": { "kind": kind, "schema": "s", "name": format!("v{oid}"), "definition": "", "columns": [] }
            })
        };
        let objects = [
            table(1, json!([])),
            table(2, below(1)),
            table(3, below(1)),
            table(4, json!([])),
            view("view", 10, 1),
            view("materialized_view", 11, 10),
            view("materialized_view", 12, 4),
        ];
        serde_json::from_value(json!({ "format": 1, "objects": objects })).unwrap()
    }

    #[test]
    fn sees_through_views_and_trees() {
        let catalog = catalog();
        let below = Below::new(&catalog);
        assert_eq!(below.of(11), [1, 2, 3, 10].into());
        assert_eq!(below.of(12), [4].into());
        assert!(below.has_any(11, &[3].into()) && !below.has_any(12, &[3].into()));
        assert!(!below.has_any(11, &BTreeSet::new()));
    }
}
