//! Signs of life: pings into silence, the round trip time, and when a peer counts as gone.

use std::time::{Duration, Instant};

use super::Wake;

/// A busy link is pinged every so many intervals, for its round trip time alone.
const RTT_INTERVALS: u32 = 4;

/// Pings of the peer's that are answered in one second; the rest are flood.
const PONGS_PER_SECOND: u32 = 8;

/// Share of a new sample in the smoothed round trip time: an eighth, as RFC 6298 has it.
const RTT_WEIGHT: u32 = 8;

/// What a tick asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tick {
    Nothing,
    Ping(u64),
    Dead { silent_for: Duration },
}

/// A peer is gone when nothing came for an interval after a ping that itself followed an interval
/// of silence. Counting from the ping, not from the last frame, means that a node which was itself
/// stopped for an hour asks before it judges.
#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    last_heard: Instant,
    /// The ping on its way, with the time it was sent.
    asked: Option<(u64, Instant)>,
    /// True while nothing came since that ping.
    silent: bool,
    next_rtt_probe: Instant,
    next_number: u64,
    rtt: Option<Duration>,
    pong_second: Instant,
    pongs: u32,
}

impl Keepalive {
    /// The first tick pings at once. `first_number` is random, so that no pong of another link is
    /// taken for one of ours.
    pub(super) fn new(now: Instant, interval: Duration, first_number: u64) -> Self {
        Self {
            interval,
            last_heard: now,
            asked: None,
            silent: false,
            next_rtt_probe: now,
            next_number: first_number,
            rtt: None,
            pong_second: now,
            pongs: 0,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.silent = false;
    }

    /// The new smoothed round trip time where the pong answers the newest ping.
    pub(super) fn on_pong(&mut self, now: Instant, number: u64) -> Option<Duration> {
        let (_, sent) = self.asked.take_if(|(asked, _)| *asked == number)?;
        let sample = now.saturating_duration_since(sent);
        let rtt = match self.rtt {
            None => sample,
            Some(old) => (old * (RTT_WEIGHT - 1) + sample) / RTT_WEIGHT,
        };
        self.rtt = Some(rtt);
        self.rtt
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Whether a ping of the peer's is answered.
    pub(super) fn may_answer(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.pong_second) >= Duration::from_secs(1) {
            self.pong_second = now;
            self.pongs = 0;
        }
        self.pongs = self.pongs.saturating_add(1);
        self.pongs <= PONGS_PER_SECOND
    }

    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        let (at, wake) = self.next_wake();
        if now < at {
            return Tick::Nothing;
        }
        if wake == Wake::PeerSilent {
            return Tick::Dead { silent_for: now.saturating_duration_since(self.last_heard) };
        }
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.asked = Some((number, now));
        self.silent = true;
        self.next_rtt_probe = now + self.interval * RTT_INTERVALS;
        Tick::Ping(number)
    }

    pub(super) fn next_wake(&self) -> (Instant, Wake) {
        match self.asked {
            Some((_, sent)) if self.silent => (sent + self.interval, Wake::PeerSilent),
            _ => ((self.last_heard + self.interval).min(self.next_rtt_probe), Wake::Keepalive),
        }
    }
}
