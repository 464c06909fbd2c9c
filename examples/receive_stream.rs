//! A program that takes messages as a stream and loses none: each stays in the node's inbox until what
//! it is for is done. The program "crashes" after its second message, and begins with that one again.
//!
//! `cargo run --example receive_stream`

use std::{error::Error, path::Path, time::Duration};

use futures_util::StreamExt;
use quicprochat_mesh::{MeshConfig, MeshError, MeshNode, MeshNodeBuilder, Outbound, Received, RunHandle};
use tokio::time::timeout;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let reader = start(&dir.path().join("reader"), None).await?;
    let url = format!("{}#{}", reader.listening().urls[0], reader.node().address());
    let writer = start(&dir.path().join("writer"), Some(url)).await?;
    for text in ["one", "two", "three"] {
        writer.node().send(Outbound::new(reader.node().address(), text)).await?;
    }

    // Done with the first, and gone with the second in hand: it was not acknowledged.
    let mut done = timeout(PATIENCE, read(reader.node(), 1, 2)).await??;
    // Another stream, as after a restart of the program.
    done.extend(timeout(PATIENCE, read(reader.node(), 2, 2)).await??);
    println!("done: {}", done.join(", "));
    assert_eq!(done, ["one", "two", "three"]);

    for node in [writer, reader] {
        timeout(PATIENCE, node.shutdown()).await??;
    }
    Ok(())
}

/// Takes `taken` messages and is done with the first `finished` of them.
async fn read(node: &MeshNode, finished: usize, taken: usize) -> Result<Vec<String>, MeshError> {
    let mut messages = node.messages()?.take(taken);
    let mut done = Vec::new();
    while let Some(received) = messages.next().await {
        let received = received?;
        println!("took {:?}, {} hop", text(&received), received.message().hops());
        if done.len() < finished {
            done.push(text(&received));
            // On the disk when this returns. Whatever comes before it may happen twice, never not at all.
            received.ack().await?;
        }
    }
    Ok(done)
}

fn text(received: &Received) -> String {
    String::from_utf8_lossy(received.content()).into_owned()
}

/// A node that listens on a free port of this machine and dials `peer`.
async fn start(dir: &Path, peer: Option<String>) -> Result<RunHandle, MeshError> {
    let mut config =
        MeshConfig::from_toml("[transport]\nlisten = ['tcp://127.0.0.1:0']\n[health]\nlisten = 'off'\n")?;
    config.transport.peers = peer.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
    MeshNodeBuilder::new().config(config).data_dir(dir).build().await?.run().await
}
