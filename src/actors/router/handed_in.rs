//! Envelopes that the embedding program brings from a medium of its own, and expiry on request.

use actix::prelude::*;

use super::RouterActor;
use crate::{
    messages::route::{DropReason, HandIn, IncomingAction, SweepRoutes, SweptRoutes},
    proto::router::{Counters, Input},
    wire::LinkId,
};

/// Stands for the program in the memory of packets. Links are numbered from 1 up and never get
/// there, so nothing is ever sent back over it.
const PROGRAM: LinkId = LinkId(u64::MAX);

impl Handler<HandIn> for RouterActor {
    type Result = MessageResult<HandIn>;

    fn handle(&mut self, message: HandIn, ctx: &mut Context<Self>) -> Self::Result {
        let HandIn { from, envelope, live_path_only } = message;
        // Before anything is remembered of it, so that a later try is not a duplicate.
        if live_path_only && !self.core.is_reachable(&envelope.destination) {
            return MessageResult(IncomingAction::Dropped(DropReason::NoPath));
        }
        let before = *self.core.counters();
        self.program_peer = Some(from);
        self.step(Input::Envelopes(PROGRAM, vec![*envelope]), ctx);
        self.program_peer = None;
        MessageResult(action(&before, self.core.counters()))
    }
}

/// What the router did with one envelope, by what it counted. Nothing else happens in between.
fn action(before: &Counters, after: &Counters) -> IncomingAction {
    let grown = |of: fn(&Counters) -> u64| of(after).saturating_sub(of(before));
    let dropped = [
        (grown(|c| c.duplicates), DropReason::Duplicate),
        (grown(|c| c.own_returned), DropReason::OwnReturned),
        (grown(|c| c.hop_limit), DropReason::HopLimit),
        (grown(|c| c.expired), DropReason::Expired),
    ];
    if let Some((_, reason)) = dropped.into_iter().find(|(count, _)| *count > 0) {
        return IncomingAction::Dropped(reason);
    }
    let links = grown(|c| c.forwarded).saturating_sub(grown(|c| c.unsent));
    match (grown(|c| c.delivered) > 0, links, grown(|c| c.to_custody) > 0) {
        (true, 0, _) => IncomingAction::Delivered,
        (true, links, _) => IncomingAction::Broadcast { links },
        (false, _, true) => IncomingAction::ToCustody,
        (false, 0, false) if grown(|c| c.unsent) > 0 => IncomingAction::Dropped(DropReason::Congested),
        (false, 0, false) => IncomingAction::Dropped(DropReason::NoPath),
        (false, _, false) => IncomingAction::Forwarded,
    }
}

impl Handler<SweepRoutes> for RouterActor {
    type Result = MessageResult<SweepRoutes>;

    fn handle(&mut self, _: SweepRoutes, ctx: &mut Context<Self>) -> Self::Result {
        let before = self.core.routed();
        self.step(Input::Timeout, ctx);
        let after = self.core.routed();
        MessageResult(SweptRoutes {
            routes_ended: before.saturating_sub(after) as u64,
            clock_is_trusted: self.trusted,
        })
    }
}
