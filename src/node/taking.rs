//! Taking messages out of the inbox for a client that acknowledges each.
//!
//! Some are under way to the client at a time. What it has acknowledged by the time that the disk is
//! free goes with one commit, and nothing goes before: a message is removed only after its line was
//! written and flushed. What was acknowledged goes even where the client is gone by then, so that it
//! sees at most the one message again whose acknowledgement it did not get out. A node that is killed
//! offers again what was acknowledged and not removed yet, in the same order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    InboxMessage, MeshNode, Taker,
    service::{Names, failed},
};
use crate::{api::ApiError, control::ReplyTx, error::MeshError};

/// KiB of content under way to one client; a larger message goes alone.
const WINDOW_KIB: u32 = 1024;

/// KiB that a message counts at least: 128 are under way at most.
const MESSAGE_KIB_MIN: u32 = 8;

/// How long a client waits for the inbox: its former taker may have been killed a moment ago, and what
/// that one had acknowledged be on its way out.
const TAKER_PATIENCE: Duration = Duration::from_secs(1);

/// A message on its way to the client.
struct UnderWay {
    message: InboxMessage,
    acknowledged: oneshot::Receiver<()>,
    room: OwnedSemaphorePermit,
}

/// Serves [`crate::api::Request::Recv`].
pub(super) async fn recv(
    node: &MeshNode,
    count: Option<u64>,
    wait: bool,
    keep: bool,
    replies: &ReplyTx,
) -> Result<(), ApiError> {
    let taker = if keep { None } else { Some(next_taker(node).await?) };
    let names = Names::of(node).await?;
    let (under_way, delivered) = mpsc::unbounded_channel();
    // A task of its own: this future ends with its client.
    let mut remover = tokio::spawn(remove_acknowledged(node.clone(), taker, delivered));
    let delivered = deliver(node, &names, count, wait, replies, under_way, &mut remover).await;
    // Whatever ended it: those that are under way are acknowledged or not.
    let removed = ended(remover.await);
    delivered.and(removed)
}

async fn next_taker(node: &MeshNode) -> Result<Taker, ApiError> {
    let taker = tokio::time::timeout(TAKER_PATIENCE, node.next_taker()).await;
    taker.map_err(|_| ApiError::failed("another `qpc recv` takes messages from this node; end it first"))
}

fn ended(end: Result<Result<(), MeshError>, tokio::task::JoinError>) -> Result<(), ApiError> {
    end.map_err(failed)?.map_err(failed)
}

async fn deliver(
    node: &MeshNode,
    names: &Names,
    count: Option<u64>,
    wait: bool,
    replies: &ReplyTx,
    under_way: mpsc::UnboundedSender<UnderWay>,
    remover: &mut JoinHandle<Result<(), MeshError>>,
) -> Result<(), ApiError> {
    let window = Arc::new(Semaphore::new(WINDOW_KIB as usize));
    let mut grown = node.0.inbox_grown.clone();
    let (mut after, mut left) = (None, count.unwrap_or(u64::MAX));
    while left > 0 {
        grown.mark_unchanged();
        let (messages, next) = node.inbox(after).await.map_err(failed)?;
        let is_end = messages.is_empty() && next.is_none();
        for message in messages {
            if left == 0 {
                break;
            }
            let kib = u32::try_from(message.size().div_ceil(1024)).unwrap_or(u32::MAX);
            let room = window.clone().acquire_many_owned(kib.clamp(MESSAGE_KIB_MIN, WINDOW_KIB)).await;
            let content = node.content(&message).await.map_err(failed)?;
            let acknowledged = replies.post(names.item(&message), content).await?;
            after = Some(message.seq);
            left = left.saturating_sub(1);
            let Ok(room) = room else { return Ok(()) };
            if under_way.send(UnderWay { message, acknowledged, room }).is_err() {
                // It failed, and says why.
                return Ok(());
            }
        }
        after = next.or(after);
        if is_end && !wait {
            return Ok(());
        }
        if is_end {
            tokio::select! {
                grown = grown.changed() => grown.map_err(|_| failed(MeshError::Stopped("delivery")))?,
                () = replies.closed() => return Ok(()),
            }
        }
        if remover.is_finished() {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes what was acknowledged out of the inbox until there is no more to come; leaves all where nobody
/// has the right to.
async fn remove_acknowledged(
    node: MeshNode,
    taker: Option<Taker>,
    mut delivered: mpsc::UnboundedReceiver<UnderWay>,
) -> Result<(), MeshError> {
    let mut first = delivered.recv().await;
    while let Some(mut waiting) = first.take() {
        let mut acknowledged = Vec::new();
        let mut room = Vec::new();
        if (&mut waiting.acknowledged).await.is_ok() {
            acknowledged.push(waiting.message);
            room.push(waiting.room);
        }
        // And those behind it that are acknowledged by now.
        while let Ok(mut next) = delivered.try_recv() {
            match next.acknowledged.try_recv() {
                Ok(()) => {
                    acknowledged.push(next.message);
                    room.push(next.room);
                }
                Err(oneshot::error::TryRecvError::Empty) => {
                    first = Some(next);
                    break;
                }
                // The client is gone.
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
        }
        if taker.is_some() && !acknowledged.is_empty() {
            node.remove_messages(&acknowledged).await?;
        }
        drop(room);
        if first.is_none() {
            first = delivered.recv().await;
        }
    }
    Ok(())
}
