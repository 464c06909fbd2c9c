//! One signature for what is sent together.
//!
//! A signature costs its source 15 µs, and every relay on the way 36 µs to check; a Merkle path of
//! six levels costs each of them 3 µs and the wire 192 bytes. So what leaves in one step is signed
//! once over its Merkle root. Nothing waits for company: a lone envelope carries a plain signature
//! and goes at once, and a busy source finds its batches in what is due anyway.
//!
//! Envelopes for destinations on thin links are signed one by one whatever goes with them: there 32
//! bytes a level cost more than any signature.

use crate::{
    crypto::{MerkleTree, MeshIdentity, SignatureInput, SignedType, merkle::leaf, sign::packet_id},
    wire::{Digest, Envelope, EnvelopeFormat, EnvelopeHeader, PacketId, Proof},
};

use super::compose::{ComposeError, Composed};

/// Most envelopes under one signature. From 32 to 64 the share of signatures in a relay's time fell
/// from 21 to 11 % of the samples (`qpc bench relay --proof merkle`), for one more hash a message there
/// and 32 bytes on the wire. More was not measured.
pub const BATCH_LEAVES_MAX: usize = 64;

/// An envelope that is numbered and, where it is private, sealed, but not signed yet.
#[derive(Debug)]
pub struct Draft {
    header: EnvelopeHeader,
    signed: Vec<u8>,
    is_thin: bool,
}

impl Draft {
    /// `signed` must come from [`EnvelopeHeader::signed`] of the same header.
    pub fn new(header: EnvelopeHeader, signed: Vec<u8>) -> Self {
        Self { header, signed, is_thin: false }
    }

    /// For a destination where bytes cost more than signatures: signed by itself.
    pub fn for_thin_links(self, is_thin: bool) -> Self {
        Self { is_thin, ..self }
    }

    fn signed_type(&self) -> SignedType {
        match self.header.format() {
            EnvelopeFormat::V1 => SignedType::EnvelopeV1,
            EnvelopeFormat::V2 => SignedType::EnvelopeV2,
        }
    }

    fn finish(self, proof: Proof, packet_id: PacketId) -> Result<Composed, ComposeError> {
        Ok(Composed { envelope: Envelope::assemble(self.header, &self.signed, proof, None)?, packet_id })
    }
}

/// Signs one envelope by itself.
///
/// # Errors
/// [`ComposeError::Assemble`].
pub fn sign_one(
    identity: &MeshIdentity,
    scratch: &mut SignatureInput,
    draft: Draft,
) -> Result<Composed, ComposeError> {
    let input = scratch.of(draft.signed_type(), &draft.signed);
    let (packet_id, signature) = (input.packet_id(), identity.sign(input));
    draft.finish(Proof::Signature(signature), packet_id)
}

/// Signs what is sent together, in its order: with as few signatures as [`BATCH_LEAVES_MAX`] lets,
/// and a plain one each for thin destinations and whoever is left alone. What comes with a draft
/// comes back with its envelope.
pub fn sign_all<T>(
    identity: &MeshIdentity,
    scratch: &mut SignatureInput,
    drafts: Vec<(T, Draft)>,
) -> Vec<(T, Result<Composed, ComposeError>)> {
    let shared: Vec<usize> =
        drafts.iter().enumerate().filter(|(_, (_, draft))| !draft.is_thin).map(|(at, _)| at).collect();
    let mut proofs: Vec<Option<(Proof, PacketId)>> = drafts.iter().map(|_| None).collect();
    // As even as they come: 65 make 33 and 32 rather than 64 and one left alone.
    let batches = shared.len().div_ceil(BATCH_LEAVES_MAX).max(1);
    for batch in shared.chunks(shared.len().div_ceil(batches).max(2)) {
        prove(identity, scratch, &drafts, batch, &mut proofs);
    }
    let sign = |((with, draft), proof): ((T, Draft), Option<(Proof, PacketId)>)| {
        let made = match proof {
            Some((proof, packet_id)) => draft.finish(proof, packet_id),
            None => sign_one(identity, scratch, draft),
        };
        (with, made)
    };
    drafts.into_iter().zip(proofs).map(sign).collect()
}

