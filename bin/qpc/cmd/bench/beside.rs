//! `qpc bench relay --beside WHAT`: the same hop without and with one more neighbour that
//! misbehaves.
//!
//! Each round is two lives of relay, source and sink, first undisturbed, then with the neighbour
//! ([`super::neighbour`]), so that both meet the same machine. What is compared is taken three
//! times in each: at full speed, at a rate well below what the relay can do, and at the rate at
//! which latency is measured. At full speed the relay's core is used up, and what the node spends
//! on the neighbour within its budgets is missing there; at the fixed rate nothing may be missing.

use std::{
    collections::BTreeMap,
    fs::File,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use quicprochat_mesh::{
    api::{ApiError, Ready},
    transport::TransportAddr,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::time::sleep;

use super::{
    ends::{Answer, Order, Proof, Role, Trouble},
    measure::{Usage, median},
    relay::{
        ANSWER_WITHIN, Hop, LATENCY_RATE_PER_S, Part, Phase, Place, READY_WITHIN, Trio, WARM_UP, round,
        this_program,
    },
};
use crate::{cmd::health, human, out::note};

/// Honest messages a second that any relay carries beside whatever else it has to do: a third of
/// what one core does with a signature each.
const OFFERED_PER_S: u32 = 5_000;

/// What is sent to a neighbour that does not read: more than it takes, little for the relay.
const TO_IT_PER_S: u32 = 2_000;
const TO_IT_BYTES: usize = 4 * 1024;

/// How long the neighbour is at it before a phase begins.
const LEAD: Duration = Duration::from_millis(300);

/// How long it goes on after a phase, which ends a little later than it should.
const TAIL: Duration = Duration::from_millis(200);

/// What the neighbour does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// No fault: reads at once what a second source sends it. What such traffic alone costs others
    Busy,
    /// Reads 1 KiB a second of what a second source sends it
    Slow,
    /// Reads nothing of it
    Full,
    /// Its process is stopped
    Dead,
    /// Sends envelopes whose signature does not hold; when cut it dials again at once
    Forged,
    /// Sends the announces of ever new identities
    Sybil,
    /// Sends good messages, each under a Merkle root of its own
    Roots,
    /// Looks for paths to nobody
    Paths,
    /// Refuses packets that were never sent to it
    Refuse,
    /// Withdraws routes that are not its own
    Withdraw,
    /// Sends digests of the largest size
    Digests,
    /// Grants more credit than there can be, over TCP
    Credit,
    /// Sends frames that do not decode; when cut it dials again at once
    Garbage,
    /// Sends good messages again and again
    Replay,
}

impl Kind {
    /// True where it is what it does not take that is the trouble.
    pub fn is_egress(self) -> bool {
        matches!(self, Self::Busy | Self::Slow | Self::Full | Self::Dead)
    }

    /// True where what it sends are messages.
    pub fn sends_messages(self) -> bool {
        matches!(self, Self::Forged | Self::Roots | Self::Replay)
    }

    /// As it is written on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::Dead => "dead",
            Self::Forged => "forged",
            Self::Sybil => "sybil",
            Self::Roots => "roots",
            Self::Paths => "paths",
            Self::Refuse => "refuse",
            Self::Withdraw => "withdraw",
            Self::Digests => "digests",
            Self::Credit => "credit",
            Self::Garbage => "garbage",
            Self::Replay => "replay",
        }
    }

    fn scheme(self) -> &'static str {
        if self == Self::Credit { "tcp" } else { "quic" }
    }
}

/// Both lives of all rounds of one kind.
#[derive(Debug, Serialize)]
pub struct Beside {
    undisturbed: Honest,
    disturbed: Honest,
    /// Disturbed by undisturbed, the median of the rounds' own ratios; of messages at full speed.
    ratio_msgs: f64,
    /// Of messages that arrived at [`OFFERED_PER_S`].
    ratio_offered: f64,
    ratio_p50: f64,
    ratio_p99: f64,
    neighbour: Neighbour,
    /// By how much the relay's counters moved in all disturbed lives, those that moved.
    relay_counters: BTreeMap<String, f64>,
}

