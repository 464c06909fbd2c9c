//! `qpc drain`: a clean stop.

use std::time::Duration;

use quicprochat_mesh::api::{ApiError, Request, Stopped};

use serde_json::{Map, Value};

use super::{duration, run::tell_stopped, to_ms};
use crate::{call, cx::Context, fail::Failure, progress::Progress};

/// What a node does in each phase of a drain, in order.
const DRAINING: [&str; 3] = [
    "draining: finishing what is in flight",
    "draining: writing what is left to disk",
    "draining: closing links",
];

const EXAMPLES: &str = "\
Examples:
  qpc drain               stop when everything is safe
  qpc drain --timeout 5s  stop within five seconds, come what may";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Stop after this time at the latest [default: the deadlines of the configuration]
    #[arg(long, value_name = "D", value_parser = duration)]
    timeout: Option<Duration>,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let request = Request::Drain { timeout_ms: args.timeout.map(to_ms) };
    let mut client = call::start(cx, &request, &[]).await?;
    let stopped: Result<Stopped, Failure> = Progress::new(cx.out.json)
        .watching(
            async {
                let stopped = call::first(&mut client).await;
                // The socket closes with the node; only then may a script start the next one.
                client.closed().await;
                stopped
            },
            async || Some(phase(cx).await.unwrap_or_else(|| DRAINING[0].into())),
        )
        .await;
    let stopped = stopped?;
    cx.out.show(&stopped, tell_stopped)?;
    match stopped.drained {
        true => Ok(()),
        false => Err(ApiError::failed(
            "the node stopped before it had drained: what is on its disk goes on with the next start",
        )
        .into()),
    }
}

/// The phase that the node is in, by its own counter, which is 1 in the first.
async fn phase(cx: &Context) -> Option<String> {
    let stats: Map<String, Value> = call::one_unseen(cx, &Request::Stats).await.ok()?;
    let phase = stats.get("actors")?.get("drain_phase")?.as_u64()?.checked_sub(1)?;
    DRAINING.get(usize::try_from(phase).ok()?).map(|text| (*text).to_owned())
}
