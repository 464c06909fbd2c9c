//! End-to-end encryption of one payload to one receiver key.
//!
//! A sealed payload is the CBOR array `[rk_id u32, E bstr32, counter u32, ciphertext bstr]`:
//!
//! ```text
//! secret = X25519(e, R) = X25519(r, E), refused where it is zero
//! salt   = SHA-256("quicprochat/mesh/1/seal" ‖ 0x00 ‖ network (16) ‖ suite (1) ‖ source key (32)
//!          ‖ destination key (32) ‖ SHA-256(KeyRecord signed slice) (32) ‖ rk_id (4) ‖ E (32))
//! key    = HKDF-SHA-256(salt, secret, "quicprochat/mesh/1/seal-key")
//! nonce  = 0 (8 bytes) ‖ counter (4)
//! ciphertext = ChaCha20-Poly1305(key, nonce, associated data, plaintext ‖ 0x80 ‖ zeros)
//! ```
//!
//! Every field of the salt has a fixed length; numbers have their most significant byte first. The
//! associated data are the immutable fields of the envelope around it, so a payload opens in no
//! other envelope. Source and destination keys stand in a fixed order, so the two directions have
//! different keys.
//!
//! **No trial decryption.** The rk_id names one key of one record (`receiver`), so exactly one key
//! and one record digest are tried, and no key commitment is needed.
//!
//! What fails, fails alike: all that [`OpenError`] tells apart is a key that is not known here,
//! which the sender could see from the announced record as well.
//!
//! `E` serves for a minute or a thousand messages and is never kept, so who takes the sender's
//! disk learns nothing of what it sent; the receiver's secret goes after its term.

use std::{
    fmt,
    time::{Duration, Instant},
};

use hashlink::LruCache;
use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::wire::{
    Address, DecodeError, Digest, NetworkId, PublicKey,
    cbor::{self, Reader},
    limits::{PAYLOAD_BYTES_MAX, SEAL_OVERHEAD_MAX, SEAL_PLAINTEXT_BYTES_MAX},
};

use super::{
    aead::{self, TAG_BYTES, counter_nonce},
    agree::{agree, public_of},
    error::CryptoError,
    hash::sha256,
    kdf::hkdf_sha256,
    key_record::VerifiedKeyRecord,
    receiver::{ReceiverKeys, ReceiverSecret},
    remembered::Remembered,
};

const SALT_CONTEXT: &[u8] = b"quicprochat/mesh/1/seal\0";
const KEY_INFO: &[u8] = b"quicprochat/mesh/1/seal-key";

/// Largest plaintext of [`SealSession::seal`] in bytes: the end mark takes one of what fits.
pub const PLAINTEXT_BYTES_MAX: usize = SEAL_PLAINTEXT_BYTES_MAX - 1;

/// How long one ephemeral key serves.
pub const SESSION_AGE_MAX: Duration = Duration::from_secs(60);

/// How many messages one ephemeral key serves.
pub const SESSION_MESSAGES_MAX: u32 = 1000;

/// Sessions kept, one a destination; the one longest unused gives way.
pub const SESSIONS_MAX: usize = 256;

/// Sources whose keys are remembered for opening, some 400 bytes each. A flood of others does not
/// push out those that go on writing ([`Remembered`]).
pub const OPEN_SOURCES_MAX: usize = 256;

/// Keys remembered of one source: the one in use, and the one before it for what was overtaken. More
/// cost their source its own place, and nobody else's.
pub const OPEN_KEYS_PER_SOURCE: usize = 2;

/// Smallest size of a padded plaintext.
const PADDED_BYTES_MIN: usize = 32;

/// Ends the plaintext; zeros may follow.
const END_MARK: u8 = 0x80;

/// What a seal hides of the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Up to the next of 32, 64, 128, … bytes, at most [`SEAL_PLAINTEXT_BYTES_MAX`]: for IP links.
    Sized,
    /// Nothing but the end mark: where each byte is airtime.
    None,
}

impl Padding {
    /// Length of what is encrypted for a plaintext of `len` bytes.
    ///
    /// # Errors
    /// [`CryptoError::PlaintextTooLarge`] above [`PLAINTEXT_BYTES_MAX`].
    pub fn padded_len(self, len: usize) -> Result<usize, CryptoError> {
        if len > PLAINTEXT_BYTES_MAX {
            return Err(CryptoError::PlaintextTooLarge { got: len, limit: PLAINTEXT_BYTES_MAX });
        }
        let least = len.saturating_add(1);
        Ok(match self {
            Self::Sized => least.next_power_of_two().clamp(PADDED_BYTES_MIN, SEAL_PLAINTEXT_BYTES_MAX),
            Self::None => least,
        })
    }
}

