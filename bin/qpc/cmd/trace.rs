//! `qpc trace`: the path to a node.

use std::time::Duration;

use quicprochat_mesh::api::{ApiError, Request, Target, Trace};

use super::{duration, to_ms};
use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Destination
    #[arg(value_name = "ADDRESS")]
    destination: String,

    /// How long to wait for answers
    #[arg(long, value_name = "D", value_parser = duration, default_value = "10s")]
    timeout: Duration,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    Target::parse(&args.destination)?;
    let request = Request::Trace { destination: args.destination, timeout_ms: to_ms(args.timeout) };
    let trace: Trace = call::one(cx, &request).await?;
    cx.out.show(&trace, |t| {
        let rows: Vec<Vec<String>> = t
            .hops
            .iter()
            .zip(1u32..)
            .map(|(hop, number)| {
                vec![
                    number.to_string(),
                    hop.address.map_or("(declined to answer)".into(), |a| a.to_string()),
                    human::or_dash(hop.transport.as_deref().map(human::escape)),
                    human::ms(hop.rtt_ms),
                ]
            })
            .collect();
        human::table(&["HOP", "ADDRESS", "OVER", "ROUND TRIP"], &rows)
    })?;
    match trace.reached {
        true => Ok(()),
        false => Err(ApiError::failed(format!(
            "{} did not answer: see `qpc routes`, or give it longer with --timeout",
            trace.destination
        ))
        .into()),
    }
}
