//! SHA-256 over parts.

use sha2::{Digest as _, Sha256, block_api::compress256};

use crate::wire::Digest;

/// SHA-256 over `parts` one after the other. The caller frames what could run together.
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Digest(hasher.finalize().into())
}

/// The state that SHA-256 starts from (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// [`sha256`] over a byte and one digest: one block, laid out here with its padding rather than
/// in a hasher's buffer: a relay does this for each message.
pub fn sha256_tagged(tag: u8, digest: &Digest) -> Digest {
    let mut block = [0; 64];
    let [first, rest @ .., length_high, length_low] = &mut block;
    *first = tag;
    let (body, padding) = rest.split_at_mut(Digest::LEN);
    body.copy_from_slice(digest.as_bytes());
    padding.iter_mut().take(1).for_each(|end| *end = 0x80);
    [*length_high, *length_low] = (8 * (1 + 32) as u16).to_be_bytes();
    compressed(&[block])
}

/// [`sha256`] over a byte and two digests: two blocks, as [`sha256_tagged`].
pub fn sha256_tagged_pair(tag: u8, left: &Digest, right: &Digest) -> Digest {
    let (mut block, mut last) = ([0; 64], [0; 64]);
    let [init @ .., overhang] = right.as_bytes();
    let [first, rest @ ..] = &mut block;
    *first = tag;
    let (body, end) = rest.split_at_mut(Digest::LEN);
    body.copy_from_slice(left.as_bytes());
    end.copy_from_slice(init);
    let [begin, padding, .., length_high, length_low] = &mut last;
    [*begin, *padding] = [*overhang, 0x80];
    [*length_high, *length_low] = (8 * (1 + 32 + 32) as u16).to_be_bytes();
    compressed(&[block, last])
}

fn compressed(blocks: &[[u8; 64]]) -> Digest {
    let mut state = INITIAL;
    compress256(&mut state, blocks);
    let mut out = [0; Digest::LEN];
    out.copy_from_slice(state.map(u32::to_be_bytes).as_flattened());
    Digest(out)
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

    #[test]
    fn tagged_digests_hash_as_their_bytes_do() {
        let mut digest = sha256(&[b"any"]);
        for tag in 0..=u8::MAX {
            let next = sha256(&[&[tag], digest.as_bytes()]);
            assert_eq!(sha256_tagged(tag, &digest), next);
            let pair = sha256(&[&[tag], digest.as_bytes(), next.as_bytes()]);
            assert_eq!(sha256_tagged_pair(tag, &digest, &next), pair);
            digest = next;
        }
    }
}
