//! `qpc announce`: tell the network now.

use quicprochat_mesh::api::{Done, Request};

use crate::{call, cx::Context, fail::Failure};

const EXAMPLES: &str = "\
Examples:
  qpc announce";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let done: Done = call::one(cx, &Request::Announce).await?;
    cx.out.show(&done, |_| "announced".into())
}
