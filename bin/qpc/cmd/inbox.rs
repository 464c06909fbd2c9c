//! `qpc inbox`: what has arrived.

use clap::Subcommand;
use quicprochat_mesh::{
    api::{Done, InboxItem, Request, Timestamp},
    node::IdPrefix,
};

use super::{full_id, the_one};
use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    table::{Column, Table},
};

const EXAMPLES: &str = "\
Examples:
  qpc inbox
  qpc inbox ack 8bfc5059  remove one without reading it";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

const LIST_EXAMPLES: &str = "\
Examples:
  qpc inbox list
  qpc inbox list --json";

const ACK_EXAMPLES: &str = "\
Examples:
  qpc inbox ack 8bfc5059";

#[derive(Debug, Subcommand)]
enum Command {
    /// List them (the default)
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Remove one
    #[command(after_help = ACK_EXAMPLES)]
    Ack {
        /// Its id, 32 hex digits, or the first 8 of them or more
        #[arg(value_name = "ID")]
        id: IdPrefix,
    },
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if let Some(Command::Ack { id }) = args.command {
        let here = match full_id(&id) {
            Some(id) => vec![id],
            None => {
                call::all(cx, &Request::InboxList).await?.iter().map(|item: &InboxItem| item.id).collect()
            }
        };
        let id = the_one(&id, &here, "inbox")?;
        let done: Done = call::one(cx, &Request::InboxAck { id }).await?;
        return cx.out.show(&done, |_| "removed".into());
    }
    let items: Vec<InboxItem> = call::all(cx, &Request::InboxList).await?;
    cx.out.list(&items, |items| {
        if items.is_empty() {
            return "the inbox is empty".into();
        }
        table(items, human::now()).text()
    })
}

pub(super) fn table(items: &[InboxItem], now: Timestamp) -> Table {
    let mut table = Table::new([
        Column::id("ID", 3),
        Column::id("FROM", 1),
        Column::number("RECEIVED"),
        Column::number("SIZE"),
        Column::text("FILE").shrinks(2, 12),
    ]);
    for item in items {
        let from = item.from_name.as_deref().map_or_else(|| item.from.to_string(), human::escape);
        table.row([
            item.id.to_string().into(),
            from.into(),
            human::ago(item.received_at, now).into(),
            human::bytes(item.size).into(),
            human::or_dash(item.name.as_deref().map(human::escape)).into(),
        ]);
    }
    table
}
