use super::*;
use crate::wire::{
    Lifetime,
    limits::CHUNK_BYTES,
    receipt::{ChunkReceipt, TransferState},
};

const TO: Address = Address([9; 16]);

fn record(uid: u8, body: Body) -> OutboxRecord {
    OutboxRecord {
        uid: MessageUid([uid; 16]),
        destination: TO,
        name: String::new(),
        sent_at_unix_ms: 0,
        lifetime: Lifetime::ONE_DAY.code(),
        priority: Priority::Normal as u8,
        body,
    }
}

fn line(uid: u8) -> OutboxRecord {
    record(uid, Body::Inline(b"hello".to_vec()))
}

fn file(uid: u8, length: u64) -> OutboxRecord {
    record(
        uid,
        Body::File(crate::proto::delivery::record::FileRecord {
            length,
            sha256: crate::wire::Digest([0; 32]),
            file_key: crate::wire::Digest([0; 32]),
        }),
    )
}

const DAY: Duration = Duration::from_secs(86_400);

fn packet(n: u8) -> PacketId {
    PacketId([n; 16])
}

fn receipt_for(ids: &[PacketId]) -> Receipt {
    Receipt { packet_ids: ids.to_vec(), chunks: vec![], unwanted: Vec::new() }
}

#[test]
fn a_receipt_from_the_destination_ends_it_and_from_nobody_else() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let t = outbox.transmit(now, 16);
    assert_eq!(t.len(), 1);
    outbox.sent(now, &t[0], packet(1));
    assert!(outbox.receipt(now, &Address([8; 16]), &receipt_for(&[packet(1)]), 1).is_empty());
    let done = outbox.receipt(now + Duration::from_millis(5), &TO, &receipt_for(&[packet(1)]), 3);
    assert_eq!(done[0].end, End::Delivered { rtt: Some(Duration::from_millis(5)), hops: 3 });
    assert!(outbox.is_empty());
    assert!(outbox.packets.is_empty() && outbox.destinations.is_empty());
    assert_eq!(outbox.next_wake(), None);
}

#[test]
fn what_the_destination_does_not_want_ends_and_from_nobody_elses_word() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    let unwanted = |id| Receipt { unwanted: vec![packet(id)], ..receipt_for(&[]) };
    outbox.add(now, line(1), DAY, None);
    outbox.add(now, file(2, 3 * CHUNK_BYTES as u64), DAY, Some(TransferTag([7; 16])));
    for t in outbox.transmit(now, 16) {
        outbox.sent(now, &t, packet(t.uid.0[0]));
    }
    for id in [1, 2] {
        assert!(outbox.receipt(now, &Address([8; 16]), &unwanted(id), 1).is_empty());
        let done = outbox.receipt(now, &TO, &unwanted(id), 1);
        assert_eq!(done.iter().map(|f| f.end).collect::<Vec<_>>(), [End::Unwanted], "{id}");
    }
    assert!(outbox.is_empty() && outbox.packets.is_empty() && outbox.next_wake().is_none());
}

#[test]
fn a_silent_destination_is_tried_again_with_growing_waits() {
    let mut now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let mut waits = vec![];
    for attempt in 1..=5u8 {
        let t = outbox.transmit(now, 16);
        assert_eq!(t.len(), 1, "attempt {attempt}");
        outbox.sent(now, &t[0], packet(attempt));
        assert!(outbox.transmit(now, 16).is_empty());
        let wake = outbox.next_wake().unwrap();
        waits.push((wake - now).as_secs());
        now = wake;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16]);
    // A late receipt for the first attempt still counts.
    assert_eq!(outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1).len(), 1);
}

#[test]
fn custody_makes_retries_rare_and_clears_nothing() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.in_custody(now, &packet(1));
    assert_eq!(outbox.hold(&MessageUid([1; 16])), Some(Hold::InCustody));
    outbox.route_up(&TO);
    assert!(outbox.transmit(now, 16).is_empty());
    assert_eq!(outbox.next_wake().unwrap() - now, DAY / 8);
    assert_eq!(outbox.len(), 1);
}

