//! LinksActor: the registry of links, and who is dialled.
//!
//! - Receives: `NewLink` from listeners and diallers; `LinkEstablished`, `LinkEnded` from links;
//!   `AddPeer`, `RemovePeer`, `BanPeer`, `UnbanPeer` and lists from handles; `WhoIsLinked` from discovery; `Drain` from the supervisor.
//! - Sends: `LinkUp`, `LinkDown` to the router; `StartChild` to its supervisor; `CloseLink`.
//! - Owns: which links exist, which peers are to be dialled, the verdict on double links.
//!
//! A configured peer that goes away is dialled again for ever, with backoff and jitter; a link the
//! peer closed as a duplicate is not, while the other one stands. Why a peer is not there stands in
//! the node's health; to add it once more dials it at once.

mod book;
mod dialler;
mod listener;
mod peers;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use actix::prelude::*;
use actix_rt::ArbiterHandle;
use tokio::sync::{Notify, oneshot, watch};

use dialler::Dialler;
pub use listener::listener;

pub use book::{LinkBook, Peers};
pub use peers::{BanPeer, DialledLine, ListBans, ListDialled, PeerName, RemovePeer, UnbanPeer};

use super::{
    child::{Child, ChildSpec},
    mailbox::{self, Outlet, Seat},
    supervisor::StartChild,
    transport::{GetLinkStats, LinkEnded, LinkEstablished, LinkParts, LinkStats, TransportActor},
};
use crate::{
    clock,
    crypto::{MeshIdentity, compute_address, random},
    error::MeshError,
    events::{EventKind, Events},
    messages::{
        health::ReportHealth,
        lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
        link::{CloseLink, ForwardBatch, LinkDown, LinkUp},
        message,
    },
    proto::{
        credit::WINDOW_BYTES,
        discovery::Linked,
        duplicate::{self, Verdict},
        health::{REPORT_EVERY, SubsystemReport},
        link::{Direction as LinkDirection, HELLO_TIMEOUT, LinkConfig, NetworkSecret},
        places::{self, Place},
        table::LinkClass,
    },
    telemetry,
    transport::{
        CloseCode, Direction, Link, LinkInfo, LinkPeer, TransportAddr, TransportCapability, TransportError,
        TransportManager, addr,
    },
    wire::{
        Address, LinkId, NetworkId, PublicKey,
        handshake::{CloseReason, Hello},
    },
};

/// Peers whose trouble the health detail tells in full.
const TROUBLES_SHOWN: usize = 3;

/// How long a connection that is not let in stays open at most.
const TURNED_AWAY_AFTER: Duration = Duration::from_secs(1);

/// Connections that are closed late; further ones are closed at once.
const TURNED_AWAY_MAX: usize = 64;

/// What the registry is made of; the factory clones it for each incarnation.
#[derive(Clone)]
pub struct LinksParts {
    /// This node's identity.
    pub identity: Arc<MeshIdentity>,
    /// The network.
    pub network: NetworkId,
    /// Its secret, where it has one.
    pub network_secret: Option<NetworkSecret>,
    /// This start's boot epoch.
    pub boot_epoch: u32,
    /// The media.
    pub transports: Arc<TransportManager>,
    /// Where links of lane 1 and up are started, by lane; those of lane 0 are beside the registry.
    pub arbiters: Vec<ArbiterHandle>,
    /// What each link needs.
    pub link: LinkParts,
    /// To the supervisor that keeps links, listeners and diallers.
    pub supervisor: Seat<StartChild>,
    /// Own seat, for diallers and listeners.
    pub new_link: Seat<NewLink>,
    /// To the router.
    pub link_up: Seat<LinkUp>,
    /// To the router.
    pub link_down: Seat<LinkDown>,
    /// Peers to dial: config, store, and whom handles add; outlive the actor.
    pub peers: Peers,
    /// Keepalive interval.
    pub keepalive: Duration,
    /// To health.
    pub health: Seat<ReportHealth>,
    /// Numbers of links, and which of them the router uses; outlive the actor.
    pub book: LinkBook,
    /// Links of the node at most.
    pub links_max: usize,
    /// What discovery has to say of itself, for the health detail.
    pub discovery: watch::Receiver<Option<String>>,
    /// Accept links from anywhere; else from private, link-local and loopback addresses only.
    pub accept_any: bool,
    /// Told of links.
    pub events: Events,
}

