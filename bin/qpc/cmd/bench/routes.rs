//! `qpc bench routes`: one relay that hears of a million strangers.
//!
//! The relay is the real `qpc run`, with room for them and every other setting as it is. A process
//! of its own has the neighbours, and the announces, signed beforehand. First all neighbours shout at
//! once, each as fast as the relay looks at one alone; then they bring what they have as fast as it
//! looks at all of them. Before, meanwhile and after, messages of others pass through the same relay
//! at a steady rate. In the end the commands that show the table are run on it, and the relay is
//! drained and started again on what it kept.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quicprochat_mesh::{
    api::{ApiError, Ready},
    crypto::{MeshIdentity, SignatureInput, network_id},
    proto::verify::POOL_PER_S,
    transport::FrameParts,
    wire::Frame,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    beside::counters,
    ends::{HEADER_BYTES, Incoming, Received, Tally, answer, noise, orders, stamp},
    measure::{Usage, now_ns},
    relay::{Part, READY_WITHIN, round, this_program},
    volatile::{NETWORK, Sink, announce_of},
};
use crate::{cx::Context, fail::Failure, human, out::note};

/// Messages a second that pass through meanwhile.
const PROBES_PER_S: u32 = 500;

/// Bytes of such a message.
const PAYLOAD_BYTES: usize = 256;

/// Announces that a neighbour brings at a time.
const AT_A_TIME: usize = 19;

/// A little less than a relay looks at for one neighbour, 200 a second.
const SHOUT_EVERY: Duration = Duration::from_millis(100);

/// Announces a second of all of them together: nine tenths of what it looks at.
const FILL_PER_S: f64 = 0.9 * POOL_PER_S as f64;

/// A relay reads its neighbours this slowly at worst before the benchmark gives up.
const FILL_WITHIN: Duration = Duration::from_secs(7200);

/// What was sent last may take so long.
const LATE: Duration = Duration::from_secs(2);

/// Room in the table beyond what is brought, so that no neighbour's share is full: a new neighbour
/// has 5 % of it.
const YOUNG_SHARE: u32 = 20;

const EXAMPLES: &str = "\
Examples:
  qpc bench routes --routes 100000 --neighbours 10";

/// Measure one relay with a very large routing table
///
/// Has that many nodes that nobody knows announced to one `qpc run` by its neighbours, and reads what
/// that costs it and whoever sends through it at the time.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Nodes that are announced
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=16_000_000))]
    routes: u32,

    /// Neighbours that announce them
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    neighbours: u32,

    /// How long messages pass alone, before and after; the neighbours shout for twice as long
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// The process that has the neighbours
#[derive(Debug, clap::Args)]
pub struct StrangersArgs {
    /// URL of the relay
    #[arg(long)]
    connect: String,
    #[arg(long)]
    routes: u32,
    #[arg(long)]
    neighbours: u32,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answered {
    routes_announced: u32,
    neighbours: u32,
    /// What the relay shows in the end.
    routes_shown: u64,
    rss_before_mib: f64,
    rss_after_mib: f64,
    /// Of the growth, announce and all.
    rss_bytes_per_route: f64,
    /// Nothing but the messages that pass.
    before: Phase,
    /// All neighbours shout.
    storm: Phase,
    /// They bring what they have.
    fill: Phase,
    after: Phase,
    commands: Vec<Asked>,
    restart: Restart,
}

/// The relay, drained and started again on what it kept.
#[derive(Debug, Serialize)]
struct Restart {
    /// Until the drain was over: what was not on disk yet is written.
    drain_seconds: f64,
    /// From the new start until its router answers: what was kept is read first.
    answers_after_seconds: f64,
    /// Whom it knows then.
    known: u64,
    rss_mib: f64,
}

/// What happened for a while.
#[derive(Debug, Default, Serialize)]
struct Phase {
    seconds: f64,
    /// Announces that the neighbours sent, and those that were taken in.
    announces: u64,
    taken_in: f64,
    /// Of one core, the probes' share and all.
    relay_core: f64,
    messages: Probed,
}

/// Messages that passed meanwhile.
#[derive(Debug, Default, Serialize)]
struct Probed {
    sent: u32,
    lost: u32,
    p50_us: f64,
    p99_us: f64,
}

/// A command run on the full table.
#[derive(Debug, Serialize)]
struct Asked {
    command: String,
    seconds: f64,
    lines: u64,
    bytes: u64,
    /// Most memory that the relay had resident, after it.
    relay_peak_rss_mib: f64,
}

/// To the process of the neighbours.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Do {
    /// Each neighbour as fast as it is listened to at best, for so long.
    Shout { for_ms: u64 },
    /// All that they have, as fast as all of them together are listened to.
    Fill,
}

