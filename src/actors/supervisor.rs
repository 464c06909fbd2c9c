//! Our supervisor: keeps children alive, gives up visibly, and drains the tree.
//!
//! Why not actix's own: it restarts the same value with no delay and no limit, and a panic ends
//! the actor for good. This one keeps a factory per child and starts a fresh value, after a
//! backoff with jitter, at most n times in t. Then it gives up: a nested supervisor ends its
//! other children and fails, which its parent treats like any fault; the root turns the node
//! unhealthy, drains what is left and says so in [`DrainSummary::gave_up`], so that the process
//! exits non-zero and the service manager takes over.
//!
//! How ends are heard: each child carries an [`ExitGuard`] whose drop reports. That holds for
//! panics too, because a panic unwinds the actor's context and drops the actor. Two traps of actix
//! in that moment: it calls `stopping` and `stopped` on the half-changed value while the thread
//! unwinds, where a second panic aborts the process, and `Running::Continue` from `stopping`
//! would make it handle mail in that state. So actors of this crate implement neither.
//!
//! Receives: [`StartChild`], [`StopChild`], [`ListChildren`], [`BeginDrain`], [`SkipAhead`],
//! [`Drain`] (nested), [`ChildExited`], [`DrainReport`].
//! Sends: [`Drain`] to children, its own exit and reports to its parent.
//! Owns: the factories, restart histories, the drain machine and one timer.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use actix::prelude::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, MessageResult, SpawnHandle};
use tokio::sync::watch;

use super::child::{Child, ChildSpec, Factory};
use super::health::HealthHandle;
use super::mailbox;
#[cfg(any(test, feature = "testing"))]
use super::panics::below;
use crate::clock;
use crate::crypto::random::{OsRng, os_rng};
#[cfg(any(test, feature = "testing"))]
use crate::messages::lifecycle::PanicNow;
use crate::messages::lifecycle::{
    BeginDrain, ChildExited, ChildId, Drain, DrainPhase, DrainPlan, DrainReport, DrainSummary, ExitGuard,
    ExitReason, Incarnation, PhaseTime, SkipAhead,
};
use crate::messages::message;
use crate::proto::backoff::{Restarts, Verdict};
use crate::proto::drain::{
    ASKED_WITHIN, Children, DrainInput, DrainMachine, DrainOutcome, DrainOutput, UNASKED_NOTICE,
};
use crate::proto::health::{REPORT_EVERY, SubsystemReport};
use crate::telemetry;

/// How long the other children have to end when a nested supervisor gives up.
const COLLAPSE_WITHIN: Duration = Duration::from_secs(1);

/// Starts a child. The answer comes after its first start: a fault there is the caller's to
/// handle and nothing is kept, later ones are the supervisor's.
#[derive(Debug)]
pub struct StartChild(pub ChildSpec);

message!(StartChild => Result<ChildId, StartError>);

/// Why a child was not started.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StartError {
    /// The node is ending.
    #[error("cannot start {name}: the node is draining")]
    Draining {
        /// The child.
        name: String,
    },
    /// The factory said no.
    #[error("cannot start {name}: {reason}")]
    Failed {
        /// The child.
        name: String,
        /// What the factory said.
        reason: String,
    },
}

/// Ends one child for good: it is asked to clean up and not started again, whatever its policy.
/// One that has not ended after `within` is left behind (a task is aborted).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopChild {
    /// Whom.
    pub child: ChildId,
    /// Patience.
    pub within: Duration,
}

message!(StopChild => ());

/// Asks for the state of all children, in start order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListChildren;

message!(ListChildren => Vec<ChildStatus>);

/// The state of one child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStatus {
    /// Its number.
    pub child: ChildId,
    /// Its name.
    pub name: String,
    /// False while it waits for its restart.
    pub running: bool,
    /// Restarts since it was declared.
    pub restarts: u32,
    /// Why it ended the last time.
    pub last_exit: Option<ExitReason>,
}

