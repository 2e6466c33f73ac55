//! Requests over the socket that is open already: answered by the very router that answers HTTP,
//! each by a task of its own, so that documents do not wait for them.
//!
//! What one connection may ask for is bounded, also if it takes no answer: so many calls at once,
//! one under way until its answer has left; so many bytes of answers that wait; and of events so
//! many as are told of somebody who takes them too slowly over HTTP: then they are missed, and it is
//! told so.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{
        HeaderValue, StatusCode, Uri,
        header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH},
    },
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use concord_protocol::{Answer, Call, Limits, Message, codec};
use futures_util::StreamExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
};

use super::Connection;
use crate::relay::{
    api::{Problem, nothing_there},
    outgoing::{Outbox, Outgoing},
};

/// Events of a call that wait to be sent. Who is behind by more is behind the relay's own list, as
/// over HTTP.
const EVENTS_MAX: usize = 64;
/// What a piece of [`Calls::room`] is worth, in bytes.
const ROOM_BYTES: usize = 1_024;
/// What the answer to a stream of events is of.
const EVENTS: &str = "text/event-stream";
/// Bytes of a message beside the body of an answer.
const AROUND_BYTES: usize = 1_024;

/// The calls of one connection.
pub(super) struct Calls {
    api: Router,
    /// Nothing before the first call: most connections make none.
    open: Option<Box<Open>>,
}

struct Open {
    /// One for each call that may be under way.
    slots: Arc<Semaphore>,
    /// One for each [`ROOM_BYTES`] of answers that may wait to be sent.
    room: Arc<Semaphore>,
    tasks: HashMap<u32, AbortHandle>,
}

impl Calls {
    pub(super) fn new(api: Router) -> Self {
        Self { api, open: None }
    }

    fn open(&mut self, limits: &Limits) -> &mut Open {
        self.open.get_or_insert_with(|| {
            Box::new(Open {
                slots: Arc::new(Semaphore::new(limits.calls)),
                room: Arc::new(Semaphore::new(limits.queue_bytes.div_ceil(ROOM_BYTES))),
                tasks: HashMap::new(),
            })
        })
    }

    /// Nobody waits for this any more.
    pub(super) fn hang_up(&mut self, id: u32) {
        if let Some(task) = self.open.as_mut().and_then(|open| open.tasks.remove(&id)) {
            task.abort();
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        for task in self.open.iter().flat_map(|open| open.tasks.values()) {
            task.abort();
        }
    }
}

impl Connection {
    /// Has a call answered. One of the same id that is under way is given up.
    pub(super) fn call(&mut self, call: Call) {
        self.hub.metrics.calls.inc();
        let id = call.id;
        self.calls.hang_up(id);
        let limits = &self.hub.config.limits;
        let open = self.calls.open(limits);
        open.tasks.retain(|_, task| !task.is_finished());
        let Ok(slot) = Arc::clone(&open.slots).try_acquire_owned() else {
            let most = limits.calls;
            let advice = format!("{most} calls are under way on this connection: wait for one");
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many calls", advice);
            // It is counted among the connection's own, of which there are only so many before no
            // more is read.
            let refused = refusal(id, &problem);
            self.answer(refused);
            return;
        };
        let answerer = Answerer {
            id,
            outbox: self.outbox.clone(),
            room: Arc::clone(&open.room),
            body_bytes: limits.queue_bytes.min(limits.message_bytes).saturating_sub(AROUND_BYTES),
        };
        let api = self.calls.api.clone();
        let task = tokio::spawn(answerer.answer(api, call, slot)).abort_handle();
        if let Some(open) = &mut self.calls.open {
            open.tasks.insert(id, task);
        }
    }
}

/// What answers one call.
struct Answerer {
    id: u32,
    outbox: Outbox,
    room: Arc<Semaphore>,
    /// Bytes that the body of an answer may have.
    body_bytes: usize,
}

/// What is taken up by an answer or an event until it has left for the network.
#[derive(Debug)]
struct Held {
    _slot: Arc<OwnedSemaphorePermit>,
    _more: Vec<OwnedSemaphorePermit>,
}

impl Answerer {
    async fn answer(self, api: Router, call: Call, slot: OwnedSemaphorePermit) {
        let slot = Arc::new(slot);
        let response = match request(call) {
            Ok(request) => {
                let api = TowerToHyperService::new(api);
                let Ok(response) = api.call(request).await;
                response
            }
            Err(problem) => problem.into_response(),
        };
        let status = response.status();
        let etag = text_of(response.headers().get(ETAG));
        let kind = text_of(response.headers().get(CONTENT_TYPE)).unwrap_or_default();
        if kind.starts_with(EVENTS) {
            self.say(&slot, status, etag, String::new(), Vec::new());
            self.tell(&slot, response.into_body()).await;
            // Whoever was told of some is told that there are no more.
            self.send(&slot, &Message::HangUp { id: self.id }, Vec::new());
            return;
        }
        let answered = body_of(response, self.body_bytes).await.and_then(|body| {
            let room = Arc::clone(&self.room).try_acquire_many_owned(pieces(body.len()));
            let room = room.map_err(|_| {
                let advice = "earlier answers on this connection wait to be taken";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no room", advice)
            })?;
            Ok((body, room))
        });
        match answered {
            Ok((body, room)) => self.say(&slot, status, etag, body, vec![room]),
            Err(problem) => {
                self.say(&slot, problem.status(), None, problem.body(), Vec::new());
            }
        }
    }

