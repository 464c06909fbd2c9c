//! A sender's outbox and its destination's turns with a path between them that is cut, loses and holds
//! up: what appears, and in which order.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    proto::delivery::turns::receiver::Receiver,
    wire::{Lifetime, UidPrefix},
};

const TO: Address = Address([1; 16]);
const WAIT: Duration = Duration::from_secs(60);
/// One way.
const PATH: Duration = Duration::from_millis(10);
const STEP: Duration = Duration::from_millis(10);

fn uid(n: usize) -> MessageUid {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    MessageUid(id)
}

fn record(n: usize, priority: Priority) -> OutboxRecord {
    OutboxRecord {
        uid: uid(n),
        destination: TO,
        name: String::new(),
        sent_at_unix_ms: 0,
        lifetime: Lifetime::ONE_DAY.code(),
        priority: priority as u8,
        body: Body::Inline(vec![7; 100]),
    }
}

struct Envelope {
    arrives_at: Instant,
    packet: PacketId,
    uid: MessageUid,
    follows: Option<UidPrefix>,
}

struct Line {
    now: Instant,
    outbox: Outbox,
    here: Receiver,
    under_way: Vec<Envelope>,
    receipts: Vec<(Instant, PacketId)>,
    refusals: Vec<(Instant, PacketId)>,
    /// Messages that the inbox has room for, with those that are early.
    room: usize,
    taken: usize,
    accepted: usize,
    sent: u64,
    most_early: usize,
}

impl Line {
    fn new(config: OutboxConfig) -> Self {
        let here = Receiver::new(WAIT);
        Self {
            now: here.now,
            outbox: Outbox::new(config),
            here,
            under_way: Vec::new(),
            receipts: Vec::new(),
            refusals: Vec::new(),
            room: usize::MAX,
            taken: 0,
            accepted: 0,
            sent: 0,
            most_early: 0,
        }
    }

    fn accept(&mut self) {
        let record = record(self.accepted, Priority::Normal);
        self.accepted += 1;
        self.outbox.add(self.now, record, Duration::from_secs(86_400), None);
    }

    /// A moment passes. What leaves in it, in either direction, arrives where `passes` says so.
    fn moment(&mut self, mut passes: impl FnMut(MessageUid) -> bool) {
        self.now += STEP;
        self.here.passes(STEP);
        let now = self.now;
        for envelope in self.under_way.extract_if(.., |envelope| envelope.arrives_at <= now) {
            let is_early = envelope.follows.is_some_and(|follows| !self.here.is_in_inbox(&follows));
            let room = self.room - if is_early { self.room / 8 } else { 0 };
            if self.here.seen.len() - self.taken >= room && !self.here.seen.contains(&envelope.uid) {
                self.refusals.push((now + PATH, envelope.packet));
                continue;
            }
            self.here.arrives(envelope.uid, envelope.follows);
            self.here.settle();
            if passes(envelope.uid) {
                self.receipts.push((now + PATH, envelope.packet));
            }
        }
        self.here.settle();
        for (_, packet) in self.refusals.extract_if(.., |(at, _)| *at <= now) {
            self.outbox.refused(now, &packet, RefuseReason::StoreFull, Duration::ZERO);
        }
        self.most_early = self.most_early.max(self.here.turns.len());
        let here: Vec<_> = self.receipts.extract_if(.., |(at, _)| *at <= now).collect();
        let packet_ids = here.into_iter().map(|(_, packet)| packet).collect();
        self.outbox.receipt(now, &TO, &Receipt { packet_ids, chunks: Vec::new(), unwanted: Vec::new() }, 1);
        for t in self.outbox.transmit(now, 100_000) {
            self.sent += 1;
            let mut packet = [0; 16];
            packet[..8].copy_from_slice(&self.sent.to_be_bytes());
            let packet = PacketId(packet);
            self.outbox.sent(now, &t, packet);
            if passes(t.uid) {
                let follows = self.outbox.predecessor(&t.uid).map(|uid| uid.prefix());
                self.under_way.push(Envelope { arrives_at: now + PATH, packet, uid: t.uid, follows });
            }
        }
    }

    /// Until all that was accepted is in the inbox; gives how long that took.
    fn all_arrive(&mut self) -> Duration {
        let from = self.now;
        while self.here.inbox.len() < self.accepted || !self.outbox.is_empty() {
            self.moment(|_| true);
            assert!(self.now < from + WAIT * 10, "{:?}", self.outbox.list(self.now).first());
        }
        self.now - from
    }

    fn is_in_order(&self) -> bool {
        self.here.inbox.iter().copied().eq((0..self.accepted).map(uid))
    }
}