/// From it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Said {
    Signed,
    Sent { announces: u64 },
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let root = std::env::temp_dir().join(format!("qpc-bench-{}", std::process::id()));
    let answered = measure(&args, &root).await;
    // Whatever it came to, nothing is left behind.
    let _ = fs::remove_dir_all(&root);
    cx.out.show(&answered?, tell)
}

async fn measure(args: &Args, root: &Path) -> Result<Answered, ApiError> {
    fs::create_dir_all(root).map_err(|e| ApiError::failed(format!("cannot make {}: {e}", root.display())))?;
    let data_dir = root.join("relay");
    let (relay, ready) = start_relay(args, &data_dir).await?;
    let pid = relay.pid;
    let url = ready.listen.first().cloned().unwrap_or_default();
    note(format!("{} announces are signed", args.routes));
    let mut command = this_program()?;
    command.args(["bench", "strangers", "--connect", &url]);
    command.args(["--routes", &args.routes.to_string(), "--neighbours", &args.neighbours.to_string()]);
    let mut strangers = Part::start("strangers", command)?;
    let Said::Signed = strangers.line(FILL_WITHIN).await? else {
        return Err(ApiError::failed("the neighbours did not say that they stand"));
    };
    // Only now: whoever says nothing while they are signed is taken for dead.
    let mut ends = (Sink::connect(&url).await?, Sink::connect(&url).await?);
    let mut table = Table { pid, ready, phase: 0 };
    let rss_before = Usage::of(pid)?.rss_kib;

    note("messages pass, and nothing else");
    let quiet = || async {
        sleep(Duration::from_secs(args.seconds)).await;
        Ok(0)
    };
    let before = table.during(&mut ends, quiet()).await?;
    note(format!("{} neighbours shout for {} s", args.neighbours, args.seconds * 2));
    let for_ms = args.seconds * 2000;
    let storm = table.during(&mut ends, told(&mut strangers, Do::Shout { for_ms })).await?;
    note(format!("they bring {} nodes", args.routes));
    let fill = table.during(&mut ends, told(&mut strangers, Do::Fill)).await?;
    note("messages pass, and nothing else");
    let after = table.during(&mut ends, quiet()).await?;
    let settled = Usage::of(pid)?;
    let grown = settled.rss_kib.saturating_sub(rss_before) as f64 * 1024.0;
    let somebody = ends.1.address().to_string();
    let mut commands = Vec::new();
    for words in [&["routes", &somebody][..], &["status"], &["routes"], &["known"]] {
        commands.push(ask(&data_dir, pid, words).await?);
    }
    let routes_shown = commands.iter().map(|asked| asked.lines).max().unwrap_or(0);
    strangers.stop().await;
    // Nobody reads them any more, and a drain would wait for them.
    drop(ends);
    let restart = restart(args, &data_dir, relay).await?;
    Ok(Answered {
        routes_announced: args.routes,
        neighbours: args.neighbours,
        routes_shown,
        rss_before_mib: mib(rss_before),
        rss_after_mib: mib(settled.rss_kib),
        rss_bytes_per_route: round(grown / (routes_shown as f64).max(1.0), 0),
        before,
        storm,
        fill,
        after,
        commands,
        restart,
    })
}

