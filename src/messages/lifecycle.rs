//! Messages about the life of actors and tasks: how children end and how they drain.
//!
//! All of these are sent with `do_send`: they have to arrive, and the number of children bounds
//! how many there are.

use std::fmt;
use std::time::{Duration, Instant};

use actix::WeakRecipient;
use actix::prelude::Recipient;
use serde::Serialize;

use super::message;

pub use crate::proto::drain::{DrainCounts, DrainPhase, DrainPlan};

/// Names one child of one supervisor. Numbers grow in start order and are never reused; a
/// restarted child keeps its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Which value of a restarted child speaks: reports of one that was left behind are told apart
/// from those of its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u32);

/// Why a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It panicked, was aborted, or vanished without a word.
    Crashed,
    /// It gave up, and says why.
    Failed(String),
    /// It did what a drain asked of it.
    Drained,
    /// Its work was done.
    Stopped,
}

impl ExitReason {
    /// Whether a transient child is started again after it.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Crashed | Self::Failed(_))
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashed => f.write_str("crashed"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Drained => f.write_str("drained"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// Child to parent, once: it is gone. Sent by the drop of its [`ExitGuard`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildExited {
    /// Who.
    pub child: ChildId,
    /// Which value of it.
    pub incarnation: Incarnation,
    /// Why.
    pub reason: ExitReason,
}

message!(ChildExited => ());

/// Parent to child: do the work of this drain phase.
///
/// In `Draining` and `Persisting` the child answers with [`ExitGuard::report`] when it is done,
/// at once if it has nothing to do. In `Cleanup` it calls [`ExitGuard::drained`] and stops; its
/// end is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// What is to be done.
    pub phase: DrainPhase,
    /// Nobody waits longer than this.
    pub deadline: Instant,
}

message!(Drain => ());

/// Child to parent: done with a drain phase. Made by [`ExitGuard::report`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainReport {
    /// Who.
    pub child: ChildId,
    /// Which value of it.
    pub incarnation: Incarnation,
    /// With what.
    pub phase: DrainPhase,
    /// What it counted since its last report.
    pub counts: DrainCounts,
    /// Names of its own children that were late.
    pub missed: Vec<String>,
}

message!(DrainReport => ());

/// Child or owner to a supervisor: drain the whole tree and end. A drain under way is joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginDrain {
    /// For logs and the `stopped` line: `signal`, `requested`.
    pub reason: String,
    /// Deadlines.
    pub plan: DrainPlan,
}

message!(BeginDrain => ());

/// The second signal: skip to Cleanup; in Cleanup, end now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipAhead;

message!(SkipAhead => ());

/// A test to any actor: panic while you handle this, or have what is below you by this path do so.
/// Under the feature `testing` only, for tests of whole nodes that lose a part of themselves.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanicNow(
    /// A path in the tree of actors, from the receiver down; empty for the receiver itself.
    pub String,
);

#[cfg(any(test, feature = "testing"))]
message!(PanicNow => ());

/// Has an actor panic when a test says so.
#[cfg(any(test, feature = "testing"))]
macro_rules! panics_when_told {
    ($actor:ty) => {
        impl actix::Handler<$crate::messages::lifecycle::PanicNow> for $actor {
            type Result = ();

            fn handle(&mut self, _: $crate::messages::lifecycle::PanicNow, _: &mut actix::Context<Self>) {
                panic!("a test wanted this panic");
            }
        }
    };
}
#[cfg(any(test, feature = "testing"))]
pub(crate) use panics_when_told;

/// How a drained tree ended: the body of the `stopped` line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrainSummary {
    /// Why it was drained.
    pub reason: String,
    /// True when every child did everything in time and nothing was given up before.
    pub drained: bool,
    /// Time per phase, in order.
    pub phases: Vec<PhaseTime>,
    /// Who was late or fell in which phase, as `phase: name`.
    pub missed: Vec<String>,
    /// Frames that still waited to be written when their link closed.
    pub frames_dropped: u64,
    /// Messages safe on disk and not yet delivered. With all that was delivered and rejected they are
    /// what was accepted.
    pub undelivered_kept: u64,
    /// As [`DrainCounts::accepted`].
    pub accepted: u64,
    /// As [`DrainCounts::delivered`].
    pub delivered: u64,
    /// As [`DrainCounts::rejected`].
    pub rejected: u64,
    /// The child that could not be kept alive, if that is why: the process exits non-zero.
    pub gave_up: Option<String>,
}

