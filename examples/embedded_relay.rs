//! A relay inside a program that has work of its own: a task that stops when the node drains, and a
//! hook that writes what the program must remember while the node is still there.
//!
//! `cargo run --example embedded_relay`

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quicprochat_mesh::{MeshConfig, MeshNodeBuilder, ShutdownCoordinator};
use tokio::time::{interval, timeout};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Rounds of its own work after which this example has seen enough.
const ROUNDS: u64 = 5;

// A multi-threaded runtime does as well: the node has threads of its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let notes = dir.path().join("rounds");

    let coordinator = ShutdownCoordinator::new();
    let config = MeshConfig::from_toml(
        "[transport]\nlisten = ['quic://127.0.0.1:0', 'tcp://127.0.0.1:0']\n[health]\nlisten = 'off'\n",
    )?;
    let builder = MeshNodeBuilder::new().config(config).data_dir(dir.path().join("relay"));
    let relay = builder.shutdown(coordinator.clone()).build().await?.run().await?;
    println!("relay {} listens on {:?}", relay.node().address(), relay.listening().urls);

    // The program's own work, beside the relay and in the program's own runtime.
    let rounds = Arc::new(AtomicU64::new(0));
    let guard = coordinator.task("rounds")?;
    let worker = tokio::spawn({
        let (rounds, node) = (rounds.clone(), relay.node().clone());
        async move {
            let mut tick = interval(Duration::from_millis(20));
            loop {
                tokio::select! {
                    // The guard goes with the task; the drain waits for that.
                    () = guard.stopping() => return,
                    _ = tick.tick() => {
                        rounds.fetch_add(1, Ordering::Relaxed);
                        if let Ok(held) = node.held().await {
                            println!("{} messages held for others", held.rows);
                        }
                    }
                }
            }
        }
    });

    // Runs when the task has ended and before the node has.
    coordinator.on_persist("rounds", {
        let (rounds, notes) = (rounds.clone(), notes.clone());
        move || async move { tokio::fs::write(notes, rounds.load(Ordering::Relaxed).to_string()).await }
    });

    // Whatever ends this program, a signal for instance, ends it like this.
    timeout(PATIENCE, async {
        while rounds.load(Ordering::Relaxed) < ROUNDS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await?;
    let report = timeout(PATIENCE, coordinator.shutdown(Duration::from_secs(10))).await?;
    worker.await?;
    println!("stopped {}", if report.is_clean() { "cleanly".into() } else { report.missed.join(", ") });
    println!("remembered {} rounds", std::fs::read_to_string(&notes)?);
    Ok(())
}
