//! `qpc drain`: a clean stop.

use std::time::Duration;

use quicprochat_mesh::api::{ErrorClass, Request, Stopped};

use super::{duration, run::tell_stopped, to_ms};
use crate::{call, cx::Context, fail::Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stop after this time at the latest [default: the deadlines of the configuration]
    #[arg(long, value_name = "D", value_parser = duration)]
    timeout: Option<Duration>,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let request = Request::Drain { timeout_ms: args.timeout.map(to_ms) };
    let mut client = call::start(cx, &request, &[]).await?;
    let stopped: Stopped = call::first(&mut client).await?;
    // The socket closes with the node; only then may a script start the next one.
    client.closed().await;
    cx.out.show(&stopped, tell_stopped)?;
    if stopped.drained { Ok(()) } else { Err(Failure::Said(ErrorClass::Failed)) }
}
