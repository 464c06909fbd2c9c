use proptest::prelude::*;

use super::*;
use crate::{clock, crypto::random::SeededRng};

const LOW: [u8; 8] = [0x10; 8];
const HIGH: [u8; 8] = [0xe0; 8];
const BOTH: [BeaconListener; 2] = [
    BeaconListener { medium: BeaconListener::QUIC, port: 7410 },
    BeaconListener { medium: BeaconListener::TCP, port: 7420 },
];

struct Node {
    core: Discovery,
    rng: SeededRng,
    began: Instant,
}

fn config(secret: Option<&str>) -> DiscoveryConfig {
    DiscoveryConfig {
        network: NetworkId([7; 16]),
        secret: secret.map(|text| NetworkSecret::new(text.as_bytes().to_vec())),
        media: vec![BeaconListener::QUIC, BeaconListener::TCP],
    }
}

fn node_of(config: DiscoveryConfig, instance: [u8; 8]) -> Node {
    let mut rng = SeededRng::new(u64::from(instance[0]));
    let began = clock::now();
    Node { core: Discovery::new(config, instance, began, &mut rng), rng, began }
}

fn node(instance: [u8; 8]) -> Node {
    node_of(config(None), instance)
}

fn at(host: u8) -> Place {
    Place { ip: IpAddr::from([192, 168, 7, host]), scope: 0 }
}

fn after(node: &Node, s: f64) -> Instant {
    node.began + Duration::from_secs_f64(s)
}

impl Node {
    fn beacon(&mut self, ask: bool) -> Vec<u8> {
        self.core.beacon(ask, &BOTH, &mut self.rng).expect("it listens")
    }

    fn hear(&mut self, s: f64, host: u8, datagram: &[u8]) -> Result<(), Ignored> {
        let now = after(self, s);
        self.core.hear(now, at(host), datagram, &mut self.rng)
    }

    fn dials(&mut self, s: f64, links: &[Linked]) -> Vec<Dial> {
        let now = after(self, s);
        self.core.dials(now, links, &mut self.rng)
    }

    fn came_to(&mut self, s: f64, instance: [u8; 8], outcome: Outcome) {
        let now = after(self, s);
        self.core.came_to(now, &instance, outcome, &mut self.rng);
    }

    /// When it calls in these seconds, and whether it asks.
    fn calls(&mut self, from_s: f64, to_s: f64) -> Vec<(f64, bool)> {
        let mut calls = Vec::new();
        let mut now = after(self, from_s);
        while now < after(self, to_s) {
            if let Some(ask) = self.core.call(now, &mut self.rng) {
                calls.push((now.saturating_duration_since(self.began).as_secs_f64(), ask));
            }
            now = self.core.next_wake(now).max(now + Duration::from_millis(1));
        }
        calls
    }
}

fn link(address: u8, host: u8, port: u16, inbound: bool) -> Linked {
    Linked { address: Address([address; 16]), at: Some((at(host).ip, port)), inbound }
}

#[test]
fn a_newcomer_asks_a_few_times_and_calls_rarely_then() {
    let calls = node(LOW).calls(0.0, 3600.0);
    let (asks, tells): (Vec<_>, Vec<_>) = calls.iter().partition(|(_, ask)| *ask);
    assert_eq!(asks.len(), 4, "{asks:?}");
    assert!(asks.iter().all(|(s, _)| *s < 10.0), "{asks:?}");
    assert!((45..=80).contains(&tells.len()), "{} in an hour", tells.len());
}

#[test]
fn who_asks_is_answered_at_once_and_a_crowd_once_a_second() {
    let mut here = node(LOW);
    here.calls(0.0, 100.0);
    let mut there = node(HIGH);
    let ask = there.beacon(true);
    here.hear(100.0, 2, &ask).expect("a beacon");
    let calls = here.calls(100.0, 101.0);
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(calls[0].0 < 100.3 && !calls[0].1, "{calls:?}");
    for n in 0..200 {
        let s = 102.0 + f64::from(n) / 100.0;
        // One address has no more to say than its budget.
        let ask = there.beacon(true);
        let _ = here.hear(s, (n % 50) as u8, &ask);
        let answers = here.calls(s, s + 0.01);
        assert!(answers.len() <= 1, "{answers:?}");
    }
    assert!(here.calls(104.0, 110.0).len() <= 2);
}

#[test]
fn the_lower_instance_dials_at_once_and_the_higher_one_later() {
    let (mut low, mut high) = (node(LOW), node(HIGH));
    let (from_low, from_high) = (low.beacon(false), high.beacon(false));
    low.hear(0.0, 2, &from_high).expect("a beacon");
    high.hear(0.0, 1, &from_low).expect("a beacon");
    let dials = low.dials(0.2, &[]);
    assert_eq!(dials, [Dial { instance: HIGH, place: at(2), listener: BOTH[0] }]);
    assert_eq!(high.dials(2.9, &[]), []);
    assert_eq!(high.dials(4.1, &[]).len(), 1);
}