/// What became of honest messages in one life, or the medians of several.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Honest {
    /// At full speed.
    msgs_per_s: f64,
    /// The same: all that the relay used, by honest messages.
    relay_cpu_us: f64,
    /// Arrived, of [`OFFERED_PER_S`].
    offered_msgs_per_s: f64,
    offered_p99_us: f64,
    p50_us: f64,
    p99_us: f64,
    /// Share of one core that the relay used at [`LATENCY_RATE_PER_S`].
    relay_core: f64,
    peak_rss_mib: f64,
    /// Lines that the relay logged.
    log_lines: f64,
    lost: u32,
    duplicates: u32,
}

/// What the neighbour did in all disturbed lives.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Neighbour {
    sent: u64,
    sent_per_s: f64,
    cut: u64,
    let_in: u64,
    kept_out: u64,
    /// Share of one core that it used.
    core: f64,
    #[serde(skip)]
    seconds: f64,
    #[serde(skip)]
    cpu_ns: u64,
}

/// What is measured beside each kind.
pub struct Plan<'a> {
    pub root: &'a Path,
    pub hop: Hop,
    pub payload: usize,
    pub proof: Proof,
    pub seconds: Duration,
    pub rounds: u32,
}

impl Plan<'_> {
    /// Measures all kinds in turn.
    pub async fn measure(&self, kinds: &[Kind]) -> Result<BTreeMap<&'static str, Beside>, ApiError> {
        let mut all: BTreeMap<Kind, Rounds> = BTreeMap::new();
        for number in 1..=self.rounds {
            for kind in kinds {
                let rounds = all.entry(*kind).or_default();
                let name = kind.name();
                let dir = |what: &str| self.root.join(format!("{number}-{name}-{what}"));
                let (without, _) = self.life(&dir("without"), None).await?;
                let (with, trouble) = self.life(&dir("with"), Some(*kind)).await?;
                note(format!(
                    "round {number} {name}: {:.0} of {:.0} msg/s, {:.0} of {:.0} at {OFFERED_PER_S}, \
                     p99 {:.0} for {:.0} µs",
                    with.msgs_per_s,
                    without.msgs_per_s,
                    with.offered_msgs_per_s,
                    without.offered_msgs_per_s,
                    with.p99_us,
                    without.p99_us
                ));
                rounds.add(without, with, trouble);
            }
        }
        Ok(all.iter().map(|(kind, rounds)| (kind.name(), rounds.fold())).collect())
    }

    /// One life of the relay and its honest ends.
    async fn life(&self, dir: &Path, beside: Option<Kind>) -> Result<(Honest, Met), ApiError> {
        std::fs::create_dir_all(dir)
            .map_err(|e| ApiError::failed(format!("cannot make {}: {e}", dir.display())))?;
        let place = Place { dir, payload: self.payload, proof: self.proof };
        let log = dir.join("log");
        let mut relay = relay(dir, &log)?;
        let ready: Ready = relay.line(READY_WITHIN).await?;
        let at = |scheme: &str| {
            let is_it = |url: &&String| url.parse::<TransportAddr>().is_ok_and(|url| url.scheme() == scheme);
            ready.listen.iter().find(is_it).cloned().unwrap_or_default()
        };
        let mut sink = place.part(self.hop.sink, &at("quic"), "")?;
        let dest = sink.ready().await?;
        let mut source = place.part(self.hop.source, &at("quic"), &dest)?;
        source.ready().await?;
        let mut trio = Trio { relay: relay.pid, source, sink, window: self.hop.window };
        let mut company = match beside {
            Some(kind) => Some(Company::start(kind, &place, &at(kind.scheme()), &dest).await?),
            None => None,
        };

        trio.phase(1, 0, WARM_UP).await?;
        let before = counters(&ready).await?;
        let fast = in_company(&mut trio, &mut company, 2, 0, self.seconds).await?;
        let offered = in_company(&mut trio, &mut company, 3, OFFERED_PER_S, self.seconds).await?;
        let paced = in_company(&mut trio, &mut company, 4, LATENCY_RATE_PER_S, self.seconds).await?;
        let after = counters(&ready).await?;
        let peak_rss_mib = Usage::of(trio.relay)?.peak_rss_kib as f64 / 1024.0;
        let mut met = Met { counters: moved(&before, after), ..Met::default() };
        if let Some(company) = company {
            met.neighbour = company.met;
            company.stop().await;
        }
        trio.source.stop().await;
        trio.sink.stop().await;
        relay.stop().await;

        let rate = |phase: &Phase| f64::from(phase.received.messages) / phase.received.seconds.max(1e-9);
        let phases = [&fast, &offered, &paced];
        let honest = Honest {
            msgs_per_s: rate(&fast),
            relay_cpu_us: fast.cpu_ns as f64 / 1e3 / f64::from(fast.received.messages.max(1)),
            offered_msgs_per_s: rate(&offered),
            offered_p99_us: offered.received.p99_us,
            p50_us: paced.received.p50_us,
            p99_us: paced.received.p99_us,
            relay_core: paced.cpu_ns as f64 / 1e9 / paced.received.seconds.max(1e-9),
            peak_rss_mib,
            log_lines: std::fs::read_to_string(&log).unwrap_or_default().lines().count() as f64,
            lost: phases.iter().map(|phase| phase.lost()).sum(),
            duplicates: phases.iter().map(|phase| phase.received.duplicates).sum(),
        };
        Ok((honest, met))
    }
}

