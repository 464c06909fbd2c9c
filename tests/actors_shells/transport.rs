//! TransportActor with its reader and writer, over links in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use bytes::Bytes;
use quicprochat_mesh::{
    actors::{
        mailbox::{self, Seat},
        rate_limiter::{PressureGauge, RateLimiterParts},
        transport::{LinkEnded, LinkEstablished, LinkParts, TransportActor},
    },
    clock,
    messages::{
        lifecycle::{DrainPhase, ExitReason},
        limit::RequestLease,
        link::{
            AnnounceVerified, CloseLink, EgressFull, EnvelopesVerified, ForwardBatch, LinkControl,
            NeighbourControl,
        },
    },
    proto::{
        credit::WINDOW_BYTES,
        lease::LeaseConfig,
        link::{Direction, HELLO_TIMEOUT, LinkConfig},
        verify::{Checked, InboundEnvelope, Verified},
    },
    testing::{Probe, expect_silence, expect_within, with_virtual_time},
    transport::{BoxFuture, Link, LinkReceiver, MemNetwork, MeshTransport, TransportAddr, TransportError},
    wire::{
        EnvelopeKind, Frame, FrameParts, LinkId, NetworkId, PublicKey, TrafficClass, control::RefuseReason,
        handshake::CloseReason,
    },
};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::support::*;

mod flow;

const KEEPALIVE: Duration = Duration::from_secs(15);

/// One end of a link that an actor runs.
struct End {
    actor: Addr<TransportActor>,
    established: UnboundedReceiver<LinkEstablished>,
    ended: UnboundedReceiver<LinkEnded>,
    envelopes: UnboundedReceiver<EnvelopesVerified>,
    announces: UnboundedReceiver<AnnounceVerified>,
    control: UnboundedReceiver<LinkControl>,
    egress_full: UnboundedReceiver<EgressFull>,
    parent: Parent,
}

/// What the node around a link gives it.
#[derive(Clone)]
struct Around {
    lease: Seat<RequestLease>,
    pressure: PressureGauge,
    checked: Checked,
    /// Its router reads no mail.
    is_busy: bool,
}

impl Around {
    fn limited(config: LeaseConfig) -> Self {
        let parts = RateLimiterParts { config, ..RateLimiterParts::default() };
        let (pressure, checked) = (parts.gauge.clone(), Checked::default());
        Self { pressure, lease: limiter_of(parts).seat, checked, is_busy: false }
    }

    fn plain() -> Self {
        Self::limited(LeaseConfig::default())
    }
}

fn run(who: &Signer, peer: PublicKey, link: Link, direction: Direction, network: NetworkId) -> End {
    run_in(Around::plain(), who, peer, link, direction, network)
}

fn run_in(
    around: Around,
    who: &Signer,
    peer: PublicKey,
    link: Link,
    direction: Direction,
    network: NetworkId,
) -> End {
    let (mut envelopes_seat, envelopes) = seat();
    if around.is_busy {
        envelopes_seat = Seat::held_by(Probe::deaf(1));
    }
    let (announces_seat, announces) = seat();
    let (control_seat, control) = seat();
    let (full_seat, egress_full) = seat();
    // A registry that tells its router at once.
    let (established_seat, mut heard) = seat::<LinkEstablished>();
    let (told, established) = mpsc::unbounded_channel();
    actix_rt::spawn(async move {
        while let Some(mut up) = heard.recv().await {
            up.told.now();
            // A test that does not ask has no use for it.
            let _ = told.send(up);
        }
    });
    let (ended_seat, ended) = seat();
    let parts = LinkParts {
        own: who.address(),
        network,
        checked: around.checked,
        envelopes: envelopes_seat,
        announces: announces_seat,
        control: control_seat,
        egress_full: full_seat,
        lease: around.lease,
        pressure: around.pressure,
        established: established_seat,
        ended: ended_seat,
    };
    let config = LinkConfig {
        network,
        network_secret: None,
        own_key: who.key(),
        peer: Some(peer),
        channel_binding: link.info.channel_binding,
        direction,
        features: 0,
        boot_epoch: 3,
        clock_unix_s: clock::unix_s(),
        initial_credit: WINDOW_BYTES,
        keepalive: KEEPALIVE,
        hello_timeout: HELLO_TIMEOUT,
    };
    let (guard, parent) = guard();
    let nonce = [direction as u8 + 1; 8];
    let actor = TransportActor::create(move |ctx| {
        ctx.set_mailbox_capacity(mailbox::TRANSPORT);
        TransportActor::new(LinkId(1), link, config, nonce, parts, guard)
    });
    End { actor, established, ended, envelopes, announces, control, egress_full, parent }
}

