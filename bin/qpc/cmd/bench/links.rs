//! `qpc bench links`: one relay with hundreds of links.
//!
//! The relay is the real `qpc run`. All links come from one client process, each with an identity
//! and a connection of its own, so that figures of the relay are the relay's. First they are quiet,
//! then each sends one message a second to the next one, then every identity announces itself anew
//! at the same moment.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quicprochat_mesh::{
    api::{ApiError, Ready},
    wire::Address,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval_at, sleep},
};

use super::{
    beside::counters,
    ends::{HEADER_BYTES, Incoming, Received, Tally, answer, noise, orders, stamp},
    measure::{Usage, now_ns},
    relay::{Part, READY_WITHIN, round, this_program},
    volatile::Sink,
};
use crate::{cx::Context, fail::Failure, human, out::note};

/// Messages a second of each link.
const EACH_PER_S: u32 = 1;

/// Bytes of a message.
const PAYLOAD_BYTES: usize = 256;

/// Links at most; numbers of messages are made of those of links.
const LINKS_MAX: u32 = 10_000;

/// Files that a process opens besides its links.
const OTHER_FILES: u64 = 128;

/// A relay that used no more of a core than this for a second has told its links what it has to
/// tell them.
const QUIET_CORE: f64 = 0.1;

/// How long that, and an announce of everybody's, may take: passed on at 50 a second, an announce
/// of 500 nodes takes ten.
const SETTLES_WITHIN: Duration = Duration::from_secs(120);

/// What was sent last may take so long.
const LATE: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  qpc bench links --links 100 --seconds 10
  qpc bench links --transport tcp";

/// Measure one relay with many links
///
/// Opens that many links to one `qpc run`, reads what each costs while it is quiet, has each send
/// one message a second to the next, and then has all of them announce themselves at once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Links of the relay
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=i64::from(LINKS_MAX)))]
    links: u32,

    /// What they run over
    #[arg(long, value_enum, default_value = "quic")]
    transport: Transport,

    /// How long messages are sent
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Quic,
    Tcp,
}

impl Transport {
    fn scheme(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// The process that has the links
#[derive(Debug, clap::Args)]
pub struct ClientArgs {
    /// URL of the relay
    #[arg(long)]
    connect: String,
    #[arg(long)]
    links: u32,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answered {
    links: u32,
    transport: Transport,
    seconds: u64,
    /// From the first dial to the last hello.
    connect_s: f64,
    /// Until the relay had told all of them of each other.
    settle_s: f64,
    relay: Relay,
    messages: Messages,
    announces: Announces,
}

/// What the links cost the relay.
#[derive(Debug, Default, Serialize)]
struct Relay {
    /// Resident before the first link, with all of them, after the messages and at the end.
    rss_before_mib: f64,
    rss_linked_mib: f64,
    rss_busy_mib: f64,
    rss_after_mib: f64,
    /// Of the growth to all links.
    rss_per_link_kib: f64,
    /// Files open before and with all links.
    files_before: u64,
    files_linked: u64,
    /// Processor time of a link, from dial to all being told.
    connect_cpu_us_per_link: f64,
    /// Share of one core with all links quiet, and with a message a second on each.
    core_quiet: f64,
    core_busy: f64,
}

/// One message a second on each link.
#[derive(Debug, Default, Serialize)]
struct Messages {
    sent: u32,
    lost: u32,
    duplicates: u32,
    p50_us: f64,
    p99_us: f64,
    relay_cpu_us: f64,
}

/// All identities announce themselves at the same moment.
#[derive(Debug, Default, Serialize)]
struct Announces {
    sent: u32,
    /// Taken in by the relay.
    taken: f64,
    /// Arrived over other links, of links times all others.
    passed_on: u64,
    passed_on_wanted: u64,
    /// Until the last of them.
    converged_s: f64,
    /// What the relay used meanwhile, by announce taken in, and by announce that it sent.
    relay_cpu_us_each: f64,
    relay_cpu_us_per_frame: f64,
}

/// To the client process, a line each.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Do {
    /// Each link sends to the next for so long.
    Send { phase: u32, for_ms: u64 },
    /// Each identity announces itself anew, and counts those that come until it has all or so long
    /// is over.
    Announce { sequence: u32, within_ms: u64 },
}

/// From the client process.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Said {
    Ready,
    Sent { sent: u32, received: Received },
    Announced { heard: u64, last_after_ms: u64 },
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    raise_files(u64::from(args.links).saturating_add(OTHER_FILES))?;
    let root = std::env::temp_dir().join(format!("qpc-bench-{}", std::process::id()));
    let answered = measure(&args, &root).await;
    // Whatever it came to, nothing is left behind.
    let _ = fs::remove_dir_all(&root);
    cx.out.show(&answered?, tell)
}

/// Lets this process and those it starts open so many files, or says what to do.
fn raise_files(wanted: u64) -> Result<(), ApiError> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let refused = |hard: Option<u64>| {
        let hard = hard.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string());
        ApiError::failed(format!(
            "each process needs {wanted} open files, and the hard limit is {hard}: raise it (`ulimit -Hn \
             {wanted}` as root, LimitNOFILE= of the service) or ask for fewer --links"
        ))
    };
    if limit.maximum.is_some_and(|hard| hard < wanted) {
        return Err(refused(limit.maximum));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
        .map_err(|_| refused(limit.maximum))
}

