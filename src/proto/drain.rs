//! The phase machine of a graceful end: Draining, Persisting, Cleanup, Complete.
//!
//! | phase      | what children do                                                      | ends when |
//! |------------|-----------------------------------------------------------------------|-----------|
//! | Draining   | take no new work, finish what is in flight, ask peers to route around us | all reported, or deadline |
//! | Persisting | write what a restart must remember                                    | all reported, or deadline |
//! | Cleanup    | close links with a reason, remove sockets and lock files, end          | all ended, or deadline |
//!
//! The machine knows children only by key. It says whom to ask and when ([`DrainOutput`]); the
//! supervisor carries that out and feeds back what it hears ([`DrainInput`]). After each
//! [`handle`](DrainMachine::handle) drain [`poll`](DrainMachine::poll) to `None`, then wait for
//! the next input or for [`next_wake`](DrainMachine::next_wake).
//!
//! Rules worth knowing:
//! - In Draining everybody is asked at once, after a notice in which only readiness is withdrawn,
//!   so that load balancers and peers stop sending before anything closes.
//! - In Persisting and Cleanup children are asked one after another in reverse start order: who was
//!   started later depends on who was there before (the router writes into the store, so the store
//!   goes last). A child that keeps the others waiting gets half of what is left of the phase.
//! - In Cleanup only the end of a child counts. Ending early counts for all phases to come.
//! - Nobody is waited for beyond the deadline: who is late is reported by key and left behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// A phase of a drain in which children have something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainPhase {
    /// No new work; what is in flight is finished.
    Draining,
    /// What a restart must remember is written.
    Persisting,
    /// Everything is closed and children end.
    Cleanup,
}

impl DrainPhase {
    /// All phases in order.
    pub const ALL: [Self; 3] = [Self::Draining, Self::Persisting, Self::Cleanup];

    /// The name in logs, metrics and the `stopped` line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Persisting => "persisting",
            Self::Cleanup => "cleanup",
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Draining => Some(Self::Persisting),
            Self::Persisting => Some(Self::Cleanup),
            Self::Cleanup => None,
        }
    }

    fn asks_one_by_one(self) -> bool {
        self != Self::Draining
    }
}

/// How long each part of a drain may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainPlan {
    /// From "not ready" to the first thing that closes; part of `draining`.
    pub notice: Duration,
    /// The whole phase Draining.
    pub draining: Duration,
    /// The whole phase Persisting.
    pub persisting: Duration,
    /// The whole phase Cleanup.
    pub cleanup: Duration,
}

impl DrainPlan {
    /// A plan that takes at most `total`: half to drain, three tenths to write, two to clean up,
    /// and a notice of two seconds where there is time for it (a tenth of the total otherwise).
    pub fn within(total: Duration) -> Self {
        Self {
            notice: (total / 10).min(Duration::from_secs(2)),
            draining: total / 2,
            persisting: total * 3 / 10,
            cleanup: total / 5,
        }
    }

    fn length(&self, phase: DrainPhase) -> Duration {
        match phase {
            DrainPhase::Draining => self.draining,
            DrainPhase::Persisting => self.persisting,
            DrainPhase::Cleanup => self.cleanup,
        }
    }
}

impl Default for DrainPlan {
    /// 28 s in all, so that a service manager which kills after 30 s never has to.
    fn default() -> Self {
        Self::within(Duration::from_secs(28))
    }
}

/// What children count while they drain. Each report carries what happened since the one before,
/// so that sums are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainCounts {
    /// Frames that were neither sent, stored nor refused.
    pub frames_dropped: u64,
    /// Messages that are safe on disk and not yet delivered.
    pub undelivered_kept: u64,
}

impl DrainCounts {
    /// Adds the counts of another child or phase.
    pub fn add(&mut self, other: Self) {
        self.frames_dropped = self.frames_dropped.saturating_add(other.frames_dropped);
        self.undelivered_kept = self.undelivered_kept.saturating_add(other.undelivered_kept);
    }
}

