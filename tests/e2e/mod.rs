//! The themes.
