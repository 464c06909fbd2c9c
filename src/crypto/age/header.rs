//! The header of an age file: one `scrypt` stanza and the authenticator over all of it.
//!
//! ```text
//! age-encryption.org/v1
//! -> scrypt SALT LOG2_OF_N
//! FILE KEY, SEALED
//! --- AUTHENTICATOR
//! ```
//!
//! Read strictly: one spelling of everything, so that a header that was touched is seen before the
//! costly derivation where that can be.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{AgeError, FILE_KEY_BYTES, Passphrase, READ_WORK_FACTOR_MAX, derived};
use crate::crypto::aead::{self, TAG_BYTES};

/// First line of every file.
pub(super) const VERSION_LINE: &[u8] = b"age-encryption.org/v1\n";

/// Bytes of salt of the derivation.
pub(super) const SALT_BYTES: usize = 16;

/// Put in front of the salt, so that the derived key serves nothing else.
const SALT_LABEL: &[u8] = b"age-encryption.org/v1/scrypt";

/// Longest header read. Ours takes about 150 bytes; a file for many keys takes more, and is told
/// apart from garbage by its first stanza.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Columns of a stanza's body.
const COLUMNS: usize = 64;

// Block size and parallelism of scrypt, as the format fixes them.
const R: u32 = 8;
const P: u32 = 1;

/// Standard base64 without padding, in its one spelling.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The header of a file under a passphrase.
pub(super) struct Header<'a> {
    salt: [u8; SALT_BYTES],
    log_n: u8,
    sealed_key: [u8; FILE_KEY_BYTES + TAG_BYTES],
    /// What the authenticator is over.
    signed: &'a [u8],
    mac: [u8; 32],
}

impl<'a> Header<'a> {
    /// Splits a file into header and payload.
    ///
    /// # Errors
    /// [`AgeError::NotAge`], [`AgeError::Header`], [`AgeError::NotUnderPassphrase`],
    /// [`AgeError::WorkFactor`].
    pub(super) fn read(file: &'a [u8]) -> Result<(Self, &'a [u8]), AgeError> {
        let mut lines = Lines { file, at: VERSION_LINE.len() };
        if !file.starts_with(VERSION_LINE) {
            return Err(AgeError::NotAge);
        }
        let mut passphrase = None;
        let mut stanzas = 0_u32;
        loop {
            let start = lines.at;
            let line = lines.next()?;
            if let Some(mac) = line.strip_prefix("---") {
                let mac = mac.strip_prefix(' ').ok_or(AgeError::Header("its last line is cut off"))?;
                let signed_end = start.checked_add(3).ok_or(AgeError::Header("it is too long"))?;
                let signed = file.get(..signed_end).ok_or(AgeError::Header("it is cut off"))?;
                // A passphrase that opens a file beside a key would let its holder forge for the key's.
                let (salt, log_n, sealed_key) = match (passphrase, stanzas) {
                    (Some(found), 1) => found,
                    (Some(_), _) => return Err(AgeError::Header("a passphrase has to be its only way in")),
                    (None, 0) => return Err(AgeError::Header("it names no way in")),
                    (None, _) => return Err(AgeError::NotUnderPassphrase),
                };
                let mac = fixed(mac, "its authenticator is no 32 bytes in base64")?;
                let payload = file.get(lines.at..).unwrap_or_default();
                return Ok((Self { salt, log_n, sealed_key, signed, mac }, payload));
            }
            stanzas = stanzas.saturating_add(1);
            let arguments = line.strip_prefix("-> ").ok_or(AgeError::Header("a line is no stanza"))?;
            let body = lines.body()?;
            let mut arguments = arguments.split(' ');
            if arguments.clone().any(|a| a.is_empty() || !a.bytes().all(|b| b.is_ascii_graphic())) {
                return Err(AgeError::Header("a stanza's arguments are malformed"));
            }
            if arguments.next() == Some("scrypt") {
                passphrase = Some(scrypt_stanza(arguments, &body)?);
            }
        }
    }

    /// The file's own key.
    ///
    /// # Errors
    /// [`AgeError::WrongPassphrase`], [`AgeError::HeaderChanged`], [`AgeError::Memory`].
    pub(super) fn open(&self, passphrase: &Passphrase) -> Result<Zeroizing<[u8; FILE_KEY_BYTES]>, AgeError> {
        let wrap_key = wrap_key(passphrase, &self.salt, self.log_n)?;
        let mut file_key = Zeroizing::new([0; FILE_KEY_BYTES]);
        let (ciphertext, tag) =
            self.sealed_key.split_last_chunk::<TAG_BYTES>().ok_or(AgeError::WrongPassphrase)?;
        file_key.copy_from_slice(ciphertext);
        aead::decrypt(&wrap_key, &[0; 12], &[], &mut *file_key, tag)
            .map_err(|_| AgeError::WrongPassphrase)?;
        let authenticator = authenticator(&file_key, self.signed);
        authenticator.verify_slice(&self.mac).map_err(|_| AgeError::HeaderChanged)?;
        Ok(file_key)
    }
}

