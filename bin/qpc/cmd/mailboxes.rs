//! `qpc mailboxes`: what is held for others.

use quicprochat_mesh::api::{Mailbox, Request};

use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    call::list(cx, &Request::Mailboxes, |mailboxes: &[Mailbox]| {
        if mailboxes.is_empty() {
            return "nothing is held for others".into();
        }
        let rows: Vec<Vec<String>> = mailboxes
            .iter()
            .map(|m| {
                vec![
                    m.destination.to_string(),
                    m.messages.to_string(),
                    human::bytes(m.bytes),
                    m.oldest_s.map_or("-".into(), |s| format!("{} ago", human::span_s(s))),
                    if m.reachable { "being handed over" } else { "away" }.into(),
                ]
            })
            .collect();
        human::table(&["DESTINATION", "MESSAGES", "SIZE", "OLDEST", "STATE"], &rows)
    })
    .await
}
