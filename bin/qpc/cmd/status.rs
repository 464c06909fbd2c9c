//! `qpc status`: how the node is.

use quicprochat_mesh::api::{Request, Status};

use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let status: Status = call::one(cx, &Request::Status).await?;
    cx.out.show(&status, |s| {
        let mut lines = vec![
            ("address", s.address.to_string()),
            ("network", human::escape(&s.network)),
            ("version", human::escape(&s.version)),
            ("state", format!("{}, up {}", s.state.as_str(), human::span_s(s.uptime_s))),
            ("listens on", s.listen.join("  ")),
            ("health", human::or_dash(s.health.as_ref())),
            ("peers", s.peers.to_string()),
            ("routes", s.routes.to_string()),
            ("stored", s.stored.to_string()),
        ];
        if !s.external.is_empty() {
            lines.push(("outside", human::escape(&s.external.join("  "))));
        }
        for (name, part) in &s.subsystems {
            let detail =
                part.detail.as_deref().map(|d| format!(" ({})", human::escape(d))).unwrap_or_default();
            lines.push((name.as_str(), format!("{}{detail}", part.status.as_str())));
        }
        human::fields(&lines)
    })
}
