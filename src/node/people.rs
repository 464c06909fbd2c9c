//! Who may reach the person at this node: the blocked, and strangers who wait to be accepted.

use std::collections::BTreeMap;

use super::{InboxMessage, MeshNode, inbox::content_of};
use crate::{
    config::InboxAccept,
    error::MeshError,
    messages::delivery::MessagesEntered,
    proto::delivery::{
        record::{Body, InboxRecord},
        welcome::{Accept, BLOCKED_MAX},
    },
    storage::{
        BlobKind, InboxRow, LocalOp, LocalOutcome, LocalStore, Namespace, PageLimit, RequestPage, ask_local,
    },
    wire::Address,
};

/// Bytes of a request's first text that are shown before its sender is accepted.
const PREVIEW_BYTES: usize = 200;

/// A stranger whose messages wait to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderRequest {
    /// Who signed them.
    pub from: Address,
    /// How many wait.
    pub messages: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// When the first of them came, in milliseconds since 1970 by this node's clock.
    pub first_at_unix_ms: u64,
    /// When the last of them came.
    pub last_at_unix_ms: u64,
    /// How the first of them begins, where it is text; from a stranger.
    pub preview: Option<String>,
}

/// What the configuration says, as delivery knows it.
pub(super) fn accept(accept: InboxAccept) -> Accept {
    match accept {
        InboxAccept::Anyone => Accept::Anyone,
        InboxAccept::Requests => Accept::Requests,
        InboxAccept::Contacts => Accept::Contacts,
    }
}

/// Who was blocked in earlier starts.
pub(super) async fn blocked_on_record(store: &dyn LocalStore) -> Result<Vec<Address>, MeshError> {
    let (mut blocked, mut after) = (Vec::new(), None);
    loop {
        let op = LocalOp::KvPage { namespace: Namespace::Block, after, limit: PageLimit::default() };
        let asked = ask_local(store, vec![op]).map_err(|reason| MeshError::Refused(reason.to_string()))?;
        let Some(LocalOutcome::Values(page)) = asked.await?.pop() else { return Ok(blocked) };
        blocked.extend(page.rows.iter().filter_map(|(key, _)| key.as_slice().try_into().ok().map(Address)));
        after = page.next;
        if after.is_none() || blocked.len() >= BLOCKED_MAX {
            return Ok(blocked);
        }
    }
}

impl MeshNode {
    /// Takes nothing more of this sender, over restarts: its messages are refused and it is told so, its
    /// broadcasts are not shown, its pings not answered, and what of it waits to be accepted is dropped.
    /// What it sends to others is forwarded as ever.
    ///
    /// # Errors
    /// As many are blocked as can be; the store.
    pub async fn block(&self, address: Address) -> Result<(), MeshError> {
        if !self.0.welcome.write().block(address) {
            return Err(MeshError::Refused(format!(
                "{BLOCKED_MAX} senders are blocked, which is as many as can be: `qpc unblock` some, or set \
                 `inbox.accept = \"contacts\"`"
            )));
        }
        let put = LocalOp::KvPut { namespace: Namespace::Block, key: address.0.to_vec(), value: Vec::new() };
        if let Err(error) = self.kv(put).await {
            // What is not remembered does not hold.
            self.0.welcome.write().unblock(&address);
            return Err(error);
        }
        self.decline(address).await.map(drop)
    }

    /// Takes messages of this sender again; false where it was not blocked.
    ///
    /// # Errors
    /// The store.
    pub async fn unblock(&self, address: Address) -> Result<bool, MeshError> {
        self.kv(LocalOp::KvRemove { namespace: Namespace::Block, key: address.0.to_vec() }).await?;
        Ok(self.0.welcome.write().unblock(&address))
    }

    /// Who is blocked, by address.
    pub fn blocked(&self) -> Vec<Address> {
        self.0.welcome.read().blocked().collect()
    }

