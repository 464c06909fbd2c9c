//! Envelopes on their way through.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    proto::{
        dedup::{Ingress, Sighting, Verdict},
        fib::{self, Decision, Hops},
        verify::{InboundEnvelope, Verified},
    },
    wire::{
        Address, Envelope, EnvelopeFormat, EnvelopeKind, Frame, FrameExt, LinkId, PacketId,
        control::{CustodyAck, Refuse, RefuseReason},
        limits::CUSTODY_IDS_MAX,
    },
};

use super::{CustodyWish, Output, Router, UNSENT_RETRY_S, WallClock, counters::bump, measured::receipt_ids};

/// A packet is dropped by the wall clock only so long after its signed end, since clocks differ.
const EXPIRY_SLACK_S: u64 = 600;

/// Ids of a receipt that are looked up for the way back; where the first few are forgotten the
/// route will do.
const RECEIPT_IDS_TRIED: usize = 4;

/// What one input sends, by link.
#[derive(Debug, Default)]
struct Batches {
    forward: BTreeMap<LinkId, Vec<Verified<InboundEnvelope>>>,
    deliver: Vec<Verified<InboundEnvelope>>,
    custody: Vec<Verified<InboundEnvelope>>,
}

impl Router {
    pub(super) fn on_envelopes(
        &mut self,
        now: Instant,
        wall: WallClock,
        link: LinkId,
        batch: Vec<Verified<InboundEnvelope>>,
    ) {
        let mut batches = Batches::default();
        let destinations: Vec<Address> = batch.iter().map(|packet| packet.destination).collect();
        let mut in_use = Vec::with_capacity(destinations.len());
        self.table.each_likely_in_use(&destinations, &mut in_use);
        self.dedup.approach(batch.iter().map(|packet| &packet.packet_id));
        for (packet, in_use) in batch.into_iter().zip(in_use) {
            bump(&mut self.counters.received);
            self.transit(now, wall, link, packet, in_use, &mut batches);
        }
        self.flush(Ingress::Link(link), batches);
    }

    pub(super) fn on_originate(&mut self, now: Instant, batch: Vec<(PacketId, Envelope)>, wish: CustodyWish) {
        let ext = FrameExt { custody_declined: wish == CustodyWish::Declined, ..FrameExt::default() };
        let mut batches = Batches::default();
        for (packet_id, envelope) in batch {
            bump(&mut self.counters.originated);
            let key = envelope.source_key().unwrap_or(self.config.own_key);
            let packet = Verified::trusted(packet_id, key, envelope, ext);
            self.send_from_here(now, packet, &mut batches);
        }
        self.flush(Ingress::Local, batches);
    }

    pub(super) fn on_from_custody(
        &mut self,
        now: Instant,
        wall: WallClock,
        batch: Vec<Verified<InboundEnvelope>>,
    ) {
        let mut batches = Batches::default();
        for packet in batch {
            if is_expired(&packet, wall) {
                bump(&mut self.counters.expired);
                let refuse =
                    Refuse { packet_id: packet.packet_id, reason: RefuseReason::Expired, retry_after_s: 0 };
                self.outputs.push_back(Output::Refused(refuse));
                continue;
            }
            self.send_from_here(now, packet, &mut batches);
        }
        self.flush(Ingress::Local, batches);
    }

