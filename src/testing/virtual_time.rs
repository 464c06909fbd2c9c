//! An actix system on a paused tokio clock.

use std::future::Future;
use std::time::Duration;

/// Runs `body` in an actix system of its own, on one thread, with time paused: whenever nothing
/// can run, the clock jumps to the next timer. An hour of keepalives takes milliseconds, and the
/// order of events does not depend on the machine. The wall clock moves along with it.
///
/// Everything has to live on this one arbiter: other arbiters have clocks of their own, and real
/// sockets or threads look idle to the clock, which then jumps while they work.
///
/// # Panics
/// When the runtime cannot be built, and with whatever `body` panics.
pub fn with_virtual_time<F: Future>(body: impl FnOnce() -> F) -> F::Output {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a current-thread runtime needs nothing that can be missing")
    };
    actix_rt::System::with_tokio_rt(runtime).block_on(async {
        let _free = crate::clock::follow_virtual_time();
        body().await
    })
}

/// Sets the wall clock of this thread off by so many seconds, and no other clock; gives what sets it
/// right again when dropped.
pub fn set_wall_clock_off(off_s: i64) -> impl Drop {
    crate::clock::set_wall_off(off_s)
}

/// Asks again every 10 ms of virtual time until `condition` gives a value.
///
/// # Panics
/// When it has not after `within`; `what` says what was waited for.
pub async fn eventually<T>(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(within, poll).await {
        Ok(value) => value,
        Err(_) => panic!("waited {within:?} for {what}"),
    }
}
