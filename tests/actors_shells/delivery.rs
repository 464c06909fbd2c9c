//! DeliveryActor: nothing is acknowledged before it is on disk, and what the store or the router
//! does not take now comes again.
//!
//! Files go through `spawn_blocking`, which works here: a paused runtime does not move its clock
//! while a blocking task runs.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use bytes::Bytes;
use quicprochat_mesh::{
    actors::{
        clock_handle::ClockHandle,
        delivery::{DeliveryActor, DeliveryParts, HistoryFile, OwnKeys},
        mailbox::{self, Seat},
    },
    clock,
    error::MeshError,
    messages::{
        delivery::*,
        lifecycle::{DrainPhase, ExitReason, PanicNow},
        store::CustodyAnswer,
    },
    proto::delivery::{
        compose::Sequences,
        outbox::{End, Finished, Hold, OutboxConfig},
    },
    proto::verify::{InboundEnvelope, Verified, Verifier, VerifyOutcome},
    storage::{
        BlobDir, LocalCounts, LocalOp, LocalOutcome, MemFault, Namespace, ask_local, space::system_space,
    },
    testing::{Probe, eventually, expect_silence, expect_within, with_virtual_time},
    wire::{
        Address, Envelope, EnvelopeKind, FrameExt, MessageUid, PacketId, Priority, Proof,
        control::RefuseReason,
        receipt::{CannotOpen, CannotOpenReason, Receipt},
    },
};
use tokio::sync::{mpsc::UnboundedReceiver, oneshot, watch};

use crate::support::*;

mod crashes;
mod files;
mod history;
mod limits;
mod order;
mod shares;

/// How long a message waits for the one that it follows.
const ORDER_WAIT: Duration = Duration::from_secs(30);

struct Bench {
    store: FragileStore,
    originated: UnboundedReceiver<Originate>,
    originate_seat: Seat<Originate>,
    find_key: UnboundedReceiver<FindKeyRecord>,
    refused: UnboundedReceiver<CustodyAnswer>,
    inbox: watch::Receiver<u64>,
    parent: Parent,
    actor: Addr<DeliveryActor>,
    history: HistoryFile,
    own: Signer,
    own_keys: Arc<OwnKeys>,
    peer: Signer,
    peer_keys: OwnKeys,
    _keys: watch::Sender<Arc<OwnKeys>>,
    _dir: tempfile::TempDir,
}

fn start() -> Bench {
    start_on(FragileStore::default())
}

fn start_on(store: FragileStore) -> Bench {
    start_with(store, OutboxConfig::default())
}

fn start_with(store: FragileStore, outbox: OutboxConfig) -> Bench {
    start_as(store, outbox, None)
}

fn start_keeping(store: FragileStore, history: HistoryFile) -> Bench {
    start_as(store, OutboxConfig::default(), Some(history))
}

fn start_as(store: FragileStore, outbox: OutboxConfig, history: Option<HistoryFile>) -> Bench {
    let (mut own, mut peer) = (Signer::new(1), Signer::new(2));
    let own_keys = Arc::new(own.keys());
    let peer_keys = peer.keys();
    let (keys_tx, keys) = watch::channel(own_keys.clone());
    let (originate_seat, originated) = seat();
    let (find_seat, find_key) = seat();
    let (refuse_seat, refused) = seat();
    let (grown, inbox) = watch::channel(0);
    let dir = tempfile::tempdir().unwrap();
    let here = || HistoryFile::new(dir.path().join("history.jsonl"), 1 << 20);
    let history = history.unwrap_or_else(here);
    let (guard, parent) = guard();
    let parts = DeliveryParts {
        identity: own.identity.clone(),
        network: NETWORK,
        boot_epoch: 1,
        sequences: Sequences::default(),
        keys,
        order_wait: ORDER_WAIT,
        outbox,
        store: Arc::new(store.clone()),
        blobs: Arc::new(BlobDir::open(&dir.path().join("blobs"), Arc::new(system_space)).unwrap()),
        originate: originate_seat.clone(),
        find_key: find_seat,
        refuse: refuse_seat,
        inbox_grown: grown,
        history: history.clone(),
        clock: ClockHandle::new(None),
        quarantine: Default::default(),
        welcome: Default::default(),
        events: quicprochat_mesh::Events::default(),
    };
    let actor = DeliveryActor::create(move |ctx| {
        ctx.set_mailbox_capacity(mailbox::DELIVERY);
        DeliveryActor::new(parts, guard)
    });
    Bench {
        store,
        originated,
        originate_seat,
        find_key,
        refused,
        inbox,
        parent,
        actor,
        history,
        own,
        own_keys,
        peer,
        peer_keys,
        _keys: keys_tx,
        _dir: dir,
    }
}

