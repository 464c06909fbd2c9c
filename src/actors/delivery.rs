//! DeliveryActor: end-to-end delivery. The decisions are in [`crate::proto::delivery`].
//!
//! - Receives: `SendContent`, `SendBroadcast`, `AwaitEnd`, `ListOutbox`, `GetHold`,
//!   `CancelMessage`, `Probe` from handles; `DeliverLocal`, `DestinationUp`, `PacketFate`,
//!   `KeyRecordFound` from the router; `Drain` from the supervisor.
//! - Sends: `Originate` and `FindKeyRecord` to the router; submissions to the store.
//! - Owns: the outbox, files on their way in, seal sessions, who waits for which message.
//!
//! Nothing is acknowledged before it is on disk: a `send` returns after the outbox row's commit, a
//! receipt leaves after the inbox commit, a chunk is receipted after the fsync of its blob and the
//! commit of its bitmap. What the store hands back is not acknowledged and comes again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use bytes::Bytes;
use hashlink::LruCache;
use tokio::sync::{mpsc, oneshot, watch};

use super::mailbox::{self, Outlet};
use crate::{
    clock,
    crypto::{
        FileKey, MeshIdentity, ReceiverKeys, SignatureInput, VerifiedKeyRecord, hash::sha256, key_record,
        random,
    },
    error::MeshError,
    messages::{
        delivery::*,
        lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
        message,
    },
    proto::{
        delivery::{
            compose::{Composed, Composer, Wanted, remaining},
            inbound::{self, Arrived},
            outbox::{End, Finished, Hold, Outbox, Part, Transmit},
            record::{Body, FileRecord, InboxRecord, OutboxRecord, PartialRecord},
            transfer::{Incoming, OnChunk, OnManifest, TransferKey, chunk_offset, sealed_chunk_len},
        },
        limit::TokenBucket,
        verify::InboundEnvelope,
    },
    storage::{
        BlobDir, BlobKind, BlobName, InboxCommit, LocalOp, LocalOutcome, LocalStore, Namespace, OutboxRow,
        PageLimit, PartialRow, Seen, StoreError,
    },
    telemetry,
    wire::{
        Address, Digest, Envelope, EnvelopeKind, Lifetime, MessageUid, PacketId, Priority, SignedKeyRecord,
        TransferTag,
        content::{Chunk, Content, Sealed, chunk_count},
        limits::{
            CHUNK_BYTES, CONTENT_BYTES_MAX, INLINE_CONTENT_BYTES_MAX, MAX_HOPS_MAX, PAYLOAD_BYTES_MAX,
            RECEIPT_BITMAPS_MAX, RECEIPT_IDS_MAX,
        },
        receipt::{CannotOpen, CannotOpenReason, ChunkReceipt, Receipt, TransferState},
        service::{Pong, Probe as ProbePayload, TraceReply},
    },
};

/// Envelopes made before other mail is looked at: a signature takes some 15 µs.
const TRANSMIT_BATCH: usize = 64;

/// Key records remembered; the store has those of everyone ever written to.
const KEY_CACHE: usize = 4096;

/// Pongs and trace replies a second, all askers together: answers to strangers cost a signature
/// each and must not become a lever.
const PROBE_ANSWERS_PER_S: u32 = 50;

/// Probes waiting for answers.
const PROBES_MAX: usize = 1024;

/// A probe without a reader is forgotten after this.
const PROBE_LIFETIME: Duration = Duration::from_secs(60);

/// Longest a broadcast may live.
const BROADCAST_TTL_MAX: Duration = Duration::from_secs(600);

/// Record size of an outgoing blob: a sealed chunk.
const SEALED_CHUNK_BYTES: u32 = CHUNK_BYTES as u32 + 16;

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
    /// Told whenever the inbox has grown.
    pub inbox_grown: watch::Sender<u64>,
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

struct ChunkWrite {
    key: TransferKey,
    index: u32,
    packet_id: PacketId,
    bytes: Bytes,
}

/// Chunks that are safe on disk, by file.
type Written = BTreeMap<TransferKey, Vec<(u32, PacketId)>>;

/// One store operation and what follows when it is durable.
enum Committing {
    /// A message or broadcast enters the inbox; the receipt goes to `receipt_to`.
    Inbox { packet_id: PacketId, receipt_to: Option<Address> },
    /// A manifest was taken up.
    Manifest { packet_id: PacketId, record: Box<PartialRecord> },
    /// A file's progress. The packets are named in the receipt beside the bitmap: custodians on the
    /// way know packets, not files.
    Progress { receipt: ChunkReceipt, packet_ids: Vec<PacketId>, key: TransferKey, whole: bool },
    /// A checked file entered the inbox.
    File { key: TransferKey },
    /// Nothing follows.
    Nothing,
}

/// See the module.
pub struct DeliveryActor {
    parts: DeliveryParts,
    originate: Outlet<Originate>,
    find_key: Outlet<FindKeyRecord>,
    composer: Composer,
    scratch: SignatureInput,
    key_cache: LruCache<Address, VerifiedKeyRecord>,
    outbox: Outbox,
    incoming: Incoming,
    waiters: BTreeMap<MessageUid, Vec<oneshot::Sender<Finished>>>,
    probes: BTreeMap<u64, ProbeState>,
    probe_answers: TokenBucket,
    writes: Vec<ChunkWrite>,
    writing: bool,
    timer: Option<(Instant, SpawnHandle)>,
    draining: bool,
    guard: ExitGuard,
}

