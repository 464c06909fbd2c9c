//! End-to-end delivery: what an origin keeps until the destination's signed receipt, and what a
//! destination does with an envelope that is for it.
//!
//! - [`outbox`]: messages on their way out, their windows, timers and retries.
//! - [`record`]: how they, and what has arrived, look on disk.
//! - [`compose`]: envelopes made from them: sealed and numbered.
//! - [`batch`]: one signature for those that leave together.
//! - [`inbound`]: an envelope for this node, opened and classified.
//! - [`receipts`]: what sources are told, gathered.
//! - [`transfer`]: files that arrive in chunks.
//! - [`seal_budget`]: what seals that do not open may cost.
//! - [`shelf`]: what came a moment before the one that it follows.
//! - [`turns`]: which of what has arrived waits for what was sent before it.
//! - [`uids`]: what messages are called.
//! - [`welcome`]: who may reach the person at this node.
//! - [`history`]: what became of a message, for people who ask.
//!
//! None of it knows a socket, a disk or a clock; `actors::delivery` carries the effects out.

pub mod batch;
pub mod compose;
pub mod history;
pub mod inbound;
pub mod outbox;
pub mod receipts;
pub mod record;
pub mod seal_budget;
pub mod shelf;
pub mod transfer;
pub mod turns;
pub mod uids;
pub mod welcome;
