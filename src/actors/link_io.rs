//! The two tasks of a link: one reads, decodes and verifies, one writes.
//!
//! The reader is where signatures are checked, so that the router never waits for one. It yields
//! every few signatures and stops reading when too many of its envelopes are in flight; what it
//! reads it never waits to send on. The writer takes whatever the queues hold, most urgent class
//! first, and hands it to the medium in one piece.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use actix::WeakRecipient;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::mailbox::Outlet;
use crate::{
    clock,
    messages::{
        link::{AnnounceVerified, EnvelopesVerified, LinkControl, NeighbourControl},
        message,
    },
    proto::{
        egress::Egress,
        limit::TokenBucket,
        verify::{HeldForKey, Hold, InboundEnvelope, Verified, Verifier, VerifyError, VerifyOutcome},
    },
    telemetry,
    transport::{CloseCode, LinkReceiver, LinkSender, TransportError},
    wire::{
        Address, DecodeError, Envelope, Frame, FrameExt, FrameParts, LinkId, TrafficClass,
        handshake::CloseReason,
    },
};

/// Signatures checked before other tasks of the thread get their turn: about 0.3 ms.
const YIELD_EVERY: usize = 8;

/// Envelopes of one link that may be on their way through the router.
pub const IN_FLIGHT_MAX: u32 = 1024;

/// Frames kept until the peer's hello was accepted: on QUIC a data stream may overtake it.
const EARLY_FRAMES_MAX: usize = 64;

/// Budget for what should not happen: signatures that do not hold cost the full price of a check.
const FAULT_BURST: u64 = 200;
const FAULTS_PER_S: u64 = 20;
const FAULT_COST: u64 = 20;

/// Announces a second that one link may have verified.
const ANNOUNCES_PER_S: u64 = 200;

/// The egress queues of one link, shared by its actor, reader and writer.
#[derive(Debug, Default)]
pub struct SharedEgress {
    queues: Mutex<Egress>,
    wake: Notify,
    closing: Mutex<Option<CloseReason>>,
}

impl SharedEgress {
    /// Queues a frame for the writer, or hands it back.
    pub fn push(&self, class: TrafficClass, frame: FrameParts) -> Result<(), FrameParts> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).push(class, frame)?;
        self.wake.notify_one();
        Ok(())
    }

    /// Queues a control frame. A link whose control queue is full is past saving: false.
    pub fn push_control(&self, frame: &Frame) -> bool {
        self.push(TrafficClass::Control, frame.into()).is_ok()
    }

    /// Frames and bytes that wait.
    pub fn depth(&self) -> (usize, usize) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        (queues.len(), queues.bytes())
    }

    /// Lets the writer finish what is queued, close the medium with `reason` and end.
    pub fn close(&self, reason: CloseReason) {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.wake.notify_one();
    }

    fn take(&self, ready: impl Fn(TrafficClass) -> bool, out: &mut Vec<FrameParts>) -> Option<TrafficClass> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).take(ready, out)
    }

    fn closing(&self) -> Option<CloseReason> {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
}

