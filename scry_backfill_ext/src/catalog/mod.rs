//! The catalog of the source, by SPI, as a document for the shadow.
//!
//! Runs the queries of `sql/catalog` (embedded in [`scry_wire::catalog`])
//! inside the caller's transaction, so that the document belongs to the copy's
//! snapshot. The worker's session has the settings that they ask for.

use std::ffi::CString;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::Oid;
use pgrx::spi::{Spi, SpiClient, SpiError};
use scry_wire::catalog::{
    Catalog, ClosureRow, DependsRow, SETTINGS, closure_objects, closure_query, depends_query, queries,
};

use crate::pg::server;

/// The document for these tables and all that they need; with
/// `whole_database` also for what no table needs.
pub fn document(tables: &[u32], whole_database: bool) -> Catalog {
    for (name, value) in SETTINGS {
        if let Ok(name) = CString::new(*name) {
            server::set_setting(&name, value);
        }
    }
    match read(tables, whole_database) {
        Ok(document) => document,
        Err(err) => pgrx::error!("could not read the catalog: {err}"),
    }
}

fn read(tables: &[u32], whole_database: bool) -> Result<Catalog, Box<dyn std::error::Error>> {
    Spi::connect(|client| {
        let closure = closure(client, tables, whole_database)?;
        let mut entries: Vec<(&str, String)> = Vec::new();
        for query in queries() {
            let ids = oids(&query.ids(&closure));
            for row in client.select(query.sql, None, &[DatumWithOid::from(ids)])? {
                if let Some(entry) = row.get::<pgrx::JsonB>(1)? {
                    entries.push((query.kind, entry.0.to_string()));
                }
            }
        }
        let depends = depends(client, &closure)?;
        Ok(Catalog::assemble(whole_database, &closure, entries, depends)?)
    })
}

fn closure(client: &SpiClient<'_>, tables: &[u32], whole: bool) -> Result<Vec<ClosureRow>, SpiError> {
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
pub fn with_storage(tables: &[u32]) -> Vec<u32> {
    const SQL: &str = "SELECT c.oid FROM pg_catalog.pg_class c \
                       WHERE c.oid OPERATOR(pg_catalog.=) ANY ($1) AND c.relkind OPERATOR(pg_catalog.=) 'r'";
    let read = Spi::connect(|client| -> Result<Vec<u32>, SpiError> {
        client
            .select(SQL, None, &[DatumWithOid::from(oids(tables))])?
            .map(|row| Ok(row.get::<Oid>(1)?.map_or(0, Oid::to_u32)))
            .collect()
    });
    read.unwrap_or_else(|err| pgrx::error!("could not read the tables' kinds: {err}"))
}
