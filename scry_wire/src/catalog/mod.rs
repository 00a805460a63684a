//! The catalog document.