async fn measure(args: &Args, root: &Path) -> Result<Answered, ApiError> {
    let (relay, ready) = start_relay(args, root).await?;
    let pid = relay.pid;
    let per_link = |value: f64| value / f64::from(args.links);
    let mut cost = Relay::default();
    // What a node does once after its start is none of the links'.
    sleep(Duration::from_secs(1)).await;
    let before = Usage::of(pid)?;
    (cost.rss_before_mib, cost.files_before) = (mib(before.rss_kib), before.files);

    note(format!("{} links over {} are dialled", args.links, args.transport.scheme()));
    let began = Instant::now();
    let url = ready.listen.first().cloned().unwrap_or_default();
    let mut command = this_program()?;
    command.args(["bench", "clients", "--connect", &url, "--links", &args.links.to_string()]);
    let mut clients = Part::start("clients", command)?;
    let dialling = READY_WITHIN.saturating_add(Duration::from_millis(u64::from(args.links) * 100));
    let Said::Ready = clients.line(dialling).await? else {
        return Err(ApiError::failed("the clients did not say that they stand"));
    };
    let connect_s = began.elapsed().as_secs_f64();
    let core_quiet = settle(pid).await?;
    let settle_s = began.elapsed().as_secs_f64();
    let linked = Usage::of(pid)?;
    cost.core_quiet = round(core_quiet, 3);
    cost.rss_linked_mib = mib(linked.rss_kib);
    cost.files_linked = linked.files;
    cost.rss_per_link_kib = round(per_link(linked.rss_kib.saturating_sub(before.rss_kib) as f64), 1);
    cost.connect_cpu_us_per_link =
        round(per_link(linked.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e3), 0);

    note(format!("each sends {EACH_PER_S} message a second to the next for {} s", args.seconds));
    let began = Instant::now();
    clients.order(Do::Send { phase: 1, for_ms: args.seconds * 1000 }).await?;
    let within = READY_WITHIN.saturating_add(Duration::from_secs(args.seconds));
    let Said::Sent { sent, received } = clients.line(within).await? else {
        return Err(ApiError::failed("the clients did not say what they sent"));
    };
    let busy = Usage::of(pid)?;
    let used = busy.cpu_ns.saturating_sub(linked.cpu_ns) as f64;
    cost.core_busy = round(used / 1e9 / began.elapsed().as_secs_f64(), 3);
    cost.rss_busy_mib = mib(busy.rss_kib);
    let messages = Messages {
        sent,
        lost: sent.saturating_sub(received.messages),
        duplicates: received.duplicates,
        p50_us: received.p50_us,
        p99_us: received.p99_us,
        relay_cpu_us: round(used / 1e3 / f64::from(sent.max(1)), 1),
    };

    note("all announce themselves");
    let announces = storm(args, &ready, pid, &mut clients).await?;
    cost.rss_after_mib = mib(Usage::of(pid)?.rss_kib);
    clients.stop().await;
    relay.stop().await;
    Ok(Answered {
        links: args.links,
        transport: args.transport,
        seconds: args.seconds,
        connect_s: round(connect_s, 2),
        settle_s: round(settle_s, 2),
        relay: cost,
        messages,
        announces,
    })
}