impl DeliveryActor {
    /// A fresh actor; it reads the outbox and open files from the store when it starts.
    pub fn new(parts: DeliveryParts, guard: ExitGuard) -> Self {
        Self {
            originate: parts.originate.outlet(),
            find_key: parts.find_key.outlet(),
            composer: Composer::new(
                parts.identity.clone(),
                parts.network,
                parts.boot_epoch,
                parts.sequences.clone(),
            ),
            scratch: SignatureInput::new(parts.network),
            key_cache: LruCache::new(KEY_CACHE),
            outbox: Outbox::new(parts.outbox.clone()),
            incoming: Incoming::new(),
            waiters: BTreeMap::new(),
            probes: BTreeMap::new(),
            probe_answers: TokenBucket::new(
                u64::from(PROBE_ANSWERS_PER_S),
                u64::from(PROBE_ANSWERS_PER_S),
                clock::now(),
            ),
            writes: Vec::new(),
            writing: false,
            timer: None,
            draining: false,
            guard,
            parts,
        }
    }

    // ---- sending -------------------------------------------------------------------------------

    /// Sends what the outbox says is due, then waits for the next timer.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        for finished in self.outbox.expire(now) {
            self.finish(finished);
        }
        if !self.draining {
            let due = self.outbox.transmit(now, TRANSMIT_BATCH);
            let more = due.len() >= TRANSMIT_BATCH;
            let (chunks, whole): (Vec<_>, Vec<_>) =
                due.into_iter().partition(|t| matches!(t.part, Part::Chunk(_)));
            let made: Vec<_> = whole.iter().filter_map(|t| self.make_whole(now, t, ctx)).collect();
            self.send_on(now, made);
            if !chunks.is_empty() {
                self.read_chunks(chunks, ctx);
            }
            if more {
                ctx.notify(Pump);
            }
        }
        self.rearm(ctx);
        metrics::gauge!(telemetry::OUTBOX).set(self.outbox.len() as f64);
    }

    fn rearm(&mut self, ctx: &mut Context<Self>) {
        let wake = self.outbox.next_wake();
        if self.timer.as_ref().map(|(at, _)| *at) == wake {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = wake {
            let wait = at.saturating_duration_since(clock::now());
            let handle = ctx.run_later(wait, |actor, ctx| {
                actor.timer = None;
                actor.pump(ctx);
            });
            self.timer = Some((at, handle));
        }
    }

    fn make_whole(
        &mut self,
        now: Instant,
        t: &Transmit,
        ctx: &mut Context<Self>,
    ) -> Option<(Transmit, Composed)> {
        let Some(key) = self.key_of(&t.destination) else {
            self.outbox.hold_back(now, &t.uid, Hold::NoKey);
            self.ask_for_key(t.destination, ctx);
            return None;
        };
        let record = self.outbox.record(&t.uid)?;
        let plaintext = match (&record.body, record.manifest()) {
            (Body::Inline(bytes), _) => Sealed::Content(Content {
                uid: record.uid,
                name: record.name.clone(),
                sent_at_unix_ms: record.sent_at_unix_ms,
                bytes: Bytes::copy_from_slice(bytes),
            }),
            (_, Some(manifest)) => Sealed::Manifest(manifest),
            (_, None) => return None,
        }
        .encode();
        let wanted = wanted(record, EnvelopeKind::MESSAGE);
        match self.composer.sealed(now, &mut random::os_rng(), &wanted, &key, &plaintext) {
            Ok(composed) => Some((*t, composed)),
            Err(error) => {
                tracing::warn!(uid = %t.uid, %error, "cannot make an envelope");
                self.outbox.hold_back(now, &t.uid, Hold::NoKey);
                None
            }
        }
    }

    fn send_on(&mut self, now: Instant, made: Vec<(Transmit, Composed)>) {
        if made.is_empty() {
            return;
        }
        let mut batch = Vec::with_capacity(made.len());
        for (t, composed) in made {
            self.outbox.sent(now, &t, composed.packet_id);
            batch.push((composed.packet_id, composed.envelope));
        }
        self.hand_to_router(batch);
    }

    /// A full or restarting router loses nothing: the outbox tries again, receipts are asked for.
    fn hand_to_router(&mut self, batch: Vec<(PacketId, Envelope)>) {
        if let Err(back) = self.originate.offer(Originate(batch)) {
            metrics::counter!(telemetry::MAILBOX_DROPPED, "mailbox" => "router").increment(1);
            tracing::debug!(refusal = ?back.refusal, "the router took no batch");
        }
    }

    fn read_chunks(&mut self, wanted_chunks: Vec<Transmit>, ctx: &mut Context<Self>) {
        let mut jobs = Vec::new();
        for t in wanted_chunks {
            let Part::Chunk(index) = t.part else { continue };
            let Some(record) = self.outbox.record(&t.uid) else { continue };
            let Body::File(file) = &record.body else { continue };
            let tag = FileKey::from_bytes(file.file_key.0).transfer_tag();
            jobs.push(ChunkRead { transmit: t, index, total: chunk_count(file.length), tag });
        }
        let blobs = self.parts.blobs.clone();
        let read = tokio::task::spawn_blocking(move || {
            jobs.into_iter()
                .map(|job| {
                    let bytes = read_chunk(&blobs, &job);
                    (job, bytes)
                })
                .collect::<Vec<_>>()
        });
        ctx.spawn(read.into_actor(self).map(|read, actor, ctx| {
            let now = clock::now();
            let mut made = Vec::new();
            for (job, bytes) in read.unwrap_or_default() {
                match bytes {
                    Ok(bytes) => made.extend(actor.make_chunk(&job, bytes)),
                    Err(error) => {
                        tracing::error!(uid = %job.transmit.uid, %error, "cannot read an outgoing file");
                        actor.outbox.hold_back(now, &job.transmit.uid, Hold::NoPath);
                    }
                }
            }
            actor.send_on(now, made);
            actor.pump(ctx);
        }));
    }

    fn make_chunk(&mut self, job: &ChunkRead, bytes: Bytes) -> Option<(Transmit, Composed)> {
        let record = self.outbox.record(&job.transmit.uid)?;
        let wanted = wanted(record, EnvelopeKind::CHUNK);
        let chunk = Chunk { tag: job.tag, index: job.index, total: job.total, ciphertext: bytes };
        match self.composer.open(&wanted, &chunk.encode()) {
            Ok(composed) => Some((job.transmit, composed)),
            Err(error) => {
                tracing::error!(uid = %job.transmit.uid, %error, "cannot make a chunk");
                None
            }
        }
    }

    fn finish(&mut self, finished: Finished) {
        let status = match finished.end {
            End::Delivered { rtt, .. } => {
                if let Some(rtt) = rtt {
                    metrics::histogram!(telemetry::DELIVERY_SECONDS).record(rtt.as_secs_f64());
                }
                "delivered"
            }
            End::Expired => "expired",
            End::Rejected => "failed",
            End::Cancelled => "cancelled",
        };
        metrics::counter!(telemetry::MESSAGES_ENDED, "outcome" => status).increment(1);
        for waiter in self.waiters.remove(&finished.uid).unwrap_or_default() {
            // Nobody waits any more: fine.
            let _ = waiter.send(finished);
        }
        self.submit(vec![(LocalOp::OutboxRemove(finished.uid), Committing::Nothing)], None);
        if finished.has_blob {
            let (blobs, uid) = (self.parts.blobs.clone(), finished.uid);
            remove_blob(blobs, BlobKind::Outgoing, BlobName::outgoing(&uid));
        }
    }

    fn key_of(&mut self, address: &Address) -> Option<VerifiedKeyRecord> {
        let now = clock::unix_s();
        self.key_cache.get(address).filter(|record| record.is_current(now)).cloned()
    }

    /// Asks the router, and the store for a record of an earlier time. What nobody answers is asked
    /// again by the outbox's own timer.
    fn ask_for_key(&mut self, address: Address, ctx: &mut Context<Self>) {
        self.find_key.offer_gossip("router", FindKeyRecord(address));
        let store = self.parts.store.clone();
        let get = LocalOp::KvGet { namespace: Namespace::KeyRecord, key: address.0.to_vec() };
        let ask = async move { ask_one(&*store, get).await };
        ctx.spawn(ask.into_actor(self).map(move |value, actor, ctx| {
            let Ok(LocalOutcome::Value(Some(bytes))) = value else { return };
            let Ok(record) = SignedKeyRecord::decode(&bytes) else { return };
            let Ok(record) = key_record::verify(&mut actor.scratch, &record) else { return };
            let known = actor.key_cache.get(&address).is_some_and(|held| !record.supersedes(held));
            if !known && record.address() == address && record.is_current(clock::unix_s()) {
                actor.key_cache.insert(address, record);
                actor.outbox.route_up(&address);
                actor.pump(ctx);
            }
        }));
    }

    fn learn_key(&mut self, record: VerifiedKeyRecord) {
        let address = record.address();
        let newer = self.key_cache.get(&address).is_none_or(|held| record.supersedes(held));
        if newer {
            let put = LocalOp::KvPut {
                namespace: Namespace::KeyRecord,
                key: address.0.to_vec(),
                value: record.signed().encode(),
            };
            self.submit(vec![(put, Committing::Nothing)], None);
            self.key_cache.insert(address, record);
        }
    }

    // ---- receiving -----------------------------------------------------------------------------

    fn receive(&mut self, deliver: DeliverLocal, ctx: &mut Context<Self>) {
        let now = clock::now();
        let keys = self.parts.keys.borrow().clone();
        let mut ops = Vec::new();
        let mut receipts = Receipts::default();
        for verified in deliver.envelopes {
            let inbound = verified.into_inner();
            let (id, from) = (inbound.packet_id, inbound.source);
            let hops = inbound.envelope.hop_count().saturating_add(1);
            let until = dedup_until(&inbound);
            match inbound::arrived(&keys.secrets, &mut self.scratch, &inbound) {
                Ok(Arrived::Sealed(Sealed::Content(content))) => {
                    let commit = inbox_commit(&inbound, content, false, hops, until);
                    ops.push((commit, Committing::Inbox { packet_id: id, receipt_to: Some(from) }));
                }
                Ok(Arrived::Broadcast(content)) => {
                    let commit = inbox_commit(&inbound, content, true, hops, until);
                    ops.push((commit, Committing::Inbox { packet_id: id, receipt_to: None }));
                }
                Ok(Arrived::Sealed(Sealed::Manifest(manifest))) => {
                    match self.incoming.manifest(id, from, &manifest, hops, until) {
                        OnManifest::Open(record) => {
                            let put = LocalOp::PartialPut(partial_row(&record));
                            ops.push((put, Committing::Manifest { packet_id: id, record: record.into() }));
                        }
                        OnManifest::Known(receipt) => {
                            receipts.packet(from, id);
                            receipts.chunk(from, receipt);
                        }
                        OnManifest::Refused => count_refused("too_many_files"),
                    }
                }
                Ok(Arrived::Chunk(chunk)) => self.receive_chunk(from, id, chunk, &mut receipts),
                Ok(Arrived::CannotOpen) => self.answer_cannot_open(from, id, &keys.record),
                Ok(Arrived::Receipt(receipt)) => {
                    for finished in self.outbox.receipt(now, &from, &receipt, hops) {
                        self.finish(finished);
                    }
                }
                Ok(Arrived::SealAgain(answer, record)) => {
                    self.learn_key(*record);
                    self.outbox.cannot_open(&from, &answer.packet_id);
                }
                Ok(Arrived::Ping(probe)) => {
                    let pong = Pong { nonce: probe.nonce, hops }.encode();
                    self.answer_probe(EnvelopeKind::PONG, from, &pong);
                }
                Ok(Arrived::Trace(probe)) => {
                    let reply = TraceReply {
                        nonce: probe.nonce,
                        hop: hops,
                        reached: inbound.destination == self.composer.address(),
                        transport: deliver.via.to_owned(),
                        snr_quarter_db: None,
                    };
                    self.answer_probe(EnvelopeKind::TRACE_REPLY, from, &reply.encode());
                }
                Ok(Arrived::Pong(pong)) => {
                    self.probe_answered(pong.nonce, |state| {
                        (from == state.destination).then(|| ProbeAnswer::Pong {
                            rtt: now.saturating_duration_since(state.sent_at),
                            hops: pong.hops,
                        })
                    });
                }
                Ok(Arrived::TraceReply(reply)) => {
                    self.probe_answered(reply.nonce, |state| {
                        Some(ProbeAnswer::Hop {
                            address: from,
                            rtt: now.saturating_duration_since(state.sent_at),
                            reply,
                        })
                    });
                }
                Err(error) => {
                    metrics::counter!(telemetry::INBOUND_REFUSED, "reason" => error.label()).increment(1);
                    tracing::debug!(source = %from.short(), %error, "an envelope came to nothing");
                }
            }
        }
        self.send_receipts(receipts);
        if !ops.is_empty() {
            self.submit(ops, Some(ctx.address()));
        }
        self.write_chunks(ctx);
        self.pump(ctx);
    }

    fn receive_chunk(&mut self, from: Address, packet_id: PacketId, chunk: Chunk, receipts: &mut Receipts) {
        match self.incoming.chunk(from, &chunk) {
            OnChunk::Write => self.writes.push(ChunkWrite {
                key: (from, chunk.tag),
                index: chunk.index,
                packet_id,
                bytes: chunk.ciphertext,
            }),
            OnChunk::Known(receipt) => {
                receipts.packet(from, packet_id);
                receipts.chunk(from, receipt);
            }
            OnChunk::NoManifest(receipt) => receipts.chunk(from, receipt),
            OnChunk::Misfit => count_refused("misfit_chunk"),
        }
    }

    /// Writes the chunks at hand with one fsync a file, then their bitmaps with one commit. Those
    /// that arrive meanwhile go with the next round: the batch closes when the disk is free.
    fn write_chunks(&mut self, ctx: &mut Context<Self>) {
        if self.writing || self.writes.is_empty() {
            return;
        }
        self.writing = true;
        let writes = std::mem::take(&mut self.writes);
        let blobs = self.parts.blobs.clone();
        let lengths: BTreeMap<TransferKey, u64> =
            writes.iter().filter_map(|w| Some((w.key, self.incoming.sealed_len(&w.key)?))).collect();
        let job = tokio::task::spawn_blocking(move || {
            let mut written = Written::new();
            let mut open = BTreeMap::new();
            for w in &writes {
                let Some(len) = lengths.get(&w.key) else { continue };
                if !open.contains_key(&w.key) {
                    let name = BlobName::incoming(&w.key.0, &w.key.1);
                    open.insert(w.key, blobs.open_incoming(&name, *len)?);
                }
                if let Some(blob) = open.get(&w.key) {
                    blob.write_at(chunk_offset(w.index), &w.bytes)?;
                    written.entry(w.key).or_default().push((w.index, w.packet_id));
                }
            }
            for blob in open.values() {
                blob.sync()?;
            }
            Ok::<_, StoreError>(written)
        });
        ctx.spawn(job.into_actor(self).map(|written, actor, ctx| {
            actor.writing = false;
            match written {
                Ok(Ok(written)) => actor.chunks_written(written, ctx),
                Ok(Err(error)) => tracing::error!(%error, "cannot write an incoming file"),
                Err(error) => tracing::error!(%error, "a file write ended early"),
            }
            actor.write_chunks(ctx);
        }));
    }

    fn chunks_written(&mut self, written: Written, ctx: &mut Context<Self>) {
        let mut ops = Vec::new();
        for (key, chunks) in written {
            let (indices, packet_ids): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
            let Some(progress) = self.incoming.durable(key, &indices) else { continue };
            let put = LocalOp::PartialPut(partial_row(&progress.record));
            let (receipt, whole) = (progress.receipt, progress.whole);
            ops.push((put, Committing::Progress { receipt, packet_ids, key, whole }));
        }
        if !ops.is_empty() {
            self.submit(ops, Some(ctx.address()));
        }
    }

    /// Every chunk is here: decrypt, hash, and enter the inbox where all is right.
    fn check_whole(&mut self, key: TransferKey, ctx: &mut Context<Self>) {
        let Some(record) = self.incoming.whole(&key).cloned() else { return };
        let blobs = self.parts.blobs.clone();
        let job = tokio::task::spawn_blocking(move || {
            let sound = file_is_sound(&blobs, &key, &record)?;
            Ok::<_, StoreError>((record, sound))
        });
        ctx.spawn(job.into_actor(self).map(move |checked, actor, ctx| match checked {
            Ok(Ok((record, true))) => {
                let entry = InboxRecord {
                    uid: record.uid,
                    from: record.from,
                    broadcast: false,
                    name: record.name.clone(),
                    sent_at_unix_ms: record.sent_at_unix_ms,
                    received_at_unix_ms: clock::unix_ms(),
                    hops: record.hops,
                    body: Body::File(record.file.clone()),
                };
                let commit = LocalOp::InboxCommit(InboxCommit {
                    packet_id: record.packet_id,
                    uid: record.uid,
                    source: record.from,
                    dedup_until_unix_s: record.dedup_until_unix_s,
                    entry: entry.encode(),
                });
                let put = LocalOp::PartialPut(partial_row(&record.completed()));
                let ops = vec![(commit, Committing::File { key }), (put, Committing::Nothing)];
                actor.submit(ops, Some(ctx.address()));
            }
            Ok(Ok((record, false))) => {
                tracing::warn!(uid = %record.uid, "a file's content does not match its manifest");
                actor.incoming.close(&key);
                let mut receipts = Receipts::default();
                receipts.chunk(
                    record.from,
                    ChunkReceipt {
                        tag: key.1,
                        state: TransferState::Rejected,
                        total: chunk_count(record.file.length),
                        bitmap: Vec::new(),
                    },
                );
                actor.send_receipts(receipts);
                let remove = LocalOp::PartialRemove { source: key.0, tag: key.1 };
                actor.submit(vec![(remove, Committing::Nothing)], None);
                remove_blob(
                    actor.parts.blobs.clone(),
                    BlobKind::Incoming,
                    BlobName::incoming(&key.0, &key.1),
                );
            }
            Ok(Err(error)) => tracing::error!(%error, "cannot finish a file"),
            Err(error) => tracing::error!(%error, "a file check ended early"),
        }));
    }

    /// Queues operations as one submission; `tell` is told when they are durable. A store that
    /// takes nothing now costs a receipt, never a message: the sender tries again.
    fn submit(&mut self, ops: Vec<(LocalOp, Committing)>, tell: Option<Addr<Self>>) {
        let (ops, then): (Vec<_>, Vec<_>) = ops.into_iter().unzip();
        let taken = self.parts.store.submit(
            ops,
            Box::new(move |result| match (result, tell) {
                (Ok(outcomes), Some(tell)) => {
                    tell.do_send(Committed { then, outcomes });
                }
                (Ok(_), None) => {}
                (Err(error), _) => tracing::error!(%error, "the store refused a commit"),
            }),
        );
        if let Err(back) = taken {
            count_refused("store_busy");
            tracing::debug!(reason = %back.reason, "the store took no batch");
        }
    }

    fn committed(&mut self, message: Committed, ctx: &mut Context<Self>) {
        let mut receipts = Receipts::default();
        let mut grown = 0;
        for (then, outcome) in message.then.into_iter().zip(message.outcomes) {
            match then {
                Committing::Inbox { packet_id, receipt_to } => {
                    match outcome {
                        LocalOutcome::Committed { .. } => grown += 1,
                        LocalOutcome::Seen(Seen::Packet | Seen::Message) => {
                            metrics::counter!(telemetry::INBOX_DUPLICATES).increment(1);
                        }
                        _ => continue,
                    }
                    if let Some(source) = receipt_to {
                        receipts.packet(source, packet_id);
                    }
                }
                Committing::Manifest { packet_id, record } => {
                    let source = record.from;
                    receipts.packet(source, packet_id);
                    receipts.chunk(source, self.incoming.opened(*record));
                }
                Committing::Progress { receipt, packet_ids, key, whole } => {
                    packet_ids.into_iter().for_each(|id| receipts.packet(key.0, id));
                    if whole {
                        self.check_whole(key, ctx);
                    } else {
                        receipts.chunk(key.0, receipt);
                    }
                }
                Committing::File { key } => {
                    if matches!(outcome, LocalOutcome::Committed { .. }) {
                        grown += 1;
                    }
                    if let Some(receipt) = self.incoming.complete(&key) {
                        receipts.chunk(key.0, receipt);
                    }
                }
                Committing::Nothing => {}
            }
        }
        if grown > 0 {
            metrics::counter!(telemetry::MESSAGES_RECEIVED).increment(grown);
            self.parts.inbox_grown.send_modify(|n| *n = n.wrapping_add(grown));
        }
        self.send_receipts(receipts);
    }

    fn send_receipts(&mut self, receipts: Receipts) {
        let now = clock::unix_s();
        let mut batch = Vec::new();
        for (to, receipt) in receipts.into_envelopes() {
            let wanted = Wanted::prompt(EnvelopeKind::RECEIPT, to, now);
            match self.composer.open(&wanted, &receipt.encode()) {
                Ok(made) => batch.push((made.packet_id, made.envelope)),
                Err(error) => tracing::error!(%error, "cannot make a receipt"),
            }
        }
        if !batch.is_empty() {
            metrics::counter!(telemetry::RECEIPTS_SENT).increment(batch.len() as u64);
            self.hand_to_router(batch);
        }
    }

    fn answer_cannot_open(&mut self, to: Address, packet_id: PacketId, record: &VerifiedKeyRecord) {
        let payload = CannotOpen {
            packet_id,
            reason: CannotOpenReason::UnknownKey,
            key_record: record.signed().clone(),
        }
        .encode();
        self.answer_probe(EnvelopeKind::CANNOT_OPEN, to, &payload);
    }

    fn answer_probe(&mut self, kind: EnvelopeKind, to: Address, payload: &[u8]) {
        if !self.probe_answers.try_take(clock::now(), 1) {
            count_refused("probe_budget");
            return;
        }
        match self.composer.open(&Wanted::prompt(kind, to, clock::unix_s()), payload) {
            Ok(made) => self.hand_to_router(vec![(made.packet_id, made.envelope)]),
            Err(error) => tracing::error!(%error, "cannot make an answer"),
        }
    }

    fn probe_answered(&mut self, nonce: u64, answer: impl FnOnce(&ProbeState) -> Option<ProbeAnswer>) {
        let Some(state) = self.probes.get(&nonce) else { return };
        if let Some(answer) = answer(state) {
            // A reader that is slow or gone loses answers, nobody else does.
            let _ = state.answers.try_send(answer);
        }
    }

    // ---- start ---------------------------------------------------------------------------------

    fn load(&mut self, ctx: &mut Context<Self>) {
        let store = self.parts.store.clone();
        let load = async move {
            let mut rows = Vec::new();
            let mut after = None;
            loop {
                let op = LocalOp::OutboxPage { after, limit: PageLimit::default() };
                match ask_one(&*store, op).await? {
                    LocalOutcome::Outbox(page) => {
                        rows.extend(page.rows);
                        after = page.next;
                    }
                    _ => break,
                }
                if after.is_none() {
                    break;
                }
            }
            let mut partials = Vec::new();
            let mut after = None;
            loop {
                let op = LocalOp::PartialPage { after, limit: PageLimit::default() };
                match ask_one(&*store, op).await? {
                    LocalOutcome::Partials(page) => {
                        partials.extend(page.rows);
                        after = page.next;
                    }
                    _ => break,
                }
                if after.is_none() {
                    break;
                }
            }
            Ok::<_, MeshError>((rows, partials))
        };
        ctx.spawn(load.into_actor(self).map(|loaded, actor, ctx| match loaded {
            Ok((rows, partials)) => actor.loaded(rows, partials, ctx),
            Err(error) => {
                actor.guard.failed(format!("cannot read the outbox: {error}"));
                ctx.stop();
            }
        }));
    }

    fn loaded(&mut self, rows: Vec<OutboxRow>, partials: Vec<PartialRow>, ctx: &mut Context<Self>) {
        let (now, wall) = (clock::now(), clock::unix_s());
        for row in rows {
            match OutboxRecord::decode(&row.body) {
                Ok(record) => self.accept(now, wall, record),
                Err(error) => tracing::error!(uid = %row.uid, %error, "an outbox row was set aside"),
            }
        }
        for row in partials {
            match PartialRecord::decode(&row.state) {
                Ok(record) => self.incoming.restore(row.tag, record),
                Err(error) => tracing::error!(%error, "a partial file was set aside"),
            }
        }
        let live: std::collections::BTreeSet<_> =
            self.outbox.list(now).iter().map(|line| BlobName::outgoing(&line.uid)).collect();
        tracing::debug!(outbox = live.len(), files = self.incoming.len(), "delivery state restored");
        let blobs = self.parts.blobs.clone();
        tokio::task::spawn_blocking(move || match blobs.sweep(BlobKind::Outgoing, &live) {
            Ok(swept) if swept.files > 0 => {
                tracing::info!(files = swept.files, "removed contents without rows")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot look for contents without rows"),
        });
        for key in self.incoming.all_whole() {
            self.check_whole(key, ctx);
        }
        self.pump(ctx);
    }

    fn accept(&mut self, now: Instant, wall: u64, record: OutboxRecord) {
        let left = remaining(record.created_unix_s(), record.lifetime(), wall);
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

struct ChunkRead {
    transmit: Transmit,
    index: u32,
    total: u32,
    tag: TransferTag,
}

/// Receipts of one commit, one envelope a source as far as they fit.
#[derive(Default)]
struct Receipts(BTreeMap<Address, (Vec<PacketId>, BTreeMap<TransferTag, ChunkReceipt>)>);

impl Receipts {
    fn packet(&mut self, to: Address, packet_id: PacketId) {
        self.0.entry(to).or_default().0.push(packet_id);
    }

    /// The last word about a file wins.
    fn chunk(&mut self, to: Address, receipt: ChunkReceipt) {
        self.0.entry(to).or_default().1.insert(receipt.tag, receipt);
    }

    fn into_envelopes(self) -> impl Iterator<Item = (Address, Receipt)> {
        self.0.into_iter().flat_map(|(to, (ids, chunks))| {
            let chunks: Vec<_> = chunks.into_values().collect();
            let parts = ids.len().div_ceil(RECEIPT_IDS_MAX).max(chunks.len().div_ceil(RECEIPT_BITMAPS_MAX));
            (0..parts).map(move |part| {
                let slice = |len: usize, each: usize| {
                    let start = part.saturating_mul(each).min(len);
                    start..start.saturating_add(each).min(len)
                };
                let packet_ids = ids.get(slice(ids.len(), RECEIPT_IDS_MAX)).unwrap_or(&[]).to_vec();
                let chunks = chunks.get(slice(chunks.len(), RECEIPT_BITMAPS_MAX)).unwrap_or(&[]).to_vec();
                (to, Receipt { packet_ids, chunks })
            })
        })
    }
}

fn count_refused(reason: &'static str) {
    metrics::counter!(telemetry::INBOUND_REFUSED, "reason" => reason).increment(1);
}

fn wanted(record: &OutboxRecord, kind: EnvelopeKind) -> Wanted {
    Wanted {
        kind,
        priority: record.priority(),
        destination: record.destination,
        created_unix_s: record.created_unix_s(),
        lifetime: record.lifetime(),
        max_hops: MAX_HOPS_MAX,
    }
}

fn partial_row(record: &PartialRecord) -> PartialRow {
    PartialRow {
        source: record.from,
        tag: FileKey::from_bytes(record.file.file_key.0).transfer_tag(),
        until_unix_s: record.until_unix_s(),
        state: record.encode(),
    }
}

fn dedup_until(inbound: &InboundEnvelope) -> u64 {
    let header = inbound.envelope.header();
    clock::unix_s()
        .max(u64::from(header.created_unix_s))
        .saturating_add(u64::from(header.lifetime.as_secs()))
        .saturating_add(DEDUP_MARGIN_S)
}

fn inbox_commit(
    inbound: &InboundEnvelope,
    content: Content,
    broadcast: bool,
    hops: u8,
    dedup_until_unix_s: u64,
) -> LocalOp {
    let record = InboxRecord {
        uid: content.uid,
        from: inbound.source,
        broadcast,
        name: content.name,
        sent_at_unix_ms: content.sent_at_unix_ms,
        received_at_unix_ms: clock::unix_ms(),
        hops,
        body: Body::Inline(content.bytes.to_vec()),
    };
    LocalOp::InboxCommit(InboxCommit {
        packet_id: inbound.packet_id,
        uid: content.uid,
        source: inbound.source,
        dedup_until_unix_s,
        entry: record.encode(),
    })
}

/// Decrypts every chunk in order and compares the whole with the manifest's hash.
fn file_is_sound(blobs: &BlobDir, key: &TransferKey, record: &PartialRecord) -> Result<bool, StoreError> {
    use sha2::Digest as _;
    let blob = blobs.open_received(&BlobName::incoming(&key.0, &key.1))?;
    let file_key = FileKey::from_bytes(record.file.file_key.0);
    let total = chunk_count(record.file.length);
    let mut hash = sha2::Sha256::new();
    for index in 0..total {
        let sealed = blob.read_at(chunk_offset(index), sealed_chunk_len(index, record.file.length))?;
        let Ok(plain) = file_key.open_chunk(&record.uid, index, total, &sealed) else { return Ok(false) };
        hash.update(&plain);
    }
    Ok(hash.finalize().as_slice() == record.file.sha256.0)
}

/// Seals a large content into a blob; gives what the outbox row needs.
fn seal_file(blobs: &BlobDir, uid: &MessageUid, bytes: &[u8]) -> Result<FileRecord, MeshError> {
    let key = FileKey::generate(&mut random::os_rng());
    let total = chunk_count(bytes.len() as u64);
    let mut blob = blobs.create_outgoing(&BlobName::outgoing(uid), SEALED_CHUNK_BYTES)?;
    for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        blob.append(&key.seal_chunk(uid, index as u32, total, chunk)?)?;
    }
    blob.finish()?;
    Ok(FileRecord { length: bytes.len() as u64, sha256: sha256(&[bytes]), file_key: Digest(*key.as_bytes()) })
}

fn read_chunk(blobs: &BlobDir, job: &ChunkRead) -> Result<Bytes, StoreError> {
    let blob = blobs.open_outgoing(&BlobName::outgoing(&job.transmit.uid))?;
    Ok(blob.read(u64::from(job.index))?.unwrap_or_default().into())
}

fn remove_blob(blobs: Arc<BlobDir>, kind: BlobKind, name: BlobName) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = blobs.remove(kind, &name) {
            tracing::warn!(%name, %error, "cannot remove a content that is no longer needed");
        }
    });
}

