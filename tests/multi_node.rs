//! What a mesh does in production, scenario by scenario, with real nodes over real sockets and disks,
//! through the library that programs embed.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

mod common;

use common::embedded::{Stranger, until, within};
use quicprochat_mesh::{
    DropReason, IncomingAction, MeshConfig, MeshError, MeshIdentity, MeshNode, MeshNodeBuilder, Outbound,
    RunHandle, ShutdownCoordinator,
    actors::links::PeerName,
    clock,
    config::HealthListen,
    crypto::network_id,
    messages::delivery::ProbeAnswer,
    proto::delivery::{
        compose::{Composer, Sequences},
        outbox::End,
    },
    transport::TransportAddr,
    wire::{
        Address, Envelope, EnvelopeKind, Lifetime, MessageUid,
        content::{Content, Sealed},
    },
};

/// Nodes of one test, on directories of their own.
struct Mesh {
    dir: tempfile::TempDir,
}

impl Mesh {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn builder(&self, name: &str, config: &str) -> MeshNodeBuilder {
        let listen =
            "[transport]\nlisten = [\"tcp://127.0.0.1:0\", \"quic://127.0.0.1:0\"]\nkeepalive = \"1s\"\n";
        let mut config = MeshConfig::from_toml(&format!("{listen}{config}")).unwrap();
        config.drain.draining = Duration::from_secs(5);
        MeshNodeBuilder::new().config(config).data_dir(self.path(name)).health_listen(HealthListen::Off)
    }

    async fn start_with(&self, name: &str, config: &str) -> RunHandle {
        self.builder(name, config).build().await.unwrap().run().await.unwrap()
    }

    async fn start(&self, name: &str) -> RunHandle {
        self.start_with(name, "").await
    }

    /// Nodes in a row, over QUIC and TCP in turn, each of which knows the last one.
    async fn line(&self, names: &[&str]) -> Vec<RunHandle> {
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(self.start(name).await);
        }
        for (n, pair) in nodes.windows(2).enumerate() {
            link(&pair[0], &pair[1], ["quic", "tcp"][n % 2]).await;
        }
        for from in &nodes {
            for to in &nodes {
                knows(from, to.node().address()).await;
            }
        }
        nodes
    }
}

fn url(of: &RunHandle, scheme: &str) -> TransportAddr {
    of.listening().urls.iter().find(|url| url.scheme() == scheme).unwrap().clone()
}

async fn link(from: &RunHandle, to: &RunHandle, scheme: &str) {
    from.node().add_peer(url(to, scheme)).await.unwrap();
    until("a link", || async {
        let peers = from.node().peers().await.unwrap();
        peers.iter().any(|peer| peer.address == to.node().address()).then_some(())
    })
    .await;
}

/// Waits until a node has a path to another one, and its key.
async fn knows(from: &RunHandle, to: Address) {
    if from.node().address() == to {
        return;
    }
    until("a path", || async {
        let known = from.node().known().await.unwrap();
        known.iter().any(|known| known.address == to && known.is_routed && known.has_key).then_some(())
    })
    .await;
}

async fn stop(nodes: impl IntoIterator<Item = RunHandle>) {
    for node in nodes {
        let summary = within("a node to stop", node.shutdown()).await.unwrap();
        assert!(summary.drained, "{summary:?}");
    }
}

async fn takes(node: &MeshNode) -> (MessageUid, Vec<u8>) {
    let (message, content) = within("a message", node.receive()).await.unwrap();
    (message.id(), content.to_vec())
}

