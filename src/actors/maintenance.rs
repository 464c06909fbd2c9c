//! MaintenanceActor: what has to happen now and then.
//!
//! - Receives: `Drain` from the supervisor.
//! - Sends: `AnnounceNow` to the router after a key rotation; submissions to the store.
//! - Owns: the receiver secrets' rotation, and the mark of the time that the next start finds. A new secret is durable before anyone hears of it.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use tokio::sync::watch;

use super::{
    clock_handle::ClockHandle,
    delivery::OwnKeys,
    mailbox::{Outlet, Seat},
};
use crate::{
    crypto::{MeshIdentity, SignatureInput, key_record, random},
    messages::{
        lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
        route::AnnounceNow,
    },
    storage::{LocalOp, LocalOutcome, LocalStore, Namespace, ask_local},
    wire::NetworkId,
};

/// Time between looks at keys and old records.
const EVERY: Duration = Duration::from_secs(10 * 60);

/// Duplicate records dropped before others get their turn.
const FORGET_ROWS: usize = 4096;

/// Key of the receiver secrets in their namespace.
pub const RECEIVER_SECRETS_KEY: &[u8] = b"receiver";

/// Key of the last look at the clocks among the node's small facts.
pub const CLOCK_MARK_KEY: &[u8] = b"clock";

/// What the actor is made of; the factory clones it for each incarnation.
#[derive(Clone)]
pub struct MaintenanceParts {
    /// This node's identity.
    pub identity: Arc<MeshIdentity>,
    /// The network.
    pub network: NetworkId,
    /// Where everyone reads the receiver keys.
    pub keys: watch::Sender<Arc<OwnKeys>>,
    /// For secrets and old records.
    pub store: Arc<dyn LocalStore>,
    /// To the router.
    pub announce: Seat<AnnounceNow>,
    /// What time it is.
    pub clock: ClockHandle,
}

/// See the module.
pub struct MaintenanceActor {
    parts: MaintenanceParts,
    announce: Outlet<AnnounceNow>,
    guard: ExitGuard,
}

impl MaintenanceActor {
    /// A fresh actor.
    pub fn new(parts: MaintenanceParts, guard: ExitGuard) -> Self {
        Self { announce: parts.announce.outlet(), guard, parts }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        // Neither can be undone, so neither goes by a clock that may be set back.
        let time = self.parts.clock.time();
        if time.trusted {
            self.rotate(time.unix_s, ctx);
            self.forget(time.unix_s, ctx);
        }
        self.mark_time();
        ctx.run_later(EVERY, Self::tick);
    }

    /// Leaves word of the time to the next start. One that is lost costs nothing while the machine
    /// runs, and over its restart the time since the last.
    fn mark_time(&self) {
        let put = LocalOp::KvPut {
            namespace: Namespace::Identity,
            key: CLOCK_MARK_KEY.to_vec(),
            value: self.parts.clock.mark().encode(),
        };
        if self.parts.store.submit(vec![put], Box::new(|_| {})).is_err() {
            tracing::debug!("the store's queue is full; the time is marked with the next look");
        }
    }

    fn rotate(&mut self, now_unix_s: u64, ctx: &mut Context<Self>) {
        let held = self.parts.keys.borrow().clone();
        if held.secrets.next_change_unix_s() > now_unix_s {
            return;
        }
        let mut secrets = match crate::crypto::ReceiverKeys::from_bytes(
            self.parts.identity.public_key(),
            &held.secrets.to_bytes(),
        ) {
            Ok(secrets) => secrets,
            Err(error) => return tracing::error!(%error, "cannot rotate the receiver key"),
        };
        secrets.follow(held.secrets.policy());
        let rotation = secrets.rotate(now_unix_s, &mut random::os_rng());
        let mut scratch = SignatureInput::new(self.parts.network);
        let record = match key_record::sign(&self.parts.identity, &mut scratch, secrets.record()) {
            Ok(record) => record,
            Err(error) => return tracing::error!(%error, "cannot sign the key record"),
        };
        let put = LocalOp::KvPut {
            namespace: Namespace::ReceiverSecret,
            key: RECEIVER_SECRETS_KEY.to_vec(),
            value: secrets.to_bytes().to_vec(),
        };
        let stored = ask_local(&*self.parts.store, vec![put]);
        let stored = async move {
            match stored {
                Ok(answer) => answer.await.is_ok(),
                Err(_) => false,
            }
        };
        ctx.spawn(stored.into_actor(self).map(move |stored, actor, _| {
            if !stored {
                return tracing::error!(
                    "the store did not take the rotated receiver key; trying again later"
                );
            }
            tracing::info!(issued = rotation.issued, destroyed = rotation.destroyed, "receiver key rotated");
            actor.parts.keys.send_replace(Arc::new(OwnKeys { secrets, record }));
            actor.announce.do_send(AnnounceNow);
        }));
    }

    fn forget(&mut self, now_unix_s: u64, ctx: &mut Context<Self>) {
        let op = LocalOp::ForgetSeen { now_unix_s, rows_max: FORGET_ROWS };
        let Ok(answer) = ask_local(&*self.parts.store, vec![op]) else { return };
        ctx.spawn(answer.into_actor(self).map(move |result, actor, ctx| {
            if matches!(result.as_deref(), Ok([LocalOutcome::Forgotten { more: true, .. }])) {
                actor.forget(now_unix_s, ctx);
            }
        }));
    }
}

impl Actor for MaintenanceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.tick(ctx);
    }
}

impl Handler<Drain> for MaintenanceActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            DrainPhase::Draining => self.guard.report(drain.phase, DrainCounts::default()),
            DrainPhase::Persisting => {
                // The store closes after all actors, with what waits by then.
                self.mark_time();
                self.guard.report(drain.phase, DrainCounts::default());
            }
            DrainPhase::Cleanup => {
                self.guard.drained();
                ctx.stop();
            }
        }
    }
}

#[cfg(any(test, feature = "testing"))]
crate::messages::lifecycle::panics_when_told!(MaintenanceActor);
