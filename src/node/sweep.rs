//! Contents that no row of the store speaks of: what a crash left between the write of a file and
//! the commit of its row, or between the end of a row and the removal of its file. They are removed
//! before the node runs, while nothing is being written; without such leftovers that takes one look
//! at two directories.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::MeshError,
    proto::delivery::record::{InboxRecord, PartialRecord},
    storage::{
        BlobDir, BlobKind, BlobName, LocalOp, LocalOutcome, LocalStore, PageLimit, StoreError, ask_local,
    },
};

use super::inbox::content_of;

/// Removes them. A failure costs space and is logged; it is no reason not to start.
pub(super) async fn contents_without_rows(store: &dyn LocalStore, blobs: &Arc<BlobDir>) {
    for kind in BlobKind::ALL {
        match sweep(store, blobs, kind).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, ?kind, "removed contents without rows"),
            Err(error) => tracing::warn!(%error, ?kind, "cannot look for contents without rows"),
        }
    }
}

async fn sweep(store: &dyn LocalStore, blobs: &Arc<BlobDir>, kind: BlobKind) -> Result<u64, MeshError> {
    let names = blocking(blobs, move |blobs| blobs.names(kind)).await?;
    let mut unknown = names.clone();
    match kind {
        BlobKind::Outgoing => strike_outgoing(store, &mut unknown).await?,
        BlobKind::Incoming => {
            strike_open_files(store, &mut unknown).await?;
            strike_inbox(store, &mut unknown).await?;
            strike_requests(store, &mut unknown).await?;
        }
    }
    if unknown.is_empty() {
        return Ok(0);
    }
    let live: BTreeSet<BlobName> = names.difference(&unknown).cloned().collect();
    Ok(blocking(blobs, move |blobs| blobs.sweep(kind, &live)).await?.files)
}

