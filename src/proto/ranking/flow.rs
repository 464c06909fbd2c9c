//! What is known of the ways to one destination.

use crate::wire::Address;

use super::{Standing, WAIT_MAX, wait_ms};

/// Neighbours measured for one destination: the three next hops, and one that comes and goes.
const WAYS_MAX: usize = 4;

/// Samples awaited over one way.
const AWAITED_MAX: u8 = 16;

/// Least time between two samples of a way that is well known, so that a fast flow leaves room for
/// others.
const SAMPLE_SPACING_MS: u64 = 10;

/// Outcomes after which a way is well known.
const WELL_KNOWN: f32 = 8.0;

/// Weight that an outcome keeps with each later one: sixteen make two thirds of the judgement.
const MEMORY: f32 = 15.0 / 16.0;

/// The same for the sum of a neighbour.
const NEIGHBOUR_MEMORY: f32 = 31.0 / 32.0;

/// Losses running after which a way is behind all others. One alone is a matter of its share.
const LOSSES_RUNNING: u8 = 2;

/// Losses that a failing way still carries when it delivers again.
const BAD_AFTER_COMEBACK: f32 = 2.0;

/// Outcomes older than this say nothing any more.
const FRESH_MS: u64 = 10 * 60 * 1000;

/// A way without an outcome for so long gets a probe.
const PROBE_AFTER_MS: u64 = 60 * 1000;

/// First and longest time between two probes of a failing way; it doubles with each one lost.
const FAILING_PROBE_MS: u64 = 30 * 1000;
const FAILING_PROBE_DOUBLINGS: u8 = 4;

/// One delivery in this time counts for the neighbour, so that a fast flow does not outweigh the
/// rest.
const NEIGHBOUR_COUNT_MS: u64 = 10 * 1000;

/// Receipts in time running after which a wait that was longer than needed is halved.
const SHORTEN_AFTER: u8 = 16;

/// The destination's ways, in no order.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) packets: u32,
    ways: [Option<Way>; WAYS_MAX],
}

impl Flow {
    pub(super) fn way(&self, neighbour: &Address) -> Option<&Way> {
        self.ways.iter().flatten().find(|way| way.neighbour == *neighbour)
    }

    /// The way through `neighbour`. A new one takes a free place, else that of the way whose last
    /// outcome is oldest.
    pub(super) fn way_mut(&mut self, neighbour: &Address, wait: u8) -> &mut Way {
        let known = self.ways.iter().position(|way| way.as_ref().is_some_and(|w| w.neighbour == *neighbour));
        let place = known.unwrap_or_else(|| {
            let age = |way: &Option<Way>| way.as_ref().map_or(0, |w| w.judged_ms.saturating_add(1));
            let places = self.ways.iter().enumerate();
            places.min_by_key(|(_, way)| age(way)).map_or(0, |(place, _)| place)
        });
        let slot = &mut self.ways[place];
        if known.is_none() {
            *slot = None;
        }
        slot.get_or_insert_with(|| Way::new(*neighbour, wait))
    }

    /// True where the destination ever receipted anything over these ways.
    pub(super) fn has_answered(&self) -> bool {
        self.ways.iter().flatten().any(|way| way.delivered_ms.is_some())
    }

    /// True where it did so lately.
    pub(super) fn is_active(&self, now_ms: u64) -> bool {
        let lately = |at: u64| now_ms.saturating_sub(at) < FRESH_MS;
        self.ways.iter().flatten().any(|way| way.delivered_ms.is_some_and(lately))
    }
}

/// One pair of destination and neighbour. Times are milliseconds since the measurements began.
#[derive(Debug)]
pub(super) struct Way {
    neighbour: Address,
    share: Share,
    /// Losses since the last delivery.
    losses_running: u8,
    awaited: u8,
    /// How long a receipt may take, as an exponent.
    pub(super) wait: u8,
    in_time_running: u8,
    probes_lost: u8,
    latency_ms: u32,
    /// Of the last outcome; zero before the first.
    judged_ms: u64,
    delivered_ms: Option<u64>,
    sampled_ms: u64,
    probed_ms: Option<u64>,
    counted_ms: Option<u64>,
}

