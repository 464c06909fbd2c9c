//! What the control socket and the HTTP API ask a node, answered.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::{
    FIRST, IdPrefix, InboxMessage, MeshNode, Outbound, Reloaded, Stopper, message::outgoing_state,
    message_item::message_item, peers::peers, people_service, taking, watching,
};
use crate::{
    api::{
        self, ApiError, BackedUp, ClockState, DeliveryStatus, Dialled, Done, FileProgress, InboxItem,
        KnownNode, Mailbox, MessageId, NodeState, OutboxItem, OwnState, PhaseTime, Pong, Priority, Reply,
        Request, Route, SendOutcome, Status, Stopped, StoppedEvent, SubsystemStatus, Timestamp, Trace,
        TraceHop,
    },
    control::{ReplyTx, Service},
    crypto::compute_address,
    error::MeshError,
    http::{ApiQuery, ApiSource},
    messages::{
        delivery::{Accepted, ProbeAnswer},
        lifecycle::DrainSummary,
        route::RouteLine,
        store::MailboxLine,
    },
    proto::{
        delivery::outbox::{End, Finished, Hold, OutboxLine},
        health::HealthStatus,
        router::PathSearch,
        table::KnownInfo,
    },
    storage::BackupReport,
    telemetry,
    transport::TransportAddr,
    wire::{self, Address, MessageUid, PublicKey},
};

/// The `reason` of a message that is gone and of whose end nothing is known.
const END_UNKNOWN: &str = "unknown: a part of the node was restarted";

/// The `reason` of a message that its destination does not take from here.
const UNWANTED: &str = "its destination takes no messages from this node (blocked, or contacts only)";

/// Serves the control socket.
pub(super) struct NodeService {
    node: MeshNode,
    stopping: Option<Stopping>,
}

/// What it takes to stop the node.
struct Stopping {
    stopper: Stopper,
    ended: watch::Receiver<Option<DrainSummary>>,
}

impl NodeService {
    pub(super) fn new(
        node: MeshNode,
        stopper: Stopper,
        ended: watch::Receiver<Option<DrainSummary>>,
    ) -> Self {
        Self { node, stopping: Some(Stopping { stopper, ended }) }
    }

    /// For who holds a handle and no more: a node is stopped through its `RunHandle`.
    pub(super) fn of_handle(node: MeshNode) -> Self {
        Self { node, stopping: None }
    }

