//! a neighbour that sends at line rate what costs its victim: invented identities,
//! signatures that do not hold, seals that do not open.

use std::time::Duration;

use bytes::Bytes;
use quicprochat_mesh::{
    clock,
    crypto::{Padding, SealSessions, random::os_rng},
    proto::delivery::seal_budget::{FAILURES_BURST, FAILURES_PER_S},
    telemetry,
    testing::with_virtual_time,
    transport::MemNetwork,
    wire::{Announce, Envelope, EnvelopeKind, Frame, Proof, Signature, handshake::CloseReason},
};

use crate::{
    attacker::{Attacker, Signer, framed},
    node::*,
};

/// Frames in each hundredth of a second: 5,000/s.
const BURST: usize = 50;
const EVERY: Duration = Duration::from_millis(10);

/// Sends ten messages a second for so long, each of which has to be delivered at the first attempt.
async fn flow(from: &Node, to: &Node, length: Duration) -> Vec<Sent> {
    let until = tokio::time::Instant::now() + length;
    let mut sent = Vec::new();
    while tokio::time::Instant::now() < until {
        sent.push(from.send(to.address(), "meanwhile").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(secs(1)).await;
    sent
}

#[test]
fn invented_identities_at_line_rate_hold_their_share_and_honest_traffic_goes_on() {
    const TABLE: usize = 2000;
    let ((), counted) = telemetry::isolated(|| {
        with_virtual_time(|| async {
            let network = MemNetwork::new();
            let mut nodes = Vec::new();
            for seed in 1..=5 {
                let mut spec = Spec::new(seed);
                if seed == 3 {
                    spec.config.origins_max = TABLE;
                }
                nodes.push(Node::start(&network, spec).await);
            }
            connect(&nodes, &[(0, 1), (1, 2), (2, 3), (3, 4)]).await;
            let victim = &nodes[2];
            let attacker = Attacker::new(&network, 99);
            let link = attacker.link(victim).await;
            let strangers: Vec<Bytes> = (0..10_000)
                .map(|n| {
                    let announce = Signer::stranger(n).announce((1, 1));
                    Frame::Announce(Announce { hop_count: 3, ..announce }).encode()
                })
                .collect();
            let honest = victim.ways().await;
            // In his first five minutes a neighbour may fill a twentieth, after them a quarter.
            for (rest, percent) in [(secs(0), 5), (secs(360), 25)] {
                tokio::time::sleep(rest).await;
                let before = victim.counters().await;
                let flood = async {
                    for n in 0..2000 {
                        for m in 0..BURST {
                            link.send(strangers[(n * BURST + m) % strangers.len()].clone());
                        }
                        tokio::time::sleep(EVERY).await;
                    }
                };
                let (sent, ()) = tokio::join!(flow(&nodes[0], &nodes[4], secs(20)), flood);
                let delivered = share(&sent, FIRST_RETRY);
                assert!(delivered >= 0.99, "{delivered} of the honest messages at the first attempt");

                let routes = victim.routes().await;
                let his = routes.values().filter(|route| route.next_hop == attacker.address()).count();
                println!(
                    "Sybils: {his} of {TABLE} places, {delivered} of honest messages at the first attempt"
                );
                assert!(his <= TABLE * percent / 100, "{his} places of {TABLE}");
                assert!(his >= TABLE * percent / 200, "only {his}: no test");
                assert!(routes.len() <= TABLE);
                for (to, over, _) in &honest {
                    assert_eq!(routes.get(to).map(|route| route.next_hop), Some(*over));
                }
                // Two hundred a second are looked into, and as many at once.
                let after = victim.counters().await;
                let looked_into = |c: &quicprochat_mesh::proto::router::Counters| {
                    c.announces_newer + c.announces_known + c.announces_share_full + c.announces_stale
                };
                let looked_into = looked_into(&after) - looked_into(&before);
                assert!(looked_into <= 200 * 22 + 100, "{looked_into} announces were looked into");
            }
            assert!(!link.is_over(), "identities cost nothing, so having many is no fault");
            for (to, _, _) in honest {
                let way = nodes[0].routes().await.contains_key(&to) || to == nodes[0].address();
                assert!(way, "the victim's neighbours lost an honest route");
            }
        });
    });
    let refused = counted.value(telemetry::RATE_LIMITED, &[("budget", "announce")]).unwrap();
    assert!(refused >= 150_000.0, "{refused} of 200,000 were turned away unread");
}

fn forgery(signer: &mut Signer, to: &Node) -> Bytes {
    let header = signer.header(EnvelopeKind::MESSAGE, to.address());
    let signed = header.signed(b"not signed by me");
    let proof = Proof::Signature(Signature([0x11; 64]));
    framed(&Envelope::assemble(header, &signed, proof, Some(signer.key())).unwrap())
}

#[test]
fn forged_signatures_at_line_rate_cut_the_link_and_honest_traffic_goes_on() {
    let (links, counted) = telemetry::isolated(|| {
        with_virtual_time(|| async {
            let network = MemNetwork::new();
            let nodes = line(&network, 3).await;
            let mut attacker = Attacker::new(&network, 99);
            let forgeries: Vec<Bytes> = (0..1000).map(|_| forgery(&mut attacker.signer, &nodes[2])).collect();
            let (mut links, mut cuts) = (0, 0);
            let flood = async {
                // He comes back as often as he can for half a minute.
                let until = tokio::time::Instant::now() + secs(30);
                while tokio::time::Instant::now() < until {
                    let link = attacker.link(&nodes[1]).await;
                    links += 1;
                    let began = tokio::time::Instant::now();
                    while !link.is_over() {
                        let at = usize::try_from(began.elapsed().as_millis() / 10).unwrap();
                        for n in 0..BURST {
                            link.send(forgeries[(at * BURST + n) % forgeries.len()].clone());
                        }
                        tokio::time::sleep(EVERY).await;
                        assert!(began.elapsed() <= secs(5), "still linked after five seconds");
                    }
                    // Cut for what it sent, the first time for sure; else not let in for a while.
                    let is_cut = link.goodbye() == Some(CloseReason::ProtocolError);
                    assert!(is_cut || links > 1, "{:?}", link.goodbye());
                    cuts += i32::from(is_cut);
                    tokio::time::sleep(EVERY).await;
                }
            };
            let (sent, ()) = tokio::join!(flow(&nodes[0], &nodes[2], secs(30)), flood);
            assert_eq!(share(&sent, FIRST_RETRY), 1.0);
            let worst = sent.iter().filter_map(Sent::took).max();
            assert!(worst < Some(Duration::from_millis(50)), "{worst:?}");
            assert_eq!(nodes[2].inbox().await, sent.len() as u64);
            (links, cuts)
        })
    });
    let (links, cuts) = links;
    let failures = counted.value(telemetry::VERIFY_FAILURES, &[("reason", "bad_signature")]).unwrap();
    println!("forgeries: {links} links, {cuts} cut, {failures} signatures checked in vain");
    // Each further cut keeps him out for twice as long: 30 s hold five of them.
    assert!((3..=6).contains(&cuts) && links > cuts, "{links} links, {cuts} cut");
    // Ten at once, one a second, and the one that cuts each link.
    assert!(failures <= f64::from(10 + 31 + cuts), "{failures} over {cuts} cuts");
}

/// Messages of one source whose seal was made for none of them.
fn unopenable(mut signer: Signer, to: &Node, count: usize) -> Vec<Bytes> {
    let mut sessions = SealSessions::new(NETWORK, signer.key());
    let record = to.spec.key_record();
    let sealed = sessions.seal(clock::now(), record, b"", b"x", Padding::Sized, &mut os_rng()).unwrap();
    let message = |_| {
        let header = signer.header(EnvelopeKind::MESSAGE, to.address());
        framed(&signer.seal(header, &sealed).1)
    };
    (0..count).map(message).collect()
}

#[test]
fn seals_that_do_not_open_cost_their_destination_little_and_honest_traffic_goes_on() {
    const SECONDS: u64 = 3;
    let ((), counted) = telemetry::isolated(|| {
        with_virtual_time(|| async {
            let network = MemNetwork::new();
            let nodes = line(&network, 3).await;
            let attacker = Attacker::new(&network, 99);
            let link = attacker.link(&nodes[1]).await;
            let messages: Vec<Bytes> = (0..10)
                .flat_map(|n| unopenable(Signer::stranger(n), &nodes[2], 100 * SECONDS as usize))
                .collect();
            assert!(flow(&nodes[0], &nodes[2], secs(1)).await.iter().all(|sent| sent.within(FIRST_RETRY)));
            let flood = async {
                for burst in messages.chunks(10) {
                    burst.iter().for_each(|message| link.send(message.clone()));
                    tokio::time::sleep(EVERY).await;
                }
            };
            // Both come over the same relay, which sees no difference.
            let (sent, ()) = tokio::join!(flow(&nodes[0], &nodes[2], secs(SECONDS)), flood);
            assert_eq!(share(&sent, FIRST_RETRY), 1.0);
            assert!(!link.is_over());
        });
    });
    let refused = |reason| counted.value(telemetry::INBOUND_REFUSED, &[("reason", reason)]).unwrap();
    let (opened, dropped) = (refused("seal"), refused("seal_budget"));
    println!("seals: {opened} opened in vain, {dropped} not opened");
    let least = FAILURES_BURST + FAILURES_PER_S * (SECONDS - 1);
    let most = FAILURES_BURST + FAILURES_PER_S * (SECONDS + 2);
    assert!((least..=most).contains(&(opened as u64)), "{opened} were opened in vain");
    assert!(dropped >= 2500.0, "{dropped} were not opened");
}
