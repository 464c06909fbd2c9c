//! What seals may cost that do not open.
//!
//! Opening a seal costs a key agreement, and whoever makes one that does not open has paid nothing for
//! it but a signature. So such failures are charged to the neighbour that brought them, as signatures
//! that do not hold are ([`crate::proto::lease`]), and once its budget is spent nothing is opened for
//! it until some of it has come back.
//!
//! With one difference: a neighbour does not see into what it passes on. Its links are not cut for it,
//! and whoever's last seal opened, or whom this node writes to, is heard all the same. A source that fails
//! loses that; it gets it back with a seal that opens.
//!
//! Nobody is told. A seal that is not opened for want of a budget is dropped as one that does not open
//! is, and its sender hears nothing of either (THREATS M-8); an honest one tries again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::super::limit::TokenBucket;
use crate::wire::Address;

/// Failures of one neighbour at once. A failure is some 100 µs of work.
pub const FAILURES_BURST: u64 = 20;

/// Failures of one neighbour a second. Ten times what signatures that do not hold get, which no
/// honest neighbour passes on.
pub const FAILURES_PER_S: u64 = 10;

/// Neighbours with a budget of their own; beyond that newcomers share one.
pub const NEIGHBOURS_MAX: usize = 1024;

/// Sources remembered whose seals opened, in each of two generations.
pub const SOURCES_MAX: usize = 4096;

/// Least time between two searches for neighbours to forget.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The budgets of all neighbours.
#[derive(Debug)]
pub struct SealBudget {
    neighbours: BTreeMap<Address, TokenBucket>,
    crowd: TokenBucket,
    swept_at: Instant,
    /// Sources whose last seal opened, as long as they are heard of.
    heard: BTreeSet<Address>,
    heard_before: BTreeSet<Address>,
}

impl SealBudget {
    /// Full budgets for everyone.
    pub fn new(now: Instant) -> Self {
        Self {
            neighbours: BTreeMap::new(),
            crowd: TokenBucket::new(FAILURES_BURST, FAILURES_PER_S, now),
            swept_at: now,
            heard: BTreeSet::new(),
            heard_before: BTreeSet::new(),
        }
    }

    /// True where a seal of `source` that came over `ingress` is to be opened. What no neighbour brought
    /// always is.
    pub fn admits(&mut self, now: Instant, source: &Address, ingress: Option<&Address>) -> bool {
        let Some(ingress) = ingress else { return true };
        let is_crowded = self.neighbours.len() >= NEIGHBOURS_MAX;
        let bucket = match self.neighbours.get_mut(ingress) {
            Some(bucket) => bucket,
            None if is_crowded => &mut self.crowd,
            // No account, no failure.
            None => return true,
        };
        bucket.available(now) > 0 || self.heard.contains(source) || self.heard_before.contains(source)
    }

    /// A seal of this source opened, or this node has mail for it.
    pub fn opened(&mut self, source: &Address) {
        if self.heard.contains(source) {
            return;
        }
        self.heard_before.remove(source);
        if self.heard.len() >= SOURCES_MAX {
            self.heard_before = std::mem::take(&mut self.heard);
        }
        self.heard.insert(*source);
    }

    /// A seal of `source` that came over `ingress` did not open.
    pub fn failed(&mut self, now: Instant, source: &Address, ingress: Option<&Address>) {
        self.heard.remove(source);
        self.heard_before.remove(source);
        if let Some(ingress) = ingress {
            self.bucket(now, ingress).charge(now, 1);
        }
    }

    fn bucket(&mut self, now: Instant, ingress: &Address) -> &mut TokenBucket {
        if !self.neighbours.contains_key(ingress) && self.neighbours.len() >= NEIGHBOURS_MAX {
            if now.saturating_duration_since(self.swept_at) >= SWEEP_EVERY {
                self.swept_at = now;
                self.neighbours.retain(|_, bucket| !bucket.is_full(now));
            }
            if self.neighbours.len() >= NEIGHBOURS_MAX {
                return &mut self.crowd;
            }
        }
        let fresh = || TokenBucket::new(FAILURES_BURST, FAILURES_PER_S, now);
        self.neighbours.entry(*ingress).or_insert_with(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> Address {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Address(bytes)
    }

    /// How many of `offered` seals of ever new sources, all of which fail, are opened.
    fn flood(budget: &mut SealBudget, now: Instant, ingress: &Address, offered: u32) -> u32 {
        let mut opened = 0;
        for n in 0..offered {
            let source = address(1_000_000 + n);
            if budget.admits(now, &source, Some(ingress)) {
                opened += 1;
                budget.failed(now, &source, Some(ingress));
            }
        }
        opened
    }

    #[test]
    fn a_flood_of_new_identities_costs_what_one_neighbour_may_cost() {
        let start = Instant::now();
        let (mut budget, (near, other)) = (SealBudget::new(start), (address(1), address(2)));
        assert_eq!(flood(&mut budget, start, &near, 10_000), FAILURES_BURST as u32);
        assert_eq!(flood(&mut budget, start + Duration::from_secs(1), &near, 10_000), FAILURES_PER_S as u32);
        assert!(budget.admits(start, &address(7), Some(&other)), "others pay nothing for it");
        assert!(budget.admits(start, &address(7), None));
    }

    #[test]
    fn whoever_is_heard_is_heard_on_through_a_flood_until_it_fails_itself() {
        let now = Instant::now();
        let (mut budget, near, friend) = (SealBudget::new(now), address(1), address(3));
        budget.opened(&friend);
        flood(&mut budget, now, &near, 100);
        assert!(budget.admits(now, &friend, Some(&near)));
        assert!(!budget.admits(now, &address(4), Some(&near)));
        budget.failed(now, &friend, Some(&near));
        assert!(!budget.admits(now, &friend, Some(&near)));
        budget.opened(&friend);
        assert!(budget.admits(now, &friend, Some(&near)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_is_heard_of_stays() {
        let now = Instant::now();
        let (mut budget, friend) = (SealBudget::new(now), address(3));
        for n in 0..3 * SOURCES_MAX as u32 {
            budget.opened(&address(10 + n));
            budget.opened(&friend);
        }
        assert!(budget.heard.len() + budget.heard_before.len() <= 2 * SOURCES_MAX);
        assert!(budget.heard.contains(&friend));
        for n in 0..2 * NEIGHBOURS_MAX as u32 {
            budget.failed(now, &address(9), Some(&address(n)));
        }
        assert_eq!(budget.neighbours.len(), NEIGHBOURS_MAX);
        let newcomer = address(4 * NEIGHBOURS_MAX as u32);
        assert!(!budget.admits(now, &address(5), Some(&newcomer)), "the crowd's budget is spent");
        let later = now + Duration::from_secs(60);
        budget.failed(later, &address(9), Some(&newcomer));
        assert_eq!(budget.neighbours.len(), 1, "who owes nothing is forgotten");
    }
}
