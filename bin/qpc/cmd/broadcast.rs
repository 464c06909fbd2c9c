//! `qpc broadcast`: to every node within reach, signed and readable by all.

use std::time::Duration;

use quicprochat_mesh::{
    api::{MessageId, Request},
    config::BROADCAST_LIFETIME_MAX,
    wire::limits::{MAX_HOPS_MAX, PAYLOAD_BYTES_MAX},
};

use super::{duration, send::check_ttl, to_ms};
use crate::{call, cx::Context, fail::Failure, source::Source};

const EXAMPLES: &str = "\
Examples:
  qpc broadcast 'lunch is ready'
  qpc broadcast --file notice.txt --ttl 5m --max-hops 3";

/// Send to every node within reach: signed, NOT ENCRYPTED
///
/// Everyone can read a broadcast: it is signed, so that nobody can change it, but not encrypted. At
/// most 15 KiB, delivered once to every node that is reached within its lifetime, no receipts.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    source: Source,

    /// Stop spreading it after this time, at most 10m
    #[arg(long, value_name = "D", value_parser = duration)]
    ttl: Option<Duration>,

    /// How many links it may cross
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_HOPS_MAX)))]
    max_hops: Option<u8>,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    check_ttl(args.ttl, BROADCAST_LIFETIME_MAX)?;
    let limit = u64::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u64::MAX);
    let content = args.source.read(limit)?;
    let request =
        Request::Broadcast { ttl_ms: args.ttl.map(to_ms), max_hops: args.max_hops, file_name: content.name };
    let mut client = call::start(cx, &request, &content.bytes).await?;
    let id: MessageId = call::first(&mut client).await?;
    cx.out.show(&id, |m| format!("broadcast {}", m.id))
}
