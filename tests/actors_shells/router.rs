//! RouterActor: what comes over one link goes out over another, what does not fit comes back, and
//! nobody is believed about packets that were not given to them.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use quicprochat_mesh::{
    actors::{
        clock_handle::ClockHandle,
        mailbox::{self, Seat},
        router::{AnnounceOrder, RouterActor, RouterParts},
    },
    clock,
    crypto::MeshIdentity,
    messages::{
        delivery::{DeliverLocal, DestinationUp, FindKeyRecord, KeyRecordFound, Originate, PacketFate},
        lifecycle::{DrainPhase, ExitReason},
        link::{
            AnnounceVerified, EgressFull, EnvelopesVerified, ForwardBatch, LinkControl, LinkDown, LinkUp,
            NeighbourControl, Permit,
        },
        route::{DropPath, GetRouterState, ListKnown, SearchPath},
        store::{CustodyAnswer, CustodyNews, FromCustody, HoldEnvelopes},
    },
    proto::{
        router::{CustodyWish, PathSearch, RouterConfig, SavedRow, row_seal},
        table::{LinkClass, Saved},
        verify::{InboundEnvelope, Verified},
    },
    storage::{
        Completion, HandedBack, LocalOp, LocalOutcome, LocalStore, Namespace, NotTaken, PageLimit, ask_local,
    },
    testing::{Probe, expect_silence, expect_within, with_virtual_time},
    wire::{
        Address, Capabilities, EnvelopeKind, Frame, LinkId, NetworkId, PacketId,
        control::{CustodyAck, RefuseReason},
        handshake::Hello,
    },
};
use tokio::sync::{Semaphore, mpsc::UnboundedReceiver, watch};

use crate::support::*;

/// The whole of a short list.
const EVERYONE: ListKnown =
    ListKnown { from: quicprochat_mesh::wire::Address([0; 16]), rows_max: usize::MAX };

const A: LinkId = LinkId(1);
const B: LinkId = LinkId(2);
const C: LinkId = LinkId(3);

struct Bench {
    store: FragileStore,
    deliver: UnboundedReceiver<DeliverLocal>,
    _destination_up: UnboundedReceiver<DestinationUp>,
    fate: UnboundedReceiver<PacketFate>,
    key_found: UnboundedReceiver<KeyRecordFound>,
    hold: UnboundedReceiver<HoldEnvelopes>,
    news: UnboundedReceiver<CustodyNews>,
    parent: Parent,
    actor: Addr<RouterActor>,
    own: Signer,
    a: Signer,
    b: Signer,
    _keys: watch::Sender<Arc<quicprochat_mesh::actors::delivery::OwnKeys>>,
}

/// A router that stores for others, or does not.
fn start(stores: bool) -> Bench {
    start_with(stores, |_| {})
}

fn start_with(stores: bool, change: impl FnOnce(&mut RouterParts)) -> Bench {
    let mut own = Signer::new(1);
    let store = FragileStore::default();
    let (keys_tx, keys) = watch::channel(Arc::new(own.keys()));
    let (deliver_seat, deliver) = seat();
    let (up_seat, destination_up) = seat();
    let (fate_seat, fate) = seat();
    let (key_seat, key_found) = seat();
    let (hold_seat, hold) = seat();
    let (news_seat, news) = seat();
    let (guard, parent) = guard();
    let mut parts = RouterParts {
        identity: own.identity.clone(),
        network: NETWORK,
        config: RouterConfig { store: stores, ..RouterConfig::new(own.key()) },
        capabilities: Capabilities(Capabilities::RELAY),
        announce_lifetime: secs(1800),
        order: Arc::new(AnnounceOrder::new(1)),
        keys,
        store: Arc::new(store.clone()),
        deliver: deliver_seat,
        destination_up: up_seat,
        fate: fate_seat,
        key_found: key_seat,
        hold: hold_seat,
        custody_news: news_seat,
        health: Seat::vacant(),
        clock: ClockHandle::new(None),
        quarantine: Default::default(),
        events: quicprochat_mesh::Events::default(),
    };
    change(&mut parts);
    let actor = RouterActor::create(move |ctx| {
        ctx.set_mailbox_capacity(mailbox::ROUTER);
        RouterActor::new(parts, guard)
    });
    Bench {
        store,
        deliver,
        _destination_up: destination_up,
        fate,
        key_found,
        hold,
        news,
        parent,
        actor,
        own,
        a: Signer::new(10),
        b: Signer::new(11),
        _keys: keys_tx,
    }
}