#[test]
fn two_custodians_may_have_a_message_and_later_attempts_decline() {
    let mut now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let mut wishes = vec![];
    for attempt in 1..=4u8 {
        let t = outbox.transmit(now, 16);
        wishes.push(t[0].wish);
        outbox.sent(now, &t[0], packet(attempt));
        if attempt <= 2 {
            let kept = outbox.in_custody(now, &packet(attempt)).unwrap();
            assert_eq!((kept.taken, kept.attempts, kept.wait), (attempt, attempt.into(), DAY / 8));
            // A hand-over from one custodian to the next is no new custody.
            assert_eq!(outbox.in_custody(now, &packet(attempt)), None);
        } else {
            // Whoever has no path says so, and its custodians are waited for as before.
            outbox.refused(now, &packet(attempt), RefuseReason::NoRoute, Duration::ZERO);
        }
        assert_eq!(outbox.hold(&MessageUid([1; 16])), Some(Hold::InCustody));
        outbox.route_up(&TO);
        assert!(outbox.transmit(now, 16).is_empty());
        let wake = outbox.next_wake().unwrap();
        assert_eq!(wake - now, DAY / 8, "attempt {attempt}");
        now = wake;
    }
    use CustodyWish::{Declined, Welcome};
    assert_eq!(wishes, [Welcome, Welcome, Declined, Declined]);
    // The first attempt's receipt still ends it.
    assert_eq!(outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1).len(), 1);
}

#[test]
fn an_attempt_that_is_lost_while_custodians_have_the_message_is_no_haste() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.in_custody(now, &packet(1));
    let later = outbox.next_wake().unwrap();
    let t = outbox.transmit(later, 16);
    outbox.sent(later, &t[0], packet(2));
    assert_eq!(outbox.list(later)[0].next_retry, Some(DAY / 8));
    let after = outbox.next_wake().unwrap();
    assert_eq!(outbox.transmit(after, 16), []);
    assert_eq!(outbox.next_wake().unwrap() - later, DAY / 8);
    assert_eq!(outbox.list(after)[0].next_retry, Some(DAY / 8 - (after - later)));
    // A word of the destination itself is: it can be reached.
    outbox.cannot_open(&TO, &packet(2));
    let t = outbox.transmit(later, 16);
    outbox.sent(later, &t[0], packet(3));
    assert!(outbox.next_wake().unwrap() - later < Duration::from_secs(60));
}

#[test]
fn an_attempt_that_is_lost_while_custodians_have_the_message_keeps_no_other_waiting_for_hours() {
    let now = Instant::now();
    let config = OutboxConfig { window_bytes_start: 300, ..OutboxConfig::default() };
    let mut outbox = Outbox::new(config);
    outbox.add(now, record(1, Body::Inline(vec![0; 100])), DAY, None);
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.in_custody(now, &packet(1));
    let again = outbox.next_wake().unwrap();
    let t = outbox.transmit(again, 16);
    outbox.sent(again, &t[0], packet(2));
    // It fills the window, and nobody answers.
    outbox.add(again, line(2), DAY, None);
    assert_eq!(outbox.transmit(again, 16), []);
    let after = outbox.next_wake().unwrap();
    assert!(after - again <= Duration::from_secs(30), "{:?}", after - again);
    let t = outbox.transmit(after, 16);
    assert_eq!((t.len(), t[0].uid), (1, MessageUid([2; 16])));
}

