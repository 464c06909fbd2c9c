//! How many unreadable frames a link may carry.

use std::time::{Duration, Instant};

/// Unreadable frames that are forgiven in a row: enough for one odd build of a peer to be seen in
/// the counters, too few to hide a flood in.
const FORGIVEN_MAX: u32 = 8;

/// One more is forgiven after so long.
const FORGIVEN_EVERY: Duration = Duration::from_secs(10);

/// A small budget that refills slowly.
#[derive(Debug)]
pub(super) struct Tolerance {
    left: u32,
    refilled: Instant,
}

impl Tolerance {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: FORGIVEN_MAX, refilled: now }
    }

    /// True where this one is forgiven.
    pub(super) fn forgive(&mut self, now: Instant) -> bool {
        while self.left < FORGIVEN_MAX && now.saturating_duration_since(self.refilled) >= FORGIVEN_EVERY {
            self.left = self.left.saturating_add(1);
            self.refilled += FORGIVEN_EVERY;
        }
        if self.left == FORGIVEN_MAX {
            self.refilled = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