async fn start_relay(args: &Args, root: &Path) -> Result<(Part, Ready), ApiError> {
    fs::create_dir_all(root).map_err(|e| ApiError::failed(format!("cannot make {}: {e}", root.display())))?;
    let mut command = this_program()?;
    // The default is 1,024.
    let links_max = args.links.saturating_add(8).max(1024).to_string();
    command.env("QPC_TRANSPORT_LINKS_MAX", links_max);
    command.arg("--data-dir").arg(root.join("relay")).args(["--json", "run"]);
    command.arg("--listen").arg(format!("{}://127.0.0.1:0", args.transport.scheme()));
    command.args(["--health-listen", "127.0.0.1:0"]);
    let mut relay = Part::start("relay", command)?;
    let ready = relay.line(READY_WITHIN).await?;
    Ok((relay, ready))
}

async fn storm(args: &Args, ready: &Ready, pid: u32, clients: &mut Part) -> Result<Announces, ApiError> {
    let taken = |counters: BTreeMap<String, f64>| {
        counters.get("qpc_announces_total{outcome=\"rx\"}").copied().unwrap_or(0.0)
    };
    // The relay copies what its router counted every two seconds.
    let counted = Duration::from_secs(3);
    sleep(counted).await;
    let (usage, before) = (Usage::of(pid)?, taken(counters(ready).await?));
    let within_ms = u64::try_from(SETTLES_WITHIN.as_millis()).unwrap_or(u64::MAX);
    clients.order(Do::Announce { sequence: 2, within_ms }).await?;
    let Said::Announced { heard, last_after_ms } = clients.line(SETTLES_WITHIN * 2).await? else {
        return Err(ApiError::failed("the clients did not say what they heard"));
    };
    let used_us = Usage::of(pid)?.cpu_ns.saturating_sub(usage.cpu_ns) as f64 / 1e3;
    sleep(counted).await;
    let taken = taken(counters(ready).await?) - before;
    Ok(Announces {
        sent: args.links,
        taken,
        passed_on: heard,
        passed_on_wanted: u64::from(args.links) * u64::from(args.links.saturating_sub(1)),
        converged_s: round(last_after_ms as f64 / 1e3, 2),
        relay_cpu_us_each: round(used_us / taken.max(1.0), 1),
        relay_cpu_us_per_frame: round(used_us / (heard as f64).max(1.0), 2),
    })
}

/// Waits until the relay has little to do; gives the share of a core that it still uses.
async fn settle(pid: u32) -> Result<f64, ApiError> {
    let began = Instant::now();
    let mut before = Usage::of(pid)?;
    loop {
        let since = Instant::now();
        sleep(Duration::from_secs(1)).await;
        let after = Usage::of(pid)?;
        let core = after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9 / since.elapsed().as_secs_f64();
        if core <= QUIET_CORE || began.elapsed() > SETTLES_WITHIN {
            return Ok(core);
        }
        before = after;
    }
}

fn mib(kib: u64) -> f64 {
    round(kib as f64 / 1024.0, 1)
}

