//! The catalog of the source, by SPI, as a document for the shadow.
//!
//! Runs the queries of `sql/catalog` (embedded in [`scry_wire::catalog`])
//! inside the caller's transaction, so that the document belongs to the copy's
//! snapshot, with the settings that they ask for.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::Oid;
use pgrx::spi::{Spi, SpiClient, SpiError, quote_qualified_identifier};
use scry_wire::catalog::{
    Catalog, ClosureRow, DependsRow, Entry, SETTINGS, closure_objects, closure_query, depends_query, queries,
};

use crate::pg::settings;

/// Where each sequence of the database stands: `last_value` and `is_called`, by oid.
/// As the WAL has it, so ahead of the last value used: the server takes the values
/// up to there without another record (`log_cnt`, commands/sequence.c).
pub type SequenceValues = HashMap<u32, (i64, bool)>;

/// Reads where the sequences stand.
///
/// In a short transaction of the caller's, not in the copy's: reading locks
/// every sequence until the transaction ends. Any moment after the slot's
/// creation will do, because the stream brings every later move.
pub fn sequence_values() -> SequenceValues {
    const SQL: &str = "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
                              s.seqincrement, s.seqmin, s.seqmax \
                       FROM pg_catalog.pg_class AS c \
                       JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
                       JOIN pg_catalog.pg_sequence AS s ON s.seqrelid OPERATOR(pg_catalog.=) c.oid \
                       WHERE c.relkind OPERATOR(pg_catalog.=) 'S' \
                         AND c.relpersistence OPERATOR(pg_catalog.<>) 't'";
    let read = Spi::connect(|client| -> Result<SequenceValues, SpiError> {
        let sequences = client
            .select(SQL, None, &[])?
            .map(|row| {
                let text = |i| row.get::<String>(i).map(Option::unwrap_or_default);
                let number = |i| row.get::<i64>(i).map(Option::unwrap_or_default);
                let steps = (number(4)?, number(5)?, number(6)?);
                Ok((row.get::<Oid>(1)?.map_or(0, Oid::to_u32), text(2)?, text(3)?, steps))
            })
            .collect::<Result<Vec<_>, SpiError>>()?;
        let mut values = HashMap::with_capacity(sequences.len());
        for (oid, schema, name, (increment, min, max)) in sequences {
            let sequence = quote_qualified_identifier(&schema, &name);
            let sql = format!("SELECT last_value, log_cnt, is_called FROM {sequence}");
            let rows = client.select(&sql, Some(1), &[])?;
            let row = rows.first();
            if let (Some(last_value), Some(logged), Some(is_called)) =
                (row.get::<i64>(1)?, row.get::<i64>(2)?, row.get::<bool>(3)?)
            {
                let ahead = last_value.saturating_add(logged.saturating_mul(increment));
                values.insert(oid, (ahead.max(min).min(max), is_called));
            }
        }
        Ok(values)
    });
    read.unwrap_or_else(|err| pgrx::error!("could not read the sequences: {err}"))
}