/// One direction of sealing to one destination: one ephemeral key and its counter. Wiped when
/// dropped; prints no secret.
pub struct SealSession {
    rk_id: u32,
    ephemeral: [u8; 32],
    key: Zeroizing<[u8; 32]>,
    record: Digest,
    began: Instant,
    counter: u32,
}

impl SealSession {
    /// Draws an ephemeral key and agrees with the best key of `recipient`'s record. Whether the
    /// record may still be used ([`VerifiedKeyRecord::is_current`]) is the caller's to ask, who
    /// knows what its clock is worth.
    ///
    /// # Errors
    /// No suite known here, a receiver key of small order.
    pub fn new(
        network: &NetworkId,
        source: &PublicKey,
        recipient: &VerifiedKeyRecord,
        now: Instant,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, CryptoError> {
        let to = recipient.receiver_key()?;
        let secret = StaticSecret::random_from_rng(rng);
        let ephemeral = public_of(&secret);
        let shared = agree(&secret, &to.x25519)?;
        let transcript = Transcript {
            network,
            suite: to.suite,
            source,
            destination: recipient.public_key(),
            record: recipient.digest(),
            rk_id: to.rk_id,
            ephemeral: &ephemeral,
        };
        let key = transcript.key(&shared)?;
        Ok(Self { rk_id: to.rk_id, ephemeral, key, record: *recipient.digest(), began: now, counter: 0 })
    }

    /// True while it may seal to this record.
    pub fn serves(&self, now: Instant, recipient: &VerifiedKeyRecord) -> bool {
        self.record == *recipient.digest() && !self.is_spent(now)
    }

    fn is_spent(&self, now: Instant) -> bool {
        self.counter >= SESSION_MESSAGES_MAX || now.saturating_duration_since(self.began) >= SESSION_AGE_MAX
    }

    /// Seals `plaintext` for an envelope whose immutable fields are `aad`.
    ///
    /// # Errors
    /// [`CryptoError::SessionSpent`] after a minute or a thousand messages;
    /// [`CryptoError::PlaintextTooLarge`] above [`PLAINTEXT_BYTES_MAX`].
    pub fn seal(
        &mut self,
        now: Instant,
        aad: &[u8],
        plaintext: &[u8],
        padding: Padding,
    ) -> Result<Vec<u8>, CryptoError> {
        if self.is_spent(now) {
            return Err(CryptoError::SessionSpent);
        }
        let padded = padding.padded_len(plaintext.len())?;
        let counter = self.counter;
        // Spent whatever follows: no nonce is used twice.
        self.counter = counter.saturating_add(1);

        let mut out = Vec::with_capacity(padded.saturating_add(SEAL_OVERHEAD_MAX));
        cbor::put_array(&mut out, 4);
        cbor::put_uint(&mut out, u64::from(self.rk_id));
        cbor::put_bytes(&mut out, &self.ephemeral);
        cbor::put_uint(&mut out, u64::from(counter));
        cbor::put_head(&mut out, cbor::major::BYTES, padded.saturating_add(TAG_BYTES) as u64);
        let start = out.len();
        out.extend_from_slice(plaintext);
        out.push(END_MARK);
        out.resize(start.saturating_add(padded), 0);
        let (_, content) = out.split_at_mut(start);
        let tag = aead::encrypt(&self.key, &counter_nonce(counter), aad, content)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }
}

impl fmt::Debug for SealSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealSession")
            .field("rk_id", &self.rk_id)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

/// The sealing sessions of one source, one a destination.
pub struct SealSessions {
    network: NetworkId,
    source: PublicKey,
    sessions: LruCache<Address, SealSession>,
}

impl SealSessions {
    /// For what `source` seals in `network`.
    pub fn new(network: NetworkId, source: PublicKey) -> Self {
        Self { network, source, sessions: LruCache::new(SESSIONS_MAX) }
    }

