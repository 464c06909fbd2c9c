//! The places where the command line meets the node itself.

use std::{future::Future, path::PathBuf, pin::Pin};

use quicprochat_mesh::{
    api::{ApiError, Ready, ReadyEvent, Stopped},
    config::{ConfigError, MeshConfig},
    crypto::Passphrase,
    node::{self, MeshNode, MeshNodeBuilder},
    telemetry::LogHandle,
};
use tokio::sync::mpsc;

/// What looks at a node while it runs.
pub type Watch = Box<dyn FnOnce(MeshNode) -> Pin<Box<dyn Future<Output = ()>>>>;

/// What a node in the foreground is given.
pub struct Foreground {
    /// Its data directory; exists and holds an identity.
    pub data_dir: PathBuf,
    /// Its configuration.
    pub config: MeshConfig,
    /// Reads it once more, for `qpc reload`.
    pub read_config: Box<dyn Fn() -> Result<MeshConfig, ConfigError> + Send + Sync>,
    /// Changes what is logged, for `qpc log-level`.
    pub log: LogHandle,
    /// The passphrase of its identity, where that is under one.
    pub passphrase: Option<Passphrase>,
    /// Called once when all listeners are bound.
    pub ready: Box<dyn FnOnce(&Ready) + Send>,
    /// Runs beside the node from then on.
    pub watch: Option<Watch>,
    /// Gets one item a signal: the first asks for a drain, the second to skip ahead.
    pub stop: mpsc::UnboundedReceiver<()>,
}

/// Runs a node until it is stopped.
pub fn run_foreground(foreground: Foreground) -> Result<Stopped, ApiError> {
    let Foreground { data_dir, config, read_config, log, passphrase, ready, watch, mut stop } = foreground;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| ApiError::failed(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(async move {
        let set_filter = move |filter: &str| log.set_filter(filter).map_err(|error| error.to_string());
        let mut builder = MeshNodeBuilder::new().config(config).data_dir(data_dir).control_socket();
        builder = builder.reload_with(read_config).log_filter_with(set_filter);
        if let Some(passphrase) = passphrase {
            builder = builder.passphrase(passphrase);
        }
        let node = builder.build().await.map_err(ApiError::failed)?;
        let mut running = node.run().await.map_err(ApiError::failed)?;
        let listening = running.listening();
        ready(&Ready {
            event: ReadyEvent::Ready,
            address: node.address(),
            public_key: node.public_key(),
            listen: listening.urls.iter().map(ToString::to_string).collect(),
            health: listening.health.map(|a| a.to_string()),
            control: listening.control.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            pid: std::process::id(),
        });
        let stopper = running.stopper();
        let mut watching: Pin<Box<dyn Future<Output = ()>>> = match watch {
            Some(watch) => watch(node.clone()),
            None => Box::pin(std::future::ready(())),
        };
        let mut is_watched = true;
        let ended = loop {
            tokio::select! {
                () = &mut watching, if is_watched => is_watched = false,
                ended = running.wait() => break ended,
                // The first signal drains, the second skips ahead.
                Some(()) = stop.recv() => stopper.stop("signal", None),
            }
        };
        ended.map(|summary| node::stopped(&summary)).map_err(ApiError::failed)
    })
}

/// Explains a link frame for people.
pub fn explain_frame(bytes: &[u8]) -> Result<String, ApiError> {
    Ok(quicprochat_mesh::wire::explain::explain(bytes).to_string())
}
