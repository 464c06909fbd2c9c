//! The node: what a program embeds and `qpc run` runs.
//!
//! [`MeshNodeBuilder`] opens the data directory and the store, [`MeshNode::run`] starts the tree of
//! actors on a thread of its own, [`MeshNode`] is the handle to it: cheap to clone, usable from any
//! tokio runtime. Nobody who uses it has to know that actors exist.
//!
//! `tree` is the one file that knows every actor.

mod builder;
mod contacts;
mod gc;
mod identity_backup;
mod inbox;
mod link_arbiters;
mod message;
mod message_item;
mod messages;
mod peers;
mod people;
mod people_service;
mod ports;
mod reload;
mod router;
mod service;
mod shutdown;
mod sweep;
mod taking;
mod tree;
mod watching;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use actix::{Message, prelude::MailboxError};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use crate::messages::route::{DropReason, IncomingAction};
pub use builder::MeshNodeBuilder;
pub use gc::GcReport;
pub use identity_backup::{BACKUP_FILE_BYTES_MAX, IdentityBackup, Restored};
pub use inbox::{InboxMessage, Taker};
pub use message::{ArrivingFile, HistoryEntry, HistoryEvent, IdPrefix, MessageHistory, MessageState, NoId};
pub use messages::{Messages, Received};
pub use people::SenderRequest;
pub use reload::{LIVE_KEYS, Reloaded};
pub use router::MeshRouter;
pub use service::stopped;
pub use shutdown::{ConnectionDrainer, ShutdownCoordinator, ShutdownError, ShutdownReport, TaskGuard};

use crate::{
    actors::{
        clock_handle::ClockHandle,
        delivery::HistoryFile,
        health::HealthHandle,
        links::{AddPeer, BanPeer, ListBans, ListDialled, ListPeers, RemovePeer, UnbanPeer},
        mailbox::Seat,
        supervisor::Supervisor,
        welcome_handle::WelcomeHandle,
    },
    config::MeshConfig,
    crypto::MeshIdentity,
    error::MeshError,
    events::{Events, Follower},
    messages::{
        delivery::{
            Accepted, AwaitEnd, CancelMessage, FindMessages, GetHold, GetProgress, ListOutbox,
            MessagesEntered, MessagesTaken, Probe, ProbeAnswer, SendBroadcast, SendContent, TellEnd,
        },
        lifecycle::{BeginDrain, DrainSummary, SkipAhead},
        route::{
            AnnounceNow, DropPath, GetRouterState, HandIn, ListKnown, ListRoutes, PAGE_ROWS_MAX, Page,
            RouteLine, RouterState, SearchPath, SweepRoutes,
        },
        store::{ExpireHeld, GetHeld, HandOver, ListMailboxes, MailboxPage},
    },
    proto::{
        delivery::outbox::{Finished, Hold, OutboxLine},
        drain::DrainPlan,
        health::NodeHealth,
        router::PathSearch,
        table::KnownInfo,
        verify::Verifier,
    },
    storage::{BackupReport, BackupSource, BlobDir, HeldSummary, LocalOp, LocalOutcome, LocalStore},
    telemetry::MetricsSnapshot,
    transport::TransportAddr,
    wire::{Address, MessageUid, Priority, PublicKey},
};

/// Where lists of addresses begin.
const FIRST: Address = Address([0; Address::LEN]);

/// Longest wait for a part of the node that is being restarted: its longest delay between two tries,
/// and some time to start.
const RESTART_PATIENCE: Duration = Duration::from_secs(60);