/// Strikes out what the outbox sends.
async fn strike_outgoing(store: &dyn LocalStore, unknown: &mut BTreeSet<BlobName>) -> Result<(), MeshError> {
    let mut after = None;
    while !unknown.is_empty() {
        let op = LocalOp::OutboxPage { after, limit: PageLimit::default() };
        let LocalOutcome::Outbox(page) = ask(store, op).await? else { break };
        for (_, row) in page.rows {
            unknown.remove(&BlobName::outgoing(&row.uid));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// Strikes out files on their way in.
async fn strike_open_files(
    store: &dyn LocalStore,
    unknown: &mut BTreeSet<BlobName>,
) -> Result<(), MeshError> {
    let mut after = None;
    while !unknown.is_empty() {
        let op = LocalOp::PartialPage { after, limit: PageLimit::default() };
        let LocalOutcome::Partials(page) = ask(store, op).await? else { break };
        for row in page.rows {
            // One that came in whole belongs to the inbox. One that cannot be read may be anything.
            if !PartialRecord::decode(&row.state).is_ok_and(|record| record.complete) {
                unknown.remove(&BlobName::incoming(&row.source, &row.tag));
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// Strikes out what waits in the inbox.
async fn strike_inbox(store: &dyn LocalStore, unknown: &mut BTreeSet<BlobName>) -> Result<(), MeshError> {
    let mut after = None;
    while !unknown.is_empty() {
        let op = LocalOp::InboxPage { after, limit: PageLimit::default() };
        let LocalOutcome::Inbox(page) = ask(store, op).await? else { break };
        let records = page.rows.iter().filter_map(|row| InboxRecord::decode(&row.entry).ok());
        for name in records.filter_map(|record| content_of(&record)) {
            unknown.remove(&name);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// Strikes out what waits for its sender to be accepted.
async fn strike_requests(store: &dyn LocalStore, unknown: &mut BTreeSet<BlobName>) -> Result<(), MeshError> {
    let mut after = None;
    while !unknown.is_empty() {
        let op = LocalOp::RequestPage { after, limit: PageLimit::default() };
        let LocalOutcome::Requests(page) = ask(store, op).await? else { break };
        let records = page.rows.iter().filter_map(|row| InboxRecord::decode(&row.entry).ok());
        for name in records.filter_map(|record| content_of(&record)) {
            unknown.remove(&name);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

async fn ask(store: &dyn LocalStore, op: LocalOp) -> Result<LocalOutcome, MeshError> {
    let answer = ask_local(store, vec![op]).map_err(|reason| MeshError::Refused(reason.to_string()))?;
    Ok(answer.await?.pop().unwrap_or(LocalOutcome::Done))
}

async fn blocking<V: Send + 'static>(
    blobs: &Arc<BlobDir>,
    act: impl FnOnce(&BlobDir) -> Result<V, StoreError> + Send + 'static,
) -> Result<V, MeshError> {
    let blobs = blobs.clone();
    let done = tokio::task::spawn_blocking(move || act(&blobs)).await;
    Ok(done.map_err(|_| MeshError::Stopped("sweeper"))??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::FileKey,
        proto::delivery::record::{Body, FileRecord},
        storage::{Awaits, InboxCommit, MemStore, OutboxRow, PartialRow, Strangers, space::system_space},
        wire::{Address, Digest, MessageUid, PacketId},
    };

    const SOURCE: Address = Address([7; 16]);

    fn file(n: u8) -> FileRecord {
        FileRecord { length: 10, sha256: Digest([n; 32]), file_key: Digest([n; 32]) }
    }

    fn incoming(n: u8) -> BlobName {
        BlobName::incoming(&SOURCE, &FileKey::from_bytes([n; 32]).transfer_tag())
    }

    fn partial(n: u8, complete: bool) -> LocalOp {
        let record = PartialRecord {
            packet_id: PacketId([n; 16]),
            uid: MessageUid([n; 16]),
            complete,
            from: SOURCE,
            name: String::new(),
            sent_at_unix_ms: 0,
            hops: 1,
            stranger: true,
            dedup_until_unix_s: 1,
            give_up_unix_s: None,
            file: file(n),
            bitmap: Vec::new(),
        };
        let tag = FileKey::from_bytes([n; 32]).transfer_tag();
        LocalOp::PartialPut(PartialRow { source: SOURCE, tag, until_unix_s: 1, state: record.encode() })
    }

    fn inbox_entry(n: u8) -> LocalOp {
        let record = InboxRecord {
            uid: MessageUid([n; 16]),
            from: SOURCE,
            broadcast: false,
            name: String::new(),
            sent_at_unix_ms: 0,
            received_at_unix_ms: 0,
            hops: 1,
            body: Body::File(file(n)),
        };
        LocalOp::InboxCommit(InboxCommit {
            uid: MessageUid([n; 16]),
            source: SOURCE,
            ingress: None,
            dedup_until_unix_s: 1,
            awaits: Awaits::default(),
            strangers: Strangers::Enter,
            entry: record.encode(),
        })
    }

    fn outbox_row(n: u8) -> LocalOp {
        LocalOp::OutboxPut(OutboxRow {
            uid: MessageUid([n; 16]),
            destination: SOURCE,
            created_unix_s: 0,
            expires_s: 1,
            state: Vec::new(),
            body: Vec::new(),
        })
    }

    #[tokio::test]
    async fn what_no_row_speaks_of_goes_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Arc::new(BlobDir::open(dir.path(), Arc::new(system_space)).unwrap());
        let store = MemStore::default();
        // 1 on its way in, 2 in the inbox, 3 whole and taken, 4 never heard of.
        let ops = vec![partial(1, false), inbox_entry(2), partial(2, true), partial(3, true), outbox_row(8)];
        ask_local(&store, ops).unwrap().await.unwrap();
        for n in 1..=4 {
            drop(blobs.open_incoming(&incoming(n), 10).unwrap());
        }
        for n in [8, 9] {
            blobs.create_outgoing(&BlobName::outgoing(&MessageUid([n; 16])), 4).unwrap().finish().unwrap();
        }
        contents_without_rows(&store, &blobs).await;
        assert_eq!(blobs.names(BlobKind::Incoming).unwrap(), BTreeSet::from([incoming(1), incoming(2)]));
        let sent = BlobName::outgoing(&MessageUid([8; 16]));
        assert_eq!(blobs.names(BlobKind::Outgoing).unwrap(), BTreeSet::from([sent]));
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_read_costs_no_content() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Arc::new(BlobDir::open(dir.path(), Arc::new(system_space)).unwrap());
        let store = MemStore::default();
        drop(blobs.open_incoming(&incoming(1), 10).unwrap());
        store.set_full(true);
        contents_without_rows(&store, &blobs).await;
        assert_eq!(blobs.names(BlobKind::Incoming).unwrap().len(), 1);
    }
}
