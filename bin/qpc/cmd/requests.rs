//! `qpc requests`: strangers whose messages wait to be accepted.

use clap::Subcommand;
use quicprochat_mesh::api::{Request, RequestAnswered, SenderRequest, Target};

use crate::{call, cx::Context, fail::Failure, human};

const EXAMPLES: &str = "\
With `inbox.accept = \"requests\"` in the configuration, messages of strangers wait here, on disk, and \
are in no inbox. A stranger is no contact, was not accepted, and you never wrote to it.

Examples:
  qpc requests list
  qpc requests accept 93fa1c77   its messages enter the inbox, now and later
  qpc requests decline 93fa1c77  they are dropped; `qpc block` is for good";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// List who waits, with how the first message begins
    #[command(after_help = "Examples:\n  qpc requests list\n  qpc requests list --json")]
    List,
    /// Have a stranger's messages enter the inbox, now and from now on
    #[command(after_help = "Examples:\n  qpc requests accept 93fa1c77")]
    Accept {
        /// An address, or a unique prefix of at least 8 digits among those who wait
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    /// Drop a stranger's messages without a word to it
    #[command(after_help = "Examples:\n  qpc requests decline 93fa1c77")]
    Decline {
        /// An address, or a unique prefix of at least 8 digits among those who wait
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
}

pub async fn run(command: Command, cx: &Context) -> Result<(), Failure> {
    let (address, accept) = match command {
        Command::List => return list(cx).await,
        Command::Accept { address } => (address, true),
        Command::Decline { address } => (address, false),
    };
    Target::parse(&address)?;
    let answered: RequestAnswered = call::one(cx, &Request::RequestAnswer { address, accept }).await?;
    cx.out.show(&answered, |a| {
        let messages = match a.messages {
            1 => "1 message".to_owned(),
            n => format!("{n} messages"),
        };
        match a.accepted {
            true => format!("{} is accepted: {messages} in the inbox", a.from),
            false => format!("{messages} of {} dropped", a.from),
        }
    })
}

async fn list(cx: &Context) -> Result<(), Failure> {
    let requests: Vec<SenderRequest> = call::all(cx, &Request::RequestList).await?;
    cx.out.list(&requests, |requests| {
        if requests.is_empty() {
            return "nobody waits to be accepted".into();
        }
        let now = human::now();
        let row = |r: &SenderRequest| {
            vec![
                r.from.to_string(),
                r.messages.to_string(),
                human::bytes(r.bytes),
                human::ago(r.first_at, now),
                human::or_dash(r.preview.as_deref().map(human::escape)),
            ]
        };
        let rows: Vec<Vec<String>> = requests.iter().map(row).collect();
        human::table(&["FROM", "MESSAGES", "SIZE", "SINCE", "BEGINS"], &rows)
    })
}
