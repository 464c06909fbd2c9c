//! The history of messages: what is noted of each, and that nothing depends on it.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use quicprochat_mesh::{
    messages::delivery::{FindMessages, FoundMessages},
    node::{HistoryEntry, HistoryEvent, IdPrefix},
    storage::space::Space,
    wire::receipt::CannotOpenReason,
};

use super::*;

impl Bench {
    async fn find(&self, uid: MessageUid) -> FoundMessages {
        self.actor.send(FindMessages(uid..=uid)).await.unwrap()
    }

    /// What is on disk of a message, once all of it is.
    async fn told(&self, uid: MessageUid) -> Vec<HistoryEntry> {
        self.find(uid).await;
        self.history.find(&IdPrefix::from(uid)).unwrap()
    }

    async fn events(&self, uid: MessageUid) -> Vec<&'static str> {
        self.told(uid).await.iter().map(|entry| entry.event.name()).collect()
    }
}

#[test]
fn what_becomes_of_a_message_is_told_in_order_and_over_a_restart() {
    with_virtual_time(|| async {
        let mut bench = start();
        let uid = bench.send("hello").await;
        expect_within(&mut bench.find_key, PATIENCE).await;
        expect_within(&mut bench.find_key, PATIENCE).await;
        bench.key_is_known();
        let (first, _) = bench.next_sent().await;
        bench.actor.do_send(PacketFate::Refused {
            packet_id: first,
            reason: RefuseReason::StoreFull,
            retry_after: secs(1),
        });
        let (second, _) = bench.next_sent().await;
        bench.actor.do_send(PacketFate::InCustody { domain: Address([8; 16]), packet_ids: vec![second] });
        // Said again by each relay on the way back.
        bench.actor.do_send(PacketFate::InCustody { domain: Address([8; 16]), packet_ids: vec![second] });
        let to = bench.peer.address();
        let told = bench.told(uid).await;
        let events: Vec<_> = told.iter().map(|entry| entry.event.clone()).collect();
        assert_eq!(
            events,
            [
                HistoryEvent::Started,
                HistoryEvent::Accepted { to, size: 5 },
                HistoryEvent::Waiting { reason: "no_key".into() },
                HistoryEvent::Sent { packet: first, attempt: 1 },
                HistoryEvent::Refused { packet: first, reason: "store_full".into() },
                HistoryEvent::Sent { packet: second, attempt: 2 },
                HistoryEvent::InCustody { packet: second, custodian: Some(Address([8; 16])) },
            ]
        );
        assert!(told.iter().all(|entry| !entry.clock_untrusted) && told.is_sorted_by_key(|e| e.at_unix_ms));
        let line = bench.find(uid).await.outgoing.remove(0);
        assert_eq!((line.uid, line.attempts, line.hold), (uid, 2, Hold::InCustody));

        // The next start goes on with the same message and the same journal.
        bench.actor.do_send(drain(DrainPhase::Persisting));
        bench.parent.report(DrainPhase::Persisting).await;
        let history = bench.history.clone();
        let mut again = start_keeping(bench.store.clone(), history);
        again.key_is_known();
        // It is still in custody, and asked for soon after there is a path to its destination.
        assert_eq!(again.find(uid).await.outgoing.remove(0).hold, Hold::InCustody);
        again.actor.do_send(DestinationUp { address: to, is_thin: false });
        let (third, _) = again.next_sent().await;
        let receipt = again.peer.receipt(again.own.address(), &[third]);
        again.arrives(receipt);
        let end = again.ended(uid).await.await.unwrap();
        assert!(end.is_some());
        assert_eq!(again.events(uid).await[7..], ["started", "sent", "delivered"]);
        assert!(again.find(uid).await.outgoing.is_empty());
    });
}

#[test]
fn how_a_message_ends_here_is_told() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, _) = bench.under_way().await;
        assert!(bench.actor.send(CancelMessage(uid)).await.unwrap().unwrap());
        assert_eq!(bench.events(uid).await.last(), Some(&"cancelled"));

        let content = SendContent { ttl: secs(60), ..bench.content(&b"short"[..]) };
        let uid = bench.actor.send(content).await.unwrap().unwrap().uid;
        let told = bench.ended(uid).await.await.unwrap().unwrap();
        assert_eq!(told.end, End::Expired);
        assert_eq!(bench.events(uid).await.last(), Some(&"expired"));
    });
}

