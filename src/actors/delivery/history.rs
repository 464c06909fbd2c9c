//! The history of messages on its way to its journal.
//!
//! Entries are gathered and written every tenth of a second by a thread that may block: this actor
//! waits for no disk here, and nothing is acknowledged for what is written. A disk that is slow or full
//! costs entries, which are counted, and nothing else.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::*;
use crate::{
    proto::delivery::{
        history::{HistoryEntry, IdPrefix},
        outbox::Standing,
    },
    storage::{
        AppendLog, append_log,
        space::{self, SpaceProbe, system_space},
    },
};

/// Time for which entries are gathered.
const GATHER_FOR: Duration = Duration::from_millis(100);

/// Entries that wait for the disk at most: more than a second's worth at full speed, some 2 MiB.
const WAITING_MAX: usize = 8192;

/// Entries written at once, some 20 KiB.
const WRITTEN_AT_ONCE: usize = 128;

/// How long who asks for a message waits for the disk to have its last lines.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);

/// The journal takes no more than one in so many bytes of its volume, or [`VOLUME_LEAST`]: what is
/// acknowledged needs the room.
const VOLUME_SHARE: u64 = 64;

/// What the journal may take of however small a volume.
const VOLUME_LEAST: u64 = 64 * 1024;

/// The journal of one node; clones are one. It blocks: for threads that may.
#[derive(Clone, Default)]
pub struct HistoryFile(Option<Arc<Journal>>);

struct Journal {
    path: PathBuf,
    bytes_max: u64,
    space: SpaceProbe,
    /// None until the first entry, and again after an error.
    log: Mutex<Option<AppendLog>>,
}

impl HistoryFile {
    /// The journal at `path`, of at most `bytes_max`; with 0 there is none.
    pub fn new(path: PathBuf, bytes_max: u64) -> Self {
        Self::with_space(path, bytes_max, Arc::new(system_space))
    }

    /// The same on a volume of which `space` tells.
    pub fn with_space(path: PathBuf, bytes_max: u64, space: SpaceProbe) -> Self {
        let journal = || Arc::new(Journal { path, bytes_max, space, log: Mutex::new(None) });
        Self((bytes_max > 0).then(journal))
    }

    fn append(&self, entries: &[HistoryEntry]) -> Result<(), StoreError> {
        let Some(journal) = &self.0 else { return Ok(()) };
        let mut slot = journal.log();
        let taken = slot.take();
        let dir = journal.path.parent().unwrap_or(&journal.path);
        space::check(&journal.space, dir)?;
        let mut log = match taken {
            Some(log) => log,
            None => {
                let volume = (journal.space)(dir).map_or(u64::MAX, |space| space.total_bytes);
                let share = (volume / VOLUME_SHARE).max(VOLUME_LEAST);
                AppendLog::open(&journal.path, journal.bytes_max.min(share))?
            }
        };
        for some in entries.chunks(WRITTEN_AT_ONCE) {
            log.append(some)?;
        }
        *slot = Some(log);
        Ok(())
    }

    /// Entries of messages whose ids begin so, and of what concerned all messages; oldest first.
    ///
    /// # Errors
    /// The disk.
    pub fn find(&self, ids: &IdPrefix) -> Result<Vec<HistoryEntry>, StoreError> {
        let Some(journal) = &self.0 else { return Ok(Vec::new()) };
        let _not_written = journal.log();
        let id = format!(r#""id":"{}"#, ids.digits());
        let found = append_log::read::<HistoryEntry>(&journal.path, |line| {
            line.contains(&id) || line.contains(r#""event":"started""#)
        })?;
        let is_meant = |entry: &HistoryEntry| entry.id.is_none_or(|id| ids.ids().contains(&id));
        Ok(found.entries.into_iter().filter(is_meant).collect())
    }
}

impl std::fmt::Debug for HistoryFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HistoryFile").field(&self.0.as_ref().map(|journal| &journal.path)).finish()
    }
}

impl Journal {
    fn log(&self) -> MutexGuard<'_, Option<AppendLog>> {
        // Who panicked in the middle has taken it out.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is on its way to the journal.
#[derive(Default)]
pub(super) struct History {
    waiting: Vec<HistoryEntry>,
    /// True while a write is planned or under way.
    planned: bool,
    writing: bool,
    /// True from a write that failed until one that did not.
    failed: bool,
    /// Told when all that was noted before is written, or lost.
    asked: Vec<oneshot::Sender<()>>,
}

fn tell(asked: Vec<oneshot::Sender<()>>) {
    for who in asked {
        // They may have gone.
        let _ = who.send(());
    }
}

impl DeliveryActor {
    /// Notes what happened to a message.
    pub(super) fn note(&mut self, uid: MessageUid, event: HistoryEvent) {
        self.note_entry(Some(uid), event);
    }

    /// Notes that the node has started.
    pub(super) fn note_start(&mut self) {
        self.note_entry(None, HistoryEvent::Started);
    }

