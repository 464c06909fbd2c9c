//! Our hello, and the judgement of the peer's.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::wire::{
    handshake::{Hello, VERSION},
    ids::hex,
};

use super::{
    Direction, LinkConfig,
    error::{LinkError, SecretFault},
};

/// A MAC that shows knowledge of a network's secret.
pub(in crate::proto) type NetworkMac = Hmac<Sha256>;

/// The shared secret of a closed network. Wiped when dropped; prints nothing.
#[derive(Clone)]
pub struct NetworkSecret(Zeroizing<Vec<u8>>);

impl NetworkSecret {
    /// Takes the secret's bytes. It is an HMAC key and has to be hard to guess: whoever connects
    /// may try guesses against the proof at leisure.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A MAC under the secret. HMAC takes keys of any length, so there always is one.
    pub(in crate::proto) fn keyed(&self) -> Option<NetworkMac> {
        NetworkMac::new_from_slice(&self.0).ok()
    }

    /// The MAC that the side which `direction` speaks of shows on this connection.
    fn mac(&self, channel_binding: &[u8; 32], direction: Direction) -> Option<Hmac<Sha256>> {
        let mut mac = self.keyed()?;
        mac.update(channel_binding);
        mac.update(&[role(direction)]);
        Some(mac)
    }
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret")
    }
}

/// The role byte in the network proof: 0 of the side that dialled, 1 of the other.
fn role(direction: Direction) -> u8 {
    match direction {
        Direction::Out => 0,
        Direction::In => 1,
    }
}

/// First 8 bytes of the network's id, as hellos carry it.
fn tag(config: &LinkConfig) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = config.network.0;
    [a, b, c, d, e, f, g, h]
}

pub(super) fn ours(config: &LinkConfig, nonce: [u8; 8]) -> Hello {
    let secret = config.network_secret.as_ref();
    let mac = secret.and_then(|s| s.mac(&config.channel_binding, config.direction));
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        network_tag: tag(config),
        network_proof: mac.map(|mac| mac.finalize().into_bytes().into()),
        features: config.features,
        boot_epoch: config.boot_epoch,
        nonce,
        clock_unix_s: config.clock_unix_s,
        initial_credit: config.initial_credit,
    }
}

/// The version to speak with whoever sent `theirs`, or why there is nothing to speak of. Cheap and
/// public facts come first, the secret last.
pub(super) fn judge(config: &LinkConfig, nonce: [u8; 8], theirs: &Hello) -> Result<u8, LinkError> {
    // On media that do not name the peer an echo shows by our own nonce.
    if config.peer == Some(config.own_key) || theirs.nonce == nonce {
        return Err(LinkError::OwnIdentity);
    }
    if theirs.network_tag != tag(config) {
        return Err(LinkError::NetworkTag { expected: hex(&tag(config)), got: hex(&theirs.network_tag) });
    }
    if theirs.version_min > VERSION || theirs.version_max < VERSION {
        return Err(LinkError::Version {
            ours: VERSION,
            peer_min: theirs.version_min,
            peer_max: theirs.version_max,
        });
    }
    let fault = match (&config.network_secret, &theirs.network_proof) {
        (None, None) => return Ok(VERSION),
        (Some(_), None) => SecretFault::PeerHasNone,
        (None, Some(_)) => SecretFault::WeHaveNone,
        (Some(secret), Some(proof)) => {
            let mac = secret.mac(&config.channel_binding, config.direction.reversed());
            // `verify_slice` compares in constant time.
            if mac.is_some_and(|mac| mac.verify_slice(proof).is_ok()) {
                return Ok(VERSION);
            }
            SecretFault::Differs
        }
    };
    Err(LinkError::NetworkSecret { fault })
}