impl Bench {
    fn content(&self, bytes: impl Into<Bytes>) -> SendContent {
        SendContent {
            destination: self.peer.address(),
            name: String::new(),
            bytes: bytes.into(),
            ttl: secs(3600),
            priority: Priority::Normal,
            tell: None,
        }
    }

    async fn send(&self, text: &'static str) -> MessageUid {
        self.actor.send(self.content(text.as_bytes())).await.unwrap().unwrap().uid
    }

    fn key_is_known(&self) {
        self.actor.do_send(KeyRecordFound(Box::new(self.peer_keys.record.clone())));
    }

    /// Sends one and waits until it is under way.
    async fn under_way(&mut self) -> (MessageUid, PacketId) {
        let uid = self.send("hello").await;
        self.key_is_known();
        let (id, envelope) = self.next_sent().await;
        assert_eq!(envelope.header().kind, EnvelopeKind::MESSAGE);
        (uid, id)
    }

    async fn next_sent(&mut self) -> (PacketId, Envelope) {
        let Originate(mut sent, _) = expect_within(&mut self.originated, PATIENCE).await;
        assert_eq!(sent.len(), 1);
        sent.remove(0)
    }

    async fn next_receipt(&mut self) -> Receipt {
        let (_, envelope) = self.next_sent().await;
        assert_eq!(envelope.header().kind, EnvelopeKind::RECEIPT);
        Receipt::decode(&envelope.payload()).unwrap()
    }

    fn arrives(&self, packet: Verified<InboundEnvelope>) {
        self.actor.do_send(DeliverLocal { link: None, via: "mem", ingress: None, envelopes: vec![packet] });
    }

    /// A message of the peer's for this node.
    fn message(&mut self, uid: u8) -> Verified<InboundEnvelope> {
        self.peer.sealed(&self.own_keys.record, uid, "hello")
    }

    /// The manifest of a file of the peer's for this node.
    fn manifest(&mut self, uid: u8, length: u64) -> Verified<InboundEnvelope> {
        self.peer.manifest(&self.own_keys.record, uid, length)
    }

    async fn ended(&self, uid: MessageUid) -> oneshot::Receiver<Option<Finished>> {
        let (tell, told) = oneshot::channel();
        self.actor.send(AwaitEnd { uid, tell }).await.unwrap();
        told
    }

    /// This packet and no other was refused, and nothing else is said of it.
    async fn is_refused(&mut self, id: PacketId, reason: RefuseReason) {
        let refused = expect_within(&mut self.refused, PATIENCE).await;
        assert_eq!((refused.taken, refused.refused), (vec![], vec![(id, reason)]));
        expect_silence(&mut self.originated, secs(60)).await;
    }

    async fn counts(&self) -> LocalCounts {
        match ask_local(&self.store, vec![LocalOp::Counts]).unwrap().await.unwrap().remove(0) {
            LocalOutcome::Counts(counts) => counts,
            other => panic!("{other:?}"),
        }
    }

    async fn lines(&self) -> usize {
        self.actor.send(ListOutbox).await.unwrap().len()
    }
}

// ---- sending -----------------------------------------------------------------------------------

#[test]
fn a_send_is_answered_after_the_commit_and_nothing_leaves_before() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.key_is_known();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.hold_completions();
        let (answered, mut answer) = tokio::sync::mpsc::unbounded_channel();
        let (actor, content) = (bench.actor.clone(), bench.content(&b"hello"[..]));
        actix_rt::spawn(async move {
            let _ = answered.send(actor.send(content).await.unwrap().unwrap().uid);
        });
        expect_silence(&mut answer, secs(60)).await;
        expect_silence(&mut bench.originated, secs(1)).await;
        bench.store.rows.release();
        let uid = expect_within(&mut answer, PATIENCE).await;
        assert_eq!(bench.actor.send(ListOutbox).await.unwrap()[0].uid, uid);
        assert_eq!(bench.counts().await.outbox, 1);
    });
}

