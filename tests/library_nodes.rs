//! Two whole nodes in one process over a medium of the embedding program's own, through the public
//! library API alone.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{path::Path, sync::Arc, time::Duration};

mod common;

use common::embedded::{until, within};
use quicprochat_mesh::{
    config::{HealthListen, MeshConfig},
    crypto::MeshIdentity,
    messages::delivery::ProbeAnswer,
    node::{MeshNodeBuilder, Outbound, RunHandle},
    proto::{delivery::outbox::End, router::PathSearch},
    transport::{MemNetwork, TransportAddr},
    wire::Address,
};

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

/// The boot epoch by which `at` routes to `to`.
async fn routed_epoch(at: &RunHandle, to: Address) -> Option<u32> {
    let routes = at.node().routes().await.unwrap();
    routes.iter().find(|line| line.route.destination == to).map(|line| line.route.order.0)
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn a_node_whose_data_dir_is_put_back_is_routable_again_within_thirty_seconds() {
    let network = MemNetwork::new();
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let dir = |n: usize| dirs[n].path().join("node");
    let far = start(&network, "far", 11, &dir(0)).await;
    let middle = start(&network, "middle", 12, &dir(1)).await;
    far.node().add_peer(TransportAddr::mem("middle").unwrap()).await.unwrap();
    let home = start(&network, "home-0", 13, &dir(2)).await;
    let address = home.node().address();
    home.node().add_peer(TransportAddr::mem("middle").unwrap()).await.unwrap();
    let first = until("the first route", || routed_epoch(&far, address)).await;
    within("home to stop", home.shutdown()).await.unwrap();
    copy_dir(&dir(2), &dir(3));

    let mut epoch = first;
    for name in ["home-1", "home-2", "home-3"] {
        let home = start(&network, name, 13, &dir(2)).await;
        let before = epoch;
        epoch = until("a newer route", || async {
            routed_epoch(&far, address).await.filter(|epoch| *epoch > before)
        })
        .await;
        within("home to stop", home.shutdown()).await.unwrap();
    }
    // The backup knows nothing of the last three starts, so its announces are old ones.
    std::fs::remove_dir_all(dir(2)).unwrap();
    copy_dir(&dir(3), &dir(2));
    let home = start(&network, "home-again", 13, &dir(2)).await;
    let newer = || async { routed_epoch(&far, address).await.filter(|healed| *healed > epoch) };
    tokio::time::timeout(Duration::from_secs(30), until("a route above the old ones", newer)).await.unwrap();
    for node in [far, middle, home] {
        within("a node to stop", node.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn who_was_heard_is_known_after_a_restart_and_can_be_looked_for() {
    let network = MemNetwork::new();
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let dir = |n: usize| dirs[n].path().join("node");
    let near = start(&network, "near", 21, &dir(0)).await;
    let middle = start(&network, "middle", 22, &dir(1)).await;
    let away = start(&network, "away", 23, &dir(2)).await;
    let address = away.node().address();
    for node in [&near, &away] {
        node.node().add_peer(TransportAddr::mem("middle").unwrap()).await.unwrap();
    }
    let epoch = until("a route", || routed_epoch(&near, address)).await;
    for node in [near, away] {
        within("a node to stop", node.shutdown()).await.unwrap();
    }
    let near = start(&network, "near-again", 21, &dir(0)).await;
    let known = near.node().known().await.unwrap();
    let known = known.iter().find(|known| known.address == address).unwrap();
    assert_eq!((known.order.0, known.is_routed, known.has_key), (epoch, false, true));
    // It can be written to, and is looked for, though nobody knows where it is.
    near.node().send(Outbound::new(address, "when you are back")).await.unwrap();
    until("a search", || async {
        (near.node().search_path(address).await.unwrap() != PathSearch::NoLinks).then_some(())
    })
    .await;
    assert!(!near.node().drop_path(address).await.unwrap());
    let away = start(&network, "away-again", 23, &dir(2)).await;
    let (_, content) = within("the message", away.node().receive()).await.unwrap();
    assert_eq!(content.as_ref(), b"when you are back");
    for node in [near, middle, away] {
        within("a node to stop", node.shutdown()).await.unwrap();
    }
}