#[test]
fn custody_is_known_after_a_restart() {
    let now = Instant::now();
    let uid = MessageUid([1; 16]);
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let wait = Duration::from_secs(7200);
    outbox.restore_custody(now, &CustodyNote { uid, taken: 2, attempts: 5, wait });
    assert_eq!(outbox.hold(&uid), Some(Hold::InCustody));
    assert!(outbox.transmit(now, 16).is_empty());
    assert_eq!(outbox.next_wake().unwrap() - now, wait);
    assert_eq!(outbox.list(now)[0].attempts, 5);
    // It is asked for soon after its destination can be reached.
    outbox.check_custody(now, &TO);
    let soon = outbox.next_wake().unwrap();
    assert_eq!(soon - now, Duration::from_secs(30));
    assert_eq!(outbox.transmit(soon, 16)[0].wish, CustodyWish::Declined);

    // Whatever the disk says, it does not wait longer than it would anew.
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    outbox.restore_custody(now, &CustodyNote { uid, taken: 1, attempts: 1, wait: DAY * 365 });
    assert_eq!(outbox.next_wake().unwrap() - now, DAY / 8);
}

#[test]
fn a_path_that_comes_up_shortens_the_wait_for_a_custodian_once() {
    let mut now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.in_custody(now, &packet(1));
    outbox.check_custody(now, &TO);
    now += Duration::from_secs(20);
    // A path that comes and goes does not put it off.
    outbox.check_custody(now, &TO);
    assert!(outbox.transmit(now, 16).is_empty());
    let wake = outbox.next_wake().unwrap();
    assert_eq!((wake - now).as_secs(), 10);
    now = wake;
    let t = outbox.transmit(now, 16);
    assert_eq!(t.len(), 1, "whatever became of the custodian");
    outbox.sent(now, &t[0], packet(2));
    outbox.in_custody(now, &packet(2));
    assert_eq!(outbox.next_wake().unwrap() - now, DAY / 8);
}

#[test]
fn chunks_sent_after_others_went_into_custody_are_not_forgotten() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig { window_bytes_start: CHUNK_BYTES, ..OutboxConfig::default() });
    outbox.add(now, file(1, 3 * CHUNK_BYTES as u64), DAY, Some(TransferTag([7; 16])));
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1);
    let first = outbox.transmit(now, 1);
    outbox.sent(now, &first[0], packet(10));
    // The one that is under way is held, which makes room for the next one.
    outbox.in_custody(now, &packet(10));
    assert_eq!(outbox.hold(&MessageUid([1; 16])), Some(Hold::InCustody));
    let second = outbox.transmit(now, 1);
    assert_eq!(second.len(), 1);
    outbox.sent(now, &second[0], packet(11));
    assert_eq!(outbox.next_wake().unwrap() - now, Duration::from_secs(1), "nobody holds this one");
}

#[test]
fn no_path_waits_for_a_route() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.refused(now, &packet(1), RefuseReason::NoRoute, Duration::ZERO);
    assert_eq!(outbox.hold(&t[0].uid).unwrap().reason().as_deref(), Some("no_path"));
    assert!(outbox.transmit(now, 16).is_empty());
    outbox.route_up(&TO);
    assert_eq!(outbox.transmit(now, 16).len(), 1);
}

#[test]
fn expiry_ends_what_nobody_receipted() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), Duration::from_secs(10), None);
    assert!(outbox.expire(now + Duration::from_secs(9)).is_empty());
    assert_eq!(outbox.expire(now + Duration::from_secs(10))[0].end, End::Expired);
}

#[test]
fn higher_priorities_and_earlier_messages_go_first() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    outbox.add(now, line(2), DAY, None);
    let mut urgent = line(3);
    urgent.priority = Priority::Critical as u8;
    outbox.add(now, urgent, DAY, None);
    let order: Vec<u8> = outbox.transmit(now, 16).iter().map(|t| t.uid.0[0]).collect();
    assert_eq!(order, [3, 1, 2]);
}

fn chunk_receipt(tag: TransferTag, total: u32, have: impl Iterator<Item = u32>) -> Receipt {
    let mut bitmap = vec![0u8; (total as usize).div_ceil(8)];
    for i in have {
        bitmap[(i / 8) as usize] |= 1 << (i % 8);
    }
    Receipt {
        packet_ids: vec![],
        unwanted: vec![],
        chunks: vec![ChunkReceipt { tag, state: TransferState::Partial, total, bitmap }],
    }
}

