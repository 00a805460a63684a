//! The extension's own tables, read and written for whoever may call its functions.
//!
//! None of the functions is SECURITY DEFINER: they look at the caller's
//! privileges first and then change to the bootstrap superuser and a safe
//! search_path for as long as [`as_superuser`] runs. On an error the end of
//! the (sub)transaction puts both back, as it does for SECURITY DEFINER.

use pgrx::pg_sys;

/// Runs `work` as the bootstrap superuser with `search_path = pg_catalog, pg_temp`.
/// Nothing in it may run SQL that the caller wrote.
pub fn as_superuser<R>(work: impl FnOnce() -> R) -> R {
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    // SAFETY: inside a transaction (SQL functions only); the nest level is closed below or by the abort.
    let nest_level = unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let nest_level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog, pg_temp".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        pg_sys::SetUserIdAndSecContext(
            pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID),
            context | pg_sys::SECURITY_LOCAL_USERID_CHANGE.cast_signed(),
        );
        nest_level
    };
    let result = work();
    // SAFETY: the values come from above, in the same (sub)transaction.
    unsafe {
        pg_sys::SetUserIdAndSecContext(user, context);
        pg_sys::AtEOXact_GUC(false, nest_level);
    }
    result
}