/// What a link was given, told apart.
struct Wire(UnboundedReceiver<ForwardBatch>);

impl Wire {
    async fn control(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let look = async {
            loop {
                let batch = self.0.recv().await.expect("the link's outlet lives");
                if let Some(frame) = batch.control.into_iter().find(&mut wanted) {
                    return frame;
                }
            }
        };
        tokio::time::timeout(secs(3600), look).await.unwrap_or_else(|_| panic!("waited for {what}"))
    }

    /// What is refused until nothing more comes, each for this reason.
    async fn refusals(&mut self, reason: RefuseReason) -> Vec<PacketId> {
        let mut refused = Vec::new();
        while let Ok(Some(batch)) = tokio::time::timeout(secs(1), self.0.recv()).await {
            for frame in batch.control {
                if let Frame::Refuse(refuse) = frame {
                    assert_eq!(refuse.reason, reason);
                    refused.push(refuse.packet_id);
                }
            }
        }
        refused
    }

    async fn envelopes(&mut self) -> Vec<Verified<InboundEnvelope>> {
        loop {
            let batch = expect_within(&mut self.0, PATIENCE).await;
            if !batch.envelopes.is_empty() {
                return batch.envelopes;
            }
        }
    }
}

impl Bench {
    fn link_to(&self, link: LinkId, peer: &Signer, outlet: Recipient<ForwardBatch>) {
        self.link_in_name_of(None, link, peer, outlet);
    }

    fn link_in_name_of(
        &self,
        account: Option<Address>,
        link: LinkId,
        peer: &Signer,
        outlet: Recipient<ForwardBatch>,
    ) {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            network_tag: [0; 8],
            network_proof: None,
            features: 0,
            boot_epoch: 1,
            nonce: [0; 8],
            clock_unix_s: clock::unix_s(),
            initial_credit: [0; 3],
        };
        self.actor.do_send(LinkUp {
            link,
            peer: peer.address(),
            peer_key: peer.key(),
            hello,
            transport: "mem",
            class: LinkClass::Unconstrained,
            account,
            outlet,
        });
    }

    fn link(&self, link: LinkId, peer: &Signer) -> Wire {
        let (outlet, batches) = Probe::<ForwardBatch>::start();
        self.link_to(link, peer, outlet);
        Wire(batches)
    }

    fn bring(&self, link: LinkId, batch: Vec<Verified<InboundEnvelope>>) {
        self.actor.do_send(EnvelopesVerified { link, batch, permit: None });
    }

    fn control(&self, link: LinkId, frame: Frame) {
        self.actor.do_send(LinkControl { link, control: NeighbourControl::Frame(Box::new(frame)) });
    }

    /// A message from `a` for `b`.
    fn message(&mut self) -> Verified<InboundEnvelope> {
        self.a.packet(EnvelopeKind::MESSAGE, self.b.address(), b"sealed")
    }
}

#[test]
fn it_announces_this_node_to_a_new_neighbour_by_itself() {
    with_virtual_time(|| async {
        let bench = start(false);
        let mut wire = bench.link(A, &bench.a);
        let frame = wire.control("an announce", |frame| matches!(frame, Frame::Announce(_))).await;
        let Frame::Announce(announce) = frame else { unreachable!() };
        assert_eq!(announce.content.public_key, bench.own.key());
        assert!(announce.key_record.is_some(), "with what is needed to write to it");
    });
}

#[test]
fn an_envelope_goes_on_to_its_destination_and_frees_its_room() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let (_a, mut wire) = (bench.link(A, &bench.a), bench.link(B, &bench.b));
        let packet = bench.message();
        let id = packet.packet_id;
        let room = Arc::new(Semaphore::new(1));
        let permit = Some(Permit::new(room.clone().try_acquire_owned().unwrap()));
        bench.actor.do_send(EnvelopesVerified { link: A, batch: vec![packet], permit });
        let sent = wire.envelopes().await;
        assert_eq!((sent[0].packet_id, sent[0].envelope.hop_count()), (id, 1));
        assert_eq!(room.available_permits(), 1, "the link may read on");
    });
}

