//! What can go wrong with keys, signatures and seals.

use std::{io, path::PathBuf};

use crate::wire::{Address, DecodeError, PublicKey};

use super::{age::AgeError, sign::SignedType};

/// A failure of a cryptographic step: what failed, on what.
///
/// Trying again changes nothing. What did not hold is refused, and whoever brought it is to blame where
/// [`CryptoError::is_peer_fault`] says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// A public key that may not be used.
    #[error("public key {key} is refused: {fault}")]
    PublicKey {
        /// The key.
        key: PublicKey,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// A key that belongs to another address.
    #[error("the key given for {expected} belongs to {got}")]
    AddressMismatch {
        /// The address named.
        expected: Address,
        /// The address of the key given.
        got: Address,
    },
    /// A signature that does not hold.
    #[error("the signature of this {signed_type} does not hold")]
    Signature {
        /// What was signed.
        signed_type: SignedType,
    },
    /// A key agreement whose result the other side chose alone (small-order X25519 key).
    #[error("the X25519 key is of small order and agrees on nothing")]
    NonContributory,
    /// A ciphertext, or what it is bound to, was changed.
    #[error("decryption failed: the ciphertext or what it is bound to was changed")]
    Aead,
    /// More output asked of the key derivation than it gives.
    #[error("HKDF-SHA-256 gives at most 8160 bytes, {asked} were asked for")]
    KdfOutput {
        /// Bytes asked for.
        asked: usize,
    },
    /// A plaintext that does not fit.
    #[error("{got} bytes are too many for one seal, the limit is {limit}")]
    PlaintextTooLarge {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A chunk outside its file.
    #[error("chunk {index} is not part of a file of {total} chunks")]
    ChunkOutOfRange {
        /// Index given.
        index: u32,
        /// Chunks of the file.
        total: u32,
    },
    /// Bytes that are not a key record.
    #[error("key record: {0}")]
    KeyRecord(#[source] DecodeError),
    /// A key record none of whose suites is known here.
    #[error("the key record of {address} offers no suite known here; this node may be too old for it")]
    NoKnownSuite {
        /// Whose record it is.
        address: Address,
    },
    /// A sealing session that has had its minute or its thousand messages.
    #[error("the sealing session is used up; begin another one")]
    SessionSpent,
    /// A number of leaves no tree is made of.
    #[error("a Merkle tree has 1 to {limit} leaves, not {got}")]
    LeafCount {
        /// Leaves given.
        got: usize,
        /// Leaves allowed.
        limit: usize,
    },
    /// Stored receiver keys that cannot be read back.
    #[error("the stored receiver keys are damaged: {0}")]
    ReceiverState(#[source] DecodeError),
    /// A text without an Ed25519 private key.
    #[error("no Ed25519 private key in PKCS#8 PEM: {detail}")]
    PrivateKey {
        /// What the decoder said; never any part of the text.
        detail: String,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Randomness(getrandom::Error),
}

impl CryptoError {
    /// True where the bytes of a peer are at fault, rather than this node or what it was asked.
    pub fn is_peer_fault(&self) -> bool {
        match self {
            Self::PublicKey { .. }
            | Self::AddressMismatch { .. }
            | Self::Signature { .. }
            | Self::NonContributory
            | Self::Aead
            | Self::KeyRecord(_) => true,
            Self::KdfOutput { .. }
            | Self::PlaintextTooLarge { .. }
            | Self::ChunkOutOfRange { .. }
            | Self::NoKnownSuite { .. }
            | Self::SessionSpent
            | Self::LeafCount { .. }
            | Self::ReceiverState(_)
            | Self::PrivateKey { .. }
            | Self::Randomness(_) => false,
        }
    }
}

/// Why a public key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The bytes are no point of the curve.
    #[error("it is no point of the curve")]
    NotAPoint,
    /// A second spelling of a point, which would give one key two addresses.
    #[error("it is not the canonical encoding of its point")]
    NotCanonical,
    /// A point of small order, for which anybody can make signatures.
    #[error("it is of small order, anybody can sign for it")]
    SmallOrder,
}

/// Why an identity file could not be read or made, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no such file.
    #[error("no identity at {path}; create one with `qpc init`")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is one already, and identities are never overwritten.
    #[error("{path} exists and is not overwritten; move it away to make a new identity")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may use the file or change its directory.
    #[error("others may access {path} (mode {mode:04o}); run `chmod {wanted:o} {path}`")]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// A symbolic link where the file should be.
    #[error("{path} is a symbolic link; name the file itself")]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A directory, socket or device where the file should be.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file without an Ed25519 private key.
    #[error("{path}: {source}; restore it from a backup")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CryptoError,
    },
    /// A file that needs a passphrase, where none was given.
    #[error(
        "the identity {path} is under a passphrase: give it with --passphrase-file F or \
         QPC_PASSPHRASE_FILE, or on a terminal"
    )]
    UnderPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// A file under a passphrase that could not be opened or written.
    #[error("the identity {path}: {source}")]
    Unlock {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: AgeError,
    },
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The operating system gives no random bytes.
    #[error("cannot make an identity: {0}")]
    Crypto(#[from] CryptoError),
}
