//! What one sender sends appears in the order in which it was sent, whatever was lost on the way.

use quicprochat_mesh::{
    crypto::{OpenSessions, SignatureInput},
    proto::delivery::{
        inbound::{self, Arrived},
        turns::CROWD,
    },
    storage::{LocalStore, PageLimit},
    wire::{
        UidPrefix,
        content::{Content, Sealed},
    },
};

use super::*;

impl Bench {
    /// What the envelope of a message says that it follows.
    fn follows(&self, (id, envelope): (PacketId, Envelope)) -> Option<UidPrefix> {
        let inbound = Verified::trusted(id, self.own.key(), envelope, FrameExt::default());
        let arrived = inbound::arrived(
            &self.peer_keys.secrets,
            &mut OpenSessions::new(NETWORK),
            &mut SignatureInput::new(NETWORK),
            &inbound.into_inner(),
        );
        match arrived.unwrap() {
            Arrived::Sealed(Sealed::Content(content)) => content.follows,
            other => panic!("{other:?}"),
        }
    }

    async fn inbox(&self) -> Vec<u8> {
        inbox_of(&self.store).await
    }

    /// A message of the peer's for this node, sent after another, and its receipt.
    async fn arrives_behind(&mut self, uid: u8, follows: u8) {
        let packet = self.peer.sealed_behind(&self.own_keys.record, uid, "hello", Some(follows));
        let id = packet.packet_id;
        self.arrives(packet);
        assert_eq!(self.next_receipt().await.packet_ids, [id], "it is on the disk");
    }
}

async fn inbox_of(store: &dyn LocalStore) -> Vec<u8> {
    let page = LocalOp::InboxPage { after: None, limit: PageLimit::default() };
    match ask_local(store, vec![page]).unwrap().await.unwrap().remove(0) {
        LocalOutcome::Inbox(page) => page.rows.iter().map(|row| row.uid.0[0]).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_names_the_one_before_it_that_has_no_receipt() {
    with_virtual_time(|| async {
        let mut bench = start();
        let first = bench.send("one").await;
        bench.key_is_known();
        let (first_packet, envelope) = bench.next_sent().await;
        assert_eq!(bench.follows((first_packet, envelope)), None);
        bench.send("two").await;
        let sent = bench.next_sent().await;
        assert_eq!(bench.follows(sent), Some(first.prefix()));
        // Another priority is not held up by it.
        let urgent = SendContent { priority: Priority::High, ..bench.content(&b"three"[..]) };
        bench.actor.send(urgent).await.unwrap().unwrap();
        let (urgent_packet, envelope) = bench.next_sent().await;
        assert_eq!(bench.follows((urgent_packet, envelope)), None);
        // Nor by one that has arrived. The first try of the second was lost.
        let receipt = bench.peer.receipt(bench.own.address(), &[first_packet, urgent_packet]);
        bench.arrives(receipt);
        let sent = bench.next_sent().await;
        assert_eq!(bench.follows(sent), None);
    });
}

#[test]
fn what_comes_early_is_receipted_and_appears_behind_what_it_follows() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.arrives_behind(3, 2).await;
        bench.inbox.mark_unchanged();
        bench.arrives_behind(2, 1).await;
        assert!(bench.inbox().await.is_empty());
        assert_eq!(bench.counts().await.inbox, 2, "they are here all the same");
        assert!(!bench.inbox.has_changed().unwrap(), "nobody is told of what cannot be taken yet");
        let packet = bench.message(1);
        bench.arrives(packet);
        let inbox = eventually("all of them", PATIENCE, async || {
            let inbox = bench.inbox().await;
            (inbox.len() == 3).then_some(inbox)
        })
        .await;
        assert_eq!(inbox, [1, 2, 3]);
        assert!(bench.inbox.has_changed().unwrap());
    });
}

