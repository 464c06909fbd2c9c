//! The window of packets in transit: it ends loops, and is the record by which receipts and
//! refusals travel back.
//!
//! Two generations of entries; a full or old one is dropped whole, but for its broadcasts, which go on
//! into the next as long as they may live. Nothing is durable: a packet
//! that outlives the window is bounded by its hop limit and its expiry, and a destination has its
//! own exact record. An entry exists only for packets whose proof was verified.
//!
//! The rules for a packet that was seen before:
//! - A resend over the link it came over, or over any once that link is gone, is let through three
//!   times. Over whatever link, one is let through when the last was some seconds ago: who holds a packet
//!   hands it on at such intervals until it arrives, and not only over links that were there when it came.
//!   Receipts then travel that way.
//! - A copy with fewer hops than any before is let through if none is under way, because the first went
//!   nowhere or was handed back, so that nobody suppresses a message by racing it with a full hop count.
//! - So is one if the first had used up more than half of its hop limit and this one at most half of
//!   what the first had: the first may have ended a few links further on.
//! - Anything else is a duplicate and ends here. One that comes back over another link than it
//!   came, after it went on, is told apart: somebody's way leads in a circle.

mod generation;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod model;

use std::{
    hash::{BuildHasher, Hasher},
    time::{Duration, Instant},
};

use crate::wire::{LinkId, PacketId};

use generation::Generation;

/// Entries of a generation: seven eighths of 2^20, which a table of 2^20 places holds, so that none
/// has 2^21. A full generation is 41 MiB. At 50,000 packets/s the two last 18 to 36 s.
pub const GENERATION_ENTRIES_MAX: usize = (1 << 20) / 8 * 7;

/// A generation takes no new entries after so long: twice that bounds how long a quiet node
/// remembers, and once covers the ten minutes that a broadcast may live.
pub const GENERATION_AGE_MAX: Duration = Duration::from_secs(600);

/// Of a node through which much passes a generation ends as soon as it is this old: a loop comes round
/// in seconds, and at 2,000 packets/s ten minutes of them would be 70 MiB.
pub const BUSY_AGE_MAX: Duration = Duration::from_secs(60);

/// Entries that make a generation one of such a node.
pub const BUSY_ENTRIES: usize = 1 << 16;

/// Broadcasts that go on into the next generation at most, a part of what one holds.
const CARRIED_PART: usize = 8;

/// Resends of one packet that are let through, however soon they come.
pub const RETRANSMITS_MAX: u8 = 3;

/// Time since a packet was let through after which one more resend is, within half of it: no longer than a
/// custodian waits for a receipt.
pub const RESEND_EVERY: Duration = Duration::from_secs(8);

/// Half of that.
const TICK_S: u32 = 4;

/// Stands for "from this node" and "nowhere" in an entry; links are numbered from 1.
const NO_LINK: u32 = 0;

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingress {
    /// This node made it.
    Local,
    /// Over this link.
    Link(LinkId),
}

impl Ingress {
    /// The link, unless this node made the packet.
    pub fn link(self) -> Option<LinkId> {
        match self {
            Ingress::Local => None,
            Ingress::Link(link) => Some(link),
        }
    }
}

/// One sighting of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// Which packet.
    pub packet_id: PacketId,
    /// Where it came from.
    pub ingress: Ingress,
    /// Links it says to have crossed before this one.
    pub hop_count: u8,
    /// Links it may cross, as its origin signed.
    pub max_hops: u8,
    /// The link's resend flag.
    pub retransmit: bool,
    /// True for what is remembered for as long as it may live: it goes everywhere, and is offered again
    /// wherever a link comes up.
    pub lasts: bool,
    /// True where this node is the destination: a resend then counts from any link, since the
    /// exact record of the destination comes after this one and repeats a lost receipt.
    pub is_destination: bool,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen in the window.
    New,
    /// A resend within its bounds: pass it on as a resend.
    Retransmit,
    /// Seen, and not forwarded or not for far, and here with fewer hops: treat it as new.
    Shorter,
    /// It went on from here over one link and comes back over another than it came: a loop.
    Returned,
    /// Seen before: ends here.
    Duplicate,
}

/// What the window knows of a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardRecord {
    /// Where it came from.
    pub ingress: Ingress,
    /// Where it went; none where it was not forwarded, and for broadcasts.
    pub egress: Option<LinkId>,
    /// Its place among the packets kept for another try, where it went on lately.
    pub kept_at: u32,
}

/// 20 bytes beside the 16 of the packet id. Links past number 2^32 are none here: their packets are
/// suppressed when they come twice, and answered by route.
#[derive(Debug, Clone, Copy)]
struct Entry {
    ingress: u32,
    egress: u32,
    kept_at: u32,
    /// Seconds since the window began, when the packet was seen first.
    seen_s: u32,
    hop_count_lowest: u8,
    forwarded: bool,
    retransmits: u8,
    /// When it was last let through, in ticks; they begin anew after a quarter of an hour.
    let_through: u8,
}

