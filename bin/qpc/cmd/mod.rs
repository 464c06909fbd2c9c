//! The commands, one file each: arguments, a call, printing.

mod announce;
mod backup;
#[cfg(feature = "quic")]
mod bench;
mod block;
mod broadcast;
mod completions;
mod config;
mod contact;
mod demo;
mod doctor;
mod drain;
mod events;
mod health;
mod identity;
mod inbox;
mod init;
mod known;
mod log_level;
mod mailboxes;
mod man;
mod message;
mod outbox;
mod path;
mod peer;
mod peers;
mod ping;
mod recv;
mod reload;
mod repl;
mod requests;
mod routes;
mod run;
mod send;
mod stats;
mod status;
mod trace;
mod version;
mod wire;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod snapshots;

use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use quicprochat_mesh::{api::ApiError, config::parse_duration, node::IdPrefix, wire::MessageUid};

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
#[command(max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a small mesh at work: nodes in a line, real messages over several hops
    Demo(Deferred<demo::Args>),
    /// Create the identity and a commented config.toml
    Init(Deferred<init::Args>),
    /// Run a node in the foreground until a signal or `qpc drain`
    Run(Deferred<run::Args>),
    /// Show how the node is
    Status(Deferred<status::Args>),
    /// List the links to other nodes
    Peers(Deferred<peers::Args>),
    /// Show the routing table
    Routes(Deferred<routes::Args>),
    /// Show every node heard within the last day, reachable or not
    Known(Deferred<known::Args>),
    /// Look for a path to a node, or forget one
    #[command(subcommand)]
    Path(Deferred<path::Command>),
    /// Show what was counted since the node started
    Stats(Deferred<stats::Args>),
    /// Ask the node's health endpoint; exit 0 when it is ready, 1 when not
    Health(Deferred<health::Args>),
    /// Look for what stands in the node's way, and say what to do about it
    Doctor(Deferred<doctor::Args>),
    /// Drain and stop the node, as SIGTERM does
    Drain(Deferred<drain::Args>),
    /// Add or remove a link at run time
    #[command(subcommand)]
    Peer(Deferred<peer::Command>),
    /// Announce this node now
    Announce(Deferred<announce::Args>),
    /// The node's identity: backups of it, and a passphrase on it
    #[command(subcommand)]
    Identity(Deferred<identity::Command>),
    /// Names for addresses
    #[command(subcommand)]
    Contact(Deferred<contact::Command>),
    /// Take nothing more of a sender
    Block(Deferred<block::Args>),
    /// Take messages of a blocked sender again
    Unblock(Deferred<block::UnblockArgs>),
    /// List who is blocked
    Blocked(Deferred<block::ListArgs>),
    /// Strangers whose messages wait to be accepted
    #[command(subcommand)]
    Requests(Deferred<requests::Command>),
    /// Send a message, end-to-end encrypted and signed
    Send(Deferred<send::Args>),
    /// Send to every node within reach: signed, NOT ENCRYPTED
    Broadcast(Deferred<broadcast::Args>),
    /// Take messages out of the inbox, oldest first
    Recv(Deferred<recv::Args>),
    /// Look at messages that arrived, without taking them out
    #[command(subcommand_required = false)]
    Inbox(Deferred<inbox::Args>),
    /// Look at messages that are on their way
    #[command(subcommand_required = false)]
    Outbox(Deferred<outbox::Args>),
    /// Show how a message stands, and what became of it here
    Message(Deferred<message::Args>),
    /// Look at what is held for other nodes
    Mailboxes(Deferred<mailboxes::Args>),
    /// Show the path to a node, hop by hop
    Trace(Deferred<trace::Args>),
    /// Measure round trips to a node
    Ping(Deferred<ping::Args>),
    /// Show what happens in the node: links, routes, messages, refusals, limits
    Events(Deferred<events::Args>),
    /// Have a changed configuration hold, as far as it can while the node runs
    Reload(Deferred<reload::Args>),
    /// Change what the running node logs
    LogLevel(Deferred<log_level::Args>),
    /// Show or check the configuration
    #[command(subcommand)]
    Config(Deferred<config::Command>),
    /// Talk to the running node: commands with a slash, and conversations
    Repl(Deferred<repl::Args>),
    /// Copy the data directory, as it stands at one moment
    Backup(Deferred<backup::Args>),
    /// Explain a link frame given in hex
    Wire(Deferred<wire::Args>),
    /// Measure this machine and this build
    #[cfg(feature = "quic")]
    #[command(subcommand)]
    Bench(Deferred<bench::Command>),
    /// Show the version, the protocol and what is compiled in
    Version(Deferred<version::Args>),
    /// Print a script that completes commands in your shell
    Completions(Deferred<completions::Args>),
    /// Write manual pages
    Man(Deferred<man::Args>),
}

