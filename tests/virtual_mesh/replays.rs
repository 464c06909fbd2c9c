//! everything a node received, played to it again. A-05: a ring whose every link makes packets
//! look fresh.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quicprochat_mesh::{
    crypto::compute_address,
    testing::with_virtual_time,
    transport::MemNetwork,
    wire::{Address, Announce, Envelope, Frame, PacketId},
};

use crate::{
    attacker::{Attacker, RawLink, packet_id},
    node::*,
    tap::Heard,
};

fn announce_of(heard: &Heard) -> Option<Announce> {
    match heard.frame() {
        Frame::Announce(announce) | Frame::PathReply(announce) => Some(announce),
        _ => None,
    }
}

fn envelope_of(heard: &Heard) -> Option<Envelope> {
    match heard.frame() {
        Frame::Envelope(envelope, _) => Some(envelope),
        _ => None,
    }
}

fn name(announce: &Announce) -> (Address, (u32, u32)) {
    (compute_address(&announce.content.public_key), announce.content.order())
}

/// Plays a recording ten times, with ten seconds for each so that no budget stands in its way.
async fn play(link: &RawLink, recording: &[Heard]) {
    for _ in 0..10 {
        for heard in recording {
            link.send(heard.bytes.clone());
        }
        tokio::time::sleep(secs(10)).await;
    }
    assert!(!link.is_over(), "the recording cost the link: nothing was played");
}

/// Who goes where over whom.
async fn ways(node: &Node) -> BTreeMap<Address, Address> {
    node.ways().await.into_iter().map(|(to, over, _)| (to, over)).collect()
}

/// How often each packet came from `from`.
fn copies(heard: &[Heard], from: Address) -> BTreeMap<PacketId, usize> {
    let mut copies = BTreeMap::new();
    for envelope in heard.iter().filter(|heard| heard.from == from).filter_map(envelope_of) {
        *copies.entry(packet_id(&envelope)).or_default() += 1;
    }
    copies
}

