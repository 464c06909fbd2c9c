//! Folding what subsystems report about themselves into one state of the node.
//!
//! A subsystem reports at least every [`REPORT_EVERY`]; one that has not been heard for
//! [`STALE_AFTER`] counts as unhealthy, because a wedged actor does not report that it is wedged.
//! Health says how the node is; readiness says whether it takes new work; liveness, that the
//! process runs, needs no fold.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::drain::DrainPhase;

/// How often a subsystem reports at the latest.
pub const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Silence that counts as a failure: five reports in a row.
pub const STALE_AFTER: Duration = Duration::from_secs(10);

/// The state of a subsystem or of the node, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// All is well.
    Healthy,
    /// It works, with less than it should have.
    Degraded,
    /// It is ending on purpose.
    Draining,
    /// It does not do its job.
    Unhealthy,
}

impl HealthStatus {
    /// The word of the interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Whether `/healthz` answers 200.
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }
}

/// What a subsystem says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsystemReport {
    /// Its name in the health body: `transport`, `routing`, `store`.
    pub subsystem: Cow<'static, str>,
    /// How it is.
    pub status: HealthStatus,
    /// For people: what is wrong, or none.
    pub detail: Option<String>,
    /// False when it refuses new work though it still does old work (a full store).
    pub takes_work: bool,
    /// When this was true.
    pub at: Instant,
}

impl SubsystemReport {
    /// All is well.
    pub fn healthy(subsystem: impl Into<Cow<'static, str>>, at: Instant) -> Self {
        Self {
            subsystem: subsystem.into(),
            status: HealthStatus::Healthy,
            detail: None,
            takes_work: true,
            at,
        }
    }

    /// It works, with less than it should have.
    pub fn degraded(subsystem: impl Into<Cow<'static, str>>, detail: impl Into<String>, at: Instant) -> Self {
        Self { status: HealthStatus::Degraded, detail: Some(detail.into()), ..Self::healthy(subsystem, at) }
    }

    /// It does not do its job.
    pub fn unhealthy(
        subsystem: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
        at: Instant,
    ) -> Self {
        Self { status: HealthStatus::Unhealthy, takes_work: false, ..Self::degraded(subsystem, detail, at) }
    }

    /// Marks the report: no new work, please.
    pub fn refusing_work(mut self) -> Self {
        self.takes_work = false;
        self
    }
}

/// The state of one subsystem as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubsystemHealth {
    /// How it is.
    pub status: HealthStatus,
    /// For people: what is wrong, or none.
    pub detail: Option<String>,
}

/// The state of the node: the body of `/healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeHealth {
    /// The whole.
    pub status: HealthStatus,
    /// The parts, by name.
    pub subsystems: BTreeMap<Cow<'static, str>, SubsystemHealth>,
    /// Seconds since the node started.
    pub uptime_s: u64,
    /// Why the node takes no new work; none when it does. Shown by `/readyz`.
    #[serde(skip)]
    pub not_ready: Option<NotReady>,
}

/// Why the node takes no new work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// In few words, without anything that names a peer or a path.
    pub reason: String,
    /// What the subsystem says about it, for the operator only.
    pub detail: Option<String>,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl NodeHealth {
    /// Whether the node takes new work.
    pub fn is_ready(&self) -> bool {
        self.not_ready.is_none()
    }
}

/// Latest reports of all subsystems and the life of the node itself.
#[derive(Debug)]
pub struct HealthFold {
    started: Instant,
    subsystems: BTreeMap<Cow<'static, str>, Known>,
    serving: bool,
    draining: Option<DrainPhase>,
    gave_up: Option<String>,
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    expected_since: Instant,
    latest: Option<SubsystemReport>,
}

impl HealthFold {
    /// A node that started at `now` and whose named subsystems have yet to report.
    pub fn new(now: Instant, expected: impl IntoIterator<Item = &'static str>) -> Self {
        let known = || Known { expected_since: now, latest: None };
        let subsystems = expected.into_iter().map(|name| (Cow::Borrowed(name), known())).collect();
        Self { started: now, subsystems, serving: false, draining: None, gave_up: None, asked: None }
    }

