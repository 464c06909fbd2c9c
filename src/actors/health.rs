//! The health of the node: what its subsystems report, folded, for whoever asks.
//!
//! Two ways in. [`HealthHandle`] is shared state that any thread reads and writes in a few
//! nanoseconds: the HTTP surface answers from it even while every actor is busy, and a supervisor
//! withdraws readiness through it before anything else happens in a drain. [`HealthActor`] is the
//! mailbox in front of it for actors that only hold a `Recipient`. The decision is
//! [`proto::health`](crate::proto::health); silence of a subsystem counts as failure at the moment
//! of reading, so a wedged node does not look healthy because nobody got to say otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, MessageResult};

use super::mailbox;
use crate::clock;
use crate::messages::health::{GetHealth, ReportHealth};
use crate::messages::lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard};
use crate::proto::health::{HealthFold, NodeHealth, REPORT_EVERY, SubsystemReport};
use crate::telemetry;

/// Shared access to the health of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HealthHandle(Arc<Mutex<HealthFold>>);

impl HealthHandle {
    /// A node that starts now. The named subsystems are expected to report: until they do the
    /// node is degraded, and unhealthy when they stay silent.
    pub fn new(expected: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Arc::new(Mutex::new(HealthFold::new(clock::now(), expected))))
    }

    /// Takes a report.
    pub fn report(&self, report: SubsystemReport) {
        self.fold().report(report);
    }

    /// Forgets a subsystem that is gone on purpose.
    pub fn retire(&self, subsystem: &str) {
        self.fold().retire(subsystem);
    }

    /// All listeners are bound: ready from now on.
    pub fn set_serving(&self) {
        self.fold().set_serving();
    }

    /// A drain phase began: not ready from now on.
    pub fn set_draining(&self, phase: DrainPhase) {
        self.fold().set_draining(phase);
    }

    /// A supervisor gave up: unhealthy from now on.
    pub fn set_gave_up(&self, why: &str) {
        self.fold().set_gave_up(why);
    }

    /// True from the first moment of a drain on.
    pub fn is_draining(&self) -> bool {
        self.fold().is_draining()
    }

    /// Somebody outside asked whether this node takes work: a drain gives them time to see that it
    /// takes none any more.
    pub fn asked(&self) {
        self.fold().asked(clock::now());
    }

    /// Whether somebody asked within this time.
    pub fn was_asked_within(&self, time: Duration) -> bool {
        // Where the clock is younger than that, the careful answer costs a notice.
        clock::now().checked_sub(time).is_none_or(|since| self.fold().was_asked(since))
    }

    /// The state now.
    pub fn now(&self) -> NodeHealth {
        self.fold().fold(clock::now())
    }

    fn fold(&self) -> MutexGuard<'_, HealthFold> {
        // No operation leaves the fold half changed, so a poisoned lock is taken over.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives [`ReportHealth`], [`GetHealth`], [`Drain`]. Sends nothing. Owns the upkeep of the
/// metrics recorder: it is the one actor that must tick even when nothing happens.
#[derive(Debug)]
pub struct HealthActor {
    health: HealthHandle,
    guard: ExitGuard,
}

impl HealthActor {
    /// Starts it on the current arbiter.
    pub fn start(health: HealthHandle, guard: ExitGuard) -> Addr<Self> {
        Self::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::HEALTH);
            Self { health, guard }
        })
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        telemetry::run_upkeep();
        ctx.run_later(REPORT_EVERY, Self::tick);
    }
}

impl Actor for HealthActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tick(ctx);
    }
}

impl Handler<ReportHealth> for HealthActor {
    type Result = ();

    fn handle(&mut self, ReportHealth(report): ReportHealth, _: &mut Self::Context) {
        self.health.report(report);
    }
}

impl Handler<GetHealth> for HealthActor {
    type Result = MessageResult<GetHealth>;

    fn handle(&mut self, _: GetHealth, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.health.now())
    }
}

impl Handler<Drain> for HealthActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        if drain.phase < DrainPhase::Cleanup {
            self.guard.report(drain.phase, DrainCounts::default());
        } else {
            self.guard.drained();
            ctx.stop();
        }
    }
}

#[cfg(any(test, feature = "testing"))]
crate::messages::lifecycle::panics_when_told!(HealthActor);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::lifecycle::{ChildExited, ChildId, DrainReport, ExitReason, Incarnation, PanicNow};
    use crate::proto::health::HealthStatus;
    use crate::testing::{Probe, expect_within, with_virtual_time};

    #[test]
    fn it_folds_reports_notices_silence_and_leaves_a_drain_last() {
        with_virtual_time(|| async {
            let (exits, mut exited) = Probe::<ChildExited>::start();
            let (reports, mut reported) = Probe::<DrainReport>::start();
            let guard = ExitGuard::new(ChildId(1), Incarnation(1), exits.downgrade(), reports.downgrade());
            let actor = HealthActor::start(HealthHandle::new(["store"]), guard);
            let state = async || actor.send(GetHealth).await.expect("it lives").status;
            assert_eq!(state().await, HealthStatus::Degraded);
            let report = SubsystemReport::healthy("store", clock::now());
            actor.try_send(ReportHealth(report)).expect("room");
            assert_eq!(state().await, HealthStatus::Healthy);
            tokio::time::sleep(Duration::from_secs(11)).await;
            assert_eq!(state().await, HealthStatus::Unhealthy, "nobody reports any more");

            for phase in DrainPhase::ALL {
                actor.do_send(Drain { phase, deadline: clock::now() });
            }
            for phase in [DrainPhase::Draining, DrainPhase::Persisting] {
                assert_eq!(expect_within(&mut reported, Duration::from_secs(1)).await.phase, phase);
            }
            let exit = expect_within(&mut exited, Duration::from_secs(1)).await;
            assert_eq!(exit.reason, ExitReason::Drained);
        });
    }

    #[test]
    fn a_crash_is_heard_and_what_was_reported_outlives_it() {
        with_virtual_time(|| async {
            let (exits, mut exited) = Probe::<ChildExited>::start();
            let health = HealthHandle::new(["store"]);
            let actor = HealthActor::start(health.clone(), ExitGuard::for_task(ChildId(1), &exits));
            actor.do_send(ReportHealth(SubsystemReport::healthy("store", clock::now())));
            actor.do_send(PanicNow(String::new()));
            let exit = expect_within(&mut exited, Duration::from_secs(1)).await;
            assert_eq!(exit.reason, ExitReason::Crashed);
            assert_eq!(health.now().status, HealthStatus::Healthy);
            // The next one goes on where this one ended.
            let next = HealthActor::start(health.clone(), ExitGuard::for_task(ChildId(1), &exits));
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(next.send(GetHealth).await.expect("it lives").status, HealthStatus::Unhealthy);
        });
    }

    #[test]
    fn a_burst_beyond_its_mailbox_is_refused_and_not_queued_without_end() {
        with_virtual_time(|| async {
            let (exits, _exited) = Probe::<ChildExited>::start();
            let guard = ExitGuard::for_task(ChildId(1), &exits);
            let reports = HealthActor::start(HealthHandle::new([]), guard).recipient();
            let report = || ReportHealth(SubsystemReport::healthy("store", clock::now()));
            // Nothing else runs until the next await, so the mailbox only fills.
            let taken = (0..1_000).filter(|_| reports.try_send(report()).is_ok()).count();
            assert!((mailbox::HEALTH..=mailbox::HEALTH + 1).contains(&taken), "{taken}");
        });
    }
}
