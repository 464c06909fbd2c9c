//! The composition root: the one file that knows every actor and wires their ways to each other.
//!
//! Start order is the order of dependence; a drain walks it backwards, so that the store goes last.
//!
//! ```text
//! root ─┬─ store watch      ends the process when the store fails for good
//!       ├─ health, http     on an arbiter of their own
//!       ├─ store            what is held for others
//!       ├─ rate_limiter     budgets of neighbours, pressure
//!       ├─ delivery         outbox, inbox, receipts
//!       ├─ router           dedup, routes, forwarding
//!       ├─ maintenance      key rotation, old records
//!       ├─ transport ─┬─ links       registry, double links
//!       │             ├─ listener…   one a port
//!       │             ├─ dialler…    one a configured peer
//!       │             ├─ discovery   beacons of the local network, if wanted
//!       │             ├─ port_mapping  ports at the router, if wanted
//!       │             └─ link…       one a neighbour and transport, on an arbiter of links
//!       └─ program    what the embedding program wants done in a drain
//! ```

use std::{path::PathBuf, sync::Arc, time::Duration};

use actix::{Actor, Addr, Arbiter};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Listening, MeshNode, Seats, ShutdownCoordinator, Stopper, link_arbiters::LinkArbiters, ports,
    service::NodeService,
};
#[cfg(feature = "port-mapping")]
use crate::actors::port_mapping::{PortMappingParts, port_mapping};
use crate::{
    actors::{
        child::{Child, ChildSpec, RestartIntensity},
        clock_handle::ClockHandle,
        custody::{CustodyParts, StoreActor},
        delivery::{DeliveryActor, DeliveryParts, OwnKeys},
        discovery::{self, DiscoveryActor, DiscoveryParts},
        health::{HealthActor, HealthHandle},
        links::{LinkBook, LinksActor, LinksParts, Peers, ResendLinks, listener},
        mailbox::{self, Seat},
        maintenance::{MaintenanceActor, MaintenanceParts},
        program::{DrainProgram, ProgramActor},
        quarantine::Quarantine,
        rate_limiter::{PressureGauge, RateLimiterActor, RateLimiterParts},
        router::{AnnounceOrder, RouterActor, RouterParts},
        supervisor::{StartChild, Supervisor, Tree},
        timed_store::TimedStore,
        transport::LinkParts,
        welcome_handle::WelcomeHandle,
    },
    config::{Accept, MeshConfig, Role},
    control::{ControlServer, location::Fallbacks},
    crypto::{MeshIdentity, random},
    error::MeshError,
    events::Events,
    http::{HealthServer, Surface},
    messages::lifecycle::{DrainPhase, DrainSummary},
    proto::{
        bans::Bans,
        delivery::{compose::Sequences, outbox::OutboxConfig},
        discovery::DiscoveryConfig,
        drain::DrainPlan,
        lease::LeaseConfig,
        link::NetworkSecret,
        router::RouterConfig,
        verify::Checked,
    },
    storage::{BlobDir, LocalStore, Mailboxes, Namespace, StopReason, StoreThread},
    transport::{MeshTransport, TransportAddr, interfaces::interfaces},
    wire::{Address, Capabilities, NetworkId},
};

/// How long clients of the control socket may take to read their last answer.
const CONTROL_GRACE: Duration = Duration::from_secs(2);

/// Everything a node starts from; consumed by its start.
pub(crate) struct Prepared {
    pub(super) config: MeshConfig,
    pub(super) data_dir: PathBuf,
    pub(super) identity: Arc<MeshIdentity>,
    pub(super) network: NetworkId,
    pub(super) network_secret: Option<NetworkSecret>,
    pub(super) store_thread: StoreThread,
    pub(super) store_events: mpsc::UnboundedReceiver<StopReason>,
    pub(super) blobs: Arc<BlobDir>,
    pub(super) keys: OwnKeys,
    pub(super) clock: ClockHandle,
    pub(super) welcome: WelcomeHandle,
    pub(super) events: Events,
    pub(super) inbox_grown: watch::Sender<u64>,
    pub(super) health: HealthHandle,
    pub(super) seats: Seats,
    pub(super) transports: Vec<Arc<dyn MeshTransport>>,
    pub(super) control_socket: bool,
    pub(super) program: Option<ShutdownCoordinator>,
}