    /// Seals to the owner of `recipient`, with the session there is or a new one.
    ///
    /// # Errors
    /// As [`SealSession::new`] and [`SealSession::seal`].
    pub fn seal(
        &mut self,
        now: Instant,
        recipient: &VerifiedKeyRecord,
        aad: &[u8],
        plaintext: &[u8],
        padding: Padding,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Vec<u8>, CryptoError> {
        let address = recipient.address();
        match self.sessions.get_mut(&address) {
            Some(session) if session.serves(now, recipient) => session.seal(now, aad, plaintext, padding),
            _ => {
                let mut session = SealSession::new(&self.network, &self.source, recipient, now, rng)?;
                let sealed = session.seal(now, aad, plaintext, padding);
                self.sessions.insert(address, session);
                sealed
            }
        }
    }

    /// Destroys the keys of sessions whose time is up. Called now and then, so that a key does not
    /// outlive its minute because nothing more is sent.
    pub fn forget_spent(&mut self, now: Instant) {
        self.sessions.retain(|_, session| !session.is_spent(now));
    }

    /// Sessions held.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True where none is held.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

impl fmt::Debug for SealSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealSessions").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Why a sealed payload was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Sealed to a key that is not, or no longer, here. Answered with `cannot_open` and the
    /// current key record, so that the sender seals again.
    #[error("sealed to receiver key {rk_id:08x}, which is not or no longer here")]
    UnknownReceiverKey {
        /// The key named.
        rk_id: u32,
    },
    /// Malformed, changed, or sealed for another envelope, record, source or network. One answer
    /// to all, so that nobody learns more by trying.
    #[error("the sealed payload does not open: it was changed, or sealed for another envelope")]
    Failed,
}

/// Opens what `source` sealed to the owner of `keys`, in an envelope whose immutable fields are
/// `aad`.
///
/// # Errors
/// [`OpenError`]. `cannot_open` answers both.
pub fn open(
    keys: &ReceiverKeys,
    network: &NetworkId,
    source: &PublicKey,
    sealed: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let sealed = SealedPayload::decode(sealed).map_err(|_| OpenError::Failed)?;
    let receiver = keys.lookup(sealed.rk_id).ok_or(OpenError::UnknownReceiverKey { rk_id: sealed.rk_id })?;
    let key = opening_key(keys, receiver, network, source, &sealed)?;
    sealed.decrypt(&key, aad)
}

/// The key that `source` sealed with, if it did: costs a key agreement.
fn opening_key(
    keys: &ReceiverKeys,
    receiver: &ReceiverSecret,
    network: &NetworkId,
    source: &PublicKey,
    sealed: &SealedPayload<'_>,
) -> Result<Zeroizing<[u8; 32]>, OpenError> {
    let transcript = Transcript {
        network,
        suite: receiver.key().suite,
        source,
        destination: keys.public_key(),
        record: receiver.digest(),
        rk_id: sealed.rk_id,
        ephemeral: &sealed.ephemeral,
    };
    agree(receiver.secret(), &sealed.ephemeral)
        .and_then(|shared| transcript.key(&shared))
        .map_err(|_| OpenError::Failed)
}

/// Opens what others sealed to one node, and remembers the keys it agreed on: a sender keeps its
/// ephemeral key for up to a thousand messages, and the agreement is most of what opening costs.
///
/// A key is remembered once a payload opened with it, so nobody but a source that seals to this node
/// takes room, and it serves its source and its receiver secret only. It is never used after that
/// secret was destroyed. Wiped when dropped; prints no secret.
pub struct OpenSessions {
    network: NetworkId,
    sources: Remembered<PublicKey, Vec<OpenSession>>,
}

/// A key agreed on with one source. Newest last in its list.
struct OpenSession {
    /// Digest of the record that offered the receiver key.
    record: Digest,
    ephemeral: [u8; 32],
    key: Zeroizing<[u8; 32]>,
}

impl OpenSessions {
    /// For payloads of `network`.
    pub fn new(network: NetworkId) -> Self {
        Self { network, sources: Remembered::new(OPEN_SOURCES_MAX) }
    }

