//! The beacon: what a node calls into its local network, so that others find it. One datagram, no
//! frame; it says nothing of who sends it.

use super::{
    cbor::{self, Reader},
    error::DecodeError,
};

/// The version of the beacon that this library speaks.
pub const BEACON_VERSION: u8 = 1;

/// Largest beacon in bytes: array and version 2, instance 9, ask 1, four listeners of at most 6 and their
/// array's head, nonce 9, proof 9.
pub const BEACON_BYTES_MAX: usize = 55;

/// Listeners that one beacon names.
pub const BEACON_LISTENERS_MAX: usize = 4;

/// One port that links are taken at: `[medium, port]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BeaconListener {
    /// [`BeaconListener::QUIC`], [`BeaconListener::TCP`], or one of a newer version, to be ignored.
    pub medium: u8,
    /// The port, never 0.
    pub port: u16,
}

impl BeaconListener {
    /// QUIC over UDP.
    pub const QUIC: u8 = 0;
    /// TLS over TCP.
    pub const TCP: u8 = 1;
}

/// `[version, instance, ask, [+ [medium, port]], nonce, proof]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// Random for each start of a node, so that it knows its own beacons, and others know it by them
    /// no longer than it runs.
    pub instance: [u8; 8],
    /// True from one that has just come and wants to hear who is here.
    pub ask: bool,
    /// Where links are taken, at the address that the datagram came from: one to four, ascending.
    pub listeners: Vec<BeaconListener>,
    /// Random in each beacon, so that two of one network have no bytes in common.
    pub nonce: [u8; 8],
    /// First 8 bytes of the HMAC over all before it, under what the network's nodes know.
    pub proof: [u8; 8],
}

impl Beacon {
    /// Reads a datagram.
    ///
    /// # Errors
    /// Everything but the one spelling of a beacon of this version.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        if datagram.len() > BEACON_BYTES_MAX {
            return Err(DecodeError::TooLarge {
                field: "beacon",
                got: datagram.len() as u64,
                limit: BEACON_BYTES_MAX as u64,
            });
        }
        let mut r = Reader::new(datagram);
        r.array(6, 6, "beacon")?;
        let offset = r.offset();
        let version = r.u8(u8::MAX, "version")?;
        if version != BEACON_VERSION {
            return Err(DecodeError::OutOfRange { field: "version", offset, got: u64::from(version) });
        }
        let instance = r.fixed("instance")?;
        let ask = r.u8(1, "ask")? == 1;
        let count = r.array(1, BEACON_LISTENERS_MAX as u64, "listeners")?;
        let mut listeners = Vec::with_capacity(BEACON_LISTENERS_MAX);
        for _ in 0..count {
            let offset = r.offset();
            r.array(2, 2, "listener")?;
            let listener = BeaconListener { medium: r.u8(u8::MAX, "medium")?, port: r.u16("port")? };
            // Ascending, so that one set of listeners has one spelling.
            if listener.port == 0 || listeners.last().is_some_and(|last| *last >= listener) {
                return Err(DecodeError::OutOfRange {
                    field: "listener",
                    offset,
                    got: u64::from(listener.port),
                });
            }
            listeners.push(listener);
        }
        let nonce = r.fixed("nonce")?;
        let proof = r.fixed("proof")?;
        r.finish()?;
        Ok(Self { instance, ask, listeners, nonce, proof })
    }

    /// What the proof is over: the elements before it, as they stand in the datagram.
    pub fn proven(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BEACON_BYTES_MAX);
        cbor::put_uint(&mut out, u64::from(BEACON_VERSION));
        cbor::put_bytes(&mut out, &self.instance);
        cbor::put_uint(&mut out, u64::from(self.ask));
        cbor::put_array(&mut out, self.listeners.len() as u64);
        for listener in &self.listeners {
            cbor::put_array(&mut out, 2);
            cbor::put_uint(&mut out, u64::from(listener.medium));
            cbor::put_uint(&mut out, u64::from(listener.port));
        }
        cbor::put_bytes(&mut out, &self.nonce);
        out
    }

    /// Writes the datagram. `listeners` have to be as [`Beacon::decode`] wants them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BEACON_BYTES_MAX);
        cbor::put_array(&mut out, 6);
        out.extend_from_slice(&self.proven());
        cbor::put_bytes(&mut out, &self.proof);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beacon(listeners: &[(u8, u16)]) -> Beacon {
        let listeners =
            listeners.iter().map(|(medium, port)| BeaconListener { medium: *medium, port: *port });
        Beacon { instance: [1; 8], ask: true, listeners: listeners.collect(), nonce: [2; 8], proof: [3; 8] }
    }

    #[test]
    fn a_beacon_of_most_listeners_has_the_largest_size() {
        let most = beacon(&[(0xfc, u16::MAX), (0xfd, u16::MAX), (0xfe, u16::MAX), (0xff, u16::MAX)]);
        assert_eq!(most.encode().len(), BEACON_BYTES_MAX);
        assert_eq!(Beacon::decode(&most.encode()), Ok(most));
    }

    #[test]
    fn listeners_are_one_to_four_ascending_and_have_a_port() {
        for wrong in [
            &[][..],
            &[(0, 0)],
            &[(1, 7410), (0, 7410)],
            &[(0, 7410), (0, 7410)],
            &[(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)],
        ] {
            assert!(Beacon::decode(&beacon(wrong).encode()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn another_version_is_none_of_ours() {
        let mut bytes = beacon(&[(0, 7410)]).encode();
        bytes[1] = 2;
        assert!(Beacon::decode(&bytes).is_err());
    }
}