impl End {
    async fn up(&mut self) -> LinkEstablished {
        expect_within(&mut self.established, PATIENCE).await
    }

    async fn over(&mut self) -> LinkEnded {
        expect_within(&mut self.ended, PATIENCE).await
    }

    fn send(&self, envelopes: Vec<Verified<InboundEnvelope>>) {
        self.actor.do_send(ForwardBatch { control: Vec::new(), envelopes });
    }
}

/// Both ends of a fresh link.
async fn link(a: &Signer, b: &Signer) -> (Link, Link) {
    let network = MemNetwork::new();
    let (here, there) = (network.listen("a", a.key()).unwrap(), network.listen("b", b.key()).unwrap());
    let dialled = here.dial(&TransportAddr::mem("b").unwrap()).await.unwrap();
    (dialled, there.accept().await.unwrap())
}

async fn pair(a: &Signer, b: &Signer) -> (End, End) {
    let (out, back) = link(a, b).await;
    let (mut out, mut back) =
        (run(a, b.key(), out, Direction::Out, NETWORK), run(b, a.key(), back, Direction::In, NETWORK));
    out.up().await;
    back.up().await;
    (out, back)
}

/// A link in the test's own hands, with what was read and not looked at.
struct Raw(Link, VecDeque<Bytes>);

/// An actor on one end, the bare link in the test's hands on the other, the hello done.
async fn half(a: &Signer, b: &Signer) -> (End, Raw) {
    half_in(Around::plain(), a, b, None).await
}

/// The same, over a medium that needs credit where `credit` says what the other end grants.
async fn half_in(around: Around, a: &Signer, b: &Signer, credit: Option<[u32; 3]>) -> (End, Raw) {
    let (mut out, raw) = link(a, b).await;
    out.info.streams_per_class = credit.is_none();
    let mut raw = Raw(raw, VecDeque::new());
    let mut end = run_in(around, a, b.key(), out, Direction::Out, NETWORK);
    let hello = next_frame(&mut raw, |frame| matches!(frame, Frame::Hello(_))).await;
    let Frame::Hello(mut hello) = hello else { unreachable!() };
    hello.nonce = [9; 8];
    hello.initial_credit = credit.unwrap_or(hello.initial_credit);
    write(&mut raw, Frame::Hello(hello)).await;
    end.up().await;
    (end, raw)
}

async fn write(raw: &mut Raw, frame: Frame) {
    raw.0.tx.send(frame.class(), &[FrameParts::from(&frame)]).await.unwrap();
}