#[test]
fn what_a_full_link_does_not_take_goes_back_to_its_sender() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let mut wire = bench.link(A, &bench.a);
        bench.link_to(B, &bench.b, Probe::<ForwardBatch>::deaf(1));
        let sent: Vec<PacketId> = (0..10)
            .map(|_| {
                let packet = bench.message();
                let id = packet.packet_id;
                bench.bring(A, vec![packet]);
                id
            })
            .collect();
        let refused = wire.refusals(RefuseReason::Congested).await;
        assert_all_but_a_few(&sent, &refused);
        let state = bench.actor.send(GetRouterState).await.unwrap();
        assert_eq!(state.counters.unsent, refused.len() as u64);
    });
}

/// A deaf mailbox takes as many as its capacity and its senders' own slots; all others come back,
/// in order.
fn assert_all_but_a_few(sent: &[PacketId], refused: &[PacketId]) {
    assert!(refused.len() >= sent.len() - 3, "{} of {}", refused.len(), sent.len());
    assert_eq!(&sent[sent.len() - refused.len()..], refused);
}

#[test]
fn a_node_that_stores_keeps_what_a_full_link_hands_back() {
    with_virtual_time(|| async {
        let mut bench = start(true);
        let mut wire = bench.link(A, &bench.a);
        let mut b_wire = bench.link(B, &bench.b);
        let packet = bench.message();
        let id = packet.packet_id;
        bench.bring(A, vec![packet]);
        let envelopes = b_wire.envelopes().await;
        bench.actor.do_send(EgressFull { link: B, envelopes });
        let held = expect_within(&mut bench.hold, PATIENCE).await;
        assert_eq!((held.ingress, held.envelopes[0].packet_id), (bench.a.address(), id));
        // Acknowledged to the sender once it is durable, and not before.
        tokio::time::sleep(secs(5)).await;
        while let Ok(batch) = wire.0.try_recv() {
            assert!(!batch.control.iter().any(|frame| matches!(frame, Frame::CustodyAck(_))));
        }
        bench.actor.do_send(CustodyAnswer { taken: vec![id], refused: Vec::new() });
        let frame = wire.control("an acknowledgement", |f| matches!(f, Frame::CustodyAck(_))).await;
        let own = bench.own.address();
        assert_eq!(frame_ack(frame), CustodyAck { domain: own, packet_ids: vec![id] });
    });
}

#[test]
fn what_comes_under_many_names_counts_to_the_address_that_they_share() {
    with_virtual_time(|| async {
        let mut bench = start(true);
        let account = Address([99; 16]);
        for (link, seed) in [(A, 71), (B, 72)] {
            let mut peer = Signer::new(seed);
            let (outlet, _batches) = Probe::<ForwardBatch>::start();
            bench.link_in_name_of(Some(account), link, &peer, outlet);
            bench.bring(link, vec![peer.packet(EnvelopeKind::MESSAGE, Address([7; 16]), b"sealed")]);
            assert_eq!(expect_within(&mut bench.hold, PATIENCE).await.ingress, account);
            let own = bench.own.address();
            bench.bring(link, vec![peer.packet(EnvelopeKind::MESSAGE, own, b"sealed")]);
            assert_eq!(expect_within(&mut bench.deliver, PATIENCE).await.ingress, Some(account));
        }
    });
}

