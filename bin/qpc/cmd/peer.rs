//! `qpc peer`: whom the node dials, and with whom it has no link, at run time.

use clap::Subcommand;
use quicprochat_mesh::{
    api::{ApiError, Done, PeerEntry, Request, Target},
    config::PeerUrl,
};

use crate::{call, cx::Context, fail::Failure, human};

const EXAMPLES: &str = "\
Examples:
  qpc peer add quic://192.0.2.7:7410
  qpc peer remove quic://192.0.2.7:7410";

const ADD_EXAMPLES: &str = "\
Examples:
  qpc peer add quic://192.0.2.7:7410
  qpc peer add 'tcp://[::1]:7410#a1b2c3d4e5f60718293a4b5c6d7e8f90'";

const REMOVE_EXAMPLES: &str = "\
Examples:
  qpc peer remove quic://192.0.2.7:7410
  qpc peer remove a1b2c3d4";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Dial a node now and keep the link, also after a restart
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// quic://HOST:PORT or tcp://HOST:PORT, with #ADDRESS behind it to pin who must answer
        #[arg(value_name = "URL")]
        url: String,
    },
    /// Drop a link and forget the peer
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove {
        /// Its address or URL
        #[arg(value_name = "ADDRESS|URL")]
        peer: String,
    },
    /// Have no link with a node, now and after restarts, whoever dials
    ///
    /// What it sends over others is carried like anything.
    #[command(
        after_help = "Examples:\n  qpc peer ban a1b2c3d4e5f60718293a4b5c6d7e8f90\n  qpc peer ban a1b2c3d4"
    )]
    Ban {
        /// Its address
        #[arg(value_name = "ADDRESS")]
        peer: String,
    },
    /// Lift a ban
    #[command(after_help = "Examples:\n  qpc peer unban a1b2c3d4e5f60718293a4b5c6d7e8f90")]
    Unban {
        /// Its address
        #[arg(value_name = "ADDRESS")]
        peer: String,
    },
    /// Show who is dialled, banned or allowed, and how that stands
    #[command(after_help = "Examples:\n  qpc peer list\n  qpc peer list --json")]
    List,
}

pub async fn run(command: Command, cx: &Context) -> Result<(), Failure> {
    let address = |peer: &str| Target::parse(peer).map(drop);
    let request = match command {
        Command::Add { url } => {
            url.parse::<PeerUrl>().map_err(ApiError::usage)?;
            Request::PeerAdd { url }
        }
        Command::Remove { peer } => {
            match peer.contains("://") {
                true => peer.parse::<PeerUrl>().map(drop).map_err(ApiError::usage)?,
                false => address(&peer)?,
            }
            Request::PeerRemove { peer }
        }
        Command::Ban { peer } => {
            address(&peer)?;
            Request::PeerBan { peer }
        }
        Command::Unban { peer } => {
            address(&peer)?;
            Request::PeerUnban { peer }
        }
        Command::List => return list(cx).await,
    };
    let done: Done = call::one(cx, &request).await?;
    cx.out.show(&done, |_| "done".into())
}

async fn list(cx: &Context) -> Result<(), Failure> {
    let entries: Vec<PeerEntry> = call::all(cx, &Request::PeerList).await?;
    cx.out.list(&entries, |entries| {
        if entries.is_empty() {
            return "nobody is dialled by name, banned or allowed: `qpc peer add URL`, `qpc peer ban ADDRESS`; \
                    links are shown by `qpc peers`"
                .into();
        }
        let rows: Vec<Vec<String>> = entries
            .iter()
            .map(|entry| {
                let text = |text: &Option<String>| text.as_deref().map_or("-".into(), human::escape);
                vec![
                    entry.kind.as_str().into(),
                    human::or_dash(entry.address),
                    entry.state.as_str().into(),
                    text(&entry.url),
                    text(&entry.reason),
                ]
            })
            .collect();
        human::table(&["KIND", "ADDRESS", "STATE", "URL", "REASON"], &rows)
    })
}
