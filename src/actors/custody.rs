//! StoreActor: what is held for others. The decisions are in [`crate::proto::custody`]; rows and
//! quotas are the [`Mailboxes`]' own.
//!
//! - Receives: `HoldEnvelopes`, `CustodyNews` from the router; `GetHeld`, `HandOver`, `ExpireHeld`
//!   from handles; `Drain`.
//! - Sends: `CustodyAnswer`, `FromCustody`, `WhichReachable` to the router; submissions to the mailboxes; health
//!   reports about the disk.
//! - Owns: which destinations have a mailbox here, and the hand-overs under way.
//!
//! The router says when a destination becomes reachable, but what it said may have been lost: to an
//! incarnation before this one, to a full mailbox, or because nothing was held then. So it is asked
//! about mailboxes that are found at the start, about new ones, and about all of them in turn.
//!
//! It speaks for the store in the node's health. What was refused or failed for want of the disk
//! counts as trouble until something was *written*: that rows can still be read says nothing. A
//! node in trouble gets no new work, so it does not wait for some: it writes a row of its own with
//! each report until that works. Below the reserve it says so before anybody has to be refused.

mod on_request;

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::{
    clock_handle::ClockHandle,
    link_io::priority_name,
    mailbox::{Outlet, Seat},
    panics::poison,
    quarantine::Quarantine,
    rate_limiter::PressureGauge,
    wake_timer::WakeTimer,
};
use crate::{
    clock,
    messages::{
        health::ReportHealth,
        lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
        store::{CustodyAnswer, CustodyNews, FromCustody, GetHeld, HoldEnvelopes, WhichReachable},
    },
    proto::{
        custody::{Custodian, Found, ReadPage},
        health::{REPORT_EVERY, SubsystemReport},
        ledger::Ledger,
        suspects::{Standing, Suspect},
        verify::{InboundEnvelope, Verified},
    },
    storage::{
        Answer, HeldPage, HeldRow, HeldSummary, HoldRefusal, MailOp, MailOutcome, Mailboxes, NotTaken,
        PageLimit, StoreError,
    },
    telemetry,
    wire::{Address, Frame, FrameExt, PacketId, control::RefuseReason},
};

/// Time between sweeps of what has expired.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Rows one sweep removes before it lets others go on.
const EXPIRE_ROWS: usize = 1024;

/// A disk that has not answered for so long does not do its job: five reports.
const SILENT_AFTER: Duration = REPORT_EVERY.saturating_mul(5);

/// Pause before the store is asked again whose queue is full.
const STOCK_PAUSE: Duration = Duration::from_millis(50);

/// Destinations read at once when the actor starts, and asked about at once.
const DESTINATIONS_PAGE: usize = 1024;

/// What the actor is made of; the factory clones it for each incarnation.
#[derive(Clone)]
pub struct CustodyParts {
    /// The rows.
    pub mailboxes: Arc<dyn Mailboxes>,
    /// To the router.
    pub answer: Seat<CustodyAnswer>,
    /// To the router.
    pub from_custody: Seat<FromCustody>,
    /// To the router.
    pub which_reachable: Seat<WhichReachable>,
    /// To health.
    pub health: Seat<ReportHealth>,
    /// How slow the disk is.
    pub pressure: PressureGauge,
    /// What time it is.
    pub clock: ClockHandle,
    /// What felled former incarnations.
    pub quarantine: Quarantine,
}

/// See the module.
pub struct StoreActor {
    parts: CustodyParts,
    answer: Outlet<CustodyAnswer>,
    from_custody: Outlet<FromCustody>,
    which_reachable: Outlet<WhichReachable>,
    health: Outlet<ReportHealth>,
    custodian: Custodian,
    mailboxes_of: BTreeSet<Address>,
    /// Those of them that can be reached.
    reachable: BTreeSet<Address>,
    /// The last of them that was looked at in turn.
    looked_through: Option<Address>,
    held: HeldSummary,
    books: Books,
    /// Why nothing new is taken. Only a write takes it away.
    trouble: Option<String>,
    /// Since when a look at the disk has been waiting for its answer.
    looking_since: Option<Instant>,
    timer: WakeTimer,
    guard: ExitGuard,
}

