//! The platform's side: HTTP/2 over TLS.
//!
//! ```text
//! relay ─► pool ─► connect (TCP, tls, HTTP/2) ─► exchange: one request a worker ─► up
//!            └─ backoff between attempts   └─ line: how far behind the link is; last_words: why it ended
//! ```

mod backoff;
mod connect;
mod credentials;
mod exchange;
mod last_words;
mod line;
mod pool;
mod tls;
mod up;

pub use backoff::Backoff;
pub use exchange::{Ends, Exchange};
pub use pool::{Class, Pool};
pub use up::Up;
