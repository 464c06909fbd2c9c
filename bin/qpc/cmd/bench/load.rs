//! `qpc bench load`: drives running nodes and logs what becomes of every message.
//!
//! It talks to the nodes as every other command does, over their control sockets: a connection a
//! message on its way, used again for the next one; one for as long as a receipt is watched, one
//! for whoever takes what arrives. A node that dies is waited for, and the load goes on with it. What had not been answered
//! then is logged as unknown, never sent again: whether the node has it is what a load is to find out.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    future::pending,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use quicprochat_mesh::{
    api::{
        ApiError, DeliveryStatus, ErrorClass, InboxItem, OutboxItem, Priority, Request, SendOutcome, Status,
    },
    control::Client,
    crypto::random::{os_rng, random_bytes},
    wire::{Address, MessageUid, limits::CONTENT_BYTES_MAX},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinSet, LocalSet, spawn_local},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    evidence::{DAMAGED, Event, Line, Log, NO_NODE, RunId, STAMP_BYTES, Stamp, Takes},
    measure::quantile,
    relay::round,
};
use crate::{
    cmd::{duration, to_ms},
    cx::{Context, path_text},
    fail::Failure,
    human,
};

/// Connections to one node that wait for a receipt. With a window of 128 they stay below the 256 that
/// a node serves; the receipts of all other messages are read from the outbox in the end.
const WATCHED_MAX: usize = 96;

/// How long a connection is kept for the next message; the node ends it after a minute.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A sender that is behind its rate catches up with at most so much of it at once.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Pause between two tries to reach a node that is away.
const RETRY: Duration = Duration::from_millis(20);

/// Pause between two looks at what is missing in the end.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A node that answers takes no longer over a list.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  qpc bench load --from ./n1 --to ./n3 --seconds 30 --log load.jsonl
  qpc bench load --from ./n1 ./n2 --to ./n3 --rate 100 --count 1000";

/// Drive running nodes with messages, and log what becomes of each
///
/// Every send, acknowledgement, refusal, receipt and arrival is a line of the log before it counts,
/// for `qpc bench verify` to compare. A node that is killed meanwhile is waited for. After the last
/// message waits until everything acknowledged has arrived; exit 75 where it has not in time.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Data directories of the nodes that send
    #[arg(long, value_name = "DATA_DIR", num_args = 1.., required = true)]
    from: Vec<PathBuf>,

    /// Whom each of them sends to, in turn: data directories of nodes whose inboxes are emptied
    /// here, or addresses
    #[arg(long, value_name = "DATA_DIR|ADDRESS", num_args = 1.., required = true)]
    to: Vec<String>,

    /// Messages a second of all senders together; 0 is as fast as the window allows
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    rate: u32,

    /// How long to send [default: 10, or until --count is reached]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: Option<u64>,

    /// Messages to send in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Bytes of a message
    #[arg(long, value_name = "N", default_value_t = 256)]
    payload: usize,

    /// Messages of a sender that wait for its node's acknowledgement at a time. A node serves 256
    /// commands at once and refuses what is beyond by name
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    window: u16,

    /// Lifetime of the messages [default: the nodes' own]
    #[arg(long, value_name = "D", value_parser = duration)]
    ttl: Option<Duration>,

    /// How long to wait in the end for what is on its way
    #[arg(long, value_name = "D", default_value = "30s", value_parser = duration)]
    settle: Duration,

    /// Add to this log [default: qpc-load-RUN.jsonl in the working directory]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answered {
    run: RunId,
    log: String,
    senders: usize,
    receivers: usize,
    payload: usize,
    window: u16,
    /// Asked for; 0 is as fast as the window allows.
    rate: u32,
    /// From the first message to the last answer.
    seconds: f64,
    sent: u64,
    acked: u64,
    /// Nodes that went away before they answered.
    unknown: u64,
    /// By reason, numbers in it left out.
    refused: BTreeMap<String, u64>,
    receipts: u64,
    /// Expired, cancelled: by reason.
    ended: BTreeMap<String, u64>,
    received: u64,
    /// Offered again by a node that had not heard that it was taken.
    again: u64,
    /// Acknowledged for a receiver of this load, and not received in time.
    missing: u64,
    ack_p50_ms: Option<f64>,
    ack_p99_ms: Option<f64>,
    ack_max_ms: Option<f64>,
    /// Acknowledged a second, while it sent.
    rate_per_s: f64,
    /// Received a second, from the first message to the last arrival: takes are one after the other.
    received_per_s: f64,
}

