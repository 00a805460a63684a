//! Settings for a while, in a user's session.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Runs `work` with these settings; each is as before when it returns. On an
/// error the end of the (sub)transaction puts them back, as it does for a
/// function's own SET clause (`fmgr_security_definer`, fmgr.c).
pub fn within<R>(settings: &[(&CStr, &CStr)], work: impl FnOnce() -> R) -> R {
    // SAFETY: inside a transaction (SQL functions only); the nest level is closed below or by the abort.
    let nest_level = unsafe {
        let nest_level = pg_sys::NewGUCNestLevel();
        for (name, value) in settings {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        nest_level
    };
    let result = work();
    // SAFETY: the level comes from above, in the same (sub)transaction.
    unsafe { pg_sys::AtEOXact_GUC(false, nest_level) };
    result
}

/// What the text form of a value depends on, as the workers and the shadow's
/// sessions have it.
pub const TEXT_FORM: [(&CStr, &CStr); 10] = [
    (c"client_encoding", c"UTF8"),
    (c"search_path", c""),
    (c"DateStyle", c"ISO"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"3"),
    (c"bytea_output", c"hex"),
    (c"xmloption", c"content"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
];
