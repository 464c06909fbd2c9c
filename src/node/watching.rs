//! Looking at what arrives while somebody talks to the node, and leaving it where it is.

use bytes::Bytes;

use super::{
    MeshNode,
    service::{Names, failed},
};
use crate::{
    api::{ApiError, Done},
    control::ReplyTx,
    error::MeshError,
};

/// Serves [`crate::api::Request::InboxWatch`].
pub(super) async fn watch(
    node: &MeshNode,
    content_bytes_max: u64,
    replies: &ReplyTx,
) -> Result<(), ApiError> {
    let mut grown = node.0.inbox_grown.clone();
    // What is here already is passed over.
    let mut after = None;
    loop {
        let (messages, next) = node.inbox(after).await.map_err(failed)?;
        after = next.or(messages.last().map(|message| message.seq)).or(after);
        if next.is_none() {
            break;
        }
    }
    replies.send(Done::OK).await?;
    loop {
        grown.mark_unchanged();
        let (messages, next) = node.inbox(after).await.map_err(failed)?;
        if messages.is_empty() && next.is_none() {
            tokio::select! {
                grown = grown.changed() => grown.map_err(|_| failed(MeshError::Stopped("delivery")))?,
                () = replies.closed() => return Ok(()),
            }
            continue;
        }
        // Names may have been given since the last one came.
        let names = Names::of(node).await?;
        for message in messages {
            let content = match message.size() <= content_bytes_max {
                // One that was taken meanwhile is told all the same.
                true => node.content(&message).await.unwrap_or_default(),
                false => Bytes::new(),
            };
            replies.send_with(names.item(&message), content).await?;
            after = Some(message.seq);
        }
        after = next.or(after);
    }
}
