//! `qpc doctor`: what stands in a node's way on this machine, and what to do about it.
//!
//! Each check looks at one thing and says what it found; none changes anything but a file of its own
//! that it removes again. All of them run with and without a running node.

mod files;
mod network;
mod system;

use quicprochat_mesh::{
    api::{ApiError, ErrorClass, NodeState, Request, Status},
    config::{Loaded, MeshConfig, Place},
};
use serde::Serialize;

use crate::{call, cx::Context, fail::Failure, human};

const EXAMPLES: &str = "\
Examples:
  qpc doctor
  qpc doctor --json | jq -r 'select(.status != \"ok\") | .advice'";

/// Look for what stands in the node's way, and say what to do about it
///
/// Checks the configuration, the data directory, the identity, the disk, the node that runs (or that
/// none does), ports, the clock, limits of the system, and whether peers can be reached. Exit code 1
/// where something fails, 0 where there are warnings at most.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// How one check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    status: Level,
    detail: String,
    /// What to do; none where there is nothing to do.
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Level::Ok, detail: detail.into(), advice: None }
    }

    fn warn(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, status: Level::Warn, detail: detail.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Level::Fail, ..Self::warn(check, detail, advice) }
    }
}

pub async fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let (mut findings, config) = config(cx);
    findings.extend(files::data_dir(cx));
    findings.extend(files::identity(cx));
    findings.extend(files::disk(cx));
    let (node, status) = node(cx).await;
    findings.extend(node);
    if let Some(config) = &config {
        findings.extend(network::ports(config, status.as_ref()).await);
    }
    findings.push(system::clock(cx, status.is_some()).await);
    let limits = config.clone().unwrap_or_default();
    findings.push(system::open_files(&limits));
    findings.push(system::memory(&limits));
    findings.push(network::ipv6());
    findings.extend(network::udp_buffers());
    match (&status, &config) {
        (Some(status), _) => findings.extend(network::linked_peers(cx, status).await),
        (None, Some(config)) => findings.extend(network::reachable_peers(config).await),
        (None, None) => {}
    }
    if let Some(config) = &config {
        findings.extend(network::names(config).await);
    }

    cx.out.list(&findings, tell)?;
    match findings.iter().any(|finding| finding.status == Level::Fail) {
        true => Err(Failure::Said(ErrorClass::Failed)),
        false => Ok(()),
    }
}

/// The configuration in force, or everything that is wrong with it. What it would have said of ports
/// and peers is left out then: the defaults are not what somebody wants who wrote another.
fn config(cx: &Context) -> (Vec<Finding>, Option<MeshConfig>) {
    const CHECK: &str = "config";
    let path = cx.config_path();
    let loaded: Result<Loaded, Failure> = cx.layers().and_then(|layers| layers.load()).map_err(Failure::from);
    match loaded {
        Ok(loaded) => {
            let detail = match path.exists() {
                true => format!("{} is valid", path.display()),
                false => format!("there is no {}: defaults are in force", path.display()),
            };
            let mut findings = vec![Finding::ok(CHECK, detail)];
            let advice = "remove it, or correct its name; `qpc config show` prints what is in force";
            findings.extend(loaded.warnings.into_iter().map(|text| Finding::warn(CHECK, text, advice)));
            (findings, Some(loaded.config))
        }
        Err(Failure::Config(error)) if !error.problems().is_empty() => {
            let problem = |problem: &quicprochat_mesh::config::Problem| {
                let advice =
                    problem.hint.clone().unwrap_or_else(|| "correct it; nothing starts before".into());
                let place: &Place = &problem.place;
                Finding::fail(CHECK, format!("{place}: {}", problem.message), advice)
            };
            (error.problems().iter().map(problem).collect(), None)
        }
        Err(failure) => {
            let detail = failure.lines().join(" ");
            let advice = format!("make {} readable, or name another with --config", path.display());
            (vec![Finding::fail(CHECK, detail, advice)], None)
        }
    }
}

/// Whether a node runs on the data directory, and how it is.
async fn node(cx: &Context) -> (Vec<Finding>, Option<Status>) {
    const CHECK: &str = "node";
    let asked = async { call::one::<Status>(cx, &Request::Status).await };
    let Ok(answered) = tokio::time::timeout(network::PATIENCE, asked).await else {
        let detail = "a node runs and does not answer";
        return (vec![Finding::fail(CHECK, detail, "look at its log; end it and start it again")], None);
    };
    match answered {
        Ok(status) => {
            let mut findings = Vec::new();
            for (name, part) in &status.subsystems {
                if part.status != NodeState::Healthy {
                    let why = part.detail.as_deref().unwrap_or("no reason is known");
                    let detail = format!("{name} is {}: {why}", part.status.as_str());
                    findings.push(Finding::warn(CHECK, detail, "look at the node's log"));
                }
            }
            let detail = format!(
                "{} runs since {}, {}, {} links",
                status.address,
                human::span_s(status.uptime_s),
                status.state.as_str(),
                status.peers
            );
            findings.insert(
                0,
                match status.state {
                    NodeState::Unhealthy => {
                        Finding::fail(CHECK, detail, "look at its log; end it and start it again")
                    }
                    _ => Finding::ok(CHECK, detail),
                },
            );
            (findings, Some(status))
        }
        Err(Failure::Api(ApiError { class: ErrorClass::NoNode, .. })) => {
            (vec![Finding::ok(CHECK, "no node runs on this data directory")], None)
        }
        Err(failure) => {
            let detail = failure.lines().join(" ");
            (vec![Finding::fail(CHECK, detail, "run this command as the user that the node runs as")], None)
        }
    }
}

fn tell(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, status, detail, advice } in findings {
        let mark = match status {
            Level::Ok => "✓",
            Level::Warn => "!",
            Level::Fail => "✗",
        };
        text.push_str(&format!("{mark} {check:width$}  {}\n", human::escape(detail)));
        if let Some(advice) = advice {
            text.push_str(&format!("  {:width$}  → {}\n", "", human::escape(advice)));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.status == level).count();
    let end = match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => "all is well".to_owned(),
        (0, warnings) => format!("it works; {warnings} to look at"),
        (failures, warnings) => format!("{failures} in the way of the node, {warnings} to look at"),
    };
    text + &end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_marks_advice_and_no_control_characters() {
        let findings = [
            Finding::ok("config", "fine"),
            Finding::warn("node", "it said \u{1b}[2J", "look"),
            Finding::fail("disk", "full", "make room"),
        ];
        let text = tell(&findings);
        assert_eq!(
            text,
            "✓ config  fine\n! node    it said \\u{1b}[2J\n          → look\n✗ disk    full\n          → make room\n\
             1 in the way of the node, 1 to look at"
        );
    }

    #[test]
    fn a_finding_is_what_scripts_rely_on() {
        let object = serde_json::to_value(Finding::ok("config", "fine")).unwrap();
        assert_eq!(object, serde_json::json!({"check":"config","status":"ok","detail":"fine","advice":null}));
    }
}
