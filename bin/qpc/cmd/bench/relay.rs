//! `qpc bench relay`: source, relay and sink as three processes, ours and the bare hop in turn.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use quicprochat_mesh::{
    api::{ApiError, Ready},
    config::LINK_THREADS_MAX,
    wire::limits::PAYLOAD_BYTES_MAX,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{
    beside::{self, Beside, Kind},
    ends::{Answer, HEADER_BYTES, Order, Proof, Received, Role},
    measure::{Usage, median},
};
use crate::{cx::Context, fail::Failure, human, out::note};

/// Messages a second at which latency is measured.
pub(super) const LATENCY_RATE_PER_S: u32 = 1_000;

/// Bytes on their way at full speed. Below what a link's queue holds, so that no hop has to drop.
const WINDOW_BYTES: usize = 768 * 1024;

/// Messages on their way between durable ends: as many sends wait for the disk together.
const DURABLE_WINDOW: u32 = 256;

/// Bytes around a payload, for the window.
const OVERHEAD_BYTES: usize = 160;

/// How long a part may take to be ready.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a part may take over its answer, beyond the phase itself.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Before the first figure counts.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  qpc bench relay
  qpc bench relay --ends durable --payload 1024 --seconds 5
  qpc bench relay --json > relay.json";

/// Measure a relay beside a bare QUIC hop: source, relay and sink on loopback
///
/// Each round runs ours, then the baseline, each in processes of their own: at full speed for
/// throughput and processor time a message, then at 1,000 messages/s for latency. Figures are
/// medians over the rounds.
///
/// With `--compare-link-threads` each round runs ours twice: with its links on one thread, and with
/// them spread.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What the ends of ours are: `volatile` speaks the link protocol and keeps nothing, `durable`
    /// is a whole node with outbox, inbox and receipts
    #[arg(long, value_enum, default_value = "volatile")]
    ends: Ends,

    /// How volatile ends and the baseline sign: `plain` is a signature a message, `merkle` one for
    /// all that leave together. Durable ends do as a node does, which is `merkle` under load
    #[arg(long, value_enum, default_value = "plain")]
    proof: Proof,

    /// Bytes of a message
    #[arg(long, value_name = "N", default_value_t = 256)]
    payload: usize,

    /// Length of each phase
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Rounds of ours and the baseline
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Threads that the links of our relay run on, instead of what it chooses by itself
    #[arg(long, value_name = "N", value_parser = threads())]
    link_threads: Option<u32>,

    /// Ours with 0 threads of links beside ours with N: messages a second of the relay's processor
    /// time, one by the other
    #[arg(long, value_name = "N", value_parser = threads(), conflicts_with = "link_threads")]
    compare_link_threads: Option<u32>,

    /// Also measure ours beside one more neighbour that misbehaves, and without it, in turn.
    /// Several are measured one after the other
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    beside: Vec<Kind>,
}

fn threads() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=i64::from(LINK_THREADS_MAX))
}

/// What stands at the ends of our relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Ends {
    Volatile,
    Durable,
}

/// A kind of hop: who plays what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    /// None: the real `qpc run`.
    relay: Option<Role>,
    pub(super) source: Role,
    pub(super) sink: Role,
    pub(super) window: u32,
    /// Of our relay; none leaves it to itself.
    link_threads: Option<u32>,
}

