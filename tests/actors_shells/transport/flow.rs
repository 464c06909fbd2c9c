//! What a link lets through, and when: leases, credit, priorities, pressure.

use quicprochat_mesh::{
    proto::pressure::QUEUED_BYTES_FULL,
    telemetry,
    transport::{TcpOptions, TcpPort, TlsIdentity},
    wire::{
        PacketId, Priority,
        control::{Credit, Refuse, RefuseReason},
    },
};

use super::*;

const CHUNK_BYTES: usize = 13_000;

fn chunk(from: &mut Signer, to: &Signer) -> Verified<InboundEnvelope> {
    from.keyed(Priority::Normal, EnvelopeKind::CHUNK, to.address(), CHUNK_BYTES)
}

fn line(from: &mut Signer, to: &Signer, priority: Priority) -> Verified<InboundEnvelope> {
    from.keyed(priority, EnvelopeKind::MESSAGE, to.address(), 100)
}

fn slow(messages_per_s: u64) -> Around {
    Around::limited(LeaseConfig { messages_per_s, ..LeaseConfig::default() })
}

async fn next_refuse(raw: &mut Raw) -> Refuse {
    match next_frame(raw, |frame| matches!(frame, Frame::Refuse(_))).await {
        Frame::Refuse(refuse) => refuse,
        _ => unreachable!(),
    }
}

async fn send_raw(raw: &mut Raw, packet: &Verified<InboundEnvelope>) {
    let class = packet.envelope.header().class();
    raw.0.tx.send(class, &[packet.envelope.to_frame(packet.ext)]).await.unwrap();
}

/// Ids of what comes within a while.
async fn arrivals(end: &mut End, within: Duration) -> Vec<PacketId> {
    let mut ids = Vec::new();
    while let Ok(Some(batch)) = tokio::time::timeout(within, end.envelopes.recv()).await {
        ids.extend(batch.batch.iter().map(|packet| packet.packet_id));
    }
    ids
}

#[test]
fn a_link_without_a_lease_does_not_read_and_goes_on_with_one() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let around = Around { lease: Seat::vacant(), ..Around::plain() };
        let (mut end, mut raw) = half_in(around.clone(), &a, &b, None).await;
        let packet = line(&mut source, &a, Priority::Normal);
        send_raw(&mut raw, &packet).await;
        expect_silence(&mut end.envelopes, Duration::from_millis(300)).await;
        let limiter = limiter();
        around.lease.publish(limiter.actor.recipient());
        assert_eq!(expect_within(&mut end.envelopes, secs(1)).await.batch[0].packet_id, packet.packet_id);
    });
}

#[test]
fn what_no_lease_comes_for_is_refused_with_a_time_and_pings_are_answered() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut end, mut raw) = half_in(slow(1), &a, &b, None).await;
        for _ in 0..300 {
            let packet = line(&mut source, &a, Priority::Normal);
            send_raw(&mut raw, &packet).await;
        }
        let refuse = next_refuse(&mut raw).await;
        assert_eq!(refuse.reason, RefuseReason::RateLimited);
        assert!(refuse.retry_after_s >= 1 && refuse.retry_after_s <= 130, "{}", refuse.retry_after_s);
        write(&mut raw, Frame::Ping(77)).await;
        next_frame(&mut raw, |frame| matches!(frame, Frame::Pong(77))).await;
        let through = arrivals(&mut end, secs(1)).await.len();
        assert!((64..=140).contains(&through), "{through} of 300 got through");
    });
}

#[test]
fn two_links_of_a_neighbour_share_one_budget_and_a_third_finds_it_spent() {
    with_virtual_time(|| async {
        let (a, b, _) = nodes();
        // Invented sources, priorities and kinds pick no other budget.
        let mut sources: Vec<_> = (10..30).map(Signer::new).collect();
        let around = slow(200);
        let mut through = 0;
        for _ in 0..3 {
            let (mut end, mut raw) = half_in(around.clone(), &a, &b, None).await;
            for n in 0..400 {
                let priority = Priority::from_bits(n as u8);
                let packet = line(&mut sources[n % 20], &a, priority);
                send_raw(&mut raw, &packet).await;
            }
            through += arrivals(&mut end, Duration::from_millis(1)).await.len();
        }
        assert!((100..=210).contains(&through), "{through} of 1200 at once, 200 a second are allowed");
    });
}

