//! One node: its real router, registry, links, rate limiter and delivery, over a store in memory.

use std::{
    cell::Cell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

use actix::prelude::*;
use quicprochat_mesh::{
    actors::{
        child::{Child, ChildSpec},
        clock_handle::ClockHandle,
        delivery::{DeliveryActor, DeliveryParts, HistoryFile, OwnKeys},
        health::HealthHandle,
        links::{AddPeer, LinkBook, LinksActor, LinksParts, ListPeers, PeerLine, Peers, listener},
        mailbox::{self, Seat},
        rate_limiter::{RateLimiterActor, RateLimiterParts},
        router::{AnnounceOrder, RouterActor, RouterParts},
        supervisor::{StartChild, Supervisor, Tree},
        transport::LinkParts,
    },
    clock,
    crypto::{MeshIdentity, ReceiverKeys, SignatureInput, VerifiedKeyRecord, key_record, random},
    messages::{
        delivery::{SendBroadcast, SendContent, TellEnd},
        lifecycle::{BeginDrain, Drain, DrainSummary, ExitGuard, PanicNow},
        route::{GetRouterState, ListRoutes, RouteLine, SearchPath},
    },
    proto::{
        delivery::{
            compose::Sequences,
            outbox::{End, OutboxConfig},
        },
        drain::DrainPlan,
        router::{Counters, PathSearch, RouterConfig},
        verify::Checked,
    },
    storage::{
        BlobDir, LocalCounts, LocalOp, LocalOutcome, LocalStore, MemStore, ask_local, space::system_space,
    },
    testing::eventually,
    transport::{MemNetwork, MeshTransport, TransportAddr, TransportManager},
    wire::{Address, Capabilities, NetworkId, Priority, PublicKey},
};
use tokio::sync::{oneshot, watch};

use crate::tap::{Tap, TappedPort};

pub(crate) const NETWORK: NetworkId = NetworkId([7; 16]);

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The wait before the first retry of an outbox: what is receipted sooner was delivered at the first
/// attempt.
pub(crate) const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Three retry periods of an outbox: 1 s, 2 s and 4 s.
pub(crate) const THREE_RETRIES: Duration = Duration::from_secs(8);

/// What a node is, over all its starts.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) name: String,
    identity: Arc<MeshIdentity>,
    pub(crate) store: MemStore,
    pub(crate) config: RouterConfig,
    keys: Arc<OwnKeys>,
    dir: Arc<tempfile::TempDir>,
}

impl Spec {
    pub(crate) fn new(seed: u8) -> Self {
        let identity = Arc::new(MeshIdentity::from_seed([seed; 32]));
        let secrets = ReceiverKeys::new(identity.public_key(), clock::unix_s(), &mut random::os_rng());
        let record =
            key_record::sign(&identity, &mut SignatureInput::new(NETWORK), secrets.record()).unwrap();
        Self {
            name: format!("node-{seed}"),
            config: RouterConfig::new(identity.public_key()),
            store: MemStore::default(),
            keys: Arc::new(OwnKeys { secrets, record }),
            dir: Arc::new(tempfile::tempdir().unwrap()),
            identity,
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.identity.address()
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.identity.public_key()
    }

    pub(crate) fn key_record(&self) -> &VerifiedKeyRecord {
        &self.keys.record
    }
}

/// One that runs.
pub(crate) struct Node {
    pub(crate) spec: Spec,
    pub(crate) tap: Tap,
    router: Addr<RouterActor>,
    delivery: Addr<DeliveryActor>,
    links: Addr<LinksActor>,
    tree: Tree,
    _inbox: watch::Receiver<u64>,
    _keys: watch::Sender<Arc<OwnKeys>>,
}

/// A message under way.
pub(crate) struct Sent(Rc<Cell<Option<Duration>>>);

impl Sent {
    /// How long it took to its receipt.
    pub(crate) fn took(&self) -> Option<Duration> {
        self.0.get()
    }