    async fn serve(&self, request: Request, payload: Bytes, replies: ReplyTx) -> Result<(), ApiError> {
        let node = &self.node;
        match request {
            Request::Status => replies.send(status(node).await?).await?,
            Request::Peers => {
                for peer in peers(node).await? {
                    replies.send(peer).await?;
                }
            }
            Request::Routes { destination } => {
                let only = match destination {
                    Some(text) => Some(node.resolve(&text, true).await?),
                    None => None,
                };
                if let Some(only) = only {
                    if let Some(line) = node.route(only).await.map_err(ApiError::failed)? {
                        replies.send(route(&line)).await?;
                    }
                    return Ok(());
                }
                // A page is asked for when the client has read the one before it.
                let mut from = Some(FIRST);
                while let Some(at) = from {
                    let page = node.routes_from(at).await.map_err(ApiError::failed)?;
                    for line in &page.rows {
                        replies.send(route(line)).await?;
                    }
                    from = page.next;
                }
            }
            Request::Known => {
                let mut from = Some(FIRST);
                while let Some(at) = from {
                    let page = node.known_from(at).await.map_err(ApiError::failed)?;
                    for known in &page.rows {
                        replies.send(known_node(known)).await?;
                    }
                    from = page.next;
                }
            }
            Request::PathRequest { destination } => {
                let to = node.resolve(&destination, true).await?;
                path_search(to, node.search_path(to).await.map_err(ApiError::failed)?)?;
                replies.send(Done::OK).await?;
            }
            Request::PathDrop { destination } => {
                let to = node.resolve(&destination, true).await?;
                node.drop_path(to).await.map_err(ApiError::failed)?;
                replies.send(Done::OK).await?;
            }
            Request::Stats => replies.send(Reply::Stats(stats())).await?,
            Request::Drain { timeout_ms } => {
                let Some(stopping) = &self.stopping else {
                    return Err(ApiError::failed(
                        "a handle does not stop its node: RunHandle::shutdown does",
                    ));
                };
                stopping.stopper.stop("requested", timeout_ms.map(Duration::from_millis));
                let mut ended = stopping.ended.clone();
                let summary = ended
                    .wait_for(Option::is_some)
                    .await
                    .map_err(|_| ApiError::failed("the node's root crashed while it drained"))?
                    .clone();
                if let Some(summary) = summary {
                    replies.send(stopped(&summary)).await?;
                }
            }
            Request::PeerAdd { url } => {
                let url: TransportAddr = url.parse().map_err(ApiError::usage)?;
                node.add_peer(url).await.map_err(ApiError::failed)?;
                replies.send(Done::OK).await?;
            }
            Request::PeerRemove { peer } => {
                node.take_peer_out(&peer).await?;
                replies.send(Done::OK).await?;
            }
            Request::PeerBan { peer } => {
                node.ban(&peer).await?;
                replies.send(Done::OK).await?;
            }
            Request::PeerUnban { peer } => {
                node.lift_ban(&peer).await?;
                replies.send(Done::OK).await?;
            }
            Request::PeerList => {
                for entry in node.peer_list().await? {
                    replies.send(entry).await?;
                }
            }
            Request::Send { to, priority, ttl_ms, wait, file_name } => {
                let to = node.resolve(&to, false).await?;
                let message = Outbound {
                    to,
                    content: payload,
                    name: file_name,
                    ttl: ttl_ms.map(Duration::from_millis),
                    priority: wire_priority(priority),
                };
                self.answer_send(message, wait, &replies).await?;
            }
            Request::Broadcast { ttl_ms, max_hops, file_name } => {
                let ttl = ttl_ms.map(Duration::from_millis);
                let id = node.broadcast(payload, file_name, ttl, max_hops).await.map_err(ApiError::failed)?;
                replies.send(MessageId { id }).await?;
            }
            Request::Recv { count, wait, keep } => taking::recv(node, count, wait, keep, &replies).await?,
            Request::InboxList => {
                let names = Names::of(node).await?;
                let mut after = None;
                loop {
                    let (messages, next) = node.inbox(after).await.map_err(ApiError::failed)?;
                    for message in messages {
                        replies.send(names.item(&message)).await?;
                    }
                    after = next;
                    if after.is_none() {
                        break;
                    }
                }
            }
            Request::InboxAck { id } => {
                let message = self.find(id).await?;
                node.remove_message(&message).await.map_err(ApiError::failed)?;
                replies.send(Done::OK).await?;
            }
            Request::OutboxList => {
                for line in node.outbox().await.map_err(ApiError::failed)? {
                    replies.send(outbox_item(&line)).await?;
                }
            }
            Request::OutboxCancel { id } => {
                if !node.cancel(id).await.map_err(ApiError::failed)? {
                    return Err(ApiError::failed(format!("no message {id} is in the outbox")));
                }
                replies.send(Done::OK).await?;
            }
            Request::Message { id } => {
                for message in self.message(&id).await? {
                    replies.send(message).await?;
                }
            }
            Request::Backup { dir } => {
                let report = node.backup(dir.clone()).await.map_err(ApiError::failed)?;
                let BackupReport { rows, files, bytes } = report;
                replies.send(BackedUp { dir, rows, files, bytes }).await?;
            }
            Request::Mailboxes => {
                let mut after = None;
                loop {
                    let page = node.mailboxes_after(after).await.map_err(ApiError::failed)?;
                    for line in &page.rows {
                        replies.send(mailbox(line)).await?;
                    }
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
            }
            Request::Trace { destination, timeout_ms } => {
                let to = node.resolve(&destination, true).await?;
                replies.send(trace(node, to, Duration::from_millis(timeout_ms)).await?).await?;
            }
            Request::Ping { destination, count, interval_ms, timeout_ms } => {
                let to = node.resolve(&destination, true).await?;
                for seq in 1..=count {
                    let next = tokio::time::Instant::now() + Duration::from_millis(interval_ms);
                    replies.send(ping(node, to, seq, Duration::from_millis(timeout_ms)).await?).await?;
                    if seq < count {
                        tokio::time::sleep_until(next).await;
                    }
                }
            }
            Request::Announce => {
                node.announce().await.map_err(ApiError::failed)?;
                replies.send(Done::OK).await?;
            }
            Request::ContactAdd { name, address } => {
                // A key names its address; nobody has to do that sum.
                let address = match address.parse::<PublicKey>() {
                    Ok(key) => compute_address(&key),
                    Err(_) => node.resolve(&address, true).await?,
                };
                replies.send(node.add_contact(&name, address).await?).await?;
            }
            Request::ContactList => {
                for contact in node.contacts().await.map_err(ApiError::failed)? {
                    replies.send(contact).await?;
                }
            }
            Request::ContactRemove { name } => {
                if !node.remove_contact(&name).await.map_err(ApiError::failed)? {
                    return Err(ApiError::failed(format!("no contact is called {name:?}")));
                }
                replies.send(Done::OK).await?;
            }
            Request::Block { .. }
            | Request::Unblock { .. }
            | Request::BlockedList
            | Request::RequestList
            | Request::RequestAnswer { .. } => people_service::serve(node, request, &replies).await?,
            Request::Events { follow } => people_service::events(node, follow, &replies).await?,
            Request::Reload => {
                let Reloaded { changed, needs_restart } = node.reload().await.map_err(reload_failed)?;
                replies.send(api::Reloaded { changed, needs_restart }).await?;
            }
            Request::LogLevel { filter } => {
                node.set_log_filter(&filter).map_err(ApiError::usage)?;
                replies.send(api::LogLevel { filter }).await?;
            }
            Request::Clock => {
                let judged = node.0.clock.judge();
                let reason = judged.err().map(|distrust| distrust.to_string());
                replies.send(ClockState { trusted: reason.is_none(), reason }).await?;
            }
            Request::Dialled => {
                for line in node.dialled().await.map_err(ApiError::failed)? {
                    let (url, linked) = (line.url.to_string(), line.linked.is_some());
                    replies.send(Dialled { url, linked, trouble: line.trouble }).await?;
                }
            }
            Request::OwnState => {
                let state = node.own_state().await.map_err(ApiError::failed)?;
                replies.send(OwnState { contacts: Vec::new(), ..state }).await?;
            }
            Request::InboxWatch { content_bytes_max } => {
                watching::watch(node, content_bytes_max, &replies).await?;
            }
        }
        Ok(())
    }

    async fn answer_send(&self, message: Outbound, wait: bool, replies: &ReplyTx) -> Result<(), ApiError> {
        let (tell, told) = oneshot::channel();
        let accepted = self.node.send_telling(message, wait.then_some(tell)).await;
        let Accepted { uid: id, hold } = accepted.map_err(ApiError::failed)?;
        let (status, reason) = (DeliveryStatus::Queued, hold.reason());
        let queued = SendOutcome { id, status, reason, rtt_ms: None, hops: None, progress: None };
        replies.send(queued.clone()).await?;
        if !wait {
            return Ok(());
        }
        // The reason of a wait that runs out is read when it runs out, so it is told as it changes,
        // and so is how much of a file is there.
        let mut ended = std::pin::pin!(self.node.wait_told(id, told));
        let mut told = queued;
        loop {
            tokio::select! {
                finished = &mut ended => {
                    let outcome = match finished.map_err(ApiError::failed)? {
                        Some(finished) => outcome(&finished),
                        // It ended in a part of the node that crashed with it, and so many others
                        // ended since that nobody remembers how.
                        None => SendOutcome { reason: Some(END_UNKNOWN.to_owned()), ..told },
                    };
                    replies.send(outcome).await?;
                    return Ok(());
                }
                () = tokio::time::sleep(Duration::from_millis(500)) => {
                    let Ok(hold) = self.node.hold_of(id).await else { continue };
                    let Ok(chunks) = self.node.progress_of(id).await else { continue };
                    let reason = hold.and_then(Hold::reason);
                    let progress = chunks.map(|(chunks_done, chunks)| FileProgress { chunks_done, chunks });
                    if (&reason, progress) != (&told.reason, told.progress) {
                        (told.reason, told.progress) = (reason, progress);
                        replies.send(told.clone()).await?;
                    }
                }
            }
        }
    }

    /// What is known of one message. Digits that fit several name none.
    async fn message(&self, digits: &str) -> Result<Vec<api::Message>, ApiError> {
        let id: IdPrefix = digits.parse().map_err(ApiError::usage)?;
        let found = self.node.message(id).await.map_err(failed)?;
        let Some(first) = found.first() else {
            return Err(ApiError::failed(format!(
                "nothing is known here of a message {digits}: it never was here, or so long ago that nobody \
                 remembers"
            )));
        };
        if found.iter().any(|other| other.id != first.id) {
            return Err(ApiError::failed(format!(
                "more than one message begins with {digits}: give more digits"
            )));
        }
        let names = Names::of(&self.node).await?;
        Ok(found.iter().map(|history| message_item(history, &names)).collect())
    }

    async fn find(&self, id: MessageUid) -> Result<InboxMessage, ApiError> {
        let mut after = None;
        loop {
            let (messages, next) = self.node.inbox(after).await.map_err(ApiError::failed)?;
            if let Some(found) = messages.into_iter().find(|m| m.id() == id) {
                return Ok(found);
            }
            after = next;
            if after.is_none() {
                return Err(ApiError::failed(format!("no message {id} is in the inbox")));
            }
        }
    }
}

impl Service for NodeService {
    fn call(
        self: Arc<Self>,
        request: Request,
        payload: Bytes,
        replies: ReplyTx,
    ) -> BoxFuture<'static, Result<(), ApiError>> {
        Box::pin(async move { self.serve(request, payload, replies).await })
    }
}