/// Time between two questions to a part that is being restarted: its shortest delay.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Ways to every actor that a handle talks to.
#[derive(Clone)]
pub(crate) struct Seats {
    send: Seat<SendContent>,
    broadcast: Seat<SendBroadcast>,
    await_end: Seat<AwaitEnd>,
    list_outbox: Seat<ListOutbox>,
    get_hold: Seat<GetHold>,
    get_progress: Seat<GetProgress>,
    cancel: Seat<CancelMessage>,
    find_messages: Seat<FindMessages>,
    messages_taken: Seat<MessagesTaken>,
    messages_entered: Seat<MessagesEntered>,
    probe: Seat<Probe>,
    list_routes: Seat<ListRoutes>,
    router_state: Seat<GetRouterState>,
    announce: Seat<AnnounceNow>,
    list_known: Seat<ListKnown>,
    search_path: Seat<SearchPath>,
    drop_path: Seat<DropPath>,
    add_peer: Seat<AddPeer>,
    remove_peer: Seat<RemovePeer>,
    list_peers: Seat<ListPeers>,
    ban_peer: Seat<BanPeer>,
    unban_peer: Seat<UnbanPeer>,
    list_bans: Seat<ListBans>,
    list_dialled: Seat<ListDialled>,
    held: Seat<GetHeld>,
    hand_in: Seat<HandIn>,
    sweep_routes: Seat<SweepRoutes>,
    hand_over: Seat<HandOver>,
    expire_held: Seat<ExpireHeld>,
    list_mailboxes: Seat<ListMailboxes>,
    /// To the root of the tree.
    #[cfg(any(test, feature = "testing"))]
    panics: Seat<crate::messages::lifecycle::PanicNow>,
}

impl Seats {
    fn vacant() -> Self {
        Self {
            send: Seat::vacant(),
            broadcast: Seat::vacant(),
            await_end: Seat::vacant(),
            list_outbox: Seat::vacant(),
            get_hold: Seat::vacant(),
            get_progress: Seat::vacant(),
            cancel: Seat::vacant(),
            find_messages: Seat::vacant(),
            messages_taken: Seat::vacant(),
            messages_entered: Seat::vacant(),
            probe: Seat::vacant(),
            list_routes: Seat::vacant(),
            router_state: Seat::vacant(),
            announce: Seat::vacant(),
            list_known: Seat::vacant(),
            search_path: Seat::vacant(),
            drop_path: Seat::vacant(),
            add_peer: Seat::vacant(),
            remove_peer: Seat::vacant(),
            list_peers: Seat::vacant(),
            ban_peer: Seat::vacant(),
            unban_peer: Seat::vacant(),
            list_bans: Seat::vacant(),
            list_dialled: Seat::vacant(),
            held: Seat::vacant(),
            hand_in: Seat::vacant(),
            sweep_routes: Seat::vacant(),
            hand_over: Seat::vacant(),
            expire_held: Seat::vacant(),
            list_mailboxes: Seat::vacant(),
            #[cfg(any(test, feature = "testing"))]
            panics: Seat::vacant(),
        }
    }
}

struct Inner {
    config: MeshConfig,
    identity: Arc<MeshIdentity>,
    health: HealthHandle,
    seats: Seats,
    store: Arc<dyn LocalStore>,
    blobs: Arc<BlobDir>,
    inbox_grown: watch::Receiver<u64>,
    history: HistoryFile,
    /// Where it is reached from outside, by the router's word.
    external: watch::Sender<Vec<String>>,
    clock: ClockHandle,
    welcome: WelcomeHandle,
    events: Events,
    /// What holds now: as built, but for what was changed since.
    live: std::sync::RwLock<Arc<MeshConfig>>,
    program: reload::Program,
    backup: BackupSource,
    /// Checks what the program brings from media of its own.
    verifier: std::sync::Mutex<Verifier>,
    /// One taker of the inbox at a time.
    taker: Arc<tokio::sync::Mutex<()>>,
    started_at: std::time::Instant,
    prepared: std::sync::Mutex<Option<tree::Prepared>>,
    listening: std::sync::OnceLock<Listening>,
}

/// Where a running node can be reached.
#[derive(Debug, Clone)]
pub struct Listening {
    /// URLs with real ports.
    pub urls: Vec<TransportAddr>,
    /// The health endpoint.
    pub health: Option<SocketAddr>,
    /// The control socket.
    pub control: Option<std::path::PathBuf>,
}