/// Writes a header whose file key is sealed under `wrap_key`.
pub(super) fn write(
    file_key: &[u8; FILE_KEY_BYTES],
    wrap_key: &[u8; 32],
    salt: &[u8; SALT_BYTES],
    log_n: u8,
) -> Vec<u8> {
    let mut body = file_key.to_vec();
    let tag = aead::encrypt(wrap_key, &[0; 12], &[], &mut body).expect("sixteen bytes are few enough");
    body.extend_from_slice(&tag);
    let stanza = format!("-> scrypt {} {log_n}\n{}\n---", BASE64.encode(salt), BASE64.encode(&body));
    let mut out = [VERSION_LINE, stanza.as_bytes()].concat();
    let mac = authenticator(file_key, &out).finalize().into_bytes();
    out.extend_from_slice(format!(" {}\n", BASE64.encode(mac)).as_bytes());
    out
}

/// The key that a passphrase gives.
///
/// # Errors
/// [`AgeError::Memory`], [`AgeError::WorkFactor`].
pub(super) fn wrap_key(
    passphrase: &Passphrase,
    salt: &[u8; SALT_BYTES],
    log_n: u8,
) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    if log_n > READ_WORK_FACTOR_MAX {
        return Err(AgeError::WorkFactor { got: log_n });
    }
    let params = scrypt::Params::new(log_n, R, P).map_err(|_| AgeError::Memory { log_n })?;
    // A process that asks for more than it may have is ended by the derivation; this one is told.
    let bytes = 128_usize.checked_mul(R as usize).and_then(|block| block.checked_shl(u32::from(log_n)));
    let fits = bytes.is_some_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
    if !fits {
        return Err(AgeError::Memory { log_n });
    }
    let mut key = Zeroizing::new([0; 32]);
    let salt = [SALT_LABEL, salt].concat();
    scrypt::scrypt(passphrase.as_bytes(), &salt, &params, &mut *key).expect("32 bytes can be derived");
    Ok(key)
}

fn authenticator(file_key: &[u8; FILE_KEY_BYTES], signed: &[u8]) -> Hmac<Sha256> {
    let key = derived(file_key, &[], b"header");
    let mut mac = Hmac::<Sha256>::new_from_slice(&*key).expect("any length of key serves");
    mac.update(signed);
    mac
}

type Stanza = ([u8; SALT_BYTES], u8, [u8; FILE_KEY_BYTES + TAG_BYTES]);

fn scrypt_stanza<'t>(mut arguments: impl Iterator<Item = &'t str>, body: &str) -> Result<Stanza, AgeError> {
    let malformed = AgeError::Header("its scrypt stanza has no salt and work factor");
    let (Some(salt), Some(work), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err(malformed);
    };
    let is_canonical = work.bytes().all(|b| b.is_ascii_digit()) && !work.starts_with('0');
    if !is_canonical || work.is_empty() {
        return Err(malformed);
    }
    // What does not fit is more than allowed all the same.
    let log_n = work.parse::<u8>().unwrap_or(u8::MAX);
    if log_n > READ_WORK_FACTOR_MAX {
        return Err(AgeError::WorkFactor { got: log_n });
    }
    let salt = fixed(salt, "its salt is no 16 bytes in base64")?;
    Ok((salt, log_n, fixed(body, "its sealed key is no 32 bytes in base64")?))
}

fn fixed<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], AgeError> {
    let bytes = Zeroizing::new(BASE64.decode(text).map_err(|_| AgeError::Header(what))?);
    bytes.as_slice().try_into().map_err(|_| AgeError::Header(what))
}

/// Lines of a header, each ended by one line feed.
struct Lines<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a str, AgeError> {
        let rest = self.file.get(self.at..).unwrap_or_default();
        let end = rest.iter().take(HEADER_BYTES_MAX.saturating_sub(self.at)).position(|b| *b == b'\n');
        let end = end.ok_or(AgeError::Header("it does not end"))?;
        let line = rest.get(..end).unwrap_or_default();
        self.at = self.at.saturating_add(end).saturating_add(1);
        if !line.is_ascii() {
            return Err(AgeError::Header("it is not ASCII"));
        }
        std::str::from_utf8(line).map_err(|_| AgeError::Header("it is not ASCII"))
    }

    /// A stanza's body: full lines, then one that is shorter.
    fn body(&mut self) -> Result<String, AgeError> {
        let mut body = String::new();
        loop {
            let line = self.next()?;
            if line.len() > COLUMNS {
                return Err(AgeError::Header("a line of a stanza is too long"));
            }
            body.push_str(line);
            if line.len() < COLUMNS {
                return Ok(body);
            }
        }
    }
}
