//! Mailbox capacities, and what a sender does when a mailbox is full.
//!
//! Capacities are set in the create closure (`ctx.set_mailbox_capacity` there: in `started` it is
//! too late for an early burst, and zero would mean unbounded). They are a second line: what is in
//! flight is bounded by permits and byte-bounded queues, so a mailbox that fills up says that
//! something is wrong, and the sender's policy says what becomes of the message:
//!
//! | class   | full or vacant              | function                 |
//! |---------|-----------------------------|--------------------------|
//! | Control | kept in a bounded queue     | [`Control::offer`]       |
//! | Data    | handed back, to the store   | [`Outlet::offer`]        |
//! | Gossip  | dropped and counted         | [`Outlet::offer_gossip`] |
//!
//! Lifecycle messages use `do_send`: they have to arrive, and the number of children bounds them.
//!
//! **Seats.** An actor that is restarted has a new address. Whoever sends to it holds an
//! [`Outlet`] of its [`Seat`] instead of a bare `Recipient`: the factory publishes each new
//! incarnation into the seat, and the outlet picks it up at the next send (one atomic load when
//! nothing changed). An outlet keeps one long-lived `Recipient`, because each fresh clone of one
//! brings a free slot in the mailbox along and would make the capacity meaningless.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::{MailboxError, Message, Recipient, SendError};

use crate::telemetry;

/// A supervisor: starts of dynamic children arrive as fast as links come up; a burst of them is
/// bounded by the dial and accept concurrency.
pub const SUPERVISOR: usize = 256;

/// The health actor: a dozen subsystems report every two seconds.
pub const HEALTH: usize = 64;

/// The router: batches, not messages. Links hold permits for what they have in flight.
pub const ROUTER: usize = 1024;

/// The store: requests of one commit interval from router, outbox and control socket.
pub const STORE: usize = 1024;

/// Delivery: batches from the router, commits from the store, requests of handles.
pub const DELIVERY: usize = 1024;

/// The rate limiter: lease requests, a few a second from each link.
pub const RATE_LIMITER: usize = 256;

/// Periodic work: timers and rare commands.
pub const MAINTENANCE: usize = 64;

/// Discovery: lifecycle; what it hears comes from its own sockets, which the system bounds.
pub const DISCOVERY: usize = 64;

/// One link: batches from the router and control of its own.
pub const TRANSPORT: usize = 256;

/// One listener: accepted links and lifecycle.
pub const LISTENER: usize = 64;

/// Where the current incarnation of an actor can be reached. Cheap to clone; all clones are one
/// seat.
pub struct Seat<M: Message + Send>
where
    M::Result: Send,
{
    shared: Arc<Shared<M>>,
}

struct Shared<M: Message + Send>
where
    M::Result: Send,
{
    /// Grows with each publication. Written under the lock, read without it.
    version: AtomicU64,
    current: Mutex<Option<Recipient<M>>>,
}

impl<M> Seat<M>
where
    M: Message + Send,
    M::Result: Send,
{
    /// A seat that nobody holds yet.
    pub fn vacant() -> Self {
        Self { shared: Arc::new(Shared { version: AtomicU64::new(0), current: Mutex::new(None) }) }
    }

    /// A seat that is held from the start: for tests and for actors that are never restarted.
    pub fn held_by(recipient: Recipient<M>) -> Self {
        let seat = Self::vacant();
        seat.publish(recipient);
        seat
    }

    /// Whoever is behind `recipient` holds the seat from now on.
    pub fn publish(&self, recipient: Recipient<M>) {
        // A poisoned lock is taken over: the value is replaced whole, never half.
        let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(recipient);
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// One sender's way to the seat.
    pub fn outlet(&self) -> Outlet<M> {
        Outlet { seat: self.clone(), seen: 0, recipient: None }
    }
}

impl<M> Clone for Seat<M>
where
    M: Message + Send,
    M::Result: Send,
{
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for Seat<M>
where
    M: Message + Send,
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.shared.version.load(Ordering::Relaxed);
        f.debug_struct("Seat")
            .field("message", &std::any::type_name::<M>())
            .field("version", &version)
            .finish()
    }
}

/// Why a message was handed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The mailbox is full.
    Full,
    /// Nobody holds the seat: the actor is being restarted, or was never started.
    Vacant,
}

