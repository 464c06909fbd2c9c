//! What a fall of delivery means for messages that were on their way into its store.

use super::*;

#[test]
fn a_message_that_reached_the_disk_is_answered_for_though_delivery_fell_meanwhile() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.hold_completions();
        let sending = bench.actor.send(bench.content(&b"hello"[..]));
        let (answered, mut answer) = oneshot::channel();
        actix_rt::spawn(async move { drop(answered.send(sending.await)) });
        tokio::time::sleep(secs(1)).await;
        bench.actor.do_send(PanicNow(String::new()));
        assert_eq!(bench.parent.exit().await, ExitReason::Crashed);
        assert_eq!(answer.try_recv().err(), Some(oneshot::error::TryRecvError::Empty), "nobody knows yet");
        bench.store.rows.release();
        let uid = answer.await.unwrap().unwrap().unwrap().uid;

        let again = start_on(bench.store.clone());
        let lines = eventually("the outbox to be read", PATIENCE, async || {
            let lines = again.actor.send(ListOutbox).await.unwrap();
            (!lines.is_empty()).then_some(lines)
        })
        .await;
        assert_eq!(lines.iter().map(|line| line.uid).collect::<Vec<_>>(), [uid]);
    });
}

#[test]
fn who_waits_for_the_inbox_hears_of_what_was_committed_while_delivery_fell() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        bench.store.rows.hold_completions();
        let packet = bench.message(1);
        bench.arrives(packet);
        tokio::time::sleep(secs(1)).await;
        bench.actor.do_send(PanicNow(String::new()));
        assert_eq!(bench.parent.exit().await, ExitReason::Crashed);
        bench.store.rows.release();

        let mut again = start_on(bench.store.clone());
        tokio::time::timeout(PATIENCE, again.inbox.changed()).await.expect("a word").unwrap();
        assert_eq!(again.counts().await.inbox, 1);
    });
}