impl Actor for DeliveryActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.load(ctx);
    }
}

/// To itself: go on sending.
struct Pump;
message!(Pump => ());

impl Handler<Pump> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, _: Pump, ctx: &mut Context<Self>) {
        self.pump(ctx);
    }
}

/// From the store's thread: a submission is durable.
struct Committed {
    then: Vec<Committing>,
    outcomes: Vec<LocalOutcome>,
}
message!(Committed => ());

impl Handler<Committed> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: Committed, ctx: &mut Context<Self>) {
        self.committed(message, ctx);
    }
}

impl Handler<SendContent> for DeliveryActor {
    type Result = ResponseActFuture<Self, Result<MessageUid, MeshError>>;

    fn handle(&mut self, send: SendContent, _: &mut Context<Self>) -> Self::Result {
        let uid = MessageUid(random::random_bytes(&mut random::os_rng()));
        let refused = if self.draining {
            Some(MeshError::Draining)
        } else if send.bytes.len() as u64 > CONTENT_BYTES_MAX {
            Some(MeshError::Refused(format!("the content is larger than {CONTENT_BYTES_MAX} bytes")))
        } else if send.destination == self.composer.address() {
            Some(MeshError::Refused("this is the node's own address".into()))
        } else if send.destination.is_reserved() {
            Some(MeshError::Refused("no node can have this address".into()))
        } else {
            self.outbox.admit(send.bytes.len() as u64).err().map(|e| MeshError::Refused(e.to_string()))
        };
        if let Some(error) = refused {
            return Box::pin(actix::fut::ready(Err(error)));
        }
        let sent_at_unix_ms = clock::unix_ms();
        let (store, blobs) = (self.parts.store.clone(), self.parts.blobs.clone());
        let work = async move {
            let body = if send.bytes.len() <= INLINE_CONTENT_BYTES_MAX {
                Body::Inline(send.bytes.to_vec())
            } else {
                let bytes = send.bytes;
                let sealed = tokio::task::spawn_blocking(move || seal_file(&blobs, &uid, &bytes)).await;
                Body::File(sealed.map_err(|_| MeshError::Stopped("file writer"))??)
            };
            let record = OutboxRecord {
                uid,
                destination: send.destination,
                name: send.name,
                sent_at_unix_ms,
                lifetime: Lifetime::at_least(send.ttl).code(),
                priority: send.priority as u8,
                body,
            };
            let row = OutboxRow {
                uid,
                destination: record.destination,
                created_unix_s: record.created_unix_s(),
                expires_unix_s: record.expires_unix_s(),
                state: Vec::new(),
                body: record.encode(),
            };
            ask_one(&*store, LocalOp::OutboxPut(row)).await?;
            Ok(record)
        };
        Box::pin(work.into_actor(self).map(move |record, actor, ctx| {
            let record: Result<OutboxRecord, MeshError> = record;
            let record = record?;
            metrics::counter!(telemetry::MESSAGES_SENT).increment(1);
            actor.accept(clock::now(), clock::unix_s(), record);
            actor.pump(ctx);
            Ok(uid)
        }))
    }
}

