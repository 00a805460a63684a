//! The platform's side: HTTP/2 over TLS.
//!
//! ```text
//! relay ─► pool ─► connect (TCP, tls, HTTP/2) ─► exchange: one request a worker
//!            └─ backoff between attempts
//! ```

mod backoff;
mod connect;
mod credentials;
mod exchange;
mod pool;
mod tls;

pub use backoff::Backoff;
pub use exchange::{Ends, Exchange, Up};
pub use pool::{Class, Pool};