#[test]
fn no_dial_is_made_where_the_other_has_come_already() {
    let (mut low, mut high) = (node(LOW), node(HIGH));
    let beacon = low.beacon(false);
    high.hear(0.0, 1, &beacon).expect("a beacon");
    // From a port of its own, as TCP has it.
    let inbound = link(0xaa, 1, 50_000, true);
    assert_eq!(high.dials(4.1, &[inbound]), []);
    // And again with each later beacon, while the link stands.
    for s in [60.0, 120.0] {
        let beacon = low.beacon(false);
        high.hear(s, 1, &beacon).expect("a beacon");
        assert_eq!(high.dials(s + 5.0, &[inbound]), []);
    }
    let beacon = low.beacon(false);
    high.hear(180.0, 1, &beacon).expect("a beacon");
    assert_eq!(high.dials(185.0, &[]).len(), 1, "the link is gone");
}

#[test]
fn who_is_dialled_by_configuration_is_not_dialled_again() {
    let (mut low, mut high) = (node(LOW), node(HIGH));
    let beacon = high.beacon(false);
    low.hear(0.0, 2, &beacon).expect("a beacon");
    assert_eq!(low.dials(0.2, &[link(0xbb, 2, 7410, false)]), []);
}

#[test]
fn an_instance_is_one_node_wherever_it_is_heard() {
    let (mut low, mut high) = (node(LOW), node(HIGH));
    for host in [2, 3] {
        let beacon = high.beacon(false);
        low.hear(0.0, host, &beacon).expect("a beacon");
    }
    assert_eq!(low.dials(0.2, &[]).len(), 1);
    low.came_to(0.3, HIGH, Outcome::Up(Address([0xbb; 16])));
    let beacon = high.beacon(false);
    low.hear(60.0, 3, &beacon).expect("a beacon");
    assert_eq!(low.dials(61.0, &[link(0xbb, 2, 7410, false)]), []);
}

#[test]
fn a_dial_in_vain_is_tried_another_way_a_few_times_and_then_rests() {
    let (mut low, mut high) = (node(LOW), node(HIGH));
    let beacon = high.beacon(false);
    low.hear(0.0, 2, &beacon).expect("a beacon");
    let mut tried = Vec::new();
    let mut s = 0.0;
    while s < 50.0 {
        for dial in low.dials(s, &[]) {
            tried.push(dial.listener.medium);
            low.came_to(s, HIGH, Outcome::Failed);
        }
        s += 0.1;
    }
    assert_eq!(tried, [0, 1, 0, 1]);
    // Its next beacons have it dialled again, but not at once.
    let beacon = high.beacon(false);
    low.hear(50.0, 2, &beacon).expect("a beacon");
    assert_eq!(low.dials(51.0, &[]), []);
    let beacon = high.beacon(false);
    low.hear(110.0, 2, &beacon).expect("a beacon");
    assert_eq!(low.dials(111.0, &[]).len(), 1);
}

#[test]
fn who_does_not_want_this_node_is_left_alone() {
    for reason in [CloseReason::NetworkMismatch, CloseReason::NotAllowed, CloseReason::Removed] {
        let (mut low, mut high) = (node(LOW), node(HIGH));
        let beacon = high.beacon(false);
        low.hear(0.0, 2, &beacon).expect("a beacon");
        assert_eq!(low.dials(0.2, &[]).len(), 1);
        low.came_to(0.3, HIGH, Outcome::Up(Address([0xbb; 16])));
        low.came_to(0.4, HIGH, Outcome::Ended(reason));
        for s in [60.0, 120.0, 500.0] {
            let beacon = high.beacon(false);
            low.hear(s, 2, &beacon).expect("a beacon");
            assert_eq!(low.dials(s + 1.0, &[]), [], "{reason:?}");
        }
        let beacon = high.beacon(false);
        low.hear(601.0, 2, &beacon).expect("a beacon");
        assert_eq!(low.dials(602.0, &[]).len(), 1, "{reason:?}");
    }
}

