//! Real nodes as processes: started on free ports, asked through `qpc … --json` and over HTTP, killed
//! when the test is over. Everything waits for an event under one deadline; when a test fails, the
//! logs of its nodes are printed with it.

// Each test file uses its part of this, and nothing else does.
#![allow(dead_code, unreachable_pub)]
// A test says what it expects by unwrapping it.
#![allow(clippy::unwrap_used)]

pub mod embedded;
pub mod namespace;
pub mod pty;
pub mod raw_peer;
pub mod trace;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use quicprochat_mesh::testing::panics::PANICS_FROM;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Longest wait for anything: two cores may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A part that did not hear that it is to panic is told again after this.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// Pause between two looks at something that sends no event.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// Looks until `look` sees something, and says what it was waiting for where it never does.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// [`wait_for`] a fact.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// A directory whose path is short enough for a socket.
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("qpc-test-").tempdir_in("/tmp").unwrap()
}

/// SHA-256 in hex, as `qpc recv --json` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `len` random bytes to a file and gives them.
pub fn random_file(path: &Path, len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open("/dev/urandom").unwrap().take(len).read_to_end(&mut bytes).unwrap();
    std::fs::write(path, &bytes).unwrap();
    bytes
}

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Every line of stdout as an object.
    #[track_caller]
    pub fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The one object of stdout.
    #[track_caller]
    pub fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Asserts that stderr holds all of `texts`.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is missing in {self:?}");
        }
        self
    }
}