/// A started tree, seen from outside its thread.
#[derive(Debug)]
pub(crate) struct Running {
    pub(super) listening: Listening,
    stopper: Stopper,
    ended: watch::Receiver<Option<Result<DrainSummary, String>>>,
}

impl Running {
    pub(super) fn begin_shutdown(&self, reason: &str, within: Option<Duration>) {
        self.stopper.stop(reason, within);
    }

    pub(super) fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    pub(super) async fn wait(&mut self) -> Result<DrainSummary, MeshError> {
        let ended = self.ended.wait_for(Option::is_some).await;
        match ended.ok().and_then(|summary| summary.clone()) {
            Some(Ok(summary)) => Ok(summary),
            Some(Err(why)) => Err(MeshError::Refused(why)),
            None => Err(MeshError::Stopped("tree of actors")),
        }
    }
}

/// Starts the tree on a thread of its own and returns once every listener is bound.
pub(super) async fn start(prepared: Prepared, node: MeshNode) -> Result<Running, MeshError> {
    let (ready, started) = oneshot::channel();
    let (ended, over) = watch::channel(None);
    // Whoever starts the node is in the runtime that the program's hooks belong to.
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("qpc-node".into())
        .spawn(move || {
            let system = actix::System::new();
            system.block_on(run(prepared, node, runtime, ready, ended));
        })
        .map_err(|e| MeshError::Refused(format!("cannot start the node's thread: {e}")))?;
    let (listening, stopper) = started.await.map_err(|_| MeshError::Stopped("node thread"))??;
    Ok(Running { listening, stopper, ended: over })
}

type Ready = oneshot::Sender<Result<(Listening, Stopper), MeshError>>;

