//! `qpc mailboxes`: what is held for others.

use quicprochat_mesh::api::{Mailbox, Request};

use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    ink::Ink,
    table::{Cell, Column, Table},
};

const EXAMPLES: &str = "\
Examples:
  qpc mailboxes
  qpc mailboxes --json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    call::list(cx, &Request::Mailboxes, |mailboxes: &[Mailbox]| {
        if mailboxes.is_empty() {
            return "nothing is held for others".into();
        }
        table(mailboxes).text()
    })
    .await
}

pub(super) fn table(mailboxes: &[Mailbox]) -> Table {
    let mut table = Table::new([
        Column::id("DESTINATION", 1),
        Column::number("MESSAGES"),
        Column::number("SIZE"),
        Column::number("OLDEST"),
        Column::text("STATE").shrinks(2, 8),
    ]);
    for mailbox in mailboxes {
        let (state, ink) =
            if mailbox.reachable { ("being handed over", Ink::Good) } else { ("away", Ink::Warn) };
        table.row([
            mailbox.destination.to_string().into(),
            human::count(mailbox.messages).into(),
            human::bytes(mailbox.bytes).into(),
            mailbox.oldest_s.map_or("-".into(), |s| format!("{} ago", human::span_s(s))).into(),
            Cell::of(Some(ink), state),
        ]);
    }
    table
}
