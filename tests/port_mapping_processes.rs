//! A node and a router that speaks NAT-PMP, one that speaks PCP, and one that says nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "port-mapping")]

mod common;

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

use common::{Node, Spec, wait_for, wait_until};

/// What a router was asked: UDP or not, the port inside, for how many seconds.
type Asked = (bool, u16, u32);

const OUTSIDE: [u8; 4] = [198, 51, 100, 7];

/// A router at an address of this machine's loopback network, of which nobody else has a socket there.
struct Router {
    at: Ipv4Addr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Both answers are made from the request: of NAT-PMP (RFC 6886 section 3), of PCP (RFC 6887 sections 7, 11).
fn nat_pmp(request: &[u8], asked: &mut Vec<Asked>) -> Option<Vec<u8>> {
    let epoch = [0, 0, 0, 9];
    match request {
        [2, ..] => Some([&[0, 129, 0, 1][..], &epoch].concat()),
        [0, 0] => Some([&[0, 128, 0, 0][..], &epoch, &OUTSIDE].concat()),
        [0, op @ (1 | 2), _, _, i0, i1, _, _, l0, l1, l2, l3] => {
            let inside = u16::from_be_bytes([*i0, *i1]);
            let lifetime = u32::from_be_bytes([*l0, *l1, *l2, *l3]);
            asked.push((*op == 1, inside, lifetime));
            let outside = if lifetime == 0 { 0 } else { inside ^ 1 };
            let granted = lifetime.min(20);
            let head = [0, 128 + op, 0, 0];
            Some([&head[..], &epoch, &[*i0, *i1], &outside.to_be_bytes(), &granted.to_be_bytes()].concat())
        }
        _ => None,
    }
}

fn pcp(request: &[u8], asked: &mut Vec<Asked>) -> Option<Vec<u8>> {
    if request.len() != 60 || request[..2] != [2, 1] {
        return None;
    }
    let lifetime = u32::from_be_bytes(request[4..8].try_into().unwrap());
    let inside = u16::from_be_bytes(request[40..42].try_into().unwrap());
    asked.push((request[36] == 17, inside, lifetime));
    let outside = (inside ^ 1).to_be_bytes();
    let ip = Ipv4Addr::from(OUTSIDE).to_ipv6_mapped().octets();
    let head = [&[2, 0x81, 0, 0][..], &lifetime.min(20).to_be_bytes(), &[0, 0, 0, 9], &[0; 12]].concat();
    Some([&head, &request[24..42], &outside, &ip].concat())
}

impl Router {
    fn start(host: u8, answer: fn(&[u8], &mut Vec<Asked>) -> Option<Vec<u8>>) -> Option<Self> {
        let at = Ipv4Addr::new(127, 53, 51, host);
        let socket = match UdpSocket::bind((at, 5351)) {
            Ok(socket) => socket,
            Err(error) => {
                eprintln!("no router at {at} here: {error}");
                return None;
            }
        };
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let heard = asked.clone();
        thread::spawn(move || {
            let mut request = [0; 1100];
            while let Ok((length, from)) = socket.recv_from(&mut request) {
                if let Some(answer) = answer(&request[..length], &mut heard.lock().unwrap()) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Some(Self { at, asked })
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn behind(at: Ipv4Addr) -> Node {
    Spec::new("behind")
        .listen("quic://0.0.0.0:0")
        .arg("--listen")
        .arg("tcp://0.0.0.0:0")
        .env("QPC_TRANSPORT_PORT_MAPPING", "true")
        .env("QPC_TRANSPORT_PORT_MAPPING_GATEWAY", &at.to_string())
        .start()
}

fn port(node: &Node, scheme: &str) -> u16 {
    let listen = node.ready["listen"].as_array().unwrap();
    let url = listen.iter().filter_map(|url| url.as_str()).find(|url| url.starts_with(scheme)).unwrap();
    url.rsplit(':').next().unwrap().parse().unwrap()
}

fn external(node: &Node) -> Vec<String> {
    let status = node.status();
    status["external"].as_array().unwrap().iter().map(|url| url.as_str().unwrap().to_owned()).collect()
}

/// Asked for, told, renewed, and given back.
fn is_served(router: &Router) {
    let mut node = behind(router.at);
    let (quic, tcp) = (port(&node, "quic"), port(&node, "tcp"));
    let urls = wait_for("both ports", || Some(external(&node)).filter(|urls| urls.len() == 2));
    let address = node.address();
    let url = |scheme: &str, port: u16| format!("{scheme}://198.51.100.7:{}#{address}", port ^ 1);
    assert_eq!(urls, [url("quic", quic), url("tcp", tcp)]);
    node.logs("the router passes links on to this node");
    let grants = |udp, port| router.asked().iter().filter(|a| (a.0, a.1) == (udp, port) && a.2 > 0).count();
    assert!(grants(true, quic) >= 1 && grants(false, tcp) >= 1);
    wait_until("a renewal of both", || grants(true, quic) >= 2 && grants(false, tcp) >= 2);
    assert_eq!(external(&node).len(), 2);
    assert_eq!(node.stop().1, 0);
    let asked = router.asked();
    for (udp, port) in [(true, quic), (false, tcp)] {
        let last = asked.iter().rfind(|a| (a.0, a.1) == (udp, port)).unwrap();
        assert_eq!(last.2, 0, "it is given back: {asked:?}");
    }
}

#[test]
fn a_router_that_speaks_nat_pmp_opens_ports() {
    if let Some(router) = Router::start(1, nat_pmp) {
        is_served(&router);
    }
}

#[test]
fn a_router_that_speaks_pcp_opens_ports() {
    if let Some(router) = Router::start(2, pcp) {
        is_served(&router);
    }
}

#[test]
fn a_router_that_says_nothing_costs_a_line() {
    let Some(router) = Router::start(3, |_, _| None) else { return };
    let mut node = behind(router.at);
    let other = Spec::new("other").peer(format!("tcp://127.0.0.1:{}", port(&node, "tcp"))).start();
    node.knows(&[&other]);
    node.deliver(&other, "still here");
    node.logs("the router opens no port");
    assert_eq!(external(&node), Vec::<String>::new());
    assert_eq!(node.status()["state"], "healthy");
    assert_eq!(node.stop().1, 0);
}