/// How a link came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The configuration names its peer.
    Config,
    /// Its peer was added at run time.
    Added,
    /// This node found its peer on the local network, and dialled it.
    Discovered,
    /// The peer dialled.
    Inbound,
}

impl Origin {
    /// Name in `qpc peers`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Added => "added",
            Self::Discovered => "discovered",
            Self::Inbound => "inbound",
        }
    }
}

/// Listener or dialler to registry: a connection stands. `ended` is told when its link is over.
pub struct NewLink {
    /// The connection.
    pub link: Link,
    /// How it came about.
    pub origin: Origin,
    /// Told when the link is over.
    pub ended: Option<oneshot::Sender<CloseReason>>,
}
message!(NewLink => ());

/// Handle to registry: keep a link to this peer. One that waits for its next try is dialled now.
#[derive(Debug, Clone)]
pub struct AddPeer(pub TransportAddr);
message!(AddPeer => Result<(), MeshError>);

/// Handle to registry: all links.
#[derive(Debug, Clone, Copy)]
pub struct ListPeers;
message!(ListPeers => Vec<PeerLine>);

/// Discovery to registry: who is linked, in a way that costs little.
#[derive(Debug, Clone, Copy)]
pub struct WhoIsLinked;
message!(WhoIsLinked => Vec<Linked>);

/// One link, for `qpc peers`.
#[derive(Debug, Clone)]
pub struct PeerLine {
    /// The neighbour.
    pub address: Address,
    /// The medium's word.
    pub info: LinkInfo,
    /// How it came about.
    pub origin: Origin,
    /// The lane it runs on: 0 for the thread of all else.
    pub lane: usize,
    /// Since the hello.
    pub since: Duration,
    /// Counters.
    pub stats: LinkStats,
}

struct Entry {
    info: LinkInfo,
    origin: Origin,
    lane: usize,
    peer_key: PublicKey,
    peer: Address,
    /// To the link, once it is started.
    close: Arc<OnceLock<Recipient<CloseLink>>>,
    /// It gave its place to another one, and ends.
    is_leaving: bool,
    up: Option<Up>,
    /// Whoever dialled it, and whoever dialled links that gave way to it.
    ended: Vec<oneshot::Sender<CloseReason>>,
}

struct Up {
    hello: Hello,
    since: Instant,
    outlet: Recipient<ForwardBatch>,
    close: Recipient<CloseLink>,
    stats: Recipient<GetLinkStats>,
}

/// See the module.
pub struct LinksActor {
    parts: LinksParts,
    link_up: Outlet<LinkUp>,
    link_down: Outlet<LinkDown>,
    supervisor: Outlet<StartChild>,
    health: Outlet<ReportHealth>,
    links: BTreeMap<LinkId, Entry>,
    diallers: BTreeMap<String, Dialled>,
    /// Held once more by each connection that is closed late.
    turned_away: Arc<()>,
    draining: bool,
    guard: ExitGuard,
}

impl LinksActor {
    /// A registry without links; it dials its peers when it starts.
    pub fn new(parts: LinksParts, guard: ExitGuard) -> Self {
        Self {
            link_up: parts.link_up.outlet(),
            link_down: parts.link_down.outlet(),
            supervisor: parts.supervisor.outlet(),
            health: parts.health.outlet(),
            links: BTreeMap::new(),
            diallers: BTreeMap::new(),
            turned_away: Arc::default(),
            draining: false,
            guard,
            parts,
        }
    }