fn frame_ack(frame: Frame) -> CustodyAck {
    match frame {
        Frame::CustodyAck(ack) => ack,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_is_full_refuses_at_once() {
    with_virtual_time(|| async {
        let mut bench = start_with(true, |parts| parts.hold = Seat::held_by(Probe::deaf(1)));
        let mut wire = bench.link(A, &bench.a);
        let sent: Vec<PacketId> = (0..10)
            .map(|_| {
                let packet = bench.message();
                let id = packet.packet_id;
                bench.bring(A, vec![packet]);
                id
            })
            .collect();
        assert_all_but_a_few(&sent, &wire.refusals(RefuseReason::StoreFull).await);
    });
}

#[test]
fn this_nodes_own_packet_without_a_path_is_told_to_delivery() {
    with_virtual_time(|| async {
        let mut bench = start(true);
        let made = bench.own.compose(EnvelopeKind::MESSAGE, bench.b.address(), b"sealed");
        let id = made.packet_id;
        bench.actor.do_send(Originate(vec![(id, made.envelope)], CustodyWish::Welcome));
        match expect_within(&mut bench.fate, PATIENCE).await {
            PacketFate::Refused { packet_id, reason, .. } => {
                assert_eq!((packet_id, reason), (id, RefuseReason::NoRoute));
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_passing_receipt_is_told_to_custody_in_the_name_of_its_signer() {
    with_virtual_time(|| async {
        let mut bench = start(true);
        let (_wire_a, mut wire_b) = (bench.link(A, &bench.a), bench.link(B, &bench.b));
        let named = [PacketId([9; 16])];
        let receipt = bench.a.receipt(bench.b.address(), &named);
        bench.bring(A, vec![receipt]);
        assert_eq!(wire_b.envelopes().await.len(), 1);
        loop {
            match expect_within(&mut bench.news, PATIENCE).await {
                CustodyNews::Settled { by, packets } => {
                    assert_eq!((by, packets), (bench.a.address(), named.to_vec()));
                    break;
                }
                CustodyNews::Reachable(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn only_the_neighbour_that_was_given_a_packet_can_take_over_its_custody() {
    with_virtual_time(|| async {
        let mut bench = start(true);
        let c = Signer::new(12);
        let _wires = (bench.link(A, &bench.a), bench.link(C, &c));
        let packet = bench.message();
        let id = packet.packet_id;
        bench.bring(A, vec![packet]);
        let held = expect_within(&mut bench.hold, PATIENCE).await;
        bench.actor.do_send(CustodyAnswer { taken: vec![id], refused: Vec::new() });

        let mut wire_b = bench.link(B, &bench.b);
        let ack = |by: &Signer| Frame::CustodyAck(CustodyAck { domain: by.address(), packet_ids: vec![id] });
        // Nobody has been given it yet.
        bench.control(B, ack(&bench.b));
        bench.control(A, ack(&bench.a));
        bench.actor.do_send(FromCustody(held.envelopes));
        assert_eq!(wire_b.envelopes().await[0].packet_id, id);
        // Somebody else than the one who was.
        bench.control(C, ack(&c));
        tokio::time::sleep(secs(1)).await;
        while let Ok(news) = bench.news.try_recv() {
            assert!(!matches!(news, CustodyNews::HandedOver(_)), "{news:?}");
        }
        bench.control(B, ack(&bench.b));
        loop {
            if let CustodyNews::HandedOver(packets) = expect_within(&mut bench.news, PATIENCE).await {
                assert_eq!(packets, [id]);
                break;
            }
        }
    });
}

#[test]
fn a_refusal_is_believed_only_of_who_was_given_the_packet() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let c = Signer::new(12);
        let (mut wire_a, mut wire_b, _c) =
            (bench.link(A, &bench.a), bench.link(B, &bench.b), bench.link(C, &c));
        let packet = bench.message();
        let id = packet.packet_id;
        bench.bring(A, vec![packet]);
        wire_b.envelopes().await;
        let refuse = |reason| {
            Frame::Refuse(quicprochat_mesh::wire::control::Refuse {
                packet_id: id,
                reason,
                retry_after_s: u16::MAX,
            })
        };
        bench.control(C, refuse(RefuseReason::NoRoute));
        bench.control(B, refuse(RefuseReason::StoreFull));
        let frame = wire_a.control("a refusal", |frame| matches!(frame, Frame::Refuse(_))).await;
        let Frame::Refuse(back) = frame else { unreachable!() };
        assert_eq!(back.reason, RefuseReason::StoreFull, "the word of the one who has it");
        assert_eq!(back.retry_after_s, 3600, "and no further off than an hour");
    });
}

#[test]
fn a_key_record_that_somebody_waits_for_is_passed_on() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let mut wire = bench.link(A, &bench.a);
        let wanted = Signer::new(20).keys().record;
        let address = wanted.address();
        let key_record =
            || LinkControl { link: A, control: NeighbourControl::KeyRecord(Box::new(wanted.clone())) };
        // Nobody asked yet.
        bench.actor.do_send(key_record());
        expect_silence(&mut bench.key_found, secs(5)).await;
        bench.actor.do_send(FindKeyRecord(address));
        wire.control("a key request", |f| matches!(f, Frame::KeyRequest(of) if *of == address)).await;
        bench.actor.do_send(key_record());
        let KeyRecordFound(found) = expect_within(&mut bench.key_found, PATIENCE).await;
        assert_eq!(found.digest(), wanted.digest());
    });
}

#[test]
fn a_node_restored_from_a_backup_jumps_above_its_old_announces() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let mut wire = bench.link(A, &bench.a);
        let announce = Box::new(bench.own.announce((9, 4)));
        bench.actor.do_send(AnnounceVerified { link: A, announce, is_reply: false });
        wire.control("an announce above the old ones", |frame| match frame {
            Frame::Announce(announce) => announce.content.order() > (9, 4),
            _ => false,
        })
        .await;
        bench.store.rows.restart();
        assert!(bench.store.rows.clone().boot_epoch_now() >= 10, "and so does the next start");
    });
}

/// The boot epoch after a restart, read as a node does.
trait BootEpoch {
    fn boot_epoch_now(&self) -> u32;
}

impl BootEpoch for quicprochat_mesh::storage::MemStore {
    fn boot_epoch_now(&self) -> u32 {
        quicprochat_mesh::storage::LocalStore::boot_epoch(self)
    }
}

#[test]
fn a_panic_in_a_handler_is_heard_as_a_crash() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let _wire = bench.link(A, &bench.a);
        bench.store.arm(true);
        let announce = Box::new(bench.own.announce((9, 4)));
        bench.actor.do_send(AnnounceVerified { link: A, announce, is_reply: false });
        assert_eq!(bench.parent.exit().await, ExitReason::Crashed);
    });
}

#[test]
fn a_link_that_is_gone_is_used_no_more() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let (mut wire_a, mut wire_b) = (bench.link(A, &bench.a), bench.link(B, &bench.b));
        bench.actor.do_send(LinkDown(B));
        let packet = bench.message();
        let id = packet.packet_id;
        bench.bring(A, vec![packet]);
        let frame = wire_a.control("a refusal", |frame| matches!(frame, Frame::Refuse(_))).await;
        assert!(matches!(frame, Frame::Refuse(r) if r.packet_id == id && r.reason == RefuseReason::NoRoute));
        while let Ok(batch) = wire_b.0.try_recv() {
            assert!(batch.envelopes.is_empty());
        }
    });
}

