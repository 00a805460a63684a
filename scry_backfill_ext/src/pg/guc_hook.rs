//! Check hooks of settings: the server calls them for each new value.

use std::ffi::{CStr, CString, c_char, c_void};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

/// Reserves the prefix: an unknown `scry_backfill.*` setting is an error from now on.
pub fn reserve_prefix() {
    // SAFETY: called from _PG_init after all settings are defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"scry_backfill".as_ptr()) };
}

/// Defines `scry_backfill.endpoint` with its check.
pub fn define_endpoint(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
) {
    // SAFETY: the hook is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_endpoint),
            None,
            None,
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_endpoint(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a pointer to a NUL-terminated string or NULL.
    let text = unsafe {
        if value.is_null() || (*value).is_null() {
            return true;
        }
        CStr::from_ptr(*value)
    };
    let problem = match text.to_str() {
        Ok("") => return true,
        Ok(text) => match crate::guc::check_endpoint(text) {
            Ok(()) => return true,
            Err(problem) => problem,
        },
        Err(_) => "The endpoint is not valid UTF-8.".to_owned(),
    };
    if let Ok(problem) = CString::new(problem) {
        // SAFETY: the server prints the text from ErrorContext right after this hook.
        unsafe {
            pg_sys::GUC_check_errdetail_string =
                pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, problem.as_ptr());
        }
    }
    false
}