    fn start_link(&mut self, new: NewLink, ctx: &mut Context<Self>) {
        let LinkPeer::Authenticated(peer_key) = new.link.peer else {
            tracing::warn!("a shared medium's link is not for this registry");
            return;
        };
        let peer = compute_address(&peer_key);
        if self.draining {
            return;
        }
        if new.link.info.direction == Direction::In
            && !self.parts.accept_any
            && !is_near(&new.link.info.remote)
        {
            self.refused("not_lan");
            tracing::info!(remote = %new.link.info.remote, "refused a link from outside the LAN; set `accept = any` or --listen");
            return;
        }
        if let Err(barred) = self.parts.book.admit(&peer) {
            metrics::counter!(telemetry::LINKS_REFUSED, "reason" => "banned").increment(1);
            tracing::debug!(peer = %peer.short(), why = barred.why(), "refused a link");
            return self.turn_away(new.link, TURNED_AWAY_AFTER, CloseReason::NotAllowed);
        }
        if let Some(wait) = self.parts.book.kept_out(&peer) {
            self.refused("faults");
            return self.turn_away(new.link, wait, CloseReason::RateLimited);
        }
        if !self.finds_place(&new.link.info) {
            self.refused("too_many");
            return self.turn_away(new.link, TURNED_AWAY_AFTER, CloseReason::TooManyLinks);
        }
        let id = self.parts.book.next();
        let info = new.link.info.clone();
        let direction = match info.direction {
            Direction::In => LinkDirection::In,
            Direction::Out => LinkDirection::Out,
        };
        let config = LinkConfig {
            network: self.parts.network,
            network_secret: self.parts.network_secret.clone(),
            own_key: self.parts.identity.public_key(),
            peer: Some(peer_key),
            channel_binding: info.channel_binding,
            direction,
            features: 0,
            boot_epoch: self.parts.boot_epoch,
            clock_unix_s: clock::unix_s(),
            initial_credit: WINDOW_BYTES,
            keepalive: self.parts.keepalive,
            hello_timeout: HELLO_TIMEOUT,
        };
        let parts = self.parts.link.clone();
        let lane = new.link.lane.number();
        let arbiter = lane.checked_sub(1).and_then(|at| self.parts.arbiters.get(at)).cloned();
        let mut medium = Some(new.link);
        let close = Arc::new(OnceLock::new());
        let to_close = Arc::clone(&close);
        let spec = ChildSpec::temporary("link", move |guard| {
            let medium = medium.take().ok_or("a link is not started twice")?;
            let nonce = random::random_bytes(&mut random::os_rng());
            // Made here, so that it is dropped, which tells of its end, where the arbiter is gone.
            let actor = TransportActor::new(id, medium, config.clone(), nonce, parts.clone(), guard);
            let create = move |ctx: &mut Context<TransportActor>| {
                ctx.set_mailbox_capacity(mailbox::TRANSPORT);
                actor
            };
            let address = match &arbiter {
                Some(arbiter) => TransportActor::start_in_arbiter(arbiter, create),
                None => TransportActor::create(create),
            };
            let _first = to_close.set(address.clone().recipient());
            Ok(Child::actor(&address))
        })
        .named(format!("{id} {}", info.remote))
        .independent();
        self.links.insert(
            id,
            Entry {
                info,
                origin: new.origin,
                lane,
                peer_key,
                peer,
                close,
                is_leaving: false,
                up: None,
                ended: new.ended.into_iter().collect(),
            },
        );
        self.start_child(spec, ctx, move |actor, why| {
            actor.refused("not_started");
            tracing::warn!(link = %id, why, "a link was not started");
            // Nobody else will ever say that it ended; the dialler, if there is one, hears it by
            // the drop.
            actor.links.remove(&id);
        });
    }

    fn refused(&self, reason: &'static str) {
        metrics::counter!(telemetry::LINKS_REFUSED, "reason" => reason).increment(1);
        self.parts.events.refused("link", reason, 1);
    }

    /// True where this connection may become a link. Of a full registry somebody else may have to end.
    fn finds_place(&mut self, info: &LinkInfo) -> bool {
        let stay = || self.links.iter().filter(|(_, entry)| !entry.is_leaving);
        if stay().count() < self.parts.links_max {
            return true;
        }
        let places = stay().map(|(link, entry)| Place { link: *link, party: entry.info.party() });
        let Some(link) = places::who_gives_way(places, info.party()) else { return false };
        self.withdraw(link);
        if let Some(entry) = self.links.get_mut(&link) {
            entry.is_leaving = true;
            let text = "its place goes to another node; many links come from this address";
            if let Some(close) = entry.close.get() {
                close.do_send(CloseLink { reason: CloseReason::TooManyLinks, text: text.into() });
            }
        }
        true
    }