impl Handler<SendBroadcast> for DeliveryActor {
    type Result = Result<MessageUid, MeshError>;

    fn handle(&mut self, send: SendBroadcast, _: &mut Context<Self>) -> Self::Result {
        if self.draining {
            return Err(MeshError::Draining);
        }
        let uid = MessageUid(random::random_bytes(&mut random::os_rng()));
        let content = Content { uid, name: send.name, sent_at_unix_ms: clock::unix_ms(), bytes: send.bytes };
        let payload = content.encode();
        if payload.len() > PAYLOAD_BYTES_MAX {
            let over = payload.len().saturating_sub(PAYLOAD_BYTES_MAX);
            return Err(MeshError::Refused(format!(
                "a broadcast carries 15 KiB at most; this one is {over} bytes too long"
            )));
        }
        let wanted = Wanted {
            kind: EnvelopeKind::BROADCAST,
            priority: Priority::Normal,
            destination: Address::BROADCAST,
            created_unix_s: clock::unix_s(),
            lifetime: Lifetime::at_least(send.ttl.min(BROADCAST_TTL_MAX)),
            max_hops: send.max_hops,
        };
        let made = self.composer.open(&wanted, &payload).map_err(|e| MeshError::Refused(e.to_string()))?;
        self.originate
            .offer(Originate(vec![(made.packet_id, made.envelope)]))
            .map_err(|_| MeshError::Stopped("router"))?;
        Ok(uid)
    }
}

