//! What an earlier start left, read before anything else is done.

use super::*;
use crate::storage::{NotTaken, ask_local};

/// Pause before the store is asked again whose queue is full: at a start much comes at once.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(50);

impl DeliveryActor {
    /// Reads the outbox and the files on their way in. Mail waits meanwhile: an empty outbox would
    /// say of every message that it is gone and of every new one that there is room, and a file that
    /// goes on would begin anew.
    pub(super) fn load(&mut self, ctx: &mut Context<Self>) {
        let store = self.parts.store.clone();
        let turns = Turns::new(self.parts.order_wait);
        let load = async move {
            let mut left = Left::of(turns);
            let mut after = None;
            loop {
                let op = LocalOp::OutboxPage { after, limit: PageLimit::default() };
                let LocalOutcome::Outbox(page) = read(&*store, op).await? else { break };
                left.outbox_damaged = left.outbox_damaged.saturating_add(page.damaged);
                left.outbox.extend(page.rows);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            take_turns(&*store, &mut left.turns).await?;
            let mut after = None;
            loop {
                let op = LocalOp::PartialPage { after, limit: PageLimit::default() };
                let LocalOutcome::Partials(page) = read(&*store, op).await? else { break };
                left.partials_damaged = left.partials_damaged.saturating_add(page.damaged);
                left.partials.extend(page.rows);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            Ok::<_, MeshError>(left)
        };
        ctx.wait(load.into_actor(self).map(|loaded, actor, ctx| match loaded {
            Ok(left) => actor.loaded(left, ctx),
            Err(error) => {
                actor.guard.failed(format!("cannot read the outbox: {error}"));
                ctx.stop();
            }
        }));
    }

    fn loaded(&mut self, left: Left, ctx: &mut Context<Self>) {
        let (now, time) = (clock::now(), self.parts.clock.time());
        let mut unreadable = Vec::new();
        let mut records = Vec::with_capacity(left.outbox.len());
        self.ledger.accepted(left.outbox.len() as u64);
        let quarantine = self.parts.quarantine.clone();
        self.count_falls(&left.outbox, ctx);
        let mut hand = quarantine.first_look();
        for (seq, row) in left.outbox {
            let suspect = Suspect::Row(row.uid.0);
            if let Standing::Quarantined { first } = quarantine.standing(&suspect) {
                quarantine.pass_over("outbox", first, &row.uid);
                if row.expires_s <= time.steady_s {
                    unreadable.push((LocalOp::OutboxRemove(seq), Committing::Nothing));
                }
                continue;
            }
            hand.take(suspect);
            match OutboxRecord::decode(&row.body) {
                // Never longer than it was given, whatever the disk says.
                Ok(record) => {
                    let left_s = row.expires_s.saturating_sub(time.steady_s);
                    let left = Duration::from_secs(left_s.min(record.lifetime().as_secs().into()));
                    self.rows.insert(record.uid, seq);
                    records.push((record, left, row.state));
                }
                Err(error) => {
                    tracing::error!(uid = %row.uid, to = %row.destination, %error, "an own message is lost");
                    unreadable.push((LocalOp::OutboxRemove(seq), Committing::Nothing));
                }
            }
        }
        self.ledger.rejected(unreadable.len() as u64);
        damaged("outbox", left.outbox_damaged.saturating_add(unreadable.len()));
        // Rows come in the order they were put, which is the order they are sent in.
        for (record, left, state) in records {
            let uid = record.uid;
            hand.take(Suspect::Row(uid.0));
            self.accept(now, left, record);
            // Without it, it is sent at once.
            if let Some(CustodyState { taken, attempts, retry_at_s }) = OutboxState::decode(&state).custody {
                let wait = Duration::from_secs(retry_at_s.saturating_sub(time.steady_s));
                self.outbox.restore_custody(now, &CustodyNote { uid, taken, attempts, wait });
            }
        }
        self.turns = left.turns;
        let mut unreadable_files = Vec::new();
        for row in left.partials {
            let suspect = Suspect::Row(row.tag.0);
            if let Standing::Quarantined { first } = quarantine.standing(&suspect) {
                // Its sender offers it anew.
                quarantine.pass_over("partial", first, &row.tag);
                continue;
            }
            hand.take(suspect);
            match PartialRecord::decode(&row.state) {
                Ok(record) => self.incoming.restore(row.tag, record, time.unix_s),
                Err(error) => {
                    // Its sender is asked for the manifest again, and for every chunk.
                    tracing::error!(from = %row.source, %error, "a file on its way in begins anew");
                    let (key, remove) =
                        ((row.source, row.tag), LocalOp::PartialRemove { source: row.source, tag: row.tag });
                    // Its content stays: it may be that of a message in the inbox. What no row names is
                    // swept at the next start.
                    unreadable_files.push((remove, Committing::Forgotten { key, has_blob: false }));
                }
            }
        }
        hand.put_down();
        damaged("partial", left.partials_damaged.saturating_add(unreadable_files.len()));
        unreadable.append(&mut unreadable_files);
        if !unreadable.is_empty() {
            self.submit(unreadable, ctx);
        }
        self.note_start();
        let (outbox, files) = (self.outbox.len(), self.incoming.len());
        tracing::debug!(outbox, files, "delivery state restored");
        // What reached the inbox while the incarnation before this one fell was told to nobody.
        self.parts.inbox_grown.send_modify(|_| {});
        self.check_next(ctx);
        self.pump(ctx);
    }

    /// Learns which rows felled earlier incarnations and starts, and sends what is new of that on its
    /// way to the disk before any of them is tried again.
    fn count_falls(&mut self, rows: &[(u64, OutboxRow)], ctx: &mut Context<Self>) {
        let quarantine = &self.parts.quarantine;
        let mut counted = Vec::new();
        for (seq, row) in rows {
            let suspect = Suspect::Row(row.uid.0);
            let state = OutboxState::decode(&row.state);
            let known = state.falls;
            quarantine.remember(suspect, u32::from(known));
            let falls = quarantine.falls(&suspect);
            if falls > u32::from(known) {
                let state = OutboxState { falls: u8::try_from(falls).unwrap_or(u8::MAX), ..state };
                let update = LocalOp::OutboxUpdate { seq: *seq, state: state.encode() };
                counted.push((update, Committing::Nothing));
            }
        }
        if !counted.is_empty() {
            self.submit(counted, ctx);
        }
    }
}

/// Reads which messages are early, and has those enter the inbox that are no longer: the start before
/// may have ended when what they follow had come and they had not entered. Those that enter go one
/// submission after the other, so that the store is left room.
async fn take_turns(store: &dyn LocalStore, turns: &mut Turns) -> Result<(), MeshError> {
    let (mut early, mut unreadable) = (Vec::new(), 0usize);
    let mut after = None;
    loop {
        let op = LocalOp::EarlyPage { after, limit: PageLimit::default() };
        let LocalOutcome::Earlies(page) = read(store, op).await? else { break };
        early.extend(page.rows);
        unreadable = unreadable.saturating_add(page.damaged);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    early.sort_unstable_by_key(|row: &EarlyRow| row.seq);
    for row in early {
        turns.is_early(clock::now(), (row.source, row.uid), row.awaits, row.stranger);
    }
    turns.ask_again();
    loop {
        let enter = turns.enter();
        if enter.is_empty() {
            damaged("inbox", unreadable);
            return Ok(());
        }
        let release = |enters: &Enters| LocalOp::EarlyRelease {
            source: enters.source,
            uid: enters.uid,
            force: enters.force,
        };
        let outcomes = read_all(store, enter.iter().map(release).collect()).await?;
        for (enters, outcome) in enter.iter().zip(outcomes) {
            if !matches!(outcome, LocalOutcome::Early { .. }) {
                turns.entered((enters.source, enters.uid));
            }
            unreadable = unreadable.saturating_add(usize::from(outcome == LocalOutcome::Absent));
        }
        turns.answered();
    }
}

/// What an earlier start left.
struct Left {
    outbox: Vec<(u64, OutboxRow)>,
    /// Rows that the store could not read and set aside.
    outbox_damaged: usize,
    turns: Turns,
    partials: Vec<PartialRow>,
    partials_damaged: usize,
}

impl Left {
    fn of(turns: Turns) -> Self {
        Self { outbox: Vec::new(), outbox_damaged: 0, turns, partials: Vec::new(), partials_damaged: 0 }
    }
}

pub(super) fn damaged(kind: &'static str, rows: usize) {
    metrics::counter!(telemetry::ROWS_DAMAGED, "kind" => kind).increment(rows as u64);
    if rows > 0 {
        tracing::error!(kind, rows, "stored rows cannot be read");
    }
}

/// One row or page, asked for until the store has room for the question.
async fn read(store: &dyn LocalStore, op: LocalOp) -> Result<LocalOutcome, MeshError> {
    Ok(read_all(store, vec![op]).await?.pop().unwrap_or(LocalOutcome::Done))
}

/// The same of several, in one submission.
async fn read_all(store: &dyn LocalStore, ops: Vec<LocalOp>) -> Result<Vec<LocalOutcome>, MeshError> {
    loop {
        match ask_local(store, ops.clone()) {
            Ok(answer) => return Ok(answer.await?),
            Err(NotTaken::Full) => tokio::time::sleep(FULL_QUEUE_PAUSE).await,
            Err(reason) => return Err(MeshError::Refused(reason.to_string())),
        }
    }
}