/// What happened so far.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    acked: u64,
    unknown: u64,
    refused: BTreeMap<String, u64>,
    receipts: u64,
    ended: BTreeMap<String, u64>,
    received: u64,
    /// When the last of them came.
    received_at: Option<Instant>,
    again: u64,
    ack_us: Vec<u64>,
    /// Acknowledged for receivers of this load, and not received yet.
    missing: HashSet<MessageUid>,
    /// Received before the acknowledgement was read.
    early: HashSet<MessageUid>,
    /// Acknowledged, and no word of a receipt yet, by sender.
    unreceipted: HashMap<MessageUid, (Stamp, Address)>,
    /// Why the load cannot go on.
    broken: Option<ApiError>,
}

/// A node of this machine.
#[derive(Debug)]
struct Sender {
    number: u32,
    dir: PathBuf,
    address: Address,
    /// Whom it sends to, in turn.
    to: Vec<Address>,
    window: u32,
    /// Of the window.
    places: Arc<Semaphore>,
    /// For connections that wait for a receipt.
    watched: Arc<Semaphore>,
    /// Connections whose request is done, and since when.
    idle: RefCell<Vec<(Client, Instant)>>,
}

impl Sender {
    /// Hands its node a request, over a connection that is open where there is one.
    async fn ask(&self, request: &Request, payload: &[u8]) -> Result<Client, ApiError> {
        let idle = self.idle.borrow_mut().pop();
        let mut client = match idle {
            Some((client, since)) if since.elapsed() < IDLE_MAX => client,
            _ => Client::open(&self.dir).await?,
        };
        client.ask(request, payload).await?;
        Ok(client)
    }

    /// Keeps a connection for the next message, where its request is done.
    fn keep(&self, client: Client) {
        if client.is_done() {
            self.idle.borrow_mut().push((client, Instant::now()));
        }
    }
}

struct Load {
    run: RunId,
    payload: usize,
    ttl: Option<Duration>,
    receivers: HashSet<Address>,
    log: RefCell<Log>,
    tally: RefCell<Tally>,
    /// Messages that may still be sent.
    left: Cell<u64>,
    until: Option<Instant>,
    stopped: Cell<bool>,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let largest = usize::try_from(CONTENT_BYTES_MAX).unwrap_or(usize::MAX);
    if !(STAMP_BYTES..=largest).contains(&args.payload) {
        return Err(ApiError::usage(format!(
            "--payload {}: give {STAMP_BYTES} to {largest} bytes",
            args.payload
        ))
        .into());
    }
    let answered = LocalSet::new().run_until(drive(&args, cx)).await?;
    cx.out.show(&answered, tell)?;
    match answered.missing {
        0 => Ok(()),
        missing => Err(ApiError::not_yet(format!(
            "{missing} of {} messages had not arrived after --settle; they go on",
            answered.acked
        ))
        .into()),
    }
}

