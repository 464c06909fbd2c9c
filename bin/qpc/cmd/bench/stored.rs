//! `qpc bench stored`: a custodian that holds a million messages, started on them.
//!
//! The messages are real ones, signed by many sources for many destinations, and are put into the
//! store of a data directory before the node runs: by the store's own code, with its quotas and its
//! seals. Then the real `qpc run` is started on that directory, twice: after a clean end, and after
//! it was killed. Each time it is read how long it takes to be ready and how much memory it has; and
//! one destination comes up, and it is read how long its first page takes to arrive.

use std::{
    fs,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use quicprochat_mesh::{
    api::{ApiError, Ready},
    clock,
    crypto::{MeshIdentity, SignatureInput, compute_address, network_id},
    proto::delivery::batch::{Draft, sign_one},
    storage::{
        DataDir, EmbeddedOptions, EmbeddedStore, HeldRow, MailOp, MailOutcome, Mailboxes, QueueBounds,
        StoreError, StoreThread,
    },
    wire::{Address, EnvelopeHeader, FrameExt, Lifetime, Priority},
};
use serde::Serialize;
use tokio::time::timeout;

use super::{
    ends::{HEADER_BYTES, Incoming, noise},
    measure::Usage,
    relay::{Part, READY_WITHIN, round, this_program},
    volatile::{NETWORK, Sink, message_header},
};
use crate::{cx::Context, fail::Failure, human, out::note};

/// Sources of the messages: each may have a tenth of the mailboxes.
const SOURCES: u32 = 20;

/// Neighbours that brought them: each may have a quarter.
const NEIGHBOURS: u32 = 8;

/// Messages put into the store with one commit.
const BATCH: usize = 1024;

/// The first page of a destination may take so long before the benchmark gives up.
const PAGE_WITHIN: Duration = Duration::from_secs(60);

/// What belongs to one page comes without such a pause.
const SILENCE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  qpc bench stored --messages 100000";

/// Measure a node that holds very many messages for others
///
/// Fills the store of a data directory, starts `qpc run` on it, and reads how long that takes, how
/// much memory it has and how soon a destination that comes up gets its first messages.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Messages that are held
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    messages: u32,

    /// Destinations they are for
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    destinations: u32,

    /// Bytes of each
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=600))]
    payload: u32,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answered {
    messages: u32,
    destinations: u32,
    payload: u32,
    /// What the store's file takes.
    store_mib: f64,
    fill_seconds: f64,
    clean: Started,
    killed: Started,
}

/// A start on what is held.
#[derive(Debug, Serialize)]
struct Started {
    ready_seconds: f64,
    rss_mib: f64,
    /// `qpc mailboxes`: how long, and how many messages it counts.
    mailboxes_seconds: f64,
    messages: u64,
    /// From the destination's dial until its first message is there, and until the last one of its
    /// first page is; the next page waits for receipts, which this destination does not send.
    first_message_ms: f64,
    first_page_ms: f64,
    first_page_messages: usize,
    peak_rss_mib: f64,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let root = std::env::temp_dir().join(format!("qpc-bench-{}", std::process::id()));
    let answered = measure(&args, &root).await;
    // Whatever it came to, nothing is left behind.
    let _ = fs::remove_dir_all(&root);
    cx.out.show(&answered?, tell)
}

async fn measure(args: &Args, root: &Path) -> Result<Answered, ApiError> {
    let data_dir = root.join("node");
    note(format!("{} messages are signed and stored", args.messages));
    let began = Instant::now();
    let filled = {
        let (args, data_dir) = ((args.messages, args.destinations, args.payload), data_dir.clone());
        tokio::task::spawn_blocking(move || fill(args, &data_dir)).await
    };
    filled.map_err(ApiError::failed)??;
    let fill_seconds = began.elapsed().as_secs_f64();
    let store = fs::metadata(data_dir.join("store.redb")).map_err(ApiError::failed)?;

    note("the node is started on them");
    let (node, clean) = start(&data_dir, 0).await?;
    note("it is killed and started again");
    node.stop().await;
    let (node, killed) = start(&data_dir, 1).await?;
    node.stop().await;
    Ok(Answered {
        messages: args.messages,
        destinations: args.destinations,
        payload: args.payload,
        store_mib: round(store.len() as f64 / f64::from(1 << 20), 1),
        fill_seconds: round(fill_seconds, 1),
        clean,
        killed,
    })
}

