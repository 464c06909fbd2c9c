//! Asking the running node.

use quicprochat_mesh::{
    api::{ApiError, Request},
    control::{Client, ReplyFrame},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{cx::Context, fail::Failure, progress::Progress};

/// What a spinner says of a node that does not answer at once.
const WAITING: &str = "waiting for the node to answer";

/// Sends a request with its payload.
pub async fn start(cx: &Context, request: &Request, payload: &[u8]) -> Result<Client, Failure> {
    Ok(Client::request(&cx.data_dir, request, payload).await?)
}

/// All answers to a request without payload.
pub async fn all<T: DeserializeOwned>(cx: &Context, request: &Request) -> Result<Vec<T>, Failure> {
    let answers = async {
        let mut client = start(cx, request, &[]).await?;
        let mut answers = Vec::new();
        while let Some(frame) = client.next().await? {
            answers.push(frame.parse()?);
        }
        Ok(answers)
    };
    Progress::new(cx.out.json).during(WAITING, answers).await
}

/// Prints all answers to a request without payload: with `--json` each as it comes, else the text
/// that `human` makes of all of them.
pub async fn list<T: DeserializeOwned + Serialize>(
    cx: &Context,
    request: &Request,
    human: impl FnOnce(&[T]) -> String,
) -> Result<(), Failure> {
    if !cx.out.json {
        return cx.out.list(&all(cx, request).await?, human);
    }
    let mut client = start(cx, request, &[]).await?;
    while let Some(frame) = client.next().await? {
        cx.out.show(&frame.parse::<T>()?, |_| String::new())?;
    }
    Ok(())
}

/// The one answer to a request without payload.
pub async fn one<T: DeserializeOwned>(cx: &Context, request: &Request) -> Result<T, Failure> {
    Progress::new(cx.out.json).during(WAITING, one_unseen(cx, request)).await
}

/// The one answer to a request without payload, for who shows progress already.
pub async fn one_unseen<T: DeserializeOwned>(cx: &Context, request: &Request) -> Result<T, Failure> {
    first(&mut start(cx, request, &[]).await?).await
}

/// The first answer of a request under way.
pub async fn first<T: DeserializeOwned>(client: &mut Client) -> Result<T, Failure> {
    let frame: Option<ReplyFrame> = client.next().await?;
    match frame {
        Some(frame) => Ok(frame.parse()?),
        None => Err(ApiError::failed("the node ended the request without an answer").into()),
    }
}
