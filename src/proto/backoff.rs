//! When to try again: restart delays of supervised children and redial delays of links.
//!
//! Two parts that are useful alone. [`Backoff`] answers "how long to wait before the next
//! attempt": exponential, capped, with jitter so that a crowd that failed together does not come
//! back together, and forgiving once an attempt has held for a while. [`RestartBudget`] answers
//! "is it still worth trying": more than n restarts within t means that waiting does not help and
//! somebody above has to know. [`Restarts`] puts both together for one child of a supervisor.
//!
//! There is no timer and no clock in here; the caller passes `now` and waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_core::Rng;

/// The shape of a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Delay before the second attempt, before jitter. Must be above zero: a zero delay is a busy loop.
    pub first: Duration,
    /// No delay is longer than this.
    pub cap: Duration,
    /// An attempt that lasted this long starts the row again from `first`.
    pub stable_after: Duration,
}

impl BackoffPolicy {
    /// For actors of this process: the first restart is hardly noticed, a persistent fault costs
    /// two starts a minute.
    pub const CHILD: Self = Self {
        first: Duration::from_millis(100),
        cap: Duration::from_secs(30),
        stable_after: Duration::from_secs(60),
    };

    /// For links to configured peers, redialled for ever: a peer that restarts is found again within a
    /// second or two. One behind a network that was away for long is, ten seconds after it is back at the
    /// latest, which is most of what a healed mesh waits for; one that is gone costs some eight dials a
    /// minute.
    pub const REDIAL: Self = Self {
        first: Duration::from_millis(500),
        cap: Duration::from_secs(10),
        stable_after: Duration::from_secs(30),
    };
}

/// Exponential delays with jitter for one thing that is attempted again and again.
///
/// Call [`started`](Self::started) when an attempt succeeds and [`next_delay`](Self::next_delay)
/// when it is over or failed. The n-th delay lies in `[d/2, d]` with `d = min(first * 2^n, cap)`:
/// half of it is kept so that two attempts are never back to back.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: BackoffPolicy,
    failures: u32,
    up_since: Option<Instant>,
}

impl Backoff {
    /// A backoff that has seen no failure.
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, failures: 0, up_since: None }
    }

    /// The attempt succeeded at `now`; how long it lasts decides whether the row starts again.
    pub fn started(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// The attempt failed or ended at `now`: how long to wait before the next.
    pub fn next_delay(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        let was_stable = self
            .up_since
            .take()
            .is_some_and(|up| now.saturating_duration_since(up) >= self.policy.stable_after);
        if was_stable {
            self.failures = 0;
        }
        // 2^20 times any sensible `first` is beyond any sensible cap.
        let factor = 1u32 << self.failures.min(20);
        self.failures = self.failures.saturating_add(1);
        jittered(self.policy.first.saturating_mul(factor).min(self.policy.cap), rng)
    }

    /// Failures since the last stable attempt.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// A duration drawn evenly from `[full/2, full]`.
fn jittered(full: Duration, rng: &mut impl Rng) -> Duration {
    let half_ns = u64::try_from(full.as_nanos() / 2).unwrap_or(u64::MAX);
    // The bias of the modulo is below 2^-20 for delays of a minute, and nobody bets on it.
    let extra_ns = rng.next_u64() % half_ns.saturating_add(1).max(1);
    full.saturating_sub(Duration::from_nanos(half_ns))
        .saturating_add(Duration::from_nanos(extra_ns))
        .min(full)
}

/// How many restarts in how much time a parent puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartIntensity {
    /// Restarts that are still fine within `within`; the next one escalates.
    pub restarts_max: u32,
    /// The sliding window.
    pub within: Duration,
}

impl RestartIntensity {
    /// Five in a minute. With [`BackoffPolicy::CHILD`] a child that dies at each start reaches it
    /// in about three seconds, one that dies of a rare message does not.
    pub const CHILD: Self = Self { restarts_max: 5, within: Duration::from_secs(60) };
}

/// Counts restarts in a sliding window. Memory is bounded by `restarts_max`.
#[derive(Debug, Clone)]
pub struct RestartBudget {
    intensity: RestartIntensity,
    recent: VecDeque<Instant>,
}

impl RestartBudget {
    /// A budget of which nothing is spent.
    pub fn new(intensity: RestartIntensity) -> Self {
        Self { intensity, recent: VecDeque::new() }
    }

    /// Takes one restart out of the budget; false when there is none left in the window.
    pub fn try_spend(&mut self, now: Instant) -> bool {
        while self
            .recent
            .front()
            .is_some_and(|&at| now.saturating_duration_since(at) >= self.intensity.within)
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.intensity.restarts_max as usize {
            return false;
        }
        self.recent.push_back(now);
        true
    }
}

/// Which endings of a child are followed by a fresh start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Always: the node is not whole without it.
    Permanent,
    /// After a fault only: ending cleanly is part of its job.
    Transient,
    /// Never: whoever asked for it decides what comes next (a link is redialled, not restarted).
    Temporary,
}

/// What a supervisor does about an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start a fresh value after this delay.
    RestartAfter(Duration),
    /// It is over and that is fine.
    Forget,
    /// Too many restarts: the parent has to decide.
    Escalate,
}

