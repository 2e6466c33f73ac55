//! `/v1/blobs/HASH`: attachments for whoever has `fetch` and no socket of ours.
//!
//! `GET` and `HEAD` give one, or a part of it (`Range`). `PUT` brings one: whole, or from a byte on
//! (`Content-Range: bytes 65536-131071/200000`). What is kept of one that is not whole yet is told as
//! `Upload-Offset`, which is where the next `PUT` begins; pieces of 64 KiB are kept, and no parts of
//! them. Who only wants to know that sends `Content-Range: bytes */200000` and no bytes.
//!
//! HTTP brings no outline, so what is brought in this way is checked when all of it is there, and what
//! was kept is thrown away if it is wrong.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::{Buf as _, BytesMut};
use concord_protocol::{BlobHash, limits::BLOB_CHUNK_BYTES};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;

use crate::{
    blobs::{Coming, Shelf, ShelfError, piece_bytes},
    relay::{api::Problem, hub::Hub},
};

/// How long somebody who brings bytes may bring none.
const SILENCE: Duration = Duration::from_secs(30);
/// Pieces on their way to the disk at once.
const WRITES_MAX: usize = 4;
/// Where to go on.
const UPLOAD_OFFSET: &str = "upload-offset";
const PIECE: u64 = BLOB_CHUNK_BYTES as u64;

pub(in crate::relay) fn routes(hub: &Arc<Hub>) -> Router {
    // What a browser asks before a page of another address brings something.
    let allowed = async || StatusCode::NO_CONTENT;
    Router::new()
        .route("/v1/blobs/{hash}", get(give).put(bring).options(allowed))
        .layer(middleware::from_fn_with_state(hub.clone(), to_other_pages))
        .with_state(hub.blobs.clone())
}

impl From<ShelfError> for Problem {
    fn from(error: ShelfError) -> Self {
        Self::new(super::status(&error), "not kept, or not there", error.to_string())
    }
}

