//! `qpc contact`: names for addresses.

use clap::Subcommand;
use quicprochat_mesh::{
    api::{ApiError, Contact, Done, Request, check_contact_name},
    wire::{Address, PublicKey},
};

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

const ADD_EXAMPLES: &str = "\
Examples:
  qpc contact add anna a1b2c3d4e5f60718293a4b5c6d7e8f90
  qpc send --to anna hello  what it is good for";

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
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// Anything that does not look like hex digits
        name: String,
        /// The full address (32 hex digits) or the public key (64)
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
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
        Command::Add { name, address } => {
            check_contact_name(&name)?;
            let full = address.parse::<Address>().is_ok_and(|a| !a.is_reserved());
            if !full && address.parse::<PublicKey>().is_err() {
                return Err(ApiError::usage(format!(
                    "{address:?} is no full address (32 hex digits) and no public key (64)"
                ))
                .into());
            }
            let contact: Contact = call::one(cx, &Request::ContactAdd { name, address }).await?;
            cx.out.show(&contact, |c| format!("{} is {}", human::escape(&c.name), c.address))
        }
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