#[tokio::test]
async fn a_message_crosses_relays_and_its_receipt_comes_back() {
    let mesh = Mesh::new();
    let nodes = mesh.line(&["a", "b", "c", "d"]).await;
    let (a, d) = (nodes[0].node(), nodes[3].node());
    let uid = a.send(Outbound::new(d.address(), "three links")).await.unwrap();
    let (message, content) = within("the message", d.receive()).await.unwrap();
    assert_eq!((message.id(), message.from(), message.hops()), (uid, a.address(), 3));
    assert_eq!(content.as_ref(), b"three links");
    until("the receipt", || async { a.outbox().await.unwrap().is_empty().then_some(()) }).await;
    let mut answers = a.probe(d.address(), true).await.unwrap();
    let mut hops = Vec::new();
    while hops.len() < 3 {
        match within("a hop", answers.recv()).await {
            Some(ProbeAnswer::Hop { address, .. }) => hops.push(address),
            other => panic!("{other:?}"),
        }
    }
    let all: BTreeSet<_> = nodes[1..].iter().map(|node| node.node().address()).collect();
    assert_eq!(hops.into_iter().collect::<BTreeSet<_>>(), all);
    stop(nodes).await;
}

#[tokio::test]
async fn what_is_sent_to_a_node_that_is_away_waits_with_a_relay_and_arrives_once() {
    let mesh = Mesh::new();
    let mut nodes = mesh.line(&["a", "b", "c"]).await;
    let target = nodes[2].node().address();
    stop(nodes.pop()).await;
    let (a, b) = (nodes[0].node().clone(), nodes[1].node().clone());
    let uid = a.send(Outbound::new(target, "later")).await.unwrap();
    until("custody", || async { (b.held().await.unwrap().rows == 1).then_some(()) }).await;
    // The origin goes away as well: the relay has what it acknowledged.
    stop([nodes.remove(0)]).await;
    let c = mesh.start("c").await;
    link(&c, &nodes[0], "quic").await;
    assert_eq!(takes(c.node()).await, (uid, b"later".to_vec()));
    until("the relay to let go", || async { (b.held().await.unwrap().rows == 0).then_some(()) }).await;
    assert!(c.node().inbox(None).await.unwrap().0.is_empty());
    nodes.push(c);
    stop(nodes).await;
}

#[tokio::test]
async fn an_envelope_that_comes_twice_goes_on_once() {
    let mesh = Mesh::new();
    let nodes = mesh.line(&["a", "b"]).await;
    let mut stranger = Stranger::new(7);
    let from = stranger.identity.address();
    let content = Sealed::Content(Content {
        uid: MessageUid([9; 16]),
        name: String::new(),
        sent_at_unix_ms: clock::unix_ms(),
        bytes: "to all".into(),
        follows: None,
    });
    let ten = Lifetime::TEN_MINUTES;
    let news = stranger.envelope(EnvelopeKind::BROADCAST, Address::BROADCAST, &content.encode(), ten);
    let first = nodes[0].node().process_incoming(&from, news.clone()).await.unwrap();
    assert_eq!(first, IncomingAction::Broadcast { links: 1 });
    for _ in 0..5 {
        let again = nodes[0].node().process_incoming(&from, news.clone()).await.unwrap();
        assert_eq!(again, IncomingAction::Dropped(DropReason::Duplicate));
    }
    for node in &nodes {
        assert_eq!(takes(node.node()).await.1, b"to all");
        assert!(node.node().inbox(None).await.unwrap().0.is_empty(), "once");
    }
    stop(nodes).await;
}

#[tokio::test]
async fn a_signature_that_does_not_fit_is_refused_whatever_was_changed() {
    let mesh = Mesh::new();
    let node = mesh.start("a").await;
    let mut stranger = Stranger::new(7);
    let from = stranger.identity.address();
    let to = MeshIdentity::from_seed([3; 32]).address();
    let kind = EnvelopeKind::MESSAGE;
    let good = stranger.envelope(kind, to, b"payload", Lifetime::ONE_DAY);
    let other = stranger.envelope(kind, to, b"another", Lifetime::ONE_DAY);
    // The signature of one under the content of another, and a signature for another network.
    let swapped =
        Envelope::assemble(*good.header(), good.signed(), other.proof().clone(), good.source_key()).unwrap();
    let mut foreign = Stranger::new(7);
    let elsewhere = network_id("another network");
    foreign.composer = Composer::new(foreign.identity.clone(), elsewhere, 1, Sequences::default());
    for forged in [swapped, foreign.envelope(kind, to, b"payload", Lifetime::ONE_DAY)] {
        let error = node.node().process_incoming(&from, forged).await.unwrap_err();
        assert!(matches!(error, MeshError::Crypto(_)), "{error}");
    }
    let verdict = node.node().process_incoming(&from, good).await.unwrap();
    assert_eq!(verdict, IncomingAction::ToCustody);
    stop([node]).await;
}

