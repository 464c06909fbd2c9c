//! The seam between the control socket and the node: who serves a request, and how it answers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::api::{ApiError, Reply, Request};

/// Replies waiting to be written to one client. A slow client holds its own request back, and
/// nothing else.
const REPLIES_QUEUED_MAX: usize = 8;

/// Something that serves requests: the node, or a fake in tests.
///
/// Runs on plain tokio; an implementation that talks to actors holds their `Recipient`s. The
/// returned future is dropped at any await point when the client goes away, so what must not
/// stop half-way (a store transaction) belongs to whoever is awaited, not into this future.
pub trait Service: Send + Sync + 'static {
    /// Serves one request: answers through `replies`, in the order that [`Request`] documents, and
    /// returns when there is nothing more to say. `payload` is empty unless
    /// [`Request::takes_payload`]; its memory counts against the socket's budget until dropped.
    ///
    /// # Errors
    /// What the client prints and exits with. Replies sent before stay sent.
    fn call(
        self: Arc<Self>,
        request: Request,
        payload: Bytes,
        replies: ReplyTx,
    ) -> BoxFuture<'static, Result<(), ApiError>>;
}

/// The client is gone. Its request is about to be cancelled; return the error with `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client went away")]
pub struct ClientGone;

impl From<ClientGone> for ApiError {
    fn from(gone: ClientGone) -> Self {
        ApiError::failed(gone)
    }
}

/// Answers one client. Clones answer the same one.
#[derive(Debug, Clone)]
pub struct ReplyTx(mpsc::Sender<Outgoing>);

/// The other end of [`ReplyTx`]: what a service said, in order.
pub type ReplyRx = mpsc::Receiver<Outgoing>;

/// One reply on its way to the client.
#[derive(Debug)]
pub struct Outgoing {
    /// The object.
    pub reply: Reply,
    /// Raw bytes that follow it.
    pub payload: Bytes,
    /// Told when the client has acknowledged the reply; none where nobody waits for that.
    pub acknowledged: Option<oneshot::Sender<()>>,
}

/// A pair to answer through and to listen on.
pub fn reply_channel() -> (ReplyTx, ReplyRx) {
    let (tx, rx) = mpsc::channel(REPLIES_QUEUED_MAX);
    (ReplyTx(tx), rx)
}

impl ReplyTx {
    /// Sends an object. Waits while the client is slow to read.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&self, reply: impl Into<Reply>) -> Result<(), ClientGone> {
        self.put(reply.into(), Bytes::new(), None).await
    }

    /// Sends an object with content that nobody has to acknowledge.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send_with(&self, reply: impl Into<Reply>, payload: Bytes) -> Result<(), ClientGone> {
        self.put(reply.into(), payload, None).await
    }

    /// Sends an object with content and waits until the client says that it has it safe (for
    /// `recv`: that the line is written and flushed). Only then may the original be removed.
    ///
    /// # Errors
    /// The client went away first: it may or may not have what was sent.
    pub async fn deliver(&self, reply: impl Into<Reply>, payload: Bytes) -> Result<(), ClientGone> {
        self.post(reply, payload).await?.await.map_err(|_| ClientGone)
    }

    /// As [`ReplyTx::deliver`], without the wait: several may be under way. What is given resolves when
    /// the client has this one safe, and fails when it went away first.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn post(
        &self,
        reply: impl Into<Reply>,
        payload: Bytes,
    ) -> Result<oneshot::Receiver<()>, ClientGone> {
        let (tx, rx) = oneshot::channel();
        self.put(reply.into(), payload, Some(tx)).await?;
        Ok(rx)
    }

    /// Resolves when the client is gone, for a service that waits for something else.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    async fn put(
        &self,
        reply: Reply,
        payload: Bytes,
        acknowledged: Option<oneshot::Sender<()>>,
    ) -> Result<(), ClientGone> {
        self.0.send(Outgoing { reply, payload, acknowledged }).await.map_err(|_| ClientGone)
    }
}
