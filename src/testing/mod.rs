//! For tests of actors, ours and those of programs that embed the node: virtual time and probes.
//!
//! ```
//! use std::time::Duration;
//! use quicprochat_mesh::testing::{Probe, expect_within, with_virtual_time};
//!
//! struct Tick(u32);
//! impl actix::Message for Tick {
//!     type Result = ();
//! }
//!
//! with_virtual_time(|| async {
//!     let (recipient, mut received) = Probe::<Tick>::start();
//!     actix_rt::spawn(async move {
//!         tokio::time::sleep(Duration::from_secs(3600)).await; // takes no time at all
//!         recipient.do_send(Tick(7));
//!     });
//!     let Tick(n) = expect_within(&mut received, Duration::from_secs(3601)).await;
//!     assert_eq!(n, 7);
//! });
//! ```

pub mod fuzz;
pub mod panics;
mod probe;
mod virtual_time;

pub use probe::{Probe, expect_silence, expect_within};
pub use virtual_time::{eventually, set_wall_clock_off, with_virtual_time};