/// A handle to one node. Clones are the same node.
#[derive(Clone)]
pub struct MeshNode(Arc<Inner>);

impl std::fmt::Debug for MeshNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeshNode").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// What to send.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Who it is for.
    pub to: Address,
    /// The content, at most 16 MiB.
    pub content: Bytes,
    /// File name, where it is a file.
    pub name: Option<String>,
    /// How long it may live; the configured default where none is given.
    pub ttl: Option<Duration>,
    /// Its class.
    pub priority: Priority,
}

impl Outbound {
    /// A message with the defaults.
    pub fn new(to: Address, content: impl Into<Bytes>) -> Self {
        Self { to, content: content.into(), name: None, ttl: None, priority: Priority::Normal }
    }
}

async fn ask<M>(seat: &Seat<M>, what: &'static str, message: M) -> Result<M::Result, MeshError>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    let mut outlet = seat.outlet();
    outlet.request(message).await.map_err(|error| match error {
        MailboxError::Closed | MailboxError::Timeout => MeshError::Stopped(what),
    })
}

impl MeshNode {
    /// Answers what the control socket is asked, but for a drain.
    pub(crate) fn service(&self) -> Arc<dyn crate::control::Service> {
        Arc::new(service::NodeService::of_handle(self.clone()))
    }

    /// This node's address.
    pub fn address(&self) -> Address {
        self.0.identity.address()
    }

    /// URLs under which the router of the local network passes links on to this node; none where it was not
    /// asked (`transport.port_mapping`) or does not.
    pub fn external_urls(&self) -> Vec<String> {
        self.0.external.borrow().clone()
    }

    /// This node's public key.
    pub fn public_key(&self) -> PublicKey {
        self.0.identity.public_key()
    }

    /// What it was built with.
    pub fn config(&self) -> &MeshConfig {
        &self.0.config
    }

    /// What happened lately, and what happens from now on.
    pub fn events(&self) -> Follower {
        self.0.events.follow()
    }

    /// Where it listens; none before it runs.
    pub fn listening(&self) -> Option<&Listening> {
        self.0.listening.get()
    }

    /// Since it was built.
    pub fn uptime(&self) -> Duration {
        crate::clock::now().saturating_duration_since(self.0.started_at)
    }

    /// Its state, folded from what its parts report.
    pub fn health(&self) -> NodeHealth {
        self.0.health.now()
    }

    /// Starts the node and returns once all listeners are bound.
    ///
    /// # Errors
    /// A listener that cannot be bound, or a node that was started before.
    pub async fn run(&self) -> Result<RunHandle, MeshError> {
        let prepared = self
            .0
            .prepared
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
            .ok_or(MeshError::StartedBefore)?;
        let running = tree::start(prepared, self.clone()).await?;
        #[cfg(any(test, feature = "testing"))]
        crate::testing::panics::obey(self.clone());
        // Set once: `prepared` was there once.
        let _ = self.0.listening.set(running.listening.clone());
        Ok(RunHandle { node: self.clone(), running })
    }

    /// Puts a message into the outbox; returns when it is on disk. It is kept and sent again until
    /// the destination's signed receipt or its expiry.
    ///
    /// # Errors
    /// The node does not run or drains, the content is too large, the outbox or the disk is full.
    pub async fn send(&self, message: Outbound) -> Result<MessageUid, MeshError> {
        Ok(self.send_telling(message, None).await?.uid)
    }

    /// As [`MeshNode::send`]; whoever waits for the end does so before it can have come.
    async fn send_telling(&self, message: Outbound, tell: Option<TellEnd>) -> Result<Accepted, MeshError> {
        self.takes_work()?;
        let send = SendContent {
            destination: message.to,
            name: message.name.unwrap_or_default(),
            bytes: message.content,
            ttl: message.ttl.unwrap_or_else(|| self.live_config().store.message_ttl),
            priority: message.priority,
            tell,
        };
        ask(&self.0.seats.send, "delivery", send).await?
    }

