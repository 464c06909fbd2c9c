//! One timer that follows what a core says it wants to be woken for.

use std::time::Instant;

use actix::prelude::*;

use crate::clock;

/// The timer of an actor with one core. Call [`rearm`](Self::rearm) after every step.
#[derive(Debug, Default)]
pub(super) struct WakeTimer {
    armed: Option<(Instant, SpawnHandle)>,
}

impl WakeTimer {
    /// Has `fire` called at `wake`, in place of what was armed before; with none, never. Nothing
    /// is touched while the moment stays the same.
    pub(super) fn rearm<A>(
        &mut self,
        wake: Option<Instant>,
        ctx: &mut Context<A>,
        fire: impl FnOnce(&mut A, &mut Context<A>) + 'static,
    ) where
        A: Actor<Context = Context<A>>,
    {
        let now = clock::now();
        // A moment that is over has fired or is about to; what a core wants now comes after it.
        if wake.is_some_and(|at| at > now) && self.armed.map(|(at, _)| at) == wake {
            return;
        }
        if let Some((_, handle)) = self.armed.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = wake {
            self.armed = Some((at, ctx.run_later(at.saturating_duration_since(now), fire)));
        }
    }
}
