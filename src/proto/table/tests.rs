use super::*;
use crate::{
    proto::router::testkit::{Node, verified},
    wire::AnnounceContent,
};

const MINUTE: Duration = Duration::from_secs(60);

fn via(link: u64, neighbour: u8) -> Via {
    Via {
        link: LinkId(link),
        class: LinkClass::Unconstrained,
        neighbour: Address([neighbour; 16]),
        measure: Measure::default(),
        is_young: false,
        account: Address([neighbour; 16]),
    }
}

/// The announce as it comes over `via`, after `hop_count` links.
fn take(table: &mut RoutingTable, now: Instant, announce: &Announce, hop_count: u8, via: &Via) -> Update {
    table.update(now, &verified(Announce { hop_count, ..announce.clone() }), via, &|_| false)
}

fn first(table: &RoutingTable, to: &Address) -> Option<u64> {
    table.hops(to).map(|hops| hops.first.0)
}

#[test]
fn the_newest_announce_makes_the_route() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let mut table = RoutingTable::new(now, 7, 10);
    let to = node.address();
    let mut check = |order, link, want, best| {
        let announce = node.announce(order, 128);
        assert_eq!(take(&mut table, now, &announce, 2, &via(link, link as u8)), want, "{order:?}");
        assert_eq!(first(&table, &to), Some(best), "{order:?}");
    };
    check((1, 5), 1, Update::Newer, 1);
    check((1, 4), 2, Update::Rejected(Reject::Stale), 1);
    check((1, 5), 1, Update::Known, 1);
    check((1, 6), 2, Update::Newer, 2);
    // The boot epoch stands above the sequence.
    check((2, 0), 3, Update::Newer, 3);
    check((1, u32::MAX), 1, Update::Rejected(Reject::Stale), 3);
}

#[test]
fn ways_are_ordered_by_hops_then_medium_then_link() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let mut table = RoutingTable::new(now, 7, 10);
    let announce = node.announce((1, 1), 128);
    let to = node.address();
    let radio = Via { class: LinkClass::Constrained, ..via(1, 1) };
    assert_eq!(take(&mut table, now, &announce, 3, &radio), Update::Newer);
    assert_eq!(take(&mut table, now, &announce, 3, &via(4, 4)), Update::Alternative);
    assert_eq!(first(&table, &to), Some(4), "the better medium");
    assert_eq!(take(&mut table, now, &announce, 3, &via(3, 3)), Update::Alternative);
    assert_eq!(first(&table, &to), Some(3), "the lower link");
    assert_eq!(take(&mut table, now, &announce, 2, &via(9, 9)), Update::Alternative);
    assert_eq!(first(&table, &to), Some(9), "fewer hops");
    // Three are kept: the best, and the one that brought it first.
    let route = table.iter(now).next().unwrap();
    let links: Vec<u64> = route.next_hops.iter().map(|hop| hop.link.0).collect();
    assert_eq!(links, [9, 3, 1]);
    assert_eq!(route.next_hops[0].hops, 3);
}

#[test]
fn ways_lead_through_different_neighbours() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let mut table = RoutingTable::new(now, 7, 10);
    let announce = node.announce((1, 1), 128);
    take(&mut table, now, &announce, 3, &via(1, 7));
    // A second link to the same neighbour is no second way, though a better one.
    assert_eq!(take(&mut table, now, &announce, 2, &via(2, 7)), Update::Alternative);
    let route = table.iter(now).next().unwrap();
    assert_eq!(route.next_hops.len(), 1);
    assert_eq!(route.next_hops[0].link, LinkId(2));
    assert!(table.link_down(LinkId(1)).is_empty());
}

#[test]
fn hop_zero_is_the_origin_s_own_link() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let mut table = RoutingTable::new(now, 7, 10);
    let announce = node.announce((1, 1), 128);
    let not_the_origin = Update::Rejected(Reject::NotTheOrigin);
    assert_eq!(take(&mut table, now, &announce, 0, &via(1, 2)), not_the_origin);
    let own_link = Via { neighbour: node.address(), ..via(1, 0) };
    assert_eq!(take(&mut table, now, &announce, 0, &own_link), Update::Newer);
    assert_eq!(table.iter(now).next().unwrap().next_hops[0].hops, 1);
}

#[test]
fn an_announce_ends_at_the_hop_limit_its_origin_signed() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let announce = node.announce((1, 1), 3);
    let to = node.address();
    let reach = |hop_count| {
        let mut table = RoutingTable::new(now, 7, 10);
        let update = take(&mut table, now, &announce, hop_count, &via(1, 9));
        (update, table.announce_to_send(&to).map(|announce| announce.hop_count))
    };
    assert_eq!(reach(1), (Update::Newer, Some(2)));
    // It came over its third link: it makes a route and goes no further.
    assert_eq!(reach(2), (Update::Newer, None));
    assert_eq!(reach(3), (Update::Rejected(Reject::HopLimit), None));
    assert_eq!(reach(255), (Update::Rejected(Reject::HopLimit), None));
}

