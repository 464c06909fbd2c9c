//! Nodes that sign, for the tests of the cores. Everything is real but the clock.

use bytes::Bytes;

use crate::{
    crypto::{MerkleTree, MeshIdentity, SignatureInput, SignedType, VerifiedKeyRecord, key_record},
    proto::verify::{InboundAnnounce, InboundEnvelope, Verified, Verifier, VerifyOutcome},
    wire::{
        Address, Announce, AnnounceContent, Capabilities, Digest, Envelope, EnvelopeFormat, EnvelopeHeader,
        EnvelopeKind, Frame, FrameExt, Lifetime, NetworkId, NodeName, PacketId, Priority, Proof, PublicKey,
        key_record::{KeyRecord, ReceiverKey},
    },
};

pub(in crate::proto) const NETWORK: NetworkId = NetworkId([7; 16]);

/// Seconds since 1970 at which test envelopes are made.
pub(in crate::proto) const CREATED: u32 = 1_800_000_000;

/// An identity and its sequence numbers.
pub(in crate::proto) struct Node {
    pub(in crate::proto) identity: MeshIdentity,
    input: SignatureInput,
    sequence: u32,
}

impl Node {
    pub(in crate::proto) fn new(seed: u8) -> Self {
        Self::of_seed([seed; 32])
    }

    pub(in crate::proto) fn of_seed(seed: [u8; 32]) -> Self {
        let identity = MeshIdentity::from_seed(seed);
        Self { identity, input: SignatureInput::new(NETWORK), sequence: 0 }
    }

    pub(in crate::proto) fn address(&self) -> Address {
        self.identity.address()
    }

    pub(in crate::proto) fn key(&self) -> PublicKey {
        self.identity.public_key()
    }

    pub(in crate::proto) fn content(&self, order: (u32, u32), max_hops: u8) -> AnnounceContent {
        AnnounceContent {
            public_key: self.key(),
            boot_epoch: order.0,
            sequence: order.1,
            capabilities: Capabilities(Capabilities::RELAY),
            lifetime_s: 1800,
            max_hops,
            key_record_hash: None,
            keypackage_hash: None,
            service_data: Bytes::new(),
        }
    }

    pub(in crate::proto) fn sign_announce(&mut self, content: AnnounceContent) -> Announce {
        let signed = Bytes::from(content.encode());
        let signature = self.identity.sign(self.input.of(SignedType::Announce, &signed));
        Announce::new(content, signed, signature, None)
    }

    pub(in crate::proto) fn announce(&mut self, order: (u32, u32), max_hops: u8) -> Announce {
        self.sign_announce(self.content(order, max_hops))
    }

    pub(in crate::proto) fn key_record(&mut self, order: u32) -> VerifiedKeyRecord {
        let key = ReceiverKey { rk_id: order, suite: 1, x25519: [9; 32] };
        let record = KeyRecord { public_key: self.key(), order, not_after: u32::MAX, keys: vec![key] };
        key_record::sign(&self.identity, &mut self.input, &record).expect("the record is well-formed")
    }

    pub(in crate::proto) fn announce_with_record(
        &mut self,
        order: (u32, u32),
        record: &VerifiedKeyRecord,
    ) -> Announce {
        let content = AnnounceContent { key_record_hash: Some(record.hash8()), ..self.content(order, 128) };
        Announce { key_record: Some(record.signed().clone()), ..self.sign_announce(content) }
    }

    pub(in crate::proto) fn header(&mut self, to: Address, kind: EnvelopeKind) -> EnvelopeHeader {
        self.sequence += 1;
        EnvelopeHeader {
            kind,
            priority: Priority::Normal,
            source: NodeName::Address(self.address()),
            destination: NodeName::Address(to),
            boot_epoch: 1,
            sequence: self.sequence,
            created_unix_s: CREATED,
            lifetime: if kind == EnvelopeKind::BROADCAST { Lifetime::TEN_MINUTES } else { Lifetime::ONE_DAY },
            max_hops: 128,
        }
    }

    pub(in crate::proto) fn seal(&mut self, header: EnvelopeHeader, payload: &[u8]) -> (PacketId, Envelope) {
        let signed = header.signed(payload);
        let signed_type = match header.format() {
            EnvelopeFormat::V1 => SignedType::EnvelopeV1,
            EnvelopeFormat::V2 => SignedType::EnvelopeV2,
        };
        let input = self.input.of(signed_type, &signed);
        let packet_id = input.packet_id();
        let signature = self.identity.sign(input);
        let envelope = Envelope::assemble(header, &signed, Proof::Signature(signature), None).unwrap();
        (packet_id, envelope)
    }

    pub(in crate::proto) fn envelope(&mut self, to: Address, kind: EnvelopeKind) -> (PacketId, Envelope) {
        let header = self.header(to, kind);
        self.seal(header, b"payload")
    }

    /// Envelopes under one signature.
    pub(in crate::proto) fn merkle_batch(&mut self, to: Address, count: usize) -> Vec<Envelope> {
        let headers: Vec<_> = (0..count).map(|_| self.header(to, EnvelopeKind::MESSAGE)).collect();
        let signed: Vec<_> = headers.iter().map(|h| h.signed(b"payload")).collect();
        let leaves: Vec<Digest> =
            signed.iter().map(|s| self.input.of(SignedType::EnvelopeV2, s).leaf()).collect();
        let tree = MerkleTree::new(leaves).unwrap();
        let root = tree.root();
        let root_signature = self.identity.sign(self.input.of(SignedType::MerkleRoot, root.as_bytes()));
        let envelopes = headers.iter().zip(&signed).enumerate().map(|(i, (header, signed))| {
            let path = tree.path(i).unwrap();
            let proof = Proof::Merkle { root_signature, index: i as u32, path };
            Envelope::assemble(*header, signed, proof, None).unwrap()
        });
        envelopes.collect()
    }

    /// The envelope as it comes out of a link's verifier, the key attached.
    pub(in crate::proto) fn inbound(&self, envelope: Envelope, ext: FrameExt) -> Verified<InboundEnvelope> {
        let mut verifier = Verifier::new(Address([0xee; 16]), NETWORK);
        match verifier.verify(envelope.with_source_key(self.key()), ext) {
            VerifyOutcome::Verified(packet) => packet,
            other => panic!("{other:?}"),
        }
    }
}

/// The announce as it comes out of a link's verifier.
pub(in crate::proto) fn verified(announce: Announce) -> Verified<InboundAnnounce> {
    Verifier::new(Address([0xee; 16]), NETWORK).verify_announce(announce).unwrap()
}

/// Over the wire and back, as a link carries it.
pub(in crate::proto) fn over_the_wire(packet: &InboundEnvelope) -> (Envelope, FrameExt) {
    let frame = packet.envelope.to_frame(packet.ext).to_bytes();
    match Frame::decode(&frame).unwrap() {
        Frame::Envelope(envelope, ext) => (envelope, ext),
        other => panic!("{other:?}"),
    }
}
