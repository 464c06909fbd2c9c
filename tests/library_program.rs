//! What a program that embeds a node brings along: envelopes from media of its own, tasks and hooks
//! in a drain. Real nodes, through the public library alone.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
mod common;

use common::embedded::{PATIENCE, Stranger, within};
use quicprochat_mesh::{
    DropReason, IncomingAction, MeshConfig, MeshError, MeshIdentity, MeshNodeBuilder, Messages, Outbound,
    Received, RoutingError, RunHandle, ShutdownCoordinator, ShutdownError, clock,
    config::HealthListen,
    crypto::network_id,
    proto::delivery::compose::{Composer, Sequences},
    transport::{MemNetwork, TransportAddr},
    wire::{
        Address, Envelope, EnvelopeKind, Lifetime, MessageUid,
        content::{Content, Sealed},
    },
};

fn builder(network: &MemNetwork, name: &str, seed: u8, dir: &Path) -> MeshNodeBuilder {
    let identity = MeshIdentity::from_seed([seed; 32]);
    let port = network.listen(name, identity.public_key()).unwrap();
    let mut config = MeshConfig::from_toml("[transport]\nlisten = [\"tcp://127.0.0.1:0\"]\n").unwrap();
    config.drain.draining = Duration::from_secs(3);
    MeshNodeBuilder::new()
        .config(config)
        .data_dir(dir.join(name))
        .identity(identity)
        .transport(Arc::new(port))
        .health_listen(HealthListen::Off)
}

async fn start(network: &MemNetwork, name: &str, seed: u8, dir: &Path) -> RunHandle {
    builder(network, name, seed, dir).build().await.unwrap().run().await.unwrap()
}

/// A broadcast of a stranger's.
fn broadcast(stranger: &mut Stranger, text: &str) -> Envelope {
    let content = Sealed::Content(Content {
        uid: MessageUid([9; 16]),
        name: String::new(),
        sent_at_unix_ms: clock::unix_ms(),
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        follows: None,
    });
    stranger.envelope(EnvelopeKind::BROADCAST, Address::BROADCAST, &content.encode(), Lifetime::TEN_MINUTES)
}

#[tokio::test]
async fn what_a_program_brings_is_verified_and_goes_the_way_of_all_envelopes() {
    let (network, dir) = (MemNetwork::new(), tempfile::tempdir().unwrap());
    let alice = start(&network, "alice", 1, dir.path()).await;
    let bob = start(&network, "bob", 2, dir.path()).await;
    alice.node().add_peer(TransportAddr::mem("bob").unwrap()).await.unwrap();
    let mut stranger = Stranger::new(7);
    let from = stranger.identity.address();
    let router = alice.node().router();

    // A message through the router handle shows that the two are linked.
    router.send(Outbound::new(bob.node().address(), "first")).await.unwrap();
    within("the message", bob.node().receive()).await.unwrap();

    let news = broadcast(&mut stranger, "to all");
    let action = alice.node().process_incoming(&from, news.clone()).await.unwrap();
    assert_eq!(action, IncomingAction::Broadcast { links: 1 });
    for node in [alice.node(), bob.node()] {
        let (message, content) = within("the broadcast", node.receive()).await.unwrap();
        assert_eq!((message.from(), content.as_ref()), (from, &b"to all"[..]));
    }
    let again = router.handle_incoming(&from, news).await.unwrap();
    assert_eq!(again, IncomingAction::Dropped(DropReason::Duplicate));

    // An unknown kind is forwarded as it is, and nobody answers it.
    let kind = EnvelopeKind(40);
    let day = Lifetime::ONE_DAY;
    let for_bob = stranger.envelope(kind, bob.node().address(), b"for bob", day);
    router.forward(for_bob.clone()).await.unwrap();
    let twice = router.forward(for_bob).await.unwrap_err();
    let duplicate = RoutingError::NotForwarded(IncomingAction::Dropped(DropReason::Duplicate));
    assert!(matches!(&twice, MeshError::Routing(why) if *why == duplicate), "{twice}");
    let here = stranger.envelope(kind, alice.node().address(), b"for alice", day);
    assert!(matches!(router.forward(here.clone()).await, Err(MeshError::Routing(_))));
    assert_eq!(router.handle_incoming(&from, here).await.unwrap(), IncomingAction::Delivered);

    // Without its key, and with another one's signature, nothing of it is believed.
    let bare = Stranger::new(8).envelope(kind, from, b"x", day).without_source_key();
    let error = router.handle_incoming(&from, bare).await.unwrap_err();
    assert!(matches!(error, MeshError::Routing(RoutingError::KeyMissing(_))), "{error}");
    let other = network_id("another network");
    let mut foreign = Stranger::new(9);
    foreign.composer = Composer::new(foreign.identity.clone(), other, 1, Sequences::default());
    let forged = foreign.envelope(kind, from, b"x", day);
    let error = router.handle_incoming(&from, forged).await.unwrap_err();
    assert!(matches!(error, MeshError::Crypto(_)), "{error}");

    within("alice to stop", alice.shutdown()).await.unwrap();
    within("bob to stop", bob.shutdown()).await.unwrap();
    assert!(matches!(router.forward(broadcast(&mut stranger, "late")).await, Err(MeshError::Routing(_))));
    let late = stranger.envelope(kind, from, b"late", day);
    assert!(matches!(router.handle_incoming(&from, late).await, Err(MeshError::Stopped(_))));
}