async fn run(
    prepared: Prepared,
    node: MeshNode,
    runtime: tokio::runtime::Handle,
    ready: Ready,
    ended: watch::Sender<Option<Result<DrainSummary, String>>>,
) {
    let data_dir = prepared.data_dir.clone();
    let control_socket = prepared.control_socket;
    let program = prepared.program.clone();
    let launched = launch(prepared, &node, runtime).await;
    let mut launched = match launched {
        Ok(launched) => launched,
        Err(error) => {
            // The asker may be gone; then nobody wants to know.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let control = if control_socket {
        let service = Arc::new(NodeService::new(node, launched.stopper.clone(), launched.tree.ended.clone()));
        match ControlServer::bind(&data_dir, &Fallbacks::default()) {
            Ok(server) => Some(server.serve(service)),
            Err(error) => {
                let _ = ready.send(Err(MeshError::Refused(error.to_string())));
                return;
            }
        }
    } else {
        None
    };
    launched.listening.control = control.as_ref().map(|c| c.path().to_owned());
    // Dropped at the end, by a panic as well: the program hears of it.
    let _attached = program.map(|program| program.attach(launched.stopper.clone()));
    launched.health.set_serving();
    let _ = ready.send(Ok((launched.listening, launched.stopper)));

    let summary = launched.tree.wait().await;
    if let Some(control) = control {
        control.stop(CONTROL_GRACE).await;
    }
    // Nothing submits any more: what waits is committed, the directory's lock is free after this.
    let reason = launched.store_thread.close();
    launched.http_arbiter.stop();
    // Every link has said goodbye, or was given up.
    launched.link_arbiters.end().await;
    let end = match (summary, reason) {
        (None, _) => Err("the root of the actor tree crashed".to_owned()),
        (Some(summary), StopReason::Closed) => Ok(summary),
        (Some(_), StopReason::Failed(error)) => Err(format!("the store failed: {error}")),
        (Some(_), StopReason::Panicked(panic)) => Err(format!("the store's thread panicked: {panic}")),
    };
    ended.send_replace(Some(end));
}

struct Launched {
    tree: Tree,
    listening: Listening,
    stopper: Stopper,
    health: HealthHandle,
    store_thread: StoreThread,
    http_arbiter: Arbiter,
    link_arbiters: LinkArbiters,
}

/// Binds, wires and starts everything, inside a running actor system.
async fn launch(
    prepared: Prepared,
    node: &MeshNode,
    runtime: tokio::runtime::Handle,
) -> Result<Launched, MeshError> {
    let Prepared {
        config,
        identity,
        network,
        network_secret,
        store_thread,
        store_events,
        blobs,
        keys,
        clock,
        welcome,
        events,
        inbox_grown,
        health,
        seats,
        transports,
        program,
        ..
    } = prepared;

    // Everything that can be refused comes before anything runs.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let link_arbiters = LinkArbiters::start(config.transport.link_threads.on(cores))?;
    let ports = ports::bind(&config, &identity, transports, link_arbiters.lanes()).await?;
    let http = bind_http(&config, &health, node)?;

    let handle = store_thread.handle();
    let gauge = PressureGauge::default();
    let timed = TimedStore::new(handle, gauge.clone());
    let store: Arc<dyn LocalStore> = Arc::new(timed.clone());
    let mailboxes: Arc<dyn Mailboxes> = Arc::new(timed);
    let boot_epoch = store.boot_epoch();
    let (keys_tx, keys_rx) = watch::channel(Arc::new(keys));
    let plan = plan(&config);
    let mut configured = Vec::new();
    for peer in &config.transport.peers {
        configured.push(peer.to_string().parse()?);
    }
    let mut added = Vec::new();
    // Peers on media of the program's own are remembered like others.
    let schemes: Vec<_> = ports.listening.iter().map(|port| port.info().scheme).collect();
    for (url, _) in node.kv_all(Namespace::Peer).await? {
        match TransportAddr::parse_with(&String::from_utf8_lossy(&url), &schemes) {
            Ok(peer) => added.push(peer),
            Err(error) => tracing::warn!(%error, "a remembered peer is not dialled"),
        }
    }

    let ways = Ways::vacant();
    let mut tree = Supervisor::root(health.clone());
    #[cfg(any(test, feature = "testing"))]
    seats.panics.publish(tree.root.clone().recipient());
    let http_arbiter = Arbiter::new();
    let mut start = Starter { root: tree.root.clone() };

    start.child(store_watch(store_events)).await?;
    start.child(health_child(health.clone(), ways.health.clone())).await?;
    if let Some(server) = http.clone() {
        let arbiter = http_arbiter.handle();
        start.child(ChildSpec::permanent("http", move |guard| server.child(&arbiter, guard))).await?;
    }
    let limiter = RateLimiterParts {
        config: LeaseConfig {
            messages_per_s: config.rate_limit.messages_per_s.into(),
            bytes_per_s: config.rate_limit.bytes_per_s.0,
            party_budgets: config.rate_limit.budgets_per_address.into(),
        },
        gauge: gauge.clone(),
        events: events.clone(),
        ..RateLimiterParts::default()
    };
    let custody = CustodyParts {
        mailboxes,
        answer: ways.custody_answer.clone(),
        from_custody: ways.from_custody.clone(),
        which_reachable: ways.which_reachable.clone(),
        health: ways.health.clone(),
        pressure: gauge,
        clock: clock.clone(),
        quarantine: Quarantine::default(),
    };
    start.child(store_child(custody, ways.clone(), seats.clone())).await?;
    start.child(limiter_child(limiter.clone(), ways.lease.clone())).await?;
    let delivery = DeliveryParts {
        identity: identity.clone(),
        network,
        boot_epoch,
        sequences: Sequences::default(),
        keys: keys_rx.clone(),
        order_wait: config.store.order_wait,
        outbox: OutboxConfig {
            bytes_max: config.store.outbox_max.0,
            max_hops: config.routing.message_max_hops,
            ..OutboxConfig::default()
        },
        store: store.clone(),
        blobs,
        originate: ways.originate.clone(),
        find_key: ways.find_key.clone(),
        refuse: ways.custody_answer.clone(),
        inbox_grown,
        history: node.0.history.clone(),
        clock: clock.clone(),
        quarantine: Quarantine::default(),
        welcome,
        events: events.clone(),
    };
    start.child(delivery_child(delivery, ways.clone(), seats.clone())).await?;
    let router = RouterParts {
        identity: identity.clone(),
        network,
        config: RouterConfig {
            relay: config.announce.capabilities.contains(&Role::Relay),
            store: config.announce.capabilities.contains(&Role::Store),
            origins_max: config.routing.routes_max as usize,
            announce_interval: config.announce.interval,
            announce_max_hops: config.announce.max_hops,
            announces_per_s: config.rate_limit.announces_per_s,
            dedup_entries_max: config.routing.dedup_entries_max as usize,
            ..RouterConfig::new(identity.public_key())
        },
        capabilities: capabilities(&config),
        announce_lifetime: config.announce.lifetime,
        order: Arc::new(AnnounceOrder::new(boot_epoch)),
        keys: keys_rx,
        store: store.clone(),
        deliver: ways.deliver.clone(),
        destination_up: ways.destination_up.clone(),
        fate: ways.fate.clone(),
        key_found: ways.key_found.clone(),
        hold: ways.hold.clone(),
        custody_news: ways.custody_news.clone(),
        health: ways.health.clone(),
        clock: clock.clone(),
        events: events.clone(),
        quarantine: Quarantine::default(),
    };
    start.child(router_child(router, ways.clone(), seats.clone())).await?;
    let maintenance = MaintenanceParts {
        identity: identity.clone(),
        network,
        keys: keys_tx,
        store,
        announce: seats.announce.clone(),
        clock,
    };
    start.child(maintenance_child(maintenance)).await?;
    let mut banned = Vec::new();
    for (key, _) in node.kv_all(Namespace::Ban).await? {
        match <[u8; 16]>::try_from(&key[..]) {
            Ok(bytes) => banned.push(Address(bytes)),
            Err(_) => tracing::warn!(bytes = key.len(), "a remembered ban names no node"),
        }
    }
    let (allow, deny) = (config.peers.allow.iter().copied(), config.peers.deny.iter().copied());
    let bans = Bans::new(allow, deny, banned);
    let (remark, discovery_remark) = watch::channel(None);
    let discovery = config.discovers().then(|| DiscoveryParts {
        config: DiscoveryConfig {
            network,
            secret: network_secret.clone(),
            media: discovery::media(&ports.manager),
        },
        instance: random::random_bytes(&mut random::os_rng()),
        own: identity.address(),
        port: config.discovery.port,
        listening: ports.urls.clone(),
        interfaces,
        transports: ports.manager.clone(),
        new_link: ways.new_link.clone(),
        who_is_linked: ways.who_is_linked.clone(),
        remark,
    });
    let links = LinksParts {
        identity: identity.clone(),
        network,
        network_secret,
        boot_epoch,
        transports: ports.manager.clone(),
        arbiters: link_arbiters.handles(),
        link: LinkParts {
            own: identity.address(),
            network,
            checked: Checked::default(),
            envelopes: ways.envelopes.clone(),
            announces: ways.announces.clone(),
            control: ways.control.clone(),
            egress_full: ways.egress_full.clone(),
            lease: ways.lease.clone(),
            pressure: limiter.gauge.clone(),
            established: ways.established.clone(),
            ended: ways.link_ended.clone(),
        },
        supervisor: ways.start_child.clone(),
        new_link: ways.new_link.clone(),
        link_up: ways.link_up.clone(),
        link_down: ways.link_down.clone(),
        health: ways.health.clone(),
        book: LinkBook::with_bans(bans),
        peers: Peers::new(configured, added),
        discovery: discovery_remark,
        keepalive: config.transport.keepalive,
        links_max: config.transport.links_max as usize,
        accept_any: config.accept() == Accept::Any,
        events,
    };
    let mut also: Vec<MakeChild> = Vec::new();
    also.extend(discovery.map(|parts| -> MakeChild { Box::new(move || discovery_child(parts.clone())) }));
    also.extend(port_mapping_child(&config, &identity, &ports.urls, node));
    start.child(transport_child(links, also, ports.listening, ways.clone(), seats)).await?;
    if let Some(program) = program {
        start.child(program_child(program.drain(runtime))).await?;
    }

    let listening =
        Listening { urls: ports.urls, health: http.map(|server| server.local_addr()), control: None };
    let stopper = Stopper { root: tree.root.clone(), plan, begun: Arc::default() };
    // The root's first report may come before anybody looks; nothing to wait for.
    tree.ended.mark_unchanged();
    Ok(Launched { tree, listening, stopper, health, store_thread, http_arbiter, link_arbiters })
}

struct Starter {
    root: Addr<Supervisor>,
}

impl Starter {
    async fn child(&mut self, spec: ChildSpec) -> Result<(), MeshError> {
        let started = self.root.send(StartChild(spec)).await;
        started
            .map_err(|_| MeshError::Stopped("root supervisor"))?
            .map(|_| ())
            .map_err(|e| MeshError::Refused(e.to_string()))
    }
}

/// Ways between actors.
#[derive(Clone)]
struct Ways {
    health: Seat<crate::messages::health::ReportHealth>,
    custody_answer: Seat<crate::messages::store::CustodyAnswer>,
    from_custody: Seat<crate::messages::store::FromCustody>,
    which_reachable: Seat<crate::messages::store::WhichReachable>,
    hold: Seat<crate::messages::store::HoldEnvelopes>,
    custody_news: Seat<crate::messages::store::CustodyNews>,
    originate: Seat<crate::messages::delivery::Originate>,
    find_key: Seat<crate::messages::delivery::FindKeyRecord>,
    deliver: Seat<crate::messages::delivery::DeliverLocal>,
    destination_up: Seat<crate::messages::delivery::DestinationUp>,
    fate: Seat<crate::messages::delivery::PacketFate>,
    key_found: Seat<crate::messages::delivery::KeyRecordFound>,
    envelopes: Seat<crate::messages::link::EnvelopesVerified>,
    announces: Seat<crate::messages::link::AnnounceVerified>,
    control: Seat<crate::messages::link::LinkControl>,
    egress_full: Seat<crate::messages::link::EgressFull>,
    lease: Seat<crate::messages::limit::RequestLease>,
    link_up: Seat<crate::messages::link::LinkUp>,
    link_down: Seat<crate::messages::link::LinkDown>,
    established: Seat<crate::actors::transport::LinkEstablished>,
    link_ended: Seat<crate::actors::transport::LinkEnded>,
    new_link: Seat<crate::actors::links::NewLink>,
    resend_links: Seat<ResendLinks>,
    who_is_linked: Seat<crate::actors::links::WhoIsLinked>,
    start_child: Seat<StartChild>,
}

impl Ways {
    fn vacant() -> Self {
        Self {
            health: Seat::vacant(),
            custody_answer: Seat::vacant(),
            from_custody: Seat::vacant(),
            which_reachable: Seat::vacant(),
            hold: Seat::vacant(),
            custody_news: Seat::vacant(),
            originate: Seat::vacant(),
            find_key: Seat::vacant(),
            deliver: Seat::vacant(),
            destination_up: Seat::vacant(),
            fate: Seat::vacant(),
            key_found: Seat::vacant(),
            envelopes: Seat::vacant(),
            announces: Seat::vacant(),
            control: Seat::vacant(),
            egress_full: Seat::vacant(),
            lease: Seat::vacant(),
            link_up: Seat::vacant(),
            link_down: Seat::vacant(),
            established: Seat::vacant(),
            link_ended: Seat::vacant(),
            new_link: Seat::vacant(),
            resend_links: Seat::vacant(),
            who_is_linked: Seat::vacant(),
            start_child: Seat::vacant(),
        }
    }
}

/// Publishes an actor in every seat it holds.
macro_rules! publish {
    ($address:ident in $($seat:expr),+ $(,)?) => {
        $($seat.publish($address.clone().recipient());)+
    };
}

/// Ends with an error when the store's thread ends for another reason than being told to.
fn store_watch(events: mpsc::UnboundedReceiver<StopReason>) -> ChildSpec {
    let events = Arc::new(tokio::sync::Mutex::new(events));
    ChildSpec::permanent("store watch", move |guard| {
        let events = events.clone();
        Ok(Child::task(guard, DrainPhase::Cleanup, move |mut stop| async move {
            let mut events = events.lock().await;
            tokio::select! {
                reason = events.recv() => match reason {
                    Some(StopReason::Failed(error)) => Err(format!("the store failed: {error}")),
                    Some(StopReason::Panicked(panic)) => Err(format!("the store panicked: {panic}")),
                    Some(StopReason::Closed) | None => Err("the store closed early".to_owned()),
                },
                _ = stop.wanted() => Ok(()),
            }
        }))
    })
    // A node without its store must not limp on.
    .intensity(RestartIntensity { restarts_max: 0, within: Duration::from_secs(60) })
}

fn health_child(health: HealthHandle, seat: Seat<crate::messages::health::ReportHealth>) -> ChildSpec {
    ChildSpec::permanent("health", move |guard| {
        let address = HealthActor::start(health.clone(), guard);
        publish!(address in seat);
        Ok(Child::actor(&address))
    })
}

fn store_child(parts: CustodyParts, ways: Ways, seats: Seats) -> ChildSpec {
    ChildSpec::permanent("store", move |guard| {
        let parts = parts.clone();
        let address = StoreActor::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::STORE);
            StoreActor::new(parts, guard)
        });
        publish!(address in
            ways.hold, ways.custody_news, seats.held, seats.hand_over, seats.expire_held,
            seats.list_mailboxes,
        );
        Ok(Child::actor(&address))
    })
}

