//! The end-to-end tests: real clusters, the extension as it is installed, the
//! programs as they are built. `make e2e` runs them; see CONTRIBUTING.md.
//!
//! All stand in module `e2e`, so that `--skip e2e::` leaves the unit tests.

mod e2e;
