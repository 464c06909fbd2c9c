//! Carrying a playbook out, one step after the other.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Action, Step, TextTest, Until};
use crate::{
    api::{ApiError, ErrorClass, Received, Request, Route, SendOutcome, Status},
    config::format_duration,
    slash::{
        SlashBackend, SlashReply,
        execute::{execute_slash, fate, received, resolve_target, send_request},
        render,
    },
    wire::{Address, MessageUid},
};

/// Pause between two looks at something that sends no event.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Its number, from 1.
    pub step: usize,
    /// The word that it was given as.
    pub action: &'static str,
    /// The line that it begins in.
    pub line: usize,
    /// Whether it did what it was for.
    pub ok: bool,
    /// How long it took.
    pub ms: u64,
    /// What it did, or why it did not, for people; text of others is escaped.
    pub detail: String,
    /// The reply that it looked at or got, as JSON.
    pub reply: Option<Value>,
    /// Which kind of failure it was.
    #[serde(skip)]
    pub class: Option<ErrorClass>,
}

impl StepReport {
    /// Why it failed, in one line, with its number and place; none where it did not.
    pub fn failure(&self) -> Option<ApiError> {
        let class = self.class?;
        let Self { step, action, line, detail, .. } = self;
        Some(ApiError::new(class, format!("step {step} ({action}, line {line}): {detail}")))
    }
}

/// A playbook under way.
pub struct Run<'a, B: ?Sized> {
    steps: std::slice::Iter<'a, Step>,
    backend: &'a B,
    number: usize,
    is_over: bool,
    /// The reply that conditions are about.
    last: Option<Value>,
    /// Messages that were found.
    found: BTreeSet<MessageUid>,
}

/// What a step gives that did what it was for.
struct Did {
    detail: String,
    reply: Option<Value>,
}

impl Did {
    fn said(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), reply: None }
    }
}

/// What a step gives that did not.
struct Failed {
    why: ApiError,
    reply: Option<Value>,
}

impl From<ApiError> for Failed {
    fn from(why: ApiError) -> Self {
        Self { why, reply: None }
    }
}

impl<'a, B: SlashBackend + ?Sized> Run<'a, B> {
    pub(super) fn new(steps: &'a [Step], backend: &'a B) -> Self {
        let steps = steps.iter();
        Self { steps, backend, number: 0, is_over: false, last: None, found: BTreeSet::new() }
    }

    /// Carries the next step out; none after the last, or after one that failed.
    pub async fn next(&mut self) -> Option<StepReport> {
        let step = self.steps.next().filter(|_| !self.is_over)?;
        self.number = self.number.saturating_add(1);
        let began = Instant::now();
        let did = self.step(&step.action).await;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (ok, detail, reply, class) = match did {
            Ok(Did { detail, reply }) => (true, detail, reply, None),
            Err(Failed { why, reply }) => (false, why.message, reply, Some(why.class)),
        };
        self.is_over = !ok;
        if !matches!(step.action, Action::ExpectReply(_)) {
            self.last = reply.clone().or(self.last.take());
        }
        Some(StepReport {
            step: self.number,
            action: step.name,
            line: step.line,
            ok,
            ms,
            detail,
            reply,
            class,
        })
    }

    async fn step(&mut self, action: &Action) -> Result<Did, Failed> {
        match action {
            Action::Note(text) => Ok(Did::said(text.clone())),
            Action::Command(command) => {
                let reply = execute_slash(self.backend, command).await?;
                let value = json(&reply)?;
                match reply.failure() {
                    Some(why) => Err(Failed { why: ApiError::failed(why), reply: Some(value) }),
                    None => Ok(Did { detail: reply.to_string(), reply: Some(value) }),
                }
            }
            Action::Send { to, text, wait, expect } => {
                let mut answers = self.backend.ask(&send_request(to), text.as_bytes()).await?;
                let outcome: SendOutcome = fate(&mut answers, wait.unwrap_or_default()).await?;
                let (status, reason) = (outcome.status, outcome.reason.clone());
                let reply = SlashReply::Sent(outcome);
                let value = json(&reply)?;
                if status == *expect {
                    return Ok(Did { detail: reply.to_string(), reply: Some(value) });
                }
                let within =
                    wait.map(|wait| format!(" within {}", format_duration(wait))).unwrap_or_default();
                let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                let why = format!(
                    "the message is {}{within}{reason}, expected {}",
                    status.as_str(),
                    expect.as_str()
                );
                Err(Failed { why: ApiError::failed(why), reply: Some(value) })
            }
            Action::ExpectReply(condition) => {
                let Some(reply) = &self.last else {
                    return Err(ApiError::failed("no step before this one was answered").into());
                };
                match condition.check(reply) {
                    Ok(so) => Ok(Did { detail: so, reply: Some(reply.clone()) }),
                    Err(why) => Err(Failed { why: ApiError::failed(why), reply: Some(reply.clone()) }),
                }
            }
            Action::ExpectMessage { from, text, timeout, take } => {
                let message = self.message(from.as_deref(), text, *timeout).await?;
                self.found.insert(message.id);
                if *take {
                    let ack = Request::InboxAck { id: message.id };
                    let _: crate::api::Done = self.backend.ask(&ack, &[]).await?.one().await?;
                }
                Ok(Did { detail: render::message(&message), reply: Some(json(&message)?) })
            }
            Action::Wait { until, timeout } => self.wait(until, *timeout).await,
        }
    }

