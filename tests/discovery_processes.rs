//! Nodes that nobody told of each other, as processes: on one machine, and with a cable between two
//! networks that exist for the test.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Instant,
};

use common::{Node, Spec, namespace::Namespace, wait_until};
use quicprochat_mesh::{
    crypto::{network_id, random::os_rng},
    proto::discovery::{DIALS_OF_PLACE_PER_MINUTE, Discovery, DiscoveryConfig},
    transport::{interfaces::interfaces, multicast::GROUP_V4},
    wire::beacon::BeaconListener,
};

/// The address of an interface here that carries multicast, with the reason on stderr where none does.
fn lan() -> Option<Ipv4Addr> {
    let fitting = interfaces().unwrap().into_iter().filter(|i| i.is_multicast && !i.is_loopback);
    let mut addresses = fitting.flat_map(|interface| interface.addresses);
    let found = addresses.find_map(|(ip, _)| match ip {
        std::net::IpAddr::V4(v4) => Some(v4),
        std::net::IpAddr::V6(_) => None,
    });
    if found.is_none() {
        eprintln!("no interface here carries multicast: nothing to test");
    }
    found
}

/// A node on the LAN of this machine that looks for others. Each test has a port of beacons of its own.
fn on_lan(name: &str, lan: Ipv4Addr, port: u16) -> Spec {
    Spec::new(name)
        .listen(&format!("quic://{lan}:0"))
        .arg("--listen")
        .arg(format!("tcp://{lan}:0"))
        .arg("--discover")
        .env("QPC_DISCOVERY_PORT", &port.to_string())
}

fn count(node: &Node, metric: &str) -> u64 {
    let stats = node.ask(&["stats"]).remove(0);
    let value = &stats["transports"][metric];
    match value.as_object() {
        Some(series) => series.values().filter_map(serde_json::Value::as_u64).sum(),
        None => value.as_u64().unwrap_or_else(|| panic!("{metric}: {value}")),
    }
}

fn ignored(node: &Node, reason: &str) -> u64 {
    let stats = node.ask(&["stats"]).remove(0);
    stats["transports"]["discovery_beacons_ignored_total"][reason].as_u64().unwrap()
}

/// How the links of a node came about.
fn origins(node: &Node) -> Vec<String> {
    let peers = node.ask(&["peers"]);
    peers.iter().map(|peer| peer["origin"].as_str().unwrap().to_owned()).collect()
}

/// Waits until they are linked by nobody's word, and has a message carried each way.
fn find_each_other(a: &Node, b: &Node) {
    a.has_links(1);
    b.has_links(1);
    let mut both = [origins(a), origins(b)].concat();
    both.sort();
    assert_eq!(both, ["discovered", "inbound"]);
    a.knows(&[b]);
    b.knows(&[a]);
    a.deliver(b, "found you");
    b.deliver(a, "and I you");
}

#[test]
fn two_nodes_of_one_machine_find_each_other() {
    let Some(lan) = lan() else { return };
    let a = on_lan("a", lan, 27_412).start();
    let b = on_lan("b", lan, 27_412).start();
    find_each_other(&a, &b);
    // Who is linked is not dialled again.
    assert_eq!(count(&a, "discovery_dials_total") + count(&b, "discovery_dials_total"), 1);
}

#[test]
fn nodes_of_another_network_or_secret_are_not_dialled() {
    let Some(lan) = lan() else { return };
    let secrets = common::temp_dir();
    let secret = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secretly =
        |name: &str, file: String| on_lan(name, lan, 27_413).arg("--network-secret-file").arg(file);
    let (one, other) = (secret("one", &"a".repeat(40)), secret("other", &"b".repeat(40)));
    let a = secretly("a", one.clone()).start();
    let strangers = [
        on_lan("no-secret", lan, 27_413).start(),
        secretly("other-secret", other).start(),
        secretly("other-name", one.clone()).arg("--network").arg("elsewhere").start(),
    ];
    wait_until("beacons of three strangers at each", || {
        strangers.iter().chain([&a]).all(|node| ignored(node, "foreign") >= 6)
    });
    // One of its own is found beside them.
    let b = secretly("b", one).start();
    find_each_other(&a, &b);
    for stranger in &strangers {
        assert_eq!(count(stranger, "discovery_dials_total"), 0);
        assert_eq!(count(stranger, "discovery_beacons_heard_total"), 0);
        assert_eq!(origins(stranger), Vec::<String>::new());
    }
}

