//! `qpc bench`: what a node costs, measured beside a baseline in the same run.
//!
//! [`relay`] starts the processes and reads what the relay used, [`ends`] is the source and the
//! sink of every kind of hop, [`volatile`], [`durable`] and [`bare`] are the kinds, [`measure`]
//! reads the machine. [`beside`] measures the same hop with one more neighbour that misbehaves, and
//! [`neighbour`] is that neighbour. [`links`] is one relay with hundreds of links, [`routes`] one
//! with a million routes, [`stored`] one that holds a million messages, [`accepts`] one that takes as
//! many as its disk allows. [`peer`] takes part in
//! comparisons that another program drives.
//!
//! [`load`] drives nodes that run already and logs what becomes of every message, [`verify`] compares
//! such logs; what they share is [`evidence`]. [`disk`] is what such figures are read beside.

mod accepts;
mod bare;
mod beside;
mod disk;
mod durable;
mod ends;
mod evidence;
mod links;
mod load;
mod measure;
mod neighbour;
mod peer;
mod relay;
mod routes;
mod stored;
mod verify;
mod volatile;

use crate::{cx::Context, fail::Failure};

const EXAMPLES: &str = "\
Examples:
  qpc bench disk /var/lib  how often a disk syncs
  qpc bench relay          what passing a message on costs";

/// Measure this machine and this build
#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    Relay(relay::Args),
    Links(links::Args),
    Routes(routes::Args),
    Stored(stored::Args),
    Accepts(accepts::Args),
    Load(load::Args),
    Verify(verify::Args),
    Disk(disk::Args),
    #[command(hide = true)]
    Part(ends::Args),
    #[command(hide = true)]
    Neighbour(neighbour::Args),
    #[command(hide = true)]
    Clients(links::ClientArgs),
    #[command(hide = true)]
    Strangers(routes::StrangersArgs),
    #[command(hide = true)]
    Peer(peer::Args),
}

pub async fn run(command: Command, cx: &Context) -> Result<(), Failure> {
    match command {
        Command::Relay(args) => relay::run(args, cx).await,
        Command::Part(args) => Ok(ends::run(args).await?),
        Command::Links(args) => links::run(args, cx).await,
        Command::Routes(args) => routes::run(args, cx).await,
        Command::Stored(args) => stored::run(args, cx).await,
        Command::Accepts(args) => accepts::run(args, cx).await,
        Command::Load(args) => load::run(args, cx).await,
        Command::Verify(args) => verify::run(args, cx).await,
        Command::Disk(args) => disk::run(&args, cx),
        Command::Strangers(args) => Ok(routes::strangers(args).await?),
        Command::Clients(args) => Ok(links::clients(args).await?),
        Command::Neighbour(args) => Ok(neighbour::run(args).await?),
        Command::Peer(args) => Ok(peer::run(args).await?),
    }
}