/// A message that did not fit, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedBack<M> {
    /// The message, untouched.
    pub message: M,
    /// Why.
    pub refusal: Refusal,
}

/// One sender's long-lived way to a [`Seat`]. Owned by the sender, one each.
pub struct Outlet<M>
where
    M: Message + Send,
    M::Result: Send,
{
    seat: Seat<M>,
    seen: u64,
    recipient: Option<Recipient<M>>,
}

impl<M> Outlet<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    /// Another sender's way to the same seat.
    pub fn again(&self) -> Self {
        self.seat.outlet()
    }

    /// Sends without waiting. What does not fit comes back: the policy of data, whose sender puts
    /// it into custody or refuses it.
    pub fn offer(&mut self, message: M) -> Result<(), HandedBack<M>> {
        self.refresh();
        let Some(recipient) = &self.recipient else {
            return Err(HandedBack { message, refusal: Refusal::Vacant });
        };
        recipient.try_send(message).map_err(|error| match error {
            SendError::Full(message) => HandedBack { message, refusal: Refusal::Full },
            SendError::Closed(message) => HandedBack { message, refusal: Refusal::Vacant },
        })
    }

    /// Sends without waiting; what does not fit is dropped and counted under `mailbox`. For
    /// gossip and reports, of which the next replaces the lost one. True when it was sent.
    pub fn offer_gossip(&mut self, mailbox: &'static str, message: M) -> bool {
        let sent = self.offer(message).is_ok();
        if !sent {
            metrics::counter!(telemetry::MAILBOX_DROPPED, "mailbox" => mailbox).increment(1);
        }
        sent
    }

    /// Sends past the capacity: lifecycle messages only. Lost when the seat is vacant.
    pub fn do_send(&mut self, message: M) {
        self.refresh();
        if let Some(recipient) = &self.recipient {
            recipient.do_send(message);
        }
    }

    /// Asks and waits for the answer: down the tree only, so that no two actors wait for each
    /// other. Dropping the future takes back a question not yet read.
    pub fn request(&mut self, message: M) -> impl Future<Output = Result<M::Result, MailboxError>> + use<M> {
        self.refresh();
        let request = self.recipient.as_ref().map(|recipient| recipient.send(message));
        async move {
            match request {
                Some(request) => request.await,
                None => Err(MailboxError::Closed),
            }
        }
    }

    fn refresh(&mut self) {
        if self.seat.shared.version.load(Ordering::Acquire) == self.seen {
            return;
        }
        let current = self.seat.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.seen = self.seat.shared.version.load(Ordering::Acquire);
        self.recipient = current.clone();
    }
}

impl<M> fmt::Debug for Outlet<M>
where
    M: Message + Send,
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("seat", &self.seat).finish_non_exhaustive()
    }
}

/// An outlet for control messages: what does not fit waits here, in order, up to a bound.
#[derive(Debug)]
pub struct Control<M>
where
    M: Message + Send,
    M::Result: Send,
{
    outlet: Outlet<M>,
    waiting: VecDeque<M>,
    waiting_max: usize,
}

impl<M> Control<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    /// At most `waiting_max` messages wait.
    pub fn new(seat: &Seat<M>, waiting_max: usize) -> Self {
        Self { outlet: seat.outlet(), waiting: VecDeque::new(), waiting_max }
    }

    /// Sends, or keeps the message until [`flush`](Self::flush). Comes back when the queue is full
    /// as well: then the conversation is to be given up, since control is never dropped silently.
    pub fn offer(&mut self, message: M) -> Result<(), HandedBack<M>> {
        self.flush();
        let refused = match self.waiting.is_empty() {
            true => match self.outlet.offer(message) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            },
            // Behind those who wait: order is kept.
            false => HandedBack { message, refusal: Refusal::Full },
        };
        if self.waiting.len() >= self.waiting_max {
            return Err(refused);
        }
        self.waiting.push_back(refused.message);
        Ok(())
    }

    /// Sends what waits, as far as it fits; how many still wait. Call it on a timer while it is
    /// not zero: an actix mailbox does not say when it has room again.
    pub fn flush(&mut self) -> usize {
        while let Some(message) = self.waiting.pop_front() {
            if let Err(refused) = self.outlet.offer(message) {
                self.waiting.push_front(refused.message);
                break;
            }
        }
        self.waiting.len()
    }
}