/// The real node, as it logs by default, with its metrics to be read.
fn relay(dir: &Path, log: &Path) -> Result<Part, ApiError> {
    let failed = |e| ApiError::failed(format!("cannot make {}: {e}", log.display()));
    let mut command = this_program()?;
    command.env_remove("QPC_LOG").stderr(Stdio::from(File::create(log).map_err(failed)?));
    command.arg("--data-dir").arg(dir.join("relay")).args(["--json", "run"]);
    command.args(["--listen", "quic://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"]);
    command.args(["--health-listen", "127.0.0.1:0"]);
    Part::start("relay", command)
}

/// A phase, and the neighbour at it from a little before to a little after it.
async fn in_company(
    trio: &mut Trio,
    company: &mut Option<Company>,
    phase: u32,
    rate_per_s: u32,
    length: Duration,
) -> Result<Phase, ApiError> {
    let began = match company {
        Some(company) => Some(company.begin(phase, LEAD + length + TAIL).await?),
        None => None,
    };
    if began.is_some() {
        sleep(LEAD).await;
    }
    let done = trio.phase(phase, rate_per_s, length).await;
    if let (Some(company), Some(began)) = (company, began) {
        company.end(began).await?;
    }
    done
}

/// What a disturbed life met with.
#[derive(Debug, Default)]
struct Met {
    neighbour: Neighbour,
    counters: BTreeMap<String, f64>,
}

/// The neighbour, and where it is what it does not read that matters, who sends to it.
struct Company {
    /// Who is told when to begin.
    told: Part,
    /// The sink of those that read badly.
    silent: Option<Part>,
    met: Neighbour,
}

impl Company {
    async fn start(kind: Kind, place: &Place<'_>, relay: &str, dest: &str) -> Result<Self, ApiError> {
        let mut command = this_program()?;
        command.args(["bench", "neighbour", kind.name(), "--connect", relay, "--dest", dest]);
        command.arg("--payload").arg(place.payload.to_string());
        let mut neighbour = Part::start("neighbour", command)?;
        let at = neighbour.ready().await?;
        let met = Neighbour::default();
        if !kind.is_egress() {
            return Ok(Self { told: neighbour, silent: None, met });
        }
        let dir = place.dir.join("second");
        std::fs::create_dir_all(&dir)
            .map_err(|e| ApiError::failed(format!("cannot make {}: {e}", dir.display())))?;
        let second = Place { dir: &dir, payload: TO_IT_BYTES, proof: Proof::Plain };
        let mut told = second.part(Role::VolatileSource, relay, &at)?;
        told.ready().await?;
        if kind == Kind::Dead {
            let pid = i32::try_from(neighbour.pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| ApiError::failed("the neighbour has no process"))?;
            kill_process(pid, Signal::STOP)
                .map_err(|e| ApiError::failed(format!("cannot stop the neighbour: {e}")))?;
        }
        Ok(Self { told, silent: Some(neighbour), met })
    }

