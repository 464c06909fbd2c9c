//! DiscoveryActor: beacons into the local network and out of it, and dials of whom they tell of.
//!
//! - Receives: datagrams of its own sockets; `Drain` from the supervisor.
//! - Sends: `WhoIsLinked` and `NewLink` to the registry of links.
//! - Owns: the core, one socket an interface and family, dials under way.
//!
//! What it cannot do costs the node nothing: a machine without multicast has a line in its log and a
//! remark in its health.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use futures_util::stream;
use tokio::sync::{oneshot, watch};

use super::{
    links::{NewLink, Origin, WhoIsLinked},
    mailbox::{Outlet, Seat},
    wake_timer::WakeTimer,
};
use crate::{
    clock,
    crypto::random,
    messages::lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
    proto::discovery::{BEACONS_PER_S, Dial, Discovery, DiscoveryConfig, Outcome, Place},
    telemetry,
    transport::{TransportAddr, TransportManager, addr, interfaces::Interface, multicast::GroupSocket},
    wire::{Address, beacon::BeaconListener, handshake::CloseReason},
};

/// Time between looks at the interfaces: somebody who plugs in a cable waits no longer.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The same while a node, and often its machine, has just started.
const LOOK_EVERY_AT_FIRST: Duration = Duration::from_secs(1);

/// How long that is.
const AT_FIRST: Duration = Duration::from_secs(15);

/// What the actor is made of; the factory clones it for each incarnation.
#[derive(Clone)]
pub struct DiscoveryParts {
    /// The network, and what can be dialled.
    pub config: DiscoveryConfig,
    /// This start's instance number, random.
    pub instance: [u8; 8],
    /// Own address, so that a link to this node itself is none.
    pub own: Address,
    /// The port that beacons go to.
    pub port: u16,
    /// Where this node listens.
    pub listening: Vec<TransportAddr>,
    /// Lists the interfaces: the system's, or a test's.
    pub interfaces: fn() -> std::io::Result<Vec<Interface>>,
    /// Dials.
    pub transports: Arc<TransportManager>,
    /// To the registry of links.
    pub new_link: Seat<NewLink>,
    /// To the registry of links.
    pub who_is_linked: Seat<WhoIsLinked>,
    /// What there is to say in the health detail.
    pub remark: watch::Sender<Option<String>>,
}

/// One socket: for an interface's number and a local address.
type Way = (u32, IpAddr);

struct Open {
    socket: Arc<GroupSocket>,
    listeners: Vec<BeaconListener>,
    reader: SpawnHandle,
}

/// See the module.
pub struct DiscoveryActor {
    parts: DiscoveryParts,
    core: Discovery,
    new_link: Outlet<NewLink>,
    who_is_linked: Outlet<WhoIsLinked>,
    ways: BTreeMap<Way, Open>,
    timer: WakeTimer,
    began: Instant,
    asks_who_is_linked: bool,
    draining: bool,
    guard: ExitGuard,
}

/// What came to a socket.
enum Came {
    Datagram(Way, Place, Vec<u8>),
    /// It is of no use any more; what there is in its place, the next look says.
    Failed(Way),
}

