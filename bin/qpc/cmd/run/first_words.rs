//! What `qpc run` tells people when it starts: who the node is, how a second one finds it, and who came
//! in the first seconds.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use quicprochat_mesh::{
    api::Ready,
    config::{Accept, MeshConfig},
    node::MeshNode,
    transport::{
        TransportAddr, addr,
        interfaces::{Interface, interfaces},
    },
};

use crate::{
    human,
    out::{Out, note},
};

/// Addresses told for a listener that takes links on all of them.
const ADDRESSES_SHOWN: usize = 3;

/// How long neighbours are told of as they come.
const WATCHED_FOR: Duration = Duration::from_secs(10);

/// Pause between two looks at the links.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Neighbours told of; more would bury what stands above.
const NEIGHBOURS_SHOWN: usize = 5;

/// The first lines.
pub fn ready(ready: &Ready) -> String {
    let listeners: Vec<TransportAddr> = ready.listen.iter().filter_map(|url| url.parse().ok()).collect();
    // Where the system does not say, what was bound is told.
    let places = places(&listeners, &interfaces().unwrap_or_default());
    let health = ready.health.as_ref().map_or("off".into(), |h| format!("http://{h}/healthz"));
    let mut fields = Vec::new();
    let listens = if places.is_empty() { ready.listen.join("  ") } else { join(&places) };
    fields.push(("  listens on", listens));
    if let Some((from, command)) = invitation(&places, &ready.address.to_string()) {
        fields.push((from, command));
    }
    fields.push(("  health", health));
    fields.push(("  control", human::escape(&ready.control)));
    fields.push(("  stop", format!("Ctrl-C, `qpc drain` or kill {}", ready.pid)));
    format!("node {} is ready\n{}", ready.address, human::fields(&fields))
}

fn join(places: &[TransportAddr]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join("  ")
}

/// Where each listener can be reached: of one that takes links everywhere, the addresses of the
/// interfaces, those of IPv4 first.
fn places(listeners: &[TransportAddr], interfaces: &[Interface]) -> Vec<TransportAddr> {
    let mut out = Vec::new();
    for url in listeners {
        let Some(at) = url.socket_addr().filter(|at| at.ip().is_unspecified()) else {
            out.push(url.clone());
            continue;
        };
        let others = interfaces.iter().filter(|interface| !interface.is_loopback);
        let mut own: Vec<IpAddr> = others
            .flat_map(|interface| interface.addresses.iter().map(|(ip, _)| *ip))
            // A link-local address needs the number of an interface of the other machine behind it.
            .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
            .filter(|ip| at.is_ipv6() || ip.is_ipv4())
            .collect();
        own.sort_by_key(IpAddr::is_ipv6);
        own.truncate(ADDRESSES_SHOWN);
        if own.is_empty() {
            own.push(if at.is_ipv6() {
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
            } else {
                [127, 0, 0, 1].into()
            });
        }
        out.extend(own.into_iter().map(|ip| TransportAddr::socket(url.scheme(), (ip, at.port()).into())));
    }
    out
}

/// A line that starts a second node which finds this one: on another machine, or on this one where
/// nobody else can reach it.
fn invitation(places: &[TransportAddr], address: &str) -> Option<(&'static str, String)> {
    let is_outside = |url: &&TransportAddr| url.socket_addr().is_some_and(|at| !at.ip().is_loopback());
    // QUIC first: over it links survive a change of addresses.
    let by_quic = |urls: Vec<&TransportAddr>| {
        urls.iter().find(|url| url.scheme() == addr::QUIC).or(urls.first()).map(|url| (*url).clone())
    };
    if let Some(url) = by_quic(places.iter().filter(is_outside).collect()) {
        return Some(("  link with it", format!("qpc run --peer '{url}#{address}'  (on another machine)")));
    }
    let url = by_quic(places.iter().collect())?;
    let ip = url.socket_addr().map_or("127.0.0.1".into(), |at| match at.ip() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    });
    let scheme = url.scheme();
    Some((
        "  link with it",
        format!(
            "qpc --data-dir DIR run --listen {scheme}://{ip}:0 --health-listen off --peer '{url}#{address}'  \
             (on this machine, with a directory of its own)"
        ),
    ))
}

/// What matters of the configuration to who is alone.
#[derive(Debug, Clone)]
pub struct Situation {
    peers: usize,
    discovers: bool,
    lan_only: bool,
    network: String,
}

impl Situation {
    /// Of a node with this configuration.
    pub fn of(config: &MeshConfig) -> Self {
        Self {
            peers: config.transport.peers.len(),
            discovers: config.discovers(),
            lan_only: config.accept() == Accept::Lan,
            network: config.identity.network.clone(),
        }
    }

