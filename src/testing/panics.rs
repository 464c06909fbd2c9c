//! Lets a test that is another process have parts of a node panic.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use crate::node::MeshNode;

/// Names a fifo. A node of a build with the feature `testing` reads names from it, a line each, and
/// has what they name panic: see [`MeshNode::panic_now`].
pub const PANICS_FROM: &str = "QPC_TEST_PANICS";

/// Does as the environment says, for as long as the process lives.
pub(crate) fn obey(node: MeshNode) {
    let Some(path) = std::env::var_os(PANICS_FROM).map(PathBuf::from) else { return };
    let listen = move || {
        // Open for writing too, it never ends: who writes to it comes and goes.
        let fifo = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(fifo) => fifo,
            Err(error) => {
                return tracing::error!(%error, path = %path.display(), "nobody can be told to panic");
            }
        };
        for name in BufReader::new(fifo).lines().map_while(Result::ok) {
            tracing::warn!(name, "a test wants a panic");
            node.panic_now(name.trim());
        }
    };
    if let Err(error) = std::thread::Builder::new().name("qpc-panics".into()).spawn(listen) {
        tracing::error!(%error, "nobody can be told to panic");
    }
}
