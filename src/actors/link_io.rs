//! The two tasks of a link: one reads, decodes and verifies, one writes.
//!
//! The reader is where signatures are checked, so that the router never waits for one. It yields
//! every few signatures and stops reading when too many of its envelopes are in flight; what it
//! reads it never waits to send on. What it reads it pays for out of leases, and reads no more
//! while it has none; it refuses what the node is too pressed to take. The writer takes whatever the queues hold, most urgent class
//! first, and hands it to the medium in one piece.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::WeakRecipient;
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::{
    link_egress::SharedEgress,
    link_lease::{Refused, Spender},
    mailbox::Outlet,
    rate_limiter::PressureGauge,
};
use crate::{
    clock,
    messages::{
        limit::RequestLease,
        link::{AnnounceVerified, EnvelopesVerified, LinkControl, NeighbourControl, Permit},
        message,
    },
    proto::{
        credit,
        lease::{Cost, NEED_MAX, Payer},
        pressure,
        verify::{
            CheckShare, HeldForKey, Hold, InboundEnvelope, Verified, Verifier, VerifyError, VerifyOutcome,
        },
    },
    telemetry,
    transport::{CloseCode, LinkReceiver, LinkSender, RECV_FRAMES_MAX, TransportError},
    wire::{
        Address, Announce, DecodeError, Envelope, Frame, FrameExt, FrameParts, LinkId, PacketId, Priority,
        TrafficClass,
        control::{Refuse, RefuseReason},
        handshake::CloseReason,
    },
};

/// How long a reader goes on before other tasks of its thread get their turn: two signatures. A
/// message on its way through the node waits for a busy reader at each of half a dozen steps.
const TURN: Duration = Duration::from_micros(100);

/// Envelopes of one link that may be on their way through the router.
pub const IN_FLIGHT_MAX: u32 = 1024;

/// Frames kept until the peer's hello was accepted: on QUIC a data stream may overtake it.
const EARLY_FRAMES_MAX: usize = 64;

/// A reader hands over no more at once than one lease can cover.
const _: () = assert!((RECV_FRAMES_MAX + EARLY_FRAMES_MAX) as u64 <= NEED_MAX.messages);

/// What a link's tasks counted, for `qpc peers`.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// Frames written.
    pub tx_frames: std::sync::atomic::AtomicU64,
    /// Frames read.
    pub rx_frames: std::sync::atomic::AtomicU64,
    /// Bytes written.
    pub tx_bytes: std::sync::atomic::AtomicU64,
    /// Bytes read.
    pub rx_bytes: std::sync::atomic::AtomicU64,
}

/// Frames and bytes of one transport in one direction. Finding a metric by its name costs more than
/// counting, and at one frame a wake-up there is a count a frame, so each task finds its own once.
struct Meter {
    frames: metrics::Counter,
    bytes: metrics::Counter,
}

impl Meter {
    fn new(transport: &'static str, direction: &'static str) -> Self {
        Self {
            frames: metrics::counter!(telemetry::FRAMES, "transport" => transport, "direction" => direction),
            bytes: metrics::counter!(telemetry::BYTES, "transport" => transport, "direction" => direction),
        }
    }

    fn count(&self, frames: usize, bytes: usize) {
        self.frames.increment(frames as u64);
        self.bytes.increment(bytes as u64);
    }
}

/// Reader to its actor: frames about the link itself, and frames that could not be read.
#[derive(Debug)]
pub struct LinkFrames {
    /// Hello, ping, pong, credit, goodbye.
    pub frames: Vec<Frame>,
    /// What could not be read.
    pub undecodable: Vec<DecodeError>,
}
message!(LinkFrames => ());

/// Reader or writer to its actor: the medium is gone.
#[derive(Debug)]
pub struct MediumClosed(pub TransportError);
message!(MediumClosed => ());

