//! Whom a line can be about: names and addresses, for completion.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quicprochat_mesh::{
    RunningNode, SlashBackend,
    api::{ApiError, Contact, KnownNode, Request},
};
use tokio::time::timeout;

/// Addresses that are offered beside the contacts; nobody reads more of them.
const KNOWN_MAX: usize = 500;

/// Nobody waits longer for a prompt because of what Tab might offer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Names and addresses, as the node had them a moment ago.
#[derive(Debug, Default, Clone)]
pub struct Names {
    /// Contacts, by name.
    pub contacts: Vec<String>,
    /// Addresses of contacts and of nodes that were heard, in hex.
    pub addresses: Vec<String>,
}

/// [`Names`] that are read while a line is typed and renewed between two.
#[derive(Debug, Default, Clone)]
pub struct SharedNames(Arc<Mutex<Names>>);

impl SharedNames {
    /// As they are now.
    pub fn now(&self) -> Names {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the node for them. Where it does not answer at once they stay as they were.
    pub async fn renew(&self, node: &RunningNode) {
        if let Ok(Ok(names)) = timeout(PATIENCE, ask(node)).await {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
        }
    }
}

async fn ask(node: &RunningNode) -> Result<Names, ApiError> {
    let contacts: Vec<Contact> = node.ask(&Request::ContactList, &[]).await?.all().await?;
    let mut addresses: Vec<String> = contacts.iter().map(|contact| contact.address.to_string()).collect();
    let mut known = node.ask(&Request::Known, &[]).await?;
    while addresses.len() < KNOWN_MAX {
        let Some(frame) = known.next().await? else { break };
        addresses.push(frame.parse::<KnownNode>()?.address.to_string());
    }
    addresses.sort();
    addresses.dedup();
    Ok(Names { contacts: contacts.into_iter().map(|contact| contact.name).collect(), addresses })
}