#[tokio::test]
async fn a_broadcast_reaches_everyone_in_a_ring_once() {
    let mesh = Mesh::new();
    let nodes = mesh.line(&["a", "b", "c", "d"]).await;
    link(&nodes[3], &nodes[0], "quic").await;
    let uid = nodes[1].node().broadcast("hear this", None, None, None).await.unwrap();
    for (n, node) in nodes.iter().enumerate().filter(|(n, _)| *n != 1) {
        assert_eq!(takes(node.node()).await, (uid, b"hear this".to_vec()), "node {n}");
    }
    // A second one has come all the way: no copy of the first is left on any link.
    let second = nodes[1].node().broadcast("and this", None, None, None).await.unwrap();
    for node in [&nodes[0], &nodes[2], &nodes[3]] {
        assert_eq!(takes(node.node()).await.0, second);
        assert!(node.node().inbox(None).await.unwrap().0.is_empty());
    }
    stop(nodes).await;
}

#[tokio::test]
async fn a_neighbour_beyond_its_rate_does_not_slow_another() {
    let mesh = Mesh::new();
    let limits = "[rate_limit]\nmessages_per_s = 40\n";
    let relay = mesh.start_with("relay", limits).await;
    let [noisy, quiet, sink] = ["noisy", "quiet", "sink"].map(|name| mesh.start(name));
    let (noisy, quiet, sink) = (noisy.await, quiet.await, sink.await);
    for node in [&noisy, &quiet, &sink] {
        link(node, &relay, "tcp").await;
    }
    let to = sink.node().address();
    for node in [&noisy, &quiet] {
        knows(node, to).await;
    }
    // Fifteen seconds of what the relay reads of it; the sink's receipts are few.
    const NOISE: usize = 600;
    for n in 0..NOISE {
        noisy.node().send(Outbound::new(to, format!("noise {n}"))).await.unwrap();
    }
    for n in 0..5 {
        quiet.node().send(Outbound::new(to, format!("quiet {n}"))).await.unwrap();
    }
    let (mut heard, mut noise) = (0, 0);
    while heard < 5 {
        let (_, content) = takes(sink.node()).await;
        if content.starts_with(b"quiet") { heard += 1 } else { noise += 1 }
    }
    assert!(noise < NOISE / 2, "the quiet one waited for {noise} of the noisy one's messages");
    while noise < NOISE {
        assert!(takes(sink.node()).await.1.starts_with(b"noise"));
        noise += 1;
    }
    stop([noisy, quiet, sink, relay]).await;
}

#[tokio::test]
async fn many_who_send_through_one_handle_lose_and_repeat_nothing() {
    let mesh = Mesh::new();
    let nodes = mesh.line(&["a", "b"]).await;
    let (a, b) = (nodes[0].node().clone(), nodes[1].node().clone());
    let (to, back) = (b.address(), a.address());
    let mut tasks = Vec::new();
    for task in 0..8 {
        for (from, to) in [(a.clone(), to), (b.clone(), back)] {
            tasks.push(tokio::spawn(async move {
                let mut sent = Vec::new();
                for n in 0..25 {
                    sent.push(from.send(Outbound::new(to, format!("{task}/{n}"))).await.unwrap());
                }
                (to, sent)
            }));
        }
    }
    let mut sent = (BTreeSet::new(), BTreeSet::new());
    for task in tasks {
        let (destination, uids) = task.await.unwrap();
        if destination == to { sent.0.extend(uids) } else { sent.1.extend(uids) }
    }
    for (node, sent) in [(&b, &sent.0), (&a, &sent.1)] {
        let mut received = BTreeSet::new();
        while received.len() < 200 {
            assert!(received.insert(takes(node).await.0), "twice");
        }
        assert_eq!(&received, sent);
        assert!(node.inbox(None).await.unwrap().0.is_empty());
    }
    stop(nodes).await;
}