    /// Takes a report. One that is older than what is known is ignored: reports of a predecessor
    /// may arrive late.
    pub fn report(&mut self, report: SubsystemReport) {
        let known = self
            .subsystems
            .entry(report.subsystem.clone())
            .or_insert(Known { expected_since: report.at, latest: None });
        if known.latest.as_ref().is_none_or(|latest| latest.at <= report.at) {
            known.latest = Some(report);
        }
    }

    /// Forgets a subsystem that is gone on purpose.
    pub fn retire(&mut self, subsystem: &str) {
        self.subsystems.remove(subsystem);
    }

    /// All listeners are bound: ready from now on.
    pub fn set_serving(&mut self) {
        self.serving = true;
    }

    /// A drain phase began: not ready from now on, for good.
    pub fn set_draining(&mut self, phase: DrainPhase) {
        self.draining = Some(phase);
    }

    /// A supervisor gave up: unhealthy from now on, for good.
    pub fn set_gave_up(&mut self, why: impl Into<String>) {
        self.gave_up.get_or_insert(why.into());
    }

    /// True from the first moment of a drain on.
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Somebody outside asked whether this node takes work.
    pub fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// Whether somebody asked at `since` or later.
    pub fn was_asked(&self, since: Instant) -> bool {
        self.asked.is_some_and(|at| at >= since)
    }

    /// The state at `now`.
    pub fn fold(&self, now: Instant) -> NodeHealth {
        let subsystems: BTreeMap<_, _> =
            self.subsystems.iter().map(|(name, known)| (name.clone(), known.shown(now))).collect();
        let worst = subsystems.values().map(|sub| sub.status).max().unwrap_or(HealthStatus::Healthy);
        let status = match (&self.gave_up, self.draining) {
            (Some(_), _) => HealthStatus::Unhealthy,
            // In a drain subsystems end one after another; their silence is no news.
            (None, Some(_)) => HealthStatus::Draining,
            (None, None) => worst,
        };
        NodeHealth {
            status,
            not_ready: self.not_ready(&subsystems),
            subsystems,
            uptime_s: now.saturating_duration_since(self.started).as_secs(),
        }
    }

    fn not_ready(&self, subsystems: &BTreeMap<Cow<'static, str>, SubsystemHealth>) -> Option<NotReady> {
        let because = |reason: String, detail: Option<String>| Some(NotReady { reason, detail });
        if let Some(why) = &self.gave_up {
            return because("gave up".to_owned(), Some(why.clone()));
        }
        if let Some(phase) = self.draining {
            return because(format!("draining ({})", phase.name()), None);
        }
        if !self.serving {
            return because("starting".to_owned(), None);
        }
        let refuses = |name: &str, shown: &SubsystemHealth| {
            !shown.status.is_serving() || !self.subsystems.get(name).is_none_or(Known::takes_work)
        };
        let (name, shown) = subsystems.iter().find(|(name, shown)| refuses(name, shown))?;
        because(format!("{name} takes no new work"), shown.detail.clone())
    }
}

impl Known {
    fn takes_work(&self) -> bool {
        self.latest.as_ref().is_none_or(|report| report.takes_work)
    }

