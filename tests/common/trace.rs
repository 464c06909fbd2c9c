//! A node under `strace`: its system calls in a file, some of them made to fail.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Node, wait_for};

/// `strace` on a node that runs.
pub struct Trace {
    process: Child,
    file: PathBuf,
}

impl Trace {
    /// None, with the reason on stdout, where this system has no strace or lets it trace nothing.
    #[track_caller]
    pub fn attach(node: &Node, file: &Path, args: &[&str]) -> Option<Self> {
        let pid = node.pid();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-s", "400", "-o"]).arg(file).args(args);
        command.args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let Ok(mut process) = command.spawn() else {
            println!("not measured: there is no strace here");
            return None;
        };
        let ended = wait_for("strace to attach", || match process.try_wait().unwrap() {
            Some(status) => Some(Some(status)),
            None => is_traced(pid).then_some(None),
        });
        let Some(status) = ended else { return Some(Self { process, file: file.to_owned() }) };
        let mut why = String::new();
        process.stderr.take().unwrap().read_to_string(&mut why).unwrap();
        println!("not measured: strace may not look at a process here: {status}: {why}");
        None
    }

    /// What it saw, once it is done.
    pub fn finish(mut self) -> String {
        let _ = Command::new("sh").args(["-c", &format!("kill -INT {}", self.process.id())]).status();
        self.process.wait().unwrap();
        fs::read_to_string(&self.file).unwrap()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// True once every thread of a process is traced, or the process is gone: it may die of what it is
/// traced for.
fn is_traced(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    })
}