#[test]
fn attempts_without_an_answer_are_noted_ever_more_rarely() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, _) = bench.under_way().await;
        for _ in 1..20 {
            loop {
                let Originate(sent, _) = expect_within(&mut bench.originated, secs(900)).await;
                if sent.iter().any(|(_, envelope)| envelope.header().kind == EnvelopeKind::MESSAGE) {
                    break;
                }
            }
        }
        let attempts: Vec<_> = bench.told(uid).await;
        let attempts: Vec<_> = attempts
            .iter()
            .filter_map(|entry| match entry.event {
                HistoryEvent::Sent { attempt, .. } => Some(attempt),
                _ => None,
            })
            .collect();
        assert_eq!(attempts, [1, 2, 3, 4, 8, 16]);
    });
}

#[test]
fn what_arrives_is_told_with_its_source_and_without_its_content() {
    with_virtual_time(|| async {
        let mut bench = start();
        let packet = bench.peer.sealed(&bench.own_keys.record.clone(), 1, "a secret");
        bench.arrives(packet.clone());
        bench.next_receipt().await;
        bench.arrives(packet);
        bench.next_receipt().await;
        let (uid, from) = (MessageUid([1; 16]), bench.peer.address());
        bench.actor.do_send(MessagesTaken(vec![(uid, from)]));
        let events: Vec<_> = bench.told(uid).await.into_iter().map(|entry| entry.event).collect();
        assert_eq!(
            events[1..],
            [
                HistoryEvent::Received { from, size: 8, hops: 1, broadcast: false },
                HistoryEvent::Taken { from }
            ]
        );

        let manifest = bench.manifest(2, 1_000_000);
        bench.arrives(manifest);
        bench.next_receipt().await;
        let (uid, size) = (MessageUid([2; 16]), 1_000_000);
        let file = bench.find(uid).await.arriving.remove(0);
        assert_eq!((file.from, file.size, file.done), (from, size, 0));
        let last = bench.told(uid).await.pop().unwrap();
        assert_eq!(last.event, HistoryEvent::Offered { from, size, hops: 1 });
        let text = std::fs::read_to_string(bench._dir.path().join("history.jsonl")).unwrap();
        assert!(!text.contains("secret") && !text.contains("file"), "{text}");
    });
}

#[test]
fn a_destination_that_could_not_open_it_is_told_of() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, id) = bench.under_way().await;
        let answer = CannotOpen {
            packet_id: id,
            reason: CannotOpenReason::UnknownKey,
            key_record: bench.peer.keys().record.signed().clone(),
        };
        let answer = bench.peer.packet(EnvelopeKind::CANNOT_OPEN, bench.own.address(), &answer.encode());
        bench.arrives(answer);
        bench.next_sent().await;
        let events = bench.events(uid).await;
        assert_eq!(events[events.len() - 3..], ["sent", "sealed_again", "sent"], "{events:?}");
    });
}

#[test]
fn a_full_disk_costs_the_history_its_lines_and_nothing_else() {
    with_virtual_time(|| async {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(0));
        let space = {
            let free = free.clone();
            move |_: &Path| Ok(Space { free_bytes: free.load(Relaxed), total_bytes: 1 << 30 })
        };
        let path = dir.path().join("history.jsonl");
        let history = HistoryFile::with_space(path.clone(), 1 << 20, Arc::new(space));
        let mut bench = start_keeping(FragileStore::default(), history);
        let (uid, id) = bench.under_way().await;
        assert_eq!(bench.find(uid).await.outgoing.len(), 1);
        assert_eq!(bench.told(uid).await, []);
        let receipt = bench.peer.receipt(bench.own.address(), &[id]);
        bench.arrives(receipt);
        assert!(bench.ended(uid).await.await.unwrap().is_some());
        let packet = bench.message(1);
        bench.arrives(packet);
        bench.next_receipt().await;

        assert!(!path.exists());

        // Once there is room, it goes on.
        free.store(1 << 30, Relaxed);
        let uid = bench.send("again").await;
        let told = bench.events(uid).await;
        assert!(told.contains(&"accepted"), "{told:?}");
        drained(&bench.actor, &mut bench.parent).await;
    });
}

#[test]
fn with_no_room_for_it_no_history_is_kept() {
    with_virtual_time(|| async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let bench = start_keeping(FragileStore::default(), HistoryFile::new(path.clone(), 0));
        let uid = bench.send("hello").await;
        assert_eq!(bench.find(uid).await.outgoing.len(), 1);
        assert_eq!(bench.told(uid).await, []);
        assert!(!path.exists());
    });
}