    fn say(
        &self,
        slot: &Arc<OwnedSemaphorePermit>,
        status: StatusCode,
        etag: Option<String>,
        body: String,
        more: Vec<OwnedSemaphorePermit>,
    ) {
        let answer = Answer { id: self.id, status: status.as_u16(), etag, body };
        self.send(slot, &Message::Answer(answer), more);
    }

    fn send(
        &self,
        slot: &Arc<OwnedSemaphorePermit>,
        message: &Message,
        more: Vec<OwnedSemaphorePermit>,
    ) {
        let held = Held { _slot: Arc::clone(slot), _more: more };
        // A connection that has ended wants no answer.
        let _ = self.outbox.send(Outgoing::Answer(codec::encode(message), Box::new(held)));
    }

    /// Tells of events until there are no more. While those that were told of wait, none is taken
    /// out of the stream, which then says how many were missed.
    async fn tell(&self, slot: &Arc<OwnedSemaphorePermit>, body: Body) {
        let waiting = Arc::new(Semaphore::new(EVENTS_MAX));
        let mut stream = body.into_data_stream();
        while let Ok(turn) = Arc::clone(&waiting).acquire_owned().await {
            let (event, data) = loop {
                let Some(Ok(piece)) = stream.next().await else { return };
                if let Some(event) = event(&piece) {
                    break event;
                }
            };
            let wanted = pieces(data.len().min(self.body_bytes));
            let Ok(room) = Arc::clone(&self.room).acquire_many_owned(wanted).await else {
                return;
            };
            self.send(slot, &Message::Event { id: self.id, event, data }, vec![turn, room]);
        }
    }
}

fn refusal(id: u32, problem: &Problem) -> Bytes {
    let (status, body) = (problem.status().as_u16(), problem.body());
    codec::encode(&Message::Answer(Answer { id, status, etag: None, body }))
}

/// The call as HTTP has it.
fn request(call: Call) -> Result<Request, Problem> {
    let uri: Uri = call.path.parse().map_err(|_| Problem::bad("the path is none"))?;
    if uri.authority().is_some() || !uri.path().starts_with("/v1/") {
        return Err(nothing_there());
    }
    let mut request = Request::builder().method(call.method.as_str()).uri(uri);
    for (name, tag) in [(IF_MATCH, call.if_match), (IF_NONE_MATCH, call.if_none_match)] {
        if let Some(tag) = tag {
            request = request.header(name, tag);
        }
    }
    if call.body.is_some() {
        request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let body = call.body.map_or_else(Body::empty, Body::from);
    request.body(body).map_err(|error| Problem::bad(error.to_string()))
}

async fn body_of(response: Response, max: usize) -> Result<String, Problem> {
    let bytes = to_bytes(response.into_body(), max).await.map_err(|_| {
        Problem::bad(format!("the answer has more than {max} bytes: ask for less at once"))
    })?;
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "it is no text");
    String::from_utf8(bytes.into()).map_err(failed)
}

fn text_of(value: Option<&HeaderValue>) -> Option<String> {
    Some(value?.to_str().ok()?.to_owned())
}

/// The name and the data of a server-sent event, of which a piece of the body is one; `None` for
/// what only keeps the connection alive.
fn event(piece: &[u8]) -> Option<(String, String)> {
    let (mut name, mut data) = (String::new(), None::<String>);
    for line in std::str::from_utf8(piece).ok()?.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut data) {
            ("event", _) => value.clone_into(&mut name),
            ("data", None) => data = Some(value.to_owned()),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            _ => {}
        }
    }
    Some((name, data?))
}

