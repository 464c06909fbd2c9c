//! A node that is none: serves the control socket from memory, so that the socket and the command
//! line are tested without links, routes or a store.

// Each test binary uses another part, and none exports anything.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use quicprochat_mesh::{
    api::*,
    control::{ControlServer, ReplyTx, Service, location::Fallbacks},
    wire::{Address, MessageUid, PacketId, PublicKey},
};
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

/// Longest time anything in these tests may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const ANNA: Address = Address([0xa1; 16]);
pub const BERT: Address = Address([0xb2; 16]);

/// What the fake remembers.
#[derive(Default)]
pub struct Fake {
    pub inbox: Mutex<VecDeque<(InboxItem, Bytes)>>,
    pub sent: Mutex<Vec<(Request, Bytes)>>,
    /// Told when a request that hangs was cancelled.
    pub cancelled: Notify,
    /// Told when a request that hangs has begun.
    pub hanging: Notify,
    arrived: Notify,
}

struct TellOnDrop<'a>(&'a Notify);

impl Drop for TellOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Fake {
    /// Puts a message into the inbox.
    pub fn arrive(&self, id: u8, name: Option<&str>, content: &[u8]) {
        let item = InboxItem {
            id: MessageUid([id; 16]),
            from: ANNA,
            from_name: Some("anna".into()),
            broadcast: false,
            sent_at: Some(Timestamp(1_700_000_000_000)),
            received_at: Timestamp(1_700_000_001_000),
            hops: Some(2),
            size: content.len() as u64,
            name: name.map(str::to_owned),
        };
        self.inbox.lock().unwrap().push_back((item, Bytes::copy_from_slice(content)));
        self.arrived.notify_waiters();
    }

    pub fn inbox_len(&self) -> usize {
        self.inbox.lock().unwrap().len()
    }

    fn remove(&self, id: MessageUid) -> bool {
        let mut inbox = self.inbox.lock().unwrap();
        let before = inbox.len();
        inbox.retain(|(item, _)| item.id != id);
        inbox.len() < before
    }

    fn resolve(&self, text: &str) -> Result<Address, ApiError> {
        let contacts =
            ["anna", "late", "lost", "silent", "hang"].map(|name| (name.to_owned(), ANNA)).to_vec();
        let known = Known { contacts: &contacts, links: &[ANNA, BERT], announced: &[] };
        Target::parse(text)?.resolve(&known)
    }

