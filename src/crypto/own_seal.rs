//! A mark that only this node can make: on what it wrote to its own disk after it had checked it,
//! and need not check again when it reads it back.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{identity::MeshIdentity, kdf::hkdf_sha256};
use crate::wire::NetworkId;

/// Bytes of a mark: HMAC-SHA-256 (RFC 2104), cut to its first half.
pub const MARK_BYTES: usize = 16;

/// Makes and knows the marks of one purpose. Wiped when dropped; prints nothing.
#[derive(Clone)]
pub struct OwnSeal {
    key: Zeroizing<[u8; 32]>,
}

impl OwnSeal {
    /// The seal of `identity` in one network for one purpose. What was marked in another, for another
    /// or by another identity is not known: a signature that held in one network says nothing in the
    /// next.
    pub fn new(identity: &MeshIdentity, network: NetworkId, purpose: &str) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        let info = [b"quicprochat/mesh/1/own-seal/", purpose.as_bytes()].concat();
        let derived = hkdf_sha256(&network.0, &*identity.seed(), &info, key.as_mut());
        debug_assert!(derived.is_ok(), "32 bytes are within what HKDF gives");
        Self { key }
    }

    /// The mark on `bytes`.
    pub fn mark(&self, bytes: &[u8]) -> [u8; MARK_BYTES] {
        let mut mark = [0; MARK_BYTES];
        if let Some(mac) = self.mac(bytes) {
            mark.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(to, from)| *to = from);
        }
        mark
    }

    /// True where `mark` is the one on `bytes`. Compares in constant time.
    pub fn knows(&self, bytes: &[u8], mark: &[u8; MARK_BYTES]) -> bool {
        self.mac(bytes).is_some_and(|mac| mac.verify_truncated_left(mark).is_ok())
    }

    /// HMAC takes keys of any length, so there always is one.
    fn mac(&self, bytes: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.key).ok()?;
        mac.update(bytes);
        Some(mac)
    }
}

impl fmt::Debug for OwnSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnSeal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_for_its_bytes_its_purpose_its_network_and_its_node() {
        let [one, other] = [1, 2].map(|n| MeshIdentity::from_seed([n; 32]));
        let [here, there] = [1, 2].map(|n| NetworkId([n; 16]));
        let seal = OwnSeal::new(&one, here, "routes");
        let mark = seal.mark(b"a row");
        assert!(OwnSeal::new(&one, here, "routes").knows(b"a row", &mark));
        assert!(!seal.knows(b"a rov", &mark) && !seal.knows(b"", &mark));
        assert!(!OwnSeal::new(&one, here, "inbox").knows(b"a row", &mark));
        assert!(!OwnSeal::new(&one, there, "routes").knows(b"a row", &mark));
        assert!(!OwnSeal::new(&other, here, "routes").knows(b"a row", &mark));
        for bit in 0..MARK_BYTES * 8 {
            let mut forged = mark;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!seal.knows(b"a row", &forged), "{bit}");
        }
        assert_eq!(format!("{seal:?}"), "OwnSeal");
    }
}
