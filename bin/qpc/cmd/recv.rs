//! `qpc recv`: takes messages out of the inbox.

use std::{path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use quicprochat_mesh::{
    api::{ApiError, InboxItem, Received, Request},
    control::ReplyFrame,
    wire::Digest,
};
use sha2::Digest as _;
use tokio::time::{Instant, timeout_at};

use super::{duration, send::deadline};
use crate::{
    call,
    cx::{Context, path_text},
    fail::Failure,
    human,
    ink::Ink,
    out::is_closed,
    progress::Progress,
    save::save,
};

/// Content up to this size stands in the line itself.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Where content goes that fits no line, below the data directory, unless --save names a place: it
/// must be somewhere before the node forgets it.
const RECEIVED_DIR: &str = "received";

const EXAMPLES: &str = "\
Examples:
  qpc recv                                read what is there
  qpc recv --follow                       and what comes
  qpc recv --count 1 --timeout 1m --json  wait for one message, for programs
  qpc recv --save ./in                    files into a directory
  qpc recv --keep                         look, and leave everything";

/// Take messages out of the inbox, oldest first
///
/// Each is removed only after its line was written and flushed, and its file synced; a killed recv
/// may repeat one. Content that fits no line is saved (see --save) unless --inline is given. Ends
/// when the inbox is empty, unless --follow, --count or --timeout is given.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Go on with messages as they arrive
    #[arg(long)]
    follow: bool,

    /// Wait for this many messages, then end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after this time; exit 75 where --count was not met
    #[arg(long, value_name = "D", value_parser = duration)]
    timeout: Option<Duration>,

    /// Leave the messages in the inbox
    #[arg(long)]
    keep: bool,

    /// Write files into this directory [default: "received" in the data directory, only for what
    /// fits no line]
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,

    /// Print content of any size in base64
    #[arg(long)]
    inline: bool,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if !args.keep && is_closed(std::io::stdout()) {
        let text = "stdout is closed, and what is taken out of the inbox would be lost: give --keep, or redirect \
                    stdout to a file (to /dev/null to throw messages away)";
        return Err(ApiError::usage(text).into());
    }
    let until = args.timeout.map(|timeout| deadline(Instant::now(), timeout));
    let wait = args.follow || args.count.is_some() || args.timeout.is_some();
    let request = Request::Recv { count: args.count, wait, keep: args.keep };
    let mut client = call::start(cx, &request, &[]).await?;
    let mut taken = 0u64;
    loop {
        let frame = match until {
            // What was on its way when the time ran out is not acknowledged, so it stays.
            Some(until) => match timeout_at(until, client.next()).await {
                Ok(next) => next?,
                Err(_) => return finish(&args, taken),
            },
            None => client.next().await?,
        };
        let Some(frame) = frame else { return finish(&args, taken) };
        let received = receive(&args, cx, &frame).await?;
        cx.out.show(&received, tell)?;
        if let Some(number) = frame.ack {
            client.acknowledge(number).await?;
        }
        taken = taken.saturating_add(1);
    }
}

fn finish(args: &Args, taken: u64) -> Result<(), Failure> {
    match args.count {
        Some(count) if taken < count => {
            Err(ApiError::not_yet(format!("{taken} of {count} messages came in time")).into())
        }
        _ => Ok(()),
    }
}

/// Puts the content where it was asked for.
async fn receive(args: &Args, cx: &Context, frame: &ReplyFrame) -> Result<Received, Failure> {
    let item: InboxItem = frame.parse()?;
    let content = &frame.payload;
    let small = content.len() <= INLINE_BYTES_MAX;
    let text = std::str::from_utf8(content).ok().filter(|_| small).map(str::to_owned);
    // For people what is no text is a file: a screen of base64 tells nobody anything.
    let inline = args.inline || (small && cx.out.json);
    let payload_b64 = (text.is_none() && inline).then(|| STANDARD.encode(content));
    let is_shown = text.is_some() || payload_b64.is_some();
    let file_name = item.name.clone().unwrap_or_else(|| format!("{}.bin", item.id));
    let dir = match &args.save {
        // A line of chat is no file; a named content is, and so is what is not text.
        Some(dir) if item.name.is_some() || text.is_none() => Some(dir.clone()),
        // With --keep the node does not forget it.
        None if !is_shown && !args.keep => Some(cx.data_dir.join(RECEIVED_DIR)),
        _ => None,
    };
    let file = match dir {
        Some(dir) => Some(write(cx, dir, file_name, content.clone()).await?),
        None => None,
    };
    Ok(Received {
        id: item.id,
        from: item.from,
        from_name: item.from_name,
        broadcast: item.broadcast,
        sent_at: item.sent_at,
        received_at: item.received_at,
        hops: item.hops,
        size: item.size,
        name: item.name,
        text,
        payload_b64,
        file: file.as_deref().map(path_text),
        sha256: Digest(sha2::Sha256::digest(content).into()),
    })
}

/// Saves content on a thread of its own: a slow disk may take its time.
async fn write(cx: &Context, dir: PathBuf, name: String, content: Bytes) -> Result<PathBuf, Failure> {
    let text = format!("writing {} to disk", human::bytes(content.len() as u64));
    let saved = tokio::task::spawn_blocking(move || save(&dir, &name, &content));
    Ok(Progress::new(cx.out.json).during(&text, saved).await.map_err(ApiError::failed)??)
}

fn tell(message: &Received) -> String {
    let from = match &message.from_name {
        Some(name) => format!("{} ({})", Ink::Bold.paint(human::escape(name)), message.from.short()),
        None => Ink::Bold.paint(message.from),
    };
    let how = match message.broadcast {
        true => Ink::Warn.paint(", to everyone, not encrypted"),
        false => String::new(),
    };
    let when = human::ago(message.received_at, human::now());
    let head = format!("{from}, {when}{how}:");
    let body = match (&message.file, &message.text, &message.payload_b64) {
        (Some(file), _, _) => {
            format!("file {} ({})", human::escape(file), human::bytes(message.size))
        }
        (None, Some(text), _) => human::escape_lines(text, "  "),
        (None, None, Some(b64)) => b64.clone(),
        (None, None, None) => format!("{} not shown, still in the inbox", human::bytes(message.size)),
    };
    format!("{head}\n  {body}")
}
