//! Ports, buffers, names, and the way to the peers.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket},
    time::Duration,
};

use futures_util::future::join_all;
use quicprochat_mesh::{
    api::{Dialled, Request, Status},
    config::{MeshConfig, PeerUrl, Scheme, ports::explain},
};
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::Finding;
use crate::{call, cx::Context};

/// Longest wait for a name, a connection or an answer of the node.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a socket's buffer below which bursts over QUIC are lost.
const UDP_BUFFER_MIN: u64 = 1 << 20;

/// Whether each port of the configuration is free, or this node's.
pub(super) async fn ports(config: &MeshConfig, status: Option<&Status>) -> Vec<Finding> {
    let own = |url: &str| status.is_some_and(|status| status.listen.iter().any(|one| one == url));
    let mut findings = Vec::new();
    for url in config.listen_urls() {
        let text = url.to_string();
        if own(&text) {
            findings.push(Finding::ok(PORTS, format!("{text} is held by this node")));
            continue;
        }
        if url.port == 0 {
            findings.push(Finding::ok(PORTS, format!("{text} takes any free port")));
            continue;
        }
        let finding = match resolve(&url.host, url.port).await {
            Err(why) => Finding::fail(
                PORTS,
                format!("{text}: {why}"),
                "listen on an address of this machine, or on [::]",
            ),
            Ok(addresses) => try_port(&text, url.scheme, "--listen", &addresses),
        };
        findings.push(finding);
    }
    if let Some(at) = config.health.listen.addr().filter(|at| at.port() != 0) {
        let held =
            status.and_then(|status| status.health.as_deref()).is_some_and(|held| held == at.to_string());
        let what = format!("health endpoint {at}");
        findings.push(match held {
            true => Finding::ok(PORTS, format!("{what} is held by this node")),
            false => try_port(&what, Scheme::Tcp, "--health-listen", &[at]),
        });
    }
    findings
}

const PORTS: &str = "ports";

fn try_port(what: &str, scheme: Scheme, flag: &str, at: &[SocketAddr]) -> Finding {
    let bound = match scheme {
        Scheme::Quic => UdpSocket::bind(at).map(drop),
        Scheme::Tcp => TcpListener::bind(at).map(drop),
    };
    match bound {
        Ok(()) => Finding::ok(PORTS, format!("{what} is free")),
        Err(error) => {
            let text = explain(what, flag, &error);
            // What is wrong, then what to do.
            let (detail, advice) = text.rsplit_once(": ").unwrap_or((&text, "choose another port"));
            Finding::fail(PORTS, detail, advice)
        }
    }
}

/// Whether this machine has IPv6, which `[::]` needs.
pub(super) fn ipv6() -> Finding {
    const CHECK: &str = "ipv6";
    let local = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    // Asks for a route and sends nothing; the address is one of documentation (RFC 3849).
    let there = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    match local.map(|socket| socket.connect((there, 9)).is_ok()) {
        Ok(true) => Finding::ok(CHECK, "this machine has it, with a route to the rest of the world"),
        Ok(false) => Finding::ok(CHECK, "this machine has it, with no route beyond its own network"),
        Err(error) => Finding::warn(
            CHECK,
            format!("this machine has none: {error}"),
            "listen on IPv4: transport.listen = [\"quic://0.0.0.0:7410\", \"tcp://0.0.0.0:7410\"]",
        ),
    }
}

/// How much the system lets a UDP socket buffer; Linux only.
pub(super) fn udp_buffers() -> Option<Finding> {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse().ok();
    let (receive, send): (u64, u64) = (read("rmem_max")?, read("wmem_max")?);
    Some(buffers(receive, send))
}

fn buffers(receive: u64, send: u64) -> Finding {
    const CHECK: &str = "udp_buffers";
    let detail = format!("net.core.rmem_max {receive}, net.core.wmem_max {send}");
    match receive.min(send) < UDP_BUFFER_MIN {
        true => Finding::warn(
            CHECK,
            format!("{detail}: bursts over QUIC may be lost and sent again"),
            format!("sysctl -w net.core.rmem_max={UDP_BUFFER_MIN} net.core.wmem_max={UDP_BUFFER_MIN}"),
        ),
        false => Finding::ok(CHECK, detail),
    }
}

/// Whether the names of configured peers have addresses.
pub(super) async fn names(config: &MeshConfig) -> Vec<Finding> {
    const CHECK: &str = "names";
    let mut hosts: Vec<&str> = config.transport.peers.iter().map(|url| url.host.as_str()).collect();
    hosts.retain(|host| host.split('%').next().is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_err()));
    hosts.sort_unstable();
    hosts.dedup();
    let look = async |host: &str| match resolve(host, 1).await {
        Ok(addresses) => {
            let shown: Vec<String> = addresses.iter().map(|at| at.ip().to_string()).collect();
            Finding::ok(CHECK, format!("{host} is {}", shown.join(", ")))
        }
        Err(why) => Finding::warn(
            CHECK,
            format!("{host} cannot be resolved: {why}"),
            "correct the name in transport.peers, or look at this machine's DNS",
        ),
    };
    join_all(hosts.into_iter().map(look)).await
}

