//! What the actor is told and asked.

use super::*;

impl Handler<SendContent> for DeliveryActor {
    type Result = LateAnswer<Result<Accepted, MeshError>>;

    fn handle(&mut self, send: SendContent, ctx: &mut Context<Self>) -> Self::Result {
        let refused = if self.draining {
            Some(MeshError::Draining)
        } else if send.bytes.len() as u64 > CONTENT_BYTES_MAX {
            Some(MeshError::Refused(format!("the content is larger than {CONTENT_BYTES_MAX} bytes")))
        } else if send.destination == self.composer.address() {
            Some(MeshError::Refused("this is the node's own address".into()))
        } else if send.destination.is_reserved() {
            Some(MeshError::Refused("no node can have this address".into()))
        } else {
            self.admit(send.bytes.len() as u64).err().map(|e| MeshError::Refused(e.to_string()))
        };
        let answer = LateAnswer::new();
        match refused {
            Some(error) => answer.give(Err(error)),
            None => self.take(send, answer.clone(), ctx),
        }
        answer
    }
}

impl Handler<SendBroadcast> for DeliveryActor {
    type Result = Result<MessageUid, MeshError>;

    fn handle(&mut self, send: SendBroadcast, ctx: &mut Context<Self>) -> Self::Result {
        if self.draining {
            return Err(MeshError::Draining);
        }
        let uid = self.new_uid();
        let size = send.bytes.len() as u64;
        let content = Content {
            uid,
            name: send.name,
            sent_at_unix_ms: self.parts.clock.unix_ms(),
            bytes: send.bytes,
            follows: None,
        };
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
            created_unix_s: self.parts.clock.unix_s(),
            lifetime: Lifetime::at_least(send.ttl.min(BROADCAST_TTL_MAX)),
            max_hops: send.max_hops,
        };
        let made = self.composer.open(&wanted, &payload).map_err(|e| MeshError::Refused(e.to_string()))?;
        let packet = made.packet_id;
        self.originate
            .offer(Originate(vec![(packet, made.envelope)], CustodyWish::Welcome))
            .map_err(|_| MeshError::Stopped("router"))?;
        self.note(uid, HistoryEvent::Broadcast { size, packet });
        self.write_history_soon(ctx);
        Ok(uid)
    }
}

impl Handler<AwaitEnd> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: AwaitEnd, _: &mut Context<Self>) {
        if self.outbox.record(&message.uid).is_some() || self.commits.is_taking_back(&message.uid) {
            self.tell_later(message.uid, message.tell);
        } else {
            // Who asked may have gone.
            let _ = message.tell.send(self.ends.get(&message.uid).copied());
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

impl Handler<GetProgress> for DeliveryActor {
    type Result = MessageResult<GetProgress>;

    fn handle(&mut self, message: GetProgress, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.outbox.progress(&message.0))
    }
}

impl Handler<CancelMessage> for DeliveryActor {
    type Result = ResponseFuture<Result<bool, MeshError>>;

    fn handle(&mut self, message: CancelMessage, ctx: &mut Context<Self>) -> Self::Result {
        let uid = message.0;
        let (done, gone) = oneshot::channel();
        if let Some(cancelled) = self.outbox.cancel(&uid) {
            self.commits.waits(uid, done);
            self.finish([cancelled], ctx);
        } else if !self.commits.also_waits(&uid, done) {
            return Box::pin(std::future::ready(Ok(false)));
        }
        Box::pin(async move { gone.await.map(|()| true).map_err(|_| MeshError::Stopped("delivery")) })
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
        let wanted = Wanted::prompt(kind, probe.destination, self.parts.clock.unix_s());
        let made = self
            .composer
            .open(&wanted, &ProbePayload { nonce }.encode())
            .map_err(|e| MeshError::Refused(e.to_string()))?;
        let state = ProbeState { destination: probe.destination, sent_at: now, answers: probe.answers };
        self.probes.insert(nonce, state);
        self.hand_to_router(vec![(made.packet_id, made.envelope)], CustodyWish::Welcome);
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
        if message.is_thin {
            self.thin_destinations.insert(message.address, ());
        } else {
            self.thin_destinations.remove(&message.address);
        }
        if !self.outbox.is_empty() {
            self.outbox.route_up(&message.address);
            if !message.is_thin {
                self.outbox.check_custody(clock::now(), &message.address);
            }
            self.pump_soon(ctx);
        }
    }
}

impl Handler<PacketFate> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: PacketFate, ctx: &mut Context<Self>) {
        let now = clock::now();
        match message {
            PacketFate::Refused { packet_id, reason, retry_after } => {
                let before = self.outbox.standing(&packet_id);
                self.outbox.refused(now, &packet_id, reason, retry_after);
                self.note_fate(packet_id, before, None);
            }
            PacketFate::InCustody { domain, packet_ids } => {
                let mut kept = Vec::new();
                for packet_id in packet_ids {
                    let before = self.outbox.standing(&packet_id);
                    kept.extend(self.outbox.in_custody(now, &packet_id));
                    self.note_fate(packet_id, before, Some(domain));
                }
                self.keep_custody(kept, ctx);
            }
        }
        self.pump_soon(ctx);
    }
}

impl Handler<KeyRecordFound> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, message: KeyRecordFound, ctx: &mut Context<Self>) {
        let address = message.0.address();
        // Announces bring records of the whole mesh; those nobody writes to are the router's.
        if self.outbox.has(&address) || self.key_cache.contains_key(&address) {
            self.learn_key(*message.0, ctx);
            self.outbox.route_up(&address);
            self.pump_soon(ctx);
        }
    }
}

impl Handler<Drain> for DeliveryActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            DrainPhase::Draining => {
                self.draining = true;
                let gathered = self.receipts.take_all();
                self.send_receipts(gathered);
                self.guard.report(drain.phase, DrainCounts::default());
            }
            DrainPhase::Persisting => {
                // Behind all that was submitted before: what is booked by then is what is on the disk.
                let written = self.history_is_written(ctx);
                ctx.spawn(written.into_actor(self).map(move |(), actor, ctx| {
                    actor.submit(vec![(LocalOp::Counts, Committing::Counted(drain.phase))], ctx);
                }));
            }
            DrainPhase::Cleanup => {
                self.guard.drained();
                ctx.stop();
            }
        }
    }
}