#[test]
fn a_send_the_disk_refuses_is_told_and_leaves_nothing() {
    with_virtual_time(|| async {
        let bench = start();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.fail_next(MemFault::NoSpace);
        let refused = bench.actor.send(bench.content(&b"hello"[..])).await.unwrap();
        assert!(matches!(refused, Err(MeshError::Store(_))), "{refused:?}");
        bench.store.rows.set_full(true);
        let refused = bench.actor.send(bench.content(&b"hello"[..])).await.unwrap();
        assert!(refused.is_err());
        bench.store.rows.set_full(false);
        assert_eq!((bench.lines().await, bench.counts().await.outbox), (0, 0));
        bench.send("again").await;
        assert_eq!((bench.lines().await, bench.counts().await.outbox), (1, 1));
    });
}

/// Levels of the path, 0 for a plain signature.
fn levels(envelope: &Envelope) -> usize {
    match envelope.proof() {
        Proof::Signature(_) => 0,
        Proof::Merkle { path, .. } => path.len(),
    }
}

/// Sends one that teaches it the key, which leaves by itself.
async fn first_delivered(bench: &mut Bench) {
    bench.send("hello").await;
    bench.key_is_known();
    let (id, envelope) = bench.next_sent().await;
    assert_eq!(levels(&envelope), 0);
    let receipt = bench.peer.receipt(bench.own.address(), &[id]);
    bench.arrives(receipt);
}

/// Sends five that the disk takes together; gives what leaves in one step.
async fn five_together(bench: &mut Bench) -> Vec<(PacketId, Envelope)> {
    tokio::time::sleep(secs(1)).await;
    bench.store.rows.hold_completions();
    let mut sending = Vec::new();
    for text in ["a", "b", "c", "d", "e"] {
        let (actor, content) = (bench.actor.clone(), bench.content(text.as_bytes()));
        sending.push(actix_rt::spawn(async move { actor.send(content).await.unwrap().unwrap().uid }));
    }
    expect_silence(&mut bench.originated, secs(1)).await;
    bench.store.rows.release();
    let Originate(sent, _) = expect_within(&mut bench.originated, PATIENCE).await;
    let lines = bench.actor.send(ListOutbox).await.unwrap();
    let mut uids = Vec::new();
    for sent in sending {
        uids.push(sent.await.unwrap());
    }
    assert_eq!(lines.iter().map(|line| line.uid).collect::<Vec<_>>(), uids, "in the order they were sent");
    sent
}