/// Reader to its actor: the peer spent its budget of faults.
#[derive(Debug)]
pub struct TooManyFaults(pub &'static str);
message!(TooManyFaults => ());

/// Where a reader sends what it read.
pub struct ReaderOutlets {
    /// To the link's actor.
    pub frames: WeakRecipient<LinkFrames>,
    /// To the link's actor.
    pub faults: WeakRecipient<TooManyFaults>,
    /// To the link's actor.
    pub closed: WeakRecipient<MediumClosed>,
    /// To the router.
    pub envelopes: Outlet<EnvelopesVerified>,
    /// To the router.
    pub announces: Outlet<AnnounceVerified>,
    /// To the router.
    pub control: Outlet<LinkControl>,
    /// To the rate limiter.
    pub lease: Outlet<RequestLease>,
}

/// Reads, decodes and verifies until the medium ends.
pub struct Reader {
    /// The link.
    pub link: LinkId,
    /// Whose budgets it spends.
    pub payer: Payer,
    /// `quic`, `tcp`, …, for metrics.
    pub transport: &'static str,
    /// The medium.
    pub rx: Box<dyn LinkReceiver>,
    /// Checks signatures.
    pub verifier: Verifier,
    /// To ask the neighbour for keys.
    pub egress: Arc<SharedEgress>,
    /// How pressed the node is.
    pub pressure: PressureGauge,
    /// What was read.
    pub counters: Arc<LinkCounters>,
    /// Where it goes.
    pub outlets: ReaderOutlets,
}

/// What a reader keeps from one batch to the next.
struct Reading {
    held: HeldForKey,
    spender: Spender,
    /// For announces and key records, beside what the neighbour itself may cost.
    share: CheckShare,
    /// Room for envelopes on their way through the router; none where credit bounds them.
    in_flight: Option<Arc<Semaphore>>,
    /// Signatures that were checked, found once as a [`Meter`]'s are.
    checked: metrics::Counter,
    turn: Turn,
}

/// Since when a reader has had its thread for itself.
struct Turn(Instant);

impl Turn {
    /// Lets others go on, where it is their turn.
    async fn or_yield(&mut self) {
        if clock::now().saturating_duration_since(self.0) >= TURN {
            self.end().await;
        }
    }

    async fn end(&mut self) {
        tokio::task::yield_now().await;
        self.0 = clock::now();
    }
}

/// Frames that came to nothing, counted under one name for a whole batch: a neighbour that floods
/// sends tens of thousands a second, and finding a metric costs as much as reading a frame.
#[derive(Default)]
struct Dropped {
    /// By [`reason`].
    undecodable: [u64; 4],
    /// Beyond the budget of checks.
    unchecked: u64,
    /// Without a lease: gossip and questions, and envelopes.
    control: u64,
    data: u64,
}

impl Dropped {
    fn count(&self) {
        let limited = |budget: &'static str, count: u64| {
            if count > 0 {
                metrics::counter!(telemetry::RATE_LIMITED, "budget" => budget).increment(count);
            }
        };
        limited("announce", self.unchecked);
        limited("control", self.control);
        limited("data", self.data);
        for (reason, count) in REASONS.into_iter().zip(self.undecodable) {
            if count > 0 {
                metrics::counter!(telemetry::DECODE_ERRORS, "reason" => reason).increment(count);
            }
        }
    }
}

/// One batch on its way through the reader.
#[derive(Default)]
struct Batch {
    verified: Vec<Verified<InboundEnvelope>>,
    /// Bytes of each class that came, as credit counts them.
    came: [u64; 3],
    /// Of those, what is in `verified`.
    kept: [u64; 3],
    /// Frames about the link itself.
    own: Vec<Frame>,
    undecodable: Vec<DecodeError>,
    /// No lease came in time for this batch.
    refused: Option<Refused>,
    dropped: Dropped,
}

impl Reader {
    /// Runs until the medium ends. Data is looked at only once `established` says that the peer's
    /// hello was accepted.
    pub async fn run(mut self, established: oneshot::Receiver<()>) {
        let end = self.read(established).await;
        if let Some(closed) = self.outlets.closed.upgrade() {
            closed.do_send(MediumClosed(end));
        }
    }