/// A command that is described only where it is called: a description of all of them would be built,
/// and the program's pages for it stay resident, in every node that starts.
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

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(T::augment_args)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command.defer(T::augment_args_for_update)
    }
}

/// Runs a command. All but `run`, which has a runtime of its own, live on one thread.
pub fn dispatch(command: Command, cx: &mut Context) -> Result<(), Failure> {
    if let Command::Run(args) = command {
        return run::run(args.0, cx);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| ApiError::failed(format!("cannot start: {e}")))?;
    runtime.block_on(async {
        match command {
            Command::Run(args) => run::run(args.0, cx),
            Command::Demo(args) => demo::run(args.0, cx).await,
            Command::Init(args) => init::run(args.0, cx),
            Command::Status(args) => status::run(args.0, cx).await,
            Command::Peers(args) => peers::run(args.0, cx).await,
            Command::Repl(args) => repl::run(args.0, cx).await,
            Command::Routes(args) => routes::run(args.0, cx).await,
            Command::Known(args) => known::run(args.0, cx).await,
            Command::Path(command) => path::run(command.0, cx).await,
            Command::Stats(args) => stats::run(args.0, cx).await,
            Command::Health(args) => health::run(args.0, cx).await,
            Command::Doctor(args) => doctor::run(args.0, cx).await,
            Command::Drain(args) => drain::run(args.0, cx).await,
            Command::Peer(command) => peer::run(command.0, cx).await,
            Command::Announce(args) => announce::run(args.0, cx).await,
            Command::Identity(command) => identity::run(command.0, cx).await,
            Command::Contact(command) => contact::run(command.0, cx).await,
            Command::Block(args) => block::run(args.0, cx).await,
            Command::Unblock(args) => block::unblock(args.0, cx).await,
            Command::Blocked(args) => block::list(args.0, cx).await,
            Command::Requests(command) => requests::run(command.0, cx).await,
            Command::Send(args) => send::run(args.0, cx).await,
            Command::Broadcast(args) => broadcast::run(args.0, cx).await,
            Command::Recv(args) => recv::run(args.0, cx).await,
            Command::Inbox(args) => inbox::run(args.0, cx).await,
            Command::Outbox(args) => outbox::run(args.0, cx).await,
            Command::Message(args) => message::run(args.0, cx).await,
            Command::Mailboxes(args) => mailboxes::run(args.0, cx).await,
            Command::Trace(args) => trace::run(args.0, cx).await,
            Command::Ping(args) => ping::run(args.0, cx).await,
            Command::Events(args) => events::run(args.0, cx).await,
            Command::Reload(args) => reload::run(args.0, cx).await,
            Command::LogLevel(args) => log_level::run(args.0, cx).await,
            Command::Config(command) => config::run(command.0, cx),
            Command::Backup(args) => backup::run(args.0, cx).await,
            Command::Wire(args) => wire::run(args.0, cx),
            #[cfg(feature = "quic")]
            Command::Bench(command) => bench::run(command.0, cx).await,
            Command::Version(args) => version::run(args.0, cx),
            Command::Completions(args) => completions::run(args.0, cx),
            Command::Man(args) => man::run(args.0, cx),
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

/// The id that was given in full, if it was.
fn full_id(id: &IdPrefix) -> Option<MessageUid> {
    id.digits().parse().ok()
}

/// The one of the ids in a `place` that begins as said.
fn the_one(id: &IdPrefix, here: &[MessageUid], place: &str) -> Result<MessageUid, Failure> {
    let digits = id.digits();
    let mut found = here.iter().filter(|id| id.to_string().starts_with(digits));
    let told = match (found.next(), found.next()) {
        (Some(id), None) => return Ok(*id),
        (None, _) => format!("no message in the {place} begins with {digits}: see `qpc {place}`"),
        (Some(_), Some(_)) => {
            format!("more than one message in the {place} begins with {digits}: give more digits")
        }
    };
    Err(ApiError::failed(told).into())
}