/// Serves `/api/v1/…`.
pub(super) struct NodeApi(pub(super) MeshNode);

impl ApiSource for NodeApi {
    fn get(&self, query: ApiQuery) -> BoxFuture<'static, Result<Value, String>> {
        let node = self.0.clone();
        Box::pin(async move {
            let answer = match query {
                ApiQuery::Status => serde_json::to_value(status(&node).await.map_err(|e| e.to_string())?),
                ApiQuery::Peers => serde_json::to_value(peers(&node).await.map_err(|e| e.to_string())?),
                ApiQuery::Routes => {
                    let lines = node.routes().await.map_err(|e| e.to_string())?;
                    serde_json::to_value(lines.iter().map(route).collect::<Vec<_>>())
                }
                ApiQuery::Stats => Ok(Value::Object(stats())),
            };
            answer.map_err(|e| e.to_string())
        })
    }
}

/// Contact names by address, for lists.
pub(super) struct Names(Vec<(String, Address)>);

impl Names {
    pub(super) async fn of(node: &MeshNode) -> Result<Self, ApiError> {
        let contacts = node.contacts().await.map_err(ApiError::failed)?;
        Ok(Self(contacts.into_iter().map(|c| (c.name, c.address)).collect()))
    }

    pub(super) fn of_address(&self, address: &Address) -> Option<String> {
        self.0.iter().find(|(_, a)| a == address).map(|(name, _)| name.clone())
    }