/// What a hop did in one round, or the medians of all.
#[derive(Debug, Clone, Default, Serialize)]
struct Figures {
    msgs_per_s: f64,
    relay_cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    peak_rss_mib: f64,
    voluntary_switches_per_msg: f64,
    /// The relay's processor time a message in the phase of fixed rate.
    paced_relay_cpu_us: f64,
    /// And how often it slept.
    paced_voluntary_switches_per_msg: f64,
    /// Messages that did not arrive, both phases.
    lost: u32,
    /// Messages that arrived twice.
    duplicates: u32,
    /// Messages that overtook others.
    reordered: u32,
    /// Messages a second that arrived in the phase of fixed rate.
    latency_msgs_per_s: f64,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answered {
    payload: usize,
    ends: Ends,
    proof: Proof,
    ours: Figures,
    baseline: Figures,
    ratio_cpu: f64,
    ratio_p99: f64,
    /// Of processor time a message in the phase of fixed rate.
    ratio_paced_cpu: f64,
    /// Of voluntary switches a message there.
    ratio_paced_switches: f64,
    seconds: u64,
    rounds: u32,
    /// Threads of links that `ours` was told to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    link_threads: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<Spread>,
    /// What each misbehaving neighbour did to ours, by its kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    beside: BTreeMap<&'static str, Beside>,
}

/// Ours once more, with its links on threads of their own.
#[derive(Debug, Serialize)]
struct Spread {
    link_threads: u32,
    #[serde(flatten)]
    figures: Figures,
    /// Messages a second of processor time, by that of `ours` in the same round; the median.
    ratio_msgs_per_cpu_s: f64,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if !(HEADER_BYTES..=PAYLOAD_BYTES_MAX).contains(&args.payload) {
        let range = format!("{HEADER_BYTES} to {PAYLOAD_BYTES_MAX}");
        return Err(ApiError::usage(format!("--payload {}: give {range} bytes", args.payload)).into());
    }
    if args.ends == Ends::Durable && args.proof == Proof::Merkle {
        return Err(
            ApiError::usage("--proof merkle is for volatile ends: durable ones choose by load").into()
        );
    }
    let frame = args.payload.saturating_add(OVERHEAD_BYTES);
    let window = u32::try_from(WINDOW_BYTES / frame).unwrap_or(u32::MAX);
    let (source, sink, ours_window) = match args.ends {
        Ends::Volatile => (Role::VolatileSource, Role::VolatileSink, window),
        Ends::Durable => (Role::DurableSource, Role::DurableSink, window.min(DURABLE_WINDOW)),
    };
    let link_threads = args.link_threads.or(args.compare_link_threads.map(|_| 0));
    let ours = Hop { relay: None, source, sink, window: ours_window, link_threads };
    let spread = args.compare_link_threads.map(|n| Hop { link_threads: Some(n), ..ours });
    let bare = Hop {
        relay: Some(Role::BareRelay),
        source: Role::BareSource,
        sink: Role::BareSink,
        window,
        link_threads: None,
    };
    let (mut of_ours, mut of_spread, mut of_bare) = (Vec::new(), Vec::new(), Vec::new());
    let root = std::env::temp_dir().join(format!("qpc-bench-{}", std::process::id()));
    let measured = async {
        for round in 1..=args.rounds {
            let hops = [
                ("ours", Some(ours), &mut of_ours),
                ("spread", spread, &mut of_spread),
                ("baseline", Some(bare), &mut of_bare),
            ];
            for (name, hop, figures) in hops {
                let Some(hop) = hop else { continue };
                let dir = root.join(format!("{round}-{name}"));
                let seconds = Duration::from_secs(args.seconds);
                let got = one_round(hop, &dir, args.payload, args.proof, seconds).await?;
                note(format!(
                    "round {round} {name}: {:.0} msg/s, relay {:.2} µs/msg, p50 {:.0} µs, p99 {:.0} µs",
                    got.msgs_per_s, got.relay_cpu_us, got.p50_us, got.p99_us
                ));
                figures.push(got);
            }
        }
        let plan = beside::Plan {
            root: &root,
            hop: ours,
            payload: args.payload,
            proof: args.proof,
            seconds: Duration::from_secs(args.seconds),
            rounds: args.rounds,
        };
        plan.measure(&args.beside).await
    };
    let measured = measured.await;
    // Whatever it came to, nothing is left behind.
    let _ = std::fs::remove_dir_all(&root);
    let beside = measured?;
    let (ours, baseline) = (medians(&of_ours), medians(&of_bare));
    let spread = args.compare_link_threads.map(|link_threads| {
        let by_round = of_ours.iter().zip(&of_spread).map(|(one, many)| one.relay_cpu_us / many.relay_cpu_us);
        let ratio_msgs_per_cpu_s = round(median(by_round.collect()), 3);
        Spread { link_threads, figures: medians(&of_spread), ratio_msgs_per_cpu_s }
    });
    let answered = Answered {
        payload: args.payload,
        ends: args.ends,
        proof: args.proof,
        ratio_cpu: round(ours.relay_cpu_us / baseline.relay_cpu_us, 3),
        ratio_p99: round(ours.p99_us / baseline.p99_us, 3),
        ratio_paced_cpu: round(ours.paced_relay_cpu_us / baseline.paced_relay_cpu_us, 3),
        ratio_paced_switches: round(
            ours.paced_voluntary_switches_per_msg / baseline.paced_voluntary_switches_per_msg,
            3,
        ),
        ours,
        baseline,
        seconds: args.seconds,
        rounds: args.rounds,
        link_threads,
        spread,
        beside,
    };
    cx.out.show(&answered, tell)
}

fn tell(answered: &Answered) -> String {
    let row = |name: &str, figures: &Figures| {
        vec![
            name.to_owned(),
            format!("{:.0}", figures.msgs_per_s),
            format!("{:.2}", figures.relay_cpu_us),
            format!("{:.0}", figures.p50_us),
            format!("{:.0}", figures.p99_us),
            format!("{:.1}", figures.peak_rss_mib),
            format!("{:.1}", figures.paced_relay_cpu_us),
            format!("{:.2}", figures.paced_voluntary_switches_per_msg),
            figures.lost.to_string(),
        ]
    };
    let ends = match answered.ends {
        Ends::Volatile => "volatile",
        Ends::Durable => "durable",
    };
    let head = ["", "MSG/S", "CPU µs", "P50 µs", "P99 µs", "RSS MiB", "PACED CPU µs", "SWITCHES", "LOST"];
    let mut rows = vec![row("ours", &answered.ours)];
    let mut of_spread = String::new();
    if let Some(spread) = &answered.spread {
        rows.push(row("spread", &spread.figures));
        of_spread = format!(
            "\nlinks spread over {} threads: {:.2} times the messages a second of processor time",
            spread.link_threads, spread.ratio_msgs_per_cpu_s
        );
    }
    rows.push(row("baseline", &answered.baseline));
    let table = human::table(&head, &rows);
    format!(
        "{table}\n{} bytes, {} ends, {} proofs; latency and what is paced at {LATENCY_RATE_PER_S} msg/s, the rest \
         at full speed\nrelay CPU {:.2} times the baseline's, p99 {:.2} times; paced: CPU {:.2} times, voluntary \
         switches {:.2} times{of_spread}{}",
        answered.payload,
        ends,
        answered.proof.name(),
        answered.ratio_cpu,
        answered.ratio_p99,
        answered.ratio_paced_cpu,
        answered.ratio_paced_switches,
        beside::tell(&answered.beside)
    )
}

fn medians(rounds: &[Figures]) -> Figures {
    let of = |get: fn(&Figures) -> f64, digits| round(median(rounds.iter().map(get).collect()), digits);
    Figures {
        msgs_per_s: of(|f| f.msgs_per_s, 0),
        relay_cpu_us: of(|f| f.relay_cpu_us, 3),
        p50_us: of(|f| f.p50_us, 1),
        p99_us: of(|f| f.p99_us, 1),
        peak_rss_mib: of(|f| f.peak_rss_mib, 1),
        voluntary_switches_per_msg: of(|f| f.voluntary_switches_per_msg, 4),
        paced_relay_cpu_us: of(|f| f.paced_relay_cpu_us, 3),
        paced_voluntary_switches_per_msg: of(|f| f.paced_voluntary_switches_per_msg, 4),
        latency_msgs_per_s: of(|f| f.latency_msgs_per_s, 0),
        lost: rounds.iter().map(|f| f.lost).sum(),
        duplicates: rounds.iter().map(|f| f.duplicates).sum(),
        reordered: rounds.iter().map(|f| f.reordered).sum(),
    }
}

pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// One life of the three processes.
async fn one_round(
    hop: Hop,
    dir: &Path,
    payload: usize,
    proof: Proof,
    seconds: Duration,
) -> Result<Figures, ApiError> {
    std::fs::create_dir_all(dir)
        .map_err(|e| ApiError::failed(format!("cannot make {}: {e}", dir.display())))?;
    let place = Place { dir, payload, proof };
    let mut relay;
    let at;
    match hop.relay {
        Some(role) => {
            relay = place.part(role, "", "")?;
            at = relay.ready().await?;
        }
        None => {
            relay = place.node(hop.link_threads)?;
            let ready: Ready = relay.line(READY_WITHIN).await?;
            at = ready.listen.first().cloned().unwrap_or_default();
        }
    }
    let mut sink = place.part(hop.sink, &at, "")?;
    let dest = sink.ready().await?;
    let mut source = place.part(hop.source, &at, &dest)?;
    source.ready().await?;

    let mut trio = Trio { relay: relay.pid, source, sink, window: hop.window };
    trio.phase(1, 0, WARM_UP).await?;
    let fast = trio.phase(2, 0, seconds).await?;
    let paced = trio.phase(3, LATENCY_RATE_PER_S, seconds).await?;
    let peak_rss_mib = Usage::of(trio.relay)?.peak_rss_kib as f64 / 1024.0;
    trio.source.stop().await;
    trio.sink.stop().await;
    relay.stop().await;

    let messages = f64::from(fast.received.messages.max(1));
    let paced_messages = f64::from(paced.received.messages.max(1));
    Ok(Figures {
        msgs_per_s: f64::from(fast.received.messages) / fast.received.seconds.max(1e-9),
        relay_cpu_us: fast.cpu_ns as f64 / 1e3 / messages,
        voluntary_switches_per_msg: fast.switches as f64 / messages,
        paced_relay_cpu_us: paced.cpu_ns as f64 / 1e3 / paced_messages,
        paced_voluntary_switches_per_msg: paced.switches as f64 / paced_messages,
        p50_us: paced.received.p50_us,
        p99_us: paced.received.p99_us,
        latency_msgs_per_s: f64::from(paced.received.messages) / paced.received.seconds.max(1e-9),
        peak_rss_mib,
        lost: fast.lost().saturating_add(paced.lost()),
        duplicates: fast.received.duplicates.saturating_add(paced.received.duplicates),
        reordered: fast.received.reordered.saturating_add(paced.received.reordered),
    })
}

/// The processes of one life: the relay by its number, and who sends through it to whom.
pub(super) struct Trio {
    pub(super) relay: u32,
    pub(super) source: Part,
    pub(super) sink: Part,
    pub(super) window: u32,
}

/// What one phase came to.
pub(super) struct Phase {
    sent: u32,
    pub(super) received: Received,
    pub(super) cpu_ns: u64,
    switches: u64,
}

impl Phase {
    pub(super) fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received.messages)
    }
}

