//! Traffic for the simulation: sources that keep a message until its receipt and send it again, a
//! new packet each time, as an outbox does; and meshes drawn from a seed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    proto::{
        ranking::Ranking,
        router::{CustodyWish, Input, kept::Kept, sim::Sim},
    },
    wire::{EnvelopeKind, PacketId, receipt::Receipt},
};

/// First wait for a receipt: an outbox's.
const RETRY: Duration = Duration::from_secs(1);

/// A generator of numbers: the same everywhere for the same seed.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// A connected mesh of `count` nodes: a ring, so that no single cut parts it, and chords until the
/// mean number of neighbours is `degree`.
pub(super) fn random_mesh(count: usize, degree: usize, seed: u64) -> Sim {
    let mut sim = Sim::new(count);
    let mut rng = Rng(seed);
    for n in 0..count {
        sim.connect(n, (n + 1) % count);
    }
    for _ in 0..count * degree.saturating_sub(2) / 2 {
        let (a, b) = (rng.below(count), rng.below(count));
        if a != b {
            sim.connect(a, b);
        }
    }
    sim
}

/// A message of a source.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) sent_first: Instant,
    pub(super) attempts: u32,
    pub(super) receipted: Option<Instant>,
    next_attempt: Instant,
}

/// All messages of a run.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) messages: Vec<Message>,
    packets: BTreeMap<PacketId, usize>,
    /// Deliveries of each node that were answered.
    answered: BTreeMap<usize, usize>,
    /// Nodes measure nothing and keep nothing: routing by claims alone, for comparison.
    is_baseline: bool,
}

impl Traffic {
    pub(super) fn new(is_baseline: bool) -> Self {
        Self { is_baseline, ..Self::default() }
    }

    /// A message is written.
    pub(super) fn send(&mut self, sim: &mut Sim, from: usize, to: usize) -> usize {
        self.messages.push(Message {
            from,
            to,
            sent_first: sim.now,
            attempts: 0,
            receipted: None,
            next_attempt: sim.now,
        });
        self.step(sim);
        self.messages.len() - 1
    }

    /// Lets time pass from retry to retry. Links take no time here, so that nothing else happens
    /// between them but the routers' own timers.
    pub(super) fn advance(&mut self, sim: &mut Sim, by: Duration) {
        let end = sim.now + by;
        while sim.now < end {
            let waiting = self.messages.iter().filter(|m| m.receipted.is_none());
            let next = waiting.map(|m| m.next_attempt).min().map_or(end, |at| at.min(end));
            sim.advance(next.saturating_duration_since(sim.now));
            self.step(sim);
        }
    }

    /// Attempts that are due go out, deliveries are receipted, receipts are read.
    fn step(&mut self, sim: &mut Sim) {
        let now = sim.now;
        self.forget_measures(sim);
        for index in 0..self.messages.len() {
            let message = &mut self.messages[index];
            if message.receipted.is_some() || message.next_attempt > now {
                continue;
            }
            message.attempts += 1;
            message.next_attempt = now + RETRY * (1 << (message.attempts - 1).min(8));
            let (from, to) = (message.from, sim.address(message.to));
            let (packet_id, envelope) = sim.nodes[from].signer.envelope(to, EnvelopeKind::MESSAGE);
            self.packets.insert(packet_id, index);
            sim.handle(from, Input::Originate(vec![(packet_id, envelope)], CustodyWish::Welcome));
        }
        sim.run();
        self.forget_measures(sim);
        for n in 0..sim.nodes.len() {
            let from = self.answered.insert(n, sim.nodes[n].delivered.len()).unwrap_or(0);
            let arrived: Vec<_> = sim.nodes[n].delivered[from..].to_vec();
            for packet in arrived {
                match packet.envelope.header().kind {
                    EnvelopeKind::MESSAGE => drop(sim.receipt(n, packet.source, &[packet.packet_id])),
                    EnvelopeKind::RECEIPT => {
                        let receipt = Receipt::decode(&packet.envelope.payload()).unwrap();
                        for id in receipt.packet_ids {
                            let message = &mut self.messages[self.packets[&id]];
                            message.receipted.get_or_insert(now);
                        }
                    }
                    _ => {}
                }
            }
        }
        // Receipts that arrived meanwhile are read at once.
        let is_idle = (0..sim.nodes.len()).all(|n| sim.nodes[n].delivered.len() == self.answered[&n]);
        if !is_idle {
            self.step(sim);
        }
    }

    fn forget_measures(&self, sim: &mut Sim) {
        for node in sim.nodes.iter_mut().filter(|_| self.is_baseline) {
            node.router.ranking = Ranking::new(sim.now, 1);
            node.router.kept = Kept::default();
        }
    }

    /// Of the messages from index `first` on: the share whose `attempts_max`th attempt or an earlier
    /// one was receipted.
    pub(super) fn delivered(&self, first: usize, attempts_max: u32) -> f64 {
        let messages = &self.messages[first..];
        let arrived = messages.iter().filter(|m| m.receipted.is_some() && m.attempts <= attempts_max);
        arrived.count() as f64 / messages.len().max(1) as f64
    }
}
