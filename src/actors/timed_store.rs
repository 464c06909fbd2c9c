//! Stores that tell the pressure gauge how long they take.

use crate::{
    clock,
    storage::{Completion, HandedBack, LocalOp, LocalOutcome, LocalStore, MailOp, MailOutcome, Mailboxes},
};

use super::rate_limiter::PressureGauge;

/// A store and the gauge that hears of each of its answers.
#[derive(Debug, Clone)]
pub struct TimedStore<S> {
    store: S,
    gauge: PressureGauge,
}

impl<S> TimedStore<S> {
    /// Measures `store`.
    pub fn new(store: S, gauge: PressureGauge) -> Self {
        Self { store, gauge }
    }

    /// The same completion, timed from here on.
    fn timed<T: 'static>(&self, done: Completion<T>) -> Completion<T> {
        let (since, gauge) = (clock::now(), self.gauge.clone());
        Box::new(move |answer| {
            gauge.store_took(clock::now().saturating_duration_since(since));
            done(answer);
        })
    }
}

impl<S: LocalStore> LocalStore for TimedStore<S> {
    fn submit(
        &self,
        ops: Vec<LocalOp>,
        done: Completion<LocalOutcome>,
    ) -> Result<(), HandedBack<LocalOp, LocalOutcome>> {
        self.store.submit(ops, self.timed(done))
    }

    fn boot_epoch(&self) -> u32 {
        self.store.boot_epoch()
    }
}

impl<S: Mailboxes> Mailboxes for TimedStore<S> {
    fn submit(
        &self,
        ops: Vec<MailOp>,
        done: Completion<MailOutcome>,
    ) -> Result<(), HandedBack<MailOp, MailOutcome>> {
        self.store.submit(ops, self.timed(done))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::MemStore;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_long_is_heard_of() {
        let (gauge, store) = (PressureGauge::default(), MemStore::default());
        let timed = TimedStore::new(store.clone(), gauge.clone());
        store.hold_completions();
        let sent = LocalStore::submit(&timed, Vec::new(), Box::new(|_| {}));
        assert!(sent.is_ok());
        tokio::time::sleep(Duration::from_secs(3)).await;
        store.release();
        assert!(gauge.look().store_latency >= Duration::from_secs(3));
        assert_eq!(gauge.look().store_latency, Duration::ZERO, "each look begins anew");
    }
}