impl Trio {
    /// Has the source send for so long, at a rate or (0) as fast as the window lets it.
    pub(super) async fn phase(
        &mut self,
        phase: u32,
        rate_per_s: u32,
        length: Duration,
    ) -> Result<Phase, ApiError> {
        let before = Usage::of(self.relay)?;
        let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let within = length.saturating_add(ANSWER_WITHIN);
        self.source.order(Order::Send { phase, rate_per_s, for_ms, window: self.window }).await?;
        let sent = match self.source.line(within).await? {
            Answer::Sent { sent, stalls } => {
                if stalls > 0 {
                    note(format!("the source stood still {stalls} times for a second: messages were lost"));
                }
                sent
            }
            other => return Err(ApiError::failed(format!("the source answered {other:?}"))),
        };
        self.sink.order(Order::Report { phase, sent }).await?;
        let received = match self.sink.line(ANSWER_WITHIN).await? {
            Answer::Received(received) => received,
            other => return Err(ApiError::failed(format!("the sink answered {other:?}"))),
        };
        let after = Usage::of(self.relay)?;
        Ok(Phase {
            sent,
            received,
            cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
            switches: after.voluntary_switches.saturating_sub(before.voluntary_switches),
        })
    }
}

/// Where the processes of one round keep what they need.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) payload: usize,
    pub(super) proof: Proof,
}

