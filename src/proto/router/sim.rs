//! A mesh of routers in memory: real signatures, real frames, a clock of its own. After each frame
//! the invariants of forwarding are checked at the node that sent it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    crypto::VerifiedKeyRecord,
    proto::{
        dedup::Ingress,
        router::{
            CustodyWish, Input, LinkInfo, Output, Router, RouterConfig, WallClock,
            testkit::{CREATED, NETWORK, Node},
        },
        table::LinkClass,
        verify::{HeldForKey, Hold, InboundEnvelope, Verified, Verifier, VerifyOutcome},
    },
    wire::{
        Address, Announce, Envelope, EnvelopeKind, Frame, FrameExt, LinkId, PacketId,
        control::{Refuse, RefuseReason},
        receipt::Receipt,
    },
};

/// One node: its router, a verifier a link, and what came out.
pub(super) struct SimNode {
    pub(super) signer: Node,
    pub(super) router: Router,
    pub(super) order: (u32, u32),
    record: VerifiedKeyRecord,
    edges: BTreeMap<LinkId, Edge>,
    links_made: u64,
    /// Makes every envelope look fresh: the fault of A-05.
    pub(super) resets_hops: bool,
    /// Claims to be next to everyone and drops what it should pass on: the fault of A-04.
    pub(super) lies: bool,
    /// Frames of others that it dropped.
    pub(super) swallowed: u64,
    pub(super) delivered: Vec<Verified<InboundEnvelope>>,
    pub(super) custody: Vec<Verified<InboundEnvelope>>,
    pub(super) refused: Vec<Refuse>,
    pub(super) in_custody: Vec<PacketId>,
    pub(super) seen: Vec<Verified<InboundEnvelope>>,
    pub(super) own_order_seen: Vec<(u32, u32)>,
    pub(super) key_records: BTreeMap<Address, VerifiedKeyRecord>,
    pub(super) up: BTreeSet<Address>,
    /// Links that each packet went out over without the resend flag.
    went_over: BTreeMap<PacketId, Vec<(LinkId, u8)>>,
    /// How often a next hop handed a packet back or refused it.
    came_back: BTreeMap<PacketId, Vec<LinkId>>,
    /// The order of each origin's announce that a liar told last.
    told: BTreeMap<[u8; 32], (u32, u32)>,
}

struct Edge {
    peer: usize,
    peer_link: LinkId,
    verifier: Verifier,
    held: HeldForKey,
}

/// The mesh. Frames travel in the order in which they were sent.
pub(super) struct Sim {
    pub(super) now: Instant,
    pub(super) wall: WallClock,
    pub(super) nodes: Vec<SimNode>,
    wire: VecDeque<(usize, LinkId, Bytes)>,
    pub(super) frames_sent: u64,
}

impl Sim {
    pub(super) fn new(count: usize) -> Self {
        let now = Instant::now();
        let wall = WallClock { unix_s: u64::from(CREATED), trusted: false };
        let mut sim = Self { now, wall, nodes: Vec::new(), wire: VecDeque::new(), frames_sent: 0 };
        for n in 0..count {
            sim.nodes.push(SimNode::new(n, now, |_| {}));
        }
        sim
    }

    pub(super) fn line(count: usize) -> Self {
        let mut sim = Self::new(count);
        for n in 1..count {
            sim.connect(n - 1, n);
        }
        sim
    }

    pub(super) fn ring(count: usize) -> Self {
        let mut sim = Self::line(count);
        sim.connect(count - 1, 0);
        sim
    }

    /// Node 0 in the middle.
    pub(super) fn star(count: usize) -> Self {
        let mut sim = Self::new(count);
        for n in 1..count {
            sim.connect(0, n);
        }
        sim
    }

    /// Starts a node's router again, with another configuration and a new boot epoch.
    pub(super) fn restart(&mut self, n: usize, configure: impl FnOnce(&mut RouterConfig)) {
        for peer in self.nodes[n].edges.values().map(|edge| edge.peer).collect::<Vec<_>>() {
            self.disconnect(n, peer);
        }
        let epoch = self.nodes[n].order.0 + 1;
        self.nodes[n] = SimNode::new(n, self.now, configure);
        self.nodes[n].order = (epoch, 0);
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        if self.link_between(a, b).is_some() {
            return;
        }
        let links = [a, b].map(|n| {
            self.nodes[n].links_made += 1;
            LinkId(self.nodes[n].links_made)
        });
        for (n, link, peer, peer_link) in [(a, links[0], b, links[1]), (b, links[1], a, links[0])] {
            let edge = Edge {
                peer,
                peer_link,
                verifier: Verifier::new(self.nodes[n].signer.address(), NETWORK),
                held: HeldForKey::new(),
            };
            self.nodes[n].edges.insert(link, edge);
        }
        for (n, link, peer) in [(a, links[0], b), (b, links[1], a)] {
            let peer = self.nodes[peer].signer.key();
            let class = LinkClass::Unconstrained;
            self.handle(n, Input::LinkUp(LinkInfo { link, peer, class, trusted: false, account: None }));
        }
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        let Some(link) = self.link_between(a, b) else { return };
        let peer_link = self.nodes[a].edges[&link].peer_link;
        for (n, link) in [(a, link), (b, peer_link)] {
            self.nodes[n].edges.remove(&link);
            self.handle(n, Input::LinkDown(link));
        }
    }

