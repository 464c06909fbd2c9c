//! SHA-256 over parts.

use sha2::{Digest as _, Sha256};

use crate::wire::Digest;

/// SHA-256 over `parts` one after the other. The caller frames what could run together.
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Digest(hasher.finalize().into())
}

/// The first `N` bytes of a digest, `N` ≤ 32.
pub fn prefix<const N: usize>(digest: &Digest) -> [u8; N] {
    const { assert!(N <= Digest::LEN) };
    let mut out = [0; N];
    out.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hash_like_their_concatenation() {
        let whole = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&[b"abc"]).to_string(), whole);
        assert_eq!(sha256(&[b"a", b"", b"bc"]).to_string(), whole);
        assert_eq!(prefix(&sha256(&[b"abc"])), [0xba, 0x78, 0x16, 0xbf]);
    }
}
