//! Why a control socket cannot be opened.

use std::{io, path::PathBuf};

/// A control socket that cannot be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another node answers on it.
    #[error(
        "a node is already running for this data directory (it answers on {}): stop it with `qpc drain`, or choose \
         another --data-dir",
        path.display()
    )]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has its name.
    #[error("{} is in the way of the control socket and is no socket: move it away", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The directory for sockets with long names is not ours alone.
    #[error(
        "{} is not a directory of mode 0700 that belongs to this user: remove it, or choose a shorter --data-dir",
        path.display()
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
    },
    /// No directory is near enough to the root.
    #[error(
        "{} is longer than the {limit} bytes a socket's path may have, and so are all fallbacks: choose a shorter \
         --data-dir",
        path.display()
    )]
    TooLong {
        /// The path that was wanted.
        path: PathBuf,
        /// Bytes allowed.
        limit: usize,
    },
    /// The system refused.
    #[error("cannot open the control socket: {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
