//! `qpc known`: everyone heard within the last day.

use quicprochat_mesh::api::{KnownNode, Request};

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
  qpc known
  qpc known --json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    call::list(cx, &Request::Known, |known: &[KnownNode]| {
        if known.is_empty() {
            return "nobody was heard yet".into();
        }
        table(known).text()
    })
    .await
}

pub(super) fn table(known: &[KnownNode]) -> Table {
    let mut table = Table::new([
        Column::id("ADDRESS", 2),
        Column::text("REACHABLE"),
        Column::text("KEYS"),
        Column::number("FORGOTTEN"),
        Column::text("CAPABILITIES").shrinks(1, 12),
    ]);
    for node in known {
        let (reachable, ink) = if node.reachable { ("yes", Ink::Good) } else { ("no", Ink::Warn) };
        table.row([
            node.address.to_string().into(),
            Cell::of(Some(ink), reachable),
            if node.has_key { "yes" } else { "no" }.into(),
            format!("in {}", human::span_s(node.forgotten_s)).into(),
            human::escape(&node.capabilities.join(" ")).into(),
        ]);
    }
    table
}