#[test]
fn a_route_ends_by_age_counted_from_its_first_reception() {
    let start = Instant::now();
    let mut node = Node::new(1);
    let mut check = |lifetime_s, capabilities, ends_after: Duration| {
        let mut table = RoutingTable::new(start, 7, 10);
        let content = AnnounceContent {
            lifetime_s,
            capabilities: Capabilities(capabilities),
            ..node.content((1, 1), 128)
        };
        let announce = node.sign_announce(content);
        let to = node.address();
        take(&mut table, start, &announce, 1, &via(1, 1));
        assert_eq!(table.next_wake(), Some(start + ends_after));
        let late = start + ends_after - Duration::from_secs(1);
        // Another copy does not make it younger.
        take(&mut table, late, &announce, 1, &via(2, 2));
        assert!(table.expire(late).is_empty());
        assert_eq!(table.expire(start + ends_after), [to]);
        assert!(table.is_empty() && table.hops(&to).is_none());
        let again = take(&mut table, start + ends_after, &announce, 1, &via(2, 2));
        assert_eq!(again, Update::Rejected(Reject::Expired));
    };
    let relay = Capabilities::RELAY;
    check(60, relay, MINUTE);
    check(1800, relay, 30 * MINUTE);
    check(86_400, relay, 30 * MINUTE);
    check(86_400, relay | Capabilities::CONSTRAINED, 24 * 60 * MINUTE);
}

#[test]
fn an_order_outlives_its_route_by_a_day() {
    let start = Instant::now();
    let mut node = Node::new(1);
    let mut table = RoutingTable::new(start, 7, 10);
    let (old, new) = (node.announce((1, 1), 128), node.announce((1, 2), 128));
    take(&mut table, start, &new, 1, &via(1, 1));
    let stale = Update::Rejected(Reject::Stale);
    let a_day_on = start + ORDER_MEMORY;
    table.expire(a_day_on);
    assert_eq!(take(&mut table, a_day_on, &old, 1, &via(1, 1)), stale);
    table.link_down(LinkId(1));
    assert_eq!(take(&mut table, a_day_on, &old, 1, &via(1, 1)), stale);
    let forgotten = start + 30 * MINUTE + ORDER_MEMORY;
    table.expire(forgotten);
    assert_eq!((table.origins(), table.next_wake()), (0, None));
    assert_eq!(take(&mut table, forgotten, &old, 1, &via(1, 1)), Update::Newer);
}

#[test]
fn a_dead_link_takes_its_routes_with_it() {
    let now = Instant::now();
    let mut table = RoutingTable::new(now, 7, 10);
    let (mut a, mut b, mut c) = (Node::new(1), Node::new(2), Node::new(3));
    let (both, only) = (a.announce((1, 1), 128), b.announce((1, 1), 128));
    take(&mut table, now, &both, 1, &via(1, 1));
    take(&mut table, now, &both, 2, &via(2, 2));
    take(&mut table, now, &only, 1, &via(1, 1));
    take(&mut table, now, &c.announce((1, 1), 128), 1, &via(2, 2));
    let mut affected = table.link_down(LinkId(1));
    affected.sort();
    let mut want = [a.address(), b.address()];
    want.sort();
    assert_eq!(affected, want);
    assert_eq!(first(&table, &a.address()), Some(2));
    assert_eq!(first(&table, &b.address()), None);
    assert_eq!(first(&table, &c.address()), Some(2));
    assert_eq!((table.len(), table.origins()), (2, 3));
    assert!(table.link_down(LinkId(1)).is_empty());
    // The link is back and brings the same announce: passed on again, for others lost it too.
    assert_eq!(take(&mut table, now, &only, 1, &via(3, 1)), Update::Newer);
}

#[test]
fn a_way_that_may_lead_back_here_comes_last_and_is_not_praised() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let to = node.address();
    let announce = node.announce((1, 1), 128);
    let mut table = RoutingTable::new(now, 7, 10);
    take(&mut table, now, &announce, 1, &via(1, 1));
    // This node claims two hops from now on.
    assert_eq!(table.announce_to_send(&to).unwrap().hop_count, 2);
    // A neighbour three hops off may have them through here; one that is one hop off has not.
    take(&mut table, now, &announce, 3, &via(2, 2));
    assert_eq!(table.hops(&to), Some(Hops { first: LinkId(1), second: Some(LinkId(2)) }));
    table.link_down(LinkId(1));
    assert_eq!(first(&table, &to), Some(2), "better than none");
    take(&mut table, now, &announce, 1, &via(3, 3));
    assert_eq!(first(&table, &to), Some(3));
    table.link_down(LinkId(2));
    table.link_down(LinkId(3));
    assert!(!table.lacks_feasible(&to), "no way at all");
    assert_eq!(take(&mut table, now, &announce, 3, &via(4, 4)), Update::Alternative);
    assert_eq!(first(&table, &to), Some(4));
    // What is used for want of a better is not announced, and a newer announce makes it sound.
    assert!(table.lacks_feasible(&to));
    assert!(table.announce_to_send(&to).is_none());
    take(&mut table, now, &node.announce((1, 2), 128), 3, &via(4, 4));
    assert!(!table.lacks_feasible(&to));
    assert_eq!(table.announce_to_send(&to).unwrap().hop_count, 4);
}

