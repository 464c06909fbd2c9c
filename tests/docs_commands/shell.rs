//! A page's commands in one shell.
//!
//! What a reader has is there: `qpc` on the path, a home directory of its own, a directory to be in.
//! Beyond that a page says itself what it needs. What differs from a reader's terminal:
//!
//! - Where the system allows it, the shell has a network of its own with nothing but loopback, so that
//!   the pages' ports are free. Where not, ports of the pages become free ones, both ways.
//! - A node in the background is up before the next command: who types is slower than a node starts.
//! - Each command's output goes to a file. What a page started and left running is drained at its end.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    compare::{agree, contains, normal},
    page::{Page, Step},
};

/// Longest that all commands of one page may take: others may be busy on this machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Pause between two looks at the shell.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// What pages show where the test has a directory of its own.
const SHOWN_DIR: &str = "/tmp/mesh";

/// Ports that pages may name; without a network of its own a test takes others in their stead.
const PORTS: std::ops::RangeInclusive<u16> = 7400..=7499;

/// `qpc`: says which process works on which data directory, then becomes it.
const WRAPPER: &str = r#"#!/bin/sh
kind=other dir=${QPC_DATA_DIR:-} word=
for argument; do
    case $word in --data-dir) dir=$argument;; esac
    case $argument in --data-dir=*) dir=${argument#*=};; run) kind=run;; esac
    word=$argument
done
case $dir in /*|'') ;; *) dir=$PWD/$dir;; esac
printf '%s\n%s\n' "$kind" "$dir" >"$DOCS_STATE/pids/.$$"
mv "$DOCS_STATE/pids/.$$" "$DOCS_STATE/pids/$$"
exec "$DOCS_QPC" "$@"
"#;

/// In front of the commands.
const HEAD: &str = r#"
if [[ -n ${DOCS_OWN_NETWORK:-} ]]; then ip link set lo up || exit 1; fi
__of() { # sets kind and dir of a process; false where it is no qpc
    { read -r kind; read -r dir; } 2>/dev/null <"$DOCS_STATE/pids/$1"
}
__qpc() { "$DOCS_QPC" ${dir:+--data-dir "$dir"} "$@"; }
__up() {
    local pid=$1 kind dir tries
    for ((tries = 0; tries < 2000; tries++)); do
        kill -0 "$pid" 2>/dev/null || return 0
        if __of "$pid"; then
            [[ $kind == run ]] || return 0
            __qpc status >/dev/null 2>&1 && return 0
        fi
        sleep 0.03
    done
}
__gone() {
    local tries
    for ((tries = 0; tries < 1000; tries++)); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.03
    done
    return 1
}
__last=0
"#;

/// Behind the commands: what runs still is drained.
const TAIL: &str = r#"
echo end >"$DOCS_STATE/at"
for __file in "$DOCS_STATE"/pids/*; do
    __pid=${__file##*/}
    if __of "$__pid" && [[ $kind == run ]] && kill -0 "$__pid" 2>/dev/null; then
        # One that a page drained may be on its way out still.
        __qpc drain >>"$DOCS_STATE/drains" 2>&1 || __gone "$__pid" || { cat "$DOCS_STATE/drains"; exit 1; }
    fi
done
wait
echo done >"$DOCS_STATE/at"
"#;

/// Runs a page and says what is not as it shows.
pub fn run(name: &str, page: &Page) -> Vec<String> {
    let dir = tempfile::Builder::new().prefix("qpc-docs-").tempdir_in("/tmp").unwrap();
    let run = Run::prepare(dir.path(), page);
    let ended = run.shell();
    let at = run.read("at").trim().to_owned();
    let mut wrong = Vec::new();
    for (index, step) in page.steps.iter().enumerate() {
        let Some(said) = run.said(index) else { continue };
        let place = format!("{name}:{}: `{}`", step.line, step.script.trim());
        let code = run.read(&format!("{index}.code")).trim().to_owned();
        let asks = page.steps.get(index + 1).is_some_and(|next| next.script.starts_with("echo $?"));
        if step.shown.is_some() && !matches!(code.as_str(), "0" | "") && !asks {
            wrong.push(format!("{place} ended with {code}:\n{said}"));
        } else if !as_shown(step, &said) {
            let shown = step.shown.iter().flatten().map(|l| format!("  {l}\n")).collect::<String>();
            wrong.push(format!("{place}\nshown:\n{shown}said:\n{said}"));
        }
    }
    if at != "done" {
        let step = at.parse::<usize>().ok().and_then(|index| page.steps.get(index));
        let place = step.map_or_else(|| at.clone(), |s| format!("{name}:{}:\n{}", s.line, s.script));
        let said = at.parse().ok().and_then(|index| run.said(index)).unwrap_or_default();
        wrong.push(format!("{ended} at {place}\n{said}\n{}", run.read("shell")));
    }
    wrong
}

fn is_background(step: &Step) -> bool {
    let line = step.script.trim_end();
    line.ends_with(" &")
}

fn as_shown(step: &Step, said: &str) -> bool {
    let Some(shown) = &step.shown else { return true };
    let shown: Vec<String> = shown.iter().map(|line| normal(line)).collect();
    let said: Vec<String> = said.lines().map(normal).collect();
    if is_background(step) { contains(&shown, &said) } else { agree(&shown, &said) }
}