/// A running tree.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The root. Hold it: the tree has no other owner.
    pub root: Addr<Supervisor>,
    /// Becomes `Some` when the tree has ended. When the sender is gone instead, the root itself
    /// crashed, and there is nothing left but to exit non-zero.
    pub ended: watch::Receiver<Option<DrainSummary>>,
}

impl Tree {
    /// Waits for the end; none when the root crashed.
    pub async fn wait(&mut self) -> Option<DrainSummary> {
        self.ended.wait_for(Option::is_some).await.ok().and_then(|summary| summary.clone())
    }
}

/// A supervisor, root or nested.
#[derive(Debug)]
pub struct Supervisor {
    name: String,
    children: BTreeMap<ChildId, Kept>,
    next_child: u64,
    /// Given at construction, started in `started`.
    initial: Vec<ChildSpec>,
    /// Set for good when a drain or collapse begins: nothing is started any more.
    ending: bool,
    walk: Option<(Errand, DrainMachine<ChildId>)>,
    /// Names of children that fell between two phases of a nested drain.
    fell: Vec<String>,
    wake: Option<(Instant, SpawnHandle)>,
    rng: OsRng,
    /// Last, for the guard in it.
    role: Role,
}

#[derive(Debug)]
enum Role {
    Root { health: HealthHandle, ended: watch::Sender<Option<DrainSummary>>, next_report: Instant },
    Nested { guard: ExitGuard },
}

/// What a walk over the children is for.
#[derive(Debug)]
enum Errand {
    /// The root drains everything.
    Tree { reason: String, gave_up: Option<String> },
    /// The parent asked for this phase.
    Phase(DrainPhase),
    /// A child could not be kept alive.
    Collapse { why: String },
}

struct Kept {
    name: String,
    kind: &'static str,
    factory: Factory,
    restarts: Restarts,
    incarnation: Incarnation,
    state: State,
    last_exit: Option<ExitReason>,
    is_independent: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("name", &self.name).field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    Running(Child),
    /// Asked to end for good.
    Stopping {
        child: Child,
        until: Instant,
    },
    Waiting {
        restart_at: Instant,
    },
    /// Ended while everything ends; kept for its name.
    Gone,
}

impl Supervisor {
    /// Starts the root of a tree on the current arbiter. It reports itself as the subsystem
    /// `actors` and withdraws readiness in `health` when a drain begins.
    pub fn root(health: HealthHandle) -> Tree {
        let (ended, receiver) = watch::channel(None);
        let role = Role::Root { health, ended, next_report: clock::now() };
        Tree { root: Self::launch("root".to_owned(), role, Vec::new()), ended: receiver }
    }

    /// Starts a supervisor that is a child itself, with the children that belong to it from the
    /// start. Those it was given later through [`StartChild`] do not come back when it is
    /// restarted; whoever asked for them hears of their end.
    pub fn nested(name: impl Into<String>, guard: ExitGuard, children: Vec<ChildSpec>) -> Addr<Self> {
        Self::launch(name.into(), Role::Nested { guard }, children)
    }

