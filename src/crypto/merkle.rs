//! One signature for many envelopes: a Merkle tree over their signature inputs.
//!
//! `leaf = SHA-256(0x00 ‖ signature input)`, `node = SHA-256(0x01 ‖ left ‖ right)`; the tree is
//! filled up to a power of two with the all-zero digest in place of leaves. The prefixes keep a
//! node from passing for a leaf. The root is signed as [`SignedType::MerkleRoot`], 32 bytes; each
//! envelope then carries the root's signature, its index and its path, and is checked by itself.
//!
//! [`SignedType::MerkleRoot`]: super::sign::SignedType::MerkleRoot

use crate::wire::{Digest, limits::MERKLE_LEVELS_MAX};

use super::{error::CryptoError, hash::sha256};

/// Most leaves of one tree.
pub const LEAVES_MAX: usize = 1 << MERKLE_LEVELS_MAX;

/// Stands where the tree has no leaf. No input hashes to it.
const EMPTY: Digest = Digest([0; 32]);

/// The leaf of a signature input.
pub(super) fn leaf(input: &[u8]) -> Digest {
    sha256(&[&[0], input])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], left.as_bytes(), right.as_bytes()])
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
