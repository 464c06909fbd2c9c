//! A router with links that come and go, neighbours that send, refuse, acknowledge, announce and ask
//! whatever they like, a custodian and a clock.
//!
//! What has to hold: every packet that comes in ends in exactly one way that is said or counted; none
//! goes back over the link it came over, over a link that is down, or beyond its hop limit; what the
//! router says of paths is so; what it remembers is within its bounds; it is never woken for nothing;
//! and once all links are down and a month has passed nothing is left.

mod pool;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    clock,
    proto::{
        dedup::Ingress,
        router::{Counters, CustodyWish, Input, LinkInfo, Output, Router, RouterConfig, WallClock},
        table::LinkClass,
        verify::{InboundEnvelope, Verified},
    },
    wire::{
        Address, EnvelopeKind, Frame, LinkId, PacketId,
        control::{CustodyAck, PathRequest, Refuse, RefuseReason},
        path::{Digest, DigestEntry, Withdraw},
    },
};

use super::Script;

type Packet = Verified<InboundEnvelope>;

const LINKS: u64 = 7;

struct Story {
    now: Instant,
    wall: WallClock,
    router: Router,
    up: BTreeMap<LinkId, LinkInfo>,
    /// What the router said has a path.
    paths: BTreeSet<Address>,
    /// What it gave to a link last, and to custody.
    forwarded: Vec<(LinkId, Packet)>,
    custody: Vec<Packet>,
    announces_due: usize,
    stores: bool,
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let now = clock::now();
    let flags = script.u8();
    let config = RouterConfig {
        relay: flags & 1 == 0,
        store: flags & 2 != 0,
        origins_max: 12,
        dedup_entries_max: if flags & 4 == 0 { 8 } else { 1000 },
        ..RouterConfig::new(pool::own_key())
    };
    let mut story = Story {
        now,
        wall: WallClock { unix_s: u64::from(pool::CREATED), trusted: flags & 8 == 0 },
        stores: config.store,
        router: Router::new(config, now, 7),
        up: BTreeMap::new(),
        paths: BTreeSet::new(),
        forwarded: Vec::new(),
        custody: Vec::new(),
        announces_due: 0,
    };
    while let Some(kind) = script.step() {
        story.step(kind, &mut script);
        story.check();
    }
    story.end();
}

impl Story {
    fn step(&mut self, kind: u8, script: &mut Script<'_>) {
        match kind % 24 {
            0 | 1 => self.link_up(script),
            2 if script.bool() => self.link_down(link(script)),
            2..=7 => self.envelopes(script),
            8 => self.originate(script),
            9 => self.out_of_custody(script),
            10 => self.custody_answers(script),
            11 => self.unsent(script),
            12..=14 => {
                let link = link(script);
                let inbound = Box::new(pool::announce(script));
                self.handle(Input::Announce(link, inbound));
            }
            15 => {
                let link = link(script);
                let inbound = Box::new(pool::announce(script));
                self.handle(Input::PathReply(link, inbound));
            }
            16 if self.announces_due > 0 => {
                self.announces_due -= 1;
                let announce = pool::own_announce(script.u32());
                self.handle(Input::OwnAnnounce(Box::new(announce)));
            }
            16 => self.handle(Input::FindKeyRecord(pool::address(script.u8()))),
            17 => self.handle(Input::KeyRecord(Box::new(pool::key_record(script.u8())))),
            18..=20 => {
                let (link, frame) = (link(script), self.control(script));
                self.handle(Input::Control(link, frame));
            }
            21 => {
                let _ = self.router.search(self.now, pool::address(script.u8()));
                self.drain();
            }
            22 => self.save(script),
            _ => self.time(script),
        }
    }