    /// One rule for all of a drain, its notice included: what says 503 takes nothing new.
    fn takes_work(&self) -> Result<(), MeshError> {
        if self.0.health.is_draining() { Err(MeshError::Draining) } else { Ok(()) }
    }

    /// Waits until a message has ended: delivered, expired, failed or cancelled; a restart of the
    /// part that delivers prolongs the wait and ends nothing. None where nothing is known of the
    /// message: it was not sent from here, or ended before so many others that nobody remembers.
    ///
    /// # Errors
    /// The node drains or has stopped; a message that is on its way is kept for the next start.
    pub async fn wait_for(&self, uid: MessageUid) -> Result<Option<Finished>, MeshError> {
        let mut silent_since = None;
        loop {
            let (tell, told) = oneshot::channel();
            let error = match ask(&self.0.seats.await_end, "delivery", AwaitEnd { uid, tell }).await {
                Ok(()) => {
                    if let Ok(end) = told.await {
                        return Ok(end);
                    }
                    silent_since = None;
                    MeshError::Stopped("delivery")
                }
                Err(error) => error,
            };
            let now = crate::clock::now();
            let silence = now.saturating_duration_since(*silent_since.get_or_insert(now));
            if self.0.health.is_draining() || !self.was_started() || silence > RESTART_PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// As [`MeshNode::wait_for`], of a message whose end was to be told from the first moment on.
    async fn wait_told(
        &self,
        uid: MessageUid,
        told: oneshot::Receiver<Option<Finished>>,
    ) -> Result<Option<Finished>, MeshError> {
        match told.await {
            Ok(end) => Ok(end),
            Err(_) => self.wait_for(uid).await,
        }
    }

    fn was_started(&self) -> bool {
        self.0.prepared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_none()
    }

    /// Sends a signed, unencrypted message to everyone.
    ///
    /// # Errors
    /// As [`MeshNode::send`]; more than 15 KiB.
    pub async fn broadcast(
        &self,
        content: impl Into<Bytes>,
        name: Option<String>,
        ttl: Option<Duration>,
        max_hops: Option<u8>,
    ) -> Result<MessageUid, MeshError> {
        self.takes_work()?;
        let send = SendBroadcast {
            name: name.unwrap_or_default(),
            bytes: content.into(),
            ttl: ttl.unwrap_or_else(|| self.live_config().store.broadcast_ttl),
            max_hops: max_hops.unwrap_or(self.0.config.routing.message_max_hops),
        };
        ask(&self.0.seats.broadcast, "delivery", send).await?
    }

    /// What is on its way.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn outbox(&self) -> Result<Vec<OutboxLine>, MeshError> {
        ask(&self.0.seats.list_outbox, "delivery", ListOutbox).await
    }

    /// Why a message is not under way; none where there is no such message.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn hold_of(&self, uid: MessageUid) -> Result<Option<Hold>, MeshError> {
        ask(&self.0.seats.get_hold, "delivery", GetHold(uid)).await
    }

