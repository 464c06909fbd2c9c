//! When to ask the router of the local network for ports, and when again.
//!
//! What was granted is asked for again when half of its time is over, so that two requests may be lost.
//! A router that does not answer, or says no, is asked rarely: most that do not know the protocol never
//! will, and one that restarts has forgotten what it granted only until the next renewal.

use std::time::{Duration, Instant};

use rand_core::Rng;

use super::backoff::{Backoff, BackoffPolicy};

/// How long a port is asked for (RFC 6886 section 3.3).
pub const LIFETIME: Duration = Duration::from_secs(7200);

/// No router is asked more often than this, however short what it grants is.
pub const ASK_EVERY: Duration = Duration::from_secs(10);

/// After refusals and silence: a minute at first, an hour at last.
const REFUSED: BackoffPolicy = BackoffPolicy {
    first: Duration::from_secs(60),
    cap: Duration::from_secs(3600),
    stable_after: Duration::from_secs(60),
};

/// Ports that are wanted, by their place in a list of the caller's.
#[derive(Debug)]
pub struct PortMappings(Vec<Wanted>);

#[derive(Debug)]
struct Wanted {
    ask_at: Instant,
    backoff: Backoff,
}

impl PortMappings {
    /// So many ports, all wanted now.
    pub fn new(count: usize, now: Instant) -> Self {
        let wanted = || Wanted { ask_at: now, backoff: Backoff::new(REFUSED) };
        Self(std::iter::repeat_with(wanted).take(count).collect())
    }

    /// Which port to ask for next, and when; none where none is wanted.
    pub fn next(&self) -> Option<(usize, Instant)> {
        self.0.iter().enumerate().map(|(port, wanted)| (port, wanted.ask_at)).min_by_key(|(_, at)| *at)
    }

    /// The router granted this port for so long.
    pub fn granted(&mut self, port: usize, now: Instant, lifetime: Duration) {
        let Some(wanted) = self.0.get_mut(port) else { return };
        wanted.backoff = Backoff::new(REFUSED);
        wanted.ask_at = now + (lifetime.min(LIFETIME) / 2).max(ASK_EVERY);
    }

    /// It did not.
    pub fn refused(&mut self, port: usize, now: Instant, rng: &mut impl Rng) {
        let Some(wanted) = self.0.get_mut(port) else { return };
        wanted.ask_at = now + wanted.backoff.next_delay(now, rng).max(ASK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, crypto::random::SeededRng};

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_grant_is_renewed_at_half_its_time_within_reason() {
        let now = clock::now();
        for (granted_s, wait_s) in [(7200, 3600), (600, 300), (0, 10), (1, 10), (u64::MAX, 3600)] {
            let mut ports = PortMappings::new(1, now);
            assert_eq!(ports.next(), Some((0, now)));
            ports.granted(0, now, secs(granted_s));
            assert_eq!(ports.next(), Some((0, now + secs(wait_s))), "{granted_s}");
        }
    }

    #[test]
    fn a_router_that_refuses_is_asked_rarely() {
        let (mut now, mut rng) = (clock::now(), SeededRng::new(1));
        let (began, mut asked) = (now, 0);
        let mut ports = PortMappings::new(2, now);
        while now < began + secs(86_400) {
            let (port, at) = ports.next().expect("two are wanted");
            now = at;
            ports.refused(port, now, &mut rng);
            asked += 1;
        }
        assert!(asked < 2 * 60, "{asked} in a day");
        // And after a grant as at first.
        ports.granted(0, now, secs(60));
        ports.refused(0, now, &mut rng);
        ports.granted(1, now, LIFETIME);
        let (port, at) = ports.next().expect("two are wanted");
        assert!(port == 0 && at <= now + secs(60));
    }

    #[test]
    fn nothing_is_wanted_of_nobody() {
        let mut ports = PortMappings::new(0, clock::now());
        assert_eq!(ports.next(), None);
        ports.granted(0, clock::now(), LIFETIME);
        assert_eq!(ports.next(), None);
    }
}
