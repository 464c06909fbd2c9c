//! Envelopes made from messages: numbered, sealed, signed.
//!
//! A sequence number is used once within a boot epoch, and the boot epoch is durable before the
//! first signature, so no envelope of this node ever repeats an order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use rand_core::CryptoRng;

use crate::{
    crypto::{CryptoError, MeshIdentity, Padding, SealSessions, SignatureInput, VerifiedKeyRecord},
    wire::{
        Address, DecodeError, Envelope, EnvelopeHeader, EnvelopeKind, Lifetime, NetworkId, NodeName,
        PacketId, Priority,
        limits::{MAX_HOPS_MAX, PAYLOAD_BYTES_MAX},
    },
};

use super::batch::{self, Draft};

/// Why an envelope could not be made. All of these are faults of this node or of a key record.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The payload does not fit an envelope.
    #[error("a payload of {0} bytes does not fit an envelope, the limit is {PAYLOAD_BYTES_MAX}")]
    TooLarge(usize),
    /// Every sequence number of this boot epoch is used.
    #[error("this start has used every sequence number; restart the node")]
    SequenceExhausted,
    /// Sealing failed.
    #[error("cannot seal: {0}")]
    Seal(#[from] CryptoError),
    /// The envelope could not be read back.
    #[error("cannot assemble an envelope: {0}")]
    Assemble(#[from] DecodeError),
}

/// What every envelope needs to be told.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// What the payload is.
    pub kind: EnvelopeKind,
    /// Queueing class.
    pub priority: Priority,
    /// Who it is for.
    pub destination: Address,
    /// Seconds since 1970 at which the message was made; retries keep it, and so the expiry.
    pub created_unix_s: u64,
    /// How long it may live.
    pub lifetime: Lifetime,
    /// Links it may cross.
    pub max_hops: u8,
}

impl Wanted {
    /// A small answer or question: one minute, any distance, high priority.
    pub fn prompt(kind: EnvelopeKind, destination: Address, now_unix_s: u64) -> Self {
        Self {
            kind,
            priority: Priority::High,
            destination,
            created_unix_s: now_unix_s,
            lifetime: Lifetime::ONE_MINUTE,
            max_hops: MAX_HOPS_MAX,
        }
    }
}

/// An envelope and the packet id that relays and receipts know it by.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The envelope, with the source's key not attached.
    pub envelope: Envelope,
    /// First 16 bytes of SHA-256 over its signature input.
    pub packet_id: PacketId,
}

/// Sequence numbers of one boot epoch, shared by everything that makes envelopes of this node and
/// by whoever replaces one of those after a fault.
#[derive(Debug, Clone, Default)]
pub struct Sequences(Arc<AtomicU32>);

impl Sequences {
    /// A number that this start has not used.
    pub fn next(&self) -> Result<u32, ComposeError> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
            .map_err(|_| ComposeError::SequenceExhausted)
    }
}

/// Makes this node's envelopes.
#[derive(Debug)]
pub struct Composer {
    identity: Arc<MeshIdentity>,
    scratch: SignatureInput,
    sessions: SealSessions,
    boot_epoch: u32,
    sequences: Sequences,
}

impl Composer {
    /// For one start of the node; `boot_epoch` must be durable.
    pub fn new(
        identity: Arc<MeshIdentity>,
        network: NetworkId,
        boot_epoch: u32,
        sequences: Sequences,
    ) -> Self {
        let sessions = SealSessions::new(network, identity.public_key());
        Self { identity, scratch: SignatureInput::new(network), sessions, boot_epoch, sequences }
    }

    /// This node's address.
    pub fn address(&self) -> Address {
        self.identity.address()
    }

    /// Destroys sealing keys whose minute is over.
    pub fn forget_spent(&mut self, now: Instant) {
        self.sessions.forget_spent(now);
    }

    fn header(&mut self, wanted: &Wanted) -> Result<EnvelopeHeader, ComposeError> {
        let sequence = self.sequences.next()?;
        Ok(EnvelopeHeader {
            kind: wanted.kind,
            priority: wanted.priority,
            source: NodeName::Address(self.identity.address()),
            destination: NodeName::Address(wanted.destination),
            // The low half tells starts apart well enough for a number that need only be fresh.
            boot_epoch: (self.boot_epoch & 0xffff) as u16,
            sequence,
            created_unix_s: u32::try_from(wanted.created_unix_s).unwrap_or(u32::MAX),
            lifetime: wanted.lifetime,
            max_hops: wanted.max_hops.clamp(1, MAX_HOPS_MAX),
        })
    }

    /// An envelope whose payload everyone may read, to be signed with others.
    ///
    /// # Errors
    /// A payload that is too large; no sequence number left.
    pub fn draft(&mut self, wanted: &Wanted, payload: &[u8]) -> Result<Draft, ComposeError> {
        let header = self.header(wanted)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ComposeError::TooLarge(payload.len()));
        }
        Ok(Draft::new(header, header.signed(payload)))
    }

    /// An envelope whose payload only the owner of `to` can read, to be signed with others.
    ///
    /// # Errors
    /// As [`Composer::draft`]; a key that cannot be sealed to.
    pub fn draft_sealed(
        &mut self,
        now: Instant,
        rng: &mut impl CryptoRng,
        wanted: &Wanted,
        to: &VerifiedKeyRecord,
        plaintext: &[u8],
    ) -> Result<Draft, ComposeError> {
        let header = self.header(wanted)?;
        let payload = self.sessions.seal(now, to, &header.prefix(), plaintext, Padding::Sized, rng)?;
        Ok(Draft::new(header, header.signed(&payload)))
    }

    /// An envelope whose payload only the owner of `to` can read, signed by itself.
    ///
    /// # Errors
    /// As [`Composer::draft_sealed`].
    pub fn sealed(
        &mut self,
        now: Instant,
        rng: &mut impl CryptoRng,
        wanted: &Wanted,
        to: &VerifiedKeyRecord,
        plaintext: &[u8],
    ) -> Result<Composed, ComposeError> {
        let draft = self.draft_sealed(now, rng, wanted, to, plaintext)?;
        batch::sign_one(&self.identity, &mut self.scratch, draft)
    }

    /// Signs what is sent together, in its order ([`batch`]). What comes with a draft comes back
    /// with its envelope.
    pub fn sign_all<T>(&mut self, drafts: Vec<(T, Draft)>) -> Vec<(T, Result<Composed, ComposeError>)> {
        batch::sign_all(&self.identity, &mut self.scratch, drafts)
    }

    /// An envelope whose payload everyone may read, signed by itself.
    ///
    /// # Errors
    /// As [`Composer::draft`].
    pub fn open(&mut self, wanted: &Wanted, payload: &[u8]) -> Result<Composed, ComposeError> {
        let draft = self.draft(wanted, payload)?;
        batch::sign_one(&self.identity, &mut self.scratch, draft)
    }
}
