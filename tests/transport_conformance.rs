//! What every medium promises (`transport`'s module documentation), checked with one body a
//! promise on each medium: QUIC and TCP over IPv4 and IPv6 loopback and with links on threads of
//! their own, memory, and the shared medium for what applies to it. What strangers do to listening sockets stands in `transport_hostile.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet, future::Future, pin::pin, sync::Arc, task::Poll, thread::ThreadId, time::Duration,
};

use bytes::Bytes;
use quicprochat_mesh::{
    crypto::{MeshIdentity, compute_address},
    transport::{
        CloseCode, Direction, Lanes, Link, LinkPeer, LinkReceiver, LinkSender, MemNetwork, MeshTransport,
        QuicOptions, QuicPort, RECV_FRAMES_MAX, SharedMedium, SharedMediumOptions, Spawn, Task, TcpOptions,
        TcpPort, TlsIdentity, TransportAddr, TransportError, TransportManager,
    },
    wire::{Address, FrameParts, PublicKey, TrafficClass, limits::FRAME_BYTES_MAX},
};
use tokio::sync::mpsc;

/// Far beyond what any step takes, and short of a stuck test run.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
enum Medium {
    Quic(&'static str),
    Tcp(&'static str),
    Mem,
    Shared,
}

/// A medium with nobody on it yet.
struct World {
    medium: Medium,
    network: MemNetwork,
    air: SharedMedium,
    lanes: Lanes,
}

type Port = Arc<dyn MeshTransport>;

impl World {
    fn new(medium: Medium) -> Self {
        let air = SharedMedium::new(SharedMediumOptions::default());
        Self { medium, network: MemNetwork::new(), air, lanes: Lanes::default() }
    }

    /// With the links of all ports spread over two threads.
    fn on_two_lanes(medium: Medium) -> Self {
        let lanes = Lanes::new(Spawn::default(), [thread().0, thread().0]);
        Self { lanes, ..Self::new(medium) }
    }

    /// A port of node `seed` where the medium puts it.
    async fn port(&self, seed: u8) -> Port {
        let at = match self.medium {
            Medium::Quic(host) => format!("quic://{host}:0"),
            Medium::Tcp(host) => format!("tcp://{host}:0"),
            Medium::Mem => format!("mem://node-{seed}"),
            Medium::Shared => format!("mem-shared://node-{seed}"),
        };
        self.port_at(seed, &at.parse().unwrap()).await.expect("a fresh port")
    }

    async fn port_at(&self, seed: u8, at: &TransportAddr) -> Result<Port, TransportError> {
        let tls = || TlsIdentity::from_pkcs8(&identity(seed).to_pkcs8_der());
        // A dead UDP port says nothing, so that a dial to one lasts as long as this.
        let handshake_timeout = Duration::from_secs(3);
        Ok(match self.medium {
            Medium::Quic(_) => {
                let lanes = self.lanes.clone();
                let options = QuicOptions { handshake_timeout, lanes, ..QuicOptions::default() };
                Arc::new(QuicPort::listen(&tls()?, at, options).await?)
            }
            Medium::Tcp(_) => {
                let lanes = self.lanes.clone();
                let options = TcpOptions { handshake_timeout, lanes, ..TcpOptions::default() };
                Arc::new(TcpPort::listen(&tls()?, at, options).await?)
            }
            Medium::Mem => Arc::new(self.network.listen(at.name().unwrap(), key(seed))?),
            Medium::Shared => Arc::new(self.air.attach(at.name().unwrap())?),
        })
    }

    /// Ports of nodes 1 and 2, and both ends of a link that 1 dialled.
    async fn linked(&self) -> (Port, Port, Link, Link) {
        let (a, b) = (self.port(1).await, self.port(2).await);
        let (here, there) = link(&a, &b).await;
        (a, b, here, there)
    }

    /// True where a class that stands still holds up no other.
    fn classes_are_independent(&self) -> bool {
        !matches!(self.medium, Medium::Tcp(_))
    }
}

/// A thread that runs tasks until nobody can start more there; it tells of each that it began.
fn thread() -> (Spawn, mpsc::UnboundedReceiver<ThreadId>) {
    let (start, mut started) = mpsc::unbounded_channel::<Task>();
    let (tell, begun) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            while let Some(task) = started.recv().await {
                // Most tests do not ask.
                let _ = tell.send(std::thread::current().id());
                tokio::spawn(task);
            }
        });
    });
    (Spawn::with(move |task| drop(start.send(task))), begun)
}