impl DiscoveryActor {
    /// A fresh actor; it opens its sockets when it starts.
    pub fn new(parts: DiscoveryParts, guard: ExitGuard) -> Self {
        let now = clock::now();
        Self {
            core: Discovery::new(parts.config.clone(), parts.instance, now, &mut random::os_rng()),
            new_link: parts.new_link.outlet(),
            who_is_linked: parts.who_is_linked.outlet(),
            ways: BTreeMap::new(),
            timer: WakeTimer::default(),
            began: now,
            asks_who_is_linked: false,
            draining: false,
            guard,
            parts,
        }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return;
        }
        let now = clock::now();
        if let Some(ask) = self.core.call(now, &mut random::os_rng()) {
            self.send(ask);
        }
        if self.core.wants_to_dial(now) && !self.asks_who_is_linked {
            self.asks_who_is_linked = true;
            let linked = self.who_is_linked.request(WhoIsLinked);
            ctx.spawn(linked.into_actor(self).map(|linked, actor, ctx| {
                actor.asks_who_is_linked = false;
                // A registry that does not answer is being replaced; the next beacon finds it.
                let Ok(linked) = linked else { return };
                for dial in actor.core.dials(clock::now(), &linked, &mut random::os_rng()) {
                    actor.dial(dial, ctx);
                }
                actor.rearm(ctx);
            }));
        }
        self.rearm(ctx);
    }

    fn rearm(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        let wake = self.core.next_wake(now);
        // What is due while the registry is asked is seen to by its answer.
        let wake = if self.asks_who_is_linked { wake.max(now + LOOK_EVERY_AT_FIRST) } else { wake };
        self.timer.rearm(Some(wake), ctx, Self::step);
    }

    /// Sends a beacon on every way.
    fn send(&mut self, ask: bool) {
        for ((interface, _), open) in &self.ways {
            let Some(beacon) = self.core.beacon(ask, &open.listeners, &mut random::os_rng()) else {
                continue;
            };
            match open.socket.send(&beacon) {
                Ok(()) => metrics::counter!(telemetry::BEACONS_SENT).increment(1),
                // The next one may get through: an address that is new is not usable for a second.
                Err(error) => tracing::debug!(interface, %error, "a beacon was not sent"),
            }
        }
    }

    fn dial(&mut self, dial: Dial, ctx: &mut Context<Self>) {
        let Some(to) = url_of(&dial) else { return };
        metrics::counter!(telemetry::DISCOVERY_DIALS).increment(1);
        tracing::debug!(%to, "dialling a node that was heard on the local network");
        let transports = self.parts.transports.clone();
        let dialled = async move { (transports.dial(&to).await, to) };
        ctx.spawn(dialled.into_actor(self).map(move |(dialled, to), actor, ctx| {
            let link = match dialled {
                Ok(link) => link,
                Err(error) => {
                    metrics::counter!(telemetry::DIALS_FAILED).increment(1);
                    tracing::debug!(%to, %error, "a node of the local network is not reached");
                    return actor.came_to(&dial, Outcome::Failed, ctx);
                }
            };
            let Some(address) = link.peer.address() else { return };
            if address == actor.parts.own {
                return actor.came_to(&dial, Outcome::Own, ctx);
            }
            let (ended, over) = oneshot::channel();
            actor.new_link.do_send(NewLink { link, origin: Origin::Discovered, ended: Some(ended) });
            actor.came_to(&dial, Outcome::Up(address), ctx);
            ctx.spawn(over.into_actor(actor).map(move |reason, actor, ctx| {
                // Dropped unsaid by a registry that has no place, or fell.
                let reason = reason.unwrap_or(CloseReason::TooManyLinks);
                actor.came_to(&dial, Outcome::Ended(reason), ctx);
            }));
        }));
    }

    fn came_to(&mut self, dial: &Dial, outcome: Outcome, ctx: &mut Context<Self>) {
        self.core.came_to(clock::now(), &dial.instance, outcome, &mut random::os_rng());
        self.step(ctx);
    }

    /// Opens and closes sockets after what interfaces there are now.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return;
        }
        let mut troubles = Vec::new();
        let found = (self.parts.interfaces)().unwrap_or_else(|error| {
            troubles.push(format!("the interfaces cannot be listed: {error}"));
            Vec::new()
        });
        let mut wanted = BTreeMap::new();
        for interface in found.iter().filter(|interface| interface.is_multicast && !interface.is_loopback) {
            for (local, listeners) in ways_of(interface, &self.parts.listening) {
                wanted.insert((interface.index, local), (interface, listeners));
            }
        }
        let gone: Vec<Way> = self
            .ways
            .iter()
            .filter(|(way, open)| wanted.get(way).is_none_or(|(_, listeners)| *listeners != open.listeners))
            .map(|(way, _)| *way)
            .collect();
        for way in gone {
            self.close(&way, ctx);
        }
        let mut is_new = false;
        for (way, (interface, listeners)) in wanted {
            if self.ways.contains_key(&way) {
                continue;
            }
            match GroupSocket::open(interface, way.1, self.parts.port) {
                Ok(socket) => {
                    tracing::debug!(interface = %interface.name, local = %way.1, "beacons on this interface");
                    let socket = Arc::new(socket);
                    let reader = ctx.add_stream(datagrams(socket.clone(), way));
                    self.ways.insert(way, Open { socket, listeners, reader });
                    is_new = true;
                }
                Err(error) => troubles.push(format!("no beacons on {}: {error}", interface.name)),
            }
        }
        if self.ways.is_empty() && troubles.is_empty() {
            let why = match found.iter().any(|interface| interface.is_multicast && !interface.is_loopback) {
                true => "no listener is reached from there",
                false => "no interface carries multicast",
            };
            troubles.push(why.to_owned());
        }
        self.remark(&troubles);
        if is_new {
            self.core.call_anew(clock::now(), &mut random::os_rng());
        }
        let is_early = clock::now().saturating_duration_since(self.began) < AT_FIRST;
        ctx.run_later(if is_early { LOOK_EVERY_AT_FIRST } else { LOOK_EVERY }, Self::look);
        self.step(ctx);
    }

    /// Says what is wrong once, and keeps it in the health detail while it is.
    fn remark(&self, troubles: &[String]) {
        let remark = troubles.first().map(|first| match self.ways.len() {
            0 => format!("LAN discovery does nothing: {first}"),
            _ => format!("LAN discovery does not work everywhere: {first}"),
        });
        self.parts.remark.send_if_modified(|said| {
            let is_new = *said != remark;
            if let Some(remark) = remark.as_ref().filter(|_| is_new) {
                tracing::warn!("{remark}");
            }
            *said = remark;
            is_new
        });
    }

    fn close(&mut self, way: &Way, ctx: &mut Context<Self>) {
        if let Some(open) = self.ways.remove(way) {
            ctx.cancel_future(open.reader);
        }
    }
}