const _: () = assert!(size_of::<(PacketId, Entry)>() <= 40);

/// The window. Lookups only, never iterated.
#[derive(Debug)]
pub struct Dedup {
    hasher: KeyedHasher,
    current: Generation,
    previous: Generation,
    began: Instant,
    current_began: Instant,
    entries_max: usize,
}

impl Dedup {
    /// An empty window of the full size. `seed` is random, so that nobody can choose packets that
    /// collide in it.
    pub fn new(now: Instant, seed: u64) -> Self {
        Self::with_capacity(now, seed, GENERATION_ENTRIES_MAX)
    }

    /// A window with another bound of entries a generation; it grows as needed up to it.
    pub fn with_capacity(now: Instant, seed: u64, entries_max: usize) -> Self {
        Self {
            hasher: KeyedHasher::new(seed),
            current: Generation::default(),
            previous: Generation::default(),
            began: now,
            current_began: now,
            entries_max: entries_max.clamp(1, GENERATION_ENTRIES_MAX),
        }
    }

    /// Judges one sighting and remembers it. `is_gone` is asked about the link that the packet came over.
    pub fn observe(
        &mut self,
        now: Instant,
        seen: &Sighting,
        is_gone: impl FnOnce(LinkId) -> bool,
    ) -> Verdict {
        self.rotate(now);
        let seen_s = self.seconds(now);
        let hash = self.hash(&seen.packet_id);
        let known = match self.current.get_mut(hash, &seen.packet_id) {
            Some(entry) => Some(entry),
            None => self.previous.get_mut(hash, &seen.packet_id),
        };
        let Some(entry) = known else {
            self.current.insert(hash, seen.packet_id, Entry::first(seen, seen_s));
            if seen.lasts {
                self.current.last_lasts();
            }
            return Verdict::New;
        };
        let ingress = short(seen.ingress.link());
        if seen.retransmit {
            let is_due = tick(seen_s).wrapping_sub(entry.let_through) >= 2;
            let is_gone = ingress != entry.ingress && long(entry.ingress).is_some_and(is_gone);
            let is_expected = seen.is_destination || ingress == entry.ingress || is_gone;
            if is_due || (is_expected && entry.retransmits < RETRANSMITS_MAX) {
                entry.retransmits = entry.retransmits.saturating_add(1);
                entry.let_through = tick(seen_s);
                if is_due || is_gone {
                    entry.ingress = ingress;
                }
                return Verdict::Retransmit;
            }
        }
        if seen.hop_count < entry.hop_count_lowest {
            let was_raced = entry.was_raced(seen, ingress);
            entry.hop_count_lowest = seen.hop_count;
            if !entry.forwarded || was_raced {
                // Receipts shall travel the way that worked.
                entry.ingress = ingress;
                return Verdict::Shorter;
            }
        }
        let may_return = !seen.retransmit && !seen.is_destination;
        if may_return && entry.egress != NO_LINK && entry.ingress != ingress {
            return Verdict::Returned;
        }
        Verdict::Duplicate
    }

