//! A stop without a node: who is waited for, who is named, and that nothing waits for ever.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::*;

const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn hooks_run_in_order_after_the_guards_are_gone() {
    let coordinator = ShutdownCoordinator::new();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let note = |step: &'static str| {
        let steps = steps.clone();
        move || async move {
            steps.lock().unwrap().push(step);
            Ok::<(), Infallible>(())
        }
    };
    coordinator.on_cleanup("pid file", note("cleanup"));
    coordinator.on_persist("index", note("persist"));
    let guard = coordinator.task("importer").unwrap();
    let seen = steps.clone();
    let task = tokio::spawn(async move {
        guard.stopping().await;
        assert!(guard.is_stopping());
        seen.lock().unwrap().push("task");
    });
    let report = coordinator.shutdown(WITHIN).await;
    task.await.unwrap();
    assert_eq!(report, ShutdownReport::default());
    assert_eq!(*steps.lock().unwrap(), ["task", "persist", "cleanup"]);
    // Again: nothing is left to do, and nothing runs twice.
    assert!(coordinator.shutdown(WITHIN).await.is_clean());
    assert_eq!(steps.lock().unwrap().len(), 3);
    let refused = coordinator.task("late").unwrap_err();
    assert_eq!(refused, ShutdownError::Stopping { name: "late".into() });
}

#[tokio::test(start_paused = true)]
async fn who_is_late_or_fails_is_named_and_left_behind() {
    let coordinator = ShutdownCoordinator::new();
    coordinator.on_persist("slow", std::future::pending::<Result<(), Infallible>>);
    coordinator.on_persist("broken", || async { Err("disk full") });
    coordinator.on_cleanup("wild", wild);
    let _stuck = coordinator.task("stuck").unwrap();
    let begun = tokio::time::Instant::now();
    let report = coordinator.shutdown(WITHIN).await;
    assert_eq!(
        report.missed,
        [
            "draining: stuck",
            "persisting: slow",
            "persisting: broken failed: disk full",
            "cleanup: stuck",
            "cleanup: wild panicked"
        ]
    );
    assert!(begun.elapsed() <= WITHIN, "{:?}", begun.elapsed());
}

async fn wild() -> Result<(), Infallible> {
    panic!("a hook's own fault")
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_finish_is_cut_in_cleanup() {
    let coordinator = ShutdownCoordinator::new();
    let drainer = coordinator.connections("websocket", 2);
    let guards = [drainer.open().unwrap(), drainer.open().unwrap()];
    assert_eq!((drainer.len(), drainer.is_empty()), (2, false));
    let full = drainer.open().unwrap_err();
    assert_eq!(full, ShutdownError::Full { name: "websocket".into(), connections_max: 2 });
    for guard in guards {
        tokio::spawn(async move { guard.cut().await });
    }
    let report = coordinator.shutdown(WITHIN).await;
    // Late in Draining, gone in Cleanup.
    assert_eq!(report.missed, ["draining: websocket (2)"]);
    assert!(drainer.is_empty());
    assert_eq!(drainer.open().unwrap_err(), ShutdownError::Stopping { name: "websocket".into() });
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_skips_ahead_names_the_hooks_it_left_out() {
    let coordinator = ShutdownCoordinator::new();
    let ran = Arc::new(AtomicU32::new(0));
    let count = ran.clone();
    coordinator.on_persist("index", move || async move {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<(), Infallible>(())
    });
    let drain = coordinator.drain(Handle::current());
    let missed = drain(DrainPhase::Cleanup, clock::now() + WITHIN).await;
    assert_eq!(missed, ["cleanup: index was skipped"]);
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_runs_keeps_nobody_waiting() {
    let coordinator = ShutdownCoordinator::new();
    coordinator.take().unwrap();
    coordinator.on_cleanup("pid file", || async { Err("ran") });
    let report = coordinator.shutdown(WITHIN).await;
    assert_eq!(report.missed, ["cleanup: pid file failed: ran"]);
}

#[tokio::test(start_paused = true)]
async fn hooks_of_a_node_that_fell_over_are_named() {
    let coordinator = ShutdownCoordinator::new();
    coordinator.on_persist("index", || async { Ok::<(), Infallible>(()) });
    drop(Attached(coordinator.clone()));
    // Joined by whoever asks later.
    let report = coordinator.shutdown(WITHIN).await;
    assert_eq!(report.missed, ["complete: index was skipped"]);
}

#[tokio::test(start_paused = true)]
async fn two_that_stop_at_once_share_one_stop() {
    let coordinator = ShutdownCoordinator::new();
    coordinator.on_persist("broken", || async { Err("once") });
    let (a, b) = tokio::join!(coordinator.shutdown(WITHIN), coordinator.shutdown(WITHIN));
    assert_eq!((&a, a.missed.len()), (&b, 1));
    assert_eq!(coordinator.take(), Err(ShutdownError::Taken));
}
