//! `qpc outbox`: what is on its way.

use clap::Subcommand;
use quicprochat_mesh::{
    api::{Done, OutboxItem, Request},
    wire::MessageUid,
};

use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them (the default)
    List,
    /// Give one up; what was sent of it may still arrive
    Cancel {
        /// Its id, 32 hex digits
        #[arg(value_name = "ID")]
        id: MessageUid,
    },
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if let Some(Command::Cancel { id }) = args.command {
        let done: Done = call::one(cx, &Request::OutboxCancel { id }).await?;
        return cx.out.show(&done, |_| "cancelled".into());
    }
    let items: Vec<OutboxItem> = call::all(cx, &Request::OutboxList).await?;
    cx.out.list(&items, |items| {
        if items.is_empty() {
            return "the outbox is empty".into();
        }
        let rows: Vec<Vec<String>> = items
            .iter()
            .map(|i| {
                vec![
                    i.id.to_string(),
                    i.to.to_string(),
                    human::bytes(i.size),
                    i.priority.as_str().into(),
                    i.attempts.to_string(),
                    i.next_retry_s.map_or("-".into(), |s| format!("in {}", human::span_s(s))),
                    format!("in {}", human::span_s(i.expires_s)),
                    state(i),
                ]
            })
            .collect();
        human::table(&["ID", "TO", "SIZE", "PRIORITY", "SENT", "NEXT TRY", "EXPIRES", "STATE"], &rows)
    })
}

/// What it waits for, and how much of a file is there.
fn state(item: &OutboxItem) -> String {
    let state = human::escape(&item.state);
    let done = item.chunks_done.zip(item.chunks).filter(|(done, _)| *done > 0);
    let done = done.map(|(done, all)| format!("{done} of {all} parts there"));
    let beside: Vec<_> = done.into_iter().chain(item.reason.as_deref().map(human::escape)).collect();
    if beside.is_empty() { state } else { format!("{state} ({})", beside.join(", ")) }
}
