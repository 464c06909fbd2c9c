//! LinksActor: who is dialled, which of two links stays, who is let in, on which thread a link runs.

use std::{collections::BTreeSet, sync::Arc};

use actix::prelude::*;
use quicprochat_mesh::{
    actors::{
        health::HealthHandle,
        links::{
            AddPeer, LinkBook, LinksActor, LinksParts, ListPeers, NewLink, Origin, PeerName, Peers,
            RemovePeer, ResendLinks, listener,
        },
        mailbox::{self, Seat},
        rate_limiter::PressureGauge,
        supervisor::{StartChild, Supervisor, Tree},
        transport::LinkParts,
    },
    crypto::network_tag,
    error::MeshError,
    messages::{
        health::ReportHealth,
        lifecycle::{BeginDrain, DrainPhase, DrainPlan, ExitReason, PanicNow},
        link::{CloseLink, ForwardBatch, LinkDown, LinkUp},
    },
    proto::verify::Checked,
    testing::{eventually, expect_silence, expect_within, with_virtual_time},
    transport::{
        FrameParts, Lanes, Link, LinkReceiver, MemNetwork, MemPort, MeshTransport, Spawn, TransportAddr,
        TransportManager,
    },
    wire::{
        Address, Frame, LinkId, NetworkId, TrafficClass,
        handshake::{CloseReason, Hello, VERSION},
    },
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::support::*;

struct Node {
    port: Arc<MemPort>,
    signer: Signer,
    actor: Addr<LinksActor>,
    ups: UnboundedReceiver<LinkUp>,
    downs: UnboundedReceiver<LinkDown>,
    new_link: Seat<NewLink>,
    parent: Parent,
    tree: Tree,
    health: UnboundedReceiver<ReportHealth>,
}

fn url(name: &str) -> TransportAddr {
    TransportAddr::mem(name).unwrap()
}

fn start(network: &MemNetwork, name: &str, seed: u8, change: impl FnOnce(&mut LinksParts)) -> Node {
    let signer = Signer::new(seed);
    let port = Arc::new(network.listen(name, signer.key()).unwrap());
    let mut transports = TransportManager::new();
    transports.add(port.clone());
    let tree = Supervisor::root(HealthHandle::new([]));
    let (up_seat, ups) = seat();
    let (down_seat, downs) = seat();
    let (health_seat, health) = seat();
    let (established, ended, new_link) = (Seat::vacant(), Seat::vacant(), Seat::vacant());
    let mut parts = LinksParts {
        identity: signer.identity.clone(),
        network: NETWORK,
        network_secret: None,
        boot_epoch: 1,
        transports: Arc::new(transports),
        arbiters: Vec::new(),
        link: LinkParts {
            own: signer.address(),
            network: NETWORK,
            checked: Checked::default(),
            envelopes: Seat::vacant(),
            announces: Seat::vacant(),
            control: Seat::vacant(),
            egress_full: Seat::vacant(),
            lease: limiter().seat,
            pressure: PressureGauge::default(),
            established: established.clone(),
            ended: ended.clone(),
        },
        supervisor: Seat::held_by(tree.root.clone().recipient()),
        new_link: new_link.clone(),
        link_up: up_seat,
        link_down: down_seat,
        peers: Peers::default(),
        discovery: tokio::sync::watch::channel(None).1,
        keepalive: secs(15),
        health: health_seat,
        book: LinkBook::default(),
        links_max: 64,
        accept_any: true,
        events: quicprochat_mesh::Events::default(),
    };
    change(&mut parts);
    let (guard, parent) = guard();
    // Reachable before it starts to dial.
    let actor = LinksActor::create({
        let (established, ended, new_link) = (established.clone(), ended.clone(), new_link.clone());
        move |ctx| {
            ctx.set_mailbox_capacity(mailbox::SUPERVISOR);
            established.publish(ctx.address().recipient());
            ended.publish(ctx.address().recipient());
            new_link.publish(ctx.address().recipient());
            LinksActor::new(parts, guard)
        }
    });
    let accepting: Arc<dyn MeshTransport> = port.clone();
    tree.root.do_send(StartChild(listener(accepting, new_link.clone())));
    Node { port, signer, actor, ups, downs, new_link, parent, tree, health }
}

fn plain(network: &MemNetwork, name: &str, seed: u8) -> Node {
    start(network, name, seed, |_| {})
}

fn dialling(network: &MemNetwork, name: &str, seed: u8, to: &str) -> Node {
    start(network, name, seed, |parts| parts.peers = vec![url(to)].into())
}

impl Node {
    async fn up(&mut self) -> LinkUp {
        expect_within(&mut self.ups, secs(600)).await
    }

    async fn down(&mut self) -> LinkId {
        expect_within(&mut self.downs, secs(600)).await.0
    }

    /// The first report that satisfies `is_wanted`.
    async fn says(&mut self, what: &str, is_wanted: impl Fn(&str) -> bool) {
        let looked = async {
            while let Some(ReportHealth(report)) = self.health.recv().await {
                if report.detail.as_deref().is_some_and(&is_wanted) {
                    return;
                }
            }
        };
        tokio::time::timeout(secs(600), looked).await.unwrap_or_else(|_| panic!("no report {what}"));
    }

    async fn links(&self) -> Vec<quicprochat_mesh::actors::links::PeerLine> {
        self.actor.send(ListPeers).await.unwrap()
    }
}

/// Closes a link from the side that holds its outlet's actor, as a peer's crash would look.
fn close_all(node: &Node, peer: &Node) {
    node.actor.do_send(RemovePeer(PeerName::Address(peer.signer.address())));
}

#[test]
fn a_configured_peer_is_dialled_and_both_sides_tell_their_router() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = plain(&network, "b", 2);
        let mut a = dialling(&network, "a", 1, "b");
        let (here, there) = (a.up().await, b.up().await);
        assert_eq!((here.peer, there.peer), (b.signer.address(), a.signer.address()));
        assert_eq!(here.transport, "mem");
        assert_eq!((a.links().await.len(), b.links().await.len()), (1, 1));
    });
}