impl StoreActor {
    /// A fresh actor; it learns from the mailboxes whose there are.
    pub fn new(parts: CustodyParts, guard: ExitGuard) -> Self {
        Self {
            answer: parts.answer.outlet(),
            from_custody: parts.from_custody.outlet(),
            which_reachable: parts.which_reachable.outlet(),
            health: parts.health.outlet(),
            custodian: Custodian::new(),
            mailboxes_of: BTreeSet::new(),
            reachable: BTreeSet::new(),
            looked_through: None,
            held: HeldSummary::default(),
            books: Books::default(),
            trouble: None,
            looking_since: None,
            timer: WakeTimer::default(),
            guard,
            parts,
        }
    }

    fn hold(&mut self, message: HoldEnvelopes, ctx: &mut Context<Self>) {
        let message = self.shed(message);
        if message.envelopes.is_empty() {
            return;
        }
        let now_s = self.parts.clock.steady_s();
        let ids: Vec<_> = message.envelopes.iter().map(|e| (e.packet_id, e.destination)).collect();
        let ops =
            message.envelopes.iter().map(|e| MailOp::Hold(held_row(e, message.ingress, now_s))).collect();
        self.ask(ops, ctx, move |actor, result, ctx| actor.held(ids, result, ctx));
    }

    /// Takes out what a disk that is too slow for more does not get: it goes back to where it came
    /// from at once, rather than after the seconds that a commit takes.
    fn shed(&mut self, message: HoldEnvelopes) -> HoldEnvelopes {
        let level = self.parts.pressure.store();
        let HoldEnvelopes { ingress, envelopes } = message;
        let (shed, kept): (Vec<_>, Vec<_>) =
            envelopes.into_iter().partition(|envelope| level.sheds(envelope.urgency));
        if !shed.is_empty() {
            for envelope in &shed {
                let priority = priority_name(envelope.urgency);
                metrics::counter!(telemetry::SHED, "priority" => priority).increment(1);
            }
            let refused = shed.iter().map(|envelope| (envelope.packet_id, RefuseReason::Congested)).collect();
            self.answer.offer_gossip("router", CustodyAnswer { taken: Vec::new(), refused });
        }
        HoldEnvelopes { ingress, envelopes: kept }
    }

    fn held(&mut self, ids: Vec<(PacketId, Address)>, result: Answered, ctx: &mut Context<Self>) {
        let mut answer = CustodyAnswer { taken: Vec::new(), refused: Vec::new() };
        let mut new_mailboxes = Vec::new();
        match result {
            Ok(outcomes) => {
                for ((packet_id, destination), outcome) in ids.into_iter().zip(outcomes) {
                    match outcome {
                        held @ (MailOutcome::Held { .. } | MailOutcome::Duplicate) => {
                            answer.taken.push(packet_id);
                            if let MailOutcome::Held { place } = held {
                                self.written();
                                // Held because a queue was full: the way there is open.
                                if self.reachable.contains(&destination) {
                                    self.custodian.put(destination, place);
                                }
                            }
                            if self.mailboxes_of.insert(destination) {
                                new_mailboxes.push(destination);
                            }
                        }
                        refused => {
                            let reason = match refused {
                                MailOutcome::Refused(HoldRefusal::Disk(error)) => {
                                    self.in_trouble(&error);
                                    "disk"
                                }
                                _ => "quota",
                            };
                            metrics::counter!(telemetry::STORE_REFUSED, "reason" => reason).increment(1);
                            answer.refused.push((packet_id, RefuseReason::StoreFull));
                        }
                    }
                }
            }
            Err(error) => {
                // A queue that is full for a moment is pressure; it shows by its refusals.
                let reason = match &error {
                    NotDone::NotTaken(NotTaken::Full) => "full",
                    _ => {
                        self.in_trouble(&error);
                        "disk"
                    }
                };
                metrics::counter!(telemetry::STORE_REFUSED, "reason" => reason).increment(ids.len() as u64);
                answer.refused = ids.into_iter().map(|(id, _)| (id, RefuseReason::StoreFull)).collect();
            }
        }
        // An answer that is lost costs a retry of the origin, not the message.
        self.answer.offer_gossip("router", answer);
        self.ask_about(new_mailboxes);
        self.pump(ctx);
        self.measure(ctx);
    }

