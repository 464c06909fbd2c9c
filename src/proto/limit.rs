//! A token bucket: so many units a second on average, so many at once.
//!
//! Units are whatever the owner counts: messages, bytes, verifications that failed. Arithmetic is
//! in whole units with the remainder kept, so that many small refills add up exactly, and
//! saturates, so that no input makes it panic or wrap. The bucket keeps no clock: it learns the
//! time from its callers, and time that stands still or runs backwards gives nothing.

use std::time::{Duration, Instant};

const NS_PER_S: u128 = 1_000_000_000;

/// A budget that refills with time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBucket {
    capacity: u64,
    per_s: u64,
    tokens: u64,
    /// Billionths of a unit that are earned and not yet whole; below [`NS_PER_S`].
    remainder: u128,
    refilled_at: Instant,
}

impl TokenBucket {
    /// A full bucket of `capacity` units that earns `per_s` units a second. A rate of zero never
    /// refills; a capacity of zero refuses everything.
    pub fn new(capacity: u64, per_s: u64, now: Instant) -> Self {
        Self { capacity, per_s, tokens: capacity, remainder: 0, refilled_at: now }
    }

    /// The same bucket, empty at `since`.
    pub fn empty(capacity: u64, per_s: u64, since: Instant) -> Self {
        Self { tokens: 0, ..Self::new(capacity, per_s, since) }
    }

    /// The most it holds.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// True where nothing that was ever taken is still missing.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.available(now) == self.capacity
    }

    /// Takes `units` if they are all there; else takes nothing.
    pub fn try_take(&mut self, now: Instant, units: u64) -> bool {
        self.refill(now);
        match self.tokens.checked_sub(units) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Takes `units`, or what is there if that is less: for costs that have arisen already, such
    /// as a verification that failed. False when it was less.
    pub fn charge(&mut self, now: Instant, units: u64) -> bool {
        self.refill(now);
        let covered = units <= self.tokens;
        self.tokens = self.tokens.saturating_sub(units);
        covered
    }

    /// Units that can be taken at `now`.
    pub fn available(&mut self, now: Instant) -> u64 {
        self.refill(now);
        self.tokens
    }

    /// How long after `now` `units` can be taken if nobody else takes any; none if never.
    pub fn ready_in(&mut self, now: Instant, units: u64) -> Option<Duration> {
        self.refill(now);
        let missing = units.saturating_sub(self.tokens);
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        if units > self.capacity || self.per_s == 0 {
            return None;
        }
        let missing = (u128::from(missing) * NS_PER_S).saturating_sub(self.remainder);
        let wait_ns = missing.div_ceil(u128::from(self.per_s));
        Some(Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(u64::MAX)))
    }

    fn refill(&mut self, now: Instant) {
        let elapsed_ns = now.saturating_duration_since(self.refilled_at).as_nanos();
        if elapsed_ns == 0 {
            return;
        }
        self.refilled_at = now;
        // Below 2^64 units a second times a span that fits an Instant: far below 2^128, and
        // saturating all the same.
        let earned = elapsed_ns.saturating_mul(u128::from(self.per_s)).saturating_add(self.remainder);
        let whole = u64::try_from(earned / NS_PER_S).unwrap_or(u64::MAX);
        self.tokens = self.tokens.saturating_add(whole).min(self.capacity);
        // A full bucket earns nothing, not even a fraction.
        self.remainder = if self.tokens == self.capacity { 0 } else { earned % NS_PER_S };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_burst_is_bounded_by_the_capacity_and_the_rest_by_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 5, start);
        let taken = (0..100).filter(|_| bucket.try_take(start, 1)).count();
        assert_eq!(taken, 10);
        let taken = (0..100).filter(|_| bucket.try_take(start + ms(1_000), 1)).count();
        assert_eq!(taken, 5);
        assert_eq!(bucket.available(start + ms(3_600_000)), 10, "an hour fills it and no more");
    }

    #[test]
    fn all_or_nothing_is_taken_and_a_charge_takes_what_is_there() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(30, 1, start);
        assert!(!bucket.try_take(start, 31));
        assert_eq!(bucket.available(start), 30);
        assert!(bucket.charge(start, 20));
        assert!(!bucket.charge(start, 20));
        assert_eq!(bucket.available(start), 0);
    }

    #[test]
    fn the_wait_is_exact() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3, start);
        assert!(bucket.try_take(start, 10));
        let wait = bucket.ready_in(start, 1).expect("it refills");
        assert_eq!(wait, Duration::from_nanos(333_333_334));
        assert!(!bucket.try_take(start + wait - Duration::from_nanos(1), 1));
        assert!(bucket.try_take(start + wait, 1));
        assert_eq!(bucket.ready_in(start + wait, 11), None, "more than it ever holds");
        assert_eq!(TokenBucket::new(1, 0, start).ready_in(start, 1), Some(Duration::ZERO));
        let mut dry = TokenBucket::new(1, 0, start);
        assert!(dry.try_take(start, 1));
        assert_eq!(dry.ready_in(start, 1), None);
    }

    #[test]
    fn an_empty_one_fills_like_any_other() {
        let start = Instant::now();
        let mut bucket = TokenBucket::empty(10, 5, start);
        assert_eq!((bucket.available(start), bucket.is_full(start)), (0, false));
        assert_eq!(bucket.available(start + ms(1_000)), 5);
        assert!(bucket.is_full(start + ms(2_000)));
        assert_eq!(bucket.capacity(), 10);
    }

    #[test]
    fn time_that_runs_backwards_gives_nothing_and_extremes_do_not_wrap() {
        let start = Instant::now() + ms(10_000);
        let mut bucket = TokenBucket::new(5, 5, start);
        assert!(bucket.try_take(start, 5));
        assert_eq!(bucket.available(start - ms(5_000)), 0);
        assert_eq!(bucket.available(start + ms(1_000)), 5);
        let mut huge = TokenBucket::new(u64::MAX, u64::MAX, start);
        assert!(huge.try_take(start, u64::MAX));
        assert_eq!(huge.available(start + Duration::from_secs(1 << 30)), u64::MAX);
    }

    proptest! {
        #[test]
        fn never_more_than_capacity_plus_rate_times_time(
            capacity in 0u64..1_000,
            per_s in 0u64..100_000,
            steps in prop::collection::vec((0u64..50_000_000, 0u64..50), 1..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = TokenBucket::new(capacity, per_s, now);
            let mut taken = 0u128;
            for (step_ns, units) in steps {
                now += Duration::from_nanos(step_ns);
                if bucket.try_take(now, units) {
                    taken += u128::from(units);
                }
                let earned = (now - start).as_nanos() * u128::from(per_s) / NS_PER_S;
                prop_assert!(taken <= u128::from(capacity) + earned);
            }
        }

        #[test]
        fn many_small_refills_lose_nothing(per_s in 1u64..1_000_000, step_ns in 1u64..1_000_000, steps in 1u32..500) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(u64::MAX, per_s, start);
            prop_assert!(bucket.try_take(start, u64::MAX));
            for n in 1..=steps {
                bucket.available(start + Duration::from_nanos(step_ns) * n);
            }
            let earned = u128::from(step_ns) * u128::from(steps) * u128::from(per_s) / NS_PER_S;
            prop_assert_eq!(u128::from(bucket.available(start + Duration::from_nanos(step_ns) * steps)), earned);
        }
    }
}