/// The restart history of one child.
#[derive(Debug, Clone)]
pub struct Restarts {
    policy: RestartPolicy,
    backoff: Backoff,
    budget: RestartBudget,
    total: u32,
}

impl Restarts {
    /// A child that was not started yet.
    pub fn new(policy: RestartPolicy, backoff: BackoffPolicy, intensity: RestartIntensity) -> Self {
        Self { policy, backoff: Backoff::new(backoff), budget: RestartBudget::new(intensity), total: 0 }
    }

    /// The child started at `now`.
    pub fn started(&mut self, now: Instant) {
        self.backoff.started(now);
    }

    /// The child ended at `now`, by a fault or cleanly.
    pub fn ended(&mut self, now: Instant, by_fault: bool, rng: &mut impl Rng) -> Verdict {
        let again = match self.policy {
            RestartPolicy::Permanent => true,
            RestartPolicy::Transient => by_fault,
            RestartPolicy::Temporary => false,
        };
        if !again {
            return Verdict::Forget;
        }
        if !self.budget.try_spend(now) {
            return Verdict::Escalate;
        }
        self.total = self.total.saturating_add(1);
        Verdict::RestartAfter(self.backoff.next_delay(now, rng))
    }

    /// Restarts granted since the child was declared.
    pub fn total(&self) -> u32 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use rand_core::TryRng;

    /// Always the same word, to see both ends of the jitter.
    struct Always(u64);

    impl TryRng for Always {
        type Error = Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            Ok(self.0 as u32)
        }
        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok(self.0)
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            out.fill(self.0 as u8);
            Ok(())
        }
    }

    const POLICY: BackoffPolicy = BackoffPolicy {
        first: Duration::from_millis(100),
        cap: Duration::from_millis(700),
        stable_after: Duration::from_secs(10),
    };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn delays_double_up_to_the_cap() {
        let now = Instant::now();
        let half_100_ns = 50_000_000;
        let mut backoff = Backoff::new(POLICY);
        // A remainder equal to the half is the top of the jitter; for longer delays it is 50 ms of it.
        assert_eq!(backoff.next_delay(now, &mut Always(half_100_ns)), ms(100));
        assert_eq!(backoff.next_delay(now, &mut Always(0)), ms(100));
        assert_eq!(backoff.next_delay(now, &mut Always(0)), ms(200));
        assert_eq!(backoff.next_delay(now, &mut Always(0)), ms(350));
        assert_eq!(backoff.next_delay(now, &mut Always(0)), ms(350));
    }

    #[test]
    fn no_delay_is_zero_or_above_the_cap() {
        let now = Instant::now();
        for word in [0, 1, 49_999_999, 50_000_001, u64::MAX / 3, u64::MAX] {
            let mut backoff = Backoff::new(POLICY);
            for _ in 0..100 {
                let delay = backoff.next_delay(now, &mut Always(word));
                assert!(delay >= ms(50) && delay <= ms(700), "{delay:?} for {word}");
            }
        }
    }

    #[test]
    fn a_stable_attempt_starts_the_row_again_and_a_short_one_does_not() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(POLICY);
        for _ in 0..3 {
            backoff.next_delay(now, &mut Always(0));
        }
        backoff.started(now);
        now += ms(9_999);
        assert_eq!(backoff.next_delay(now, &mut Always(0)), ms(350));
        backoff.started(now);
        now += ms(10_000);
        assert_eq!(backoff.next_delay(now, &mut Always(0)), ms(50));
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn the_budget_slides_with_time() {
        let start = Instant::now();
        let mut budget = RestartBudget::new(RestartIntensity { restarts_max: 2, within: ms(1000) });
        assert!(budget.try_spend(start));
        assert!(budget.try_spend(start + ms(600)));
        assert!(!budget.try_spend(start + ms(999)));
        assert!(budget.try_spend(start + ms(1000)), "the first one left the window");
        assert!(!budget.try_spend(start + ms(1001)));
    }

    #[test]
    fn the_policy_decides_which_endings_restart() {
        let check = |policy, by_fault, want: Verdict| {
            let mut restarts = Restarts::new(policy, POLICY, RestartIntensity::CHILD);
            assert_eq!(
                restarts.ended(Instant::now(), by_fault, &mut Always(0)),
                want,
                "{policy:?} {by_fault}"
            );
        };
        check(RestartPolicy::Permanent, true, Verdict::RestartAfter(ms(50)));
        check(RestartPolicy::Permanent, false, Verdict::RestartAfter(ms(50)));
        check(RestartPolicy::Transient, true, Verdict::RestartAfter(ms(50)));
        check(RestartPolicy::Transient, false, Verdict::Forget);
        check(RestartPolicy::Temporary, true, Verdict::Forget);
        check(RestartPolicy::Temporary, false, Verdict::Forget);
    }

    #[test]
    fn the_restart_after_the_last_allowed_one_escalates() {
        let now = Instant::now();
        let mut restarts = Restarts::new(
            RestartPolicy::Permanent,
            POLICY,
            RestartIntensity { restarts_max: 3, within: Duration::from_secs(60) },
        );
        for _ in 0..3 {
            assert!(matches!(restarts.ended(now, true, &mut Always(0)), Verdict::RestartAfter(_)));
        }
        assert_eq!(restarts.ended(now, true, &mut Always(0)), Verdict::Escalate);
        assert_eq!(restarts.total(), 3);
    }
}