async fn drive(args: &Args, cx: &Context) -> Result<Answered, Failure> {
    let run = RunId(u64::from_le_bytes(random_bytes(&mut os_rng())));
    let (mut receivers, mut to) = (Vec::new(), Vec::new());
    for text in &args.to {
        match text.parse::<Address>() {
            Ok(address) => to.push(address),
            Err(_) => {
                let dir = absolute(Path::new(text))?;
                let address = address_of(&dir).await?;
                to.push(address);
                receivers.push((dir, address));
            }
        }
    }
    let mut senders = Vec::new();
    for (number, dir) in (0..).zip(&args.from) {
        let dir = absolute(dir)?;
        let address = address_of(&dir).await?;
        let to: Vec<Address> = to.iter().copied().filter(|to| *to != address).collect();
        if to.is_empty() {
            return Err(ApiError::usage(format!("{} has nobody but itself to send to", dir.display())).into());
        }
        let places = Arc::new(Semaphore::new(args.window.into()));
        let watched = Arc::new(Semaphore::new(WATCHED_MAX));
        let window = args.window.into();
        let idle = RefCell::default();
        senders.push(Rc::new(Sender { number, dir, address, to, window, places, watched, idle }));
    }
    let path = args.log.clone().unwrap_or_else(|| format!("qpc-load-{run}.jsonl").into());
    let path = absolute(&path)?;
    let seconds = args.seconds.or(args.count.is_none().then_some(10));
    let load = Rc::new(Load {
        run,
        payload: args.payload,
        ttl: args.ttl,
        receivers: receivers.iter().map(|(_, address)| *address).collect(),
        log: RefCell::new(Log::open(&path)?),
        tally: RefCell::default(),
        left: Cell::new(args.count.unwrap_or(u64::MAX)),
        until: seconds.map(|s| Instant::now() + Duration::from_secs(s)),
        stopped: Cell::new(false),
    });
    load.note(load.line(Event::Start).why(format!("unix_ms {}", quicprochat_mesh::clock::unix_ms())))?;

    let mut takers = JoinSet::new();
    for (dir, address) in &receivers {
        takers.spawn_local(take(load.clone(), dir.clone(), *address));
    }
    let began = Instant::now();
    let shown = progress(load.clone(), cx.out.json, began);
    let sending = async {
        let mut sending = JoinSet::new();
        let every =
            (args.rate > 0).then(|| Duration::from_secs_f64(senders.len() as f64 / f64::from(args.rate)));
        for sender in &senders {
            sending.spawn_local(send_all(load.clone(), sender.clone(), every));
        }
        while sending.join_next().await.is_some() {}
        began.elapsed()
    };
    let sent_for = tokio::select! {
        sent_for = load.until_stopped(sending) => sent_for,
        never = shown => match never {},
    };
    let shown = progress(load.clone(), cx.out.json, began);
    tokio::select! {
        () = settle(&load, &senders, &receivers, args.settle) => {}
        _ = tokio::signal::ctrl_c() => {}
        never = shown => match never {},
    }
    takers.shutdown().await;
    load.note(load.line(Event::Finish))?;
    let mut tally = load.tally.take();
    if let Some(error) = tally.broken {
        return Err(error.into());
    }
    tally.ack_us.sort_unstable();
    let ms = |per_mille| {
        (!tally.ack_us.is_empty()).then(|| round(quantile(&tally.ack_us, per_mille) as f64 / 1e3, 3))
    };
    let seconds = sent_for.as_secs_f64();
    let received_for = tally.received_at.map_or(Duration::ZERO, |at| at.duration_since(began));
    Ok(Answered {
        run,
        log: path_text(&path),
        senders: senders.len(),
        receivers: load.receivers.len(),
        payload: args.payload,
        window: args.window,
        rate: args.rate,
        seconds: round(seconds, 3),
        sent: tally.sent,
        acked: tally.acked,
        unknown: tally.unknown,
        refused: tally.refused,
        receipts: tally.receipts,
        ended: tally.ended,
        received: tally.received,
        again: tally.again,
        missing: tally.missing.len() as u64,
        ack_p50_ms: ms(500),
        ack_p99_ms: ms(990),
        ack_max_ms: ms(1000),
        rate_per_s: round(tally.acked as f64 / seconds.max(1e-9), 1),
        received_per_s: round(tally.received as f64 / received_for.as_secs_f64().max(1e-3), 1),
    })
}

