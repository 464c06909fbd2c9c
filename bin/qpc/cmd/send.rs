//! `qpc send`: one message, end-to-end encrypted.

use std::time::Duration;

use clap::ValueEnum;
use quicprochat_mesh::{
    api::{ApiError, DeliveryStatus, FileProgress, Priority, Request, SendOutcome, Target},
    config::{MESSAGE_LIFETIME_MAX, format_duration},
    control::Client,
    wire::limits::CONTENT_BYTES_MAX,
};
use tokio::time::{Instant, timeout_at};

use super::{duration, to_ms};
use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    ink::{Ink, paint},
    progress::Progress,
    source::Source,
};

/// What a spinner says of a message that the node is still putting on its disk.
const HANDING: &str = "handing it to the node";

/// And of one on its way.
const WAITING: &str = "on its way; waiting for the signed receipt";

const EXAMPLES: &str = "\
Examples:
  qpc send --to anna 'see you at six'
  qpc send --to a1b2c3d4 --wait 30s hello          until the receipt is back
  qpc send --to anna --file photo.jpg --wait 5m    a file, with a bar
  qpc send --to anna --priority high - < note.txt  what comes on stdin";

/// Send a message, end-to-end encrypted and signed
///
/// Returns when the local node has it safe on disk, or with --wait when the recipient's node has
/// signed that it stored it. Where the time of --wait runs out the message goes on (exit 75).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Who gets it: an address, a unique prefix of 8 digits or more, or a contact's name
    #[arg(long, value_name = "ADDRESS")]
    to: String,

    #[command(flatten)]
    source: Source,

    /// Wait this long for the signed receipt
    #[arg(long, value_name = "D", value_parser = duration)]
    wait: Option<Duration>,

    /// Give up after this time, at most 14d [default: 24h]
    #[arg(long, value_name = "D", value_parser = duration)]
    ttl: Option<Duration>,

    /// What goes first where links are full
    #[arg(long, value_enum, default_value_t = Class::Normal)]
    priority: Class,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Class {
    Low,
    Normal,
    High,
    Critical,
}

impl From<Class> for Priority {
    fn from(class: Class) -> Self {
        match class {
            Class::Low => Self::Low,
            Class::Normal => Self::Normal,
            Class::High => Self::High,
            Class::Critical => Self::Critical,
        }
    }
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let began = Instant::now();
    Target::parse(&args.to)?;
    check_ttl(args.ttl, MESSAGE_LIFETIME_MAX)?;
    let content = args.source.read(CONTENT_BYTES_MAX)?;
    let request = Request::Send {
        to: args.to,
        priority: args.priority.into(),
        ttl_ms: args.ttl.map(to_ms),
        wait: args.wait.is_some(),
        file_name: content.name,
    };
    let mut progress = Progress::new(cx.out.json);
    let handing = async {
        let mut client = call::start(cx, &request, &content.bytes).await?;
        let queued: SendOutcome = call::first(&mut client).await?;
        Ok::<_, Failure>((client, queued))
    };
    let (mut client, queued) = progress.during(HANDING, handing).await?;
    let (mut outcome, silence) = match args.wait {
        Some(wait) => watch(&mut client, queued, deadline(began, wait), progress).await,
        None => (queued, None),
    };
    outcome.progress = None;
    cx.out.show(&outcome, tell)?;
    let id = outcome.id;
    let reason = outcome.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
    match outcome.status {
        DeliveryStatus::Delivered => Ok(()),
        DeliveryStatus::Queued if args.wait.is_none() => Ok(()),
        DeliveryStatus::Queued => {
            let why = silence.unwrap_or_else(|| format!("no receipt yet{reason}"));
            Err(ApiError::not_yet(format!("{id}: {why}; it goes on, see `qpc outbox list`")).into())
        }
        DeliveryStatus::Expired => {
            Err(ApiError::failed(format!("{id} expired before it was delivered{reason}")).into())
        }
        DeliveryStatus::Failed => Err(ApiError::failed(format!("{id} was not delivered{reason}")).into()),
    }
}

/// The last the node says about a message until `deadline`, and why it says no more.
async fn watch(
    client: &mut Client,
    first: SendOutcome,
    deadline: Instant,
    mut progress: Progress,
) -> (SendOutcome, Option<String>) {
    let mut latest = first;
    loop {
        let frame = match progress.during(WAITING, timeout_at(deadline, client.next())).await {
            Err(_) => return (latest, None),
            Ok(Ok(None)) => return (latest, None),
            // The message is on disk; that the node went away does not undo it.
            Ok(Err(error)) => return (latest, Some(error.message)),
            Ok(Ok(Some(frame))) => frame,
        };
        match frame.parse() {
            Ok(outcome) => latest = outcome,
            Err(error) => return (latest, Some(error.message)),
        }
        if latest.status != DeliveryStatus::Queued {
            return (latest, None);
        }
        if let Some(FileProgress { chunks_done, chunks }) = latest.progress {
            progress.parts(chunks_done, chunks);
        }
    }
}

/// The moment `wait` after `began`; a wait too long to count never ends.
pub fn deadline(began: Instant, wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    began.checked_add(wait.min(CENTURY)).unwrap_or(began)
}

/// Refuses a lifetime that no node would take.
pub fn check_ttl(ttl: Option<Duration>, most: Duration) -> Result<(), Failure> {
    match ttl {
        Some(ttl) if ttl > most || ttl < Duration::from_secs(1) => Err(ApiError::usage(format!(
            "--ttl {} is out of range, 1s to {}",
            format_duration(ttl),
            format_duration(most)
        ))
        .into()),
        _ => Ok(()),
    }
}

fn tell(outcome: &SendOutcome) -> String {
    let status = outcome.status.as_str();
    let mut line = format!("{} {}", paint(Ink::of_fate(status), status), outcome.id);
    if outcome.rtt_ms.is_some() {
        line.push_str(&format!(" in {}", human::ms(outcome.rtt_ms)));
    }
    if let Some(hops) = outcome.hops {
        line.push_str(&format!(" over {}", human::number_of(hops.into(), "hop")));
    }
    if let Some(reason) = &outcome.reason {
        line.push_str(&format!(" ({})", human::escape(reason)));
    }
    line
}
