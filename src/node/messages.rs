//! Messages as a stream, for a program that takes them one after the other.
//!
//! What the stream gives out stays in the inbox until the program acknowledges it, so that nothing is
//! lost to a crash between the two: the next stream, in this process or a later one, begins with it.
//! It does not wait for the acknowledgement of one before it gives out the next; contents are read when
//! they are asked for, one at a time.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;

use super::{InboxMessage, MeshNode, Taker};
use crate::{error::MeshError, storage::StoreError};

/// A message that a stream gave out, with its content. It is in the inbox until [`Received::ack`].
#[derive(Debug, Clone)]
#[must_use = "it comes again until it is acknowledged"]
pub struct Received {
    node: MeshNode,
    message: InboxMessage,
    content: Bytes,
}

impl Received {
    /// Who sent it, when, and what it is.
    pub fn message(&self) -> &InboxMessage {
        &self.message
    }

    /// Its content, at most [`crate::wire::limits::CONTENT_BYTES_MAX`] bytes.
    pub fn content(&self) -> &Bytes {
        &self.content
    }

    /// Takes the message out of the inbox; on the disk when this returns. Call it when whatever the
    /// message is for is done and durable: one that is not acknowledged comes again.
    ///
    /// # Errors
    /// The store, or the node stopped: it comes again.
    pub async fn ack(&self) -> Result<(), MeshError> {
        self.node.remove_message(&self.message).await.map(drop)
    }
}

/// What follows, and the stream's state for the step after it.
type Step = (Option<Result<Received, MeshError>>, State);

/// Messages in the order of their arrival, from [`MeshNode::messages`]. Ends when the node has stopped.
///
/// One that cannot be read (its file is damaged) is an error in its place and stays in the inbox; the
/// stream goes on behind it.
pub struct Messages {
    /// None when it has ended.
    step: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("has_ended", &self.step.is_none()).finish()
    }
}

impl Stream for Messages {
    type Item = Result<Received, MeshError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(step) = self.step.as_mut() else { return Poll::Ready(None) };
        let (item, state) = std::task::ready!(step.as_mut().poll(cx));
        self.step = item.as_ref().map(|_| state.next());
        Poll::Ready(item)
    }
}

struct State {
    node: MeshNode,
    _taker: Taker,
    grown: watch::Receiver<u64>,
    /// Behind the last one read from the inbox.
    after: Option<u64>,
    /// Read and not given out.
    page: VecDeque<InboxMessage>,
}

impl State {
    fn next(mut self) -> Pin<Box<dyn Future<Output = Step> + Send>> {
        Box::pin(async move {
            let item = match self.message().await {
                Ok(Some(message)) => Some(self.read(message).await),
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            };
            (item, self)
        })
    }

    /// The next message; none when no more will come.
    async fn message(&mut self) -> Result<Option<InboxMessage>, MeshError> {
        loop {
            if let Some(message) = self.page.pop_front() {
                return Ok(Some(message));
            }
            self.grown.mark_unchanged();
            let (page, next) = match self.node.inbox(self.after).await {
                // The last thing that happens in a drain.
                Err(MeshError::Store(StoreError::Stopped)) => return Ok(None),
                read => read?,
            };
            self.after = page.last().map(|message| message.seq).max(next).or(self.after);
            let is_end = page.is_empty() && next.is_none();
            self.page = page.into();
            if is_end && self.grown.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    async fn read(&self, message: InboxMessage) -> Result<Received, MeshError> {
        let content = self.node.content(&message).await?;
        Ok(Received { node: self.node.clone(), message, content })
    }
}

impl MeshNode {
    /// Messages as they arrive, those first that are here already. Each stays in the inbox until
    /// [`Received::ack`].
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    ///
    /// # async fn read(node: quicprochat_mesh::MeshNode) -> Result<(), quicprochat_mesh::MeshError> {
    /// let mut messages = node.messages()?;
    /// while let Some(received) = messages.next().await {
    ///     let received = received?;
    ///     println!("{} bytes from {}", received.content().len(), received.message().from());
    ///     received.ack().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MeshError::InboxTaken`] while another stream, or a `qpc recv`, takes messages from this node.
    pub fn messages(&self) -> Result<Messages, MeshError> {
        let taker = self.taker().ok_or(MeshError::InboxTaken)?;
        let state = State {
            node: self.clone(),
            _taker: taker,
            grown: self.0.inbox_grown.clone(),
            after: None,
            page: VecDeque::new(),
        };
        Ok(Messages { step: Some(state.next()) })
    }
}