    /// True where it was delivered within so long.
    pub(crate) fn within(&self, limit: Duration) -> bool {
        self.took().is_some_and(|took| took < limit)
    }
}

/// The share of messages that were delivered within so long.
pub(crate) fn share(sent: &[Sent], limit: Duration) -> f64 {
    sent.iter().filter(|sent| sent.within(limit)).count() as f64 / sent.len() as f64
}

fn content(to: Address, text: &str, tell: Option<TellEnd>) -> SendContent {
    SendContent {
        destination: to,
        name: String::new(),
        bytes: text.to_owned().into(),
        ttl: secs(24 * 3600),
        priority: Priority::Normal,
        tell,
    }
}

pub(crate) fn url(name: &str) -> TransportAddr {
    TransportAddr::mem(name).unwrap()
}

/// Starts an actor as a child, and gives its address.
async fn child<A>(
    root: &Addr<Supervisor>,
    name: &'static str,
    mut make: impl FnMut(ExitGuard) -> Addr<A> + Send + 'static,
) -> Addr<A>
where
    A: Actor<Context = Context<A>> + Handler<Drain> + Handler<PanicNow>,
{
    let (tell, told) = mpsc::channel();
    let spec = ChildSpec::permanent(name, move |guard| {
        let address = make(guard);
        tell.send(address.clone()).unwrap();
        Ok(Child::actor(&address))
    });
    root.send(StartChild(spec)).await.unwrap().unwrap();
    told.recv().unwrap()
}

impl Node {
    pub(crate) async fn start(network: &MemNetwork, spec: Spec) -> Self {
        let identity = spec.identity.clone();
        let tap = Tap::default();
        let port = network.listen(&spec.name, spec.key()).unwrap();
        let port: Arc<dyn MeshTransport> = Arc::new(TappedPort { port, tap: tap.clone() });
        let mut transports = TransportManager::new();
        transports.add(port.clone());
        let store: Arc<dyn LocalStore> = Arc::new(spec.store.clone());
        let tree = Supervisor::root(HealthHandle::new([]));
        let root = tree.root.clone();

        let limits = RateLimiterParts::default();
        let gauge = limits.gauge.clone();
        let lease = Seat::vacant();
        let limiter = child(&root, "rate_limiter", move |guard| {
            let parts = limits.clone();
            RateLimiterActor::create(move |ctx| {
                ctx.set_mailbox_capacity(mailbox::RATE_LIMITER);
                RateLimiterActor::new(parts, guard)
            })
        });
        lease.publish(limiter.await.recipient());

        let clock = ClockHandle::new(None);
        let (originate, find_key, refuse) = (Seat::vacant(), Seat::vacant(), Seat::vacant());
        let (grown, inbox) = watch::channel(0);
        let (keys_tx, keys) = watch::channel(spec.keys.clone());
        let parts = DeliveryParts {
            identity: identity.clone(),
            network: NETWORK,
            boot_epoch: store.boot_epoch(),
            sequences: Sequences::default(),
            keys: keys.clone(),
            order_wait: Duration::from_secs(30),
            outbox: OutboxConfig::default(),
            store: store.clone(),
            blobs: Arc::new(BlobDir::open(&spec.dir.path().join("blobs"), Arc::new(system_space)).unwrap()),
            originate: originate.clone(),
            find_key: find_key.clone(),
            refuse: refuse.clone(),
            inbox_grown: grown,
            history: HistoryFile::default(),
            clock: clock.clone(),
            quarantine: Default::default(),
            welcome: Default::default(),
            events: quicprochat_mesh::Events::default(),
        };
        let delivery = child(&root, "delivery", move |guard| {
            let parts = parts.clone();
            DeliveryActor::create(move |ctx| {
                ctx.set_mailbox_capacity(mailbox::DELIVERY);
                DeliveryActor::new(parts, guard)
            })
        })
        .await;

        let parts = RouterParts {
            identity: identity.clone(),
            network: NETWORK,
            config: spec.config.clone(),
            capabilities: Capabilities(Capabilities::RELAY),
            announce_lifetime: secs(1800),
            order: Arc::new(AnnounceOrder::new(store.boot_epoch())),
            keys,
            store: store.clone(),
            deliver: Seat::held_by(delivery.clone().recipient()),
            destination_up: Seat::held_by(delivery.clone().recipient()),
            fate: Seat::held_by(delivery.clone().recipient()),
            key_found: Seat::held_by(delivery.clone().recipient()),
            hold: Seat::vacant(),
            custody_news: Seat::vacant(),
            health: Seat::vacant(),
            clock,
            quarantine: Default::default(),
            events: quicprochat_mesh::Events::default(),
        };
        let router = child(&root, "router", move |guard| {
            let parts = parts.clone();
            RouterActor::create(move |ctx| {
                ctx.set_mailbox_capacity(mailbox::ROUTER);
                RouterActor::new(parts, guard)
            })
        })
        .await;
        originate.publish(router.clone().recipient());
        find_key.publish(router.clone().recipient());
        refuse.publish(router.clone().recipient());

        let (established, ended, new_link) = (Seat::vacant(), Seat::vacant(), Seat::vacant());
        let parts = LinksParts {
            discovery: tokio::sync::watch::channel(None).1,
            identity: identity.clone(),
            network: NETWORK,
            network_secret: None,
            boot_epoch: store.boot_epoch(),
            transports: Arc::new(transports),
            arbiters: Vec::new(),
            link: LinkParts {
                own: identity.address(),
                network: NETWORK,
                checked: Checked::default(),
                envelopes: Seat::held_by(router.clone().recipient()),
                announces: Seat::held_by(router.clone().recipient()),
                control: Seat::held_by(router.clone().recipient()),
                egress_full: Seat::held_by(router.clone().recipient()),
                lease,
                pressure: gauge,
                established: established.clone(),
                ended: ended.clone(),
            },
            supervisor: Seat::held_by(root.clone().recipient()),
            new_link: new_link.clone(),
            link_up: Seat::held_by(router.clone().recipient()),
            link_down: Seat::held_by(router.clone().recipient()),
            peers: Peers::default(),
            keepalive: secs(15),
            health: Seat::vacant(),
            book: LinkBook::default(),
            links_max: 1024,
            accept_any: true,
            events: quicprochat_mesh::Events::default(),
        };
        let links = child(&root, "links", move |guard| {
            let parts = parts.clone();
            LinksActor::create(move |ctx| {
                ctx.set_mailbox_capacity(mailbox::SUPERVISOR);
                LinksActor::new(parts, guard)
            })
        })
        .await;
        established.publish(links.clone().recipient());
        ended.publish(links.clone().recipient());
        new_link.publish(links.clone().recipient());
        root.send(StartChild(listener(port, new_link))).await.unwrap().unwrap();
        Self { spec, tap, router, delivery, links, tree, _inbox: inbox, _keys: keys_tx }
    }