#[tokio::test]
async fn messages_of_one_sender_arrive_in_the_order_they_were_sent() {
    let mesh = Mesh::new();
    let nodes = mesh.line(&["a", "b", "c"]).await;
    let to = nodes[2].node().address();
    let mut sent = Vec::new();
    for n in 0..100 {
        sent.push(nodes[0].node().send(Outbound::new(to, format!("{n}"))).await.unwrap());
    }
    let mut received = Vec::new();
    while received.len() < sent.len() {
        received.push(takes(nodes[2].node()).await.0);
    }
    assert_eq!(received, sent);
    stop(nodes).await;
}

#[tokio::test]
async fn what_has_expired_is_dropped_on_request_and_what_has_not_stays() {
    let mesh = Mesh::new();
    let node = mesh.start("a").await;
    let mut stranger = Stranger::new(7);
    let from = stranger.identity.address();
    let to = MeshIdentity::from_seed([3; 32]).address();
    let shortest = Lifetime::from_code(0).unwrap();
    for (lifetime, payload) in [(shortest, "brief"), (Lifetime::ONE_DAY, "long")] {
        let envelope = stranger.envelope(EnvelopeKind::MESSAGE, to, payload.as_bytes(), lifetime);
        let verdict = node.node().process_incoming(&from, envelope).await.unwrap();
        assert_eq!(verdict, IncomingAction::ToCustody);
    }
    until("both to be held", || async { (node.node().held().await.unwrap().rows == 2).then_some(()) }).await;
    let report = until("the brief one to expire", || async {
        let report = node.node().gc().await.unwrap();
        (report.held_expired > 0).then_some(report)
    })
    .await;
    assert_eq!((report.held_expired, report.clock_is_trusted), (1, true));
    assert_eq!(node.node().held().await.unwrap().rows, 1);
    stop([node]).await;
}

#[tokio::test]
async fn a_link_that_is_dropped_and_dialled_again_carries_what_waited() {
    let mesh = Mesh::new();
    let nodes = mesh.line(&["a", "b"]).await;
    let (a, b) = (nodes[0].node(), nodes[1].node());
    a.remove_peer(PeerName::Address(b.address())).await.unwrap();
    until("no link", || async { a.peers().await.unwrap().is_empty().then_some(()) }).await;
    let uid = a.send(Outbound::new(b.address(), "after the cut")).await.unwrap();
    link(&nodes[0], &nodes[1], "tcp").await;
    assert_eq!(takes(b).await, (uid, b"after the cut".to_vec()));
    stop(nodes).await;
}

#[tokio::test]
async fn a_node_is_who_it_was_after_a_restart_and_has_what_it_had() {
    let mesh = Mesh::new();
    let node = mesh.start("a").await;
    let address = node.node().address();
    let to = MeshIdentity::from_seed([3; 32]).address();
    let uid = node.node().send(Outbound::new(to, "kept")).await.unwrap();
    let summary = within("a node to stop", node.shutdown()).await.unwrap();
    assert_eq!((summary.drained, summary.undelivered_kept), (true, 1));
    let node = mesh.start("a").await;
    assert_eq!(node.node().address(), address);
    let outbox = until("the outbox", || async {
        let outbox = node.node().outbox().await.unwrap();
        (!outbox.is_empty()).then_some(outbox)
    })
    .await;
    assert_eq!((outbox.len(), outbox[0].uid, outbox[0].destination), (1, uid, to));
    stop([node]).await;
}

