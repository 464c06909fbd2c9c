//! One slow, full or dead link adds nothing to another.

use std::time::Duration;

use quicprochat_mesh::{
    clock,
    crypto::network_tag,
    proto::{credit::WINDOW_BYTES, egress::CLASS_BYTES_MAX},
    testing::with_virtual_time,
    transport::{Link, LinkReceiver, MemNetwork},
    wire::{
        EnvelopeKind, Frame, FrameParts, TrafficClass,
        handshake::{Hello, VERSION},
    },
};

use crate::{
    attacker::{Attacker, framed},
    node::*,
};

/// How a neighbour is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slow {
    /// It reads nothing, and says that it lives.
    ReadsNothing,
    /// It reads a KiB a second, and says that it lives.
    ReadsLittle,
    /// It neither reads nor says anything.
    Dead,
}

/// The bytes of the next frames.
async fn read(rx: &mut dyn LinkReceiver) -> usize {
    let mut frames = Vec::new();
    match rx.recv(&mut frames).await {
        Ok(()) => frames.iter().map(bytes::Bytes::len).sum(),
        Err(_) => std::future::pending().await,
    }
}

/// A neighbour that says hello, announces itself, and is slow from then on.
async fn slow(attacker: &mut Attacker, relay: &Node, how: Slow) {
    let Link { mut tx, mut rx, .. } = attacker.dial(relay).await;
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        network_tag: network_tag(&NETWORK),
        network_proof: None,
        features: 0,
        boot_epoch: 1,
        nonce: *b"a sloth!",
        clock_unix_s: clock::unix_s(),
        initial_credit: WINDOW_BYTES,
    };
    for frame in [Frame::Hello(hello), Frame::Announce(attacker.signer.announce((1, 1)))] {
        tx.send(TrafficClass::Control, &[FrameParts::whole(frame.encode())]).await.unwrap();
    }
    read(&mut *rx).await;
    actix_rt::spawn(async move {
        let lives = async {
            for number in 0.. {
                if how == Slow::Dead {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(secs(5)).await;
                let ping = [FrameParts::whole(Frame::Ping(number).encode())];
                if tx.send(TrafficClass::Control, &ping).await.is_err() {
                    return;
                }
            }
        };
        let reads = async {
            if how != Slow::ReadsLittle {
                std::future::pending::<()>().await;
            }
            loop {
                let bytes = read(&mut *rx).await;
                tokio::time::sleep(Duration::from_millis(u64::try_from(bytes).unwrap())).await;
            }
        };
        tokio::join!(lives, reads)
    });
}

/// The worst of a minute's messages.
async fn worst(from: &Node, to: &Node) -> Duration {
    let mut sent = Vec::new();
    for _ in 0..600 {
        sent.push(from.send(to.address(), "in time").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(secs(1)).await;
    assert_eq!(share(&sent, FIRST_RETRY), 1.0, "all at the first attempt");
    sent.iter().filter_map(Sent::took).max().unwrap()
}

async fn adds_nothing(how: Slow) {
    let network = MemNetwork::new();
    let nodes = line(&network, 3).await;
    let relay = &nodes[1];
    let alone = worst(&nodes[0], &nodes[2]).await;

    let mut sloth = Attacker::new(&network, 77);
    slow(&mut sloth, relay, how).await;
    let mut source = Attacker::new(&network, 78);
    let link = source.link(relay).await;
    tokio::time::sleep(secs(10)).await;
    let to = sloth.address();
    let before = relay.counters().await;
    // Files for the slow one, far more than it takes: 4 MiB a second for half a minute.
    let flood = async {
        for _ in 0..300 {
            for _ in 0..28 {
                let header = source.signer.header(EnvelopeKind::CHUNK, to);
                link.send(framed(&source.signer.seal(header, &[7; 15_000]).1));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let most_queued = async {
        let mut most = 0;
        for _ in 0..600 {
            let queued = relay.links().await.iter().map(|line| line.stats.queued_frames).max();
            most = most.max(queued.unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        most
    };
    let (beside, (), most) = tokio::join!(worst(&nodes[0], &nodes[2]), flood, most_queued);
    println!("{how:?}: {alone:?} alone, {beside:?} beside it; {most} frames waited");
    assert_eq!(beside, alone, "the slow link adds to another");
    let after = relay.counters().await;
    assert!(after.unsent > before.unsent, "nothing was too much for it: no test");
    // One class's queue, and the small frames of the others.
    assert!(most as usize <= CLASS_BYTES_MAX / 15_000 + 64, "{most} frames of 15 KB wait for it");
    // One that says nothing at all is cut, the others are served on.
    assert_eq!(relay.is_linked_to(&to).await, how != Slow::Dead);
    assert!(!link.is_over(), "who fills it is not cut, but refused");
}

#[test]
fn a_neighbour_that_reads_nothing_adds_nothing_to_another_link() {
    with_virtual_time(|| adds_nothing(Slow::ReadsNothing));
}

#[test]
fn a_neighbour_that_reads_a_kib_a_second_adds_nothing_to_another_link() {
    with_virtual_time(|| adds_nothing(Slow::ReadsLittle));
}

#[test]
fn a_dead_neighbour_adds_nothing_to_another_link_and_is_cut() {
    with_virtual_time(|| adds_nothing(Slow::Dead));
}