    /// Asks the router to which of these there is a path. A question that is lost is asked again in
    /// its turn.
    fn ask_about(&mut self, destinations: Vec<Address>) {
        if !destinations.is_empty() {
            self.which_reachable.offer_gossip("router", WhichReachable(destinations));
        }
    }

    /// There is a path to somebody, for whom something may be held.
    fn is_reachable(&mut self, destination: Address) {
        if self.mailboxes_of.contains(&destination) {
            self.reachable.insert(destination);
            self.custodian.reachable(destination);
        }
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        for page in self.custodian.poll(clock::now()) {
            let op = MailOp::Page {
                destination: page.destination,
                after: page.after,
                limit: PageLimit { bytes_max: page.bytes_max, ..PageLimit::default() },
            };
            self.ask(vec![op], ctx, move |actor, result, ctx| actor.page_read(page, result, ctx));
        }
        self.rearm(ctx);
    }

    fn page_read(&mut self, page: ReadPage, result: Answered, ctx: &mut Context<Self>) {
        let now = clock::now();
        let read = match result {
            Ok(mut outcomes) => match outcomes.pop() {
                Some(MailOutcome::Page(read)) => read,
                _ => HeldPage::default(),
            },
            Err(error) => {
                tracing::error!(%error, "cannot read a mailbox");
                self.custodian.read_failed(now, &page);
                return self.rearm(ctx);
            }
        };
        if page.after.is_none() && read.rows.is_empty() {
            self.mailboxes_of.remove(&page.destination);
            self.reachable.remove(&page.destination);
        }
        let now_s = self.parts.clock.steady_s();
        let (mut envelopes, packets) = self.revive_all(&read.rows, now_s);
        let found = Found { packets, through: read.through, more: read.next.is_some() };
        let fresh = self.custodian.handed_on(now, &page, found);
        envelopes.retain(|envelope| fresh.contains(&envelope.packet_id));
        if !envelopes.is_empty() {
            metrics::counter!(telemetry::HANDED_ON).increment(envelopes.len() as u64);
            self.from_custody.offer_gossip("router", FromCustody(envelopes));
        }
        self.pump(ctx);
    }

    /// Gives the envelopes of these rows, and the bytes of each. Rows that felled an incarnation before
    /// this one stay where they are.
    fn revive_all(
        &self,
        rows: &[HeldRow],
        now_s: u64,
    ) -> (Vec<Verified<InboundEnvelope>>, Vec<(PacketId, usize)>) {
        let quarantine = &self.parts.quarantine;
        let mut hand = quarantine.empty_hand();
        let mut envelopes = Vec::with_capacity(rows.len());
        let mut packets = Vec::with_capacity(rows.len());
        for row in rows {
            let suspect = Suspect::Row(row.packet_id.0);
            if let Standing::Quarantined { first } = quarantine.standing(&suspect) {
                quarantine.pass_over("store", first, &row.packet_id);
                continue;
            }
            hand.take(suspect);
            if let Some(envelope) = revive(row, now_s) {
                envelopes.push(envelope);
                packets.push((row.packet_id, row.frame.len()));
            }
        }
        (envelopes, packets)
    }

    fn news(&mut self, news: CustodyNews, ctx: &mut Context<Self>) {
        let now = clock::now();
        match news {
            CustodyNews::Reachable(destination) => self.is_reachable(destination),
            CustodyNews::AllReachable(destinations) => {
                for destination in destinations {
                    // Known already: a hand-over that is done or waits is not begun anew by a question.
                    if !self.reachable.contains(&destination) {
                        self.is_reachable(destination);
                    }
                }
            }
            CustodyNews::Unreachable(destination) => {
                self.reachable.remove(&destination);
                self.custodian.unreachable(&destination);
            }
            CustodyNews::Settled { by, packets } => {
                self.custodian.receipted(now, &by, &packets);
                if self.mailboxes_of.contains(&by) {
                    self.remove(MailOp::RemoveFor { destination: by, packet_ids: packets }, ctx);
                }
            }
            CustodyNews::HandedOver(packets) => {
                self.custodian.handed_over(now, &packets);
                if !self.mailboxes_of.is_empty() {
                    self.remove(MailOp::Remove(packets), ctx);
                }
            }
            CustodyNews::Refused(packet) => self.custodian.refused(now, &packet),
        }
        self.pump(ctx);
    }