#[test]
fn a_file_goes_manifest_first_then_chunks_within_the_window() {
    let now = Instant::now();
    let tag = TransferTag([7; 16]);
    let mut outbox = Outbox::new(OutboxConfig::default());
    let total = 1000u32;
    outbox.add(now, file(1, u64::from(total) * CHUNK_BYTES as u64), DAY, Some(tag));
    let t = outbox.transmit(now, 1000);
    assert_eq!(t.iter().map(|t| t.part).collect::<Vec<_>>(), [Part::Manifest]);
    outbox.sent(now, &t[0], packet(1));
    outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1);

    let mut sent = BTreeSet::new();
    let mut window = vec![];
    for round in 0..200 {
        let t = outbox.transmit(now, 10_000);
        if t.is_empty() {
            break;
        }
        window.push(t.len() * CHUNK_BYTES);
        for t in &t {
            let Part::Chunk(i) = t.part else { panic!("{t:?}") };
            assert!(sent.insert(i), "chunk {i} was sent twice");
            let mut id = [0u8; 16];
            id[..4].copy_from_slice(&i.to_be_bytes());
            outbox.sent(now, t, PacketId(id));
        }
        assert!(outbox.transmit(now, 10_000).is_empty(), "round {round} exceeds the window");
        outbox.receipt(now, &TO, &chunk_receipt(tag, total, sent.iter().copied()), 1);
    }
    assert_eq!(sent.len(), total as usize);
    assert!(window[0] <= 256 * 1024 + CHUNK_BYTES, "{window:?}");
    assert!(window[1] > window[0], "{window:?}");

    let done = Receipt {
        packet_ids: vec![],
        unwanted: vec![],
        chunks: vec![ChunkReceipt { tag, state: TransferState::Complete, total, bitmap: vec![] }],
    };
    let done = outbox.receipt(now, &TO, &done, 4);
    assert!(matches!(done[0].end, End::Delivered { hops: 4, .. }));
    assert!(outbox.packets.is_empty());
}

#[test]
fn lost_chunks_are_sent_again_after_a_timeout() {
    let now = Instant::now();
    let tag = TransferTag([7; 16]);
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, file(1, 3 * CHUNK_BYTES as u64), DAY, Some(tag));
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1);
    for (n, t) in outbox.transmit(now, 16).iter().enumerate() {
        outbox.sent(now, t, packet(10 + n as u8));
    }
    outbox.receipt(now, &TO, &chunk_receipt(tag, 3, [0, 2].into_iter()), 1);
    assert!(outbox.transmit(now, 16).is_empty());
    let later = outbox.next_wake().unwrap();
    let again = outbox.transmit(later, 16);
    assert_eq!(again.iter().map(|t| t.part).collect::<Vec<_>>(), [Part::Chunk(1)]);
}

#[test]
fn a_destination_that_lost_the_manifest_gets_it_again() {
    let now = Instant::now();
    let tag = TransferTag([7; 16]);
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, file(1, 3 * CHUNK_BYTES as u64), DAY, Some(tag));
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1);
    let wanted = Receipt {
        packet_ids: vec![],
        unwanted: vec![],
        chunks: vec![ChunkReceipt { tag, state: TransferState::ManifestWanted, total: 3, bitmap: vec![] }],
    };
    outbox.receipt(now, &TO, &wanted, 1);
    assert_eq!(outbox.transmit(now, 16)[0].part, Part::Manifest);
}

/// A file of three chunks whose manifest is receipted.
fn opened(now: Instant, tag: TransferTag) -> Outbox {
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, file(1, 3 * CHUNK_BYTES as u64), DAY, Some(tag));
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1);
    outbox
}