    pub(super) fn link_between(&self, a: usize, b: usize) -> Option<LinkId> {
        self.nodes[a].edges.iter().find(|(_, edge)| edge.peer == b).map(|(link, _)| *link)
    }

    /// Who is on the other end of a node's link.
    pub(super) fn peer_over(&self, n: usize, link: LinkId) -> Option<usize> {
        self.nodes[n].edges.get(&link).map(|edge| edge.peer)
    }

    pub(super) fn address(&self, n: usize) -> Address {
        self.nodes[n].signer.address()
    }

    /// Sends from `from` to `to`, and gives the packet.
    pub(super) fn send(&mut self, from: usize, to: Address, kind: EnvelopeKind) -> PacketId {
        let (packet_id, envelope) = self.nodes[from].signer.envelope(to, kind);
        self.originate(from, packet_id, envelope);
        packet_id
    }

    pub(super) fn originate(&mut self, from: usize, packet_id: PacketId, envelope: Envelope) {
        self.handle(from, Input::Originate(vec![(packet_id, envelope)], CustodyWish::Welcome));
        self.run();
    }

    /// The destination's receipt for what it got.
    pub(super) fn receipt(&mut self, from: usize, to: Address, ids: &[PacketId]) -> PacketId {
        let receipt = Receipt { packet_ids: ids.to_vec(), chunks: vec![], unwanted: Vec::new() };
        let signer = &mut self.nodes[from].signer;
        let header = signer.header(to, EnvelopeKind::RECEIPT);
        let (packet_id, envelope) = signer.seal(header, &receipt.encode());
        self.originate(from, packet_id, envelope);
        packet_id
    }

    /// Copies of a packet that reached node `n`.
    pub(super) fn copies(&self, n: usize, packet_id: PacketId) -> usize {
        self.nodes[n].delivered.iter().filter(|packet| packet.packet_id == packet_id).count()
    }

    /// Hands an input to a node and carries out what follows at that node.
    pub(super) fn handle(&mut self, n: usize, input: Input) {
        let (now, wall) = (self.now, self.wall);
        self.nodes[n].router.handle(now, wall, input);
        while let Some(output) = self.nodes[n].router.poll() {
            self.perform(n, output);
        }
    }

    /// Carries frames until none is under way. Whatever loops there are end.
    pub(super) fn run(&mut self) {
        let mut carried = 0;
        while let Some((n, link, frame)) = self.wire.pop_front() {
            carried += 1;
            assert!(carried < 200_000, "frames circulate for ever");
            self.receive(n, link, frame);
        }
    }