async fn restart(args: &Args, data_dir: &Path, relay: Part) -> Result<Restart, ApiError> {
    note("the relay is drained and started again");
    let began = Instant::now();
    command(data_dir, &["drain"]).await?;
    let drain_seconds = began.elapsed().as_secs_f64();
    relay.stop().await;
    let began = Instant::now();
    let (relay, _) = start_relay(args, data_dir).await?;
    command(data_dir, &["routes"]).await?;
    let answers_after_seconds = began.elapsed().as_secs_f64();
    let known = ask(data_dir, relay.pid, &["known"]).await?.lines;
    let rss_mib = mib(Usage::of(relay.pid)?.rss_kib);
    relay.stop().await;
    Ok(Restart {
        drain_seconds: round(drain_seconds, 2),
        answers_after_seconds: round(answers_after_seconds, 2),
        known,
        rss_mib,
    })
}

async fn start_relay(args: &Args, data_dir: &Path) -> Result<(Part, Ready), ApiError> {
    let mut command = this_program()?;
    let part = args.routes.div_ceil(args.neighbours).saturating_add(1);
    let room = args.routes.saturating_add(args.neighbours).max(part.saturating_mul(YOUNG_SHARE));
    command.env("QPC_ROUTING_ROUTES_MAX", room.saturating_add(16).to_string());
    command.arg("--data-dir").arg(data_dir).args(["--json", "run"]);
    command.args(["--listen", "quic://127.0.0.1:0", "--health-listen", "127.0.0.1:0"]);
    let mut relay = Part::start("relay", command)?;
    let ready = relay.line(READY_WITHIN).await?;
    Ok((relay, ready))
}

/// The relay whose table is filled.
struct Table {
    pid: u32,
    ready: Ready,
    phase: u32,
}

impl Table {
    /// Has messages pass until `until` is there, which says how many announces were sent.
    async fn during(
        &mut self,
        ends: &mut (Sink, Sink),
        until: impl Future<Output = Result<u64, ApiError>>,
    ) -> Result<Phase, ApiError> {
        self.phase += 1;
        let (began, before, taken_before) = (Instant::now(), Usage::of(self.pid)?, self.taken().await?);
        let (messages, announces) = probe(ends, self.phase, until).await?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu_ns = Usage::of(self.pid)?.cpu_ns.saturating_sub(before.cpu_ns) as f64;
        // The relay copies what its router counted every two seconds.
        sleep(Duration::from_secs(3)).await;
        Ok(Phase {
            seconds: round(seconds, 1),
            announces: announces?,
            taken_in: self.taken().await? - taken_before,
            relay_core: round(cpu_ns / 1e9 / seconds, 3),
            messages,
        })
    }

    /// Announces that the relay took in since its start, over all links.
    async fn taken(&self) -> Result<f64, ApiError> {
        let counters = counters(&self.ready).await?;
        Ok(counters.get("qpc_announces_total{outcome=\"rx\"}").copied().unwrap_or(0.0))
    }
}

/// Has the neighbours do something, and waits until they have.
async fn told(strangers: &mut Part, order: Do) -> Result<u64, ApiError> {
    strangers.order(order).await?;
    match strangers.line(FILL_WITHIN).await? {
        Said::Sent { announces } => Ok(announces),
        Said::Signed => Err(ApiError::failed("the neighbours did not say what they sent")),
    }
}

/// Sends from one end to the other until `until` is there; gives what it gives.
async fn probe<T>(
    (from, to): &mut (Sink, Sink),
    phase: u32,
    until: impl Future<Output = T>,
) -> Result<(Probed, T), ApiError> {
    let mut until = std::pin::pin!(until);
    let mut tick = interval(Duration::from_secs(1) / PROBES_PER_S);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let destination = to.address();
    let mut message = noise(PAYLOAD_BYTES.max(HEADER_BYTES));
    let (mut tally, mut sent) = (Tally::default(), 0u32);
    let (mut got, mut others) = (Vec::<Bytes>::new(), Vec::new());
    let ended = loop {
        tokio::select! {
            received = to.receive(&mut got) => {
                received?;
                let at = now_ns();
                got.drain(..).for_each(|payload| tally.add(&payload, at));
            }
            received = from.receive(&mut others) => {
                received?;
                others.clear();
            }
            ended = &mut until => break ended,
            _ = tick.tick() => {
                stamp(&mut message, phase, sent);
                from.send(destination, phase.saturating_mul(1 << 24).saturating_add(sent), &message).await?;
                sent = sent.saturating_add(1);
            }
        }
    };
    while tally.received.messages < sent {
        match timeout(LATE, to.receive(&mut got)).await {
            Ok(received) => received?,
            Err(_) => break,
        }
        let at = now_ns();
        got.drain(..).for_each(|payload| tally.add(&payload, at));
    }
    let Received { messages, p50_us, p99_us, .. } = tally.report(phase);
    Ok((Probed { sent, lost: sent.saturating_sub(messages), p50_us, p99_us }, ended))
}