/// The local addresses of an interface that beacons go out from, each with where links are taken there.
/// IPv6 goes by its link-local address alone, since all that are on the link have one.
fn ways_of(interface: &Interface, listening: &[TransportAddr]) -> Vec<(IpAddr, Vec<BeaconListener>)> {
    let mut ways: Vec<(IpAddr, Vec<BeaconListener>)> = Vec::new();
    for (own, _) in &interface.addresses {
        let is_usable = match own {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if !is_usable {
            continue;
        }
        let mut listeners: Vec<_> = listening
            .iter()
            .filter_map(|url| {
                let medium = medium_of(url.scheme())?;
                let at = url.socket_addr()?;
                let takes = match at.ip() {
                    IpAddr::V6(v6) if v6.is_unspecified() => true,
                    IpAddr::V4(v4) if v4.is_unspecified() => own.is_ipv4(),
                    ip => ip == *own,
                };
                takes.then_some(BeaconListener { medium, port: at.port() })
            })
            .collect();
        listeners.sort_unstable();
        listeners.dedup();
        // A second address of a family says nothing new, but where only that one is listened on.
        if !listeners.is_empty()
            && !ways.iter().any(|(other, said)| other.is_ipv4() == own.is_ipv4() && *said == listeners)
        {
            ways.push((*own, listeners));
        }
    }
    ways
}

fn medium_of(scheme: &str) -> Option<u8> {
    match scheme {
        addr::QUIC => Some(BeaconListener::QUIC),
        addr::TCP => Some(BeaconListener::TCP),
        _ => None,
    }
}

/// Media of beacons that these ports can dial, QUIC first.
pub fn media(transports: &TransportManager) -> Vec<u8> {
    let schemes = transports.schemes();
    let known = [addr::QUIC, addr::TCP].into_iter().filter(|scheme| schemes.contains(scheme));
    known.filter_map(medium_of).collect()
}

fn url_of(dial: &Dial) -> Option<TransportAddr> {
    let scheme = match dial.listener.medium {
        BeaconListener::QUIC => addr::QUIC,
        BeaconListener::TCP => addr::TCP,
        _ => return None,
    };
    let at = match dial.place.ip {
        IpAddr::V4(v4) => (v4, dial.listener.port).into(),
        IpAddr::V6(v6) => std::net::SocketAddrV6::new(v6, dial.listener.port, 0, dial.place.scope).into(),
    };
    Some(TransportAddr::socket(scheme, at))
}

/// What comes to a socket, no faster than anybody looks at it: the system drops what is more.
fn datagrams(socket: Arc<GroupSocket>, way: Way) -> impl futures_util::Stream<Item = Came> {
    let mut slice = (clock::now(), 0u64);
    stream::unfold(Some(socket), move |socket| {
        let now = clock::now();
        if now.saturating_duration_since(slice.0) >= Duration::from_secs(1) {
            slice = (now, 0);
        }
        slice.1 = slice.1.saturating_add(1);
        let rests = (slice.1 > BEACONS_PER_S.saturating_mul(2)).then(|| slice.0 + Duration::from_secs(1));
        async move {
            if let Some(until) = rests {
                tokio::time::sleep_until(until.into()).await;
            }
            let socket = socket?;
            let Ok((from, bytes)) = socket.recv().await else { return Some((Came::Failed(way), None)) };
            let scope = match from {
                std::net::SocketAddr::V6(v6) => v6.scope_id(),
                std::net::SocketAddr::V4(_) => 0,
            };
            Some((Came::Datagram(way, Place { ip: from.ip(), scope }, bytes), Some(socket)))
        }
    })
}

impl Actor for DiscoveryActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl StreamHandler<Came> for DiscoveryActor {
    fn handle(&mut self, came: Came, ctx: &mut Context<Self>) {
        let (way, from, bytes) = match came {
            Came::Datagram(way, from, bytes) => (way, from, bytes),
            Came::Failed(way) => return self.close(&way, ctx),
        };
        if self.draining || !self.ways.contains_key(&way) {
            return;
        }
        match self.core.hear(clock::now(), from, &bytes, &mut random::os_rng()) {
            Ok(()) => {
                metrics::counter!(telemetry::BEACONS_HEARD).increment(1);
                self.step(ctx);
            }
            Err(ignored) => {
                metrics::counter!(telemetry::BEACONS_IGNORED, "reason" => ignored.name()).increment(1);
            }
        }
    }

    /// The end of one socket's datagrams is not the actor's.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Drain> for DiscoveryActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            DrainPhase::Draining => {
                self.draining = true;
                let ways: Vec<Way> = self.ways.keys().copied().collect();
                for way in ways {
                    self.close(&way, ctx);
                }
                self.guard.report(drain.phase, DrainCounts::default());
            }
            DrainPhase::Persisting => self.guard.report(drain.phase, DrainCounts::default()),
            DrainPhase::Cleanup => {
                self.guard.drained();
                ctx.stop();
            }
        }
    }
}

