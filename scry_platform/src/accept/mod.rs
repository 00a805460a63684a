//! The HTTP/2 server: who may speak, and which role a connection has.
//!
//! ```text
//! TCP ─► lane ─► tls ─► hyper (limits) ─► auth ─► POST /api/v1/stream ─► hello ─► role
//!                                            └─► GET /api/v1/*, /metrics (crate::api)
//! ```
//!
//! One request is one connection of a worker: its body carries frames up, the
//! answer's body frames down, at the same time. Invariants: nothing of a body
//! is read before the token is checked; each connection holds a bounded number
//! of frames; a bad frame or pack ends its own connection only.

pub mod auth;
mod lanes;
pub mod link;
mod listener;
mod packs;
mod stream;
mod tls;

pub use lanes::Lanes;
pub use listener::Listener;
pub use stream::{App, accept_stream};
pub use tls::Tls;
