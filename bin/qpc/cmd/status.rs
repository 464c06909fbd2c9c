//! `qpc status`: how the node is.

use quicprochat_mesh::api::{NodeState, Request, Status};

use crate::{call, cx::Context, fail::Failure, human, ink::Ink};

const EXAMPLES: &str = "\
Examples:
  qpc status         how the node of the default data directory is
  qpc status --json  the same for programs";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let status: Status = call::one(cx, &Request::Status).await?;
    cx.out.show(&status, |status| human::fields(&fields(status)))
}

pub(super) fn fields(s: &Status) -> Vec<(&str, String)> {
    let mut lines = vec![
        ("address", s.address.to_string()),
        ("network", human::escape(&s.network)),
        ("version", human::escape(&s.version)),
        ("state", format!("{}, up {}", word(s.state), human::span_s(s.uptime_s))),
        ("listens on", human::escape(&s.listen.join("  "))),
        ("health", human::or_dash(s.health.as_deref().map(human::escape))),
        ("peers", human::count(s.peers)),
        ("routes", human::count(s.routes)),
        ("stored", human::count(s.stored)),
    ];
    if !s.external.is_empty() {
        lines.push(("outside", human::escape(&s.external.join("  "))));
    }
    for (name, part) in &s.subsystems {
        let detail = part.detail.as_deref().map(|d| format!(" ({})", human::escape(d))).unwrap_or_default();
        lines.push((name.as_str(), format!("{}{detail}", word(part.status))));
    }
    lines
}

fn word(state: NodeState) -> String {
    Ink::of_state(state).paint(state.as_str())
}
