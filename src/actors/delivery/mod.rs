//! DeliveryActor: end-to-end delivery. The decisions are in [`crate::proto::delivery`].
//!
//! - Receives: `SendContent`, `SendBroadcast`, `AwaitEnd`, `ListOutbox`, `GetHold`, `GetProgress`,
//!   `CancelMessage`, `FindMessages`, `MessagesTaken`, `Probe` from handles; `DeliverLocal`,
//!   `DestinationUp`, `PacketFate`, `KeyRecordFound` from the router; `Drain` from the supervisor.
//! - Sends: `Originate`, `FindKeyRecord`, and `CustodyAnswer` for what the inbox refuses to the
//!   router; submissions to the store.
//! - Owns: the outbox, files on their way in, seal sessions, who waits for which message, what goes
//!   into the history of messages.
//!
//! Nothing is acknowledged before it is on disk: a `send` returns after the outbox row's commit, a
//! receipt leaves after the inbox commit, a chunk is receipted after the fsync of its blob and the
//! commit of its bitmap, a message is taken back when its row is gone. What arrives and is not stored
//! is refused by name, so that its sender knows; what is to become of it here is tried again.
//!
//! Nothing is answered from an outbox that is not read yet: until then no mail is.

mod commits;
mod files;
mod handlers;
mod history;
mod loading;
mod receiving;
mod sending;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use bytes::Bytes;
use hashlink::LruCache;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::history::HistoryFile;
use self::{
    commits::{Commits, Committing},
    history::History,
};
use super::{
    clock_handle::ClockHandle,
    late_answer::LateAnswer,
    mailbox::{self, Outlet},
    panics::poison,
    quarantine::Quarantine,
    wake_timer::WakeTimer,
    welcome_handle::WelcomeHandle,
};
use crate::{
    clock,
    crypto::{
        FileKey, MeshIdentity, OpenSessions, ReceiverKeys, SignatureInput, VerifiedKeyRecord, hash::sha256,
        key_record, random,
    },
    error::MeshError,
    events::{EventKind, Events},
    messages::{
        delivery::*,
        lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
        message,
        store::CustodyAnswer,
    },
    proto::{
        delivery::{
            batch::Draft,
            compose::{Composer, Wanted},
            history::{HistoryEvent, is_noted, passes_quarter},
            inbound::{self, Arrived, InboundError},
            outbox::{CustodyNote, End, Finished, Hold, Outbox, OutboxFull, Part, Transmit},
            receipts::Receipts,
            record::{Body, CustodyState, FileRecord, InboxRecord, OutboxRecord, OutboxState, PartialRecord},
            seal_budget::SealBudget,
            shelf::{Arriving, Shelf},
            transfer::{
                ArrivingFile, Incoming, Offer, OnChunk, OnManifest, TransferKey, chunk_offset,
                sealed_chunk_len,
            },
            turns::{Enters, Place, Turns},
            uids::Uids,
            welcome::{Accept, Reception},
        },
        ledger::Ledger,
        limit::TokenBucket,
        node_clock::NodeTime,
        router::CustodyWish,
        suspects::{Standing, Suspect},
        verify::InboundEnvelope,
    },
    storage::{
        Awaits, BlobDir, BlobKind, BlobName, EarlyRow, InboxCommit, LocalOp, LocalOutcome, LocalStore,
        Namespace, OutboxRow, PageLimit, PartialRow, StoreError, Strangers,
    },
    telemetry,
    wire::{
        Address, Digest, Envelope, EnvelopeKind, Lifetime, MessageUid, PacketId, Priority, SignedKeyRecord,
        TransferTag,
        content::{Chunk, Content, Sealed, chunk_count},
        control::RefuseReason,
        limits::{CHUNK_BYTES, CONTENT_BYTES_MAX, INLINE_CONTENT_BYTES_MAX, PAYLOAD_BYTES_MAX},
        receipt::{CannotOpen, CannotOpenReason, ChunkReceipt, Receipt, TransferState},
        service::{Pong, Probe as ProbePayload, TraceReply},
    },
};

/// Envelopes made before other mail is looked at: a signature takes some 15 µs.
const TRANSMIT_BATCH: usize = 64;

/// Destinations on thin links remembered. One that is forgotten costs bytes, nothing else.
const THIN_DESTINATIONS: usize = 4096;

/// Key records remembered; the store has those of everyone ever written to.
const KEY_CACHE: usize = 4096;

/// Pongs and trace replies a second, all askers together: answers to strangers cost a signature
/// each and must not become a lever.
const PROBE_ANSWERS_PER_S: u32 = 50;