#[test]
fn what_one_commit_brings_leaves_together_under_one_signature_in_order() {
    with_virtual_time(|| async {
        let mut bench = start();
        first_delivered(&mut bench).await;
        let sent = five_together(&mut bench).await;
        assert_eq!(sent.iter().map(|(_, envelope)| levels(envelope)).collect::<Vec<_>>(), [3; 5]);
        let sequences: Vec<_> = sent.iter().map(|(_, envelope)| envelope.header().sequence).collect();
        assert!(sequences.is_sorted(), "{sequences:?}");
        // Each is believed by itself, whatever became of the others.
        let mut verifier = Verifier::new(bench.peer.address(), NETWORK);
        for (id, envelope) in sent.into_iter().rev() {
            match verifier.verify(envelope.with_source_key(bench.own.key()), FrameExt::default()) {
                VerifyOutcome::Verified(inbound) => assert_eq!(inbound.packet_id, id),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_destination_on_a_thin_link_gets_plain_signatures() {
    with_virtual_time(|| async {
        let mut bench = start();
        first_delivered(&mut bench).await;
        let up = |is_thin| DestinationUp { address: Signer::new(2).address(), is_thin };
        assert_eq!(up(true).address, bench.peer.address());
        bench.actor.do_send(up(true));
        let sent = five_together(&mut bench).await;
        assert_eq!(sent.iter().map(|(_, envelope)| levels(envelope)).collect::<Vec<_>>(), [0; 5]);
    });
}

#[test]
fn without_a_key_it_asks_and_sends_as_soon_as_there_is_one() {
    with_virtual_time(|| async {
        let mut bench = start();
        let uid = bench.send("hello").await;
        let FindKeyRecord(of) = expect_within(&mut bench.find_key, PATIENCE).await;
        assert_eq!(of, bench.peer.address());
        assert_eq!(bench.actor.send(GetHold(uid)).await.unwrap(), Some(Hold::NoKey));
        expect_within(&mut bench.find_key, PATIENCE).await;
        expect_silence(&mut bench.originated, secs(1)).await;
        // Who sends another one hears at once what it waits for.
        let second = bench.actor.send(bench.content(&b"two"[..])).await.unwrap().unwrap();
        assert_eq!(second.hold, Hold::NoKey);
        bench.key_is_known();
        let Originate(mut sent, _) = expect_within(&mut bench.originated, PATIENCE).await;
        assert_eq!(sent.len(), 2);
        let (packet_id, envelope) = sent.remove(0);
        assert_eq!(envelope.header().kind, EnvelopeKind::MESSAGE);
        assert_eq!(bench.actor.send(GetHold(uid)).await.unwrap(), Some(Hold::None));
        let third = bench.actor.send(bench.content(&b"three"[..])).await.unwrap().unwrap();
        assert_eq!(third.hold, Hold::None);
        let (reason, retry_after) = (RefuseReason::NoRoute, Duration::ZERO);
        bench.actor.do_send(PacketFate::Refused { packet_id, reason, retry_after });
        let fourth = bench.actor.send(bench.content(&b"four"[..])).await.unwrap().unwrap();
        assert_eq!(fourth.hold, Hold::NoPath);
    });
}

#[test]
fn the_destinations_receipt_ends_it_and_nobody_elses() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, id) = bench.under_way().await;
        let mut told = bench.ended(uid).await;
        let forged = Signer::new(9).receipt(bench.own.address(), &[id]);
        bench.arrives(forged);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(told.try_recv().is_err());
        let receipt = bench.peer.receipt(bench.own.address(), &[id]);
        bench.arrives(receipt);
        assert!(matches!(told.await.unwrap().unwrap().end, End::Delivered { .. }));
        assert_eq!((bench.lines().await, bench.counts().await.outbox), (0, 0));
    });
}

#[test]
fn without_a_receipt_it_sends_again_in_a_new_envelope() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, first) = bench.under_way().await;
        let (second, _) = bench.next_sent().await;
        assert_ne!(first, second, "relays remember the first");
        let told = bench.ended(uid).await;
        // A late receipt for the early one counts as well.
        let receipt = bench.peer.receipt(bench.own.address(), &[first]);
        bench.arrives(receipt);
        assert!(matches!(told.await.unwrap().unwrap().end, End::Delivered { .. }));
    });
}

#[test]
fn a_router_that_is_full_or_gone_costs_a_retry_and_no_message() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.originate_seat.publish(Probe::<Originate>::deaf(1));
        for _ in 0..10 {
            bench.send("hello").await;
        }
        bench.key_is_known();
        tokio::time::sleep(secs(30)).await;
        assert_eq!(bench.lines().await, 10);
        // The next incarnation.
        let (recipient, sent) = Probe::<Originate>::start();
        bench.originate_seat.publish(recipient);
        bench.originated = sent;
        let mut uids = std::collections::BTreeSet::new();
        eventually("all ten to leave", secs(600), async || {
            while let Ok(Originate(batch, _)) = bench.originated.try_recv() {
                uids.extend(batch.iter().map(|(id, _)| *id));
            }
            (uids.len() >= 10).then_some(())
        })
        .await;
    });
}

#[test]
fn custody_makes_it_patient() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, id) = bench.under_way().await;
        bench.actor.do_send(PacketFate::InCustody { domain: Address([8; 16]), packet_ids: vec![id] });
        expect_silence(&mut bench.originated, secs(9 * 60)).await;
        assert_eq!(bench.actor.send(GetHold(uid)).await.unwrap(), Some(Hold::InCustody));
        assert_eq!(bench.counts().await.outbox, 1, "custody never clears an outbox");
    });
}

