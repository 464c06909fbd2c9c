//! Measured delivery, loops and refusals: what this node learns of its next hops from the packets
//! it sends, and what it does with a packet that one of them did not take.

use std::time::Instant;

use crate::{
    proto::{
        ranking::{Sample, Turn},
        verify::{InboundEnvelope, Verified},
    },
    wire::{
        Address, LinkId, PacketId,
        cbor::Reader,
        control::{Refuse, RefuseReason},
        limits::RECEIPT_IDS_MAX,
    },
};

use super::{Output, Router, counters::bump};

/// Longest wait a refusal may ask for.
const RETRY_AFTER_S_MAX: u16 = 3600;

impl Router {
    /// The link a packet takes, for one whose table entry says `link`: that one, or another that
    /// is to be measured. From here on its outcome counts.
    pub(super) fn measured(
        &mut self,
        now: Instant,
        packet: &Verified<InboundEnvelope>,
        ingress: Option<LinkId>,
        link: LinkId,
    ) -> LinkId {
        let Some(sample) = self.sample(packet, ingress, link) else { return link };
        if self.ranking.send(now, &packet.packet_id, &sample) == Turn::Goes {
            return link;
        }
        // The time that passed may have changed what is known.
        self.rerank(now, sample.destination);
        let probed = self.probe(now, &sample, ingress, link);
        if probed != link {
            bump(&mut self.counters.probes);
        }
        self.sent_over(now, packet, ingress, probed);
        probed
    }

    /// A packet goes over `link`, and that is no matter of turns: its outcome counts.
    fn sent_over(
        &mut self,
        now: Instant,
        packet: &Verified<InboundEnvelope>,
        ingress: Option<LinkId>,
        link: LinkId,
    ) {
        if let Some(sample) = self.sample(packet, ingress, link) {
            self.ranking.sent(now, &packet.packet_id, &sample);
        }
    }

    /// What is to be judged of a packet over a link: nothing where no receipt will name it, or the
    /// link leads to the destination itself.
    fn sample(
        &self,
        packet: &Verified<InboundEnvelope>,
        ingress: Option<LinkId>,
        link: LinkId,
    ) -> Option<Sample> {
        let state = self.links.get(link)?;
        let is_measured = packet.envelope.header().kind.is_stored_for_others();
        let sample = Sample {
            destination: packet.destination,
            neighbour: state.neighbour,
            class: state.class,
            ingress,
        };
        (is_measured && state.neighbour != packet.destination).then_some(sample)
    }

    /// The first way beside `link` that wants a packet for the sake of knowing; else `link`.
    fn probe(&mut self, now: Instant, sample: &Sample, ingress: Option<LinkId>, link: LinkId) -> LinkId {
        let others = self.table.ways(&sample.destination);
        let others = others.filter(|hop| hop.link != link && Some(hop.link) != ingress && !hop.is_older);
        for hop in others {
            // Ways that may lead back are no ground for experiments while there are others.
            let may_try = self.table.is_feasible(&sample.destination, &hop) || hop.standing.is_proven();
            if may_try && self.ranking.take_probe(now, &sample.destination, &hop.neighbour, hop.class) {
                return hop.link;
            }
        }
        link
    }

    /// A receipt passes or arrives: the ways its packets took are credited.
    pub(super) fn credit(&mut self, now: Instant, receipt: &Verified<InboundEnvelope>) {
        let payload = receipt.envelope.payload();
        let mut is_changed = false;
        for id in receipt_ids(&payload) {
            is_changed |= self.ranking.receipt(now, &receipt.source, &PacketId(*id));
        }
        if is_changed {
            self.rerank(now, receipt.source);
        }
    }

    /// Judges what was not receipted in time.
    pub(super) fn judge_due(&mut self, now: Instant) {
        while let Some(destination) = self.ranking.expire(now) {
            self.rerank(now, destination);
        }
    }

    /// Orders the ways to a destination by what is known of them now.
    pub(super) fn rerank(&mut self, now: Instant, destination: Address) {
        self.table.measured(&destination, |via| self.ranking.measure(now, &destination, via));
        self.refresh(destination);
    }

