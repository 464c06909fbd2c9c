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
//!   Children that are independent of each other, such as links, are one step of that order: five
//!   hundred that each wait for their peer take as long as the slowest.
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

/// Who has asked for the node's health within this time before a drain is taken to ask again: twice
/// the usual interval of load balancers.
pub const ASKED_WITHIN: Duration = Duration::from_secs(60);

/// The notice where nobody has asked: long enough for whoever begins to look when the signal is
/// out, and then the notice is kept whole.
pub const UNASKED_NOTICE: Duration = Duration::from_millis(500);

/// How long each part of a drain may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainPlan {
    /// From "not ready" to the first thing that closes; part of `draining`. Cut short by
    /// [`DrainInput::NoticeOver`].
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
    /// Frames that still waited to be written when their link closed. Whoever sent a message keeps
    /// it; what was only said on the way (announces, receipts) is said again.
    pub frames_dropped: u64,
    /// Messages that are safe on disk and not yet delivered.
    pub undelivered_kept: u64,
    /// Messages that the node answered for: found on the disk at the start, or acknowledged since.
    pub accepted: u64,
    /// Of those, messages that were receipted, or that somebody else holds now.
    pub delivered: u64,
    /// Of those, messages that ended otherwise and were reported as that: expired, refused for good,
    /// taken back.
    pub rejected: u64,
}

impl DrainCounts {
    /// Adds the counts of another child or phase.
    pub fn add(&mut self, other: Self) {
        self.frames_dropped = self.frames_dropped.saturating_add(other.frames_dropped);
        self.undelivered_kept = self.undelivered_kept.saturating_add(other.undelivered_kept);
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.delivered = self.delivered.saturating_add(other.delivered);
        self.rejected = self.rejected.saturating_add(other.rejected);
    }

    /// For where the disk does not answer: what was there when it last did.
    pub fn only_kept(kept: u64) -> Self {
        Self { undelivered_kept: kept, accepted: kept, ..Self::default() }
    }

    /// True where everything that was accepted is accounted for.
    pub fn balance(&self) -> bool {
        let known = self.delivered.saturating_add(self.rejected).saturating_add(self.undelivered_kept);
        self.accepted == known
    }
}

/// Whom a drain asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Children<K> {
    /// All of them, in start order.
    pub in_order: Vec<K>,
    /// Those that nothing started after them depends on but others of the same kind, and which do
    /// not depend on those: where they follow one another they are asked together.
    pub independent: BTreeSet<K>,
}