fn absolute(path: &Path) -> Result<PathBuf, ApiError> {
    std::path::absolute(path).map_err(|e| ApiError::usage(format!("{}: {e}", path.display())))
}

/// The address of the node of `dir`, which must be running.
async fn address_of(dir: &Path) -> Result<Address, ApiError> {
    let status: Vec<Status> = list(dir, &Request::Status).await?;
    match status.first() {
        Some(status) => Ok(status.address),
        None => Err(ApiError::failed(format!("the node of {} does not say who it is", dir.display()))),
    }
}

/// All answers to a request without payload.
pub(super) async fn list<T: DeserializeOwned>(dir: &Path, request: &Request) -> Result<Vec<T>, ApiError> {
    let asked = async {
        let mut client = Client::request(dir, request, &[]).await?;
        let mut answers = Vec::new();
        while let Some(frame) = client.next().await? {
            answers.push(frame.parse()?);
        }
        Ok(answers)
    };
    timeout(ANSWER_WITHIN, asked)
        .await
        .unwrap_or_else(|_| Err(ApiError::failed(format!("the node of {} does not answer", dir.display()))))
}

impl Load {
    fn line(&self, ev: Event) -> Line {
        Line { run: Some(self.run), ..Line::new(ev) }
    }

    fn note(&self, line: Line) -> Result<(), ApiError> {
        self.log.borrow_mut().write(&line)
    }

    /// Adds a line; where that fails the load ends, and what the line was to tell does not count.
    fn logged(&self, line: Line) -> bool {
        match self.note(line) {
            Ok(()) => true,
            Err(error) => {
                self.tally.borrow_mut().broken.get_or_insert(error);
                self.stopped.set(true);
                false
            }
        }
    }

    /// Whether the log can no more be written.
    fn is_broken(&self) -> bool {
        self.tally.borrow().broken.is_some()
    }

    fn more_may_go(&self) -> bool {
        let is_time = self.until.is_none_or(|until| Instant::now() < until);
        is_time && !self.stopped.get() && self.left.get() > 0
    }

    /// Whether one more message may be sent; it is counted.
    fn next_may_go(&self) -> bool {
        let goes = self.more_may_go();
        if goes {
            self.left.set(self.left.get().saturating_sub(1));
        }
        goes
    }

    /// Ends the sending at the first Ctrl-C: what is on its way is still waited for.
    async fn until_stopped<T>(&self, sending: impl Future<Output = T>) -> T {
        let mut sending = std::pin::pin!(sending);
        tokio::select! {
            done = &mut sending => return done,
            _ = tokio::signal::ctrl_c() => self.stopped.set(true),
        }
        sending.await
    }

    fn refused(&self, line: Line, reason: &str) {
        if self.logged(line.why(reason)) {
            *self.tally.borrow_mut().refused.entry(without_numbers(reason)).or_default() += 1;
        }
    }
}

/// A reason without what differs from one message to the next.
pub(super) fn without_numbers(reason: &str) -> String {
    let mut out = String::with_capacity(reason.len());
    for c in reason.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('N') => {}
            true => out.push('N'),
            false => out.push(c),
        }
    }
    out
}

/// Sends at its share of the rate until the load is over, and waits for the last answer.
async fn send_all(load: Rc<Load>, sender: Rc<Sender>, every: Option<Duration>) {
    let mut due = Instant::now();
    for (seq, to) in (0..).zip(sender.to.iter().copied().cycle()) {
        if let Some(every) = every {
            sleep_until(due).await;
            due = (due + every).max(Instant::now().checked_sub(CATCH_UP).unwrap_or(due));
        }
        let Ok(place) = sender.places.clone().acquire_owned().await else { break };
        if !load.next_may_go() {
            break;
        }
        let stamp = Stamp { run: load.run, sender: sender.number, seq };
        spawn_local(send_one(load.clone(), sender.clone(), stamp, to, place));
    }
    // Every place is back when every message has its answer; receipts are watched beyond that.
    let _all = sender.places.acquire_many(sender.window).await;
}

