//! The way up, compressed where the link is slower than the CPU.
//!
//! ```text
//! queue ─► throttle ─┬─ as it is ──────────────────────┬─► window ─► DATA
//!                    └─ gather ─► press ─► pack ───────┘
//!           decide ◄── bytes, waits, time at the press ──┘
//! ```
//!
//! Role: what turns pieces into packs (`scry_wire::pack`), and decides whether
//! to. Flow: `stream::up` asks [`Packing::wants`] before each piece and tells
//! what became of it. Invariants: frames go as they are until the platform has
//! said that it takes packs and a link has been found slow; packs begin and
//! end at frames' borders; what is packed holds the room of its pieces, so the
//! budget covers it.
//! What it does not do: it measures no link (`stream::line`).

mod decide;
mod press;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Compression;
use crate::metrics;

use decide::Decider;
pub use press::{Packed, Presses, end};

/// How one stream's way up is packed.
#[derive(Debug)]
pub struct Packing {
    presses: Arc<Presses>,
    /// None: always.
    decider: Option<Decider>,
    /// Whether the platform stands among packs now.
    pub open: bool,
}

impl Packing {
    /// For a stream whose platform takes packs; none where they are never made.
    #[must_use]
    pub fn new(wanted: Compression, presses: Arc<Presses>) -> Option<Self> {
        let decider = match wanted {
            Compression::Never => return None,
            Compression::Always => None,
            Compression::Auto => Some(Decider::new()),
        };
        Some(Packing { presses, decider, open: false })
    }

    /// Whether what comes next should be packed.
    #[must_use]
    pub fn wants(&self) -> bool {
        self.decider.as_ref().is_none_or(Decider::packs)
    }

    /// Whether anybody wants to know how long the stream waits.
    #[must_use]
    pub fn measures(&self) -> bool {
        self.decider.is_some()
    }

    /// Packs pieces. Takes a processor for as long as their compression takes.
    pub fn pack(&mut self, pieces: Vec<bytes::Bytes>) -> Packed {
        let begun = Instant::now();
        let packed = self.presses.pack(pieces);
        let now = Instant::now();
        metrics::packed(packed.raw, packed.len());
        if let Some(decider) = &mut self.decider {
            decider.packed(now, packed.raw as u64, now - begun);
        }
        packed
    }

    /// Bytes went up as they are.
    pub fn passed(&mut self, bytes: usize) {
        if let Some(decider) = &mut self.decider {
            decider.passed(bytes as u64);
        }
    }

    /// The stream waited until `now` for room; `queued`: the link was behind.
    pub fn waited(&mut self, now: Instant, wait: Duration, queued: bool) {
        if let Some(decider) = &mut self.decider {
            decider.waited(now, wait, queued);
        }
    }
}