    fn link_up(&mut self, script: &mut Script<'_>) {
        let link = link(script);
        if self.up.contains_key(&link) {
            return;
        }
        let class = match script.below(6) {
            0..=3 => LinkClass::Unconstrained,
            4 => LinkClass::Medium,
            _ => LinkClass::SeverelyConstrained,
        };
        let info = LinkInfo {
            link,
            peer: pool::peer(script.below(5)),
            class,
            trusted: script.bool(),
            account: script.bool().then(|| pool::address(0)),
        };
        self.up.insert(link, info);
        self.handle(Input::LinkUp(info));
    }

    fn link_down(&mut self, link: LinkId) {
        self.up.remove(&link);
        self.handle(Input::LinkDown(link));
    }

    /// A few packets over one link: all of them end.
    fn envelopes(&mut self, script: &mut Script<'_>) {
        let link = link(script);
        if !self.up.contains_key(&link) {
            return;
        }
        let batch = pool::batch(script);
        let came = batch.clone();
        let before = *self.router.counters();
        self.router.handle(self.now, self.wall, Input::Envelopes(link, batch));
        let outputs = self.drain();
        let after = self.router.counters();
        let ended = |of: fn(&Counters) -> u64| (of(after) - of(&before)) as usize;
        assert_eq!(ended(|c| c.received), came.len());
        for (over, packet) in &outputs.forward {
            assert_ne!(*over, link, "it goes back where it came from");
            let Some(first) = came.iter().find(|p| p.packet_id == packet.packet_id) else {
                panic!("a packet that did not come goes on");
            };
            assert!(packet.envelope.hop_count() > 0);
            assert!(came.iter().any(|p| {
                p.packet_id == packet.packet_id
                    && p.envelope.hop_count().saturating_add(1) == packet.envelope.hop_count()
            }));
            assert!(packet.envelope.signed() == first.envelope.signed());
        }
        let broadcasts = came.iter().filter(|p| p.destination == Address::BROADCAST).count();
        assert!(broadcasts == 0 || broadcasts == came.len(), "batches of one kind");
        if broadcasts > 0 {
            return assert!(outputs.deliver.len() <= came.len() && outputs.custody.is_empty());
        }
        let refused = ended(|c| c.no_route) - ended(|c| c.to_custody);
        let counted = ended(|c| c.own_returned)
            + ended(|c| c.hop_limit)
            + ended(|c| c.expired)
            + ended(|c| c.duplicates)
            + ended(|c| c.loops)
            + refused;
        let said = outputs.forward.len() + outputs.deliver.len() + outputs.custody.len();
        assert_eq!(counted + said, came.len(), "a packet is lost, or ends twice");
        assert!(outputs.deliver.iter().all(|p| p.destination == self.router.own()));
        assert!(
            outputs.custody.iter().all(|p| self.stores && p.envelope.header().kind.is_stored_for_others())
        );
        assert!(outputs.custody.is_empty() || outputs.custody_of == Some(link));
    }

    fn originate(&mut self, script: &mut Script<'_>) {
        let batch = pool::own_batch(script);
        let came = batch.len();
        let is_broadcast = batch.iter().any(|(_, e)| pool::is_broadcast(e));
        let wish = if came.is_multiple_of(2) { CustodyWish::Welcome } else { CustodyWish::Declined };
        self.router.handle(self.now, self.wall, Input::Originate(batch, wish));
        let outputs = self.drain();
        if !is_broadcast {
            let said = outputs.forward.len() + outputs.deliver.len() + outputs.refused;
            assert_eq!(said, came, "a packet of this node's own is lost, or ends twice");
        }
        assert!(outputs.custody.is_empty());
    }

    fn out_of_custody(&mut self, script: &mut Script<'_>) {
        let mut batch = pool::batch(script);
        batch.retain(|packet| {
            packet.destination != Address::BROADCAST && packet.envelope.header().kind.is_stored_for_others()
        });
        let came = batch.len();
        self.router.handle(self.now, self.wall, Input::FromCustody(batch));
        let outputs = self.drain();
        let said = outputs.forward.len() + outputs.deliver.len() + outputs.refused;
        assert_eq!(said, came, "a packet out of custody is lost, or ends twice");
    }