#[test]
fn another_network_another_secret_and_a_changed_port_are_ignored() {
    let mut here = node_of(config(Some("correct horse")), LOW);
    let mut other_name =
        node_of(DiscoveryConfig { network: NetworkId([8; 16]), ..config(Some("correct horse")) }, HIGH);
    let beacon = other_name.beacon(false);
    assert_eq!(here.hear(0.0, 2, &beacon), Err(Ignored::Foreign));
    for secret in [None, Some("battery staple")] {
        let beacon = node_of(config(secret), HIGH).beacon(false);
        assert_eq!(here.hear(0.0, 2, &beacon), Err(Ignored::Foreign));
    }
    let beacon = node_of(config(Some("correct horse")), HIGH).beacon(false);
    let mut changed = Beacon::decode(&beacon).expect("a beacon");
    changed.listeners[0].port = 22;
    assert_eq!(here.hear(0.0, 2, &changed.encode()), Err(Ignored::Foreign));
    assert_eq!(here.dials(10.0, &[]), []);
    assert_eq!(here.hear(0.0, 2, &beacon), Ok(()));
}

#[test]
fn own_beacons_are_known_and_an_own_answer_ends_the_matter() {
    let mut here = node(LOW);
    let own = here.beacon(true);
    assert_eq!(here.hear(0.0, 1, &own), Err(Ignored::Own));
    let other = node(HIGH).beacon(false);
    here.hear(0.0, 1, &other).expect("a beacon");
    assert_eq!(here.dials(1.0, &[]).len(), 1);
    here.came_to(1.0, HIGH, Outcome::Own);
    here.hear(60.0, 1, &other).expect("a beacon");
    assert_eq!(here.dials(120.0, &[]), []);
    assert_eq!(here.core.heard(), 0);
}

#[test]
fn two_beacons_of_one_node_share_their_instance_alone() {
    let mut here = node(LOW);
    let [one, two] = [here.beacon(false), here.beacon(false)].map(|b| Beacon::decode(&b).expect("a beacon"));
    assert_eq!(one.instance, two.instance);
    assert_ne!(one.nonce, two.nonce);
    assert_ne!(one.proof, two.proof);
}

#[test]
fn a_flood_of_one_address_has_its_budget_and_leaves_others_theirs() {
    let mut here = node(HIGH);
    let mut taken = 0;
    for n in 0..60u8 {
        let mut forged = node([n.wrapping_add(1); 8]);
        let beacon = forged.beacon(false);
        taken += usize::from(here.hear(0.0, 9, &beacon).is_ok());
    }
    assert_eq!(taken, INSTANCES_OF_PLACE_MAX);
    let beacon = node(LOW).beacon(false);
    assert_eq!(here.hear(0.0, 2, &beacon), Ok(()));
}

/// What happens to a core.
#[derive(Debug, Clone)]
enum Step {
    Noise(Vec<u8>),
    Forged { host: u8, instance: u8, ask: bool },
    Wait(u64),
    Outcome(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..64).prop_map(Step::Noise),
        6 => (any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(host, instance, ask)| Step::Forged { host, instance, ask }),
        3 => (0u64..5_000).prop_map(Step::Wait),
        2 => any::<u8>().prop_map(Step::Outcome),
    ];
    proptest::collection::vec(step, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_costs_no_more_than_its_limits(steps in steps()) {
        let mut here = node([0x80; 8]);
        let mut ms = 0;
        let mut dialled: Vec<(u64, Place)> = Vec::new();
        let mut under_way = Vec::new();
        for step in steps {
            let s = ms as f64 / 1000.0;
            match step {
                Step::Noise(bytes) => { let _ = here.hear(s, 1, &bytes); }
                Step::Forged { host, instance, ask } => {
                    let beacon = node([instance; 8]).beacon(ask);
                    let _ = here.hear(s, host, &beacon);
                }
                Step::Wait(more) => ms += more,
                Step::Outcome(what) => if let Some(instance) = under_way.pop() {
                    let outcome = match what % 4 {
                        0 => Outcome::Failed,
                        1 => Outcome::Own,
                        2 => Outcome::Up(Address([what; 16])),
                        _ => Outcome::Ended(CloseReason::from(what % 12)),
                    };
                    here.came_to(s, instance, outcome);
                },
            }
            for dial in here.dials(ms as f64 / 1000.0, &[]) {
                under_way.push(dial.instance);
                dialled.push((ms, dial.place));
            }
            prop_assert!(here.core.known.len() <= INSTANCES_MAX);
            prop_assert!(here.core.sources.len() <= SOURCES_MAX);
            prop_assert!(here.core.known.values().all(|known| known.places.len() <= PLACES_MAX));
            let last: Vec<_> = dialled.iter().filter(|(at, _)| at + 60_000 > ms).collect();
            prop_assert!(last.len() <= DIALS_PER_MINUTE, "{} dials in a minute", last.len());
            for (_, place) in &last {
                let of_place = last.iter().filter(|(_, other)| other == place).count();
                prop_assert!(of_place <= DIALS_OF_PLACE_PER_MINUTE);
            }
        }
    }
}
