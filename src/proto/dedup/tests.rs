use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{model::Op, *};

const A: Ingress = Ingress::Link(LinkId(1));
const B: Ingress = Ingress::Link(LinkId(2));

fn id(n: u32) -> PacketId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PacketId(bytes)
}

fn seen(n: u32, ingress: Ingress, hop_count: u8) -> Sighting {
    Sighting {
        packet_id: id(n),
        ingress,
        hop_count,
        max_hops: 128,
        retransmit: false,
        lasts: false,
        is_destination: false,
    }
}

fn resent(n: u32, ingress: Ingress) -> Sighting {
    Sighting { retransmit: true, ..seen(n, ingress, 3) }
}

#[test]
fn a_copy_of_a_forwarded_packet_ends_here() {
    let now = Instant::now();
    let mut dedup = Dedup::new(now, 1);
    assert_eq!(dedup.observe(now, &seen(1, A, 3), |_| false), Verdict::New);
    dedup.forwarded(&id(1), Some(LinkId(2)));
    for (ingress, hop_count) in [(A, 3), (A, 1), (A, 9)] {
        assert_eq!(dedup.observe(now, &seen(1, ingress, hop_count), |_| false), Verdict::Duplicate);
    }
    // Over another link it comes in a circle, whatever it says of its hops.
    for (ingress, hop_count) in [(B, 3), (B, 9), (B, 0)] {
        assert_eq!(dedup.observe(now, &seen(1, ingress, hop_count), |_| false), Verdict::Returned);
    }
    // What ended here, or went to everyone, did not.
    dedup.forwarded(&id(1), None);
    assert_eq!(dedup.observe(now, &seen(1, B, 3), |_| false), Verdict::Duplicate);
    assert_eq!(dedup.observe(now, &seen(2, A, 3), |_| false), Verdict::New);
}

#[test]
fn nobody_suppresses_a_packet_by_racing_it_with_a_full_hop_count() {
    let now = Instant::now();
    let mut dedup = Dedup::new(now, 1);
    assert_eq!(dedup.observe(now, &seen(1, A, 120), |_| false), Verdict::New);
    // It was not forwarded. The honest copy is, once, and receipts go back its way.
    assert_eq!(dedup.observe(now, &seen(1, B, 120), |_| false), Verdict::Duplicate);
    assert_eq!(dedup.observe(now, &seen(1, B, 3), |_| false), Verdict::Shorter);
    assert_eq!(dedup.record(&id(1)).unwrap().ingress, B);
    dedup.forwarded(&id(1), Some(LinkId(3)));
    assert_eq!(dedup.observe(now, &seen(1, A, 2), |_| false), Verdict::Returned);
}

#[test]
fn a_copy_that_raced_ahead_with_few_hops_left_does_not_stand_in_for_the_one_behind_it() {
    let now = Instant::now();
    let mut dedup = Dedup::new(now, 1);
    let of_eight = |n, ingress, hop_count| Sighting { max_hops: 8, ..seen(n, ingress, hop_count) };
    for (first, later, want) in [
        (6, 2, Verdict::Shorter),
        (6, 3, Verdict::Shorter),
        (6, 4, Verdict::Returned),
        (5, 2, Verdict::Shorter),
        // Whatever it loses by that, half of its way is left.
        (4, 1, Verdict::Returned),
    ] {
        let n = u32::from(first) * 10 + u32::from(later);
        assert_eq!(dedup.observe(now, &of_eight(n, A, first), |_| false), Verdict::New);
        dedup.forwarded(&id(n), Some(LinkId(3)));
        assert_eq!(dedup.observe(now, &of_eight(n, B, later), |_| false), want, "{later} after {first}");
        dedup.forwarded(&id(n), Some(LinkId(3)));
        // Once.
        let again = dedup.observe(now, &of_eight(n, Ingress::Link(LinkId(4)), 0), |_| false);
        assert_eq!(again, Verdict::Returned, "{later} after {first}");
    }
    // What comes back from where it went is a loop, however young it makes itself.
    dedup.observe(now, &of_eight(1, A, 7), |_| false);
    dedup.forwarded(&id(1), Some(LinkId(2)));
    assert_eq!(dedup.observe(now, &of_eight(1, B, 0), |_| false), Verdict::Returned);
    // At the destination there is nothing beyond.
    dedup.observe(now, &Sighting { is_destination: true, ..of_eight(2, A, 7) }, |_| false);
    dedup.forwarded(&id(2), None);
    let late = Sighting { is_destination: true, ..of_eight(2, B, 0) };
    assert_eq!(dedup.observe(now, &late, |_| false), Verdict::Duplicate);
}