impl Way {
    fn new(neighbour: Address, wait: u8) -> Self {
        Self {
            neighbour,
            share: Share::default(),
            losses_running: 0,
            awaited: 0,
            wait,
            in_time_running: 0,
            probes_lost: 0,
            latency_ms: 0,
            judged_ms: 0,
            delivered_ms: None,
            sampled_ms: 0,
            probed_ms: None,
            counted_ms: None,
        }
    }

    pub(super) fn wants_sample(&self, now_ms: u64) -> bool {
        let is_soon = now_ms.saturating_sub(self.sampled_ms) < SAMPLE_SPACING_MS;
        self.awaited < AWAITED_MAX && !(is_soon && self.share.evidence() >= WELL_KNOWN)
    }

    pub(super) fn sampled(&mut self, now_ms: u64) {
        self.sampled_ms = now_ms;
        self.awaited = self.awaited.saturating_add(1);
    }

    pub(super) fn excused(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }

    /// A receipt came in time. True where it counts for the neighbour too.
    pub(super) fn delivered(&mut self, now_ms: u64, took_ms: u64) -> bool {
        self.awaited = self.awaited.saturating_sub(1);
        if self.is_failing() {
            // It is back: two more probes shall do to trust it again.
            self.share.bad = self.share.bad.min(BAD_AFTER_COMEBACK);
        }
        self.share.add(true, MEMORY);
        self.good_news(now_ms, took_ms);
        // A wait that grew for a slow stretch shrinks again.
        let is_ample = took_ms.saturating_mul(4) < wait_ms(self.wait);
        self.in_time_running = if is_ample { self.in_time_running.saturating_add(1) } else { 0 };
        if self.in_time_running >= SHORTEN_AFTER {
            self.in_time_running = 0;
            self.wait = self.wait.saturating_sub(1);
        }
        let counts = self.counted_ms.is_none_or(|at| now_ms.saturating_sub(at) >= NEIGHBOUR_COUNT_MS);
        if counts {
            self.counted_ms = Some(now_ms);
        }
        counts
    }

    /// A receipt came for what was judged as lost: the wait was too short.
    pub(super) fn delivered_late(&mut self, now_ms: u64, took_ms: u64) {
        self.share.forgive();
        self.share.add(true, MEMORY);
        self.good_news(now_ms, took_ms);
        self.in_time_running = 0;
        while self.wait < WAIT_MAX && wait_ms(self.wait) < took_ms.saturating_mul(2) {
            self.wait = self.wait.saturating_add(1);
        }
    }

    fn good_news(&mut self, now_ms: u64, took_ms: u64) {
        self.losses_running = 0;
        self.probes_lost = 0;
        self.judged_ms = now_ms;
        self.delivered_ms = Some(now_ms);
        let took_ms = u32::try_from(took_ms).unwrap_or(u32::MAX).max(1);
        self.latency_ms = match self.latency_ms {
            0 => took_ms,
            before => (before / 8).saturating_mul(7).saturating_add(took_ms / 8).max(1),
        };
    }

    /// No receipt came in time for what was sent at `sent_ms`. True where the way fails from now
    /// on.
    pub(super) fn lost(&mut self, now_ms: u64, sent_ms: u64) -> bool {
        self.awaited = self.awaited.saturating_sub(1);
        self.share.add(false, MEMORY);
        self.judged_ms = now_ms;
        if self.probed_ms == Some(sent_ms) {
            self.probes_lost = self.probes_lost.saturating_add(1).min(FAILING_PROBE_DOUBLINGS);
        }
        // What was sent before the last delivery says less than the delivery.
        if self.delivered_ms.is_some_and(|at| at >= sent_ms) {
            return false;
        }
        let was_failing = self.is_failing();
        self.losses_running = self.losses_running.saturating_add(1);
        self.is_failing() && !was_failing
    }

