//! The table over a restart: what the router reads back before it takes its first message, and
//! what it writes every ten seconds and at a drain.
//!
//! A row is an origin's newest announce, signature and all, and bears this node's mark. What bears
//! it was verified once; all else is verified again, so that a disk somebody wrote to can make this
//! node forget and nothing worse. Checking is done off the actor's thread, writing in small
//! submissions one after the other.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;

use super::{RouterActor, clock};
use crate::{
    crypto::{MeshIdentity, OwnSeal},
    messages::{
        lifecycle::{DrainCounts, DrainPhase},
        message,
    },
    proto::{
        router::{SavedRow, row_seal},
        suspects::{Standing, Suspect},
        verify::{InboundAnnounce, Verified, Verifier},
    },
    storage::{LocalOp, LocalOutcome, LocalStore, Namespace, PageLimit, ask_local},
    wire::{Address, NetworkId},
};

/// Wait between two rounds of writing. After a crash so much of what was heard may be replayed.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Wait between two submissions of one round, so that others' commits come in between, and that of
/// a round with many more to come. Every page of the disk that a row is in is written anew: with a
/// million strangers in ten minutes the disk took 300 MB (docs/performance.md).
const SAVE_SPACING: Duration = Duration::from_secs(1);
const SAVE_SPACING_BEHIND: Duration = Duration::from_millis(250);

/// Rows that wait from where on a round is said to be behind.
const BEHIND: usize = 16 * SAVE_ROWS_MAX;

/// Rows of one submission: a millisecond of the router's time, 150 KiB.
const SAVE_ROWS_MAX: usize = 256;

/// The same at a drain, where nothing else is waiting.
const DRAIN_ROWS_MAX: usize = 512;

/// Rows read and checked at a time.
const LOAD_PAGE: PageLimit = PageLimit { rows_max: 1024, bytes_max: 1 << 20 };

/// Where writing stands.
#[derive(Debug)]
pub(super) struct Saving {
    seal: OwnSeal,
    in_flight: bool,
    /// Rows behind this key are looked at next: whether they are still of use.
    swept: Option<Vec<u8>>,
    drain: Option<DrainPhase>,
}

impl Saving {
    pub(super) fn new(identity: &MeshIdentity, network: NetworkId) -> Self {
        Self { seal: row_seal(identity, network), in_flight: false, swept: None, drain: None }
    }
}

/// What one page of the disk came to.
struct Loaded {
    rows: Vec<(Verified<InboundAnnounce>, Duration)>,
    damaged: usize,
    next: Option<Vec<u8>>,
}

/// A page of rows whose origins may be forgotten.
#[derive(Debug)]
struct Swept {
    keys: Vec<Vec<u8>>,
    next: Option<Vec<u8>>,
}

/// Store to router: a submission of rows was answered.
#[derive(Debug)]
struct Written {
    origins: Vec<Address>,
    is_written: bool,
    page: Option<Swept>,
}
message!(Written => ());

impl RouterActor {
    /// Reads what was saved, page by page, before anything else is handled.
    pub(super) fn load(&mut self, after: Option<Vec<u8>>, ctx: &mut Context<Self>) {
        let parts = &self.parts;
        let seal = self.saving.seal.clone();
        let page = load_page(
            parts.store.clone(),
            seal,
            self.core.own(),
            parts.network,
            after,
            parts.clock.steady_s(),
        );
        let done = page.into_actor(self).map(|loaded, actor, ctx| {
            let Some(loaded) = loaded else {
                return actor.begin(ctx);
            };
            if loaded.damaged > 0 {
                tracing::warn!(rows = loaded.damaged, "saved routes that do not verify are not used");
            }
            let now = clock::now();
            let quarantine = actor.parts.quarantine.clone();
            let mut hand = quarantine.empty_hand();
            for (announce, ends_in) in &loaded.rows {
                let suspect = Suspect::Row(announce.origin.0);
                if let Standing::Quarantined { first } = quarantine.standing(&suspect) {
                    quarantine.pass_over("route", first, &announce.origin);
                    continue;
                }
                hand.take(suspect);
                actor.core.restore(now, announce, *ends_in);
            }
            hand.put_down();
            actor.perform_all(now, actor.wall());
            match loaded.next {
                Some(next) => actor.load(Some(next), ctx),
                None => actor.begin(ctx),
            }
        });
        ctx.wait(done);
    }

    fn begin(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(SAVE_EVERY, Self::save);
        self.begin_routing(ctx);
    }