async fn give(
    State(shelf): State<Arc<Shelf>>,
    Path(hash): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let hash = named(&hash)?;
    let hold = shelf.hold(hash);
    let Some(entry) = shelf.find(&hash).await?.filter(|entry| entry.is_whole) else {
        return Err(ShelfError::NotHere(hash).into());
    };
    let length = entry.length;
    let tag = format!("\"{hash}\"");
    let held = headers.get(header::IF_NONE_MATCH).and_then(|held| held.to_str().ok());
    if held.is_some_and(|held| held == "*" || held.split(',').any(|one| one.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let range = match headers.get(header::RANGE).map(|range| part(range, length)) {
        None | Some(Part::Whole) => None,
        Some(Part::Of(begin, end)) => Some((begin, end)),
        Some(Part::Nowhere) => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, all).into_response());
        }
    };
    let (begin, end) = range.unwrap_or((0, length));
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let pieces = stream::iter(begin / PIECE..end.div_ceil(PIECE)).then(move |at| {
            let shelf = shelf.clone();
            // As long as there is more to give.
            let _ = &hold;
            async move {
                let at = u32::try_from(at).unwrap_or(u32::MAX);
                let mut piece = shelf.piece(&hash, at).await?;
                let first = u64::from(at) * PIECE;
                piece.truncate(usize::try_from(end - first).unwrap_or(usize::MAX));
                piece.advance(usize::try_from(begin.saturating_sub(first)).unwrap_or(0));
                Ok::<_, ShelfError>(piece)
            }
        });
        Body::from_stream(pieces)
    };
    // It is what somebody brought: a browser is to save it, and not to run it as a page of ours.
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut say = |name, value: String| {
        // Digits and hexadecimal digits are always a header value.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    say(header::ETAG, tag);
    say(header::CONTENT_LENGTH, (end - begin).to_string());
    if range.is_some() {
        say(header::CONTENT_RANGE, format!("bytes {begin}-{}/{length}", end.saturating_sub(1)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

async fn bring(
    State(shelf): State<Arc<Shelf>>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let hash = named(&hash)?;
    let Wanted { begin, length } = Wanted::of(&headers)?;
    let Some(coming) = shelf.begin(hash, length, None).await? else {
        return Ok((StatusCode::OK, "it is here\n").into_response());
    };
    let begin = begin.unwrap_or(u64::from(coming.have()) * PIECE);
    if !begin.is_multiple_of(PIECE) || begin > u64::from(coming.have()) * PIECE {
        return Ok(offset(StatusCode::CONFLICT, &coming));
    }
    let brought = take(&shelf, &coming, begin, body).await;
    // A silent end of the body is one of the connection as a rule: what came is kept.
    match brought {
        Ok(()) if coming.have() == coming.pieces => {}
        Ok(()) => return Ok(offset(StatusCode::ACCEPTED, &coming)),
        Err(ShelfError::OutOfOrder { .. }) => return Ok(offset(StatusCode::CONFLICT, &coming)),
        Err(error) => return Err(error.into()),
    }
    let is_whole = shelf.find(&hash).await?.is_some_and(|entry| entry.is_whole);
    if !is_whole {
        // All was there already when this began, and the last step was not done.
        shelf.finish(&coming).await?;
    }
    Ok((StatusCode::CREATED, "it is on disk\n").into_response())
}

/// Takes in what a body has of whole pieces.
async fn take(
    shelf: &Arc<Shelf>,
    coming: &Arc<Coming>,
    begin: u64,
    body: Body,
) -> Result<(), ShelfError> {
    let mut at = u32::try_from(begin / PIECE).unwrap_or(u32::MAX);
    let mut frames = body.into_data_stream().map_err(|error| ShelfError::Source(error.to_string()));
    let mut rest = BytesMut::new();
    let mut writes = stream::FuturesOrdered::new();
    loop {
        while let Some(bytes) = piece_bytes(coming.length, at).filter(|bytes| *bytes <= rest.len())
        {
            let piece = rest.split_to(bytes).freeze();
            writes.push_back(shelf.add(coming, at, piece));
            at += 1;
            if writes.len() >= WRITES_MAX {
                writes.next().await.transpose()?;
            }
        }
        if at >= coming.pieces {
            break;
        }
        match timeout(SILENCE, frames.next()).await {
            Ok(Some(Ok(frame))) => rest.extend_from_slice(&frame),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "an attachment was brought in part");
                break;
            }
            Ok(None) | Err(_) => break,
        }
    }
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

fn offset(status: StatusCode, coming: &Coming) -> Response {
    let offset = (u64::from(coming.have()) * PIECE).min(coming.length);
    let words = format!("{offset} bytes of {} are here: go on from there\n", coming.length);
    (status, [(UPLOAD_OFFSET, offset.to_string())], words).into_response()
}

/// What a `PUT` brings.
struct Wanted {
    /// From which byte; `None`: nothing, the rest is only to be told.
    begin: Option<u64>,
    length: u64,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if let Some(range) = text(header::CONTENT_RANGE) {
            let advice = "Content-Range is to be bytes FIRST-LAST/LENGTH, or bytes */LENGTH";
            let read = || {
                let (range, length) = range.strip_prefix("bytes ")?.split_once('/')?;
                let length = number(length)?;
                if range == "*" {
                    return Some(Self { begin: None, length });
                }
                let (first, last) = range.split_once('-')?;
                let (first, last) = (number(first)?, number(last)?);
                let is_fine = first <= last && last < length;
                is_fine.then_some(Self { begin: Some(first), length })
            };
            return read().ok_or_else(|| Problem::bad(advice));
        }
        let length = text(header::CONTENT_LENGTH).and_then(number).ok_or_else(|| {
            let advice = "say how long it is: Content-Length of all, or Content-Range";
            Problem::new(StatusCode::LENGTH_REQUIRED, "no length", advice)
        })?;
        Ok(Self { begin: Some(0), length })
    }
}

/// What part of so many bytes is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// All: it is not said in a way that is understood, which is then passed over.
    Whole,
    Of(u64, u64),
    Nowhere,
}

fn part(range: &HeaderValue, length: u64) -> Part {
    let Some(range) = range.to_str().ok().and_then(|range| range.strip_prefix("bytes=")) else {
        return Part::Whole;
    };
    let Some((first, last)) = range.split_once('-') else { return Part::Whole };
    let found = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(length)),
        (Ok(first), Err(_)) if last.is_empty() => (first, length),
        (Err(_), Ok(last)) if first.is_empty() => (length.saturating_sub(last), length),
        // Several at once, too.
        _ => return Part::Whole,
    };
    if found.0 < found.1 { Part::Of(found.0, found.1) } else { Part::Nowhere }
}

fn named(hash: &str) -> Result<BlobHash, Problem> {
    hash.parse().map_err(|error| Problem::bad(format!("{hash:?} is {error}")))
}

/// Lets pages that may connect read what is answered.
async fn to_other_pages(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let origin = origin.filter(|_| hub.admits(request.headers()).is_ok());
    let mut response = next.run(request).await;
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, PUT"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-range, content-type, range"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "content-range, etag, upload-offset"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_http_has_them() {
        let part = |text: &'static str| part(&HeaderValue::from_static(text), 100);
        assert_eq!(part("bytes=0-9"), Part::Of(0, 10));
        assert_eq!(part("bytes=90-"), Part::Of(90, 100));
        assert_eq!(part("bytes=90-1000"), Part::Of(90, 100));
        assert_eq!(part("bytes=-10"), Part::Of(90, 100));
        assert_eq!(part("bytes=-1000"), Part::Of(0, 100));
        assert_eq!(part("bytes=100-"), Part::Nowhere);
        assert_eq!(part("bytes=-0"), Part::Nowhere);
        for passed_over in ["bytes=5-1", "bytes=0-1,5-9", "lines=1-2", "bytes=x-"] {
            assert_eq!(part(passed_over), Part::Whole, "{passed_over}");
        }
    }
}