    /// A packet's way through the node. `in_use` was looked up for the whole batch.
    fn transit(
        &mut self,
        now: Instant,
        wall: WallClock,
        ingress: LinkId,
        packet: Verified<InboundEnvelope>,
        in_use: Option<Hops>,
        batches: &mut Batches,
    ) {
        let header = *packet.envelope.header();
        let hop_count = packet.envelope.hop_count();
        if packet.source == self.own {
            return bump(&mut self.counters.own_returned);
        }
        let decide = |in_use| {
            fib::decide(&self.own, &packet.destination, Some(ingress), hop_count, header.max_hops, |_| in_use)
        };
        let mut decision = decide(in_use);
        if decision == Decision::NoRoute && self.leads_back(now, ingress, &packet.destination) {
            decision = self.decide(&packet.destination, Some(ingress), hop_count, header.max_hops);
        }
        // Before the window: a copy that may go nowhere shall not stand in the way of one that may.
        if decision == Decision::HopLimit {
            bump(&mut self.counters.hop_limit);
            return self.refuse(ingress, &packet, RefuseReason::HopLimit);
        }
        if is_expired(&packet, wall) {
            bump(&mut self.counters.expired);
            return self.refuse(ingress, &packet, RefuseReason::Expired);
        }
        let sighting = Sighting {
            packet_id: packet.packet_id,
            ingress: Ingress::Link(ingress),
            hop_count,
            max_hops: header.max_hops,
            retransmit: packet.ext.retransmit,
            lasts: packet.destination == Address::BROADCAST,
            is_destination: decision == Decision::Local,
        };
        let verdict = self.dedup.observe(now, &sighting, |link| !self.links.contains(link));
        match verdict {
            Verdict::Duplicate => return bump(&mut self.counters.duplicates),
            Verdict::Returned => return self.on_returned(now, ingress, &packet),
            Verdict::Retransmit => bump(&mut self.counters.retransmits),
            Verdict::New | Verdict::Shorter => {}
        }
        if header.kind == EnvelopeKind::RECEIPT {
            self.credit(now, &packet);
        }
        let next_hop_count = hop_count.saturating_add(1);
        match decision {
            Decision::HopLimit => {}
            Decision::Local => {
                self.dedup.forwarded(&packet.packet_id, None);
                batches.deliver.push(packet);
            }
            Decision::Broadcast { flood } => {
                if verdict == Verdict::Retransmit {
                    return bump(&mut self.counters.duplicates);
                }
                if flood && self.config.relay {
                    self.dedup.forwarded(&packet.packet_id, None);
                    self.flood(Some(ingress), &packet, next_hop_count, batches);
                }
                // The shorter copy of one that ended here earlier was delivered with that.
                if verdict == Verdict::New {
                    batches.deliver.push(packet);
                }
            }
            Decision::Forward { .. } | Decision::NoRoute => {
                match self.egress(&packet, Some(ingress), decision) {
                    Some(link) if self.config.relay => {
                        if self.is_seen(header.kind) {
                            self.outputs.push_back(Output::Seen(ingress, Box::new(packet.clone())));
                        }
                        let retransmit = verdict == Verdict::Retransmit;
                        let ext = FrameExt { retransmit, ..packet.ext };
                        let link = self.measured(now, &packet, Some(ingress), link);
                        let packet = packet.crossed(next_hop_count, ext);
                        self.keep(now, &packet, Some(ingress), link, decision);
                        self.forward(link, packet, next_hop_count, ext, batches);
                    }
                    _ => {
                        // It ends here, and still says what needs no custody any more.
                        if header.kind == EnvelopeKind::RECEIPT && self.is_seen(header.kind) {
                            self.outputs.push_back(Output::Seen(ingress, Box::new(packet.clone())));
                        }
                        self.no_route(ingress, packet, RefuseReason::NoRoute, batches);
                    }
                }
            }
        }
    }

    /// Sends a packet of this node's own, or one out of its custody.
    fn send_from_here(&mut self, now: Instant, packet: Verified<InboundEnvelope>, batches: &mut Batches) {
        let max_hops = packet.envelope.header().max_hops;
        let is_own = packet.source == self.own;
        let mut hop_count = packet.envelope.hop_count();
        if !is_own {
            // The way into this custody was one link more.
            hop_count = hop_count.saturating_add(1);
        }
        let decision = if hop_count >= max_hops {
            Decision::HopLimit
        } else {
            self.decide(&packet.destination, None, hop_count, max_hops)
        };
        // Where it came over a link before, that link stays on record for the way back.
        self.dedup.observe(
            now,
            &Sighting {
                packet_id: packet.packet_id,
                ingress: Ingress::Local,
                hop_count,
                max_hops,
                retransmit: false,
                lasts: packet.destination == Address::BROADCAST,
                is_destination: false,
            },
            |_| false,
        );
        let refuse = |reason| Refuse { packet_id: packet.packet_id, reason, retry_after_s: 0 };
        match decision {
            Decision::Local => {
                self.dedup.forwarded(&packet.packet_id, None);
                batches.deliver.push(packet);
            }
            Decision::Broadcast { .. } => {
                self.dedup.forwarded(&packet.packet_id, None);
                self.flood(None, &packet, hop_count, batches);
            }
            Decision::HopLimit => {
                bump(&mut self.counters.hop_limit);
                self.outputs.push_back(Output::Refused(refuse(RefuseReason::HopLimit)));
            }
            Decision::Forward { .. } | Decision::NoRoute => match self.egress(&packet, None, decision) {
                Some(link) => {
                    let ext = packet.ext;
                    let link = self.measured(now, &packet, None, link);
                    let packet = packet.crossed(hop_count, ext);
                    self.keep(now, &packet, None, link, decision);
                    self.forward(link, packet, hop_count, ext, batches);
                }
                None => {
                    bump(&mut self.counters.no_route);
                    self.outputs.push_back(Output::Refused(refuse(RefuseReason::NoRoute)));
                    if is_own {
                        self.want_path(now, packet.destination);
                    }
                }
            },
        }
    }

