//! A node's card: who it is and where to dial it, as one line that people pass on.
//!
//! ```text
//! qpc:ADDRESS?k=KEY&peer=URL&c=CHECK
//! ```
//!
//! - `ADDRESS`: 32 hex digits; `KEY`: the public key, 64 hex digits. The address is a hash of the key,
//!   so that a card cannot give one node another's.
//! - `peer`: where it can be dialled, `quic://HOST:PORT` or `tcp://HOST:PORT`; none, or up to four, the
//!   preferred one first. What has a meaning in a query is percent-encoded.
//! - `c`: the first four bytes of SHA-256 over everything before `&c=`, in hex. It finds what was
//!   mistyped or cut off, and protects from nobody who means it.
//!
//! One spelling of each card: digits in lower case, parameters in this order, nothing else.

use std::{fmt, fmt::Write as _, str::FromStr};

use crate::{
    config::PeerUrl,
    crypto::{
        compute_address,
        hash::{prefix, sha256},
    },
    wire::{Address, PublicKey, ids::hex},
};

/// Longest card in bytes.
pub const CARD_BYTES_MAX: usize = 2048;

/// Most places to dial in one card.
pub const CARD_PEERS_MAX: usize = 4;

/// What every card begins with.
pub const CARD_SCHEME: &str = "qpc:";

/// Who a node is and where to dial it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    key: PublicKey,
    peers: Vec<PeerUrl>,
}

/// Why a text is no card, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// Something else.
    #[error("it does not begin with qpc: and an address of 32 hex digits")]
    NotACard,
    /// More than [`CARD_BYTES_MAX`].
    #[error("it is longer than the 2048 characters that a card may have")]
    TooLong,
    /// No checksum at the end.
    #[error("its end is missing (&c= and 8 hex digits): copy all of it")]
    CutOff,
    /// A checksum of another text.
    #[error("its checksum does not fit: a character was mistyped or lost; copy it again")]
    Checksum,
    /// A key that belongs to another address.
    #[error("its key belongs to {key_address}, not to its address {address}: do not use it")]
    Key {
        /// The address it names.
        address: Address,
        /// The address of the key.
        key_address: Address,
    },
    /// A parameter that is missing, unknown, doubled or spelled in another way.
    #[error("its {0}")]
    Parameter(String),
}

impl Card {
    /// The card of the node with this key.
    ///
    /// # Errors
    /// More than [`CARD_PEERS_MAX`] places, one that is pinned to another node, or more text than
    /// [`CARD_BYTES_MAX`].
    pub fn new(key: PublicKey, peers: Vec<PeerUrl>) -> Result<Self, CardError> {
        let address = compute_address(&key);
        if address.is_reserved() {
            return Err(CardError::NotACard);
        }
        if peers.len() > CARD_PEERS_MAX {
            return Err(CardError::Parameter(format!("places to dial are more than {CARD_PEERS_MAX}")));
        }
        if let Some(other) = peers.iter().find(|url| url.pin.is_some_and(|pin| pin != address)) {
            return Err(CardError::Parameter(format!("place {other} is another node's")));
        }
        // The card says who it is; a pin in each place would say it again.
        let peers = peers.into_iter().map(|url| PeerUrl { pin: None, ..url }).collect();
        let card = Self { key, peers };
        match card.to_string().len() > CARD_BYTES_MAX {
            true => Err(CardError::TooLong),
            false => Ok(card),
        }
    }

    /// Who it is.
    pub fn address(&self) -> Address {
        compute_address(&self.key)
    }

    /// Its key.
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// Where it can be dialled, the preferred place first; each pinned to this node, so that nobody
    /// else is taken for it.
    pub fn peers(&self) -> Vec<PeerUrl> {
        let pin = Some(self.address());
        self.peers.iter().map(|url| PeerUrl { pin, ..url.clone() }).collect()
    }