    /// Closes a connection before it is a link, and tells its peer why. Nothing is read from it, and
    /// it is closed late: a handshake costs more than anything that was refused, and whoever dials
    /// again as soon as it is closed does so once a second at most.
    fn turn_away(&self, mut link: Link, wait: Duration, reason: CloseReason) {
        let waits = Arc::clone(&self.turned_away);
        let wait = if Arc::strong_count(&waits) > TURNED_AWAY_MAX { Duration::ZERO } else { wait };
        actix_rt::spawn(async move {
            tokio::time::sleep(wait.min(TURNED_AWAY_AFTER)).await;
            let code = CloseCode::FIRST_FREE.0.saturating_add(u32::from(u8::from(reason)));
            link.tx.close(CloseCode(code), reason.name()).await;
            drop(waits);
        });
    }

    /// Has a child started, and hears of it when that fails. The answer is not waited for.
    fn start_child(
        &mut self,
        spec: ChildSpec,
        ctx: &mut Context<Self>,
        failed: impl FnOnce(&mut Self, String) + 'static,
    ) {
        let started = self.supervisor.request(StartChild(spec));
        ctx.spawn(started.into_actor(self).map(move |started, actor, _| {
            let why = match started {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => error.to_string(),
                Err(error) => format!("its supervisor does not answer: {error}"),
            };
            failed(actor, why);
        }));
    }