/// The next frame of the wanted kind; others are skipped.
async fn next_frame(raw: &mut Raw, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
    let read = async {
        let mut frames = Vec::new();
        loop {
            while let Some(bytes) = raw.1.pop_front() {
                let frame = Frame::decode(&bytes).unwrap();
                if wanted(&frame) {
                    return frame;
                }
            }
            raw.0.rx.recv(&mut frames).await.unwrap();
            raw.1.extend(frames.drain(..));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the frame comes")
}

fn nodes() -> (Signer, Signer, Signer) {
    (Signer::new(1), Signer::new(2), Signer::new(3))
}

/// A packet that carries its source's key.
fn keyed(from: &mut Signer, to: &Signer, payload: &[u8]) -> Verified<InboundEnvelope> {
    let mut made = from.compose(EnvelopeKind::MESSAGE, to.address(), payload);
    made.envelope = made.envelope.with_source_key(from.key());
    from.inbound(made)
}

#[test]
fn both_ends_hear_of_each_other_and_carry_envelopes_and_announces() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (out, back) = link(&a, &b).await;
        let mut out = run(&a, b.key(), out, Direction::Out, NETWORK);
        let mut back = run(&b, a.key(), back, Direction::In, NETWORK);
        assert_eq!(out.up().await.hello.boot_epoch, 3);
        back.up().await;
        let packet = keyed(&mut source, &b, b"sealed");
        let id = packet.packet_id;
        out.send(vec![packet]);
        let got = expect_within(&mut back.envelopes, PATIENCE).await;
        assert_eq!((got.batch[0].packet_id, got.batch[0].source), (id, source.address()));
        assert!(got.permit.is_some(), "it counts as in flight until the router is done");

        let announce = source.announce((1, 1)).announce.clone();
        out.actor.do_send(ForwardBatch { control: vec![Frame::Announce(announce)], envelopes: Vec::new() });
        let got = expect_within(&mut back.announces, PATIENCE).await;
        assert_eq!(got.announce.origin, source.address());
    });
}

#[test]
fn an_envelope_of_an_unknown_source_waits_for_its_key() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut out, mut back) = pair(&a, &b).await;
        let packet = source.packet(EnvelopeKind::MESSAGE, b.address(), b"sealed");
        let id = packet.packet_id;
        out.send(vec![packet]);
        let asked = expect_within(&mut out.control, PATIENCE).await;
        match asked.control {
            NeighbourControl::Frame(frame) => {
                let Frame::KeyNeeded(of) = *frame else { panic!("{frame:?}") };
                assert_eq!(of, source.address());
            }
            other => panic!("{other:?}"),
        }
        expect_silence(&mut back.envelopes, Duration::from_millis(100)).await;
        let offer = vec![Frame::KeyOffer(source.key())];
        out.actor.do_send(ForwardBatch { control: offer, envelopes: Vec::new() });
        assert_eq!(expect_within(&mut back.envelopes, PATIENCE).await.batch[0].packet_id, id);
    });
}

#[test]
fn a_key_record_is_verified_before_the_router_hears_of_it() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (out, mut back) = pair(&a, &b).await;
        let good = source.keys().record.signed().clone();
        let mut forged = source.keys().record.signed().clone();
        forged.signature = good.signature;
        for record in [forged, good.clone()] {
            let control = vec![Frame::KeyReply(record)];
            out.actor.do_send(ForwardBatch { control, envelopes: Vec::new() });
        }
        match expect_within(&mut back.control, PATIENCE).await.control {
            NeighbourControl::KeyRecord(record) => assert_eq!(record.signed().signed, good.signed),
            other => panic!("{other:?}"),
        }
        expect_silence(&mut back.control, secs(1)).await;
    });
}

#[test]
fn what_a_slow_link_has_no_room_for_comes_back_and_the_rest_arrives() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut end, mut raw) = half(&a, &b).await;
        // Two megabytes and a half for a reader that does not read.
        let count = 200;
        for _ in 0..count {
            let packet = keyed(&mut source, &b, &[7; 13_000]);
            end.send(vec![packet]);
        }
        let mut unsent = 0;
        while let Ok(Some(full)) = tokio::time::timeout(secs(1), end.egress_full.recv()).await {
            assert_eq!(full.link, LinkId(1));
            unsent += full.envelopes.len();
        }
        assert!(unsent > 50, "{unsent} of {count} had no room");
        for arrived in 0..count - unsent {
            let frame = next_frame(&mut raw, |frame| matches!(frame, Frame::Envelope(..)));
            let frame = tokio::time::timeout(secs(5), frame).await;
            assert!(frame.is_ok(), "{unsent} came back, {arrived} arrived, {count} were sent");
        }
    });
}