#[test]
fn its_time_runs_out() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, _) = bench.under_way().await;
        let told = bench.ended(uid).await;
        let before = clock::now();
        assert_eq!(told.await.unwrap().unwrap().end, End::Expired);
        assert!(clock::now() - before >= secs(3590));
        assert_eq!((bench.lines().await, bench.counts().await.outbox), (0, 0));
    });
}

#[test]
fn who_asks_late_is_told_how_it_ended() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (delivered, id) = bench.under_way().await;
        let receipt = bench.peer.receipt(bench.own.address(), &[id]);
        bench.arrives(receipt);
        let content = SendContent { ttl: secs(10), ..bench.content(&b"nobody answers"[..]) };
        let expired = bench.actor.send(content).await.unwrap().unwrap().uid;
        tokio::time::sleep(secs(60)).await;
        assert_eq!(bench.lines().await, 0);
        let end = bench.ended(delivered).await.await.unwrap().unwrap().end;
        assert!(matches!(end, End::Delivered { .. }), "{end:?}");
        assert_eq!(bench.ended(expired).await.await.unwrap().unwrap().end, End::Expired);
        assert_eq!(bench.ended(MessageUid([9; 16])).await.await.unwrap(), None, "never heard of");
    });
}

#[test]
fn who_sends_may_wait_for_the_end_before_it_can_come() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (tell, told) = oneshot::channel();
        let content = SendContent { tell: Some(tell), ..bench.content(&b"hello"[..]) };
        let uid = bench.actor.send(content).await.unwrap().unwrap().uid;
        bench.key_is_known();
        let (id, _) = bench.next_sent().await;
        let receipt = bench.peer.receipt(bench.own.address(), &[id]);
        bench.arrives(receipt);
        let finished = told.await.unwrap().unwrap();
        assert_eq!(finished.uid, uid);
        assert!(matches!(finished.end, End::Delivered { .. }), "{finished:?}");
    });
}

#[test]
fn a_crash_or_a_drain_says_nothing_about_a_message_and_the_next_start_goes_on() {
    with_virtual_time(|| async {
        let mut bench = start();
        let uid = bench.send("hello").await;
        let told = bench.ended(uid).await;
        drained(&bench.actor, &mut bench.parent).await;
        assert!(told.await.is_err(), "nothing was said");

        // Asked before it has read its outbox.
        bench.store.rows.hold_completions();
        let mut again = start_on(bench.store.clone());
        let (tell, mut told) = oneshot::channel();
        again.actor.do_send(AwaitEnd { uid, tell });
        tokio::time::sleep(secs(1)).await;
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        bench.store.rows.release();
        tokio::time::sleep(secs(1)).await;
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Empty));

        again.store.arm(true);
        assert!(again.actor.send(again.content(&b"crashes it"[..])).await.is_err());
        assert_eq!(again.parent.exit().await, ExitReason::Crashed);
        assert!(told.await.is_err(), "nothing was said");
        again.store.arm(false);

        let mut last = start_on(bench.store.clone());
        let told = last.ended(uid).await;
        last.key_is_known();
        let (id, _) = last.next_sent().await;
        let receipt = last.peer.receipt(last.own.address(), &[id]);
        last.arrives(receipt);
        assert!(matches!(told.await.unwrap().unwrap().end, End::Delivered { .. }));
    });
}

#[test]
fn a_message_can_be_taken_back() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, _) = bench.under_way().await;
        let told = bench.ended(uid).await;
        assert!(bench.actor.send(CancelMessage(uid)).await.unwrap().unwrap());
        assert_eq!(told.await.unwrap().unwrap().end, End::Cancelled);
        assert!(!bench.actor.send(CancelMessage(uid)).await.unwrap().unwrap(), "it is gone");
        assert_eq!(bench.counts().await.outbox, 0);
        expect_silence(&mut bench.originated, secs(3600)).await;
    });
}