    /// Everything before the checksum.
    fn body(&self) -> String {
        let mut body = format!("{CARD_SCHEME}{}?k={}", self.address(), self.key);
        for peer in &self.peers {
            body.push_str("&peer=");
            encode(&peer.to_string(), &mut body);
        }
        body
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        write!(f, "{body}&c={}", checksum(&body))
    }
}

impl FromStr for Card {
    type Err = CardError;

    fn from_str(text: &str) -> Result<Self, CardError> {
        if text.len() > CARD_BYTES_MAX {
            return Err(CardError::TooLong);
        }
        let rest = text.strip_prefix(CARD_SCHEME).ok_or(CardError::NotACard)?;
        let (address, _) = rest.split_at_checked(2 * Address::LEN).ok_or(CardError::NotACard)?;
        let address: Address = address.parse().map_err(|_| CardError::NotACard)?;
        // First of all: what was mistyped explains whatever else is wrong.
        let (body, check) = text.rsplit_once("&c=").ok_or(CardError::CutOff)?;
        if check.len() < 8 {
            return Err(CardError::CutOff);
        }
        if check != checksum(body) {
            return Err(CardError::Checksum);
        }
        let parameter = |text: String| CardError::Parameter(text);
        let query = body.split_once('?').map_or("", |(_, query)| query);
        let mut parameters = query.split('&');
        let key = parameters.next().and_then(|first| first.strip_prefix("k="));
        let key = key.and_then(|key| key.parse::<PublicKey>().ok());
        let key = key.ok_or_else(|| parameter("key (k=) is missing or no 64 hex digits".into()))?;
        let key_address = compute_address(&key);
        if key_address != address {
            return Err(CardError::Key { address, key_address });
        }
        let mut peers = Vec::new();
        for text in parameters {
            let url = text.strip_prefix("peer=").ok_or_else(|| {
                parameter("parameters are not those of a card; a newer version may have made it".into())
            })?;
            let url = decode(url).ok_or_else(|| parameter("place to dial is encoded wrongly".into()))?;
            let url: PeerUrl = url.parse().map_err(|e| parameter(format!("place to dial: {e}")))?;
            peers.push(url);
        }
        let card = Self::new(key, peers)?;
        match card.body() == body {
            true => Ok(card),
            false => Err(parameter("spelling is not the one that cards have".into())),
        }
    }
}

fn checksum(body: &str) -> String {
    hex(&prefix::<4>(&sha256(&[body.as_bytes()])))
}