    pub(super) fn item(&self, message: &InboxMessage) -> InboxItem {
        let from = message.from();
        InboxItem {
            id: message.id(),
            from,
            from_name: self.of_address(&from),
            broadcast: message.is_broadcast(),
            sent_at: Some(Timestamp(message.sent_at_unix_ms())),
            received_at: Timestamp(message.received_at_unix_ms()),
            hops: Some(message.hops()),
            size: message.size(),
            name: message.name().map(str::to_owned),
        }
    }
}

/// An error of the node as its client is told.
pub(super) fn failed(error: impl std::fmt::Display) -> ApiError {
    ApiError::failed(error)
}

/// A configuration that is wrong is the caller's to mend, with all that is wrong about it.
fn reload_failed(error: MeshError) -> ApiError {
    match error {
        MeshError::Config(error) => ApiError::config(error),
        other => ApiError::failed(other),
    }
}

fn stats() -> serde_json::Map<String, Value> {
    match serde_json::to_value(telemetry::snapshot()) {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    }
}

async fn status(node: &MeshNode) -> Result<Status, ApiError> {
    let health = node.health();
    let router = node.router_state().await.map_err(ApiError::failed)?;
    let stored = node.stored().await.map_err(ApiError::failed)?;
    let listening = node.listening();
    Ok(Status {
        address: node.address(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: node.config().identity.network.clone(),
        uptime_s: node.uptime().as_secs(),
        state: state(health.status),
        subsystems: health
            .subsystems
            .iter()
            .map(|(name, s)| {
                (name.to_string(), SubsystemStatus { status: state(s.status), detail: s.detail.clone() })
            })
            .collect(),
        peers: router.links as u64,
        routes: router.routes as u64,
        stored,
        health: listening.and_then(|l| l.health).map(|a| a.to_string()),
        listen: listening.map(|l| l.urls.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        external: node.external_urls(),
    })
}

fn state(status: HealthStatus) -> NodeState {
    match status {
        HealthStatus::Healthy => NodeState::Healthy,
        HealthStatus::Degraded => NodeState::Degraded,
        HealthStatus::Draining => NodeState::Draining,
        HealthStatus::Unhealthy => NodeState::Unhealthy,
    }
}

fn route(line: &RouteLine) -> Route {
    let route = &line.route;
    Route {
        destination: route.destination,
        next_hop: line.next_hop,
        hops: route.next_hops.first().map_or(0, |hop| hop.hops),
        sequence: route.order.1,
        boot_epoch: route.order.0,
        expires_s: route.expires_in.as_secs(),
        capabilities: route.capabilities.names().into_iter().map(str::to_owned).collect(),
        transport: line.transport.to_owned(),
        alternatives: route.next_hops.len().saturating_sub(1) as u64,
        delivered_share: line.delivered_share(),
    }
}

fn known_node(known: &KnownInfo) -> KnownNode {
    KnownNode {
        address: known.address,
        boot_epoch: known.order.0,
        sequence: known.order.1,
        capabilities: known.capabilities.names().into_iter().map(str::to_owned).collect(),
        reachable: known.is_routed,
        has_key: known.has_key,
        forgotten_s: known.forgotten_in.as_secs(),
    }
}

/// What a person is told who asked for a path that is not looked for.
fn path_search(to: Address, search: PathSearch) -> Result<(), ApiError> {
    let why = match search {
        PathSearch::Known | PathSearch::Started | PathSearch::Running => return Ok(()),
        PathSearch::NotYet { retry_after } => format!(
            "{to} was looked for in vain a moment ago; ask again in {} s, or `qpc path drop` it first",
            retry_after.as_secs().saturating_add(1)
        ),
        PathSearch::Busy => {
            "the neighbours were asked for as many paths as they answer; ask again in a second".into()
        }
        PathSearch::NoLinks => "no link is up to ask over; see `qpc peers`".into(),
        PathSearch::NotLookedFor => format!("{to} is this node itself, or an address that no node has"),
    };
    Err(ApiError::failed(why))
}

fn mailbox(line: &MailboxLine) -> Mailbox {
    Mailbox {
        destination: line.destination,
        messages: line.held.rows,
        bytes: line.held.bytes,
        oldest_s: line.oldest_s,
        reachable: line.is_reachable,
    }
}

fn outbox_item(line: &OutboxLine) -> OutboxItem {
    OutboxItem {
        id: line.uid,
        to: line.destination,
        size: line.size,
        priority: api_priority(line.priority),
        attempts: line.attempts,
        next_retry_s: line.next_retry.map(|d| d.as_secs()),
        expires_s: line.expires.as_secs(),
        state: outgoing_state(line).to_owned(),
        reason: line.hold.reason(),
        chunks_done: line.chunks.map(|(done, _)| done),
        chunks: line.chunks.map(|(_, all)| all),
    }
}

pub(super) fn api_priority(priority: wire::Priority) -> Priority {
    match priority {
        wire::Priority::Low => Priority::Low,
        wire::Priority::Normal => Priority::Normal,
        wire::Priority::High => Priority::High,
        wire::Priority::Critical => Priority::Critical,
    }
}

fn wire_priority(priority: Priority) -> wire::Priority {
    match priority {
        Priority::Low => wire::Priority::Low,
        Priority::Normal => wire::Priority::Normal,
        Priority::High => wire::Priority::High,
        Priority::Critical => wire::Priority::Critical,
    }
}

fn outcome(finished: &Finished) -> SendOutcome {
    let (status, reason, rtt_ms, hops) = match finished.end {
        End::Delivered { rtt, hops } => (DeliveryStatus::Delivered, None, rtt.map(ms), Some(hops)),
        End::Expired => {
            (DeliveryStatus::Expired, Some("its time ran out before the receipt came"), None, None)
        }
        End::Rejected => (DeliveryStatus::Failed, Some("the destination refused it"), None, None),
        End::Unwanted => (DeliveryStatus::Failed, Some(UNWANTED), None, None),
        End::Cancelled => (DeliveryStatus::Failed, Some("cancelled"), None, None),
    };
    let reason = reason.map(str::to_owned);
    SendOutcome { id: finished.uid, status, reason, rtt_ms, hops, progress: None }
}

/// A drain's end as the command line prints it.
pub fn stopped(summary: &DrainSummary) -> Stopped {
    Stopped {
        event: StoppedEvent::Stopped,
        reason: match &summary.gave_up {
            Some(why) => format!("failed: {why}"),
            None => summary.reason.clone(),
        },
        drained: summary.drained,
        phases: summary.phases.iter().map(|p| PhaseTime { name: p.name.to_owned(), ms: p.ms }).collect(),
        undelivered_kept: summary.undelivered_kept,
        accepted: summary.accepted,
        delivered: summary.delivered,
        rejected: summary.rejected,
        frames_dropped: summary.frames_dropped,
    }
}

async fn trace(node: &MeshNode, to: Address, timeout: Duration) -> Result<Trace, ApiError> {
    let mut answers = node.probe(to, true).await.map_err(ApiError::failed)?;
    let mut hops: Vec<Option<TraceHop>> = Vec::new();
    let mut last = None;
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        let complete = last.is_some_and(|last: usize| hops.len() == last && hops.iter().all(Option::is_some));
        if complete {
            break;
        }
        let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.recv()).await else { break };
        let ProbeAnswer::Hop { address, rtt, reply } = answer else { continue };
        let place = usize::from(reply.hop);
        if place == 0 || last.is_some_and(|last| place > last) {
            continue;
        }
        if hops.len() < place {
            hops.resize(place, None);
        }
        if reply.reached && address == to {
            last = Some(place);
            hops.truncate(place);
        }
        if let Some(slot) = hops.get_mut(place.saturating_sub(1)) {
            slot.get_or_insert(TraceHop {
                address: Some(address),
                rtt_ms: Some(ms(rtt)),
                transport: Some(reply.transport),
                snr_db: reply.snr_quarter_db.map(|q| f64::from(q) / 4.0),
            });
        }
    }
    let silent = TraceHop { address: None, rtt_ms: None, transport: None, snr_db: None };
    Ok(Trace {
        destination: to,
        reached: last.is_some(),
        hops: hops.into_iter().map(|hop| hop.unwrap_or_else(|| silent.clone())).collect(),
    })
}

async fn ping(node: &MeshNode, to: Address, seq: u32, timeout: Duration) -> Result<Pong, ApiError> {
    let mut answers = node.probe(to, false).await.map_err(ApiError::failed)?;
    let answer = tokio::time::timeout(timeout, answers.recv()).await;
    Ok(match answer {
        Ok(Some(ProbeAnswer::Pong { rtt, hops })) => Pong { seq, rtt_ms: Some(ms(rtt)), hops: Some(hops) },
        _ => Pong { seq, rtt_ms: None, hops: None },
    })
}

pub(super) fn ms(duration: Duration) -> f64 {
    // Microseconds are all that a clock is good for.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