#[test]
fn a_message_is_taken_back_when_its_row_is_gone_and_not_before() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, _) = bench.under_way().await;
        let mut told = bench.ended(uid).await;
        // The store takes nothing for a while; a second one asks meanwhile.
        bench.store.rows.set_full(true);
        let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..2 {
            let (actor, answered) = (bench.actor.clone(), answered.clone());
            actix_rt::spawn(async move {
                let _ = answered.send(actor.send(CancelMessage(uid)).await.unwrap().unwrap());
            });
        }
        expect_silence(&mut answers, secs(300)).await;
        assert!(told.try_recv().is_err(), "a crash would bring it back");
        // Nothing of it leaves meanwhile.
        expect_silence(&mut bench.originated, secs(1)).await;
        bench.store.rows.hold_completions();
        bench.store.rows.set_full(false);
        expect_silence(&mut answers, secs(300)).await;
        bench.store.rows.release();
        for _ in 0..2 {
            assert!(expect_within(&mut answers, PATIENCE).await);
        }
        assert_eq!(told.await.unwrap().unwrap().end, End::Cancelled);
        assert_eq!(bench.counts().await.outbox, 0);
    });
}

#[test]
fn a_crash_loses_no_message_that_was_answered_for() {
    with_virtual_time(|| async {
        let mut bench = start();
        let uid = bench.send("hello").await;
        bench.store.arm(true);
        // The one that crashes it is not answered for.
        assert!(bench.actor.send(bench.content(&b"second"[..])).await.is_err());
        assert_eq!(bench.parent.exit().await, ExitReason::Crashed);
        bench.store.arm(false);
        let mut again = start_on(bench.store.clone());
        again.key_is_known();
        let lines = eventually("the outbox to be read", PATIENCE, async || {
            let lines = again.actor.send(ListOutbox).await.unwrap();
            (!lines.is_empty()).then_some(lines)
        })
        .await;
        assert_eq!(lines.iter().map(|line| line.uid).collect::<Vec<_>>(), [uid]);
        again.key_is_known();
        let (_, envelope) = again.next_sent().await;
        assert_eq!(envelope.header().kind, EnvelopeKind::MESSAGE);
    });
}

#[test]
fn after_a_restart_what_was_sent_first_goes_first() {
    with_virtual_time(|| async {
        let mut bench = start();
        let mut sent = Vec::new();
        for _ in 0..8 {
            sent.push(bench.send("hello").await);
            // The wall clock goes along with this one.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        drained(&bench.actor, &mut bench.parent).await;
        let again = start_on(bench.store.clone());
        let lines = eventually("the outbox to be read", PATIENCE, async || {
            let lines = again.actor.send(ListOutbox).await.unwrap();
            (!lines.is_empty()).then_some(lines)
        })
        .await;
        assert_eq!(lines.iter().map(|line| line.uid).collect::<Vec<_>>(), sent);
    });
}

#[test]
fn a_file_leaves_as_a_manifest_and_then_its_chunks() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.key_is_known();
        let size = 40_000;
        bench.actor.send(bench.content(vec![7; size])).await.unwrap().unwrap();
        bench.key_is_known();
        let (id, envelope) = bench.next_sent().await;
        assert_eq!(envelope.header().kind, EnvelopeKind::MESSAGE, "its manifest");
        expect_silence(&mut bench.originated, std::time::Duration::from_millis(500)).await;
        let receipt = bench.peer.receipt(bench.own.address(), &[id]);
        bench.arrives(receipt);
        let Originate(chunks, _) = expect_within(&mut bench.originated, PATIENCE).await;
        assert!(chunks.iter().all(|(_, envelope)| envelope.header().kind == EnvelopeKind::CHUNK));
        let bytes: usize = chunks.iter().map(|(_, envelope)| envelope.payload().len()).sum();
        assert!(bytes > size, "{bytes}");
    });
}

// ---- receiving ---------------------------------------------------------------------------------

#[test]
fn a_receipt_leaves_after_the_inbox_commit_and_not_before() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.hold_completions();
        let packet = bench.message(1);
        let id = packet.packet_id;
        bench.arrives(packet);
        expect_silence(&mut bench.originated, secs(60)).await;
        assert_eq!(*bench.inbox.borrow(), 0, "readers are not woken either");
        bench.store.rows.release();
        assert_eq!(bench.next_receipt().await.packet_ids, [id]);
        assert_eq!(*bench.inbox.borrow(), 1);
    });
}

