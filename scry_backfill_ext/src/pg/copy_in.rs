//! The receiving side of the COPY protocol, for a procedure of our own.
//!
//! To the client a call of it is a `COPY … FROM STDIN`: CopyInResponse, its
//! CopyData, CopyDone, CommandComplete. The steps are those of
//! `ReceiveCopyBegin` and `CopyGetData` (commands/copyfromparse.c).

use pgrx::PgSqlErrorCode::{ERRCODE_CONNECTION_FAILURE, ERRCODE_PROTOCOL_VIOLATION, ERRCODE_QUERY_CANCELED};
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use super::ffi;
use super::report::raise;

/// What the client sends.
pub struct CopyIn {
    message: pg_sys::StringInfoData,
}

impl CopyIn {
    /// Asks the client for its data. In a session of a client, while a statement of its runs.
    pub fn begin() -> CopyIn {
        // SAFETY: the buffers live in the statement's memory; the frontend is ours to speak with,
        // because a statement of its runs.
        unsafe {
            let mut response: pg_sys::StringInfoData = std::mem::zeroed();
            pg_sys::pq_beginmessage(&mut response, COPY_IN_RESPONSE);
            // Binary; the columns' formats are nobody's business.
            pg_sys::pq_sendbyte(&mut response, 1);
            pg_sys::pq_sendbyte(&mut response, 0);
            pg_sys::pq_sendbyte(&mut response, 0);
            pg_sys::pq_endmessage(&mut response);
            let flush = (*ffi::PqCommMethods).flush;
            pg_guard_ffi_boundary(|| flush());
            let mut message: pg_sys::StringInfoData = std::mem::zeroed();
            pg_sys::initStringInfo(&mut message);
            CopyIn { message }
        }
    }

    /// The next piece of data; `None` at its end. Raises the errors that COPY raises.
    pub fn next(&mut self) -> Option<&[u8]> {
        loop {
            pgrx::check_for_interrupts!();
            match self.receive() {
                b'd' => return Some(self.bytes()),
                b'c' => return None,
                b'H' | b'S' => {}
                b'f' => {
                    let reason = String::from_utf8_lossy(self.bytes()).trim_end_matches('\0').to_owned();
                    raise(ERRCODE_QUERY_CANCELED, format!("COPY from stdin failed: {reason}"))
                }
                other => unexpected(other),
            }
        }
    }

    fn receive(&mut self) -> u8 {
        let message = &raw mut self.message;
        // SAFETY: as `begin`. A cancel in the middle of a message would lose the border of the next
        // one; an error puts the count back.
        let (kind, failed) = unsafe {
            pg_sys::QueryCancelHoldoffCount += 1;
            let kind = pg_guard_ffi_boundary(|| {
                ffi::pq_startmsgread();
                ffi::pq_getbyte()
            });
            let longest = match u8::try_from(kind) {
                Ok(b'd') => LARGE_MESSAGE,
                Ok(b'c' | b'f' | b'H' | b'S') => SMALL_MESSAGE,
                Ok(other) => unexpected(other),
                Err(_) => end_of_connection(),
            };
            (kind as u8, pg_guard_ffi_boundary(|| ffi::pq_getmessage(message, longest)) != 0)
        };
        if failed {
            end_of_connection();
        }
        // SAFETY: counted up above.
        unsafe { pg_sys::QueryCancelHoldoffCount -= 1 }
        kind
    }

    fn bytes(&self) -> &[u8] {
        let len = usize::try_from(self.message.len).unwrap_or(0);
        // SAFETY: the server has put `len` bytes there; the next message comes by `&mut self`.
        unsafe { std::slice::from_raw_parts(self.message.data.cast(), len) }
    }
}

fn end_of_connection() -> ! {
    raise(
        ERRCODE_CONNECTION_FAILURE,
        "unexpected EOF on client connection with an open transaction".to_owned(),
    )
}

fn unexpected(kind: u8) -> ! {
    raise(ERRCODE_PROTOCOL_VIOLATION, format!("unexpected message type 0x{kind:02X} during COPY from stdin"))
}

const COPY_IN_RESPONSE: std::ffi::c_char = b'G' as std::ffi::c_char;
/// `PQ_LARGE_MESSAGE_LIMIT`, `PQ_SMALL_MESSAGE_LIMIT` (libpq/libpq.h)
const LARGE_MESSAGE: i32 = 0x3FFF_FFFF;
const SMALL_MESSAGE: i32 = 10_000;