    /// Strangers whose messages wait to be accepted, by who came first.
    ///
    /// # Errors
    /// The store.
    pub async fn requests(&self) -> Result<Vec<SenderRequest>, MeshError> {
        let mut of: BTreeMap<Address, SenderRequest> = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.request_page(after).await?;
            for message in page.rows.into_iter().filter_map(readable) {
                let at = message.received_at_unix_ms();
                let request = of.entry(message.from()).or_insert_with(|| SenderRequest {
                    from: message.from(),
                    messages: 0,
                    bytes: 0,
                    first_at_unix_ms: at,
                    last_at_unix_ms: at,
                    preview: preview(&message),
                });
                request.messages = request.messages.saturating_add(1);
                request.bytes = request.bytes.saturating_add(message.size());
                request.last_at_unix_ms = at;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut requests: Vec<SenderRequest> = of.into_values().collect();
        requests.sort_by_key(|request| (request.first_at_unix_ms, request.from));
        Ok(requests)
    }

    /// Accepts a stranger: what waits of it enters the inbox in the order in which it came, and it is
    /// none any more. How many messages entered.
    ///
    /// # Errors
    /// The store; those that entered are there.
    pub async fn accept(&self, from: Address) -> Result<u64, MeshError> {
        // First, so that what comes meanwhile does not wait.
        let put = LocalOp::KvPut { namespace: Namespace::Accepted, key: from.0.to_vec(), value: Vec::new() };
        self.kv(put).await?;
        let mut entered = 0u64;
        loop {
            let page = self.requests_of(from).await?;
            let ops: Vec<_> =
                page.iter().map(|row| LocalOp::RequestEnter { source: from, seq: row.seq }).collect();
            if ops.is_empty() {
                break;
            }
            let outcomes = self.kv_ops(ops).await?;
            let is_in = |outcome: &&LocalOutcome| matches!(outcome, LocalOutcome::Committed { .. });
            entered = entered.saturating_add(outcomes.iter().filter(is_in).count() as u64);
        }
        if entered > 0 {
            self.0.seats.messages_entered.outlet().offer_gossip("delivery", MessagesEntered(entered));
        }
        Ok(entered)
    }

    /// Drops what waits of a stranger, without a word to it. What it sends later waits again. How many
    /// messages were dropped.
    ///
    /// # Errors
    /// The store; those that were dropped are gone.
    pub async fn decline(&self, from: Address) -> Result<u64, MeshError> {
        let mut dropped = 0u64;
        loop {
            let page = self.requests_of(from).await?;
            let ops: Vec<_> =
                page.iter().map(|row| LocalOp::RequestRemove { source: from, seq: row.seq }).collect();
            if ops.is_empty() {
                return Ok(dropped);
            }
            dropped = dropped.saturating_add(ops.len() as u64);
            self.kv_ops(ops).await?;
            let records = page.iter().filter_map(|row| InboxRecord::decode(&row.entry).ok());
            let names: Vec<_> = records.filter_map(|record| content_of(&record)).collect();
            let blobs = self.0.blobs.clone();
            let gone = tokio::task::spawn_blocking(move || {
                names.iter().try_for_each(|name| blobs.remove(BlobKind::Incoming, name).map(drop))
            });
            if let Ok(Err(error)) = gone.await {
                tracing::warn!(%error, "cannot remove the content of a message that was declined");
            }
        }
    }

    /// What waits of one sender, as much as fits a page.
    async fn requests_of(&self, from: Address) -> Result<Vec<InboxRow>, MeshError> {
        let page = self.request_page(Some((from, 0))).await?;
        Ok(page.rows.into_iter().take_while(|row| row.source == from).collect())
    }

    /// A page of what waits to be accepted.
    pub(super) async fn request_page(&self, after: Option<(Address, u64)>) -> Result<RequestPage, MeshError> {
        let op = LocalOp::RequestPage { after, limit: PageLimit::default() };
        match self.kv(op).await? {
            LocalOutcome::Requests(page) => Ok(page),
            _ => Ok(RequestPage::default()),
        }
    }
}

/// The message of a row.
pub(super) fn readable(row: InboxRow) -> Option<InboxMessage> {
    match InboxRecord::decode(&row.entry) {
        Ok(record) => Some(InboxMessage::new(row.seq, record)),
        Err(error) => {
            tracing::error!(seq = row.seq, %error, "a row of a request cannot be read");
            None
        }
    }
}

fn preview(message: &InboxMessage) -> Option<String> {
    let Body::Inline(bytes) = message.body() else { return None };
    let text = std::str::from_utf8(bytes).ok()?;
    let end = text.char_indices().map(|(at, c)| at.saturating_add(c.len_utf8()));
    let end = end.take_while(|end| *end <= PREVIEW_BYTES).last().unwrap_or(0);
    text.get(..end).map(str::to_owned)
}