/// Runs a command of this program on the relay, and reads what it costs.
async fn ask(data_dir: &Path, relay: u32, words: &[&str]) -> Result<Asked, ApiError> {
    let began = Instant::now();
    let output = command(data_dir, words).await?;
    Ok(Asked {
        command: format!("qpc {}", words.first().copied().unwrap_or_default()),
        seconds: round(began.elapsed().as_secs_f64(), 3),
        lines: output.iter().filter(|byte| **byte == b'\n').count() as u64,
        bytes: output.len() as u64,
        relay_peak_rss_mib: mib(Usage::of(relay)?.peak_rss_kib),
    })
}

/// Runs a command of this program on the relay; gives what it wrote.
async fn command(data_dir: &Path, words: &[&str]) -> Result<Vec<u8>, ApiError> {
    let mut program = this_program()?;
    program.arg("--data-dir").arg(data_dir).arg("--json").args(words);
    let output = program.output().await.map_err(ApiError::failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(ApiError::failed(format!("qpc {}: {}", words.join(" "), said.trim())));
    }
    Ok(output.stdout)
}

fn mib(kib: u64) -> f64 {
    round(kib as f64 / 1024.0, 1)
}

fn tell(answered: &Answered) -> String {
    let passed = |phase: &Phase| {
        let messages = &phase.messages;
        format!(
            "{:.0} s, {} announces sent, {:.0} taken in, {:.3} of a core; {} messages, {} lost, p50 {:.0} µs, \
             p99 {:.0} µs",
            phase.seconds,
            phase.announces,
            phase.taken_in,
            phase.relay_core,
            messages.sent,
            messages.lost,
            messages.p50_us,
            messages.p99_us
        )
    };
    let mut fields = vec![
        (
            "routes",
            format!(
                "{} of {} announced by {} neighbours",
                answered.routes_shown, answered.routes_announced, answered.neighbours
            ),
        ),
        (
            "memory",
            format!(
                "{:.1} MiB before, {:.1} after: {:.0} bytes a route, announce and all",
                answered.rss_before_mib, answered.rss_after_mib, answered.rss_bytes_per_route
            ),
        ),
        ("before", passed(&answered.before)),
        ("storm", passed(&answered.storm)),
        ("fill", passed(&answered.fill)),
        ("after", passed(&answered.after)),
    ];
    for asked in &answered.commands {
        fields.push((
            "command",
            format!(
                "{}: {:.3} s, {} lines, {} bytes; relay's peak {:.0} MiB",
                asked.command, asked.seconds, asked.lines, asked.bytes, asked.relay_peak_rss_mib
            ),
        ));
    }
    let restart = &answered.restart;
    fields.push((
        "restart",
        format!(
            "drained in {:.1} s, answers {:.1} s after its start, knows {} nodes, {:.1} MiB",
            restart.drain_seconds, restart.answers_after_seconds, restart.known, restart.rss_mib
        ),
    ));
    human::fields(&fields)
}

