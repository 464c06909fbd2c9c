//! This node as one peer of a comparison with other systems.
//!
//! A driver starts a relay, a sink and a source of each system in turn, runs the same phases with
//! all of them and reads what each relay used. What it asks of a system is a process per role that
//! speaks lines:
//!
//! - each prints `{"event":"ready","pid",…}` once it stands: the relay with `addr`, the sink with
//!   `dest`;
//! - `run PHASE RATE SECONDS WINDOW PAYLOAD` to the source, at rate 0 as fast as the window allows;
//! - `report PHASE SENT` to the sink;
//! - all of them end with their standard input.
//!
//! The relay is the real `qpc run` with its defaults; the ends are those of `bench relay --ends
//! volatile`.

use std::{
    path::PathBuf,
    process::{Stdio, id},
    time::Duration,
};

use quicprochat_mesh::api::{ApiError, Ready};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until},
};

use super::{
    ends::{HEADER_BYTES, Incoming, Outgoing, Proof, Tally, noise, stamp},
    measure::{Credit, Usage, now_ns},
    relay::{lift_budgets, this_program},
    volatile,
};

/// Messages handed over between two looks at the clock.
const BURST: u32 = 64;

/// A closed window is looked at so often.
const WINDOW_POLL: Duration = Duration::from_micros(200);

/// Without progress for so long what is on its way counts as lost, and the window opens again.
const STALL_AFTER: Duration = Duration::from_millis(300);

/// A sink reports once nothing has come for so long.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// One process of a comparison with other systems
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    role: Role,
    /// Where the relay listens
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: String,
    /// URL of the relay
    #[arg(long, default_value = "", value_name = "URL")]
    connect: String,
    /// What the sink said it is
    #[arg(long, default_value = "", value_name = "ADDRESS")]
    dest: String,
    /// File that paces the source
    #[arg(long, value_name = "FILE")]
    credit: Option<PathBuf>,
    /// Quiet clients to open
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Choices of the driver: `transport=quic|tcp`, `proof=plain|merkle`
    #[arg(long = "opt", value_name = "NAME=VALUE")]
    options: Vec<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Role {
    Relay,
    Sink,
    Source,
    Idle,
}

/// Runs one role until standard input ends.
pub async fn run(args: Args) -> Result<(), ApiError> {
    let Options { scheme, proof } = Options::read(&args.options)?;
    let credit = || {
        let path = args.credit.as_deref().ok_or_else(|| ApiError::usage("--credit FILE is missing"))?;
        Credit::open(path)
    };
    match args.role {
        Role::Relay => relay(scheme, &args.listen).await,
        Role::Sink => sink(volatile::Sink::connect(&args.connect).await?, &credit()?).await,
        Role::Source => {
            source(volatile::Source::connect(&args.connect, &args.dest, proof).await?, &credit()?).await
        }
        Role::Idle => idle(&args.connect, args.count).await,
    }
}

struct Options {
    scheme: &'static str,
    proof: Proof,
}

impl Options {
    fn read(options: &[String]) -> Result<Self, ApiError> {
        let mut chosen = Self { scheme: "quic", proof: Proof::Plain };
        for option in options {
            match option.as_str() {
                "transport=quic" => chosen.scheme = "quic",
                "transport=tcp" => chosen.scheme = "tcp",
                "proof=plain" => chosen.proof = Proof::Plain,
                "proof=merkle" => chosen.proof = Proof::Merkle,
                unknown => {
                    return Err(ApiError::usage(format!(
                        "--opt {unknown}: known are transport=quic, transport=tcp, proof=plain and proof=merkle"
                    )));
                }
            }
        }
        Ok(chosen)
    }
}

async fn relay(scheme: &str, listen: &str) -> Result<(), ApiError> {
    let dir = std::env::temp_dir().join(format!("qpc-peer-{}", id()));
    let mut command = this_program()?;
    lift_budgets(&mut command);
    command.arg("--data-dir").arg(&dir).args(["--json", "run", "--health-listen", "off"]);
    command.arg("--listen").arg(format!("{scheme}://{listen}"));
    let mut node = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| ApiError::failed(format!("cannot start the relay: {e}")))?;
    let silent = || ApiError::failed("the relay ended before it was ready");
    let mut answers = BufReader::new(node.stdout.take().ok_or_else(silent)?).lines();
    let line = answers.next_line().await.ok().flatten().ok_or_else(silent)?;
    let stands: Ready = serde_json::from_str(&line).map_err(ApiError::failed)?;
    ready(&json!({"pid": stands.pid, "addr": stands.listen.first()}));
    let mut lines = lines();
    while lines.recv().await.is_some() {}
    // Gone already, or gone now: either way there is nothing left to clean up but its folder.
    let _ = node.kill().await;
    let _ = std::fs::remove_dir_all(&dir);
    Ok(())
}

async fn idle(relay: &str, count: usize) -> Result<(), ApiError> {
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let mut client = volatile::Sink::connect(relay).await?;
        clients.spawn(async move {
            let mut none = Vec::new();
            while client.receive(&mut none).await.is_ok() {}
        });
    }
    ready(&json!({}));
    let mut lines = lines();
    while lines.recv().await.is_some() {}
    Ok(())
}

