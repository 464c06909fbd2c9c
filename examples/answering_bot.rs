//! A bot in a program that has a runtime of its own: it answers each message, remembers what it has
//! answered, and ends with the node.
//!
//! `cargo run --example answering_bot`

use std::{collections::HashSet, error::Error, path::Path, time::Duration};

use futures_util::StreamExt;
use quicprochat_mesh::{
    MeshConfig, MeshError, MeshNode, MeshNodeBuilder, Outbound, RunHandle, ShutdownCoordinator, TaskGuard,
};
use tokio::time::timeout;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let coordinator = ShutdownCoordinator::new();
    let bot = start(&dir.path().join("bot"), None, Some(&coordinator)).await?;
    // The node's drain tells the task, and waits until its guard is gone.
    let answering = tokio::spawn(answer(bot.node().clone(), coordinator.task("answering")?));

    let url = format!("{}#{}", bot.listening().urls[0], bot.node().address());
    let person = start(&dir.path().join("person"), Some(url), None).await?;
    let mut answers = person.node().messages()?;
    for question in ["ping", "how long is this?"] {
        person.node().send(Outbound::new(bot.node().address(), question)).await?;
        let Some(answer) = timeout(PATIENCE, answers.next()).await? else { break };
        let answer = answer?;
        println!("{question:?}: {:?}", String::from_utf8_lossy(answer.content()));
        answer.ack().await?;
    }

    timeout(PATIENCE, person.shutdown()).await??;
    timeout(PATIENCE, bot.shutdown()).await??;
    println!("answered {} messages", answering.await??);
    Ok(())
}

/// Answers until the node stops; how many were answered.
async fn answer(node: MeshNode, guard: TaskGuard) -> Result<usize, MeshError> {
    let mut messages = node.messages()?;
    // A message whose acknowledgement did not get out comes again with the same id. A bot whose answers
    // must not come twice keeps this on a disk.
    let mut answered = HashSet::new();
    loop {
        let received = tokio::select! {
            () = guard.stopping() => return Ok(answered.len()),
            received = messages.next() => match received {
                Some(received) => received?,
                None => return Ok(answered.len()),
            },
        };
        let message = received.message();
        // A broadcast is for everyone, and two bots that answer each other's would never end.
        if !message.is_broadcast() && answered.insert(message.id()) {
            let reply = format!("{} bytes after {} hop", message.size(), message.hops());
            // On this node's disk before the question is let go of.
            node.send(Outbound::new(message.from(), reply)).await?;
        }
        received.ack().await?;
    }
}

/// A node that listens on a free port of this machine and dials `peer`.
async fn start(
    dir: &Path,
    peer: Option<String>,
    coordinator: Option<&ShutdownCoordinator>,
) -> Result<RunHandle, MeshError> {
    let mut config =
        MeshConfig::from_toml("[transport]\nlisten = ['tcp://127.0.0.1:0']\n[health]\nlisten = 'off'\n")?;
    config.transport.peers = peer.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
    let mut builder = MeshNodeBuilder::new().config(config).data_dir(dir);
    if let Some(coordinator) = coordinator {
        builder = builder.shutdown(coordinator.clone());
    }
    builder.build().await?.run().await
}