/// On a thread of its own: the system's resolver cannot be told to stop, and nobody waits for it.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let (tell, told) = oneshot::channel();
    let name = host.to_owned();
    let look = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(|all| all.collect::<Vec<_>>());
        // Nobody waits any more where it took too long.
        let _ = tell.send(found);
    };
    std::thread::Builder::new().name("resolver".into()).spawn(look).map_err(|e| e.to_string())?;
    match timeout(PATIENCE, told).await {
        Ok(Ok(Ok(mut addresses))) if !addresses.is_empty() => {
            addresses.dedup();
            Ok(addresses)
        }
        Ok(Ok(Ok(_))) => Err("the name has no addresses".into()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err("the system's resolver failed".into()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

const PEERS: &str = "peers";

/// Whether the peers of the configuration can be reached, as far as that shows without a node.
pub(super) async fn reachable_peers(config: &MeshConfig) -> Vec<Finding> {
    let findings = join_all(config.transport.peers.iter().map(reach)).await;
    if findings.is_empty() { vec![nobody(0)] } else { findings }
}

/// Whether each peer of the node that runs is linked, or why it is not.
pub(super) async fn linked_peers(cx: &Context, status: &Status) -> Vec<Finding> {
    let unknown = |why: String| vec![Finding::warn(PEERS, why, "look at the node's log")];
    let dialled: Vec<Dialled> = match timeout(PATIENCE, call::all(cx, &Request::Dialled)).await {
        Ok(Ok(dialled)) => dialled,
        Ok(Err(failure)) => return unknown(failure.lines().join(" ")),
        Err(_) => return unknown("the node does not say whom it dials".into()),
    };
    match dialled.is_empty() {
        true => vec![nobody(status.peers)],
        false => dialled.iter().map(|peer| linked(peer, status.peers)).collect(),
    }
}

fn linked(peer: &Dialled, links: u64) -> Finding {
    let Dialled { url, linked, trouble } = peer;
    if *linked {
        return Finding::ok(PEERS, format!("{url} is linked"));
    }
    let why = trouble.as_deref().unwrap_or("it is being dialled");
    let advice = "see that it runs, that firewalls between let it through, and that network, secret and pin are the same";
    match (links, trouble) {
        (0, Some(_)) => {
            Finding::fail(PEERS, format!("{url} is not linked, nor is anybody else: {why}"), advice)
        }
        _ => Finding::warn(PEERS, format!("{url} is not linked: {why}"), advice),
    }
}

fn nobody(links: u64) -> Finding {
    match links {
        0 => Finding::warn(
            PEERS,
            "there is nobody to dial, and nobody has dialled this node",
            "name a node with `qpc peer add URL`, or in transport.peers",
        ),
        links => Finding::ok(PEERS, format!("nobody to dial; {links} links")),
    }
}

/// Without a node only the port of TCP can be tried: over QUIC nobody answers a stranger.
async fn reach(url: &PeerUrl) -> Finding {
    let place = place(url);
    if url.scheme != Scheme::Tcp {
        return Finding::ok(PEERS, format!("{place} is dialled by the node; none runs that could tell"));
    }
    let advice = "see that it runs, and that its port is open in firewalls between";
    let not = |why: String| Finding::warn(PEERS, format!("{place} cannot be reached: {why}"), advice);
    let addresses = match resolve(&url.host, url.port).await {
        Ok(addresses) => addresses,
        Err(why) => return not(why),
    };
    match timeout(PATIENCE, TcpStream::connect(&*addresses)).await {
        Ok(Ok(_)) => Finding::ok(PEERS, format!("something listens at {place}")),
        Ok(Err(error)) => not(error.to_string()),
        Err(_) => not(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// A peer's URL without its pin.
fn place(url: &PeerUrl) -> String {
    PeerUrl { pin: None, ..url.clone() }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::doctor::Level;

    #[test]
    fn a_peer_without_a_link_fails_where_nobody_else_has_one() {
        let url = "quic://example.org:7410".to_owned();
        let peer = |linked, trouble: Option<&str>| Dialled {
            url: url.clone(),
            linked,
            trouble: trouble.map(Into::into),
        };
        assert_eq!(linked(&peer(true, None), 1).status, Level::Ok);
        let refused = peer(false, Some("it refused"));
        assert_eq!((linked(&refused, 1).status, linked(&refused, 0).status), (Level::Warn, Level::Fail));
        assert!(linked(&refused, 0).detail.ends_with("it refused"));
        assert_eq!(linked(&peer(false, None), 0).status, Level::Warn, "a node that was started just now");
        assert_eq!((nobody(0).status, nobody(1).status), (Level::Warn, Level::Ok));
    }

    #[test]
    fn small_buffers_are_told_with_the_command_that_raises_them() {
        assert_eq!(buffers(4 << 20, 4 << 20).status, Level::Ok);
        let small = buffers(212_992, 4 << 20);
        assert_eq!(small.status, Level::Warn);
        assert!(small.advice.unwrap().starts_with("sysctl -w net.core.rmem_max="));
    }

    #[tokio::test]
    async fn a_port_in_use_fails_and_a_free_one_does_not() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = held.local_addr().unwrap();
        let finding = try_port("tcp://x", Scheme::Tcp, "--listen", &[at]);
        assert_eq!(finding.status, Level::Fail);
        assert!(finding.detail.contains("cannot listen on tcp://x"), "{finding:?}");
        assert_eq!(
            try_port("quic://x", Scheme::Quic, "--listen", &["127.0.0.1:0".parse().unwrap()]).status,
            Level::Ok
        );
        assert_eq!(reach(&format!("tcp://{at}").parse().unwrap()).await.status, Level::Ok);
    }
}