    async fn serve(&self, request: Request, payload: Bytes, replies: ReplyTx) -> Result<(), ApiError> {
        match request.clone() {
            Request::Status => replies.send(status()).await?,
            Request::Peers => replies.send(peer()).await?,
            Request::Routes { destination } => {
                let wanted = destination.map(|d| self.resolve(&d)).transpose()?;
                if wanted.is_none_or(|w| w == BERT) {
                    replies.send(route()).await?;
                }
            }
            Request::Stats => {
                let stats = serde_json::json!({"links": {"tx_frames": 3}, "name": "x\u{1b}y"});
                let Value::Object(stats) = stats else { unreachable!() };
                replies.send(Reply::Stats(stats)).await?;
            }
            Request::PeerList => {
                let entry = PeerEntry {
                    kind: PeerKind::Added,
                    address: Some(BERT),
                    url: Some("quic://192.0.2.1:7410".into()),
                    state: PeerState::Dialled,
                    reason: Some("nobody \u{1b}[31manswers".into()),
                };
                replies.send(entry).await?;
            }
            Request::Known => replies.send(known()).await?,
            Request::Drain { timeout_ms } => replies.send(stopped(timeout_ms != Some(1))).await?,
            Request::PeerAdd { url } if url.contains("refused") => {
                return Err(ApiError::failed("refused by the fake\nsays\u{7} it"));
            }
            Request::PeerAdd { .. }
            | Request::PeerRemove { .. }
            | Request::PeerBan { .. }
            | Request::PeerUnban { .. }
            | Request::PathRequest { .. }
            | Request::PathDrop { .. }
            | Request::Announce => {
                replies.send(Done::OK).await?;
            }
            Request::Send { to, wait, .. } => {
                self.resolve(&to)?;
                self.sent.lock().unwrap().push((request, payload));
                let id = MessageUid([7; 16]);
                let queued = SendOutcome {
                    id,
                    status: DeliveryStatus::Queued,
                    reason: None,
                    rtt_ms: None,
                    hops: None,
                    progress: None,
                };
                replies.send(queued.clone()).await?;
                match (wait, to.as_str()) {
                    (false, _) => {}
                    (true, "late") => {
                        let waiting = SendOutcome { reason: Some("no_path".into()), ..queued };
                        replies.send(waiting).await?;
                        std::future::pending::<()>().await;
                    }
                    (true, "lost") => {
                        let expired = SendOutcome { status: DeliveryStatus::Expired, ..queued };
                        replies.send(expired).await?;
                    }
                    (true, _) => {
                        let progress = Some(FileProgress { chunks_done: 1, chunks: 2 });
                        replies.send(SendOutcome { progress, ..queued.clone() }).await?;
                        let delivered = SendOutcome {
                            status: DeliveryStatus::Delivered,
                            rtt_ms: Some(12.5),
                            hops: Some(3),
                            ..queued
                        };
                        replies.send(delivered).await?;
                    }
                }
            }
            Request::Broadcast { .. } => {
                self.sent.lock().unwrap().push((request, payload));
                replies.send(MessageId { id: MessageUid([8; 16]) }).await?;
            }
            Request::Recv { count, wait, keep } => self.recv(count, wait, keep, replies).await?,
            Request::InboxList => {
                let items: Vec<InboxItem> =
                    self.inbox.lock().unwrap().iter().map(|(item, _)| item.clone()).collect();
                for item in items {
                    replies.send(item).await?;
                }
            }
            Request::InboxAck { id } => {
                if !self.remove(id) {
                    return Err(ApiError::failed(format!("no message {id}")));
                }
                replies.send(Done::OK).await?;
            }
            Request::OutboxList => replies.send(outbox_item()).await?,
            Request::OutboxCancel { .. } => replies.send(Done::OK).await?,
            Request::Clock => replies.send(ClockState { trusted: true, reason: None }).await?,
            Request::Dialled => {
                let url = "quic://example.org:7410".into();
                replies.send(Dialled { url, linked: true, trouble: None }).await?;
            }
            Request::OwnState => {
                replies.send(OwnState { boot_epoch: 3, ..OwnState::default() }).await?;
            }
            Request::Backup { dir } => {
                replies.send(BackedUp { dir, rows: 3, files: 2, bytes: 4096 }).await?;
            }
            Request::Message { id } if id.starts_with("ffffffff") => {
                return Err(ApiError::failed(format!("nothing is known of {id}")));
            }
            Request::Message { .. } => replies.send(message()).await?,
            Request::Mailboxes => {
                let mailbox = Mailbox {
                    destination: BERT,
                    messages: 2,
                    bytes: 4096,
                    oldest_s: Some(90),
                    reachable: false,
                };
                replies.send(mailbox).await?;
            }
            Request::Trace { destination, .. } if destination == "hang" => {
                let _tell = TellOnDrop(&self.cancelled);
                self.hanging.notify_one();
                std::future::pending::<()>().await;
            }
            Request::Trace { destination, .. } => {
                let reached = destination != "silent";
                replies.send(trace(self.resolve(&destination)?, reached)).await?;
            }
            Request::Ping { destination, count, .. } => {
                let silent = destination == "silent";
                self.resolve(&destination)?;
                for seq in 1..=count {
                    let answered = !silent && seq != 2;
                    let pong = Pong { seq, rtt_ms: answered.then_some(1.5), hops: answered.then_some(2) };
                    replies.send(pong).await?;
                }
            }
            Request::ContactAdd { name, address } => {
                check_contact_name(&name)?;
                let address = address.parse().map_err(ApiError::usage)?;
                replies.send(Contact { name, address, public_key: None }).await?;
            }
            Request::ContactList => {
                let contact =
                    Contact { name: "anna".into(), address: ANNA, public_key: Some(PublicKey([1; 32])) };
                replies.send(contact).await?;
            }
            Request::ContactRemove { name } if name == "nobody" => {
                return Err(ApiError::failed("no contact is called \"nobody\""));
            }
            Request::ContactRemove { .. } => replies.send(Done::OK).await?,
            // Nothing ever arrives while somebody looks.
            Request::InboxWatch { .. } => {
                replies.send(Done::OK).await?;
                std::future::pending::<()>().await;
            }
            other => self.people_and_events(other, replies).await?,
        }
        Ok(())
    }

