//! Messages that have arrived, as whoever reads them sees them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedMutexGuard;

use super::MeshNode;
use crate::{
    crypto::FileKey,
    error::MeshError,
    proto::delivery::{
        record::{Body, InboxRecord},
        transfer::{chunk_offset, sealed_chunk_len},
    },
    storage::{
        BlobDir, BlobKind, BlobName, LocalOp, LocalOutcome, NotTaken, PageLimit, StoreError, ask_local,
    },
    wire::{Address, MessageUid, content::chunk_count},
};

/// One message in the inbox.
#[derive(Debug, Clone)]
pub struct InboxMessage {
    /// Its place in the order of arrival.
    pub seq: u64,
    record: InboxRecord,
}

impl InboxMessage {
    /// The message's id, the same at its sender.
    pub fn id(&self) -> MessageUid {
        self.record.uid
    }

    /// Who signed it.
    pub fn from(&self) -> Address {
        self.record.from
    }

    /// True when it was sent to everyone, and so was not encrypted.
    pub fn is_broadcast(&self) -> bool {
        self.record.broadcast
    }

    /// File name by the sender's word: never a path to write to.
    pub fn name(&self) -> Option<&str> {
        (!self.record.name.is_empty()).then_some(self.record.name.as_str())
    }

    /// When it was sent, by the sender's clock, in milliseconds since 1970.
    pub fn sent_at_unix_ms(&self) -> u64 {
        self.record.sent_at_unix_ms
    }

    /// When it was stored here, in milliseconds since 1970.
    pub fn received_at_unix_ms(&self) -> u64 {
        self.record.received_at_unix_ms
    }

    /// Links crossed.
    pub fn hops(&self) -> u8 {
        self.record.hops
    }

    /// Bytes of its content.
    pub fn size(&self) -> u64 {
        self.record.body.len()
    }

    pub(super) fn new(seq: u64, record: InboxRecord) -> Self {
        Self { seq, record }
    }

    /// Its content, or the file that holds it.
    pub(super) fn body(&self) -> &Body {
        &self.record.body
    }

    fn blob(&self) -> Option<BlobName> {
        content_of(&self.record)
    }
}

/// The file that holds the content of an entry, where it is too large for its row.
pub(super) fn content_of(record: &InboxRecord) -> Option<BlobName> {
    match &record.body {
        Body::Inline(_) => None,
        Body::File(file) => {
            let tag = FileKey::from_bytes(file.file_key.0).transfer_tag();
            Some(BlobName::incoming(&record.from, &tag))
        }
    }
}