#[test]
fn a_flood_of_forged_beacons_costs_few_dials() {
    let Some(lan) = lan() else { return };
    let began = Instant::now();
    let b = Spec::new("b").start();
    let a = on_lan("a", lan, 27_414).peer(b.url("quic")).start();
    a.knows(&[&b]);
    let socket = socket2::Socket::from(UdpSocket::bind((lan, 0)).unwrap());
    socket.set_multicast_if_v4(&lan).unwrap();
    let socket = UdpSocket::from(socket);
    // Whoever knows the name of a network without a secret can make them; nobody listens there.
    let config = || DiscoveryConfig { network: network_id("public"), secret: None, media: vec![0, 1] };
    let listener = BeaconListener { medium: BeaconListener::TCP, port: 9 };
    let now = quicprochat_mesh::clock::now();
    let mut made = 0u64;
    wait_until("a flood that was cut, and dials", || {
        for _ in 0..500 {
            made += 1;
            let forged = Discovery::new(config(), made.to_be_bytes(), now, &mut os_rng());
            let beacon = forged.beacon(made.is_multiple_of(2), &[listener], &mut os_rng()).unwrap();
            socket.send_to(&beacon, (GROUP_V4, 27_414)).unwrap();
        }
        ignored(&a, "source_budget") + ignored(&a, "full") > 50
            && count(&a, "discovery_dials_total") >= DIALS_OF_PLACE_PER_MINUTE as u64
    });
    let minutes = began.elapsed().as_secs() / 60 + 1;
    let most = DIALS_OF_PLACE_PER_MINUTE as u64 * minutes;
    assert!(count(&a, "discovery_dials_total") <= most, "over {most} dials after {made} beacons");
    assert_eq!(origins(&a), ["config"]);
    a.deliver(&b, "all is well");
}

#[test]
fn nodes_of_two_machines_find_each_other_by_default() {
    let Some(both) = Namespace::two() else { return };
    Namespace::connect(&both);
    both[0].ip("addr add 192.168.77.1/24 dev cable");
    both[1].ip("addr add 192.168.77.2/24 dev cable");
    let [a, b] = ["a", "b"].map(|name| Spec::new(name).listens_by_default());
    let (a, b) = (a.inside(&both[0]).start(), b.inside(&both[1]).start());
    find_each_other(&a, &b);
}

#[test]
fn a_cable_that_is_plugged_in_later_is_found_and_ipv6_is_enough() {
    let Some(both) = Namespace::two() else { return };
    let [a, b] = ["a", "b"].map(|name| Spec::new(name).listens_by_default());
    let (a, b) = (a.inside(&both[0]).start(), b.inside(&both[1]).start());
    a.logs("LAN discovery does nothing: no interface carries multicast");
    Namespace::connect(&both);
    find_each_other(&a, &b);
    let peers = a.ask(&["peers"]);
    assert!(peers[0]["url"].as_str().unwrap().contains("//[fe80::"), "{peers:?}");
    // A remark on what is over would mislead.
    wait_until("no more remark", || {
        let status = a.status();
        !status["subsystems"]["transport"]["detail"].as_str().unwrap_or("").contains("discovery")
    });
}

#[test]
fn who_does_not_want_to_be_found_sends_nothing() {
    let Some(lan) = lan() else { return };
    let seeker = on_lan("seeker", lan, 27_415).start();
    let quiet = ["explicit", "said-so"].map(|name| {
        let spec = Spec::new(name).listen(&format!("quic://{lan}:0")).env("QPC_DISCOVERY_PORT", "27415");
        if name == "said-so" { spec.arg("--no-discover").start() } else { spec.start() }
    });
    // One that is found after they had every chance.
    let found = on_lan("found", lan, 27_415).start();
    find_each_other(&seeker, &found);
    for node in &quiet {
        assert_eq!(count(node, "discovery_beacons_sent_total"), 0);
        assert_eq!(origins(node), Vec::<String>::new());
    }
}