    fn cpu_ns(&self) -> Result<u64, ApiError> {
        let parts = std::iter::once(&self.told).chain(&self.silent);
        parts.map(|part| Ok(Usage::of(part.pid)?.cpu_ns)).sum()
    }

    async fn begin(&mut self, phase: u32, length: Duration) -> Result<(Instant, u64), ApiError> {
        let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let before = (Instant::now(), self.cpu_ns()?);
        self.told.order(Order::Send { phase, rate_per_s: TO_IT_PER_S, for_ms, window: u32::MAX }).await?;
        Ok(before)
    }

    async fn end(&mut self, (began, cpu_ns): (Instant, u64)) -> Result<(), ApiError> {
        let trouble = match self.told.line(ANSWER_WITHIN).await? {
            Answer::Troubled(trouble) => trouble,
            Answer::Sent { sent, .. } => Trouble { sent: sent.into(), ..Trouble::default() },
            other => return Err(ApiError::failed(format!("the neighbour answered {other:?}"))),
        };
        let met = &mut self.met;
        met.sent = met.sent.saturating_add(trouble.sent);
        met.cut = met.cut.saturating_add(trouble.cut);
        met.let_in = met.let_in.saturating_add(trouble.let_in);
        met.kept_out = met.kept_out.saturating_add(trouble.kept_out);
        met.seconds += began.elapsed().as_secs_f64();
        let used = self.cpu_ns()?.saturating_sub(cpu_ns);
        self.met.cpu_ns = self.met.cpu_ns.saturating_add(used);
        Ok(())
    }

    async fn stop(self) {
        self.told.stop().await;
        if let Some(silent) = self.silent {
            silent.stop().await;
        }
    }
}

/// The rounds of one kind.
#[derive(Default)]
struct Rounds {
    undisturbed: Vec<Honest>,
    disturbed: Vec<Honest>,
    met: Met,
}

impl Rounds {
    fn add(&mut self, without: Honest, with: Honest, met: Met) {
        self.undisturbed.push(without);
        self.disturbed.push(with);
        for (name, by) in met.counters {
            *self.met.counters.entry(name).or_default() += by;
        }
        let (all, new) = (&mut self.met.neighbour, met.neighbour);
        all.sent = all.sent.saturating_add(new.sent);
        all.cut = all.cut.saturating_add(new.cut);
        all.let_in = all.let_in.saturating_add(new.let_in);
        all.kept_out = all.kept_out.saturating_add(new.kept_out);
        all.seconds += new.seconds;
        all.cpu_ns = all.cpu_ns.saturating_add(new.cpu_ns);
    }

    fn fold(&self) -> Beside {
        let ratio = |of: fn(&Honest) -> f64| {
            let pairs = self.disturbed.iter().zip(&self.undisturbed);
            round(median(pairs.map(|(with, without)| of(with) / of(without).max(1e-9)).collect()), 3)
        };
        let met = self.met.neighbour;
        let seconds = met.seconds.max(1e-9);
        Beside {
            undisturbed: medians(&self.undisturbed),
            disturbed: medians(&self.disturbed),
            ratio_msgs: ratio(|h| h.msgs_per_s),
            ratio_offered: ratio(|h| h.offered_msgs_per_s),
            ratio_p50: ratio(|h| h.p50_us),
            ratio_p99: ratio(|h| h.p99_us),
            neighbour: Neighbour {
                sent_per_s: round(met.sent as f64 / seconds, 0),
                core: round(met.cpu_ns as f64 / 1e9 / seconds, 3),
                ..met
            },
            relay_counters: self.met.counters.clone(),
        }
    }
}

fn medians(rounds: &[Honest]) -> Honest {
    let of = |get: fn(&Honest) -> f64, digits| round(median(rounds.iter().map(get).collect()), digits);
    Honest {
        msgs_per_s: of(|h| h.msgs_per_s, 0),
        relay_cpu_us: of(|h| h.relay_cpu_us, 3),
        offered_msgs_per_s: of(|h| h.offered_msgs_per_s, 0),
        offered_p99_us: of(|h| h.offered_p99_us, 1),
        p50_us: of(|h| h.p50_us, 1),
        p99_us: of(|h| h.p99_us, 1),
        relay_core: of(|h| h.relay_core, 3),
        peak_rss_mib: of(|h| h.peak_rss_mib, 1),
        log_lines: of(|h| h.log_lines, 0),
        lost: rounds.iter().map(|h| h.lost).sum(),
        duplicates: rounds.iter().map(|h| h.duplicates).sum(),
    }
}