    async fn read(&mut self, established: oneshot::Receiver<()>) -> TransportError {
        let mut frames: Vec<Bytes> = Vec::new();
        let mut early = Vec::new();
        let mut established = Some(established);
        let mut reading = Reading {
            held: HeldForKey::new(),
            spender: Spender::new(self.payer, self.outlets.lease.again()),
            share: self.verifier.share(clock::now()),
            in_flight: (!self.egress.uses_credit()).then(|| Arc::new(Semaphore::new(IN_FLIGHT_MAX as usize))),
            checked: metrics::counter!(telemetry::VERIFIED),
            turn: Turn(clock::now()),
        };
        let meter = Meter::new(self.transport, "rx");
        loop {
            if self.egress.closing() == Some(CloseReason::ProtocolError) {
                // Whatever the peer still sends costs nothing any more. The medium stays open until
                // the writer has said why, and takes this task with it.
                std::future::pending::<()>().await;
            }
            let wait_for_keys = reading.held.next_wake();
            let mut has_waited = false;
            tokio::select! {
                read = noting_waits(self.rx.recv(&mut frames), &mut has_waited) => {
                    if let Err(end) = read {
                        return end;
                    }
                    if has_waited {
                        reading.turn.0 = clock::now();
                    }
                }
                () = sleep_until(wait_for_keys) => {
                    let dropped = reading.held.expire(clock::now());
                    metrics::counter!(telemetry::KEYS_NEVER_CAME).increment(dropped as u64);
                    continue;
                }
            }
            self.count(&frames, &meter);
            if let Some(wait) = established.take() {
                // The first frame a peer may send is its hello; whatever overtook it waits.
                early.append(&mut frames);
                let has_hello = self.pass_hello(&mut early);
                if !has_hello {
                    if early.len() > EARLY_FRAMES_MAX {
                        self.fault("data before hello");
                        return TransportError::Protocol { detail: "data before hello" };
                    }
                    established = Some(wait);
                    continue;
                }
                if wait.await.is_err() {
                    // The hello was refused; the actor is closing the link.
                    return TransportError::LinkClosed;
                }
                frames.append(&mut early);
            }
            if let Err(fault) = self.handle(&mut frames, &mut reading).await {
                self.fault(fault);
                // The actor closes the link before another frame is looked at.
                reading.turn.end().await;
            }
        }
    }

    fn count(&self, frames: &[Bytes], meter: &Meter) {
        use std::sync::atomic::Ordering::Relaxed;
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        self.counters.rx_frames.fetch_add(frames.len() as u64, Relaxed);
        self.counters.rx_bytes.fetch_add(bytes as u64, Relaxed);
        meter.count(frames.len(), bytes);
    }

    /// Passes the hello to the actor and takes it out; true where there was one.
    fn pass_hello(&mut self, early: &mut Vec<Bytes>) -> bool {
        for at in 0..early.len() {
            let Some(bytes) = early.get(at) else { continue };
            match Frame::decode(bytes) {
                Ok(frame @ (Frame::Hello(_) | Frame::Goodbye(_))) => {
                    early.remove(at);
                    self.tell_actor(vec![frame], vec![]);
                    return true;
                }
                Ok(_) => {}
                Err(error) => {
                    // Garbage instead of a hello: the actor's state machine decides.
                    early.remove(at);
                    self.tell_actor(vec![], vec![error]);
                    return true;
                }
            }
        }
        false
    }

    fn tell_actor(&self, frames: Vec<Frame>, undecodable: Vec<DecodeError>) {
        if let Some(actor) = self.outlets.frames.upgrade() {
            actor.do_send(LinkFrames { frames, undecodable });
        }
    }

    fn tell_router(&mut self, control: NeighbourControl) {
        self.outlets.control.offer_gossip("router", LinkControl { link: self.link, control });
    }

    fn fault(&self, what: &'static str) {
        if let Some(actor) = self.outlets.faults.upgrade() {
            actor.do_send(TooManyFaults(what));
        }
    }