#[test]
fn resends_pass_from_the_same_link_three_times() {
    let now = Instant::now();
    let mut dedup = Dedup::new(now, 1);
    dedup.observe(now, &seen(1, A, 3), |_| false);
    dedup.forwarded(&id(1), Some(LinkId(2)));
    assert_eq!(dedup.observe(now, &resent(1, B), |_| false), Verdict::Duplicate);
    for _ in 0..RETRANSMITS_MAX {
        assert_eq!(dedup.observe(now, &resent(1, A), |_| false), Verdict::Retransmit);
    }
    assert_eq!(dedup.observe(now, &resent(1, A), |_| false), Verdict::Duplicate);
    // One that was never here is simply new.
    assert_eq!(dedup.observe(now, &resent(2, B), |_| false), Verdict::New);
}

#[test]
fn a_custodian_gets_through_for_as_long_as_it_takes_whatever_became_of_the_links() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let mut dedup = Dedup::new(start, 1);
    dedup.observe(start, &seen(1, A, 3), |_| false);
    dedup.forwarded(&id(1), Some(LinkId(3)));
    // The link went down and came back as another one: that is where receipts go now.
    let is_gone = |link| link == LinkId(1);
    assert_eq!(dedup.observe(at(1), &resent(1, B), is_gone), Verdict::Retransmit);
    assert_eq!(dedup.record(&id(1)).unwrap().ingress, B);
    // Every eight seconds it tries, in ten minutes more often than anybody may at once.
    for n in 1..60 {
        assert_eq!(dedup.observe(at(1 + n * 8), &resent(1, B), is_gone), Verdict::Retransmit, "{n}");
        assert_eq!(dedup.observe(at(1 + n * 8), &resent(1, A), |_| false), Verdict::Duplicate);
    }
    // By then it may come from where it went.
    let back = resent(1, Ingress::Link(LinkId(3)));
    assert_eq!(dedup.observe(at(482), &back, |_| false), Verdict::Retransmit);
    assert_eq!(dedup.record(&id(1)).unwrap().ingress, Ingress::Link(LinkId(3)));
}

#[test]
fn at_the_destination_a_resend_counts_from_any_link() {
    let now = Instant::now();
    let mut dedup = Dedup::new(now, 1);
    dedup.observe(now, &seen(1, A, 3), |_| false);
    let at_destination = Sighting { is_destination: true, ..resent(1, B) };
    for _ in 0..RETRANSMITS_MAX {
        assert_eq!(dedup.observe(now, &at_destination, |_| false), Verdict::Retransmit);
    }
    assert_eq!(dedup.observe(now, &at_destination, |_| false), Verdict::Duplicate);
}

#[test]
fn the_record_says_which_way_a_packet_took() {
    let now = Instant::now();
    let mut dedup = Dedup::new(now, 1);
    assert_eq!(dedup.record(&id(1)), None);
    dedup.observe(now, &seen(1, A, 0), |_| false);
    assert_eq!(dedup.record(&id(1)), Some(ForwardRecord { ingress: A, egress: None, kept_at: 0 }));
    dedup.forwarded(&id(1), Some(LinkId(9)));
    assert_eq!(dedup.record(&id(1)), Some(ForwardRecord { ingress: A, egress: Some(LinkId(9)), kept_at: 0 }));
    dedup.returned(&id(1));
    assert_eq!(dedup.record(&id(1)), Some(ForwardRecord { ingress: A, egress: None, kept_at: 0 }));
    dedup.observe(now, &seen(2, Ingress::Local, 0), |_| false);
    assert_eq!(dedup.record(&id(2)).unwrap().ingress, Ingress::Local);
    assert_eq!(dedup.age(now + Duration::from_secs(7), &id(2)), Some(Duration::from_secs(7)));
}

#[test]
fn memory_is_bounded_and_the_newer_half_is_kept() {
    let now = Instant::now();
    let mut dedup = Dedup::with_capacity(now, 1, 1000);
    for n in 0..10_000 {
        assert_eq!(dedup.observe(now, &seen(n, A, 0), |_| false), Verdict::New);
        assert!(dedup.len() <= 2000);
    }
    for n in 9_000..10_000 {
        assert_eq!(dedup.observe(now, &seen(n, B, 0), |_| false), Verdict::Duplicate);
    }
    assert_eq!(dedup.observe(now, &seen(0, B, 0), |_| false), Verdict::New);
}

#[test]
fn a_quiet_node_remembers_for_ten_minutes_and_forgets_in_twenty() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let mut dedup = Dedup::new(start, 1);
    dedup.observe(at(599), &seen(1, A, 0), |_| false);
    assert_eq!(dedup.observe(at(1198), &seen(1, B, 0), |_| false), Verdict::Duplicate);
    assert_eq!(dedup.observe(at(1800), &seen(1, B, 0), |_| false), Verdict::New);
}

