//! The demo's nodes: real `qpc run` processes of this same program in a line, below one temporary
//! directory.
//!
//! A node ends when its stdin does, so that none outlives the demo, however the demo ends. They
//! stand in process groups of their own: Ctrl-C on the terminal reaches the demo alone, which then
//! drains them.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use quicprochat_mesh::{
    api::{ApiError, InboxItem, Ready, Request, Stopped},
    control::Client,
    crypto::random,
    wire::Address,
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::fail::Failure;

/// Longest that a node may take to be ready, to stop, or to answer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Directory of all nodes, removed with its value unless it is kept.
pub struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    /// A fresh directory that only this user can look into. The name is short: a control socket's
    /// path has little room.
    pub fn create() -> Result<Self, Failure> {
        let tag = u32::from_be_bytes(random::random_bytes(&mut random::os_rng()));
        let path = std::env::temp_dir().join(format!("qpc-demo-{tag:08x}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| ApiError::failed(format!("cannot create {}: {e}", path.display())))?;
        Ok(Self { path, kept: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it, for somebody to look what went wrong.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // Best effort: what stays is in the system's directory for temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// One node of the line.
pub struct Node {
    /// `n1`, `n2`, …
    pub name: String,
    /// Its data directory.
    pub dir: PathBuf,
    /// `quic` or `tcp`: what it listens on.
    pub scheme: &'static str,
    /// What it said when it was ready.
    pub ready: Ready,
    peer: Option<String>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The node drains when this closes.
    stdin: ChildStdin,
}

impl Node {
    /// Starts a node that listens on `scheme` and dials `peer`, and waits until it is ready.
    pub async fn start(
        folder: &Folder,
        name: String,
        scheme: &'static str,
        peer: Option<String>,
    ) -> Result<Self, Failure> {
        let dir = folder.path().join(&name);
        let (process, ready) = spawn(&name, &dir, scheme, peer.as_deref()).await?;
        Ok(Self { name, dir, scheme, ready, peer, process: Some(process) })
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.ready.address
    }

    /// Where the next node of the line dials it; another identity at that place is refused.
    pub fn dial_url(&self) -> Option<String> {
        self.ready.listen.first().map(|url| format!("{url}#{}", self.ready.address))
    }

    /// Drains and stops it.
    pub async fn stop(&mut self) -> Result<Option<Stopped>, Failure> {
        let Some(Process { mut child, mut lines, stdin }) = self.process.take() else { return Ok(None) };
        drop(stdin);
        let ended = timeout(PATIENCE, async {
            let mut stopped = None;
            while let Ok(Some(line)) = lines.next_line().await {
                stopped = serde_json::from_str(&line).ok().or(stopped);
            }
            child.wait().await.map(|_| stopped)
        });
        match ended.await {
            Ok(Ok(stopped)) => Ok(stopped),
            Ok(Err(e)) => Err(ApiError::failed(format!("{} cannot be waited for: {e}", self.name)).into()),
            // The child is dropped here, which kills it.
            Err(_) => Err(ApiError::failed(format!("{} did not stop in time", self.name)).into()),
        }
    }

    /// Starts it again as it was.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        let (process, ready) = spawn(&self.name, &self.dir, self.scheme, self.peer.as_deref()).await?;
        self.process = Some(process);
        self.ready = ready;
        Ok(())
    }

    /// A request to it, to be read from.
    pub async fn open(&self, request: &Request, payload: &[u8]) -> Result<Client, Failure> {
        Ok(Client::request(&self.dir, request, payload).await?)
    }

    /// The first answer to a request.
    pub async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        let mut client = self.open(request, &[]).await?;
        next(&self.name, &mut client).await
    }

    /// All answers to a request.
    pub async fn ask_all<T: DeserializeOwned>(&self, request: &Request) -> Result<Vec<T>, Failure> {
        let mut client = self.open(request, &[]).await?;
        let mut all = Vec::new();
        while let Some(frame) = client.next().await? {
            all.push(frame.parse()?);
        }
        Ok(all)
    }

    /// Takes the next message out of its inbox, waiting for one.
    pub async fn receive(&self) -> Result<(InboxItem, Vec<u8>), Failure> {
        let late = || ApiError::failed(format!("no message arrived at {} in time", self.name));
        let request = Request::Recv { count: Some(1), wait: true, keep: false };
        let mut client = self.open(&request, &[]).await?;
        let frame = timeout(PATIENCE, client.next()).await.map_err(|_| late())??.ok_or_else(late)?;
        if let Some(number) = frame.ack {
            client.acknowledge(number).await?;
            // The end of the answers says that the node has removed it.
            while client.next().await?.is_some() {}
        }
        Ok((frame.parse()?, frame.payload.to_vec()))
    }
}

/// The next answer of a request under way.
pub async fn next<T: DeserializeOwned>(name: &str, client: &mut Client) -> Result<T, Failure> {
    let failed = |why: &str| ApiError::failed(format!("{name} {why}"));
    let frame = timeout(PATIENCE, client.next()).await.map_err(|_| failed("does not answer"))??;
    Ok(frame.ok_or_else(|| failed("ended the request without an answer"))?.parse()?)
}

async fn spawn(
    name: &str,
    dir: &Path,
    scheme: &str,
    peer: Option<&str>,
) -> Result<(Process, Ready), Failure> {
    let log_path = dir.with_extension("log");
    let failed = |what: &str| {
        let last = std::fs::read_to_string(&log_path).unwrap_or_default();
        let last = last.lines().next_back().unwrap_or("nothing in its log").to_owned();
        Failure::from(ApiError::failed(format!("{name} {what}: {last}")))
    };
    let io = |e: io::Error| ApiError::failed(format!("cannot start {name}: {e}"));

    let mut command = Command::new(std::env::current_exe().map_err(io)?);
    command.args(["run", "--json", "--until-stdin-closes", "--health-listen", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(dir);
    command.arg("--listen").arg(format!("{scheme}://127.0.0.1:0"));
    if let Some(peer) = peer {
        command.arg("--peer").arg(peer);
    }
    // What configures the caller's own node must not reach these.
    for (key, _) in std::env::vars_os().filter(|(key, _)| is_ours(key)) {
        command.env_remove(key);
    }
    let log = File::options().create(true).append(true).open(&log_path).map_err(io)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(io)?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed("has no pipes"));
    };
    let mut lines = BufReader::new(stdout).lines();
    match timeout(PATIENCE, lines.next_line()).await {
        Ok(Ok(Some(line))) => {
            let ready = serde_json::from_str(&line).map_err(|_| failed("did not say it is ready"))?;
            Ok((Process { child, lines, stdin }, ready))
        }
        Ok(_) => Err(failed("ended before it was ready")),
        Err(_) => Err(failed("was not ready in time")),
    }
}

fn is_ours(key: &OsString) -> bool {
    key.as_encoded_bytes().starts_with(b"QPC_")
}
