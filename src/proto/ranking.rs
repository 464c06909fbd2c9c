//! What next hops are worth: delivery as it was measured, for each pair of destination and next hop.
//!
//! Hop counts are claims, receipts are signed by the destination itself. So a packet that expects a
//! receipt is a question put to the way it took: the receipt that names it is credit, its absence
//! is debit, and claims decide between ways of which nothing is known. Old outcomes fade, and a way
//! that failed twice running comes behind all that did not, until a rare probe over it is answered.
//!
//! What a next hop does for all destinations together only ever holds a new pair back, never
//! pushes it forward: else a liar could earn trust with one destination and spend it on another.
//!
//! Nothing here chooses a link or knows one. Packets are sampled, so that a fast flow costs no more
//! than a slow one; all state is bounded, and no packet allocates once the tables have grown.

mod flow;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use hashlink::LruCache;

use crate::wire::{Address, LinkId, PacketId};

use super::{dedup::KeyedHasher, table::LinkClass};

use flow::{Flow, Share, Way};

/// Destinations whose ways are measured, 250 bytes each. One whose deliveries are recent does not
/// give way to one without.
pub const FLOWS_MAX: usize = 4096;

/// Packets whose outcome is awaited, 130 bytes each.
pub const SAMPLES_MAX: usize = 8192;

/// Of them, those that came over one link.
pub const SAMPLES_PER_LINK_MAX: usize = SAMPLES_MAX / 4;

/// Judged packets whose receipt may still come.
const LATE_MAX: usize = 1024;

/// Neighbours whose sum over all destinations is kept.
const NEIGHBOURS_MAX: usize = 1024;

/// The shortest wait for a receipt: a little below the first timeout of an outbox, whose retry
/// shall find the verdict.
pub const WAIT_MIN_MS: u64 = 875;

/// Waits are the shortest one doubled so many times at most: 112 s, for the slowest radio.
const WAIT_MAX: u8 = 7;

/// One packet in so many may go over another way than the best, to measure that one.
pub const PROBE_EVERY: u32 = 32;

/// Flows that are spared at most when one has to give way.
const SPARED_MAX: usize = 8;

/// How good a way is, the better first. Ways of the same standing are ordered by what they claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing(u8);

impl Standing {
    /// Seven of eight packets were receipted.
    pub const RELIABLE: Self = Self(0);
    /// Three of four were.
    pub const GOOD: Self = Self(1);
    /// Half of them were.
    pub const FAIR: Self = Self(2);
    /// Nothing is known, or nothing recent.
    pub const UNKNOWN: Self = Self(3);
    /// Nothing is known of this destination, and the neighbour fails others.
    pub const DOUBTFUL: Self = Self(4);
    /// Less than half were receipted.
    pub const POOR: Self = Self(5);
    /// The last ones were lost, two or more. Further losses make it worse, so that failing ways
    /// take turns.
    pub const FAILING: Self = Self(6);

    /// As a number, 0 the best.
    pub fn level(self) -> u8 {
        self.0
    }

    /// The standing with a number.
    pub(super) fn of_level(level: u8) -> Self {
        Self(level)
    }

    /// True for a way behind those of which nothing is known.
    pub fn is_demoted(self) -> bool {
        self >= Self::POOR
    }

    /// True for a way that delivered.
    pub fn is_proven(self) -> bool {
        self <= Self::FAIR
    }
}

impl Default for Standing {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

/// What is to be done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Send it as intended.
    Goes,
    /// Another way may have it, where one wants a probe; then [`Ranking::sent`] has to be called.
    MayProbe,
}

/// A packet under way that is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Who will sign the receipt.
    pub destination: Address,
    /// The neighbour it was given to.
    pub neighbour: Address,
    /// Medium of the link to that neighbour.
    pub class: LinkClass,
    /// The link it came over; none for this node's own.
    pub ingress: Option<LinkId>,
}

/// A sample that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    sample: Sample,
    sent: Instant,
}

/// When a sample is judged.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    packet_id: PacketId,
    ingress: Option<LinkId>,
}

/// What is known of one pair, for people and for the order of ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measure {
    /// Where it stands.
    pub standing: Standing,
    /// Receipted packets in a thousand; none before the first outcome.
    pub delivered_permille: Option<u16>,
    /// Smoothed time to the receipt in powers of four milliseconds; 0 where unknown.
    pub latency_class: u8,
}

/// The measurements. See the module.
#[derive(Debug)]
pub struct Ranking {
    began: Instant,
    flows: LruCache<Address, Flow, KeyedHasher>,
    waiting: HashMap<PacketId, Waiting, KeyedHasher>,
    /// When each sample is judged, one queue a wait, so that each is in order of time.
    deadlines: [VecDeque<Deadline>; WAIT_MAX as usize + 1],
    queued: usize,
    /// Of the queued, those that came over each link.
    queued_by_link: BTreeMap<LinkId, usize>,
    late: LruCache<PacketId, Waiting, KeyedHasher>,
    neighbours: LruCache<Address, Share, KeyedHasher>,
}