impl Handler<AwaitEnd> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: AwaitEnd, _: &mut Context<Self>) {
        if self.outbox.record(&message.uid).is_some() {
            let waiters = self.waiters.entry(message.uid).or_default();
            waiters.retain(|w| !w.is_closed());
            waiters.push(message.tell);
        }
    }
}

impl Handler<ListOutbox> for DeliveryActor {
    type Result = MessageResult<ListOutbox>;

    fn handle(&mut self, _: ListOutbox, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.outbox.list(clock::now()))
    }
}

impl Handler<GetHold> for DeliveryActor {
    type Result = MessageResult<GetHold>;

    fn handle(&mut self, message: GetHold, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.outbox.hold(&message.0))
    }
}

impl Handler<CancelMessage> for DeliveryActor {
    type Result = bool;

    fn handle(&mut self, message: CancelMessage, _: &mut Context<Self>) -> bool {
        let cancelled = self.outbox.cancel(&message.0);
        let found = cancelled.is_some();
        if let Some(finished) = cancelled {
            self.finish(finished);
        }
        found
    }
}

impl Handler<Probe> for DeliveryActor {
    type Result = Result<(), MeshError>;

    fn handle(&mut self, probe: Probe, _: &mut Context<Self>) -> Self::Result {
        if self.draining {
            return Err(MeshError::Draining);
        }
        let now = clock::now();
        self.probes.retain(|_, state| {
            !state.answers.is_closed() && now.saturating_duration_since(state.sent_at) < PROBE_LIFETIME
        });
        if self.probes.len() >= PROBES_MAX {
            return Err(MeshError::Refused("too many probes are waiting for answers".into()));
        }
        let nonce = u64::from_be_bytes(random::random_bytes(&mut random::os_rng()));
        let kind = if probe.trace { EnvelopeKind::TRACE } else { EnvelopeKind::PING };
        let wanted = Wanted::prompt(kind, probe.destination, clock::unix_s());
        let made = self
            .composer
            .open(&wanted, &ProbePayload { nonce }.encode())
            .map_err(|e| MeshError::Refused(e.to_string()))?;
        let state = ProbeState { destination: probe.destination, sent_at: now, answers: probe.answers };
        self.probes.insert(nonce, state);
        self.hand_to_router(vec![(made.packet_id, made.envelope)]);
        Ok(())
    }
}

