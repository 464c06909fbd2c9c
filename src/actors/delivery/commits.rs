//! What is to become durable, and what follows when it is or is not.
//!
//! A store that does not take something now loses nothing of it. What came from outside is refused
//! by name, so that its sender or a custodian keeps it. What happens here, such as the progress of a
//! file or a row that is to go, is tried again on a timer, with growing waits and one round at a time.

use super::{
    files::{partial_row, remove_blob},
    *,
};

/// Wait before what the store did not take is tried again.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Rows removed with one submission when they are removed late: a quarter of what the store's queue
/// holds.
const REMOVED_AT_ONCE: usize = 256;

/// One store operation and what follows when it is durable.
pub(super) enum Committing {
    /// A message or broadcast enters the inbox; the receipt goes to `receipt_to`.
    Inbox { packet_id: PacketId, receipt_to: Option<Address>, arrival: Received },
    /// An early message enters the inbox.
    Enters(Enters),
    /// A manifest was taken up.
    Manifest { packet_id: PacketId, record: Box<PartialRecord> },
    /// A file's progress. The packets are named in the receipt beside the bitmap: custodians on the
    /// way know packets, not files.
    Progress { key: TransferKey, bitmap: Vec<u8>, packet_ids: Vec<PacketId> },
    /// A checked file entered the inbox.
    File { key: TransferKey },
    /// A file is forgotten; its blob goes unless it belongs to the inbox.
    Forgotten { key: TransferKey, has_blob: bool },
    /// A message left the outbox.
    Gone(Finished),
    /// A drain asks how many messages are in the outbox.
    Counted(DrainPhase),
    /// Nothing follows.
    Nothing,
}

/// A message on its way into the inbox, for its history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    pub(super) uid: MessageUid,
    pub(super) from: Address,
    pub(super) size: u64,
    pub(super) hops: u8,
    pub(super) broadcast: bool,
}

impl Received {
    fn event(self) -> HistoryEvent {
        let Self { from, size, hops, broadcast, .. } = self;
        HistoryEvent::Received { from, size, hops, broadcast }
    }
}

/// What waits for the store.
#[derive(Default)]
pub(super) struct Commits {
    /// Submissions under way, by number.
    under_way: BTreeMap<u64, Vec<Committing>>,
    next_number: u64,
    /// Messages that ended and whose rows are still there, on no way out.
    unremoved: BTreeMap<MessageUid, Finished>,
    /// Who waits for a message to be taken back.
    taking_back: BTreeMap<MessageUid, Vec<oneshot::Sender<()>>>,
    retry_planned: bool,
    retries: u32,
    retried_at: Option<Instant>,
}

impl Commits {
    /// Has `done` told when the message is gone. False where it is not being taken back.
    pub(super) fn also_waits(&mut self, uid: &MessageUid, done: oneshot::Sender<()>) -> bool {
        match self.taking_back.get_mut(uid) {
            Some(waiting) => {
                waiting.push(done);
                true
            }
            None => false,
        }
    }

    /// A message is being taken back; `done` is told when it is gone.
    pub(super) fn waits(&mut self, uid: MessageUid, done: oneshot::Sender<()>) {
        self.taking_back.entry(uid).or_default().push(done);
    }

    /// True while a message is being taken back.
    pub(super) fn is_taking_back(&self, uid: &MessageUid) -> bool {
        self.taking_back.contains_key(uid)
    }
}

/// From the store's thread: what became of a submission.
pub(super) struct Committed {
    number: u64,
    result: Result<Vec<LocalOutcome>, StoreError>,
}
message!(Committed => ());

impl Handler<Committed> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: Committed, ctx: &mut Context<Self>) {
        let Some(then) = self.commits.under_way.remove(&message.number) else { return };
        match message.result {
            Ok(outcomes) => self.committed(then, outcomes, ctx),
            Err(error) => {
                tracing::error!(%error, "the store refused a commit");
                self.not_committed(then, "store_failed", RefuseReason::StoreFull, ctx);
            }
        }
    }
}

