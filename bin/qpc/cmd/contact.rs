//! `qpc contact`: names for addresses.

mod add;
mod card;

use clap::Subcommand;
use quicprochat_mesh::api::{Contact, Done, Request};

use crate::{call, cx::Context, fail::Failure, human};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Remember a name for an address
    Add(add::Args),
    /// Print this node's card: what others need to write to it, as text and as a QR code
    Card(card::Args),
    /// List all names
    List,
    /// Forget a name
    Remove {
        /// The name
        name: String,
    },
}

pub async fn run(command: Command, cx: &Context) -> Result<(), Failure> {
    match command {
        Command::Add(args) => add::run(args, cx).await,
        Command::Card(args) => card::run(args, cx).await,
        Command::List => {
            let contacts: Vec<Contact> = call::all(cx, &Request::ContactList).await?;
            cx.out.list(&contacts, |contacts| {
                if contacts.is_empty() {
                    return "no contacts: `qpc contact add NAME ADDRESS` makes one".into();
                }
                let rows: Vec<Vec<String>> =
                    contacts.iter().map(|c| vec![human::escape(&c.name), c.address.to_string()]).collect();
                human::table(&["NAME", "ADDRESS"], &rows)
            })
        }
        Command::Remove { name } => {
            let done: Done = call::one(cx, &Request::ContactRemove { name }).await?;
            cx.out.show(&done, |_| "removed".into())
        }
    }
}
