//! Source and sink of every kind of hop: what they are told, what they answer.
//!
//! A part reads commands line by line on standard input and answers with one JSON object a line. It
//! ends with its input.
//!
//! A payload begins with its send time (`u64`, ns of the machine's monotonic clock), phase and
//! number (`u32` each), all little endian.

use std::{
    io::{BufRead, Write},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use quicprochat_mesh::{api::ApiError, proto::delivery::batch::BATCH_LEAVES_MAX};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    bare, durable,
    measure::{Credit, now_ns, quantile},
    volatile,
};

/// Bytes at the front of a payload that the benchmark needs.
pub const HEADER_BYTES: usize = 16;

/// Messages handed over between two looks at the clock and the credit.
const BURST: u32 = 32;

/// Without progress for so long what is on its way counts as lost, and the window opens again.
const STALL_AFTER: Duration = Duration::from_secs(1);

/// What does not come for so long to a node is lost: its sender tries again after seconds.
const DURABLE_SILENCE: Duration = Duration::from_secs(10);

/// One process of a benchmark
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    role: Role,
    /// URL or HOST:PORT of the relay
    #[arg(long, default_value = "")]
    connect: String,
    /// What the sink said it is
    #[arg(long, default_value = "")]
    dest: String,
    /// File that paces the source
    #[arg(long)]
    credit: PathBuf,
    /// Data directory of a durable end
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of a message
    #[arg(long)]
    payload: usize,
    /// How messages are signed
    #[arg(long, value_enum, default_value = "plain")]
    proof: Proof,
}

/// Messages handed to the medium at once, and under one signature where they share one: as a node
/// signs what leaves together.
pub const BATCH: usize = BATCH_LEAVES_MAX;

/// How volatile ends and the baseline sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// A signature a message.
    Plain,
    /// A signature for all that leave together, and a Merkle path a message.
    Merkle,
}

impl Proof {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Merkle => "merkle",
        }
    }
}

/// Who a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    BareRelay,
    BareSource,
    BareSink,
    VolatileSource,
    VolatileSink,
    DurableSource,
    DurableSink,
}

impl Role {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::BareRelay => "bare-relay",
            Self::BareSource => "bare-source",
            Self::BareSink => "bare-sink",
            Self::VolatileSource => "volatile-source",
            Self::VolatileSink => "volatile-sink",
            Self::DurableSource => "durable-source",
            Self::DurableSink => "durable-sink",
        }
    }
}

/// To a part.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Order {
    /// Source: send. With `rate_per_s` 0 as fast as `window` outstanding messages allow.
    Send { phase: u32, rate_per_s: u32, for_ms: u64, window: u32 },
    /// Sink: answer once `sent` messages of the phase are here, or nothing comes any more.
    Report { phase: u32, sent: u32 },
}

/// From a part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// It stands; `at` is what the next one needs to know of it.
    Ready { at: String },
    /// A source is done.
    Sent { sent: u32, stalls: u32 },
    /// A sink's count of a phase.
    Received(Received),
    /// What a neighbour that misbehaves came to.
    Troubled(Trouble),
}

/// What one that misbehaves did and met with.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Trouble {
    /// Frames handed to its link.
    pub sent: u64,
    /// How often its link was cut.
    pub cut: u64,
    /// How often it was let in again.
    pub let_in: u64,
    /// How often it was not.
    pub kept_out: u64,
}

/// What arrived of one phase.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Received {
    /// Different messages.
    pub messages: u32,
    /// Messages that came again.
    pub duplicates: u32,
    /// Messages that came after a later one.
    pub reordered: u32,
    /// From the first to the last, in seconds.
    pub seconds: f64,
    /// One-way latency, median.
    pub p50_us: f64,
    /// One-way latency that 99 % do not exceed.
    pub p99_us: f64,
}

/// Where a source puts its messages.
pub trait Outgoing {
    /// Takes a message, perhaps to be written with the next ones.
    async fn send(&mut self, payload: &[u8]) -> Result<(), ApiError>;
    /// Writes what waits.
    async fn flush(&mut self) -> Result<(), ApiError>;
}

/// Where a sink has its messages from.
pub trait Incoming {
    /// Adds payloads to `out`, at least one. Dropping the future loses none.
    async fn receive(&mut self, out: &mut Vec<Bytes>) -> Result<(), ApiError>;
}