    fn launch(name: String, role: Role, initial: Vec<ChildSpec>) -> Addr<Self> {
        Self::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox::SUPERVISOR);
            Self {
                name,
                role,
                children: BTreeMap::new(),
                next_child: 0,
                initial,
                ending: false,
                walk: None,
                fell: Vec::new(),
                wake: None,
                rng: os_rng(),
            }
        })
    }

    /// Puts a new child at the end of the start order, not yet running.
    fn adopt(&mut self, spec: ChildSpec) -> ChildId {
        let id = ChildId(self.next_child);
        self.next_child += 1;
        let kept = Kept {
            name: spec.name,
            kind: spec.kind,
            factory: spec.factory,
            restarts: Restarts::new(spec.policy, spec.backoff, spec.intensity),
            incarnation: Incarnation::default(),
            state: State::Waiting { restart_at: clock::now() },
            last_exit: None,
            is_independent: spec.is_independent,
        };
        self.children.insert(id, kept);
        id
    }

    fn start(&mut self, id: ChildId, ctx: &mut Context<Self>) -> Result<(), String> {
        let Some(kept) = self.children.get_mut(&id) else { return Ok(()) };
        kept.incarnation.0 = kept.incarnation.0.wrapping_add(1);
        let me = ctx.address();
        let guard = ExitGuard::new(
            id,
            kept.incarnation,
            me.clone().recipient::<ChildExited>().downgrade(),
            me.recipient::<DrainReport>().downgrade(),
        );
        // A factory that panics must not take the supervisor along; the factory is not trusted
        // with anything but making the next child, which it is asked to do from scratch.
        let started = catch_unwind(AssertUnwindSafe(|| (kept.factory)(guard)));
        match started {
            Ok(Ok(child)) => {
                kept.state = State::Running(child);
                kept.restarts.started(clock::now());
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("its factory panicked".to_owned()),
        }
    }

    fn start_due(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let due: Vec<ChildId> =
            self.children.iter().filter(|(_, kept)| kept.is_due(now)).map(|(&id, _)| id).collect();
        for id in due {
            if let Err(why) = self.start(id, ctx) {
                // The guard was dropped inside the factory; that report must not count again.
                if let Some(kept) = self.children.get_mut(&id) {
                    kept.incarnation.0 = kept.incarnation.0.wrapping_add(1);
                }
                self.ended(id, ExitReason::Failed(why), ctx);
            }
        }
    }

    /// Starts who waits for its restart, before a drain that it has a part in. One that does not
    /// start has no part, and is named.
    fn start_waiting(&mut self, ctx: &mut Context<Self>) {
        let waiting = self.children.iter().filter(|(_, kept)| matches!(kept.state, State::Waiting { .. }));
        let waiting: Vec<ChildId> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            if let Err(why) = self.start(id, ctx)
                && let Some(kept) = self.children.get_mut(&id)
            {
                tracing::warn!(child = kept.name, why, "cannot be started for the drain");
                // The guard was dropped inside the factory; that report must not count again.
                kept.incarnation.0 = kept.incarnation.0.wrapping_add(1);
                kept.state = State::Gone;
                self.fell.push(kept.name.clone());
            }
        }
    }

    /// A child ended while nothing drains.
    fn ended(&mut self, id: ChildId, reason: ExitReason, ctx: &mut Context<Self>) {
        let now = clock::now();
        let supervisor = &self.name;
        let Some(kept) = self.children.get_mut(&id) else { return };
        let verdict = match kept.state {
            State::Stopping { .. } => Verdict::Forget,
            _ => kept.restarts.ended(now, reason.is_fault(), &mut self.rng),
        };
        let name = kept.name.clone();
        kept.last_exit = Some(reason.clone());
        match verdict {
            Verdict::Forget => {
                tracing::debug!(supervisor, child = name, %reason, "child ended");
                self.children.remove(&id);
            }
            Verdict::RestartAfter(delay) => {
                let delay_ms = delay.as_millis();
                tracing::warn!(supervisor, child = name, %reason, delay_ms, "child ended, restarting");
                metrics::counter!(telemetry::ACTOR_RESTARTS, "actor" => kept.kind).increment(1);
                kept.state = State::Waiting { restart_at: now + delay };
            }
            Verdict::Escalate => {
                let restarts = kept.restarts.total();
                let why = format!("{name} {reason}, after {restarts} restarts");
                tracing::error!(supervisor, child = name, %reason, restarts, "child cannot be kept alive");
                self.children.remove(&id);
                self.give_up(why, ctx);
            }
        }
    }

    fn give_up(&mut self, why: String, ctx: &mut Context<Self>) {
        if self.ending {
            return;
        }
        let now = clock::now();
        match &self.role {
            Role::Root { health, .. } => {
                health.set_gave_up(&why);
                let errand = Errand::Tree { reason: "gave up".to_owned(), gave_up: Some(why) };
                // The notice is for those who ask for the node's health: they hear why it ends.
                let plan = match health.was_asked_within(ASKED_WITHIN) {
                    true => DrainPlan::default(),
                    false => DrainPlan { notice: Duration::ZERO, ..DrainPlan::default() },
                };
                let machine = DrainMachine::begin(now, plan, self.running());
                self.walk(errand, machine, ctx);
            }
            Role::Nested { .. } => {
                let deadline = now + COLLAPSE_WITHIN;
                let machine = DrainMachine::one_phase(now, DrainPhase::Cleanup, deadline, self.running());
                self.walk(Errand::Collapse { why }, machine, ctx);
            }
        }
    }

    /// The notice is for those who ask for the node's health. Where nobody did lately, and nobody
    /// begins to, it ends early.
    fn shorten_notice(&mut self, ctx: &mut Context<Self>) {
        let Role::Root { health, .. } = &self.role else { return };
        if health.was_asked_within(ASKED_WITHIN) {
            return;
        }
        ctx.run_later(UNASKED_NOTICE, |actor, ctx| {
            let Role::Root { health, .. } = &actor.role else { return };
            if !health.was_asked_within(UNASKED_NOTICE) {
                actor.feed(DrainInput::NoticeOver, ctx);
            }
        });
    }

    /// Children that can be asked.
    fn running(&self) -> Children<ChildId> {
        let running = || self.children.iter().filter(|(_, kept)| kept.child().is_some());
        Children {
            in_order: running().map(|(&id, _)| id).collect(),
            independent: running().filter(|(_, kept)| kept.is_independent).map(|(&id, _)| id).collect(),
        }
    }

    fn walk(&mut self, errand: Errand, machine: DrainMachine<ChildId>, ctx: &mut Context<Self>) {
        self.ending = true;
        self.walk = Some((errand, machine));
        self.perform(ctx);
    }

    fn feed(&mut self, input: DrainInput<ChildId>, ctx: &mut Context<Self>) {
        if let Some((_, machine)) = &mut self.walk {
            machine.handle(clock::now(), input);
            self.perform(ctx);
        }
    }

    fn perform(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.walk.as_mut().and_then(|(_, machine)| machine.poll()) {
            match output {
                DrainOutput::Enter(phase) => self.enter(phase),
                DrainOutput::Ask { child, phase, deadline } => {
                    if let Some(child) = self.children.get(&child).and_then(Kept::child) {
                        child.ask(Drain { phase, deadline });
                    }
                }
                DrainOutput::Complete(outcome) => self.complete(outcome, ctx),
            }
        }
        self.rearm(ctx);
    }

    fn enter(&self, phase: DrainPhase) {
        let Role::Root { health, .. } = &self.role else { return };
        health.set_draining(phase);
        tracing::info!(phase = phase.name(), "drain phase");
        let number = DrainPhase::ALL.iter().take_while(|&&other| other <= phase).count();
        metrics::gauge!(telemetry::DRAIN_PHASE).set(number as f64);
    }

    fn complete(&mut self, outcome: DrainOutcome<ChildId>, ctx: &mut Context<Self>) {
        let Some((errand, _)) = self.walk.take() else { return };
        let mut missed = std::mem::take(&mut self.fell);
        missed.extend(outcome.missed.iter().map(|(phase, child)| {
            let name = self.children.get(child).map_or_else(|| child.to_string(), |kept| kept.name.clone());
            format!("{}: {name}", phase.name())
        }));
        for name in &missed {
            tracing::warn!(supervisor = self.name, late = name, "did not finish in time");
        }
        match (errand, &mut self.role) {
            (Errand::Tree { reason, gave_up }, Role::Root { ended, .. }) => {
                if !outcome.counts.balance() {
                    tracing::error!(counts = ?outcome.counts, "what was accepted is not accounted for");
                }
                let drained = missed.is_empty() && outcome.is_complete() && gave_up.is_none();
                ended.send_replace(Some(DrainSummary {
                    reason,
                    drained,
                    phases: outcome
                        .phases
                        .iter()
                        .map(|&(phase, spent)| PhaseTime::new(phase, spent))
                        .collect(),
                    missed,
                    frames_dropped: outcome.counts.frames_dropped,
                    undelivered_kept: outcome.counts.undelivered_kept,
                    accepted: outcome.counts.accepted,
                    delivered: outcome.counts.delivered,
                    rejected: outcome.counts.rejected,
                    gave_up,
                }));
                ctx.stop();
            }
            (Errand::Phase(phase), Role::Nested { guard }) => {
                guard.report_with(phase, outcome.counts, missed);
                if phase == DrainPhase::Cleanup {
                    guard.drained();
                    ctx.stop();
                }
            }
            (Errand::Collapse { why }, Role::Nested { guard }) => {
                guard.failed(why);
                ctx.stop();
            }
            // A root has no parent to ask it for a phase and a nested one drains no tree.
            (Errand::Tree { .. }, Role::Nested { .. })
            | (Errand::Phase(_) | Errand::Collapse { .. }, Role::Root { .. }) => {}
        }
    }

    fn on_wake(&mut self, ctx: &mut Context<Self>) {
        self.wake = None;
        let now = clock::now();
        self.report_health(now);
        self.drop_overdue(now);
        if self.ending {
            self.feed(DrainInput::Timeout, ctx);
        } else {
            self.start_due(now, ctx);
        }
        self.rearm(ctx);
    }

    fn report_health(&mut self, now: Instant) {
        let waiting = self.children.values().find(|kept| matches!(kept.state, State::Waiting { .. }));
        let Role::Root { health, next_report, .. } = &mut self.role else { return };
        if now < *next_report {
            return;
        }
        *next_report = now + REPORT_EVERY;
        health.report(match waiting {
            None => SubsystemReport::healthy("actors", now),
            Some(kept) => {
                let last = kept.last_exit.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                let detail = format!("{} is being restarted{last}", kept.name);
                SubsystemReport::degraded("actors", detail, now)
            }
        });
    }

    fn drop_overdue(&mut self, now: Instant) {
        self.children.retain(|_, kept| match &kept.state {
            State::Stopping { child, until } if *until <= now => {
                tracing::warn!(child = kept.name, "did not stop in time, left behind");
                child.abort();
                false
            }
            _ => true,
        });
    }

    /// One timer for everything: the earliest of restarts, patience, health report and drain.
    fn rearm(&mut self, ctx: &mut Context<Self>) {
        let children = self.children.values().filter_map(|kept| match kept.state {
            State::Waiting { restart_at } if !self.ending => Some(restart_at),
            State::Stopping { until, .. } => Some(until),
            _ => None,
        });
        let report = match &self.role {
            Role::Root { next_report, .. } => Some(*next_report),
            Role::Nested { .. } => None,
        };
        let walk = self.walk.as_ref().and_then(|(_, machine)| machine.next_wake());
        let next = children.chain(report).chain(walk).min();
        if next == self.wake.map(|(at, _)| at) {
            return;
        }
        if let Some((_, timer)) = self.wake.take() {
            ctx.cancel_future(timer);
        }
        if let Some(at) = next {
            let delay = at.saturating_duration_since(clock::now());
            self.wake = Some((at, ctx.run_later(delay, Self::on_wake)));
        }
    }
}

