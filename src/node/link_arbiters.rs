//! The threads that links run on beside the node's own: an arbiter for each lane.

use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};

use crate::{
    error::MeshError,
    transport::{Lanes, Spawn},
};

/// How long the threads may take to end once every link has. They have nothing left to do.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The arbiters of lanes 1 and up. Dropped, they are told to end; [`LinkArbiters::end`] waits for it.
#[derive(Debug, Default)]
pub(super) struct LinkArbiters {
    arbiters: Vec<Arbiter>,
}

impl LinkArbiters {
    /// So many of them, inside a running actor system.
    pub(super) fn start(threads: usize) -> Result<Self, MeshError> {
        let mut started = Self::default();
        for _ in 0..threads {
            let arbiter = Arbiter::try_new();
            let failed = |e| MeshError::Refused(format!("cannot start a thread for links: {e}"));
            started.arbiters.push(arbiter.map_err(failed)?);
        }
        Ok(started)
    }

    /// Where the registry starts the actors of links: lanes 1 and up.
    pub(super) fn handles(&self) -> Vec<ArbiterHandle> {
        self.arbiters.iter().map(Arbiter::handle).collect()
    }

    /// Where ports run their tasks: at home beside the other actors, links on these threads.
    pub(super) fn lanes(&self) -> Lanes {
        // Without an arbiter there are no actors either, only a program that tries a port.
        let home = Arbiter::try_current().map_or_else(Spawn::default, on);
        Lanes::new(home, self.handles().into_iter().map(on))
    }

    /// Ends them. What still runs on one, a link that was left behind, ends with it.
    pub(super) async fn end(mut self) {
        let arbiters = std::mem::take(&mut self.arbiters);
        if arbiters.is_empty() {
            return;
        }
        let (ended, over) = tokio::sync::oneshot::channel();
        // A join blocks, and this thread may be needed to end what runs on the other one.
        let joining = std::thread::Builder::new().name("qpc-join".into()).spawn(move || {
            for arbiter in &arbiters {
                arbiter.stop();
            }
            let crashed = arbiters.into_iter().filter_map(|arbiter| arbiter.join().err()).count();
            // The node may have given up waiting.
            let _ = ended.send(crashed);
        });
        if let Err(error) = joining {
            // The closure is gone, and with it the arbiters: their threads end by themselves.
            tracing::warn!(%error, "cannot wait for the threads of links");
            return;
        }
        match tokio::time::timeout(END_WITHIN, over).await {
            Ok(Ok(0)) => {}
            Ok(crashed) => tracing::error!(?crashed, "threads of links crashed"),
            Err(_) => tracing::warn!("a thread of links did not end in time, left behind"),
        }
    }
}

impl Drop for LinkArbiters {
    fn drop(&mut self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

/// As local tasks of an arbiter, beside the readers and writers of links.
fn on(arbiter: ArbiterHandle) -> Spawn {
    Spawn::with(move |task| {
        if !arbiter.spawn(task) {
            tracing::debug!("the arbiter is gone; so is the link");
        }
    })
}
