//! Hello and goodbye: the first and the last frame of a link.

use serde::{Deserialize, Serialize};

use super::{cbor, error::DecodeError, limits::GOODBYE_TEXT_BYTES_MAX};

/// The link protocol version this library speaks.
pub const VERSION: u8 = 1;

/// Largest hello in bytes.
const HELLO_BYTES_MAX: usize = 160;

/// First frame of each side of a link; nothing else is accepted before it. On the wire
/// `[version_min, version_max, network_tag, network_proof, features, boot_epoch, nonce, clock_s,
/// [control, interactive, bulk]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest link protocol version spoken.
    pub version_min: u8,
    /// Newest link protocol version spoken.
    pub version_max: u8,
    /// First 8 bytes of SHA-256 over the network's name.
    pub network_tag: [u8; 8],
    /// HMAC-SHA-256(network secret, channel binding ‖ role) where the network has a secret.
    pub network_proof: Option<[u8; 32]>,
    /// Feature bits; unknown ones are ignored.
    pub features: u64,
    /// The sender's boot epoch, which decides between two links to one peer.
    pub boot_epoch: u32,
    /// Random per link.
    pub nonce: [u8; 8],
    /// The sender's wall clock in seconds since 1970: a vote on whether ours can be trusted.
    pub clock_unix_s: u64,
    /// Bytes the receiver of this hello may send of each class before more credit comes.
    pub initial_credit: [u32; 3],
}

type HelloWire = (
    u8,
    u8,
    serde_bytes::ByteArray<8>,
    serde_bytes::ByteBuf,
    u64,
    u32,
    serde_bytes::ByteArray<8>,
    u64,
    (u32, u32, u32),
);

impl Hello {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (version_min, version_max, tag, proof, features, boot_epoch, nonce, clock_unix_s, credit): HelloWire =
            cbor::decode(body, HELLO_BYTES_MAX, "hello")?;
        let network_proof = match proof.len() {
            0 => None,
            got => Some(proof.as_slice().try_into().map_err(|_| DecodeError::OutOfRange {
                field: "network_proof",
                offset: 0,
                got: got as u64,
            })?),
        };
        if version_min > version_max {
            return Err(DecodeError::OutOfRange {
                field: "version_min",
                offset: 0,
                got: u64::from(version_min),
            });
        }
        Ok(Self {
            version_min,
            version_max,
            network_tag: tag.into_array(),
            network_proof,
            features,
            boot_epoch,
            nonce: nonce.into_array(),
            clock_unix_s,
            initial_credit: [credit.0, credit.1, credit.2],
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let proof = self.network_proof.map_or_else(Vec::new, |p| p.to_vec());
        let [control, interactive, bulk] = self.initial_credit;
        cbor::encode(&(
            self.version_min,
            self.version_max,
            serde_bytes::Bytes::new(&self.network_tag),
            serde_bytes::Bytes::new(&proof),
            self.features,
            self.boot_epoch,
            serde_bytes::Bytes::new(&self.nonce),
            self.clock_unix_s,
            (control, interactive, bulk),
        ))
    }
}

/// Why a link is closed. Numbers are never used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum CloseReason {
    /// The node drains and stops.
    Shutdown,
    /// A better link to the same peer is kept.
    Duplicate,
    /// The peer belongs to another network.
    NetworkMismatch,
    /// No link protocol version in common.
    VersionMismatch,
    /// The peer is not allowed here.
    NotAllowed,
    /// The peer broke the protocol.
    ProtocolError,
    /// The peer did not answer keepalives.
    Unresponsive,
    /// The peer sent too much that had to be refused.
    RateLimited,
    /// The operator removed the peer.
    Removed,
    /// The node has no place for another link, or gave this one's to somebody with fewer.
    TooManyLinks,
    /// A reason of a newer version.
    Other(u8),
}

