//! The commands, one file each: arguments, a call, printing.

mod announce;
#[cfg(feature = "quic")]
mod bench;
mod broadcast;
mod config;
mod contact;
mod demo;
mod drain;
mod health;
mod inbox;
mod init;
mod known;
mod outbox;
mod path;
mod peer;
mod peers;
mod ping;
mod recv;
mod routes;
mod run;
mod send;
mod stats;
mod status;
mod trace;
mod version;
mod wire;

use std::time::Duration;

use clap::{ArgMatches, FromArgMatches, Parser, Subcommand};
use quicprochat_mesh::{api::ApiError, config::parse_duration};

use crate::{
    cx::{Context, Global},
    fail::Failure,
};

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 usage; 69 no node is running for this data dir; 75 accepted but not \
finished in the time asked for; 78 bad config.

An ADDRESS is 32 hex digits, a unique prefix of at least 8, or a contact's name. Durations are written \
500ms, 30s, 10m, 2h, 7d.

Try it:
  qpc demo                        see a small mesh at work on this machine
  qpc run &                       start a node (makes an identity on first use)
  qpc status                      see how it is
  qpc send --to ADDRESS hello     send a message, end-to-end encrypted
  qpc recv --follow               read what arrives";

/// A peer-to-peer mesh node: signed, end-to-end encrypted messages over QUIC and TCP, hop by hop,
/// with no server that owns the network
#[derive(Debug, Parser)]
#[command(name = "qpc", version, after_help = AFTER_HELP, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Run(run::Args),
    Status(status::Args),
    Peers(peers::Args),
    Routes(routes::Args),
    Known(known::Args),
    #[command(subcommand)]
    Path(path::Command),
    Stats(stats::Args),
    Health(health::Args),
    Drain(drain::Args),
    #[command(subcommand)]
    Peer(peer::Command),
    Announce(announce::Args),
    #[command(subcommand)]
    Contact(contact::Command),
    Send(send::Args),
    Broadcast(broadcast::Args),
    Recv(recv::Args),
    #[command(subcommand_required = false)]
    Inbox(inbox::Args),
    #[command(subcommand_required = false)]
    Outbox(outbox::Args),
    Trace(trace::Args),
    Ping(ping::Args),
    #[command(subcommand)]
    Config(config::Command),
    Wire(wire::Args),
    /// Measure this machine and this build
    #[cfg(feature = "quic")]
    #[command(subcommand)]
    Bench(Deferred<bench::Command>),
    Version(version::Args),
}

/// A command whose own commands are described only where it is called: a description of all of
/// `bench` would be built, and its memory kept, by every node that starts.
#[derive(Debug)]
pub struct Deferred<T>(pub T);

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T: Subcommand> Subcommand for Deferred<T> {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        command.defer(T::augment_subcommands)
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        command.defer(T::augment_subcommands_for_update)
    }

    fn has_subcommand(name: &str) -> bool {
        T::has_subcommand(name)
    }
}

/// Runs a command. All but `run`, which has a runtime of its own, live on one thread.
pub fn dispatch(command: Command, cx: &mut Context) -> Result<(), Failure> {
    if let Command::Run(args) = command {
        return run::run(args, cx);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| ApiError::failed(format!("cannot start: {e}")))?;
    runtime.block_on(async {
        match command {
            Command::Run(args) => run::run(args, cx),
            Command::Demo(args) => demo::run(args, cx).await,
            Command::Init(args) => init::run(args, cx),
            Command::Status(args) => status::run(args, cx).await,
            Command::Peers(args) => peers::run(args, cx).await,
            Command::Routes(args) => routes::run(args, cx).await,
            Command::Known(args) => known::run(args, cx).await,
            Command::Path(command) => path::run(command, cx).await,
            Command::Stats(args) => stats::run(args, cx).await,
            Command::Health(args) => health::run(args, cx).await,
            Command::Drain(args) => drain::run(args, cx).await,
            Command::Peer(command) => peer::run(command, cx).await,
            Command::Announce(args) => announce::run(args, cx).await,
            Command::Contact(command) => contact::run(command, cx).await,
            Command::Send(args) => send::run(args, cx).await,
            Command::Broadcast(args) => broadcast::run(args, cx).await,
            Command::Recv(args) => recv::run(args, cx).await,
            Command::Inbox(args) => inbox::run(args, cx).await,
            Command::Outbox(args) => outbox::run(args, cx).await,
            Command::Trace(args) => trace::run(args, cx).await,
            Command::Ping(args) => ping::run(args, cx).await,
            Command::Config(command) => config::run(command, cx),
            Command::Wire(args) => wire::run(args, cx),
            #[cfg(feature = "quic")]
            Command::Bench(command) => bench::run(command.0, cx).await,
            Command::Version(args) => version::run(args, cx),
        }
    })
}

/// Reads a duration argument.
fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

/// Milliseconds of a duration.
fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
