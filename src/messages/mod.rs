//! Plain typed messages between actors, one file per conversation. A message is only data: it
//! knows no actor and no socket.

pub mod delivery;
pub mod health;
pub mod lifecycle;
pub mod limit;
pub mod link;
pub mod route;
pub mod store;

/// `message!(Type => Answer)`: what an actor answers to a message of this type.
macro_rules! message {
    ($message:ty => $answer:ty) => {
        impl ::actix::Message for $message {
            type Result = $answer;
        }
    };
}
pub(crate) use message;