    /// What to do next, to who has no link after a while.
    fn hint(&self) -> String {
        let mut hint = if self.peers > 0 {
            format!(
                "no link yet: {} not answer; `qpc status` says why",
                if self.peers == 1 { "the configured peer does" } else { "the configured peers do" }
            )
        } else if self.discovers {
            format!(
                "no link yet: no other node of network {} on this LAN; start one there, or name one with \
                 `qpc peer add URL`",
                human::escape(&self.network)
            )
        } else {
            "no link yet, and nobody to dial: name a node with `qpc peer add URL`, or look on the LAN with \
             --discover"
                .to_owned()
        };
        if self.lan_only {
            hint.push_str("; from outside the LAN nobody is let in (accept = lan)");
        }
        hint
    }
}

/// Tells of neighbours as they come in the first seconds, and where none does, what to do.
pub async fn neighbours(node: MeshNode, situation: Situation) {
    let out = Out { json: false };
    let until = Instant::now() + WATCHED_FOR;
    let mut told = BTreeSet::new();
    while Instant::now() < until && told.len() < NEIGHBOURS_SHOWN {
        tokio::time::sleep(LOOK_EVERY).await;
        // A node that drains has nothing more to say.
        let Ok(links) = node.peers().await else { return };
        for link in links {
            if told.len() < NEIGHBOURS_SHOWN && told.insert(link.address) {
                let how = match link.origin.name() {
                    "discovered" => "found on the LAN".to_owned(),
                    "inbound" => format!("it came from {}", human::escape(&link.info.remote.to_string())),
                    _ => human::escape(&link.info.remote.to_string()),
                };
                // A node goes on where nobody reads its output.
                let _ = out.show(&(), |()| format!("linked with {} ({how})", link.address));
            }
        }
    }
    if told.is_empty() {
        note(situation.hint());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> Vec<Interface> {
        let interface = |name: &str, is_loopback, addresses: &[&str]| Interface {
            name: name.into(),
            index: 1,
            is_loopback,
            is_multicast: true,
            addresses: addresses.iter().map(|text| (text.parse().unwrap(), 24)).collect(),
        };
        vec![
            interface("lo", true, &["127.0.0.1", "::1"]),
            interface("eth0", false, &["2001:db8::2", "192.0.2.2", "fe80::2"]),
        ]
    }

    #[track_caller]
    fn check(listen: &[&str], interfaces: &[Interface], told: &[&str]) {
        let listen: Vec<TransportAddr> = listen.iter().map(|url| url.parse().unwrap()).collect();
        let places: Vec<String> = places(&listen, interfaces).iter().map(ToString::to_string).collect();
        assert_eq!(places, told);
    }

    #[test]
    fn a_listener_on_everything_is_told_by_the_addresses_there_are() {
        check(&["quic://[::]:7410"], &interfaces(), &["quic://192.0.2.2:7410", "quic://[2001:db8::2]:7410"]);
        check(&["tcp://0.0.0.0:7"], &interfaces(), &["tcp://192.0.2.2:7"]);
        check(&["tcp://127.0.0.1:7"], &interfaces(), &["tcp://127.0.0.1:7"]);
        check(&["quic://[::]:7410"], &[], &["quic://[::1]:7410"]);
    }

    #[test]
    fn the_invitation_prefers_quic_and_says_from_where() {
        let urls = |texts: &[&str]| texts.iter().map(|url| url.parse().unwrap()).collect::<Vec<_>>();
        let outside =
            invitation(&urls(&["tcp://192.0.2.2:7", "quic://192.0.2.2:8", "quic://127.0.0.1:9"]), "ab");
        assert_eq!(outside.unwrap().1, "qpc run --peer 'quic://192.0.2.2:8#ab'  (on another machine)");
        let inside = invitation(&urls(&["tcp://[::1]:7"]), "ab").unwrap().1;
        assert!(inside.contains("--listen tcp://[::1]:0") && inside.contains("on this machine"), "{inside}");
        assert_eq!(invitation(&[], "ab"), None);
    }

    #[test]
    fn who_is_alone_is_told_what_fits() {
        let mut config = MeshConfig::default();
        let hint = |config: &MeshConfig| Situation::of(config).hint();
        assert!(
            hint(&config).contains("network public on this LAN") && hint(&config).contains("accept = lan")
        );
        config.discovery.enabled = Some(false);
        assert!(hint(&config).contains("--discover"));
        config.transport.peers = vec!["quic://192.0.2.1:7410".parse().unwrap()];
        config.transport.accept = Some(Accept::Any);
        assert!(hint(&config).contains("does not answer") && !hint(&config).contains("accept"));
    }
}
