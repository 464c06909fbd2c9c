//! `qpc contact add`: a name for an address, a key or a card.

use quicprochat_mesh::{
    api::{ApiError, Card, Contact, Done, Request, card::CARD_SCHEME, check_contact_name},
    config::PeerUrl,
    wire::{Address, PublicKey},
};
use serde::Serialize;

use crate::{call, cx::Context, fail::Failure, human};

const EXAMPLES: &str = "\
Examples:
  qpc contact add anna 3fb2c1d09a8e7f6655443322110ffeed
  qpc contact add anna 'qpc:3fb2…?k=…&peer=quic://example.org:7410&c=…' --dial";

/// Remember a name for an address
///
/// A card, as `qpc contact card` prints it, is checked first: its checksum, and that its key is the
/// key of its address. Put it in quotes, since & and ? mean something to a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Anything that does not look like hex digits
    name: String,

    /// The full address (32 hex digits), the public key (64), or a card (qpc:…)
    #[arg(value_name = "ADDRESS|URI")]
    address: String,

    /// Also dial the node at the places that its card names, now and after a restart
    #[arg(long)]
    dial: bool,
}

#[derive(Serialize)]
struct Added {
    #[serde(flatten)]
    contact: Contact,
    /// Where the card says that it can be dialled, each pinned to it.
    peers: Vec<String>,
    /// Whether it is.
    dialled: bool,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let Args { name, address, dial } = args;
    check_contact_name(&name)?;
    let card = read(&address)?;
    let peers = card.as_ref().map_or_else(Vec::new, Card::peers);
    if dial && peers.is_empty() {
        let text = "--dial needs a card that says where (peer=URL): add the contact without it, then `qpc peer add URL`";
        return Err(ApiError::usage(text).into());
    }
    let address = card.as_ref().map_or(address, |card| card.address().to_string());
    let mut contact: Contact = call::one(cx, &Request::ContactAdd { name, address }).await?;
    if let Some(card) = &card {
        contact.public_key = Some(card.public_key());
    }
    let peers: Vec<String> = peers.iter().map(PeerUrl::to_string).collect();
    if dial {
        for url in &peers {
            let _: Done = call::one(cx, &Request::PeerAdd { url: url.clone() }).await?;
        }
    }
    cx.out.show(&Added { contact, peers, dialled: dial }, |added| {
        let mut text = format!("{} is {}", human::escape(&added.contact.name), added.contact.address);
        for url in &added.peers {
            text.push_str(&match added.dialled {
                true => format!("\ndialling {}", human::escape(url)),
                false => format!("\ndial it with: qpc peer add '{}'", human::escape(url)),
            });
        }
        text
    })
}

/// The card, where `text` is one; none where it is an address or a key.
fn read(text: &str) -> Result<Option<Card>, Failure> {
    let is_card = text.get(..CARD_SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(CARD_SCHEME));
    if is_card {
        let card = text.trim().parse();
        return Ok(Some(card.map_err(|e| ApiError::usage(format!("this card cannot be used: {e}")))?));
    }
    let is_address = text.parse::<Address>().is_ok_and(|a| !a.is_reserved());
    if is_address || text.parse::<PublicKey>().is_ok() {
        return Ok(None);
    }
    let shown: String = text.chars().take(80).collect();
    Err(ApiError::usage(format!(
        "{shown:?} is no full address (32 hex digits), no public key (64) and no card (qpc:…)"
    ))
    .into())
}