#[test]
fn a_silent_peer_is_found_dead_within_two_keepalives() {
    with_virtual_time(|| async {
        let (a, b, _) = nodes();
        let (mut end, _raw) = half(&a, &b).await;
        let since = clock::now();
        let over = end.over().await;
        assert_eq!((over.reason, over.by_peer), (CloseReason::Unresponsive, false));
        assert!(clock::now() - since <= 2 * KEEPALIVE + secs(1), "{:?}", clock::now() - since);
    });
}

#[test]
fn the_peers_goodbye_and_a_vanished_peer_both_end_it() {
    with_virtual_time(|| async {
        let (a, b, _) = nodes();
        let (mut out, mut back) = pair(&a, &b).await;
        let close = CloseLink { reason: CloseReason::Removed, text: "removed by the operator".into() };
        out.actor.do_send(close);
        let (near, far) = (out.over().await, back.over().await);
        assert_eq!((near.reason, near.by_peer), (CloseReason::Removed, false));
        assert_eq!((far.reason, far.by_peer), (CloseReason::Removed, true));
        assert_eq!(out.parent.exit().await, ExitReason::Stopped);
        assert_eq!(back.parent.exit().await, ExitReason::Stopped);

        let (mut end, raw) = half(&a, &b).await;
        drop(raw);
        let over = end.over().await;
        assert_eq!((over.reason, over.by_peer), (CloseReason::Unresponsive, false), "it left without a word");
        assert_eq!(end.parent.exit().await, ExitReason::Stopped);
    });
}

#[test]
fn a_peer_of_another_network_is_told_so() {
    with_virtual_time(|| async {
        let (a, b, _) = nodes();
        let (out, back) = link(&a, &b).await;
        let mut out = run(&a, b.key(), out, Direction::Out, NETWORK);
        let mut back = run(&b, a.key(), back, Direction::In, NetworkId([8; 16]));
        assert_eq!(out.over().await.reason, CloseReason::NetworkMismatch);
        assert_eq!(back.over().await.reason, CloseReason::NetworkMismatch);
        assert!(out.established.try_recv().is_err() && back.established.try_recv().is_err());
    });
}

#[test]
fn a_peer_that_never_says_hello_is_dropped() {
    with_virtual_time(|| async {
        let (a, b, _) = nodes();
        let (out, _raw) = link(&a, &b).await;
        let since = clock::now();
        let mut out = run(&a, b.key(), out, Direction::Out, NETWORK);
        out.over().await;
        assert!(clock::now() - since <= HELLO_TIMEOUT + secs(1));
    });
}

#[test]
fn a_flood_of_false_signatures_ends_the_link_and_passes_nothing() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut end, mut raw) = half(&a, &b).await;
        let good = keyed(&mut source, &b, b"sealed");
        let mut bytes = good.envelope.to_frame(good.ext).to_bytes().to_vec();
        // In the signature, which ends before the 34 bytes of the attached key.
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        let forged = FrameParts::whole(Bytes::from(bytes));
        for _ in 0..40 {
            if raw.0.tx.send(TrafficClass::Interactive, std::slice::from_ref(&forged)).await.is_err() {
                break;
            }
        }
        assert_eq!(end.over().await.reason, CloseReason::ProtocolError);
        assert!(end.envelopes.try_recv().is_err());
    });
}

/// A medium that panics after so many reads.
struct Mine {
    inner: Box<dyn LinkReceiver>,
    reads_left: Arc<AtomicUsize>,
}

impl LinkReceiver for Mine {
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>> {
        let left = self.reads_left.load(Ordering::Relaxed);
        assert!(left > 0, "the mine went off");
        self.reads_left.store(left - 1, Ordering::Relaxed);
        self.inner.recv(out)
    }
}

