//! Messages that were in hand when an actor fell. One that has felled one too often is not tried
//! again; one that was only beside it is cleared as soon as it was handled alone.
//!
//! A message of somebody else is known by what all its attempts have in common: each is sealed and
//! numbered anew, but keeps its ends, its time, its lifetime and its length. Another message that
//! agrees in all of these shares its fate; its sender keeps it and sees it expire.

use std::collections::{BTreeMap, VecDeque};

use crate::wire::{Envelope, EnvelopeKind, Lifetime, NodeName};

/// Falls after which a message is set aside. A restart budget has room for five in a minute: one
/// poison must not look like a part that cannot be kept alive.
pub const FALLS_MAX: u32 = 3;

/// Suspects remembered. The oldest is forgotten first, and costs three more falls.
pub const SUSPECTS_MAX: usize = 1024;

/// What can fell an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suspect {
    /// Some attempt of a message.
    Message {
        /// Who signed it.
        source: NodeName,
        /// Who it is for.
        destination: NodeName,
        /// When it was made, by its source.
        created_unix_s: u32,
        /// What it is.
        kind: EnvelopeKind,
        /// How long it may live.
        lifetime: Lifetime,
        /// Bytes of its payload.
        payload_bytes: usize,
    },
    /// A row of the own store, by the first 16 bytes of what names it.
    Row([u8; 16]),
}

impl From<&Envelope> for Suspect {
    fn from(envelope: &Envelope) -> Self {
        let header = envelope.header();
        Self::Message {
            source: header.source,
            destination: header.destination,
            created_unix_s: header.created_unix_s,
            kind: header.kind,
            lifetime: header.lifetime,
            payload_bytes: envelope.payload_len(),
        }
    }
}

/// What is known of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Clear,
    /// It was in hand in a fall: it is handled alone.
    Suspect,
    /// It is set aside; `first` the first time that this is said.
    Quarantined {
        /// True once.
        first: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Record {
    falls: u32,
    told: bool,
}

/// The suspects of one actor, over its incarnations.
#[derive(Debug, Default)]
pub struct Suspects {
    of: BTreeMap<Suspect, Record>,
    /// Oldest first; may hold some that were cleared.
    order: VecDeque<Suspect>,
}

impl Suspects {
    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// An actor fell with this in hand; how often that happened.
    pub fn fell(&mut self, suspect: Suspect) -> u32 {
        self.has_fallen(suspect, 1)
    }

    /// An earlier start saw so many falls with this in hand.
    pub fn remember(&mut self, suspect: Suspect, falls: u32) {
        if falls > self.falls(&suspect) {
            let more = falls.saturating_sub(self.falls(&suspect));
            self.has_fallen(suspect, more);
        }
    }

    fn has_fallen(&mut self, suspect: Suspect, more: u32) -> u32 {
        if !self.of.contains_key(&suspect) {
            self.order.push_back(suspect);
        }
        let record = self.of.entry(suspect).or_insert(Record { falls: 0, told: false });
        record.falls = record.falls.saturating_add(more);
        let falls = record.falls;
        while self.of.len() > SUSPECTS_MAX || self.order.len() > 2 * SUSPECTS_MAX {
            match self.order.pop_front() {
                Some(oldest) => drop(self.of.remove(&oldest)),
                None => break,
            }
        }
        falls
    }

    /// Falls with this in hand.
    pub fn falls(&self, suspect: &Suspect) -> u32 {
        self.of.get(suspect).map_or(0, |record| record.falls)
    }

    /// Whether this may be tried.
    pub fn standing(&mut self, suspect: &Suspect) -> Standing {
        match self.of.get_mut(suspect) {
            None => Standing::Clear,
            Some(record) if record.falls >= FALLS_MAX => {
                Standing::Quarantined { first: !std::mem::replace(&mut record.told, true) }
            }
            Some(_) => Standing::Suspect,
        }
    }

    /// This was handled, and nothing fell.
    pub fn cleared(&mut self, suspect: &Suspect) {
        if self.falls(suspect) < FALLS_MAX {
            self.of.remove(suspect);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u16) -> Suspect {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        Suspect::Row(bytes)
    }

    #[test]
    fn three_falls_set_a_message_aside_and_that_is_said_once() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.standing(&row(1)), Standing::Clear);
        for fall in 1..=FALLS_MAX {
            assert_eq!(suspects.fell(row(1)), fall);
            let quarantined = fall == FALLS_MAX;
            assert_eq!(suspects.standing(&row(1)) != Standing::Suspect, quarantined, "{fall}");
        }
        assert_eq!(suspects.standing(&row(1)), Standing::Quarantined { first: false });
        suspects.cleared(&row(1));
        assert_eq!(suspects.falls(&row(1)), FALLS_MAX, "nothing brings it back");
    }

    #[test]
    fn what_was_only_beside_it_is_cleared_when_it_was_handled() {
        let mut suspects = Suspects::default();
        suspects.fell(row(1));
        suspects.fell(row(2));
        suspects.cleared(&row(2));
        assert_eq!((suspects.falls(&row(1)), suspects.falls(&row(2))), (1, 0));
        suspects.cleared(&row(1));
        assert!(suspects.is_empty());
    }

    #[test]
    fn what_an_earlier_start_counted_counts_once() {
        let mut suspects = Suspects::default();
        suspects.remember(row(1), 2);
        suspects.remember(row(1), 2);
        suspects.remember(row(1), 1);
        assert_eq!(suspects.fell(row(1)), 3);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut suspects = Suspects::default();
        for n in 0..=SUSPECTS_MAX as u16 {
            suspects.fell(row(n));
        }
        assert_eq!((suspects.falls(&row(0)), suspects.falls(&row(1))), (0, 1));
        for n in 0..10 * SUSPECTS_MAX as u16 {
            suspects.fell(row(n));
            suspects.cleared(&row(n));
        }
        assert!(suspects.order.len() <= 2 * SUSPECTS_MAX);
    }
}