/// Ends of messages remembered for those who ask late: some seconds' worth at full speed.
const ENDS_REMEMBERED: usize = 4096;

/// Probes waiting for answers.
const PROBES_MAX: usize = 1024;

/// A probe without a reader is forgotten after this.
const PROBE_LIFETIME: Duration = Duration::from_secs(60);

/// Longest a broadcast may live.
const BROADCAST_TTL_MAX: Duration = Duration::from_secs(600);

/// Record size of an outgoing blob: a sealed chunk.
const SEALED_CHUNK_BYTES: u32 = CHUNK_BYTES as u32 + 16;

/// Time between looks at files that never became whole and at keys that have served.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// What dedup keeps beyond a packet's signed expiry: clocks may differ by ten minutes, and the
/// receiver's may be set back an hour by hand.
const DEDUP_MARGIN_S: u64 = 600 + 3600;

/// What the actor is made of; the factory clones it for each incarnation.
#[derive(Clone)]
pub struct DeliveryParts {
    /// This node's identity.
    pub identity: Arc<MeshIdentity>,
    /// Scratch for checking key records; names the network.
    pub network: crate::wire::NetworkId,
    /// This start's boot epoch.
    pub boot_epoch: u32,
    /// Sequence numbers of this start; outlive the actor.
    pub sequences: crate::proto::delivery::compose::Sequences,
    /// Receiver keys, rotated by maintenance.
    pub keys: watch::Receiver<Arc<OwnKeys>>,
    /// How long a message waits in the store for the one that it follows.
    pub order_wait: Duration,
    /// Outbox limits.
    pub outbox: crate::proto::delivery::outbox::OutboxConfig,
    /// This node's durable state.
    pub store: Arc<dyn LocalStore>,
    /// Large contents.
    pub blobs: Arc<BlobDir>,
    /// Way to the router.
    pub originate: mailbox::Seat<Originate>,
    /// Way to the router.
    pub find_key: mailbox::Seat<FindKeyRecord>,
    /// To the router: what the inbox has no room for goes back the way it came.
    pub refuse: mailbox::Seat<CustodyAnswer>,
    /// Told whenever the inbox has grown.
    pub inbox_grown: watch::Sender<u64>,
    /// What became of messages, for people who ask.
    pub history: HistoryFile,
    /// What time it is.
    pub clock: ClockHandle,
    /// What felled former incarnations.
    pub quarantine: Quarantine,
    /// Who may reach the person here.
    pub welcome: WelcomeHandle,
    /// Told of messages.
    pub events: Events,
}

/// What becomes of a stranger's message, as the store is told.
pub(super) fn strangers(accept: Accept) -> Strangers {
    match accept {
        Accept::Anyone => Strangers::Enter,
        Accept::Requests => Strangers::Ask,
        Accept::Contacts => Strangers::Refuse,
    }
}

/// The node's receiver secrets and the record that announces them.
#[derive(Debug)]
pub struct OwnKeys {
    /// Current and former secrets.
    pub secrets: ReceiverKeys,
    /// The signed record.
    pub record: VerifiedKeyRecord,
}

struct ProbeState {
    destination: Address,
    sent_at: Instant,
    answers: mpsc::Sender<ProbeAnswer>,
}

/// A message on its way into the outbox.
struct Storing {
    record: OutboxRecord,
    tell: Option<TellEnd>,
}

/// Tells who sends a message what became of it.
type SendAnswer = LateAnswer<Result<Accepted, MeshError>>;

struct ChunkWrite {
    key: TransferKey,
    index: u32,
    packet_id: PacketId,
    bytes: Bytes,
}

/// Chunks that are safe on disk, by file.
type Written = BTreeMap<TransferKey, Vec<(u32, PacketId)>>;