#[test]
fn a_reader_that_panics_ends_the_link_at_once() {
    with_virtual_time(|| async {
        let (a, b, _) = nodes();
        let (mut out, back) = link(&a, &b).await;
        let reads_left = Arc::new(AtomicUsize::new(1));
        out.rx = Box::new(Mine { inner: out.rx, reads_left });
        let since = clock::now();
        let mut out = run(&a, b.key(), out, Direction::Out, NETWORK);
        let mut back = run(&b, a.key(), back, Direction::In, NETWORK);
        assert_eq!(out.over().await.link, LinkId(1));
        assert_eq!(out.parent.exit().await, ExitReason::Crashed);
        back.over().await;
        assert!(clock::now() - since < secs(1), "not by the silence that follows");
    });
}

#[test]
fn a_drain_writes_what_is_queued_and_says_goodbye() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut out, mut back) = pair(&a, &b).await;
        let count = 50;
        for _ in 0..count {
            let packet = keyed(&mut source, &b, &[7; 1000]);
            out.send(vec![packet]);
        }
        drained(&out.actor, &mut out.parent).await;
        assert_eq!(out.over().await.reason, CloseReason::Shutdown);
        let mut arrived = 0;
        while arrived < count {
            arrived += expect_within(&mut back.envelopes, PATIENCE).await.batch.len();
        }
        let far = back.over().await;
        assert_eq!((far.reason, far.by_peer), (CloseReason::Shutdown, true));
    });
}

#[test]
fn a_drain_says_how_many_frames_its_link_left_unwritten() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut end, _raw) = half(&a, &b).await;
        for _ in 0..50 {
            let packet = keyed(&mut source, &b, &[7; 13_000]);
            end.send(vec![packet]);
        }
        // Its peer reads nothing, so most of them wait.
        assert_eq!(drained(&end.actor, &mut end.parent).await.frames_dropped, 0, "until it closes");
        let dropped = end.parent.report(DrainPhase::Cleanup).await.frames_dropped;
        assert!((30..=50).contains(&dropped), "{dropped}");
    });
}

#[test]
fn what_a_busy_router_has_no_room_for_is_refused_by_name() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let around = Around { is_busy: true, ..Around::plain() };
        let (_end, mut raw) = half_in(around, &a, &b, None).await;
        let mut sent = Vec::new();
        for n in 0..10 {
            let packet = keyed(&mut source, &a, &[n; 100]);
            sent.push(packet.packet_id);
            let frame = packet.envelope.to_frame(packet.ext);
            raw.0.tx.send(packet.envelope.header().class(), &[frame]).await.unwrap();
            // One batch each.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut refused = Vec::new();
        while refused.last() != sent.last() {
            let frame = next_frame(&mut raw, |frame| matches!(frame, Frame::Refuse(_))).await;
            let Frame::Refuse(refuse) = frame else { unreachable!() };
            assert_eq!(refuse.reason, RefuseReason::Congested);
            refused.push(refuse.packet_id);
        }
        // A deaf mailbox takes its capacity and each sender's first.
        assert!(refused.len() >= 7, "{refused:?}");
        assert_eq!(refused, sent[sent.len() - refused.len()..]);
    });
}

#[test]
fn a_reader_stops_while_the_router_has_too_much_of_it() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (out, mut back) = pair(&a, &b).await;
        let in_flight_max = quicprochat_mesh::actors::link_io::IN_FLIGHT_MAX as usize;
        let mut held = Vec::new();
        let mut got = 0;
        for round in 0..in_flight_max / 32 + 8 {
            let packets = (0..32).map(|_| keyed(&mut source, &b, &[round as u8])).collect();
            out.send(packets);
            // The router keeps everything it gets.
            while let Ok(Some(batch)) =
                tokio::time::timeout(Duration::from_millis(1), back.envelopes.recv()).await
            {
                got += batch.batch.len();
                held.push(batch.permit);
            }
        }
        assert!(got <= in_flight_max, "{got}");
        assert!(got > in_flight_max - 128, "{got}");
        held.clear();
        let mut more = 0;
        while more < 8 * 32 {
            more += expect_within(&mut back.envelopes, PATIENCE).await.batch.len();
            if got + more >= in_flight_max + 8 * 32 {
                break;
            }
        }
    });
}
