//! The way out: what the outbox says is due, made into envelopes.

use super::{files::remove_blob, *};

impl DeliveryActor {
    /// Sends what the outbox says is due, then waits for the next timer.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
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

    pub(super) fn rearm(&mut self, ctx: &mut Context<Self>) {
        self.timer.rearm(self.outbox.next_wake(), ctx, Self::pump);
    }

    pub(super) fn make_whole(
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
        let wanted = wanted(record, EnvelopeKind::MESSAGE, self.parts.outbox.max_hops);
        match self.composer.sealed(now, &mut random::os_rng(), &wanted, &key, &plaintext) {
            Ok(composed) => Some((*t, composed)),
            Err(error) => {
                tracing::warn!(uid = %t.uid, %error, "cannot make an envelope");
                self.outbox.hold_back(now, &t.uid, Hold::NoKey);
                None
            }
        }
    }

    pub(super) fn send_on(&mut self, now: Instant, made: Vec<(Transmit, Composed)>) {
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
    pub(super) fn hand_to_router(&mut self, batch: Vec<(PacketId, Envelope)>) {
        if let Err(back) = self.originate.offer(Originate(batch)) {
            metrics::counter!(telemetry::MAILBOX_DROPPED, "mailbox" => "router").increment(1);
            tracing::debug!(refusal = ?back.refusal, "the router took no batch");
        }
    }

    pub(super) fn finish(&mut self, finished: Finished) {
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

    pub(super) fn key_of(&mut self, address: &Address) -> Option<VerifiedKeyRecord> {
        let now = clock::unix_s();
        self.key_cache.get(address).filter(|record| record.is_current(now)).cloned()
    }

    /// Asks the router, and the store for a record of an earlier time. What nobody answers is asked
    /// again by the outbox's own timer.
    pub(super) fn ask_for_key(&mut self, address: Address, ctx: &mut Context<Self>) {
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

    pub(super) fn learn_key(&mut self, record: VerifiedKeyRecord) {
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
}

pub(super) fn wanted(record: &OutboxRecord, kind: EnvelopeKind, max_hops: u8) -> Wanted {
    Wanted {
        kind,
        priority: record.priority(),
        destination: record.destination,
        created_unix_s: record.created_unix_s(),
        lifetime: record.lifetime(),
        max_hops,
    }
}