impl DeliveryActor {
    /// Queues operations as one submission.
    pub(super) fn submit(&mut self, ops: Vec<(LocalOp, Committing)>, ctx: &mut Context<Self>) {
        let (ops, then): (Vec<_>, Vec<_>) = ops.into_iter().unzip();
        let number = self.commits.next_number;
        self.commits.next_number = number.wrapping_add(1);
        self.commits.under_way.insert(number, then);
        let tell = ctx.address();
        let taken =
            self.parts.store.submit(ops, Box::new(move |result| tell.do_send(Committed { number, result })));
        if let Err(back) = taken
            && let Some(then) = self.commits.under_way.remove(&number)
        {
            tracing::debug!(reason = %back.reason, "the store took no batch");
            self.not_committed(then, "store_busy", RefuseReason::Congested, ctx);
        }
    }

    fn committed(&mut self, then: Vec<Committing>, outcomes: Vec<LocalOutcome>, ctx: &mut Context<Self>) {
        let now = clock::now();
        let mut refused = Vec::new();
        let (mut grown, mut received) = (0, 0);
        let mut entering = false;
        for (then, outcome) in then.into_iter().zip(outcomes) {
            match then {
                Committing::Inbox { packet_id, receipt_to, arrival } => {
                    match outcome {
                        LocalOutcome::Committed { .. } => {
                            grown += 1;
                            received += 1;
                            self.received(arrival, false);
                            self.turns.entered((arrival.from, arrival.uid));
                        }
                        LocalOutcome::Early { awaits, stranger } => {
                            received += 1;
                            self.received(arrival, false);
                            self.turns.is_early(now, (arrival.from, arrival.uid), awaits, stranger);
                        }
                        LocalOutcome::Requested => {
                            received += 1;
                            self.received(arrival, true);
                            self.turns.entered((arrival.from, arrival.uid));
                        }
                        LocalOutcome::Unwanted => {
                            self.turns.entered((arrival.from, arrival.uid));
                            match receipt_to {
                                Some(source) => self.unwanted(now, source, packet_id),
                                None => count_refused("unwanted"),
                            }
                            continue;
                        }
                        LocalOutcome::Seen => {
                            metrics::counter!(telemetry::INBOX_DUPLICATES).increment(1);
                        }
                        LocalOutcome::InboxFull(scope) => {
                            refused.push((packet_id, scope));
                            continue;
                        }
                        _ => continue,
                    }
                    if let Some(source) = receipt_to {
                        self.receipts.packet(now, source, packet_id);
                    }
                }
                Committing::Enters(Enters { source, uid, .. }) => {
                    entering = true;
                    match outcome {
                        LocalOutcome::Early { .. } => {}
                        LocalOutcome::Committed { .. } => {
                            grown += 1;
                            self.turns.entered((source, uid));
                        }
                        _ => {
                            loading::damaged("inbox", 1);
                            self.turns.entered((source, uid));
                        }
                    }
                }
                Committing::Manifest { packet_id, record } => {
                    if let LocalOutcome::InboxFull(scope) = outcome {
                        self.incoming.not_opened(&record.key());
                        refused.push((packet_id, scope));
                        continue;
                    }
                    if outcome == LocalOutcome::Unwanted {
                        self.incoming.not_opened(&record.key());
                        self.unwanted(now, record.from, packet_id);
                        continue;
                    }
                    let source = record.from;
                    let offered =
                        HistoryEvent::Offered { from: source, size: record.file.length, hops: record.hops };
                    self.note(record.uid, offered);
                    self.receipts.packet(now, source, packet_id);
                    self.receipts.progress(now, source, self.incoming.opened(*record));
                }
                Committing::Progress { key, bitmap, packet_ids } => {
                    packet_ids.into_iter().for_each(|id| self.receipts.packet(now, key.0, id));
                    let before = self.incoming.file(&key).map_or(0, |file| file.done);
                    let saved = self.incoming.saved(&key, &bitmap);
                    if let Some(file) = self.incoming.file(&key)
                        && passes_quarter(before, file.done, file.all)
                    {
                        let (from, done, all) = (file.from, file.done, file.all);
                        self.note(file.uid, HistoryEvent::Arriving { from, done, all });
                    }
                    match saved {
                        Some(progress) if progress.whole => self.check_next(ctx),
                        Some(progress) => self.receipts.progress(now, key.0, progress.receipt),
                        None => {}
                    }
                }
                Committing::File { key } => {
                    if matches!(outcome, LocalOutcome::Committed { .. } | LocalOutcome::Requested) {
                        grown += u64::from(outcome != LocalOutcome::Requested);
                        received += 1;
                        if let Some(file) = self.incoming.file(&key) {
                            let ArrivingFile { uid, from, size, hops, .. } = file;
                            let arrival = Received { uid, from, size, hops, broadcast: false };
                            self.received(arrival, outcome == LocalOutcome::Requested);
                        }
                    }
                    if let Some(receipt) = self.incoming.complete(&key) {
                        self.receipts.progress(now, key.0, receipt);
                    }
                }
                Committing::Forgotten { key, has_blob } => {
                    if has_blob {
                        let name = BlobName::incoming(&key.0, &key.1);
                        remove_blob(self.parts.blobs.clone(), BlobKind::Incoming, name);
                    }
                }
                Committing::Gone(finished) => {
                    match finished.end {
                        End::Delivered { .. } => self.ledger.delivered(1),
                        End::Expired | End::Rejected | End::Unwanted | End::Cancelled => {
                            self.ledger.rejected(1)
                        }
                    }
                    self.rows.remove(&finished.uid);
                    self.gone(finished);
                }
                Committing::Counted(phase) => {
                    let LocalOutcome::Counts(counts) = outcome else { continue };
                    self.guard.report(phase, self.ledger.beside(counts.outbox));
                }
                Committing::Nothing => {}
            }
        }
        if received > 0 {
            metrics::counter!(telemetry::MESSAGES_RECEIVED).increment(received);
        }
        if grown > 0 {
            self.parts.inbox_grown.send_modify(|n| *n = n.wrapping_add(grown));
        }
        // A submission is one link's batch or less: few scopes, if any.
        while let Some((_, scope)) = refused.first().copied() {
            let of_scope = refused.extract_if(.., |(_, of)| *of == scope).map(|(id, _)| id).collect();
            self.refuse(of_scope, scope.label(), RefuseReason::StoreFull);
        }
        self.write_history_soon(ctx);
        if entering {
            self.turns.answered();
        }
        self.let_enter(ctx);
        if self.receipts.next_wake().is_some() || !self.turns.is_empty() {
            self.pump_soon(ctx);
        }
    }

