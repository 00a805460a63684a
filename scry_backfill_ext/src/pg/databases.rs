//! The databases of the cluster, from a process that is connected to none.
//!
//! SPI needs a database's catalogs; `pg_database` is shared, so it can be
//! scanned as autovacuum's launcher does (`get_database_list`).

use std::ffi::CStr;

use pgrx::pg_sys;

/// A database that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
}

/// All databases that allow connections. Outside a transaction only.
pub fn list() -> Vec<Database> {
    let mut found = Vec::new();
    // SAFETY: the frame of `get_database_list`: a transaction of its own, a catalog scan under its snapshot.
    // An ERROR ends the process with the transaction open, as it does there.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::GetTransactionSnapshot();
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock.cast_signed());
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if (*row).datallowconn {
                let name = CStr::from_ptr((*row).datname.data.as_ptr()).to_string_lossy().into_owned();
                found.push(Database { oid: (*row).oid.to_u32(), name });
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock.cast_signed());
        pg_sys::CommitTransactionCommand();
    }
    found
}
