//! What handles ask of what is held for others: hand it over now, drop what has expired.

use actix::prelude::*;

use super::{DESTINATIONS_PAGE, EXPIRE_ROWS, StoreActor};
use crate::{
    error::MeshError,
    messages::store::{ExpireHeld, HandOver, ListMailboxes, MailboxLine, MailboxPage},
    storage::{MailOp, MailOutcome, StoreError, ask_mail},
    telemetry,
};

impl Handler<HandOver> for StoreActor {
    type Result = ResponseActFuture<Self, Result<Option<u64>, MeshError>>;

    fn handle(&mut self, HandOver(destination): HandOver, ctx: &mut Context<Self>) -> Self::Result {
        let is_reachable = self.reachable.contains(&destination);
        if is_reachable && self.mailboxes_of.contains(&destination) {
            // From the start of the mailbox, without waiting for the retry of what is under way:
            // the destination knows what it has.
            self.custodian.unreachable(&destination);
            self.custodian.reachable(destination);
            self.pump(ctx);
        }
        let asked = ask_mail(&*self.parts.mailboxes, vec![MailOp::Usage { destination: Some(destination) }]);
        let counted = async move {
            let outcomes = asked.map_err(|_| StoreError::Stopped)?.await?;
            let held = match outcomes.first() {
                Some(MailOutcome::Usage(usage)) => usage.destination.map_or(0, |of| of.held.rows),
                _ => 0,
            };
            Ok((is_reachable || held == 0).then_some(held))
        };
        Box::pin(counted.into_actor(self))
    }
}

impl Handler<ListMailboxes> for StoreActor {
    type Result = ResponseActFuture<Self, Result<MailboxPage, MeshError>>;

    fn handle(&mut self, ListMailboxes { after }: ListMailboxes, _: &mut Context<Self>) -> Self::Result {
        let op = MailOp::Destinations { after, rows_max: DESTINATIONS_PAGE };
        let asked = ask_mail(&*self.parts.mailboxes, vec![op]);
        let read = async move { asked.map_err(|_| StoreError::Stopped)?.await };
        Box::pin(read.into_actor(self).map(|outcomes, actor, _| {
            let outcomes = outcomes?;
            let Some(MailOutcome::Destinations(found)) = outcomes.first() else {
                return Ok(MailboxPage::default());
            };
            let now_s = actor.parts.clock.steady_s();
            let next = found.last().map(|of| of.destination).filter(|_| found.len() >= DESTINATIONS_PAGE);
            let lines = found.iter().map(|of| MailboxLine {
                destination: of.destination,
                held: of.held,
                oldest_s: of.oldest_held_at_s.map(|at_s| now_s.saturating_sub(at_s)),
                is_reachable: actor.reachable.contains(&of.destination),
            });
            Ok(MailboxPage { rows: lines.collect(), next })
        }))
    }
}

impl Handler<ExpireHeld> for StoreActor {
    type Result = ResponseActFuture<Self, Result<u64, MeshError>>;

    fn handle(&mut self, _: ExpireHeld, _: &mut Context<Self>) -> Self::Result {
        let (mailboxes, books) = (self.parts.mailboxes.clone(), self.books.clone());
        let now_s = self.parts.clock.steady_s();
        // What is held is counted with the last of them: whoever asks after this answer finds it so.
        let expired = async move {
            let mut gone = 0u64;
            loop {
                let expire = MailOp::Expire { now_s, rows_max: EXPIRE_ROWS };
                let ops = vec![expire, MailOp::Usage { destination: None }];
                let outcomes = books.ask(&*mailboxes, ops).map_err(|_| StoreError::Stopped)?.await?;
                let [MailOutcome::Expired { rows, more }, MailOutcome::Usage(usage)] = outcomes.as_slice()
                else {
                    return Ok((gone, None));
                };
                metrics::counter!(telemetry::HELD_EXPIRED).increment(*rows as u64);
                gone = gone.saturating_add(*rows as u64);
                if !more {
                    return Ok((gone, Some(usage.total)));
                }
            }
        };
        Box::pin(expired.into_actor(self).map(|expired: Result<_, MeshError>, actor, _| {
            let (gone, held) = expired?;
            if let Some(held) = held {
                actor.count(held);
            }
            Ok(gone)
        }))
    }
}