    fn note_entry(&mut self, id: Option<MessageUid>, event: HistoryEvent) {
        if self.parts.history.0.is_none() {
            return;
        }
        if self.history.waiting.len() >= WAITING_MAX {
            metrics::counter!(telemetry::HISTORY_DROPPED).increment(1);
            return;
        }
        let (at_unix_ms, clock_untrusted) = self.parts.clock.stamp();
        self.history.waiting.push(HistoryEntry { at_unix_ms, clock_untrusted, id, event });
    }

    /// Notes that a message waits for something, where it did not before.
    pub(super) fn hold_back(&mut self, now: Instant, uid: &MessageUid, hold: Hold) {
        let before = self.outbox.hold(uid);
        self.outbox.hold_back(now, uid, hold);
        if before.is_some_and(|before| before != hold)
            && let Some(reason) = hold.reason()
        {
            self.note(*uid, HistoryEvent::Waiting { reason });
        }
    }

    /// Notes an attempt.
    pub(super) fn note_sent(&mut self, t: &Transmit, packet: PacketId) {
        if matches!(t.part, Part::Chunk(_)) {
            return;
        }
        let Some(attempt) = self.outbox.attempts(&t.uid) else { return };
        if is_noted(attempt) {
            self.note(t.uid, HistoryEvent::Sent { packet, attempt });
        }
    }

    /// Notes what the word of a node on the way changed about a message.
    pub(super) fn note_fate(
        &mut self,
        packet: PacketId,
        before: Option<Standing>,
        custodian: Option<Address>,
    ) {
        let Some(Standing { uid, hold, attempts }) = before else { return };
        let after = self.outbox.hold(&uid).unwrap_or(hold);
        if after == hold || !is_noted(attempts) {
            return;
        }
        let event = match after {
            Hold::InCustody => HistoryEvent::InCustody { packet, custodian },
            Hold::Refused(reason) => HistoryEvent::Refused { packet, reason: reason.name().to_string() },
            after => match after.reason() {
                Some(reason) => HistoryEvent::Waiting { reason },
                None => return,
            },
        };
        self.note(uid, event);
    }

    /// Writes what was noted, in a while.
    pub(super) fn write_history_soon(&mut self, ctx: &mut Context<Self>) {
        if self.history.waiting.is_empty() || std::mem::replace(&mut self.history.planned, true) {
            return;
        }
        ctx.run_later(GATHER_FOR, |actor, ctx| actor.write_history(ctx));
    }

    fn write_history(&mut self, ctx: &mut Context<Self>) {
        if self.history.writing {
            return;
        }
        let entries = std::mem::take(&mut self.history.waiting);
        let asked = std::mem::take(&mut self.history.asked);
        if entries.is_empty() {
            self.history.planned = false;
            tell(asked);
            return;
        }
        (self.history.planned, self.history.writing) = (true, true);
        let (file, count) = (self.parts.history.clone(), entries.len() as u64);
        let job = tokio::task::spawn_blocking(move || file.append(&entries));
        ctx.spawn(job.into_actor(self).map(move |written, actor, ctx| {
            actor.history.writing = false;
            let failed = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            let is_first = failed.is_some() && !actor.history.failed;
            actor.history.failed = failed.is_some();
            if let Some(error) = failed {
                metrics::counter!(telemetry::HISTORY_DROPPED).increment(count);
                if is_first {
                    tracing::warn!(
                        error,
                        "the history of messages has gaps; messages themselves are not touched"
                    );
                }
            }
            tell(asked);
            actor.history.planned = false;
            if actor.history.asked.is_empty() {
                actor.write_history_soon(ctx);
            } else {
                actor.write_history(ctx);
            }
        }));
    }

    /// Resolves when all that was noted is written or lost, and after a second at the latest.
    pub(super) fn history_is_written(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = ()> + use<> {
        let (done, written) = oneshot::channel();
        self.history.asked.push(done);
        self.write_history(ctx);
        async move {
            let _ = tokio::time::timeout(WRITE_PATIENCE, written).await;
        }
    }
}

impl Handler<MessagesEntered> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, MessagesEntered(count): MessagesEntered, _: &mut Context<Self>) {
        self.parts.inbox_grown.send_modify(|n| *n = n.wrapping_add(count));
    }
}

impl Handler<MessagesTaken> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: MessagesTaken, ctx: &mut Context<Self>) {
        for (uid, from) in message.0 {
            self.note(uid, HistoryEvent::Taken { from });
        }
        self.write_history_soon(ctx);
    }
}

impl Handler<FindMessages> for DeliveryActor {
    type Result = ResponseFuture<FoundMessages>;

    fn handle(&mut self, message: FindMessages, ctx: &mut Context<Self>) -> Self::Result {
        let found = FoundMessages {
            outgoing: self.outbox.find(clock::now(), &message.0),
            arriving: self.incoming.find(&message.0),
        };
        let written = self.history_is_written(ctx);
        Box::pin(async move {
            written.await;
            found
        })
    }
}