    /// A message is durable here.
    fn received(&mut self, arrival: Received, request: bool) {
        let Received { uid: id, from, size, broadcast, .. } = arrival;
        self.note(id, arrival.event());
        self.parts.events.tell(EventKind::Received { id, from, size, broadcast, request });
    }

    /// Nothing of a submission happened.
    fn not_committed(
        &mut self,
        then: Vec<Committing>,
        label: &'static str,
        reason: RefuseReason,
        ctx: &mut Context<Self>,
    ) {
        let mut refused = Vec::new();
        let mut not_entered = false;
        for then in then {
            match then {
                Committing::Inbox { packet_id, .. } => refused.push(packet_id),
                Committing::Enters(_) => not_entered = true,
                Committing::Manifest { packet_id, record } => {
                    self.incoming.not_opened(&record.key());
                    refused.push(packet_id);
                }
                Committing::Progress { key, packet_ids, .. } => {
                    self.incoming.not_saved(&key, packet_ids);
                    self.retry_later(ctx);
                }
                Committing::File { key } => self.check_later(&key, ctx),
                // Nobody can say what is on the disk; in memory is what was.
                Committing::Counted(phase) => {
                    self.guard.report(phase, DrainCounts::only_kept(self.outbox.len() as u64));
                }
                Committing::Gone(finished) => {
                    self.commits.unremoved.insert(finished.uid, finished);
                    self.retry_later(ctx);
                }
                // The row is read and forgotten once more at the next start.
                Committing::Forgotten { .. } | Committing::Nothing => {}
            }
        }
        self.refuse(refused, label, reason);
        if not_entered {
            self.turns.answered();
            self.retry_later(ctx);
        }
    }

