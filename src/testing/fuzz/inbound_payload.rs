//! Any bytes as the payload of an envelope that reached its destination, of every kind; and as a chunk
//! of a file, and as the place in a Merkle tree that a batch's proof names.

use std::{cell::RefCell, sync::LazyLock};

use crate::{
    crypto::{
        FileKey, MeshIdentity, OpenSessions, ReceiverKeys, SignatureInput, merkle, random::SeededRng,
        seal::SealedPayload,
    },
    proto::{
        delivery::inbound::{Arrived, arrived},
        verify::Verified,
    },
    wire::{
        Address, Digest, Envelope, EnvelopeHeader, EnvelopeKind, FrameExt, Lifetime, MessageUid, NetworkId,
        NodeName, PacketId, Priority, Proof, PublicKey, Signature, cbor,
        limits::{MERKLE_LEVELS_MAX, PAYLOAD_BYTES_MAX},
    },
};

use super::Script;

const NETWORK: NetworkId = NetworkId([7; 16]);
const SOURCE: PublicKey = PublicKey([9; 32]);

static IDENTITY: LazyLock<MeshIdentity> = LazyLock::new(|| MeshIdentity::from_seed([3; 32]));

thread_local! {
    static KEYS: RefCell<ReceiverKeys> = RefCell::new(ReceiverKeys::new(
        IDENTITY.public_key(),
        1_800_000_000,
        &mut SeededRng::new(5),
    ));
}

pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = EnvelopeKind(script.below(16));
    let names_our_key = script.bool();
    let rest = script.clone().rest();
    open_anything(kind, names_our_key, rest.get(..rest.len().min(PAYLOAD_BYTES_MAX)).unwrap_or_default());
    prove_anything(&mut script);
    let (index, total, uid) = (script.u32() % 9, script.u32() % 9, MessageUid(script.array()));
    let opened = FileKey::from_bytes([1; 32]).open_chunk(&uid, index, total, script.rest());
    assert!(opened.is_err(), "a chunk opened that nobody sealed");
}

fn open_anything(kind: EnvelopeKind, names_our_key: bool, payload: &[u8]) {
    KEYS.with_borrow(|keys| {
        let payload = match keys.record().keys.first() {
            Some(key) if names_our_key => sealed_to(key.rk_id, payload),
            _ => payload.to_vec(),
        };
        let header = EnvelopeHeader {
            kind,
            priority: Priority::Normal,
            source: NodeName::Address(Address([8; 16])),
            destination: NodeName::Address(IDENTITY.address()),
            boot_epoch: 1,
            sequence: 1,
            created_unix_s: 1_800_000_000,
            lifetime: Lifetime::ONE_DAY,
            max_hops: 8,
        };
        let proof = Proof::Signature(Signature([0; 64]));
        let Ok(envelope) = Envelope::assemble(header, &header.signed(&payload), proof, None) else { return };
        let inbound = Verified::trusted(PacketId([1; 16]), SOURCE, envelope, FrameExt::default());
        let (mut sessions, mut scratch) = (OpenSessions::new(NETWORK), SignatureInput::new(NETWORK));
        match arrived(keys, &mut sessions, &mut scratch, &inbound) {
            Ok(Arrived::Sealed(_)) => panic!("a seal opened that nobody made"),
            Ok(Arrived::CannotOpen) => {
                // Only what is made for another key, and else is well-formed.
                assert!(
                    SealedPayload::decode(&payload).is_ok_and(|sealed| keys.lookup(sealed.rk_id).is_none())
                );
            }
            Ok(_) => assert!(kind.name() != "unknown"),
            Err(error) => assert!(!error.label().is_empty()),
        }
        assert!(sessions.len() <= 1);
    });
}

/// A well-formed payload under a key that this node has.
fn sealed_to(rk_id: u32, bytes: &[u8]) -> Vec<u8> {
    let mut script = Script::new(bytes);
    let mut out = Vec::with_capacity(bytes.len().saturating_add(48));
    cbor::put_array(&mut out, 4);
    cbor::put_uint(&mut out, u64::from(rk_id));
    // A few, so that sessions are found again; the first is a point of small order.
    cbor::put_bytes(&mut out, &[script.below(4); 32]);
    cbor::put_uint(&mut out, u64::from(script.u32()));
    let most = PAYLOAD_BYTES_MAX.saturating_sub(48);
    let content = script.rest();
    cbor::put_bytes(&mut out, content.get(..content.len().min(most)).unwrap_or_default());
    out
}

fn prove_anything(script: &mut Script<'_>) {
    let (leaf, index) = (Digest(script.array()), script.u32() >> script.below(32));
    let path: Vec<Digest> = (0..script.below(12)).map(|n| Digest([n; 32])).collect();
    if merkle::root_from_path(leaf, index, &path).is_some() {
        assert!(path.len() <= MERKLE_LEVELS_MAX && u64::from(index) < 1 << path.len());
    }
}