    /// Lets time pass, with every timer on the way.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        self.run();
        loop {
            let wakes = (0..self.nodes.len()).map(|n| (self.nodes[n].router.next_wake().0, n));
            let Some((at, n)) = wakes.min().filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            self.handle(n, Input::Timeout);
            self.run();
        }
        self.now = end;
    }

    /// Long enough for links to settle and announces to spread.
    pub(super) fn settle(&mut self) {
        self.advance(Duration::from_secs(30));
    }

    fn transmit(&mut self, n: usize, link: LinkId, frame: Bytes) {
        self.frames_sent += 1;
        if let Some(edge) = self.nodes[n].edges.get(&link) {
            self.wire.push_back((edge.peer, edge.peer_link, frame));
        }
    }

    fn perform(&mut self, n: usize, output: Output) {
        match output {
            Output::Forward(link, batch) => {
                for packet in batch {
                    self.nodes[n].check_forward(link, &packet);
                    if self.nodes[n].lies && packet.source != self.address(n) {
                        self.nodes[n].swallowed += 1;
                        continue;
                    }
                    let hops = if self.nodes[n].resets_hops { 0 } else { packet.envelope.hop_count() };
                    let frame = packet.envelope.with_hop_count(hops).to_frame(packet.ext).to_bytes();
                    self.transmit(n, link, frame);
                }
            }
            Output::Deliver(_, batch) => self.nodes[n].delivered.extend(batch),
            Output::Seen(_, packet) => self.nodes[n].seen.push(*packet),
            Output::Custody(_, batch) => {
                let ids = batch.iter().map(|packet| packet.packet_id).collect();
                self.nodes[n].custody.extend(batch);
                self.handle(n, Input::CustodyTaken(ids));
            }
            Output::Control(link, Frame::Announce(announce)) => {
                let hop_count =
                    if self.nodes[n].lies { announce.hop_count.min(1) } else { announce.hop_count };
                self.transmit(n, link, Frame::Announce(Announce { hop_count, ..announce }).encode());
            }
            Output::Control(link, frame) => self.transmit(n, link, frame.encode()),
            Output::Refused(refuse) => self.nodes[n].refused.push(refuse),
            Output::InCustody { packet_ids, .. } => self.nodes[n].in_custody.extend(packet_ids),
            Output::RouteUp(address) => assert!(self.nodes[n].up.insert(address)),
            Output::RouteDown(address) => assert!(self.nodes[n].up.remove(&address)),
            Output::KeyRecord(record) => {
                self.nodes[n].key_records.insert(record.address(), *record);
            }
            Output::AnnounceDue { max_hops } => {
                let node = &mut self.nodes[n];
                node.order.1 += 1;
                let record = node.record.clone();
                let mut content = node.signer.content(node.order, max_hops);
                content.key_record_hash = Some(record.hash8());
                let mut announce = node.signer.sign_announce(content);
                announce.key_record = Some(record.signed().clone());
                self.handle(n, Input::OwnAnnounce(Box::new(announce)));
            }
            Output::OwnOrderSeen(order) => {
                let node = &mut self.nodes[n];
                node.own_order_seen.push(order);
                node.order = node.order.max((order.0, order.1 + 1));
                self.perform(n, Output::AnnounceDue { max_hops: 128 });
            }
        }
    }

    fn receive(&mut self, n: usize, link: LinkId, frame: Bytes) {
        let now = self.now;
        let Some(edge) = self.nodes[n].edges.get_mut(&link) else { return };
        let frame = Frame::decode(&frame).expect("routers send sound frames");
        let mut arrived = Vec::new();
        match frame {
            Frame::Envelope(envelope, ext) => arrived.push((envelope, ext)),
            Frame::Announce(announce) => {
                let inbound = edge.verifier.verify_announce(announce).expect("announces verify");
                if self.nodes[n].lies {
                    self.spread_lie(n, &inbound.announce);
                }
                return self.handle(n, Input::Announce(link, Box::new(inbound)));
            }
            Frame::PathReply(announce) => {
                let inbound = edge.verifier.verify_announce(announce).expect("announces verify");
                return self.handle(n, Input::PathReply(link, Box::new(inbound)));
            }
            Frame::KeyReply(record) => {
                let record = edge.verifier.verify_key_record(&record).expect("records verify");
                return self.handle(n, Input::KeyRecord(Box::new(record)));
            }
            Frame::KeyOffer(key) => {
                let address = crate::crypto::compute_address(&key);
                let Some(waiting) = edge.held.take(&address) else { return };
                edge.verifier.learn_key(&address, &key).expect("keys fit");
                arrived = waiting;
            }
            Frame::Refuse(refuse) => {
                self.nodes[n].comes_back(link, &refuse.packet_id);
                return self.handle(n, Input::Control(link, Frame::Refuse(refuse)));
            }
            other => return self.handle(n, Input::Control(link, other)),
        }
        for (envelope, ext) in arrived {
            let Some(edge) = self.nodes[n].edges.get_mut(&link) else { return };
            match edge.verifier.verify(envelope, ext) {
                VerifyOutcome::Verified(packet) => {
                    self.nodes[n].comes_back(link, &packet.packet_id);
                    self.handle(n, Input::Envelopes(link, vec![packet]));
                }
                VerifyOutcome::KeyNeeded { source, envelope, ext } => {
                    if edge.held.hold(now, source, envelope, ext) == Hold::Ask {
                        self.transmit(n, link, Frame::KeyNeeded(source).encode());
                    }
                }
                VerifyOutcome::CameBack(packet_id) => {
                    let refuse = Refuse { packet_id, reason: RefuseReason::Loop, retry_after_s: 0 };
                    self.transmit(n, link, Frame::Refuse(refuse).encode());
                }
                // An echo of a broadcast.
                VerifyOutcome::Failed(_) => {}
            }
        }
    }

    /// Tells every neighbour of a liar, the one included that brought an announce, that its origin
    /// is next to it.
    fn spread_lie(&mut self, n: usize, announce: &Announce) {
        let order = announce.content.order();
        let told = self.nodes[n].told.entry(announce.content.public_key.0).or_default();
        if *told >= order {
            return;
        }
        *told = order;
        let frame = Frame::Announce(Announce { hop_count: 1, ..announce.clone() }).encode();
        for link in self.nodes[n].edges.keys().copied().collect::<Vec<_>>() {
            self.transmit(n, link, frame.clone());
        }
    }

    /// Forgets the keys that a link's verifier has seen.
    pub(super) fn forget_keys(&mut self, n: usize, peer: usize) {
        let own = self.address(n);
        let link = self.link_between(n, peer).unwrap();
        self.nodes[n].edges.get_mut(&link).unwrap().verifier = Verifier::new(own, NETWORK);
    }

    /// Puts a frame on the wire as a neighbour `from` would, whatever its router thinks of it.
    pub(super) fn inject(&mut self, from: usize, to: usize, envelope: &Envelope, ext: FrameExt) {
        let link = self.link_between(from, to).unwrap();
        self.transmit(from, link, envelope.to_frame(ext).to_bytes());
        self.run();
    }

    /// True where every node has a path to every other one.
    pub(super) fn is_converged(&self) -> bool {
        let count = self.nodes.len();
        (0..count).all(|a| (0..count).all(|b| a == b || self.nodes[a].router.is_reachable(&self.address(b))))
    }
}