#[tokio::test]
async fn a_message_that_is_taken_back_or_expires_ends_as_that() {
    let mesh = Mesh::new();
    let node = mesh.start("a").await;
    let to = MeshIdentity::from_seed([3; 32]).address();
    let taken_back = node.node().send(Outbound::new(to, "not this")).await.unwrap();
    let brief = Outbound { ttl: Some(Duration::from_secs(10)), ..Outbound::new(to, "nobody is there") };
    let brief = node.node().send(brief).await.unwrap();
    let handle = node.node().clone();
    let ends = (handle.wait_for(taken_back), handle.wait_for(brief));
    let cancel = async {
        // Behind the two questions, which are asked first.
        tokio::task::yield_now().await;
        assert!(handle.cancel(taken_back).await.unwrap());
    };
    let (first, second, ()) = within("both to end", async { tokio::join!(ends.0, ends.1, cancel) }).await;
    assert_eq!(first.unwrap().unwrap().end, End::Cancelled);
    assert_eq!(second.unwrap().unwrap().end, End::Expired);
    assert!(!handle.cancel(taken_back).await.unwrap(), "gone");
    stop([node]).await;
}

#[tokio::test]
async fn a_drain_waits_for_the_programs_tasks_and_runs_its_hooks_in_order() {
    let mesh = Mesh::new();
    let coordinator = ShutdownCoordinator::new();
    let order = Arc::new(AtomicUsize::new(0));
    let seen = |at: usize| {
        let order = order.clone();
        move || {
            let order = order.clone();
            async move {
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), at);
                Ok::<_, std::convert::Infallible>(())
            }
        }
    };
    coordinator.on_persist("persist", seen(1));
    coordinator.on_cleanup("cleanup", seen(2));
    let guard = coordinator.task("worker").unwrap();
    let node =
        mesh.builder("a", "").shutdown(coordinator.clone()).build().await.unwrap().run().await.unwrap();
    let worker = {
        let order = order.clone();
        tokio::spawn(async move {
            guard.stopping().await;
            assert_eq!(order.fetch_add(1, Ordering::SeqCst), 0, "its task before its hooks");
            drop(guard);
        })
    };
    stop([node]).await;
    within("the worker", worker).await.unwrap();
    assert_eq!(order.load(Ordering::SeqCst), 3);
    assert!(coordinator.is_stopping());
}

#[test]
fn a_wrong_configuration_is_refused_with_every_mistake_by_name() {
    let misspelt = "[store]\nmailbx_max = \"1GiB\"\n[anounce]\nmax_hops = 3\n";
    let wrong = "[store]\nmailbox_neighbour_percent = 200\n[announce]\nmax_hops = 0\n";
    for (text, names) in [
        (misspelt, ["mailbx_max", "mailbox_max", "anounce"]),
        (wrong, ["mailbox_neighbour_percent", "max_hops", "128"]),
    ] {
        let error = MeshConfig::from_toml(text).and_then(|config| config.validate()).unwrap_err().to_string();
        for named in names {
            assert!(error.contains(named), "{named} is missing in {error}");
        }
    }
}

#[test]
fn every_configuration_comes_back_from_its_own_text() {
    let mut changed = MeshConfig::default();
    changed.store.mailbox_source_percent = 33;
    changed.rate_limit.messages_per_s = 77;
    changed.announce.interval = Duration::from_secs(77);
    for config in [MeshConfig::default(), MeshConfig::constrained(), changed] {
        let text = config.to_toml();
        assert_eq!(MeshConfig::from_toml(&text).unwrap(), config, "{text}");
    }
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_node_at_a_time() {
    let mesh = Mesh::new();
    let node = mesh.start("a").await;
    let second = mesh.builder("a", "").build().await.err().map(|error| error.to_string());
    assert!(second.as_deref().is_some_and(|why| why.contains("in use")), "{second:?}");
    stop([node]).await;
    stop([mesh.start("a").await]).await;
}
