//! A bound on inbound handshakes under way, that a flood cannot turn against honest peers.
//!
//! Nobody is known before the handshake, so nobody can be preferred; but an honest handshake is
//! over within a few round trips while one that only holds a place stays until its timeout. So a
//! full gate does not refuse the newcomer: it drops the oldest handshake of the party that has the most
//! under way.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use futures_util::future::{AbortHandle, Abortable};

use super::{addr::party_of, inbox::count, lanes::Lane};

/// Counts handshakes under way and ends the stalest of the greediest when there are too many.
#[derive(Debug)]
pub(super) struct Gate {
    pending: Mutex<Pending>,
    handshakes_max: usize,
}

#[derive(Debug, Default)]
struct Pending {
    next_id: u64,
    /// Oldest first.
    handshakes: VecDeque<Handshake>,
}

#[derive(Debug)]
struct Handshake {
    id: u64,
    party: IpAddr,
    task: AbortHandle,
}

/// A place in the gate; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Ticket {
    gate: Arc<Gate>,
    id: u64,
}

impl Gate {
    pub(super) fn new(handshakes_max: usize) -> Arc<Self> {
        Arc::new(Self { pending: Mutex::default(), handshakes_max: handshakes_max.max(1) })
    }

    /// Runs a handshake with `from` in a task of its own on `lane`, which drops its ticket when it is
    /// done. Counts in `evicted` if another one had to end for it.
    pub(super) fn admit<F>(
        self: &Arc<Self>,
        from: IpAddr,
        evicted: &AtomicU64,
        lane: Lane,
        handshake: impl FnOnce(Ticket, Lane) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (task, registration) = AbortHandle::new_pair();
        let (ticket, full) = self.enter(from, task);
        if full {
            count(evicted);
        }
        lane.start(|lane| {
            let handshake = Abortable::new(handshake(ticket, lane), registration);
            // One that was ended has nothing to tell; who it was for is counted as evicted.
            async move {
                let _ended = handshake.await;
            }
        });
    }

    /// A place for a handshake with `from`, which `task` ends; true if another one had to end for it.
    fn enter(self: &Arc<Self>, from: IpAddr, task: AbortHandle) -> (Ticket, bool) {
        let mut pending = self.lock();
        let full = pending.handshakes.len() >= self.handshakes_max;
        if full {
            pending.evict();
        }
        let id = pending.next_id;
        pending.next_id = id.wrapping_add(1);
        pending.handshakes.push_back(Handshake { id, party: party_of(from), task });
        (Ticket { gate: Arc::clone(self), id }, full)
    }

    /// Ends the handshake that would end for a newcomer at a full gate, counted in `evicted`; false
    /// where none is under way.
    #[cfg(any(test, feature = "tcp"))]
    pub(super) fn make_room(&self, evicted: &AtomicU64) -> bool {
        let ended = self.lock().evict();
        if ended {
            count(evicted);
        }
        ended
    }

    /// Ends all handshakes.
    pub(super) fn clear(&self) {
        let ended = std::mem::take(&mut self.lock().handshakes);
        ended.iter().for_each(|handshake| handshake.task.abort());
    }

    /// Handshakes under way.
    #[cfg(any(test, feature = "quic"))]
    pub(super) fn len(&self) -> usize {
        self.lock().handshakes.len()
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// False where there is none to end.
    fn evict(&mut self) -> bool {
        let mut held = BTreeMap::<IpAddr, usize>::new();
        for handshake in &self.handshakes {
            let places = held.entry(handshake.party).or_default();
            *places = places.saturating_add(1);
        }
        let greediest = held.into_iter().max_by_key(|(_, places)| *places).map(|(party, _)| party);
        let oldest = self.handshakes.iter().position(|handshake| Some(handshake.party) == greediest);
        let Some(handshake) = oldest.and_then(|at| self.handshakes.remove(at)) else { return false };
        handshake.task.abort();
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut pending = self.gate.lock();
        if let Some(at) = pending.handshakes.iter().position(|handshake| handshake.id == self.id) {
            pending.handshakes.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot::{self, error::TryRecvError};

    use super::*;
    use crate::transport::{Lanes, Spawn};

    /// A handshake that nobody answers; the receiver hears when it is dropped.
    fn enter(gate: &Arc<Gate>, from: &str) -> (oneshot::Receiver<()>, bool) {
        let (held, dropped) = oneshot::channel::<()>();
        let evicted = AtomicU64::new(0);
        gate.admit(from.parse().unwrap(), &evicted, Lane::default(), |ticket, lane| async move {
            let _held = (held, ticket, lane);
            pending::<()>().await;
        });
        (dropped, evicted.into_inner() > 0)
    }

    #[tokio::test]
    async fn the_oldest_of_the_greediest_makes_room() {
        let gate = Gate::new(4);
        let (mut honest, _) = enter(&gate, "192.0.2.1");
        let (flood_1, _) = enter(&gate, "2001:db8::1");
        let (mut flood_2, _) = enter(&gate, "2001:db8::2");
        let (mut flood_3, evicted) = enter(&gate, "2001:db8::3");
        assert!(!evicted);
        let (mut newcomer, evicted) = enter(&gate, "192.0.2.9");
        assert!(evicted);
        flood_1.await.expect_err("was dropped");
        assert_eq!(gate.len(), 4);
        for task in [&mut honest, &mut flood_2, &mut flood_3, &mut newcomer] {
            assert_eq!(task.try_recv(), Err(TryRecvError::Empty));
        }
        gate.clear();
        for task in [honest, flood_2, flood_3, newcomer] {
            task.await.expect_err("was dropped");
        }
        assert_eq!(gate.len(), 0);
    }

    #[tokio::test]
    async fn a_handshake_that_is_over_or_never_began_frees_its_place() {
        let gate = Gate::new(2);
        let (evicted, from) = (AtomicU64::new(0), "192.0.2.1".parse().unwrap());
        let (done, over) = oneshot::channel();
        gate.admit(from, &evicted, Lane::default(), |ticket, _| async move {
            drop(ticket);
            done.send(()).unwrap();
        });
        over.await.unwrap();
        assert_eq!(gate.len(), 0);
        let gone = Lanes::new(Spawn::default(), [Spawn::with(drop)]);
        gate.admit(from, &evicted, gone.enter(), |ticket, _| async move { drop(ticket) });
        assert_eq!(gate.len(), 0);
    }
}