    /// Decodes and verifies what was read and passes it on.
    ///
    /// # Errors
    /// Why the peer is to be cut.
    async fn handle(&mut self, frames: &mut Vec<Bytes>, reading: &mut Reading) -> Result<(), &'static str> {
        let bytes = frames.iter().fold(0u64, |sum, frame| sum.saturating_add(frame.len() as u64));
        let refused = reading.spender.pay(Cost { messages: frames.len() as u64, bytes }).await.err();
        let mut batch = Batch { refused, ..Batch::default() };
        batch.verified.reserve(frames.len());
        let mut ended = Ok(());
        let checked_before = self.verifier.signatures_checked();
        for bytes in frames.drain(..) {
            reading.turn.or_yield().await;
            let frame = Frame::decode(&bytes);
            batch.count(&frame, bytes.len());
            let handled = match frame {
                Ok(Frame::Envelope(envelope, ext)) => {
                    self.envelope(envelope, ext, bytes.len(), &mut batch, reading).await
                }
                Ok(
                    frame @ (Frame::Hello(_)
                    | Frame::Goodbye(_)
                    | Frame::Ping(_)
                    | Frame::Pong(_)
                    | Frame::Credit(_)),
                ) => {
                    batch.own.push(frame);
                    Ok(())
                }
                // Gossip and questions: the next one takes its place.
                Ok(_) if batch.refused.is_some() => {
                    batch.dropped.control += 1;
                    Ok(())
                }
                // In a box of its own: it is rare, and each idle link would hold room for it.
                Ok(frame) => Box::pin(self.control(frame, &mut batch, reading)).await,
                Err(error) => {
                    if let Some(count) = batch.dropped.undecodable.get_mut(reason(&error)) {
                        *count += 1;
                    }
                    batch.undecodable.push(error);
                    Ok(())
                }
            };
            if handled.is_err() {
                // The link is over: no other frame of the batch is worth a look.
                ended = handled;
                break;
            }
        }
        batch.dropped.count();
        let own = std::mem::take(&mut batch.own);
        let undecodable = std::mem::take(&mut batch.undecodable);
        let is_odd = !undecodable.is_empty();
        if !own.is_empty() || is_odd {
            self.tell_actor(own, undecodable);
        }
        let checked = self.verifier.signatures_checked().saturating_sub(checked_before);
        if checked > 0 {
            reading.checked.increment(checked);
        }
        if let Err(overrun) = self.egress.came(batch.came) {
            metrics::counter!(telemetry::LINK_FAULTS, "reason" => overrun.name()).increment(1);
            tracing::info!(link = %self.link, error = %overrun, "link fault");
            // What it sent beyond its credit goes no further.
            return Err("more data than it was granted credit for");
        }
        self.pass_on(batch, reading).await;
        if is_odd {
            // The actor decides whether the link goes on before more of it is read.
            reading.turn.end().await;
        }
        ended
    }

    /// A frame of the neighbour's for the router.
    async fn control(
        &mut self,
        frame: Frame,
        batch: &mut Batch,
        reading: &mut Reading,
    ) -> Result<(), &'static str> {
        match frame {
            Frame::Announce(announce) => return self.announce(announce, false, batch, reading).await,
            Frame::PathReply(announce) => return self.announce(announce, true, batch, reading).await,
            Frame::KeyOffer(key) => {
                let address = crate::crypto::compute_address(&key);
                let Some(waiting) = reading.held.take(&address) else { return Ok(()) };
                if let Err(error) = self.verifier.learn_key(&address, &key) {
                    return self.failed(&error, reading).await;
                }
                for (envelope, ext) in waiting {
                    // Counted as done with when it began to wait.
                    self.envelope(envelope, ext, 0, batch, reading).await?;
                }
            }
            // A record costs a signature as announces do.
            Frame::KeyReply(record) => {
                let may = self.may_check(batch, reading).await
                    && self.has_share(batch, reading, |v| v.is_known_good_record(&record));
                if !may {
                    return Ok(());
                }
                match self.charging(reading, |verifier| verifier.verify_key_record(&record)) {
                    Ok(record) => self.tell_router(NeighbourControl::KeyRecord(Box::new(record))),
                    Err(error) => return self.failed(&error, reading).await,
                }
            }
            frame => self.tell_router(NeighbourControl::Frame(Box::new(frame))),
        }
        Ok(())
    }

    async fn announce(
        &mut self,
        announce: Announce,
        is_reply: bool,
        batch: &mut Batch,
        reading: &mut Reading,
    ) -> Result<(), &'static str> {
        let may = self.may_check(batch, reading).await
            && self.has_share(batch, reading, |v| v.is_known_good(&announce));
        if !may {
            return Ok(());
        }
        match self.charging(reading, |verifier| verifier.verify_announce(announce)) {
            Ok(announce) => {
                let message = AnnounceVerified { link: self.link, announce: Box::new(announce), is_reply };
                self.outlets.announces.offer_gossip("router", message);
                Ok(())
            }
            Err(error) => self.failed(&error, reading).await,
        }
    }

    async fn may_check(&self, batch: &mut Batch, reading: &mut Reading) -> bool {
        let may = reading.spender.may_check().await;
        if !may {
            batch.dropped.unchecked += 1;
        }
        may
    }

    /// Whether a signature more may be looked into, or none has to be.
    fn has_share(
        &self,
        batch: &mut Batch,
        reading: &mut Reading,
        is_known: impl FnOnce(&Verifier) -> bool,
    ) -> bool {
        let has = reading.share.has_room(clock::now()) || is_known(&self.verifier);
        if !has {
            batch.dropped.unchecked += 1;
        }
        has
    }

    /// Lets the verifier look at something, and charges the signatures that took.
    fn charging<T>(
        &mut self,
        reading: &mut Reading,
        look: impl FnOnce(&mut Verifier) -> Result<T, VerifyError>,
    ) -> Result<T, VerifyError> {
        let before = self.verifier.signatures_checked();
        let looked = look(&mut self.verifier);
        // What did not hold cost one that was not counted.
        let failed = u64::from(looked.is_err());
        let signatures = self.verifier.signatures_checked().saturating_sub(before).saturating_add(failed);
        if signatures > 0 {
            reading.share.charge(clock::now(), signatures);
        }
        looked
    }

    /// Verifies an envelope of so many bytes, or refuses it before it costs a check.
    async fn envelope(
        &mut self,
        envelope: Envelope,
        ext: FrameExt,
        bytes: usize,
        batch: &mut Batch,
        reading: &mut Reading,
    ) -> Result<(), &'static str> {
        let header = envelope.header();
        let (class, priority) = (header.class(), header.priority);
        if let Some(refused) = batch.refused {
            batch.dropped.data += 1;
            self.refuse(&envelope, RefuseReason::RateLimited, refused.retry_after_s);
            return Ok(());
        }
        if class != TrafficClass::Control && self.sheds(&envelope, priority) {
            metrics::counter!(telemetry::SHED, "priority" => priority_name(priority)).increment(1);
            self.refuse(&envelope, RefuseReason::Congested, pressure::RETRY_AFTER_S);
            return Ok(());
        }
        match self.verifier.verify(envelope, ext) {
            VerifyOutcome::Verified(verified) => {
                let beyond_share = priority == Priority::Critical && !reading.spender.may_be_critical(bytes);
                if beyond_share {
                    metrics::counter!(telemetry::RATE_LIMITED, "budget" => "critical").increment(1);
                }
                batch.keep(if beyond_share { verified.not_urgent() } else { verified }, class, bytes);
                Ok(())
            }
            VerifyOutcome::KeyNeeded { source, envelope, ext } => {
                if self.may_check(batch, reading).await {
                    self.hold(source, envelope, ext, &mut reading.held);
                }
                Ok(())
            }
            VerifyOutcome::CameBack(packet_id) => {
                self.say_refused(packet_id, RefuseReason::Loop, 0);
                self.failed(&VerifyError::OwnSource, reading).await
            }
            VerifyOutcome::Failed(error) => self.failed(&error, reading).await,
        }
    }

    /// Full queues let nothing pass; a slow store what would end in it.
    fn sheds(&self, envelope: &Envelope, priority: Priority) -> bool {
        self.pressure.queues().sheds(priority)
            || (self.pressure.store().sheds(priority) && self.verifier.is_for_us(envelope))
    }

    fn refuse(&mut self, envelope: &Envelope, reason: RefuseReason, retry_after_s: u16) {
        let packet_id = self.verifier.packet_id(envelope);
        self.say_refused(packet_id, reason, retry_after_s);
    }

    fn say_refused(&self, packet_id: PacketId, reason: RefuseReason, retry_after_s: u16) {
        let refuse = Frame::Refuse(Refuse { packet_id, reason, retry_after_s });
        if !self.egress.push_control(&refuse) {
            metrics::counter!(telemetry::CONTROL_DROPPED).increment(1);
        }
    }

    fn hold(&mut self, source: Address, envelope: Envelope, ext: FrameExt, held: &mut HeldForKey) {
        match held.hold(clock::now(), source, envelope, ext) {
            Hold::Ask => {
                metrics::counter!(telemetry::KEY_NEEDED).increment(1);
                self.egress.push_control(&Frame::KeyNeeded(source));
            }
            Hold::Waits => {}
            Hold::Full => metrics::counter!(telemetry::KEYS_NEVER_CAME).increment(1),
        }
    }

    async fn failed(&self, error: &VerifyError, reading: &mut Reading) -> Result<(), &'static str> {
        metrics::counter!(telemetry::VERIFY_FAILURES, "reason" => error.name()).increment(1);
        tracing::debug!(link = %self.link, %error, "a signature does not hold");
        if !error.peer_fault() || reading.spender.is_forgiven().await {
            return Ok(());
        }
        metrics::counter!(telemetry::RATE_LIMITED, "budget" => "failed_verification").increment(1);
        Err("too many frames that do not verify")
    }

    /// Waits for room rather than for the router: a link with too much in flight reads no more.
    /// Where credit bounds what is in flight there is always room.
    async fn pass_on(&mut self, batch: Batch, reading: &Reading) {
        let Batch { verified, came, kept, .. } = batch;
        let mut done = came;
        for (done, kept) in done.iter_mut().zip(kept) {
            *done = done.saturating_sub(kept);
        }
        self.egress.done(done);
        if verified.is_empty() {
            return;
        }
        let permit = match &reading.in_flight {
            Some(in_flight) => {
                let wanted = u32::try_from(verified.len()).unwrap_or(u32::MAX).min(IN_FLIGHT_MAX);
                in_flight.clone().acquire_many_owned(wanted).await.ok().map(Permit::new)
            }
            None => Some(self.egress.permit(kept)),
        };
        let message = EnvelopesVerified { link: self.link, batch: verified, permit };
        if let Err(back) = self.outlets.envelopes.offer(message) {
            let lost = back.message.batch.len() as u64;
            metrics::counter!(telemetry::ENVELOPES_DROPPED, "reason" => "busy").increment(lost);
            // Whoever keeps a message is told, and may know another way.
            let kept_elsewhere =
                back.message.batch.iter().filter(|e| e.envelope.header().kind.is_stored_for_others());
            for envelope in kept_elsewhere {
                self.say_refused(envelope.packet_id, RefuseReason::Congested, pressure::RETRY_AFTER_S);
            }
        }
    }
}