impl Kept {
    fn child(&self) -> Option<&Child> {
        match &self.state {
            State::Running(child) | State::Stopping { child, .. } => Some(child),
            State::Waiting { .. } | State::Gone => None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { restart_at } if restart_at <= now)
    }
}

impl Drop for Supervisor {
    /// Nobody is left to answer for children that still run, so they are told to end: the late
    /// ones of a drain, and all of them if the supervisor itself crashed.
    fn drop(&mut self) {
        for child in self.children.values().filter_map(Kept::child) {
            child.ask(Drain { phase: DrainPhase::Cleanup, deadline: clock::now() });
            child.abort();
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for spec in std::mem::take(&mut self.initial) {
            self.adopt(spec);
        }
        self.on_wake(ctx);
    }
}

impl Handler<StartChild> for Supervisor {
    type Result = MessageResult<StartChild>;

    fn handle(&mut self, StartChild(spec): StartChild, ctx: &mut Self::Context) -> Self::Result {
        let name = spec.name.clone();
        if self.ending {
            return MessageResult(Err(StartError::Draining { name }));
        }
        let id = self.adopt(spec);
        MessageResult(self.start(id, ctx).map(|()| id).map_err(|reason| {
            self.children.remove(&id);
            StartError::Failed { name, reason }
        }))
    }
}

impl Handler<StopChild> for Supervisor {
    type Result = ();