    /// Drains it and waits for its end; gives what the next start begins with.
    pub(crate) async fn stop(self) -> Spec {
        self.drained().await.0
    }

    /// The same, with what came of the drain.
    pub(crate) async fn drained(mut self) -> (Spec, DrainSummary) {
        let plan = DrainPlan { notice: Duration::ZERO, ..DrainPlan::within(secs(10)) };
        self.tree.root.do_send(BeginDrain { reason: "test".into(), plan });
        let summary = self.tree.wait().await.expect("the tree drains");
        assert!(summary.drained, "{summary:?}");
        self.spec.store.restart();
        (self.spec, summary)
    }

    pub(crate) fn address(&self) -> Address {
        self.spec.address()
    }

    /// Has a link to `peer` dialled, for ever.
    pub(crate) async fn dial(&self, peer: &str) {
        self.links.send(AddPeer(url(peer))).await.unwrap().unwrap();
    }

    pub(crate) async fn join(&self, peer: &Node) {
        self.dial(&peer.spec.name).await;
    }

    pub(crate) async fn links(&self) -> Vec<PeerLine> {
        self.links.send(ListPeers).await.unwrap()
    }

    pub(crate) async fn is_linked_to(&self, peer: &Address) -> bool {
        self.links().await.iter().any(|line| line.address == *peer)
    }

