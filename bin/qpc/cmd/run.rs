//! `qpc run`: a node in the foreground.

mod first_words;

use std::{
    io::{IsTerminal, stdin},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use quicprochat_mesh::{
    api::{ApiError, ErrorClass, PhaseTime, Ready, Stopped},
    config::LogFormat,
    crypto::{MeshIdentity, Passphrase, key_file::IDENTITY_FILE},
    storage::data_dir::write_atomic,
    telemetry,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{health, init};
use crate::{
    cx::Context,
    fail::Failure,
    human,
    ink::Ink,
    out::{Out, note},
    seam::{Foreground, Watch, run_foreground},
    secret::{self, PassphraseFile},
};

const EXAMPLES: &str = "\
Examples:
  qpc run                                 on QUIC and TCP, port 7410
  qpc run --peer quic://192.0.2.7:7410    and dial a node
  qpc run --listen tcp://[::]:0 --health-listen off
  qpc run --data-dir ./n1 --network test  one of several on a machine";

/// Run a node in the foreground until a signal or `qpc drain`
///
/// Makes an identity and a config.toml first where the data dir has none. The first SIGTERM or
/// SIGINT (Ctrl-C) drains: no new work, everything accepted goes to disk or out; the second skips
/// ahead.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Listen here: quic://HOST:PORT or tcp://HOST:PORT; repeatable; port 0 takes any free port
    /// [default: both on [::]:7410]
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,

    /// Dial this peer, and redial for ever; repeatable; #ADDRESS behind it pins who must answer
    #[arg(long, value_name = "URL")]
    peer: Vec<String>,

    /// Where the health endpoint listens, or off [default: 127.0.0.1:7411]
    #[arg(long, value_name = "HOST:PORT")]
    health_listen: Option<String>,

    /// What values begin from that nothing sets: default, constrained, personal or relay
    #[arg(long, value_name = "PRESET")]
    preset: Option<String>,

    /// Name of the network [default: public]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,

    /// File with the network's secret
    #[arg(long, value_name = "F")]
    network_secret_file: Option<PathBuf>,

    /// Find nodes of this network on the LAN, also with --listen [default: only without it]
    #[arg(long, conflicts_with = "no_discover")]
    discover: bool,

    /// Neither look for nodes on the LAN nor be found there
    #[arg(long)]
    no_discover: bool,

    #[command(flatten)]
    passphrase: PassphraseFile,

    /// Drain when stdin closes, so that the node does not outlive the program that started it
    #[arg(long)]
    until_stdin_closes: bool,
}

pub fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    // A path on the command line is relative to where the person is, one in the file to the file's
    // directory.
    let secret = match args.network_secret_file {
        Some(path) => Some(
            std::path::absolute(&path)
                .map_err(|e| ApiError::usage(format!("--network-secret-file {}: {e}", path.display())))?,
        ),
        None => None,
    };
    let flags = [
        ("--listen", "transport.listen", args.listen),
        ("--peer", "transport.peers", args.peer),
        ("--health-listen", "health.listen", args.health_listen.into_iter().collect()),
        ("--discover", "discovery.enabled", args.discover.then(|| "true".into()).into_iter().collect()),
        (
            "--no-discover",
            "discovery.enabled",
            args.no_discover.then(|| "false".into()).into_iter().collect(),
        ),
        ("--preset", "preset", args.preset.into_iter().collect()),
        ("--network", "network", args.network.into_iter().collect()),
        (
            "--network-secret-file",
            "network_secret_file",
            secret.iter().map(|p| p.display().to_string()).collect(),
        ),
    ];
    let sources = cx.clone();
    // Once more for `qpc reload`.
    let load = move || {
        let layers = sources.layers()?;
        flags.iter().fold(layers, |l, (flag, key, values)| l.flag(flag, key, values.clone())).load()
    };
    let loaded = load()?;
    for warning in &loaded.warnings {
        note(format!("warning: {warning}"));
    }
    // First, so that whatever goes wrong from here on is told with its circumstances.
    let logging = &loaded.config.logging;
    let format = match logging.format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    let log = telemetry::init_logging(format, &logging.filter).map_err(ApiError::failed)?;
    raise_open_files()?;
    init::ensure(cx)?;
    if init::is_test_identity(&cx.data_dir) {
        note("warning: the seed of this identity was on a command line; use it for tests only");
    }

    let passphrase = passphrase_of(cx, args.passphrase.path())?;

    let stop = signals(args.until_stdin_closes)?;
    let record = cx.data_dir.join(health::RECORD_NAME);
    let written = Arc::new(AtomicBool::new(false));
    let ready = announce_ready(cx.out.json, record.clone(), written.clone());
    let situation = first_words::Situation::of(&loaded.config);
    let watch: Option<Watch> = match cx.out.json {
        true => None,
        false => Some(Box::new(move |node| Box::pin(first_words::neighbours(node, situation)))),
    };
    let read_config = Box::new(move || load().map(|loaded| loaded.config));
    let (data_dir, config) = (cx.data_dir.clone(), loaded.config);
    let stopped =
        run_foreground(Foreground { data_dir, config, read_config, log, passphrase, ready, watch, stop });
    // Whatever it was, the node is gone. One that never ran may have met another that does, whose
    // record this is.
    if written.load(Ordering::Relaxed) {
        let _ = std::fs::remove_file(&record);
    }
    let stopped = stopped?;
    // A closed stdout must not turn a clean stop into another exit code.
    let _ = cx.out.show(&stopped, tell_stopped);
    if stopped.drained { Ok(()) } else { Err(Failure::Said(ErrorClass::Failed)) }
}

