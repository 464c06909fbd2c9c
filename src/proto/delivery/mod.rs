//! End-to-end delivery: what an origin keeps until the destination's signed receipt, and what a
//! destination does with an envelope that is for it.
//!
//! - [`outbox`]: messages on their way out, their windows, timers and retries.
//! - [`record`]: how they, and what has arrived, look on disk.
//! - [`compose`]: envelopes made from them: sealed, signed, numbered.
//! - [`inbound`]: an envelope for this node, opened and classified.
//! - [`transfer`]: files that arrive in chunks.
//!
//! None of it knows a socket, a disk or a clock; `actors::delivery` carries the effects out.

pub mod compose;
pub mod inbound;
pub mod outbox;
pub mod record;
pub mod transfer;