    fn established(&mut self, mut message: LinkEstablished, ctx: &mut Context<Self>) {
        let now = clock::now();
        let own = self.parts.identity.address();
        // One that gave way says its hello too late.
        let Some(entry) = self.links.get(&message.link).filter(|entry| !entry.is_leaving) else { return };
        let (peer, peer_key) = (entry.peer, entry.peer_key);
        let (scheme, class) = (entry.info.remote.scheme(), class_of(entry.info.capability));
        let account = account_of(&entry.info);
        let new_facts = facts(entry, message.hello.boot_epoch, now);
        let rivals: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(id, e)| {
                **id != message.link && e.up.is_some() && e.peer == peer && e.info.remote.scheme() == scheme
            })
            .map(|(id, _)| *id)
            .collect();
        for rival in rivals {
            let Some(old) = self.links.get(&rival) else { continue };
            let Some(up) = &old.up else { continue };
            let old_facts = facts(old, up.hello.boot_epoch, up.since);
            let duplicate = |text: &str| CloseLink { reason: CloseReason::Duplicate, text: text.into() };
            match duplicate::judge(&own, &peer, &old_facts, &new_facts, now) {
                Verdict::KeepOld => {
                    tracing::debug!(link = %message.link, kept = %rival, "double link: the old one stays");
                    message.close.do_send(duplicate("an older link to this node is kept"));
                    return;
                }
                Verdict::KeepNew => {
                    tracing::debug!(link = %rival, kept = %message.link, "double link: the new one stays");
                    up.close.do_send(duplicate("a newer link to this node is kept"));
                    self.withdraw(rival);
                }
                Verdict::ProbeOld { until } => {
                    self.probe(rival, message, until, ctx);
                    return;
                }
            }
        }
        let up = LinkUp {
            link: message.link,
            peer,
            peer_key,
            hello: message.hello.clone(),
            transport: scheme,
            class,
            account,
            outlet: message.outlet.clone(),
        };
        if let Some(entry) = self.links.get_mut(&message.link) {
            let (remote, lane) = (&entry.info.remote, entry.lane);
            tracing::info!(link = %message.link, peer = %peer.short(), %remote, lane, "link up");
            let direction = match entry.info.direction {
                Direction::In => "in",
                Direction::Out => "out",
            };
            let (url, direction) = (remote.to_string(), direction.to_owned());
            self.parts.events.tell(EventKind::LinkUp { peer, url, direction });
            entry.up = Some(Up {
                hello: message.hello,
                since: now,
                outlet: message.outlet,
                close: message.close,
                stats: message.stats,
            });
        }
        self.parts.book.up(message.link);
        self.link_up.do_send(up);
        // What the link reads from here on comes to the router after this.
        message.told.now();
        self.count();
    }

    /// Asks the old link for a sign of life; without one until then it gives way to the new one.
    fn probe(&mut self, old: LinkId, mut new: LinkEstablished, until: Instant, ctx: &mut Context<Self>) {
        // A link that waits for its verdict is read, so that its peer finds it alive.
        new.told.now();
        let Some(up) = self.links.get(&old).and_then(|e| e.up.as_ref()) else { return };
        let (stats, close) = (up.stats.clone(), up.close.clone());
        let asked = async move {
            let before = stats.send(GetLinkStats { nudge: true }).await.unwrap_or_default().rx_frames;
            tokio::time::sleep_until(tokio::time::Instant::from_std(until)).await;
            stats.send(GetLinkStats { nudge: false }).await.is_ok_and(|after| after.rx_frames > before)
        };
        ctx.spawn(asked.into_actor(self).map(move |lives, actor, ctx| {
            let duplicate = |text: &str| CloseLink { reason: CloseReason::Duplicate, text: text.into() };
            if lives {
                new.close.do_send(duplicate("an older link to this node lives"));
            } else {
                close.do_send(duplicate("a newer link to this node is kept"));
                actor.withdraw(old);
                actor.established(new, ctx);
            }
        }));
    }

    /// Tells the router that a link is no longer to be used.
    ///
    /// True where it was.
    fn withdraw(&mut self, link: LinkId) -> bool {
        let was_up = self.links.get_mut(&link).is_some_and(|entry| entry.up.take().is_some());
        if was_up {
            self.parts.book.down(link);
            self.link_down.do_send(LinkDown(link));
        }
        was_up
    }

    fn ended(&mut self, message: LinkEnded) {
        let was_up = self.withdraw(message.link);
        let Some(entry) = self.links.remove(&message.link) else {
            // A link of an earlier incarnation: the router may know it still.
            return self.link_down.do_send(LinkDown(message.link));
        };
        if message.reason == CloseReason::ProtocolError && !message.by_peer {
            self.parts.book.cut(entry.peer);
        }
        tracing::info!(
            link = %message.link, peer = %entry.peer.short(), remote = %entry.info.remote,
            reason = message.reason.name(), text = %message.text, by_peer = message.by_peer, "link down"
        );
        metrics::counter!(telemetry::LINKS_CLOSED, "reason" => message.reason.name()).increment(1);
        if was_up {
            self.parts.events.tell(EventKind::LinkDown {
                peer: entry.peer,
                url: entry.info.remote.to_string(),
                reason: message.reason.name().to_owned(),
                text: message.text.clone(),
                by_peer: message.by_peer,
            });
        }
        // A dialler whose link gave way to another one waits for the end of that one.
        let survivor = (message.reason == CloseReason::Duplicate)
            .then(|| self.links.values_mut().find(|e| e.up.is_some() && e.peer == entry.peer))
            .flatten();
        match survivor {
            Some(survivor) => survivor.ended.extend(entry.ended),
            None => {
                for ended in entry.ended {
                    // The dialler may have been removed.
                    let _ = ended.send(message.reason);
                }
            }
        }
        self.count();
    }

    /// Connections that never became links end inside their port, which only counts them.
    fn count_handshakes(&self) {
        let ports = self.parts.transports.ports();
        for scheme in ["quic", "tcp", "mem"] {
            let own = ports.iter().filter(|port| port.info().scheme == scheme);
            let failed = own.fold(0u64, |sum, port| sum.saturating_add(port.stats().handshakes_failed));
            metrics::counter!(telemetry::HANDSHAKES_FAILED, "transport" => scheme).absolute(failed);
        }
    }

    fn count(&self) {
        for scheme in ["quic", "tcp", "mem"] {
            let up = self.links.values().filter(|e| e.up.is_some() && e.info.remote.scheme() == scheme);
            metrics::gauge!(telemetry::LINKS, "transport" => scheme).set(up.count() as f64);
        }
    }

    fn dial(&mut self, to: TransportAddr, origin: Origin, ctx: &mut Context<Self>) {
        let name = to.to_string();
        if let Some(dialled) = self.diallers.get(&name).filter(|dialled| !dialled.removed.is_closed()) {
            // Somebody has put right what was wrong, or wants to know now.
            dialled.retry.notify_one();
            return;
        }
        let (removed, stop) = watch::channel(());
        let (tell, trouble) = watch::channel(None);
        let retry = Arc::new(Notify::new());
        self.diallers.insert(name.clone(), Dialled { removed, retry: retry.clone(), trouble });
        let dialler = Dialler {
            to,
            origin,
            transports: self.parts.transports.clone(),
            new_link: self.parts.new_link.clone(),
            retry,
            trouble: tell,
            book: self.parts.book.clone(),
        };
        let dialled = name.clone();
        // Its end by itself is that its peer was removed; after a fault the peer is still wanted. The
        // link that it had stands, and what is dialled beside it gives way to it.
        let spec = ChildSpec::transient("dialler", move |guard| {
            let (dialler, mut removed) = (dialler.clone(), stop.clone());
            Ok(Child::task(guard, DrainPhase::Draining, move |mut stop| async move {
                tokio::select! {
                    () = dialler.run() => {}
                    _ = removed.changed() => {}
                    _ = stop.wanted() => {}
                }
                Ok::<(), TransportError>(())
            }))
        })
        .named(format!("dialler {name}"))
        .independent();
        self.start_child(spec, ctx, move |actor, why| {
            tracing::warn!(peer = dialled, why, "a peer is not dialled");
            // Only a dialler that was never there: another may have come since.
            if actor.diallers.get(&dialled).is_some_and(|d| d.removed.is_closed()) {
                actor.diallers.remove(&dialled);
            }
        });
    }
}