impl Place<'_> {
    fn node(&self, link_threads: Option<u32>) -> Result<Part, ApiError> {
        let mut command = this_program()?;
        if let Some(threads) = link_threads {
            command.env("QPC_TRANSPORT_LINK_THREADS", threads.to_string());
        }
        lift_budgets(&mut command);
        command.arg("--data-dir").arg(self.dir.join("relay")).args(["--json", "run"]);
        command.args(["--listen", "quic://127.0.0.1:0", "--health-listen", "off"]);
        Part::start("relay", command)
    }

    pub(super) fn part(&self, role: Role, connect: &str, dest: &str) -> Result<Part, ApiError> {
        let mut command = this_program()?;
        command.args(["bench", "part", role.name(), "--connect", connect, "--dest", dest]);
        command.arg("--credit").arg(self.dir.join("credit"));
        command.arg("--dir").arg(self.dir.join(role.name()));
        command.arg("--payload").arg(self.payload.to_string());
        command.args(["--proof", self.proof.name()]);
        Part::start(role.name(), command)
    }
}

/// This program, without what the environment tells nodes: every round runs with the defaults.
pub(super) fn this_program() -> Result<Command, ApiError> {
    let program: PathBuf = std::env::current_exe()
        .map_err(|e| ApiError::failed(format!("cannot find this program to start it: {e}")))?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QPC_") {
            command.env_remove(name);
        }
    }
    command.env("QPC_LOG", "warn");
    Ok(command)
}