    fn custody_answers(&mut self, script: &mut Script<'_>) {
        let taken = script.bool();
        let count = usize::from(script.below(8)).min(self.custody.len());
        let ids: Vec<PacketId> = self.custody.drain(..count).map(|packet| packet.packet_id).collect();
        if taken {
            self.handle(Input::CustodyTaken(ids));
        } else {
            for id in ids {
                self.handle(Input::CustodyRefused(id, RefuseReason::StoreFull));
            }
        }
    }

    /// A link's queue was full, or its link is gone.
    fn unsent(&mut self, script: &mut Script<'_>) {
        let Some((link, packet)) = self.forwarded.pop() else { return };
        // Now and then a link that never had it.
        let link = if script.below(8) == 1 { LinkId(u64::from(script.u8())) } else { link };
        if script.bool() {
            self.handle(Input::Unsent(link, vec![packet], RefuseReason::Congested));
        } else {
            self.handle(Input::UnsentIds(link, vec![packet.packet_id], RefuseReason::Congested));
        }
    }

    fn control(&mut self, script: &mut Script<'_>) -> Frame {
        let address = pool::address(script.u8());
        let packet_id = match self.forwarded.last() {
            Some((_, packet)) if script.bool() => packet.packet_id,
            _ => pool::packet_id(script.u8()),
        };
        match script.below(10) {
            0..=2 => Frame::Refuse(Refuse {
                packet_id,
                reason: RefuseReason::from(script.below(9)),
                retry_after_s: script.edge(u64::from(u16::MAX)) as u16,
            }),
            3 => Frame::CustodyAck(CustodyAck { domain: address, packet_ids: vec![packet_id] }),
            4 | 5 => Frame::PathRequest(PathRequest {
                request_id: [script.u8(); 8],
                destination: address,
                max_hops: script.below(128).saturating_add(1),
                hop_count: script.edge(255) as u8,
                newer_than: script.bool().then(|| (script.edge(1 << 32) as u32, script.edge(1 << 32) as u32)),
            }),
            6 => {
                let mut addresses: Vec<Address> =
                    (0..=script.below(4)).map(|_| pool::address(script.u8())).collect();
                addresses.sort_unstable();
                addresses.dedup();
                Frame::Withdraw(Withdraw { addresses })
            }
            7 => {
                let mut origins: Vec<Address> =
                    (0..script.below(6)).map(|_| pool::address(script.u8())).collect();
                origins.sort_unstable();
                origins.dedup();
                let entry = |origin| DigestEntry {
                    origin,
                    boot_epoch: 1,
                    sequence: script.edge(u64::from(u32::MAX)) as u32,
                    hop_count: script.bool().then(|| script.below(128)),
                };
                let entries = origins.into_iter().map(entry).collect();
                Frame::Digest(Digest { after: Address([0; 16]), through: Address::BROADCAST, entries })
            }
            8 => Frame::KeyRequest(address),
            _ => Frame::KeyNeeded(address),
        }
    }

    fn save(&mut self, script: &mut Script<'_>) {
        let taken = self.router.take_unsaved(self.now, usize::from(script.below(6)));
        if script.bool() {
            self.router.not_saved(taken.into_iter().map(|(origin, _)| origin));
        }
        if script.bool() {
            let inbound = pool::announce(script);
            // A row is good for as long as its announce signs, and no longer.
            let ends_in = script.pause().min(Duration::from_secs(86_400));
            let _ = self.router.restore(self.now, &inbound, ends_in);
            self.drain();
        }
    }

    fn time(&mut self, script: &mut Script<'_>) {
        match script.below(4) {
            0 => {
                self.wall = WallClock { unix_s: script.edge(u64::MAX), trusted: script.bool() };
            }
            1 => self.now += script.pause(),
            _ => {
                self.now = self.router.next_wake().0.max(self.now);
                self.timeout();
            }
        }
    }

    fn timeout(&mut self) {
        self.handle(Input::Timeout);
        let (at, wake) = self.router.next_wake();
        assert!(at > self.now, "it wants to be woken for {wake:?} again at once");
    }