struct Run {
    dir: PathBuf,
    state: PathBuf,
    own_network: bool,
    /// Ports of the page and those in their stead.
    ports: Vec<(String, String)>,
}

impl Run {
    fn prepare(dir: &Path, page: &Page) -> Self {
        let own_network = std::env::var_os("QPC_DOCS_SHARED_NETWORK").is_none() && can_have_own_network();
        let text: String = page.steps.iter().map(|step| step.script.as_str()).collect();
        let mut ports = Vec::new();
        if !own_network {
            let named = PORTS.map(|port| port.to_string()).filter(|port| text.contains(port.as_str()));
            ports.extend(named.map(|port| (port, free_port().to_string())));
        }
        let run = Self { dir: dir.join("mesh"), state: dir.join("state"), own_network, ports };
        for directory in [&run.dir, &run.state, &run.state.join("pids"), &run.state.join("bin")] {
            fs::create_dir_all(directory).unwrap();
        }
        let wrapper = run.state.join("bin/qpc");
        fs::write(&wrapper, WRAPPER).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        run.write_script(page);
        run
    }

    fn write_script(&self, page: &Page) {
        let mut main = HEAD.to_owned();
        for (index, step) in page.steps.iter().enumerate() {
            let script: String = step.script.lines().map(|line| self.line(line)).collect();
            fs::write(self.state.join(format!("{index}.sh")), script).unwrap();
            main += &format!("echo {index} >\"$DOCS_STATE/at\"\n");
            let call = format!(". \"$DOCS_STATE/{index}.sh\" >\"$DOCS_STATE/{index}.out\" 2>&1");
            main += &match step.shown {
                None => format!("set -e\n{call}\nset +e\n"),
                Some(_) => {
                    format!("(exit $__last)\n{call}\n__last=$?\necho $__last >\"$DOCS_STATE/{index}.code\"\n")
                }
            };
        }
        fs::write(self.state.join("main.sh"), main + TAIL).unwrap();
    }

    /// A line of a page for this shell.
    fn line(&self, line: &str) -> String {
        let line = self.ports.iter().fold(line.to_owned(), |line, (page, free)| line.replace(page, free));
        let starts_node = line.trim_end().ends_with(" &");
        if starts_node { format!("{line}\n__up $!\n") } else { format!("{line}\n") }
    }

    /// Runs all of it; how it ended.
    fn shell(&self) -> String {
        let mut command = if self.own_network {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--net", "bash"]);
            command.env("DOCS_OWN_NETWORK", "yes");
            command
        } else {
            let mut command = Command::new("bash");
            let [quic, health] = [(); 2].map(|()| free_port());
            command.env("QPC_LISTEN", format!("quic://[::]:{quic},tcp://[::]:{quic}"));
            command.env("QPC_TRANSPORT_ACCEPT", "lan");
            command.env("QPC_HEALTH_LISTEN", format!("127.0.0.1:{health}"));
            command
        };
        let path = std::env::var("PATH").unwrap_or_default();
        for name in std::env::vars().map(|(name, _)| name) {
            if (name.starts_with("QPC_") || name.starts_with("XDG_")) && std::env::var_os(&name).is_some() {
                let given = command.get_envs().any(|(given, _)| given.to_str() == Some(&name));
                if !given {
                    command.env_remove(&name);
                }
            }
        }
        let log = fs::File::create(self.state.join("shell")).unwrap();
        let mut shell = command
            .arg(self.state.join("main.sh"))
            .current_dir(&self.dir)
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.state.join("bin").display()))
            .env("HOME", self.state.join("person"))
            .env("DOCS_STATE", &self.state)
            .env("DOCS_QPC", env!("CARGO_BIN_EXE_qpc"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = shell.try_wait().unwrap() {
                self.end_leftovers();
                return format!("the shell ended ({status})");
            }
            if Instant::now() > deadline {
                self.end_leftovers();
                shell.kill().unwrap();
                shell.wait().unwrap();
                return format!("the shell did not end within {PATIENCE:?}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends each `qpc` of this page that is there still: a page that failed drains nothing.
    fn end_leftovers(&self) {
        for entry in fs::read_dir(self.state.join("pids")).unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let started_here = command_line.starts_with(env!("CARGO_BIN_EXE_qpc").as_bytes());
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let state = self.state.display().to_string();
            let of_this_page = environment.windows(state.len()).any(|part| part == state.as_bytes());
            if started_here && of_this_page {
                // It may have ended meanwhile.
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.state.join(file)).unwrap_or_default()
    }

    /// Output of a step as a page shows it; none of a step that was not reached.
    fn said(&self, step: usize) -> Option<String> {
        let said = fs::read(self.state.join(format!("{step}.out"))).ok()?;
        let said = String::from_utf8_lossy(&said).replace(self.dir.to_str().unwrap(), SHOWN_DIR);
        let shown = self.ports.iter().fold(said, |said, (page, free)| said.replace(free, page));
        Some(shown)
    }
}

fn can_have_own_network() -> bool {
    let script = "ip link set lo up";
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// Free for UDP and for TCP a moment ago.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
