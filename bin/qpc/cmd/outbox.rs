//! `qpc outbox`: what is on its way.

use clap::Subcommand;
use quicprochat_mesh::{
    api::{Done, OutboxItem, Request},
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
  qpc outbox
  qpc outbox cancel 8bfc5059  give one up";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

const LIST_EXAMPLES: &str = "\
Examples:
  qpc outbox list
  qpc outbox list --json";

const CANCEL_EXAMPLES: &str = "\
Examples:
  qpc outbox cancel 8bfc5059";

#[derive(Debug, Subcommand)]
enum Command {
    /// List them (the default)
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Give one up; what was sent of it may still arrive
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel {
        /// Its id, 32 hex digits, or the first 8 of them or more
        #[arg(value_name = "ID")]
        id: IdPrefix,
    },
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if let Some(Command::Cancel { id }) = args.command {
        let here = match full_id(&id) {
            Some(id) => vec![id],
            None => {
                call::all(cx, &Request::OutboxList).await?.iter().map(|item: &OutboxItem| item.id).collect()
            }
        };
        let id = the_one(&id, &here, "outbox")?;
        let done: Done = call::one(cx, &Request::OutboxCancel { id }).await?;
        return cx.out.show(&done, |_| "cancelled".into());
    }
    let items: Vec<OutboxItem> = call::all(cx, &Request::OutboxList).await?;
    cx.out.list(&items, |items| {
        if items.is_empty() {
            return "the outbox is empty".into();
        }
        table(items).text()
    })
}

pub(super) fn table(items: &[OutboxItem]) -> Table {
    let mut table = Table::new([
        Column::id("ID", 3),
        Column::id("TO", 1),
        Column::number("SIZE"),
        Column::text("PRIORITY").goes(2),
        Column::number("SENT"),
        Column::number("NEXT TRY"),
        Column::number("EXPIRES"),
        Column::text("STATE").shrinks(4, 10),
    ]);
    for item in items {
        table.row([
            item.id.to_string().into(),
            item.to.to_string().into(),
            human::bytes(item.size).into(),
            item.priority.as_str().into(),
            human::count(item.attempts.into()).into(),
            item.next_retry_s.map_or("-".into(), |s| format!("in {}", human::span_s(s))).into(),
            format!("in {}", human::span_s(item.expires_s)).into(),
            state(item).into(),
        ]);
    }
    table
}

/// What it waits for, and how much of a file is there.
fn state(item: &OutboxItem) -> String {
    let done = item.chunks_done.zip(item.chunks).filter(|(done, _)| *done > 0);
    let done = done.map(|(done, all)| format!("{done} of {all} parts there"));
    // A state that is its own reason is said once.
    let reason = item.reason.as_deref().filter(|reason| *reason != item.state).map(human::escape);
    let state = human::escape(&item.state).replace('_', " ");
    let beside: Vec<_> = done.into_iter().chain(reason).collect();
    if beside.is_empty() { state } else { format!("{state} ({})", beside.join(", ")) }
}
