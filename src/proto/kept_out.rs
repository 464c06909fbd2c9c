//! Neighbours that are not let in for a while, since their links were cut for what they sent.
//!
//! Budgets outlive links, so whoever is cut and dials again at once sends little more; but each try
//! costs a handshake, a place in the table and an announce to everyone, which no budget covers. So
//! the second cut in a row keeps its neighbour out for a second, each further one for twice as
//! long. The first one is free: somebody may have put right what was wrong.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::wire::Address;

/// How long the second cut keeps a neighbour out; the next ones twice as long each.
const FIRST: Duration = Duration::from_secs(1);

/// No cut keeps a neighbour out for longer.
const LONGEST: Duration = Duration::from_secs(60);

/// What a neighbour did is forgotten when it was let in and not cut for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Neighbours remembered, 70 bytes each; beyond that the one whose turn to be forgotten comes first
/// makes room. Identities are free, so a flood of them is not stopped here.
pub const REMEMBERED_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct KeptOut(BTreeMap<Address, Cuts>);

#[derive(Debug, Clone, Copy)]
struct Cuts {
    count: u32,
    until: Instant,
}

impl KeptOut {
    /// Nobody is.
    pub fn new() -> Self {
        Self::default()
    }

    /// A link of this neighbour was cut for what it sent.
    pub fn cut(&mut self, now: Instant, neighbour: Address) {
        self.0.retain(|_, cuts| !cuts.are_forgotten(now));
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(&neighbour) {
            let next = self.0.iter().min_by_key(|(_, cuts)| cuts.until).map(|(neighbour, _)| *neighbour);
            next.map(|next| self.0.remove(&next));
        }
        let cuts = self.0.entry(neighbour).or_insert(Cuts { count: 0, until: now });
        cuts.until = now + cuts.wait();
        cuts.count = cuts.count.saturating_add(1);
    }

    /// How long this neighbour is not let in from now on; none where it is.
    pub fn wait(&self, now: Instant, neighbour: &Address) -> Option<Duration> {
        let until = self.0.get(neighbour)?.until;
        Some(until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

impl Cuts {
    /// For the next cut.
    fn wait(&self) -> Duration {
        match self.count {
            0 => Duration::ZERO,
            again => FIRST.saturating_mul(1 << again.saturating_sub(1).min(16)).min(LONGEST),
        }
    }

    fn are_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.until) >= FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: Address = Address([1; 16]);

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_first_cut_is_free_and_each_further_one_doubles_the_wait() {
        let start = Instant::now();
        let mut kept_out = KeptOut::new();
        assert_eq!(kept_out.wait(start, &SOMEBODY), None);
        let mut now = start;
        for wanted in [0, 1, 2, 4, 8, 16, 32, 60, 60] {
            kept_out.cut(now, SOMEBODY);
            let wait = kept_out.wait(now, &SOMEBODY);
            assert_eq!(wait.unwrap_or_default(), s(wanted));
            now += s(wanted);
            assert_eq!(kept_out.wait(now, &SOMEBODY), None, "it is let in when its time is over");
        }
        assert_eq!(kept_out.wait(start, &Address([2; 16])), None, "another one is let in");
    }

    #[test]
    fn who_does_well_for_long_enough_begins_anew() {
        let start = Instant::now();
        let mut kept_out = KeptOut::new();
        (0..20).for_each(|_| kept_out.cut(start, SOMEBODY));
        let later = start + LONGEST + FORGOTTEN_AFTER;
        kept_out.cut(later, SOMEBODY);
        assert_eq!(kept_out.wait(later, &SOMEBODY), None);
    }

    #[test]
    fn a_flood_of_identities_takes_bounded_room_and_frees_nobody_who_waits_long() {
        let start = Instant::now();
        let mut kept_out = KeptOut::new();
        (0..5).for_each(|_| kept_out.cut(start, SOMEBODY));
        for n in 0..2 * REMEMBERED_MAX as u64 {
            let mut address = [7; 16];
            address[..8].copy_from_slice(&n.to_be_bytes());
            kept_out.cut(start, Address(address));
        }
        assert_eq!(kept_out.0.len(), REMEMBERED_MAX);
        assert_eq!(kept_out.wait(start, &SOMEBODY), Some(s(8)));
    }
}
