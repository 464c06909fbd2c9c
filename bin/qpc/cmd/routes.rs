//! `qpc routes`: the routing table.

use quicprochat_mesh::api::{Request, Route, Target};

use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    table::{Column, Table},
};

const EXAMPLES: &str = "\
Examples:
  qpc routes           every node that can be reached
  qpc routes a1b2c3d4  only the way to this one";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only the route to this node
    #[arg(value_name = "ADDRESS")]
    destination: Option<String>,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if let Some(text) = &args.destination {
        Target::parse(text)?;
    }
    call::list(cx, &Request::Routes { destination: args.destination }, |routes: &[Route]| {
        if routes.is_empty() {
            return "no routes".into();
        }
        table(routes).text()
    })
    .await
}

pub(super) fn table(routes: &[Route]) -> Table {
    let mut table = Table::new([
        Column::id("DESTINATION", 2),
        Column::text("NEXT HOP"),
        Column::number("HOPS"),
        Column::text("OVER"),
        Column::number("EXPIRES"),
        Column::number("OTHERS"),
        Column::number("DELIVERED"),
        Column::text("CAPABILITIES").goes(1),
    ]);
    for route in routes {
        table.row([
            route.destination.to_string().into(),
            route.next_hop.short().into(),
            route.hops.to_string().into(),
            human::escape(&route.transport).into(),
            format!("in {}", human::span_s(route.expires_s)).into(),
            human::count(route.alternatives).into(),
            route.delivered_share.map_or("-".into(), |share| format!("{:.0} %", share * 100.0)).into(),
            human::escape(&route.capabilities.join(" ")).into(),
        ]);
    }
    table
}