    async fn wait(&self, until: &Until, timeout: Duration) -> Result<Did, Failed> {
        let deadline = Instant::now() + timeout;
        match until {
            Until::Passed(time) => {
                sleep(*time).await;
                Ok(Did::said(format!("{} over", format_duration(*time))))
            }
            Until::Message => {
                let message = self.message(None, &TextTest::Any, timeout).await?;
                Ok(Did { detail: render::message(&message), reply: Some(json(&message)?) })
            }
            Until::Peers(count) => loop {
                let status: Status = self.backend.ask(&Request::Status, &[]).await?.one().await?;
                if status.peers >= *count {
                    let detail = format!("{} of {count} links are up", status.peers);
                    return Ok(Did { detail, reply: Some(json(&status)?) });
                }
                let so_far = format!("{} of {count} links are up", status.peers);
                self.again(deadline, timeout, &so_far).await?;
            },
            Until::Route(to) => loop {
                let request = Request::Routes { destination: Some(to.clone()) };
                let routes: Result<Vec<Route>, ApiError> = self.backend.ask(&request, &[]).await?.all().await;
                let missing = match routes {
                    Ok(routes) => match routes.into_iter().next() {
                        Some(route) => {
                            let hops = u64::from(route.hops);
                            let detail =
                                format!("a route over {} is there", crate::slash::text::count(hops, "hop"));
                            return Ok(Did { detail, reply: Some(json(&route)?) });
                        }
                        None => format!("there is no route to {to}"),
                    },
                    // A name or prefix that nobody has yet.
                    Err(error) if error.class == ErrorClass::Failed => error.message,
                    Err(error) => return Err(error.into()),
                };
                self.again(deadline, timeout, &missing).await?;
            },
        }
    }

    async fn again(&self, deadline: Instant, timeout: Duration, so_far: &str) -> Result<(), ApiError> {
        if Instant::now() >= deadline {
            return Err(ApiError::failed(format!("{so_far} after {}", format_duration(timeout))));
        }
        sleep(LOOK_EVERY).await;
        Ok(())
    }

    /// The oldest message that no step has found and that is as it has to be.
    async fn message(
        &self,
        from: Option<&str>,
        text: &TextTest,
        timeout: Duration,
    ) -> Result<Received, ApiError> {
        let deadline = Instant::now() + timeout;
        let sender: Option<Address> = match from {
            Some(from) => Some(resolve_target(self.backend, from).await?.address),
            None => None,
        };
        let request = Request::Recv { count: None, wait: true, keep: true };
        let mut answers = self.backend.ask(&request, &[]).await?;
        let mut others = 0u64;
        loop {
            let Ok(frame) = timeout_at(deadline, answers.next()).await else {
                let of = from.map(|from| format!(" from {from}")).unwrap_or_default();
                return Err(ApiError::failed(format!(
                    "{text}{of} did not arrive within {}; {others} others are in the inbox",
                    format_duration(timeout)
                )));
            };
            let gone = || ApiError::failed("the node ended the request without an answer");
            let frame = frame?.ok_or_else(gone)?;
            let message = received(&frame)?;
            if let Some(number) = frame.ack {
                answers.acknowledge(number).await?;
            }
            let is_new = !self.found.contains(&message.id);
            let is_theirs = sender.is_none_or(|sender| sender == message.from);
            if is_new && is_theirs && text.holds(message.text.as_deref().unwrap_or_default()) {
                return Ok(message);
            }
            others = others.saturating_add(1);
        }
    }
}

fn json(object: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(object).map_err(ApiError::failed)
}