/// Sends what is due, from this packet on.
fn send_due(outbox: &mut Outbox, now: Instant, first_packet: u8) -> Vec<Part> {
    let due = outbox.transmit(now, 16);
    for (n, t) in (first_packet..).zip(&due) {
        outbox.sent(now, t, packet(n));
    }
    due.iter().map(|t| t.part).collect()
}

/// What a destination says of a manifest that came in this packet: that, and what it has.
fn reopened(id: u8, tag: TransferTag, have: impl Iterator<Item = u32>) -> Receipt {
    Receipt { packet_ids: vec![packet(id)], ..chunk_receipt(tag, 3, have) }
}

fn manifest_wanted(tag: TransferTag) -> Receipt {
    let wanted = ChunkReceipt { tag, state: TransferState::ManifestWanted, total: 3, bitmap: vec![] };
    Receipt { packet_ids: vec![], chunks: vec![wanted], unwanted: Vec::new() }
}

fn is_complete(tag: TransferTag) -> Receipt {
    let complete = ChunkReceipt { tag, state: TransferState::Complete, total: 3, bitmap: vec![] };
    Receipt { packet_ids: vec![], chunks: vec![complete], unwanted: Vec::new() }
}

const ALL: [Part; 3] = [Part::Chunk(0), Part::Chunk(1), Part::Chunk(2)];

#[test]
fn a_destination_that_lost_what_it_had_gets_every_chunk_again() {
    let (now, tag) = (Instant::now(), TransferTag([7; 16]));
    let mut outbox = opened(now, tag);
    assert_eq!(send_due(&mut outbox, now, 10), ALL);
    outbox.receipt(now, &TO, &chunk_receipt(tag, 3, [0, 1].into_iter()), 1);
    outbox.receipt(now, &TO, &manifest_wanted(tag), 1);
    assert_eq!(outbox.list(now)[0].chunks, Some((0, 3)), "it has nothing");
    assert_eq!(send_due(&mut outbox, now, 20), [Part::Manifest]);
    // Each chunk that was on its way brings the same answer, and one manifest is enough.
    outbox.receipt(now, &TO, &manifest_wanted(tag), 1);
    assert_eq!(send_due(&mut outbox, now, 30), []);
    // What it said before it lost it comes late: that is over.
    outbox.receipt(now, &TO, &chunk_receipt(tag, 3, [0, 1].into_iter()), 1);
    outbox.receipt(now, &TO, &reopened(1, tag, [0, 1].into_iter()), 1);
    assert_eq!(send_due(&mut outbox, now, 30), []);
    outbox.receipt(now, &TO, &reopened(20, tag, [].into_iter()), 1);
    assert_eq!(send_due(&mut outbox, now, 40), ALL);
    outbox.receipt(now, &TO, &is_complete(tag), 1);
    assert!(outbox.is_empty() && outbox.packets.is_empty());
}

#[test]
fn a_destination_that_has_all_and_says_nothing_is_asked_what_it_has() {
    let (mut now, tag) = (Instant::now(), TransferTag([7; 16]));
    let mut outbox = opened(now, tag);
    assert_eq!(send_due(&mut outbox, now, 10), ALL);
    outbox.receipt(now, &TO, &chunk_receipt(tag, 3, 0..3), 1);
    let mut waits = Vec::new();
    for attempt in 20..24 {
        assert_eq!(send_due(&mut outbox, now, attempt), []);
        let wake = outbox.next_wake().unwrap();
        waits.push((wake - now).as_secs());
        now = wake;
        assert_eq!(send_due(&mut outbox, now, attempt), [Part::Manifest]);
        // It checks the whole, or cannot; asking gets rarer.
        outbox.receipt(now, &TO, &reopened(attempt, tag, 0..3), 1);
    }
    assert_eq!(waits, [1, 2, 4, 8]);
    now = outbox.next_wake().unwrap();
    assert_eq!(send_due(&mut outbox, now, 30), [Part::Manifest]);
    // It was rolled back meanwhile. Its bitmap is taken as it is, and an old one is not.
    outbox.receipt(now, &TO, &chunk_receipt(tag, 3, 0..3), 1);
    outbox.receipt(now, &TO, &reopened(30, tag, [1].into_iter()), 1);
    assert_eq!(send_due(&mut outbox, now, 40), [Part::Chunk(0), Part::Chunk(2)]);
}

