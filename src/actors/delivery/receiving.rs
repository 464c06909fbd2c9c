//! The way in: opened, committed, receipted.

use super::{commits::Received, *};

/// What a message on the shelf takes beside its content.
const SHELF_ENTRY_BYTES: usize = 512;

impl DeliveryActor {
    pub(super) fn receive(&mut self, deliver: DeliverLocal, ctx: &mut Context<Self>) {
        let now = clock::now();
        let (time, received_at_unix_ms) = (self.parts.clock.time(), self.parts.clock.unix_ms());
        let keys = self.parts.keys.borrow().clone();
        let ingress = deliver.ingress;
        let mut ops = Vec::new();
        let door = self.parts.welcome.clone();
        let welcome = door.read();
        let strangers = strangers(welcome.accept);
        let quarantine = self.parts.quarantine.clone();
        let mut hand = quarantine.empty_hand();
        for verified in deliver.envelopes {
            let suspect = Suspect::from(&verified.envelope);
            if let Standing::Quarantined { first } = quarantine.standing(&suspect) {
                quarantine.set_aside("delivery", first, &verified, &*self.parts.store);
                self.refuse(vec![verified.packet_id], "quarantined", RefuseReason::StoreFull);
                continue;
            }
            hand.take(suspect);
            poison("delivery", verified.envelope.header().lifetime);
            let inbound = verified.into_inner();
            let (id, from) = (inbound.packet_id, inbound.source);
            match welcome.reception(inbound.envelope.header().kind, &from) {
                Reception::Open => {}
                Reception::Unwanted => {
                    self.unwanted(now, from, id);
                    continue;
                }
                Reception::Silence => {
                    count_refused("unwanted");
                    continue;
                }
            }
            let hops = inbound.envelope.hop_count().saturating_add(1);
            let until = dedup_until(&inbound, time.unix_s);
            let at_unix_ms = received_at_unix_ms;
            let arrival = Arrival { ingress, hops, until_unix_s: until, at_unix_ms, strangers };
            let is_sealed = inbound.envelope.header().kind == EnvelopeKind::MESSAGE;
            if is_sealed && !self.seals.admits(now, &from, ingress.as_ref()) {
                count_refused("seal_budget");
                continue;
            }
            let arrived =
                inbound::arrived(&keys.secrets, &mut self.open_sessions, &mut self.scratch, &inbound);
            match &arrived {
                Ok(Arrived::Sealed(_)) => self.seals.opened(&from),
                Err(InboundError::Seal | InboundError::Decode(_)) if is_sealed => {
                    self.seals.failed(now, &from, ingress.as_ref());
                }
                _ => {}
            }
            match arrived {
                Ok(Arrived::Sealed(Sealed::Content(_))) if self.turns.is_crowded(&from) => {
                    self.refuse(vec![id], "store_busy", RefuseReason::Congested);
                }
                Ok(Arrived::Sealed(Sealed::Content(content))) => {
                    // Where nothing waits, nothing waits here either.
                    let follows = content.follows.filter(|_| !self.parts.order_wait.is_zero());
                    let (uid, bytes) = (content.uid, content.bytes.len().saturating_add(SHELF_ENTRY_BYTES));
                    let then = into_inbox(&inbound, content, false, arrival);
                    let arriving = Arriving { source: from, uid, follows, bytes, then };
                    let ready = self.shelf.arrives(now, arriving);
                    self.store_behind(ready, &mut ops);
                }
                Ok(Arrived::Broadcast(content)) => {
                    let (commit, then) = into_inbox(&inbound, content, true, arrival);
                    ops.push((LocalOp::InboxCommit(commit), then));
                }
                Ok(Arrived::Sealed(Sealed::Manifest(manifest))) => {
                    let offer = Offer { packet_id: id, from, manifest, hops, dedup_until_unix_s: until };
                    match self.incoming.manifest(&offer) {
                        OnManifest::New => self.take_up(offer, ingress, ctx),
                        OnManifest::Coming => {}
                        OnManifest::Known(receipt) => {
                            self.receipts.packet(now, from, id);
                            self.receipts.repeat(now, from, receipt);
                        }
                        OnManifest::Refused => {
                            self.refuse(vec![id], "too_many_files", RefuseReason::StoreFull);
                        }
                    }
                }
                Ok(Arrived::Chunk(chunk)) => self.receive_chunk(now, from, id, chunk),
                Ok(Arrived::CannotOpen) => self.answer_cannot_open(from, id, &keys.record),
                Ok(Arrived::Receipt(receipt)) => {
                    let files = self.files_named(&receipt);
                    let finished = self.outbox.receipt(now, &from, &receipt, hops);
                    self.note_progress(files);
                    self.finish(finished, ctx);
                }
                // Anybody can sign such an answer. A key record that nobody needs would take a row of
                // the store for each identity that sends one, and make its sender no stranger.
                Ok(Arrived::SealAgain(..)) if !self.outbox.has(&from) => count_refused("key_record"),
                Ok(Arrived::SealAgain(answer, record)) => {
                    self.learn_key(*record, ctx);
                    let packet = answer.packet_id;
                    let is_for =
                        |uid: &MessageUid| self.outbox.record(uid).is_some_and(|of| of.destination == from);
                    let standing = self.outbox.standing(&packet);
                    if let Some(of) = standing.filter(|of| is_noted(of.attempts) && is_for(&of.uid)) {
                        self.note(of.uid, HistoryEvent::SealedAgain { packet });
                    }
                    self.outbox.cannot_open(&from, &packet);
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
        hand.put_down();
        if !ops.is_empty() {
            self.submit(ops, ctx);
        }
        self.write_chunks(ctx);
        self.pump_soon(ctx);
    }

    /// Has messages enter the inbox, each behind those that it is to wait for.
    fn store_behind(
        &mut self,
        ready: Vec<Arriving<(InboxCommit, Committing)>>,
        ops: &mut Vec<(LocalOp, Committing)>,
    ) {
        for Arriving { source, follows, then: (mut commit, then), .. } in ready {
            let Place { follows, behind, stranger_waits } = self.turns.awaits(&source, follows);
            commit.awaits = Awaits { follows, behind, stranger_waits };
            ops.push((LocalOp::InboxCommit(commit), then));
        }
    }

    /// What has lain on the shelf for long enough goes to the store, and waits there.
    pub(super) fn clear_shelf(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let overdue = self.shelf.overdue(now);
        let mut ops = Vec::with_capacity(overdue.len());
        self.store_behind(overdue, &mut ops);
        if !ops.is_empty() {
            self.submit(ops, ctx);
        }
    }

    /// Files on their way out that a receipt speaks of, and how many chunks of each were there before.
    fn files_named(&self, receipt: &Receipt) -> Vec<(MessageUid, u32)> {
        let files = receipt.chunks.iter().filter_map(|chunks| self.outbox.file_of(&chunks.tag));
        files.filter_map(|uid| Some((uid, self.outbox.progress(&uid)?.0))).collect()
    }

    fn note_progress(&mut self, before: Vec<(MessageUid, u32)>) {
        for (uid, before) in before {
            if let Some((done, all)) = self.outbox.progress(&uid)
                && passes_quarter(before, done, all)
            {
                self.note(uid, HistoryEvent::Progress { done, all });
            }
        }
    }

    /// Tells a source that its message is not taken, for good. One receipt for many, as for those that are.
    pub(super) fn unwanted(&mut self, now: Instant, from: Address, packet_id: PacketId) {
        count_refused("unwanted");
        self.parts.events.refused("message", "unwanted", 1);
        self.receipts.unwanted(now, from, packet_id);
    }

    /// Signs receipts together and hands them to the router.
    pub(super) fn send_receipts(&mut self, receipts: Vec<(Address, Receipt)>) {
        if receipts.is_empty() {
            return;
        }
        let now = self.parts.clock.unix_s();
        let mut drafts = Vec::with_capacity(receipts.len());
        for (to, receipt) in receipts {
            let wanted = Wanted::prompt(EnvelopeKind::RECEIPT, to, now);
            let is_thin = self.thin_destinations.contains_key(&to);
            match self.composer.draft(&wanted, &receipt.encode()) {
                Ok(draft) => drafts.push(((), draft.for_thin_links(is_thin))),
                Err(error) => tracing::error!(%error, "cannot make a receipt"),
            }
        }
        let mut batch = Vec::with_capacity(drafts.len());
        for ((), made) in self.composer.sign_all(drafts) {
            match made {
                Ok(made) => batch.push((made.packet_id, made.envelope)),
                Err(error) => tracing::error!(%error, "cannot sign a receipt"),
            }
        }
        metrics::counter!(telemetry::RECEIPTS_SENT).increment(batch.len() as u64);
        self.hand_to_router(batch, CustodyWish::Welcome);
    }

    pub(super) fn answer_cannot_open(
        &mut self,
        to: Address,
        packet_id: PacketId,
        record: &VerifiedKeyRecord,
    ) {
        let payload = CannotOpen {
            packet_id,
            reason: CannotOpenReason::UnknownKey,
            key_record: record.signed().clone(),
        }
        .encode();
        self.answer_probe(EnvelopeKind::CANNOT_OPEN, to, &payload);
    }

    pub(super) fn answer_probe(&mut self, kind: EnvelopeKind, to: Address, payload: &[u8]) {
        if !self.probe_answers.try_take(clock::now(), 1) {
            count_refused("probe_budget");
            return;
        }
        match self.composer.open(&Wanted::prompt(kind, to, self.parts.clock.unix_s()), payload) {
            Ok(made) => self.hand_to_router(vec![(made.packet_id, made.envelope)], CustodyWish::Welcome),
            Err(error) => tracing::error!(%error, "cannot make an answer"),
        }
    }

    pub(super) fn probe_answered(
        &mut self,
        nonce: u64,
        answer: impl FnOnce(&ProbeState) -> Option<ProbeAnswer>,
    ) {
        let Some(state) = self.probes.get(&nonce) else { return };
        if let Some(answer) = answer(state) {
            // A reader that is slow or gone loses answers, nobody else does.
            let _ = state.answers.try_send(answer);
        }
    }
}

/// When a packet would be refused by any clock that is right.
fn dedup_until(inbound: &InboundEnvelope, now_unix_s: u64) -> u64 {
    let header = inbound.envelope.header();
    now_unix_s
        .max(u64::from(header.created_unix_s))
        .saturating_add(u64::from(header.lifetime.as_secs()))
        .saturating_add(DEDUP_MARGIN_S)
}

/// How something came, beside what it is.
#[derive(Clone, Copy)]
struct Arrival {
    ingress: Option<Address>,
    hops: u8,
    until_unix_s: u64,
    at_unix_ms: u64,
    strangers: Strangers,
}

fn into_inbox(
    inbound: &InboundEnvelope,
    content: Content,
    broadcast: bool,
    arrival: Arrival,
) -> (InboxCommit, Committing) {
    let (uid, from, hops) = (content.uid, inbound.source, arrival.hops);
    let received = Received { uid, from, size: content.bytes.len() as u64, hops, broadcast };
    let record = InboxRecord {
        uid,
        from,
        broadcast,
        name: content.name,
        sent_at_unix_ms: content.sent_at_unix_ms,
        received_at_unix_ms: arrival.at_unix_ms,
        hops,
        body: Body::Inline(content.bytes.to_vec()),
    };
    let commit = InboxCommit {
        uid,
        source: from,
        ingress: arrival.ingress,
        dedup_until_unix_s: arrival.until_unix_s,
        awaits: Awaits::default(),
        strangers: arrival.strangers,
        entry: record.encode(),
    };
    let receipt_to = (!broadcast).then_some(from);
    (commit, Committing::Inbox { packet_id: inbound.packet_id, receipt_to, arrival: received })
}