/// See the module.
pub struct DeliveryActor {
    parts: DeliveryParts,
    originate: Outlet<Originate>,
    find_key: Outlet<FindKeyRecord>,
    refusals: Outlet<CustodyAnswer>,
    composer: Composer,
    uids: Uids,
    open_sessions: OpenSessions,
    seals: SealBudget,
    scratch: SignatureInput,
    key_cache: LruCache<Address, VerifiedKeyRecord>,
    /// Destinations where bytes cost more than signatures, by the router's word.
    thin_destinations: LruCache<Address, ()>,
    outbox: Outbox,
    /// Messages whose row the disk has not taken yet, and who waits for that.
    storing: BTreeMap<MessageUid, Storing>,
    /// Where the others are stored.
    rows: HashMap<MessageUid, u64>,
    receipts: Receipts,
    /// Messages that came a moment too early, not stored yet.
    shelf: Shelf<(InboxCommit, Committing)>,
    turns: Turns,
    incoming: Incoming,
    waiters: BTreeMap<MessageUid, Vec<TellEnd>>,
    /// How the last messages ended.
    ends: LruCache<MessageUid, Finished>,
    probes: BTreeMap<u64, ProbeState>,
    probe_answers: TokenBucket,
    writes: Vec<ChunkWrite>,
    writing: bool,
    /// True while a whole file is being checked.
    checking: bool,
    commits: Commits,
    /// Own messages, since this incarnation read the outbox.
    ledger: Ledger,
    history: History,
    timer: WakeTimer,
    /// True while a [`DeliveryActor::pump_soon`] is under way.
    pumping: bool,
    draining: bool,
    guard: ExitGuard,
}

impl DeliveryActor {
    /// A fresh actor; it reads the outbox and open files from the store when it starts.
    pub fn new(parts: DeliveryParts, guard: ExitGuard) -> Self {
        Self {
            originate: parts.originate.outlet(),
            find_key: parts.find_key.outlet(),
            refusals: parts.refuse.outlet(),
            composer: Composer::new(
                parts.identity.clone(),
                parts.network,
                parts.boot_epoch,
                parts.sequences.clone(),
            ),
            uids: Uids::default(),
            open_sessions: OpenSessions::new(parts.network),
            seals: SealBudget::new(clock::now()),
            scratch: SignatureInput::new(parts.network),
            key_cache: LruCache::new(KEY_CACHE),
            thin_destinations: LruCache::new(THIN_DESTINATIONS),
            outbox: Outbox::new(parts.outbox.clone()),
            storing: BTreeMap::new(),
            rows: HashMap::new(),
            receipts: Receipts::new(),
            shelf: Shelf::default(),
            turns: Turns::new(parts.order_wait),
            incoming: Incoming::new(),
            waiters: BTreeMap::new(),
            ends: LruCache::new(ENDS_REMEMBERED),
            probes: BTreeMap::new(),
            probe_answers: TokenBucket::new(
                u64::from(PROBE_ANSWERS_PER_S),
                u64::from(PROBE_ANSWERS_PER_S),
                clock::now(),
            ),
            writes: Vec::new(),
            writing: false,
            checking: false,
            commits: Commits::default(),
            ledger: Ledger::default(),
            history: History::default(),
            timer: WakeTimer::default(),
            pumping: false,
            draining: false,
            guard,
            parts,
        }
    }

    /// True when a message of `bytes` fits into the outbox, beside those that are being stored.
    fn admit(&self, bytes: u64) -> Result<(), OutboxFull> {
        let storing = self.storing.values().map(|storing| storing.record.body.len());
        self.outbox.admit(self.storing.len(), storing.fold(bytes, u64::saturating_add))
    }

    /// Takes a message whose row is on disk into the outbox, for what is `left` of its lifetime.
    fn accept(&mut self, now: Instant, left: Duration, record: OutboxRecord) {
        let tag = match &record.body {
            Body::Inline(_) => None,
            Body::File(file) => Some(FileKey::from_bytes(file.file_key.0).transfer_tag()),
        };
        self.outbox.add(now, record, left, tag);
    }
}

/// One store operation, asked and answered.
async fn ask_one(store: &dyn LocalStore, op: LocalOp) -> Result<LocalOutcome, MeshError> {
    let answer = crate::storage::ask_local(store, vec![op])
        .map_err(|reason| MeshError::Refused(reason.to_string()))?;
    Ok(answer.await?.pop().unwrap_or(LocalOutcome::Done))
}

fn count_refused(reason: &'static str) {
    metrics::counter!(telemetry::INBOUND_REFUSED, "reason" => reason).increment(1);
}

impl Actor for DeliveryActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.load(ctx);
        ctx.run_later(FORGET_EVERY, Self::forget);
    }
}

/// From the store's thread: what became of the row of a message.
struct Stored {
    uid: MessageUid,
    /// Where it is; none where it is not durable.
    seq: Option<u64>,
}
message!(Stored => ());

impl Handler<Stored> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: Stored, ctx: &mut Context<Self>) {
        self.stored(message, ctx);
    }
}
#[cfg(any(test, feature = "testing"))]
crate::messages::lifecycle::panics_when_told!(DeliveryActor);
