//! `qpc trace`: the path to a node.

use std::time::Duration;

use quicprochat_mesh::{
    api::{ApiError, Request, Target, Trace},
    config::format_duration,
};

use super::{duration, to_ms};
use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    ink::Ink,
    progress::Progress,
    table::{Cell, Column, Table},
};

const EXAMPLES: &str = "\
Examples:
  qpc trace anna                    by a contact's name
  qpc trace a1b2c3d4 --timeout 30s  by the first digits of an address";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
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
    let mut progress = Progress::new(cx.out.json);
    let asking = format!("waiting for answers, {} at most", format_duration(args.timeout));
    let trace: Trace = progress.during(&asking, call::one_unseen(cx, &request)).await?;
    drop(progress);
    cx.out.show(&trace, |trace| table(trace).text())?;
    match trace.reached {
        true => Ok(()),
        false => Err(ApiError::failed(format!(
            "{} did not answer: see `qpc routes`, or give it longer with --timeout",
            trace.destination
        ))
        .into()),
    }
}

pub(super) fn table(trace: &Trace) -> Table {
    let mut table = Table::new([
        Column::number("HOP"),
        Column::text("ADDRESS"),
        Column::text("OVER"),
        Column::number("ROUND TRIP"),
    ]);
    for (hop, number) in trace.hops.iter().zip(1u32..) {
        table.row([
            number.to_string().into(),
            match hop.address {
                Some(address) => address.to_string().into(),
                None => Cell::of(Some(Ink::Faint), "(declined to answer)"),
            },
            human::or_dash(hop.transport.as_deref().map(human::escape)).into(),
            human::ms(hop.rtt_ms).into(),
        ]);
    }
    table
}