#[test]
fn announces_that_all_neighbours_shout_cost_the_node_one_budget_and_silence_nobody() {
    with_virtual_time(|| async {
        const LINKS: u8 = 10;
        const EACH: u32 = 150;
        let (a, _, mut origin) = nodes();
        let around = Around::plain();
        let mut ends = Vec::new();
        for n in 0..=LINKS {
            ends.push(half_in(around.clone(), &a, &Signer::new(40 + n), None).await);
        }
        let (mut quiet, mut its) = ends.pop().unwrap();
        // Each less than one neighbour alone may have looked into: all of them are too much.
        let mut taken = 0;
        for (n, (end, raw)) in (0u32..).zip(&mut ends) {
            for sequence in 0..EACH {
                write(raw, Frame::Announce(origin.announce((1, n * EACH + sequence)).announce.clone())).await;
            }
            write(raw, Frame::Ping(7)).await;
            next_frame(raw, |frame| matches!(frame, Frame::Pong(7))).await;
            taken += std::iter::from_fn(|| end.announces.try_recv().ok()).count();
        }
        assert!((100..=400).contains(&taken), "{taken} of {}", u32::from(LINKS) * EACH);
        // Who did not shout is heard.
        let fresh = origin.announce((2, 0)).announce.clone();
        write(&mut its, Frame::Announce(fresh.clone())).await;
        let heard = expect_within(&mut quiet.announces, PATIENCE).await;
        assert_eq!(heard.announce.announce.content.order(), (2, 0));
        // Neither does what another link found good cost anything, over a link that has nothing left.
        let (end, raw) = ends.last_mut().unwrap();
        write(raw, Frame::Announce(fresh)).await;
        let heard = expect_within(&mut end.announces, PATIENCE).await;
        assert_eq!(heard.announce.announce.content.order(), (2, 0));
    });
}

#[test]
fn failures_are_the_neighbours_and_not_the_links() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let around = Around::plain();
        let packet = line(&mut source, &a, Priority::Normal);
        let mut bytes = packet.envelope.to_frame(packet.ext).to_bytes().to_vec();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        let forged = [FrameParts::whole(Bytes::from(bytes))];
        let (mut first, mut raw) = half_in(around.clone(), &a, &b, None).await;
        for _ in 0..11 {
            raw.0.tx.send(TrafficClass::Interactive, &forged).await.unwrap();
        }
        assert_eq!(first.over().await.reason, CloseReason::ProtocolError);
        let (mut second, mut raw) = half_in(around, &a, &b, None).await;
        raw.0.tx.send(TrafficClass::Interactive, &forged).await.unwrap();
        assert_eq!(second.over().await.reason, CloseReason::ProtocolError, "one is too many by now");
    });
}

#[test]
fn critical_beyond_a_twentieth_waits_in_line() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut end, mut raw) = half_in(slow(2_000), &a, &b, None).await;
        let mut critical = 0;
        let mut arrived = 0;
        for _ in 0..400 {
            let packet = line(&mut source, &a, Priority::Critical);
            send_raw(&mut raw, &packet).await;
        }
        while arrived < 400 {
            let batch = expect_within(&mut end.envelopes, PATIENCE).await.batch;
            arrived += batch.len();
            critical += batch.iter().filter(|packet| packet.urgency == Priority::Critical).count();
            assert!(batch.iter().all(|packet| packet.urgency != Priority::High));
        }
        assert!((10..=30).contains(&critical), "{critical} of 400");
    });
}

#[test]
fn under_pressure_the_bottom_is_refused_first_and_critical_never() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let around = Around::plain();
        let (mut end, mut raw) = half_in(around.clone(), &a, &b, None).await;
        around.pressure.queued(QUEUED_BYTES_FULL as usize);
        tokio::time::sleep(secs(2)).await;
        let (normal, critical) =
            (line(&mut source, &a, Priority::Normal), line(&mut source, &a, Priority::Critical));
        send_raw(&mut raw, &normal).await;
        send_raw(&mut raw, &critical).await;
        let refuse = next_refuse(&mut raw).await;
        assert_eq!((refuse.packet_id, refuse.reason), (normal.packet_id, RefuseReason::Congested));
        assert_eq!(arrivals(&mut end, secs(1)).await, [critical.packet_id]);
        around.pressure.unqueued(QUEUED_BYTES_FULL as usize);
        for n in 0..4 {
            tokio::time::sleep(secs(5)).await;
            write(&mut raw, Frame::Ping(n)).await;
        }
        send_raw(&mut raw, &normal).await;
        assert_eq!(arrivals(&mut end, secs(1)).await, [normal.packet_id], "with the pressure it ends");
    });
}