#[test]
fn a_duplicate_is_receipted_again_and_enters_once() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (first, retry) = (bench.message(1), bench.message(1));
        let ids = [first.packet_id, first.packet_id, retry.packet_id];
        for (packet, id) in [first.clone(), first, retry].into_iter().zip(ids) {
            bench.arrives(packet);
            assert_eq!(bench.next_receipt().await.packet_ids, [id]);
        }
        assert_eq!((bench.counts().await.inbox, *bench.inbox.borrow()), (1, 1));
    });
}

#[test]
fn a_busy_source_gets_one_receipt_for_many_and_late_by_little() {
    with_virtual_time(|| async {
        let mut bench = start();
        let first = bench.message(0);
        bench.arrives(first);
        bench.next_receipt().await;
        let began = clock::now();
        let mut ids = std::collections::BTreeSet::new();
        for uid in 1..=10 {
            let packet = bench.message(uid);
            ids.insert(packet.packet_id);
            bench.arrives(packet);
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(bench.next_receipt().await.packet_ids, ids.into_iter().collect::<Vec<_>>());
        assert!(clock::now() - began <= std::time::Duration::from_millis(20));
        expect_silence(&mut bench.originated, secs(60)).await;
    });
}

#[test]
fn receipts_of_one_step_share_a_signature() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        let record = bench.own_keys.record.clone();
        let envelopes: Vec<_> =
            (11..15).map(|seed| Signer::new(seed).sealed(&record, seed, "hello")).collect();
        bench.actor.do_send(DeliverLocal { link: None, via: "mem", ingress: None, envelopes });
        let Originate(sent, _) = expect_within(&mut bench.originated, PATIENCE).await;
        assert_eq!(sent.iter().map(|(_, envelope)| levels(envelope)).collect::<Vec<_>>(), [2; 4]);
        assert!(sent.iter().all(|(_, envelope)| envelope.header().kind == EnvelopeKind::RECEIPT));
        let to: std::collections::BTreeSet<_> =
            sent.iter().map(|(_, envelope)| format!("{:?}", envelope.header().destination)).collect();
        assert_eq!(to.len(), 4, "one for each source");
    });
}

#[test]
fn a_drain_does_not_wait_with_receipts() {
    with_virtual_time(|| async {
        let mut bench = start();
        let packet = bench.message(1);
        bench.arrives(packet);
        bench.next_receipt().await;
        let packet = bench.message(2);
        bench.arrives(packet);
        bench.inbox.wait_for(|count| *count == 2).await.unwrap();
        let before = clock::now();
        bench.actor.do_send(drain(DrainPhase::Draining));
        bench.next_receipt().await;
        assert!(clock::now() - before < std::time::Duration::from_millis(5));
    });
}

#[test]
fn what_the_store_does_not_take_is_refused_by_name_not_receipted_and_may_come_again() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        let packet = bench.message(1);
        let id = packet.packet_id;
        bench.store.rows.set_full(true);
        bench.arrives(packet.clone());
        bench.is_refused(id, RefuseReason::Congested).await;
        bench.store.rows.set_full(false);
        bench.store.rows.fail_next(MemFault::NoSpace);
        bench.arrives(packet.clone());
        bench.is_refused(id, RefuseReason::StoreFull).await;
        bench.store.rows.set_below_reserve(true);
        bench.arrives(packet.clone());
        bench.is_refused(id, RefuseReason::StoreFull).await;
        bench.store.rows.set_below_reserve(false);
        assert_eq!(bench.counts().await.inbox, 0);
        bench.arrives(packet);
        assert_eq!(bench.next_receipt().await.packet_ids, [id]);
        assert_eq!(bench.counts().await.inbox, 1);
    });
}

#[test]
fn a_message_for_a_key_it_never_had_is_answered_with_the_right_one() {
    with_virtual_time(|| async {
        let mut bench = start();
        // Sealed to keys of the same node that were made elsewhere.
        let other = Signer::new(1).keys();
        let packet = bench.peer.sealed(&other.record, 1, "hello");
        let id = packet.packet_id;
        bench.arrives(packet);
        let (_, envelope) = bench.next_sent().await;
        if envelope.header().kind == EnvelopeKind::CANNOT_OPEN {
            let answer = CannotOpen::decode(&envelope.payload()).unwrap();
            assert_eq!(answer.packet_id, id);
            assert_eq!(answer.key_record.signature, bench.own_keys.record.signed().signature);
        } else {
            panic!("{:?}", envelope.header());
        }
        assert_eq!(bench.counts().await.inbox, 0);
    });
}

