//! `qpc bench accepts`: messages a node takes to its disk a second, beside what bounds that.
//!
//! A whole node takes messages with a window of them waiting for the disk, as `send` does: sealed
//! row, one transaction and one sync for all that waits, answer. In turns with it, on the same disk:
//! the store's engine alone, given as many rows at once as the node's commits had, and one core that
//! checks signatures, as it does for what comes from others. The smaller of these two is what a node
//! could do at most if it did nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quicprochat_mesh::{
    api::ApiError,
    clock,
    config::{HealthListen, MeshConfig},
    crypto::{CryptoError, MeshIdentity, SignatureInput, SignedType, VerifyKey, network_id},
    node::{MeshNode, MeshNodeBuilder, Outbound},
    storage::{
        DataDir, EmbeddedOptions, EmbeddedStore, LocalOp, LocalStore, OutboxRow, QueueBounds, StoreThread,
    },
    telemetry,
    wire::{Address, MessageUid},
};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{ends::noise, relay::round, volatile::NETWORK};
use crate::{cx::Context, fail::Failure, human, out::note};

/// Keys whose signatures are checked in turn: those of one key alone would be cheaper.
const KEYS: u8 = 64;

/// How long signatures are checked in a round.
const CHECKING: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  qpc bench accepts --dir /var/lib
  qpc bench accepts --payload 1024 --window 256";

/// Measure how many messages a node takes to its disk
///
/// In turns: a node with a window of messages that wait for the disk, the store's engine alone with
/// batches of the same size, and one core checking signatures.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A directory on the disk [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Bytes of a message
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=8192))]
    payload: u32,

    /// Messages that wait for the disk at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    window: u16,

    /// How long in each round
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=6))]
    seconds: u64,

    /// Rounds; the middle one counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answered {
    payload: u32,
    window: u16,
    accepts_per_s: f64,
    /// Messages in one commit of the node.
    batch: f64,
    engine_per_s: f64,
    verifications_per_s: f64,
    /// Accepts by the smaller of the two.
    ratio: f64,
    rounds: Vec<Round>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Round {
    accepts_per_s: f64,
    batch: f64,
    engine_per_s: f64,
    verifications_per_s: f64,
    ratio: f64,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let root = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    if !root.is_dir() {
        return Err(ApiError::usage(format!("--dir {}: no directory is there", root.display())).into());
    }
    let root = root.join(format!("qpc-bench-{}", std::process::id()));
    let answered = measure(&args, &root).await;
    // Whatever it came to, nothing is left behind.
    let _ = fs::remove_dir_all(&root);
    cx.out.show(&answered?, tell)
}

async fn measure(args: &Args, root: &Path) -> Result<Answered, ApiError> {
    let mut rounds = Vec::new();
    for n in 1..=args.rounds {
        note(format!("round {n} of {}", args.rounds));
        let dir = root.join(n.to_string());
        let (accepts_per_s, batch) = node(args, &dir.join("node")).await?;
        let engine_per_s = {
            let (seconds, payload) = (args.seconds, args.payload as usize);
            let dir = dir.join("engine");
            let alone = move || engine(&dir, batch.round().max(1.0) as usize, payload, seconds);
            tokio::task::spawn_blocking(alone).await.map_err(ApiError::failed)??
        };
        let verifications_per_s =
            tokio::task::spawn_blocking(verifications).await.map_err(ApiError::failed)??;
        let bound = f64::min(engine_per_s, verifications_per_s);
        let ratio = accepts_per_s / bound.max(1e-9);
        rounds.push(Round { accepts_per_s, batch, engine_per_s, verifications_per_s, ratio });
        // A round's files are not to make the next one's commits slower.
        let _ = fs::remove_dir_all(&dir);
    }
    let middle = |of: fn(&Round) -> f64, digits| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        round(all.get(all.len() / 2).copied().unwrap_or_default(), digits)
    };
    Ok(Answered {
        payload: args.payload,
        window: args.window,
        accepts_per_s: middle(|r| r.accepts_per_s, 0),
        batch: middle(|r| r.batch, 1),
        engine_per_s: middle(|r| r.engine_per_s, 0),
        verifications_per_s: middle(|r| r.verifications_per_s, 0),
        ratio: middle(|r| r.ratio, 3),
        rounds,
    })
}

