//! A small seeded random source (SplitMix64), so that a printed seed replays
//! every choice a test made, on every machine and with every version of every
//! library. Not for secrets.

use std::time::{SystemTime, UNIX_EPOCH};

/// A seeded sequence of numbers.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Rng { state: seed }
    }

    /// `SCRY_SEED` if it is set (decimal), else a seed taken from the clock.
    pub fn seed_from_env() -> u64 {
        if let Some(seed) = std::env::var("SCRY_SEED").ok().and_then(|s| s.trim().parse().ok()) {
            return seed;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Short enough to be typed back in.
        (now.as_micros() % 1_000_000_007) as u64
    }

    /// Another, independent sequence; `stream` numbers it.
    pub fn fork(&self, stream: u64) -> Rng {
        let mut child = Rng { state: self.state ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
        child.next_u64();
        child
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n` (0 when `n` is 0).
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next_u64() % n }
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low.saturating_add(self.below(high.abs_diff(low).saturating_add(1)) as i64)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, or `None` when there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = self.below(items.len() as u64) as usize;
        items.get(index)
    }

    /// `len` bytes of lower-case hexadecimal text: does not compress, so
    /// that PostgreSQL really moves it out of line.
    pub fn hex(&mut self, len: usize) -> String {
        let mut text = String::with_capacity(len + 16);
        while text.len() < len {
            text.push_str(&format!("{:016x}", self.next_u64()));
        }
        text.truncate(len);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn a_seed_replays_its_sequence() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        assert_ne!(Rng::new(7).fork(1).next_u64(), Rng::new(7).fork(2).next_u64());
    }

    #[test]
    fn ranges_hold_their_ends() {
        let mut rng = Rng::new(1);
        let seen: Vec<i64> = (0..1000).map(|_| rng.between(-1, 1)).collect();
        assert!(seen.contains(&-1) && seen.contains(&1) && seen.iter().all(|v| (-1..=1).contains(v)));
        assert_eq!(rng.hex(33).len(), 33);
    }
}