#[test]
fn what_is_for_this_node_is_delivered_and_a_full_delivery_stops_nothing() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let _wire = bench.link(A, &bench.a);
        let packet = bench.a.packet(EnvelopeKind::MESSAGE, bench.own.address(), b"sealed");
        let id = packet.packet_id;
        bench.bring(A, vec![packet]);
        let delivered = expect_within(&mut bench.deliver, PATIENCE).await;
        assert_eq!((delivered.link, delivered.via, delivered.envelopes[0].packet_id), (Some(A), "mem", id));

        let mut busy = start_with(false, |parts| parts.deliver = Seat::held_by(Probe::deaf(1)));
        let (mut wire_a, mut wire_b) = (busy.link(A, &busy.a), busy.link(B, &busy.b));
        let mut sent = Vec::new();
        for _ in 0..10 {
            let packet = busy.a.packet(EnvelopeKind::MESSAGE, busy.own.address(), b"sealed");
            sent.push(packet.packet_id);
            // What nobody keeps is not worth a word.
            let receipt = busy.a.packet(EnvelopeKind::RECEIPT, busy.own.address(), b"receipt");
            busy.bring(A, vec![packet, receipt]);
        }
        let packet = busy.message();
        busy.bring(A, vec![packet]);
        assert_eq!(wire_b.envelopes().await.len(), 1, "others' mail goes on");
        assert_all_but_a_few(&sent, &wire_a.refusals(RefuseReason::Congested).await);
    });
}