    /// It was shown to be wrong.
    pub(super) fn refuted(&mut self, now_ms: u64) {
        self.share.add(false, MEMORY);
        self.judged_ms = now_ms;
        self.losses_running = self.losses_running.saturating_add(LOSSES_RUNNING);
    }

    fn is_failing(&self) -> bool {
        self.losses_running >= LOSSES_RUNNING
    }

    /// Where it stands; none where nothing recent is known.
    pub(super) fn standing(&self, now_ms: u64) -> Option<Standing> {
        if self.share.evidence() == 0.0 || now_ms.saturating_sub(self.judged_ms) >= FRESH_MS {
            return None;
        }
        if self.is_failing() {
            let more = self.losses_running.saturating_sub(LOSSES_RUNNING);
            return Some(Standing(Standing::FAILING.0.saturating_add(more)));
        }
        Some(match self.share.estimate() {
            share if share >= 0.875 => Standing::RELIABLE,
            share if share >= 0.75 => Standing::GOOD,
            share if share >= 0.5 => Standing::FAIR,
            _ => Standing::POOR,
        })
    }

    /// What orders it among others.
    pub(super) fn position(&self, now_ms: u64) -> (Option<Standing>, u8) {
        (self.standing(now_ms), self.latency_class())
    }

    /// Whether a packet should go this way for the sake of knowing. Notes that it does.
    pub(super) fn take_probe(&mut self, now_ms: u64) -> bool {
        let since = |at: u64| now_ms.saturating_sub(at);
        let is_due = if self.is_failing() {
            let pause_ms = FAILING_PROBE_MS << self.probes_lost.min(FAILING_PROBE_DOUBLINGS);
            let last = self.probed_ms.unwrap_or(self.judged_ms);
            since(last.max(self.judged_ms)) >= pause_ms
        } else {
            let is_stale = since(self.judged_ms) >= PROBE_AFTER_MS;
            self.awaited == 0 && (self.share.evidence() < WELL_KNOWN || is_stale)
        };
        if is_due {
            self.probed_ms = Some(now_ms);
        }
        is_due
    }

    pub(super) fn delivered_permille(&self) -> Option<u16> {
        self.share.measured().map(|share| (share * 1000.0) as u16)
    }

    /// The time to the receipt in powers of four milliseconds.
    pub(super) fn latency_class(&self) -> u8 {
        u8::try_from(self.latency_ms.checked_ilog(4).map_or(0, |class| class.saturating_add(1)))
            .unwrap_or(u8::MAX)
    }
}

/// Deliveries and losses, the older the lighter.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    good: f32,
    bad: f32,
}

impl Share {
    fn add(&mut self, is_delivered: bool, memory: f32) {
        self.good *= memory;
        self.bad *= memory;
        *(if is_delivered { &mut self.good } else { &mut self.bad }) += 1.0;
    }

    /// An outcome of a neighbour, whatever the destination.
    pub(super) fn add_for_neighbour(&mut self, is_delivered: bool) {
        self.add(is_delivered, NEIGHBOUR_MEMORY);
    }

    /// One loss was none.
    fn forgive(&mut self) {
        self.bad = (self.bad - 1.0).max(0.0);
    }

    fn evidence(&self) -> f32 {
        self.good + self.bad
    }

    /// The share that is to be expected, from a half without evidence.
    fn estimate(&self) -> f32 {
        (self.good + 1.0) / (self.evidence() + 2.0)
    }

    fn measured(&self) -> Option<f32> {
        (self.evidence() > 0.0).then(|| self.good / self.evidence())
    }

    /// True for a neighbour that failed several destinations, and more than it served.
    pub(super) fn fails(&self) -> bool {
        self.bad >= 2.5 && self.bad > self.good
    }
}