    fn remove(&mut self, op: MailOp, ctx: &mut Context<Self>) {
        self.ask(vec![op], ctx, |actor, result, ctx| {
            if let Err(error) = result {
                // They are handed on again, and the destination knows them.
                tracing::error!(%error, "cannot remove what was delivered");
            }
            actor.measure(ctx);
        });
    }

    fn expire(&mut self, ctx: &mut Context<Self>) {
        let op = MailOp::Expire { now_s: self.parts.clock.steady_s(), rows_max: EXPIRE_ROWS };
        self.ask(vec![op], ctx, |actor, result, ctx| {
            let more = matches!(result.as_deref(), Ok([MailOutcome::Expired { more: true, .. }]));
            if let Ok([MailOutcome::Expired { rows, .. }]) = result.as_deref() {
                metrics::counter!(telemetry::HELD_EXPIRED).increment(*rows as u64);
            }
            let wait = if more { Duration::ZERO } else { EXPIRE_EVERY };
            if !more {
                actor.look(false, ctx);
            }
            ctx.run_later(wait, Self::expire);
            actor.measure(ctx);
        });
    }

    fn measure(&mut self, ctx: &mut Context<Self>) {
        let op = MailOp::Usage { destination: None };
        self.ask(vec![op], ctx, |actor, result, _| {
            if let Ok([MailOutcome::Usage(usage)]) = result.as_deref() {
                actor.count(usage.total);
            }
        });
    }

    fn count(&mut self, held: HeldSummary) {
        self.held = held;
        metrics::gauge!(telemetry::HELD).set(held.rows as f64);
        metrics::gauge!(telemetry::HELD_BYTES).set(held.bytes as f64);
    }

    /// Begins the books with what is there, whoever took it on.
    fn take_stock(&mut self, ctx: &mut Context<Self>) {
        let op = MailOp::Usage { destination: None };
        let stock = self.books.ask_and(&*self.parts.mailboxes, vec![op], |ledger, found| {
            if let [MailOutcome::Usage(usage)] = found {
                *ledger = Ledger::default();
                ledger.accepted(usage.total.rows);
            }
        });
        match stock {
            Ok(stock) => drop(ctx.spawn(stock.into_actor(self).map(|found, actor, _| {
                if let Ok([MailOutcome::Usage(usage)]) = found.as_deref() {
                    actor.count(usage.total);
                }
            }))),
            Err(NotTaken::Full) => drop(ctx.run_later(STOCK_PAUSE, Self::take_stock)),
            Err(NotTaken::Stopped) => {}
        }
    }

    /// Asks the disk whether there is room; in trouble, by writing. One question at a time, so that
    /// a disk that hangs is not asked without end.
    fn look_at_disk(&mut self, ctx: &mut Context<Self>) {
        if self.looking_since.is_some() {
            return;
        }
        self.looking_since = Some(clock::now());
        let write = self.trouble.is_some();
        self.ask(vec![MailOp::CheckRoom { write }], ctx, move |actor, result, _| {
            actor.looking_since = None;
            match result.as_deref() {
                Ok([MailOutcome::Room]) if write => actor.written(),
                Ok([MailOutcome::Refused(HoldRefusal::Disk(error))]) => actor.in_trouble(error),
                Ok(_) | Err(NotDone::NotTaken(NotTaken::Full)) => {}
                Err(error) => actor.in_trouble(error),
            }
        });
    }

    fn in_trouble(&mut self, error: &impl ToString) {
        let error = error.to_string();
        if self.trouble.is_none() {
            tracing::error!(%error, "the store takes nothing new");
        }
        self.trouble = Some(error);
    }

