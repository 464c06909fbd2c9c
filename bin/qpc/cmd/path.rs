//! `qpc path`: look for a path, forget one.

use clap::Subcommand;
use quicprochat_mesh::api::{Done, Request, Target};

use crate::{call, cx::Context, fail::Failure};

const EXAMPLES: &str = "\
Examples:
  qpc path request a1b2c3d4
  qpc path drop anna";

const REQUEST_EXAMPLES: &str = "\
Examples:
  qpc path request a1b2c3d4e5f60718293a4b5c6d7e8f90
  qpc path request anna";

const DROP_EXAMPLES: &str = "\
Examples:
  qpc path drop anna";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Ask the neighbours for a path; `qpc routes ADDRESS` shows what was found
    #[command(after_help = REQUEST_EXAMPLES)]
    Request {
        /// Destination
        #[arg(value_name = "ADDRESS")]
        destination: String,
    },
    /// Forget the paths to a node
    #[command(after_help = DROP_EXAMPLES)]
    Drop {
        /// Destination
        #[arg(value_name = "ADDRESS")]
        destination: String,
    },
}

pub async fn run(command: Command, cx: &Context) -> Result<(), Failure> {
    let (request, done) = match command {
        Command::Request { destination } => {
            Target::parse(&destination)?;
            (Request::PathRequest { destination }, "asked")
        }
        Command::Drop { destination } => {
            Target::parse(&destination)?;
            (Request::PathDrop { destination }, "forgotten")
        }
    };
    let answer: Done = call::one(cx, &request).await?;
    cx.out.show(&answer, |_| done.into())
}