/// What the supervisor tells the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainInput<K> {
    /// A child is done with a phase.
    Reported {
        /// Who.
        child: K,
        /// With what. A report for another phase than the current one only adds its counts.
        phase: DrainPhase,
        /// Since its last report.
        counts: DrainCounts,
    },
    /// A child ended; `clean` unless it crashed or failed.
    Exited {
        /// Who.
        child: K,
        /// False names the child among the late ones.
        clean: bool,
    },
    /// The second signal: go to Cleanup now; in Cleanup: be done now.
    SkipAhead,
    /// [`DrainMachine::next_wake`] has come.
    Timeout,
}

/// What the supervisor has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainOutput<K> {
    /// A phase begins: log it, withdraw readiness.
    Enter(DrainPhase),
    /// Send this child the phase and its deadline.
    Ask {
        /// Whom.
        child: K,
        /// What to do.
        phase: DrainPhase,
        /// When the answer is late.
        deadline: Instant,
    },
    /// It is over.
    Complete(DrainOutcome<K>),
}

/// What a drain came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOutcome<K> {
    /// Time spent in each phase that was entered, in order.
    pub phases: Vec<(DrainPhase, Duration)>,
    /// Who did not answer in time or ended by a fault, by phase.
    pub missed: BTreeSet<(DrainPhase, K)>,
    /// Whether [`DrainInput::SkipAhead`] cut it short.
    pub skipped: bool,
    /// Sums over all children and phases.
    pub counts: DrainCounts,
}

impl<K> DrainOutcome<K> {
    /// True when every child did everything in time.
    pub fn is_complete(&self) -> bool {
        self.missed.is_empty() && !self.skipped
    }
}

/// One drain, of a whole tree or of one phase of a subtree.
#[derive(Debug)]
pub struct DrainMachine<K> {
    plan: DrainPlan,
    last: DrainPhase,
    state: State<K>,
    /// Alive, in start order.
    alive: Vec<K>,
    outcome: DrainOutcome<K>,
    outputs: VecDeque<DrainOutput<K>>,
}

#[derive(Debug)]
enum State<K> {
    Running(Walk<K>),
    Complete,
}

/// The walk of one phase over the children.
#[derive(Debug)]
struct Walk<K> {
    phase: DrainPhase,
    since: Instant,
    deadline: Instant,
    /// Before this nobody is asked.
    asks_from: Instant,
    /// Still to be asked, next one last.
    to_ask: Vec<K>,
    /// Asked and not done, with the time after which the next one is asked anyway.
    open: BTreeMap<K, Instant>,
}

impl<K: Copy + Ord> DrainMachine<K> {
    /// Begins the drain of a whole tree. `children` are in start order.
    pub fn begin(now: Instant, plan: DrainPlan, children: Vec<K>) -> Self {
        let mut machine = Self::new(plan, DrainPhase::Cleanup, children);
        machine.enter(now, DrainPhase::Draining, plan.notice.min(plan.draining), plan.draining);
        machine
    }

    /// Walks one phase of a subtree whose parent wants an answer by `deadline`. The subtree's own
    /// deadline is a little earlier, so that the answer names the late ones and is in time.
    pub fn one_phase(now: Instant, phase: DrainPhase, deadline: Instant, children: Vec<K>) -> Self {
        let given = deadline.saturating_duration_since(now);
        let margin = (given / 10).min(Duration::from_millis(250));
        let length = given.saturating_sub(margin);
        let plan =
            DrainPlan { notice: Duration::ZERO, draining: length, persisting: length, cleanup: length };
        let mut machine = Self::new(plan, phase, children);
        machine.enter(now, phase, Duration::ZERO, length);
        machine
    }