/// Pause before the store is asked again whose queue is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// The right to take messages out; one at a time.
#[derive(Debug)]
pub struct Taker(#[expect(dead_code, reason = "held for its drop")] OwnedMutexGuard<()>);

impl MeshNode {
    /// Messages after `after`, in the order of arrival, and where to go on.
    ///
    /// # Errors
    /// The store.
    pub async fn inbox(&self, after: Option<u64>) -> Result<(Vec<InboxMessage>, Option<u64>), MeshError> {
        let op = LocalOp::InboxPage { after, limit: PageLimit::default() };
        let answer = self.ask_patiently(vec![op]).await?.pop();
        let Some(LocalOutcome::Inbox(page)) = answer else { return Ok((Vec::new(), None)) };
        let messages = page
            .rows
            .into_iter()
            .filter_map(|row| match InboxRecord::decode(&row.entry) {
                Ok(record) => Some(InboxMessage { seq: row.seq, record }),
                Err(error) => {
                    tracing::error!(seq = row.seq, %error, "an inbox row cannot be read");
                    None
                }
            })
            .collect();
        Ok((messages, page.next))
    }

    /// The first message after `after`; waits for one to arrive where `wait` is set.
    ///
    /// # Errors
    /// The store, or the node stopped while waiting.
    pub async fn next_message(
        &self,
        after: Option<u64>,
        wait: bool,
    ) -> Result<Option<InboxMessage>, MeshError> {
        let mut grown = self.0.inbox_grown.clone();
        loop {
            grown.mark_unchanged();
            let limit = PageLimit { rows_max: 1, ..PageLimit::default() };
            let LocalOutcome::Inbox(page) = self.kv(LocalOp::InboxPage { after, limit }).await? else {
                return Ok(None);
            };
            if let Some(row) = page.rows.into_iter().next() {
                let record =
                    InboxRecord::decode(&row.entry).map_err(|e| MeshError::Refused(e.to_string()))?;
                return Ok(Some(InboxMessage { seq: row.seq, record }));
            }
            if !wait {
                return Ok(None);
            }
            grown.changed().await.map_err(|_| MeshError::Stopped("delivery"))?;
        }
    }

    /// The content of a message.
    ///
    /// # Errors
    /// The file that holds it cannot be read.
    pub async fn content(&self, message: &InboxMessage) -> Result<Bytes, MeshError> {
        match &message.record.body {
            Body::Inline(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            Body::File(_) => {
                let (blobs, message) = (self.0.blobs.clone(), message.clone());
                let read = tokio::task::spawn_blocking(move || open_file(&blobs, &message)).await;
                Ok(read.map_err(|_| MeshError::Stopped("file reader"))??)
            }
        }
    }

    /// Removes a message; true where it was there.
    ///
    /// # Errors
    /// The store.
    pub async fn remove_message(&self, message: &InboxMessage) -> Result<bool, MeshError> {
        Ok(self.remove_messages(std::slice::from_ref(message)).await? > 0)
    }

    /// Removes messages, all with one commit; how many of them were there.
    ///
    /// # Errors
    /// The store; all are there still.
    pub async fn remove_messages(&self, messages: &[InboxMessage]) -> Result<usize, MeshError> {
        let ops: Vec<_> = messages.iter().map(|message| LocalOp::InboxRemove(message.seq)).collect();
        let outcomes = self.ask_patiently(ops).await?;
        self.note_taken(messages);
        let names: Vec<_> = messages.iter().filter_map(InboxMessage::blob).collect();
        if !names.is_empty() {
            let blobs = self.0.blobs.clone();
            let gone = tokio::task::spawn_blocking(move || {
                names.iter().try_for_each(|name| blobs.remove(BlobKind::Incoming, name).map(drop))
            });
            if let Ok(Err(error)) = gone.await {
                tracing::warn!(%error, "cannot remove the content of a message that was taken");
            }
        }
        Ok(outcomes.iter().filter(|outcome| matches!(outcome, LocalOutcome::Done)).count())
    }

    /// Asks the store, again and again while its queue is full.
    async fn ask_patiently(&self, ops: Vec<LocalOp>) -> Result<Vec<LocalOutcome>, MeshError> {
        loop {
            match ask_local(&*self.0.store, ops.clone()) {
                Ok(answer) => return Ok(answer.await?),
                Err(NotTaken::Full) => tokio::time::sleep(FULL_QUEUE_PAUSE).await,
                Err(NotTaken::Stopped) => return Err(StoreError::Stopped.into()),
            }
        }
    }

    /// Takes the next message out of the inbox, waiting for one to arrive. It is gone from there when this
    /// returns: [`MeshNode::messages`] is for programs that must lose none.
    ///
    /// # Errors
    /// The store, or the node stopped.
    pub async fn receive(&self) -> Result<(InboxMessage, Bytes), MeshError> {
        loop {
            if let Some(message) = self.next_message(None, true).await? {
                let content = self.content(&message).await?;
                self.remove_message(&message).await?;
                return Ok((message, content));
            }
        }
    }

    /// The right to take messages; none while somebody else has it.
    pub fn taker(&self) -> Option<Taker> {
        self.0.taker.clone().try_lock_owned().ok().map(Taker)
    }

    /// As [`MeshNode::taker`], once whoever has it gives it up.
    pub(super) async fn next_taker(&self) -> Taker {
        Taker(self.0.taker.clone().lock_owned().await)
    }
}

fn open_file(blobs: &BlobDir, message: &InboxMessage) -> Result<Bytes, StoreError> {
    let (Some(name), Body::File(file)) = (message.blob(), &message.record.body) else {
        return Ok(Bytes::new());
    };
    let blob = blobs.open_received(&name)?;
    let key = FileKey::from_bytes(file.file_key.0);
    let total = chunk_count(file.length);
    let mut out = BytesMut::with_capacity(usize::try_from(file.length).unwrap_or(0));
    for index in 0..total {
        let sealed = blob.read_at(chunk_offset(index), sealed_chunk_len(index, file.length))?;
        let plain = key
            .open_chunk(&message.id(), index, total, &sealed)
            .map_err(|e| StoreError::Corrupt { path: name.to_string().into(), detail: e.to_string() })?;
        out.extend_from_slice(&plain);
    }
    Ok(out.freeze())
}
