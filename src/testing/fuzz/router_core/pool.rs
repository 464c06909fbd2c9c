//! The nodes and packets of a router's story: few, so that they meet; made once, since what they are
//! made of is real. Nothing is signed where nobody looks: a link's verifier stands in front of a router.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::{
    crypto::{MeshIdentity, SignatureInput, VerifiedKeyRecord, compute_address, key_record},
    proto::verify::{InboundAnnounce, InboundEnvelope, Verified},
    wire::{
        Address, Announce, AnnounceContent, Capabilities, Envelope, EnvelopeHeader, EnvelopeKind, FrameExt,
        KeyRecord, Lifetime, NetworkId, NodeName, PacketId, Priority, Proof, PublicKey, ReceiverKey,
        Signature,
        limits::{MAX_HOPS_MAX, TRACE_CONTEXT_BYTES},
        receipt::Receipt,
    },
};

use super::super::Script;

/// Nodes that there are: the router's own, its neighbours, and the rest of the mesh.
pub(super) const NODES: u8 = 40;

/// When all packets were made, in seconds since 1970.
pub(super) const CREATED: u32 = 1_800_000_000;

/// Packets that there are.
const PACKETS: u8 = 48;

/// The packets of this node's own are the last of them.
const OWN_FROM: u8 = 40;

const NETWORK: NetworkId = NetworkId([7; 16]);

static KEYS: LazyLock<Vec<PublicKey>> = LazyLock::new(|| {
    (0..NODES).map(|n| MeshIdentity::from_seed([n.wrapping_add(1); 32]).public_key()).collect()
});

static ADDRESSES: LazyLock<Vec<Address>> = LazyLock::new(|| KEYS.iter().map(compute_address).collect());

static RECORDS: LazyLock<Vec<VerifiedKeyRecord>> = LazyLock::new(|| (0..6).filter_map(record).collect());

static ENVELOPES: LazyLock<Vec<Envelope>> = LazyLock::new(|| (0..PACKETS).filter_map(envelope).collect());

fn key(n: u8) -> PublicKey {
    KEYS.get(usize::from(n % NODES)).copied().unwrap_or(PublicKey([0; 32]))
}

/// The address of a node; now and then of nobody.
pub(super) fn address(n: u8) -> Address {
    match n {
        255 => Address::BROADCAST,
        254 => Address([0x55; 16]),
        n => ADDRESSES.get(usize::from(n % NODES)).copied().unwrap_or(Address::BROADCAST),
    }
}

pub(super) fn own_key() -> PublicKey {
    key(0)
}

/// A neighbour.
pub(super) fn peer(n: u8) -> PublicKey {
    key(n.saturating_add(1))
}

pub(super) fn packet_id(n: u8) -> PacketId {
    PacketId([n % PACKETS; 16])
}

fn record(n: u8) -> Option<VerifiedKeyRecord> {
    let identity = MeshIdentity::from_seed([n.wrapping_add(1); 32]);
    let keys = vec![ReceiverKey { rk_id: 1, suite: 1, x25519: [9; 32] }];
    let record = KeyRecord { public_key: identity.public_key(), order: 5, not_after: u32::MAX, keys };
    key_record::sign(&identity, &mut SignatureInput::new(NETWORK), &record).ok()
}

pub(super) fn key_record(n: u8) -> VerifiedKeyRecord {
    match RECORDS.get(usize::from(n) % RECORDS.len().max(1)) {
        Some(record) => record.clone(),
        None => panic!("no key record could be signed"),
    }
}

fn content(n: u8, order: (u32, u32), max_hops: u8) -> AnnounceContent {
    let thin = if n % 5 == 4 { Capabilities::CONSTRAINED } else { 0 };
    AnnounceContent {
        public_key: key(n),
        boot_epoch: order.0,
        sequence: order.1,
        capabilities: Capabilities(Capabilities::RELAY | thin),
        lifetime_s: 1800,
        max_hops,
        key_record_hash: None,
        keypackage_hash: None,
        service_data: Bytes::new(),
    }
}

fn announce_of(content: AnnounceContent) -> Announce {
    let signed = content.encode().into();
    Announce::new(content, signed, Signature([7; 64]), None)
}

/// Anybody's announce, as it comes over a link.
pub(super) fn announce(script: &mut Script<'_>) -> Verified<InboundAnnounce> {
    let n = script.below(NODES);
    let order = (u32::from(script.below(2)) + 1, script.edge(u64::from(u32::MAX)) as u32);
    let max_hops = if script.bool() { MAX_HOPS_MAX } else { script.below(8).saturating_add(1) };
    let hop_count = if script.bool() { script.below(6) } else { script.u8() };
    let announce = Announce { hop_count, ..announce_of(content(n, order, max_hops)) };
    Verified::unchecked(address(n), announce)
}