/// Hands a message to its node, and watches for the receipt where there is a place for that.
async fn send_one(
    load: Rc<Load>,
    sender: Rc<Sender>,
    stamp: Stamp,
    to: Address,
    place: OwnedSemaphorePermit,
) {
    let line = |ev| Line { from: Some(sender.address), to: Some(to), ..Line::new(ev).of(stamp) };
    let watched = sender.watched.clone().try_acquire_owned().ok();
    let request = Request::Send {
        to: to.to_string(),
        priority: Priority::Normal,
        ttl_ms: load.ttl.map(to_ms),
        wait: watched.is_some(),
        file_name: None,
    };
    let payload = stamp.payload(load.payload);
    if !load.logged(line(Event::Send)) {
        return;
    }
    load.tally.borrow_mut().sent += 1;
    let began = Instant::now();
    let mut client = match sender.ask(&request, &payload).await {
        Ok(client) => client,
        Err(error) if error.class == ErrorClass::NoNode => {
            load.refused(line(Event::Refused), NO_NODE);
            // The place is kept: a node that is away is offered a window of messages, not more.
            while load.more_may_go() && !answers(&sender.dir).await {
                sleep(RETRY).await;
            }
            return;
        }
        Err(error) => {
            sender.idle.borrow_mut().clear();
            return load.unknown(line(Event::Unknown), &error);
        }
    };
    let answer = timeout(ANSWER_WITHIN, client.next()).await;
    let outcome: SendOutcome = match answer.unwrap_or_else(|_| Err(ApiError::failed("no answer in time"))) {
        Ok(Some(frame)) => match frame.parse() {
            Ok(outcome) => outcome,
            Err(error) => return load.unknown(line(Event::Unknown), &error),
        },
        Ok(None) => return load.unknown(line(Event::Unknown), &ApiError::failed("no answer")),
        // The node's own word ends the conversation; a connection that broke does not.
        Err(error) if client.was_refused() => return load.refused(line(Event::Refused), &error.message),
        Err(error) => {
            // The node is gone, and the other connections with it.
            sender.idle.borrow_mut().clear();
            return load.unknown(line(Event::Unknown), &error);
        }
    };
    let took = began.elapsed();
    let line = |ev| Line { id: Some(outcome.id), ..line(ev) };
    if !load.logged(line(Event::Ack)) {
        return;
    }
    load.acked(outcome.id, stamp, to, took);
    if watched.is_none() {
        if let Ok(None) = client.next().await {
            sender.keep(client);
        }
        return;
    }
    drop(place);
    while let Ok(Some(frame)) = client.next().await {
        let Ok(outcome) = frame.parse::<SendOutcome>() else { return };
        match outcome.status {
            DeliveryStatus::Queued => {}
            DeliveryStatus::Delivered => load.receipted(line(Event::Receipt), outcome.id),
            DeliveryStatus::Expired | DeliveryStatus::Failed => {
                let reason = outcome.reason.unwrap_or_else(|| outcome.status.as_str().to_owned());
                load.ended(line(Event::Ended), outcome.id, &reason);
            }
        }
    }
    sender.keep(client);
}

/// Whether a node is there, without a request that it would have to serve.
async fn answers(dir: &Path) -> bool {
    list::<Status>(dir, &Request::Status).await.is_ok()
}

impl Load {
    fn unknown(&self, line: Line, error: &ApiError) {
        if self.logged(line.why(error.message.clone())) {
            self.tally.borrow_mut().unknown += 1;
        }
    }

