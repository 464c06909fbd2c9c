//! `qpc routes`: the routing table.

use quicprochat_mesh::api::{Request, Route, Target};

use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, clap::Args)]
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
        let rows: Vec<Vec<String>> = routes
            .iter()
            .map(|r| {
                vec![
                    r.destination.to_string(),
                    r.next_hop.short(),
                    r.hops.to_string(),
                    human::escape(&r.transport),
                    human::span_s(r.expires_s),
                    r.alternatives.to_string(),
                    r.delivered_share.map_or("-".into(), |share| format!("{:.0} %", share * 100.0)),
                    human::escape(&r.capabilities.join(" ")),
                ]
            })
            .collect();
        let head =
            ["DESTINATION", "NEXT HOP", "HOPS", "OVER", "EXPIRES IN", "OTHERS", "DELIVERED", "CAPABILITIES"];
        human::table(&head, &rows)
    })
    .await
}