#[test]
fn a_busy_node_remembers_for_a_minute_and_forgets_in_two_but_for_broadcasts() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let mut dedup = Dedup::new(start, 1);
    let broadcast = Sighting { lasts: true, ..seen(1, A, 0) };
    assert_eq!(dedup.observe(start, &broadcast, |_| false), Verdict::New);
    dedup.forwarded(&id(1), None);
    let busy = BUSY_ENTRIES as u32;
    for minute in 0..9u32 {
        let first = 2 + minute * busy;
        for n in first..first + busy {
            assert_eq!(dedup.observe(at(u64::from(minute) * 60), &seen(n, A, 0), |_| false), Verdict::New);
        }
        let before = at(u64::from(minute) * 60 + 59);
        assert_eq!(dedup.observe(before, &seen(first, B, 0), |_| false), Verdict::Duplicate);
        assert!(dedup.len() <= 2 * BUSY_ENTRIES + 2);
        assert_eq!(
            dedup.observe(before, &Sighting { ingress: B, ..broadcast }, |_| false),
            Verdict::Duplicate
        );
    }
    assert_eq!(dedup.observe(at(541), &seen(2, B, 0), |_| false), Verdict::New);
    // A broadcast is remembered for as long as it may live.
    dedup.observe(at(1200), &seen(3, A, 0), |_| false);
    dedup.observe(at(1800), &seen(4, A, 0), |_| false);
    assert_eq!(dedup.observe(at(1801), &broadcast, |_| false), Verdict::New);
}

#[test]
fn similar_identifiers_spread_over_the_table() {
    let hasher = KeyedHasher::new(42);
    let low_bits = |n: u32| hasher.hash_one(id(n)) & 0xfff;
    let mut buckets = BTreeMap::new();
    for n in 0..40_960 {
        *buckets.entry(low_bits(n)).or_insert(0u32) += 1;
    }
    // Ten a bucket on average; a hash that ignored some bytes would leave most of them empty.
    assert!(buckets.len() > 4080, "{}", buckets.len());
    assert!(buckets.values().all(|n| *n < 40));
    assert_ne!(KeyedHasher::new(1).hash_one(id(1)), KeyedHasher::new(2).hash_one(id(1)));
}

/// All that may happen to one packet, as far as the window tells it apart: from two links or from here,
/// with few, half or all of its hops behind it, first or again, on its way or at its end.
fn alphabet() -> Vec<Op> {
    let mut ops = vec![
        Op::Forwarded(id(1), None),
        Op::Forwarded(id(1), Some(LinkId(1))),
        Op::Forwarded(id(1), Some(LinkId(2))),
        Op::Returned(id(1)),
        Op::Observe(seen(2, A, 0)),
        Op::Passes(GENERATION_AGE_MAX),
        Op::Passes(RESEND_EVERY),
        Op::Goes(LinkId(1)),
    ];
    for ingress in [A, B, Ingress::Local] {
        for hop_count in [1, 4, 8] {
            let sighting = Sighting { max_hops: 8, ..seen(1, ingress, hop_count) };
            ops.push(Op::Observe(sighting));
        }
        ops.push(Op::Observe(Sighting { max_hops: 8, ..resent(1, ingress) }));
        ops.push(Op::Observe(Sighting { is_destination: true, ..resent(1, ingress) }));
    }
    ops
}

#[test]
fn every_short_story_of_a_packet_is_the_models() {
    let (now, alphabet) = (Instant::now(), alphabet());
    let mut stories = 0;
    for first in &alphabet {
        for second in &alphabet {
            for third in &alphabet {
                for fourth in &alphabet {
                    let story = [first, second, third, fourth].map(Op::clone);
                    // So small that the second packet may push the first one out.
                    model::run(now, 1 + stories % 2, story);
                    stories += 1;
                }
            }
        }
    }
    assert_eq!(stories, 23usize.pow(4));
}

fn op() -> impl Strategy<Value = Op> {
    let packet = (0..8u32).prop_map(id);
    let ingress = (0..4u64).prop_map(|n| if n == 0 { Ingress::Local } else { Ingress::Link(LinkId(n)) });
    let hop_counts = prop_oneof![3 => 0..6u8, 1 => any::<u8>()];
    let limits = prop_oneof![3 => Just(4u8), 1 => 1..=128u8];
    let sighting = (packet.clone(), ingress, hop_counts, limits, any::<[bool; 3]>()).prop_map(
        |(packet_id, ingress, hop_count, max_hops, [retransmit, lasts, is_destination])| Sighting {
            packet_id,
            ingress,
            hop_count,
            max_hops,
            retransmit,
            lasts,
            is_destination,
        },
    );
    prop_oneof![
        4 => sighting.prop_map(Op::Observe),
        2 => (packet.clone(), proptest::option::of((1..4u64).prop_map(LinkId)))
            .prop_map(|(p, l)| Op::Forwarded(p, l)),
        1 => packet.prop_map(Op::Returned),
        1 => (0..400u64).prop_map(|s| Op::Passes(Duration::from_secs(s))),
        2 => (0..12_000u64).prop_map(|ms| Op::Passes(Duration::from_millis(ms))),
        1 => (1..4u64).prop_map(|link| Op::Goes(LinkId(link))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_window_does_as_its_model(
        ops in proptest::collection::vec(op(), 1..200),
        entries_max in prop_oneof![1..8usize, Just(1000)],
    ) {
        model::run(Instant::now(), entries_max, ops);
    }
}
