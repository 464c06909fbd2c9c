//! `qpc contact`: names for addresses.

mod add;
mod card;

use clap::Subcommand;
use quicprochat_mesh::api::{Contact, Done, Request};

use crate::{
    call,
    cx::Context,
    fail::Failure,
    human,
    table::{Column, Table},
};

const EXAMPLES: &str = "\
Examples:
  qpc contact add anna a1b2c3d4e5f60718293a4b5c6d7e8f90
  qpc contact list";

const LIST_EXAMPLES: &str = "\
Examples:
  qpc contact list
  qpc contact list --json";

const REMOVE_EXAMPLES: &str = "\
Examples:
  qpc contact remove anna";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Remember a name for an address
    Add(add::Args),
    /// Print this node's card: what others need to write to it, as text and as a QR code
    Card(card::Args),
    /// List all names
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Forget a name
    #[command(after_help = REMOVE_EXAMPLES)]
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
                table(contacts).text()
            })
        }
        Command::Remove { name } => {
            let done: Done = call::one(cx, &Request::ContactRemove { name }).await?;
            cx.out.show(&done, |_| "removed".into())
        }
    }
}

pub(super) fn table(contacts: &[Contact]) -> Table {
    let mut table = Table::new([Column::text("NAME").shrinks(1, 12), Column::text("ADDRESS")]);
    for contact in contacts {
        table.row([human::escape(&contact.name).into(), contact.address.to_string().into()]);
    }
    table
}
