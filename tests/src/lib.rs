//! End-to-end tests; see CONTRIBUTING.md.