fn facts(entry: &Entry, boot_epoch: u32, since: Instant) -> duplicate::LinkFacts {
    duplicate::LinkFacts {
        peer_boot_epoch: boot_epoch,
        established_at: since,
        direction: match entry.info.direction {
            Direction::In => LinkDirection::In,
            Direction::Out => LinkDirection::Out,
        },
    }
}

/// What the registry holds of a dialler.
struct Dialled {
    /// Dropped, it ends the dialler.
    removed: watch::Sender<()>,
    /// Ends its wait.
    retry: Arc<Notify>,
    /// Why there is no link to its peer.
    trouble: watch::Receiver<Option<String>>,
}

/// Router's supervisor to registry: a fresh router wants to hear of every link again.
#[derive(Debug, Clone, Copy)]
pub struct ResendLinks;
message!(ResendLinks => ());

impl Handler<ResendLinks> for LinksActor {
    type Result = ();

    fn handle(&mut self, _: ResendLinks, _: &mut Context<Self>) {
        for (link, entry) in &self.links {
            let Some(up) = &entry.up else { continue };
            self.link_up.do_send(LinkUp {
                link: *link,
                peer: entry.peer,
                peer_key: entry.peer_key,
                hello: up.hello.clone(),
                transport: entry.info.remote.scheme(),
                class: class_of(entry.info.capability),
                account: account_of(&entry.info),
                outlet: up.outlet.clone(),
            });
        }
    }
}