    fn acked(&self, id: MessageUid, stamp: Stamp, to: Address, took: Duration) {
        let mut tally = self.tally.borrow_mut();
        tally.acked += 1;
        tally.ack_us.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        tally.unreceipted.insert(id, (stamp, to));
        if self.receivers.contains(&to) && !tally.early.remove(&id) {
            tally.missing.insert(id);
        }
    }

    fn receipted(&self, line: Line, id: MessageUid) {
        if self.logged(line) {
            let mut tally = self.tally.borrow_mut();
            tally.unreceipted.remove(&id);
            tally.receipts += 1;
        }
    }

    fn ended(&self, line: Line, id: MessageUid, reason: &str) {
        if self.logged(line.why(reason)) {
            let mut tally = self.tally.borrow_mut();
            tally.unreceipted.remove(&id);
            tally.missing.remove(&id);
            *tally.ended.entry(without_numbers(reason)).or_default() += 1;
        }
    }
}

/// Takes what arrives at a node, for as long as it is let.
async fn take(load: Rc<Load>, dir: PathBuf, address: Address) {
    let mut takes = Takes::default();
    let mut is_away = false;
    loop {
        let error = match listen(&load, &dir, address, &mut takes, &mut is_away).await {
            Ok(()) => ApiError::failed("the node ended the conversation"),
            Err(error) => error,
        };
        if load.is_broken() {
            return;
        }
        // Once, not as often as it is tried.
        if !std::mem::replace(&mut is_away, true) {
            let line = Line { to: Some(address), ..load.line(Event::Error) };
            load.logged(line.why(error.message));
        }
        sleep(RETRY).await;
    }
}

/// One connection to a node's inbox, to its end.
async fn listen(
    load: &Load,
    dir: &Path,
    address: Address,
    takes: &mut Takes,
    is_away: &mut bool,
) -> Result<(), ApiError> {
    let request = Request::Recv { count: None, wait: true, keep: false };
    let mut client = Client::request(dir, &request, &[]).await?;
    load.note(Line { to: Some(address), ..load.line(Event::Listen) })?;
    takes.listen();
    while let Some(frame) = client.next().await? {
        *is_away = false;
        let item: InboxItem = frame.parse()?;
        let is_again = takes.is_again(item.id);
        let mut line = Line::new(if is_again { Event::Again } else { Event::Receive });
        match Stamp::read(&frame.payload) {
            Some((stamp, true)) => line = line.of(stamp),
            Some((stamp, false)) => line = line.of(stamp).why(DAMAGED),
            None => {}
        }
        line.id = Some(item.id);
        line.from = Some(item.from);
        line.to = Some(address);
        if !load.logged(line) {
            return Ok(());
        }
        {
            let mut tally = load.tally.borrow_mut();
            if is_again {
                tally.again += 1;
            } else {
                tally.received += 1;
                tally.received_at = Some(Instant::now());
                if !tally.missing.remove(&item.id) {
                    tally.early.insert(item.id);
                }
            }
        }
        if let Some(number) = frame.ack {
            client.acknowledge(number).await?;
        }
    }
    Ok(())
}