#[test]
fn what_a_cut_took_goes_again_with_the_first_answer_after_it_and_in_its_order() {
    let mut line = Line::new(OutboxConfig::default());
    // Twenty messages a second; the path is gone from 5 s to 70 s, and nobody says so. What was tried
    // first in that time waits for its next try until 132 s by then.
    for moment in 0..8_000u32 {
        if moment % 5 == 0 {
            line.accept();
        }
        line.moment(|_| !(500..7_000).contains(&moment));
    }
    assert!(line.here.inbox.len() > 1_550, "{} of {}", line.here.inbox.len(), line.accepted);
    line.all_arrive();
    assert!(line.is_in_order());
    assert!(line.here.turns.is_empty());
}

#[test]
fn a_lost_message_keeps_a_fast_sender_from_filling_all_places_at_the_destination() {
    let mut line = Line::new(OutboxConfig { window_bytes_start: 4 << 20, ..OutboxConfig::default() });
    // 6,000 a second, and the tenth does not arrive for two seconds.
    for moment in 0..400 {
        (0..60).for_each(|_| line.accept());
        line.moment(|id| id != uid(9) || moment > 200);
    }
    line.all_arrive();
    assert!(line.most_early > 1000 && line.most_early <= 2048, "{}", line.most_early);
    assert!(line.is_in_order());
}

#[test]
fn a_message_that_is_never_answered_does_not_hold_others_up_for_good() {
    let mut line = Line::new(OutboxConfig { span_max: 8, ..OutboxConfig::default() });
    for moment in 0..12_000u32 {
        if moment % 10 == 0 {
            line.accept();
        }
        line.moment(|id| id != uid(3));
    }
    // All but that one, which is sent seldom by then.
    assert_eq!(line.here.inbox.len(), line.accepted - 1);
    let attempts = line.outbox.attempts(&uid(3)).unwrap_or(0);
    assert!((10..60).contains(&attempts), "{attempts}");
}

#[test]
fn a_full_inbox_that_is_emptied_slowly_or_late_keeps_the_order() {
    let mut line = Line::new(OutboxConfig { window_bytes_start: 4 << 20, ..OutboxConfig::default() });
    line.room = 3000;
    // 2,000 a second for ten seconds; nobody takes anything for a minute, then 500 a second.
    for moment in 0..9_000u32 {
        if moment < 1_000 {
            (0..20).for_each(|_| line.accept());
        }
        if moment > 6_000 {
            line.taken = line.here.inbox.len().min(line.taken + 5);
        }
        line.moment(|_| true);
    }
    assert!(line.taken > 14_000, "{}", line.taken);
    line.room = usize::MAX;
    line.all_arrive();
    assert!(line.is_in_order());
}

#[test]
fn what_waits_in_the_queue_of_a_lower_priority_is_not_lost() {
    let mut outbox = Outbox::new(OutboxConfig::default());
    let start = Instant::now();
    let day = Duration::from_secs(86_400);
    let mut sent = 0;
    let mut send = |outbox: &mut Outbox, now: Instant| -> Vec<usize> {
        let due = outbox.transmit(now, 100);
        let ids = due.iter().map(|t| t.uid.0[7].into());
        let ids = ids.collect();
        for t in due {
            sent += 1;
            outbox.sent(now, &t, PacketId([sent; 16]));
        }
        ids
    };
    outbox.add(start, record(1, Priority::Low), day, None);
    outbox.add(start, record(2, Priority::High), day, None);
    assert_eq!(send(&mut outbox, start), [2, 1]);
    // Their second tries, and another beside them.
    let second = start + Duration::from_secs(1);
    assert_eq!(send(&mut outbox, second), [2, 1]);
    let third = start + Duration::from_millis(2_500);
    outbox.add(third, record(3, Priority::Normal), day, None);
    assert_eq!(send(&mut outbox, third), [3]);
    let answer = Receipt { packet_ids: vec![PacketId([5; 16])], chunks: Vec::new(), unwanted: Vec::new() };
    let ended = outbox.receipt(third, &TO, &answer, 1);
    assert_eq!(ended.len(), 1);
    assert_eq!(send(&mut outbox, third), [2], "the low one may stand in a queue");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// However often and long a path is cut, by nobody's word: all of it appears, once and in order.
    #[test]
    fn messages_appear_in_order_over_a_path_that_is_cut(
        cuts in vec((5u32..90, 1u32..90), 1..5), a_second in 1u32..50
    ) {
        let mut line = Line::new(OutboxConfig { span_max: 500, ..OutboxConfig::default() });
        for (up_s, down_s) in cuts {
            for moment in 0..(up_s + down_s) * 100 {
                if moment % (100 / a_second) == 0 {
                    line.accept();
                }
                line.moment(|_| moment < up_s * 100);
            }
        }
        line.all_arrive();
        prop_assert!(line.is_in_order());
    }
}
