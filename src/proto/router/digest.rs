//! What a new link is told of the table: a digest of it, and then the announces that the neighbour
//! turns out to lack. What both hold crosses the link as 25 bytes an origin, and makes a way all
//! the same.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use crate::{
    proto::{announce::Allowance, table::Order},
    wire::{
        Address, Frame, LinkId,
        limits::DIGEST_ENTRIES_MAX,
        path::{Digest, DigestEntry},
    },
};

use super::{Output, Router, counters::bump};

/// Ranges of a neighbour's digest that wait to be compared, 20 KiB each. Where more come the last
/// one grows, and its addresses are told whole.
const RANGES_MAX: usize = 2;

/// Digests a second that are taken from one link, as many as a node sends.
const TAKEN_PER_SECOND: u32 = 50;

/// Table entries looked at for one announce that a neighbour may lack.
const COMPARED_MAX: usize = 512;

/// One range that a neighbour described.
#[derive(Debug)]
struct Range {
    cursor: Address,
    through: Address,
    held: BTreeMap<Address, Order>,
}

/// One link.
#[derive(Debug)]
struct Exchange {
    /// Where this node's own digest goes on; none when all of it was sent.
    tell_after: Option<Address>,
    /// How far the neighbour's digest came.
    heard_through: Address,
    ranges: VecDeque<Range>,
    taken: Allowance,
}

/// The exchanges under way, by link.
#[derive(Debug, Default)]
pub(super) struct Digests {
    links: BTreeMap<LinkId, Exchange>,
}

impl Digests {
    pub(super) fn link_up(&mut self, now: Instant, link: LinkId) {
        let exchange = Exchange {
            tell_after: Some(Address([0; 16])),
            heard_through: Address([0; 16]),
            ranges: VecDeque::new(),
            taken: Allowance::new(now, TAKEN_PER_SECOND),
        };
        self.links.insert(link, exchange);
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        self.links.remove(&link);
    }
}

impl Exchange {
    /// Keeps a range to be compared, in bounded space.
    fn keep(&mut self, digest: &Digest) {
        self.heard_through = digest.through;
        if self.ranges.len() >= RANGES_MAX
            && let Some(last) = self.ranges.back_mut()
        {
            last.through = digest.through;
            return;
        }
        let held = digest.entries.iter().map(|e| (e.origin, (e.boot_epoch, e.sequence))).collect();
        self.ranges.push_back(Range { cursor: digest.after, through: digest.through, held });
    }
}

impl Router {
    /// The next thing to tell a new neighbour: a page of the digest, else an announce it lacks.
    pub(super) fn send_page(&mut self, link: LinkId) {
        let Some(neighbour) = self.links.get(link).map(|state| state.neighbour) else {
            return self.floods.told(link, false);
        };
        let after = self.digests.links.get(&link).and_then(|exchange| exchange.tell_after);
        let is_more = match after {
            Some(after) => self.send_digest(link, &neighbour, after),
            None => self.send_difference(link, &neighbour),
        };
        self.floods.told(link, is_more);
    }

    fn send_digest(&mut self, link: LinkId, neighbour: &Address, after: Address) -> bool {
        let (entries, through) =
            self.table.digest_page(after, neighbour, self.config.relay, DIGEST_ENTRIES_MAX);
        bump(&mut self.counters.digests_sent);
        self.outputs.push_back(Output::Control(link, Frame::Digest(Digest { after, through, entries })));
        let Some(exchange) = self.digests.links.get_mut(&link) else { return false };
        exchange.tell_after = (through < Address::BROADCAST).then_some(through);
        exchange.tell_after.is_some() || !exchange.ranges.is_empty()
    }

    fn send_difference(&mut self, link: LinkId, neighbour: &Address) -> bool {
        for _ in 0..COMPARED_MAX {
            let Some(exchange) = self.digests.links.get_mut(&link) else { return false };
            let Some(range) = exchange.ranges.front_mut() else { return false };
            let next = self.table.next_destination(Some(range.cursor));
            let Some(origin) = next.filter(|origin| *origin <= range.through) else {
                exchange.ranges.pop_front();
                continue;
            };
            range.cursor = origin;
            let has_it = range.held.get(&origin).is_some_and(|held| self.table.order(&origin) <= Some(*held));
            if has_it || origin == *neighbour || self.table.links_of(&origin).contains(&link) {
                continue;
            }
            if let Some(announce) = self.table.announce_to_send(&origin) {
                self.outputs.push_back(Output::Control(link, Frame::Announce(announce)));
                return true;
            }
        }
        true
    }

    /// A neighbour says what it holds.
    pub(super) fn on_digest(&mut self, now: Instant, link: LinkId, digest: &Digest) {
        let Some(exchange) = self.digests.links.get_mut(&link) else { return };
        // Each range once a link, so that a neighbour cannot have the table told again and again.
        if digest.after < exchange.heard_through || !exchange.taken.take(now) {
            return bump(&mut self.counters.digests_ignored);
        }
        bump(&mut self.counters.digests);
        if self.config.relay {
            exchange.keep(digest);
            self.floods.tell_table(link);
        } else {
            exchange.heard_through = digest.through;
        }
        for entry in &digest.entries {
            self.on_offer(now, link, entry);
        }
    }

    /// A neighbour offers a way by an announce that may be held here as well.
    fn on_offer(&mut self, now: Instant, link: LinkId, entry: &DigestEntry) {
        let Some(hop_count) = entry.hop_count.filter(|_| entry.origin != self.own) else { return };
        let order = (entry.boot_epoch, entry.sequence);
        if self.table.order(&entry.origin) != Some(order) {
            return;
        }
        let Some(via) = self.via(now, link, &entry.origin) else { return };
        let update = self.table.offer(now, &entry.origin, hop_count, &via);
        self.counters.announce(update);
        self.apply(now, link, (entry.origin, order), update, false);
    }
}
