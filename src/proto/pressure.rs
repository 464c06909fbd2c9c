//! How hard the node is pressed, and what it lets go first.
//!
//! Each link's queues are bounded, but a thousand full links are not little, and a disk that takes
//! seconds for a commit turns every message that has no way into one that waits. The level says so
//! before memory does: from level one on, what comes in at low priority is refused, from two on
//! normal as well, from three on all but critical. Refused is not lost: the neighbour is told, with
//! a time, and control is never shed.
//!
//! The two causes are told apart, since each sheds what feeds it. Full queues shed at the links,
//! before a signature check is spent. A slow store sheds what would have to be written: messages for
//! this node, and those that find no way on. What passes through needs no disk, and a neighbour
//! whose link is full must not take the way from others by having everything for it stored.

use std::time::{Duration, Instant};

use crate::wire::Priority;

/// Bytes that wait to be written on all links together and count as full: a twentieth of the
/// memory of a small server.
pub const QUEUED_BYTES_FULL: u64 = 128 * 1024 * 1024;

/// Shares of [`QUEUED_BYTES_FULL`] in percent from which on a level holds.
const QUEUED_PERCENT: [u64; 3] = [50, 75, 90];

/// Times of a commit from which on a level holds.
const STORE_LATENCY: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// The load has to stay below a level for so long before the level falls by one: a level that
/// flickers makes neighbours retry for nothing. Three levels are gone in nine seconds: after a burst
/// a node takes everything again within ten.
const CALM_FOR: Duration = Duration::from_secs(3);

/// When a neighbour that was refused may try again, in seconds.
pub const RETRY_AFTER_S: u16 = 3;

/// What the node carries at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Bytes that wait to be written on all links.
    pub queued_bytes: u64,
    /// The slowest commit since the last look.
    pub store_latency: Duration,
}

/// 0 where nothing is shed, to 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PressureLevel(u8);

impl PressureLevel {
    /// From its number; what is beyond 3 counts as 3.
    pub fn new(level: u8) -> Self {
        Self(level.min(3))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// True where a message of this priority is not taken.
    pub fn sheds(self, priority: Priority) -> bool {
        (priority as u8) < self.0
    }
}

/// Folds loads into levels: up at once, down by one after five seconds of calm.
#[derive(Debug, Clone, Default)]
pub struct BackpressureController {
    queues: Cause,
    store: Cause,
}

/// The level that one cause alone makes.
#[derive(Debug, Clone, Default)]
struct Cause {
    level: PressureLevel,
    calm_since: Option<Instant>,
}

impl BackpressureController {
    /// Calm.
    pub fn new() -> Self {
        Self::default()
    }

    /// The level that holds: the higher one of both causes.
    pub fn level(&self) -> PressureLevel {
        self.queues.level.max(self.store.level)
    }

    /// The level that full queues make.
    pub fn queues(&self) -> PressureLevel {
        self.queues.level
    }

    /// The level that a slow store makes.
    pub fn store(&self) -> PressureLevel {
        self.store.level
    }

    /// Takes a look at the load; gives the level that holds from now on.
    pub fn observe(&mut self, now: Instant, load: &Load) -> PressureLevel {
        self.queues.observe(now, queues_level(load));
        self.store.observe(now, store_level(load));
        self.level()
    }
}

impl Cause {
    fn observe(&mut self, now: Instant, wanted: PressureLevel) {
        if wanted >= self.level {
            self.level = wanted;
            self.calm_since = None;
            return;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= CALM_FOR {
            self.level = PressureLevel(self.level.0.saturating_sub(1));
            self.calm_since = Some(now);
        }
    }
}

fn queues_level(load: &Load) -> PressureLevel {
    let percent = load.queued_bytes.saturating_mul(100) / QUEUED_BYTES_FULL;
    reached(&QUEUED_PERCENT, percent)
}

fn store_level(load: &Load) -> PressureLevel {
    reached(&STORE_LATENCY, load.store_latency)
}

fn reached<T: PartialOrd + Copy>(steps: &[T], value: T) -> PressureLevel {
    let reached = steps.iter().filter(|from| value >= **from).count();
    PressureLevel::new(u8::try_from(reached).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(percent: u64) -> Load {
        Load { queued_bytes: QUEUED_BYTES_FULL / 100 * percent + 100, ..Load::default() }
    }

    fn slow(ms: u64) -> Load {
        Load { store_latency: Duration::from_millis(ms), ..Load::default() }
    }

    #[test]
    fn each_level_begins_where_it_says() {
        let levels = [
            (queued(49), 0),
            (queued(50), 1),
            (queued(75), 2),
            (queued(90), 3),
            (queued(100_000), 3),
            (slow(499), 0),
            (slow(500), 1),
            (slow(2_000), 2),
            (slow(5_000), 3),
            (Load { queued_bytes: u64::MAX, store_latency: Duration::MAX }, 3),
        ];
        for (load, level) in levels {
            let got = BackpressureController::new().observe(Instant::now(), &load);
            assert_eq!(got, PressureLevel::new(level), "{load:?}");
        }
    }

    #[test]
    fn a_slow_store_is_not_taken_for_full_queues_nor_these_for_it() {
        let (start, mut controller) = (Instant::now(), BackpressureController::new());
        controller.observe(start, &slow(2_000));
        assert_eq!((controller.queues().get(), controller.store().get()), (0, 2));
        controller.observe(start, &queued(50));
        assert_eq!((controller.queues().get(), controller.store().get()), (1, 2));
        assert_eq!(controller.level().get(), 2);
        // Each falls by itself.
        controller.observe(start + CALM_FOR, &queued(50));
        assert_eq!((controller.queues().get(), controller.store().get()), (1, 1));
    }

    #[test]
    fn shedding_begins_at_the_bottom_and_spares_critical() {
        use Priority::*;
        let shed = |level| [Low, Normal, High, Critical].map(|p| PressureLevel::new(level).sheds(p));
        assert_eq!(shed(0), [false; 4]);
        assert_eq!(shed(1), [true, false, false, false]);
        assert_eq!(shed(2), [true, true, false, false]);
        assert_eq!(shed(3), [true, true, true, false]);
        assert_eq!(shed(200), [true, true, true, false]);
    }

    #[test]
    fn it_rises_at_once_and_falls_step_by_step() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut controller = BackpressureController::new();
        assert_eq!(controller.observe(start, &queued(95)).get(), 3);
        assert_eq!(controller.observe(at(1), &queued(10)).get(), 3);
        assert_eq!(controller.observe(at(3), &queued(92)).get(), 3, "it was not calm for long enough");
        assert_eq!(controller.observe(at(4), &queued(10)).get(), 3);
        assert_eq!(controller.observe(at(7), &queued(10)).get(), 2);
        assert_eq!(controller.observe(at(9), &queued(10)).get(), 2);
        assert_eq!(controller.observe(at(10), &queued(10)).get(), 1);
        assert_eq!(controller.observe(at(13), &queued(10)).get(), 0, "nine seconds after the last of it");
        assert_eq!(controller.level().get(), 0);
    }
}
