//! What the outbox takes and what not.

use super::*;

#[test]
fn what_is_still_being_stored_counts_for_the_outbox() {
    with_virtual_time(|| async {
        let config = OutboxConfig { entries_max: 3, ..OutboxConfig::default() };
        let bench = start_with(FragileStore::default(), config);
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.hold_completions();
        let sends: Vec<_> = (0..5).map(|_| bench.actor.send(bench.content(&b"hello"[..]))).collect();
        let answers = actix_rt::spawn(futures_util::future::join_all(sends));
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.release();
        let answers = answers.await.unwrap();
        let taken = answers.iter().filter(|answer| matches!(answer, Ok(Ok(_)))).count();
        assert_eq!((taken, bench.lines().await, bench.counts().await.outbox), (3, 3, 3));
    });
}
