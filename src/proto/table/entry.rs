//! What the table keeps of one origin: 64 bytes, and the bytes of its announce and key record.

use bytes::Bytes;

use crate::{
    crypto::VerifiedKeyRecord,
    wire::{Address, Announce, Frame, key_record::SignedKeyRecord},
};

use super::{
    NEXT_HOPS_MAX, NextHop, Order,
    links::{Carriers, Way},
};

/// One origin. Times are seconds of the table's clock.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) address: Address,
    /// The newest announce and the newest key record.
    held: Box<[u8]>,
    pub(super) order: Order,
    /// When the announce of that order is too old to route by, counted from its first reception.
    pub(super) ends_s: u32,
    /// The ways, those to be kept first; none where there is no route.
    pub(super) ways: [Way; NEXT_HOPS_MAX],
    /// The neighbour that brought the origin first, in whose share it is.
    pub(super) owner: u16,
    /// The lowest hop count this node has claimed for the announce of this order.
    claimed_hops: u8,
}

const _: () = assert!(size_of::<Entry>() <= 64);

/// No claim. Hop counts end at 128.
const UNCLAIMED: u8 = u8::MAX;

/// The announce's length stands before it.
const LENGTH_BYTES: usize = 2;

/// Nobody, as what an unused place holds.
impl Default for Entry {
    fn default() -> Self {
        Self {
            address: Address([0; 16]),
            held: Box::default(),
            order: (0, 0),
            ends_s: 0,
            ways: [Way::default(); NEXT_HOPS_MAX],
            owner: 0,
            claimed_hops: UNCLAIMED,
        }
    }
}

impl Entry {
    /// One that holds no announce.
    #[cfg(test)]
    pub(super) fn bare(address: Address, ends_s: u32) -> Self {
        Self { address, ends_s, ..Self::default() }
    }

    pub(super) fn new(address: Address, order: Order, announce: &Announce) -> Self {
        let mut entry = Self { address, order, ..Self::default() };
        entry.hold(&bare_frame(announce), None);
        entry
    }

    /// A newer announce takes the place of the one held; the key record stays.
    pub(super) fn renew(&mut self, order: Order, announce: &Announce) {
        self.order = order;
        self.claimed_hops = UNCLAIMED;
        let record = self.record_bytes().map(<[u8]>::to_vec);
        self.hold(&bare_frame(announce), record.as_deref());
    }

    fn hold(&mut self, announce: &[u8], record: Option<&[u8]>) {
        // A frame is at most 16 KiB.
        let length = u16::try_from(announce.len()).unwrap_or(0).to_be_bytes();
        self.held = [length.as_slice(), announce, record.unwrap_or(&[])].concat().into();
    }

    fn announce_bytes(&self) -> &[u8] {
        self.split().0
    }

