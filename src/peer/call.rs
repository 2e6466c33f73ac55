//! Requests to a relay over the connection that is there: what it also answers over HTTP.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use concord_protocol::{
    Answer as Answered, Call,
    limits::{CALL_BODY_BYTES_MAX, CALL_PATH_BYTES_MAX},
};
use serde_json::Value;
use tokio::{sync::oneshot, time::timeout};

use super::{Peer, core::Command, home::Home};
use crate::replica::ConnectionId;

/// Milliseconds that [`Peer::call`] waits for the answer.
pub const CALL_MS: u64 = 30_000;

/// What is asked of a relay: see [`Peer::call`].
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// As in HTTP.
    method: &'static str,
    path: String,
    if_match: Option<String>,
    if_none_match: Option<String>,
    body: Option<Value>,
}

impl Request {
    /// To read what is at a path below `/v1/`, which may have a query.
    pub fn get(path: impl Into<String>) -> Self {
        let path = path.into();
        Self { method: "GET", path, if_match: None, if_none_match: None, body: None }
    }

    /// To have something done.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: "POST", body: Some(body), ..Self::get(path) }
    }

    /// Only if what is meant has this tag still (`"ID"` with the quotes, as [`Answer::etag`]).
    #[must_use]
    pub fn if_match(mut self, tag: impl Into<String>) -> Self {
        self.if_match = Some(tag.into());
        self
    }

    /// Only if what is there has another tag; else the answer is 304.
    #[must_use]
    pub fn if_none_match(mut self, tag: impl Into<String>) -> Self {
        self.if_none_match = Some(tag.into());
        self
    }
}

/// What a relay answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// As in HTTP: 200 where it went well.
    pub status: u16,
    /// The tag of what is in the body.
    pub etag: Option<String>,
    /// JSON, also where something went wrong (RFC 9457); of a schema its text.
    pub body: String,
}

impl Answer {
    /// Whether it went well.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body, if it is JSON.
    ///
    /// # Errors
    /// That it is none.
    pub fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_str(&self.body)
    }
}

/// There is no answer of a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody can be asked.
    #[error("no relay that takes requests is connected: connect to one, or ask over HTTP")]
    Offline,
    /// The connection ended before the answer. What was asked for may have been done.
    #[error("the connection ended before the relay answered: look whether it was done")]
    Lost,
    /// No answer in time. What was asked for may have been done.
    #[error("the relay did not answer in time: look whether it was done")]
    TimedOut,
    /// The path or the body is larger than relays take.
    #[error(
        "the request is too large: at most {CALL_PATH_BYTES_MAX} bytes of path and {CALL_BODY_BYTES_MAX} of body"
    )]
    TooLarge,
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

impl Peer {
    /// Asks the relay that has been connected longest, over that connection: conflicts
    /// (`/v1/conflicts` and what is below), and its schema (`/v1/schema`). The answers are those
    /// that the same request has over HTTP. Waits up to [`CALL_MS`].
    ///
    /// A relay takes so many requests of a peer at once as
    /// [`CALLS_MAX`](concord_protocol::limits::CALLS_MAX) says, and answers more with 429. Events
    /// are not listened to in this way: see [`Document::watch_conflicts`](super::Document::watch_conflicts).
    ///
    /// # Errors
    /// [`CallError`]; an answer that says that something went wrong is none.
    pub async fn call(&self, request: Request) -> Result<Answer, CallError> {
        self.call_within(request, Duration::from_millis(CALL_MS)).await
    }

    /// As [`Peer::call`], with a deadline.
    ///
    /// # Errors
    /// As [`Peer::call`].
    pub async fn call_within(
        &self,
        request: Request,
        within: Duration,
    ) -> Result<Answer, CallError> {
        let Request { method, path, if_match, if_none_match, body } = request;
        let body = body.map(|body| body.to_string());
        let body_bytes = body.as_ref().map_or(0, String::len);
        if path.len() > CALL_PATH_BYTES_MAX || body_bytes > CALL_BODY_BYTES_MAX {
            return Err(CallError::TooLarge);
        }
        let id = self.0.next_call.fetch_add(1, Ordering::Relaxed);
        let method = method.to_owned();
        let call = Call { id, method, path, if_match, if_none_match, body };
        let (done, answered) = oneshot::channel();
        let asked = self.0.engine.send(Command::Call(call, done));
        asked.map_err(|_| CallError::Closed)?;
        // Whoever stops waiting does not leave the relay at work.
        let mut waiting = Waiting { id, home: self.0.registry.home(), is_over: false };
        let answer = timeout(within, answered).await;
        waiting.is_over = answer.is_ok();
        let answer = answer.map_err(|_| CallError::TimedOut)?.map_err(|_| CallError::Closed)??;
        let Answered { status, etag, body, .. } = answer;
        Ok(Answer { status, etag, body })
    }
}

struct Waiting<'p> {
    id: u32,
    home: &'p Home,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.home.tell(Command::HangUp(self.id));
        }
    }
}

/// Told of the answer.
pub(super) type CallDone = oneshot::Sender<Result<Answered, CallError>>;

/// The calls of a peer that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<u32, (ConnectionId, CallDone)>);

impl Calls {
    /// This call was made over this connection.
    pub(super) fn made(&mut self, id: u32, over: ConnectionId, done: CallDone) {
        self.0.insert(id, (over, done));
    }

    /// It was answered, if it was made there.
    pub(super) fn answered(&mut self, over: ConnectionId, answer: Answered) {
        if self.0.get(&answer.id).is_some_and(|(asked, _)| *asked == over)
            && let Some((_, done)) = self.0.remove(&answer.id)
        {
            // Who asked may have stopped waiting.
            let _ = done.send(Ok(answer));
        }
    }

    /// Nobody waits for it any more. Gives who was asked.
    pub(super) fn given_up(&mut self, id: u32) -> Option<ConnectionId> {
        self.0.remove(&id).map(|(asked, _)| asked)
    }

    /// Nothing more comes from there.
    pub(super) fn lost(&mut self, over: ConnectionId) {
        for (_, (_, done)) in self.0.extract_if(.., |_, (asked, _)| *asked == over) {
            let _ = done.send(Err(CallError::Lost));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u32) -> Answered {
        Answered { id, status: 200, ..Answered::default() }
    }

    #[test]
    fn an_answer_counts_only_from_whom_was_asked_and_once() {
        let (mut calls, (here, there)) = (Calls::default(), (ConnectionId(1), ConnectionId(2)));
        let (done, mut answered) = oneshot::channel();
        calls.made(7, here, done);
        calls.answered(there, answer(7));
        calls.answered(here, answer(8));
        assert!(answered.try_recv().is_err());
        calls.answered(here, answer(7));
        assert_eq!(answered.try_recv(), Ok(Ok(answer(7))));
        calls.answered(here, answer(7));
        assert_eq!(calls.given_up(7), None);
    }

    #[test]
    fn a_connection_that_ends_takes_only_its_own_calls_along() {
        let mut calls = Calls::default();
        let asked: Vec<_> = (0..4)
            .map(|id| {
                let (done, answered) = oneshot::channel();
                calls.made(id, ConnectionId(u64::from(id % 2)), done);
                answered
            })
            .collect();
        calls.lost(ConnectionId(0));
        assert_eq!(calls.given_up(3), Some(ConnectionId(1)));
        let fates: Vec<_> = asked.into_iter().map(|mut asked| asked.try_recv().ok()).collect();
        let lost = Some(Err(CallError::Lost));
        assert_eq!(fates, [lost.clone(), None, lost, None]);
    }
}