#[test]
fn files_wait_for_credit_while_chat_lines_and_control_go_on() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let credit = [1 << 20, 1 << 20, 30_000];
        let (end, mut raw) = half_in(Around::plain(), &a, &b, Some(credit)).await;
        end.send((0..6).map(|_| chunk(&mut source, &b)).collect());
        end.send(vec![line(&mut source, &b, Priority::Normal)]);
        write(&mut raw, Frame::Ping(5)).await;
        let mut chunks = 0;
        let mut count = |frame: &Frame| {
            let is_bulk = frame.class() == TrafficClass::Bulk;
            chunks += usize::from(is_bulk);
            !is_bulk && matches!(frame, Frame::Envelope(..))
        };
        next_frame(&mut raw, &mut count).await;
        write(&mut raw, Frame::Ping(6)).await;
        next_frame(&mut raw, |frame| count(frame) || matches!(frame, Frame::Pong(6))).await;
        assert_eq!(chunks, 2, "as many as there is credit for");
        write(&mut raw, Frame::Credit(Credit { class: TrafficClass::Bulk, bytes: 60_000 })).await;
        for _ in 0..4 {
            next_frame(&mut raw, |frame| frame.class() == TrafficClass::Bulk).await;
        }
    });
}

#[test]
fn odd_credit_is_counted_and_the_link_lives() {
    let ((), counted) = telemetry::isolated(|| {
        with_virtual_time(|| async {
            let (a, b, _) = nodes();
            let (_end, mut raw) = half_in(Around::plain(), &a, &b, Some([0; 3])).await;
            for bytes in [0, u32::MAX, u32::MAX, 0] {
                write(&mut raw, Frame::Credit(Credit { class: TrafficClass::Bulk, bytes })).await;
            }
            write(&mut raw, Frame::Ping(8)).await;
            next_frame(&mut raw, |frame| matches!(frame, Frame::Pong(8))).await;
            let (_end, mut raw) = half(&a, &b).await;
            write(&mut raw, Frame::Credit(Credit { class: TrafficClass::Control, bytes: 9 })).await;
            write(&mut raw, Frame::Ping(9)).await;
            next_frame(&mut raw, |frame| matches!(frame, Frame::Pong(9))).await;
        });
    });
    let faults = |reason| counted.value(telemetry::LINK_FAULTS, &[("reason", reason)]);
    assert_eq!(faults("credit_zero"), Some(2.0));
    assert_eq!(faults("credit_overflow"), Some(1.0));
    assert_eq!(faults("credit_foreign"), Some(1.0));
}

#[test]
fn a_flood_of_credit_that_nobody_can_use_costs_the_link() {
    let ((), counted) = telemetry::isolated(|| {
        with_virtual_time(|| async {
            let (a, b, _) = nodes();
            let (_end, mut raw) = half_in(Around::plain(), &a, &b, Some([0; 3])).await;
            for bytes in [0; 20].into_iter().chain([u32::MAX; 10]) {
                write(&mut raw, Frame::Credit(Credit { class: TrafficClass::Bulk, bytes })).await;
            }
            let goodbye = next_frame(&mut raw, |frame| matches!(frame, Frame::Goodbye(_))).await;
            let Frame::Goodbye(goodbye) = goodbye else { panic!("{goodbye:?}") };
            assert_eq!(goodbye.reason, CloseReason::ProtocolError);
        });
    });
    assert_eq!(counted.value(telemetry::LINK_FAULTS, &[("reason", "odd_frames")]), Some(1.0));
}

#[test]
fn a_peer_that_sends_more_than_it_was_granted_is_cut() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut end, mut raw) = half_in(Around::plain(), &a, &b, Some([1 << 20; 3])).await;
        // Nobody ends what arrives, so nothing is granted anew.
        let mut held = Vec::new();
        let mut sent = 0;
        while end.ended.is_empty() && sent < 64 {
            let packet = chunk(&mut source, &a);
            let frame = packet.envelope.to_frame(packet.ext);
            // Fails once the other end has had enough.
            let _ = raw.0.tx.send(TrafficClass::Bulk, &[frame]).await;
            sent += 1;
            while let Ok(Some(batch)) =
                tokio::time::timeout(Duration::from_millis(1), end.envelopes.recv()).await
            {
                held.push(batch);
            }
        }
        assert_eq!(end.over().await.reason, CloseReason::ProtocolError);
        let window = WINDOW_BYTES[TrafficClass::Bulk as usize] as usize;
        assert!(held.len() <= window / CHUNK_BYTES, "{} came through", held.len());
    });
}

