//! Handles to what a relay remembers, for a program that routes by itself.
//!
//! A node does all of this on its own, and keeps it in its data directory: who runs a
//! [`MeshNode`](crate::MeshNode) needs none of it. A program with a [`RoutingTable`] of its own gets
//! here what a node has: messages held for others on a disk, and a table that a restart does not
//! empty. Both have one data directory, which is not that of a node: one process works on one at a time.
//!
//! Time is the caller's: `now_s` are seconds of any clock that never goes back, over restarts too.

use std::{path::Path, sync::Arc, time::Duration, time::Instant};

use crate::{
    actors::custody::{held_row, revive},
    crypto::{MeshIdentity, OwnSeal, network_id},
    proto::{
        router::{SavedRow, row_seal},
        table::{RoutingTable, Update, Via},
        verify::{InboundAnnounce, InboundEnvelope, Verified, Verifier},
    },
    storage::{
        DataDir, EmbeddedOptions, EmbeddedStore, HeldSummary, HoldRefusal, LocalOp, LocalOutcome, MailOp,
        MailOutcome, MailboxQuota, Namespace, NotTaken, PageLimit, QueueBounds, StoreError, StoreHandle,
        StoreThread, ask_local, ask_mail,
    },
    wire::{Address, NetworkId, PacketId},
};

/// Pause before the store is asked again whose queue is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// Rows looked at for one step of [`PersistentMessageStore::expire`].
const EXPIRE_ROWS: usize = 1024;

/// Rows written at once by [`PersistentRoutingTable::save`].
const SAVE_ROWS: usize = 256;

/// What became of an envelope that was to be held.
#[derive(Debug)]
pub enum Holding {
    /// It is on the disk.
    Held,
    /// It was held already.
    Known,
    /// There is no room for it; nothing that is held gives way.
    Refused(HoldRefusal),
}

/// Envelopes held for others on a disk, under quotas. An answer comes after the sync; what was held is
/// there after a kill at any moment.
///
/// ```
/// # use quicprochat_mesh::{MeshIdentity, PersistentMessageStore, storage::MailboxQuota};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let store = PersistentMessageStore::open(&dir.path().join("relay"), MailboxQuota::default())?;
/// assert_eq!(store.usage().await?.rows, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PersistentMessageStore {
    thread: StoreThread,
    handle: StoreHandle,
}

impl PersistentMessageStore {
    /// Opens the data directory `dir`, or makes one that nobody else may read. Blocks for as long as a
    /// disk takes.
    ///
    /// # Errors
    /// Another process works on it, it is a newer version's, it is damaged, or the disk fails.
    pub fn open(dir: &Path, quota: MailboxQuota) -> Result<Self, StoreError> {
        let dir = Arc::new(DataDir::open(dir)?);
        let engine = EmbeddedStore::open(dir, EmbeddedOptions { quota, ..EmbeddedOptions::default() })?;
        let thread = StoreThread::start(Box::new(engine), QueueBounds::default(), Box::new(|_| ()))?;
        let handle = thread.handle();
        Ok(Self { thread, handle })
    }

    /// Holds an envelope that came from the neighbour `ingress` until it is removed or its lifetime is
    /// over.
    ///
    /// # Errors
    /// The store: it is not held.
    pub async fn hold(
        &self,
        envelope: &Verified<InboundEnvelope>,
        ingress: Address,
        now_s: u64,
    ) -> Result<Holding, StoreError> {
        match self.ask(MailOp::Hold(held_row(envelope, ingress, now_s))).await? {
            MailOutcome::Held { .. } => Ok(Holding::Held),
            MailOutcome::Duplicate => Ok(Holding::Known),
            MailOutcome::Refused(why) => Ok(Holding::Refused(why)),
            other => Err(unexpected(&other)),
        }
    }