/// Runs one part until its standard input ends.
pub async fn run(args: Args) -> Result<(), ApiError> {
    let Args { role, connect, dest, credit, dir, payload, proof } = args;
    let credit = Credit::open(&credit)?;
    match role {
        Role::BareRelay => bare::relay(proof, until_eof()).await,
        Role::BareSource => source(bare::Source::connect(&connect, proof).await?, &credit, payload).await,
        Role::BareSink => sink(bare::Sink::connect(&connect, proof).await?, "", &credit, STALL_AFTER).await,
        Role::VolatileSource => {
            source(volatile::Source::connect(&connect, &dest, proof).await?, &credit, payload).await
        }
        Role::VolatileSink => {
            let sink_end = volatile::Sink::connect(&connect).await?;
            let at = sink_end.address().to_string();
            sink(sink_end, &at, &credit, STALL_AFTER).await
        }
        Role::DurableSource => {
            source(durable::Source::start(&connect, &dest, &dir).await?, &credit, payload).await
        }
        Role::DurableSink => {
            let sink_end = durable::Sink::start(&connect, &dir).await?;
            let at = sink_end.address();
            sink(sink_end, &at, &credit, DURABLE_SILENCE).await
        }
    }
}

/// Answers on standard output.
pub fn answer(answer: &impl Serialize) -> Result<(), ApiError> {
    let line = serde_json::to_string(answer).map_err(ApiError::failed)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(ApiError::failed)
}

/// What standard input says, until it ends.
pub fn orders<T: DeserializeOwned + Send + 'static>() -> mpsc::UnboundedReceiver<T> {
    let (tx, rx) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { continue };
            if tx.send(order).is_err() {
                return;
            }
        }
    });
    rx
}

/// Waits for the end of standard input.
pub async fn until_eof() {
    let mut orders = orders::<Order>();
    while orders.recv().await.is_some() {}
}

async fn source(mut out: impl Outgoing, credit: &Credit, payload: usize) -> Result<(), ApiError> {
    let mut orders = orders();
    answer(&Answer::Ready { at: String::new() })?;
    let mut message = noise(payload.max(HEADER_BYTES));
    while let Some(order) = orders.recv().await {
        let Order::Send { phase, rate_per_s, for_ms, window } = order else { continue };
        let pace = Pace { phase, end: Instant::now() + Duration::from_millis(for_ms), window };
        let done = if rate_per_s == 0 {
            send_fast(&mut out, credit, &mut message, &pace).await?
        } else {
            send_at(&mut out, &mut message, &pace, rate_per_s).await?
        };
        answer(&done)?;
    }
    Ok(())
}

struct Pace {
    phase: u32,
    end: Instant,
    window: u32,
}

async fn send_fast(
    out: &mut impl Outgoing,
    credit: &Credit,
    message: &mut [u8],
    pace: &Pace,
) -> Result<Answer, ApiError> {
    let (mut sent, mut lost, mut stalls) = (0u32, 0u32, 0u32);
    let mut progress = (0, Instant::now());
    while Instant::now() < pace.end {
        let received = credit.received(pace.phase);
        if received != progress.0 {
            progress = (received, Instant::now());
        }
        let outstanding = sent.saturating_sub(received.saturating_add(lost));
        if outstanding < pace.window {
            for _ in 0..BURST.min(pace.window.saturating_sub(outstanding)) {
                stamp(message, pace.phase, sent);
                out.send(message).await?;
                sent = sent.saturating_add(1);
            }
            continue;
        }
        out.flush().await?;
        if progress.1.elapsed() > STALL_AFTER {
            stalls = stalls.saturating_add(1);
            lost = sent.saturating_sub(received);
            progress.1 = Instant::now();
        }
        sleep(Duration::from_millis(1)).await;
    }
    out.flush().await?;
    Ok(Answer::Sent { sent, stalls })
}

async fn send_at(
    out: &mut impl Outgoing,
    message: &mut [u8],
    pace: &Pace,
    rate_per_s: u32,
) -> Result<Answer, ApiError> {
    let start = Instant::now();
    let mut sent = 0u32;
    loop {
        let due = start + Duration::from_secs_f64(f64::from(sent) / f64::from(rate_per_s));
        if due >= pace.end {
            return Ok(Answer::Sent { sent, stalls: 0 });
        }
        sleep_until(due).await;
        stamp(message, pace.phase, sent);
        out.send(message).await?;
        out.flush().await?;
        sent = sent.saturating_add(1);
    }
}

/// Bytes that no layer can compress or guess.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