fn limiter_child(parts: RateLimiterParts, seat: Seat<crate::messages::limit::RequestLease>) -> ChildSpec {
    ChildSpec::permanent("rate_limiter", move |guard| {
        let parts = parts.clone();
        let address = RateLimiterActor::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::RATE_LIMITER);
            RateLimiterActor::new(parts, guard)
        });
        publish!(address in seat);
        Ok(Child::actor(&address))
    })
}

fn delivery_child(parts: DeliveryParts, ways: Ways, seats: Seats) -> ChildSpec {
    ChildSpec::permanent("delivery", move |guard| {
        let parts = parts.clone();
        let address = DeliveryActor::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::DELIVERY);
            DeliveryActor::new(parts, guard)
        });
        publish!(address in
            ways.deliver, ways.destination_up, ways.fate, ways.key_found,
            seats.send, seats.broadcast, seats.await_end, seats.list_outbox, seats.get_hold,
            seats.get_progress, seats.cancel, seats.find_messages, seats.messages_taken, seats.messages_entered, seats.probe,
        );
        Ok(Child::actor(&address))
    })
}

fn router_child(parts: RouterParts, ways: Ways, seats: Seats) -> ChildSpec {
    ChildSpec::permanent("router", move |guard| {
        let parts = parts.clone();
        let address = RouterActor::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::ROUTER);
            RouterActor::new(parts, guard)
        });
        publish!(address in
            ways.envelopes, ways.announces, ways.control, ways.egress_full, ways.link_up, ways.link_down,
            ways.originate, ways.find_key, ways.custody_answer, ways.from_custody, ways.which_reachable,
            seats.list_routes, seats.router_state, seats.announce, seats.hand_in, seats.sweep_routes,
            seats.list_known, seats.search_path, seats.drop_path,
        );
        // A fresh router knows no links. The registry does; at the first start there is none yet.
        ways.resend_links.outlet().do_send(ResendLinks);
        Ok(Child::actor(&address))
    })
}