pub(super) fn own_announce(sequence: u32) -> Announce {
    announce_of(content(0, (1, sequence), MAX_HOPS_MAX))
}

/// Packet number `n`, always the same. Of each seven one goes to everyone.
fn envelope(n: u8) -> Option<Envelope> {
    let source = if n >= OWN_FROM { 0 } else { n % 11 + 1 };
    let kinds = [
        EnvelopeKind::MESSAGE,
        EnvelopeKind::CHUNK,
        EnvelopeKind::RECEIPT,
        EnvelopeKind::PING,
        EnvelopeKind::TRACE,
        EnvelopeKind(33),
    ];
    let is_broadcast = n % 7 == 6;
    let kind = if is_broadcast { EnvelopeKind::BROADCAST } else { kinds[usize::from(n) % kinds.len()] };
    // To this node, to neighbours and to others.
    let to = [0, 1, 2, 3, 12, 13, 30, 31][usize::from(n / 2) % 8];
    let payload = if kind == EnvelopeKind::RECEIPT {
        Receipt {
            packet_ids: vec![packet_id(n / 2), packet_id(n + 1)],
            chunks: Vec::new(),
            unwanted: Vec::new(),
        }
        .encode()
    } else {
        vec![n; usize::from(n) * 40]
    };
    let header = EnvelopeHeader {
        kind,
        priority: Priority::from_bits(n),
        source: NodeName::Address(address(source)),
        destination: NodeName::Address(if is_broadcast { Address::BROADCAST } else { address(to) }),
        boot_epoch: 1,
        sequence: u32::from(n),
        created_unix_s: CREATED,
        lifetime: if is_broadcast { Lifetime::TEN_MINUTES } else { Lifetime::ONE_DAY },
        max_hops: [1, 2, 8, MAX_HOPS_MAX][usize::from(n) % 4],
    };
    Envelope::assemble(header, &header.signed(&payload), Proof::Signature(Signature([7; 64])), None).ok()
}

pub(super) fn is_broadcast(envelope: &Envelope) -> bool {
    envelope.header().destination == NodeName::Address(Address::BROADCAST)
}

/// One to four packets, either all to everyone or none.
pub(super) fn batch(script: &mut Script<'_>) -> Vec<Verified<InboundEnvelope>> {
    let mut batch: Vec<_> = (0..=script.below(4)).filter_map(|_| packet(script)).collect();
    if let Some(first) = batch.first() {
        let to_everyone = first.destination == Address::BROADCAST;
        batch.retain(|packet| (packet.destination == Address::BROADCAST) == to_everyone);
    }
    batch
}

fn packet(script: &mut Script<'_>) -> Option<Verified<InboundEnvelope>> {
    let n = script.below(PACKETS);
    let envelope = ENVELOPES.get(usize::from(n))?;
    let hop_count = if script.bool() { script.below(4) } else { script.u8() };
    let flags = script.u8();
    let ext = FrameExt {
        age_s: if flags & 1 == 0 { 0 } else { script.edge(u64::from(u32::MAX)) as u32 },
        retransmit: flags & 6 == 6,
        custody_declined: flags & 8 != 0,
        trace_context: (flags & 0x30 == 0x30).then_some([1; TRACE_CONTEXT_BYTES]),
    };
    let source = match envelope.header().source {
        NodeName::Address(source) => source,
        NodeName::Key(key) => compute_address(&key),
    };
    let source_key = KEYS.iter().find(|key| compute_address(key) == source).copied().unwrap_or(key(1));
    Some(Verified::trusted(packet_id(n), source_key, envelope.with_hop_count(hop_count), ext))
}

/// One to four packets of this node's own, either all to everyone or none.
pub(super) fn own_batch(script: &mut Script<'_>) -> Vec<(PacketId, Envelope)> {
    let mut batch = Vec::new();
    for _ in 0..=script.below(4) {
        let n = OWN_FROM + script.below(PACKETS - OWN_FROM);
        batch.extend(ENVELOPES.get(usize::from(n)).map(|envelope| (packet_id(n), envelope.clone())));
    }
    if let Some((_, first)) = batch.first() {
        let to_everyone = is_broadcast(first);
        batch.retain(|(_, envelope)| is_broadcast(envelope) == to_everyone);
    }
    batch
}