async fn link(from: &Port, to: &Port) -> (Link, Link) {
    let url = to.info().local;
    let (here, there) = within(async { tokio::join!(from.dial(&url), to.accept()) }).await;
    (here.expect("a link"), there.expect("its other end"))
}

fn identity(seed: u8) -> MeshIdentity {
    MeshIdentity::from_seed([seed; 32])
}

fn key(seed: u8) -> PublicKey {
    identity(seed).public_key()
}

fn address(seed: u8) -> Address {
    compute_address(&key(seed))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes for ever")
}

/// A frame that tells its class, its number and its length.
fn frame(class: TrafficClass, number: u32, bytes: usize) -> FrameParts {
    let mut whole = vec![number as u8; bytes.max(5)];
    whole[0] = class as u8;
    whole[1..5].copy_from_slice(&number.to_be_bytes());
    FrameParts::whole(whole)
}

/// Lengths that look random, most of them a message's.
fn length_of(number: u32) -> usize {
    match number.wrapping_mul(2_654_435_761) >> 20 {
        n if n % 29 == 0 => FRAME_BYTES_MAX - n as usize % 300,
        n => 5 + n as usize % 400,
    }
}

fn class_of(number: u32) -> TrafficClass {
    TrafficClass::ALL[(number.wrapping_mul(2_246_822_519) >> 13) as usize % 3]
}

/// Checks frames made by [`frame`]: whole, and in order within their class.
#[derive(Default)]
struct Checker {
    next: [u32; 3],
    seen: u32,
}

impl Checker {
    fn check(&mut self, frame: &[u8]) {
        let class = frame[0] as usize;
        let number = u32::from_be_bytes(frame[1..5].try_into().unwrap());
        assert!(number >= self.next[class], "{number} after {} in class {class}", self.next[class]);
        assert!(frame[5..].iter().all(|byte| *byte == number as u8), "frame {number} is torn");
        self.next[class] = number + 1;
        self.seen += 1;
    }
}

async fn send(tx: &mut Box<dyn LinkSender>, frames: &[FrameParts]) {
    within(tx.send(TrafficClass::Interactive, frames)).await.expect("sent");
}

/// Exactly `count` frames.
async fn receive(rx: &mut Box<dyn LinkReceiver>, count: usize) -> Vec<Bytes> {
    let mut got = Vec::new();
    while got.len() < count {
        let before = got.len();
        within(rx.recv(&mut got)).await.expect("more frames");
        assert!((1..=RECV_FRAMES_MAX).contains(&(got.len() - before)));
    }
    assert_eq!(got.len(), count);
    got
}

/// The error that ends the link, whatever comes before it.
async fn end_of(rx: &mut Box<dyn LinkReceiver>) -> TransportError {
    let mut got = Vec::new();
    loop {
        if let Err(error) = within(rx.recv(&mut got)).await {
            assert_eq!(within(rx.recv(&mut got)).await, Err(error.clone()), "the end stays the end");
            return error;
        }
    }
}

/// Sends until the link is over.
async fn end_of_sending(tx: &mut Box<dyn LinkSender>) -> TransportError {
    within(async {
        loop {
            match tx.send(TrafficClass::Control, &[FrameParts::whole(Bytes::from_static(b"?"))]).await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return error,
            }
        }
    })
    .await
}

macro_rules! on_each_medium {
    ($($body:ident),* $(,)?) => {
        on_each_medium! { @medium quic, World::new(Medium::Quic("127.0.0.1")), $($body)* }
        on_each_medium! { @medium quic_ipv6, World::new(Medium::Quic("[::1]")), $($body)* }
        on_each_medium! { @medium tcp, World::new(Medium::Tcp("127.0.0.1")), $($body)* }
        on_each_medium! { @medium tcp_ipv6, World::new(Medium::Tcp("[::1]")), $($body)* }
        on_each_medium! { @medium quic_on_lanes, World::on_two_lanes(Medium::Quic("127.0.0.1")), $($body)* }
        on_each_medium! { @medium tcp_on_lanes, World::on_two_lanes(Medium::Tcp("127.0.0.1")), $($body)* }
        on_each_medium! { @medium memory, World::new(Medium::Mem), $($body)* }
    };
    (@medium $name:ident, $world:expr, $($body:ident)*) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $body() {
                    super::$body($world).await;
                }
            )*
        }
    };
}