#[test]
fn what_never_comes_holds_the_others_up_for_a_while_and_no_longer() {
    with_virtual_time(|| async {
        let mut bench = start();
        let began = clock::now();
        bench.arrives_behind(2, 1).await;
        bench.arrives_behind(3, 2).await;
        let inbox = eventually("both", ORDER_WAIT * 2, async || {
            let inbox = bench.inbox().await;
            (inbox.len() == 2).then_some(inbox)
        })
        .await;
        assert_eq!(inbox, [2, 3]);
        assert!(clock::now().saturating_duration_since(began) >= ORDER_WAIT);
        // Others that follow it do not wait again.
        bench.arrives_behind(4, 1).await;
        assert_eq!(bench.inbox().await, [2, 3, 4]);
        // And it is no worse off for coming late.
        let packet = bench.message(1);
        bench.arrives(packet);
        bench.next_receipt().await;
        assert_eq!(bench.inbox().await, [2, 3, 4, 1]);
    });
}

#[test]
fn what_the_store_has_no_room_for_when_its_turn_comes_enters_later() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.arrives_behind(2, 1).await;
        bench.arrives_behind(3, 2).await;
        bench.store.rows.set_full(true);
        tokio::time::sleep(ORDER_WAIT + secs(1)).await;
        bench.store.rows.set_full(false);
        assert!(bench.inbox().await.is_empty(), "its turn came while the store took nothing");
        let inbox = eventually("both", secs(60), async || {
            let inbox = bench.inbox().await;
            (!inbox.is_empty()).then_some(inbox)
        })
        .await;
        assert_eq!(inbox, [2, 3]);
    });
}

#[test]
fn what_waits_for_its_turn_outlives_a_fall() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.arrives_behind(3, 2).await;
        bench.arrives_behind(2, 1).await;
        bench.actor.do_send(PanicNow(String::new()));
        assert_eq!(bench.parent.exit().await, ExitReason::Crashed);

        let mut again = start_on(bench.store.clone());
        // The signer of before: its numbers go on.
        std::mem::swap(&mut again.peer, &mut bench.peer);
        let packet = again.peer.sealed_behind(&again.own_keys.record, 1, "hello", None);
        again.arrives(packet);
        let inbox = eventually("all of them", PATIENCE, async || {
            let inbox = again.inbox().await;
            (inbox.len() == 3).then_some(inbox)
        })
        .await;
        assert_eq!(inbox, [1, 2, 3]);
    });
}

#[test]
fn a_source_waits_while_a_crowd_of_its_early_messages_enters() {
    with_virtual_time(|| async {
        let mut bench = start();
        let early = (0..CROWD).map(|n| {
            let mut uid = [0; 16];
            uid[..8].copy_from_slice(&(n as u64).to_be_bytes());
            bench.peer.seal(
                &bench.own_keys.record,
                &Sealed::Content(Content {
                    uid: MessageUid(uid),
                    name: String::new(),
                    sent_at_unix_ms: 0,
                    bytes: Bytes::new(),
                    follows: Some(MessageUid([9; 16]).prefix()),
                }),
            )
        });
        let envelopes = early.collect();
        bench.actor.do_send(DeliverLocal { link: None, via: "mem", ingress: None, envelopes });
        eventually("all of them", PATIENCE, async || {
            (bench.counts().await.inbox == CROWD as u64).then_some(())
        })
        .await;
        while bench.originated.try_recv().is_ok() {}
        // They are to enter, and the store takes its time over the first of them.
        bench.store.rows.hold_completions();
        tokio::time::sleep(ORDER_WAIT + secs(1)).await;
        let packet = bench.message(200);
        let id = packet.packet_id;
        bench.arrives(packet);
        bench.is_refused(id, RefuseReason::Congested).await;

        bench.store.rows.release();
        eventually("the first", secs(60), async || (!bench.inbox().await.is_empty()).then_some(())).await;
        let packet = bench.message(201);
        let id = packet.packet_id;
        bench.arrives(packet);
        assert_eq!(bench.next_receipt().await.packet_ids, [id]);
    });
}