#[test]
fn an_old_bitmap_that_is_believed_for_once_does_not_stop_a_file_for_good() {
    let (mut now, tag) = (Instant::now(), TransferTag([7; 16]));
    let mut outbox = opened(now, tag);
    assert_eq!(send_due(&mut outbox, now, 10), ALL);
    outbox.receipt(now, &TO, &manifest_wanted(tag), 1);
    assert_eq!(send_due(&mut outbox, now, 20), [Part::Manifest]);
    outbox.receipt(now, &TO, &reopened(20, tag, [].into_iter()), 1);
    // From before it was lost.
    outbox.receipt(now, &TO, &chunk_receipt(tag, 3, [0].into_iter()), 1);
    assert_eq!(send_due(&mut outbox, now, 30), ALL[1..]);
    outbox.receipt(now, &TO, &chunk_receipt(tag, 3, [1, 2].into_iter()), 1);
    now = outbox.next_wake().unwrap();
    assert_eq!(send_due(&mut outbox, now, 40), [Part::Manifest]);
    outbox.receipt(now, &TO, &reopened(40, tag, [1, 2].into_iter()), 1);
    assert_eq!(send_due(&mut outbox, now, 50), [Part::Chunk(0)]);
}

#[test]
fn a_path_that_comes_up_does_not_stop_a_file_whose_chunks_are_all_there() {
    let (now, tag) = (Instant::now(), TransferTag([7; 16]));
    let mut outbox = opened(now, tag);
    send_due(&mut outbox, now, 10);
    outbox.receipt(now, &TO, &manifest_wanted(tag), 1);
    assert_eq!(send_due(&mut outbox, now, 20), [Part::Manifest]);
    outbox.receipt(now, &TO, &reopened(20, tag, 0..3), 1);
    outbox.route_up(&TO);
    assert_eq!(send_due(&mut outbox, now, 30), [Part::Manifest]);
}

#[test]
fn what_becomes_of_a_second_manifest_does_not_hold_up_the_chunks() {
    let (mut now, tag) = (Instant::now(), TransferTag([7; 16]));
    for fate in 0..3 {
        let mut outbox = Outbox::new(OutboxConfig::default());
        outbox.add(now, file(1, 3 * CHUNK_BYTES as u64), DAY, Some(tag));
        send_due(&mut outbox, now, 1);
        now = outbox.next_wake().unwrap();
        assert_eq!(send_due(&mut outbox, now, 2), [Part::Manifest]);
        outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1);
        assert_eq!(send_due(&mut outbox, now, 10), ALL);
        match fate {
            0 => outbox.refused(now, &packet(2), RefuseReason::Congested, Duration::ZERO),
            1 => outbox.refused(now, &packet(2), RefuseReason::NoRoute, Duration::ZERO),
            _ => drop(outbox.in_custody(now, &packet(2))),
        }
        assert_eq!(outbox.hold(&MessageUid([1; 16])), Some(Hold::None));
        now = outbox.next_wake().unwrap();
        assert_eq!(send_due(&mut outbox, now, 20), ALL, "their own timer does its part");
    }
}

#[test]
fn a_full_outbox_refuses_before_anything_is_written() {
    let now = Instant::now();
    let config = OutboxConfig { entries_max: 1, bytes_max: 10, ..Default::default() };
    let mut outbox = Outbox::new(config);
    assert_eq!(outbox.admit(0, 11), Err(OutboxFull::Bytes(0)));
    outbox.add(now, line(1), DAY, None);
    assert_eq!(outbox.admit(0, 0), Err(OutboxFull::Entries(1)));
}