#[cfg(any(test, feature = "testing"))]
crate::messages::lifecycle::panics_when_told!(DiscoveryActor);

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> Interface {
        let network = |text: &str, prefix| (text.parse().unwrap(), prefix);
        Interface {
            name: "eth0".into(),
            index: 2,
            is_loopback: false,
            is_multicast: true,
            addresses: vec![
                network("192.0.2.7", 24),
                network("192.0.2.8", 24),
                network("2001:db8::7", 64),
                network("fe80::7", 64),
            ],
        }
    }

    /// What goes out on that interface of a node that listens there.
    fn check(listening: &[&str], expected: &[(&str, &[(u8, u16)])]) {
        let listening: Vec<TransportAddr> = listening.iter().map(|url| url.parse().unwrap()).collect();
        let ways: Vec<_> = ways_of(&interface(), &listening)
            .into_iter()
            .map(|(ip, ls)| (ip.to_string(), ls.into_iter().map(|l| (l.medium, l.port)).collect::<Vec<_>>()))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(ip, ls)| ((*ip).to_owned(), ls.to_vec())).collect();
        assert_eq!(ways, expected, "{listening:?}");
    }

    #[test]
    fn beacons_name_what_listens_on_their_interface() {
        let both: &[(u8, u16)] = &[(0, 7410), (1, 7410)];
        check(&["quic://[::]:7410", "tcp://[::]:7410"], &[("192.0.2.7", both), ("fe80::7", both)]);
        check(&["quic://0.0.0.0:7410"], &[("192.0.2.7", &[(0, 7410)])]);
        check(&["tcp://192.0.2.8:99"], &[("192.0.2.8", &[(1, 99)])]);
        // From another address than the one that is listened on nobody could be dialled.
        check(&["tcp://[2001:db8::7]:99"], &[]);
        check(&["quic://127.0.0.1:7410", "tcp://[::1]:7410", "quic://203.0.113.1:7410"], &[]);
    }
}
