//! Contents too large for one envelope: sealed into a blob on the way out, gathered in one on the
//! way in.

use std::{
    collections::{BTreeSet, btree_map::Entry},
    io::ErrorKind::NotFound,
};

use super::{sending::wanted, *};

impl DeliveryActor {
    pub(super) fn read_chunks(&mut self, wanted_chunks: Vec<Transmit>, ctx: &mut Context<Self>) {
        let mut jobs = Vec::new();
        let uids: BTreeSet<MessageUid> = wanted_chunks.iter().map(|t| t.uid).collect();
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
        ctx.spawn(read.into_actor(self).map(move |read, actor, ctx| {
            let now = clock::now();
            let mut drafts = Vec::new();
            let read = read.unwrap_or_else(|error| {
                tracing::error!(%error, "a file read ended early");
                uids.iter().for_each(|uid| actor.hold_back(now, uid, Hold::NoPath));
                Vec::new()
            });
            for (job, bytes) in read {
                match bytes {
                    Ok(bytes) => drafts.extend(actor.draft_chunk(now, &job, bytes)),
                    Err(error) => {
                        tracing::error!(uid = %job.transmit.uid, %error, "cannot read an outgoing file");
                        actor.hold_back(now, &job.transmit.uid, Hold::NoPath);
                    }
                }
            }
            actor.send_on(now, drafts);
            actor.pump(ctx);
        }));
    }

    fn draft_chunk(&mut self, now: Instant, job: &ChunkRead, bytes: Bytes) -> Option<(Transmit, Draft)> {
        let record = self.outbox.record(&job.transmit.uid)?;
        let wanted = wanted(record, EnvelopeKind::CHUNK, self.parts.outbox.max_hops);
        let chunk = Chunk { tag: job.tag, index: job.index, total: job.total, ciphertext: bytes };
        match self.composer.draft(&wanted, &chunk.encode()) {
            Ok(draft) => Some((job.transmit, draft)),
            Err(error) => {
                tracing::error!(uid = %job.transmit.uid, %error, "cannot make a chunk");
                self.hold_back(now, &job.transmit.uid, Hold::NoKey);
                None
            }
        }
    }

    pub(super) fn receive_chunk(&mut self, now: Instant, from: Address, packet_id: PacketId, chunk: Chunk) {
        match self.incoming.chunk(from, &chunk) {
            OnChunk::Write => self.writes.push(ChunkWrite {
                key: (from, chunk.tag),
                index: chunk.index,
                packet_id,
                bytes: chunk.ciphertext,
            }),
            OnChunk::Known(receipt) => {
                self.receipts.packet(now, from, packet_id);
                self.receipts.repeat(now, from, receipt);
            }
            OnChunk::NoManifest(receipt) => self.receipts.repeat(now, from, receipt),
            OnChunk::Misfit => count_refused("misfit_chunk"),
        }
    }

