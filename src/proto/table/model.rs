//! The table's indexes after any sequence of what can happen to it, beside a plain map of what was
//! heard.

#![allow(clippy::unwrap_used, reason = "what is not as it should be ends the test")]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::wire::{AnnounceContent, Signature};

pub(crate) const ORIGINS: u8 = 24;
pub(crate) const LINKS: u64 = 6;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Announce { origin: u8, sequence: u32, hop_count: u8, link: u64 },
    Offer { origin: u8, hop_count: u8, link: u64 },
    Withdraw { origin: u8, link: u64 },
    LinkDown { link: u64 },
    Drop { origin: u8 },
    Use { origin: u8 },
    Measure { origin: u8, levels: [u8; 3] },
    Digest { neighbour: u64 },
    Pass { seconds: u64 },
}

fn address(origin: u8) -> Address {
    let mut bytes = [0; 16];
    bytes[0] = origin.wrapping_mul(37);
    bytes[15] = 1;
    Address(bytes)
}

fn neighbour(link: u64) -> Address {
    // Two links to one of them.
    Address([0xf0 | (link as u8).min(5); 16])
}

fn announce(origin: u8, sequence: u32, hop_count: u8) -> Verified<InboundAnnounce> {
    let content = AnnounceContent {
        public_key: PublicKey([origin; 32]),
        boot_epoch: 1,
        sequence,
        capabilities: Capabilities::default(),
        lifetime_s: 1800,
        max_hops: 6,
        key_record_hash: None,
        keypackage_hash: None,
        service_data: bytes::Bytes::new(),
    };
    let signed = content.encode().into();
    let announce = Announce { hop_count, ..Announce::new(content, signed, Signature([7; 64]), None) };
    Verified::unchecked(address(origin), announce)
}

/// What has to hold of the table at any time.
fn check(table: &RoutingTable, heard: &BTreeMap<Address, Order>) {
    let entries: Vec<(Handle, &Entry)> =
        table.ordered.iter().map(|handle| (handle, table.slab.get(handle).unwrap())).collect();
    assert_eq!(entries.len(), table.slab.len());
    assert!(entries.is_sorted_by(|a, b| a.1.address < b.1.address));
    let routed: BTreeSet<Handle> = entries.iter().filter(|(_, e)| e.is_routed()).map(|(h, _)| *h).collect();
    assert_eq!(
        (table.route_ends.len(), table.memory_ends.len()),
        (routed.len(), entries.len() - routed.len())
    );
    let mut used = 0;
    let mut links: BTreeMap<LinkId, BTreeSet<Handle>> = BTreeMap::new();
    for (handle, entry) in &entries {
        assert_eq!(table.find(&entry.address).map(|(handle, _)| handle), Some(*handle));
        // No order is ever lost while its origin is remembered.
        assert_eq!(Some(&entry.order), heard.get(&entry.address));
        let ways: Vec<_> = table.ways(&entry.address).collect();
        assert_eq!(ways.is_empty(), !entry.is_routed());
        let neighbours: BTreeSet<_> = ways.iter().map(|hop| hop.neighbour).collect();
        assert_eq!(neighbours.len(), ways.len(), "through different neighbours");
        for hop in &ways {
            links.entry(hop.link).or_default().insert(*handle);
        }
        // The ways that cannot lead back come before those that may, and these before those that fail.
        let tiers: Vec<_> = ways
            .iter()
            .map(|hop| (hop.standing.is_demoted(), !hop.standing.is_demoted() && !entry.is_feasible(hop)))
            .collect();
        assert!(tiers.is_sorted(), "{ways:?}");
        assert!(table.shares.owner(entry.owner).is_some());
        used += usize::from(table.in_use(&entry.address).is_some());
        let listed = table.route_ends.first().is_none_or(|(first, _)| first <= entry.ends_s);
        assert!(!entry.is_routed() || listed);
    }
    assert_eq!(table.reachable(), used + table.direct.len());
    for link in (1..=LINKS).map(LinkId) {
        let over: BTreeSet<_> = table.carriers.routes_over(link).into_iter().collect();
        assert_eq!(over, links.remove(&link).unwrap_or_default(), "{link}");
    }
    let shares: usize =
        (1..=LINKS).map(neighbour).collect::<BTreeSet<_>>().iter().map(|n| table.shares.of(n)).sum();
    assert_eq!(shares, entries.len());
    let walked: Vec<_> =
        std::iter::successors(table.next_destination(None), |last| table.next_destination(Some(*last)))
            .collect();
    assert_eq!(walked.len(), routed.len());
    let all: Vec<_> = (0..ORIGINS).map(address).collect();
    let mut each = Vec::new();
    table.each_likely_in_use(&all, &mut each);
    assert_eq!(each, all.iter().map(|to| table.in_use(to)).collect::<Vec<_>>());
}

