//! RateLimiterActor: what each neighbour may cost, and how hard the node is pressed. The decisions
//! are in [`crate::proto::lease`] and [`crate::proto::pressure`].
//!
//! - Receives: `RequestLease` from links; `Drain` from the supervisor.
//! - Sends: the answers, through the channel that a request brings.
//! - Owns: the budgets of all neighbours, the pressure level.
//!
//! Budgets outlive links, not this actor: one that takes over after a crash begins with empty
//! budgets, so that nobody gains by the crash.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use actix::prelude::*;

use crate::{
    clock,
    events::{EventKind, Events},
    messages::{
        lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
        limit::{Budget, RequestLease},
    },
    proto::{
        lease::{Cost, Grant, Lease, LeaseConfig, Leases},
        pressure::{BackpressureController, Load, PressureLevel},
    },
    telemetry,
};

/// Time between two looks at the load.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The load as its causes report it, and the level as links read it. Cheap to clone; all clones
/// are one. Shared memory rather than messages: every frame changes the load, every batch reads
/// the level.
#[derive(Debug, Clone, Default)]
pub struct PressureGauge(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicU64,
    /// Milliseconds, the most since the last look.
    store_latency_ms: AtomicU64,
    queues: AtomicU8,
    store: AtomicU8,
}

impl PressureGauge {
    /// So many bytes more wait to be written.
    pub fn queued(&self, bytes: usize) {
        self.0.queued_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// So many bytes wait no more.
    pub fn unqueued(&self, bytes: usize) {
        self.0.queued_bytes.fetch_sub(bytes as u64, Relaxed);
    }

    /// A commit took so long.
    pub fn store_took(&self, latency: Duration) {
        let ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        self.0.store_latency_ms.fetch_max(ms, Relaxed);
    }

    /// The level that holds for what may have to be written to the store.
    pub fn level(&self) -> PressureLevel {
        self.queues().max(self.store())
    }

    /// The level that holds for what only passes through.
    pub fn queues(&self) -> PressureLevel {
        PressureLevel::new(self.0.queues.load(Relaxed))
    }

    /// The level that a slow store makes.
    pub fn store(&self) -> PressureLevel {
        PressureLevel::new(self.0.store.load(Relaxed))
    }

    pub(super) fn look(&self) -> Load {
        Load {
            queued_bytes: self.0.queued_bytes.load(Relaxed),
            store_latency: Duration::from_millis(self.0.store_latency_ms.swap(0, Relaxed)),
        }
    }

    fn set(&self, controller: &BackpressureController) {
        self.0.queues.store(controller.queues().get(), Relaxed);
        self.0.store.store(controller.store().get(), Relaxed);
    }
}

/// What the actor is made of; the factory clones it for each incarnation.
#[derive(Clone, Default)]
pub struct RateLimiterParts {
    /// Rates of each neighbour.
    pub config: LeaseConfig,
    /// The load and the level.
    pub gauge: PressureGauge,
    /// Told of limits.
    pub events: Events,
    /// Set by the first incarnation; those after it begin with empty budgets.
    pub has_run: Arc<AtomicBool>,
}

/// See the module.
pub struct RateLimiterActor {
    leases: Leases,
    controller: BackpressureController,
    gauge: PressureGauge,
    events: Events,
    guard: ExitGuard,
}

impl RateLimiterActor {
    /// A fresh actor.
    pub fn new(parts: RateLimiterParts, guard: ExitGuard) -> Self {
        let now = clock::now();
        let leases = match parts.has_run.swap(true, Relaxed) {
            false => Leases::new(parts.config, now),
            true => Leases::resumed(parts.config, now),
        };
        let RateLimiterParts { gauge, events, .. } = parts;
        Self { leases, controller: BackpressureController::new(), gauge, events, guard }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let before = self.controller.level();
        let load = self.gauge.look();
        let level = self.controller.observe(clock::now(), &load);
        self.gauge.set(&self.controller);
        if level != before {
            tracing::info!(level = level.get(), ?load, "the pressure level changed");
            metrics::gauge!(telemetry::PRESSURE_LEVEL).set(f64::from(level.get()));
            self.events.tell(EventKind::Pressure { level: level.get() });
        }
        self.events.tell_counts();
        ctx.run_later(LOOK_EVERY, Self::look);
    }
}

impl Actor for RateLimiterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Handler<RequestLease> for RateLimiterActor {
    type Result = ();

    fn handle(&mut self, ask: RequestLease, _: &mut Context<Self>) {
        let now = clock::now();
        let grant = match ask.budget {
            Budget::Data(need) => self.leases.data(now, ask.payer, need),
            Budget::Checks => self.leases.checks(now, ask.payer),
            Budget::Fault if self.leases.fault(now, ask.payer) => {
                Grant::Lease(Lease { room: Cost::default(), until: now })
            }
            Budget::Fault => Grant::Wait(Duration::ZERO),
        };
        if matches!((ask.budget, grant), (Budget::Data(_), Grant::Wait(_))) {
            self.events.limited(ask.payer.neighbour);
        }
        // A link that is gone meanwhile gives nothing back.
        let _ = ask.answer.send(grant);
    }
}

impl Handler<Drain> for RateLimiterActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            // Links flush what they hold and read on until they close; leases go on for them.
            DrainPhase::Draining | DrainPhase::Persisting => {
                self.guard.report(drain.phase, DrainCounts::default());
            }
            DrainPhase::Cleanup => {
                self.guard.drained();
                ctx.stop();
            }
        }
    }
}

#[cfg(any(test, feature = "testing"))]
crate::messages::lifecycle::panics_when_told!(RateLimiterActor);