/// One line of [`DrainSummary::phases`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PhaseTime {
    /// The phase's name.
    pub name: &'static str,
    /// Milliseconds spent in it.
    pub ms: u64,
}

impl PhaseTime {
    pub(crate) fn new(phase: DrainPhase, spent: Duration) -> Self {
        Self { name: phase.name(), ms: u64::try_from(spent.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// What ties a child to its parent: its drop tells the parent that the child is gone, so that a
/// panic is heard like an orderly end.
///
/// An actor keeps it as its **last** field (fields drop in order: sockets and locks are free
/// before the parent hears of the end); a task is wrapped by
/// `actors::child::guarded`. The reason is `Crashed` until an orderly path
/// says otherwise.
///
/// It holds the parent weakly: a guard never keeps a supervisor alive.
#[derive(Debug)]
pub struct ExitGuard {
    child: ChildId,
    incarnation: Incarnation,
    reason: ExitReason,
    exits: WeakRecipient<ChildExited>,
    reports: Option<WeakRecipient<DrainReport>>,
}

impl ExitGuard {
    /// A guard for a child of a supervisor.
    pub fn new(
        child: ChildId,
        incarnation: Incarnation,
        exits: WeakRecipient<ChildExited>,
        reports: WeakRecipient<DrainReport>,
    ) -> Self {
        Self { child, incarnation, reason: ExitReason::Crashed, exits, reports: Some(reports) }
    }

    /// A guard for a task that an actor runs itself and drains in its own way (the reader and the
    /// writer of a link): the actor handles [`ChildExited`].
    pub fn for_task(child: ChildId, exits: &Recipient<ChildExited>) -> Self {
        let incarnation = Incarnation::default();
        Self { child, incarnation, reason: ExitReason::Crashed, exits: exits.downgrade(), reports: None }
    }

    /// Who this is.
    pub fn child(&self) -> ChildId {
        self.child
    }

    /// Says that the child ends because its work is done. The first reason said is kept.
    pub fn stopped(&mut self) {
        self.say(ExitReason::Stopped);
    }

    /// Says that the child ends because a drain asked it to. The first reason said is kept.
    pub fn drained(&mut self) {
        self.say(ExitReason::Drained);
    }

    /// Says that the child gives up. The first reason said is kept.
    pub fn failed(&mut self, why: impl fmt::Display) {
        self.say(ExitReason::Failed(why.to_string()));
    }

    /// Tells the parent that a drain phase is done.
    pub fn report(&self, phase: DrainPhase, counts: DrainCounts) {
        self.report_with(phase, counts, Vec::new());
    }

    /// As [`report`](Self::report), naming late children of its own.
    pub fn report_with(&self, phase: DrainPhase, counts: DrainCounts, missed: Vec<String>) {
        if let Some(parent) = self.reports.as_ref().and_then(WeakRecipient::upgrade) {
            let (child, incarnation) = (self.child, self.incarnation);
            parent.do_send(DrainReport { child, incarnation, phase, counts, missed });
        }
    }

    /// The same reports from elsewhere, for a child whose guard is inside a task.
    pub(crate) fn reporter(&self) -> impl Fn(DrainPhase) + Send + 'static {
        let (child, incarnation, reports) = (self.child, self.incarnation, self.reports.clone());
        move |phase| {
            if let Some(parent) = reports.as_ref().and_then(WeakRecipient::upgrade) {
                let counts = DrainCounts::default();
                parent.do_send(DrainReport { child, incarnation, phase, counts, missed: Vec::new() });
            }
        }
    }

    fn say(&mut self, reason: ExitReason) {
        if self.reason == ExitReason::Crashed {
            self.reason = reason;
        }
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        // An orderly reason said before a panic does not make the panic orderly.
        let crashed = std::thread::panicking();
        let reason = if crashed { ExitReason::Crashed } else { self.reason.clone() };
        if let Some(parent) = self.exits.upgrade() {
            parent.do_send(ChildExited { child: self.child, incarnation: self.incarnation, reason });
        }
    }
}