    /// Has those early messages enter the inbox whose turn it is.
    pub(super) fn let_enter(&mut self, ctx: &mut Context<Self>) {
        let ops: Vec<_> = self
            .turns
            .enter()
            .into_iter()
            .map(|enters| {
                let Enters { source, uid, force } = enters;
                (LocalOp::EarlyRelease { source, uid, force }, Committing::Enters(enters))
            })
            .collect();
        if !ops.is_empty() {
            self.submit(ops, ctx);
        }
    }

    /// Tells the router what is not taken. A refusal that is lost costs its sender a wait for the
    /// next try.
    pub(super) fn refuse(&mut self, packets: Vec<PacketId>, label: &'static str, reason: RefuseReason) {
        if packets.is_empty() {
            return;
        }
        metrics::counter!(telemetry::INBOUND_REFUSED, "reason" => label).increment(packets.len() as u64);
        self.parts.events.refused("message", label, packets.len() as u64);
        let refused = packets.into_iter().map(|id| (id, reason)).collect();
        self.refusals.offer_gossip("router", CustodyAnswer { taken: Vec::new(), refused });
    }

    /// The row of a message that left the outbox is gone: nothing brings it back.
    fn gone(&mut self, finished: Finished) {
        if finished.has_blob {
            let name = BlobName::outgoing(&finished.uid);
            remove_blob(self.parts.blobs.clone(), BlobKind::Outgoing, name);
        }
        // Before this, a crash would have sent it all the same.
        if finished.end == End::Cancelled {
            self.note(finished.uid, HistoryEvent::Cancelled);
            self.tell_end(finished);
        }
        for waiting in self.commits.taking_back.remove(&finished.uid).unwrap_or_default() {
            // Who asked may have gone.
            let _ = waiting.send(());
        }
    }

    /// Plans another try of what the store did not take.
    pub(super) fn retry_later(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.commits.retry_planned, true) {
            return;
        }
        let quiet = |at: Instant| clock::now().saturating_duration_since(at) > RETRY_MAX.saturating_mul(2);
        if self.commits.retried_at.is_none_or(quiet) {
            self.commits.retries = 0;
        }
        let wait = RETRY_FIRST.saturating_mul(1 << self.commits.retries.min(16)).min(RETRY_MAX);
        self.commits.retries = self.commits.retries.saturating_add(1);
        ctx.run_later(wait, Self::retry);
    }

    fn retry(&mut self, ctx: &mut Context<Self>) {
        self.commits.retry_planned = false;
        self.commits.retried_at = Some(clock::now());
        for (record, packet_ids) in self.incoming.unsaved(self.parts.clock.unix_s()) {
            self.save_progress(record, packet_ids, ctx);
        }
        self.incoming.check_again();
        self.check_next(ctx);
        self.let_enter(ctx);
        let mut ops = Vec::new();
        while ops.len() < REMOVED_AT_ONCE
            && let Some((uid, finished)) = self.commits.unremoved.pop_first()
        {
            ops.push((LocalOp::OutboxRemove(self.row_of(&uid)), Committing::Gone(finished)));
        }
        if !ops.is_empty() {
            self.submit(ops, ctx);
        }
        if !self.commits.unremoved.is_empty() {
            self.retry_later(ctx);
        }
    }

    /// Stores how far a file is.
    pub(super) fn save_progress(
        &mut self,
        record: PartialRecord,
        packet_ids: Vec<PacketId>,
        ctx: &mut Context<Self>,
    ) {
        let put = LocalOp::PartialPut(partial_row(&record));
        let progress = Committing::Progress { key: record.key(), bitmap: record.bitmap, packet_ids };
        self.submit(vec![(put, progress)], ctx);
    }
}
