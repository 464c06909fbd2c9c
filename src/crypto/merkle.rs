//! One signature for many envelopes: a Merkle tree over their signature inputs.
//!
//! `leaf = SHA-256(0x00 ‖ SHA-256(signature input))`, `node = SHA-256(0x01 ‖ left ‖ right)`; the
//! inner digest is the one whose head is the packet id, so a relay reads each envelope once. The
//! tree is filled up to a power of two with the all-zero digest in place of leaves. The prefixes keep a
//! node from passing for a leaf. The root is signed as [`SignedType::MerkleRoot`], 32 bytes; each
//! envelope then carries the root's signature, its index and its path, and is checked by itself.
//!
//! [`SignedType::MerkleRoot`]: super::sign::SignedType::MerkleRoot

use crate::wire::{Digest, limits::MERKLE_LEVELS_MAX};

use super::{
    error::CryptoError,
    hash::{sha256_tagged, sha256_tagged_pair},
};

/// Most leaves of one tree.
pub const LEAVES_MAX: usize = 1 << MERKLE_LEVELS_MAX;

/// Stands where the tree has no leaf. No input hashes to it.
const EMPTY: Digest = Digest([0; 32]);

/// The leaf of a signature input with this digest ([`Input::digest`]).
///
/// [`Input::digest`]: super::sign::Input::digest
pub fn leaf(input: &Digest) -> Digest {
    sha256_tagged(0, input)
}

fn node(left: &Digest, right: &Digest) -> Digest {
    sha256_tagged_pair(1, left, right)
}

/// The tree of one batch.
#[derive(Debug, Clone)]
pub struct MerkleTree {
    /// Leaves first, root last; each level half as long as the one before it.
    levels: Vec<Vec<Digest>>,
    leaves: usize,
}

impl MerkleTree {
    /// Builds the tree over `leaves` ([`Input::leaf`]), in their order.
    ///
    /// # Errors
    /// [`CryptoError::LeafCount`] for none or more than [`LEAVES_MAX`].
    ///
    /// [`Input::leaf`]: super::sign::Input::leaf
    pub fn new(mut leaves: Vec<Digest>) -> Result<Self, CryptoError> {
        let count = leaves.len();
        if count == 0 || count > LEAVES_MAX {
            return Err(CryptoError::LeafCount { got: count, limit: LEAVES_MAX });
        }
        leaves.resize(count.next_power_of_two(), EMPTY);
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks_exact(2).map(|pair| match pair {
                [left, right] => node(left, right),
                _ => EMPTY,
            });
            levels.push(above.collect());
        }
        Ok(Self { levels, leaves: count })
    }

    /// What is signed.
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(EMPTY)
    }

    /// The siblings from leaf `index` up to the root, lowest first; none where there is no such
    /// leaf.
    pub fn path(&self, index: usize) -> Option<Vec<Digest>> {
        if index >= self.leaves {
            return None;
        }
        let below_root = self.levels.iter().filter(|level| level.len() > 1);
        below_root.enumerate().map(|(height, level)| level.get((index >> height) ^ 1).copied()).collect()
    }
}

