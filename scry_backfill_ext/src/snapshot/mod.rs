//! The copy: what is copied in which pieces, and how far it is.

pub mod plan;
