//! Expiry on request: what the node drops by itself now and then, dropped now.

use super::{MeshNode, ask};
use crate::{
    error::MeshError,
    messages::{route::SweepRoutes, store::ExpireHeld},
    storage::{LocalOp, LocalOutcome},
};

/// Duplicate records dropped in one transaction, so that others get their turn in between.
const FORGET_ROWS: usize = 4096;

/// What [`MeshNode::gc`] dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Routes whose announce is too old.
    pub routes_ended: u64,
    /// Messages held for others whose time has run out.
    pub held_expired: u64,
    /// Records of messages that arrived, which would be refused by now anyway.
    pub records_forgotten: u64,
    /// False where the wall clock is not trusted: no record was forgotten then, whose end is by it.
    pub clock_is_trusted: bool,
}

impl MeshNode {
    /// Drops what has expired now rather than at the next sweep, and says what that was. A node
    /// that runs does so by itself; this is for a program that wants the room at once.
    ///
    /// ```no_run
    /// # async fn tidy(node: quicprochat_mesh::MeshNode) -> Result<(), quicprochat_mesh::MeshError> {
    /// let gone = node.gc().await?;
    /// println!("{} messages held for others had expired", gone.held_expired);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The store; the node does not run.
    pub async fn gc(&self) -> Result<GcReport, MeshError> {
        let swept = ask(&self.0.seats.sweep_routes, "router", SweepRoutes).await?;
        let mut report = GcReport {
            routes_ended: swept.routes_ended,
            clock_is_trusted: swept.clock_is_trusted,
            ..GcReport::default()
        };
        report.held_expired = ask(&self.0.seats.expire_held, "store", ExpireHeld).await??;
        if !swept.clock_is_trusted {
            return Ok(report);
        }
        let now_unix_s = self.0.clock.unix_s();
        loop {
            let op = LocalOp::ForgetSeen { now_unix_s, rows_max: FORGET_ROWS };
            let LocalOutcome::Forgotten { rows, more } = self.kv(op).await? else { return Ok(report) };
            report.records_forgotten = report.records_forgotten.saturating_add(rows as u64);
            if !more {
                return Ok(report);
            }
        }
    }
}