#[test]
fn a_full_queue_on_the_way_costs_one_chunk_and_half_the_window() {
    let now = Instant::now();
    let tag = TransferTag([7; 16]);
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, file(1, 100 * CHUNK_BYTES as u64), DAY, Some(tag));
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1);
    let first = outbox.transmit(now, 1000);
    for (n, t) in first.iter().enumerate() {
        outbox.sent(now, t, packet(10 + n as u8));
    }
    outbox.refused(now, &packet(13), RefuseReason::Congested, Duration::ZERO);
    outbox.refused(now, &packet(14), RefuseReason::Congested, Duration::ZERO);
    assert!(outbox.transmit(now, 1000).is_empty(), "it pauses");
    let later = outbox.next_wake().unwrap();
    assert_eq!(later - now, Duration::from_millis(20));
    // Half a window is still more than full with what is under way.
    assert!(outbox.transmit(later, 1000).is_empty());
    outbox.receipt(later, &TO, &chunk_receipt(tag, 100, (0..17).filter(|i| *i != 3 && *i != 4)), 1);
    let again = outbox.transmit(later, 1000);
    assert_eq!(again[0].part, Part::Chunk(3));
    assert_eq!(again[1].part, Part::Chunk(4));
    let bytes = again.len() * CHUNK_BYTES;
    assert!(bytes <= 160 * 1024, "the window was halved and grows slowly now: {bytes}");
}

#[test]
fn a_full_store_is_asked_once_a_second_whatever_waits_for_it() {
    let began = Instant::now();
    let mut now = began;
    let mut outbox = Outbox::new(OutboxConfig::default());
    (0..200).for_each(|n| outbox.add(now, line(n), DAY, None));
    let (mut packets, mut last_half_minute) = (0u32, 0);
    let id = |n: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        PacketId(id)
    };
    while now < began + Duration::from_secs(60) {
        for t in outbox.transmit(now, 1000) {
            packets += 1;
            outbox.sent(now, &t, id(packets));
            outbox.refused(now, &id(packets), RefuseReason::StoreFull, Duration::ZERO);
            last_half_minute += u32::from(now >= began + Duration::from_secs(30));
        }
        now = outbox.next_wake().unwrap();
    }
    assert!((20..=30).contains(&last_half_minute), "{last_half_minute} of {packets}");

    // There is room again: the first receipt lets as much go as fits an envelope, and so on.
    let mut rounds = 0;
    while !outbox.is_empty() {
        let sent = outbox.transmit(now, 1000);
        for t in &sent {
            packets += 1;
            outbox.sent(now, t, id(packets));
            assert_eq!(outbox.receipt(now, &TO, &receipt_for(&[id(packets)]), 1).len(), 1);
        }
        if sent.is_empty() {
            now = outbox.next_wake().unwrap();
        }
        rounds += 1;
        assert!(rounds < 30, "{} are left", outbox.len());
    }
    assert!(now < began + Duration::from_secs(64), "{:?}", now - began);
}

#[test]
fn what_is_refused_for_want_of_room_lets_others_pass() {
    let mut now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    let mut large = line(1);
    large.priority = Priority::Critical as u8;
    outbox.add(now, large, DAY, None);
    outbox.add(now, line(2), DAY, None);
    let (mut n, mut delivered) = (0, 0);
    let began = now;
    while delivered == 0 {
        for t in outbox.transmit(now, 1) {
            n += 1;
            outbox.sent(now, &t, packet(n));
            if t.uid == MessageUid([1; 16]) {
                outbox.refused(now, &packet(n), RefuseReason::StoreFull, Duration::ZERO);
            } else {
                delivered = outbox.receipt(now, &TO, &receipt_for(&[packet(n)]), 1).len();
            }
        }
        if delivered == 0 {
            now = outbox.next_wake().unwrap();
        }
    }
    assert!(now - began < Duration::from_secs(2), "{:?}", now - began);
}

