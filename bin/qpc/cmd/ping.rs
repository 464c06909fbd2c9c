//! `qpc ping`: round trips end to end.

use std::time::Duration;

use quicprochat_mesh::api::{ApiError, Pong, Request, Target};

use super::{duration, to_ms};
use crate::{call, cx::Context, fail::Failure, human, ink::Ink, progress::Progress};

const EXAMPLES: &str = "\
Examples:
  qpc ping anna                              four times
  qpc ping a1b2c3d4 --count 1 --timeout 30s";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Destination
    #[arg(value_name = "ADDRESS")]
    destination: String,

    /// How many
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// From one to the next
    #[arg(long, value_name = "D", value_parser = duration, default_value = "1s")]
    interval: Duration,

    /// How long to wait for each answer
    #[arg(long, value_name = "D", value_parser = duration, default_value = "10s")]
    timeout: Duration,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    Target::parse(&args.destination)?;
    let request = Request::Ping {
        destination: args.destination.clone(),
        count: args.count,
        interval_ms: to_ms(args.interval),
        timeout_ms: to_ms(args.timeout),
    };
    let mut client = call::start(cx, &request, &[]).await?;
    let mut answered = 0u32;
    let mut progress = Progress::new(cx.out.json);
    while let Some(frame) = progress.during("waiting for an answer", client.next()).await? {
        let pong: Pong = frame.parse()?;
        answered = answered.saturating_add(u32::from(pong.rtt_ms.is_some()));
        cx.out.show(&pong, |p| match p.rtt_ms {
            Some(_) => {
                let hops = p.hops.map(|hops| format!(" over {}", human::number_of(hops.into(), "hop")));
                format!("{}: {}{}", p.seq, human::ms(p.rtt_ms), hops.unwrap_or_default())
            }
            None => format!("{}: {}", p.seq, Ink::Bad.paint("no answer")),
        })?;
    }
    match answered {
        0 => Err(ApiError::failed(format!(
            "{} did not answer any of {}: see `qpc routes`, or give it longer with --timeout",
            args.destination,
            human::number_of(args.count.into(), "ping")
        ))
        .into()),
        _ => Ok(()),
    }
}
