//! Listeners: one child a port, which hands the registry what is accepted.

use std::sync::Arc;

use super::{NewLink, Origin};
use crate::{
    actors::{
        child::{Child, ChildSpec},
        mailbox::Seat,
    },
    messages::lifecycle::DrainPhase,
    transport::{MeshTransport, TransportError},
};

/// Accepts links on one port until it is drained. One that ends with its branch of the tree leaves
/// the port open for the next.
pub fn listener(transport: Arc<dyn MeshTransport>, new_link: Seat<NewLink>) -> ChildSpec {
    let name = format!("listener {}", transport.info().local);
    ChildSpec::permanent("listener", move |guard| {
        let (transport, new_link) = (transport.clone(), new_link.clone());
        Ok(Child::task(guard, DrainPhase::Draining, move |mut stop| async move {
            let mut new_link = new_link.outlet();
            loop {
                tokio::select! {
                    link = transport.accept() => {
                        new_link.do_send(NewLink { link: link?, origin: Origin::Inbound, ended: None });
                    }
                    drain = stop.wanted() => {
                        if drain.phase == DrainPhase::Draining {
                            transport.close().await;
                        }
                        return Ok::<(), TransportError>(());
                    }
                }
            }
        }))
    })
    .named(name)
}