#[test]
fn an_announce_told_near_its_limit_is_told_again_once_it_is_there_with_half_the_hops() {
    let now = Instant::now();
    for (first, later, want) in [
        (6, 2, true),
        (6, 3, false),
        // At its limit, so that it ended here.
        (7, 3, true),
        (7, 4, false),
        // Half of its way is left.
        (3, 1, false),
    ] {
        let mut node = Node::new(1);
        let to = node.address();
        let announce = node.announce((1, 1), 8);
        let mut table = RoutingTable::new(now, 7, 10);
        assert!(!table.was_raced(&to));
        take(&mut table, now, &announce, first, &via(1, 1));
        assert!(!table.was_raced(&to), "not told yet");
        assert_eq!(table.announce_to_send(&to).is_none(), first == 7);
        take(&mut table, now, &announce, later, &via(2, 2));
        assert_eq!(table.was_raced(&to), want, "{later} after {first}");
        table.announce_to_send(&to).unwrap();
        assert!(!table.was_raced(&to), "told anew");
    }
}

#[test]
fn a_way_is_feasible_below_what_was_claimed_and_not_at_it() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let to = node.address();
    let announce = node.announce((1, 1), 128);
    let mut table = RoutingTable::new(now, 7, 10);
    take(&mut table, now, &announce, 4, &via(1, 1));
    assert_eq!(table.announce_to_send(&to).unwrap().hop_count, 5);
    for (link, claim, want) in [(2u64, 4, true), (3, 5, false), (4, 6, false)] {
        table.link_down(LinkId(link - 1));
        take(&mut table, now, &announce, claim, &via(link, link as u8));
        assert_eq!(!table.lacks_feasible(&to), want, "a neighbour that claims {claim}");
    }
}

#[test]
fn measured_ways_come_before_claims_and_failing_ones_are_no_second_choice() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let to = node.address();
    let announce = node.announce((1, 1), 128);
    let mut table = RoutingTable::new(now, 7, 10);
    for link in 1..=3u64 {
        take(&mut table, now, &announce, link as u8 + 1, &via(link, link as u8));
    }
    let mut order = |standings: [Standing; 3]| {
        table.measured(&to, |neighbour| {
            let standing = standings[usize::from(neighbour.0[0]) - 1];
            Measure { standing, ..Measure::default() }
        });
        let hops = table.hops(&to).unwrap();
        (hops.first.0, hops.second.map(|link| link.0))
    };
    let (good, unknown, failing) = (Standing::GOOD, Standing::UNKNOWN, Standing::FAILING);
    assert_eq!(order([unknown, unknown, unknown]), (1, Some(2)), "by claims");
    assert_eq!(order([unknown, unknown, good]), (3, Some(1)));
    assert_eq!(order([failing, unknown, unknown]), (2, Some(3)));
    assert_eq!(order([failing, failing, good]), (3, None), "better refused than lost");
    assert_eq!(order([failing, failing, failing]), (1, Some(2)), "better tried than nothing");
    let route = table.iter(now).next().unwrap();
    assert_eq!(route.chosen, Chosen::ClaimedHops);
}

