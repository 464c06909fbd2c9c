//! Token buckets.

use std::time::{Duration, Instant};

/// A budget that refills at a steady rate up to a burst. Whole tokens only; fractions of time are
/// kept, so that no rounding adds up.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    tokens: u64,
    burst: u64,
    per_second: u64,
    /// Up to here time was turned into tokens.
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(burst: u64, per_second: u64, now: Instant) -> Self {
        Self { tokens: burst, burst, per_second, filled_at: now }
    }

    /// Takes `count` tokens, or none.
    pub fn take(&mut self, count: u64, now: Instant) -> bool {
        self.fill(now);
        match self.tokens.checked_sub(count) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Instant) {
        if self.per_second == 0 {
            return;
        }
        let elapsed = now.saturating_duration_since(self.filled_at);
        let earned = elapsed.as_nanos().saturating_mul(u128::from(self.per_second)) / 1_000_000_000;
        if earned == 0 {
            return;
        }
        let earned_u64 = u64::try_from(earned).unwrap_or(u64::MAX);
        self.tokens = self.tokens.saturating_add(earned_u64).min(self.burst);
        let worth = earned.saturating_mul(1_000_000_000) / u128::from(self.per_second);
        let worth = Duration::from_nanos(u64::try_from(worth).unwrap_or(u64::MAX));
        self.filled_at = self.filled_at.checked_add(worth).unwrap_or(now).min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_never_gives_more_than_burst_and_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3, start);
        let mut taken = 0;
        for ms in 0..10_000 {
            taken += u64::from(bucket.take(1, start + Duration::from_millis(ms)));
        }
        assert_eq!(taken, 10 + 29);
        assert!(!bucket.take(11, start + Duration::from_secs(1000)));
        assert!(bucket.take(10, start + Duration::from_secs(1000)));
    }

    #[test]
    fn a_clock_that_stands_gives_nothing() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1, 1_000_000, start);
        assert!(bucket.take(1, start));
        assert!(!bucket.take(1, start));
    }
}
