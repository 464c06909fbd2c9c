//! Identifiers that travel between nodes, each a newtype over its bytes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text has another length than the identifier.
    #[error("expected {expected} hex digits, got {got} characters")]
    Length {
        /// Hex digits the identifier takes.
        expected: usize,
        /// Characters given.
        got: usize,
    },
    /// A character is no hex digit.
    #[error("character {position} is not a hex digit")]
    Digit {
        /// Position of the first offending character, from 0.
        position: usize,
    },
}

/// Writes `bytes` as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    // Every reply and log line has some: a formatter for each byte was 3 % of a busy node's work.
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    let mut out = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        out.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    out
}

/// Reads lower- or upper-case hex of exactly `N` bytes.
pub fn unhex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let expected = N.saturating_mul(2);
    let got = text.chars().count();
    if let Some(position) = text.chars().position(|c| !c.is_ascii_hexdigit()) {
        return Err(ParseIdError::Digit { position });
    }
    if got != expected {
        return Err(ParseIdError::Length { expected, got });
    }
    let mut out = [0u8; N];
    for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let mut value = 0u8;
        for digit in pair {
            let nibble = (*digit as char).to_digit(16).unwrap_or(0) as u8;
            value = (value << 4) | nibble;
        }
        *slot = value;
    }
    Ok(out)
}

struct FixedBytes<const N: usize>;

impl<'de, const N: usize> de::Visitor<'de> for FixedBytes<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of {N} bytes")
    }

    fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<[u8; N], E> {
        v.try_into().map_err(|_| E::invalid_length(v.len(), &self))
    }

    fn visit_byte_buf<E: de::Error>(self, v: Vec<u8>) -> Result<[u8; N], E> {
        self.visit_bytes(&v)
    }
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                unhex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() {
                    s.serialize_str(&hex(&self.0))
                } else {
                    s.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(de::Error::custom)
                } else {
                    d.deserialize_bytes(FixedBytes::<$len>).map(Self)
                }
            }
        }
    };
}

byte_id! {
    /// Where a message goes: the first 16 bytes of SHA-256 over a node's Ed25519 public key
    /// (`crypto::compute_address`). Self-certifying: no address ever changes its key.
    Address, 16
}

byte_id! {
    /// A node's Ed25519 public key as it travels; whether it is a usable point is checked by
    /// `crypto::sign` each time it enters the system.
    PublicKey, 32
}

byte_id! {
    /// First 16 bytes of SHA-256 over an envelope's signature input. Never carried by the
    /// envelope it names, always computed; never includes the proof.
    PacketId, 16
}

byte_id! {
    /// What people see as a message's `id`: 16 random bytes inside the seal, the same for every
    /// attempt and every chunk of one message.
    MessageUid, 16
}

byte_id! {
    /// The first bytes of a message's uid: what a message says of the one that it follows. Enough to
    /// tell apart what one sender has under way.
    UidPrefix, 8
}

impl MessageUid {
    /// Its first bytes.
    pub fn prefix(&self) -> UidPrefix {
        UidPrefix(self.0.first_chunk().copied().unwrap_or_default())
    }

    /// The least uid that begins so.
    pub fn first_of(prefix: &UidPrefix) -> Self {
        let mut uid = [0; Self::LEN];
        if let Some(head) = uid.first_chunk_mut() {
            *head = prefix.0;
        }
        Self(uid)
    }
}

byte_id! {
    /// First 16 bytes of SHA-256 over the network's name. Part of every signature input; hello
    /// frames carry its first 8 bytes.
    NetworkId, 16
}

byte_id! {
    /// Marks the chunks of one file for relays and receivers without telling the message's uid.
    TransferTag, 16
}

byte_id! {
    /// An Ed25519 signature as it travels.
    Signature, 64
}

byte_id! {
    /// A SHA-256 digest.
    Digest, 32
}

impl Address {
    /// The destination of broadcasts; no key hashes to it in practice and none is accepted.
    pub const BROADCAST: Address = Address([0xff; 16]);

    /// True for addresses that no node may have: all zeros and the broadcast address.
    pub fn is_reserved(&self) -> bool {
        *self == Self::BROADCAST || self.0 == [0; 16]
    }

    /// The first eight hex digits, enough for a person to recognise it.
    pub fn short(&self) -> String {
        hex(self.0.get(..4).unwrap_or(&[]))
    }
}

/// A link of this process, numbered from 1; never travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link-{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_names_what_is_wrong() {
        let a = Address([0xab; 16]);
        assert_eq!(a.to_string().parse(), Ok(a));
        assert_eq!("abc".parse::<Address>(), Err(ParseIdError::Length { expected: 32, got: 3 }));
        assert_eq!("zz".parse::<Address>(), Err(ParseIdError::Digit { position: 0 }));
        assert_eq!("ä".parse::<Address>(), Err(ParseIdError::Digit { position: 0 }));
    }

    #[test]
    fn reserved_addresses_are_known() {
        assert!(Address::BROADCAST.is_reserved());
        assert!(Address([0; 16]).is_reserved());
        assert!(!Address([1; 16]).is_reserved());
    }
}