#[test]
fn a_drain_under_traffic_sends_on_what_was_taken() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let (_wire_a, mut wire_b) = (bench.link(A, &bench.a), bench.link(B, &bench.b));
        let mut sent = Vec::new();
        let mut bring = |bench: &mut Bench| {
            let packet = bench.message();
            sent.push(packet.packet_id);
            bench.bring(A, vec![packet]);
        };
        for _ in 0..50 {
            bring(&mut bench);
        }
        bench.actor.do_send(drain(DrainPhase::Draining));
        for _ in 0..50 {
            bring(&mut bench);
        }
        bench.parent.report(DrainPhase::Draining).await;
        bench.actor.do_send(drain(DrainPhase::Persisting));
        bench.parent.report(DrainPhase::Persisting).await;
        bench.actor.do_send(drain(DrainPhase::Cleanup));
        assert_eq!(bench.parent.exit().await, ExitReason::Drained);
        let mut got = Vec::new();
        while let Ok(batch) = tokio::time::timeout(Duration::from_secs(1), wire_b.0.recv()).await {
            let Some(batch) = batch else { break };
            got.extend(batch.envelopes.iter().map(|packet| packet.packet_id));
        }
        assert_eq!(got, sent);
    });
}

/// What the store holds of the table.
async fn saved_rows(store: &FragileStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    let op = LocalOp::KvPage { namespace: Namespace::Route, after: None, limit: PageLimit::default() };
    match ask_local(&store.rows, vec![op]).unwrap().await.unwrap().pop() {
        Some(LocalOutcome::Values(page)) => page.rows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_heard_is_written_every_minute_and_at_a_drain() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let _wire = bench.link(A, &bench.a);
        let heard = |bench: &Bench, announce| {
            bench.actor.do_send(AnnounceVerified { link: A, announce: Box::new(announce), is_reply: false });
        };
        let first = bench.a.announce((3, 1));
        heard(&bench, first);
        bench.actor.send(GetRouterState).await.unwrap();
        assert!(saved_rows(&bench.store).await.is_empty(), "not on the way of an announce");
        tokio::time::sleep(secs(61)).await;
        let rows = saved_rows(&bench.store).await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].0, bench.a.address().0);
        let second = bench.a.announce((3, 2));
        heard(&bench, second);
        bench.actor.do_send(drain(DrainPhase::Draining));
        bench.parent.report(DrainPhase::Draining).await;
        bench.actor.do_send(drain(DrainPhase::Persisting));
        bench.parent.report(DrainPhase::Persisting).await;
        assert_ne!(saved_rows(&bench.store).await, rows, "the newer one");
    });
}