    /// Writes the chunks at hand with one fsync a file, then their bitmaps with one commit. Those
    /// that arrive meanwhile go with the next round: the batch closes when the disk is free.
    pub(super) fn write_chunks(&mut self, ctx: &mut Context<Self>) {
        if self.writing || self.writes.is_empty() {
            return;
        }
        self.writing = true;
        let writes = std::mem::take(&mut self.writes);
        let packets: Vec<_> = writes.iter().map(|w| w.packet_id).collect();
        let blobs = self.parts.blobs.clone();
        let lengths: BTreeMap<TransferKey, u64> =
            writes.iter().filter_map(|w| Some((w.key, self.incoming.sealed_len(&w.key)?))).collect();
        let job = tokio::task::spawn_blocking(move || {
            let mut written = Written::new();
            let mut open = BTreeMap::new();
            for w in &writes {
                let Some(len) = lengths.get(&w.key) else { continue };
                let blob = match open.entry(w.key) {
                    Entry::Occupied(blob) => blob.into_mut(),
                    Entry::Vacant(slot) => {
                        let name = BlobName::incoming(&w.key.0, &w.key.1);
                        slot.insert(blobs.open_incoming(&name, *len)?)
                    }
                };
                blob.write_at(chunk_offset(w.index), &w.bytes)?;
                written.entry(w.key).or_default().push((w.index, w.packet_id));
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
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot write an incoming file");
                    actor.refuse(packets, "store_failed", RefuseReason::StoreFull);
                }
                Err(error) => tracing::error!(%error, "a file write ended early"),
            }
            actor.write_chunks(ctx);
        }));
    }

    fn chunks_written(&mut self, written: Written, ctx: &mut Context<Self>) {
        let wall = self.parts.clock.unix_s();
        let mut ops = Vec::new();
        for (key, chunks) in written {
            let (indices, packet_ids): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
            let Some(record) = self.incoming.written(&key, &indices, wall) else { continue };
            let put = LocalOp::PartialPut(partial_row(&record));
            ops.push((put, Committing::Progress { key, bitmap: record.bitmap.clone(), packet_ids }));
        }
        if !ops.is_empty() {
            self.submit(ops, ctx);
        }
    }

    /// Takes up a file that begins to arrive. What strangers may have open is bounded, and who is one
    /// the store knows.
    pub(super) fn take_up(&mut self, offer: Offer, ingress: Option<Address>, ctx: &mut Context<Self>) {
        let known = |namespace| LocalOp::KvGet { namespace, key: offer.from.0.to_vec() };
        let ops = vec![known(Namespace::KeyRecord), known(Namespace::Known), known(Namespace::Accepted)];
        let Ok(asked) = crate::storage::ask_local(&*self.parts.store, ops) else {
            self.incoming.not_opened(&offer.key());
            return self.refuse(vec![offer.packet_id], "store_busy", RefuseReason::Congested);
        };
        ctx.spawn(asked.into_actor(self).map(move |answer, actor, ctx| {
            let is_there = |outcome: &LocalOutcome| matches!(outcome, LocalOutcome::Value(Some(_)));
            let is_known = answer.is_ok_and(|outcomes| outcomes.iter().any(is_there));
            let packet_id = offer.packet_id;
            match actor.incoming.take_up(&offer, !is_known, actor.parts.clock.unix_s()) {
                Some(record) => {
                    let file_bytes = record.file.length;
                    let strangers = strangers(actor.parts.welcome.read().accept);
                    let row = partial_row(&record);
                    let put = LocalOp::PartialOpen { row, ingress, file_bytes, strangers };
                    actor.submit(vec![(put, Committing::Manifest { packet_id, record: record.into() })], ctx);
                }
                None => actor.refuse(vec![packet_id], "too_many_files", RefuseReason::StoreFull),
            }
        }));
    }

    /// Checks the next file whose chunks are all here: decrypt, hash, and enter the inbox where all is
    /// right. One at a time, since each is read from end to end.
    pub(super) fn check_next(&mut self, ctx: &mut Context<Self>) {
        if self.checking {
            return;
        }
        let Some((key, record)) = self.incoming.next_to_check() else { return };
        self.checking = true;
        let blobs = self.parts.blobs.clone();
        let job = tokio::task::spawn_blocking(move || {
            let sound = file_is_sound(&blobs, &key, &record)?;
            Ok::<_, StoreError>((record, sound))
        });
        ctx.spawn(job.into_actor(self).map(move |checked, actor, ctx| {
            actor.checking = false;
            match checked {
                Ok(Ok((record, true))) => actor.enter_inbox(key, &record, ctx),
                Ok(Ok((record, false))) => {
                    tracing::warn!(uid = %record.uid, "a file's content does not match its manifest");
                    let rejected = ChunkReceipt {
                        tag: key.1,
                        state: TransferState::Rejected,
                        total: chunk_count(record.file.length),
                        bitmap: Vec::new(),
                    };
                    actor.receipts.progress(clock::now(), record.from, rejected);
                    actor.pump_soon(ctx);
                    actor.give_up(key, ctx);
                }
                Ok(Err(StoreError::Io { source, path, .. })) if source.kind() == NotFound => {
                    // Its sender asks for a receipt of the last chunks, and is asked for all of them.
                    tracing::error!(path = %path.display(), "a received file is gone and begins anew");
                    actor.give_up(key, ctx);
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot finish a file");
                    actor.check_later(&key, ctx);
                }
                Err(error) => {
                    tracing::error!(%error, "a file check ended early");
                    actor.check_later(&key, ctx);
                }
            }
            actor.check_next(ctx);
        }));
    }

    fn enter_inbox(&mut self, key: TransferKey, record: &PartialRecord, ctx: &mut Context<Self>) {
        let entry = InboxRecord {
            uid: record.uid,
            from: record.from,
            broadcast: false,
            name: record.name.clone(),
            sent_at_unix_ms: record.sent_at_unix_ms,
            received_at_unix_ms: self.parts.clock.unix_ms(),
            hops: record.hops,
            body: Body::File(record.file.clone()),
        };
        let commit = InboxCommit {
            uid: record.uid,
            source: record.from,
            ingress: None,
            dedup_until_unix_s: record.dedup_until_unix_s,
            awaits: Awaits::default(),
            strangers: strangers(self.parts.welcome.read().accept),
            entry: entry.encode(),
        };
        let commit = LocalOp::FileCommit { commit, tag: key.1 };
        let put = LocalOp::PartialPut(partial_row(&record.completed()));
        self.submit(vec![(commit, Committing::File { key }), (put, Committing::Nothing)], ctx);
    }

    /// A whole file could not be checked, or not enter the inbox: nobody asks again by itself.
    pub(super) fn check_later(&mut self, key: &TransferKey, ctx: &mut Context<Self>) {
        self.incoming.check_failed(key);
        self.retry_later(ctx);
    }

    fn give_up(&mut self, key: TransferKey, ctx: &mut Context<Self>) {
        if let Some(record) = self.incoming.close(&key) {
            self.note(record.uid, HistoryEvent::GivenUp { from: record.from });
        }
        let remove = LocalOp::PartialRemove { source: key.0, tag: key.1 };
        self.submit(vec![(remove, Committing::Forgotten { key, has_blob: true })], ctx);
    }

    /// Gives up files that do not come forward or whose message has expired, the memory of those that
    /// came in whole, and keys that have served.
    pub(super) fn forget(&mut self, ctx: &mut Context<Self>) {
        let forgotten = self.incoming.forget(self.parts.clock.unix_s());
        for (key, uid, _) in forgotten.iter().filter(|(.., complete)| !complete) {
            self.note(*uid, HistoryEvent::GivenUp { from: key.0 });
        }
        self.write_history_soon(ctx);
        // The blob of a whole file belongs to the inbox.
        let ops = forgotten.into_iter().map(|(key, _, complete)| {
            let remove = LocalOp::PartialRemove { source: key.0, tag: key.1 };
            (remove, Committing::Forgotten { key, has_blob: !complete })
        });
        let ops: Vec<_> = ops.collect();
        if !ops.is_empty() {
            self.submit(ops, ctx);
        }
        self.composer.forget_spent(clock::now());
        self.open_sessions.forget_destroyed(&self.parts.keys.borrow().secrets);
        ctx.run_later(FORGET_EVERY, Self::forget);
    }
}