/// The root that `leaf` at `index` has by `path`; none where the path is longer than
/// [`MERKLE_LEVELS_MAX`] or the index lies outside a tree of its height. Each leaf so has one
/// index and one path, and a proof has no second spelling.
pub fn root_from_path(leaf: Digest, index: u32, path: &[Digest]) -> Option<Digest> {
    if path.len() > MERKLE_LEVELS_MAX || u64::from(index) >= 1u64 << path.len() {
        return None;
    }
    let root = path.iter().enumerate().fold(leaf, |below, (height, sibling)| {
        if (index >> height) & 1 == 0 { node(&below, sibling) } else { node(sibling, &below) }
    });
    Some(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{MeshIdentity, SignatureInput, SignedType, VerifyKey, hash::sha256, network_id},
        wire::Signature,
    };

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|i| leaf(&sha256(&[&i.to_be_bytes()]))).collect()
    }

    #[test]
    fn every_leaf_of_every_size_proves_itself() {
        for count in (1..=33).chain([64, 65, 255, 256]) {
            let tree = MerkleTree::new(leaves(count)).unwrap();
            for (index, leaf) in leaves(count).into_iter().enumerate() {
                let path = tree.path(index).unwrap();
                assert_eq!(1 << path.len(), count.next_power_of_two());
                assert_eq!(root_from_path(leaf, index as u32, &path), Some(tree.root()), "{index}/{count}");
            }
            assert_eq!(tree.path(count), None);
        }
    }

    #[test]
    fn the_tree_is_exactly_what_the_specification_says() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|input| leaf(&sha256(&[input])));
        assert_eq!(a, sha256(&[&[0], sha256(&[b"a"]).as_bytes()]));
        let zero = Digest([0; 32]);
        let left = sha256(&[&[1], a.as_bytes(), b.as_bytes()]);
        let right = sha256(&[&[1], c.as_bytes(), zero.as_bytes()]);
        let tree = MerkleTree::new(vec![a, b, c]).unwrap();
        assert_eq!(tree.root(), sha256(&[&[1], left.as_bytes(), right.as_bytes()]));
        assert_eq!(tree.path(2), Some(vec![zero, left]));
        assert_eq!(MerkleTree::new(vec![a]).unwrap().root(), a);
    }

    #[test]
    fn a_proof_has_one_spelling() {
        let tree = MerkleTree::new(leaves(8)).unwrap();
        let path = tree.path(5).unwrap();
        let leaf = leaves(8)[5];
        for index in (0..8u32).filter(|index| *index != 5) {
            assert_ne!(root_from_path(leaf, index, &path), Some(tree.root()), "{index}");
        }
        // Index 13 walks the same turns as 5 and lies outside the tree.
        assert_eq!(root_from_path(leaf, 13, &path), None);
        assert_eq!(root_from_path(leaf, u32::MAX, &path), None);
        assert_eq!(root_from_path(leaf, 1, &[]), None);
        assert_eq!(root_from_path(leaf, 5, &[Digest([0; 32]); MERKLE_LEVELS_MAX + 1]), None);
        for at in 0..path.len() {
            let mut wrong = path.clone();
            wrong[at].0[0] ^= 1;
            assert_ne!(root_from_path(leaf, 5, &wrong), Some(tree.root()));
            assert_ne!(root_from_path(leaf, 1, &path[..at]), Some(tree.root()));
        }
    }

    #[test]
    fn a_node_does_not_pass_for_a_leaf() {
        let tree = MerkleTree::new(leaves(4)).unwrap();
        let [a, b, _, _] = leaves(4)[..] else { unreachable!() };
        let upper = tree.path(0).unwrap()[1];
        // An input whose digest is the children's node; its leaf is not.
        let posing = leaf(&node(&a, &b));
        assert_ne!(root_from_path(posing, 0, &[upper]), Some(tree.root()));
    }

    #[test]
    fn none_and_too_many_leaves_are_refused() {
        for got in [0, LEAVES_MAX + 1] {
            let refused = MerkleTree::new(leaves(got)).unwrap_err();
            assert_eq!(refused, CryptoError::LeafCount { got, limit: LEAVES_MAX });
        }
    }

    #[test]
    fn one_signature_proves_many_envelopes() {
        let identity = MeshIdentity::from_seed([1; 32]);
        let key = VerifyKey::new(&identity.public_key()).unwrap();
        let mut scratch = SignatureInput::new(network_id("public"));
        let envelopes: Vec<[u8; 3]> = (0..100).map(|i| [i, 2, 3]).collect();
        let leaves = envelopes.iter().map(|e| scratch.of(SignedType::EnvelopeV2, e).leaf()).collect();
        let tree = MerkleTree::new(leaves).unwrap();
        let root = tree.root();
        let signature = identity.sign(scratch.of(SignedType::MerkleRoot, root.as_bytes()));

        let proves = |scratch: &mut SignatureInput, kind, envelope: &[u8], signature: &Signature| {
            let path = tree.path(42).unwrap();
            let root = root_from_path(scratch.of(kind, envelope).leaf(), 42, &path).unwrap();
            scratch.of(SignedType::MerkleRoot, root.as_bytes()).verify(&key, signature)
        };
        let good = envelopes[42];
        assert_eq!(proves(&mut scratch, SignedType::EnvelopeV2, &good, &signature), Ok(()));
        assert!(proves(&mut scratch, SignedType::EnvelopeV2, &envelopes[43], &signature).is_err());
        assert!(proves(&mut scratch, SignedType::EnvelopeV1, &good, &signature).is_err());
        // A plain signature over the root's bytes in another context does not stand in for it.
        let wrong = identity.sign(scratch.of(SignedType::EnvelopeV2, root.as_bytes()));
        assert!(proves(&mut scratch, SignedType::EnvelopeV2, &good, &wrong).is_err());
    }
}
