//! A bound on inbound handshakes under way, that a flood cannot turn against honest peers.
//!
//! Nobody is known before the handshake, so nobody can be preferred; but an honest handshake is
//! over within a few round trips while one that only holds a place stays until its timeout. So a
//! full gate does not refuse the newcomer: it drops the oldest handshake of the network prefix that
//! has the most under way.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use tokio::task::AbortHandle;

use super::inbox::count;

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
    prefix: IpAddr,
    task: Option<AbortHandle>,
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

    /// Runs a handshake with `from` in a task of its own, which drops its ticket when it is done.
    /// Counts in `evicted` if another one had to end for it.
    pub(super) fn admit<F>(
        self: &Arc<Self>,
        from: IpAddr,
        evicted: &AtomicU64,
        handshake: impl FnOnce(Ticket) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ticket, full) = self.enter(from);
        if full {
            count(evicted);
        }
        let id = ticket.id;
        let task = tokio::spawn(handshake(ticket));
        self.arm(id, task.abort_handle());
    }

    /// A place for a handshake with `from`; true if another one had to end for it.
    fn enter(self: &Arc<Self>, from: IpAddr) -> (Ticket, bool) {
        let mut pending = self.lock();
        let full = pending.handshakes.len() >= self.handshakes_max;
        if full {
            pending.evict();
        }
        let id = pending.next_id;
        pending.next_id = id.wrapping_add(1);
        pending.handshakes.push_back(Handshake { id, prefix: prefix_of(from), task: None });
        (Ticket { gate: Arc::clone(self), id }, full)
    }

    /// Says which task holds place `id`, so that it can be ended. A place that is free again
    /// already is left alone.
    fn arm(&self, id: u64, task: AbortHandle) {
        if let Some(handshake) = self.lock().handshakes.iter_mut().find(|handshake| handshake.id == id) {
            handshake.task = Some(task);
        }
    }

    /// Ends all handshakes.
    pub(super) fn clear(&self) {
        let ended = std::mem::take(&mut self.lock().handshakes);
        ended.iter().filter_map(|handshake| handshake.task.as_ref()).for_each(AbortHandle::abort);
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
    fn evict(&mut self) {
        let mut held = BTreeMap::<IpAddr, usize>::new();
        for handshake in &self.handshakes {
            let places = held.entry(handshake.prefix).or_default();
            *places = places.saturating_add(1);
        }
        let greediest = held.into_iter().max_by_key(|(_, places)| *places).map(|(prefix, _)| prefix);
        let oldest = self.handshakes.iter().position(|handshake| Some(handshake.prefix) == greediest);
        if let Some(Handshake { task: Some(task), .. }) = oldest.and_then(|at| self.handshakes.remove(at)) {
            task.abort();
        }
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

/// What one party usually commands: an IPv4 address, or 64 bits of an IPv6 one.
fn prefix_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn enter(gate: &Arc<Gate>, from: &str) -> (tokio::task::JoinHandle<()>, bool) {
        let (ticket, evicted) = gate.enter(from.parse().unwrap());
        let id = ticket.id;
        let task = tokio::spawn(async move {
            let _held = ticket;
            pending::<()>().await;
        });
        gate.arm(id, task.abort_handle());
        (task, evicted)
    }

    #[tokio::test]
    async fn the_oldest_of_the_greediest_makes_room() {
        let gate = Gate::new(4);
        let (honest, _) = enter(&gate, "192.0.2.1");
        let (flood_1, _) = enter(&gate, "2001:db8::1");
        let (flood_2, _) = enter(&gate, "2001:db8::2");
        let (flood_3, evicted) = enter(&gate, "2001:db8::3");
        assert!(!evicted);
        let (newcomer, evicted) = enter(&gate, "192.0.2.9");
        assert!(evicted);
        assert!(flood_1.await.expect_err("was dropped").is_cancelled());
        assert_eq!(gate.len(), 4);
        assert!(![&honest, &flood_2, &flood_3, &newcomer].iter().any(|task| task.is_finished()));
        gate.clear();
        for task in [honest, flood_2, flood_3, newcomer] {
            assert!(task.await.expect_err("was dropped").is_cancelled());
        }
        assert_eq!(gate.len(), 0);
    }

    #[tokio::test]
    async fn a_finished_handshake_frees_its_place_even_before_it_is_armed() {
        let gate = Gate::new(2);
        let (ticket, _) = gate.enter("192.0.2.1".parse().unwrap());
        let id = ticket.id;
        drop(ticket);
        gate.arm(id, tokio::spawn(async {}).abort_handle());
        assert_eq!(gate.len(), 0);
    }
}
