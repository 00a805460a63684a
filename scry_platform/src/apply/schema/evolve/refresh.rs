//! Materialized views that were refreshed on the source are filled anew here.
//!
//! Role: they are computed, not copied: what the queries of both sides read is the same at this
//! place of the stream. `CONCURRENTLY` says how the source's readers fare, not what comes of it,
//! and is not repeated. One that is emptied (`WITH NO DATA`) is another in the document; see
//! `settle`.
//!
//! Invariants: in the order of the source's commands, one of which may read what another has
//! filled; what was filled in this change already is not filled twice. One that cannot be
//! refreshed keeps its rows and is left out by name until it is asked for again.

use super::run::{Refused, Runner};
use crate::Result;
use crate::apply::schema::plan::Step;
use crate::apply::schema::render::view::refresh;
use scry_wire::catalog::{Catalog, Entry, Object};

/// Refreshes; returns what the shadow refuses.
pub(super) async fn refresh_again(
    runner: &mut Runner<'_>,
    catalog: &Catalog,
    relids: &[u32],
) -> Result<Vec<Refused>> {
    let is_filled = |relid: u32, runner: &Runner<'_>| filled(&runner.done).any(|done| done == relid);
    let wanted: Vec<u32> = relids.iter().copied().filter(|relid| !is_filled(*relid, runner)).collect();
    let mut refused = Vec::new();
    for relid in wanted {
        let view = catalog.objects.iter().find(|object| object.id().is_relation(relid));
        if let Some(step) = view.and_then(step) {
            refused.extend(runner.rounds(vec![step]).await?);
        }
    }
    Ok(refused)
}

/// The materialized views that these steps have filled.
pub(super) fn filled(done: &[Step]) -> impl Iterator<Item = u32> {
    done.iter().filter(|step| step.part == "refresh").map(|step| step.object.oid)
}

fn step(object: &Object) -> Option<Step> {
    match &object.entry {
        Entry::MaterializedView(view) if view.populated => Some(refresh(object, view)),
        _ => None,
    }
}
