//! The extension `scry_backfill`.
::pgrx::pg_module_magic!(name, version);
