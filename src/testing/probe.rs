//! An actor that hands every message to the test.

use std::future::pending;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::{Actor, AsyncContext, Context, Handler, Message, MessageResult, Recipient};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Receives any `M`, hands a copy of its content to the test, answers as it was told.
pub struct Probe<M: Message> {
    seen: UnboundedSender<M>,
    answer: AnswerFn<M>,
}

type AnswerFn<M> = Box<dyn FnMut(&M) -> <M as Message>::Result>;

impl<M> Probe<M>
where
    M: Message<Result = ()> + Send + Unpin + 'static,
{
    /// A probe for messages without an answer.
    pub fn start() -> (Recipient<M>, UnboundedReceiver<M>) {
        Self::answering(|_| ())
    }

    /// A probe that never reads its mailbox of the given capacity. A sender's first message always
    /// fits on top of the capacity: each sender has a slot of its own.
    pub fn deaf(capacity: usize) -> Recipient<M> {
        let (seen, _) = unbounded_channel();
        let addr = Self::create(move |ctx| {
            ctx.set_mailbox_capacity(capacity);
            ctx.wait(wrap_future::<_, Self>(pending::<()>()));
            Self { seen, answer: Box::new(|_| ()) }
        });
        addr.recipient()
    }
}

impl<M> Probe<M>
where
    M: Message + Send + Unpin + 'static,
    M::Result: Send + 'static,
{
    /// A probe that answers with what `answer` makes of the message.
    pub fn answering(answer: impl FnMut(&M) -> M::Result + 'static) -> (Recipient<M>, UnboundedReceiver<M>) {
        let (seen, received) = unbounded_channel();
        let addr = Self::create(move |ctx| {
            ctx.set_mailbox_capacity(1024);
            Self { seen, answer: Box::new(answer) }
        });
        (addr.recipient(), received)
    }
}

impl<M> Actor for Probe<M>
where
    M: Message + Unpin + 'static,
{
    type Context = Context<Self>;
}

impl<M> Handler<M> for Probe<M>
where
    M: Message + Unpin + 'static,
    M::Result: 'static,
{
    type Result = MessageResult<M>;

    fn handle(&mut self, message: M, _: &mut Self::Context) -> Self::Result {
        let answer = (self.answer)(&message);
        // The test may have dropped its end: it has seen enough.
        let _ = self.seen.send(message);
        MessageResult(answer)
    }
}

/// The next message.
///
/// # Panics
/// When none comes within `within`, or all senders are gone.
pub async fn expect_within<T>(received: &mut UnboundedReceiver<T>, within: Duration) -> T {
    let name = std::any::type_name::<T>();
    match tokio::time::timeout(within, received.recv()).await {
        Ok(Some(message)) => message,
        Ok(None) => panic!("waited for {name}, and every sender is gone"),
        Err(_) => panic!("waited {within:?} for {name}"),
    }
}

/// Makes sure that nothing comes for `during`.
///
/// # Panics
/// When something does.
pub async fn expect_silence<T>(received: &mut UnboundedReceiver<T>, during: Duration) {
    let name = std::any::type_name::<T>();
    if let Ok(Some(_)) = tokio::time::timeout(during, received.recv()).await {
        panic!("expected silence for {during:?} and got {name}");
    }
}
