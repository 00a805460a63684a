//! TRUNCATE of the source, on the shadow.

use super::pipeline::Note;
use super::writer::Writer;
use crate::{Error, Result};

impl Writer {
    /// Relations have been emptied: these and no others, since the source lists
    /// all of them. Sequences that were restarted are told by themselves.
    pub async fn truncate(&mut self, relids: &[u32]) -> Result<()> {
        self.write_log().await?;
        self.write_run().await?;
        let here: Vec<u32> = relids.iter().copied().filter(|relid| !self.passes_over(*relid)).collect();
        match self.guard.is_on() {
            true => self.truncate_guarded(&here).await,
            false => self.truncate_now(&here).await,
        }
    }

    pub(super) async fn truncate_now(&mut self, relids: &[u32]) -> Result<()> {
        let mut all = Vec::with_capacity(relids.len());
        let mut emptied = Vec::with_capacity(relids.len());
        for relid in relids {
            self.look_up(*relid).await?;
            let target = self.relations.target(*relid)?;
            let name = super::relation_map::qualified(&target.relation);
            if !target.partitioned {
                emptied.push(format!("ONLY {name}"));
            }
            all.push(name);
        }
        let Some(first) = relids.first() else { return Ok(()) };
        self.drain().await?;
        let cannot = || Error::sql("look for what a TRUNCATE reaches");
        let reaches: bool = self.session.query_one(TRUNCATE_REACHES, &[&all]).await.map_err(cannot())?.get(0);
        let sql = if reaches {
            // TRUNCATE would refuse or empty more; DELETE, with foreign keys silent, does neither.
            emptied.iter().map(|name| format!("DELETE FROM {name};")).collect()
        } else {
            // A partitioned table stands for its partitions, all of which are listed.
            let partitioned = all.iter().filter(|name| !emptied.contains(&format!("ONLY {name}")));
            let names: Vec<&str> = emptied.iter().chain(partitioned).map(String::as_str).collect();
            format!("TRUNCATE {}", names.join(", "))
        };
        let session = self.session.clone();
        let flight = async move { session.batch_execute(&sql).await.map(|()| 0) };
        let note = Note::rows(*first, "TRUNCATE", None);
        self.send(flight, note, all.len() * 64).await
    }
}

/// Whether a foreign key from another table points at one of `$1`, or a
/// partition of one of them is not among them: a table that was copied later
/// has the TRUNCATE behind it.
pub(super) const TRUNCATE_REACHES: &str = "\
    WITH emptied AS (SELECT pg_catalog.array_agg(n::pg_catalog.regclass::pg_catalog.oid) AS oids \
        FROM pg_catalog.unnest($1::text[]) AS n) \
    SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' \
            AND k.confrelid = ANY (e.oids) AND k.conrelid <> ALL (e.oids)) \
        OR EXISTS (SELECT FROM pg_catalog.unnest(e.oids) AS r \
            CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r::pg_catalog.regclass) AS t \
            WHERE t.relid::pg_catalog.oid <> ALL (e.oids)) \
    FROM emptied e";