impl<K> From<Vec<K>> for Children<K> {
    /// Each depends on those before it.
    fn from(in_order: Vec<K>) -> Self {
        Self { in_order, independent: BTreeSet::new() }
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
    /// Nobody is there who would read the notice.
    NoticeOver,
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
    /// Those that are alive.
    alive: Children<K>,
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
    /// Begins the drain of a whole tree.
    pub fn begin(now: Instant, plan: DrainPlan, children: impl Into<Children<K>>) -> Self {
        let mut machine = Self::new(plan, DrainPhase::Cleanup, children.into());
        machine.enter(now, DrainPhase::Draining, plan.notice.min(plan.draining), plan.draining);
        machine
    }

    /// Walks one phase of a subtree whose parent wants an answer by `deadline`. The subtree's own
    /// deadline is a little earlier, so that the answer names the late ones and is in time.
    pub fn one_phase(
        now: Instant,
        phase: DrainPhase,
        deadline: Instant,
        children: impl Into<Children<K>>,
    ) -> Self {
        let given = deadline.saturating_duration_since(now);
        let margin = (given / 10).min(Duration::from_millis(250));
        let length = given.saturating_sub(margin);
        let plan =
            DrainPlan { notice: Duration::ZERO, draining: length, persisting: length, cleanup: length };
        let mut machine = Self::new(plan, phase, children.into());
        machine.enter(now, phase, Duration::ZERO, length);
        machine
    }

    fn new(plan: DrainPlan, last: DrainPhase, children: Children<K>) -> Self {
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
                self.alive.in_order.retain(|&other| other != child);
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
            DrainInput::NoticeOver => walk.asks_from = walk.asks_from.min(now),
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
            to_ask: self.alive.in_order.clone(),
            open: BTreeMap::new(),
        });
        self.advance(now);
    }

    /// Asks whoever is next, or ends the phase.
    fn advance(&mut self, now: Instant) {
        let State::Running(walk) = &mut self.state else { return };
        let everyone_done = walk.to_ask.is_empty() && walk.open.is_empty();
        if now < walk.deadline && !everyone_done {
            walk.ask_due(now, &self.alive.independent, &mut self.outputs);
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
    fn ask_due(&mut self, now: Instant, independent: &BTreeSet<K>, outputs: &mut VecDeque<DrainOutput<K>>) {
        if now < self.asks_from {
            return;
        }
        let asks_one_by_one = self.phase.asks_one_by_one();
        while let Some(&child) = self.to_ask.last() {
            let is_independent = independent.contains(&child);
            let holds_it_up = |(other, until): (&K, &Instant)| {
                now < *until && !(is_independent && independent.contains(other))
            };
            if asks_one_by_one && self.open.iter().any(holds_it_up) {
                return;
            }
            self.to_ask.pop();
            let patience = self.deadline.saturating_duration_since(now) / 2;
            self.open.insert(child, now + patience);
            outputs.push_back(DrainOutput::Ask { child, phase: self.phase, deadline: self.deadline });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DrainPhase::{Cleanup, Draining, Persisting};

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const PLAN: DrainPlan = DrainPlan {
        notice: Duration::from_millis(200),
        draining: Duration::from_millis(1_000),
        persisting: Duration::from_millis(800),
        cleanup: Duration::from_millis(400),
    };

    /// A machine with its clock; outputs as short words.
    struct Bench {
        machine: DrainMachine<u32>,
        start: Instant,
    }

    impl Bench {
        fn begin(plan: DrainPlan, children: &[u32]) -> Self {
            let start = Instant::now();
            Self { machine: DrainMachine::begin(start, plan, children.to_vec()), start }
        }

        fn at(&mut self, at_ms: u64, input: DrainInput<u32>) -> Vec<String> {
            self.machine.handle(self.start + ms(at_ms), input);
            self.said()
        }

        fn said(&mut self) -> Vec<String> {
            let word = |output| match output {
                DrainOutput::Enter(phase) => format!("enter {}", phase.name()),
                DrainOutput::Ask { child, .. } => format!("ask {child}"),
                DrainOutput::Complete(outcome) => format!("complete {}", outcome.is_complete()),
            };
            std::iter::from_fn(|| self.machine.poll()).map(word).collect()
        }

        fn wake_ms(&self) -> Option<u128> {
            self.machine.next_wake().map(|at| (at - self.start).as_millis())
        }
    }

    fn reported(child: u32, phase: DrainPhase) -> DrainInput<u32> {
        let counts = DrainCounts { frames_dropped: 1, undelivered_kept: 2, ..DrainCounts::default() };
        DrainInput::Reported { child, phase, counts }
    }

    fn ended(child: u32) -> DrainInput<u32> {
        DrainInput::Exited { child, clean: true }
    }

    #[test]
    fn independent_children_are_asked_together_before_what_they_depend_on() {
        let start = Instant::now();
        let children = Children { in_order: vec![1, 2, 11, 12, 13], independent: [11, 12, 13].into() };
        let mut machine = DrainMachine::one_phase(start, Cleanup, start + ms(1_000), children);
        let asked = |machine: &mut DrainMachine<u32>| {
            let asked = |output| match output {
                DrainOutput::Ask { child, .. } => Some(child),
                _ => None,
            };
            std::iter::from_fn(|| machine.poll()).filter_map(asked).collect::<Vec<_>>()
        };
        assert_eq!(asked(&mut machine), [13, 12, 11]);
        for child in [12, 13] {
            machine.handle(start, DrainInput::Exited { child, clean: true });
            assert!(asked(&mut machine).is_empty(), "what they depend on waits for the last of them");
        }
        machine.handle(start, DrainInput::Exited { child: 11, clean: true });
        assert_eq!(asked(&mut machine), [2]);
        machine.handle(start, DrainInput::Exited { child: 2, clean: true });
        assert_eq!(asked(&mut machine), [1]);
    }

    #[test]
    fn a_polite_tree_goes_through_all_phases_backwards() {
        let mut bench = Bench::begin(PLAN, &[1, 2]);
        assert_eq!(bench.said(), ["enter draining"]);
        assert_eq!(bench.wake_ms(), Some(200));
        assert!(bench.at(199, DrainInput::Timeout).is_empty(), "the notice is kept");
        assert_eq!(bench.at(200, DrainInput::Timeout), ["ask 2", "ask 1"]);
        assert_eq!(bench.wake_ms(), Some(1_000), "nobody is left to ask");
        assert!(bench.at(210, reported(1, Draining)).is_empty());
        assert_eq!(bench.at(220, reported(2, Draining)), ["enter persisting", "ask 2"]);
        assert_eq!(bench.at(230, reported(2, Persisting)), ["ask 1"]);
        assert_eq!(bench.at(240, reported(1, Persisting)), ["enter cleanup", "ask 2"]);
        assert!(bench.at(245, reported(2, Cleanup)).is_empty(), "only the end counts in Cleanup");
        assert_eq!(bench.at(250, ended(2)), ["ask 1"]);
        bench.machine.handle(bench.start + ms(260), ended(1));
        let Some(DrainOutput::Complete(outcome)) = bench.machine.poll() else { panic!("not complete") };
        assert_eq!(outcome.phases, [(Draining, ms(220)), (Persisting, ms(20)), (Cleanup, ms(20))]);
        assert_eq!((outcome.counts.frames_dropped, outcome.counts.undelivered_kept), (5, 10));
        assert!(outcome.is_complete());
        assert_eq!((bench.wake_ms(), bench.machine.phase()), (None, None));
    }

    #[test]
    fn who_is_late_costs_half_of_what_is_left_and_is_named() {
        let mut bench = Bench::begin(DrainPlan { notice: ms(0), ..PLAN }, &[1, 2, 3]);
        for child in [1, 2, 3] {
            bench.at(0, reported(child, Draining));
        }
        assert_eq!(bench.said(), Vec::<String>::new());
        assert_eq!(bench.wake_ms(), Some(400), "of 800 ms of Persisting child 3 gets half");
        assert_eq!(bench.at(400, DrainInput::Timeout), ["ask 2"]);
        assert_eq!(bench.wake_ms(), Some(600));
        assert_eq!(bench.at(600, DrainInput::Timeout), ["ask 1"]);
        assert!(bench.at(650, reported(1, Persisting)).is_empty());
        assert!(
            bench.at(700, reported(3, Persisting)).is_empty(),
            "late for the others, in time for the phase"
        );
        assert_eq!(bench.wake_ms(), Some(800));
        assert_eq!(bench.at(800, DrainInput::Timeout), ["enter cleanup", "ask 3"]);
        for child in [3, 2] {
            bench.at(810, ended(child));
        }
        bench.machine.handle(bench.start + ms(820), ended(1));
        let Some(DrainOutput::Complete(outcome)) = bench.machine.poll() else { panic!("not complete") };
        assert_eq!(outcome.missed, BTreeSet::from([(Persisting, 2)]));
    }

    #[test]
    fn the_second_signal_goes_to_cleanup_and_the_third_ends_it() {
        let mut bench = Bench::begin(PLAN, &[1]);
        bench.said();
        assert_eq!(bench.at(50, DrainInput::SkipAhead), ["enter cleanup", "ask 1"]);
        bench.machine.handle(bench.start + ms(60), DrainInput::SkipAhead);
        let Some(DrainOutput::Complete(outcome)) = bench.machine.poll() else { panic!("not complete") };
        assert!(outcome.skipped && !outcome.is_complete());
        assert_eq!(outcome.missed, BTreeSet::from([(Draining, 1), (Cleanup, 1)]));
        assert_eq!(outcome.phases, [(Draining, ms(50)), (Cleanup, ms(10))]);
        assert!(bench.at(70, DrainInput::SkipAhead).is_empty(), "after the end nothing counts");
    }

    #[test]
    fn a_child_that_ends_early_is_not_asked_again_and_a_crash_is_named() {
        let mut bench = Bench::begin(DrainPlan { notice: ms(0), ..PLAN }, &[1, 2]);
        assert_eq!(bench.said(), ["enter draining", "ask 2", "ask 1"]);
        assert!(bench.at(1, ended(2)).is_empty());
        assert_eq!(
            bench.at(2, DrainInput::Exited { child: 1, clean: false }),
            ["enter persisting", "enter cleanup", "complete false"]
        );
    }

    #[test]
    fn without_children_only_the_notice_takes_time() {
        let mut bench = Bench::begin(PLAN, &[]);
        assert_eq!(bench.said(), ["enter draining"]);
        assert_eq!(bench.wake_ms(), Some(200));
        assert_eq!(
            bench.at(200, DrainInput::Timeout),
            ["enter persisting", "enter cleanup", "complete true"]
        );
    }

    #[test]
    fn a_notice_that_nobody_reads_is_cut_short() {
        let mut bench = Bench::begin(PLAN, &[1]);
        assert_eq!(bench.said(), ["enter draining"]);
        assert_eq!(bench.at(50, DrainInput::NoticeOver), ["ask 1"]);
        // Later it changes nothing.
        assert!(bench.at(60, DrainInput::NoticeOver).is_empty());
        assert_eq!(bench.wake_ms(), Some(1_000));
    }

    #[test]
    fn a_notice_longer_than_the_phase_still_asks() {
        let plan = DrainPlan { notice: ms(5_000), ..PLAN };
        let mut bench = Bench::begin(plan, &[1]);
        bench.said();
        assert_eq!(bench.wake_ms(), Some(1_000));
        assert_eq!(bench.at(1_000, DrainInput::Timeout), ["enter persisting", "ask 1"]);
    }

    #[test]
    fn a_subtree_answers_before_its_parents_deadline() {
        let start = Instant::now();
        let machine = DrainMachine::one_phase(start, Persisting, start + ms(1_000), vec![1]);
        let mut bench = Bench { machine, start };
        assert_eq!(bench.said(), ["enter persisting", "ask 1"]);
        assert_eq!(bench.wake_ms(), Some(900));
        assert_eq!(bench.at(900, DrainInput::Timeout), ["complete false"]);
    }

    #[test]
    fn a_plan_stays_within_its_total() {
        for total_ms in [0, 1, 999, 28_000, 600_000] {
            let plan = DrainPlan::within(ms(total_ms));
            assert!(plan.draining + plan.persisting + plan.cleanup <= ms(total_ms));
            assert!(plan.notice <= plan.draining && plan.notice <= ms(2_000));
        }
    }
}
