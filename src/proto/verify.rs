//! Verification at the edge: what a link received becomes [`Verified`] here, once, or goes no
//! further.
//!
//! Each link's task has a [`Verifier`] of its own. Cores behind it take `Verified<T>` only, and
//! nothing but this module makes one, so that no path leads around the check. Cheap checks come
//! first, the signature last, and nothing is remembered of what failed.

mod checked;
mod held;
mod share;
mod sources;

use std::{ops::Deref, time::Instant};

use bytes::Bytes;

use crate::{
    crypto::{
        CryptoError, SignatureInput, SignedType, VerifiedKeyRecord, VerifyKey, compute_address,
        hash::{prefix, sha256},
        key_record,
        merkle::{leaf, root_from_path},
        sign::packet_id,
    },
    wire::{
        Address, Announce, Envelope, EnvelopeFormat, EnvelopeKind, FrameExt, Lifetime, NetworkId, NodeName,
        PacketId, Priority, Proof, PublicKey, key_record::SignedKeyRecord,
    },
};

pub use checked::{ANNOUNCES_MAX, Checked, RECORDS_MAX};
pub use held::{HELD_BYTES_MAX, HELD_FOR, HeldForKey, Hold};
pub use share::{CheckShare, POOL_PER_S};
pub use sources::{ROOTS_PER_SOURCE, SOURCES_MAX};

use sources::Sources;

/// Something whose signature was checked against the key that its address certifies.
#[derive(Debug, Clone)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The content, for whoever needs it without the promise.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// An envelope that came over a link, or that this node made.
#[derive(Debug, Clone)]
pub struct InboundEnvelope {
    /// Its id, computed.
    pub packet_id: PacketId,
    /// Who signed it.
    pub source: Address,
    /// The key it was signed with.
    pub source_key: PublicKey,
    /// Who it is for; [`Address::BROADCAST`] for everyone.
    pub destination: Address,
    /// The envelope itself.
    pub envelope: Envelope,
    /// What the link said of it.
    pub ext: FrameExt,
    /// How urgent it is on its way through this node: as it says itself, or less where its
    /// neighbour has spent its share of what is critical. Never written to the wire.
    pub urgency: Priority,
}

#[cfg(any(test, feature = "testing"))]
impl Verified<InboundAnnounce> {
    /// An announce whose signatures nobody checked, for what needs a million of them.
    pub fn unchecked(origin: Address, announce: Announce) -> Self {
        let key_record = announce.key_record.clone().and_then(VerifiedKeyRecord::kept);
        Self(InboundAnnounce { origin, announce, key_record })
    }
}

impl Verified<InboundAnnounce> {
    /// An announce that this node verified before it wrote it, under its own seal, to its own store.
    /// Of the signatures nothing is checked.
    pub(super) fn sealed(announce: Announce) -> Self {
        let origin = compute_address(&announce.content.public_key);
        let key_record = announce.key_record.clone().and_then(VerifiedKeyRecord::kept);
        Self(InboundAnnounce { origin, announce, key_record })
    }
}

impl Verified<InboundEnvelope> {
    /// An envelope that this node signed a moment ago, or that it verified before it wrote it to
    /// its own store. `packet_id` and the names are the caller's word: nothing is checked.
    pub fn trusted(packet_id: PacketId, source_key: PublicKey, envelope: Envelope, ext: FrameExt) -> Self {
        let header = envelope.header();
        let (source, destination) = (name_to_address(&header.source), name_to_address(&header.destination));
        let urgency = header.priority;
        Self(InboundEnvelope { packet_id, source, source_key, destination, envelope, ext, urgency })
    }

    /// The same envelope, to wait in line with others.
    pub fn not_urgent(mut self) -> Self {
        self.0.urgency = self.0.urgency.min(Priority::Normal);
        self
    }

    /// The same envelope after another link, as it is kept until it is known to be taken.
    pub(super) fn crossed(mut self, hop_count: u8, ext: FrameExt) -> Self {
        self.0.ext = ext;
        self.0.envelope.set_hop_count(hop_count);
        self
    }

    /// The same envelope for its next link: the parts that no signature covers are set, and the
    /// source's key attached or left out.
    pub(super) fn for_link(mut self, hop_count: u8, ext: FrameExt, attach_key: bool) -> Self {
        let inner = &mut self.0;
        inner.ext = ext;
        inner.envelope.set_hop_count(hop_count);
        if attach_key {
            inner.envelope = inner.envelope.with_source_key(inner.source_key);
        } else if inner.envelope.has_attached_key() {
            inner.envelope = inner.envelope.without_source_key();
        }
        self
    }
}