    /// The link a packet goes on over: back the way its message came for a receipt, else as the
    /// forwarding table says.
    fn egress(
        &mut self,
        packet: &Verified<InboundEnvelope>,
        ingress: Option<LinkId>,
        decision: Decision,
    ) -> Option<LinkId> {
        let routed = match decision {
            Decision::Forward { link, .. } => Some(link),
            _ => None,
        };
        self.paths.note_use(&packet.destination);
        if packet.envelope.header().kind != EnvelopeKind::RECEIPT {
            return routed;
        }
        let payload = packet.envelope.payload();
        let back = receipt_ids(&payload).iter().take(RECEIPT_IDS_TRIED).find_map(|id| {
            let link = self.dedup.record(&PacketId(*id))?.ingress.link()?;
            (Some(link) != ingress && self.links.contains(link)).then_some(link)
        });
        bump(if back.is_some() {
            &mut self.counters.receipts_returned
        } else {
            &mut self.counters.receipts_routed
        });
        back.or(routed)
    }

    /// Notes where a packet goes, and keeps one that its origin keeps, where there is another way
    /// to try it on.
    fn keep(
        &mut self,
        now: Instant,
        packet: &Verified<InboundEnvelope>,
        ingress: Option<LinkId>,
        link: LinkId,
        decision: Decision,
    ) {
        let is_kept = packet.envelope.header().kind.is_stored_for_others();
        let has_other = || match decision {
            Decision::Forward { has_other: true, .. } => true,
            // What this node sends itself is tried over ways that fail, too.
            _ => ingress.is_none() && self.table.ways(&packet.destination).any(|hop| hop.link != link),
        };
        if is_kept && has_other() {
            let place = self.kept.push(now, packet.clone(), ingress);
            self.dedup.forwarded_and_kept(&packet.packet_id, link, place);
        } else {
            self.dedup.forwarded(&packet.packet_id, Some(link));
        }
    }

    /// Sends one packet on its own.
    pub(super) fn forward_alone(
        &mut self,
        link: LinkId,
        packet: Verified<InboundEnvelope>,
        hop_count: u8,
        ext: FrameExt,
    ) {
        let mut batches = Batches::default();
        self.forward(link, packet, hop_count, ext, &mut batches);
        self.flush(Ingress::Local, batches);
    }

    fn forward(
        &mut self,
        link: LinkId,
        packet: Verified<InboundEnvelope>,
        hop_count: u8,
        mut ext: FrameExt,
        batches: &mut Batches,
    ) {
        let Some(state) = self.links.get_mut(link) else { return };
        if !state.trusted {
            ext.trace_context = None;
        }
        let is_v2 = packet.envelope.format() == EnvelopeFormat::V2;
        let attach_key = is_v2 && state.is_first_of(&packet.source);
        if attach_key {
            self.source_keys.insert(packet.source, packet.source_key);
        }
        bump(&mut self.counters.forwarded);
        batches.forward.entry(link).or_default().push(packet.for_link(hop_count, ext, attach_key));
    }

    /// Sends a broadcast over every link but the one it came over.
    fn flood(
        &mut self,
        ingress: Option<LinkId>,
        packet: &Verified<InboundEnvelope>,
        hop_count: u8,
        batches: &mut Batches,
    ) {
        let source = packet.source;
        for link in self.links.ids_where(|link, state| Some(link) != ingress && state.neighbour != source) {
            let ext = FrameExt { age_s: packet.ext.age_s, ..FrameExt::default() };
            self.forward(link, packet.clone(), hop_count, ext, batches);
        }
    }

    /// A packet from a link that cannot go on: into custody, else back.
    fn no_route(
        &mut self,
        ingress: LinkId,
        packet: Verified<InboundEnvelope>,
        reason: RefuseReason,
        batches: &mut Batches,
    ) {
        bump(&mut self.counters.no_route);
        if self.is_kept(&packet) {
            bump(&mut self.counters.to_custody);
            self.dedup.forwarded(&packet.packet_id, None);
            batches.custody.push(packet);
        } else {
            self.refuse(ingress, &packet, reason);
        }
    }

    /// A link's queue was full.
    pub(super) fn on_unsent(
        &mut self,
        link: LinkId,
        batch: Vec<Verified<InboundEnvelope>>,
        reason: RefuseReason,
    ) {
        let mut custody: BTreeMap<LinkId, Vec<Verified<InboundEnvelope>>> = BTreeMap::new();
        for packet in batch {
            if !self.take_back(link, &packet.packet_id) {
                continue;
            }
            let record = self.dedup.record(&packet.packet_id);
            match record.and_then(|record| record.ingress.link()) {
                Some(ingress) if self.is_kept(&packet) => {
                    bump(&mut self.counters.to_custody);
                    self.dedup.forwarded(&packet.packet_id, None);
                    custody.entry(ingress).or_default().push(packet);
                }
                _ => {
                    let packet_id = packet.packet_id;
                    self.send_back(Refuse { packet_id, reason, retry_after_s: UNSENT_RETRY_S });
                }
            }
        }
        for (ingress, custody) in custody {
            self.flush(Ingress::Link(ingress), Batches { custody, ..Batches::default() });
        }
    }