/// How much of the room so many bytes take.
fn pieces(bytes: usize) -> u32 {
    u32::try_from((bytes + AROUND_BYTES).div_ceil(ROOM_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_signs_of_life_are_none() {
        let told = |name: &str, data: &str| Some((name.to_owned(), data.to_owned()));
        let opened = event(b"event: opened\ndata: {\"a\":1}\n\n");
        assert_eq!(opened, told("opened", "{\"a\":1}"));
        assert_eq!(event(b"data:a\ndata: b\n\n"), told("", "a\nb"));
        assert_eq!(event(b":\n\n"), None);
        assert_eq!(event(b"event: missed\ndata: 7\n"), told("missed", "7"));
    }

    /// While events that were told of wait to be sent, no more are taken: it is the stream then that
    /// misses some, and says so.
    #[tokio::test]
    async fn of_events_only_so_many_wait() {
        let told = (0..1_000).map(|n| {
            let data = "x".repeat(700);
            Ok::<_, std::convert::Infallible>(format!("event: {n}\ndata: {data}\n\n"))
        });
        let (outbox, mut inbox) = tokio::sync::mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(1_000));
        let slots = Arc::new(Semaphore::new(1));
        let slot = Arc::new(Arc::clone(&slots).try_acquire_owned().unwrap());
        let answerer = Answerer { id: 1, outbox, room: Arc::clone(&room), body_bytes: 1_000 };
        let body = Body::from_stream(futures_util::stream::iter(told));
        let telling = tokio::spawn(async move { answerer.tell(&slot, body).await });
        let mut waiting = Vec::new();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
            waiting.extend(inbox.try_recv());
        }
        assert_eq!((waiting.len(), room.available_permits()), (EVENTS_MAX, 1_000 - 2 * EVENTS_MAX));
        waiting.truncate(EVENTS_MAX - 10);
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
            waiting.extend(inbox.try_recv());
        }
        assert_eq!(waiting.len(), EVENTS_MAX);
        telling.abort();
        assert!(telling.await.unwrap_err().is_cancelled());
        assert_eq!(slots.available_permits(), 0, "what waits is still under way");
        drop(waiting);
        assert_eq!((slots.available_permits(), room.available_permits()), (1, 1_000));
    }

    #[test]
    fn only_what_is_below_v1_is_called() {
        let call = |path: &str| {
            let call = Call { path: path.to_owned(), method: "GET".to_owned(), ..Call::default() };
            request(call).map(|request| request.uri().to_string()).map_err(|error| error.status())
        };
        assert_eq!(call("/v1/conflicts?limit=1"), Ok("/v1/conflicts?limit=1".to_owned()));
        for path in ["/metrics", "/", "*", "/v1", "http://elsewhere/v1/x", "//elsewhere/v1/x"] {
            assert_eq!(call(path), Err(StatusCode::NOT_FOUND), "{path}");
        }
        for path in ["", "/v1/ ", "\u{e9}"] {
            assert_eq!(call(path), Err(StatusCode::BAD_REQUEST), "{path}");
        }
    }
}