#[test]
fn a_peer_that_goes_away_is_dialled_until_it_is_back() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut a = dialling(&network, "a", 1, "b");
        // Nobody there for an hour.
        expect_silence(&mut a.ups, secs(3600)).await;
        let mut b = plain(&network, "b", 2);
        let first = a.up().await.link;
        b.up().await;
        close_all(&b, &a);
        assert_eq!(a.down().await, first);
        b.down().await;
        assert_ne!(a.up().await.link, first, "a new link");
        b.up().await;
    });
}

#[test]
fn of_two_links_that_crossed_both_ends_keep_the_same_one() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut a = dialling(&network, "a", 1, "b");
        let mut b = dialling(&network, "b", 2, "a");
        a.up().await;
        b.up().await;
        // Long enough for a redial of the loser, if there were one that wins.
        tokio::time::sleep(secs(300)).await;
        let (here, there) = (a.links().await, b.links().await);
        assert_eq!((here.len(), there.len()), (1, 1));
        assert_eq!(here[0].info.channel_binding, there[0].info.channel_binding);
        assert!(here[0].since > secs(200), "it was not replaced again and again: {:?}", here[0].since);
    });
}

#[test]
fn a_peer_that_started_again_takes_the_place_of_its_old_link() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = plain(&network, "b", 2);
        let mut a = dialling(&network, "a", 1, "b");
        a.up().await;
        let old = b.up().await.link;
        tokio::time::sleep(secs(60)).await;
        // The same identity in a later boot, at another place: its old socket is still open.
        let mut again = start(&network, "a-again", 1, |parts| {
            parts.boot_epoch = 2;
            parts.peers = vec![url("b")].into();
        });
        again.up().await;
        assert_eq!(b.down().await, old);
        assert_ne!(b.up().await.link, old);
    });
}

