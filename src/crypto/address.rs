//! Names derived by hashing: a node's address from its key, a network's id from its name.

use crate::wire::{Address, NetworkId, PublicKey};

use super::hash::{prefix, sha256};

/// The address of a key: the first 16 bytes of SHA-256 over it. Nobody can find a second key for
/// an address in use (2^128 work), so a record that carries the key proves itself.
pub fn compute_address(key: &PublicKey) -> Address {
    Address(prefix(&sha256(&[key.as_bytes()])))
}

/// The id of a network: the first 16 bytes of SHA-256 over its name.
pub fn network_id(name: &str) -> NetworkId {
    NetworkId(prefix(&sha256(&[name.as_bytes()])))
}

/// What a hello says of its network: the first 8 bytes of the id.
pub fn network_tag(network: &NetworkId) -> [u8; 8] {
    let mut out = [0; 8];
    out.iter_mut().zip(network.as_bytes()).for_each(|(to, from)| *to = *from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_prefixes_of_the_hash() {
        // SHA-256("abc") and SHA-256(32 zero bytes), as any other tool computes them.
        assert_eq!(network_id("abc").to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(network_tag(&network_id("abc")), [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]);
        let address = compute_address(&PublicKey([0; 32]));
        assert_eq!(address.to_string(), "66687aadf862bd776c8fc18b8e9f8e20");
    }
}