pub(super) fn stamp(message: &mut [u8], phase: u32, number: u32) {
    let mut header = [0; HEADER_BYTES];
    let (time, rest) = header.split_at_mut(8);
    let (phase_at, number_at) = rest.split_at_mut(4);
    time.copy_from_slice(&now_ns().to_le_bytes());
    phase_at.copy_from_slice(&phase.to_le_bytes());
    number_at.copy_from_slice(&number.to_le_bytes());
    if let Some(front) = message.get_mut(..HEADER_BYTES) {
        front.copy_from_slice(&header);
    }
}

/// Send time, phase and number of a payload.
fn read_stamp(payload: &[u8]) -> Option<(u64, u32, u32)> {
    let (time, rest) = payload.split_first_chunk::<8>()?;
    let (phase, rest) = rest.split_first_chunk::<4>()?;
    let (number, _) = rest.split_first_chunk::<4>()?;
    Some((u64::from_le_bytes(*time), u32::from_le_bytes(*phase), u32::from_le_bytes(*number)))
}

async fn sink(mut from: impl Incoming, at: &str, credit: &Credit, silence: Duration) -> Result<(), ApiError> {
    let mut orders = orders();
    answer(&Answer::Ready { at: at.to_owned() })?;
    let mut tally = Tally::default();
    let mut asked: Option<(u32, u32)> = None;
    let mut tick = interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut got = Vec::new();
    loop {
        tokio::select! {
            received = from.receive(&mut got) => {
                received?;
                let now = now_ns();
                for payload in got.drain(..) {
                    tally.add(&payload, now);
                }
                credit.set(tally.phase, tally.received.messages);
            }
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Report { phase, sent }) => asked = Some((phase, sent)),
                Some(Order::Send { .. }) => {}
            },
            _ = tick.tick() => {}
        }
        if let Some((phase, sent)) = asked
            && ((tally.phase == phase && tally.received.messages >= sent)
                || now_ns().saturating_sub(tally.last_ns) > silence.as_nanos() as u64)
        {
            asked = None;
            answer(&Answer::Received(tally.report(phase)))?;
        }
    }
}

/// What a sink has of the newest phase.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) phase: u32,
    pub(super) received: Received,
    seen: Vec<bool>,
    latest: u32,
    first_ns: u64,
    pub(super) last_ns: u64,
    latencies_ns: Vec<u64>,
}

impl Tally {
    pub(super) fn add(&mut self, payload: &[u8], now_ns: u64) {
        let Some((sent_ns, phase, number)) = read_stamp(payload) else { return };
        if phase < self.phase {
            // A straggler of a phase that was reported.
            return;
        }
        if phase > self.phase {
            *self = Self { phase, first_ns: now_ns, ..Self::default() };
        }
        let at = number as usize;
        if self.seen.len() <= at {
            self.seen.resize(at.saturating_add(1), false);
        }
        let Some(seen) = self.seen.get_mut(at) else { return };
        self.last_ns = now_ns;
        if std::mem::replace(seen, true) {
            self.received.duplicates += 1;
            return;
        }
        self.received.messages += 1;
        if number < self.latest {
            self.received.reordered += 1;
        }
        self.latest = self.latest.max(number);
        self.latencies_ns.push(now_ns.saturating_sub(sent_ns));
    }

    pub(super) fn report(&mut self, phase: u32) -> Received {
        if phase != self.phase {
            return Received::default();
        }
        self.latencies_ns.sort_unstable();
        let us = |per_mille| quantile(&self.latencies_ns, per_mille) as f64 / 1e3;
        Received {
            seconds: self.last_ns.saturating_sub(self.first_ns) as f64 / 1e9,
            p50_us: us(500),
            p99_us: us(990),
            ..self.received.clone()
        }
    }

    /// One-way latency that `per_mille` of a thousand did not exceed, once the phase is reported.
    pub(super) fn latency_us(&self, per_mille: usize) -> f64 {
        quantile(&self.latencies_ns, per_mille) as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_counts_what_is_new_again_and_late() {
        let mut tally = Tally::default();
        let mut message = noise(20);
        for number in [0, 1, 3, 2, 2] {
            stamp(&mut message, 7, number);
            tally.add(&message, now_ns());
        }
        stamp(&mut message, 6, 9);
        tally.add(&message, now_ns());
        let report = tally.report(7);
        assert_eq!((report.messages, report.duplicates, report.reordered), (4, 1, 1));
        assert!(report.p99_us >= report.p50_us && report.p50_us > 0.0);
        assert_eq!(tally.report(8).messages, 0);
    }
}