    fn record_bytes(&self) -> Option<&[u8]> {
        Some(self.split().1).filter(|record| !record.is_empty())
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let Some((length, rest)) = self.held.split_first_chunk::<LENGTH_BYTES>() else { return (&[], &[]) };
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).unwrap_or((&[], &[]))
    }

    /// The newest announce, without its key record.
    pub(super) fn announce(&self) -> Option<Announce> {
        match Frame::decode(&Bytes::copy_from_slice(self.announce_bytes())) {
            Ok(Frame::Announce(announce)) => Some(announce),
            // What is kept was encoded here.
            _ => None,
        }
    }

    /// The same with the key record that it names, where that is the newest one.
    pub(super) fn announce_and_record(&self) -> Option<Announce> {
        let mut announce = self.announce()?;
        let named = announce.content.key_record_hash;
        let record = self.record().filter(|record| named == Some(record.hash8()));
        announce.key_record = record.map(|record| record.signed().clone());
        Some(announce)
    }

    /// True where a key record is held.
    pub(super) fn has_record(&self) -> bool {
        self.record_bytes().is_some()
    }

    /// The newest key record.
    pub(super) fn record(&self) -> Option<VerifiedKeyRecord> {
        let signed = SignedKeyRecord::decode(self.record_bytes()?).ok()?;
        VerifiedKeyRecord::kept(signed)
    }

    /// Keeps `record` where it is newer than the one held; true then.
    pub(super) fn take_record(&mut self, record: &VerifiedKeyRecord) -> bool {
        let bytes = record.signed().encode();
        if self.record_bytes() == Some(bytes.as_slice()) {
            return false;
        }
        let is_newer = self.record().is_none_or(|held| record.supersedes(&held));
        if is_newer {
            let announce = self.announce_bytes().to_vec();
            self.hold(&announce, Some(&bytes));
        }
        is_newer
    }

    /// Links that the announce may cross at most.
    pub(super) fn max_hops(&self) -> u8 {
        self.announce().map_or(0, |announce| announce.content.max_hops)
    }

    pub(super) fn is_routed(&self) -> bool {
        self.ways.iter().any(|way| way.is_some())
    }

    pub(super) fn claimed_hops(&self) -> Option<u8> {
        Some(self.claimed_hops).filter(|hops| *hops != UNCLAIMED)
    }

    /// What this node said stands no more.
    pub(super) fn void_claim(&mut self) {
        self.claimed_hops = UNCLAIMED;
    }

    /// This node says, or said, that it is so many links away.
    pub(super) fn claim(&mut self, hops: u8) {
        self.claimed_hops = self.claimed_hops.min(hops);
    }

    /// True for a way that cannot lead back here: its neighbour claims to be closer than this node
    /// has ever claimed to be by the same announce (Babel's feasibility condition, RFC 8966 §3.5.1).
    pub(super) fn is_feasible(&self, hop: &NextHop) -> bool {
        !hop.is_older && self.claimed_hops().is_none_or(|claimed| hop.hops.saturating_sub(1) < claimed)
    }

    /// The ways, best first: those that cannot lead back here, then those that may, then those that
    /// were measured to fail. A way that may lead back is better than none: a loop ends at the
    /// dedup window and costs the packet a detour, and a liar who claims to be closer than anyone
    /// can be would otherwise make every honest way unusable.
    pub(super) fn ways(&self, carriers: &Carriers) -> impl Iterator<Item = NextHop> + use<> {
        let mut ways = self.ways.map(|way| way.hop(carriers));
        // Those that are there keep their order within a tier.
        ways.sort_by_key(|hop| hop.map_or(u8::MAX, |hop| self.tier(&hop)));
        ways.into_iter().flatten()
    }

    fn tier(&self, hop: &NextHop) -> u8 {
        match (hop.standing.is_demoted(), self.is_feasible(hop)) {
            (false, true) => 0,
            (false, false) => 1,
            (true, _) => 2,
        }
    }

    /// The hop count with which this node offers its way to `neighbour`; none where the way leads
    /// there, may lead back here, or has crossed all the links that the origin signed.
    pub(super) fn offer_to(&mut self, carriers: &Carriers, neighbour: &Address) -> Option<u8> {
        let best = self.ways(carriers).next().filter(|hop| self.is_feasible(hop))?;
        if best.neighbour == *neighbour || best.hops >= self.max_hops() {
            return None;
        }
        self.claim(best.hops);
        Some(best.hops)
    }
}

/// A live route, while it is changed.
#[derive(Debug)]
pub(super) struct Route {
    /// The ways, those to be kept first; at least one.
    pub(super) next_hops: Vec<NextHop>,
}

impl Route {
    /// Adds a way, or replaces the one over the same link or through the same neighbour where the
    /// new one is better. Where there are too many, what delivers stays and what fails goes first,
    /// so that claims push out no measured way; nor do they push out the neighbour that brought the
    /// announce first.
    pub(super) fn add(&mut self, hop: NextHop) {
        if let Some(same) = self.next_hops.iter_mut().find(|h| h.link == hop.link) {
            let is_later = hop.is_later && (same.is_later || same.is_older);
            *same = NextHop { is_later, ..hop };
        } else if let Some(same) = self.next_hops.iter_mut().find(|h| h.neighbour == hop.neighbour) {
            *same = hop.min(*same);
        } else {
            self.next_hops.push(hop);
        }
        self.next_hops.sort_unstable();
        while self.next_hops.len() > NEXT_HOPS_MAX {
            let may_go = |hop: &NextHop| hop.is_later || hop.is_older || hop.standing.is_demoted();
            let last = self.next_hops.iter().rposition(may_go).unwrap_or(NEXT_HOPS_MAX);
            self.next_hops.remove(last);
        }
    }

    /// The ways that stay when a newer announce comes over `hop`: that one, and those which deliver
    /// until their neighbours bring the newer announce too.
    pub(super) fn renewed(old: Option<Self>, hop: NextHop) -> Self {
        let mut next_hops = old.map_or_else(Vec::new, |route| route.next_hops);
        next_hops.retain(|old| old.standing.is_proven() && !old.is_older);
        next_hops.truncate(NEXT_HOPS_MAX - 1);
        next_hops.iter_mut().for_each(|old| old.is_older = true);
        let mut route = Self { next_hops };
        route.add(hop);
        route
    }
}

/// An announce as a frame of its own, without its key record.
fn bare_frame(announce: &Announce) -> Bytes {
    Frame::Announce(Announce { key_record: None, hop_count: 0, ..announce.clone() }).encode()
}