#[test]
fn a_fresh_router_is_told_of_every_link_again() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let (mut b, mut c) = (plain(&network, "b", 2), plain(&network, "c", 3));
        let mut a = start(&network, "a", 1, |parts| parts.peers = vec![url("b"), url("c")].into());
        let mut known = vec![a.up().await.link, a.up().await.link];
        b.up().await;
        c.up().await;
        a.actor.do_send(ResendLinks);
        let mut told = [a.up().await, a.up().await];
        known.sort();
        told.sort_by_key(|up| up.link);
        assert_eq!(told.iter().map(|up| up.link).collect::<Vec<_>>(), known);
        // With an outlet that works.
        assert!(told[0].outlet.try_send(ForwardBatch::default()).is_ok());
    });
}

#[test]
fn a_removed_peer_is_dialled_no_more() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = plain(&network, "b", 2);
        let mut a = dialling(&network, "a", 1, "b");
        let link = a.up().await.link;
        b.up().await;
        let removed = a.actor.send(RemovePeer(PeerName::Url(url("b")))).await.unwrap();
        assert_eq!(removed, [url("b")]);
        assert_eq!(a.down().await, link);
        expect_silence(&mut a.ups, secs(3600)).await;
        assert!(a.links().await.is_empty());
        // Until it is added again.
        a.actor.send(AddPeer(url("b"))).await.unwrap().unwrap();
        a.up().await;
    });
}

#[test]
fn a_scheme_without_a_port_is_refused_by_name() {
    with_virtual_time(|| async {
        let a = plain(&MemNetwork::new(), "a", 1);
        let quic: TransportAddr = "quic://127.0.0.1:1".parse().unwrap();
        let refused = a.actor.send(AddPeer(quic)).await.unwrap();
        assert!(matches!(refused, Err(MeshError::Transport(_))), "{refused:?}");
    });
}

#[test]
fn beyond_its_most_links_a_node_lets_nobody_in() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = start(&network, "b", 2, |parts| parts.links_max = 1);
        let mut a = dialling(&network, "a", 1, "b");
        a.up().await;
        b.up().await;
        let mut c = dialling(&network, "c", 3, "b");
        expect_silence(&mut c.ups, secs(600)).await;
        assert_eq!(b.links().await.len(), 1);
        c.says("of no place", |detail| detail.contains("mem://b: it has no place for another link")).await;
        // There is room again.
        close_all(&a, &b);
        b.down().await;
        c.up().await;
    });
}

#[test]
fn a_peer_of_another_network_is_named_with_the_reason_and_dialled_at_once_when_asked() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let other = NetworkId([9; 16]);
        let stranger = start(&network, "b", 2, |parts| {
            parts.network = other;
            parts.link.network = other;
        });
        let mut a = dialling(&network, "a", 1, "b");
        a.says("of the mismatch", |detail| detail.contains("mem://b: it is on another network")).await;
        // The peer is put right: another process takes its place.
        stranger.port.close().await;
        let mut b = plain(&network, "b", 2);
        let asked = tokio::time::Instant::now();
        a.actor.send(AddPeer(url("b"))).await.unwrap().unwrap();
        a.up().await;
        b.up().await;
        assert!(asked.elapsed() < secs(5), "{:?}", asked.elapsed());
        a.says("without trouble", |detail| detail.starts_with("1 links up") && !detail.contains("mem://b"))
            .await;
        assert_eq!(b.signer.address(), a.links().await[0].address);
    });
}

#[test]
fn a_peer_that_cannot_be_reached_is_named_and_many_are_counted() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut a = start(&network, "a", 1, |parts| {
            parts.peers = Vec::from(["v", "w", "x", "y", "z"].map(url)).into();
        });
        a.says("of five", |detail| detail.contains("mem://v") && detail.contains("and 2 more")).await;
    });
}

#[test]
fn a_link_or_dialler_that_cannot_be_started_leaves_nothing_behind() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        // Nobody starts anything: the supervisor has gone.
        let mut b = start(&network, "b", 2, |parts| {
            parts.supervisor = Seat::vacant();
            parts.links_max = 1;
        });
        for n in 0..3 {
            let (near, _far) = from_afar(&network, &format!("s{n}"), &b, 20 + n, "tcp://192.168.1.9:1").await;
            let (ended, told) = tokio::sync::oneshot::channel();
            b.new_link.outlet().do_send(NewLink { link: near, origin: Origin::Inbound, ended: Some(ended) });
            // At once, and each time: the one before did not stay in the count.
            assert!(tokio::time::timeout(secs(5), told).await.unwrap().is_err());
        }
        b.actor.send(AddPeer(url("c"))).await.unwrap().unwrap();
        b.says("without diallers", |detail| detail == "0 links up, 0 peers dialled").await;
    });
}

