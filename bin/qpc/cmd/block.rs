//! `qpc block`, `unblock`, `blocked`: senders of whom nothing is taken.

use quicprochat_mesh::api::{Blocked, Request, Target};

use crate::{call, cx::Context, fail::Failure, human};

const BLOCK_EXAMPLES: &str = "\
Examples:
  qpc block 93fa1c77                           a prefix of one heard of
  qpc block d92b1f1f63b80868876169bb9922b750";

const UNBLOCK_EXAMPLES: &str = "\
Examples:
  qpc unblock 93fa1c77                         a prefix of a blocked one";

const LIST_EXAMPLES: &str = "\
Examples:
  qpc blocked
  qpc blocked --json";

/// Take nothing more of a sender
///
/// Its messages are refused and it is told so; its broadcasts are not shown, its pings not answered,
/// and what of it waits to be accepted is dropped. What it sends to others this node forwards as ever:
/// to refuse its links see `qpc peer ban`.
#[derive(Debug, clap::Args)]
#[command(after_help = BLOCK_EXAMPLES)]
pub struct Args {
    /// An address, a unique prefix of at least 8 digits, or a contact's name
    #[arg(value_name = "ADDRESS")]
    address: String,
}

/// Take messages of a blocked sender again
#[derive(Debug, clap::Args)]
#[command(after_help = UNBLOCK_EXAMPLES)]
pub struct UnblockArgs {
    /// An address, a unique prefix of at least 8 digits, or a contact's name
    #[arg(value_name = "ADDRESS")]
    address: String,
}

/// List who is blocked
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub struct ListArgs {}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    Target::parse(&args.address)?;
    let blocked: Blocked = call::one(cx, &Request::Block { address: args.address }).await?;
    cx.out.show(&blocked, |b| format!("{} is blocked", who(b)))
}

pub async fn unblock(args: UnblockArgs, cx: &Context) -> Result<(), Failure> {
    Target::parse(&args.address)?;
    let blocked: Blocked = call::one(cx, &Request::Unblock { address: args.address }).await?;
    cx.out.show(&blocked, |b| format!("{} is no longer blocked", who(b)))
}

pub async fn list(_: ListArgs, cx: &Context) -> Result<(), Failure> {
    let blocked: Vec<Blocked> = call::all(cx, &Request::BlockedList).await?;
    cx.out.list(&blocked, |blocked| {
        if blocked.is_empty() {
            return "nobody is blocked: `qpc block ADDRESS` takes nothing more of a sender".into();
        }
        let row =
            |b: &Blocked| vec![b.address.to_string(), human::or_dash(b.name.as_deref().map(human::escape))];
        human::table(&["ADDRESS", "NAME"], &blocked.iter().map(row).collect::<Vec<_>>())
    })
}

fn who(blocked: &Blocked) -> String {
    match &blocked.name {
        Some(name) => format!("{} ({})", human::escape(name), blocked.address),
        None => blocked.address.to_string(),
    }
}
