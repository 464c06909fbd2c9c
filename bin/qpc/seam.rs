//! The two places where the command line meets the node itself.

use std::path::PathBuf;

use quicprochat_mesh::{
    api::{ApiError, Ready, Stopped},
    config::MeshConfig,
};
use tokio::sync::mpsc;

/// What a node in the foreground is given.
pub struct Foreground {
    /// Its data directory; exists and holds an identity.
    pub data_dir: PathBuf,
    /// Its configuration.
    pub config: MeshConfig,
    /// Called once when all listeners are bound.
    pub ready: Box<dyn FnOnce(&Ready) + Send>,
    /// Gets one item a signal: the first asks for a drain, the second to skip ahead.
    pub stop: mpsc::UnboundedReceiver<()>,
}

/// Runs a node until it is stopped.
pub fn run_foreground(foreground: Foreground) -> Result<Stopped, ApiError> {
    let Foreground { data_dir, config, ready, stop } = foreground;
    drop((data_dir, config, ready, stop));
    Err(ApiError::failed("the node is not linked into this build yet"))
}

/// Explains a link frame for people.
pub fn explain_frame(bytes: &[u8]) -> Result<String, ApiError> {
    let len = bytes.len();
    Err(ApiError::failed(format!("the frame decoder is not linked into this build yet ({len} bytes given)")))
}