    fn written(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("the store takes new messages again");
        }
    }

    /// Reads whose mailboxes there are, a page, and asks about those to whom no path is known. At the
    /// start all pages at once, later one at a time in turn.
    fn look(&mut self, all: bool, ctx: &mut Context<Self>) {
        let after = self.looked_through;
        let op = MailOp::Destinations { after, rows_max: DESTINATIONS_PAGE };
        self.ask(vec![op], ctx, move |actor, result, ctx| {
            let Ok([MailOutcome::Destinations(page)]) = result.as_deref() else { return };
            let found: BTreeSet<_> = page.iter().map(|usage| usage.destination).collect();
            let last = found.last().copied().filter(|_| page.len() >= DESTINATIONS_PAGE);
            actor.looked_through = last;
            // Between the ends of this page there is nobody else.
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let through = last.map_or(Bound::Unbounded, Bound::Included);
            let page_of = actor.mailboxes_of.range((from, through)).copied();
            let gone: Vec<_> = page_of.filter(|of| !found.contains(of)).collect();
            for of in gone {
                actor.mailboxes_of.remove(&of);
                actor.reachable.remove(&of);
            }
            actor.mailboxes_of.extend(&found);
            actor.ask_about(found.into_iter().filter(|of| !actor.reachable.contains(of)).collect());
            if all && last.is_some() {
                actor.look(all, ctx);
            }
        });
    }

    /// Every two seconds: is the store there?
    fn report(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        let silent = self.looking_since.map(|since| now.saturating_duration_since(since));
        let trouble = match silent.filter(|silent| *silent >= SILENT_AFTER) {
            Some(silent) => Some(format!("the disk has not answered for {} s", silent.as_secs())),
            None => self.trouble.clone(),
        };
        let report = match trouble {
            Some(trouble) => SubsystemReport::unhealthy("store", trouble, now),
            None => SubsystemReport {
                detail: Some(format!("{} held for others", self.held.rows)),
                ..SubsystemReport::healthy("store", now)
            },
        };
        self.health.offer_gossip("health", ReportHealth(report));
        self.look_at_disk(ctx);
        ctx.run_later(REPORT_EVERY, Self::report);
    }

    fn ask(
        &mut self,
        ops: Vec<MailOp>,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, Answered, &mut Context<Self>) + 'static,
    ) {
        let asked = self.books.ask(&*self.parts.mailboxes, ops);
        let answer = async move {
            match asked {
                Ok(answer) => answer.await.map_err(NotDone::Failed),
                Err(reason) => Err(NotDone::NotTaken(reason)),
            }
        };
        ctx.spawn(answer.into_actor(self).map(then_call(then)));
    }

    fn rearm(&mut self, ctx: &mut Context<Self>) {
        self.timer.rearm(self.custodian.next_wake(), ctx, Self::pump);
    }
}

/// What is answered for here since this incarnation started. Kept by the store's own answers, on its
/// thread and in their order, so that it always fits what is on the disk.
#[derive(Debug, Clone, Default)]
struct Books(Arc<Mutex<Ledger>>);

impl Books {
    fn ask(&self, mailboxes: &dyn Mailboxes, ops: Vec<MailOp>) -> Result<Answer<MailOutcome>, NotTaken> {
        self.ask_and(mailboxes, ops, |_, _| {})
    }

    /// Asks, and lets `look` see the answer beside the books of that moment.
    fn ask_and(
        &self,
        mailboxes: &dyn Mailboxes,
        ops: Vec<MailOp>,
        look: impl FnOnce(&mut Ledger, &[MailOutcome]) + Send + 'static,
    ) -> Result<Answer<MailOutcome>, NotTaken> {
        let (tell, told) = oneshot::channel();
        let books = self.clone();
        let done = move |result: Result<Vec<MailOutcome>, StoreError>| {
            if let Ok(outcomes) = &result {
                let mut ledger = books.0.lock().unwrap_or_else(PoisonError::into_inner);
                for outcome in outcomes {
                    match outcome {
                        MailOutcome::Held { .. } => ledger.accepted(1),
                        MailOutcome::Removed { rows } => ledger.delivered(*rows as u64),
                        MailOutcome::Expired { rows, .. } => ledger.rejected(*rows as u64),
                        _ => {}
                    }
                }
                look(&mut ledger, outcomes);
            }
            // Who asked may have gone; it is done all the same.
            let _ = tell.send(result);
        };
        mailboxes.submit(ops, Box::new(done)).map_err(|back| back.reason)?;
        Ok(Box::pin(async move { told.await.unwrap_or(Err(StoreError::Stopped)) }))
    }
}

type Answered = Result<Vec<MailOutcome>, NotDone>;

