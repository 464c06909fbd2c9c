//! Whom a line can be about: names and addresses, for completion.

use std::sync::{Arc, Mutex, PoisonError};

use quicprochat_mesh::{
    RunningNode, SlashBackend,
    api::{ApiError, Contact, KnownNode, Request},
};
use tokio::sync::Notify;

/// Addresses that are offered beside the contacts; nobody reads more of them.
const KNOWN_MAX: usize = 500;

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
pub struct SharedNames {
    now: Arc<Mutex<Names>>,
    is_wanted: Arc<Notify>,
}

impl SharedNames {
    /// As they are now.
    pub fn now(&self) -> Names {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has them renewed, without a wait.
    pub fn renew(&self) {
        self.is_wanted.notify_one();
    }

    /// Renews them whenever that is wanted. What cannot be asked stays as it was.
    pub async fn keep(self, node: RunningNode) {
        loop {
            if let Ok(names) = ask(&node).await {
                *self.now.lock().unwrap_or_else(PoisonError::into_inner) = names;
            }
            self.is_wanted.notified().await;
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
