//! MaintenanceActor: a rotated key is durable before anybody hears of it.

use std::sync::Arc;

use actix::prelude::*;
use quicprochat_mesh::{
    actors::{
        clock_handle::ClockHandle,
        delivery::OwnKeys,
        mailbox,
        maintenance::{CLOCK_MARK_KEY, MaintenanceActor, MaintenanceParts, RECEIVER_SECRETS_KEY},
    },
    clock,
    crypto::ReceiverKeys,
    messages::{lifecycle::ExitReason, route::AnnounceNow},
    proto::node_clock::Mark,
    storage::{Awaits, InboxCommit, LocalOp, LocalOutcome, MemFault, Namespace, Strangers, ask_local},
    testing::{expect_silence, expect_within, set_wall_clock_off, with_virtual_time},
    wire::{Address, MessageUid},
};
use tokio::sync::{mpsc::UnboundedReceiver, watch};

use crate::support::*;

const DAY: u64 = 24 * 3600;

struct Bench {
    store: FragileStore,
    keys: watch::Receiver<Arc<OwnKeys>>,
    announce: UnboundedReceiver<AnnounceNow>,
    parent: Parent,
    actor: Addr<MaintenanceActor>,
}

fn start() -> Bench {
    let mut own = Signer::new(1);
    let store = FragileStore::default();
    let (keys_tx, keys) = watch::channel(Arc::new(own.keys()));
    let (announce_seat, announce) = seat::<AnnounceNow>();
    let (guard, parent) = guard();
    let parts = MaintenanceParts {
        identity: own.identity.clone(),
        network: NETWORK,
        keys: keys_tx,
        store: Arc::new(store.clone()),
        announce: announce_seat,
        clock: ClockHandle::new(None),
    };
    let actor = MaintenanceActor::create(move |ctx| {
        ctx.set_mailbox_capacity(mailbox::MAINTENANCE);
        MaintenanceActor::new(parts, guard)
    });
    Bench { store, keys, announce, parent, actor }
}

#[test]
fn a_key_is_rotated_after_a_week_and_durable_before_it_is_announced() {
    with_virtual_time(|| async {
        let mut bench = start();
        let first = bench.keys.borrow().record.record().clone();
        expect_silence(&mut bench.announce, secs(7 * DAY - 3600)).await;
        assert!(!bench.keys.has_changed().unwrap(), "the week is not over");

        bench.store.rows.hold_completions();
        expect_silence(&mut bench.announce, secs(2 * 3600)).await;
        assert!(!bench.keys.has_changed().unwrap(), "the new secret is not durable yet");

        bench.store.rows.release();
        expect_within(&mut bench.announce, PATIENCE).await;
        let now = bench.keys.borrow_and_update().clone();
        let record = now.record.record();
        assert!(record.order > first.order);
        assert_ne!(record.keys, first.keys);
        // What is durable is what was announced.
        let get = LocalOp::KvGet { namespace: Namespace::ReceiverSecret, key: RECEIVER_SECRETS_KEY.to_vec() };
        let outcome = ask_local(&bench.store, vec![get]).unwrap().await.unwrap().remove(0);
        let LocalOutcome::Value(Some(bytes)) = outcome else { panic!("{outcome:?}") };
        let stored = ReceiverKeys::from_bytes(*now.record.public_key(), &bytes).unwrap();
        assert_eq!(stored.record(), record);
    });
}

#[test]
fn a_rotation_that_the_disk_refused_is_tried_again() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(7 * DAY - 60)).await;
        // The disk is full for the whole of the next look, whatever else it submits.
        bench.store.rows.set_full(true);
        expect_silence(&mut bench.announce, secs(15 * 60)).await;
        assert!(!bench.keys.has_changed().unwrap());
        bench.store.rows.set_full(false);
        bench.store.rows.fail_next(MemFault::NoSpace);
        expect_silence(&mut bench.announce, secs(5 * 60)).await;
        expect_within(&mut bench.announce, secs(30 * 60)).await;
        assert!(bench.keys.has_changed().unwrap());
    });
}

#[test]
fn a_clock_that_jumped_destroys_no_key_and_forgets_no_message() {
    with_virtual_time(|| async {
        let mut bench = start();
        let arrives = |now: u64| {
            LocalOp::InboxCommit(InboxCommit {
                uid: MessageUid([7; 16]),
                source: Address([8; 16]),
                ingress: None,
                dedup_until_unix_s: now + DAY,
                awaits: Awaits::default(),
                strangers: Strangers::Enter,
                entry: Vec::new(),
            })
        };
        let record = |bench: &Bench, op: LocalOp| {
            let store = bench.store.clone();
            async move { ask_local(&store, vec![op]).unwrap().await.unwrap().remove(0) }
        };
        let now = clock::unix_s();
        assert_eq!(record(&bench, arrives(now)).await, LocalOutcome::Committed { seq: 1 });
        let wrong = set_wall_clock_off(366 * DAY as i64);
        expect_silence(&mut bench.announce, secs(2 * DAY)).await;
        assert!(!bench.keys.has_changed().unwrap(), "a year passed for the clock alone");
        // A message that is played again is still known.
        assert_eq!(record(&bench, arrives(now)).await, LocalOutcome::Seen);
        // Once the clock is right, what is due is done.
        drop(wrong);
        tokio::time::sleep(secs(11 * 60)).await;
        assert_eq!(record(&bench, arrives(now)).await, LocalOutcome::Committed { seq: 2 });
        expect_within(&mut bench.announce, secs(6 * DAY)).await;
    });
}

#[test]
fn the_next_start_finds_the_time_marked() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(601)).await;
        let wrong = set_wall_clock_off(-(366 * DAY as i64));
        drained(&bench.actor, &mut bench.parent).await;
        let get = LocalOp::KvGet { namespace: Namespace::Identity, key: CLOCK_MARK_KEY.to_vec() };
        let outcome = ask_local(&bench.store, vec![get]).unwrap().await.unwrap().remove(0);
        let LocalOutcome::Value(Some(bytes)) = outcome else { panic!("{outcome:?}") };
        let next = ClockHandle::new(Mark::decode(&bytes));
        let time = next.time();
        assert!(!time.trusted, "the clock was set back meanwhile");
        drop(wrong);
        assert!(next.time().trusted);
        assert!(next.unix_s().abs_diff(time.unix_s) <= 1, "and the right time was known all along");
    });
}

#[test]
fn a_panic_is_heard_as_a_crash() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.store.arm(true);
        tokio::time::sleep(secs(11 * 60)).await;
        assert_eq!(bench.parent.exit().await, ExitReason::Crashed);
    });
}

#[test]
fn it_leaves_a_drain_even_while_the_disk_is_busy() {
    with_virtual_time(|| async {
        let mut bench = start();
        bench.store.rows.hold_completions();
        tokio::time::sleep(secs(7 * DAY + 3600)).await;
        drained(&bench.actor, &mut bench.parent).await;
        bench.store.rows.release();
        expect_silence(&mut bench.announce, secs(60)).await;
        assert!(bench.keys.has_changed().is_err(), "nobody is left who could announce a key");
    });
}
