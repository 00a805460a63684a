//! The rounds of a copy, and what their snapshots saw: `scry_shadow.copy_round`.
//!
//! ```text
//! round 1, the slot's snapshot ──── interrupted ──── round 2, a later one
//!   whole tables stay: all of the stream is theirs     the others: only what it did not see
//! ```
//!
//! The source leaves out what a table's snapshot saw, as far as it knows the
//! snapshot when it decodes. What stood in the journal before another round
//! began was decoded earlier: so the applier leaves it out too. Invariant: of a
//! table exactly those transactions are applied which its snapshot did not see.
//! A table that was not copied at all is measured by the catalog: what that has
//! of it, or no longer has, is later than what its snapshot saw.

use crate::{Error, Result};
use scry_wire::SeenBy;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::GenericClient;

/// A round of the copy, as it stands at the head of the catalog document.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Round {
    /// Its number within the generation.
    #[serde(default)]
    pub copy_id: u64,
    /// What its snapshot saw; empty if it was the slot's own.
    #[serde(default)]
    pub snapshot: String,
}

impl Round {
    /// What its snapshot saw, if it was not the slot's own.
    ///
    /// # Errors
    /// It is no snapshot.
    pub fn seen_by(&self) -> std::result::Result<Option<SeenBy>, String> {
        (!self.snapshot.is_empty()).then(|| self.snapshot.parse()).transpose()
    }
}

/// Which transactions the copied tables have with their rows.
#[derive(Debug, Default)]
pub struct Rounds {
    /// By table; `None` for the slot's own snapshot.
    tables: HashMap<u32, Option<Arc<SeenBy>>>,
    catalog: Option<Arc<SeenBy>>,
}

impl Rounds {
    /// Reads them, where there was more than the slot's own snapshot. `copy_id`
    /// is the round of the catalog.
    ///
    /// # Errors
    /// The shadow's tables cannot be read.
    pub async fn load(client: &impl GenericClient, copy_id: u64) -> Result<Self> {
        let what = "read scry_shadow.copy_round";
        let sql = "SELECT copy_id, snapshot FROM scry_shadow.copy_round WHERE snapshot <> ''";
        let mut rounds: HashMap<u64, Arc<SeenBy>> = HashMap::new();
        for row in client.query(sql, &[]).await.map_err(Error::sql(what))? {
            let seen_by = row.get::<_, String>(1).parse().map_err(Error::protocol)?;
            rounds.insert(row.get::<_, i64>(0).cast_unsigned(), Arc::new(seen_by));
        }
        if rounds.is_empty() {
            return Ok(Rounds::default());
        }
        let sql = "SELECT DISTINCT relid, copy_id FROM scry_shadow.chunk";
        let rows = client.query(sql, &[]).await.map_err(Error::sql(what))?;
        let line = |row: &tokio_postgres::Row| {
            (row.get::<_, u32>(0), rounds.get(&row.get::<_, i64>(1).cast_unsigned()).cloned())
        };
        Ok(Rounds { tables: rows.iter().map(line).collect(), catalog: rounds.get(&copy_id).cloned() })
    }

    /// Whether the table has with its rows what this transaction made of it.
    #[must_use]
    pub fn saw(&self, relid: u32, xid: u64) -> bool {
        if self.tables.is_empty() && self.catalog.is_none() {
            return false;
        }
        let of_table = self.tables.get(&relid).unwrap_or(&self.catalog);
        of_table.as_ref().is_some_and(|seen_by| seen_by.saw(xid))
    }

    /// Whether the copied catalog has what this transaction made of the schema.
    #[must_use]
    pub fn catalog_saw(&self, xid: u64) -> bool {
        self.catalog.as_ref().is_some_and(|seen_by| seen_by.saw(xid))
    }
}

/// Writes down the round that begins.
pub(super) async fn note(client: &impl GenericClient, round: &Round) -> Result<()> {
    let sql = "INSERT INTO scry_shadow.copy_round (copy_id, snapshot) VALUES ($1, $2) \
               ON CONFLICT (copy_id) DO UPDATE SET snapshot = excluded.snapshot";
    client
        .execute(sql, &[&round.copy_id.cast_signed(), &round.snapshot])
        .await
        .map_err(Error::sql("write scry_shadow.copy_round"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Option<Arc<SeenBy>> {
        Some(Arc::new(text.parse().unwrap()))
    }

    #[test]
    fn measures_each_table_by_its_own_snapshot() {
        let rounds = Rounds {
            tables: HashMap::from([(1, None), (2, seen("20:20:")), (3, seen("30:32:30"))]),
            catalog: seen("30:32:30"),
        };
        let saw = |relid: u32| -> Vec<u64> {
            [19, 20, 29, 30, 31, 32].into_iter().filter(|xid| rounds.saw(relid, *xid)).collect()
        };
        assert!(saw(1).is_empty(), "of a table of the first round everything is news");
        assert_eq!(saw(2), [19]);
        assert_eq!(saw(3), [19, 20, 29, 31]);
        assert_eq!(saw(4), saw(3), "one that is gone by then");
        assert!(rounds.catalog_saw(31) && !rounds.catalog_saw(30));
        assert!(!Rounds::default().saw(1, 1) && !Rounds::default().catalog_saw(1));
    }

    #[test]
    fn a_table_that_is_not_there_yet_waits_for_no_snapshot_of_the_slot() {
        let rounds = Rounds { tables: HashMap::from([(2, seen("20:20:"))]), catalog: None };
        assert!(!rounds.saw(9, 1));
    }
}
