//! A-04 and its kin: neighbours that claim short ways and drop what they are given.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use quicprochat_mesh::{testing::with_virtual_time, transport::MemNetwork, wire::Frame};

use crate::{
    attacker::{Attacker, Liar},
    node::*,
};

/// One step of a multiplicative generator: the meshes below are random and always the same.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// What a run with liars came to.
struct Run {
    /// Messages of new flows that were receipted within three retry periods.
    routed_around: f64,
    /// Messages of known flows that were receipted at their first attempt.
    steady: f64,
    swallowed: u64,
    /// Messages that were never receipted.
    lost: usize,
}

/// Thirty pairs of honest nodes talk for a quarter of an hour, across an announce of everyone. Honest
/// nodes have four neighbours each on average, liars five.
async fn run(honest: u8, liars: u8, seed: u64) -> Run {
    let network = MemNetwork::new();
    let nodes = nodes(&network, honest).await;
    let count = usize::from(honest);
    let mut rng = Rng(seed);
    // A ring, so that nobody has liars for neighbours only, and as many chords.
    let mut pairs: BTreeSet<(usize, usize)> = (0..count).map(|n| (n, (n + 1) % count)).collect();
    while pairs.len() < 2 * count {
        let (a, b) = (rng.below(count), rng.below(count));
        if a != b && !pairs.contains(&(b, a)) {
            pairs.insert((a, b));
        }
    }
    connect(&nodes, &pairs.into_iter().collect::<Vec<_>>()).await;
    let mut kept: Vec<(Attacker, Rc<RefCell<Liar>>)> = Vec::new();
    for n in 0..liars {
        let mut attacker = Attacker::new(&network, 200 + n);
        let mut victims = BTreeSet::new();
        while victims.len() < 5 {
            victims.insert(rng.below(count));
        }
        let victims: Vec<&Node> = victims.into_iter().map(|n| &nodes[n]).collect();
        let liar = Liar::among(&mut attacker, &victims).await;
        kept.push((attacker, liar));
    }
    // The lies are out: at the next announces nobody knows better.
    tokio::time::sleep(secs(660)).await;

    let mut flows = Vec::new();
    while flows.len() < 30 {
        let (a, b) = (rng.below(count), rng.below(count));
        if a != b {
            flows.push((a, b));
        }
    }
    let mut fresh = Vec::new();
    for (a, b) in &flows {
        fresh.push(nodes[*a].send(nodes[*b].address(), "first").await);
    }
    tokio::time::sleep(secs(30)).await;
    let mut steady = Vec::new();
    for _ in 0..10 {
        for (a, b) in &flows {
            steady.push(nodes[*a].send(nodes[*b].address(), "again").await);
        }
        tokio::time::sleep(secs(90)).await;
    }
    tokio::time::sleep(secs(300)).await;
    let swallowed = kept.iter().map(|(_, liar)| liar.borrow().swallowed).sum();
    let lost = fresh.iter().chain(&steady).filter(|sent| sent.took().is_none()).count();
    let mut received = 0;
    for node in &nodes {
        received += node.inbox().await;
    }
    assert_eq!(received as usize, fresh.len() + steady.len() - lost, "each message once");
    let run = Run {
        routed_around: share(&fresh, THREE_RETRIES),
        steady: share(&steady, FIRST_RETRY),
        swallowed,
        lost,
    };
    println!(
        "{liars} liars among {honest}: known flows {:.1} % at the first attempt, new ones {:.1} % within three \
         retry periods, {} envelopes swallowed, {} messages lost",
        run.steady * 100.0,
        run.routed_around * 100.0,
        run.swallowed,
        run.lost
    );
    run
}

#[test]
fn one_liar_among_many_holds_no_traffic() {
    with_virtual_time(|| async {
        let run = run(24, 1, 11).await;
        assert!(run.steady >= 0.98, "{}", run.steady);
        assert!(run.routed_around >= 0.98, "{}", run.routed_around);
        assert_eq!(run.lost, 0);
        assert!(run.swallowed > 0, "nobody believed the liar: no test");
    });
}

#[test]
fn one_liar_in_ten_holds_little_traffic() {
    with_virtual_time(|| async {
        let run = run(27, 3, 5).await;
        assert!(run.steady >= 0.90, "{}", run.steady);
        assert!(run.routed_around >= 0.90, "{}", run.routed_around);
        assert_eq!(run.lost, 0);
        assert!(run.swallowed > 0, "nobody believed the liars: no test");
    });
}

/// Loses envelopes and nothing else.
fn without_data(frame: Frame) -> Option<Frame> {
    (!matches!(frame, Frame::Envelope(..))).then_some(frame)
}

#[test]
fn a_way_that_delivered_for_long_and_then_drops_loses_two_packets() {
    with_virtual_time(|| async {
        let network = MemNetwork::new();
        // 0 reaches 4 over 1, and one link farther over 2 and 3.
        let nodes = nodes(&network, 5).await;
        connect(&nodes, &[(0, 1), (1, 4), (0, 2), (2, 3), (3, 4)]).await;
        let to = nodes[4].address();
        let talk = async |count: usize| {
            let mut sent = Vec::new();
            for _ in 0..count {
                sent.push(nodes[0].send(to, "still there?").await);
                tokio::time::sleep(secs(5)).await;
            }
            sent
        };
        let before = talk(240).await;
        assert_eq!(share(&before, FIRST_RETRY), 1.0);
        let next_hop = nodes[0].routes().await[&to].next_hop;
        assert_eq!(next_hop, nodes[1].address(), "the shorter way is in use");

        nodes[1].tap.change(Some(without_data));
        let after = talk(240).await;
        tokio::time::sleep(secs(60)).await;
        assert_eq!(share(&after, THREE_RETRIES), 1.0, "all within three retry periods");
        let late = after.iter().filter(|sent| !sent.within(FIRST_RETRY)).count();
        // Two for the way to be put behind, and a probe now and then in twenty minutes.
        let at_once = after[..12].iter().filter(|sent| !sent.within(FIRST_RETRY)).count();
        println!("black hole: {at_once} of the first 12 needed a retry, {late} of 240");
        assert!(at_once <= 2, "{at_once} of the first 12 messages needed a retry");
        assert!(late <= 9, "{late} of 240 messages needed a retry");
        assert!(nodes[1].tap.lost() > 0, "nothing was dropped: no test");
        assert_eq!(nodes[0].routes().await[&to].next_hop, nodes[2].address());
        assert_eq!(nodes[4].inbox().await, 480);

        // It delivers again, and is found to by the probes.
        nodes[1].tap.change(None);
        talk(240).await;
        let healed = nodes[0].routes().await[&to]
            .route
            .next_hops
            .iter()
            .any(|hop| hop.neighbour == nodes[1].address());
        assert!(healed);
    });
}