/// Characters that stand for themselves in a place to dial.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/[]".contains(&byte)
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match is_plain(byte) {
            true => out.push(char::from(byte)),
            // A string takes what is written to it.
            false => drop(write!(out, "%{byte:02X}")),
        }
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        out.push(match byte {
            b'%' => {
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::MeshIdentity;

    fn key(seed: u8) -> PublicKey {
        MeshIdentity::from_seed([seed; 32]).public_key()
    }

    fn card(peers: &[&str]) -> Card {
        Card::new(key(1), peers.iter().map(|url| url.parse().unwrap()).collect()).unwrap()
    }

    /// A card of this body, with a checksum that fits.
    fn signed(body: &str) -> Result<Card, CardError> {
        format!("{body}&c={}", checksum(body)).parse()
    }

    #[test]
    fn a_card_is_what_it_was_and_pins_its_node() {
        for peers in [
            &[][..],
            &["quic://example.org:7410"],
            &["quic://[2001:db8::1]:7410", "tcp://192.0.2.1:7410"],
            &["tcp://[fe80::1%eth0]:7410"],
        ] {
            let card = card(peers);
            let text = card.to_string();
            assert_eq!(text.parse(), Ok(card.clone()), "{text}");
            assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text}");
            assert_eq!(card.peers().len(), peers.len());
            assert!(card.peers().iter().all(|url| url.pin == Some(card.address())));
        }
        // As anybody else computes it: printf 'qpc:…' | sha256sum | head -c 8.
        let text = card(&["quic://example.org:7410"]).to_string();
        assert!(text.starts_with(&format!(
            "qpc:{}?k={}&peer=quic://example.org:7410&c=",
            compute_address(&key(1)),
            key(1)
        )));
    }

    #[test]
    fn every_single_character_that_is_changed_lost_or_doubled_is_noticed() {
        let text = card(&["quic://example.org:7410"]).to_string();
        for at in 0..text.len() {
            let (before, after) = (&text[..at], &text[at + 1..]);
            for wrong in
                [format!("{before}{after}"), format!("{before}0{after}"), format!("{before}Z{after}")]
            {
                assert!(wrong == text || wrong.parse::<Card>().is_err(), "{wrong}");
            }
            assert!(text[..at].parse::<Card>().is_err());
        }
        assert!(format!("{text}0").parse::<Card>().is_err() && format!(" {text}").parse::<Card>().is_err());
        assert_eq!(text[..text.len() - 12].parse::<Card>(), Err(CardError::CutOff));
    }

    #[test]
    fn one_that_gives_a_node_anothers_key_is_refused_by_name() {
        let (own, other) = (compute_address(&key(1)), compute_address(&key(2)));
        let forged = signed(&format!("qpc:{own}?k={}", key(2)));
        assert_eq!(forged, Err(CardError::Key { address: own, key_address: other }));
    }

    #[test]
    fn other_spellings_and_hostile_parameters_are_refused() {
        let body = card(&["quic://example.org:7410"]).body();
        assert!(signed(&body).is_ok());
        for wrong in [
            body.to_uppercase().replacen("QPC:", "qpc:", 1).replace("?K=", "?k="),
            body.replace("quic", "%71uic"),
            body.replace("?k=", "?x=1&k="),
            format!("{body}&x=1"),
            format!("{body}&"),
            format!("{body}&peer="),
            format!("{body}&peer=quic://a b:1"),
            format!("{body}&peer=http://example.org:80"),
            format!("{body}&peer=quic://example.org:0"),
            format!("{body}&peer=quic://example.org:1%23{}", "11".repeat(16)),
            format!("{body}&peer=%FF"),
            format!("{body}&peer=%4"),
            format!("{body}&peer=%1B]0;x"),
            format!("{body}{}", "&peer=quic://a:1".repeat(4)),
            body.split('?').next().unwrap().to_owned(),
        ] {
            assert!(signed(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(signed(&format!("{body}&peer=quic://{}:1", "a".repeat(3000))), Err(CardError::TooLong));
        for nothing in [
            "",
            "qpc:",
            "qpc:abc",
            "anna",
            "http://x",
            "qpc:\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}x",
        ] {
            assert_eq!(nothing.parse::<Card>(), Err(CardError::NotACard), "{nothing}");
        }
        assert!(
            Card::new(key(1), vec![format!("quic://a:1#{}", compute_address(&key(2))).parse().unwrap()])
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn whatever_the_text_an_answer_comes(text in ".{0,300}", tail in "[ -~]{0,80}") {
            let address = compute_address(&key(1));
            for text in [text.clone(), format!("qpc:{address}{text}"), format!("qpc:{address}?k={}{tail}", key(1))] {
                let _ = text.parse::<Card>();
                if let Ok(card) = signed(&text) {
                    prop_assert_eq!(card.body(), text);
                }
            }
        }

        #[test]
        fn cards_of_all_hosts_and_ports_round_trip(
            seed: u8,
            hosts in prop::collection::vec("[a-zA-Z0-9._-]{1,60}|\\[[0-9a-f]{1,4}::[0-9a-f]{1,4}(%[a-z0-9]{1,8})?\\]", 0..4),
            port in 1_u16..,
            is_quic: bool,
        ) {
            let scheme = if is_quic { "quic" } else { "tcp" };
            let urls: Vec<PeerUrl> =
                hosts.iter().filter_map(|host| format!("{scheme}://{host}:{port}").parse().ok()).collect();
            let card = Card::new(key(seed), urls).unwrap();
            prop_assert_eq!(card.to_string().parse(), Ok(card));
        }
    }
}