    pub(crate) async fn routes(&self) -> BTreeMap<Address, RouteLine> {
        let (mut routes, mut from) = (BTreeMap::new(), Some(Address([0; Address::LEN])));
        while let Some(at) = from {
            let page = self.router.send(ListRoutes { from: at, rows_max: usize::MAX }).await.unwrap();
            routes.extend(page.rows.into_iter().map(|line| (line.route.destination, line)));
            from = page.next;
        }
        routes
    }

    /// Destinations, next hops and orders: what a lie about routes would change.
    pub(crate) async fn ways(&self) -> Vec<(Address, Address, (u32, u32))> {
        let routes = self.routes().await;
        routes.values().map(|line| (line.route.destination, line.next_hop, line.route.order)).collect()
    }

    pub(crate) async fn counters(&self) -> Counters {
        self.router.send(GetRouterState).await.unwrap().counters
    }

    pub(crate) async fn search(&self, to: Address) -> PathSearch {
        self.router.send(SearchPath(to)).await.unwrap()
    }

    /// Messages in the inbox.
    pub(crate) async fn inbox(&self) -> u64 {
        self.counts().await.inbox
    }

    /// Messages in the outbox.
    pub(crate) async fn outbox(&self) -> u64 {
        self.counts().await.outbox
    }

    async fn counts(&self) -> LocalCounts {
        match ask_local(&self.spec.store, vec![LocalOp::Counts]).unwrap().await.unwrap().remove(0) {
            LocalOutcome::Counts(counts) => counts,
            other => panic!("{other:?}"),
        }
    }

    /// Takes a message into the outbox; nobody waits for its end.
    pub(crate) async fn queue(&self, to: Address, text: &str) {
        self.delivery.send(content(to, text, None)).await.unwrap().unwrap();
    }

    /// Takes a message into the outbox.
    pub(crate) async fn send(&self, to: Address, text: &str) -> Sent {
        let since = clock::now();
        let (tell, told) = oneshot::channel();
        self.delivery.send(content(to, text, Some(tell))).await.unwrap().unwrap();
        let sent = Rc::new(Cell::new(None));
        let took = sent.clone();
        actix_rt::spawn(async move {
            match told.await {
                Ok(Some(finished)) if matches!(finished.end, End::Delivered { .. }) => {
                    took.set(Some(clock::now() - since));
                }
                other => panic!("{other:?}"),
            }
        });
        Sent(sent)
    }

    /// Tells everyone.
    pub(crate) async fn broadcast(&self, text: &str, max_hops: u8) {
        let message =
            SendBroadcast { name: String::new(), bytes: text.to_owned().into(), ttl: secs(600), max_hops };
        self.delivery.send(message).await.unwrap().unwrap();
    }

    /// Waits until there are ways to all of `others`.
    pub(crate) async fn knows(&self, others: &[&Node]) {
        for other in others {
            let what = format!("a way from {} to {}", self.spec.name, other.spec.name);
            let to = other.address();
            eventually(&what, secs(120), async || self.routes().await.contains_key(&to).then_some(())).await;
        }
    }
}

/// Starts so many nodes, with seeds from 1 up.
pub(crate) async fn nodes(network: &MemNetwork, count: u8) -> Vec<Node> {
    let mut nodes = Vec::new();
    for seed in 1..=count {
        nodes.push(Node::start(network, Spec::new(seed)).await);
    }
    nodes
}

/// Links each of these pairs, and waits until all know all.
pub(crate) async fn connect(nodes: &[Node], pairs: &[(usize, usize)]) {
    for (a, b) in pairs {
        nodes[*a].join(&nodes[*b]).await;
    }
    let all: Vec<&Node> = nodes.iter().collect();
    for node in nodes {
        let others: Vec<&Node> =
            all.iter().copied().filter(|other| other.address() != node.address()).collect();
        node.knows(&others).await;
    }
    // Announces that links made due are out.
    tokio::time::sleep(secs(20)).await;
}

/// A line of so many.
pub(crate) async fn line(network: &MemNetwork, count: u8) -> Vec<Node> {
    let nodes = nodes(network, count).await;
    let pairs: Vec<_> = (1..usize::from(count)).map(|n| (n - 1, n)).collect();
    connect(&nodes, &pairs).await;
    nodes
}
