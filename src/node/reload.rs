//! What of the configuration can change while a node runs.

use std::sync::{Arc, PoisonError};

use super::{MeshNode, people};
use crate::{
    actors::links::{AddPeer, PeerName, RemovePeer},
    config::{ConfigError, MeshConfig, changed_keys},
    error::MeshError,
    events::EventKind,
    transport::TransportAddr,
};

/// Keys whose new values hold at once. All others hold from the next start on.
pub const LIVE_KEYS: [&str; 5] =
    ["inbox.accept", "logging.filter", "store.broadcast_ttl", "store.message_ttl", "transport.peers"];

/// Reads the configuration once more.
pub(super) type ReadConfig = Box<dyn Fn() -> Result<MeshConfig, ConfigError> + Send + Sync>;

/// Changes the filter of log lines.
pub(super) type LogFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What only the program around the node can do.
#[derive(Default)]
pub(super) struct Program {
    pub(super) read_config: Option<ReadConfig>,
    pub(super) log_filter: Option<LogFilter>,
}

/// What a new configuration came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Keys whose new values hold now.
    pub changed: Vec<String>,
    /// Keys whose new values hold from the next start on.
    pub needs_restart: Vec<String>,
}

impl MeshNode {
    /// The configuration that holds now: as the node was built, but for what was changed since.
    pub fn live_config(&self) -> Arc<MeshConfig> {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration as at the start, and has what can change hold.
    ///
    /// # Errors
    /// The program did not say how it is read; what is wrong with it, and then nothing changes.
    pub async fn reload(&self) -> Result<Reloaded, MeshError> {
        let Some(read) = &self.0.program.read_config else {
            return Err(MeshError::Refused(
                "the program around this node reads no configuration again: restart it".to_owned(),
            ));
        };
        let config = read()?;
        self.apply_config(config).await
    }

    /// Has what of `config` can change ([`LIVE_KEYS`]) hold, and says what waits for the next start.
    ///
    /// # Errors
    /// A configuration that contradicts itself, a filter of log lines that does not parse, and then
    /// nothing changes; the node does not run.
    pub async fn apply_config(&self, config: MeshConfig) -> Result<Reloaded, MeshError> {
        config.validate()?;
        let before = self.live_config();
        let (changed, needs_restart): (Vec<String>, Vec<String>) =
            changed_keys(&before, &config).into_iter().partition(|key| LIVE_KEYS.contains(&key.as_str()));
        // What can fail comes first.
        if before.logging.filter != config.logging.filter {
            self.set_log_filter(&config.logging.filter)?;
        }
        let urls = |config: &MeshConfig| -> Vec<TransportAddr> {
            config.transport.peers.iter().filter_map(|peer| peer.to_string().parse().ok()).collect()
        };
        let (old, new) = (urls(&before), urls(&config));
        for url in old.iter().filter(|url| !new.contains(url)) {
            let seat = &self.0.seats.remove_peer;
            super::ask(seat, "link registry", RemovePeer(PeerName::Url(url.clone()))).await?;
        }
        for url in new.iter().filter(|url| !old.contains(url)) {
            super::ask(&self.0.seats.add_peer, "link registry", AddPeer(url.clone())).await??;
        }
        self.0.welcome.write().accept = people::accept(config.inbox.accept);

        let mut live = MeshConfig::clone(&before);
        live.inbox = config.inbox;
        live.logging.filter = config.logging.filter;
        live.store.message_ttl = config.store.message_ttl;
        live.store.broadcast_ttl = config.store.broadcast_ttl;
        live.transport.peers = config.transport.peers;
        *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        self.0.events.tell(EventKind::Reloaded { changed: changed.clone() });
        Ok(Reloaded { changed, needs_restart })
    }

    /// Logs what `filter` lets through from now on, until the next start or change of the configuration.
    ///
    /// # Errors
    /// A filter that does not parse; the program did not say how its log is filtered.
    pub fn set_log_filter(&self, filter: &str) -> Result<(), MeshError> {
        match &self.0.program.log_filter {
            Some(set) => set(filter).map_err(MeshError::Refused),
            None => Err(MeshError::Refused(
                "the program around this node has a log of its own, which it did not put in the node's hands"
                    .to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_can_change_exist() {
        let text = MeshConfig::commented_toml();
        for key in LIVE_KEYS {
            let (section, name) = key.split_once('.').expect("a section");
            let (_, of) = text.split_once(&format!("[{section}]")).expect(key);
            let of = of.split("\n[").next().unwrap_or(of);
            assert!(of.contains(&format!("#{name} = ")) || of.contains(&format!("# {name}")), "{key}");
        }
    }
}