impl Ranking {
    /// Nothing is known. `seed` is random and keys the tables.
    pub fn new(now: Instant, seed: u64) -> Self {
        let hasher = KeyedHasher::new(seed);
        Self {
            began: now,
            flows: LruCache::with_hasher(FLOWS_MAX, hasher),
            waiting: HashMap::with_hasher(hasher),
            deadlines: Default::default(),
            queued: 0,
            queued_by_link: BTreeMap::new(),
            late: LruCache::with_hasher(LATE_MAX, hasher),
            neighbours: LruCache::with_hasher(NEIGHBOURS_MAX, hasher),
        }
    }

    /// A packet is about to be sent: counts it, and samples it unless it may be a probe.
    pub fn send(&mut self, now: Instant, packet_id: &PacketId, sample: &Sample) -> Turn {
        if let Some(flow) = self.flow(now, &sample.destination) {
            flow.packets = flow.packets.wrapping_add(1);
            if flow.packets.is_multiple_of(PROBE_EVERY) {
                return Turn::MayProbe;
            }
        }
        self.sent(now, packet_id, sample);
        Turn::Goes
    }

    /// A packet is sent, whatever its turn: samples it where there is room. The next sample of the
    /// same packet takes the place of the last.
    pub fn sent(&mut self, now: Instant, packet_id: &PacketId, sample: &Sample) {
        let now_ms = self.ms(now);
        let of_link = sample.ingress.and_then(|link| self.queued_by_link.get(&link));
        if self.queued >= SAMPLES_MAX || of_link.is_some_and(|count| *count >= SAMPLES_PER_LINK_MAX) {
            return;
        }
        let Some(flow) = self.flows.get_mut(&sample.destination) else { return };
        let way = flow.way_mut(&sample.neighbour, first_wait(sample.class));
        if !way.wants_sample(now_ms) || self.waiting.contains_key(packet_id) {
            return;
        }
        way.sampled(now_ms);
        let wait = way.wait;
        let Some(queue) = self.deadlines.get_mut(usize::from(wait)) else { return };
        let at = now + Duration::from_millis(wait_ms(wait));
        queue.push_back(Deadline { at, packet_id: *packet_id, ingress: sample.ingress });
        self.queued = self.queued.saturating_add(1);
        if let Some(link) = sample.ingress {
            let count = self.queued_by_link.entry(link).or_default();
            *count = count.saturating_add(1);
        }
        self.waiting.insert(*packet_id, Waiting { sample: *sample, sent: now });
    }

    /// `from` says by a receipt of its own that it has a packet. True where its ways are to be
    /// ordered anew; a packet that was no sample, or not for `from`, changes nothing.
    pub fn receipt(&mut self, now: Instant, from: &Address, packet_id: &PacketId) -> bool {
        let now_ms = self.ms(now);
        let is_for_them = |w: &&Waiting| w.sample.destination == *from;
        let in_time = self.waiting.get(packet_id).filter(is_for_them).copied();
        let Some(waiting) = in_time.or_else(|| self.late.peek(packet_id).filter(is_for_them).copied()) else {
            return false;
        };
        let took_ms = ms_between(waiting.sent, now);
        self.waiting.remove(packet_id);
        self.late.remove(packet_id);
        let Some(way) = self.known_way(&waiting.sample) else { return false };
        let before = way.position(now_ms);
        let counts = if in_time.is_some() {
            way.delivered(now_ms, took_ms)
        } else {
            way.delivered_late(now_ms, took_ms);
            false
        };
        let is_changed = way.position(now_ms) != before;
        if counts {
            self.neighbour(&waiting.sample.neighbour).add_for_neighbour(true);
        }
        is_changed
    }

    /// The neighbour does not take the packet, or it came back in a loop. Gives the destination
    /// whose ways are to be ordered anew. A receipt that comes after all makes up for it.
    pub fn failed(&mut self, now: Instant, packet_id: &PacketId) -> Option<Address> {
        let waiting = self.waiting.remove(packet_id)?;
        self.judge(now, packet_id, waiting);
        Some(waiting.sample.destination)
    }

    /// A packet is not to be judged: it waits in custody, or a queue had no room for it.
    pub fn excuse(&mut self, packet_id: &PacketId) {
        if let Some(waiting) = self.waiting.remove(packet_id)
            && let Some(way) = self.known_way(&waiting.sample)
        {
            way.excused();
        }
    }

    /// A way that this node knows to be wrong without a sample: it fails as if packets had been lost
    /// on it, until it delivers or that is long ago.
    pub fn distrust(&mut self, now: Instant, destination: &Address, neighbour: &Address) {
        let now_ms = self.ms(now);
        if let Some(flow) = self.flow(now, destination) {
            flow.way_mut(neighbour, 0).refuted(now_ms);
        }
    }

    /// Judges the packets whose time is up, one a call; gives the destination whose ways are to be
    /// ordered anew. None when all are judged.
    pub fn expire(&mut self, now: Instant) -> Option<Address> {
        for wait in 0..self.deadlines.len() {
            while let Some(due) = self.pop_due(now, wait) {
                // What was answered, refused or sent again has no verdict left here.
                let lasted = Duration::from_millis(wait_ms(u8::try_from(wait).unwrap_or(u8::MAX)));
                let is_this = |w: &Waiting| due.at.saturating_duration_since(w.sent) == lasted;
                if let Some(waiting) = self.waiting.get(&due.packet_id).copied().filter(is_this) {
                    self.waiting.remove(&due.packet_id);
                    self.judge(now, &due.packet_id, waiting);
                    return Some(waiting.sample.destination);
                }
            }
        }
        None
    }

