//! what a neighbour has others send by what it sends itself.

use std::collections::{BTreeMap, BTreeSet};

use quicprochat_mesh::{
    testing::with_virtual_time,
    transport::MemNetwork,
    wire::{
        Address, Frame, PacketId,
        control::{CustodyAck, Refuse, RefuseReason},
        path::{Digest, DigestEntry, Withdraw},
    },
};

use crate::{
    attacker::{Attacker, RawLink, Signer, path_request},
    node::*,
    tap::is_links_own,
};

/// Frames and bytes.
type Sum = (usize, usize);

/// What came of some frames of the attacker's.
struct Reading {
    sent: Sum,
    /// From the victim to him.
    back: Sum,
    /// From the victim to its honest neighbours.
    on: Sum,
    /// Nodes that sent something on, any number of copies each.
    senders: usize,
}

/// Victim 0 with neighbours 1, 2 and 3, and three more in a chain behind them.
async fn mesh(network: &MemNetwork) -> Vec<Node> {
    let nodes = nodes(network, 7).await;
    connect(&nodes, &[(0, 1), (0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 5), (5, 6)]).await;
    nodes
}

/// Says these to the victim, five a second, and reads the meter. Nothing else is to be said then.
async fn meter(nodes: &[Node], link: &mut RawLink, frames: &[Frame]) -> Reading {
    link.take();
    nodes.iter().for_each(|node| drop(node.tap.take()));
    let mut sent = (0, 0);
    for frame in frames {
        let bytes = frame.encode();
        sent = (sent.0 + 1, sent.1 + bytes.len());
        link.send(bytes);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    tokio::time::sleep(secs(2)).await;
    assert!(!link.is_over());
    let back = link.take().iter().fold((0, 0), |sum, (_, len)| (sum.0 + 1, sum.1 + len));
    let victim = nodes[0].address();
    let (mut on, mut senders) = ((0, 0), BTreeSet::new());
    for node in nodes {
        for heard in node.tap.take() {
            if is_links_own(&heard.frame()) || !nodes.iter().any(|node| node.address() == heard.from) {
                continue;
            }
            senders.insert(heard.from);
            if heard.from == victim {
                on = (on.0 + 1, on.1 + heard.bytes.len());
            }
        }
    }
    Reading { sent, back, on, senders: senders.len() }
}

#[test]
fn one_frame_of_a_neighbour_makes_a_node_send_three_at_most() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let nodes = mesh(&network).await;
        let mut attacker = Attacker::new(&network, 99);
        let mut link = attacker.link(&nodes[0]).await;
        let own = attacker.signer.announce((9, 9));
        link.say(&Frame::Announce(own));
        nodes.iter().for_each(|node| node.tap.listen());
        // What the new link made due is said, and the next announces are minutes away.
        tokio::time::sleep(secs(60)).await;
        // The first digest of a link is answered, with what its sender lacks: here he lacks nothing more.
        let whole =
            |entries| Frame::Digest(Digest { after: Address([0; 16]), through: Address::BROADCAST, entries });
        link.say(&whole(Vec::new()));
        tokio::time::sleep(secs(5)).await;

        let known = nodes[6].address();
        let nobody = |n: u8| Address([n; 16]);
        let stale = Frame::Announce(attacker.signer.announce((1, 1)));
        let foreign = Frame::Announce(quicprochat_mesh::wire::Announce {
            hop_count: 3,
            ..Signer::stranger(1).announce((1, 1))
        });
        link.say(&foreign);
        tokio::time::sleep(secs(5)).await;
        let unknown_packet = PacketId([3; 16]);
        let refuse = Refuse { packet_id: unknown_packet, reason: RefuseReason::Loop, retry_after_s: 9 };
        let entries = nodes.iter().map(|node| node.address()).collect::<BTreeSet<_>>();
        let entries = entries.into_iter().map(|origin| DigestEntry {
            origin,
            boot_epoch: 0,
            sequence: 0,
            hop_count: Some(0),
        });
        let withdraw = Withdraw {
            addresses: nodes[1..].iter().map(Node::address).collect::<BTreeSet<_>>().into_iter().collect(),
        };
        // What is said; how many frames back and on each may cause.
        let lines: Vec<(&str, Vec<Frame>, usize, usize)> = vec![
            ("path request, nobody's", (0..10).map(|n| path_request(n, nobody(n as u8 + 1))).collect(), 0, 3),
            ("path request, known", (10..20).map(|n| path_request(n, known)).collect(), 1, 0),
            ("path request, again", vec![path_request(1, nobody(2)); 10], 0, 0),
            ("key request, nobody's", (0..10).map(|n| Frame::KeyRequest(nobody(n + 40))).collect(), 0, 3),
            ("key request, the same", vec![Frame::KeyRequest(nobody(40)); 10], 0, 0),
            ("key request, known", vec![Frame::KeyRequest(known); 10], 1, 0),
            ("key needed, known", vec![Frame::KeyNeeded(known); 10], 1, 0),
            ("key needed, nobody's", (0..10).map(|n| Frame::KeyNeeded(nobody(n + 80))).collect(), 0, 0),
            ("announce, stale", vec![foreign.clone(); 10], 0, 0),
            ("digest, again", vec![whole(entries.collect()); 10], 0, 0),
            ("refusal of no packet", vec![Frame::Refuse(refuse); 10], 0, 0),
            (
                "custody of no packet",
                vec![Frame::CustodyAck(CustodyAck { domain: known, packet_ids: vec![unknown_packet] }); 10],
                0,
                0,
            ),
            ("withdrawal of others' ways", vec![Frame::Withdraw(withdraw); 10], 0, 0),
        ];
        for (what, frames, back, on) in lines {
            let read = meter(&nodes, &mut link, &frames).await;
            println!(
                "{what}: {} frames of {} bytes, back {} of {}, on {} of {}; {} of 7 nodes sent",
                read.sent.0, read.sent.1, read.back.0, read.back.1, read.on.0, read.on.1, read.senders
            );
            assert!(read.back.0 <= back * frames.len(), "{what}: {} frames back", read.back.0);
            assert!(read.on.0 <= on * frames.len(), "{what}: {} frames on", read.on.0);
            assert!(read.back.0 + read.on.0 <= 3 * read.sent.0, "{what}");
            // To those who did not ask.
            assert!(read.on.1 <= 3 * read.sent.1 + 16, "{what}: {} bytes for {}", read.on.1, read.sent.1);
        }
        // His own old announce over his own link is answered with the newest one: once in ten seconds.
        let read = meter(&nodes, &mut link, &vec![stale; 40]).await;
        println!("announce, his own old one: {} frames, back {}, on {}", read.sent.0, read.back.0, read.on.0);
        assert!(read.back.0 <= 2 && read.on.0 == 0, "{} back, {} on", read.back.0, read.on.0);
    });
}