/// An announce that came over a link.
#[derive(Debug, Clone)]
pub struct InboundAnnounce {
    /// Whose it is.
    pub origin: Address,
    /// The announce itself.
    pub announce: Announce,
    /// The key record it carries, where it carries one.
    pub key_record: Option<VerifiedKeyRecord>,
}

/// What became of an envelope.
#[derive(Debug)]
pub enum VerifyOutcome {
    /// Its proof holds.
    Verified(Verified<InboundEnvelope>),
    /// Its source's key is not known here: hold it in [`HeldForKey`] and ask the neighbour.
    KeyNeeded {
        /// Whose key.
        source: Address,
        /// The envelope, for another try.
        envelope: Envelope,
        /// What the link said of it.
        ext: FrameExt,
    },
    /// An envelope of this node's own, on its way to somebody else, unless the neighbour made it up: its
    /// way led in a circle, and who sent it here is to hear that. Not looked into further.
    CameBack(PacketId),
    /// It goes no further.
    Failed(VerifyError),
}

/// Why something is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A source that no node may have.
    #[error("{0} is a reserved address, no node's")]
    ReservedSource(Address),
    /// This node's own envelope came back.
    #[error("an envelope of this node's own came back")]
    OwnSource,
    /// The zero address as a destination.
    #[error("the destination is the zero address")]
    ReservedDestination,
    /// A question or a private message to everyone, or a broadcast to one.
    #[error("a {kind} envelope may not go to {destination}")]
    BroadcastKind {
        /// What it is.
        kind: &'static str,
        /// Where it was to go.
        destination: Address,
    },
    /// A broadcast that would be remembered for longer than the dedup windows last.
    #[error("a broadcast lives for {got_s} s, the limit is {limit_s} s")]
    BroadcastLifetime {
        /// Lifetime given.
        got_s: u32,
        /// Lifetime allowed.
        limit_s: u32,
    },
    /// A key, signature or address that does not hold.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A Merkle path outside any tree.
    #[error("the Merkle path fits no tree")]
    MerklePath,
    /// An announce carries a key record other than the one it names.
    #[error("the announce of {origin} carries a key record that it does not name")]
    ForeignKeyRecord {
        /// Whose announce it is.
        origin: Address,
    },
}

impl VerifyError {
    /// True where the neighbour passed on what it should have refused itself. It is charged for the
    /// failure.
    pub fn peer_fault(&self) -> bool {
        match self {
            // An echo over a loop of honest nodes.
            Self::OwnSource => false,
            Self::Crypto(error) => error.is_peer_fault(),
            _ => true,
        }
    }

    /// Name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ReservedSource(_) => "reserved_source",
            Self::OwnSource => "own_source",
            Self::ReservedDestination => "reserved_destination",
            Self::BroadcastKind { .. } => "broadcast_kind",
            Self::BroadcastLifetime { .. } => "broadcast_lifetime",
            Self::Crypto(CryptoError::PublicKey { .. }) => "weak_key",
            Self::Crypto(CryptoError::AddressMismatch { .. }) => "foreign_key",
            Self::Crypto(CryptoError::Signature { .. }) => "bad_signature",
            Self::Crypto(_) => "malformed",
            Self::MerklePath => "merkle_path",
            Self::ForeignKeyRecord { .. } => "foreign_key_record",
        }
    }
}

/// Checks what one link receives.
#[derive(Debug)]
pub struct Verifier {
    own: Address,
    input: SignatureInput,
    sources: Sources,
    checked: Checked,
    signatures_checked: u64,
}

impl Verifier {
    /// For a link of the node `own` in `network`. What other links checked is checked again.
    pub fn new(own: Address, network: NetworkId) -> Self {
        Self::sharing(own, network, Checked::default())
    }

    /// For one of several links of the node `own` in `network`, which tell each other by `checked`
    /// which announces and key records they found good.
    pub fn sharing(own: Address, network: NetworkId, checked: Checked) -> Self {
        Self {
            own,
            input: SignatureInput::new(network),
            sources: Sources::new(),
            checked,
            signatures_checked: 0,
        }
    }