/// A link that looks as if it came from `remote`; the other end as well, so that it stays open.
async fn from_afar(network: &MemNetwork, name: &str, to: &Node, seed: u8, remote: &str) -> (Link, Link) {
    let stranger = network.listen(name, Signer::new(seed).key()).unwrap();
    // The listener must not get at it first.
    let apart = format!("{name}-target");
    let target = network.listen(&apart, to.signer.key()).unwrap();
    let far = stranger.dial(&url(&apart)).await.unwrap();
    let mut near = target.accept().await.unwrap();
    near.info.remote = remote.parse().unwrap();
    (near, far)
}

#[test]
fn a_stranger_from_outside_the_lan_is_refused_where_the_node_says_so() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let b = start(&network, "b", 2, |parts| parts.accept_any = false);
        let cases =
            [("tcp://8.8.8.8:1", false), ("tcp://192.168.1.9:1", true), ("tcp://[2001:db8::1]:1", false)];
        for (n, (remote, is_let_in)) in cases.into_iter().enumerate() {
            let seed = 20 + n as u8;
            let (near, mut far) = from_afar(&network, &format!("s{n}"), &b, seed, remote).await;
            b.new_link.outlet().do_send(NewLink { link: near, origin: Origin::Inbound, ended: None });
            let mut frames = Vec::new();
            let hello = tokio::time::timeout(secs(2), far.rx.recv(&mut frames)).await;
            let said_hello = matches!(hello, Ok(Ok(())));
            assert_eq!(said_hello, is_let_in, "{remote}");
        }
    });
}

/// The far end of a link that looks as if it came from `remote`, given to `to`. A hello is said on it.
async fn comes(network: &MemNetwork, to: &Node, seed: u8, remote: &str) -> Link {
    let (near, mut far) = from_afar(network, &format!("s{seed}"), to, seed, remote).await;
    to.new_link.outlet().do_send(NewLink { link: near, origin: Origin::Inbound, ended: None });
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        network_tag: network_tag(&NETWORK),
        network_proof: None,
        features: 0,
        boot_epoch: 1,
        nonce: *b"from far",
        clock_unix_s: 0,
        initial_credit: [1 << 20; 3],
    };
    let frames = [FrameParts::whole(Frame::Hello(hello).encode())];
    // Whoever is turned away may be gone.
    let _ = far.tx.send(TrafficClass::Control, &frames).await;
    far
}

/// What the node says at the end of a link.
async fn goodbye(far: &mut Link) -> Option<CloseReason> {
    let until_end = async {
        let mut reason = None;
        let mut frames = Vec::new();
        while far.rx.recv(&mut frames).await.is_ok() {
            for bytes in frames.drain(..) {
                if let Ok(Frame::Goodbye(goodbye)) = Frame::decode(&bytes) {
                    reason = Some(goodbye.reason);
                }
            }
        }
        reason
    };
    tokio::time::timeout(secs(60), until_end).await.unwrap()
}