fn maintenance_child(parts: MaintenanceParts) -> ChildSpec {
    ChildSpec::permanent("maintenance", move |guard| {
        let parts = parts.clone();
        let address = MaintenanceActor::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::MAINTENANCE);
            MaintenanceActor::new(parts, guard)
        });
        Ok(Child::actor(&address))
    })
}

/// The transport supervisor. Without its registry no link is of use, so a fault of the registry
/// starts the whole branch anew.
fn transport_child(
    parts: LinksParts,
    also: Vec<MakeChild>,
    listening: Vec<Arc<dyn MeshTransport>>,
    ways: Ways,
    seats: Seats,
) -> ChildSpec {
    ChildSpec::permanent("transport", move |guard| {
        let (parts, links_ways, links_seats) = (parts.clone(), ways.clone(), seats.clone());
        let registry = ChildSpec::permanent("links", move |guard| {
            let parts = parts.clone();
            let address = LinksActor::create(move |ctx| {
                ctx.set_mailbox_capacity(mailbox::SUPERVISOR);
                LinksActor::new(parts, guard)
            });
            publish!(address in
                links_ways.established, links_ways.link_ended, links_ways.new_link,
                links_ways.resend_links, links_ways.who_is_linked,
                links_seats.add_peer, links_seats.remove_peer, links_seats.list_peers,
                links_seats.ban_peer, links_seats.unban_peer, links_seats.list_bans, links_seats.list_dialled,
            );
            Ok(Child::actor(&address))
        })
        .intensity(RestartIntensity { restarts_max: 0, within: Duration::from_secs(60) });
        let mut children = vec![registry];
        children.extend(listening.iter().map(|port| listener(port.clone(), ways.new_link.clone())));
        children.extend(also.iter().map(|make| make()));
        let supervisor = Supervisor::nested("transport", guard, children);
        ways.start_child.publish(supervisor.clone().recipient());
        Ok(Child::actor(&supervisor))
    })
}

