//! The router as an embedding program meets it: what it brings itself, and what is held for others.

use super::{MeshNode, Outbound, ask};
use crate::{
    error::{MeshError, RoutingError},
    messages::{
        route::{DropReason, HandIn, IncomingAction},
        store::HandOver,
    },
    proto::verify::{VerifyError, VerifyOutcome},
    telemetry,
    wire::{Address, Envelope, FrameExt, MessageUid},
};

/// A handle to a node's router. Clones are the same router.
///
/// ```no_run
/// # async fn relay(node: quicprochat_mesh::MeshNode, from: quicprochat_mesh::wire::Address,
/// #     envelope: quicprochat_mesh::MeshEnvelopeV2) -> Result<(), quicprochat_mesh::MeshError> {
/// use quicprochat_mesh::IncomingAction;
///
/// let router = node.router();
/// match router.handle_incoming(&from, envelope).await? {
///     IncomingAction::Delivered => println!("it was for this node"),
///     other => println!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MeshRouter {
    node: MeshNode,
}

impl MeshRouter {
    /// Sends a message: [`MeshNode::send`].
    ///
    /// # Errors
    /// As [`MeshNode::send`].
    pub async fn send(&self, message: Outbound) -> Result<MessageUid, MeshError> {
        self.node.send(message).await
    }

    /// Takes an envelope that came from the neighbour `from` over a medium of the program's own:
    /// verified first, then as if it had come over a link. It is delivered here, goes on, or is
    /// held for a destination without a path; `from` pays for the room it takes in custody.
    ///
    /// Refusals and custody acknowledgements go back over links only, so `from` does not get them:
    /// its sender tries again until the receipt, as for any lost message.
    ///
    /// # Errors
    /// A proof that does not hold ([`MeshError::Crypto`], [`MeshError::Verify`]), a source whose key
    /// the envelope does not carry ([`RoutingError::KeyMissing`]); the node does not run.
    pub async fn handle_incoming(
        &self,
        from: &Address,
        envelope: impl Into<Envelope>,
    ) -> Result<IncomingAction, MeshError> {
        self.hand_in(*from, envelope.into(), false).await
    }

    /// Passes an envelope on to its destination over a live path, and never into custody: for a
    /// program that keeps its own and asks when to let go. Remembers nothing of one without a path.
    ///
    /// # Errors
    /// [`RoutingError::NoPath`], [`RoutingError::NotForwarded`] where it ends here; else as
    /// [`MeshRouter::handle_incoming`].
    pub async fn forward(&self, envelope: impl Into<Envelope>) -> Result<(), MeshError> {
        let own = self.node.address();
        match self.hand_in(own, envelope.into(), true).await? {
            IncomingAction::Forwarded => Ok(()),
            action => Err(RoutingError::NotForwarded(action).into()),
        }
    }

    /// Hands over what is held for a destination, from the oldest on and without waiting for a
    /// retry; how many messages that are. They stay held until its receipt.
    ///
    /// # Errors
    /// [`RoutingError::NoPath`] where something is held and there is no path; the store; the node
    /// does not run.
    pub async fn drain_store_for(&self, destination: &Address) -> Result<u64, MeshError> {
        let held = ask(&self.node.0.seats.hand_over, "store", HandOver(*destination)).await??;
        Ok(held.ok_or(RoutingError::NoPath(*destination))?)
    }

    async fn hand_in(
        &self,
        from: Address,
        envelope: Envelope,
        live_path_only: bool,
    ) -> Result<IncomingAction, MeshError> {
        // A lock for the microseconds of one check; nothing is awaited under it.
        let outcome = {
            let mut verifier = self.node.0.verifier.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            verifier.verify(envelope, FrameExt::default())
        };
        let envelope = match outcome {
            VerifyOutcome::Verified(envelope) => Box::new(envelope),
            VerifyOutcome::KeyNeeded { source, .. } => return Err(RoutingError::KeyMissing(source).into()),
            outcome @ (VerifyOutcome::CameBack(_) | VerifyOutcome::Failed(_)) => {
                let error = match outcome {
                    VerifyOutcome::Failed(error) => error,
                    _ => VerifyError::OwnSource,
                };
                metrics::counter!(telemetry::VERIFY_FAILURES, "reason" => error.name()).increment(1);
                return Err(error.into());
            }
        };
        metrics::counter!(telemetry::VERIFIED).increment(1);
        let destination = envelope.destination;
        if live_path_only && (destination == self.node.address() || destination == Address::BROADCAST) {
            return Err(RoutingError::NotForwarded(IncomingAction::Delivered).into());
        }
        let message = HandIn { from, envelope, live_path_only };
        match ask(&self.node.0.seats.hand_in, "router", message).await? {
            IncomingAction::Dropped(DropReason::NoPath) if live_path_only => {
                Err(RoutingError::NoPath(destination).into())
            }
            action => Ok(action),
        }
    }
}

impl MeshNode {
    /// The node's router.
    pub fn router(&self) -> MeshRouter {
        MeshRouter { node: self.clone() }
    }

    /// [`MeshRouter::handle_incoming`].
    ///
    /// # Errors
    /// As there.
    pub async fn process_incoming(
        &self,
        from: &Address,
        envelope: impl Into<Envelope>,
    ) -> Result<IncomingAction, MeshError> {
        self.router().handle_incoming(from, envelope).await
    }
}