async fn source(mut out: volatile::Source, credit: &Credit) -> Result<(), ApiError> {
    let mut lines = lines();
    ready(&json!({}));
    while let Some(line) = lines.recv().await {
        let Some(order) = Run::read(&line) else { continue };
        let cpu_ns = Usage::of(id())?.cpu_ns;
        let start = Instant::now();
        let (sent, stalls) = order.send(&mut out, credit, start).await?;
        let usage = Usage::of(id())?;
        say(&json!({
            "event": "result", "phase": order.phase, "sent": sent, "seconds": start.elapsed().as_secs_f64(),
            "stalls": stalls, "send_errors": 0, "rss_kib": usage.peak_rss_kib,
            "cpu_s": usage.cpu_ns.saturating_sub(cpu_ns) as f64 / 1e9,
        }));
    }
    Ok(())
}

/// `run PHASE RATE SECONDS WINDOW PAYLOAD`
#[derive(Debug, Clone, Copy)]
struct Run {
    phase: u32,
    rate_per_s: f64,
    seconds: f64,
    window: u32,
    payload: usize,
}

impl Run {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        if words.next() != Some("run") {
            return None;
        }
        let run = Self {
            phase: words.next()?.parse().ok()?,
            rate_per_s: words.next()?.parse().ok()?,
            seconds: words.next()?.parse().ok()?,
            window: words.next()?.parse().ok()?,
            payload: words.next()?.parse().ok()?,
        };
        let in_range = (0.0..1e9).contains(&run.rate_per_s) && (0.0..1e6).contains(&run.seconds);
        in_range.then_some(run)
    }

    /// Sends the phase; gives the messages sent and the stalls.
    async fn send(
        &self,
        out: &mut volatile::Source,
        credit: &Credit,
        start: Instant,
    ) -> Result<(u32, u32), ApiError> {
        let mut message = noise(self.payload.max(HEADER_BYTES));
        let end = start + Duration::from_secs_f64(self.seconds);
        let (mut sent, mut lost, mut stalls) = (0u32, 0u32, 0u32);
        let mut progress = (0, start);
        while Instant::now() < end {
            let mut burst = 1;
            if self.rate_per_s > 0.0 {
                let due = start + Duration::from_secs_f64(f64::from(sent) / self.rate_per_s);
                if due >= end {
                    break;
                }
                if due > Instant::now() {
                    out.flush().await?;
                    sleep_until(due).await;
                }
            } else {
                let received = credit.received(self.phase);
                if received != progress.0 {
                    progress = (received, Instant::now());
                }
                let open = self.window.saturating_sub(sent.saturating_sub(received.max(lost)));
                if open == 0 {
                    out.flush().await?;
                    if progress.1.elapsed() > STALL_AFTER {
                        stalls = stalls.saturating_add(1);
                        lost = sent;
                        progress.1 = Instant::now();
                    }
                    sleep(WINDOW_POLL).await;
                    continue;
                }
                burst = open.min(BURST);
            }
            for _ in 0..burst {
                stamp(&mut message, self.phase, sent);
                out.send(&message).await?;
                sent = sent.saturating_add(1);
            }
        }
        out.flush().await?;
        Ok((sent, stalls))
    }
}

async fn sink(mut from: volatile::Sink, credit: &Credit) -> Result<(), ApiError> {
    let mut lines = lines();
    ready(&json!({"dest": from.address().to_string()}));
    let mut tally = Tally::default();
    let mut asked: Option<(u32, u32)> = None;
    let mut tick = interval(Duration::from_millis(5));
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
            line = lines.recv() => match line {
                None => return Ok(()),
                Some(line) => asked = read_report(&line).or(asked),
            },
            _ = tick.tick(), if asked.is_some() => {}
        }
        if let Some((phase, sent)) = asked
            && ((tally.phase == phase && tally.received.messages >= sent)
                || now_ns().saturating_sub(tally.last_ns) > QUIET_AFTER.as_nanos() as u64)
        {
            asked = None;
            let all = tally.report(phase);
            let rate = f64::from(all.messages.saturating_sub(1)) / all.seconds.max(1e-9);
            say(&json!({
                "event": "result", "phase": phase, "received": all.messages, "dup": all.duplicates,
                "reordered": all.reordered, "seconds": all.seconds, "rate": rate,
                "p50_us": all.p50_us, "p90_us": tally.latency_us(900), "p99_us": all.p99_us,
                "max_us": tally.latency_us(1000), "rss_kib": Usage::of(id())?.peak_rss_kib,
            }));
        }
    }
}

/// `report PHASE SENT`
fn read_report(line: &str) -> Option<(u32, u32)> {
    let mut words = line.split_whitespace();
    let is_report = words.next() == Some("report");
    let report = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    is_report.then_some(report)
}

fn ready(more: &Value) {
    let mut event = json!({"event": "ready", "pid": id()});
    if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
        event.extend(more.clone());
    }
    say(&event);
}

/// A driver that no longer listens has closed our input as well.
fn say(event: &Value) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{event}").and_then(|()| stdout.flush());
}

fn lines() -> mpsc::UnboundedReceiver<String> {
    use std::io::BufRead;
    let (tx, rx) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tx.send(line).is_err() {
                return;
            }
        }
    });
    rx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_whole_or_not_at_all() {
        let run = Run::read("run 3 1000 2.5 64 256").unwrap();
        assert_eq!((run.phase, run.window, run.payload), (3, 64, 256));
        assert_eq!((run.rate_per_s, run.seconds), (1000.0, 2.5));
        for bad in ["", "run", "run 1 2 3 4", "walk 1 2 3 4 5", "run 1 nan 1 1 1", "run 1 0 -1 1 1"] {
            assert!(Run::read(bad).is_none(), "{bad}");
        }
        assert_eq!(read_report("report 2 77"), Some((2, 77)));
        assert_eq!(read_report("report 2"), None);
        assert_eq!(read_report("run 2 77"), None);
    }
}