/// Starts the node and has the destination of this number come up.
async fn start(data_dir: &Path, destination: u32) -> Result<(Part, Started), ApiError> {
    let mut command = this_program()?;
    command.arg("--data-dir").arg(data_dir).args(["--json", "run"]);
    command.args(["--listen", "quic://127.0.0.1:0", "--health-listen", "off"]);
    let began = Instant::now();
    let mut node = Part::start("node", command)?;
    let ready: Ready = node.line(READY_WITHIN).await?;
    let ready_seconds = began.elapsed().as_secs_f64();
    let rss_kib = Usage::of(node.pid)?.rss_kib;

    let began = Instant::now();
    let mut command = this_program()?;
    command.arg("--data-dir").arg(data_dir).args(["--json", "mailboxes"]);
    let output = command.output().await.map_err(ApiError::failed)?;
    let mailboxes_seconds = began.elapsed().as_secs_f64();
    let lines = String::from_utf8_lossy(&output.stdout);
    let counted = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let messages = counted.filter_map(|mailbox| mailbox.get("messages")?.as_u64()).sum();

    let url = ready.listen.first().cloned().unwrap_or_default();
    let began = Instant::now();
    let mut sink = Sink::connect_as(&url, identity(Who::Destination, destination)).await?;
    let (mut got, mut received, mut first, mut last) = (Vec::new(), 0, None, PAGE_WITHIN);
    // What comes after a second of silence is no part of the first page.
    while let Ok(came) = timeout(first.map_or(PAGE_WITHIN, |_| SILENCE), sink.receive(&mut got)).await {
        came?;
        if !got.is_empty() {
            last = began.elapsed();
            first.get_or_insert(last);
        }
        received += got.drain(..).count();
    }
    let usage = Usage::of(node.pid)?;
    let started = Started {
        ready_seconds: round(ready_seconds, 2),
        rss_mib: mib(rss_kib),
        mailboxes_seconds: round(mailboxes_seconds, 3),
        messages,
        first_message_ms: round(first.unwrap_or(PAGE_WITHIN).as_secs_f64() * 1e3, 1),
        first_page_ms: round(last.as_secs_f64() * 1e3, 1),
        first_page_messages: received,
        peak_rss_mib: mib(usage.peak_rss_kib),
    };
    Ok((node, started))
}

/// Whose identity.
#[derive(Debug, Clone, Copy)]
enum Who {
    Source = 1,
    Neighbour = 2,
    Destination = 3,
}

/// The same at each call, so that a destination can come up later.
fn identity(who: Who, number: u32) -> MeshIdentity {
    let mut seed = [0; 32];
    let [first, rest @ ..] = &mut seed;
    *first = who as u8;
    if let Some(place) = rest.first_chunk_mut::<4>() {
        *place = number.to_be_bytes();
    }
    MeshIdentity::from_seed(seed)
}

