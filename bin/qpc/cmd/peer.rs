//! `qpc peer`: links added and removed at run time.

use clap::Subcommand;
use quicprochat_mesh::{
    api::{ApiError, Done, Request, Target},
    config::PeerUrl,
};

use crate::{call, cx::Context, fail::Failure};

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
}

pub async fn run(command: Command, cx: &Context) -> Result<(), Failure> {
    let request = match command {
        Command::Add { url } => {
            url.parse::<PeerUrl>().map_err(ApiError::usage)?;
            Request::PeerAdd { url }
        }
        Command::Remove { peer } => {
            match peer.contains("://") {
                true => peer.parse::<PeerUrl>().map(drop).map_err(ApiError::usage)?,
                false => Target::parse(&peer).map(drop)?,
            }
            Request::PeerRemove { peer }
        }
    };
    let done: Done = call::one(cx, &request).await?;
    cx.out.show(&done, |_| "done".into())
}