/// Accepts a second, and messages in one commit.
async fn node(args: &Args, dir: &Path) -> Result<(f64, f64), ApiError> {
    let mut config = MeshConfig::default();
    config.transport.listen = vec!["tcp://127.0.0.1:0".parse().map_err(ApiError::failed)?];
    let node = MeshNodeBuilder::new().config(config).health_listen(HealthListen::Off).data_dir(dir);
    let node = node.build().await.map_err(ApiError::failed)?;
    let running = node.run().await.map_err(ApiError::failed)?;
    // Nobody it has a path to: what is measured is the way to the disk.
    let to = Address([0x77; Address::LEN]);
    let content = Bytes::from(noise(args.payload as usize));
    let commits = || {
        let now = telemetry::snapshot();
        let name = telemetry::COMMIT_BATCH;
        (now.sum(&format!("{name}_count")), now.sum(&format!("{name}_sum")))
    };
    // The first commits of a start are not the node's pace.
    fill(running.node(), to, &content, args.window, Duration::from_millis(200)).await?;
    let before = commits();
    let began = Instant::now();
    let accepted = fill(running.node(), to, &content, args.window, Duration::from_secs(args.seconds)).await?;
    let took = began.elapsed().as_secs_f64();
    let after = commits();
    running.shutdown().await.map_err(ApiError::failed)?;
    // What it forgets and asks its store besides is in the sum too, and is little.
    let batch = (after.1 - before.1) / (after.0 - before.0).max(1.0);
    Ok((accepted as f64 / took, batch))
}

async fn fill(
    node: &MeshNode,
    to: Address,
    content: &Bytes,
    window: u16,
    time: Duration,
) -> Result<u64, ApiError> {
    let until = Instant::now() + time;
    let mut senders = JoinSet::new();
    for _ in 0..window {
        let (node, content) = (node.clone(), content.clone());
        senders.spawn(async move {
            let mut accepted = 0u64;
            while Instant::now() < until {
                match node.send(Outbound::new(to, content.clone())).await {
                    Ok(_) => accepted += 1,
                    Err(error) => return Err(ApiError::failed(error)),
                }
            }
            Ok(accepted)
        });
    }
    let mut accepted = 0;
    while let Some(done) = senders.join_next().await {
        accepted += done.map_err(ApiError::failed)??;
    }
    // The last completion is told before its commit is counted.
    sleep(Duration::from_millis(20)).await;
    Ok(accepted)
}

/// Rows a second that the engine takes alone, `batch` of them with each sync.
fn engine(dir: &Path, batch: usize, payload: usize, seconds: u64) -> Result<f64, ApiError> {
    MeshIdentity::load_or_create(dir).map_err(ApiError::failed)?;
    let data_dir = Arc::new(DataDir::open(dir).map_err(ApiError::failed)?);
    let engine = EmbeddedStore::open(data_dir, EmbeddedOptions::default()).map_err(ApiError::failed)?;
    let thread = StoreThread::start(Box::new(engine), QueueBounds::default(), Box::new(|_| {}));
    let thread = thread.map_err(ApiError::failed)?;
    let handle = thread.handle();
    let (tell, told) = mpsc::sync_channel(1);
    let body = noise(payload.saturating_add(96));
    let (mut rows, mut number) = (0u64, 0u128);
    let now_s = clock::unix_s();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        let ops = (0..batch).map(|_| {
            number += 1;
            // As uids are: in no order.
            let uid =
                MessageUid(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
            LocalOp::OutboxPut(OutboxRow {
                uid,
                destination: Address([0x77; Address::LEN]),
                created_unix_s: now_s,
                expires_s: now_s.saturating_add(86_400),
                state: Vec::new(),
                body: body.clone(),
            })
        });
        let tell = tell.clone();
        let done = Box::new(move |result: Result<_, _>| drop(tell.send(result.map(|_| ()))));
        LocalStore::submit(&handle, ops.collect(), done).map_err(|back| ApiError::failed(back.reason))?;
        told.recv().map_err(ApiError::failed)?.map_err(ApiError::failed)?;
        rows += batch as u64;
    }
    let took = began.elapsed().as_secs_f64();
    thread.close();
    Ok(rows as f64 / took)
}

/// Signatures that one core checks a second.
fn verifications() -> Result<f64, ApiError> {
    let mut input = SignatureInput::new(network_id(NETWORK));
    let message = noise(320);
    let signed: Vec<_> = (0..KEYS)
        .map(|n| {
            let identity = MeshIdentity::from_seed([n; 32]);
            let signature = identity.sign(input.of(SignedType::Announce, &message));
            Ok((VerifyKey::new(&identity.public_key())?, signature))
        })
        .collect::<Result<_, CryptoError>>()
        .map_err(ApiError::failed)?;
    let began = Instant::now();
    let mut checked = 0u64;
    while began.elapsed() < CHECKING {
        for (key, signature) in &signed {
            let checking = input.of(SignedType::Announce, &message);
            checking.verify(key, signature).map_err(ApiError::failed)?;
            checked += 1;
        }
    }
    Ok(checked as f64 / began.elapsed().as_secs_f64())
}

fn tell(answered: &Answered) -> String {
    human::fields(&[
        (
            "accepts/s",
            format!(
                "{:.0}, {} waiting for the disk, {:.1} in a commit",
                answered.accepts_per_s, answered.window, answered.batch
            ),
        ),
        ("engine/s", format!("{:.0} with such commits", answered.engine_per_s)),
        ("signatures/s", format!("{:.0} on one core", answered.verifications_per_s)),
        ("ratio", format!("{:.2} of the smaller", answered.ratio)),
    ])
}