on_each_medium! {
    both_ends_know_each_other,
    a_pin_and_the_own_key_are_checked,
    frames_of_every_size_arrive_whole,
    ten_thousand_frames_each_way_keep_their_order,
    a_dropped_receive_loses_nothing,
    a_dropped_send_loses_and_tears_nothing,
    frames_that_do_not_fit_are_refused_and_the_link_lives,
    a_reader_that_stops_stops_the_writer,
    a_close_arrives_with_its_reason_after_all_frames,
    a_close_arrives_while_the_other_end_sends,
    a_dropped_link_is_seen,
    a_dead_port_is_an_error_soon,
    a_port_in_use_is_named,
    a_closed_port_accepts_and_dials_no_more,
    links_outlive_their_port,
    a_dropped_accept_loses_no_link,
    many_dial_at_once,
    the_manager_dials_by_scheme,
}

/// The shared medium keeps what can be kept where nobody proves who they are and frames may be lost.
mod shared {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        super::a_port_in_use_is_named(World::new(Medium::Shared)).await;
    }

    #[tokio::test]
    async fn a_closed_port_accepts_and_dials_no_more() {
        super::a_closed_port_accepts_and_dials_no_more(World::new(Medium::Shared)).await;
    }

    #[tokio::test]
    async fn links_carry_frames_between_nobodies() {
        let world = World::new(Medium::Shared);
        let (a, b) = (world.port(1).await, world.port(2).await);
        assert!(a.info().shared_medium && a.info().mtu_bytes < FRAME_BYTES_MAX);
        let mut here = a.dial(&b.info().local).await.unwrap();
        for (number, bytes) in [(0, 5), (1, 100), (2, a.info().mtu_bytes)] {
            send(&mut here.tx, &[frame(TrafficClass::Interactive, number, bytes)]).await;
        }
        let mut there = within(b.accept()).await.unwrap();
        assert_eq!((there.peer, here.peer), (LinkPeer::Nobody, LinkPeer::Nobody));
        assert_eq!((there.info.direction, here.info.direction), (Direction::In, Direction::Out));
        let mut checker = Checker::default();
        receive(&mut there.rx, 3).await.iter().for_each(|frame| checker.check(frame));
        send(&mut there.tx, &[FrameParts::whole(Bytes::from_static(b"back"))]).await;
        assert_eq!(receive(&mut here.rx, 1).await, ["back"]);
    }

    #[tokio::test]
    async fn frames_over_the_mtu_are_refused_for_one_and_for_all() {
        let world = World::new(Medium::Shared);
        let (a, b) = (world.port(1).await, world.port(2).await);
        let mtu_bytes = a.info().mtu_bytes;
        let large = [FrameParts::whole(vec![0; mtu_bytes + 1])];
        let expected = TransportError::FrameTooLarge {
            got_bytes: mtu_bytes + 1,
            limit_bytes: mtu_bytes,
            from_peer: false,
        };
        assert_eq!(a.broadcast(&large).await, Err(expected.clone()));
        let mut link = a.dial(&b.info().local).await.unwrap();
        assert_eq!(link.tx.send(TrafficClass::Bulk, &large).await, Err(expected));
        assert_eq!(b.stats().accepted, 0);
    }

    #[tokio::test]
    async fn what_the_medium_cannot_do_it_says() {
        let world = World::new(Medium::Shared);
        let (a, b) = (world.port(1).await, world.port(2).await);
        let pinned = b.info().local.with_pin(Some(address(2)));
        assert!(matches!(a.dial(&pinned).await, Err(TransportError::Unsupported { .. })));
        assert!(matches!(a.dial(&a.info().local).await, Err(TransportError::SelfDial { .. })));
    }

    #[tokio::test]
    async fn a_dropped_receive_loses_nothing() {
        let world = World::new(Medium::Shared);
        let (a, b) = (world.port(1).await, world.port(2).await);
        a.broadcast(&[FrameParts::whole(Bytes::from_static(b"first"))]).await.unwrap();
        let mut link = within(b.accept()).await.unwrap();
        assert_eq!(receive(&mut link.rx, 1).await, ["first"]);
        let mut got = Vec::new();
        assert!(poll_once(link.rx.recv(&mut got)).await.is_none());
        a.broadcast(&[FrameParts::whole(Bytes::from_static(b"second"))]).await.unwrap();
        assert_eq!(receive(&mut link.rx, 1).await, ["second"]);
    }
}