/// In whose name a link takes shares: of those who come from one address, in that one's.
fn account_of(info: &LinkInfo) -> Option<Address> {
    let party = info.party()?;
    // No node has such an address, but for one key in 2^128.
    let octets = match party {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    Some(Address(octets))
}

/// A medium as the routing table weighs it.
fn class_of(capability: TransportCapability) -> LinkClass {
    match capability {
        TransportCapability::Unconstrained => LinkClass::Unconstrained,
        TransportCapability::Medium => LinkClass::Medium,
        TransportCapability::Constrained => LinkClass::Constrained,
        TransportCapability::SeverelyConstrained => LinkClass::SeverelyConstrained,
    }
}

/// True for private, link-local and loopback addresses.
fn is_near(remote: &TransportAddr) -> bool {
    // What was accepted has an address; media inside the process have none and are near.
    remote.socket_addr().is_none_or(|at| addr::is_near(at.ip()))
}

impl LinksActor {
    /// Every two seconds: how are the links?
    fn report(&mut self, ctx: &mut Context<Self>) {
        let up = self.links.values().filter(|e| e.up.is_some()).count();
        let mut detail = format!("{up} links up, {} peers dialled", self.diallers.len());
        if self.links.values().filter(|entry| !entry.is_leaving).count() >= self.parts.links_max {
            detail.push_str("; all places are taken (transport.links_max)");
        }
        let trouble = |dialled: &Dialled| dialled.trouble.borrow().clone();
        let troubles: Vec<String> = self.diallers.values().filter_map(trouble).collect();
        for trouble in troubles.iter().take(TROUBLES_SHOWN) {
            detail.push_str("; ");
            detail.push_str(trouble);
        }
        if let Some(more) = troubles.len().checked_sub(TROUBLES_SHOWN).filter(|more| *more > 0) {
            detail.push_str(&format!("; and {more} more cannot be reached"));
        }
        if let Some(remark) = self.parts.discovery.borrow().as_ref() {
            detail.push_str("; ");
            detail.push_str(remark);
        }
        let report =
            SubsystemReport { detail: Some(detail), ..SubsystemReport::healthy("transport", clock::now()) };
        self.health.offer_gossip("health", ReportHealth(report));
        self.count_handshakes();
        ctx.run_later(REPORT_EVERY, Self::report);
    }
}

impl Actor for LinksActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        for link in self.parts.book.orphans() {
            self.link_down.do_send(LinkDown(link));
        }
        self.report(ctx);
        for (peer, origin) in self.parts.peers.list() {
            self.dial(peer, origin, ctx);
        }
    }
}

impl Handler<NewLink> for LinksActor {
    type Result = ();

    fn handle(&mut self, message: NewLink, ctx: &mut Context<Self>) {
        self.start_link(message, ctx);
    }
}

impl Handler<LinkEstablished> for LinksActor {
    type Result = ();

    fn handle(&mut self, message: LinkEstablished, ctx: &mut Context<Self>) {
        self.established(message, ctx);
    }
}

impl Handler<LinkEnded> for LinksActor {
    type Result = ();

    fn handle(&mut self, message: LinkEnded, _: &mut Context<Self>) {
        self.ended(message);
    }
}

impl Handler<AddPeer> for LinksActor {
    type Result = Result<(), MeshError>;

    fn handle(&mut self, message: AddPeer, ctx: &mut Context<Self>) -> Self::Result {
        if self.draining {
            return Err(MeshError::Draining);
        }
        self.parts.transports.check(&message.0)?;
        let origin = self.parts.peers.add(&message.0);
        self.dial(message.0, origin, ctx);
        Ok(())
    }
}

impl Handler<ListPeers> for LinksActor {
    type Result = ResponseFuture<Vec<PeerLine>>;

    fn handle(&mut self, _: ListPeers, _: &mut Context<Self>) -> Self::Result {
        let now = clock::now();
        let asked: Vec<_> = self
            .links
            .values()
            .filter_map(|entry| {
                let up = entry.up.as_ref()?;
                let line = PeerLine {
                    address: entry.peer,
                    info: entry.info.clone(),
                    origin: entry.origin,
                    lane: entry.lane,
                    since: now.saturating_duration_since(up.since),
                    stats: LinkStats::default(),
                };
                Some((line, up.stats.send(GetLinkStats { nudge: false })))
            })
            .collect();
        Box::pin(async move {
            let mut lines = Vec::with_capacity(asked.len());
            for (mut line, stats) in asked {
                // A link that ended meanwhile is listed with what is known of it.
                line.stats = stats.await.unwrap_or_default();
                lines.push(line);
            }
            lines
        })
    }
}

impl Handler<WhoIsLinked> for LinksActor {
    type Result = MessageResult<WhoIsLinked>;

    fn handle(&mut self, _: WhoIsLinked, _: &mut Context<Self>) -> Self::Result {
        let stay = self.links.values().filter(|entry| !entry.is_leaving);
        let linked = stay.map(|entry| Linked {
            address: entry.peer,
            at: entry.info.remote.socket_addr().map(|at| (at.ip().to_canonical(), at.port())),
            inbound: entry.info.direction == Direction::In,
        });
        MessageResult(linked.collect())
    }
}

impl Handler<Drain> for LinksActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            DrainPhase::Draining => {
                self.draining = true;
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
crate::messages::lifecycle::panics_when_told!(LinksActor);
