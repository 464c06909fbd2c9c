//! When this node's own beacons are due: a few when it comes, then rarely, and soon when somebody asks.

use std::time::{Duration, Instant};

use rand_core::Rng;

use super::jitter;

/// Time from one call to the next, a quarter more or less.
pub const CALL_EVERY: Duration = Duration::from_secs(60);

/// An answer waits a moment, so that those of a crowd do not all come at once.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(250);

/// Answers and calls are no closer than this, however many ask.
const GAP: Duration = Duration::from_secs(1);

/// Waits between the calls of a newcomer. Datagrams get lost, so there are four.
const FIRST_WAITS: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

/// The schedule.
#[derive(Debug)]
pub(super) struct Calls {
    next: Instant,
    last: Option<Instant>,
    /// Calls of a newcomer so far.
    asked: usize,
    answer: Option<Instant>,
}

impl Calls {
    pub(super) fn new(now: Instant, rng: &mut impl Rng) -> Self {
        let mut calls = Self { next: now, last: None, asked: 0, answer: None };
        calls.anew(now, rng);
        calls
    }

    /// Begins as a newcomer.
    pub(super) fn anew(&mut self, now: Instant, rng: &mut impl Rng) {
        self.asked = 0;
        self.next = now + jitter(FIRST_WAITS[0], rng);
    }

    /// Somebody wants to hear of this node.
    pub(super) fn asked(&mut self, now: Instant, rng: &mut impl Rng) {
        let soon = now + jitter(ANSWER_WITHIN, rng);
        let at = self.last.map_or(soon, |last| soon.max(last + GAP));
        self.answer = Some(self.answer.map_or(at, |answer| answer.min(at)));
    }

    /// Whether to call now, and whether as a newcomer.
    pub(super) fn due(&mut self, now: Instant, rng: &mut impl Rng) -> Option<bool> {
        if self.next() > now {
            return None;
        }
        let is_turn = self.next <= now;
        let asks = is_turn && self.asked < FIRST_WAITS.len();
        self.last = Some(now);
        // A call answers whoever asked.
        self.answer = None;
        if asks {
            self.asked = self.asked.saturating_add(1);
        }
        if is_turn {
            self.next = now
                + match FIRST_WAITS.get(self.asked) {
                    Some(wait) => *wait,
                    None => CALL_EVERY * 3 / 4 + jitter(CALL_EVERY / 2, rng),
                };
        }
        Some(asks)
    }

    pub(super) fn next(&self) -> Instant {
        self.answer.map_or(self.next, |answer| answer.min(self.next))
    }
}
