//! Folding what subsystems report about themselves into one state of the node.
//!
//! A subsystem reports at least every [`REPORT_EVERY`]; one that has not been heard for
//! [`STALE_AFTER`] counts as unhealthy, because a wedged actor does not report that it is wedged.
//! Health says how the node is; readiness says whether it takes new work; liveness, that the
//! process runs, needs no fold.

use std::borrow::Cow;
use std::collections::BTreeMap;
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
    pub not_ready: Option<String>,
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
        Self { started: now, subsystems, serving: false, draining: None, gave_up: None }
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

    fn not_ready(&self, subsystems: &BTreeMap<Cow<'static, str>, SubsystemHealth>) -> Option<String> {
        if let Some(why) = &self.gave_up {
            return Some(format!("gave up: {why}"));
        }
        if let Some(phase) = self.draining {
            return Some(format!("draining: {}", phase.name()));
        }
        if !self.serving {
            return Some("starting".to_owned());
        }
        let reason = |name: &str, detail: &Option<String>| match detail {
            Some(detail) => format!("{name}: {detail}"),
            None => format!("{name}: takes no new work"),
        };
        let refusing = subsystems.iter().find(|(name, shown)| {
            let takes_work = self.subsystems.get(*name).is_some_and(Known::takes_work);
            !shown.status.is_serving() || !takes_work
        });
        refusing.map(|(name, shown)| reason(name, &shown.detail))
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