#[test]
fn a_query_crosses_each_node_once_and_a_storm_of_them_is_answered_within_its_budget() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        let nodes = mesh(&network).await;
        let attacker = Attacker::new(&network, 99);
        let link = attacker.link(&nodes[0]).await;
        nodes.iter().for_each(|node| node.tap.listen());
        tokio::time::sleep(secs(60)).await;
        let requests = |nodes: &[Node]| {
            let mut copies: BTreeMap<(Address, Address, [u8; 8]), usize> = BTreeMap::new();
            for node in nodes {
                for heard in node.tap.take() {
                    if let Frame::PathRequest(request) = heard.frame() {
                        *copies.entry((heard.from, node.address(), request.request_id)).or_default() += 1;
                    }
                }
            }
            copies
        };
        requests(&nodes);
        for n in 0..10 {
            link.say(&path_request(n, Address([0x77; 16])));
            tokio::time::sleep(secs(1)).await;
        }
        let copies = requests(&nodes);
        assert!(copies.values().all(|copies| *copies == 1), "twice over one link");
        let senders: BTreeSet<_> = copies
            .keys()
            .filter(|(from, ..)| *from != attacker.address())
            .map(|(from, _, id)| (*from, *id))
            .collect();
        println!("a query: {} of 7 nodes send it on, each once", senders.len() / 10);
        assert!(senders.len() <= 10 * 7 * 12 / 10, "{} transmissions of 10 queries", senders.len());

        // A thousand a second for ten seconds.
        let before = nodes[0].counters().await;
        for n in 0..1000 {
            for m in 0..10 {
                link.say(&path_request(1000 + n * 10 + m, Address([n as u8; 16])));
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        tokio::time::sleep(secs(2)).await;
        let after = nodes[0].counters().await;
        let taken = after.path_requests - before.path_requests;
        let over = after.path_requests_over_budget - before.path_requests_over_budget;
        assert!((100..=130).contains(&taken), "{taken} looked at");
        assert!(over >= 9_800, "{over} over the budget");
        let copies = requests(&nodes);
        let sent: BTreeSet<_> = copies
            .keys()
            .filter(|(from, ..)| *from != attacker.address())
            .map(|(from, _, id)| (*from, *id))
            .collect();
        assert!(sent.len() as u64 <= taken * 7 * 12 / 10, "{} transmissions for {taken}", sent.len());
        assert!(!link.is_over());
    });
}