async fn both_ends_know_each_other(world: World) {
    let (a, b, here, there) = world.linked().await;
    assert_eq!(here.peer, LinkPeer::Authenticated(key(2)));
    assert_eq!(there.peer, LinkPeer::Authenticated(key(1)));
    assert_eq!((here.peer.address(), there.peer.address()), (Some(address(2)), Some(address(1))));
    assert_eq!((here.info.direction, there.info.direction), (Direction::Out, Direction::In));
    assert_eq!(here.info.remote, b.info().local);
    assert_eq!(here.info.mtu_bytes, FRAME_BYTES_MAX);
    assert!(!b.info().shared_medium);
    assert!(b.info().local.socket_addr().is_none_or(|at| at.port() != 0), "the real port is told");
    // What the second link knows is bound to the second link.
    assert_eq!(here.info.channel_binding, there.info.channel_binding);
    let (again, _again) = link(&a, &b).await;
    assert_ne!(again.info.channel_binding, here.info.channel_binding);
    assert_ne!(here.info.channel_binding, [0; 32]);
    assert_eq!(b.stats().accepted, 2);
    assert_eq!(a.discover().await, Ok(Vec::new()));
    assert!(matches!(a.broadcast(&[]).await, Err(TransportError::Unsupported { .. })));
}

async fn a_pin_and_the_own_key_are_checked(world: World) {
    let (a, b) = (world.port(1).await, world.port(2).await);
    let url = b.info().local;
    let right = url.clone().with_pin(Some(address(2)));
    assert!(within(a.dial(&right)).await.is_ok());
    let wrong = url.clone().with_pin(Some(address(3)));
    let error = within(a.dial(&wrong)).await.expect_err("another identity");
    assert_eq!(error, TransportError::PinMismatch { url: wrong, expected: address(3), got: address(2) });
    assert!(error.is_peer_fault());
    let error = within(b.dial(&url)).await.expect_err("oneself");
    assert_eq!(error, TransportError::SelfDial { url });
    assert!(error.is_local());
    // Neither stands in the way of the next.
    assert!(within(a.dial(&right)).await.is_ok());
}

async fn frames_of_every_size_arrive_whole(world: World) {
    let (_a, _b, mut here, mut there) = world.linked().await;
    send(&mut here.tx, &[FrameParts::whole(vec![7])]).await;
    assert_eq!(receive(&mut there.rx, 1).await, [vec![7]]);
    let sizes = [5, 6, 127, 255, 256, 257, 1_199, 1_200, 4_096, 16_383, FRAME_BYTES_MAX];
    for class in TrafficClass::ALL {
        let frames: Vec<_> = (0..).zip(sizes).map(|(n, bytes)| frame(class, n, bytes)).collect();
        for (from, to) in [(&mut here.tx, &mut there.rx), (&mut there.tx, &mut here.rx)] {
            let (sent, got) =
                within(async { tokio::join!(from.send(class, &frames), receive(to, frames.len())) }).await;
            sent.expect("sent");
            let expected: Vec<_> = frames.iter().map(FrameParts::to_bytes).collect();
            assert_eq!(got, expected);
        }
    }
}

async fn ten_thousand_frames_each_way_keep_their_order(world: World) {
    const FRAMES: u32 = 10_000;
    let (_a, _b, here, there) = world.linked().await;
    let mut tasks = tokio::task::JoinSet::new();
    let mut halves = Vec::new();
    for link in [here, there] {
        let Link { mut tx, mut rx, .. } = link;
        tasks.spawn(async move {
            let numbers: Vec<_> = (0..FRAMES).collect();
            for batch in numbers.chunks(50) {
                for class in TrafficClass::ALL {
                    let of_class = batch.iter().filter(|n| class_of(**n) == class);
                    let frames: Vec<_> = of_class.map(|n| frame(class, *n, length_of(*n))).collect();
                    tx.send(class, &frames).await.expect("sent");
                }
            }
            Half::Tx(tx)
        });
        tasks.spawn(async move {
            let mut checker = Checker::default();
            let mut got = Vec::new();
            while checker.seen < FRAMES {
                rx.recv(&mut got).await.expect("more frames");
                got.drain(..).for_each(|frame| checker.check(&frame));
            }
            assert_eq!(checker.seen, FRAMES);
            Half::Rx(rx)
        });
    }
    while let Some(half) = within(tasks.join_next()).await {
        halves.push(half.expect("no half fails"));
    }
    let whole = halves.iter().filter(|half| matches!(half, Half::Tx(_) | Half::Rx(_))).count();
    assert_eq!(whole, 4);
}