/// Waits until everything acknowledged has arrived and is receipted, and the inboxes are empty, or the
/// time is over.
async fn settle(load: &Load, senders: &[Rc<Sender>], receivers: &[(PathBuf, Address)], within: Duration) {
    let until = Instant::now() + within;
    loop {
        let has_arrived = load.tally.borrow().missing.is_empty();
        let is_over = Instant::now() >= until;
        let mut all_told = true;
        for sender in senders {
            // A long list costs the node: it is asked for when it should be short, or once.
            if has_arrived || is_over {
                all_told &= load.reconcile(sender).await;
            }
        }
        for (dir, _) in receivers.iter().filter(|_| has_arrived && !is_over) {
            // What an earlier load left there is taken too.
            let inbox = list::<InboxItem>(dir, &Request::InboxList).await;
            all_told &= inbox.is_ok_and(|left| left.is_empty());
        }
        if is_over || load.is_broken() || (has_arrived && all_told) {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

impl Load {
    /// Takes what is in the outbox no more for receipted; true where nothing is left there for the
    /// destinations of this load.
    async fn reconcile(&self, sender: &Sender) -> bool {
        let asked: Vec<(MessageUid, Stamp, Address)> = {
            let tally = self.tally.borrow();
            let own = tally.unreceipted.iter().filter(|(_, (stamp, _))| stamp.sender == sender.number);
            own.map(|(id, (stamp, to))| (*id, *stamp, *to)).collect()
        };
        let Ok(left) = list::<OutboxItem>(&sender.dir, &Request::OutboxList).await else { return false };
        let is_empty = !left.iter().any(|item| sender.to.contains(&item.to));
        let left: HashSet<MessageUid> = left.iter().map(|item| item.id).collect();
        for (id, stamp, to) in asked {
            // A watcher may have heard of it meanwhile.
            if !left.contains(&id) && self.tally.borrow().unreceipted.contains_key(&id) {
                let line = Line::new(Event::Receipt).of(stamp).why("left the outbox");
                let line = Line { id: Some(id), from: Some(sender.address), to: Some(to), ..line };
                self.receipted(line, id);
            }
        }
        is_empty
    }
}

/// The line of progress on a terminal.
struct Cleared;

impl Drop for Cleared {
    fn drop(&mut self) {
        // Nobody to tell where stderr is closed.
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
    }
}

/// Shows people once a second how it goes.
async fn progress(load: Rc<Load>, is_json: bool, began: Instant) -> Infallible {
    if is_json || !std::io::stderr().is_terminal() {
        return pending().await;
    }
    // Gone when the table comes.
    let _line = Cleared;
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = load.tally.borrow().acked;
    second.tick().await;
    loop {
        second.tick().await;
        let tally = load.tally.borrow();
        let refused: u64 = tally.refused.values().sum();
        // Nobody to tell where stderr is closed.
        let _ = write!(
            std::io::stderr().lock(),
            "\r\x1b[K{:>4} s  {} acked/s  sent {}  acked {}  refused {refused}  unknown {}  received {}  missing {}",
            began.elapsed().as_secs(),
            tally.acked.saturating_sub(before),
            tally.sent,
            tally.acked,
            tally.unknown,
            tally.received,
            tally.missing.len(),
        );
        before = tally.acked;
    }
}

fn tell(answered: &Answered) -> String {
    let ms = |value| human::ms(value);
    let mut rows = vec![
        ("sent", answered.sent.to_string()),
        ("acked", answered.acked.to_string()),
        ("unknown", answered.unknown.to_string()),
    ];
    rows.push(("refused", answered.refused.values().sum::<u64>().to_string()));
    rows.push(("receipts", answered.receipts.to_string()));
    rows.push(("received", answered.received.to_string()));
    rows.push(("missing", answered.missing.to_string()));
    rows.push(("acked/s", format!("{:.1} over {:.1} s", answered.rate_per_s, answered.seconds)));
    rows.push(("received/s", format!("{:.1}", answered.received_per_s)));
    rows.push(("ack p50", ms(answered.ack_p50_ms)));
    rows.push(("ack p99", ms(answered.ack_p99_ms)));
    rows.push(("ack max", ms(answered.ack_max_ms)));
    rows.push(("log", human::escape(&answered.log)));
    let mut out = human::fields(&rows);
    for (what, reasons) in [("refused", &answered.refused), ("ended", &answered.ended)] {
        for (reason, count) in reasons {
            out.push_str(&format!("{what} {count}: {}\n", human::escape(reason)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_numbers_are_one() {
        assert_eq!(without_numbers("17 bytes of 4096 free"), without_numbers("3 bytes of 12 free"));
        assert_eq!(without_numbers("draining"), "draining");
    }
}