#[test]
fn a_path_that_comes_up_ends_the_pause_before_a_full_store() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, line(1), DAY, None);
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.refused(now, &packet(1), RefuseReason::StoreFull, Duration::from_secs(600));
    assert!(outbox.transmit(now, 16).is_empty());
    outbox.route_up(&TO);
    assert_eq!(outbox.transmit(now, 16).len(), 1);
}

#[test]
fn custody_of_one_chunk_does_not_hold_up_the_others() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    outbox.add(now, file(1, 3 * CHUNK_BYTES as u64), DAY, Some(TransferTag([7; 16])));
    let t = outbox.transmit(now, 16);
    outbox.sent(now, &t[0], packet(1));
    outbox.receipt(now, &TO, &receipt_for(&[packet(1)]), 1);
    let chunks = outbox.transmit(now, 16);
    assert_eq!(chunks.len(), 3);
    for (n, t) in (10u8..).zip(&chunks) {
        outbox.sent(now, t, packet(n));
    }
    outbox.in_custody(now, &packet(10));
    assert_eq!(outbox.hold(&MessageUid([1; 16])), Some(Hold::None));
    assert_eq!(outbox.next_wake().unwrap() - now, Duration::from_secs(1));
    outbox.in_custody(now, &packet(11));
    outbox.in_custody(now, &packet(12));
    assert_eq!(outbox.hold(&MessageUid([1; 16])), Some(Hold::InCustody));
    assert_eq!(outbox.next_wake().unwrap() - now, DAY / 8);
}

#[test]
fn destinations_that_wait_for_a_path_are_not_looked_at() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    for n in 0..100u8 {
        let mut record = line(n);
        record.destination = Address([n; 16]);
        outbox.add(now, record, DAY, None);
    }
    assert_eq!(outbox.active.len(), 100);
    for t in outbox.transmit(now, 200) {
        outbox.hold_back(now, &t.uid, Hold::NoPath);
    }
    assert!(outbox.active.is_empty());
    // One comes up: it alone is looked at, and goes at once.
    outbox.route_up(&Address([7; 16]));
    assert_eq!(outbox.active.len(), 1);
    assert_eq!(outbox.transmit(now, 200).len(), 1);
    // The others' own timers still do their part.
    assert_eq!(outbox.transmit(outbox.next_wake().unwrap(), 200).len(), 99);
    assert_eq!(outbox.active.len(), 0);
}

#[test]
fn what_does_not_get_through_does_not_keep_later_messages_from_being_tried() {
    let mut now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig { window_bytes_start: 2000, ..OutboxConfig::default() });
    // The first few fill the window, and are too large for some link on the way.
    for uid in 1..=10 {
        let body = Body::Inline(vec![7; if uid <= 3 { 14_000 } else { 10 }]);
        outbox.add(now, record(uid, body), DAY, None);
    }
    let mut tried = BTreeSet::new();
    let mut sent = 0;
    let until = now + Duration::from_secs(600);
    while tried.len() < 10 {
        assert!(now < until, "{tried:?}");
        for t in outbox.transmit(now, 16) {
            sent += 1;
            outbox.sent(now, &t, packet(sent));
            tried.insert(t.uid.0[0]);
        }
        now = outbox.next_wake().unwrap();
    }
}

#[test]
fn messages_to_one_destination_leave_in_the_order_they_were_taken() {
    let now = Instant::now();
    let mut outbox = Outbox::new(OutboxConfig::default());
    // Their uids are in another order.
    let order: Vec<u8> = (0..50).map(|n: u8| n.wrapping_mul(83)).collect();
    order.iter().for_each(|uid| outbox.add(now, line(*uid), DAY, None));
    let mut left = Vec::new();
    loop {
        let due = outbox.transmit(now, 16);
        if due.is_empty() {
            break;
        }
        left.extend(due.iter().map(|t| t.uid.0[0]));
    }
    assert_eq!(left, order);
}