fn fill((messages, destinations, payload): (u32, u32, u32), data_dir: &Path) -> Result<(), ApiError> {
    MeshIdentity::load_or_create(data_dir).map_err(ApiError::failed)?;
    let dir = Arc::new(DataDir::open(data_dir).map_err(ApiError::failed)?);
    let engine = EmbeddedStore::open(dir, EmbeddedOptions::default()).map_err(ApiError::failed)?;
    let thread = StoreThread::start(Box::new(engine), QueueBounds::default(), Box::new(|_| {}));
    let thread = thread.map_err(ApiError::failed)?;
    let mut input = SignatureInput::new(network_id(NETWORK));
    let sources: Vec<_> = (0..SOURCES).map(|n| identity(Who::Source, n)).collect();
    let addresses = |who, count| -> Vec<Address> {
        (0..count).map(|n| compute_address(&identity(who, n).public_key())).collect()
    };
    let (neighbours, targets) =
        (addresses(Who::Neighbour, NEIGHBOURS), addresses(Who::Destination, destinations));
    let payload = noise((payload as usize).max(HEADER_BYTES));
    // One batch is signed while the one before is written.
    let (tell, told) = mpsc::sync_channel::<Result<(), String>>(1);
    let (mut ops, mut under_way) = (Vec::with_capacity(BATCH), 0u32);
    for (n, ((source, neighbour), destination)) in
        (0..messages).zip(sources.iter().cycle().zip(neighbours.iter().cycle()).zip(targets.iter().cycle()))
    {
        ops.push(MailOp::Hold(held(n, source, *neighbour, *destination, &payload, &mut input)?));
        if ops.len() < BATCH && n + 1 < messages {
            continue;
        }
        let tell = tell.clone();
        let done = Box::new(move |result: Result<Vec<MailOutcome>, StoreError>| {
            let refused = |outcomes: Vec<MailOutcome>| {
                outcomes.into_iter().find(|outcome| !matches!(outcome, MailOutcome::Held { .. }))
            };
            let told = match result.map(refused) {
                Ok(None) => Ok(()),
                Ok(Some(outcome)) => Err(format!("{outcome:?}")),
                Err(error) => Err(error.to_string()),
            };
            // Who waits for it has given up only after another error.
            let _ = tell.send(told);
        });
        Mailboxes::submit(&thread.handle(), std::mem::take(&mut ops), done)
            .map_err(|back| ApiError::failed(back.reason))?;
        under_way += 1;
        if under_way > 1 {
            told.recv().map_err(ApiError::failed)?.map_err(ApiError::failed)?;
            under_way -= 1;
        }
    }
    for _ in 0..under_way {
        told.recv().map_err(ApiError::failed)?.map_err(ApiError::failed)?;
    }
    thread.close();
    Ok(())
}

fn held(
    number: u32,
    source: &MeshIdentity,
    ingress: Address,
    destination: Address,
    payload: &[u8],
    input: &mut SignatureInput,
) -> Result<HeldRow, ApiError> {
    let header = EnvelopeHeader {
        lifetime: Lifetime::at_least(Duration::from_secs(86_400)),
        ..message_header(source.address(), destination, number)
    };
    let made =
        sign_one(source, input, Draft::new(header, header.signed(payload))).map_err(ApiError::failed)?;
    let now_s = clock::unix_s();
    Ok(HeldRow {
        packet_id: made.packet_id,
        destination,
        source: source.address(),
        priority: Priority::Normal,
        ingress,
        expires_s: now_s.saturating_add(86_400),
        held_at_s: now_s,
        age_s: 0,
        frame: made.envelope.with_source_key(source.public_key()).to_frame(FrameExt::default()).to_bytes(),
    })
}

fn mib(kib: u64) -> f64 {
    round(kib as f64 / 1024.0, 1)
}

fn tell(answered: &Answered) -> String {
    let line = |started: &Started| {
        format!(
            "ready in {:.2} s, {:.1} MiB; {} messages counted in {:.3} s; a destination's first message after \
             {:.1} ms, the {} of its first page after {:.1} ms; peak {:.1} MiB",
            started.ready_seconds,
            started.rss_mib,
            started.messages,
            started.mailboxes_seconds,
            started.first_message_ms,
            started.first_page_messages,
            started.first_page_ms,
            started.peak_rss_mib
        )
    };
    human::fields(&[
        (
            "held",
            format!(
                "{} messages of {} B for {} destinations, {:.1} MiB on disk, stored in {:.1} s",
                answered.messages,
                answered.payload,
                answered.destinations,
                answered.store_mib,
                answered.fill_seconds
            ),
        ),
        ("clean start", line(&answered.clean)),
        ("after a kill", line(&answered.killed)),
    ])
}