/// `qpc --json` on a data directory, without the caller's environment.
pub fn command(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
    command.env_clear().env("QPC_DATA_DIR", data_dir).arg("--json").args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same command with so many file descriptors at most.
pub fn with_open_files(command: &Command, count: u32) -> Command {
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", &format!("ulimit -n {count} && exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    limited
}

/// Runs a command to its end, which must come.
#[track_caller]
pub fn finish(mut command: Command) -> Run {
    Background::start(&mut command).finish()
}

/// `qpc --json` to its end.
#[track_caller]
pub fn qpc(data_dir: &Path, args: &[&str]) -> Run {
    finish(command(data_dir, args))
}

/// Sends a signal, `TERM` or `INT`.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// A process that goes on while the test does something else; killed when dropped.
pub struct Background {
    child: Child,
    lines: mpsc::Receiver<String>,
    stderr: Arc<Mutex<String>>,
    pipes: Vec<thread::JoinHandle<()>>,
}

impl Background {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (line, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let stderr = Arc::new(Mutex::new(String::new()));
        let out = thread::spawn(move || {
            // A test that no longer listens must not fill the pipe.
            stdout.lines().map_while(Result::ok).for_each(|text| drop(line.send(text)));
        });
        let kept = stderr.clone();
        let err = thread::spawn(move || {
            let mut text = Vec::new();
            while errors.read_until(b'\n', &mut text).is_ok_and(|n| n > 0) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&text));
                text.clear();
            }
        });
        Self { child, lines, stderr, pipes: vec![out, err] }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => panic!("no further line on stdout; stderr: {}", self.stderr()),
        }
    }

    /// What was written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process comes to no end: {}", self.stderr());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for its end and gives everything it printed.
    #[track_caller]
    pub fn finish(mut self) -> Run {
        let status = self.exit();
        for pipe in self.pipes.drain(..) {
            pipe.join().unwrap();
        }
        let stdout = self.lines.try_iter().map(|line| line + "\n").collect();
        Run { code: status.code().unwrap_or(-1), stdout, stderr: self.stderr() }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One `qpc run`.
pub struct Node {
    pub name: String,
    dir: PathBuf,
    _temp: tempfile::TempDir,
    args: Vec<String>,
    env: Vec<(String, String)>,
    open_files: Option<u32>,
    inside: Option<u32>,
    hosts: Option<PathBuf>,
    process: Option<Background>,
    /// Where parts of it are told to panic.
    panics: PathBuf,
    /// The ready line.
    pub ready: Value,
}

/// What a node is started with.
pub struct Spec {
    name: String,
    listen: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    open_files: Option<u32>,
    inside: Option<u32>,
    hosts: Option<PathBuf>,
    dir: Option<PathBuf>,
    can_panic: bool,
}

impl Spec {
    /// A node that listens on a free port of QUIC and of TCP.
    pub fn new(name: &str) -> Self {
        let listen = vec!["quic://127.0.0.1:0".into(), "tcp://127.0.0.1:0".into()];
        // A link that is dead shows in two seconds rather than thirty.
        let env = vec![("QPC_TRANSPORT_KEEPALIVE".into(), "1s".into())];
        let name = name.into();
        Self {
            name,
            listen,
            args: vec![],
            env,
            open_files: None,
            inside: None,
            hosts: None,
            dir: None,
            can_panic: false,
        }
    }

    /// On this data directory instead of one of its own.
    pub fn at(self, dir: &Path) -> Self {
        Self { dir: Some(dir.to_owned()), ..self }
    }

    pub fn peer(self, url: impl Into<String>) -> Self {
        self.arg("--peer").arg(url)
    }

    /// A node that listens here alone, and dials from there over QUIC.
    pub fn listen(self, url: &str) -> Self {
        Self { listen: vec![url.into()], ..self }
    }

    /// A node that listens where it does by default.
    pub fn listens_by_default(self) -> Self {
        Self { listen: vec![], ..self }
    }

    /// With this file in the place of `/etc/hosts`.
    pub fn hosts(self, file: &Path) -> Self {
        Self { hosts: Some(file.to_owned()), ..self }
    }

    /// In this network namespace.
    pub fn inside(self, namespace: &namespace::Namespace) -> Self {
        Self { inside: Some(namespace.pid()), ..self }
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// A node that [`Node::panics`] may be asked of.
    pub fn can_panic(self) -> Self {
        Self { can_panic: true, ..self }
    }

    /// With so many file descriptors at most.
    pub fn open_files(self, count: u32) -> Self {
        Self { open_files: Some(count), ..self }
    }

    /// A node that asks its peers for a sign of life rarely: a raw peer answers only while a test
    /// reads from it.
    pub fn patient(name: &str) -> Self {
        Self { env: vec![("QPC_TRANSPORT_KEEPALIVE".into(), "20s".into())], ..Self::new(name) }
    }

    #[track_caller]
    pub fn start(self) -> Node {
        let temp = temp_dir();
        let panics = temp.path().join("panics");
        let mut env = self.env;
        if self.can_panic {
            assert!(Command::new("mkfifo").arg(&panics).status().unwrap().success());
            env.push((PANICS_FROM.into(), panics.to_str().unwrap().into()));
        }
        let mut node = Node {
            name: self.name,
            dir: self.dir.unwrap_or_else(|| temp.path().join("data")),
            _temp: temp,
            args: self.args,
            env,
            open_files: self.open_files,
            inside: self.inside,
            hosts: self.hosts,
            process: None,
            panics,
            ready: Value::Null,
        };
        node.start(&self.listen);
        node
    }
}

impl Node {
    #[track_caller]
    fn start(&mut self, listen: &[String]) {
        let mut command = command(&self.dir, &["run", "--health-listen", "127.0.0.1:0"]);
        for url in listen {
            command.args(["--listen", url]);
        }
        command.args(&self.args).envs(self.env.iter().cloned());
        if let Some(count) = self.open_files {
            command = with_open_files(&command, count);
        }
        if let Some(pid) = self.inside {
            command = namespace::inside(pid, &command);
        }
        if let Some(hosts) = &self.hosts {
            command = namespace::with_hosts(hosts, &command);
        }
        let mut process = Background::start(&mut command);
        let line = process.line();
        self.ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(self.ready["event"], "ready", "{line}");
        self.process = Some(process);
    }

    /// Starts it again on the same data directory and the same ports.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        self.start(&self.urls());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.print_log("killed by the test");
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM; gives the `stopped` line and the exit code.
    #[track_caller]
    pub fn stop(&mut self) -> (Value, i32) {
        signal(self.pid(), "TERM");
        self.stopped()
    }

    /// Waits for the end of a node that was told to stop.
    #[track_caller]
    pub fn stopped(&mut self) -> (Value, i32) {
        let run = self.process.take().unwrap().finish();
        let code = run.code;
        (run.object(), code)
    }

    /// Waits for the end of a node that was not told to stop.
    #[track_caller]
    pub fn ends(&mut self) -> Run {
        self.process.take().unwrap().finish()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Tells parts of it to panic, by their path in the tree of actors (`transport/link/reader`), or
    /// `root`, or `storage`. One that is being started again just then does not hear it.
    #[track_caller]
    pub fn tell_to_panic(&self, path: &str) {
        // Open for reading too, it waits for nobody.
        let mut fifo = File::options().read(true).write(true).open(&self.panics).unwrap();
        writeln!(fifo, "{path}").unwrap();
    }

    /// Has parts of it panic, as [`Node::tell_to_panic`], and waits until one has.
    #[track_caller]
    pub fn panics(&self, path: &str) {
        let before = self.count_panics();
        let mut told_at = None;
        wait_until(&format!("a panic of {path} in {}", self.name), || {
            if told_at.is_none_or(|at: Instant| at.elapsed() > TELL_AGAIN) {
                self.tell_to_panic(path);
                told_at = Some(Instant::now());
            }
            self.count_panics() > before
        });
    }

    /// Panics that tests wanted of it so far.
    pub fn count_panics(&self) -> usize {
        self.log().matches("a test wanted this panic").count()
    }

    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().pid()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Background::is_running)
    }

    pub fn address(&self) -> String {
        self.ready["address"].as_str().unwrap().to_owned()
    }

    fn urls(&self) -> Vec<String> {
        let urls = self.ready["listen"].as_array().unwrap();
        urls.iter().map(|url| url.as_str().unwrap().to_owned()).collect()
    }

    /// The URL that others dial over this transport.
    #[track_caller]
    pub fn url(&self, scheme: &str) -> String {
        self.urls().into_iter().find(|url| url.starts_with(&format!("{scheme}://"))).unwrap()
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Background::stderr).unwrap_or_default()
    }

    #[track_caller]
    pub fn qpc(&self, args: &[&str]) -> Run {
        qpc(&self.dir, args)
    }

    /// A command that goes on by itself.
    #[track_caller]
    pub fn background(&self, args: &[&str]) -> Background {
        Background::start(&mut command(&self.dir, args))
    }

    /// The answers to a command that has to succeed.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Vec<Value> {
        self.qpc(args).exits(0).objects()
    }

    /// Sends a text and waits for its receipt.
    #[track_caller]
    pub fn deliver(&self, to: &Node, text: &str) -> Value {
        self.qpc(&["send", "--to", &to.address(), "--wait", "120s", text]).exits(0).object()
    }

    /// Puts a text into the outbox and gives its id.
    #[track_caller]
    pub fn queue(&self, to: &str, text: &str) -> String {
        let sent = self.qpc(&["send", "--to", to, text]).exits(0).object();
        sent["id"].as_str().unwrap().to_owned()
    }

    /// Takes that many messages, in arrival order.
    #[track_caller]
    pub fn take(&self, count: usize) -> Vec<Value> {
        let messages = self.ask(&["recv", "--count", &count.to_string(), "--timeout", "120s"]);
        assert_eq!(messages.len(), count);
        messages
    }

    /// What waits in the inbox.
    #[track_caller]
    pub fn inbox(&self) -> Vec<Value> {
        self.ask(&["inbox"])
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.ask(&["status"]).remove(0)
    }

    /// Waits until each of `others` has a route from here and its key is known, which come with
    /// one announce.
    #[track_caller]
    pub fn knows(&self, others: &[&Node]) {
        for other in others {
            let what = format!("a route from {} to {}", self.name, other.name);
            let address = other.address();
            wait_until(&what, || self.ask(&["routes"]).iter().any(|r| r["destination"] == *address));
        }
    }

    /// Waits until this many links are up.
    #[track_caller]
    pub fn has_links(&self, count: usize) {
        let what = format!("{count} links of {}", self.name);
        wait_until(&what, || self.ask(&["peers"]).len() == count);
    }

    /// Waits until the outbox is empty: every receipt is back.
    #[track_caller]
    pub fn has_all_receipts(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.ask(&["outbox"]);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{} waited in vain for receipts of {left:#?}", self.name);
            thread::sleep(LOOK_EVERY);
        }
    }

    /// GET on the health port: status and body.
    pub fn http(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.ready["health"].as_str().unwrap())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok((code, body))
    }

    /// The sum of a metric's series that carry all of `labels`, as `/metricsz` shows it.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (code, text) = self.http("/metricsz").unwrap();
        assert_eq!(code, 200, "{text}");
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let is_wanted = |line: &&str| {
            let series = line.split(' ').next().unwrap_or_default();
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        };
        let lines: Vec<&str> = text.lines().filter(is_wanted).collect();
        assert!(!lines.is_empty(), "no series {name} {labels:?}");
        lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until a counter is above `before`.
    #[track_caller]
    pub fn counts(&self, name: &str, labels: &[(&str, &str)], before: f64) {
        let what = format!("{name} {labels:?} of {} above {before}", self.name);
        wait_until(&what, || self.metric(name, labels) > before);
    }

    /// Waits for a line of its log.
    #[track_caller]
    pub fn logs(&self, text: &str) {
        wait_until(&format!("{text:?} in the log of {}", self.name), || self.log().contains(text));
    }

    fn print_log(&self, why: &str) {
        if let Some(process) = &self.process {
            // The test harness shows this with a failed test and swallows it otherwise.
            eprintln!("--- {} ({why}) ---\n{}", self.name, process.stderr());
        }
    }
}

