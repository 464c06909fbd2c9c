//! What every accept loop does about file descriptors, of which a process has a fixed number and
//! strangers can take one by knocking.
//!
//! **Some are kept.** A system numbers descriptors from the lowest that is free, so the number of a
//! new one tells how many are in use without counting. Connections whose number lies within the last
//! ones are turned away, at each kind of listener at another [`Keep`]: links first, then the health
//! port, the control socket last. What is left is the store's, which opens a file for each content.
//!
//! **None is no reason to spin.** A connection that cannot be accepted waits in the listener's queue
//! and is offered again at once. So the loop pauses, longer each time, up to a second; what goes wrong
//! is told once and counted each time, and so is its end.

use std::{io, time::Duration};

use crate::telemetry;

/// First pause after an accept that failed. Doubled up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(10);

/// Longest pause: within this time of there being descriptors again, the port is back.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Descriptors that a listener leaves to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// With fewer than this left, a newcomer needs another to go.
    pub(crate) few: u64,
    /// With fewer than this left, nobody is let in.
    pub(crate) hardly: u64,
}

impl Keep {
    /// For links: those on TCP are the only ones that cost a descriptor each.
    #[cfg(feature = "tcp")]
    pub(crate) const LINKS: Self = Self { few: 16, hardly: 12 };
    /// For probes and scrapers.
    pub(crate) const HEALTH: Self = Self { few: 12, hardly: 8 };
    /// For this node's own user.
    pub(crate) const CONTROL: Self = Self { few: 6, hardly: 6 };
}

/// What a new descriptor says about how many are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// There is no shortage.
    Enough,
    /// Somebody else should go for this one.
    Few,
    /// This one should go.
    Hardly,
}

/// How many are left for `keep` beside the newest one.
#[cfg(unix)]
pub(crate) fn left_beside(newest: &impl std::os::fd::AsRawFd, keep: Keep) -> Left {
    // Asked each time: it can be changed from outside while the process runs.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    left(limit, u64::try_from(newest.as_raw_fd()).unwrap_or(0), keep)
}

/// Where the system does not number them so, a failed accept is the only sign.
#[cfg(not(unix))]
pub(crate) fn left_beside<T>(_newest: &T, _keep: Keep) -> Left {
    Left::Enough
}

#[cfg_attr(not(unix), allow(dead_code))]
fn left(limit: Option<u64>, newest: u64, keep: Keep) -> Left {
    let Some(limit) = limit else { return Left::Enough };
    match limit.saturating_sub(newest.saturating_add(1)) {
        left if left < keep.hardly => Left::Hardly,
        left if left < keep.few => Left::Few,
        _ => Left::Enough,
    }
}

/// Counts a connection that was closed unheard for want of descriptors.
pub(crate) fn turned_away(listener: &'static str) {
    metrics::counter!(telemetry::TURNED_AWAY, "listener" => listener).increment(1);
}

/// What an accept loop remembers of its failures.
#[derive(Debug)]
pub(crate) struct Trouble {
    listener: &'static str,
    failures: u64,
    pause: Duration,
}

impl Trouble {
    /// Of a loop that has none yet. `listener` is a value of the metrics' label.
    pub(crate) fn none(listener: &'static str) -> Self {
        Self { listener, failures: 0, pause: PAUSE_FIRST }
    }

    /// An accept failed: how long to wait before the next one.
    pub(crate) fn failed(&mut self, error: &io::Error) -> Duration {
        metrics::counter!(telemetry::ACCEPT_ERRORS, "listener" => self.listener).increment(1);
        // Whoever knocked is gone again. That is theirs, and nothing of the listener's.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return Duration::ZERO;
        }
        if self.failures == 0 {
            tracing::warn!(listener = self.listener, %error, "cannot accept connections at the moment");
        }
        self.failures = self.failures.saturating_add(1);
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(PAUSE_MAX);
        pause
    }

    /// An accept went well.
    pub(crate) fn over(&mut self) {
        if self.failures > 0 {
            tracing::info!(listener = self.listener, failures = self.failures, "accepts connections again");
            *self = Self::none(self.listener);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_newest_tells_how_many_are_left() {
        let keep = Keep { few: 16, hardly: 12 };
        for (limit, newest, expected) in [
            (Some(64), 10, Left::Enough),
            (Some(64), 47, Left::Enough),
            (Some(64), 48, Left::Few),
            (Some(64), 51, Left::Few),
            (Some(64), 52, Left::Hardly),
            (Some(64), 63, Left::Hardly),
            // Lowered below what is in use.
            (Some(64), 1000, Left::Hardly),
            (Some(u64::MAX), 1000, Left::Enough),
            (None, u64::MAX, Left::Enough),
        ] {
            assert_eq!(left(limit, newest, keep), expected, "{newest} of {limit:?}");
        }
    }

    #[test]
    fn pauses_grow_to_a_second_and_begin_anew_when_it_is_over() {
        let mut trouble = Trouble::none("tcp");
        let full = io::Error::from_raw_os_error(24);
        let pauses: Vec<_> = (0..12).map(|_| trouble.failed(&full).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000, 1000]);
        assert_eq!(trouble.failed(&io::ErrorKind::ConnectionAborted.into()), Duration::ZERO);
        trouble.over();
        assert_eq!(trouble.failed(&full), PAUSE_FIRST);
    }
}