    /// Notes that `link` did not take a packet; false where it was not given to that link.
    pub(super) fn take_back(&mut self, link: LinkId, packet_id: &PacketId) -> bool {
        let record = self.dedup.record(packet_id);
        let was_given = record.is_some_and(|record| record.egress == Some(link));
        if was_given {
            bump(&mut self.counters.unsent);
            self.ranking.excuse(packet_id);
            self.dedup.returned(packet_id);
        }
        was_given
    }

    /// True for what goes into custody here.
    fn is_kept(&self, packet: &InboundEnvelope) -> bool {
        self.config.store
            && !packet.ext.custody_declined
            && packet.envelope.header().kind.is_stored_for_others()
    }

    /// Says back over a link that a packet went no further. Only what its origin keeps is worth a
    /// refusal; an answer to an answer is not.
    pub(super) fn refuse(&mut self, link: LinkId, packet: &Verified<InboundEnvelope>, reason: RefuseReason) {
        if packet.envelope.header().kind.is_stored_for_others() {
            let refuse = Refuse { packet_id: packet.packet_id, reason, retry_after_s: 0 };
            self.outputs.push_back(Output::Control(link, Frame::Refuse(refuse)));
        }
    }

    /// Packets are safe here: says so over the links they came over.
    pub(super) fn on_custody_taken(&mut self, packet_ids: &[PacketId]) {
        let by_link = self.by_ingress(packet_ids.iter().copied());
        self.acknowledge(self.own, by_link);
    }

    /// Groups packets by where they came from.
    pub(super) fn by_ingress(
        &self,
        packet_ids: impl Iterator<Item = PacketId>,
    ) -> BTreeMap<Option<LinkId>, Vec<PacketId>> {
        let mut by_link: BTreeMap<Option<LinkId>, Vec<PacketId>> = BTreeMap::new();
        for packet_id in packet_ids {
            if let Some(record) = self.dedup.record(&packet_id) {
                by_link.entry(record.ingress.link()).or_default().push(packet_id);
            }
        }
        by_link
    }

    /// Repeats custody acknowledgements backwards, in this node's own frames.
    pub(super) fn acknowledge(&mut self, domain: Address, by_link: BTreeMap<Option<LinkId>, Vec<PacketId>>) {
        for (link, packet_ids) in by_link {
            match link {
                Some(link) if self.links.contains(link) => {
                    for ids in packet_ids.chunks(CUSTODY_IDS_MAX) {
                        let ack = CustodyAck { domain, packet_ids: ids.to_vec() };
                        self.outputs.push_back(Output::Control(link, Frame::CustodyAck(ack)));
                    }
                }
                Some(_) => {}
                None => self.outputs.push_back(Output::InCustody { domain, packet_ids }),
            }
        }
    }

    /// Kinds of packets in transit that this node looks at: traces it may answer, receipts that
    /// clear its custody.
    fn is_seen(&self, kind: EnvelopeKind) -> bool {
        kind == EnvelopeKind::TRACE || (kind == EnvelopeKind::RECEIPT && self.config.store)
    }

    fn flush(&mut self, ingress: Ingress, batches: Batches) {
        for (link, batch) in batches.forward {
            self.outputs.push_back(Output::Forward(link, batch));
        }
        if !batches.deliver.is_empty() {
            let count = u64::try_from(batches.deliver.len()).unwrap_or(u64::MAX);
            self.counters.delivered = self.counters.delivered.saturating_add(count);
            self.outputs.push_back(Output::Deliver(ingress, batches.deliver));
        }
        if let (Ingress::Link(link), false) = (ingress, batches.custody.is_empty()) {
            self.outputs.push_back(Output::Custody(link, batches.custody));
        }
    }
}

/// True past the signed lifetime: by the time spent in custody, or by a wall clock that is
/// trusted.
fn is_expired(packet: &InboundEnvelope, wall: WallClock) -> bool {
    let header = packet.envelope.header();
    let lifetime_s = header.lifetime.as_secs();
    let ends_s =
        u64::from(header.created_unix_s).saturating_add(u64::from(lifetime_s)).saturating_add(EXPIRY_SLACK_S);
    packet.ext.age_s > lifetime_s || (wall.trusted && wall.unix_s > ends_s)
}