fn tell(answered: &Answered) -> String {
    let (relay, messages, announces) = (&answered.relay, &answered.messages, &answered.announces);
    human::fields(&[
        (
            "links",
            format!(
                "{} over {}, up after {:.1} s and told of each other after {:.1} s",
                answered.links,
                answered.transport.scheme(),
                answered.connect_s,
                answered.settle_s
            ),
        ),
        (
            "memory",
            format!(
                "{:.1} MiB before, {:.1} with all links ({:.1} KiB each), {:.1} after the messages, {:.1} at the end",
                relay.rss_before_mib,
                relay.rss_linked_mib,
                relay.rss_per_link_kib,
                relay.rss_busy_mib,
                relay.rss_after_mib
            ),
        ),
        ("files", format!("{} before, {} with all links", relay.files_before, relay.files_linked)),
        (
            "processor",
            format!(
                "{:.0} µs a link until all was told; {:.3} of a core quiet, {:.3} with a message a second each",
                relay.connect_cpu_us_per_link, relay.core_quiet, relay.core_busy
            ),
        ),
        (
            "messages",
            format!(
                "{} sent, {} lost, p50 {:.0} µs, p99 {:.0} µs, relay CPU {:.1} µs each",
                messages.sent, messages.lost, messages.p50_us, messages.p99_us, messages.relay_cpu_us
            ),
        ),
        (
            "announces",
            format!(
                "{} sent, {:.0} taken in, {} of {} arrived elsewhere within {:.1} s, relay CPU {:.0} µs each \
                 ({:.1} µs for each one sent on)",
                announces.sent,
                announces.taken,
                announces.passed_on,
                announces.passed_on_wanted,
                announces.converged_s,
                announces.relay_cpu_us_each,
                announces.relay_cpu_us_per_frame
            ),
        ),
    ])
}

/// What one link tells the others of its process.
#[derive(Debug)]
enum Came {
    Sent(u32),
    /// Payloads, and when they were here.
    Messages(u64, Vec<Bytes>),
    /// So many announces of others with the sequence that is looked for.
    Heard(u64),
}

/// Runs all links until standard input ends.
pub async fn clients(args: ClientArgs) -> Result<(), ApiError> {
    let mut links = Vec::new();
    let (come, mut came) = mpsc::unbounded_channel();
    let (tell, told) = watch::channel(None);
    let (mut addresses, mut whom) = (Vec::new(), Vec::new());
    for n in 0..args.links {
        let sink = Sink::connect(&args.connect)
            .await
            .map_err(|e| ApiError::failed(format!("link {} of {}: {e}", n.saturating_add(1), args.links)))?;
        addresses.push(sink.address());
        let (say_whom, to_whom) = tokio::sync::oneshot::channel();
        whom.push(say_whom);
        let link = One { sink, told: told.clone(), come: come.clone(), number: n };
        links.push(tokio::spawn(link.run(to_whom)));
    }
    // Each to the next, and the last to the first.
    addresses.rotate_left(1);
    for (whom, address) in whom.into_iter().zip(addresses) {
        // A link that is gone says so by its task.
        let _ = whom.send(address);
    }
    answer(&Said::Ready)?;
    let mut orders = orders::<Do>();
    while let Some(order) = orders.recv().await {
        tell.send_replace(Some(order));
        match order {
            Do::Send { phase, for_ms } => answer(&sent(&mut came, args.links, phase, for_ms).await)?,
            Do::Announce { within_ms, .. } => answer(&heard(&mut came, args.links, within_ms).await)?,
        }
        if let Some(ended) = links.iter().position(tokio::task::JoinHandle::is_finished) {
            let why = match links.swap_remove(ended).await {
                Ok(Err(error)) => error.to_string(),
                _ => "its task ended".to_owned(),
            };
            return Err(ApiError::failed(format!("a link ended: {why}")));
        }
    }
    Ok(())
}

