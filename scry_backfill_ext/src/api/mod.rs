//! The SQL functions and views, schema `scry_backfill`.
//!
//! The SQL side is written by hand in `sql/` (order, names, defaults and
//! grants stand there); the functions here are its C symbols.

mod check;
mod control;
pub(crate) mod ddl;
pub(crate) mod job;
mod late;
mod names;
pub(crate) mod options;
mod pace;
mod preflight;
pub(crate) mod refusal;
mod roles;
pub(crate) mod select;
mod start;
mod status;
mod verify;
pub(crate) mod version;
mod wait;

::pgrx::extension_sql_file!("sql/tables.sql", name = "tables", bootstrap);
::pgrx::extension_sql_file!("sql/functions.sql", name = "functions", requires = ["tables"]);
::pgrx::extension_sql_file!("sql/event_triggers.sql", name = "event_triggers", requires = ["tables"]);
::pgrx::extension_sql_file!("sql/views.sql", name = "views", requires = ["functions"], finalize);
