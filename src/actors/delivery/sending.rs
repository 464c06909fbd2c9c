//! The way out: what the outbox says is due, made into envelopes.

use super::{files::seal_file, *};

impl DeliveryActor {
    /// Puts a message on its way into the outbox. Rows are submitted in the order the messages came,
    /// and come back in that order, so that a destination gets them in it.
    pub(super) fn take(&mut self, send: SendContent, answer: SendAnswer, ctx: &mut Context<Self>) {
        let uid = self.new_uid();
        let (bytes, sent_at_unix_ms) = (send.bytes, self.parts.clock.unix_ms());
        let tell = send.tell;
        let record = move |body| OutboxRecord {
            uid,
            destination: send.destination,
            name: send.name,
            sent_at_unix_ms,
            lifetime: Lifetime::at_least(send.ttl).code(),
            priority: send.priority as u8,
            body,
        };
        if bytes.len() <= INLINE_CONTENT_BYTES_MAX {
            self.store_row(record(Body::Inline(bytes.to_vec())), answer, tell, ctx);
            return;
        }
        let blobs = self.parts.blobs.clone();
        let sealing = tokio::task::spawn_blocking(move || seal_file(&blobs, &uid, &bytes));
        ctx.spawn(sealing.into_actor(self).map(move |sealed, actor, ctx| {
            let refused = match sealed {
                Ok(Ok(file)) => return actor.store_row(record(Body::File(file)), answer, tell, ctx),
                Ok(Err(error)) => error,
                Err(_) => MeshError::Stopped("file writer"),
            };
            answer.give(Err(refused));
        }));
    }

    /// Names a message.
    pub(super) fn new_uid(&mut self) -> MessageUid {
        self.uids.next(self.parts.clock.unix_ms(), random::random_bytes(&mut random::os_rng()))
    }

    fn store_row(
        &mut self,
        record: OutboxRecord,
        answer: SendAnswer,
        tell: Option<TellEnd>,
        ctx: &mut Context<Self>,
    ) {
        let uid = record.uid;
        let row = OutboxRow {
            uid,
            destination: record.destination,
            created_unix_s: record.created_unix_s(),
            expires_s: self.parts.clock.steady_s().saturating_add(record.lifetime().as_secs().into()),
            state: Vec::new(),
            body: record.encode(),
        };
        let accepted = Accepted { uid, hold: self.foreseen(&record.destination) };
        self.storing.insert(uid, Storing { record, tell });
        let to = ctx.address();
        // Answered by the store: this actor may fall meanwhile, and a row that is on the disk goes its
        // way, so nobody may hear that it was refused. Who asks for it then finds it known here.
        let answers = answer.clone();
        let done = move |result: Result<Vec<LocalOutcome>, StoreError>| {
            let seq = match result.as_deref() {
                Ok([LocalOutcome::Stored { seq }]) => Some(*seq),
                _ => None,
            };
            to.do_send(Stored { uid, seq });
            answers.give(result.map(|_| accepted).map_err(MeshError::from));
        };
        if let Err(back) = self.parts.store.submit(vec![LocalOp::OutboxPut(row)], Box::new(done)) {
            self.storing.remove(&uid);
            answer.give(Err(MeshError::Refused(back.reason.to_string())));
        }
    }

    /// What a message to `destination` would have to wait for.
    fn foreseen(&mut self, destination: &Address) -> Hold {
        let time = self.parts.clock.time();
        match self.key_cache.get(destination).is_some_and(|record| is_usable(record, time)) {
            true => self.outbox.hold_towards(destination),
            false => Hold::NoKey,
        }
    }

    /// A row is durable, or is not, as who sent the message was told.
    pub(super) fn stored(&mut self, message: Stored, ctx: &mut Context<Self>) {
        let Some(Storing { record, tell }) = self.storing.remove(&message.uid) else { return };
        let Some(seq) = message.seq else { return };
        self.rows.insert(message.uid, seq);
        metrics::counter!(telemetry::MESSAGES_SENT).increment(1);
        self.ledger.accepted(1);
        let (to, size) = (record.destination, record.body.len());
        self.note(message.uid, HistoryEvent::Accepted { to, size });
        self.parts.events.tell(EventKind::Accepted { id: message.uid, to, size });
        let left = Duration::from_secs(record.lifetime().as_secs().into());
        self.accept(clock::now(), left, record);
        if let Some(tell) = tell {
            self.tell_later(message.uid, tell);
        }
        self.pump_soon(ctx);
    }