    /// Writes some of what is not written yet, and looks whether old rows are still of use.
    fn save(&mut self, ctx: &mut Context<Self>) {
        if self.saving.in_flight {
            return;
        }
        let now = clock::now();
        let now_s = self.parts.clock.steady_s();
        let rows_max = if self.saving.drain.is_some() { DRAIN_ROWS_MAX } else { SAVE_ROWS_MAX };
        let unsaved = self.core.take_unsaved(now, rows_max);
        let mut origins = Vec::with_capacity(unsaved.len());
        let mut ops = Vec::with_capacity(unsaved.len());
        for (origin, saved) in unsaved {
            origins.push(origin);
            ops.push(LocalOp::KvPut {
                namespace: Namespace::Route,
                key: origin.0.to_vec(),
                value: SavedRow::new(saved, now_s).encode(&self.saving.seal),
            });
        }
        if self.saving.drain.is_none() {
            ops.push(LocalOp::KvPage {
                namespace: Namespace::Route,
                after: self.saving.swept.clone(),
                limit: PageLimit { rows_max: SAVE_ROWS_MAX, ..LOAD_PAGE },
            });
        }
        if ops.is_empty() {
            return self.saved(ctx);
        }
        let answer = ctx.address();
        let told = origins.clone();
        let done = Box::new(move |result: Result<Vec<LocalOutcome>, _>| {
            let page = result.as_ref().ok().and_then(|outcomes| match outcomes.last() {
                Some(LocalOutcome::Values(page)) => {
                    let keys = page.rows.iter().map(|(key, _)| key.clone()).collect();
                    Some(Swept { keys, next: page.next.clone() })
                }
                _ => None,
            });
            answer.do_send(Written { origins: told, is_written: result.is_ok(), page });
        });
        match self.parts.store.submit(ops, done) {
            Ok(()) => self.saving.in_flight = true,
            Err(_) => {
                self.core.not_saved(origins);
                self.saved(ctx);
            }
        }
    }

    /// A round is over, or as much of it as the disk took.
    fn saved(&mut self, ctx: &mut Context<Self>) {
        match self.saving.drain.take() {
            Some(phase) => self.guard.report(phase, DrainCounts::default()),
            None => drop(ctx.run_later(SAVE_EVERY, Self::save)),
        }
    }

    /// Writes all that is left before the drain goes on.
    pub(super) fn save_all(&mut self, phase: DrainPhase, ctx: &mut Context<Self>) {
        self.saving.drain = Some(phase);
        self.save(ctx);
    }

    /// Takes rows off the disk whose origin is forgotten.
    fn sweep(&mut self, keys: Vec<Vec<u8>>) {
        let is_forgotten = |key: &Vec<u8>| {
            <[u8; Address::LEN]>::try_from(&key[..])
                .map_or(true, |origin| !self.core.remembers(&Address(origin)))
        };
        let removals: Vec<_> = keys
            .into_iter()
            .filter(is_forgotten)
            .map(|key| LocalOp::KvRemove { namespace: Namespace::Route, key })
            .collect();
        // What is not removed now is found again in the next sweep.
        if !removals.is_empty() && self.parts.store.submit(removals, Box::new(|_| {})).is_err() {
            tracing::debug!("the store's queue is full; old routes stay on disk for now");
        }
    }
}

impl Handler<Written> for RouterActor {
    type Result = ();

    fn handle(&mut self, written: Written, ctx: &mut Context<Self>) {
        self.saving.in_flight = false;
        if !written.is_written {
            // At a drain there is no second try: the next start hears of the rest from its neighbours.
            self.core.not_saved(written.origins);
            return self.saved(ctx);
        }
        if let Some(page) = written.page {
            self.saving.swept = page.next;
            self.sweep(page.keys);
        }
        if self.core.unsaved() == 0 {
            self.saved(ctx);
        } else if self.saving.drain.is_some() {
            self.save(ctx);
        } else {
            let is_behind = self.core.unsaved() >= BEHIND;
            ctx.run_later(if is_behind { SAVE_SPACING_BEHIND } else { SAVE_SPACING }, Self::save);
        }
    }
}

/// Reads and checks one page; none where the store does not answer, which is as good as an empty
/// one: the neighbours tell.
async fn load_page(
    store: Arc<dyn LocalStore>,
    seal: OwnSeal,
    own: Address,
    network: NetworkId,
    after: Option<Vec<u8>>,
    now_s: u64,
) -> Option<Loaded> {
    let op = LocalOp::KvPage { namespace: Namespace::Route, after, limit: LOAD_PAGE };
    let outcomes = match ask_local(&*store, vec![op]) {
        Ok(answer) => answer.await,
        Err(error) => {
            tracing::warn!(%error, "the routes saved by the last start could not be read");
            return None;
        }
    };
    let page = match outcomes {
        Ok(outcomes) => outcomes.into_iter().find_map(|outcome| match outcome {
            LocalOutcome::Values(page) => Some(page),
            _ => None,
        })?,
        Err(error) => {
            tracing::warn!(%error, "the routes saved by the last start could not be read");
            return None;
        }
    };
    if page.rows.is_empty() {
        return None;
    }
    let check = move || {
        let mut verifier = Verifier::new(own, network);
        let mut loaded = Loaded { rows: Vec::new(), damaged: page.damaged, next: page.next };
        for (key, value) in page.rows {
            let Some(row) = SavedRow::decode(&value, &seal) else {
                loaded.damaged = loaded.damaged.saturating_add(1);
                continue;
            };
            let Some(ends_in) = row.ends_in(now_s) else { continue };
            match row.verify(&mut verifier) {
                Ok(announce) if announce.origin.0[..] == key[..] => loaded.rows.push((announce, ends_in)),
                _ => loaded.damaged = loaded.damaged.saturating_add(1),
            }
        }
        loaded
    };
    tokio::task::spawn_blocking(check).await.ok()
}
