//! The way in: opened, committed, receipted.

use super::{files::partial_row, *};

impl DeliveryActor {
    pub(super) fn receive(&mut self, deliver: DeliverLocal, ctx: &mut Context<Self>) {
        let now = clock::now();
        let keys = self.parts.keys.borrow().clone();
        let mut ops = Vec::new();
        for verified in deliver.envelopes {
            let inbound = verified.into_inner();
            let (id, from) = (inbound.packet_id, inbound.source);
            let hops = inbound.envelope.hop_count().saturating_add(1);
            let until = dedup_until(&inbound);
            match inbound::arrived(&keys.secrets, &mut self.open_sessions, &mut self.scratch, &inbound) {
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
                            let file_bytes = record.file.length;
                            let put = LocalOp::PartialOpen { row: partial_row(&record), file_bytes };
                            ops.push((put, Committing::Manifest { packet_id: id, record: record.into() }));
                        }
                        OnManifest::Known(receipt) => {
                            self.receipts.packet(now, from, id);
                            self.receipts.repeat(now, from, receipt);
                        }
                        OnManifest::Refused => count_refused("too_many_files"),
                    }
                }
                Ok(Arrived::Chunk(chunk)) => self.receive_chunk(now, from, id, chunk),
                Ok(Arrived::CannotOpen) => self.answer_cannot_open(from, id, &keys.record),
                Ok(Arrived::Receipt(receipt)) => {
                    let finished = self.outbox.receipt(now, &from, &receipt, hops);
                    self.finish(finished);
                }
                // Anybody can sign such an answer. A key record that nobody needs would take a row of
                // the store for each identity that sends one, and make its sender no stranger.
                Ok(Arrived::SealAgain(..)) if !self.outbox.has(&from) => count_refused("key_record"),
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
        if !ops.is_empty() {
            self.submit(ops, Some(ctx.address()));
        }
        self.write_chunks(ctx);
        self.pump_soon(ctx);
    }

    /// Queues operations as one submission; `tell` is told when they are durable. A store that
    /// takes nothing now costs a receipt, never a message: the sender tries again.
    pub(super) fn submit(&mut self, ops: Vec<(LocalOp, Committing)>, tell: Option<Addr<Self>>) {
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

    pub(super) fn committed(&mut self, message: Committed, ctx: &mut Context<Self>) {
        let now = clock::now();
        let mut refused = Vec::new();
        let mut grown = 0;
        for (then, outcome) in message.then.into_iter().zip(message.outcomes) {
            match then {
                Committing::Inbox { packet_id, receipt_to } => {
                    match outcome {
                        LocalOutcome::Committed { .. } => grown += 1,
                        LocalOutcome::Seen(Seen::Packet | Seen::Message) => {
                            metrics::counter!(telemetry::INBOX_DUPLICATES).increment(1);
                        }
                        LocalOutcome::InboxFull(_) => {
                            refused.push(packet_id);
                            continue;
                        }
                        _ => continue,
                    }
                    if let Some(source) = receipt_to {
                        self.receipts.packet(now, source, packet_id);
                    }
                }
                Committing::Manifest { packet_id, .. } if matches!(outcome, LocalOutcome::InboxFull(_)) => {
                    refused.push(packet_id);
                }
                Committing::Manifest { packet_id, record } => {
                    let source = record.from;
                    self.receipts.packet(now, source, packet_id);
                    self.receipts.progress(now, source, self.incoming.opened(*record));
                }
                Committing::Progress { receipt, packet_ids, key, whole } => {
                    packet_ids.into_iter().for_each(|id| self.receipts.packet(now, key.0, id));
                    if whole {
                        self.check_whole(key, ctx);
                    } else {
                        self.receipts.progress(now, key.0, receipt);
                    }
                }
                Committing::File { key } => {
                    if matches!(outcome, LocalOutcome::Committed { .. }) {
                        grown += 1;
                    }
                    if let Some(receipt) = self.incoming.complete(&key) {
                        self.receipts.progress(now, key.0, receipt);
                    }
                }
                Committing::Nothing => {}
            }
        }
        if grown > 0 {
            metrics::counter!(telemetry::MESSAGES_RECEIVED).increment(grown);
            self.parts.inbox_grown.send_modify(|n| *n = n.wrapping_add(grown));
        }
        if !refused.is_empty() {
            metrics::counter!(telemetry::INBOUND_REFUSED, "reason" => "inbox_full")
                .increment(refused.len() as u64);
            let refused = refused.into_iter().map(|id| (id, RefuseReason::StoreFull)).collect();
            // A refusal that is lost costs its sender a wait for the next try.
            self.refuse.offer_gossip("router", CustodyAnswer { taken: Vec::new(), refused });
        }
        if self.receipts.next_wake().is_some() {
            self.pump_soon(ctx);
        }
    }

    /// Signs receipts together and hands them to the router.
    pub(super) fn send_receipts(&mut self, receipts: Vec<(Address, Receipt)>) {
        if receipts.is_empty() {
            return;
        }
        let now = clock::unix_s();
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
        self.hand_to_router(batch);
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
        match self.composer.open(&Wanted::prompt(kind, to, clock::unix_s()), payload) {
            Ok(made) => self.hand_to_router(vec![(made.packet_id, made.envelope)]),
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