/// Files that the reader's router sits on do not hold up a chat line behind them; and all of it
/// arrives in the end.
async fn files_in_hand_hold_up_no_chat_line(out: End, mut back: End, source: &mut Signer, to: &Signer) {
    let count = 60;
    for _ in 0..count {
        out.send(vec![chunk(source, to)]);
    }
    let window = WINDOW_BYTES[TrafficClass::Bulk as usize] as usize;
    let mut held = Vec::new();
    let mut files = 0;
    let mut lines = 0;
    while files < window / (CHUNK_BYTES + 300) {
        let batch = expect_within(&mut back.envelopes, PATIENCE).await;
        files += batch.batch.len();
        held.push(batch);
    }
    out.send((0..50).map(|_| line(source, to, Priority::Normal)).collect());
    while lines < 50 {
        let batch = expect_within(&mut back.envelopes, PATIENCE).await;
        let bulk = batch.batch.iter().filter(|p| p.envelope.header().class() == TrafficClass::Bulk).count();
        files += bulk;
        lines += batch.batch.len() - bulk;
        held.push(batch);
    }
    assert!(files <= window / CHUNK_BYTES, "{files} files came before any was ended");
    held.clear();
    while files < count {
        files += expect_within(&mut back.envelopes, PATIENCE).await.batch.len();
    }
}

#[test]
fn a_router_that_sits_on_files_holds_up_no_chat_line() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut out, mut back) = link(&a, &b).await;
        out.info.streams_per_class = false;
        back.info.streams_per_class = false;
        let mut out = run(&a, b.key(), out, Direction::Out, NETWORK);
        let mut back = run(&b, a.key(), back, Direction::In, NETWORK);
        out.up().await;
        back.up().await;
        files_in_hand_hold_up_no_chat_line(out, back, &mut source, &b).await;
    });
}

#[test]
fn the_same_over_real_tcp() {
    actix::System::new().block_on(async {
        let (a, b, mut source) = nodes();
        let tls = |who: &Signer| TlsIdentity::from_pkcs8(&who.identity.to_pkcs8_der()).unwrap();
        let at = "tcp://127.0.0.1:0".parse().unwrap();
        let port = TcpPort::listen(&tls(&b), &at, TcpOptions::default()).await.unwrap();
        let dialler = TcpPort::dial_only(&tls(&a), TcpOptions::default());
        let url = port.info().local;
        let (out, back) = tokio::join!(dialler.dial(&url), port.accept());
        let mut out = run(&a, b.key(), out.unwrap(), Direction::Out, NETWORK);
        let mut back = run(&b, a.key(), back.unwrap(), Direction::In, NETWORK);
        out.up().await;
        back.up().await;
        files_in_hand_hold_up_no_chat_line(out, back, &mut source, &b).await;
    });
}

#[test]
fn a_stuck_link_adds_nothing_to_another() {
    with_virtual_time(|| async {
        let (a, b, mut source) = nodes();
        let (mut stuck, _unread) = half(&a, &b).await;
        let (left, mut left_raw) = half(&a, &b).await;
        let (right, mut right_raw) = half(&a, &b).await;
        let since = clock::now();
        for _ in 0..200 {
            for end in [&stuck, &left, &right] {
                end.send(vec![chunk(&mut source, &b), line(&mut source, &b, Priority::Normal)]);
            }
            for raw in [&mut left_raw, &mut right_raw] {
                for _ in 0..2 {
                    next_frame(raw, |frame| matches!(frame, Frame::Envelope(..))).await;
                }
            }
        }
        assert!(clock::now() - since < Duration::from_millis(1), "not a tick for the others");
        let mut returned = 0;
        while let Ok(Some(full)) = tokio::time::timeout(secs(1), stuck.egress_full.recv()).await {
            returned += full.envelopes.len();
        }
        assert!(returned > 50, "{returned} came back from the stuck one");
    });
}
