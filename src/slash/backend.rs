//! Who answers: a node in this program, or one behind its control socket.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::{
    MeshNode,
    api::{ApiError, Request},
    control::{Client, Outgoing, ReplyFrame, ReplyRx, Service, reply_channel},
};

/// Somebody who answers the requests of [`crate::api`].
///
/// [`MeshNode`] does, and [`RunningNode`]; whoever implements [`Service`] can with
/// [`Answers::of_service`].
pub trait SlashBackend: Send + Sync {
    /// Asks; `payload` is empty unless [`Request::takes_payload`].
    ///
    /// # Errors
    /// Nobody is there to ask (class `NoNode`), or the request could not be sent. What the node itself
    /// says against it comes from [`Answers::next`].
    fn ask<'a>(&'a self, request: &'a Request, payload: &'a [u8])
    -> BoxFuture<'a, Result<Answers, ApiError>>;
}

/// A node of this machine, found by its data directory. Every request is a connection of its own, so one
/// that was restarted is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningNode {
    data_dir: PathBuf,
}

impl RunningNode {
    /// The node of this data directory, whether it runs or not.
    pub fn at(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into() }
    }
}

impl SlashBackend for RunningNode {
    fn ask<'a>(
        &'a self,
        request: &'a Request,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Answers, ApiError>> {
        Box::pin(async move {
            let client = Client::request(&self.data_dir, request, payload).await?;
            Ok(Answers(Source::Client(Box::new(client))))
        })
    }
}

impl SlashBackend for MeshNode {
    fn ask<'a>(
        &'a self,
        request: &'a Request,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Answers, ApiError>> {
        let answers = Answers::of_service(self.service(), request.clone(), Bytes::copy_from_slice(payload));
        Box::pin(async move { Ok(answers) })
    }
}

/// What comes back for one request. Dropping it cancels the request.
pub struct Answers(Source);

enum Source {
    Client(Box<Client>),
    Service(Served),
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Answers {
    /// The answers of a service in this program. It works only while somebody waits for
    /// [`Answers::next`].
    pub fn of_service(service: Arc<dyn Service>, request: Request, payload: Bytes) -> Self {
        let (tx, replies) = reply_channel();
        let serving = Some(service.call(request, payload, tx));
        Self(Source::Service(Served { serving, replies, end: Ok(()), acks: BTreeMap::new(), last_ack: 0 }))
    }

    /// The next answer, none after the last. Not cancel-safe: who stops waiting drops this.
    ///
    /// # Errors
    /// What the node says against it, or the node went away.
    pub async fn next(&mut self) -> Result<Option<ReplyFrame>, ApiError> {
        match &mut self.0 {
            Source::Client(client) => client.next().await,
            Source::Service(served) => served.next().await,
        }
    }

    /// Says that the answer with this number is safe here.
    ///
    /// # Errors
    /// The node went away.
    pub async fn acknowledge(&mut self, number: u64) -> Result<(), ApiError> {
        match &mut self.0 {
            Source::Client(client) => client.acknowledge(number).await,
            Source::Service(served) => {
                if let Some(wants_to_know) = served.acks.remove(&number) {
                    // Where nobody waits any more, nobody has to know.
                    let _ = wants_to_know.send(());
                }
                Ok(())
            }
        }
    }

    /// The next answer as the object that it is.
    ///
    /// # Errors
    /// As [`Answers::next`]; there is none, or it is another object.
    pub async fn one<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        let none = || ApiError::failed("the node ended the request without an answer");
        self.next().await?.ok_or_else(none)?.parse()
    }

    /// All that is still to come.
    ///
    /// # Errors
    /// As [`Answers::next`]; one is another object.
    pub async fn all<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, ApiError> {
        let mut all = Vec::new();
        while let Some(frame) = self.next().await? {
            all.push(frame.parse()?);
        }
        Ok(all)
    }
}

/// A request that is served in this program.
struct Served {
    /// None once it has ended.
    serving: Option<BoxFuture<'static, Result<(), ApiError>>>,
    replies: ReplyRx,
    /// How it ended.
    end: Result<(), ApiError>,
    acks: BTreeMap<u64, oneshot::Sender<()>>,
    last_ack: u64,
}

impl Served {
    async fn next(&mut self) -> Result<Option<ReplyFrame>, ApiError> {
        let reply = loop {
            let Some(serving) = &mut self.serving else { break self.replies.recv().await };
            tokio::select! {
                biased;
                Some(reply) = self.replies.recv() => break Some(reply),
                end = serving => {
                    self.end = end;
                    self.serving = None;
                }
            }
        };
        match reply {
            Some(reply) => Ok(Some(self.frame(reply)?)),
            None => std::mem::replace(&mut self.end, Ok(())).map(|()| None),
        }
    }

    fn frame(&mut self, reply: Outgoing) -> Result<ReplyFrame, ApiError> {
        let Outgoing { reply, payload, acknowledged } = reply;
        let object = serde_json::to_value(&reply).map_err(ApiError::failed)?;
        let ack = acknowledged.map(|wants_to_know| {
            self.last_ack = self.last_ack.wrapping_add(1);
            self.acks.insert(self.last_ack, wants_to_know);
            self.last_ack
        });
        Ok(ReplyFrame { object, payload, ack })
    }
}
