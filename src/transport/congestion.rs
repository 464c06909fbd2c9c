//! Congestion control of QUIC links within a local network: CUBIC (RFC 9438) that never has less than
//! [`FLOOR_BYTES`] under way, unless a queue stands.
//!
//! CUBIC takes each loss for a sign that a queue is full. Over radio and bad cables packets are lost whatever
//! is sent: with three in ten lost it stays at two packets under way, and a link carries a fiftieth of what it
//! could (`scripts/campaign.sh loss`). Whether a queue stands is seen better by the time that packets take: by
//! the least of each interval, as CoDel (RFC 8289) has it, since a single packet may be late for other reasons.
//!
//! A queue too short to be seen would be kept full by it, at the cost of others that use it. So it is for local
//! networks alone; `docs/adr/0013-lossy-links.md`.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Bytes that may be under way whatever was lost: 25 ms of 42 Mbit/s, so that a slower path shows a queue
/// before this fills it.
const FLOOR_BYTES: u64 = 128 * 1024;

/// A queue stands where no packet of an interval took less than this above the shortest round trip.
/// More than a receiver waits with its acknowledgement, and less than people notice.
const QUEUE_DELAY: Duration = Duration::from_millis(25);

/// The interval. Some round trips of a local network.
const INTERVAL: Duration = Duration::from_millis(100);

/// Tells by the times that packets take whether a queue stands.
#[derive(Debug, Clone)]
struct QueueWatch {
    began: Instant,
    least: Option<Duration>,
    stands: bool,
}

impl QueueWatch {
    fn new(now: Instant) -> Self {
        Self { began: now, least: None, stands: false }
    }

    /// A packet was acknowledged after `took`; the shortest round trip ever was `shortest`.
    fn acked(&mut self, now: Instant, took: Duration, shortest: Duration) {
        let least = self.least.map_or(took, |least| least.min(took));
        self.least = Some(least);
        if now.saturating_duration_since(self.began) >= INTERVAL {
            self.stands = least > shortest.saturating_add(QUEUE_DELAY);
            self.least = None;
            self.began = now;
        }
    }
}

/// Makes the congestion control of each connection.
#[derive(Debug, Clone, Default)]
pub(super) struct FlooredCubicConfig {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for FlooredCubicConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.cubic).build(now, current_mtu);
        Box::new(FlooredCubic { cubic, queue: QueueWatch::new(now) })
    }
}

/// See the module.
struct FlooredCubic {
    cubic: Box<dyn Controller>,
    queue: QueueWatch,
}

impl Controller for FlooredCubic {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.queue.acked(now, now.saturating_duration_since(sent), rtt.min());
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let floor = if self.queue.stands { 0 } else { FLOOR_BYTES };
        self.cubic.window().max(floor)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), queue: self.queue.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// True for what this module makes.
#[cfg(test)]
pub(super) fn is_floored_cubic(controller: Box<dyn Controller>) -> bool {
    controller.into_any().is::<FlooredCubic>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn controller(now: Instant) -> FlooredCubic {
        let cubic = Arc::new(CubicConfig::default()).build(now, 1_400);
        FlooredCubic { cubic, queue: QueueWatch::new(now) }
    }

    /// Packets of an interval that take so long each, on a path whose shortest round trip is 2 ms.
    fn interval(controller: &mut FlooredCubic, now: &mut Instant, took: &[Duration]) {
        for one in took {
            // The last of them ends it.
            *now += INTERVAL.div_f64(took.len() as f64) + Duration::from_nanos(1);
            controller.queue.acked(*now, *one, ms(2));
        }
    }

    fn lose(controller: &mut FlooredCubic, now: Instant) {
        for n in 1..50 {
            controller.on_congestion_event(now + ms(n), now + ms(n), n % 10 == 0, 1_400);
        }
    }

    #[test]
    fn losses_alone_leave_the_floor() {
        let mut now = Instant::now();
        let mut controller = controller(now);
        interval(&mut controller, &mut now, &[ms(3), ms(4)]);
        lose(&mut controller, now);
        assert_eq!(controller.cubic.window(), 2 * 1_400);
        assert_eq!(controller.window(), FLOOR_BYTES);
    }

    #[test]
    fn a_queue_that_stands_leaves_what_cubic_has_until_it_is_gone() {
        let mut now = Instant::now();
        let mut controller = controller(now);
        lose(&mut controller, now);
        interval(&mut controller, &mut now, &[ms(30), ms(28), ms(200)]);
        assert_eq!(controller.window(), 2 * 1_400);
        interval(&mut controller, &mut now, &[ms(30), ms(26), ms(30)]);
        assert_eq!(controller.window(), FLOOR_BYTES);
    }

    #[test]
    fn what_is_late_by_itself_is_no_queue() {
        let mut now = Instant::now();
        let mut controller = controller(now);
        lose(&mut controller, now);
        interval(&mut controller, &mut now, &[ms(300), ms(4), ms(700)]);
        assert_eq!(controller.window(), FLOOR_BYTES);
    }

    #[test]
    fn a_window_that_cubic_found_larger_is_its() {
        let now = Instant::now();
        let mut cubic = CubicConfig::default();
        cubic.initial_window(1 << 20);
        let controller =
            FlooredCubic { cubic: Arc::new(cubic).build(now, 1_400), queue: QueueWatch::new(now) };
        assert_eq!(controller.window(), 1 << 20);
    }
}
