//! ProgramActor: the embedding program's part in a drain. The decisions are the program's own, see
//! `node::shutdown`.
//!
//! - Receives: `Drain` from the supervisor.
//! - Sends: its reports, with the names of what was late.
//! - Owns: nothing.
//!
//! It is started last, so that the program is asked first: its hooks run while the whole node is
//! still there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use futures_util::future::BoxFuture;

use crate::{
    clock,
    messages::lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
};

/// Carries out one phase until the deadline at the latest and names what was late.
pub type DrainProgram = Arc<dyn Fn(DrainPhase, Instant) -> BoxFuture<'static, Vec<String>> + Send + Sync>;

/// Kept of the time that the supervisor gives, so that an answer which names the late ones is in
/// time itself.
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// See the module.
pub struct ProgramActor {
    drain: DrainProgram,
    guard: ExitGuard,
}

impl ProgramActor {
    /// An actor that drains the program with `drain`.
    pub fn new(drain: DrainProgram, guard: ExitGuard) -> Self {
        Self { drain, guard }
    }
}

impl Actor for ProgramActor {
    type Context = Context<Self>;
}

impl Handler<Drain> for ProgramActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        let phase = drain.phase;
        let given = drain.deadline.saturating_duration_since(clock::now());
        let margin = (given / 10).min(MARGIN_MAX);
        let deadline = drain.deadline.checked_sub(margin).unwrap_or(drain.deadline);
        let work = (self.drain)(phase, deadline);
        ctx.spawn(work.into_actor(self).map(move |missed, actor, ctx| {
            actor.guard.report_with(phase, DrainCounts::default(), missed);
            if phase == DrainPhase::Cleanup {
                actor.guard.drained();
                ctx.stop();
            }
        }));
    }
}

#[cfg(any(test, feature = "testing"))]
crate::messages::lifecycle::panics_when_told!(ProgramActor);