    fn handle(&mut self, StopChild { child, within }: StopChild, ctx: &mut Self::Context) {
        let until = clock::now() + within;
        if let Some(mut kept) = self.children.remove(&child) {
            if let State::Running(running) = kept.state {
                running.ask(Drain { phase: DrainPhase::Cleanup, deadline: until });
                kept.state = State::Stopping { child: running, until };
            }
            if kept.child().is_some() {
                self.children.insert(child, kept);
            }
        }
        self.rearm(ctx);
    }
}

impl Handler<ListChildren> for Supervisor {
    type Result = MessageResult<ListChildren>;

    fn handle(&mut self, _: ListChildren, _: &mut Self::Context) -> Self::Result {
        let status = |(&child, kept): (&ChildId, &Kept)| ChildStatus {
            child,
            name: kept.name.clone(),
            running: kept.child().is_some(),
            restarts: kept.restarts.total(),
            last_exit: kept.last_exit.clone(),
        };
        MessageResult(self.children.iter().map(status).collect())
    }
}

impl Handler<ChildExited> for Supervisor {
    type Result = ();

    fn handle(&mut self, exit: ChildExited, ctx: &mut Self::Context) {
        let Some(kept) = self.children.get_mut(&exit.child) else { return };
        if kept.incarnation != exit.incarnation {
            return;
        }
        if !self.ending {
            self.ended(exit.child, exit.reason, ctx);
            self.rearm(ctx);
            return;
        }
        kept.state = State::Gone;
        let clean = !exit.reason.is_fault();
        if self.walk.is_some() {
            self.feed(DrainInput::Exited { child: exit.child, clean }, ctx);
        } else if !clean {
            self.fell.push(kept.name.clone());
        }
    }
}

impl Handler<DrainReport> for Supervisor {
    type Result = ();