    fn new(plan: DrainPlan, last: DrainPhase, children: Vec<K>) -> Self {
        Self {
            plan,
            last,
            state: State::Complete,
            alive: children,
            outcome: DrainOutcome {
                phases: Vec::new(),
                missed: BTreeSet::new(),
                skipped: false,
                counts: DrainCounts::default(),
            },
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input. Inputs after the end are ignored.
    pub fn handle(&mut self, now: Instant, input: DrainInput<K>) {
        let State::Running(walk) = &mut self.state else { return };
        match input {
            DrainInput::Reported { child, phase, counts } => {
                self.outcome.counts.add(counts);
                if phase == walk.phase && phase != DrainPhase::Cleanup {
                    walk.open.remove(&child);
                }
            }
            DrainInput::Exited { child, clean } => {
                self.alive.retain(|&other| other != child);
                walk.open.remove(&child);
                walk.to_ask.retain(|&other| other != child);
                if !clean {
                    self.outcome.missed.insert((walk.phase, child));
                }
            }
            DrainInput::SkipAhead => {
                self.outcome.skipped = true;
                let target = if walk.phase == DrainPhase::Cleanup { None } else { Some(DrainPhase::Cleanup) };
                self.close(now);
                match target.filter(|&phase| phase <= self.last) {
                    Some(phase) => self.enter_planned(now, phase),
                    None => self.complete(),
                }
                return;
            }
            DrainInput::Timeout => {}
        }
        self.advance(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self) -> Option<DrainOutput<K>> {
        self.outputs.pop_front()
    }

    /// When to call back with [`DrainInput::Timeout`]; none after the end.
    pub fn next_wake(&self) -> Option<Instant> {
        let State::Running(walk) = &self.state else { return None };
        let next_ask = match (walk.open.values().max(), walk.to_ask.is_empty()) {
            (None, _) => walk.asks_from,
            (Some(&patience_ends), false) => patience_ends,
            (Some(_), true) => walk.deadline,
        };
        Some(next_ask.min(walk.deadline))
    }

    /// The phase under way; none after the end.
    pub fn phase(&self) -> Option<DrainPhase> {
        match &self.state {
            State::Running(walk) => Some(walk.phase),
            State::Complete => None,
        }
    }

    fn enter_planned(&mut self, now: Instant, phase: DrainPhase) {
        self.enter(now, phase, Duration::ZERO, self.plan.length(phase));
    }

    fn enter(&mut self, now: Instant, phase: DrainPhase, notice: Duration, length: Duration) {
        self.outputs.push_back(DrainOutput::Enter(phase));
        self.state = State::Running(Walk {
            phase,
            since: now,
            deadline: now + length,
            asks_from: now + notice,
            to_ask: self.alive.clone(),
            open: BTreeMap::new(),
        });
        self.advance(now);
    }

    /// Asks whoever is next, or ends the phase.
    fn advance(&mut self, now: Instant) {
        let State::Running(walk) = &mut self.state else { return };
        let everyone_done = walk.to_ask.is_empty() && walk.open.is_empty();
        if now < walk.deadline && !everyone_done {
            walk.ask_due(now, &mut self.outputs);
            return;
        }
        // With nobody to ask there is still a notice to keep: the phase is what peers see of it.
        if everyone_done && now < walk.asks_from && now < walk.deadline {
            return;
        }
        let phase = walk.phase;
        self.close(now);
        match phase.next().filter(|&next| next <= self.last) {
            Some(next) => self.enter_planned(now, next),
            None => self.complete(),
        }
    }

    /// Ends the current phase: books its time and names who is late.
    fn close(&mut self, now: Instant) {
        let State::Running(walk) = &mut self.state else { return };
        let late = walk.open.keys().copied().chain(walk.to_ask.drain(..));
        self.outcome.missed.extend(late.map(|child| (walk.phase, child)));
        self.outcome.phases.push((walk.phase, now.saturating_duration_since(walk.since)));
    }

    fn complete(&mut self) {
        self.state = State::Complete;
        self.outputs.push_back(DrainOutput::Complete(self.outcome.clone()));
    }
}

impl<K: Copy + Ord> Walk<K> {
    fn ask_due(&mut self, now: Instant, outputs: &mut VecDeque<DrainOutput<K>>) {
        if now < self.asks_from {
            return;
        }
        loop {
            let holds_up_the_next =
                self.phase.asks_one_by_one() && self.open.values().any(|&until| now < until);
            if holds_up_the_next {
                return;
            }
            let Some(child) = self.to_ask.pop() else { return };
            let patience = self.deadline.saturating_duration_since(now) / 2;
            self.open.insert(child, now + patience);
            outputs.push_back(DrainOutput::Ask { child, phase: self.phase, deadline: self.deadline });
        }
    }
}
