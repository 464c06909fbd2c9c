//! `qpc path`: look for a path, forget one.

use clap::Subcommand;
use quicprochat_mesh::api::{Done, Request, Target};

use crate::{call, cx::Context, fail::Failure};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask the neighbours for a path; `qpc routes ADDRESS` shows what was found
    Request {
        /// Destination
        #[arg(value_name = "ADDRESS")]
        destination: String,
    },
    /// Forget the paths to a node
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