    /// What is held for `destination`, the most urgent first, each older by the time it lay there, and
    /// where to go on. The next page is `after` that.
    ///
    /// # Errors
    /// The store.
    pub async fn held_for(
        &self,
        destination: Address,
        after: Option<u64>,
        now_s: u64,
    ) -> Result<(Vec<Verified<InboundEnvelope>>, Option<u64>), StoreError> {
        match self.ask(MailOp::Page { destination, after, limit: PageLimit::default() }).await? {
            MailOutcome::Page(page) => {
                Ok((page.rows.iter().filter_map(|row| revive(row, now_s)).collect(), page.next))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Lets go of envelopes; how many of them were held.
    ///
    /// # Errors
    /// The store: all are held still.
    pub async fn remove(&self, packet_ids: Vec<PacketId>) -> Result<usize, StoreError> {
        match self.ask(MailOp::Remove(packet_ids)).await? {
            MailOutcome::Removed { rows } => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets go of everything whose lifetime is over; how many there were.
    ///
    /// # Errors
    /// The store, after some may be gone.
    pub async fn expire(&self, now_s: u64) -> Result<usize, StoreError> {
        let mut gone = 0usize;
        loop {
            match self.ask(MailOp::Expire { now_s, rows_max: EXPIRE_ROWS }).await? {
                MailOutcome::Expired { rows, more } => {
                    gone = gone.saturating_add(rows);
                    if !more {
                        return Ok(gone);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// How much is held for everyone.
    ///
    /// # Errors
    /// The store.
    pub async fn usage(&self) -> Result<HeldSummary, StoreError> {
        match self.ask(MailOp::Usage { destination: None }).await? {
            MailOutcome::Usage(usage) => Ok(usage.total),
            other => Err(unexpected(&other)),
        }
    }

    /// Commits and answers what waits, and closes the store. Blocks until then, as dropping it does.
    pub fn close(self) {
        drop(self.thread.close());
    }

    async fn ask(&self, op: MailOp) -> Result<MailOutcome, StoreError> {
        loop {
            match ask_mail(&self.handle, vec![op.clone()]) {
                Ok(answer) => return answer.await?.pop().ok_or(StoreError::Stopped),
                Err(NotTaken::Full) => tokio::time::sleep(FULL_QUEUE_PAUSE).await,
                Err(NotTaken::Stopped) => return Err(StoreError::Stopped),
            }
        }
    }

    async fn ask_local(&self, ops: Vec<LocalOp>) -> Result<Vec<LocalOutcome>, StoreError> {
        loop {
            match ask_local(&self.handle, ops.clone()) {
                Ok(answer) => return answer.await,
                Err(NotTaken::Full) => tokio::time::sleep(FULL_QUEUE_PAUSE).await,
                Err(NotTaken::Stopped) => return Err(StoreError::Stopped),
            }
        }
    }
}

/// No operation has another one's outcome.
fn unexpected(outcome: &MailOutcome) -> StoreError {
    tracing::error!(?outcome, "the store answered something else");
    StoreError::Stopped
}

/// A [`RoutingTable`] whose announces outlive a restart, so that an old one stays old and who was heard
/// before is known. Ways do not: neighbours bring them.
///
/// It is written when [`PersistentRoutingTable::save`] is called. What an earlier process of this
/// identity wrote bears a mark and is not verified again; anything else is.
#[derive(Debug)]
pub struct PersistentRoutingTable {
    table: RoutingTable,
    seal: OwnSeal,
    unsaved: Vec<Address>,
}

impl PersistentRoutingTable {
    /// Fills `table` with what `store` has of it. `network` is the network's name.
    ///
    /// # Errors
    /// The store. Rows that do not verify are left out and logged.
    pub async fn open(
        store: &PersistentMessageStore,
        identity: &MeshIdentity,
        network: &str,
        mut table: RoutingTable,
        now: Instant,
        now_s: u64,
    ) -> Result<Self, StoreError> {
        let network: NetworkId = network_id(network);
        let seal = row_seal(identity, network);
        let mut verifier = Verifier::new(identity.address(), network);
        let mut after = None;
        loop {
            let op = LocalOp::KvPage { namespace: Namespace::Route, after, limit: PageLimit::default() };
            let Some(LocalOutcome::Values(page)) = store.ask_local(vec![op]).await?.pop() else { break };
            for (key, value) in &page.rows {
                let row = SavedRow::decode(value, &seal);
                let ends_in = row.as_ref().and_then(|row| row.ends_in(now_s));
                match (row.map(|row| row.verify(&mut verifier)), ends_in) {
                    (Some(Ok(announce)), Some(ends_in)) if announce.origin.0[..] == key[..] => {
                        table.restore(now, &announce, ends_in);
                    }
                    // So old that its order would have been forgotten.
                    (Some(Ok(_)), None) => {}
                    _ => tracing::warn!("a saved route that does not verify is not used"),
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(Self { table, seal, unsaved: Vec::new() })
    }

    /// The table.
    pub fn table(&self) -> &RoutingTable {
        &self.table
    }

    /// The table, for everything but announces: those go in by [`PersistentRoutingTable::update`].
    pub fn table_mut(&mut self) -> &mut RoutingTable {
        &mut self.table
    }

    /// Takes an announce that came over `via`, and remembers that it is to be saved.
    pub fn update(&mut self, now: Instant, announce: &Verified<InboundAnnounce>, via: &Via) -> Update {
        // Which destinations are in use is for who sends to say: here none is.
        let update = self.table.update(now, announce, via, &|_| false);
        if update == Update::Newer {
            self.unsaved.push(announce.origin);
        }
        update
    }

    /// Writes what is new since the last time; how many announces. On the disk when this returns.
    ///
    /// # Errors
    /// The store: what was not written is tried again by the next call.
    pub async fn save(
        &mut self,
        store: &PersistentMessageStore,
        now: Instant,
        now_s: u64,
    ) -> Result<usize, StoreError> {
        self.unsaved.sort_unstable();
        self.unsaved.dedup();
        let mut written = 0usize;
        while !self.unsaved.is_empty() {
            let origins = self.unsaved.iter().take(SAVE_ROWS);
            let saved = origins.filter_map(|origin| Some((origin, self.table.saved(now, origin)?)));
            let put = |(origin, saved): (&Address, _)| LocalOp::KvPut {
                namespace: Namespace::Route,
                key: origin.0.to_vec(),
                value: SavedRow::new(saved, now_s).encode(&self.seal),
            };
            let ops: Vec<LocalOp> = saved.map(put).collect();
            let rows = ops.len();
            if !ops.is_empty() {
                store.ask_local(ops).await?;
            }
            self.unsaved.drain(..SAVE_ROWS.min(self.unsaved.len()));
            written = written.saturating_add(rows);
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