    fn handle(&mut self, report: DrainReport, ctx: &mut Self::Context) {
        let Some(kept) = self.children.get(&report.child) else { return };
        if kept.incarnation != report.incarnation {
            return;
        }
        self.fell.extend(report.missed.iter().map(|late| format!("{}/{late}", kept.name)));
        let (child, phase, counts) = (report.child, report.phase, report.counts);
        self.feed(DrainInput::Reported { child, phase, counts }, ctx);
    }
}

impl Handler<BeginDrain> for Supervisor {
    type Result = ();

    fn handle(&mut self, begin: BeginDrain, ctx: &mut Self::Context) {
        if self.ending || matches!(self.role, Role::Nested { .. }) {
            return;
        }
        self.start_waiting(ctx);
        let machine = DrainMachine::begin(clock::now(), begin.plan, self.running());
        self.walk(Errand::Tree { reason: begin.reason, gave_up: None }, machine, ctx);
        self.shorten_notice(ctx);
    }
}

impl Handler<SkipAhead> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: SkipAhead, ctx: &mut Self::Context) {
        self.feed(DrainInput::SkipAhead, ctx);
    }
}

impl Handler<Drain> for Supervisor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        if let Some((Errand::Collapse { .. }, _)) = &self.walk {
            return;
        }
        let children = self.running();
        let machine = DrainMachine::one_phase(clock::now(), drain.phase, drain.deadline, children);
        self.walk(Errand::Phase(drain.phase), machine, ctx);
    }
}

/// Panics, or has those children do so that the path names by their name or their kind.
#[cfg(any(test, feature = "testing"))]
impl Handler<PanicNow> for Supervisor {
    type Result = ();

    fn handle(&mut self, PanicNow(path): PanicNow, _: &mut Context<Self>) {
        assert!(!path.is_empty(), "a test wanted this panic");
        for kept in self.children.values() {
            let below = below(&path, &kept.name).or_else(|| below(&path, kept.kind));
            if let (Some(below), Some(child)) = (below, kept.child()) {
                child.panics.now(below);
            }
        }
    }
}