/// Does all of it to a fresh table.
///
/// # Panics
/// Where its indexes disagree with each other or with what was heard.
pub(crate) fn run(start: Instant, steps: impl IntoIterator<Item = Step>) {
    let mut now = start;
    let mut table = RoutingTable::new(now, 9, 16);
    let mut heard: BTreeMap<Address, Order> = BTreeMap::new();
    let via = |link| Via::unmeasured(LinkId(link), LinkClass::Unconstrained, neighbour(link));
    for step in steps {
        match step {
            Step::Announce { origin, sequence, hop_count, link } => {
                let update =
                    table.update(now, &announce(origin, sequence, hop_count), &via(link), &|_| false);
                let held = heard.get(&address(origin)).copied();
                match update {
                    Update::Newer => {
                        assert!(held.is_none_or(|held| held <= (1, sequence)));
                        heard.insert(address(origin), (1, sequence));
                    }
                    Update::Alternative | Update::Known => assert_eq!(held, Some((1, sequence))),
                    Update::Rejected(Reject::Stale) => {}
                    Update::Rejected(Reject::HopLimit) => assert!(hop_count >= 6),
                    Update::Rejected(_) => {}
                }
                for evicted in table.take_evicted() {
                    let order = heard.remove(&evicted).unwrap();
                    let (floor, ..) = table.floors.peek(&evicted).unwrap();
                    assert_eq!(*floor, order, "an old announce of it stays old");
                    table.set_in_use(evicted, None);
                }
            }
            Step::Offer { origin, hop_count, link } => {
                table.offer(now, &address(origin), hop_count, &via(link));
            }
            Step::Withdraw { origin, link } => {
                let was_there = table.ways(&address(origin)).any(|hop| hop.neighbour == neighbour(link));
                assert_eq!(table.withdraw(&address(origin), &neighbour(link)), was_there);
            }
            Step::LinkDown { link } => {
                let over = |to: &Address| table.ways(to).any(|hop| hop.link == LinkId(link));
                let want: Vec<_> = table.iter(now).map(|r| r.destination).filter(over).collect();
                assert_eq!(table.link_down(LinkId(link)), want);
            }
            Step::Drop { origin } => {
                table.drop_ways(&address(origin));
                assert!(table.hops(&address(origin)).is_none());
            }
            Step::Use { origin } => {
                let (to, before) = (address(origin), table.in_use(&address(origin)));
                let hops = table.hops(&to);
                assert_eq!(table.set_in_use(to, hops), before);
                assert_eq!(table.in_use(&to), hops);
            }
            Step::Measure { origin, levels } => {
                let level = |to: &Address| levels[usize::from(to.0[0]) % 3] % 16;
                let measure =
                    |to: &Address| Measure { standing: Standing::of_level(level(to)), ..Measure::default() };
                table.measured(&address(origin), measure);
                for hop in table.ways(&address(origin)) {
                    assert_eq!(hop.standing.level(), level(&hop.neighbour));
                }
            }
            Step::Digest { neighbour: link } => {
                let routed: Vec<_> = table.iter(now).map(|route| route.destination).collect();
                let (mut after, mut seen) = (Address([0; 16]), Vec::new());
                while after != Address::BROADCAST {
                    let (page, through) = table.digest_page(after, &neighbour(link), true, 5);
                    assert!(through > after);
                    seen.extend(page.iter().map(|entry| entry.origin));
                    after = through;
                }
                assert_eq!(seen, routed);
                // From each of them, and from the gap behind it.
                for (at, destination) in routed.iter().enumerate() {
                    let rest = |from: &Address| -> Vec<_> {
                        table.iter_from(now, from).map(|route| route.destination).collect()
                    };
                    let gap = Address((u128::from_be_bytes(destination.0) + 1).to_be_bytes());
                    assert_eq!(rest(destination), routed[at..]);
                    assert_eq!(rest(&gap), routed[at + 1..]);
                }
            }
            Step::Pass { seconds } => {
                now += Duration::from_secs(seconds);
                let due = table.next_wake().is_some_and(|at| at <= now);
                let before = (table.len(), table.origins());
                let lost = table.expire(now);
                assert_eq!(before.0 - table.len(), lost.len());
                assert_eq!(due, before != (table.len(), table.origins()), "it wakes when something ends");
                assert!(table.next_wake().is_none_or(|at| at > now));
                heard.retain(|address, _| table.order(address).is_some());
            }
        }
        check(&table, &heard);
    }
    // A day after all of it nothing is left but what packets still take.
    for origin in 0..ORIGINS {
        table.set_in_use(address(origin), None);
    }
    table.expire(now + ROUTE_AGE_MAX + ORDER_MEMORY + Duration::from_secs(1));
    assert_eq!((table.origins(), table.len(), table.reachable(), table.carriers.len()), (0, 0, 0, 0));
    assert_eq!(table.next_wake(), None);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        let (origin, link) = (0..ORIGINS, 1..=LINKS);
        prop_oneof![
            8 => (origin.clone(), 0..4u32, 1..6u8, link.clone())
                .prop_map(|(origin, sequence, hop_count, link)| Step::Announce { origin, sequence, hop_count, link }),
            3 => (origin.clone(), 1..6u8, link.clone())
                .prop_map(|(origin, hop_count, link)| Step::Offer { origin, hop_count, link }),
            1 => (origin.clone(), link.clone()).prop_map(|(origin, link)| Step::Withdraw { origin, link }),
            1 => link.clone().prop_map(|link| Step::LinkDown { link }),
            1 => origin.clone().prop_map(|origin| Step::Drop { origin }),
            4 => origin.clone().prop_map(|origin| Step::Use { origin }),
            2 => (origin, any::<[u8; 3]>()).prop_map(|(origin, levels)| Step::Measure { origin, levels }),
            1 => link.prop_map(|neighbour| Step::Digest { neighbour }),
            1 => (0..40_000u64).prop_map(|seconds| Step::Pass { seconds }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_indexes_agree(steps in proptest::collection::vec(step(), 1..120)) {
            run(Instant::now(), steps);
        }
    }
}