    /// Sends what is due once all that has come by now is taken in and everybody else had a turn. What
    /// several commits or messages make due so leaves together, under one signature, and who waits to
    /// hear of a commit does not wait for the seals that follow it.
    pub(super) fn pump_soon(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.pumping, true) {
            let others_first = tokio::task::yield_now().into_actor(self);
            ctx.spawn(others_first.map(|(), actor, ctx| {
                actor.pumping = false;
                actor.pump(ctx);
            }));
        }
    }

    /// Sends what the outbox says is due and the receipts whose time has come, then waits for the
    /// next timer.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        let due = self.receipts.take_due(now);
        self.send_receipts(due);
        let expired = self.outbox.expire(now);
        self.finish(expired, ctx);
        self.clear_shelf(now, ctx);
        self.turns.expire(now);
        self.let_enter(ctx);
        if !self.draining {
            let due = self.outbox.transmit(now, TRANSMIT_BATCH);
            let more = due.len() >= TRANSMIT_BATCH;
            let (chunks, whole): (Vec<_>, Vec<_>) =
                due.into_iter().partition(|t| matches!(t.part, Part::Chunk(_)));
            let drafts: Vec<_> = whole.iter().filter_map(|t| self.draft_whole(now, t, ctx)).collect();
            self.send_on(now, drafts);
            if !chunks.is_empty() {
                self.read_chunks(chunks, ctx);
            }
            if more {
                self.pump_soon(ctx);
            }
        }
        self.rearm(ctx);
        self.write_history_soon(ctx);
        metrics::gauge!(telemetry::OUTBOX).set(self.outbox.len() as f64);
        metrics::gauge!(telemetry::INBOX_EARLY).set(self.turns.len() as f64);
    }

    pub(super) fn rearm(&mut self, ctx: &mut Context<Self>) {
        let wake = [
            self.outbox.next_wake(),
            self.receipts.next_wake(),
            self.turns.next_wake(),
            self.shelf.next_wake(),
        ]
        .into_iter()
        .flatten()
        .min();
        self.timer.rearm(wake, ctx, Self::pump);
    }

    pub(super) fn draft_whole(
        &mut self,
        now: Instant,
        t: &Transmit,
        ctx: &mut Context<Self>,
    ) -> Option<(Transmit, Draft)> {
        let Some(key) = self.key_of(&t.destination) else {
            self.hold_back(now, &t.uid, Hold::NoKey);
            self.ask_for_key(t.destination, ctx);
            return None;
        };
        let _hand = self.parts.quarantine.hand(std::iter::once(Suspect::Row(t.uid.0)));
        let record = self.outbox.record(&t.uid)?;
        poison("outbox", record.lifetime());
        let plaintext = match (&record.body, record.manifest()) {
            (Body::Inline(bytes), _) => Sealed::Content(Content {
                uid: record.uid,
                name: record.name.clone(),
                sent_at_unix_ms: record.sent_at_unix_ms,
                bytes: Bytes::copy_from_slice(bytes),
                // On thin links bytes cost more than order.
                follows: match self.thin_destinations.contains_key(&t.destination) {
                    true => None,
                    false => self.outbox.predecessor(&t.uid).map(|uid| uid.prefix()),
                },
            }),
            (_, Some(manifest)) => Sealed::Manifest(manifest),
            (_, None) => return None,
        }
        .encode();
        let wanted = wanted(record, EnvelopeKind::MESSAGE, self.parts.outbox.max_hops);
        match self.composer.draft_sealed(now, &mut random::os_rng(), &wanted, &key, &plaintext) {
            Ok(draft) => Some((*t, draft)),
            Err(error) => {
                tracing::warn!(uid = %t.uid, %error, "cannot make an envelope");
                self.hold_back(now, &t.uid, Hold::NoKey);
                None
            }
        }
    }

    /// Signs what is due together and hands it to the router.
    pub(super) fn send_on(&mut self, now: Instant, drafts: Vec<(Transmit, Draft)>) {
        if drafts.is_empty() {
            return;
        }
        let mut batch = Vec::with_capacity(drafts.len());
        let mut declined = Vec::new();
        let drafts = drafts.into_iter().map(|(t, draft)| {
            let is_thin = self.thin_destinations.contains_key(&t.destination);
            (t, draft.for_thin_links(is_thin))
        });
        for (t, made) in self.composer.sign_all(drafts.collect()) {
            match made {
                Ok(made) => {
                    self.outbox.sent(now, &t, made.packet_id);
                    self.note_sent(&t, made.packet_id);
                    let to = match t.wish {
                        CustodyWish::Welcome => &mut batch,
                        CustodyWish::Declined => &mut declined,
                    };
                    to.push((made.packet_id, made.envelope));
                }
                Err(error) => {
                    tracing::error!(uid = %t.uid, %error, "cannot sign an envelope");
                    self.hold_back(now, &t.uid, Hold::NoKey);
                }
            }
        }
        self.hand_to_router(batch, CustodyWish::Welcome);
        self.hand_to_router(declined, CustodyWish::Declined);
    }

    /// A full or restarting router loses nothing: the outbox tries again, receipts are asked for.
    pub(super) fn hand_to_router(&mut self, batch: Vec<(PacketId, Envelope)>, wish: CustodyWish) {
        if batch.is_empty() {
            return;
        }
        if let Err(back) = self.originate.offer(Originate(batch, wish)) {
            metrics::counter!(telemetry::MAILBOX_DROPPED, "mailbox" => "router").increment(1);
            tracing::debug!(refusal = ?back.refusal, "the router took no batch");
        }
    }

    /// Messages went into custody: a restart is not to hand them to more custodians, nor to send all
    /// of them anew. What of this is lost with a crash costs that.
    pub(super) fn keep_custody(&mut self, kept: Vec<CustodyNote>, ctx: &mut Context<Self>) {
        let steady_s = self.parts.clock.steady_s();
        let ops: Vec<_> = kept
            .into_iter()
            .map(|kept| {
                let falls = self.parts.quarantine.falls(&Suspect::Row(kept.uid.0));
                let state = OutboxState {
                    falls: u8::try_from(falls).unwrap_or(u8::MAX),
                    custody: Some(CustodyState {
                        taken: kept.taken,
                        attempts: kept.attempts,
                        retry_at_s: steady_s.saturating_add(kept.wait.as_secs()),
                    }),
                };
                let update = LocalOp::OutboxUpdate { seq: self.row_of(&kept.uid), state: state.encode() };
                (update, Committing::Nothing)
            })
            .collect();
        if !ops.is_empty() {
            self.submit(ops, ctx);
        }
    }

    /// Where a message of the outbox is stored; nowhere (0) where it is not.
    pub(super) fn row_of(&self, uid: &MessageUid) -> u64 {
        self.rows.get(uid).copied().unwrap_or_default()
    }

    /// Somebody waits for the end of a message that is in the outbox.
    pub(super) fn tell_later(&mut self, uid: MessageUid, tell: TellEnd) {
        let waiters = self.waiters.entry(uid).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(tell);
    }

    /// Messages that left the outbox: their rows go with one submission.
    pub(super) fn finish(&mut self, finished: impl IntoIterator<Item = Finished>, ctx: &mut Context<Self>) {
        let ops: Vec<_> = finished.into_iter().map(|finished| self.end(finished)).collect();
        if !ops.is_empty() {
            self.submit(ops, ctx);
        }
    }

    fn end(&mut self, finished: Finished) -> (LocalOp, Committing) {
        let (status, event) = match finished.end {
            End::Delivered { rtt, hops } => {
                if let Some(rtt) = rtt {
                    metrics::histogram!(telemetry::DELIVERY_SECONDS).record(rtt.as_secs_f64());
                }
                // Rounded, as who waits for it is told.
                let us = |rtt: Duration| u64::try_from(rtt.as_nanos().saturating_add(500) / 1000);
                let rtt_us = rtt.and_then(|rtt| us(rtt).ok());
                ("delivered", HistoryEvent::Delivered { rtt_us, hops })
            }
            End::Expired => ("expired", HistoryEvent::Expired),
            End::Rejected | End::Unwanted => ("failed", HistoryEvent::Rejected),
            End::Cancelled => ("cancelled", HistoryEvent::Cancelled),
        };
        metrics::counter!(telemetry::MESSAGES_ENDED, "outcome" => status).increment(1);
        let (id, to) = (finished.uid, finished.destination);
        self.parts.events.tell(match finished.end {
            End::Delivered { rtt, .. } => {
                EventKind::Delivered { id, to, rtt_ms: rtt.map(|rtt| rtt.as_micros() as f64 / 1e3) }
            }
            _ => EventKind::Ended { id, to, outcome: status.to_owned() },
        });
        // A message that is taken back is told of when nothing can bring it back.
        if finished.end != End::Cancelled {
            self.note(finished.uid, event);
            self.tell_end(finished);
        }
        (LocalOp::OutboxRemove(self.row_of(&finished.uid)), Committing::Gone(finished))
    }

    pub(super) fn tell_end(&mut self, finished: Finished) {
        self.ends.insert(finished.uid, finished);
        for waiter in self.waiters.remove(&finished.uid).unwrap_or_default() {
            // Nobody waits any more: fine.
            let _ = waiter.send(Some(finished));
        }
    }

    pub(super) fn key_of(&mut self, address: &Address) -> Option<VerifiedKeyRecord> {
        let time = self.parts.clock.time();
        self.key_cache.get(address).filter(|record| is_usable(record, time)).cloned()
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
            if !known && record.address() == address && is_usable(&record, actor.parts.clock.time()) {
                actor.key_cache.insert(address, record);
                actor.seals.opened(&address);
                actor.outbox.route_up(&address);
                actor.pump(ctx);
            }
        }));
    }

    pub(super) fn learn_key(&mut self, record: VerifiedKeyRecord, ctx: &mut Context<Self>) {
        let address = record.address();
        let newer = self.key_cache.get(&address).is_none_or(|held| record.supersedes(held));
        if newer {
            let put = LocalOp::KvPut {
                namespace: Namespace::KeyRecord,
                key: address.0.to_vec(),
                value: record.signed().encode(),
            };
            self.submit(vec![(put, Committing::Nothing)], ctx);
            self.key_cache.insert(address, record);
            self.seals.opened(&address);
        }
    }
}

/// Whether others may still seal to a record: only a clock that is believed may say that they may not.
fn is_usable(record: &VerifiedKeyRecord, time: NodeTime) -> bool {
    !time.trusted || record.is_current(time.unix_s)
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