/// Lets a neighbour of a relay send what it can: the hop beside it has no budgets, and with Merkle
/// proofs one source alone reaches the default one.
pub(super) fn lift_budgets(relay: &mut Command) {
    relay.env("QPC_RATE_LIMIT_MESSAGES_PER_S", u32::MAX.to_string());
    relay.env("QPC_RATE_LIMIT_BYTES_PER_S", "1024GiB");
}

/// One process, spoken to in lines.
pub(super) struct Part {
    name: &'static str,
    pub(super) pid: u32,
    child: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Part {
    pub(super) fn start(name: &'static str, mut command: Command) -> Result<Self, ApiError> {
        let failed = |what: &str| ApiError::failed(format!("cannot start the {name}: {what}"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(&e.to_string()))?;
        let pid = child.id().ok_or_else(|| failed("it ended at once"))?;
        let orders = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| failed("it has no output"))?;
        Ok(Self { name, pid, child, orders, answers: BufReader::new(stdout).lines() })
    }

    pub(super) async fn order(&mut self, order: impl Serialize) -> Result<(), ApiError> {
        let mut line = serde_json::to_string(&order).map_err(ApiError::failed)?;
        line.push('\n');
        let gone = || ApiError::failed(format!("the {} has ended", self.name));
        let orders = self.orders.as_mut().ok_or_else(gone)?;
        orders.write_all(line.as_bytes()).await.map_err(|_| gone())
    }

    pub(super) async fn line<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, ApiError> {
        let name = self.name;
        let line = timeout(within, self.answers.next_line()).await;
        let line = line.map_err(|_| ApiError::failed(format!("the {name} did not answer in {within:?}")))?;
        let line = line.ok().flatten().ok_or_else(|| ApiError::failed(format!("the {name} has ended")))?;
        serde_json::from_str(&line).map_err(|e| ApiError::failed(format!("the {name} said {line:?}: {e}")))
    }

    /// Waits until it stands; gives what the next one needs to know of it.
    pub(super) async fn ready(&mut self) -> Result<String, ApiError> {
        match self.line(READY_WITHIN).await? {
            Answer::Ready { at } => Ok(at),
            other => Err(ApiError::failed(format!("the {} answered {other:?}", self.name))),
        }
    }

    /// Nothing of it is needed any more.
    pub(super) async fn stop(mut self) {
        drop(self.orders.take());
        // A process that is gone already is stopped as well.
        let _ = self.child.kill().await;
    }
}
