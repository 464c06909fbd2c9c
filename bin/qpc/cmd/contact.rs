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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Remember a name for an address
    Add {
        /// Anything that does not look like hex digits
        name: String,
        /// The full address (32 hex digits) or the public key (64)
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
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