#[tokio::test]
async fn what_is_held_for_a_destination_is_handed_over_and_what_has_expired_goes() {
    let (network, dir) = (MemNetwork::new(), tempfile::tempdir().unwrap());
    let alice = start(&network, "alice", 1, dir.path()).await;
    let router = alice.node().router();
    let mut stranger = Stranger::new(7);
    let from = stranger.identity.address();
    let carol = MeshIdentity::from_seed([3; 32]).address();

    assert_eq!(router.drain_store_for(&carol).await.unwrap(), 0);
    let held = stranger.envelope(EnvelopeKind::MESSAGE, carol, b"nobody can open this", Lifetime::ONE_DAY);
    let nowhere = router.forward(held.clone()).await.unwrap_err();
    assert!(matches!(nowhere, MeshError::Routing(RoutingError::NoPath(to)) if to == carol), "{nowhere}");
    // That was forgotten, so that the same envelope may be kept now.
    assert_eq!(router.handle_incoming(&from, held).await.unwrap(), IncomingAction::ToCustody);
    let short = Lifetime::from_code(0).unwrap();
    let brief = stranger.envelope(EnvelopeKind::MESSAGE, carol, b"nor this", short);
    assert_eq!(router.handle_incoming(&from, brief).await.unwrap(), IncomingAction::ToCustody);
    let no_path = within("the store", async {
        loop {
            match router.drain_store_for(&carol).await {
                Ok(held) => assert_eq!(held, 0, "not on disk yet, but handed over"),
                Err(error) => return error,
            }
        }
    })
    .await;
    assert!(matches!(no_path, MeshError::Routing(RoutingError::NoPath(_))), "{no_path}");

    let report = within("the short one to expire", async {
        loop {
            let report = alice.node().gc().await.unwrap();
            assert!(report.clock_is_trusted);
            if report.held_expired > 0 {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert_eq!((report.held_expired, report.routes_ended), (1, 0));
    assert_eq!(alice.node().held().await.unwrap().rows, 1);

    // Carol comes. She cannot open it, so it stays held, and can be handed over as often as wanted.
    let carol_runs = start(&network, "carol", 3, dir.path()).await;
    alice.node().add_peer(TransportAddr::mem("carol").unwrap()).await.unwrap();
    let handed_over = within("a path to carol", async {
        loop {
            match router.drain_store_for(&carol).await {
                Ok(handed_over) => return handed_over,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    assert_eq!(handed_over, 1);
    within("alice to stop", alice.shutdown()).await.unwrap();
    within("carol to stop", carol_runs.shutdown()).await.unwrap();
}

#[tokio::test]
async fn the_program_takes_part_in_the_drain_of_its_node() {
    let (network, dir) = (MemNetwork::new(), tempfile::tempdir().unwrap());
    let coordinator = ShutdownCoordinator::new();
    let node = builder(&network, "alice", 1, dir.path()).shutdown(coordinator.clone()).build().await.unwrap();
    let second = builder(&network, "bob", 2, dir.path()).shutdown(coordinator.clone()).build().await;
    assert!(matches!(second, Err(MeshError::Shutdown(ShutdownError::Taken))));
    let running = node.run().await.unwrap();

    let steps = Arc::new(Mutex::new(Vec::new()));
    let (node, seen) = (node.clone(), steps.clone());
    coordinator.on_persist("index", move || async move {
        // The node is still there to be asked.
        let (held, _) = node.inbox(None).await.map_err(|error| error.to_string())?;
        seen.lock().unwrap().push(format!("persist {}", held.len()));
        Ok::<(), String>(())
    });
    let seen = steps.clone();
    coordinator.on_cleanup("pid file", move || async move {
        seen.lock().unwrap().push("cleanup".into());
        Ok::<(), Infallible>(())
    });
    let guard = coordinator.task("importer").unwrap();
    let seen = steps.clone();
    tokio::spawn(async move {
        guard.stopping().await;
        seen.lock().unwrap().push("task".into());
    });
    // A connection that nobody closes until it is cut.
    let sockets = coordinator.connections("websocket", 8);
    let socket = sockets.open().unwrap();
    tokio::spawn(async move { socket.cut().await });

    let summary = within("the node to stop", running.shutdown()).await.unwrap();
    assert_eq!(*steps.lock().unwrap(), ["task", "persist 0", "cleanup"]);
    assert_eq!(summary.missed, ["program/draining: websocket"], "{summary:?}");
    assert!(!summary.drained);
    assert!(coordinator.task("late").is_err());
    let report = within("what is over", coordinator.shutdown(PATIENCE)).await;
    assert_eq!(report.missed, ["draining: websocket"]);
}

#[tokio::test]
async fn a_program_that_stops_stops_its_node() {
    let (network, dir) = (MemNetwork::new(), tempfile::tempdir().unwrap());
    let coordinator = ShutdownCoordinator::new();
    let node = builder(&network, "alice", 1, dir.path()).shutdown(coordinator.clone()).build().await.unwrap();
    let mut running = node.run().await.unwrap();
    assert!(matches!(node.run().await, Err(MeshError::StartedBefore)));
    assert!(matches!(MeshNodeBuilder::new().build().await, Err(MeshError::NoDataDir)));
    let (a, b) = within("the stop", async {
        tokio::join!(coordinator.shutdown(Duration::from_secs(10)), coordinator.shutdown(PATIENCE))
    })
    .await;
    assert!(a.is_clean() && a == b, "{a:?} {b:?}");
    let summary = within("the node", running.wait()).await.unwrap();
    // Two at once are one stop, and nothing is skipped.
    assert!(summary.drained, "{summary:?}");
}

/// The next message of a stream, as text.
async fn next(messages: &mut Messages) -> Option<(String, Received)> {
    let received = within("a message", messages.next()).await?.unwrap();
    Some((String::from_utf8(received.content().to_vec()).unwrap(), received))
}

// A program's own runtime, with threads of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_gives_out_again_what_was_not_acknowledged_and_ends_with_the_node() {
    let (network, dir) = (MemNetwork::new(), tempfile::tempdir().unwrap());
    let alice = start(&network, "alice", 1, dir.path()).await;
    let bob = start(&network, "bob", 2, dir.path()).await;
    alice.node().add_peer(TransportAddr::mem("bob").unwrap()).await.unwrap();
    let to_bob = |text: &str| alice.node().send(Outbound::new(bob.node().address(), text.to_owned()));
    for text in ["one", "two"] {
        to_bob(text).await.unwrap();
    }

    let mut messages = bob.node().messages().unwrap();
    assert!(matches!(bob.node().messages(), Err(MeshError::InboxTaken)), "one takes at a time");
    let (text, one) = next(&mut messages).await.unwrap();
    assert_eq!((text.as_str(), one.message().from()), ("one", alice.node().address()));
    one.ack().await.unwrap();
    // A second time is not an error: a program may not know whether the first one got through.
    one.ack().await.unwrap();
    let (text, two) = next(&mut messages).await.unwrap();
    assert_eq!(text, "two");
    drop((messages, two));

    // It is gone from the hands of a program, and not from the inbox.
    let mut messages = bob.node().messages().unwrap();
    let (text, two) = next(&mut messages).await.unwrap();
    assert_eq!(text, "two");
    // The stream does not wait for its acknowledgement, and waits for what comes.
    let waiting = tokio::spawn(async move { (next(&mut messages).await, messages) });
    to_bob("three").await.unwrap();
    let (three, mut messages) = waiting.await.unwrap();
    let (text, three) = three.unwrap();
    assert_eq!(text, "three");
    // In any order.
    three.ack().await.unwrap();
    two.ack().await.unwrap();
    assert!(bob.node().inbox(None).await.unwrap().0.is_empty());

    let end =
        tokio::spawn(
            async move { (next(&mut messages).await.is_none(), next(&mut messages).await.is_none()) },
        );
    within("bob to stop", bob.shutdown()).await.unwrap();
    assert_eq!(end.await.unwrap(), (true, true));
    within("alice to stop", alice.shutdown()).await.unwrap();
}