/// Makes a child of the transport supervisor, anew for each start of its branch.
type MakeChild = Box<dyn Fn() -> ChildSpec + Send>;

/// Keeps ports open at the router, where that is wanted and this build can.
fn port_mapping_child(
    config: &MeshConfig,
    identity: &MeshIdentity,
    listening: &[TransportAddr],
    node: &MeshNode,
) -> Option<MakeChild> {
    if !config.transport.port_mapping {
        return None;
    }
    #[cfg(feature = "port-mapping")]
    {
        let parts = PortMappingParts {
            gateway: config.transport.port_mapping_gateway,
            listening: listening.to_vec(),
            own: identity.address(),
            lan_only: config.accept() == Accept::Lan,
            external: node.0.external.clone(),
        };
        Some(Box::new(move || port_mapping(parts.clone())))
    }
    #[cfg(not(feature = "port-mapping"))]
    {
        let _ = (identity, listening, node);
        tracing::warn!("transport.port_mapping is set, and this build has no port mapping");
        None
    }
}

fn discovery_child(parts: DiscoveryParts) -> ChildSpec {
    ChildSpec::permanent("discovery", move |guard| {
        let parts = parts.clone();
        let address = DiscoveryActor::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::DISCOVERY);
            DiscoveryActor::new(parts, guard)
        });
        Ok(Child::actor(&address))
    })
}