    async fn people_and_events(&self, request: Request, replies: ReplyTx) -> Result<(), ApiError> {
        match request {
            Request::Block { address } | Request::Unblock { address } => {
                let address = self.resolve(&address)?;
                replies.send(Blocked { address, name: None }).await?;
            }
            Request::BlockedList => {
                replies.send(Blocked { address: BERT, name: Some("b\u{1b}ert".into()) }).await?;
            }
            Request::RequestList => {
                let request = SenderRequest {
                    from: BERT,
                    messages: 2,
                    bytes: 30,
                    first_at: Timestamp(0),
                    last_at: Timestamp(1000),
                    preview: Some("Hi \u{1b}[2J".into()),
                };
                replies.send(request).await?;
            }
            Request::RequestAnswer { address, accept } => {
                let from = self.resolve(&address)?;
                replies.send(RequestAnswered { from, accepted: accept, messages: 2 }).await?;
            }
            Request::Events { .. } => {
                let kind = EventKind::Pressure { level: 1 };
                replies.send(EventItem { at: Timestamp(0), kind }).await?;
            }
            Request::Reload => {
                let needs_restart = vec!["announce.interval".to_owned()];
                replies.send(Reloaded { changed: vec!["inbox.accept".to_owned()], needs_restart }).await?;
            }
            Request::LogLevel { filter } => replies.send(LogLevel { filter }).await?,
            other => return Err(ApiError::failed(format!("the fake node does not know {other:?}"))),
        }
        Ok(())
    }

    async fn recv(
        &self,
        count: Option<u64>,
        wait: bool,
        keep: bool,
        replies: ReplyTx,
    ) -> Result<(), ApiError> {
        let mut given = 0;
        while count.is_none_or(|count| given < count) {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let skip = if keep { given as usize } else { 0 };
            let next = self.inbox.lock().unwrap().get(skip).cloned();
            match next {
                Some((item, content)) => {
                    let id = item.id;
                    replies.deliver(item, content).await?;
                    if !keep {
                        self.remove(id);
                    }
                    given += 1;
                }
                None if wait => arrived.await,
                None => break,
            }
        }
        Ok(())
    }
}

impl Service for Fake {
    fn call(
        self: Arc<Self>,
        request: Request,
        payload: Bytes,
        replies: ReplyTx,
    ) -> BoxFuture<'static, Result<(), ApiError>> {
        async move { self.serve(request, payload, replies).await }.boxed()
    }
}

pub fn status() -> Status {
    let fine = SubsystemStatus { status: NodeState::Healthy, detail: None };
    let poor = SubsystemStatus { status: NodeState::Degraded, detail: Some("disk \u{1b}[31mslow".into()) };
    Status {
        address: ANNA,
        version: "0.1.0".into(),
        network: "public".into(),
        uptime_s: 61,
        state: NodeState::Degraded,
        subsystems: BTreeMap::from([
            ("transport".into(), fine.clone()),
            ("routing".into(), fine),
            ("store".into(), poor),
        ]),
        peers: 1,
        routes: 1,
        stored: 0,
        health: None,
        listen: vec!["quic://[::]:7410".into()],
        external: vec![],
    }
}

fn peer() -> Peer {
    Peer {
        address: Some(BERT),
        url: "quic://192.0.2.1:7410".into(),
        transport: "quic".into(),
        direction: Direction::Out,
        origin: "config".into(),
        since_s: 5,
        rtt_ms: None,
        tx_frames: 1,
        rx_frames: 2,
        tx_bytes: 3,
        rx_bytes: 4,
        capability: Capability::SeverelyConstrained,
        rssi_dbm: None,
        snr_db: None,
    }
}

fn known() -> KnownNode {
    KnownNode {
        address: BERT,
        boot_epoch: 2,
        sequence: 3,
        capabilities: vec!["relay".into()],
        reachable: false,
        has_key: true,
        forgotten_s: 3600,
    }
}

fn route() -> Route {
    Route {
        destination: BERT,
        next_hop: BERT,
        hops: 1,
        sequence: 4,
        boot_epoch: 1,
        expires_s: 100,
        capabilities: vec!["relay".into()],
        transport: "quic".into(),
        alternatives: 0,
        delivered_share: None,
    }
}

