//! What an actor has in hand, so that a message that fells it is known to the next incarnation. The
//! decisions are in [`crate::proto::suspects`].
//!
//! A handler notes what it handles: a panic keeps the note, anything else throws it away. What panics
//! later, in a future or a timer, is not noted.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::{
    proto::{
        suspects::{Standing, Suspect, Suspects},
        verify::InboundEnvelope,
    },
    storage::{LocalOp, LocalStore, Namespace},
    telemetry,
    wire::{FrameExt, NodeName},
};

/// Messages of others that are kept for those who look into it. Each has its place by what it is, so
/// that one that comes again and again takes no other's.
const KEPT_MAX: u8 = 64;

/// The suspects of one actor; outlives its incarnations.
#[derive(Debug, Clone, Default)]
pub struct Quarantine(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// False while there is no suspect, which is nearly always: then nobody takes the lock.
    is_any: AtomicBool,
    suspects: Mutex<Suspects>,
}

impl Quarantine {
    /// True while nothing is suspected.
    pub(crate) fn is_empty(&self) -> bool {
        !self.0.is_any.load(Relaxed)
    }

    /// Whether this may be tried.
    pub(crate) fn standing(&self, suspect: &Suspect) -> Standing {
        if self.is_empty() { Standing::Clear } else { self.lock().standing(suspect) }
    }

    /// Falls with this in hand.
    pub(crate) fn falls(&self, suspect: &Suspect) -> u32 {
        if self.is_empty() { 0 } else { self.lock().falls(suspect) }
    }

    /// An earlier start saw so many falls with this in hand.
    pub(crate) fn remember(&self, suspect: Suspect, falls: u32) {
        if falls > 0 {
            self.lock().remember(suspect, falls);
            self.0.is_any.store(true, Relaxed);
        }
    }

    /// Nothing in hand yet. What is put down was handled, and is no suspect any more.
    pub(crate) fn empty_hand(&self) -> InHand {
        self.hand(std::iter::empty())
    }

    /// All of these in hand, as in [`Quarantine::empty_hand`].
    pub(crate) fn hand(&self, held: impl Iterator<Item = Suspect>) -> InHand {
        InHand { of: self.clone(), held: held.collect(), clears: true }
    }

    /// Nothing in hand yet, for a first look: what is put down stays what it was.
    pub(crate) fn first_look(&self) -> InHand {
        InHand { of: self.clone(), held: Vec::new(), clears: false }
    }

    /// Counts a message that is not tried any more. The first time it is told of, and kept beside
    /// everything else: of what others sent there is no row here.
    pub(crate) fn set_aside(
        &self,
        place: &'static str,
        first: bool,
        inbound: &InboundEnvelope,
        store: &dyn LocalStore,
    ) {
        count(place);
        if !first {
            return;
        }
        let (packet_id, from, to) = (inbound.packet_id, inbound.source.short(), inbound.destination.short());
        tracing::error!(place, %packet_id, %from, %to, "a message that felled an actor is set aside");
        let frame = inbound.envelope.to_frame(FrameExt::default()).to_bytes();
        let put = LocalOp::KvPut {
            namespace: Namespace::Quarantine,
            key: vec![slot(inbound)],
            value: frame.to_vec(),
        };
        if store.submit(vec![put], Box::new(|_| {})).is_err() {
            tracing::warn!(place, %packet_id, "the store did not take a message that was set aside");
        }
    }

    /// Counts a row that is not tried any more; it stays where it is.
    pub(crate) fn pass_over(&self, place: &'static str, first: bool, row: &dyn std::fmt::Display) {
        if first {
            count(place);
            tracing::error!(place, %row, "a row that felled an actor is set aside");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Suspects> {
        // No operation leaves them half changed, so a poisoned lock is taken over.
        self.0.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(place: &'static str) {
    metrics::counter!(telemetry::QUARANTINED, "where" => place).increment(1);
}

/// The same for every attempt of one message.
fn slot(inbound: &InboundEnvelope) -> u8 {
    let header = inbound.envelope.header();
    let name = |name: &NodeName| match name {
        NodeName::Key(key) => key.0.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
        NodeName::Address(address) => address.0.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
    };
    let time = header.created_unix_s.to_be_bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let sum = name(&header.source).wrapping_add(name(&header.destination)).wrapping_add(time);
    sum.wrapping_add(inbound.envelope.payload_len() as u8) % KEPT_MAX
}

/// What a handler has in hand. Dropped by a panic, it is suspected from then on.
#[derive(Debug)]
pub(crate) struct InHand {
    of: Quarantine,
    held: Vec<Suspect>,
    clears: bool,
}

impl InHand {
    /// What was in hand is done with, and this is in hand.
    pub(crate) fn take(&mut self, suspect: Suspect) {
        self.put_down();
        self.held.push(suspect);
    }

    /// What was in hand is done with.
    pub(crate) fn put_down(&mut self) {
        if self.clears && !self.of.is_empty() && !self.held.is_empty() {
            let mut suspects = self.of.lock();
            self.held.iter().for_each(|held| suspects.cleared(held));
            self.of.0.is_any.store(!suspects.is_empty(), Relaxed);
        }
        self.held.clear();
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.put_down();
        }
        let mut suspects = self.of.lock();
        for held in self.held.drain(..) {
            suspects.fell(held);
        }
        self.of.0.is_any.store(!suspects.is_empty(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const GOOD: Suspect = Suspect::Row([1; 16]);
    const POISON: Suspect = Suspect::Row([2; 16]);

    fn handle(quarantine: &Quarantine, batch: &[Suspect]) -> bool {
        let handled = catch_unwind(AssertUnwindSafe(|| {
            let _hand = quarantine.hand(batch.iter().copied());
            assert!(!batch.contains(&POISON), "poison");
        }));
        handled.is_ok()
    }

    #[test]
    fn what_was_in_hand_in_a_panic_is_suspected_and_what_is_handled_is_not() {
        let quarantine = Quarantine::default();
        assert!(handle(&quarantine, &[GOOD]));
        assert!(quarantine.is_empty());
        assert!(!handle(&quarantine, &[GOOD, POISON]));
        for suspect in [GOOD, POISON] {
            assert_eq!(quarantine.standing(&suspect), Standing::Suspect);
        }
        assert!(handle(&quarantine, &[GOOD]));
        assert_eq!(quarantine.standing(&GOOD), Standing::Clear);
        assert!(!handle(&quarantine, &[POISON]));
        assert!(!handle(&quarantine, &[POISON]));
        assert_eq!(quarantine.standing(&POISON), Standing::Quarantined { first: true });
        assert_eq!(quarantine.standing(&POISON), Standing::Quarantined { first: false });
    }

    #[test]
    fn one_after_the_other_only_the_last_is_suspected() {
        let quarantine = Quarantine::default();
        let fell = catch_unwind(AssertUnwindSafe(|| {
            let mut hand = quarantine.empty_hand();
            hand.take(GOOD);
            hand.take(POISON);
            panic!("poison");
        }));
        assert!(fell.is_err());
        assert_eq!((quarantine.falls(&GOOD), quarantine.falls(&POISON)), (0, 1));
    }

    #[test]
    fn a_first_look_clears_nobody() {
        let quarantine = Quarantine::default();
        assert!(!handle(&quarantine, &[POISON]));
        let mut look = quarantine.first_look();
        look.take(POISON);
        drop(look);
        assert_eq!(quarantine.falls(&POISON), 1);
    }
}