    /// A neighbour sends here what would go back to it: its own way leads over this node, and so one
    /// through it that may lead back does. True where the ways were ordered anew for that.
    pub(super) fn leads_back(&mut self, now: Instant, ingress: LinkId, destination: &Address) -> bool {
        let over_ingress = self.table.ways(destination).find(|hop| hop.link == ingress);
        let Some(hop) = over_ingress.filter(|hop| !self.table.is_feasible(destination, hop)) else {
            return false;
        };
        let neighbour = hop.neighbour;
        self.ranking.distrust(now, destination, &neighbour);
        self.rerank(now, *destination);
        true
    }

    /// A packet that this node sent on came back over another link than it came: the way it was
    /// given to leads here.
    pub(super) fn on_returned(&mut self, now: Instant, ingress: LinkId, packet: &Verified<InboundEnvelope>) {
        bump(&mut self.counters.loops);
        if let Some(destination) = self.ranking.failed(now, &packet.packet_id) {
            self.rerank(now, destination);
        }
        self.refuse(ingress, packet, RefuseReason::Loop);
    }

    /// A neighbour did not take a packet. Believed only of packets that were sent to it. The packet
    /// goes another way where it is still here and there is one, else back the way it came.
    pub(super) fn on_refuse(&mut self, now: Instant, link: LinkId, refuse: Refuse) {
        let packet_id = refuse.packet_id;
        let record = self.dedup.record(&packet_id).filter(|record| record.egress == Some(link));
        let Some(record) = record else { return bump(&mut self.counters.control_ignored) };
        let is_wrong_way = matches!(refuse.reason, RefuseReason::NoRoute | RefuseReason::Loop);
        if !is_wrong_way {
            self.ranking.excuse(&packet_id);
        } else if let Some(destination) = self.ranking.failed(now, &packet_id) {
            self.rerank(now, destination);
        }
        self.dedup.returned(&packet_id);
        let may_try = !matches!(refuse.reason, RefuseReason::Expired | RefuseReason::HopLimit);
        if may_try && self.try_another(now, link, record.kept_at, &packet_id) {
            return bump(&mut self.counters.rerouted);
        }
        let retry_after_s = refuse.retry_after_s.min(RETRY_AFTER_S_MAX);
        self.send_back(Refuse { retry_after_s, ..refuse });
    }

    /// Sends a kept packet over a way that it did not take yet; false where there is none. A way
    /// that fails is worth a try for this node's own packets alone: whoever sent others may know a
    /// better one.
    fn try_another(&mut self, now: Instant, refused_by: LinkId, place: u32, packet_id: &PacketId) -> bool {
        let Some(kept) = self.kept.get_mut(place, packet_id) else { return false };
        if !kept.has_tried(refused_by) {
            return false;
        }
        let is_own = kept.ingress.is_none();
        let open = {
            let mut ways = self.table.ways(&kept.packet.destination);
            ways.find(|hop| !kept.is_closed(hop.link) && (is_own || !hop.standing.is_demoted()))
        };
        let (packet, ingress) = (kept.packet.clone(), kept.ingress);
        let Some(link) = open.map(|hop| hop.link) else { return false };
        self.sent_over(now, &packet, ingress, link);
        self.dedup.forwarded_and_kept(packet_id, link, place);
        let (hop_count, ext) = (packet.envelope.hop_count(), packet.ext);
        self.forward_alone(link, packet, hop_count, ext);
        true
    }

    /// Hands a refusal to where its packet came from.
    pub(super) fn send_back(&mut self, refuse: Refuse) {
        let Some(record) = self.dedup.record(&refuse.packet_id) else { return };
        match record.ingress.link() {
            None => self.outputs.push_back(Output::Refused(refuse)),
            Some(link) if self.links.contains(link) => {
                self.outputs.push_back(Output::Control(link, crate::wire::Frame::Refuse(refuse)));
            }
            Some(_) => {}
        }
    }
}

/// The packet ids that a receipt names, read without the rest of it: `[ids, …]`.
pub(super) fn receipt_ids(payload: &[u8]) -> &[[u8; PacketId::LEN]] {
    let mut reader = Reader::new(payload);
    let ids = reader
        .array(2, 2, "receipt")
        .and_then(|_| reader.bytes(RECEIPT_IDS_MAX.saturating_mul(PacketId::LEN), "receipt ids"));
    ids.unwrap_or(&[]).as_chunks::<{ PacketId::LEN }>().0
}