/// The passphrase of the identity, where that is under one.
fn passphrase_of(cx: &Context, file: Option<&Path>) -> Result<Option<Passphrase>, Failure> {
    let path = cx.data_dir.join(IDENTITY_FILE);
    match MeshIdentity::is_under_passphrase(&path) {
        Ok(true) if file.is_some() || stdin().is_terminal() => secret::known(file, "the identity").map(Some),
        Ok(false) if file.is_some() => {
            note("warning: the identity is under no passphrase; `qpc identity passphrase` puts it under one");
            Ok(None)
        }
        // What is wrong with the file, or that it needs one, is said where it is opened.
        _ => Ok(None),
    }
}

/// Open files without which a node is not started. It has some thirty before its first link.
pub(super) const OPEN_FILES_MIN: u64 = 64;

/// Takes as many open files as the system lets a process have: each link over TCP is one. Few of them
/// are no reason not to run; then fewer are let in.
fn raise_open_files() -> Result<(), ApiError> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where it is not allowed, the limit stays as it is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < OPEN_FILES_MIN => Err(ApiError::failed(format!(
            "a node needs {OPEN_FILES_MIN} open files and this process may have {files}: raise the limit \
             (`ulimit -n`, or LimitNOFILE= of the service)"
        ))),
        _ => Ok(()),
    }
}

fn announce_ready(json: bool, record: PathBuf, written: Arc<AtomicBool>) -> Box<dyn FnOnce(&Ready) + Send> {
    Box::new(move |ready| {
        written.store(true, Ordering::Relaxed);
        write_record(&record, ready);
        // A node goes on where nobody reads its output.
        let _ = Out { json }.show(ready, first_words::ready);
    })
}

/// Leaves what `qpc health` needs to find the endpoint, also where the control socket is out of
/// reach.
fn write_record(record: &Path, ready: &Ready) {
    let written = serde_json::to_vec(ready).map_err(|e| e.to_string()).and_then(|mut json| {
        json.push(b'\n');
        write_atomic(record, &json).map_err(|e| e.to_string())
    });
    if let Err(error) = written {
        note(format!("warning: `qpc health` will not find this node: {error}"));
    }
}

pub fn tell_stopped(stopped: &Stopped) -> String {
    let phase = |p: &PhaseTime| format!("{} {} ms", human::escape(&p.name), human::count(p.ms));
    let phases: Vec<String> = stopped.phases.iter().map(phase).collect();
    let how = match stopped.drained {
        true => Ink::Good.paint("drained"),
        false => Ink::Bad.paint("NOT drained in time"),
    };
    format!(
        "stopped ({}): {how}; {} undelivered kept\n  {}",
        human::escape(&stopped.reason),
        human::count(stopped.undelivered_kept),
        phases.join(", "),
    )
}

/// One item a signal, for as long as the process lives, and one for the end of stdin where that is
/// wanted. The threads are their own, so that a node that hangs still hears the second signal.
fn signals(watch_stdin: bool) -> Result<mpsc::UnboundedReceiver<()>, Failure> {
    let failed = |e: std::io::Error| ApiError::failed(format!("cannot listen for signals: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    drop(guard);
    let (tx, rx) = mpsc::unbounded_channel();
    if watch_stdin {
        let closed = tx.clone();
        let watch = move || {
            // An error is an end as well. Nobody listens where the node is gone already.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = closed.send(());
        };
        std::thread::Builder::new().name("stdin".into()).spawn(watch).map_err(failed)?;
    }
    let listen = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hangup.recv() => {}
                }
                if tx.send(()).is_err() {
                    return;
                }
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
    Ok(rx)
}