/// `qpc bench load` between nodes of this machine, with what else it is to be told. It goes on when
/// a node dies, and ends the sending at SIGINT.
pub struct Load {
    pub log: PathBuf,
    process: Background,
}

impl Load {
    #[track_caller]
    pub fn start(log: &Path, from: &[&Node], to: &[&str], more: &[&str]) -> Self {
        let dirs = from.iter().map(|node| node.dir().to_str().unwrap());
        let mut args = vec!["bench", "load", "--log", log.to_str().unwrap(), "--from"];
        args.extend(dirs);
        args.push("--to");
        args.extend(to);
        args.extend(more);
        let mut command = command(log.parent().unwrap(), &args);
        Self { log: log.to_owned(), process: Background::start(&mut command) }
    }

    /// Lines of the log that tell of this event so far.
    pub fn count(&self, event: &str) -> usize {
        count_events(&self.log, event)
    }

    /// Waits for that many more lines of an event.
    #[track_caller]
    pub fn goes_on(&mut self, event: &str, more: usize) {
        let wanted = self.count(event) + more;
        wait_until(&format!("{wanted} times {event} in the log of the load"), || {
            assert!(self.process.is_running(), "the load ended: {}", self.process.stderr());
            self.count(event) >= wanted
        });
    }

    /// Sends no more, waits for what is on its way, and gives how it ended.
    #[track_caller]
    pub fn stop(self) -> Run {
        signal(self.process.pid(), "INT");
        self.process.finish()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(self) -> Run {
        self.process.finish()
    }
}

/// Lines of a load's log that tell of this event.
pub fn count_events(log: &Path, event: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mark = format!("\"ev\":\"{event}\"");
    text.lines().filter(|line| line.contains(&mark)).count()
}

/// `qpc bench verify` of a log, with what running nodes still have.
#[track_caller]
pub fn verify(log: &Path, nodes: &[&Node]) -> Run {
    let mut args = vec!["bench", "verify", log.to_str().unwrap()];
    args.extend(nodes.iter().flat_map(|node| ["--data-dir", node.dir().to_str().unwrap()]));
    finish(command(log.parent().unwrap(), &args))
}

/// Asserts that a comparison found everything acknowledged, once, in order, and nothing else; gives it.
#[track_caller]
pub fn nothing_amiss(run: Run) -> Value {
    let found = run.exits(0).object();
    for what in ["lost", "duplicate", "phantom", "gap", "present", "unobserved", "foreign"] {
        assert_eq!(found[what], 0, "{what}: {found:#}");
    }
    assert!(found["acked"].as_u64().unwrap() > 0, "{found:#}");
    found
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_log("when the test failed");
        }
    }
}