pub fn stopped(drained: bool) -> Stopped {
    Stopped {
        event: StoppedEvent::Stopped,
        reason: "drain".into(),
        drained,
        phases: vec![PhaseTime { name: "draining".into(), ms: 3 }],
        undelivered_kept: 2,
        accepted: 7,
        delivered: 4,
        rejected: 1,
        frames_dropped: 0,
    }
}

fn outbox_item() -> OutboxItem {
    OutboxItem {
        id: MessageUid([7; 16]),
        to: BERT,
        size: 5,
        priority: Priority::Normal,
        attempts: 1,
        next_retry_s: None,
        expires_s: 60,
        state: "queued".into(),
        reason: Some("no_path".into()),
        chunks_done: None,
        chunks: None,
    }
}

fn trace(destination: Address, reached: bool) -> Trace {
    let declined = TraceHop { address: None, rtt_ms: None, transport: None, snr_db: None };
    let end = TraceHop {
        address: Some(destination),
        rtt_ms: Some(2.0),
        transport: Some("tcp".into()),
        snr_db: None,
    };
    Trace { destination, reached, hops: if reached { vec![declined, end] } else { vec![declined] } }
}

/// A fake served on a data directory by a thread of its own, for tests that run processes.
pub struct FakeNode {
    pub fake: Arc<Fake>,
    pub dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeNode {
    pub fn start() -> Self {
        let dir = data_dir();
        let fake = Arc::new(Fake::default());
        let (stop, stopped) = oneshot::channel();
        let (bound, is_bound) = mpsc::channel();
        let (path, service) = (dir.path().to_owned(), Arc::clone(&fake));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = ControlServer::bind(&path, &Fallbacks::default()).unwrap().serve(service);
                bound.send(()).unwrap();
                let _ = stopped.await;
                server.stop(Duration::ZERO).await;
            });
        });
        is_bound.recv_timeout(PATIENCE).unwrap();
        Self { fake, dir, stop: Some(stop), thread: Some(thread) }
    }

    pub fn qpc(&self, args: &[&str]) -> Run {
        qpc(self.dir.path(), args)
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn message() -> Message {
    let event = |event: &str| MessageEvent {
        at: Timestamp(1_700_000_000_000),
        clock_trusted: event != "accepted",
        event: event.into(),
        packet: None,
        custodian: None,
        attempt: None,
        reason: None,
        size: None,
        hops: None,
        rtt_ms: None,
        chunks_done: None,
        chunks: None,
    };
    Message {
        id: MessageUid([7; 16]),
        direction: Direction::Out,
        peer: Some(ANNA),
        peer_name: Some("an\u{1b}na".into()),
        broadcast: false,
        state: "in_custody".into(),
        reason: Some("in_custody".into()),
        size: Some(5),
        priority: Some(Priority::Normal),
        attempts: Some(2),
        next_retry_s: Some(600),
        expires_s: Some(3600),
        rtt_ms: None,
        hops: None,
        chunks_done: None,
        chunks: None,
        history: vec![
            MessageEvent { size: Some(5), ..event("accepted") },
            MessageEvent { packet: Some(PacketId([9; 16])), attempt: Some(1), ..event("sent") },
            MessageEvent { packet: Some(PacketId([9; 16])), ..event("in_custody") },
        ],
    }
}

/// A fresh data directory whose path is short enough for a socket.
pub fn data_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("qpc-test-").tempdir_in("/tmp").unwrap()
}

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Every line of stdout as a JSON object.
    pub fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The one JSON object of stdout.
    pub fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Asserts that the reason is one line on stderr that holds `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.contains(text), "{self:?}");
        self
    }
}

/// `qpc` on a data directory, without the caller's environment.
pub fn command(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_qpc")));
    command.env_clear().env("QPC_DATA_DIR", data_dir).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `qpc` to its end.
pub fn qpc(data_dir: &Path, args: &[&str]) -> Run {
    finish(command(data_dir, args))
}

/// Runs a command to its end, which must come.
pub fn finish(mut command: Command) -> Run {
    let child = command.spawn().unwrap();
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let output: Output = is_done.recv_timeout(PATIENCE).expect("qpc came to no end").unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
