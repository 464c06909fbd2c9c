//! Keeps this node's ports open at the router of the local network, and has them closed in a drain.
//!
//! A task, not an actor: nobody sends it anything. A router that does not answer costs a line in the log.

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use tokio::sync::watch;

use super::child::{Child, ChildSpec, StopSignal};
use crate::{
    clock,
    crypto::random,
    messages::lifecycle::DrainPhase,
    proto::port_mapping::{LIFETIME, PortMappings},
    transport::{
        TransportAddr, addr,
        gateway::{Gateway, Mapped, default_gateway},
    },
    wire::Address,
};

/// How long a drain waits for the router to forget what it granted; else that runs out by itself.
const FORGET_WITHIN: Duration = Duration::from_secs(2);

/// What the task is made of.
#[derive(Clone)]
pub struct PortMappingParts {
    /// The router; the default gateway where none is named.
    pub gateway: Option<IpAddr>,
    /// Where this node listens.
    pub listening: Vec<TransportAddr>,
    /// This node, which URLs are pinned to.
    pub own: Address,
    /// Links from outside would be refused.
    pub lan_only: bool,
    /// Where this node is reached from outside, for whoever asks.
    pub external: watch::Sender<Vec<String>>,
}

/// A port that is wanted.
struct Wanted {
    scheme: &'static str,
    port: NonZeroU16,
    held: Option<Mapped>,
}

/// The task as a child of the transport supervisor.
pub fn port_mapping(parts: PortMappingParts) -> ChildSpec {
    ChildSpec::permanent("port_mapping", move |guard| {
        let parts = parts.clone();
        Ok(Child::task(guard, DrainPhase::Draining, move |stop| async move {
            run(parts, stop).await;
            Ok::<(), std::convert::Infallible>(())
        }))
    })
}

async fn run(parts: PortMappingParts, mut stop: StopSignal) {
    let mut wanted = wanted(&parts.listening);
    let mut ports = PortMappings::new(wanted.len(), clock::now());
    if wanted.is_empty() {
        tracing::warn!(
            "no port is asked of the router: this node listens on no address of IPv4 that it could reach"
        );
    } else if parts.lan_only {
        tracing::warn!("a router that passes links on to this node passes them in vain: set `accept = any`");
    }
    let mut said = String::new();
    while let Some((at, when)) = ports.next() {
        tokio::select! {
            () = tokio::time::sleep_until(when.into()) => {}
            _ = stop.wanted() => break,
        }
        let Some(port) = wanted.get_mut(at) else { break };
        let asked = tokio::select! {
            asked = ask(&parts, port) => asked,
            _ = stop.wanted() => break,
        };
        match asked {
            Ok(mapped) => {
                ports.granted(at, clock::now(), mapped.lifetime());
                let external = mapped.external;
                if port.held.as_ref().is_none_or(|held| held.external != external) {
                    let url = TransportAddr::socket(port.scheme, external);
                    tracing::info!(%url, "the router passes links on to this node");
                    if addr::is_near(external.ip()) {
                        tracing::warn!(%url, "this is no address of the internet: the router is behind another one");
                    }
                }
                port.held = Some(mapped);
                said.clear();
            }
            Err(why) => {
                ports.refused(at, clock::now(), &mut random::os_rng());
                port.held = None;
                // Once for all ports and every try.
                if said != why {
                    tracing::warn!(why, "the router opens no port; it is asked again now and then");
                    said = why;
                }
            }
        }
        tell(&parts, &wanted);
    }
    if wanted.is_empty() {
        // A task that ends would be started again.
        stop.wanted().await;
    }
    let held = wanted.into_iter().filter_map(|port| port.held);
    let forgotten = futures_util::future::join_all(held.map(Mapped::remove));
    match tokio::time::timeout(FORGET_WITHIN, forgotten).await {
        Ok(done) => {
            for why in done.into_iter().filter_map(Result::err) {
                tracing::info!(why, "the router did not close a port; it does when its time is over");
            }
        }
        Err(_) => tracing::info!("the router did not close its ports in time; it does when theirs is over"),
    }
    parts.external.send_replace(Vec::new());
}

async fn ask(parts: &PortMappingParts, port: &Wanted) -> Result<Mapped, String> {
    // Looked up each time: a machine moves from network to network.
    let router = match parts.gateway {
        Some(router) => router,
        None => IpAddr::V4(default_gateway().map_err(|e| format!("no default gateway is known: {e}"))?),
    };
    let mapped = match port.held.as_ref().filter(|held| held.router() == router) {
        Some(held) => held.renewed().await,
        None => {
            let gateway = Gateway::new(router).map_err(|e| format!("no way to the router {router}: {e}"))?;
            gateway.map(port.scheme == addr::QUIC, port.port, LIFETIME).await
        }
    };
    mapped.map_err(|why| format!("the router {router}: {why}"))
}

/// The ports of listeners that a router could pass links on to.
fn wanted(listening: &[TransportAddr]) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for url in listening {
        let scheme = url.scheme();
        let Some(at) = url.socket_addr().filter(|_| scheme == addr::QUIC || scheme == addr::TCP) else {
            continue;
        };
        let ip = at.ip();
        let is_reached = ip.is_unspecified() || (ip.is_ipv4() && !ip.is_loopback());
        let Some(port) = NonZeroU16::new(at.port()).filter(|_| is_reached) else { continue };
        if !wanted.iter().any(|known| known.scheme == scheme && known.port == port) {
            wanted.push(Wanted { scheme, port, held: None });
        }
    }
    wanted
}

fn tell(parts: &PortMappingParts, wanted: &[Wanted]) {
    let urls = wanted.iter().filter_map(|port| {
        let external = port.held.as_ref()?.external;
        Some(TransportAddr::socket(port.scheme, external).with_pin(Some(parts.own)).to_string())
    });
    parts.external.send_replace(urls.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_router_cannot_reach_is_not_asked_for() {
        let urls = |texts: &[&str]| texts.iter().map(|url| url.parse().unwrap()).collect::<Vec<_>>();
        let asked: Vec<_> = wanted(&urls(&[
            "quic://[::]:7410",
            "quic://0.0.0.0:7410",
            "tcp://192.0.2.2:7410",
            "tcp://127.0.0.1:9",
            "tcp://[2001:db8::1]:9",
        ]))
        .iter()
        .map(|port| (port.scheme, port.port.get()))
        .collect();
        assert_eq!(asked, [("quic", 7410), ("tcp", 7410)]);
    }
}