fn program_child(drain: DrainProgram) -> ChildSpec {
    ChildSpec::permanent("program", move |guard| {
        let address = ProgramActor::new(drain.clone(), guard).start();
        Ok(Child::actor(&address))
    })
}

fn bind_http(
    config: &MeshConfig,
    health: &HealthHandle,
    node: &MeshNode,
) -> Result<Option<HealthServer>, MeshError> {
    let Some(at) = config.health.listen.addr() else { return Ok(None) };
    let mut surface = Surface::new(health.clone()).api(Arc::new(super::service::NodeApi(node.clone())));
    for host in &config.health.hosts {
        surface = surface.host_name(host.clone());
    }
    if config.health.metrics {
        surface = surface.public_metrics();
    }
    let server = HealthServer::bind(at, surface).map_err(|e| MeshError::Refused(e.to_string()))?;
    Ok(Some(server))
}

fn plan(config: &MeshConfig) -> DrainPlan {
    let drain = &config.drain;
    // The notice is for those who ask the health endpoint.
    let notice = match config.health.listen.addr() {
        Some(_) => DrainPlan::within(drain.draining).notice,
        None => Duration::ZERO,
    };
    DrainPlan { notice, draining: drain.draining, persisting: drain.persisting, cleanup: drain.cleanup }
}

fn capabilities(config: &MeshConfig) -> Capabilities {
    let mut bits = 0;
    for role in &config.announce.capabilities {
        bits |= match role {
            Role::Relay => Capabilities::RELAY,
            Role::Store => Capabilities::STORE,
            Role::Gateway => Capabilities::GATEWAY,
        };
    }
    if config.announce.constrained {
        bits |= Capabilities::CONSTRAINED;
    }
    Capabilities(bits)
}