    /// Checks an envelope.
    pub fn verify(&mut self, envelope: Envelope, ext: FrameExt) -> VerifyOutcome {
        let header = envelope.header();
        let source = name_to_address(&header.source);
        let destination = name_to_address(&header.destination);
        let urgency = header.priority;
        // A broadcast comes back over every circle there is, and that is well.
        if source == self.own && destination != self.own && !destination.is_reserved() {
            return VerifyOutcome::CameBack(self.packet_id(&envelope));
        }
        match self.check(&envelope, source, destination) {
            Ok(Some((packet_id, source_key))) => VerifyOutcome::Verified(Verified(InboundEnvelope {
                packet_id,
                source,
                source_key,
                destination,
                envelope,
                ext,
                urgency,
            })),
            Ok(None) => VerifyOutcome::KeyNeeded { source, envelope, ext },
            Err(error) => VerifyOutcome::Failed(error),
        }
    }

    /// Signatures that were checked and held, since the start. At most one an envelope, an announce
    /// and a key record; what batches and other links save shows here.
    pub fn signatures_checked(&self) -> u64 {
        self.signatures_checked
    }

    /// Whether an envelope says that it is for this node.
    pub fn is_for_us(&self, envelope: &Envelope) -> bool {
        name_to_address(&envelope.header().destination) == self.own
    }

    /// The id of an envelope that is not looked into further: what a refusal names it by.
    pub fn packet_id(&mut self, envelope: &Envelope) -> PacketId {
        self.input.of(signed_type(envelope), envelope.signed()).packet_id()
    }

    /// What this link may spend on announces and key records that are not known good.
    pub fn share(&self, now: Instant) -> CheckShare {
        self.checked.share(now)
    }

    /// Whether an announce and its key record were found good before, here or by another link: then
    /// [`Verifier::verify_announce`] costs no signature.
    pub fn is_known_good(&self, announce: &Announce) -> bool {
        self.checked.has_announce(&checked::announce_digest(announce))
            && announce.key_record.as_ref().is_none_or(|record| self.is_known_good_record(record))
    }

    /// The same of a key record.
    pub fn is_known_good_record(&self, record: &SignedKeyRecord) -> bool {
        self.checked.has_record(&checked::record_digest(record))
    }

    /// Checks an announce. One of this node's own passes too: it may show that the node was
    /// restored from a backup.
    ///
    /// # Errors
    /// A refused key, a signature that does not hold, a key record that is not the named one.
    pub fn verify_announce(&mut self, announce: Announce) -> Result<Verified<InboundAnnounce>, VerifyError> {
        let content = &announce.content;
        let origin = compute_address(&content.public_key);
        if origin.is_reserved() {
            return Err(VerifyError::ReservedSource(origin));
        }
        if let Some(record) = &announce.key_record {
            let named = content.key_record_hash;
            if named.is_none() || named != Some(record_hash8(record)) {
                return Err(VerifyError::ForeignKeyRecord { origin });
            }
        }
        let digest = checked::announce_digest(&announce);
        if !self.checked.has_announce(&digest) {
            let key = match self.sources.key(&origin) {
                Some(key) if key.public_key() == content.public_key => key.clone(),
                _ => VerifyKey::new(&content.public_key)?,
            };
            self.input.of(SignedType::Announce, &announce.signed).verify(&key, &announce.signature)?;
            self.count_signature();
            self.checked.announce_held_good(digest);
            // The link that an announce came over first is the likeliest to bring what its origin sends;
            // an origin that names itself by its address is known there without a question.
            self.sources.held_good(origin, &key, None);
        }
        let key_record = match &announce.key_record {
            Some(record) => {
                let record = self.verify_key_record(record)?;
                if record.address() != origin {
                    return Err(VerifyError::ForeignKeyRecord { origin });
                }
                Some(record)
            }
            None => None,
        };
        Ok(Verified(InboundAnnounce { origin, announce, key_record }))
    }

    /// Checks a key record.
    ///
    /// # Errors
    /// A refused key or a signature that does not hold.
    pub fn verify_key_record(&mut self, record: &SignedKeyRecord) -> Result<VerifiedKeyRecord, VerifyError> {
        // A copy of its own, so that a record kept for days holds on to no larger buffer.
        let own = SignedKeyRecord { signed: Bytes::copy_from_slice(&record.signed), ..record.clone() };
        let digest = checked::record_digest(record);
        if self.checked.has_record(&digest)
            && let Some(held) = VerifiedKeyRecord::kept(own.clone())
        {
            return Ok(held);
        }
        let verified = key_record::verify(&mut self.input, &own)?;
        self.count_signature();
        self.checked.record_held_good(digest);
        Ok(verified)
    }