impl From<u8> for CloseReason {
    fn from(number: u8) -> Self {
        use CloseReason::*;
        match number {
            0 => Shutdown,
            1 => Duplicate,
            2 => NetworkMismatch,
            3 => VersionMismatch,
            4 => NotAllowed,
            5 => ProtocolError,
            6 => Unresponsive,
            7 => RateLimited,
            8 => Removed,
            9 => TooManyLinks,
            other => Other(other),
        }
    }
}

impl From<CloseReason> for u8 {
    fn from(reason: CloseReason) -> u8 {
        use CloseReason::*;
        match reason {
            Shutdown => 0,
            Duplicate => 1,
            NetworkMismatch => 2,
            VersionMismatch => 3,
            NotAllowed => 4,
            ProtocolError => 5,
            Unresponsive => 6,
            RateLimited => 7,
            Removed => 8,
            TooManyLinks => 9,
            Other(number) => number,
        }
    }
}

impl CloseReason {
    /// Name in logs, metrics and close frames.
    pub fn name(self) -> &'static str {
        use CloseReason::*;
        match self {
            Shutdown => "shutdown",
            Duplicate => "duplicate",
            NetworkMismatch => "network_mismatch",
            VersionMismatch => "version_mismatch",
            NotAllowed => "not_allowed",
            ProtocolError => "protocol_error",
            Unresponsive => "unresponsive",
            RateLimited => "rate_limited",
            Removed => "removed",
            TooManyLinks => "too_many_links",
            Other(_) => "other",
        }
    }
}

/// Last frame of a link: `[reason, text]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// Why.
    pub reason: CloseReason,
    /// The same for people, at most 128 bytes.
    pub text: String,
}

impl Goodbye {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (reason, text): (CloseReason, String) =
            cbor::decode(body, GOODBYE_TEXT_BYTES_MAX + 8, "goodbye")?;
        if text.len() > GOODBYE_TEXT_BYTES_MAX {
            return Err(DecodeError::TooLarge {
                field: "text",
                got: text.len() as u64,
                limit: GOODBYE_TEXT_BYTES_MAX as u64,
            });
        }
        Ok(Self { reason, text })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut end = self.text.len().min(GOODBYE_TEXT_BYTES_MAX);
        while !self.text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        cbor::encode(&(self.reason, self.text.get(..end).unwrap_or("")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_goodbye_is_cut_at_a_character() {
        let text = format!("{}é", "a".repeat(GOODBYE_TEXT_BYTES_MAX - 1));
        let bytes = Goodbye { reason: CloseReason::Shutdown, text }.encode();
        let read = Goodbye::decode(&bytes).expect("a goodbye");
        assert_eq!(read.text, "a".repeat(GOODBYE_TEXT_BYTES_MAX - 1));
    }

    #[test]
    fn a_goodbye_over_the_limit_is_refused() {
        let bytes = cbor::encode(&(0u8, "a".repeat(GOODBYE_TEXT_BYTES_MAX + 1)));
        assert!(matches!(Goodbye::decode(&bytes), Err(DecodeError::TooLarge { field: "text", .. })));
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for number in 0..=u8::MAX {
            assert_eq!(u8::from(CloseReason::from(number)), number);
        }
        assert_eq!(CloseReason::from(8), CloseReason::Removed);
        assert_eq!(CloseReason::from(9), CloseReason::TooManyLinks);
        assert_eq!(CloseReason::from(10), CloseReason::Other(10));
    }

    #[test]
    fn a_hello_whose_versions_cross_is_refused() {
        let hello = Hello {
            version_min: 2,
            version_max: 1,
            network_tag: [0; 8],
            network_proof: None,
            features: 0,
            boot_epoch: 0,
            nonce: [0; 8],
            clock_unix_s: 0,
            initial_credit: [0; 3],
        };
        assert!(Hello::decode(&hello.encode()).is_err());
        assert!(Hello::decode(&Hello { version_min: 1, ..hello }.encode()).is_ok());
    }
}
