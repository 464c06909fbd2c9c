//! Packets that may have felled a router before this one: handled alone, or not at all.

use super::*;
use crate::{
    actors::{panics, quarantine::InHand},
    proto::{
        router::CustodyWish,
        suspects::{Standing, Suspect},
    },
    wire::{Frame, control::Refuse},
};

impl RouterActor {
    /// Steps the core with a batch from a link, or out of custody, as [`RouterActor::step`] does.
    pub(super) fn step_with(
        &mut self,
        ingress: Option<LinkId>,
        batch: Vec<Verified<InboundEnvelope>>,
        ctx: &mut Context<Self>,
    ) {
        let input = |batch| match ingress {
            Some(link) => Input::Envelopes(link, batch),
            None => Input::FromCustody(batch),
        };
        let (together, alone, aside) = self.sort(batch);
        if !together.is_empty() {
            let hand = self.hand(&together);
            self.step(input(together), ctx);
            drop(hand);
        }
        for suspect in alone {
            let suspect = vec![suspect];
            let hand = self.hand(&suspect);
            self.step(input(suspect), ctx);
            drop(hand);
        }
        match ingress {
            _ if aside.is_empty() => {}
            // It goes no further from here; there may be another way.
            Some(link) => {
                let refuse = |packet_id| {
                    Frame::Refuse(Refuse { packet_id, reason: RefuseReason::NoRoute, retry_after_s: 0 })
                };
                let batch =
                    ForwardBatch { control: aside.into_iter().map(refuse).collect(), ..Default::default() };
                self.send_batch(link, batch);
            }
            None => {
                for packet_id in aside {
                    self.custody_news.offer_gossip("store", CustodyNews::Refused(packet_id));
                }
            }
        }
    }

    /// The same for what delivery made.
    pub(super) fn step_with_own(
        &mut self,
        batch: Vec<(PacketId, Envelope)>,
        wish: CustodyWish,
        ctx: &mut Context<Self>,
    ) {
        if self.parts.quarantine.is_empty() {
            let hand = self.parts.quarantine.hand(batch.iter().map(|(_, envelope)| Suspect::from(envelope)));
            batch.iter().for_each(|(_, envelope)| panics::poison("router", envelope.header().lifetime));
            self.step(Input::Originate(batch, wish), ctx);
            return drop(hand);
        }
        let key = self.parts.identity.public_key();
        let packet =
            |(id, envelope): (PacketId, Envelope)| Verified::trusted(id, key, envelope, FrameExt::default());
        let (together, alone, aside) = self.sort(batch.into_iter().map(packet).collect());
        let parts = std::iter::once(together).chain(alone.into_iter().map(|one| vec![one]));
        for part in parts.filter(|part| !part.is_empty()) {
            let hand = self.hand(&part);
            let part = part.into_iter().map(|packet| (packet.packet_id, packet.into_inner().envelope));
            self.step(Input::Originate(part.collect(), wish), ctx);
            drop(hand);
        }
        for packet_id in aside {
            let retry_after = SET_ASIDE_RETRY;
            let fate = PacketFate::Refused { packet_id, reason: RefuseReason::NoRoute, retry_after };
            self.fate.offer_gossip("delivery", fate);
        }
    }

    /// What may be handled together, what alone, and what not at all.
    fn sort(&mut self, batch: Vec<Verified<InboundEnvelope>>) -> (Packets, Packets, Vec<PacketId>) {
        let quarantine = &self.parts.quarantine;
        if quarantine.is_empty() {
            return (batch, Vec::new(), Vec::new());
        }
        let (mut together, mut alone, mut aside) = (Vec::new(), Vec::new(), Vec::new());
        for packet in batch {
            match quarantine.standing(&Suspect::from(&packet.envelope)) {
                Standing::Clear => together.push(packet),
                Standing::Suspect => alone.push(packet),
                Standing::Quarantined { first } => {
                    quarantine.set_aside("router", first, &packet, &*self.parts.store);
                    aside.push(packet.packet_id);
                }
            }
        }
        (together, alone, aside)
    }

    fn hand(&self, packets: &Packets) -> InHand {
        let hand = self.parts.quarantine.hand(packets.iter().map(|packet| Suspect::from(&packet.envelope)));
        for packet in packets {
            panics::poison("router", packet.envelope.header().lifetime);
        }
        hand
    }
}

type Packets = Vec<Verified<InboundEnvelope>>;

/// When the origin tries a message again that felled its own router.
const SET_ASIDE_RETRY: Duration = Duration::from_secs(3600);