impl Batch {
    /// Counts a frame as credit does. What this version cannot read rode with control.
    fn count(&mut self, frame: &Result<Frame, DecodeError>, bytes: usize) {
        let class = match frame {
            Ok(Frame::Hello(_) | Frame::Goodbye(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Credit(_)) => {
                return;
            }
            Ok(frame) => frame.class(),
            Err(_) => TrafficClass::Control,
        };
        add(&mut self.came, class, credit::cost(bytes));
    }

    fn keep(&mut self, verified: Verified<InboundEnvelope>, class: TrafficClass, bytes: usize) {
        if bytes > 0 {
            add(&mut self.kept, class, credit::cost(bytes));
        }
        self.verified.push(verified);
    }
}

fn add(sums: &mut [u64; 3], class: TrafficClass, bytes: u64) {
    if let Some(sum) = sums.get_mut(class as usize) {
        *sum = sum.saturating_add(bytes);
    }
}

/// Label of the counter of shed messages.
pub(super) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
        Priority::Critical => "critical",
    }
}

/// Labels of the counter of frames that do not decode.
const REASONS: [&str; 4] = ["malformed", "not_canonical", "too_large", "unknown_frame"];

/// Which of [`REASONS`] it is.
fn reason(error: &DecodeError) -> usize {
    match error {
        DecodeError::NotCanonical { .. } => 1,
        DecodeError::TooLarge { .. } => 2,
        DecodeError::UnknownFrame(_) => 3,
        _ => 0,
    }
}

