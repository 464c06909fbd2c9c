//! An answer that another thread gives, straight to who asked.
//!
//! A handler that returns a future has it run as one more task, and who asked waits for two turns of the
//! loop: that task's and its own. This one is given where the answer is known.

use std::sync::{Arc, Mutex, PoisonError};

use actix::{
    Actor, Message,
    dev::{MessageResponse, OneshotSender},
};

/// What a handler returns and whoever finds the answer keeps a clone of. Where all clones are dropped
/// without an answer, who asked hears that the mailbox is closed.
#[derive(Debug)]
pub struct LateAnswer<T>(Arc<Mutex<Slot<T>>>);

#[derive(Debug)]
enum Slot<T> {
    /// Neither has come.
    Empty,
    Asked(OneshotSender<T>),
    Answered(T),
    /// Both have.
    Done,
}

impl<T> Default for LateAnswer<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> LateAnswer<T> {
    /// Neither asked nor answered.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Slot::Empty)))
    }

    /// Answers; a second answer is dropped.
    pub fn give(&self, answer: T) {
        self.with(|slot| match std::mem::replace(slot, Slot::Done) {
            Slot::Empty => *slot = Slot::Answered(answer),
            // Who asked may have gone.
            Slot::Asked(asker) => drop(asker.send(answer)),
            Slot::Answered(first) => *slot = Slot::Answered(first),
            Slot::Done => {}
        });
    }

    fn ask(&self, asker: OneshotSender<T>) {
        self.with(|slot| match std::mem::replace(slot, Slot::Done) {
            Slot::Answered(answer) => drop(asker.send(answer)),
            _ => *slot = Slot::Asked(asker),
        });
    }

    fn with(&self, act: impl FnOnce(&mut Slot<T>)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<T> Clone for LateAnswer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A, M> MessageResponse<A, M> for LateAnswer<M::Result>
where
    A: Actor,
    M: Message,
{
    fn handle(self, _: &mut A::Context, tx: Option<OneshotSender<M::Result>>) {
        // Who only tells waits for no answer.
        if let Some(asker) = tx {
            self.ask(asker);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn whichever_comes_first_the_answer_arrives_once() {
        let late = LateAnswer::new();
        let (tx, mut rx) = oneshot::channel();
        late.ask(tx);
        assert!(rx.try_recv().is_err());
        late.give(1);
        late.give(2);
        assert_eq!(rx.try_recv(), Ok(1));

        let late = LateAnswer::new();
        late.give(1);
        late.give(2);
        let (tx, mut rx) = oneshot::channel();
        late.ask(tx);
        assert_eq!(rx.try_recv(), Ok(1));
    }

    #[test]
    fn no_answer_ends_the_question() {
        let late = LateAnswer::<u8>::new();
        let (tx, mut rx) = oneshot::channel();
        late.ask(tx);
        drop(late.clone());
        assert_eq!(rx.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(late);
        assert_eq!(rx.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