#[test]
fn what_was_recorded_delivers_nothing_and_turns_no_route_before_and_after_a_restart() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let mut nodes = line(&network, 3).await;
        let (left, right) = (nodes[0].address(), nodes[2].address());
        let victim = nodes[1].address();
        nodes[1].tap.listen();
        // Ten minutes of everything: messages through the victim, for it and of it, with their
        // receipts, broadcasts, questions and an announce of everyone.
        for n in 0..60 {
            let text = format!("message {n}");
            for (from, to) in [(0, right), (2, left), (0, victim), (2, victim), (1, left)] {
                nodes[from].send(to, &text).await;
            }
            if n % 10 == 0 {
                nodes[0].broadcast(&text, 8).await;
                nodes[2].search(Address([7; 16])).await;
            }
            tokio::time::sleep(secs(11)).await;
        }
        let recording: Vec<Heard> =
            nodes[1].tap.take().into_iter().filter(|heard| !heard.is_links_own()).collect();
        let known: BTreeSet<_> = recording.iter().filter_map(announce_of).map(|a| name(&a)).collect();
        let envelopes = recording.iter().filter_map(envelope_of).count();
        assert!(known.len() >= 2 && envelopes >= 400, "{} {envelopes}", known.len());
        let delivered = async |nodes: &[Node]| {
            let mut delivered = Vec::new();
            for node in nodes {
                delivered.push(node.inbox().await);
            }
            delivered
        };
        let before = delivered(&nodes).await;
        assert_eq!(before, [120, 126, 66], "a broadcast does not come back");
        let ways_before = ways(&nodes[1]).await;

        let attacker = Attacker::new(&network, 99);
        let link = attacker.link(&nodes[1]).await;
        for n in [0, 2] {
            nodes[n].tap.take();
            nodes[n].tap.listen();
        }
        let counted = nodes[1].counters().await;
        play(&link, &recording).await;
        assert_eq!(delivered(&nodes).await, before);
        assert_eq!(ways(&nodes[1]).await, ways_before);
        let now = nodes[1].counters().await;
        assert_eq!(now.forwarded, counted.forwarded, "something was passed on");
        assert_eq!(now.delivered, counted.delivered);
        // Each envelope met the window; those of the victim's own do not even verify.
        assert!(now.duplicates + now.loops - counted.duplicates - counted.loops >= 10 * 400);
        for n in [0, 2] {
            for heard in nodes[n].tap.take() {
                assert!(envelope_of(&heard).is_none(), "an envelope went on: {heard:?}");
                let told = announce_of(&heard).map(|announce| name(&announce));
                assert!(told.is_none_or(|told| !known.contains(&told)), "told again: {told:?}");
                assert!(!matches!(heard.frame(), Frame::PathRequest(_)), "asked again");
            }
        }

        // The window of packets in transit does not outlive the process; the destinations' records and
        // the orders of announces do.
        drop(link);
        let spec = nodes.remove(1).stop().await;
        nodes.insert(1, Node::start(&network, spec).await);
        nodes[1].join(&nodes[2]).await;
        nodes[1].join(&nodes[0]).await;
        nodes[1].knows(&[&nodes[0], &nodes[2]]).await;
        nodes[0].knows(&[&nodes[1], &nodes[2]]).await;
        tokio::time::sleep(secs(30)).await;
        let ways_before = ways(&nodes[1]).await;
        let link = attacker.link(&nodes[1]).await;
        for n in [0, 2] {
            nodes[n].tap.take();
        }
        play(&link, &recording).await;
        assert_eq!(delivered(&nodes).await, before);
        assert_eq!(ways(&nodes[1]).await, ways_before);
        for n in [0, 2] {
            let heard = nodes[n].tap.take();
            let copies = copies(&heard, victim);
            // Ten times each was played, once each went on, and ended in the next window.
            assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
            assert!(copies.len() <= envelopes, "{}", copies.len());
            for heard in heard {
                let told = announce_of(&heard).map(|announce| name(&announce));
                assert!(told.is_none_or(|told| !known.contains(&told)), "told again: {told:?}");
            }
        }
    });
}

/// Every packet looks as if its source had just sent it.
fn fresh(frame: Frame) -> Option<Frame> {
    Some(match frame {
        Frame::Envelope(envelope, ext) => Frame::Envelope(envelope.with_hop_count(0), ext),
        other => other,
    })
}

#[test]
fn in_a_ring_that_makes_packets_look_fresh_each_node_sends_one_once_or_twice() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        // Six in the ring and one beside it: what comes back to its own source ends there anyway.
        let mut nodes = nodes(&network, 7).await;
        connect(&nodes, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (1, 6)]).await;
        for node in &nodes {
            node.tap.change(Some(fresh));
            node.tap.listen();
        }
        let to = nodes[3].address();
        assert!(nodes[0].send(to, "whole").await.took().is_none());
        tokio::time::sleep(secs(1)).await;
        assert_eq!(nodes[3].inbox().await, 1);
        for n in 0..5 {
            nodes[6].broadcast(&format!("round and round {n}"), 128).await;
            tokio::time::sleep(secs(1)).await;
        }
        assert_eq!(nodes[4].inbox().await, 5);
        // The destination goes, and who knew it best believes in the way around.
        let gone = nodes.remove(3).stop().await;
        assert_eq!(gone.address(), to);
        for n in 0..10 {
            nodes[0].send(to, "where are you?").await;
            nodes[5].broadcast(&format!("has anybody seen it? {n}"), 128).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        tokio::time::sleep(secs(60)).await;
        let mut sent: BTreeMap<(Address, PacketId), usize> = BTreeMap::new();
        for node in &nodes {
            for heard in node.tap.take() {
                if let Some(envelope) = envelope_of(&heard) {
                    *sent.entry((heard.from, packet_id(&envelope))).or_default() += 1;
                }
            }
        }
        assert!(sent.len() >= 50, "nothing was sent: no test");
        assert!(sent.values().all(|times| *times <= 2), "{sent:?}");
    });
}
