//! A liar with a fast link delivers first, with hops that he made up.

use std::time::Duration;

use quicprochat_mesh::{
    crypto::compute_address,
    testing::with_virtual_time,
    transport::MemNetwork,
    wire::{Announce, EnvelopeKind, Frame, FrameExt},
};

use crate::{
    attacker::{Attacker, RawLink},
    node::*,
};

/// A line whose first honest link is slow, and an attacker with fast links to the source and to the
/// third node.
async fn race(network: &MemNetwork, count: u8) -> (Vec<Node>, Attacker, RawLink, RawLink) {
    let nodes = line(network, count).await;
    let mut attacker = Attacker::new(network, 99);
    let (near, far) = (attacker.link(&nodes[0]).await, attacker.link(&nodes[2]).await);
    let own = attacker.signer.announce((1, 1));
    for link in [&near, &far] {
        link.say(&Frame::Announce(own.clone()));
    }
    nodes[2].tap.late(nodes[1].address(), Duration::from_millis(200));
    tokio::time::sleep(secs(30)).await;
    (nodes, attacker, near, far)
}

#[test]
fn nobody_keeps_a_broadcast_from_others_by_bringing_it_first() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let (nodes, _attacker, mut near, far) = race(&network, 6).await;
        let mut told = 0;
        for claimed in [8, 7, 6, 5, 4, 255] {
            near.take();
            nodes[0].broadcast(&format!("racing with {claimed}"), 8).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let copies: Vec<_> = near.take();
            let copy = copies.into_iter().find_map(|(frame, _)| match frame {
                Frame::Envelope(envelope, _) if envelope.header().kind == EnvelopeKind::BROADCAST => {
                    Some(envelope)
                }
                _ => None,
            });
            let copy = copy.expect("the source tells everyone").with_source_key(nodes[0].spec.key());
            far.say(&Frame::Envelope(copy.with_hop_count(claimed), FrameExt::default()));
            tokio::time::sleep(secs(5)).await;
            told += 1;
            for node in &nodes[1..] {
                assert_eq!(node.inbox().await, told, "{} with {claimed} hops claimed", node.spec.name);
            }
        }
        assert!(!far.is_over());
    });
}

#[test]
fn nobody_keeps_a_message_from_its_destination_by_bringing_it_first() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let (nodes, _attacker, _near, far) = race(&network, 6).await;
        let mut sent = Vec::new();
        // His copy is still on its way to where it ends when the honest one comes by.
        nodes[3].tap.late(nodes[2].address(), Duration::from_millis(300));
        nodes[1].tap.listen();
        // As far as a message may go: 128 links.
        for claimed in [128, 127, 126, 125, 124, 64, 255] {
            nodes[1].tap.take();
            sent.push(nodes[0].send(nodes[5].address(), &format!("racing with {claimed}")).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
            // He overhears it on its way to the relay.
            let heard = nodes[1].tap.take();
            let copy = heard.iter().find_map(|heard| match heard.frame() {
                Frame::Envelope(envelope, _) if envelope.header().kind == EnvelopeKind::MESSAGE => {
                    Some(envelope)
                }
                _ => None,
            });
            let copy = copy.expect("it goes over the relay").with_source_key(nodes[0].spec.key());
            far.say(&Frame::Envelope(copy.with_hop_count(claimed), FrameExt::default()));
            tokio::time::sleep(Duration::from_millis(900)).await;
            assert_eq!(nodes[5].inbox().await, sent.len() as u64, "with {claimed} hops claimed");
            tokio::time::sleep(secs(20)).await;
            // Where his copy arrived, the receipt went back his way, and the next one the honest way.
            assert!(sent.last().unwrap().within(THREE_RETRIES), "with {claimed} hops claimed");
        }
        assert_eq!(nodes[5].inbox().await, sent.len() as u64, "each once");
    });
}

#[test]
fn nobody_silences_an_origin_by_bringing_its_announces_first() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let (nodes, _attacker, mut near, far) = race(&network, 6).await;
        let origin = nodes[0].address();
        near.take();
        // So few links before the limit that its origin signed.
        for left in [2, 1] {
            let order = nodes[5].routes().await[&origin].route.order;
            // Each of its announces for as long as the old one is known everywhere.
            let until = tokio::time::Instant::now() + secs(1500);
            let mut raced = 0;
            while tokio::time::Instant::now() < until {
                match tokio::time::timeout_at(until, near.heard.recv()).await {
                    Ok(Some((Frame::Announce(announce), _)))
                        if compute_address(&announce.content.public_key) == origin =>
                    {
                        raced += 1;
                        let hop_count = announce.content.max_hops - left;
                        far.say(&Frame::Announce(Announce { hop_count, ..announce }));
                    }
                    Ok(Some(_)) => {}
                    _ => break,
                }
            }
            assert!(raced >= 2, "nothing was raced: no test");
            for node in &nodes[1..] {
                let route = &node.routes().await[&origin].route;
                assert!(route.order > order, "{}: still {:?}", node.spec.name, route.order);
                assert!(route.next_hops[0].hops <= 5, "{}: {route:?}", node.spec.name);
            }
        }
    });
}
