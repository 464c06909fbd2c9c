//! What a link remembers of the sources it hears: their decoded keys, and the Merkle roots that
//! their signatures were checked over.
//!
//! A root is remembered with its source and each source has room for a few, so one source that
//! makes a root for every message, shows old ones again or signs one root in many ways pushes out
//! its own roots and nobody else's. Sources push out each other as [`Remembered`] says: those that
//! are heard once make way for each other. Whatever is forgotten costs the one signature that a
//! plain proof would have cost.

use crate::{
    crypto::{VerifyKey, remembered::Remembered},
    wire::{Address, Digest, PublicKey, Signature},
};

/// Sources that a link remembers, 250 bytes each and 96 for each root. Decoding a key again costs a
/// tenth of a verification, asking the neighbour for one a round trip.
pub const SOURCES_MAX: usize = 1024;

/// Roots remembered of one source: its messages, its chunks and its receipts ride in queues of
/// their own, so three batches may come interleaved, and the end of the one before.
pub const ROOTS_PER_SOURCE: usize = 4;

#[derive(Debug)]
struct Source {
    key: VerifyKey,
    /// Roots and the signatures that were checked over them, newest last. The signature is compared
    /// as well: one that nobody checked would fail at the next relay, at our cost.
    roots: Vec<(Digest, Signature)>,
}

/// The sources of one link.
#[derive(Debug)]
pub(super) struct Sources(Remembered<Address, Source>);

impl Sources {
    /// None.
    pub(super) fn new() -> Self {
        Self(Remembered::new(SOURCES_MAX))
    }

    /// The key of a source.
    pub(super) fn key(&self, source: &Address) -> Option<&VerifyKey> {
        self.0.peek(source).map(|source| &source.key)
    }

    /// True where this signature over this root was checked with this very key.
    pub(super) fn has_root(
        &self,
        source: &Address,
        key: &PublicKey,
        root: &Digest,
        signature: &Signature,
    ) -> bool {
        self.0.peek(source).is_some_and(|held| {
            held.key.public_key() == *key && held.roots.iter().any(|(r, s)| r == root && s == signature)
        })
    }

    /// Something of this source held: its key, and the root under it where it came with one that was
    /// not known.
    pub(super) fn held_good(&mut self, source: Address, key: &VerifyKey, root: Option<(Digest, Signature)>) {
        match self.0.used(&source) {
            // Two keys of one address take a collision of half a hash. The first one stays.
            Some(held) if held.key != *key => {}
            Some(held) => {
                if let Some(root) = root {
                    if held.roots.len() >= ROOTS_PER_SOURCE {
                        held.roots.remove(0);
                    }
                    held.roots.push(root);
                }
            }
            None => {
                self.0.insert(source, Source { key: key.clone(), roots: root.into_iter().collect() });
            }
        }
    }

    /// Sources remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Roots remembered of one source.
    #[cfg(test)]
    pub(super) fn roots_of(&self, source: &Address) -> usize {
        self.0.peek(source).map_or(0, |source| source.roots.len())
    }
}
