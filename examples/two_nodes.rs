//! Two nodes in one program pass a message over TCP on this machine, and stop.
//!
//! `cargo run --example two_nodes`

use std::{error::Error, path::Path, time::Duration};

use quicprochat_mesh::{MeshConfig, MeshError, MeshNodeBuilder, Outbound, RunHandle};
use tokio::time::timeout;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (anna_dir, bert_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);

    // A node makes its own directory, which nobody else may read.
    let bert = start(&bert_dir.path().join("bert"), None).await?;
    // What stands behind # pins the identity: another node at that place would be refused.
    let bert_url = format!("{}#{}", bert.listening().urls[0], bert.node().address());
    let anna = start(&anna_dir.path().join("anna"), Some(bert_url)).await?;
    println!("anna {}", anna.node().address());
    println!("bert {}  listens on {}", bert.node().address(), bert.listening().urls[0]);

    // On Anna's disk when `send` returns, whether or not Bert can be reached.
    let id = anna.node().send(Outbound::new(bert.node().address(), "Hello, Bert")).await?;
    println!("sent {id}");

    let (message, content) = timeout(PATIENCE, bert.node().receive()).await??;
    println!("bert received {:?} from {}", String::from_utf8_lossy(&content), message.from());

    // The message leaves Anna's outbox when Bert's signed receipt is back.
    match timeout(PATIENCE, anna.node().wait_for(id)).await?? {
        Some(finished) => println!("anna knows: {:?}", finished.end),
        None => println!("anna knows: delivered before she asked"),
    }

    for node in [anna, bert] {
        let summary = timeout(PATIENCE, node.shutdown()).await??;
        println!("stopped: {}", summary.reason);
    }
    Ok(())
}

/// A node that listens on a free port of this machine and dials `peer`.
async fn start(dir: &Path, peer: Option<String>) -> Result<RunHandle, MeshError> {
    let peers: Vec<String> = peer.iter().map(|url| format!("'{url}'")).collect();
    let config = MeshConfig::from_toml(&format!(
        "[transport]\nlisten = ['tcp://127.0.0.1:0']\npeers = [{}]\n[health]\nlisten = 'off'\n",
        peers.join(", ")
    ))?;
    MeshNodeBuilder::new().config(config).data_dir(dir).build().await?.run().await
}