async fn sent(came: &mut mpsc::UnboundedReceiver<Came>, links: u32, phase: u32, for_ms: u64) -> Said {
    let mut tally = Tally::default();
    let (mut sent, mut done) = (0u32, 0u32);
    let deadline = tokio::time::Instant::now() + Duration::from_millis(for_ms) + LATE * 2;
    while done < links || tally.received.messages < sent {
        let quiet = tokio::time::timeout_at(deadline, came.recv()).await;
        match quiet {
            Ok(Some(Came::Sent(by_one))) => {
                sent = sent.saturating_add(by_one);
                done = done.saturating_add(1);
            }
            Ok(Some(Came::Messages(at_ns, payloads))) => {
                payloads.iter().for_each(|payload| tally.add(payload, at_ns));
            }
            Ok(Some(Came::Heard(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    Said::Sent { sent, received: tally.report(phase) }
}

async fn heard(came: &mut mpsc::UnboundedReceiver<Came>, links: u32, within_ms: u64) -> Said {
    let began = tokio::time::Instant::now();
    let deadline = began + Duration::from_millis(within_ms);
    let wanted = u64::from(links) * u64::from(links.saturating_sub(1));
    let (mut heard, mut last_after_ms) = (0u64, 0);
    while heard < wanted {
        match tokio::time::timeout_at(deadline, came.recv()).await {
            Ok(Some(Came::Heard(more))) => {
                heard = heard.saturating_add(more);
                last_after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    Said::Announced { heard, last_after_ms }
}

/// One link and its identity.
struct One {
    sink: Sink,
    told: watch::Receiver<Option<Do>>,
    come: mpsc::UnboundedSender<Came>,
    number: u32,
}

impl One {
    async fn run(mut self, whom: tokio::sync::oneshot::Receiver<Address>) -> Result<(), ApiError> {
        let mut whom = std::pin::pin!(whom);
        let mut to = None;
        let mut got = Vec::new();
        loop {
            tokio::select! {
                received = self.sink.receive(&mut got) => {
                    received?;
                    self.pass_on(&mut got);
                }
                address = &mut whom, if to.is_none() => to = address.ok(),
                changed = self.told.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let order = *self.told.borrow_and_update();
                    match (order, to) {
                        (Some(Do::Send { phase, for_ms }), Some(to)) => self.send(to, phase, for_ms).await?,
                        (Some(Do::Announce { sequence, .. }), _) => self.sink.announce_anew(sequence).await?,
                        _ => {}
                    }
                }
            }
        }
    }

    fn pass_on(&mut self, got: &mut Vec<Bytes>) {
        let at = now_ns();
        // Whoever counts is there as long as the process.
        if !got.is_empty() {
            let _ = self.come.send(Came::Messages(at, std::mem::take(got)));
        }
        let heard = self.sink.take_heard();
        if heard > 0 {
            let _ = self.come.send(Came::Heard(heard));
        }
    }

    /// One message a second, each link at a moment of its own.
    async fn send(&mut self, to: Address, phase: u32, for_ms: u64) -> Result<(), ApiError> {
        let every = Duration::from_secs(1) / EACH_PER_S;
        let begin = tokio::time::Instant::now();
        let end = begin + Duration::from_millis(for_ms);
        let mut tick = interval_at(begin + every.mul_f64(f64::from(self.number % 997) / 997.0), every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut message = noise(PAYLOAD_BYTES.max(HEADER_BYTES));
        let mut sent = 0u32;
        let mut got = Vec::new();
        loop {
            tokio::select! {
                received = self.sink.receive(&mut got) => {
                    received?;
                    self.pass_on(&mut got);
                }
                now = tick.tick() => {
                    if now >= end {
                        let _ = self.come.send(Came::Sent(sent));
                        return Ok(());
                    }
                    // Numbers of one phase are those of all links together.
                    stamp(&mut message, phase, sent.saturating_mul(LINKS_MAX).saturating_add(self.number));
                    self.sink.send(to, sent.saturating_add(1), &message).await?;
                    sent = sent.saturating_add(1);
                }
            }
        }
    }
}
