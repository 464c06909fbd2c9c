//! What one link may still cost, as its reader spends it: leases of the rate limiter.

use std::time::Duration;

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::mailbox::Outlet;
use crate::{
    clock,
    messages::limit::{Budget, RequestLease},
    proto::lease::{Allowance, Cost, Grant, Payer},
};

/// How long frames in hand wait for a lease. After that they are refused, so that what is behind
/// them, a ping among it, is looked at before the peer takes us for dead.
const PATIENCE: Duration = Duration::from_secs(1);

/// Wait for a limiter that does not answer: it is being restarted, or its mailbox is full.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// No lease came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// When another try makes sense, in seconds.
    pub(super) retry_after_s: u16,
}

/// The purse of one reader.
pub(super) struct Spender {
    payer: Payer,
    limiter: Outlet<RequestLease>,
    data: Allowance,
    checks: Allowance,
    /// The next lease, asked for before the last one was spent.
    renewal: Option<oneshot::Receiver<Grant>>,
}

impl Spender {
    pub(super) fn new(payer: Payer, limiter: Outlet<RequestLease>) -> Self {
        let now = clock::now();
        let (data, checks) = (Allowance::new(now), Allowance::new(now));
        Self { payer, limiter, data, checks, renewal: None }
    }

    /// Pays for frames that were read. Until there is a lease for them nothing more is read.
    ///
    /// # Errors
    /// No lease within [`PATIENCE`]; nothing was spent.
    pub(super) async fn pay(&mut self, cost: Cost) -> Result<(), Refused> {
        self.take_renewal();
        if !self.data.spend(clock::now(), cost) {
            self.wait_for(cost).await?;
        }
        if self.renewal.is_none() && self.data.runs_low() {
            self.renewal = self.ask(Budget::Data(Cost::default()));
        }
        Ok(())
    }

    /// True where an announce, a key record or an unknown key may be looked into.
    pub(super) async fn may_check(&mut self) -> bool {
        let one = Cost { messages: 1, bytes: 0 };
        let now = clock::now();
        if self.checks.spend(now, one) {
            return true;
        }
        if !self.checks.may_ask(now) {
            return false;
        }
        match self.answer(Budget::Checks).await {
            Some(Grant::Lease(lease)) => {
                let now = clock::now();
                self.checks.add(now, lease);
                self.checks.spend(now, one)
            }
            Some(Grant::Wait(wait)) => {
                self.checks.run_dry(clock::now(), wait);
                false
            }
            None => false,
        }
    }

    /// Something did not verify: true where that is forgiven. While the limiter is away it is.
    pub(super) async fn is_forgiven(&mut self) -> bool {
        !matches!(self.answer(Budget::Fault).await, Some(Grant::Wait(_)))
    }

    /// True where a message of priority critical and so many bytes goes ahead of others.
    pub(super) fn may_be_critical(&mut self, bytes: usize) -> bool {
        self.data.spend_critical(bytes as u64)
    }

    async fn wait_for(&mut self, cost: Cost) -> Result<(), Refused> {
        let until = clock::now() + PATIENCE;
        loop {
            let wait = match self.answer(Budget::Data(cost)).await {
                Some(Grant::Lease(lease)) => {
                    let now = clock::now();
                    self.data.add(now, lease);
                    // What one question can need is bounded; a batch beyond it is paid in part.
                    self.data.spend(now, cost.min(lease.room));
                    return Ok(());
                }
                Some(Grant::Wait(wait)) => wait,
                None => ASK_AGAIN,
            };
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                let retry_after_s = u16::try_from(wait.as_secs().saturating_add(1)).unwrap_or(u16::MAX);
                return Err(Refused { retry_after_s });
            }
            tokio::time::sleep(wait.min(left)).await;
        }
    }

    fn take_renewal(&mut self) {
        let Some(renewal) = &mut self.renewal else { return };
        match renewal.try_recv() {
            Ok(Grant::Lease(lease)) => {
                self.data.add(clock::now(), lease);
                self.renewal = None;
            }
            Ok(Grant::Wait(_)) | Err(TryRecvError::Closed) => self.renewal = None,
            Err(TryRecvError::Empty) => {}
        }
    }

    async fn answer(&mut self, budget: Budget) -> Option<Grant> {
        self.ask(budget)?.await.ok()
    }

    fn ask(&mut self, budget: Budget) -> Option<oneshot::Receiver<Grant>> {
        let (answer, answered) = oneshot::channel();
        let ask = RequestLease { payer: self.payer, budget, answer };
        self.limiter.offer(ask).is_ok().then_some(answered)
    }
}