    fn handle(&mut self, input: Input) {
        self.router.handle(self.now, self.wall, input);
        self.drain();
    }

    fn drain(&mut self) -> Outputs {
        let mut outputs = Outputs::default();
        while let Some(output) = self.router.poll() {
            match output {
                Output::Forward(link, batch) => {
                    let Some(info) = self.up.get(&link) else { panic!("{link} is not up") };
                    for packet in batch {
                        let (hops, max_hops) =
                            (packet.envelope.hop_count(), packet.envelope.header().max_hops);
                        assert!(hops <= max_hops, "{hops} of {max_hops} links");
                        assert!(info.trusted || packet.ext.trace_context.is_none());
                        assert!(Frame::decode(&packet.envelope.to_frame(packet.ext).to_bytes()).is_ok());
                        outputs.forward.push((link, packet));
                    }
                }
                Output::Deliver(ingress, batch) => {
                    assert!(matches!(ingress, Ingress::Local) || ingress.link().is_some());
                    outputs.deliver.extend(batch);
                }
                Output::Custody(link, batch) => {
                    outputs.custody_of = Some(link);
                    outputs.custody.extend(batch);
                }
                Output::Control(link, frame) => {
                    assert!(self.up.contains_key(&link), "{frame:?} over {link}, which is not up");
                    assert!(Frame::decode(&frame.encode()).is_ok(), "{frame:?} is no frame");
                }
                Output::Refused(_) => outputs.refused += 1,
                Output::Seen(_, packet) => {
                    let kind = packet.envelope.header().kind;
                    assert!(kind == EnvelopeKind::TRACE || kind == EnvelopeKind::RECEIPT);
                }
                // Told again of one that turns out constrained.
                Output::RouteUp(address) => drop(self.paths.insert(address)),
                Output::RouteDown(address) => assert!(self.paths.remove(&address), "{address} had no path"),
                Output::AnnounceDue { .. } => self.announces_due = (self.announces_due + 1).min(3),
                Output::InCustody { .. } | Output::KeyRecord(_) | Output::OwnOrderSeen(_) => {}
            }
        }
        self.forwarded.extend(outputs.forward.iter().cloned());
        let surplus = self.forwarded.len().saturating_sub(32);
        self.forwarded.drain(..surplus);
        self.custody.extend(outputs.custody.iter().cloned());
        outputs
    }

    fn check(&self) {
        assert_eq!(self.router.link_count(), self.up.len());
        for (what, count, most) in self.router.sizes() {
            assert!(count <= most, "{count} {what}, at most {most}");
        }
        for n in 0..pool::NODES {
            let address = pool::address(n);
            assert_eq!(self.paths.contains(&address), self.router.is_reachable(&address), "{address}");
        }
        assert_eq!(self.router.reachable(), self.paths.len());
        assert_eq!(self.router.routes(self.now).count(), self.router.routed());
    }

    /// All links end, and time passes.
    fn end(&mut self) {
        for link in self.up.keys().copied().collect::<Vec<_>>() {
            self.link_down(link);
        }
        self.check();
        assert_eq!(self.router.reachable(), 0);
        self.now += Duration::from_secs(30 * 86_400);
        for _ in 0..3 {
            self.timeout();
        }
        self.check();
        assert_eq!(self.router.routed(), 0);
        let left = ["wanted records", "kept", "searches", "origins"];
        for (what, count, _) in self.router.sizes() {
            assert!(count == 0 || !left.contains(&what), "{count} {what} are left");
        }
    }
}

/// What one input led to.
#[derive(Default)]
struct Outputs {
    forward: Vec<(LinkId, Packet)>,
    deliver: Vec<Packet>,
    custody: Vec<Packet>,
    custody_of: Option<LinkId>,
    refused: usize,
}

fn link(script: &mut Script<'_>) -> LinkId {
    LinkId(u64::from(script.u8()) % LINKS + 1)
}