#[test]
fn where_all_places_are_taken_the_address_with_most_gives_one_up() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = start(&network, "b", 2, |parts| parts.links_max = 4);
        // One that the node dialled, one old neighbour, and a crowd.
        let _dialled = plain(&network, "d", 9);
        b.actor.send(AddPeer(url("d"))).await.unwrap().unwrap();
        assert_eq!(b.up().await.account, None, "it answers for itself");
        let _old = comes(&network, &b, 20, "tcp://192.0.2.1:1").await;
        let account = b.up().await.account.unwrap();
        assert_eq!(
            account,
            Address(std::net::Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x201]).octets())
        );
        let (mut crowd, mut accounts) = (Vec::new(), BTreeSet::new());
        for seed in [30, 31] {
            crowd.push(comes(&network, &b, seed, &format!("tcp://192.0.2.7:{seed}")).await);
            accounts.insert(b.up().await.account);
        }
        assert_eq!(accounts.len(), 1, "many names, one address");
        // A third of them gets nothing by it.
        let mut third = comes(&network, &b, 32, "tcp://192.0.2.7:32").await;
        assert_eq!(goodbye(&mut third).await, None, "it was turned away before there was a link");
        // Somebody else does, and who gives way is told.
        let _newcomer = comes(&network, &b, 40, "tcp://198.51.100.9:1").await;
        assert_eq!(b.up().await.peer, Signer::new(40).address());
        assert_eq!(goodbye(&mut crowd[1]).await, Some(CloseReason::TooManyLinks));
        b.down().await;
        let mut there: Vec<_> = b.links().await.into_iter().map(|line| line.address).collect();
        let mut expected = [9, 20, 30, 40].map(|seed| Signer::new(seed).address()).to_vec();
        there.sort();
        expected.sort();
        assert_eq!(there, expected);
        // From here on each address has one.
        let mut next = comes(&network, &b, 41, "tcp://203.0.113.9:1").await;
        assert_eq!(goodbye(&mut next).await, None);
        expect_silence(&mut b.ups, secs(60)).await;
    });
}

#[test]
fn a_crowd_that_only_holds_places_gives_way_before_its_hellos() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = start(&network, "b", 2, |parts| parts.links_max = 8);
        let mut silent = Vec::new();
        for seed in 30..38 {
            let (near, far) = from_afar(&network, &format!("s{seed}"), &b, seed, "tcp://192.0.2.7:9").await;
            b.new_link.outlet().do_send(NewLink { link: near, origin: Origin::Inbound, ended: None });
            silent.push(far);
        }
        for seed in 40..44 {
            let at = format!("tcp://198.51.100.{seed}:1");
            silent.push(comes(&network, &b, seed, &at).await);
            assert_eq!(b.up().await.peer, Signer::new(seed).address());
        }
    });
}

/// A medium that panics at the first read.
struct Mine;

impl LinkReceiver for Mine {
    fn recv<'a>(
        &'a mut self,
        _: &'a mut Vec<bytes::Bytes>,
    ) -> quicprochat_mesh::transport::BoxFuture<'a, Result<(), quicprochat_mesh::transport::TransportError>>
    {
        panic!("the mine went off")
    }
}

#[test]
fn a_link_that_crashes_is_forgotten_and_its_dialler_told() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let b = plain(&network, "b", 2);
        let (mut near, _far) = from_afar(&network, "s", &b, 20, "tcp://192.168.1.9:1").await;
        near.rx = Box::new(Mine);
        let (ended, told) = tokio::sync::oneshot::channel();
        b.new_link.outlet().do_send(NewLink { link: near, origin: Origin::Inbound, ended: Some(ended) });
        let reason = tokio::time::timeout(secs(5), told).await.unwrap().unwrap();
        assert_eq!(reason, CloseReason::Unresponsive);
        assert!(b.links().await.is_empty());
    });
}

#[test]
fn a_link_of_an_earlier_registry_is_taken_from_the_router_when_it_ends() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = plain(&network, "b", 2);
        let ended = quicprochat_mesh::actors::transport::LinkEnded {
            link: LinkId(77),
            reason: CloseReason::Unresponsive,
            text: String::new(),
            by_peer: false,
        };
        b.actor.do_send(ended);
        assert_eq!(b.down().await, LinkId(77));
    });
}

#[test]
fn a_registry_that_follows_one_that_crashed_takes_its_links_from_the_router_and_dials_its_peers() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let (book, peers) = (LinkBook::default(), Peers::default());
        let mut b = plain(&network, "b", 2);
        let mut a = start(&network, "a", 1, |parts| {
            (parts.book, parts.peers) = (book.clone(), peers.clone());
        });
        a.actor.send(AddPeer(url("b"))).await.unwrap().unwrap();
        let old = a.up().await.link;
        b.up().await;
        a.actor.do_send(PanicNow(String::new()));
        assert_eq!(a.parent.exit().await, ExitReason::Crashed);
        let mut again = start(&network, "a-again", 1, |parts| {
            (parts.book, parts.peers, parts.boot_epoch) = (book.clone(), peers.clone(), 2);
        });
        assert_eq!(again.down().await, old);
        assert_ne!(again.up().await.link, old, "numbers are not used twice");
    });
}