    /// How many chunks of a file the destination has, and how many there are; none for anything that
    /// is no file in the outbox.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn progress_of(&self, uid: MessageUid) -> Result<Option<(u32, u32)>, MeshError> {
        ask(&self.0.seats.get_progress, "delivery", GetProgress(uid)).await
    }

    /// Takes a message back; true where it was in the outbox and is gone from the disk.
    ///
    /// # Errors
    /// The node does not run, or delivery stopped before the message was gone: it is taken back for
    /// now, and a later start may find it.
    pub async fn cancel(&self, uid: MessageUid) -> Result<bool, MeshError> {
        ask(&self.0.seats.cancel, "delivery", CancelMessage(uid)).await?
    }

    /// Asks a destination, or with `trace` every node on the way, for an answer. Answers come until
    /// the receiver is dropped.
    ///
    /// # Errors
    /// The node does not run or drains.
    pub async fn probe(&self, to: Address, trace: bool) -> Result<mpsc::Receiver<ProbeAnswer>, MeshError> {
        let (answers, receiver) = mpsc::channel(256);
        ask(&self.0.seats.probe, "delivery", Probe { destination: to, trace, answers }).await??;
        Ok(receiver)
    }

    /// The routing table, read page by page: what changes meanwhile may be in it or not.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn routes(&self) -> Result<Vec<RouteLine>, MeshError> {
        let (mut routes, mut from) = (Vec::new(), Some(FIRST));
        while let Some(at) = from {
            let page = self.routes_from(at).await?;
            routes.extend(page.rows);
            from = page.next;
        }
        Ok(routes)
    }

    /// A page of the routing table, from a destination on.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn routes_from(&self, from: Address) -> Result<Page<RouteLine>, MeshError> {
        ask(&self.0.seats.list_routes, "router", ListRoutes { from, rows_max: PAGE_ROWS_MAX }).await
    }

    /// Copies the data directory, as it stands at one moment, to `to`, which must not exist or be an
    /// empty directory. A node that is started on the copy signs above whatever this one signed since.
    ///
    /// # Errors
    /// The disk; nothing is left of the copy then.
    pub async fn backup(&self, to: impl Into<PathBuf>) -> Result<BackupReport, MeshError> {
        let (source, to) = (self.0.backup.clone(), to.into());
        let copied = tokio::task::spawn_blocking(move || source.copy_to(&to)).await;
        Ok(copied.map_err(|_| MeshError::Stopped("backup"))??)
    }

    /// A page of what is held for others, from behind `after` on.
    ///
    /// # Errors
    /// The node does not run; the disk.
    pub async fn mailboxes_after(&self, after: Option<Address>) -> Result<MailboxPage, MeshError> {
        ask(&self.0.seats.list_mailboxes, "store", ListMailboxes { after }).await?
    }

    /// The route to `destination`.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn route(&self, destination: Address) -> Result<Option<RouteLine>, MeshError> {
        let ask_for = ListRoutes { from: destination, rows_max: 1 };
        let page = ask(&self.0.seats.list_routes, "router", ask_for).await?;
        Ok(page.rows.into_iter().find(|line| line.route.destination == destination))
    }

    /// Everyone that was heard within the last day, routed or not, by address, as
    /// [`MeshNode::routes`].
    ///
    /// # Errors
    /// The node does not run.
    pub async fn known(&self) -> Result<Vec<KnownInfo>, MeshError> {
        let (mut known, mut from) = (Vec::new(), Some(FIRST));
        while let Some(at) = from {
            let page = self.known_from(at).await?;
            known.extend(page.rows);
            from = page.next;
        }
        Ok(known)
    }

    /// A page of [`MeshNode::known`], from an address on.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn known_from(&self, from: Address) -> Result<Page<KnownInfo>, MeshError> {
        ask(&self.0.seats.list_known, "router", ListKnown { from, rows_max: PAGE_ROWS_MAX }).await
    }

    /// Looks for a path to `destination`; says at once whether neighbours were asked.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn search_path(&self, destination: Address) -> Result<PathSearch, MeshError> {
        ask(&self.0.seats.search_path, "router", SearchPath(destination)).await
    }

    /// Forgets the ways to `destination`; true where there was one.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn drop_path(&self, destination: Address) -> Result<bool, MeshError> {
        ask(&self.0.seats.drop_path, "router", DropPath(destination)).await
    }

    /// Links, routes and counters of the router.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn router_state(&self) -> Result<RouterState, MeshError> {
        ask(&self.0.seats.router_state, "router", GetRouterState).await
    }

    /// How many messages are on disk: those that wait in the inbox, those on their way in the outbox
    /// and those held for others.
    ///
    /// # Errors
    /// The store; the node does not run.
    pub async fn stored(&self) -> Result<u64, MeshError> {
        let held = self.held().await?.rows;
        let LocalOutcome::Counts(own) = self.kv(LocalOp::Counts).await? else { return Ok(held) };
        Ok(held.saturating_add(own.inbox).saturating_add(own.outbox))
    }

    /// What is held for others.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn held(&self) -> Result<HeldSummary, MeshError> {
        ask(&self.0.seats.held, "store", GetHeld).await
    }

    /// Has a part of this node panic, as a fault of its code would: an actor or task by its path in
    /// the tree (`delivery`, `transport/links`, `transport/link/reader`), of children that share a
    /// kind all of them; `root` for the tree's root and `storage` for the store's thread.
    #[cfg(any(test, feature = "testing"))]
    pub fn panic_now(&self, path: &str) {
        let tell = |below: &str| {
            self.0.seats.panics.outlet().do_send(crate::messages::lifecycle::PanicNow(below.to_owned()));
        };
        match path {
            "root" => tell(""),
            "storage" => {
                // One that has stopped panics no more.
                let _ = self.0.store.submit(Vec::new(), Box::new(|_| panic!("a test wanted this panic")));
            }
            below => tell(below),
        }
    }

    /// Announces now rather than at the next interval.
    ///
    /// # Errors
    /// The node does not run.
    pub async fn announce(&self) -> Result<(), MeshError> {
        ask(&self.0.seats.announce, "router", AnnounceNow).await
    }
}

