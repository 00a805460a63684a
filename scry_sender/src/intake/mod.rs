//! The worker's side: the Unix socket, who may connect, what is read.
//!
//! ```text
//! socket ─► listener ─► peer ─► hello ─► relay
//!                                          └─ reader ─► queue
//! ```

mod hello;
mod listener;
mod peer;
mod reader;
mod writer;

pub use hello::{Greeted, HelloError, read_hello};
pub use listener::Listener;
pub use peer::Peers;
pub use reader::{End, hang_up, read_pieces};
pub use writer::Writer;