#[test]
fn a_drain_takes_no_new_links_and_keeps_the_old_ones_to_its_end() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = plain(&network, "b", 2);
        let mut a = dialling(&network, "a", 1, "b");
        a.up().await;
        let kept = b.up().await;
        b.actor.do_send(drain(DrainPhase::Draining));
        b.parent.report(DrainPhase::Draining).await;
        let mut c = dialling(&network, "c", 3, "b");
        expect_silence(&mut c.ups, secs(60)).await;
        let refused = b.actor.send(AddPeer(url("a"))).await.unwrap();
        assert!(matches!(refused, Err(MeshError::Draining)), "{refused:?}");
        expect_silence(&mut b.downs, secs(60)).await;
        assert!(kept.outlet.try_send(ForwardBatch::default()).is_ok());
        b.actor.do_send(drain(DrainPhase::Persisting));
        b.parent.report(DrainPhase::Persisting).await;
        b.actor.do_send(drain(DrainPhase::Cleanup));
        assert_eq!(b.parent.exit().await, ExitReason::Drained);
    });
}

#[test]
fn a_burst_of_links_is_taken_whole() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut b = plain(&network, "b", 2);
        let peers: Vec<Node> = (0..40).map(|n| dialling(&network, &format!("p{n}"), 100 + n, "b")).collect();
        for _ in &peers {
            b.up().await;
        }
        let count = eventually("all links", secs(5), async || {
            let links = b.links().await.len();
            (links == peers.len()).then_some(links)
        })
        .await;
        assert_eq!(count, 40);
        let _ = (&b.port, &b.tree, CloseLink { reason: CloseReason::Removed, text: String::new() });
    });
}

/// Runs `body` in real time, with so many arbiters for links: in virtual time there is one thread.
fn with_arbiters<F: Future>(count: usize, body: impl FnOnce(Vec<Arbiter>, Lanes) -> F) -> F::Output {
    actix::System::new().block_on(async move {
        let arbiters: Vec<Arbiter> = (0..count).map(|_| Arbiter::new()).collect();
        // Links of memory need no tasks of their medium's.
        let lanes = Lanes::new(Spawn::default(), (0..count).map(|_| Spawn::default()));
        body(arbiters, lanes).await
    })
}

fn on(arbiters: &[Arbiter]) -> impl FnOnce(&mut LinksParts) {
    let handles = arbiters.iter().map(Arbiter::handle).collect();
    |parts| parts.arbiters = handles
}

/// A medium that tells which thread reads it.
struct Watched(Box<dyn LinkReceiver>, tokio::sync::mpsc::UnboundedSender<std::thread::ThreadId>);

impl LinkReceiver for Watched {
    fn recv<'a>(
        &'a mut self,
        out: &'a mut Vec<bytes::Bytes>,
    ) -> quicprochat_mesh::transport::BoxFuture<'a, Result<(), quicprochat_mesh::transport::TransportError>>
    {
        // The test has heard enough of it.
        let _ = self.1.send(std::thread::current().id());
        self.0.recv(out)
    }
}

