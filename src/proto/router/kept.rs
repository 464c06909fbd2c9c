//! Packets that went on a moment ago, for another way where the next hop refuses them.
//!
//! A ring, bounded in bytes and packets for the whole node; what falls out is sent back as a refusal
//! instead. The forward record of each packet knows its place here, so nothing is searched for.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    proto::verify::{InboundEnvelope, Verified},
    wire::{LinkId, PacketId},
};

/// Bytes of envelopes kept. The bytes themselves are shared with the queues of the links.
pub(super) const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Packets kept, some 600 bytes each beside the envelope's own.
pub(super) const KEPT_MAX: usize = 2048;

/// Refusals come within a round trip or not at all.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// Ways that one packet is tried over.
const TRIES_MAX: usize = 3;

/// A packet as it went on: its hop count is the one it was sent with.
#[derive(Debug)]
pub(super) struct KeptPacket {
    pub(super) packet: Verified<InboundEnvelope>,
    pub(super) ingress: Option<LinkId>,
    kept_at: Instant,
    bytes: usize,
    tried: [Option<LinkId>; TRIES_MAX],
}

impl KeptPacket {
    /// Notes that the packet went over `link` in vain; false where that was the last try.
    pub(super) fn has_tried(&mut self, link: LinkId) -> bool {
        if let Some(free) = self.tried.iter_mut().find(|tried| tried.is_none()) {
            *free = Some(link);
        }
        self.tried.iter().any(Option::is_none)
    }

    /// True for a link that refused the packet, and the one it came over.
    pub(super) fn is_closed(&self, link: LinkId) -> bool {
        self.ingress == Some(link) || self.tried.contains(&Some(link))
    }
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Kept {
    ring: VecDeque<KeptPacket>,
    bytes: usize,
    /// Place of the oldest; places are numbered on and wrap around.
    first: u32,
}

impl Kept {
    /// Keeps a packet that is about to go on, and gives its place.
    pub(super) fn push(
        &mut self,
        now: Instant,
        packet: Verified<InboundEnvelope>,
        ingress: Option<LinkId>,
    ) -> u32 {
        let bytes = packet.envelope.shared_len();
        self.bytes = self.bytes.saturating_add(bytes);
        self.ring.push_back(KeptPacket { packet, ingress, kept_at: now, bytes, tried: [None; TRIES_MAX] });
        while self.bytes > KEPT_BYTES_MAX || self.ring.len() > KEPT_MAX {
            self.drop_first();
        }
        self.forget(now);
        self.first.wrapping_add(u32::try_from(self.ring.len().saturating_sub(1)).unwrap_or(u32::MAX))
    }

    /// The packet at `place`, where it is still kept.
    pub(super) fn get_mut(&mut self, place: u32, packet_id: &PacketId) -> Option<&mut KeptPacket> {
        let index = usize::try_from(place.wrapping_sub(self.first)).ok()?;
        self.ring.get_mut(index).filter(|kept| kept.packet.packet_id == *packet_id)
    }

    /// Drops what is too old to be refused.
    pub(super) fn forget(&mut self, now: Instant) {
        while self.ring.front().is_some_and(|kept| now.saturating_duration_since(kept.kept_at) > KEPT_FOR) {
            self.drop_first();
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.ring.len(), self.bytes)
    }

    fn drop_first(&mut self) {
        if let Some(kept) = self.ring.pop_front() {
            self.bytes = self.bytes.saturating_sub(kept.bytes);
            self.first = self.first.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        proto::router::testkit::Node,
        wire::{EnvelopeKind, FrameExt},
    };

    #[test]
    fn places_are_found_over_the_end_of_their_numbers() {
        let now = Instant::now();
        let (mut from, to) = (Node::new(1), Node::new(2).address());
        let packets: Vec<_> = (0..6)
            .map(|_| {
                let (_, envelope) = from.envelope(to, EnvelopeKind::MESSAGE);
                from.inbound(envelope, FrameExt::default())
            })
            .collect();
        for first in u32::MAX - 7..=u32::MAX {
            let mut kept = Kept { first, ..Kept::default() };
            let places: Vec<u32> = packets.iter().map(|p| kept.push(now, p.clone(), None)).collect();
            for dropped in 0..=packets.len() {
                for (n, packet) in packets.iter().enumerate() {
                    for (m, place) in places.iter().enumerate() {
                        let found = kept.get_mut(*place, &packet.packet_id).is_some();
                        assert_eq!(
                            found,
                            n == m && n >= dropped,
                            "{n} at {m}, {dropped} dropped from {first}"
                        );
                    }
                }
                kept.drop_first();
            }
        }
    }
}
