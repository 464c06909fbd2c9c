//! A node's own announce, made.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    crypto::{MeshIdentity, SignatureInput, SignedType, VerifiedKeyRecord},
    proto::table::Order,
    wire::{
        Announce, AnnounceContent, Capabilities, announce::ANNOUNCE_LIFETIME_S_MAX, limits::MAX_HOPS_MAX,
    },
};

/// What an announce says besides who signed it.
#[derive(Debug, Clone)]
pub struct AnnounceParts<'a> {
    /// Boot epoch and sequence: above those of every announce of this identity before it.
    pub order: Order,
    /// What the node offers.
    pub capabilities: Capabilities,
    /// How long others may keep it; at least a second, at most a day.
    pub lifetime: Duration,
    /// Links it may cross, 1…128.
    pub max_hops: u8,
    /// The record of the keys that messages to this node are sealed to; it goes along.
    pub key_record: Option<&'a VerifiedKeyRecord>,
}

/// Signs an announce. Values out of range become the nearest that are in it.
///
/// ```
/// use std::time::Duration;
/// use quicprochat_mesh::{
///     AnnounceParts, MeshIdentity, create_announce, crypto::{SignatureInput, network_id},
///     wire::Capabilities,
/// };
///
/// let anna = MeshIdentity::from_seed([1; 32]);
/// let mut input = SignatureInput::new(network_id("public"));
/// let announce = create_announce(&anna, &mut input, &AnnounceParts {
///     order: (1, 1),
///     capabilities: Capabilities(Capabilities::RELAY),
///     lifetime: Duration::from_secs(1800),
///     max_hops: 8,
///     key_record: None,
/// });
/// assert_eq!(announce.content.order(), (1, 1));
/// ```
pub fn create_announce(
    identity: &MeshIdentity,
    input: &mut SignatureInput,
    parts: &AnnounceParts<'_>,
) -> Announce {
    let lifetime_s = u32::try_from(parts.lifetime.as_secs()).unwrap_or(u32::MAX);
    let content = AnnounceContent {
        public_key: identity.public_key(),
        boot_epoch: parts.order.0,
        sequence: parts.order.1,
        capabilities: parts.capabilities,
        lifetime_s: lifetime_s.clamp(1, ANNOUNCE_LIFETIME_S_MAX),
        max_hops: parts.max_hops.clamp(1, MAX_HOPS_MAX),
        key_record_hash: parts.key_record.map(VerifiedKeyRecord::hash8),
        keypackage_hash: None,
        service_data: Bytes::new(),
    };
    let signed = Bytes::from(content.encode());
    let signature = identity.sign(input.of(SignedType::Announce, &signed));
    Announce::new(content, signed, signature, parts.key_record.map(|record| record.signed().clone()))
}
