//! The forwarding decision: the routing table, compiled for lookup.
//!
//! [`Fib::decide`] is a pure function of the table and four facts of a packet. It allocates
//! nothing and looks up once. The router keeps it in step with the routing table and the links.

use std::collections::HashMap;

use crate::wire::{Address, LinkId};

use super::dedup::KeyedHasher;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This node is the destination.
    Local,
    /// Over this link, never the one it came over.
    Forward {
        /// Which link.
        link: LinkId,
        /// There is another one, should the neighbour refuse it.
        has_other: bool,
    },
    /// To this node and, where hops are left, over every other link.
    Broadcast {
        /// False where the hop limit ends it here.
        flood: bool,
    },
    /// No live path but back.
    NoRoute,
    /// Another link would be one more than the origin signed.
    HopLimit,
}

/// The links to a destination: the best, and the next best for what came over the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hops {
    /// The best link.
    pub first: LinkId,
    /// The next best.
    pub second: Option<LinkId>,
}

/// Destination to links. Not iterated, so that the order in memory shows nowhere.
#[derive(Debug)]
pub struct Fib {
    own: Address,
    hops: HashMap<Address, Hops, KeyedHasher>,
}

impl Fib {
    /// An empty table of the node `own`. `seed` is random, so that nobody can choose addresses that
    /// collide in it.
    pub fn new(own: Address, seed: u64) -> Self {
        Self { own, hops: HashMap::with_hasher(KeyedHasher::new(seed)) }
    }

    /// Where a packet for `destination` goes. It came over `ingress`, or from this node, with
    /// `hop_count` links crossed before that one.
    pub fn decide(
        &self,
        destination: &Address,
        ingress: Option<LinkId>,
        hop_count: u8,
        max_hops: u8,
    ) -> Decision {
        let crossed = match ingress {
            Some(_) => u16::from(hop_count).saturating_add(1),
            None => 0,
        };
        let max_hops = u16::from(max_hops);
        if crossed > max_hops {
            return Decision::HopLimit;
        }
        if *destination == self.own {
            return Decision::Local;
        }
        if *destination == Address::BROADCAST {
            return Decision::Broadcast { flood: crossed < max_hops };
        }
        if crossed == max_hops {
            return Decision::HopLimit;
        }
        match self.hops.get(destination) {
            Some(hops) if Some(hops.first) != ingress => {
                let has_other = hops.second.is_some_and(|link| Some(link) != ingress);
                Decision::Forward { link: hops.first, has_other }
            }
            Some(Hops { second: Some(link), .. }) if Some(*link) != ingress => {
                Decision::Forward { link: *link, has_other: false }
            }
            _ => Decision::NoRoute,
        }
    }

    /// The links to `destination`.
    pub fn hops(&self, destination: &Address) -> Option<Hops> {
        self.hops.get(destination).copied()
    }

    /// Sets or removes the links to `destination`; gives what was there before.
    pub fn set(&mut self, destination: Address, hops: Option<Hops>) -> Option<Hops> {
        match hops {
            Some(hops) => self.hops.insert(destination, hops),
            None => self.hops.remove(&destination),
        }
    }

    /// Destinations with a live path.
    pub fn len(&self) -> usize {
        self.hops.len()
    }

    /// True where there is no path to anyone.
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Address = Address([1; 16]);
    const FAR: Address = Address([2; 16]);
    const NEAR: Address = Address([3; 16]);
    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);

    #[test]
    fn the_decision() {
        let mut fib = Fib::new(OWN, 7);
        fib.set(FAR, Some(Hops { first: A, second: Some(B) }));
        fib.set(NEAR, Some(Hops { first: A, second: None }));
        let check = |to: Address, ingress, hop_count, max_hops, want| {
            let got = fib.decide(&to, ingress, hop_count, max_hops);
            assert_eq!(got, want, "{to} {ingress:?} {hop_count}/{max_hops}");
        };
        let via = |link| Decision::Forward { link, has_other: false };
        check(FAR, None, 0, 1, Decision::Forward { link: A, has_other: true });
        check(FAR, Some(LinkId(3)), 0, 8, Decision::Forward { link: A, has_other: true });
        check(FAR, Some(B), 0, 8, via(A));
        check(FAR, Some(A), 0, 8, via(B));
        // Never back over the link it came over.
        check(NEAR, Some(A), 0, 8, Decision::NoRoute);
        check(NEAR, Some(B), 0, 8, via(A));
        check(Address([9; 16]), None, 0, 8, Decision::NoRoute);
        // A packet signed for two links may cross two links.
        check(FAR, Some(B), 0, 2, via(A));
        check(FAR, Some(B), 1, 2, Decision::HopLimit);
        check(OWN, Some(B), 1, 2, Decision::Local);
        check(OWN, Some(B), 2, 2, Decision::HopLimit);
        check(OWN, Some(B), 255, 128, Decision::HopLimit);
        check(Address::BROADCAST, None, 0, 1, Decision::Broadcast { flood: true });
        check(Address::BROADCAST, Some(A), 0, 1, Decision::Broadcast { flood: false });
        check(Address::BROADCAST, Some(A), 0, 2, Decision::Broadcast { flood: true });
        check(Address::BROADCAST, Some(A), 1, 1, Decision::HopLimit);
    }

    #[test]
    fn a_removed_path_is_gone() {
        let mut fib = Fib::new(OWN, 7);
        let hops = Hops { first: A, second: None };
        assert_eq!(fib.set(FAR, Some(hops)), None);
        assert_eq!(fib.set(FAR, None), Some(hops));
        assert_eq!(fib.decide(&FAR, None, 0, 8), Decision::NoRoute);
        assert!(fib.is_empty());
    }
}
