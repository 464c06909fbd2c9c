#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const BULK: TrafficClass = TrafficClass::Bulk;

fn frame(len: usize) -> FrameParts {
    FrameParts::whole(Bytes::from(vec![0; len]))
}

fn rank(source: u8, priority: Priority) -> Option<Rank> {
    Some(Rank { source: Address([source; 16]), priority })
}

/// Takes once; the lengths of what came.
fn take(egress: &mut Egress) -> Vec<usize> {
    let mut out = vec![];
    egress.take(|_| true, &mut out);
    out.iter().map(FrameParts::len).collect()
}

#[test]
fn urgent_classes_go_first_and_the_links_own_frames_before_them() {
    let mut egress = Egress::new();
    egress.push(BULK, None, frame(10)).unwrap();
    egress.push(TrafficClass::Interactive, None, frame(20)).unwrap();
    egress.push(TrafficClass::Control, None, frame(30)).unwrap();
    egress.push_own(frame(40)).unwrap();
    assert_eq!((egress.len(), egress.bytes()), (4, 100));
    let mut order = vec![];
    let mut out = vec![];
    while let Some(class) = egress.take(|_| true, &mut out) {
        order.push(class);
    }
    assert_eq!(order, TrafficClass::ALL);
    assert_eq!(out.iter().map(FrameParts::len).collect::<Vec<_>>(), [40, 30, 20, 10]);
    assert!(egress.is_empty() && egress.bytes() == 0);
}

#[test]
fn a_full_class_hands_back_and_leaves_the_others_alone() {
    let mut egress = Egress::new();
    while egress.push(BULK, None, frame(16_000)).is_ok() {}
    assert!(egress.bytes() <= CLASS_BYTES_MAX);
    egress.push(TrafficClass::Interactive, None, frame(100)).unwrap();
    egress.push(TrafficClass::Control, None, frame(100)).unwrap();
    for _ in 0..OWN_FRAMES_MAX {
        egress.push_own(frame(10)).unwrap();
    }
    assert!(egress.push_own(frame(10)).is_err());
}

#[test]
fn writes_are_bounded() {
    let mut egress = Egress::new();
    for _ in 0..100 {
        egress.push(BULK, None, frame(10_000)).unwrap();
    }
    let bytes: usize = take(&mut egress).iter().sum();
    assert!((WRITE_BYTES..WRITE_BYTES + 10_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_class_the_medium_is_not_ready_for_waits_without_holding_others_up() {
    let mut egress = Egress::new();
    egress.push(BULK, None, frame(10)).unwrap();
    egress.push(TrafficClass::Interactive, None, frame(20)).unwrap();
    let mut out = vec![];
    let not_interactive = |class| class != TrafficClass::Interactive;
    assert_eq!(egress.take(not_interactive, &mut out), Some(BULK));
    assert_eq!(egress.take(not_interactive, &mut out), None);
    assert_eq!(egress.take(|_| true, &mut out), Some(TrafficClass::Interactive));
}

#[test]
fn high_and_critical_overtake_others_but_not_their_own_source() {
    use Priority::{Critical, High, Low, Normal};
    let mut egress = Egress::new();
    let queued = [(1, Normal), (2, Low), (1, Critical), (3, High), (3, Normal), (4, Critical), (3, High)];
    for (n, (source, priority)) in queued.into_iter().enumerate() {
        egress.push(TrafficClass::Interactive, rank(source, priority), frame(n + 1)).unwrap();
    }
    // 3 of source one waits behind its 1; 5 of source three follows its 4 and stays before its 7.
    assert_eq!(take(&mut egress), [4, 5, 6, 7, 1, 2, 3]);
    assert!(egress.classes[1].rest.of.is_empty(), "nothing of the sources is remembered");
    egress.push(TrafficClass::Interactive, rank(9, Normal), frame(1)).unwrap();
    egress.push(TrafficClass::Interactive, rank(1, High), frame(2)).unwrap();
    assert_eq!(take(&mut egress), [2, 1], "with its earlier ones gone it overtakes again");
}

#[test]
fn a_flood_of_urgent_messages_does_not_silence_the_others() {
    let mut egress = Egress::new();
    for _ in 0..100 {
        egress.push(BULK, rank(1, Priority::High), frame(5_000)).unwrap();
        egress.push(BULK, rank(2, Priority::Normal), frame(4_000)).unwrap();
    }
    for _ in 0..5 {
        let taken = take(&mut egress);
        let others: usize = taken.iter().filter(|len| **len == 4_000).sum();
        assert!((4_000..=12_000).contains(&others), "{taken:?}");
    }
}

#[test]
fn without_credit_a_class_waits_and_the_others_go_on() {
    let mut egress = Egress::new();
    egress.use_credit([200, 200, 100]);
    for _ in 0..3 {
        egress.push(BULK, None, frame(60)).unwrap();
    }
    assert_eq!(take(&mut egress), [60]);
    assert!(take(&mut egress).is_empty());
    egress.push(TrafficClass::Interactive, None, frame(90)).unwrap();
    egress.push_own(frame(7)).unwrap();
    assert_eq!(take(&mut egress), [7]);
    assert_eq!(take(&mut egress), [90]);
    egress.grant(Credit { class: BULK, bytes: 30 }).unwrap();
    assert_eq!(take(&mut egress), [60]);
    assert!(take(&mut egress).is_empty(), "there is one more, and no credit");
    assert_eq!(egress.len(), 1);
}

#[test]
fn one_that_waits_for_credit_is_not_overtaken_by_a_smaller_one() {
    let mut egress = Egress::new();
    egress.use_credit([100; 3]);
    egress.push(BULK, rank(1, Priority::High), frame(200)).unwrap();
    egress.push(BULK, rank(2, Priority::Normal), frame(10)).unwrap();
    assert!(take(&mut egress).is_empty());
    egress.grant(Credit { class: BULK, bytes: 200 }).unwrap();
    assert_eq!(take(&mut egress), [200, 10]);
}

#[test]
fn credit_that_nobody_asked_for_is_foreign() {
    let mut egress = Egress::new();
    assert_eq!(egress.grant(Credit { class: BULK, bytes: 1 }), Err(CreditError::Foreign));
}

#[test]
fn a_queue_that_was_full_gives_its_places_back() {
    let mut egress = Egress::new();
    while egress.push(BULK, None, frame(100)).is_ok() {}
    while !take(&mut egress).is_empty() {}
    assert!(egress.classes[2].rest.frames.capacity() <= KEPT_PLACES);
}

proptest! {
    #[test]
    fn each_source_is_heard_in_the_order_it_spoke(
        queued in prop::collection::vec((0u8..4, 0u8..4, any::<bool>()), 1..200),
    ) {
        let mut egress = Egress::new();
        let mut out = vec![];
        let mut sent = 0u16;
        for (source, priority, takes) in queued {
            sent += 1;
            let bytes = [&[source][..], &sent.to_be_bytes(), &[0; 600]].concat();
            let rank = rank(source, Priority::from_bits(priority));
            egress.push(BULK, rank, FrameParts::whole(Bytes::from(bytes))).unwrap();
            if takes {
                egress.take(|_| true, &mut out);
            }
        }
        while egress.take(|_| true, &mut out).is_some() {}
        prop_assert_eq!((out.len(), egress.bytes()), (usize::from(sent), 0));
        let mut last = BTreeMap::new();
        for frame in out {
            let bytes = frame.to_bytes();
            let number = u16::from_be_bytes([bytes[1], bytes[2]]);
            prop_assert!(last.insert(bytes[0], number).is_none_or(|before| before < number));
        }
    }
}