/// The same future, and whether it had to wait.
async fn noting_waits<F: Future + Unpin>(mut inner: F, has_waited: &mut bool) -> F::Output {
    std::future::poll_fn(|cx| {
        let polled = std::pin::Pin::new(&mut inner).poll(cx);
        *has_waited |= polled.is_pending();
        polled
    })
    .await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}

/// Writes what the queues hold until told to close or the medium fails.
pub struct Writer {
    /// `quic`, `tcp`, …, for metrics.
    pub transport: &'static str,
    /// The medium.
    pub tx: Box<dyn LinkSender>,
    /// The queues.
    pub egress: Arc<SharedEgress>,
    /// What was written.
    pub counters: Arc<LinkCounters>,
    /// To the link's actor.
    pub closed: WeakRecipient<MediumClosed>,
}

impl Writer {
    /// Runs until closed.
    pub async fn run(mut self) {
        if let Err(end) = self.write().await
            && let Some(closed) = self.closed.upgrade()
        {
            closed.do_send(MediumClosed(end));
        }
    }

    /// Takes what is queued, most urgent first. A class whose last batch the medium has not taken
    /// yet is left queued, and waiting for it never keeps a more urgent frame from being written.
    async fn write(&mut self) -> Result<(), TransportError> {
        let mut frames = Vec::new();
        let meter = Meter::new(self.transport, "tx");
        loop {
            let tx = &self.tx;
            if let Some(class) = self.egress.take(|class| tx.unwritten_bytes(class) == 0, &mut frames) {
                self.count(&frames, &meter);
                tokio::select! {
                    biased;
                    sent = self.tx.send(class, &frames) => sent?,
                    // The frames are taken; what the medium has not written is written below.
                    () = self.egress.wake.notified() => {}
                }
                frames.clear();
                continue;
            }
            if let Some(class) = TrafficClass::ALL.into_iter().find(|c| self.tx.unwritten_bytes(*c) > 0) {
                tokio::select! {
                    biased;
                    sent = self.tx.send(class, &[]) => sent?,
                    () = self.egress.wake.notified() => {}
                }
                continue;
            }
            if let Some(reason) = self.egress.closing() {
                let code = CloseCode::FIRST_FREE.0.saturating_add(u32::from(u8::from(reason)));
                self.tx.close(CloseCode(code), reason.name()).await;
                return Ok(());
            }
            self.egress.wake.notified().await;
        }
    }

    fn count(&self, frames: &[FrameParts], meter: &Meter) {
        use std::sync::atomic::Ordering::Relaxed;
        let bytes: usize = frames.iter().map(FrameParts::len).sum();
        self.counters.tx_frames.fetch_add(frames.len() as u64, Relaxed);
        self.counters.tx_bytes.fetch_add(bytes as u64, Relaxed);
        meter.count(frames.len(), bytes);
    }
}
