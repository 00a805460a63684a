//! From decoded changes to the messages of a batch.

mod linger;
pub mod link;
mod lull;
pub mod output;
pub mod relation_cache;
pub mod schema;
pub mod sequence;
