//! `qpc repl`: talking to the running node line by line, and playbooks.

mod arrivals;
mod complete;
mod editor;
mod history;
mod names;
mod paint;
mod piped;
mod play;
mod session;
mod terminal;

use std::{
    io::{IsTerminal, stdin, stdout},
    path::PathBuf,
};

use clap::ValueEnum;
use quicprochat_mesh::{
    RunningNode, SlashBackend,
    api::{ApiError, Request, Status},
};

use crate::{cx::Context, fail::Failure};

const EXAMPLES: &str = "\
Examples:
  qpc repl
  qpc repl --playbook hello.toml --set BERT=a1b2c3d4e5f60718293a4b5c6d7e8f90
  qpc repl --json --strict < commands.txt";

/// Talk to the running node: commands with a slash, and conversations
///
/// On a terminal with line editing, history and completion; messages that arrive are shown while you
/// type and stay in the inbox until /recv. Else reads commands from stdin, one a line, and prints the
/// replies; exit 1 where one failed. /help lists the commands. With --playbook it carries out the steps
/// of a file instead.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Carry out the steps of this file and end; exit 1 at the first that fails
    #[arg(long, value_name = "FILE")]
    playbook: Option<PathBuf>,

    /// A value for ${NAME} in the playbook; repeatable; also from the environment as QPC_PB_NAME
    #[arg(long, value_name = "NAME=VALUE", requires = "playbook")]
    set: Vec<String>,

    /// Where stdin is no terminal: end at the first line that fails, with its exit code
    #[arg(long, conflicts_with = "playbook")]
    strict: bool,

    /// What of a session is kept in the file repl-history of the data directory; messages are not,
    /// unless you say all
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Keep::Commands)]
    history: Keep,
}

/// What the history file is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// Commands without the text of messages
    Commands,
    /// Every line, messages too
    All,
    /// Nothing
    None,
}

pub async fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let node = RunningNode::at(&cx.data_dir);
    if let Some(file) = &args.playbook {
        return play::run(file, &args.set, &node, cx).await;
    }
    let status = status(&node).await?;
    let is_terminal = stdin().is_terminal() && stdout().is_terminal();
    match is_terminal && !cx.out.json {
        true => terminal::run(&node, &status, args.history, cx).await,
        false => piped::run(&node, args.strict, cx).await,
    }
}

/// How the node is; the one question that says whether there is one.
async fn status(node: &RunningNode) -> Result<Status, ApiError> {
    node.ask(&Request::Status, &[]).await?.one().await
}