impl Handler<DeliverLocal> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: DeliverLocal, ctx: &mut Context<Self>) {
        self.receive(message, ctx);
    }
}

impl Handler<DestinationUp> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: DestinationUp, ctx: &mut Context<Self>) {
        if !self.outbox.is_empty() {
            self.outbox.route_up(&message.0);
            self.pump(ctx);
        }
    }
}

impl Handler<PacketFate> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: PacketFate, ctx: &mut Context<Self>) {
        let now = clock::now();
        match message {
            PacketFate::Refused { packet_id, reason, retry_after } => {
                self.outbox.refused(now, &packet_id, reason, retry_after);
            }
            PacketFate::InCustody(packets) => {
                for packet_id in packets {
                    self.outbox.in_custody(now, &packet_id);
                }
            }
        }
        self.pump(ctx);
    }
}

impl Handler<KeyRecordFound> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: KeyRecordFound, ctx: &mut Context<Self>) {
        let address = message.0.address();
        // Announces bring records of the whole mesh; those nobody writes to are the router's.
        if self.outbox.has(&address) || self.key_cache.contains_key(&address) {
            self.learn_key(*message.0);
            self.outbox.route_up(&address);
            self.pump(ctx);
        }
    }
}

impl Handler<Drain> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            DrainPhase::Draining => {
                self.draining = true;
                self.guard.report(drain.phase, DrainCounts::default());
            }
            DrainPhase::Persisting => {
                let counts = DrainCounts { undelivered_kept: self.outbox.len() as u64, ..Default::default() };
                self.guard.report(drain.phase, counts);
            }
            DrainPhase::Cleanup => {
                self.guard.drained();
                ctx.stop();
            }
        }
    }
}