/// One signature for the drafts at these places; none for fewer than two.
fn prove<T>(
    identity: &MeshIdentity,
    scratch: &mut SignatureInput,
    drafts: &[(T, Draft)],
    batch: &[usize],
    proofs: &mut [Option<(Proof, PacketId)>],
) {
    if batch.len() < 2 {
        return;
    }
    let (ids, leaves): (Vec<PacketId>, Vec<Digest>) = batch
        .iter()
        .filter_map(|at| drafts.get(*at))
        .map(|(_, draft)| {
            let input = scratch.of(draft.signed_type(), &draft.signed);
            {
                let digest = input.digest();
                (packet_id(&digest), leaf(&digest))
            }
        })
        .unzip();
    // A batch has as many leaves as a tree may have; were it not so, each would be signed by itself.
    let Ok(tree) = MerkleTree::new(leaves) else { return };
    let root_signature = identity.sign(scratch.of(SignedType::MerkleRoot, tree.root().as_bytes()));
    for ((index, at), packet_id) in (0u32..).zip(batch).zip(ids) {
        let (Some(slot), Some(path)) = (proofs.get_mut(*at), tree.path(index as usize)) else { continue };
        *slot = Some((Proof::Merkle { root_signature, index, path }, packet_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::network_id,
        proto::verify::{Verifier, VerifyOutcome},
        wire::{
            Address, EnvelopeKind, FrameExt, Lifetime, NodeName, Priority,
            limits::{FRAME_BYTES_MAX, MAX_HOPS_MAX, PAYLOAD_BYTES_MAX},
        },
    };

    fn identity() -> MeshIdentity {
        MeshIdentity::from_seed([1; 32])
    }

    fn scratch() -> SignatureInput {
        SignatureInput::new(network_id("public"))
    }

    fn draft(sequence: u32, payload: &[u8]) -> Draft {
        let header = EnvelopeHeader {
            kind: EnvelopeKind::MESSAGE,
            priority: Priority::Critical,
            source: NodeName::Address(identity().address()),
            destination: NodeName::Address(Address([7; 16])),
            boot_epoch: u16::MAX,
            sequence: u32::MAX - sequence,
            created_unix_s: u32::MAX,
            lifetime: Lifetime::MAX,
            max_hops: MAX_HOPS_MAX,
        };
        Draft::new(header, header.signed(payload))
    }

    /// Signs them, and checks that each comes back in its place and holds.
    fn sign(drafts: Vec<Draft>) -> Vec<Composed> {
        let wanted: Vec<_> = drafts.iter().map(|draft| draft.header).collect();
        let made = sign_all(&identity(), &mut scratch(), (0usize..).zip(drafts).collect());
        let mut verifier = Verifier::new(Address([0xee; 16]), network_id("public"));
        let made = made.into_iter().enumerate().map(|(at, (tag, composed))| {
            let composed = composed.unwrap();
            assert_eq!((at, &wanted[at]), (tag, composed.envelope.header()));
            let envelope = composed.envelope.with_source_key(identity().public_key());
            match verifier.verify(envelope, FrameExt::default()) {
                VerifyOutcome::Verified(inbound) => assert_eq!(inbound.packet_id, composed.packet_id),
                other => panic!("{at}: {other:?}"),
            }
            composed
        });
        made.collect()
    }

    /// Levels of the path by envelope; 0 is a plain signature.
    fn levels(made: &[Composed]) -> Vec<usize> {
        let levels = made.iter().map(|made| match made.envelope.proof() {
            Proof::Signature(_) => 0,
            Proof::Merkle { path, .. } => path.len(),
        });
        levels.collect()
    }

    fn drafts(count: u32) -> Vec<Draft> {
        (0..count).map(|n| draft(n, b"payload")).collect()
    }

    #[test]
    fn a_lone_envelope_is_plain_and_two_share_a_signature() {
        assert_eq!(levels(&sign(drafts(0))), [0usize; 0]);
        assert_eq!(levels(&sign(drafts(1))), [0]);
        assert_eq!(levels(&sign(drafts(2))), [1, 1]);
        assert_eq!(levels(&sign(drafts(3))), [2, 2, 2]);
    }

    #[test]
    fn no_batch_is_larger_than_its_bound_and_nobody_is_left_alone() {
        for count in [BATCH_LEAVES_MAX as u32, 33, 65, 128, 129, 300] {
            let made = sign(drafts(count));
            assert!(levels(&made).iter().all(|levels| (1..=6).contains(levels)), "{count}");
            let roots: std::collections::BTreeSet<_> = made
                .iter()
                .map(|made| match made.envelope.proof() {
                    Proof::Merkle { root_signature, .. } => root_signature.0,
                    Proof::Signature(signature) => signature.0,
                })
                .collect();
            assert_eq!(roots.len(), (count as usize).div_ceil(BATCH_LEAVES_MAX), "{count}");
        }
    }

    #[test]
    fn envelopes_for_thin_links_are_plain_among_others() {
        let mixed = |thin: fn(u32) -> bool| {
            let drafts = (0..6).map(|n| draft(n, b"payload").for_thin_links(thin(n)));
            levels(&sign(drafts.collect()))
        };
        assert_eq!(mixed(|n| n % 2 == 0), [0, 2, 0, 2, 0, 2]);
        // One that is left among thin ones is alone.
        assert_eq!(mixed(|n| n != 3), [0; 6]);
        assert_eq!(mixed(|_| true), [0; 6]);
    }

    #[test]
    fn the_largest_payload_fits_a_frame_with_its_path() {
        let largest = (0..BATCH_LEAVES_MAX as u32).map(|n| draft(n, &[7; PAYLOAD_BYTES_MAX]));
        for made in sign(largest.collect()) {
            let envelope = made.envelope.with_source_key(identity().public_key());
            let ext =
                FrameExt { age_s: u32::MAX, retransmit: true, custody_declined: true, ..FrameExt::default() };
            let mut envelope = envelope;
            envelope.set_hop_count(u8::MAX);
            let len = envelope.to_frame(ext).len();
            assert!(len <= FRAME_BYTES_MAX, "{len}");
            assert!(crate::wire::Frame::decode(&envelope.to_frame(ext).to_bytes()).is_ok());
        }
    }
}