    fn shown(&self, now: Instant) -> SubsystemHealth {
        let last_heard = self.latest.as_ref().map_or(self.expected_since, |report| report.at);
        let silence = now.saturating_duration_since(last_heard);
        if silence >= STALE_AFTER {
            let detail = format!("no report for {} s", silence.as_secs());
            return SubsystemHealth { status: HealthStatus::Unhealthy, detail: Some(detail) };
        }
        match &self.latest {
            Some(report) => SubsystemHealth { status: report.status, detail: report.detail.clone() },
            None => SubsystemHealth { status: HealthStatus::Degraded, detail: Some("starting".to_owned()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A serving node with a store and a transport that have both just reported well.
    fn node(now: Instant) -> HealthFold {
        let mut fold = HealthFold::new(now, ["store", "transport"]);
        fold.report(SubsystemReport::healthy("store", now));
        fold.report(SubsystemReport::healthy("transport", now));
        fold.set_serving();
        fold
    }

    #[test]
    fn the_node_is_as_its_worst_part() {
        let now = Instant::now();
        let check = |store: SubsystemReport, status, ready| {
            let mut fold = node(now);
            fold.report(store);
            let health = fold.fold(now);
            assert_eq!((health.status, health.is_ready()), (status, ready), "{health:?}");
        };
        check(SubsystemReport::healthy("store", now), HealthStatus::Healthy, true);
        check(SubsystemReport::degraded("store", "slow disk", now), HealthStatus::Degraded, true);
        check(SubsystemReport::degraded("store", "full", now).refusing_work(), HealthStatus::Degraded, false);
        check(SubsystemReport::unhealthy("store", "read only", now), HealthStatus::Unhealthy, false);
    }

    #[test]
    fn silence_counts_as_failure_after_ten_seconds() {
        let now = Instant::now();
        let mut fold = node(now);
        fold.report(SubsystemReport::healthy("transport", now + s(9)));
        assert_eq!(fold.fold(now + s(9)).status, HealthStatus::Healthy);
        let health = fold.fold(now + s(12));
        assert_eq!(health.status, HealthStatus::Unhealthy);
        assert_eq!(health.subsystems["store"].detail.as_deref(), Some("no report for 12 s"));
        assert_eq!(health.subsystems["transport"].status, HealthStatus::Healthy);
        let why = health.not_ready.expect("not ready").to_string();
        assert_eq!(why, "store takes no new work: no report for 12 s");
    }

    #[test]
    fn a_part_that_was_never_heard_is_starting_and_then_missing() {
        let now = Instant::now();
        let fold = HealthFold::new(now, ["store"]);
        let health = fold.fold(now + s(1));
        assert_eq!(health.status, HealthStatus::Degraded);
        assert_eq!(health.not_ready.map(|why| why.reason).as_deref(), Some("starting"));
        assert_eq!(fold.fold(now + s(10)).status, HealthStatus::Unhealthy);
    }

    #[test]
    fn an_old_report_does_not_replace_a_newer_one() {
        let now = Instant::now();
        let mut fold = node(now);
        fold.report(SubsystemReport::unhealthy("store", "gone", now + s(2)));
        fold.report(SubsystemReport::healthy("store", now + s(1)));
        assert_eq!(fold.fold(now + s(2)).status, HealthStatus::Unhealthy);
    }

    #[test]
    fn a_drain_hides_silence_and_giving_up_beats_a_drain() {
        let now = Instant::now();
        let mut fold = node(now);
        fold.set_draining(DrainPhase::Draining);
        let health = fold.fold(now + s(60));
        assert_eq!(health.status, HealthStatus::Draining);
        assert_eq!(health.not_ready.expect("not ready").to_string(), "draining (draining)");
        fold.set_gave_up("store crashed, after 5 restarts");
        fold.set_gave_up("later troubles");
        let health = fold.fold(now + s(60));
        assert_eq!(health.status, HealthStatus::Unhealthy);
        assert_eq!(
            health.not_ready.expect("not ready").to_string(),
            "gave up: store crashed, after 5 restarts"
        );
    }

    #[test]
    fn a_retired_part_is_not_missed() {
        let now = Instant::now();
        let mut fold = HealthFold::new(now, ["lora"]);
        fold.set_serving();
        fold.retire("lora");
        assert!(fold.fold(now + s(60)).is_ready());
    }

    #[test]
    fn the_body_has_the_shape_of_the_interface() {
        let now = Instant::now();
        let mut fold = node(now);
        fold.report(SubsystemReport::degraded("store", "slow disk", now));
        let json = serde_json::to_value(fold.fold(now + s(3))).expect("plain values");
        assert_eq!(
            json,
            serde_json::json!({
                "status": "degraded",
                "subsystems": {
                    "store": { "status": "degraded", "detail": "slow disk" },
                    "transport": { "status": "healthy", "detail": null },
                },
                "uptime_s": 3,
            })
        );
    }
}
