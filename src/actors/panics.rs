//! A test has a part of a running node panic, as a fault of its code would: any actor or task of the
//! tree, by its path in it.
//!
//! A supervisor passes a path down to the children it names; an actor panics when it handles
//! `PanicNow`, a task at its next await, since its body is guarded by a `Switch`. In a build without
//! the feature `testing` a switch is nothing: what it guards is returned as it came, and nobody can be
//! told to panic.

#[cfg(any(test, feature = "testing"))]
mod switch {
    use std::{
        fmt,
        sync::{Arc, OnceLock},
    };

    use actix::prelude::{Actor, Addr, Context, Handler};
    use tokio::sync::Notify;

    use crate::{messages::lifecycle::PanicNow, wire::Lifetime};

    /// An actor that panics when a test says so.
    pub trait PanicsWhenTold: Actor<Context = Context<Self>> + Handler<PanicNow> {}

    impl<A: Actor<Context = Context<A>> + Handler<PanicNow>> PanicsWhenTold for A {}

    /// Has the body of a task panic.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Switch(Arc<Notify>);

    impl Switch {
        /// The body, until the switch is thrown.
        pub(crate) fn guards<F: Future>(&self, body: F) -> impl Future<Output = F::Output> + use<F> {
            let thrown = self.0.clone();
            async move {
                tokio::select! {
                    biased;
                    () = thrown.notified() => panic!("a test wanted this panic"),
                    ended = body => ended,
                }
            }
        }

        pub(crate) fn throw(&self) {
            self.0.notify_one();
        }
    }

    /// How to have one child panic, or what is below it by this path.
    pub(crate) struct Panics(Box<dyn Fn(&str) + Send>);

    impl Panics {
        pub(crate) fn of_actor<A: PanicsWhenTold>(address: &Addr<A>) -> Self {
            let to = address.clone().recipient::<PanicNow>();
            Self(Box::new(move |below| to.do_send(PanicNow(below.to_owned()))))
        }

        pub(crate) fn of_task(switch: &Switch) -> Self {
            let switch = switch.clone();
            Self(Box::new(move |_| switch.throw()))
        }

        pub(crate) fn now(&self, below: &str) {
            (self.0)(below);
        }
    }

    /// A message that lives this long is poison to the part of the node that the environment names.
    const POISON_LIFETIME_S: u32 = 172_800;

    /// Names that part: `router`, `delivery`, `outbox` or `store`.
    const POISONED: &str = "QPC_TEST_POISON";

    /// Panics where this message is poison to `part`.
    pub(crate) fn poison(part: &str, lifetime: Lifetime) {
        static PART: OnceLock<Option<String>> = OnceLock::new();
        let poisoned = PART.get_or_init(|| std::env::var(POISONED).ok());
        let strikes = poisoned.as_deref() == Some(part) && lifetime.as_secs() == POISON_LIFETIME_S;
        assert!(!strikes, "a test wanted this panic: poison");
    }

    impl fmt::Debug for Panics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Panics")
        }
    }
}

#[cfg(not(any(test, feature = "testing")))]
mod switch {
    use actix::prelude::Addr;

    /// Nobody can be told to panic here, so anything does as it is told.
    pub trait PanicsWhenTold: actix::Actor {}

    impl<A: actix::Actor> PanicsWhenTold for A {}

    /// Nothing.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Switch;

    impl Switch {
        /// The body as it came.
        pub(crate) fn guards<F: Future>(&self, body: F) -> F {
            body
        }
    }

    /// Nothing.
    #[derive(Debug)]
    pub(crate) struct Panics;

    impl Panics {
        pub(crate) fn of_actor<A: PanicsWhenTold>(_: &Addr<A>) -> Self {
            Self
        }

        pub(crate) fn of_task(_: &Switch) -> Self {
            Self
        }
    }

    /// Nothing is poison here.
    pub(crate) fn poison(_: &str, _: crate::wire::Lifetime) {}
}

pub use switch::PanicsWhenTold;
pub(crate) use switch::{Panics, Switch, poison};

/// What of a path is below `name`; none where it leads elsewhere.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn below<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(name)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_followed_by_whole_names() {
        assert_eq!(below("transport/link/reader", "transport"), Some("link/reader"));
        assert_eq!(below("link/reader", "link"), Some("reader"));
        assert_eq!(below("links", "links"), Some(""));
        assert_eq!(below("links", "link"), None);
        assert_eq!(below("router", "delivery"), None);
        // Names of links have the character in them that separates names.
        assert_eq!(below("L1 tcp://a:1/writer", "L1 tcp://a:1"), Some("writer"));
    }
}
