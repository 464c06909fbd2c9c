//! Networks that exist for one test: namespaces with a cable between them, where the system lets whoever
//! runs the test have such.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use super::wait_until;

/// A network namespace, for as long as this lives and nodes run in it.
pub struct Namespace(Child);

/// `command` in the namespaces of a process.
pub fn inside(pid: u32, command: &Command) -> Command {
    let mut entered = Command::new("nsenter");
    entered.args(["-t", &pid.to_string(), "-U", "-n", "--preserve-credentials", "--"]);
    entered.arg(command.get_program()).args(command.get_args()).env_clear();
    entered.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    entered.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    entered.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    entered
}

/// `command` with `file` in the place of `/etc/hosts`, which may be written to later.
pub fn with_hosts(file: &Path, command: &Command) -> Command {
    let mut entered = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    entered.args(["-rm", "sh", "-c", script]).arg(file);
    entered.arg(command.get_program()).args(command.get_args()).env_clear();
    entered.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    entered.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    entered.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    entered
}

/// True where [`with_hosts`] works; else with the reason on stderr.
pub fn has_hosts(file: &Path) -> bool {
    match with_hosts(file, &Command::new("true")).output() {
        Ok(done) if done.status.success() => return true,
        Ok(done) => eprintln!("no hosts of our own here: {}", String::from_utf8_lossy(&done.stderr).trim()),
        Err(error) => eprintln!("no hosts of our own here: unshare: {error}"),
    }
    false
}

impl Namespace {
    fn hold(mut command: Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }

    /// Two namespaces that know nothing of each other or of anybody, with loopback up; none where the
    /// system has no such thing for us, with the reason on stderr.
    pub fn two() -> Option<[Self; 2]> {
        let probe = Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).output();
        match probe {
            Ok(done) if done.status.success() => {}
            Ok(done) => {
                eprintln!("no namespaces here: {}", String::from_utf8_lossy(&done.stderr).trim());
                return None;
            }
            Err(error) => {
                eprintln!("no namespaces here: unshare: {error}");
                return None;
            }
        }
        let mut hold = Command::new("unshare");
        hold.args(["-rn", "sleep", "3600"]);
        let first = Self::hold(hold);
        let net = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
        let own = net("self").unwrap();
        let first_pid = first.pid().to_string();
        wait_until("a namespace", || net(&first_pid).is_ok_and(|ns| ns != own));
        let mut hold = Command::new("unshare");
        hold.args(["-n", "sleep", "3600"]);
        let second = Self::hold(inside(first.pid(), &hold));
        let held = net(&first_pid).unwrap();
        let second_pid = second.pid().to_string();
        wait_until("another namespace", || net(&second_pid).is_ok_and(|ns| ns != own && ns != held));
        let both = [first, second];
        for namespace in &both {
            namespace.ip("link set lo up");
        }
        Some(both)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// `ip` in here.
    #[track_caller]
    pub fn ip(&self, args: &str) {
        let mut ip = Command::new("ip");
        ip.args(args.split(' '));
        let done = inside(self.pid(), &ip).output().unwrap();
        assert!(done.status.success(), "ip {args}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A cable between both, called `cable` here and there, up, with the link-local addresses that IPv6
    /// makes and no other.
    pub fn connect(both: &[Self; 2]) {
        let [here, there] = both;
        here.ip(&format!("link add cable type veth peer name cable netns {}", there.pid()));
        for end in both {
            end.ip("link set cable up");
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