/// Why the mailboxes did not do something.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    /// It was not even queued.
    #[error(transparent)]
    NotTaken(NotTaken),
    /// It was tried.
    #[error(transparent)]
    Failed(StoreError),
}

fn then_call(
    then: impl FnOnce(&mut StoreActor, Answered, &mut Context<StoreActor>) + 'static,
) -> impl FnOnce(Answered, &mut StoreActor, &mut Context<StoreActor>) {
    move |result, actor, ctx| then(actor, result, ctx)
}

/// What is written of an envelope that came from `ingress` at `now_s`.
pub(crate) fn held_row(envelope: &Verified<InboundEnvelope>, ingress: Address, now_s: u64) -> HeldRow {
    let header = envelope.envelope.header();
    let age_s = envelope.ext.age_s;
    let left = header.lifetime.as_secs().saturating_sub(age_s);
    // The key goes along: whoever gets it later may never have heard of the source.
    let keyed = envelope.envelope.with_source_key(envelope.source_key);
    HeldRow {
        packet_id: envelope.packet_id,
        destination: envelope.destination,
        source: envelope.source,
        priority: envelope.envelope.header().priority,
        ingress,
        expires_s: now_s.saturating_add(u64::from(left)),
        held_at_s: now_s,
        age_s,
        frame: keyed.to_frame(FrameExt::default()).to_bytes(),
    }
}

/// An envelope out of its row, older by the time it lay there. It was verified before it was
/// written, and the row is sealed.
pub(crate) fn revive(row: &HeldRow, now_s: u64) -> Option<Verified<InboundEnvelope>> {
    let Ok(Frame::Envelope(envelope, _)) = Frame::decode(&row.frame) else {
        tracing::error!(packet_id = %row.packet_id, "a held message does not decode");
        return None;
    };
    poison("store", envelope.header().lifetime);
    let key = envelope.source_key()?;
    let residence = now_s.saturating_sub(row.held_at_s);
    let ext = FrameExt {
        age_s: row.age_s.saturating_add(u32::try_from(residence).unwrap_or(u32::MAX)),
        retransmit: true,
        custody_declined: false,
        trace_context: None,
    };
    Some(Verified::trusted(row.packet_id, key, envelope, ext))
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.take_stock(ctx);
        self.look(true, ctx);
        self.report(ctx);
        ctx.run_later(EXPIRE_EVERY, Self::expire);
    }
}

impl Handler<HoldEnvelopes> for StoreActor {
    type Result = ();

    fn handle(&mut self, message: HoldEnvelopes, ctx: &mut Context<Self>) {
        self.hold(message, ctx);
    }
}

impl Handler<CustodyNews> for StoreActor {
    type Result = ();

    fn handle(&mut self, message: CustodyNews, ctx: &mut Context<Self>) {
        self.news(message, ctx);
    }
}

impl Handler<GetHeld> for StoreActor {
    type Result = MessageResult<GetHeld>;

    fn handle(&mut self, _: GetHeld, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.held)
    }
}

impl Handler<Drain> for StoreActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            DrainPhase::Draining => self.guard.report(drain.phase, DrainCounts::default()),
            DrainPhase::Persisting => {
                // Whatever was submitted before this is durable, and counted, when this answer comes.
                let op = MailOp::Usage { destination: None };
                let (tell, counted) = oneshot::channel();
                let asked = self.books.ask_and(&*self.parts.mailboxes, vec![op], |ledger, found| {
                    if let [MailOutcome::Usage(usage)] = found {
                        // The actor waits for it, or is gone.
                        let _ = tell.send(ledger.beside(usage.total.rows));
                    }
                });
                let last_known = self.held.rows;
                let count = async move {
                    let last_known = DrainCounts::only_kept(last_known);
                    if asked.is_err() { last_known } else { counted.await.unwrap_or(last_known) }
                };
                ctx.spawn(count.into_actor(self).map(|counts, actor, _| {
                    actor.guard.report(DrainPhase::Persisting, counts);
                }));
            }
            DrainPhase::Cleanup => {
                self.guard.drained();
                ctx.stop();
            }
        }
    }
}

#[cfg(any(test, feature = "testing"))]
crate::messages::lifecycle::panics_when_told!(StoreActor);