    /// Looks where packets would be, so that [`Dedup::observe`] finds those places in the cache. A
    /// window is larger than that: one look after the other, each with its decision, waits for memory
    /// each time, looks on which nothing hangs wait together.
    pub fn approach<'a>(&self, packet_ids: impl Iterator<Item = &'a PacketId>) {
        let seen = packet_ids.filter(|packet_id| {
            let hash = self.hash(packet_id);
            self.current.may_hold(hash) | self.previous.may_hold(hash)
        });
        std::hint::black_box(seen.count());
    }

    /// Notes that a packet went on: over `egress`, or for a broadcast or the destination itself
    /// over no link in particular.
    pub fn forwarded(&mut self, packet_id: &PacketId, egress: Option<LinkId>) {
        if let Some(entry) = self.entry(packet_id) {
            entry.forwarded = true;
            entry.egress = short(egress);
        }
    }

    /// Notes that a packet went on over `egress` and is kept at a place for another try.
    pub fn forwarded_and_kept(&mut self, packet_id: &PacketId, egress: LinkId, kept_at: u32) {
        if let Some(entry) = self.entry(packet_id) {
            entry.forwarded = true;
            entry.egress = short(Some(egress));
            entry.kept_at = kept_at;
        }
    }

    /// Notes that the link it went over did not take it: another copy may try another way.
    pub fn returned(&mut self, packet_id: &PacketId) {
        if let Some(entry) = self.entry(packet_id) {
            entry.forwarded = false;
            entry.egress = NO_LINK;
        }
    }

    /// The way a packet took.
    pub fn record(&self, packet_id: &PacketId) -> Option<ForwardRecord> {
        let entry = self.known(packet_id)?;
        Some(ForwardRecord {
            ingress: long(entry.ingress).map_or(Ingress::Local, Ingress::Link),
            egress: long(entry.egress),
            kept_at: entry.kept_at,
        })
    }

    /// How long ago a packet was first seen, to the second.
    pub fn age(&self, now: Instant, packet_id: &PacketId) -> Option<Duration> {
        let entry = self.known(packet_id)?;
        Some(Duration::from_secs(u64::from(self.seconds(now).saturating_sub(entry.seen_s))))
    }

    /// Packets remembered.
    pub fn len(&self) -> usize {
        self.current.len().saturating_add(self.previous.len())
    }

    /// True where nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn known(&self, packet_id: &PacketId) -> Option<&Entry> {
        let hash = self.hash(packet_id);
        self.current.get(hash, packet_id).or_else(|| self.previous.get(hash, packet_id))
    }

    fn entry(&mut self, packet_id: &PacketId) -> Option<&mut Entry> {
        let hash = self.hash(packet_id);
        match self.current.get_mut(hash, packet_id) {
            Some(entry) => Some(entry),
            None => self.previous.get_mut(hash, packet_id),
        }
    }

    /// Half of it is enough to tell a million packets apart before they are compared.
    fn hash(&self, packet_id: &PacketId) -> u32 {
        (self.hasher.hash_one(packet_id) >> 32) as u32
    }

    fn rotate(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.current_began);
        let is_busy = self.current.len() >= BUSY_ENTRIES.min(self.entries_max);
        let age_max = if is_busy { BUSY_AGE_MAX } else { GENERATION_AGE_MAX };
        if self.current.len() < self.entries_max && age < age_max {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        let lasting = self.current.lasting(self.entries_max / CARRIED_PART);
        self.current.clear();
        self.current_began = now;
        let now_s = self.seconds(now);
        let lives = |entry: &Entry| now_s.saturating_sub(entry.seen_s) < GENERATION_AGE_MAX.as_secs() as u32;
        for (packet_id, entry) in lasting.into_iter().filter(|(_, entry)| lives(entry)) {
            self.current.insert(self.hash(&packet_id), packet_id, entry);
            self.current.last_lasts();
        }
    }

    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.began).as_secs()).unwrap_or(u32::MAX)
    }
}

impl Entry {
    fn first(seen: &Sighting, seen_s: u32) -> Self {
        Self {
            ingress: short(seen.ingress.link()),
            egress: NO_LINK,
            kept_at: 0,
            seen_s,
            hop_count_lowest: seen.hop_count,
            forwarded: false,
            retransmits: 0,
            let_through: tick(seen_s),
        }
    }

    /// True where the copy that went on had so much of its hop limit behind it, compared with this
    /// one, that it may have ended short of where this one goes. Once a packet: after it the lowest
    /// hop count is in the lower half of the limit. Not for one that comes back from where it went.
    fn was_raced(&self, seen: &Sighting, ingress: u32) -> bool {
        let twice = |hops: u8| u16::from(hops).saturating_mul(2);
        twice(self.hop_count_lowest) > u16::from(seen.max_hops)
            && twice(seen.hop_count) <= u16::from(self.hop_count_lowest)
            && self.egress != ingress
            && !seen.is_destination
    }
}

/// Links are numbered from 1 up. One that does not fit, as that of an embedding program, becomes the
/// last number, over which nothing is sent back; this node itself it must not become.
fn short(link: Option<LinkId>) -> u32 {
    link.map_or(NO_LINK, |link| u32::try_from(link.0).unwrap_or(u32::MAX))
}

fn tick(seconds: u32) -> u8 {
    (seconds / TICK_S) as u8
}

fn long(short: u32) -> Option<LinkId> {
    (short != NO_LINK).then_some(LinkId(u64::from(short)))
}

/// Hashes 16-byte identifiers, which are hashes already. What the key adds is that nobody outside
/// knows which of them collide.
#[derive(Debug, Clone, Copy)]
pub struct KeyedHasher {
    key: u64,
}

impl KeyedHasher {
    /// With a random key.
    pub fn new(key: u64) -> Self {
        Self { key }
    }
}

impl BuildHasher for KeyedHasher {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold { state: self.key }
    }
}

/// One folded multiplication for every 16 bytes.
#[derive(Debug)]
pub struct Fold {
    state: u64,
}

impl Fold {
    fn mix(&mut self, low: u64, high: u64) {
        // An odd constant keeps a zero half from erasing the other one.
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let wide = u128::from(low ^ self.state) * u128::from(high ^ self.state.rotate_left(32) ^ ODD);
        self.state = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(16) {
            let mut padded = [0u8; 16];
            padded.iter_mut().zip(block).for_each(|(to, from)| *to = *from);
            let word = u128::from_le_bytes(padded);
            self.mix(word as u64, (word >> 64) as u64);
        }
    }

    // The length prefix of a byte array says nothing: all keys of one table have the same length.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests;