/// Keeps a half alive until both directions are done.
enum Half {
    Tx(#[expect(dead_code)] Box<dyn LinkSender>),
    Rx(#[expect(dead_code)] Box<dyn LinkReceiver>),
}

/// Polls `future` once and drops it; its result if it was done.
async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn a_dropped_receive_loses_nothing(world: World) {
    const FRAMES: u32 = 2_000;
    let (_a, _b, here, there) = world.linked().await;
    let (mut tx, mut rx) = (here.tx, there.rx);
    let sending = tokio::spawn(async move {
        for n in 0..FRAMES {
            tx.send(class_of(n), &[frame(class_of(n), n, length_of(n))]).await.expect("sent");
        }
        tx
    });
    let (mut checker, mut got, mut dropped) = (Checker::default(), Vec::new(), 0u32);
    within(async {
        while checker.seen < FRAMES {
            match poll_once(rx.recv(&mut got)).await {
                Some(received) => received.expect("more frames"),
                None => {
                    dropped += 1;
                    tokio::task::yield_now().await;
                }
            }
            got.drain(..).for_each(|frame| checker.check(&frame));
        }
    })
    .await;
    assert!(dropped > 0, "no receive was ever dropped: the test shows nothing");
    let _tx = within(sending).await.expect("all was sent");
}

async fn a_dropped_send_loses_and_tears_nothing(world: World) {
    let (_a, _b, here, there) = world.linked().await;
    let (mut tx, mut rx) = (here.tx, there.rx);
    // Sends are polled once and dropped until so much is unwritten that no more is taken.
    let (class, mut sent) = (TrafficClass::Bulk, 0u32);
    let refused = within(async {
        loop {
            match poll_once(tx.send(class, &[frame(class, sent, length_of(sent))])).await {
                Some(Err(error)) => return error,
                Some(Ok(())) | None => sent += 1,
            }
        }
    })
    .await;
    assert!(matches!(refused, TransportError::Backlogged { .. }), "{refused:?}");
    assert!(refused.is_local() && !refused.ends_link());
    assert!(tx.unwritten_bytes(class) > 0);
    let flushing = tokio::spawn(async move {
        tx.send(class, &[]).await.expect("the rest goes out");
        assert_eq!(tx.unwritten_bytes(class), 0);
        tx
    });
    let mut checker = Checker::default();
    let mut got = Vec::new();
    while checker.seen < sent {
        within(rx.recv(&mut got)).await.expect("more frames");
        got.drain(..).for_each(|frame| checker.check(&frame));
    }
    assert_eq!((checker.seen, checker.next[class as usize]), (sent, sent), "each once");
    let _tx = within(flushing).await.expect("flushed");
}

async fn frames_that_do_not_fit_are_refused_and_the_link_lives(world: World) {
    let (_a, _b, mut here, mut there) = world.linked().await;
    let fits = FrameParts::whole(Bytes::from_static(b"fits"));
    let large = FrameParts::whole(vec![0; FRAME_BYTES_MAX + 1]);
    let error = within(here.tx.send(TrafficClass::Control, &[fits.clone(), large])).await.expect_err("large");
    assert_eq!(
        error,
        TransportError::FrameTooLarge {
            got_bytes: FRAME_BYTES_MAX + 1,
            limit_bytes: FRAME_BYTES_MAX,
            from_peer: false
        }
    );
    assert!(error.is_local() && !error.ends_link());
    let error = within(here.tx.send(TrafficClass::Bulk, &[FrameParts::whole(Bytes::from_static(b""))]))
        .await
        .expect_err("empty");
    assert_eq!(error, TransportError::EmptyFrame { from_peer: false });
    // Nothing of the refused batches went out.
    send(&mut here.tx, &[FrameParts::whole(Bytes::from_static(b"good"))]).await;
    assert_eq!(receive(&mut there.rx, 1).await, ["good"]);
}

async fn a_reader_that_stops_stops_the_writer(world: World) {
    // The kernel's socket buffers count too, and they are large on TCP.
    let bound_bytes = if world.classes_are_independent() { 2 << 20 } else { 64 << 20 };
    let (_a, _b, here, there) = world.linked().await;
    let (mut tx, mut rx) = (here.tx, there.rx);
    let (class, mut sent) = (TrafficClass::Bulk, 0u32);
    // A send that makes no progress for this long waits for the reader.
    let stuck = Duration::from_millis(500);
    loop {
        let batch = [frame(class, sent, FRAME_BYTES_MAX)];
        sent += 1;
        if tokio::time::timeout(stuck, tx.send(class, &batch)).await.is_err() {
            break;
        }
        assert!(sent as usize * FRAME_BYTES_MAX < bound_bytes, "nothing stops the writer");
    }
    assert!(tx.unwritten_bytes(class) <= 2 * FRAME_BYTES_MAX + 1_024, "{}", tx.unwritten_bytes(class));
    let mut expected = sent;
    if world.classes_are_independent() {
        let control = [frame(TrafficClass::Control, 0, 100)];
        within(tx.send(TrafficClass::Control, &control)).await.expect("control has room of its own");
        expected += 1;
    }
    let resumed = tokio::spawn(async move {
        tx.send(class, &[]).await.expect("resumed");
        tx
    });
    let mut checker = Checker::default();
    let mut got = Vec::new();
    while checker.seen < expected {
        within(rx.recv(&mut got)).await.expect("more frames");
        got.drain(..).for_each(|frame| checker.check(&frame));
    }
    assert_eq!(checker.next[class as usize], sent);
    let _tx = within(resumed).await.expect("the writer goes on");
}

async fn a_close_arrives_with_its_reason_after_all_frames(world: World) {
    let (_a, _b, mut here, mut there) = world.linked().await;
    let frames: Vec<_> = (0..50).map(|n| frame(TrafficClass::Interactive, n, length_of(n))).collect();
    let reading = tokio::spawn(async move {
        let mut checker = Checker::default();
        let mut got = Vec::new();
        let end = loop {
            let received = within(there.rx.recv(&mut got)).await;
            got.drain(..).for_each(|frame| checker.check(&frame));
            if let Err(end) = received {
                break end;
            }
        };
        let refused = end_of_sending(&mut there.tx).await;
        (checker.seen, end, refused)
    });
    send(&mut here.tx, &frames).await;
    within(here.tx.close(CloseCode(77), "maintenance until noon")).await;
    within(here.tx.close(CloseCode(78), "again")).await;
    assert_eq!(end_of(&mut here.rx).await, TransportError::LinkClosed);
    assert_eq!(end_of_sending(&mut here.tx).await, TransportError::LinkClosed);
    let (seen, end, refused) = within(reading).await.expect("the reader ends");
    assert_eq!(seen, 50);
    assert_eq!(end, TransportError::Closed { code: CloseCode(77), reason: "maintenance until noon".into() });
    assert!(refused.ends_link() && !refused.is_peer_fault(), "{refused:?}");
}

async fn a_close_arrives_while_the_other_end_sends(world: World) {
    let (_a, _b, mut here, there) = world.linked().await;
    let (mut tx, mut rx) = (there.tx, there.rx);
    let sending = tokio::spawn(async move {
        loop {
            let batch = [frame(TrafficClass::Bulk, 0, FRAME_BYTES_MAX)];
            if let Err(error) = tx.send(TrafficClass::Bulk, &batch).await {
                return error;
            }
        }
    });
    // Frames lie unread here when the link closes.
    within(here.rx.recv(&mut Vec::new())).await.expect("a first frame");
    let (end, ()) = tokio::join!(end_of(&mut rx), within(here.tx.close(CloseCode(16), "enough")));
    assert_eq!(end, TransportError::Closed { code: CloseCode(16), reason: "enough".into() });
    assert!(within(sending).await.expect("the writer ends").ends_link());
}

async fn a_dropped_link_is_seen(world: World) {
    let (_a, _b, here, mut there) = world.linked().await;
    drop(here);
    let end = end_of(&mut there.rx).await;
    assert!(matches!(end, TransportError::Lost { .. }), "{end:?}");
    assert!(!end.is_peer_fault() && !end.is_local() && end.ends_link());
    assert!(end_of_sending(&mut there.tx).await.ends_link());
}

async fn a_dead_port_is_an_error_soon(world: World) {
    let (a, b) = (world.port(1).await, world.port(2).await);
    let url = b.info().local;
    within(b.close()).await;
    drop(b);
    let began = tokio::time::Instant::now();
    let error = within(a.dial(&url)).await.expect_err("nobody is there");
    let expected = match world.medium {
        Medium::Quic(_) => TransportError::TimedOut { url, after_ms: 3_000 },
        _ => TransportError::Refused { url },
    };
    assert_eq!(error, expected);
    assert!(!error.is_local() && !error.is_peer_fault(), "it may come back");
    assert!(began.elapsed() < Duration::from_secs(10));
}

async fn a_port_in_use_is_named(world: World) {
    let first = world.port(1).await;
    let url = first.info().local;
    let error = world.port_at(2, &url).await.err().expect("it is taken");
    assert_eq!(error, TransportError::PortInUse { url: url.clone() });
    assert!(error.is_local());
    assert!(error.to_string().contains(&url.to_string()), "{error}");
}

async fn a_closed_port_accepts_and_dials_no_more(world: World) {
    let (a, b) = (world.port(1).await, world.port(2).await);
    let url = a.info().local;
    let waiting = tokio::spawn({
        let a = Arc::clone(&a);
        async move { a.accept().await.map(|_| ()) }
    });
    within(a.close()).await;
    within(a.close()).await;
    assert_eq!(within(waiting).await.expect("no panic"), Err(TransportError::PortClosed));
    assert_eq!(within(a.accept()).await.map(|_| ()), Err(TransportError::PortClosed));
    assert_eq!(within(a.dial(&b.info().local)).await.map(|_| ()), Err(TransportError::PortClosed));
    assert_eq!(within(a.discover()).await, Err(TransportError::PortClosed));
    // The place is free again; a socket that links share takes a moment.
    let again = within(async {
        loop {
            match world.port_at(3, &url).await {
                Err(TransportError::PortInUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => return other,
            }
        }
    });
    again.await.expect("free again");
}

async fn links_outlive_their_port(world: World) {
    let (a, b, mut here, mut there) = world.linked().await;
    within(a.close()).await;
    within(b.close()).await;
    drop((a, b));
    send(&mut here.tx, &[frame(TrafficClass::Interactive, 0, 100)]).await;
    send(&mut there.tx, &[frame(TrafficClass::Interactive, 0, 100)]).await;
    receive(&mut there.rx, 1).await;
    receive(&mut here.rx, 1).await;
    within(here.tx.close(CloseCode(20), "drained")).await;
    assert_eq!(
        end_of(&mut there.rx).await,
        TransportError::Closed { code: CloseCode(20), reason: "drained".into() }
    );
}

async fn a_dropped_accept_loses_no_link(world: World) {
    let (a, b) = (world.port(1).await, world.port(2).await);
    let url = b.info().local;
    let dialling = tokio::spawn(async move { (a.dial(&url).await.expect("a link"), a) });
    let accepted = within(async {
        loop {
            match poll_once(b.accept()).await {
                Some(link) => return link.expect("a link"),
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert_eq!(accepted.peer, LinkPeer::Authenticated(key(1)));
    let _held = within(dialling).await;
}

async fn many_dial_at_once(world: World) {
    const NODES: u8 = 20;
    let hub = world.port(1).await;
    let mut dialling = tokio::task::JoinSet::new();
    for seed in 2..2 + NODES {
        let (port, url) = (world.port(seed).await, hub.info().local);
        dialling.spawn(async move { (port.dial(&url).await.expect("a link"), port) });
    }
    let mut peers = BTreeSet::new();
    let mut held = Vec::new();
    for _ in 0..NODES {
        let link = within(hub.accept()).await.expect("each is accepted");
        peers.insert(link.peer.public_key().copied().expect("authenticated"));
        held.push(link);
    }
    assert_eq!(peers, (2..2 + NODES).map(key).collect());
    assert_eq!(within(dialling.join_all()).await.len(), usize::from(NODES));
}

async fn the_manager_dials_by_scheme(world: World) {
    let (a, b) = (world.port(1).await, world.port(2).await);
    let mut manager = TransportManager::new();
    let url = b.info().local;
    let nobody = manager.dial(&url).await.expect_err("no ports");
    assert!(matches!(nobody, TransportError::NoPort { .. }) && nobody.is_local());
    manager.add(a);
    assert_eq!(manager.schemes(), [url.scheme()]);
    let link = within(manager.dial(&url)).await.expect("a link");
    assert_eq!(link.peer, LinkPeer::Authenticated(key(2)));
    let other = TransportAddr::named("pigeon", "loft").unwrap();
    let error = manager.dial(&other).await.expect_err("no such port");
    assert!(error.to_string().contains("pigeon"), "{error}");
}

/// A port on all addresses is reached over both families and by name, and a port on one address
/// reaches the other family.
#[tokio::test]
async fn address_families_mix() {
    for medium in [Medium::Quic("[::]"), Medium::Tcp("[::]")] {
        let world = World::new(medium);
        let everywhere = world.port(1).await;
        let port = everywhere.info().local.socket_addr().unwrap().port();
        let scheme = everywhere.info().scheme;
        for (seed, (from, to)) in (2..).zip([
            ("127.0.0.1", "[::1]"),
            ("[::1]", "127.0.0.1"),
            ("[::]", "127.0.0.1"),
            ("[::1]", "localhost"),
        ]) {
            let dialler =
                world.port_at(seed, &format!("{scheme}://{from}:0").parse().unwrap()).await.unwrap();
            let url: TransportAddr = format!("{scheme}://{to}:{port}").parse().unwrap();
            let (here, there) = within(async { tokio::join!(dialler.dial(&url), everywhere.accept()) }).await;
            let (here, there) = (here.expect("a link"), there.expect("its other end"));
            assert_eq!(there.peer, LinkPeer::Authenticated(key(seed)));
            let seen = there.info.remote.socket_addr().unwrap();
            assert!(seen.ip().is_loopback(), "an IPv4 peer is shown as one: {seen}");
            assert_eq!(here.info.remote, url, "as dialled");
        }
    }
}

/// Where links have threads, each is on one, in turn; its handshake and what drives it run there, and
/// its place is free when it is gone.
#[tokio::test]
async fn links_are_spread_over_the_threads_they_have() {
    for (medium, tasks_of_a_link) in [(Medium::Quic("127.0.0.1"), 2), (Medium::Tcp("127.0.0.1"), 1)] {
        let ((first, begun_on_first), (second, begun_on_second)) = (thread(), thread());
        let mut hub = World::new(medium);
        hub.lanes = Lanes::new(Spawn::default(), [first, second]);
        let (port, elsewhere) = (hub.port(1).await, World::new(medium));
        let mut held = Vec::new();
        for seed in 2..6 {
            let spoke = elsewhere.port(seed).await;
            // Two that it accepts, two that it dials.
            let (near, far) = match seed % 2 {
                0 => link(&port, &spoke).await,
                _ => {
                    let (far, near) = link(&spoke, &port).await;
                    (near, far)
                }
            };
            assert_eq!(far.lane.number(), 0);
            held.push((near, far, spoke));
        }
        let lanes: Vec<usize> = held.iter().map(|(near, ..)| near.lane.number()).collect();
        assert_eq!((lanes.iter().sum::<usize>(), hub.lanes.links()), (6, vec![2, 2]), "{lanes:?}");
        for mut begun in [begun_on_first, begun_on_second] {
            let mut threads = BTreeSet::new();
            let mut tasks = 0;
            while let Ok(thread) = begun.try_recv() {
                threads.insert(format!("{thread:?}"));
                tasks += 1;
            }
            assert_eq!((threads.len(), tasks), (1, 2 * tasks_of_a_link), "{threads:?}");
        }
        for (near, far, _) in &mut held {
            send(&mut near.tx, &[frame(TrafficClass::Interactive, 7, 100)]).await;
            let mut frames = Vec::new();
            within(far.rx.recv(&mut frames)).await.expect("a frame");
            Checker::default().check(&frames[0]);
        }
        held.clear();
        assert_eq!(hub.lanes.links(), [0, 0]);
    }
}
