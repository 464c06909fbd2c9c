//! What a part of a node took on and what became of it, counted apart from what is on its disk: where
//! the two do not come out even, something was lost.

use super::drain::DrainCounts;

/// Messages that a node answers for, since the part that counts them started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ledger {
    accepted: u64,
    delivered: u64,
    rejected: u64,
}

impl Ledger {
    /// Some were on the disk at the start, or were acknowledged since.
    pub fn accepted(&mut self, messages: u64) {
        self.accepted = self.accepted.saturating_add(messages);
    }

    /// Some are with their destination, or with somebody else who answers for them.
    pub fn delivered(&mut self, messages: u64) {
        self.delivered = self.delivered.saturating_add(messages);
    }

    /// Some ended otherwise, and were reported as that.
    pub fn rejected(&mut self, messages: u64) {
        self.rejected = self.rejected.saturating_add(messages);
    }

    /// The same beside what is on the disk.
    pub fn beside(&self, kept: u64) -> DrainCounts {
        DrainCounts {
            frames_dropped: 0,
            undelivered_kept: kept,
            accepted: self.accepted,
            delivered: self.delivered,
            rejected: self.rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_on_is_delivered_rejected_or_kept() {
        let mut ledger = Ledger::default();
        ledger.accepted(5);
        ledger.delivered(2);
        ledger.rejected(1);
        assert!(ledger.beside(2).balance());
        assert!(!ledger.beside(1).balance(), "one is nowhere");
        assert!(!ledger.beside(3).balance(), "one came from nowhere");
        let mut sum = ledger.beside(2);
        sum.add(ledger.beside(2));
        assert_eq!((sum.accepted, sum.delivered, sum.rejected, sum.undelivered_kept), (10, 4, 2, 4));
        assert!(sum.balance());
    }
}
