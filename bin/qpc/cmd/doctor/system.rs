//! What the system gives a node: the time, open files, memory.

use std::fs;

use quicprochat_mesh::{
    api::{ClockState, Request, Timestamp},
    clock::{BUILT_UNIX_S, unix_s},
    config::MeshConfig,
};
use rustix::process::{Resource, getrlimit};

use super::{Finding, network::PATIENCE};
use crate::{call, cmd::run::OPEN_FILES_MIN, cx::Context, human};

/// A clock further ahead of this program's release than ten years is more likely wrong than right.
const AHEAD_S_MAX: u64 = 10 * 365 * 86_400;

/// Memory of a node beside its store's cache, with few links.
const MEMORY_BYTES: u64 = 32 << 20;

/// The wall clock, as this program and the node that runs judge it.
pub(super) async fn clock(cx: &Context, runs: bool) -> Finding {
    const CHECK: &str = "clock";
    const ADVICE: &str = "set the clock; a time service such as systemd-timesyncd or chrony keeps it right";
    let now = unix_s();
    let shown = Timestamp(now.saturating_mul(1000));
    if now < BUILT_UNIX_S {
        let released = Timestamp(BUILT_UNIX_S.saturating_mul(1000));
        let detail = format!("the clock says {shown}, before this program was released ({released})");
        return Finding::fail(CHECK, detail, ADVICE);
    }
    if now > BUILT_UNIX_S.saturating_add(AHEAD_S_MAX) {
        return Finding::warn(
            CHECK,
            format!("the clock says {shown}, years after this program's release"),
            ADVICE,
        );
    }
    let judged = match runs {
        true => {
            tokio::time::timeout(PATIENCE, call::one(cx, &Request::Clock)).await.ok().and_then(Result::ok)
        }
        false => None,
    };
    if let Some(ClockState { trusted: false, reason }) = judged {
        let reason = reason.unwrap_or_else(|| "it gives no reason".into());
        return Finding::warn(
            CHECK,
            format!("the node does not believe the clock ({shown}): {reason}"),
            ADVICE,
        );
    }
    let by = if judged.is_some() { ", and the node believes it" } else { "" };
    Finding::ok(CHECK, format!("the clock says {shown}{by}"))
}

/// How many files a node may have open: each link over TCP is one.
pub(super) fn open_files(config: &MeshConfig) -> Finding {
    const CHECK: &str = "open_files";
    let links = u64::from(config.transport.links_max);
    let wanted = links.saturating_add(OPEN_FILES_MIN);
    let advice = format!(
        "raise the limit to {wanted} (`ulimit -n`, or LimitNOFILE= of the service), or lower transport.links_max"
    );
    // A node raises its own limit as far as it may.
    match getrlimit(Resource::Nofile).maximum {
        Some(files) if files < OPEN_FILES_MIN => Finding::fail(
            CHECK,
            format!("a process may have {files} open files, a node needs {OPEN_FILES_MIN}"),
            advice,
        ),
        Some(files) if files < wanted => Finding::warn(
            CHECK,
            format!("a process may have {files} open files, and there may be {links} links"),
            advice,
        ),
        Some(files) => Finding::ok(CHECK, format!("a process may have {files}")),
        None => Finding::ok(CHECK, "a process may have as many as it likes"),
    }
}

/// Memory that is available, of the machine and of what this process is confined to.
pub(super) fn memory(config: &MeshConfig) -> Finding {
    const CHECK: &str = "memory";
    let needed = MEMORY_BYTES.saturating_add(config.store.cache.0);
    let Some(machine) = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)) else {
        return Finding::ok(CHECK, "this system does not tell how much is available");
    };
    let limit =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let bytes = limit.map_or(machine, |limit: u64| limit.min(machine));
    let detail = format!("{} available", human::bytes(bytes));
    match bytes < needed {
        true => Finding::warn(
            CHECK,
            format!("{detail}; a node takes {} and more with its links", human::bytes(needed)),
            "end what else takes memory, or lower store.cache, routing.routes_max and routing.dedup_entries_max",
        ),
        false => Finding::ok(CHECK, detail),
    }
}

/// Bytes of the line `MemAvailable: N kB`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_that_is_available_is_read() {
        assert_eq!(available("MemTotal:  9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        for wrong in ["", "MemAvailable: x kB", "MemAvailable: 1", "MemAvailable: 18446744073709551615 kB"] {
            assert_eq!(available(wrong), None);
        }
    }
}