/// A running node. Dropping it leaves the node running; [`RunHandle::shutdown`] drains it.
#[derive(Debug)]
pub struct RunHandle {
    node: MeshNode,
    running: tree::Running,
}

impl RunHandle {
    /// The node.
    pub fn node(&self) -> &MeshNode {
        &self.node
    }

    /// Its state.
    pub fn health(&self) -> NodeHealth {
        self.node.health()
    }

    /// All metrics of this process.
    pub fn metrics_snapshot(&self) -> MetricsSnapshot {
        crate::telemetry::snapshot()
    }

    /// Where the health endpoint listens.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.running.listening.health
    }

    /// Where the node listens.
    pub fn listening(&self) -> &Listening {
        &self.running.listening
    }

    /// Begins to drain; [`RunHandle::wait`] tells when it is done. A second call skips ahead.
    pub fn begin_shutdown(&self, reason: &str) {
        self.running.begin_shutdown(reason, None);
    }

    /// What begins a drain from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.running.stopper()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The root of the tree crashed.
    pub async fn wait(&mut self) -> Result<DrainSummary, MeshError> {
        self.running.wait().await
    }

    /// Drains the node and waits for its end.
    ///
    /// # Errors
    /// As [`RunHandle::wait`].
    pub async fn shutdown(mut self) -> Result<DrainSummary, MeshError> {
        self.begin_shutdown("requested");
        self.wait().await
    }
}

/// Begins a drain.
#[derive(Clone)]
pub struct Stopper {
    root: actix::Addr<Supervisor>,
    plan: DrainPlan,
    begun: Arc<std::sync::atomic::AtomicBool>,
}

impl std::fmt::Debug for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopper").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Stopper {
    /// Begins a drain where none has begun; never skips ahead.
    pub fn begin(&self, reason: &str, within: Option<Duration>) {
        if !self.begun.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.root.do_send(BeginDrain { reason: reason.to_owned(), plan: self.plan_for(within) });
        }
    }

    /// The first call begins, the second skips ahead.
    pub fn stop(&self, reason: &str, within: Option<Duration>) {
        if self.begun.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.root.do_send(SkipAhead);
        } else {
            self.root.do_send(BeginDrain { reason: reason.to_owned(), plan: self.plan_for(within) });
        }
    }

    fn plan_for(&self, within: Option<Duration>) -> DrainPlan {
        within.map_or(self.plan, |within| {
            let plan = DrainPlan::within(within);
            DrainPlan { notice: plan.notice.min(self.plan.notice), ..plan }
        })
    }
}