#[test]
fn links_run_on_the_arbiters_of_their_lanes_and_end_with_a_word() {
    with_arbiters(2, |arbiters, lanes| async move {
        let network = MemNetwork::new();
        let mut hub = start(&network, "hub", 1, on(&arbiters));
        let (tell, mut read_on) = tokio::sync::mpsc::unbounded_channel();
        let mut spokes = Vec::new();
        for n in 0..4u8 {
            let mut spoke = plain(&network, &format!("n{n}"), 20 + n);
            let afar = format!("s{n}");
            let (mut near, far) = from_afar(&network, &afar, &hub, 20 + n, "tcp://192.168.1.9:1").await;
            near.lane = lanes.enter();
            near.rx = Box::new(Watched(near.rx, tell.clone()));
            hub.new_link.outlet().do_send(NewLink { link: near, origin: Origin::Inbound, ended: None });
            spoke.new_link.outlet().do_send(NewLink { link: far, origin: Origin::Inbound, ended: None });
            spoke.up().await;
            hub.up().await;
            spokes.push(spoke);
        }
        let mut lanes_used: Vec<usize> = hub.links().await.iter().map(|line| line.lane).collect();
        lanes_used.sort_unstable();
        assert_eq!(lanes_used, [1, 1, 2, 2]);
        let mut threads = std::collections::HashSet::new();
        while let Ok(thread) = read_on.try_recv() {
            threads.insert(thread);
        }
        assert_eq!(threads.len(), 2, "{threads:?}");
        assert!(!threads.contains(&std::thread::current().id()), "the registry's own");

        hub.tree.root.do_send(BeginDrain { reason: "test".into(), plan: DrainPlan::within(secs(30)) });
        let summary = hub.tree.wait().await.unwrap();
        assert!(summary.drained, "{summary:?}");
        for spoke in &mut spokes {
            spoke.down().await;
            assert!(spoke.links().await.is_empty());
        }
        assert_eq!(lanes.links(), [0, 0]);
        for arbiter in arbiters {
            arbiter.stop();
            arbiter.join().unwrap();
        }
    });
}

#[test]
fn a_link_that_crashes_on_its_arbiter_takes_no_other_along() {
    with_arbiters(1, |arbiters, lanes| async move {
        let network = MemNetwork::new();
        let mut hub = start(&network, "hub", 1, on(&arbiters));
        let mut spokes = Vec::new();
        for n in 0..2u8 {
            let mut spoke = plain(&network, &format!("n{n}"), 20 + n);
            let (mut near, far) =
                from_afar(&network, &format!("s{n}"), &hub, 20 + n, "tcp://192.168.1.9:1").await;
            near.lane = lanes.enter();
            hub.new_link.outlet().do_send(NewLink { link: near, origin: Origin::Inbound, ended: None });
            spoke.new_link.outlet().do_send(NewLink { link: far, origin: Origin::Inbound, ended: None });
            spoke.up().await;
            hub.up().await;
            spokes.push(spoke);
            // Between the two.
            let (mut near, _far) =
                from_afar(&network, &format!("m{n}"), &hub, 40 + n, "tcp://192.168.1.9:1").await;
            near.lane = lanes.enter();
            near.rx = Box::new(Mine);
            let (ended, told) = tokio::sync::oneshot::channel();
            hub.new_link.outlet().do_send(NewLink {
                link: near,
                origin: Origin::Inbound,
                ended: Some(ended),
            });
            let reason = tokio::time::timeout(secs(60), told).await.unwrap().unwrap();
            assert_eq!(reason, CloseReason::Unresponsive);
        }
        let lanes_used: Vec<usize> = hub.links().await.iter().map(|line| line.lane).collect();
        assert_eq!(lanes_used, [1, 1]);
        assert_eq!(lanes.links(), [2]);
    });
}

#[test]
fn a_link_whose_arbiter_is_gone_is_forgotten_and_its_dialler_told() {
    with_arbiters(1, |arbiters, lanes| async move {
        let network = MemNetwork::new();
        let hub = start(&network, "hub", 1, on(&arbiters));
        for arbiter in arbiters {
            arbiter.stop();
            arbiter.join().unwrap();
        }
        let (mut near, mut far) = from_afar(&network, "s", &hub, 20, "tcp://192.168.1.9:1").await;
        near.lane = lanes.enter();
        let (ended, told) = tokio::sync::oneshot::channel();
        hub.new_link.outlet().do_send(NewLink { link: near, origin: Origin::Inbound, ended: Some(ended) });
        let reason = tokio::time::timeout(secs(60), told).await.unwrap().unwrap();
        assert_eq!(reason, CloseReason::Unresponsive);
        assert!(far.rx.recv(&mut Vec::new()).await.is_err());
        assert!(hub.links().await.is_empty());
    });
}
