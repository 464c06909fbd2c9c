//! Two whole nodes in one process that lose parts of themselves: whatever actor panics, on both
//! ends, the node goes on, and a message that was accepted arrives. And one whose links have threads
//! of their own.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{path::Path, sync::Arc, time::Duration};

use quicprochat_mesh::{
    config::{HealthListen, LinkThreads, MeshConfig},
    crypto::MeshIdentity,
    error::MeshError,
    node::{MeshNode, MeshNodeBuilder, Outbound, RunHandle, ShutdownCoordinator},
    proto::{delivery::outbox::End, health::HealthStatus},
    transport::{MemNetwork, TransportAddr},
    wire::{Address, MessageUid},
};

/// Real time, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

async fn start(network: &MemNetwork, name: &str, seed: u8, dir: &Path) -> RunHandle {
    start_with(network, name, seed, dir, MeshNodeBuilder::new()).await
}

async fn start_with(
    network: &MemNetwork,
    name: &str,
    seed: u8,
    dir: &Path,
    builder: MeshNodeBuilder,
) -> RunHandle {
    let identity = MeshIdentity::from_seed([seed; 32]);
    let port = network.listen(name, identity.public_key()).unwrap();
    let config = MeshConfig::from_toml("[transport]\nlisten = [\"tcp://127.0.0.1:0\"]\n").unwrap();
    let node = builder
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

/// Restarts of an actor, in all nodes of this process.
fn restarts(handle: &RunHandle, actor: &str) -> f64 {
    let labels = [("actor", actor)];
    handle.metrics_snapshot().value("qpc_actor_restarts_total", &labels).unwrap_or_default()
}

/// Sends as soon as the node takes it: while delivery is being restarted nobody answers.
async fn send(node: &MeshNode, to: Address, text: &str) -> MessageUid {
    loop {
        match node.send(Outbound::new(to, text.to_owned())).await {
            Ok(uid) => return uid,
            Err(MeshError::Stopped(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn talk(from: &MeshNode, to: &MeshNode, text: &str) {
    let uid = within("room in the outbox", send(from, to.address(), text)).await;
    let (message, content) = within(text, to.receive()).await.unwrap();
    assert_eq!((message.id(), content.as_ref()), (uid, text.as_bytes()));
    within("the receipt", async {
        // A wait that a restart of delivery cuts short says nothing about the message.
        while from.outbox().await.map_or(true, |rows| rows.iter().any(|row| row.uid == uid)) {
            if let Ok(Some(finished)) = from.wait_for(uid).await {
                assert!(matches!(finished.end, End::Delivered { .. }), "{finished:?}");
            }
        }
    })
    .await;
}

/// Has `actor` panic on both ends and asks whether the two still talk, in both directions. What is
/// started again then is `counted_as`.
async fn survives_without(actor: &str, counted_as: &str) {
    let (network, dirs) = (MemNetwork::new(), (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()));
    let alice = start(&network, "alice", 1, &dirs.0.path().join("node")).await;
    let bob = start(&network, "bob", 2, &dirs.1.path().join("node")).await;
    let (a, b) = (alice.node().clone(), bob.node().clone());
    a.add_peer(TransportAddr::mem("bob").unwrap()).await.unwrap();
    talk(&a, &b, "before").await;

    let before = restarts(&alice, counted_as);
    // On its way while it happens.
    let uid = within("room in the outbox", send(&a, b.address(), "meanwhile")).await;
    a.panic_now(actor);
    b.panic_now(actor);
    let (message, _) = within("what was on its way", b.receive()).await.unwrap();
    assert_eq!(message.id(), uid, "after a panic of {actor}");
    within("both restarts", async {
        while restarts(&alice, counted_as) < before + 2.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    talk(&a, &b, "after").await;
    talk(&b, &a, "and back").await;
    within("routes", async {
        while a.routes().await.map_or(true, |routes| routes.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    within("health", async {
        while a.health().status != HealthStatus::Healthy || b.health().status != HealthStatus::Healthy {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let summary = within("alice to stop", alice.shutdown()).await.unwrap();
    assert!(summary.drained, "{summary:?}");
    let summary = within("bob to stop", bob.shutdown()).await.unwrap();
    assert!(summary.drained, "{summary:?}");
}

#[tokio::test]
async fn who_waits_for_a_message_goes_on_waiting_over_a_restart_of_delivery_and_ends_with_a_drain() {
    let (network, dirs) = (MemNetwork::new(), (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()));
    let alice = start(&network, "alice", 1, &dirs.0.path().join("node")).await;
    let a = alice.node().clone();
    let (to, nobody) = (MeshIdentity::from_seed([2; 32]).address(), Address([9; 16]));
    let uid = within("room in the outbox", send(&a, to, "patience")).await;
    let kept = within("room in the outbox", send(&a, nobody, "kept")).await;
    let waits_for = |uid| {
        let a = a.clone();
        tokio::spawn(async move { a.wait_for(uid).await })
    };
    let (waiting, cut_short) = (waits_for(uid), waits_for(kept));
    for _ in 0..3 {
        a.panic_now("delivery");
        within("the outbox to be read", async {
            while a.outbox().await.map_or(true, |rows| rows.len() < 2) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(!waiting.is_finished() && !cut_short.is_finished());
    }
    let bob = start(&network, "bob", 2, &dirs.1.path().join("node")).await;
    a.add_peer(TransportAddr::mem("bob").unwrap()).await.unwrap();
    let end = within("the end", waiting).await.unwrap().unwrap();
    assert!(matches!(end.unwrap().end, End::Delivered { .. }), "{end:?}");
    // Late, and still the truth.
    assert_eq!(within("the same", a.wait_for(uid)).await.unwrap(), end);

    let summary = within("alice to stop", alice.shutdown()).await.unwrap();
    assert_eq!(summary.undelivered_kept, 1, "{summary:?}");
    let end = within("the wait to end", cut_short).await.unwrap();
    assert!(matches!(end, Err(MeshError::Stopped(_))), "{end:?}");
    within("bob to stop", bob.shutdown()).await.unwrap();
}

// One test an actor: the metrics are the process's, and each actor has its own series.

#[tokio::test]
async fn a_router_that_panics_hears_of_its_links_again() {
    survives_without("router", "router").await;
}

#[tokio::test]
async fn a_delivery_that_panics_reads_its_outbox_again() {
    survives_without("delivery", "delivery").await;
}

#[tokio::test]
async fn a_store_that_panics_costs_no_message() {
    survives_without("store", "store").await;
}

#[tokio::test]
async fn a_health_that_panics_is_followed_by_one_that_hears_the_reports() {
    survives_without("health", "health").await;
}

#[tokio::test]
async fn a_maintenance_that_panics_is_started_again() {
    survives_without("maintenance", "maintenance").await;
}

#[tokio::test]
async fn a_registry_of_links_that_panics_takes_its_branch_along_and_dials_its_peers_again() {
    survives_without("transport/links", "transport").await;
}

#[tokio::test]
async fn a_rate_limiter_that_panics_is_asked_again() {
    survives_without("rate_limiter", "rate_limiter").await;
}

#[tokio::test]
async fn the_programs_part_in_a_drain_survives_its_panic() {
    let (network, dir) = (MemNetwork::new(), tempfile::tempdir().unwrap());
    let coordinator = ShutdownCoordinator::new();
    let (tell, told) = std::sync::mpsc::channel();
    coordinator.on_persist("the program's", move || async move {
        tell.send(()).unwrap();
        Ok::<(), MeshError>(())
    });
    let builder = MeshNodeBuilder::new().shutdown(coordinator);
    let node = start_with(&network, "alice", 1, &dir.path().join("node"), builder).await;
    node.node().panic_now("program");
    within("the restart", async {
        while restarts(&node, "program") < 1.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let summary = within("the end", node.shutdown()).await.unwrap();
    assert!(summary.drained, "{summary:?}");
    told.try_recv().unwrap();
}

/// A node on QUIC and TCP whose links run on so many threads.
async fn start_spread(seed: u8, link_threads: u32, peer: Option<&str>, dir: &Path) -> RunHandle {
    let mut config = MeshConfig::default();
    config.transport.listen =
        ["quic://127.0.0.1:0", "tcp://127.0.0.1:0"].map(|url| url.parse().unwrap()).into();
    config.transport.link_threads = LinkThreads::Exactly(link_threads);
    config.transport.peers = peer.into_iter().map(|url| url.parse().unwrap()).collect();
    let node = MeshNodeBuilder::new()
        .config(config)
        .data_dir(dir)
        .identity(MeshIdentity::from_seed([seed; 32]))
        .health_listen(HealthListen::Off)
        .build()
        .await
        .unwrap();
    node.run().await.unwrap()
}

#[tokio::test]
async fn links_of_both_transports_are_spread_over_threads_and_talk_across_them() {
    let dirs = tempfile::tempdir().unwrap();
    let hub = start_spread(1, 2, None, &dirs.path().join("hub")).await;
    let url = |scheme: &str| {
        let urls = &hub.listening().urls;
        urls.iter().map(ToString::to_string).find(|url| url.starts_with(scheme)).unwrap()
    };
    let mut spokes = Vec::new();
    for (seed, scheme) in (2..).zip(["quic", "quic", "tcp", "tcp"]) {
        let dir = dirs.path().join(seed.to_string());
        spokes.push(start_spread(seed, 0, Some(&url(scheme)), &dir).await);
        // One after the other, so that it is known who is where.
        within("its link", async {
            while hub.node().peers().await.map_or(true, |peers| peers.len() < spokes.len()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let mut lanes: Vec<(&str, usize)> =
        hub.node().peers().await.unwrap().iter().map(|line| (line.info.remote.scheme(), line.lane)).collect();
    lanes.sort_unstable();
    assert_eq!(lanes, [("quic", 1), ("quic", 2), ("tcp", 1), ("tcp", 2)]);
    for spoke in &spokes {
        assert!(spoke.node().peers().await.unwrap().iter().all(|line| line.lane == 0));
    }
    for from in &spokes {
        for to in spokes.iter().filter(|to| to.node().address() != from.node().address()) {
            talk(from.node(), to.node(), "from one thread to another").await;
        }
        talk(from.node(), hub.node(), "to the hub").await;
    }
    let summary = within("the hub to stop", hub.shutdown()).await.unwrap();
    assert!(summary.drained, "{summary:?}");
    for spoke in spokes {
        within("its end to be seen", async {
            while spoke.node().peers().await.map_or(true, |peers| !peers.is_empty()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        within("a spoke to stop", spoke.shutdown()).await.unwrap();
    }
}
