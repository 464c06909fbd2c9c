//! Conversations with the rate limiter.

use tokio::sync::oneshot;

use super::message;
use crate::proto::lease::{Cost, Grant, Payer};

/// Link to rate limiter: what may this neighbour still cost? The answer comes at once; when the
/// limiter is gone the sender's half is dropped, and the link asks its successor.
#[derive(Debug)]
pub struct RequestLease {
    /// Whose budgets.
    pub payer: Payer,
    /// Of which kind.
    pub budget: Budget,
    /// Takes the answer.
    pub answer: oneshot::Sender<Grant>,
}
message!(RequestLease => ());

/// The kinds of budgets of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Frames to read: at least so much.
    Data(Cost),
    /// Announces, key records and unknown keys to look into; counted in messages.
    Checks,
    /// Something that did not verify; an empty lease says that it is forgiven.
    Fault,
}