/// The node's counters, by series as it writes them.
pub async fn counters(node: &Ready) -> Result<BTreeMap<String, f64>, ApiError> {
    let at: Option<SocketAddr> = node.health.as_deref().and_then(|at| at.parse().ok());
    let at = at.ok_or_else(|| ApiError::failed("the relay has no health port"))?;
    let (status, text) = health::get(at, "/metricsz").await.map_err(ApiError::failed)?;
    if status != 200 {
        return Err(ApiError::failed(format!("the relay's metrics answered with HTTP {status}")));
    }
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        Some((name.ends_with("_total").then(|| series.to_owned())?, value.parse().ok()?))
    };
    Ok(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
}

/// What is higher now than before; scrapes of this program aside.
fn moved(before: &BTreeMap<String, f64>, after: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let by = |(series, value): (String, f64)| {
        let by = value - before.get(&series).copied().unwrap_or(0.0);
        (by > 0.0 && !series.starts_with("qpc_http_")).then_some((series, by))
    };
    after.into_iter().filter_map(by).collect()
}

/// What people read of all kinds.
pub fn tell(beside: &BTreeMap<&'static str, Beside>) -> String {
    if beside.is_empty() {
        return String::new();
    }
    let head = ["BESIDE", "", "MSG/S", "CPU µs", "OF 5,000/S", "P50 µs", "P99 µs", "CORE", "LOST"];
    let mut rows = Vec::new();
    let mut more = String::new();
    for (name, beside) in beside {
        let life = |what: &str, honest: &Honest| {
            vec![
                (*name).to_owned(),
                what.to_owned(),
                format!("{:.0}", honest.msgs_per_s),
                format!("{:.2}", honest.relay_cpu_us),
                format!("{:.0}", honest.offered_msgs_per_s),
                format!("{:.0}", honest.p50_us),
                format!("{:.0}", honest.p99_us),
                format!("{:.2}", honest.relay_core),
                honest.lost.to_string(),
            ]
        };
        rows.push(life("without", &beside.undisturbed));
        rows.push(life("with", &beside.disturbed));
        rows.push(vec![
            (*name).to_owned(),
            "ratio".to_owned(),
            format!("{:.2}", beside.ratio_msgs),
            String::new(),
            format!("{:.2}", beside.ratio_offered),
            format!("{:.2}", beside.ratio_p50),
            format!("{:.2}", beside.ratio_p99),
        ]);
        let it = &beside.neighbour;
        more.push_str(&format!(
            "\n{name}: {:.0} frames/s with {:.2} of a core, cut {} times, let in again {}, kept out {}; the relay's",
            it.sent_per_s, it.core, it.cut, it.let_in, it.kept_out
        ));
        for (series, by) in &beside.relay_counters {
            more.push_str(&format!(" {series} +{by}"));
        }
    }
    format!("\n\n{}{more}", human::table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_moved_are_told_by_how_much() {
        let of = |pairs: &[(&str, f64)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let before: BTreeMap<_, _> = of(&[("a_total", 1.0), ("b_total", 2.0)]);
        let after = of(&[("a_total", 4.0), ("b_total", 2.0), ("c_total", 1.0), ("qpc_http_x_total", 9.0)]);
        assert_eq!(moved(&before, after), of(&[("a_total", 3.0), ("c_total", 1.0)]));
    }

    #[test]
    fn ratios_are_those_of_each_round() {
        let life = |msgs_per_s| Honest { msgs_per_s, offered_msgs_per_s: 1.0, ..Honest::default() };
        let mut rounds = Rounds::default();
        for (without, with) in [(100.0, 50.0), (10.0, 9.0), (1000.0, 1000.0)] {
            rounds.add(life(without), life(with), Met::default());
        }
        let beside = rounds.fold();
        assert_eq!((beside.ratio_msgs, beside.undisturbed.msgs_per_s), (0.9, 100.0));
    }
}