#[test]
fn a_restarted_router_passes_nothing_on_that_was_recorded_before() {
    with_virtual_time(|| async {
        let mut before = start(false);
        let _wire = before.link(A, &before.a);
        let (mut old, mut damaged) = (Signer::new(10), Signer::new(30));
        let recorded = old.announce((3, 1));
        let newest = old.announce((3, 2));
        before.actor.do_send(AnnounceVerified { link: A, announce: Box::new(newest), is_reply: false });
        before.actor.do_send(drain(DrainPhase::Persisting));
        before.parent.report(DrainPhase::Persisting).await;
        // A row that somebody wrote under another name is not believed.
        let value = saved_rows(&before.store).await[0].1.clone();
        let key = damaged.address().0.to_vec();
        let forged = LocalOp::KvPut { namespace: Namespace::Route, key, value };
        // Nor is an announce that its origin did not sign, whoever marked it.
        let mut stranger = Signer::new(31);
        let mut announce = stranger.announce((1, 1)).announce.clone();
        announce.signature.0[5] ^= 1;
        let row = SavedRow::new(Saved { announce, ends_in: secs(1800) }, clock::unix_s());
        let value = row.encode(&row_seal(&MeshIdentity::from_seed([77; 32]), NetworkId([1; 16])));
        let unsigned =
            LocalOp::KvPut { namespace: Namespace::Route, key: stranger.address().0.to_vec(), value };
        ask_local(&before.store.rows, vec![forged, unsigned]).unwrap().await.unwrap();

        let rows = before.store.clone();
        let after = start_with(false, |parts| parts.store = Arc::new(rows));
        let known = after.actor.send(EVERYONE).await.unwrap().rows;
        let known: Vec<_> = known.iter().map(|known| (known.address, known.order, known.is_routed)).collect();
        assert_eq!(known, [(old.address(), (3, 2), false)]);
        let (_wire_a, mut wire_b) = (after.link(A, &after.a), after.link(B, &after.b));
        for _ in 0..10 {
            let announce = Box::new(recorded.clone());
            after.actor.do_send(AnnounceVerified { link: A, announce, is_reply: false });
        }
        let state = after.actor.send(GetRouterState).await.unwrap();
        assert_eq!((state.counters.announces_stale, state.counters.announces_passed_on), (10, 0));
        tokio::time::sleep(secs(5)).await;
        while let Ok(batch) = wire_b.0.try_recv() {
            let is_old = |frame: &Frame| matches!(frame, Frame::Announce(a) if a.content.order() == (3, 1));
            assert!(!batch.control.iter().any(is_old));
        }
        // One that is new goes on, so silence is not for want of a link.
        let announce = Box::new(damaged.announce((1, 1)));
        after.actor.do_send(AnnounceVerified { link: A, announce, is_reply: true });
        assert_eq!(
            after.actor.send(EVERYONE).await.unwrap().rows.len(),
            1,
            "hop count 0 over another's link"
        );
    });
}

#[test]
fn a_store_that_takes_nothing_keeps_no_drain_waiting() {
    with_virtual_time(|| async {
        let mut bench = start_with(false, |parts| parts.store = Arc::new(ClosedStore));
        let _wire = bench.link(A, &bench.a);
        let announce = Box::new(bench.a.announce((3, 1)));
        bench.actor.do_send(AnnounceVerified { link: A, announce, is_reply: false });
        assert_eq!(bench.actor.send(EVERYONE).await.unwrap().rows.len(), 1, "it works without");
        tokio::time::sleep(secs(300)).await;
        bench.actor.do_send(drain(DrainPhase::Persisting));
        bench.parent.report(DrainPhase::Persisting).await;
    });
}

/// A store that has stopped.
struct ClosedStore;

impl LocalStore for ClosedStore {
    fn submit(
        &self,
        ops: Vec<LocalOp>,
        done: Completion<LocalOutcome>,
    ) -> Result<(), HandedBack<LocalOp, LocalOutcome>> {
        Err(HandedBack { reason: NotTaken::Stopped, ops, done })
    }

    fn boot_epoch(&self) -> u32 {
        1
    }
}

#[test]
fn a_path_is_looked_for_and_forgotten_when_somebody_says_so() {
    with_virtual_time(|| async {
        let mut bench = start(false);
        let wanted = Signer::new(40).address();
        assert_eq!(bench.actor.send(SearchPath(wanted)).await.unwrap(), PathSearch::NoLinks);
        let mut wire = bench.link(A, &bench.a);
        assert_eq!(bench.actor.send(SearchPath(wanted)).await.unwrap(), PathSearch::Started);
        let asked = |frame: &Frame| matches!(frame, Frame::PathRequest(r) if r.destination == wanted);
        wire.control("a path request", asked).await;
        // The timer of the search runs: it is asked again, farther.
        wire.control("a path request", asked).await;
        wire.control("a path request", asked).await;
        tokio::time::sleep(secs(11)).await;
        let answer = bench.actor.send(SearchPath(wanted)).await.unwrap();
        assert!(matches!(answer, PathSearch::NotYet { .. }), "{answer:?}");
        let announce = Box::new(bench.a.announce((3, 1)));
        bench.actor.do_send(AnnounceVerified { link: A, announce, is_reply: false });
        assert!(bench.actor.send(DropPath(bench.a.address())).await.unwrap());
        assert!(!bench.actor.send(DropPath(wanted)).await.unwrap());
    });
}
