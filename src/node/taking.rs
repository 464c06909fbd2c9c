//! `qpc recv`: messages handed to whoever takes them, and removed when that one has them safe.
//!
//! Some are offered before the first is acknowledged, and what is acknowledged together is removed
//! by one commit: with a commit a message a taker would never keep up with a disk that takes many a
//! commit. Still each goes only after its own acknowledgement, and what a taker acknowledged before
//! it died is removed, whatever became of the request: that is a task of its own.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{InboxMessage, MeshNode, inbox::Taker, service::Names};
use crate::{api::ApiError, control::ReplyTx, error::MeshError, storage::PageLimit};

/// Messages offered that are not acknowledged yet.
const OFFERED_MAX: usize = 256;

/// Their bytes, beside the last one's.
const OFFERED_KIB: u32 = 1024;

/// How long to wait for the place of a taker that is gone, and whose last words are being removed.
const TAKER_WITHIN: Duration = Duration::from_secs(1);

/// A message at the taker.
struct Offered {
    message: InboxMessage,
    acknowledged: oneshot::Receiver<()>,
    _room: OwnedSemaphorePermit,
}

/// Offers messages in the order of arrival, and ends when all of them are acknowledged and removed.
pub(super) async fn recv(
    node: &MeshNode,
    count: Option<u64>,
    wait: bool,
    keep: bool,
    replies: &ReplyTx,
) -> Result<(), ApiError> {
    let taker = match keep {
        true => None,
        false => Some(timeout(TAKER_WITHIN, node.wait_taker()).await.map_err(|_| {
            ApiError::failed("another `qpc recv` takes messages from this node; end it first")
        })?),
    };
    let names = Names::of(node).await?;
    let (offered, at_taker) = mpsc::channel(OFFERED_MAX);
    let mut removing = tokio::spawn(remove(node.clone(), taker, at_taker));
    let offering = offer(node, count, wait, &names, replies, offered);
    tokio::select! {
        result = offering => result?,
        ended = &mut removing => return removed(ended),
    }
    removed(removing.await)
}

fn removed(ended: Result<Result<(), MeshError>, tokio::task::JoinError>) -> Result<(), ApiError> {
    match ended {
        Ok(result) => result.map_err(ApiError::failed),
        Err(error) => Err(ApiError::failed(error)),
    }
}

async fn offer(
    node: &MeshNode,
    count: Option<u64>,
    wait: bool,
    names: &Names,
    replies: &ReplyTx,
    offered: mpsc::Sender<Offered>,
) -> Result<(), ApiError> {
    let bytes = Arc::new(Semaphore::new(OFFERED_KIB as usize));
    let mut left = count.unwrap_or(u64::MAX);
    let mut after = None;
    while left > 0 {
        let rows_max = usize::try_from(left).unwrap_or(usize::MAX).min(OFFERED_MAX);
        let limit = PageLimit { rows_max, ..PageLimit::default() };
        let page = node.next_messages(after, wait, limit).await.map_err(ApiError::failed)?;
        if page.is_empty() {
            break;
        }
        for message in page {
            let kib = u32::try_from(message.size().div_ceil(1024)).unwrap_or(OFFERED_KIB);
            let room = bytes.clone().acquire_many_owned(kib.min(OFFERED_KIB)).await;
            let room = room.map_err(ApiError::failed)?;
            // Before it is offered: between that and the task that waits for the acknowledgement
            // nothing may come.
            let Ok(place) = offered.reserve().await else { return Ok(()) };
            let content = node.content(&message).await.map_err(ApiError::failed)?;
            let acknowledged = replies.offer(names.item(&message), content).await?;
            after = Some(message.seq);
            left = left.saturating_sub(1);
            place.send(Offered { message, acknowledged, _room: room });
        }
    }
    Ok(())
}

/// Removes what is acknowledged, all that waits with one commit, until nothing more is offered and
/// nothing can be acknowledged any more. Who only looks has no right to take, and removes nothing.
async fn remove(
    node: MeshNode,
    taker: Option<Taker>,
    mut at_taker: mpsc::Receiver<Offered>,
) -> Result<(), MeshError> {
    let mut next = at_taker.recv().await;
    while let Some(oldest) = next.take() {
        let mut batch = Vec::new();
        if oldest.acknowledged.await.is_ok() {
            batch.push(oldest.message);
        }
        while let Ok(mut later) = at_taker.try_recv() {
            match later.acknowledged.try_recv() {
                Ok(()) => batch.push(later.message),
                Err(oneshot::error::TryRecvError::Closed) => {}
                Err(oneshot::error::TryRecvError::Empty) => {
                    next = Some(later);
                    break;
                }
            }
        }
        if taker.is_some() && !batch.is_empty() {
            node.remove_messages(&batch).await?;
        }
        if next.is_none() {
            next = at_taker.recv().await;
        }
    }
    Ok(())
}