    /// Takes a key that the neighbour offered for an address that was asked for.
    ///
    /// # Errors
    /// A key of another address, or one that is refused.
    pub fn learn_key(&mut self, asked: &Address, key: &PublicKey) -> Result<(), VerifyError> {
        let key = VerifyKey::of_address(asked, key)?;
        self.sources.held_good(*asked, &key, None);
        Ok(())
    }

    /// The packet's id and its source's key; none where that key is unknown.
    fn check(
        &mut self,
        envelope: &Envelope,
        source: Address,
        destination: Address,
    ) -> Result<Option<(PacketId, PublicKey)>, VerifyError> {
        if source.is_reserved() {
            return Err(VerifyError::ReservedSource(source));
        }
        if source == self.own {
            return Err(VerifyError::OwnSource);
        }
        check_destination(envelope, destination)?;

        let key = match (self.sources.key(&source), envelope.source_key()) {
            (Some(key), None) => key.clone(),
            (Some(key), Some(carried)) if key.public_key() == carried => key.clone(),
            (_, Some(carried)) => VerifyKey::of_address(&source, &carried)?,
            (None, None) => return Ok(None),
        };
        let source_key = key.public_key();
        let input = self.input.of(signed_type(envelope), envelope.signed());
        let digest = input.digest();
        let packet_id = packet_id(&digest);
        let new_root = match envelope.proof() {
            Proof::Signature(signature) => {
                input.verify(&key, signature)?;
                self.count_signature();
                None
            }
            Proof::Merkle { root_signature, index, path } => {
                let root = root_from_path(leaf(&digest), *index, path).ok_or(VerifyError::MerklePath)?;
                if self.sources.has_root(&source, &source_key, &root, root_signature) {
                    None
                } else {
                    self.input.of(SignedType::MerkleRoot, root.as_bytes()).verify(&key, root_signature)?;
                    self.count_signature();
                    Some((root, *root_signature))
                }
            }
        };
        self.sources.held_good(source, &key, new_root);
        Ok(Some((packet_id, source_key)))
    }

    fn count_signature(&mut self) {
        self.signatures_checked = self.signatures_checked.saturating_add(1);
    }
}

fn signed_type(envelope: &Envelope) -> SignedType {
    match envelope.format() {
        EnvelopeFormat::V1 => SignedType::EnvelopeV1,
        EnvelopeFormat::V2 => SignedType::EnvelopeV2,
    }
}

/// Broadcasts go to everyone and nothing else does: a question to everyone would be answered by
/// everyone. Kinds of a newer version may go anywhere, since nobody here answers them.
fn check_destination(envelope: &Envelope, destination: Address) -> Result<(), VerifyError> {
    let header = envelope.header();
    if destination == Address::BROADCAST {
        let limit = Lifetime::TEN_MINUTES;
        if header.lifetime > limit {
            let (got_s, limit_s) = (header.lifetime.as_secs(), limit.as_secs());
            return Err(VerifyError::BroadcastLifetime { got_s, limit_s });
        }
    } else if destination.is_reserved() {
        return Err(VerifyError::ReservedDestination);
    }
    let is_known = header.kind.0 <= EnvelopeKind::TRACE_REPLY.0;
    let fits = (header.kind == EnvelopeKind::BROADCAST) == (destination == Address::BROADCAST);
    if is_known && !fits {
        return Err(VerifyError::BroadcastKind { kind: header.kind.name(), destination });
    }
    Ok(())
}

/// The address behind a name. In V1 the broadcast address is a key of all ones, which is no
/// point of the curve.
fn name_to_address(name: &NodeName) -> Address {
    match name {
        NodeName::Address(address) => *address,
        NodeName::Key(PublicKey(key)) if *key == [0xff; 32] => Address::BROADCAST,
        NodeName::Key(key) => compute_address(key),
    }
}

/// What announces name a key record by.
fn record_hash8(record: &SignedKeyRecord) -> [u8; 8] {
    prefix(&sha256(&[&record.signed]))
}

#[cfg(test)]
mod tests;