#[test]
fn a_neighbour_fills_its_share_and_lets_its_own_give_way() {
    let now = Instant::now();
    let mut table = RoutingTable::new(now, 7, 40);
    let mut nodes: Vec<Node> = (1..=60).map(Node::new).collect();
    let young = Via { is_young: true, ..via(1, 1) };
    let mut hear = |table: &mut RoutingTable, n: usize, via: &Via, in_use: &[Address]| {
        let announce = nodes[n].announce((1, 1), 128);
        let inbound = verified(Announce { hop_count: 2, ..announce });
        table.update(now, &inbound, via, &|to| in_use.contains(to))
    };
    let address = |n: usize| Node::new(n as u8 + 1).address();
    // A twentieth while it is new: two of forty.
    for n in 0..3 {
        assert_eq!(hear(&mut table, n, &young, &[]), Update::Newer);
    }
    assert_eq!((table.origins(), table.take_evicted()), (2, vec![address(0)]));
    // A quarter later, and what is in use stays.
    let in_use: Vec<Address> = (1..11).map(address).collect();
    for n in 3..11 {
        assert_eq!(hear(&mut table, n, &via(1, 1), &in_use), Update::Newer);
    }
    assert_eq!((table.origins(), table.take_evicted()), (10, vec![]));
    for n in 11..20 {
        assert_eq!(hear(&mut table, n, &via(1, 1), &in_use), Update::Rejected(Reject::ShareFull));
    }
    // Others have room, until the table is full; then the one with most gives way.
    for n in 20..50 {
        assert_eq!(hear(&mut table, n, &via(n as u64, (n / 10) as u8), &in_use), Update::Newer);
    }
    assert_eq!(table.origins(), 40);
    assert_eq!(hear(&mut table, 50, &via(50, 9), &in_use), Update::Newer);
    assert_eq!(table.origins(), 40);
    let evicted = table.take_evicted();
    assert!(evicted.len() == 1 && !in_use.contains(&evicted[0]));
}

#[test]
fn many_names_of_one_account_fill_one_share() {
    let now = Instant::now();
    let mut table = RoutingTable::new(now, 7, 40);
    let crowd = |n: u8| Via { account: Address([99; 16]), ..via(n.into(), n) };
    for n in 0..40u8 {
        let announce = Node::new(n + 1).announce((1, 1), 128);
        let inbound = verified(Announce { hop_count: 2, ..announce });
        assert_eq!(table.update(now, &inbound, &crowd(n % 8), &|_| false), Update::Newer);
    }
    assert_eq!((table.origins(), table.take_evicted().len()), (10, 30));
}

#[test]
fn a_full_table_refuses_new_origins_and_keeps_live_routes() {
    let now = Instant::now();
    let mut table = RoutingTable::new(now, 7, 3);
    let mut nodes: Vec<Node> = (1..=5).map(Node::new).collect();
    for (n, node) in nodes.iter_mut().enumerate() {
        let announce = node.announce((1, 1), 128);
        let update = take(&mut table, now, &announce, 1, &via(n as u64 + 1, n as u8));
        let full = Update::Rejected(Reject::TableFull);
        assert_eq!(update, if n < 3 { Update::Newer } else { full }, "{n}");
    }
    // Known origins still renew.
    assert_eq!(take(&mut table, now, &nodes[0].announce((1, 2), 128), 1, &via(1, 0)), Update::Newer);
    // A remembered order without a route gives way to a live one.
    table.link_down(LinkId(2));
    assert_eq!(take(&mut table, now, &nodes[4].announce((1, 1), 128), 1, &via(5, 4)), Update::Newer);
    assert_eq!((table.origins(), table.len()), (3, 3));
}

#[test]
fn the_newest_key_record_is_kept_and_goes_with_the_announce_that_names_it() {
    let now = Instant::now();
    let mut node = Node::new(1);
    let to = node.address();
    let mut table = RoutingTable::new(now, 7, 10);
    let (first, second) = (node.key_record(1), node.key_record(2));
    let announce = node.announce_with_record((1, 1), &first);
    take(&mut table, now, &announce, 1, &via(1, 1));
    let sent = table.announce_to_send(&to).unwrap();
    assert_eq!(sent.key_record.as_ref(), Some(first.signed()));
    assert_eq!((sent.hop_count, sent.signature), (2, announce.signature));

    assert!(table.update_key_record(&second));
    assert!(!table.update_key_record(&first));
    assert_eq!(table.key_record(&to), Some(second.clone()));
    // The announce names the first one: it goes on without.
    assert_eq!(table.announce_to_send(&to).unwrap().key_record, None);
    // The record outlives the route, as does the key.
    table.link_down(LinkId(1));
    assert_eq!(table.key_record(&to), Some(second.clone()));
    assert_eq!(table.public_key(&to), Some(node.key()));
    assert!(table.announce_to_send(&to).is_none());
    assert!(table.announce_held(&to).is_some());
    // Records of strangers are not kept.
    assert!(!table.update_key_record(&Node::new(2).key_record(1)));
}

#[test]
fn walking_the_table_meets_every_route_once() {
    let now = Instant::now();
    let mut table = RoutingTable::new(now, 7, 100);
    for n in 1..=20 {
        take(&mut table, now, &Node::new(n).announce((1, 1), 128), 1, &via(u64::from(n % 2) + 1, n));
    }
    table.link_down(LinkId(1));
    let walk = std::iter::successors(table.next_destination(None), |at| table.next_destination(Some(*at)));
    let walk: Vec<Address> = walk.collect();
    let listed: Vec<Address> = table.iter(now).map(|route| route.destination).collect();
    assert_eq!((walk.len(), walk), (10, listed));
}
