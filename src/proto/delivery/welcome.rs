//! Who may reach the person at this node.
//!
//! What a node forwards for others is none of this: who is blocked here is a relay's customer like
//! everyone. What a stranger is, the store knows, since only the store knows whom this node wrote to.

use std::collections::BTreeSet;

use crate::wire::{Address, EnvelopeKind};

/// Senders that can be blocked, 16 bytes each: a list that a person made.
pub const BLOCKED_MAX: usize = 65_536;

/// Whose messages are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Accept {
    /// Everyone's, strangers' within their share of the inbox.
    #[default]
    Anyone,
    /// Those of contacts, and of whom this node wrote to; strangers' wait to be accepted.
    Requests,
    /// Those of contacts, and of whom this node wrote to.
    Contacts,
}

/// What becomes of an envelope for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// It is looked at.
    Open,
    /// It is not opened, and its sender is told so.
    Unwanted,
    /// It is not looked at, and nobody is told: whoever sent it is told about its messages.
    Silence,
}

/// Who may reach the person at this node.
#[derive(Debug, Clone, Default)]
pub struct Welcome {
    /// Whose messages are taken.
    pub accept: Accept,
    blocked: BTreeSet<Address>,
}

impl Welcome {
    /// With these blocked.
    pub fn new(accept: Accept, blocked: impl IntoIterator<Item = Address>) -> Self {
        Self { accept, blocked: blocked.into_iter().take(BLOCKED_MAX).collect() }
    }

    /// Blocks a sender; false where [`BLOCKED_MAX`] others are.
    pub fn block(&mut self, address: Address) -> bool {
        let has_room = self.blocked.len() < BLOCKED_MAX || self.blocked.contains(&address);
        if has_room {
            self.blocked.insert(address);
        }
        has_room
    }

    /// Lets a sender reach this node again; false where it was not blocked.
    pub fn unblock(&mut self, address: &Address) -> bool {
        self.blocked.remove(address)
    }

    /// Who is blocked, by address.
    pub fn blocked(&self) -> impl Iterator<Item = Address> + '_ {
        self.blocked.iter().copied()
    }

    /// What becomes of an envelope of `source`, whose signature holds. Answers to what this node sent
    /// are taken from anyone.
    pub fn reception(&self, kind: EnvelopeKind, source: &Address) -> Reception {
        if !self.blocked.contains(source) {
            return Reception::Open;
        }
        match kind {
            EnvelopeKind::MESSAGE => Reception::Unwanted,
            EnvelopeKind::CHUNK | EnvelopeKind::BROADCAST | EnvelopeKind::PING | EnvelopeKind::TRACE => {
                Reception::Silence
            }
            _ => Reception::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRIEND: Address = Address([1; 16]);
    const PEST: Address = Address([2; 16]);

    #[test]
    fn the_blocked_are_told_about_messages_and_get_no_answers() {
        let mut welcome = Welcome::new(Accept::Anyone, [PEST]);
        let of = |welcome: &Welcome, kind| welcome.reception(kind, &PEST);
        assert_eq!(of(&welcome, EnvelopeKind::MESSAGE), Reception::Unwanted);
        for kind in [EnvelopeKind::CHUNK, EnvelopeKind::BROADCAST, EnvelopeKind::PING, EnvelopeKind::TRACE] {
            assert_eq!(of(&welcome, kind), Reception::Silence, "{kind:?}");
            assert_eq!(welcome.reception(kind, &FRIEND), Reception::Open);
        }
        // Receipts for what this node sent to it count.
        for kind in [EnvelopeKind::RECEIPT, EnvelopeKind::CANNOT_OPEN, EnvelopeKind::PONG] {
            assert_eq!(of(&welcome, kind), Reception::Open, "{kind:?}");
        }
        assert!(welcome.unblock(&PEST) && !welcome.unblock(&PEST));
        assert_eq!(of(&welcome, EnvelopeKind::MESSAGE), Reception::Open);
    }

    #[test]
    fn the_list_has_an_end() {
        let many = (0..BLOCKED_MAX as u128).map(|n| Address(n.to_be_bytes()));
        let mut welcome = Welcome::new(Accept::Anyone, many);
        assert!(!welcome.block(PEST), "full");
        assert!(welcome.block(Address(0u128.to_be_bytes())), "there already");
        assert!(welcome.unblock(&Address(0u128.to_be_bytes())) && welcome.block(PEST));
        assert_eq!(welcome.blocked().count(), BLOCKED_MAX);
    }
}