/// Reads, decodes and verifies until the medium ends.
pub struct Reader {
    /// The link.
    pub link: LinkId,
    /// `quic`, `tcp`, …, for metrics.
    pub transport: &'static str,
    /// The medium.
    pub rx: Box<dyn LinkReceiver>,
    /// Checks signatures.
    pub verifier: Verifier,
    /// To ask the neighbour for keys.
    pub egress: Arc<SharedEgress>,
    /// What was read.
    pub counters: Arc<LinkCounters>,
    /// Where it goes.
    pub outlets: ReaderOutlets,
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
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX as usize));
        let mut held = HeldForKey::new();
        let mut budget = Budget::new(clock::now());
        let meter = Meter::new(self.transport, "rx");
        loop {
            let wait_for_keys = held.next_wake();
            tokio::select! {
                read = self.rx.recv(&mut frames) => {
                    if let Err(end) = read {
                        return end;
                    }
                }
                () = sleep_until(wait_for_keys) => {
                    let dropped = held.expire(clock::now());
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
            if !self.handle(&mut frames, &in_flight, &mut held, &mut budget).await {
                self.fault("too many frames that do not verify");
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

    /// Decodes and verifies what was read and passes it on. False when the peer's budget of faults
    /// is spent.
    async fn handle(
        &mut self,
        frames: &mut Vec<Bytes>,
        in_flight: &Arc<Semaphore>,
        held: &mut HeldForKey,
        budget: &mut Budget,
    ) -> bool {
        let mut batch = Vec::with_capacity(frames.len());
        let mut own = Vec::new();
        let mut undecodable = Vec::new();
        let mut well = true;
        let checked_before = self.verifier.signatures_checked();
        for (n, bytes) in frames.drain(..).enumerate() {
            match Frame::decode(&bytes) {
                Ok(Frame::Envelope(envelope, ext)) => {
                    well &= self.envelope(envelope, ext, &mut batch, held, budget);
                    if n % YIELD_EVERY == YIELD_EVERY - 1 {
                        tokio::task::yield_now().await;
                    }
                }
                Ok(frame @ (Frame::Announce(_) | Frame::PathReply(_))) => {
                    let (announce, is_reply) = match frame {
                        Frame::PathReply(announce) => (announce, true),
                        Frame::Announce(announce) => (announce, false),
                        _ => continue,
                    };
                    if !budget.announces.try_take(clock::now(), 1) {
                        metrics::counter!(telemetry::RATE_LIMITED, "budget" => "announce").increment(1);
                        continue;
                    }
                    match self.verifier.verify_announce(announce) {
                        Ok(announce) => {
                            let message =
                                AnnounceVerified { link: self.link, announce: Box::new(announce), is_reply };
                            self.outlets.announces.offer_gossip("router", message);
                        }
                        Err(error) => well &= self.failed(&error, budget),
                    }
                }
                Ok(Frame::KeyOffer(key)) => {
                    let address = crate::crypto::compute_address(&key);
                    if let Some(waiting) = held.take(&address) {
                        if let Err(error) = self.verifier.learn_key(&address, &key) {
                            well &= self.failed(&error, budget);
                            continue;
                        }
                        for (envelope, ext) in waiting {
                            well &= self.envelope(envelope, ext, &mut batch, held, budget);
                        }
                    }
                }
                Ok(
                    frame @ (Frame::KeyNeeded(_)
                    | Frame::KeyRequest(_)
                    | Frame::PathRequest(_)
                    | Frame::Withdraw(_)
                    | Frame::Digest(_)
                    | Frame::CustodyAck(_)
                    | Frame::Refuse(_)),
                ) => {
                    self.tell_router(NeighbourControl::Frame(Box::new(frame)));
                }
                // Checked against the budget of announces: a record costs a signature as they do.
                Ok(Frame::KeyReply(record)) => {
                    if !budget.announces.try_take(clock::now(), 1) {
                        metrics::counter!(telemetry::RATE_LIMITED, "budget" => "announce").increment(1);
                        continue;
                    }
                    match self.verifier.verify_key_record(&record) {
                        Ok(record) => self.tell_router(NeighbourControl::KeyRecord(Box::new(record))),
                        Err(error) => well &= self.failed(&error, budget),
                    }
                }
                Ok(frame) => own.push(frame),
                Err(error) => {
                    metrics::counter!(telemetry::DECODE_ERRORS, "reason" => reason(&error)).increment(1);
                    undecodable.push(error);
                }
            }
        }
        if !own.is_empty() || !undecodable.is_empty() {
            self.tell_actor(own, undecodable);
        }
        let checked = self.verifier.signatures_checked().saturating_sub(checked_before);
        if checked > 0 {
            metrics::counter!(telemetry::VERIFIED).increment(checked);
        }
        self.pass_on(batch, in_flight).await;
        well
    }

    fn envelope(
        &mut self,
        envelope: Envelope,
        ext: FrameExt,
        batch: &mut Vec<Verified<InboundEnvelope>>,
        held: &mut HeldForKey,
        budget: &mut Budget,
    ) -> bool {
        match self.verifier.verify(envelope, ext) {
            VerifyOutcome::Verified(verified) => {
                batch.push(verified);
                true
            }
            VerifyOutcome::KeyNeeded { source, envelope, ext } => {
                self.hold(source, envelope, ext, held);
                true
            }
            VerifyOutcome::Failed(error) => self.failed(&error, budget),
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

    fn failed(&self, error: &VerifyError, budget: &mut Budget) -> bool {
        metrics::counter!(telemetry::VERIFY_FAILURES, "reason" => error.name()).increment(1);
        tracing::debug!(link = %self.link, %error, "a signature does not hold");
        !error.peer_fault() || budget.faults.charge(clock::now(), FAULT_COST)
    }

    /// Waits for room rather than for the router: a link with too much in flight reads no more.
    async fn pass_on(&mut self, batch: Vec<Verified<InboundEnvelope>>, in_flight: &Arc<Semaphore>) {
        if batch.is_empty() {
            return;
        }
        let wanted = u32::try_from(batch.len()).unwrap_or(u32::MAX).min(IN_FLIGHT_MAX);
        let permit = in_flight.clone().acquire_many_owned(wanted).await.ok();
        let message = EnvelopesVerified { link: self.link, batch, permit };
        if let Err(back) = self.outlets.envelopes.offer(message) {
            // The origin keeps its copy and tries again.
            let lost = back.message.batch.len() as u64;
            metrics::counter!(telemetry::ENVELOPES_DROPPED, "reason" => "busy").increment(lost);
        }
    }
}

/// Label of the counter of frames that do not decode.
fn reason(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::NotCanonical { .. } => "not_canonical",
        DecodeError::TooLarge { .. } => "too_large",
        DecodeError::UnknownFrame(_) => "unknown_frame",
        _ => "malformed",
    }
}

/// What a peer may do wrong, and how many announces it may have checked.
struct Budget {
    faults: TokenBucket,
    announces: TokenBucket,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            faults: TokenBucket::new(FAULT_BURST, FAULTS_PER_S, now),
            announces: TokenBucket::new(ANNOUNCES_PER_S, ANNOUNCES_PER_S, now),
        }
    }
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