    /// As [`open`], with the key remembered where there is one.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(
        &mut self,
        keys: &ReceiverKeys,
        source: &PublicKey,
        sealed: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let sealed = SealedPayload::decode(sealed).map_err(|_| OpenError::Failed)?;
        let rk_id = sealed.rk_id;
        let receiver = keys.lookup(rk_id).ok_or(OpenError::UnknownReceiverKey { rk_id })?;
        if let Some(held) = self.held(source, receiver.digest(), &sealed.ephemeral) {
            let opened = sealed.decrypt(&held.key, aad)?;
            self.sources.used(source);
            return Ok(opened);
        }
        let key = opening_key(keys, receiver, &self.network, source, &sealed)?;
        let opened = sealed.decrypt(&key, aad)?;
        let session = OpenSession { record: *receiver.digest(), ephemeral: sealed.ephemeral, key };
        match self.sources.used(source) {
            Some(sessions) => {
                if sessions.len() >= OPEN_KEYS_PER_SOURCE {
                    sessions.remove(0);
                }
                sessions.push(session);
            }
            None => {
                self.sources.insert(*source, vec![session]);
            }
        }
        Ok(opened)
    }

    fn held(&self, source: &PublicKey, record: &Digest, ephemeral: &[u8; 32]) -> Option<&OpenSession> {
        let sessions = self.sources.peek(source)?;
        sessions.iter().find(|held| held.ephemeral == *ephemeral && held.record == *record)
    }

    /// Destroys the keys that were agreed on with secrets of this node that are gone. Called when
    /// `keys` has changed.
    pub fn forget_destroyed(&mut self, keys: &ReceiverKeys) {
        self.sources.retain(|_, sessions| {
            sessions.retain(|held| keys.holds(&held.record));
            !sessions.is_empty()
        });
    }

    /// Sources whose keys are held.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// True where none is held.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

impl fmt::Debug for OpenSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSessions").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A sealed payload taken apart, nothing of it checked but its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedPayload<'a> {
    /// The receiver key it is for.
    pub rk_id: u32,
    /// The sender's ephemeral X25519 key.
    pub ephemeral: [u8; 32],
    /// Which message of this ephemeral key it is, from 0.
    pub counter: u32,
    /// What is encrypted.
    pub ciphertext: &'a [u8],
    /// The tag over it and the associated data.
    pub tag: &'a [u8; TAG_BYTES],
}

impl<'a> SealedPayload<'a> {
    fn decrypt(&self, key: &[u8; 32], aad: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut plaintext = self.ciphertext.to_vec();
        aead::decrypt(key, &counter_nonce(self.counter), aad, &mut plaintext, self.tag)
            .map_err(|_| OpenError::Failed)?;
        let end = plaintext.iter().rposition(|byte| *byte != 0).ok_or(OpenError::Failed)?;
        if plaintext.get(end) != Some(&END_MARK) {
            return Err(OpenError::Failed);
        }
        plaintext.truncate(end);
        Ok(plaintext)
    }

    /// Reads the payload of a sealed envelope.
    ///
    /// # Errors
    /// Any other spelling, more than a payload's bytes, no room for a tag and the end mark.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.array(4, 4, "sealed payload")?;
        let rk_id = reader.u32("sealed payload rk_id")?;
        let ephemeral = reader.fixed("sealed payload ephemeral key")?;
        let counter = reader.u32("sealed payload counter")?;
        let offset = reader.offset();
        let content = reader.bytes(PAYLOAD_BYTES_MAX, "sealed payload ciphertext")?;
        reader.finish()?;
        match content.split_last_chunk() {
            Some((ciphertext, tag)) if !ciphertext.is_empty() => {
                Ok(Self { rk_id, ephemeral, counter, ciphertext, tag })
            }
            _ => Err(DecodeError::OutOfRange {
                field: "sealed payload ciphertext",
                offset,
                got: content.len() as u64,
            }),
        }
    }
}

/// Everything a sealing key is bound to.
struct Transcript<'a> {
    network: &'a NetworkId,
    suite: u8,
    source: &'a PublicKey,
    destination: &'a PublicKey,
    record: &'a Digest,
    rk_id: u32,
    ephemeral: &'a [u8; 32],
}

impl Transcript<'_> {
    fn key(&self, shared: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
        let salt = sha256(&[
            SALT_CONTEXT,
            self.network.as_bytes(),
            &[self.suite],
            self.source.as_bytes(),
            self.destination.as_bytes(),
            self.record.as_bytes(),
            &self.rk_id.to_be_bytes(),
            self.ephemeral,
        ]);
        let mut key = Zeroizing::new([0; 32]);
        hkdf_sha256(salt.as_bytes(), shared, KEY_INFO, key.as_mut())?;
        Ok(key)
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
