//! Two whole nodes in one process over a medium of the embedding program's own, through the public
//! library API alone.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{path::Path, sync::Arc, time::Duration};

use quicprochat_mesh::{
    config::{HealthListen, MeshConfig},
    crypto::MeshIdentity,
    messages::delivery::ProbeAnswer,
    node::{MeshNodeBuilder, Outbound, RunHandle},
    proto::delivery::outbox::End,
    transport::{MemNetwork, TransportAddr},
};

/// Real time, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

async fn start(network: &MemNetwork, name: &str, seed: u8, dir: &Path) -> RunHandle {
    let identity = MeshIdentity::from_seed([seed; 32]);
    let port = network.listen(name, identity.public_key()).unwrap();
    // A free port of the loopback beside the medium of our own.
    let config = MeshConfig::from_toml("[transport]\nlisten = [\"tcp://127.0.0.1:0\"]\n").unwrap();
    let node = MeshNodeBuilder::new()
        .config(config)
        .data_dir(dir)
        .identity(identity)
        .transport(Arc::new(port))
        .health_listen(HealthListen::Off)
        .build()
        .await
        .unwrap();
    node.run().await.unwrap()
}

#[tokio::test]
async fn two_nodes_meet_talk_and_part_over_a_medium_of_the_programs_own() {
    let (network, dirs) = (MemNetwork::new(), (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()));
    let alice = start(&network, "alice", 1, &dirs.0.path().join("node")).await;
    let bob = start(&network, "bob", 2, &dirs.1.path().join("node")).await;
    let (a, b) = (alice.node().clone(), bob.node().clone());
    let bobs = TransportAddr::mem("bob").unwrap();
    assert!(bob.listening().urls.contains(&bobs), "{:?}", bob.listening().urls);

    // Written before there is a link: it waits for a key and a path.
    let uid = within("the outbox", a.send(Outbound::new(b.address(), "hello bob"))).await.unwrap();
    a.add_peer(bobs.clone()).await.unwrap();
    let end = within("the receipt", a.wait_for(uid)).await.unwrap();
    // None where the receipt was faster than the question.
    assert!(end.is_none_or(|finished| matches!(finished.end, End::Delivered { .. })), "{end:?}");
    let (message, content) = within("the message", b.receive()).await.unwrap();
    assert_eq!((message.id(), message.from(), content.as_ref()), (uid, a.address(), &b"hello bob"[..]));
    assert!(a.outbox().await.unwrap().is_empty());

    let file: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let outbound = Outbound { name: Some("a.bin".into()), ..Outbound::new(a.address(), file.clone()) };
    b.send(outbound).await.unwrap();
    let (message, content) = within("the file", a.receive()).await.unwrap();
    assert_eq!((message.name(), content.as_ref() == file), (Some("a.bin"), true));

    let uid = b.broadcast("to all", None, None, None).await.unwrap();
    let (message, content) = within("the broadcast", a.receive()).await.unwrap();
    assert_eq!((message.id(), message.is_broadcast(), content.as_ref()), (uid, true, &b"to all"[..]));

    let mut answers = a.probe(b.address(), false).await.unwrap();
    match within("a pong", answers.recv()).await {
        Some(ProbeAnswer::Pong { hops, .. }) => assert_eq!(hops, 1),
        other => panic!("{other:?}"),
    }

    let peers = a.peers().await.unwrap();
    assert_eq!((peers.len(), peers[0].address, &peers[0].info.remote), (1, b.address(), &bobs));

    let summary = within("alice to stop", alice.shutdown()).await.unwrap();
    assert!(summary.drained, "{summary:?}");
    let summary = within("bob to stop", bob.shutdown()).await.unwrap();
    assert!(summary.drained, "{summary:?}");
    assert!(a.send(Outbound::new(b.address(), "late")).await.is_err());
}

#[tokio::test]
async fn a_message_survives_the_restart_of_its_sender() {
    let (network, dirs) = (MemNetwork::new(), (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()));
    let bob_address = MeshIdentity::from_seed([4; 32]).address();
    let alice = start(&network, "alice", 3, &dirs.0.path().join("node")).await;
    let uid = alice.node().send(Outbound::new(bob_address, "patience")).await.unwrap();
    alice.node().add_peer(TransportAddr::mem("bob").unwrap()).await.unwrap();
    let summary = within("alice to stop", alice.shutdown()).await.unwrap();
    assert_eq!(summary.undelivered_kept, 1, "{summary:?}");

    let bob = start(&network, "bob", 4, &dirs.1.path().join("node")).await;
    // The peer is remembered as well as the message.
    let alice = start(&network, "alice-again", 3, &dirs.0.path().join("node")).await;
    let (message, content) = within("the message", bob.node().receive()).await.unwrap();
    assert_eq!((message.id(), content.as_ref()), (uid, &b"patience"[..]));
    within("alice to stop", alice.shutdown()).await.unwrap();
    within("bob to stop", bob.shutdown()).await.unwrap();
}
