//! Files under a passphrase, in the age format: what this writes any `age` program reads, and the
//! other way round.
//!
//! Of <https://age-encryption.org/v1> the part that a passphrase needs: one `scrypt` stanza, the
//! header with its authenticator (`header`), the payload in chunks of 64 KiB (`stream`), and the armour
//! for files that are text (`armor`). ADR 0016 says why it is done here.
//!
//! Deliberately absent: recipients with keys, plugins, streaming. What goes through here is an
//! identity or a backup of one, a few megabytes at most, and is held in memory whole.

mod armor;
mod header;
mod stream;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use self::header::{Header, SALT_BYTES};
use super::{kdf::hkdf_sha256, random::random_bytes};

/// Bytes of a file's own key, which the passphrase protects.
const FILE_KEY_BYTES: usize = 16;

/// Bytes in front of the payload that make its key another one in each file.
const PAYLOAD_NONCE_BYTES: usize = 16;

/// Longest passphrase in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

/// Largest work factor that is read: 4 GiB of memory. Somebody else's file may ask for anything.
pub const READ_WORK_FACTOR_MAX: u8 = 22;

/// What a person remembers. Wiped when dropped; prints nothing.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a passphrase as it was given; every byte of it counts.
    ///
    /// # Errors
    /// [`AgeError::Passphrase`]: none at all, or more than [`PASSPHRASE_BYTES_MAX`] bytes.
    pub fn new(text: Zeroizing<String>) -> Result<Self, AgeError> {
        match text.len() {
            0 => Err(AgeError::Passphrase("is empty")),
            len if len > PASSPHRASE_BYTES_MAX => Err(AgeError::Passphrase("is longer than 1024 bytes")),
            _ => Ok(Self(text)),
        }
    }

    /// Characters in it.
    pub fn chars(&self) -> usize {
        self.0.chars().count()
    }

    /// True where both are the same text.
    pub fn is_same(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What guessing one passphrase costs, as the logarithm of it: `2^n` KiB of memory, and time in
/// proportion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkFactor(u8);

impl WorkFactor {
    /// The least that is written: 32 MiB, for small machines.
    pub const MIN: u8 = 15;
    /// The most that is written: 256 MiB. A machine that reads it needs as much.
    pub const MAX: u8 = 18;

    /// A work factor to write with.
    ///
    /// # Errors
    /// [`AgeError::WorkFactorToWrite`] where it is not between [`Self::MIN`] and [`Self::MAX`].
    pub fn new(log_n: u8) -> Result<Self, AgeError> {
        match (Self::MIN..=Self::MAX).contains(&log_n) {
            true => Ok(Self(log_n)),
            false => Err(AgeError::WorkFactorToWrite { got: log_n }),
        }
    }

    /// The logarithm.
    pub fn log_n(self) -> u8 {
        self.0
    }
}

impl Default for WorkFactor {
    fn default() -> Self {
        Self(Self::MAX)
    }
}

/// Why a file under a passphrase could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// A passphrase that is none.
    #[error("the passphrase {0}")]
    Passphrase(&'static str),
    /// A work factor outside of what is written.
    #[error("a work factor is 15 to 18, not {got}")]
    WorkFactorToWrite {
        /// The one asked for.
        got: u8,
    },
    /// Something else than a file of this format.
    #[error("it is no file in the age format")]
    NotAge,
    /// A file that begins as one and goes on as none.
    #[error("its header is no valid age header: {0}")]
    Header(&'static str),
    /// Text around the file that is not as the format has it.
    #[error("its armour is damaged: {0}")]
    Armor(&'static str),
    /// A file for the holders of keys.
    #[error("it is encrypted to keys and not under a passphrase; only `age` with one of the keys opens it")]
    NotUnderPassphrase,
    /// A file whose opening is made dearer than any of ours.
    #[error("opening it asks for a work factor of {got}; more than 22 (4 GiB of memory) is refused")]
    WorkFactor {
        /// What it asks for.
        got: u8,
    },
    /// A machine too small for the work factor.
    #[error(
        "a work factor of {log_n} takes {} MiB of memory, which this process does not get; use a larger \
         machine, or free some",
        1_u64.checked_shl(u32::from(*log_n)).unwrap_or(u64::MAX) / 1024
    )]
    Memory {
        /// The work factor.
        log_n: u8,
    },
    /// Another passphrase than the one it was written with.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The passphrase fits, but the header is not as it was written.
    #[error("its header was changed after it was written")]
    HeaderChanged,
    /// Content that is not as it was written.
    #[error("its content was changed, cut off or put in another order (chunk {chunk})")]
    Content {
        /// Number of the chunk of 64 KiB, from 0.
        chunk: u64,
    },
    /// More content than the reader takes.
    #[error("it holds more than the {limit} bytes that are read")]
    TooLarge {
        /// Bytes taken.
        limit: usize,
    },
}

/// True where `bytes` begin as an age file does, binary or armoured.
pub fn is_age(bytes: &[u8]) -> bool {
    bytes.starts_with(header::VERSION_LINE) || armor::is_armored(bytes)
}

/// Encrypts `plaintext` under `passphrase`: a binary age file. Takes the memory and time that `work`
/// says, and blocks.
///
/// # Errors
/// [`AgeError::Memory`].
pub fn encrypt(
    passphrase: &Passphrase,
    work: WorkFactor,
    plaintext: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, AgeError> {
    let file_key = Zeroizing::new(random_bytes::<FILE_KEY_BYTES>(rng));
    let salt = random_bytes::<SALT_BYTES>(rng);
    let wrap_key = header::wrap_key(passphrase, &salt, work.log_n())?;
    let mut out = header::write(&file_key, &wrap_key, &salt, work.log_n());
    let nonce = random_bytes::<PAYLOAD_NONCE_BYTES>(rng);
    out.extend_from_slice(&nonce);
    stream::seal(&payload_key(&file_key, &nonce), plaintext, &mut out);
    Ok(out)
}

/// As [`encrypt`], as text: what `age --armor` writes.
///
/// # Errors
/// [`AgeError::Memory`].
pub fn encrypt_armored(
    passphrase: &Passphrase,
    work: WorkFactor,
    plaintext: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<String, AgeError> {
    Ok(armor::write(&encrypt(passphrase, work, plaintext, rng)?))
}

/// Decrypts an age file, binary or armoured, with at most `limit` bytes of content. Nothing of it is
/// given unless all of it is as it was written. Takes the memory and time that the file says, up to
/// [`READ_WORK_FACTOR_MAX`], and blocks.
///
/// # Errors
/// All but those of writing.
pub fn decrypt(passphrase: &Passphrase, file: &[u8], limit: usize) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let file = unarmored(file)?;
    let Parts { header, nonce, sealed } = Parts::of(&file, limit)?;
    let file_key = header.open(passphrase)?;
    stream::open(&payload_key(&file_key, nonce), sealed)
}

/// Whether `file` has the form of one that a passphrase opens, with at most `limit` bytes of content:
/// all that can be said before anybody is asked for it.
///
/// # Errors
/// All that does not depend on the passphrase.
pub fn check(file: &[u8], limit: usize) -> Result<(), AgeError> {
    Parts::of(&unarmored(file)?, limit).map(|_| ())
}

/// An age file without its armour.
fn unarmored(file: &[u8]) -> Result<Cow<'_, [u8]>, AgeError> {
    match armor::is_armored(file) {
        true => armor::read(file).map(Cow::Owned),
        false => Ok(Cow::Borrowed(file)),
    }
}

/// A binary file, taken apart.
struct Parts<'a> {
    header: Header<'a>,
    nonce: &'a [u8; PAYLOAD_NONCE_BYTES],
    sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(file: &'a [u8], limit: usize) -> Result<Self, AgeError> {
        let (header, payload) = Header::read(file)?;
        let payload = payload.split_first_chunk::<PAYLOAD_NONCE_BYTES>();
        let (nonce, sealed) = payload.ok_or(AgeError::Content { chunk: 0 })?;
        // The length of what is sealed says how much is in it.
        if stream::plaintext_bytes(sealed.len()).is_some_and(|bytes| bytes > limit) {
            return Err(AgeError::TooLarge { limit });
        }
        Ok(Self { header, nonce, sealed })
    }
}

fn payload_key(file_key: &[u8; FILE_KEY_BYTES], nonce: &[u8]) -> Zeroizing<[u8; 32]> {
    derived(file_key, nonce, b"payload")
}

fn derived(file_key: &[u8; FILE_KEY_BYTES], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // 32 bytes are less than the 8160 that the derivation gives.
    hkdf_sha256(salt, file_key, info, &mut *key).expect("one block of output");
    key
}
