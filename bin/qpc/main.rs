//! `qpc`: runs a mesh node, and asks and tells a running one.
//!
//! Every command is one file of [`cmd`]: arguments, one call, printing. What they share is small:
//! [`cx`] knows the data directory and the configuration, [`call`] asks the node, [`out`] prints. How it
//! looks is in [`table`], [`ink`] and [`progress`], with [`screen`] for the room there is; what is said of
//! arguments that are wrong, in [`usage`].

// A binary exports nothing: `pub` says which items of a file the other files use.
#![allow(unreachable_pub)]

mod call;
mod cmd;
mod cx;
mod fail;
mod human;
mod ink;
mod out;
mod progress;
mod save;
mod screen;
mod seam;
mod secret;
mod source;
mod table;
mod usage;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

use crate::{cx::Context, fail::Failure};

fn main() -> ExitCode {
    let cli = match cmd::Cli::command().try_get_matches().and_then(|m| cmd::Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(error) => {
            return usage::tell(&error).map_or_else(|failure| report(&failure), ExitCode::from);
        }
    };
    match Context::new(cli.global).and_then(|mut cx| cmd::dispatch(cli.command, &mut cx)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// Writes why it failed to stderr, one line a reason, and returns the exit code.
fn report(failure: &Failure) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for line in failure.lines() {
        // Nobody to tell where stderr is closed.
        let _ = writeln!(stderr, "qpc: {}", human::brief(&human::escape(&line)));
    }
    ExitCode::from(failure.exit_code())
}
