//! `qpc log-level`: what the running node logs.

use quicprochat_mesh::api::{LogLevel, Request};

use crate::{call, cx::Context, fail::Failure, human};

const EXAMPLES: &str = "\
Examples:
  qpc log-level debug
  qpc log-level info,quicprochat_mesh::transport=debug
  qpc log-level warn";

/// Change what the running node logs
///
/// Until its next start or `qpc reload`; for longer set logging.filter in the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One of error, warn, info, debug and off, or levels by module
    #[arg(value_name = "FILTER")]
    filter: String,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let level: LogLevel = call::one(cx, &Request::LogLevel { filter: args.filter }).await?;
    cx.out.show(&level, |l| format!("logs {}", human::escape(&l.filter)))
}