impl SimNode {
    fn new(n: usize, now: Instant, configure: impl FnOnce(&mut RouterConfig)) -> Self {
        let mut signer = Node::new(n as u8 + 1);
        let mut config = RouterConfig::new(signer.key());
        configure(&mut config);
        Self {
            record: signer.key_record(1),
            router: Router::new(config, now, n as u64 + 1),
            signer,
            order: (1, 0),
            edges: BTreeMap::new(),
            links_made: 0,
            resets_hops: false,
            lies: false,
            swallowed: 0,
            delivered: Vec::new(),
            custody: Vec::new(),
            refused: Vec::new(),
            in_custody: Vec::new(),
            seen: Vec::new(),
            own_order_seen: Vec::new(),
            key_records: BTreeMap::new(),
            up: BTreeSet::new(),
            went_over: BTreeMap::new(),
            came_back: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// A node with the default configuration.
    pub(super) fn fresh(n: usize, now: Instant) -> Self {
        Self::new(n, now, |_| {})
    }

    pub(super) fn reasons(&self) -> Vec<RefuseReason> {
        self.refused.iter().map(|refuse| refuse.reason).collect()
    }

    /// What holds of every envelope that a router sends.
    fn check_forward(&mut self, link: LinkId, packet: &InboundEnvelope) {
        let record = self.router.dedup.record(&packet.packet_id).expect("sent packets are on record");
        assert_ne!(record.ingress, Ingress::Link(link), "a packet went back over its ingress");
        assert!(packet.envelope.hop_count() < packet.envelope.header().max_hops);
        let is_own = packet.source == self.signer.address();
        assert!(is_own || packet.envelope.hop_count() > 0, "the hop count grows");
        if packet.ext.retransmit {
            return;
        }
        let went_over = self.went_over.entry(packet.packet_id).or_default();
        let crossed = packet.envelope.hop_count().saturating_sub(1);
        // The first may have ended a few links further on: see [`crate::proto::dedup`].
        let lowest = went_over.iter().map(|(_, crossed)| *crossed).min();
        let was_raced = lowest.is_some_and(|lowest| {
            2 * u16::from(lowest) > u16::from(packet.envelope.header().max_hops) && 2 * crossed <= lowest
        });
        if !was_raced {
            // Once, and again where it did not get further; over the same link only where that handed it back
            // and this copy made fewer hops than any before.
            let came_back = self.came_back.get(&packet.packet_id).map_or(&[][..], Vec::as_slice);
            let is_shorter = lowest.is_some_and(|lowest| crossed < lowest);
            let may_repeat = is_shorter && came_back.contains(&link);
            let is_repeated = went_over.iter().any(|(over, _)| *over == link);
            assert!(may_repeat || !is_repeated, "a packet went twice over one link");
            let goes_to_many = packet.destination == Address::BROADCAST;
            let unsent = usize::try_from(self.router.counters().rerouted).unwrap();
            let tries_more = unsent.max(came_back.len());
            let tries_more = if is_shorter { tries_more } else { tries_more.min(2) };
            assert!(goes_to_many || went_over.len() <= tries_more, "a packet was forwarded twice");
        }
        went_over.push((link, crossed));
    }

    /// Notes what comes from where the packet went.
    fn comes_back(&mut self, link: LinkId, packet_id: &PacketId) {
        if self.went_over.get(packet_id).is_some_and(|went| went.iter().any(|(over, _)| *over == link)) {
            self.came_back.entry(*packet_id).or_default().push(link);
        }
    }

    /// Packets that the checks remember; tests that hand packets on again on purpose clear them.
    pub(super) fn forget_checks(&mut self) {
        self.went_over.clear();
        self.came_back.clear();
    }
}
