//! `qpc inbox`: what has arrived.

use clap::Subcommand;
use quicprochat_mesh::{
    api::{Done, InboxItem, Request},
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
    /// Remove one
    Ack {
        /// Its id, 32 hex digits
        #[arg(value_name = "ID")]
        id: MessageUid,
    },
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    if let Some(Command::Ack { id }) = args.command {
        let done: Done = call::one(cx, &Request::InboxAck { id }).await?;
        return cx.out.show(&done, |_| "removed".into());
    }
    let items: Vec<InboxItem> = call::all(cx, &Request::InboxList).await?;
    cx.out.list(&items, |items| {
        if items.is_empty() {
            return "the inbox is empty".into();
        }
        let now = human::now();
        let rows: Vec<Vec<String>> = items
            .iter()
            .map(|i| {
                vec![
                    i.id.to_string(),
                    i.from_name.as_deref().map_or_else(|| i.from.to_string(), human::escape),
                    human::ago(i.received_at, now),
                    human::bytes(i.size),
                    human::or_dash(i.name.as_deref().map(human::escape)),
                ]
            })
            .collect();
        human::table(&["ID", "FROM", "RECEIVED", "SIZE", "FILE"], &rows)
    })
}
