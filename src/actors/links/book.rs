//! What outlives an incarnation of the registry: whom to dial, and what the router was told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Origin;
use crate::{
    clock,
    proto::{
        bans::{Bans, Barred},
        kept_out::KeptOut,
    },
    transport::TransportAddr,
    wire::{Address, LinkId},
};

/// Peers that are to be dialled, shared by all incarnations of the registry.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<Mutex<Vec<(TransportAddr, Origin)>>>);

impl From<Vec<TransportAddr>> for Peers {
    fn from(configured: Vec<TransportAddr>) -> Self {
        Self::new(configured, Vec::new())
    }
}

impl Peers {
    /// Those of the configuration, and those that were added at run time.
    pub fn new(configured: Vec<TransportAddr>, added: Vec<TransportAddr>) -> Self {
        let mut peers: Vec<_> = configured.into_iter().map(|peer| (peer, Origin::Config)).collect();
        for peer in added {
            if !peers.iter().any(|(known, _)| *known == peer) {
                peers.push((peer, Origin::Added));
            }
        }
        Self(Arc::new(Mutex::new(peers)))
    }

    pub(super) fn list(&self) -> Vec<(TransportAddr, Origin)> {
        self.lock().clone()
    }

    /// Gives whose word it is that this peer is dialled.
    pub(super) fn add(&self, peer: &TransportAddr) -> Origin {
        let mut peers = self.lock();
        if let Some((_, origin)) = peers.iter().find(|(known, _)| known == peer) {
            return *origin;
        }
        peers.push((peer.clone(), Origin::Added));
        Origin::Added
    }

    pub(super) fn remove(&self, peer: &TransportAddr) {
        self.lock().retain(|(known, _)| !known.same_place(peer));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(TransportAddr, Origin)>> {
        // No operation leaves the list half changed, so a poisoned lock is taken over.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the router was told of links, shared by all incarnations of the registry: links end while
/// there is none, and then nobody else would tell the router. And who is not let in, since nobody
/// is to gain by a crash.
#[derive(Debug, Clone, Default)]
pub struct LinkBook(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    last: u64,
    up: BTreeSet<LinkId>,
    kept_out: KeptOut,
    bans: Bans,
}

impl LinkBook {
    /// Of a node with these bans.
    pub fn with_bans(bans: Bans) -> Self {
        Self(Arc::new(Mutex::new(Told { bans, ..Told::default() })))
    }

    /// Whether there may be a link with this node.
    pub(super) fn admit(&self, node: &Address) -> Result<(), Barred> {
        self.lock().bans.admit(node)
    }

    pub(super) fn ban(&self, node: Address) -> bool {
        self.lock().bans.ban(node)
    }

    pub(super) fn unban(&self, node: &Address) -> bool {
        self.lock().bans.unban(node)
    }

    pub(super) fn banned(&self) -> Vec<Address> {
        self.lock().bans.banned().copied().collect()
    }

    pub(super) fn next(&self) -> LinkId {
        let mut told = self.lock();
        told.last = told.last.saturating_add(1);
        LinkId(told.last)
    }

    pub(super) fn up(&self, link: LinkId) {
        self.lock().up.insert(link);
    }

    pub(super) fn down(&self, link: LinkId) {
        self.lock().up.remove(&link);
    }

    pub(super) fn cut(&self, neighbour: Address) {
        self.lock().kept_out.cut(clock::now(), neighbour);
    }

    /// How long this neighbour is not let in.
    pub(super) fn kept_out(&self, neighbour: &Address) -> Option<Duration> {
        self.lock().kept_out.wait(clock::now(), neighbour)
    }

    /// Links of former incarnations, once.
    pub(super) fn orphans(&self) -> BTreeSet<LinkId> {
        std::mem::take(&mut self.lock().up)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // No operation leaves it half changed, so a poisoned lock is taken over.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