/// Has all neighbours until standard input ends.
pub async fn strangers(args: StrangersArgs) -> Result<(), ApiError> {
    let mut signing = Vec::new();
    for neighbour in 0..args.neighbours {
        let (routes, neighbours) = (args.routes, args.neighbours);
        signing.push(tokio::task::spawn_blocking(move || sign(routes, neighbours, neighbour)));
    }
    let mut parts = Vec::new();
    for signed in signing {
        parts.push(signed.await.map_err(ApiError::failed)?);
    }
    let (tell, told) = watch::channel(None);
    let (say, mut said) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    let fill_every = Duration::from_secs_f64(AT_A_TIME as f64 * f64::from(args.neighbours) / FILL_PER_S);
    for (n, frames) in (0u32..).zip(parts) {
        // 127.0.1.0 and up: addresses of the loopback network, all of them this machine's.
        let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 0).to_bits().saturating_add(n));
        let sink = Sink::connect_from(&args.connect, from).await?;
        let turn = fill_every * n / args.neighbours;
        let (told, say) = (told.clone(), say.clone());
        tasks.spawn(Neighbour { sink, frames, fill_every, turn, told, say }.run());
    }
    answer(&Said::Signed)?;
    let mut orders = orders::<Do>();
    while let Some(order) = orders.recv().await {
        tell.send_replace(Some(order));
        let mut announces = 0;
        for _ in 0..args.neighbours {
            tokio::select! {
                sent = said.recv() => announces += sent.unwrap_or(0),
                Some(ended) = tasks.join_next() => {
                    ended.map_err(ApiError::failed)??;
                    return Err(ApiError::failed("a neighbour's link ended"));
                }
            }
        }
        answer(&Said::Sent { announces })?;
    }
    Ok(())
}

/// One neighbour's part of the announces: nodes two links away from the relay.
fn sign(routes: u32, neighbours: u32, neighbour: u32) -> Vec<FrameParts> {
    let mut input = SignatureInput::new(network_id(NETWORK));
    let its = (neighbour..routes).step_by(usize::try_from(neighbours.max(1)).unwrap_or(1));
    let sign = |number: u32| {
        let mut seed = [0xa5; 32];
        seed.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
        let mut announce = announce_of(&MeshIdentity::from_seed(seed), &mut input, 1);
        announce.hop_count = 1;
        FrameParts::from(&Frame::Announce(announce))
    };
    its.map(sign).collect()
}

/// One neighbour.
struct Neighbour {
    sink: Sink,
    frames: Vec<FrameParts>,
    fill_every: Duration,
    /// Its turn within [`Neighbour::fill_every`]: together they would bring all at once.
    turn: Duration,
    told: watch::Receiver<Option<Do>>,
    say: mpsc::UnboundedSender<u64>,
}

impl Neighbour {
    /// Does what it is told, and reads what the relay says.
    async fn run(mut self) -> Result<(), ApiError> {
        let mut got = Vec::new();
        loop {
            tokio::select! {
                received = self.sink.receive(&mut got) => received?,
                changed = self.told.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let order = *self.told.borrow_and_update();
                    let sent = match order {
                        Some(Do::Shout { for_ms }) => self.shout(Duration::from_millis(for_ms)).await?,
                        Some(Do::Fill) => self.fill().await?,
                        None => continue,
                    };
                    // Who counts is there as long as the process.
                    let _ = self.say.send(sent);
                }
            }
            got.clear();
        }
    }

    async fn shout(&mut self, time: Duration) -> Result<u64, ApiError> {
        let end = Instant::now() + time;
        let mut tick = ticking(SHOUT_EVERY);
        let (mut at, mut sent, mut got) = (0, 0, Vec::new());
        while Instant::now() < end {
            tokio::select! {
                received = self.sink.receive(&mut got) => received?,
                _ = tick.tick() => {
                    let upto = at + AT_A_TIME.min(self.frames.len() - at);
                    self.sink.send_frames(&self.frames[at..upto]).await?;
                    sent += (upto - at) as u64;
                    at = if upto < self.frames.len() { upto } else { 0 };
                }
            }
            got.clear();
        }
        Ok(sent)
    }

    async fn fill(&mut self) -> Result<u64, ApiError> {
        sleep(self.turn).await;
        let mut tick = ticking(self.fill_every);
        let (mut at, mut got) = (0, Vec::new());
        while at < self.frames.len() {
            tokio::select! {
                received = self.sink.receive(&mut got) => received?,
                _ = tick.tick() => {
                    let upto = at + AT_A_TIME.min(self.frames.len() - at);
                    self.sink.send_frames(&self.frames[at..upto]).await?;
                    at = upto;
                }
            }
            got.clear();
        }
        Ok(at as u64)
    }
}

/// What the relay reads late is not made up for: it would be more than it looks at.
fn ticking(every: Duration) -> Interval {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}
