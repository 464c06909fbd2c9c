//! `qpc reload`: a changed configuration, while the node runs.

use quicprochat_mesh::api::{Reloaded, Request};

use crate::{call, cx::Context, fail::Failure, human};

/// Have a changed configuration hold, as far as it can while the node runs
///
/// The node reads its flags, environment and file again. Peers, inbox.accept, the log's filter and
/// default lifetimes change at once; what has to wait for the next start is named. A configuration
/// that is wrong changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  qpc config check ~/.local/share/quicprochat/config.toml\n  qpc reload")]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let reloaded: Reloaded = call::one(cx, &Request::Reload).await?;
    cx.out.show(&reloaded, |r| {
        let list = |keys: &[String]| human::escape(&keys.join(", "));
        let mut text = match r.changed.is_empty() {
            true => "nothing that can change while the node runs has changed".to_owned(),
            false => format!("changed: {}", list(&r.changed)),
        };
        if !r.needs_restart.is_empty() {
            text.push_str(&format!("\nfrom the next start on: {}", list(&r.needs_restart)));
        }
        text
    })
}