    fn pop_due(&mut self, now: Instant, wait: usize) -> Option<Deadline> {
        let due = self.deadlines.get_mut(wait)?.pop_front_if(|deadline| deadline.at <= now)?;
        self.queued = self.queued.saturating_sub(1);
        if let Some(link) = due.ingress
            && let Some(count) = self.queued_by_link.get_mut(&link)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.queued_by_link.remove(&link);
            }
        }
        Some(due)
    }

    /// When to call [`Ranking::expire`].
    pub fn next_wake(&self) -> Option<Instant> {
        self.deadlines.iter().filter_map(|queue| queue.front()).map(|deadline| deadline.at).min()
    }

    /// What is known of a pair.
    pub fn measure(&self, now: Instant, destination: &Address, neighbour: &Address) -> Measure {
        let now_ms = self.ms(now);
        let way = self.flows.peek(destination).and_then(|flow| flow.way(neighbour));
        let standing = way.and_then(|way| way.standing(now_ms)).unwrap_or_else(|| {
            let fails = self.neighbours.peek(neighbour).is_some_and(Share::fails);
            if fails { Standing::DOUBTFUL } else { Standing::UNKNOWN }
        });
        Measure {
            standing,
            delivered_permille: way.and_then(Way::delivered_permille),
            latency_class: way.map_or(0, Way::latency_class),
        }
    }

    /// Whether a way that is not the best should get the next packet, to be measured. Notes that
    /// it did.
    pub fn take_probe(&mut self, now: Instant, to: &Address, via: &Address, class: LinkClass) -> bool {
        let now_ms = self.ms(now);
        let Some(flow) = self.flow(now, to) else { return false };
        flow.way_mut(via, first_wait(class)).take_probe(now_ms)
    }

    /// True where packets reached `destination` through this node lately.
    pub fn is_active(&self, now: Instant, destination: &Address) -> bool {
        let now_ms = self.ms(now);
        self.flows.peek(destination).is_some_and(|flow| flow.is_active(now_ms))
    }

    /// Destinations that are measured.
    #[cfg(test)]
    fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Packets whose outcome is awaited, those included that were answered within their time.
    #[cfg(test)]
    fn samples(&self) -> usize {
        self.queued
    }

    /// The flow to a destination, begun where there is room.
    fn flow(&mut self, now: Instant, destination: &Address) -> Option<&mut Flow> {
        if !self.flows.contains_key(destination) {
            if self.flows.len() >= FLOWS_MAX && !self.make_room(now) {
                return None;
            }
            self.flows.insert(*destination, Flow::default());
        }
        self.flows.get_mut(destination)
    }

    /// Drops the flow that was idle longest, those spared that delivered lately.
    fn make_room(&mut self, now: Instant) -> bool {
        let now_ms = self.ms(now);
        for _ in 0..SPARED_MAX {
            match self.flows.remove_lru() {
                Some((destination, flow)) if flow.is_active(now_ms) => {
                    self.flows.insert(destination, flow);
                }
                _ => return true,
            }
        }
        false
    }

    fn known_way(&mut self, sample: &Sample) -> Option<&mut Way> {
        self.flows.get_mut(&sample.destination).map(|flow| flow.way_mut(&sample.neighbour, 0))
    }

    /// A sample was not receipted.
    fn judge(&mut self, now: Instant, packet_id: &PacketId, waiting: Waiting) {
        let now_ms = self.ms(now);
        let sent_ms = self.ms(waiting.sent);
        self.late.insert(*packet_id, waiting);
        let Some(flow) = self.flows.get_mut(&waiting.sample.destination) else { return };
        // A destination that never answered anybody says nothing of the neighbour.
        let has_answered = flow.has_answered();
        let way = flow.way_mut(&waiting.sample.neighbour, 0);
        if way.lost(now_ms, sent_ms) && has_answered {
            self.neighbour(&waiting.sample.neighbour).add_for_neighbour(false);
        }
    }

    fn neighbour(&mut self, neighbour: &Address) -> &mut Share {
        self.neighbours.entry(*neighbour).or_insert_with(Share::default)
    }

    fn ms(&self, at: Instant) -> u64 {
        ms_between(self.began, at)
    }
}

fn ms_between(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}

/// How long a receipt may take, by its exponent.
fn wait_ms(wait: u8) -> u64 {
    WAIT_MIN_MS << wait.min(WAIT_MAX)
}

/// The wait that a medium's first samples get, as an exponent: by the timeouts of an outbox.
fn first_wait(class: LinkClass) -> u8 {
    match class {
        LinkClass::Unconstrained => 0,
        LinkClass::Medium | LinkClass::Constrained => 4,
        LinkClass::SeverelyConstrained => 7,
    }
}

#[cfg(test)]
mod tests;