pub(super) struct ChunkRead {
    transmit: Transmit,
    index: u32,
    total: u32,
    tag: TransferTag,
}

pub(super) fn partial_row(record: &PartialRecord) -> PartialRow {
    PartialRow {
        source: record.from,
        tag: record.key().1,
        until_unix_s: record.until_unix_s(),
        state: record.encode(),
    }
}

/// Seals a large content into a blob; gives what the outbox row needs.
pub(super) fn seal_file(blobs: &BlobDir, uid: &MessageUid, bytes: &[u8]) -> Result<FileRecord, MeshError> {
    let key = FileKey::generate(&mut random::os_rng());
    let total = chunk_count(bytes.len() as u64);
    let mut blob = blobs.create_outgoing(&BlobName::outgoing(uid), SEALED_CHUNK_BYTES)?;
    for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        blob.append(&key.seal_chunk(uid, index as u32, total, chunk)?)?;
    }
    blob.finish()?;
    Ok(FileRecord { length: bytes.len() as u64, sha256: sha256(&[bytes]), file_key: Digest(*key.as_bytes()) })
}

pub(super) fn remove_blob(blobs: Arc<BlobDir>, kind: BlobKind, name: BlobName) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = blobs.remove(kind, &name) {
            tracing::warn!(%name, %error, "cannot remove a content that is no longer needed");
        }
    });
}

fn read_chunk(blobs: &BlobDir, job: &ChunkRead) -> Result<Bytes, StoreError> {
    let blob = blobs.open_outgoing(&BlobName::outgoing(&job.transmit.uid))?;
    Ok(blob.read(u64::from(job.index))?.unwrap_or_default().into())
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
