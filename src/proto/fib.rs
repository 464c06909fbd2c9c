//! The forwarding decision: a pure function of the links in use to a destination and four facts of a
//! packet.

use crate::wire::{Address, LinkId};

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

/// Where a packet for `destination` goes at the node `own`. It came over `ingress`, or from this
/// node, with `hop_count` links crossed before that one. `in_use` looks up the links in use, at most
/// once.
pub fn decide(
    own: &Address,
    destination: &Address,
    ingress: Option<LinkId>,
    hop_count: u8,
    max_hops: u8,
    in_use: impl FnOnce(&Address) -> Option<Hops>,
) -> Decision {
    let crossed = match ingress {
        Some(_) => u16::from(hop_count).saturating_add(1),
        None => 0,
    };
    let max_hops = u16::from(max_hops);
    if crossed > max_hops {
        return Decision::HopLimit;
    }
    if destination == own {
        return Decision::Local;
    }
    if *destination == Address::BROADCAST {
        return Decision::Broadcast { flood: crossed < max_hops };
    }
    if crossed == max_hops {
        return Decision::HopLimit;
    }
    match in_use(destination) {
        Some(hops) if Some(hops.first) != ingress => {
            let has_other = hops.second.is_some_and(|link| Some(link) != ingress);
            Decision::Forward { link: hops.first, has_other }
        }
        Some(Hops { second: Some(link), .. }) if Some(link) != ingress => {
            Decision::Forward { link, has_other: false }
        }
        _ => Decision::NoRoute,
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
        let in_use = |to: &Address| match *to {
            FAR => Some(Hops { first: A, second: Some(B) }),
            NEAR => Some(Hops { first: A, second: None }),
            _ => None,
        };
        let check = |to: Address, ingress, hop_count, max_hops, want| {
            let got = decide(&OWN, &to, ingress, hop_count, max_hops, in_use);
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
}