#[test]
fn a_stranger_that_could_not_open_what_was_never_sent_leaves_no_key_behind() {
    with_virtual_time(|| async {
        let mut bench = start();
        let answer = CannotOpen {
            packet_id: PacketId([9; 16]),
            reason: CannotOpenReason::UnknownKey,
            key_record: bench.peer_keys.record.signed().clone(),
        };
        let own = bench.own.address();
        let packet = bench.peer.packet(EnvelopeKind::CANNOT_OPEN, own, &answer.encode());
        bench.arrives(packet);
        tokio::time::sleep(secs(1)).await;
        let get = LocalOp::KvGet { namespace: Namespace::KeyRecord, key: bench.peer.address().0.to_vec() };
        let got = ask_local(&bench.store, vec![get]).unwrap().await.unwrap();
        assert_eq!(got, [LocalOutcome::Value(None)]);
    });
}

#[test]
fn a_destination_that_could_not_open_it_gets_it_sealed_again() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (uid, id) = bench.under_way().await;
        let newer = bench.peer.keys();
        let answer = CannotOpen {
            packet_id: id,
            reason: quicprochat_mesh::wire::receipt::CannotOpenReason::UnknownKey,
            key_record: newer.record.signed().clone(),
        };
        let answer = bench.peer.packet(EnvelopeKind::CANNOT_OPEN, bench.own.address(), &answer.encode());
        bench.arrives(answer);
        let (second, _) = bench.next_sent().await;
        assert_ne!(second, id);
        assert_eq!(bench.actor.send(GetHold(uid)).await.unwrap(), Some(Hold::None));
    });
}

#[test]
fn a_broadcast_enters_the_inbox_and_is_not_receipted() {
    with_virtual_time(|| async {
        let mut bench = start();
        let content = quicprochat_mesh::wire::content::Content {
            uid: MessageUid([5; 16]),
            name: String::new(),
            sent_at_unix_ms: 0,
            bytes: Bytes::from_static(b"to all"),
            follows: None,
        };
        let packet = bench.peer.packet(EnvelopeKind::BROADCAST, Address::BROADCAST, &content.encode());
        bench.arrives(packet);
        bench.inbox.changed().await.unwrap();
        assert_eq!(bench.counts().await.inbox, 1);
        expect_silence(&mut bench.originated, secs(60)).await;
    });
}

// ---- drain -------------------------------------------------------------------------------------

#[test]
fn a_drain_takes_nothing_new_and_counts_what_it_keeps() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.send("kept").await;
        bench.actor.do_send(drain(DrainPhase::Draining));
        bench.parent.report(DrainPhase::Draining).await;
        let refused = bench.actor.send(bench.content(&b"late"[..])).await.unwrap();
        assert!(matches!(refused, Err(MeshError::Draining)), "{refused:?}");
        // What arrives is still taken: its sender would only have to send it again.
        let packet = bench.message(1);
        bench.arrives(packet);
        bench.next_receipt().await;
        let counts = drained(&bench.actor, &mut bench.parent).await;
        assert_eq!(counts.undelivered_kept, 1);
        assert_eq!(bench.counts().await.outbox, 1);
    });
}

#[test]
fn a_message_caught_between_its_commit_and_the_end_is_receipted_by_the_next_start() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.hold_completions();
        let packet = bench.message(1);
        let id = packet.packet_id;
        bench.arrives(packet.clone());
        tokio::time::sleep(secs(1)).await;
        bench.actor.do_send(PanicNow(String::new()));
        assert_eq!(bench.parent.exit().await, ExitReason::Crashed);
        bench.store.rows.release();
        expect_silence(&mut bench.originated, secs(1)).await;

        let mut again = start_on(bench.store.clone());
        // The same node, with the same keys, sees it once more.
        let keys = bench.own_keys.clone();
        again._keys.send_replace(keys);
        again.arrives(packet);
        assert_eq!(again.next_receipt().await.packet_ids, [id]);
        assert_eq!(again.counts().await.inbox, 1);
    });
}
