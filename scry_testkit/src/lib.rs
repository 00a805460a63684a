//! Test clusters, scripted peers and faults; used by the end-to-end tests and
//! by the demo, never by the programs themselves.
//!
//! ```text
//!   Lab ──── a directory, a user, a seed, the server's files; cleans up
//!    ├─ Cluster ── a PostgreSQL of its own: start, stop, kill, conf, psql
//!    ├─ Platform ─ scry_platform serve, with or without an embedded shadow
//!    ├─ Sender ─── scry_sender run by hand (`scry_backfill.sender = external`)
//!    └─ Pair ───── source + platform + shadow, wired; start_job, assert_equal
//!   load ─────── concurrent mixed writers that count their own commits
//!   history ──── random schema changes and rows, by a seed
//!   schema_text ─ what pg_dump says of both sides
//!   content ──── row count and content hash of every table, on both sides
//!   scripted ─── a platform that lies
//!   certs, proxy, memory, port, wait: what tests need beside
//! ```
//!
//! Nothing here writes outside one directory below the system's temporary
//! directory, needs root, or touches an installed PostgreSQL. When run as root
//! the clusters and programs run as another user (`SCRY_TEST_USER`, `postgres`
//! by default), because PostgreSQL refuses root.

pub mod certs;
pub mod cluster;
pub mod content;
pub mod history;
pub mod lab;
pub mod load;
pub mod memory;
pub mod pair;
pub mod platform;
pub mod port;
pub mod program;
pub mod proxy;
pub mod rng;
pub mod schema_text;
pub mod scripted;
pub mod sender;
pub mod server_files;
pub mod user;
pub mod wait;

pub use cluster::{Cluster, ClusterOptions, Shutdown};
pub use lab::{Lab, scenario};
pub use pair::{Pair, PairOptions, SenderMode, ShadowKind};
pub use platform::{Platform, PlatformOptions};
pub use program::Program;
pub use rng::Rng;
pub use sender::Sender;
pub use server_files::ServerFiles;

/// A connection to a cluster, blocking.
pub use postgres::Client;

/// The format, for scripted peers.
pub use scry_wire as wire;
