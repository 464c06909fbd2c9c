//! `qpc known`: everyone heard within the last day.

use quicprochat_mesh::api::{KnownNode, Request};

use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    call::list(cx, &Request::Known, |known: &[KnownNode]| {
        if known.is_empty() {
            return "nobody was heard yet".into();
        }
        let yes_no = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let rows: Vec<Vec<String>> = known
            .iter()
            .map(|k| {
                vec![
                    k.address.to_string(),
                    yes_no(k.reachable),
                    yes_no(k.has_key),
                    human::span_s(k.forgotten_s),
                    human::escape(&k.capabilities.join(" ")),
                ]
            })
            .collect();
        human::table(&["ADDRESS", "REACHABLE", "KEYS", "FORGOTTEN IN", "CAPABILITIES"], &rows)
    })
    .await
}
