//! Logical messages: what the extension writes into the WAL for its own decoder.
//!
//! A transactional message is decoded in its place among the changes of its
//! transaction, and not at all when that is rolled back (replication/message.h).

use std::ffi::CStr;

use pgrx::pg_sys;

use super::compat;

/// Prefix of all messages of the extension.
pub const PREFIX: &CStr = c"scry_backfill";

/// Writes a message into the current transaction, which gets an ID by that.
pub fn emit(content: &[u8]) {
    // SAFETY: inside a transaction; prefix and content live across the call.
    unsafe { compat::log_logical_message(PREFIX.as_ptr(), content.as_ptr().cast(), content.len()) };
}

/// What an event trigger function was called for; `None` for any other call.
pub fn event_of(fcinfo: pg_sys::FunctionCallInfo) -> Option<&'static CStr> {
    // SAFETY: the names are string constants of the server.
    event_data(fcinfo).map(|data| unsafe { CStr::from_ptr(data.event) })
}

/// What the server tells an event trigger function; it lives as long as the call.
pub fn event_data<'a>(fcinfo: pg_sys::FunctionCallInfo) -> Option<&'a pg_sys::EventTriggerData> {
    // SAFETY: the function manager passes a valid struct; as CALLED_AS_EVENT_TRIGGER (event_trigger.h).
    unsafe {
        let context = fcinfo.as_ref()?.context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return None;
        }
        context.cast::<pg_sys::EventTriggerData>().as_ref()
    }
}