/// What a document is about.
#[derive(Debug, Clone, Copy)]
pub enum Extent<'a> {
    /// These tables and all that they need.
    Tables(&'a [u32]),
    /// The whole database without these tables.
    AllBut(&'a [u32]),
}

impl<'a> Extent<'a> {
    /// Of a job: its tables, and those that it leaves alone.
    pub fn of_job(whole_database: bool, tables: &'a [u32], alone: &'a [u32]) -> Self {
        if whole_database { Extent::AllBut(alone) } else { Extent::Tables(tables) }
    }

    fn parts(self) -> (&'a [u32], bool) {
        match self {
            Extent::Tables(tables) => (tables, false),
            Extent::AllBut(tables) => (tables, true),
        }
    }
}

/// The document of this extent.
pub fn document(extent: Extent<'_>, sequences: &SequenceValues) -> Catalog {
    // For as long as the queries run: the session may be a user's (verify()).
    let settings: Vec<(CString, CString)> = SETTINGS
        .iter()
        .filter_map(|(name, value)| Some((CString::new(*name).ok()?, CString::new(*value).ok()?)))
        .collect();
    let settings: Vec<(&CStr, &CStr)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut document = match settings::within(&settings, || read(extent)) {
        Ok(document) => document,
        Err(err) => pgrx::error!("could not read the catalog: {err}"),
    };
    for object in &mut document.objects {
        if let (Entry::Sequence(sequence), Some((last_value, is_called))) =
            (&mut object.entry, sequences.get(&object.oid))
        {
            sequence.last_value = Some(*last_value);
            sequence.is_called = *is_called;
        }
    }
    document
}

/// What the document of this extent would leave out: object and reason.
pub fn left_out(extent: Extent<'_>) -> Result<Vec<(String, String)>, SpiError> {
    let rows = Spi::connect(|client| closure(client, extent))?;
    let left_out = rows.into_iter().filter(|row| row.standing == "left_out");
    Ok(left_out.map(|row| (row.object.unwrap_or_default(), row.reason.unwrap_or_default())).collect())
}

fn read(extent: Extent<'_>) -> Result<Catalog, Box<dyn std::error::Error>> {
    Spi::connect(|client| {
        let closure = closure(client, extent)?;
        let mut entries: Vec<(&str, String)> = Vec::new();
        for query in queries() {
            let ids = oids(&query.ids(&closure));
            // As text: it is read once, when the document is put together.
            let sql = format!("SELECT q.entry::pg_catalog.text FROM ({}) AS q (entry)", query.sql.trim_end());
            for row in client.select(&sql, None, &[DatumWithOid::from(ids)])? {
                if let Some(entry) = row.get::<String>(1)? {
                    entries.push((query.kind, entry));
                }
            }
        }
        let depends = depends(client, &closure)?;
        Ok(Catalog::assemble(extent.parts().1, &closure, entries, depends)?)
    })
}

fn closure(client: &SpiClient<'_>, extent: Extent<'_>) -> Result<Vec<ClosureRow>, SpiError> {
    let (tables, whole) = extent.parts();
    let args = [DatumWithOid::from(oids(tables)), DatumWithOid::from(whole)];
    client
        .select(closure_query(), None, &args)?
        .map(|row| {
            Ok(ClosureRow {
                classid: row.get::<Oid>(1)?.map_or(0, Oid::to_u32),
                objid: row.get::<Oid>(2)?.map_or(0, Oid::to_u32),
                standing: row.get::<String>(3)?.unwrap_or_default(),
                object: row.get::<String>(4)?,
                reason: row.get::<String>(5)?,
            })
        })
        .collect()
}

fn depends(client: &SpiClient<'_>, closure: &[ClosureRow]) -> Result<Vec<DependsRow>, SpiError> {
    let (classes, objects) = closure_objects(closure);
    let args = [DatumWithOid::from(oids(&classes)), DatumWithOid::from(oids(&objects))];
    client
        .select(depends_query(), None, &args)?
        .map(|row| {
            let oid = |i| Ok::<u32, SpiError>(row.get::<Oid>(i)?.map_or(0, Oid::to_u32));
            Ok(DependsRow { classid: oid(1)?, objid: oid(2)?, refclassid: oid(3)?, refobjid: oid(4)? })
        })
        .collect()
}

fn oids(numbers: &[u32]) -> Vec<Oid> {
    numbers.iter().map(|n| Oid::from(*n)).collect()
}

/// The tables among these that hold rows of their own, under the current snapshot.
pub fn with_storage(tables: &[u32]) -> Vec<Stored> {
    const SQL: &str = "SELECT c.oid, c.relfilenode, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
            COALESCE(a.numbers, '{}'), COALESCE(a.names, '{}') \
        FROM pg_catalog.pg_class AS c \
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
        LEFT JOIN (SELECT attrelid, pg_catalog.array_agg(attnum ORDER BY attnum) AS numbers, \
                   pg_catalog.array_agg(attname::pg_catalog.text ORDER BY attnum) AS names \
            FROM pg_catalog.pg_attribute \
            WHERE attrelid OPERATOR(pg_catalog.=) ANY ($1) AND attnum OPERATOR(pg_catalog.>) 0 \
              AND NOT attisdropped AND attgenerated OPERATOR(pg_catalog.=) '' \
            GROUP BY attrelid) AS a ON a.attrelid OPERATOR(pg_catalog.=) c.oid \
        WHERE c.oid OPERATOR(pg_catalog.=) ANY ($1) AND c.relkind OPERATOR(pg_catalog.=) 'r'";
    let read = Spi::connect(|client| -> Result<Vec<Stored>, SpiError> {
        client
            .select(SQL, None, &[DatumWithOid::from(oids(tables))])?
            .map(|row| {
                let oid = |i| row.get::<Oid>(i).map(|oid| oid.map_or(0, Oid::to_u32));
                let text = |i| row.get::<String>(i).map(Option::unwrap_or_default);
                let numbers = row.get::<Vec<i16>>(5)?.unwrap_or_default();
                let names = row.get::<Vec<String>>(6)?.unwrap_or_default();
                let columns = numbers.into_iter().zip(names.iter().map(String::as_str));
                Ok(Stored { relid: oid(1)?, filenode: oid(2)?, shape: shape(&text(3)?, &text(4)?, columns) })
            })
            .collect()
    });
    read.unwrap_or_else(|err| pgrx::error!("could not read the tables' kinds: {err}"))
}

/// A table with storage, as the copy's snapshot sees it.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Its oid.
    pub relid: u32,
    /// Its file. One that was truncated or rewritten since has another, in
    /// which the snapshot's rows are not to be found.
    pub filenode: u32,
    /// Its [`shape`]. One that was altered since has another, which the shadow does not have yet.
    pub shape: u64,
}

/// What a table's name and the columns that stand in its rows come to: numbers and names, in their order.
pub fn shape<'a>(schema: &str, name: &str, columns: impl Iterator<Item = (i16, &'a str)>) -> u64 {
    let columns: Vec<(i16, &str)> = columns.collect();
    BuildHasherDefault::<DefaultHasher>::default().hash_one((schema, name, columns))
}
