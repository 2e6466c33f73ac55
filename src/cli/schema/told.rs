//! The schema that a relay told of, or tells of when it is asked.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use concord::{
    entity::Schema,
    peer::{Peer, Request, Status},
    store,
};
use concord_protocol::SchemaHash;
use tokio::time::timeout;

use super::super::{Failure, open};

/// How long a relay may take to be there, and to answer.
const ONLINE: Duration = Duration::from_secs(10);

/// A schema, what it is, and the hash of its text where it is no file.
pub(super) type Shown = (Arc<Schema>, String, Option<SchemaHash>);

/// The one that is kept here.
pub(super) async fn kept(dir: Option<PathBuf>) -> Result<Shown, Failure> {
    let peer = Peer::open(open::directory(dir)?)?;
    let status = peer.schema().await;
    peer.close().await?;
    let kept = status.kept.ok_or_else(|| {
        Failure::not_found(
            "no relay has told of a schema yet: connect to one that has (concord sync --url), ask \
             it (--from-relay URL), or name a file",
        )
    })?;
    Ok((kept.schema, "the schema that a relay told of".to_owned(), Some(kept.hash)))
}

/// The one that a relay has in force.
pub(super) async fn of_relay(url: &str, ca: Option<&Path>) -> Result<Shown, Failure> {
    let store = store::memory().map_err(|error| Failure::failed(error.to_string()))?;
    let mut builder = Peer::builder("memory").store(store).relay(url);
    if let Some(file) = ca {
        builder = builder.trust(open::certificate(file)?);
    }
    let peer = builder.open()?;
    let mut status = peer.status();
    let known = status.wait_for(|status| *status != Status::Connecting);
    let known = timeout(ONLINE, known).await.ok().and_then(Result::ok);
    match known.as_deref() {
        Some(Status::Online { .. }) => {}
        Some(Status::Offline { reason, .. }) => {
            return Err(Failure::unconfirmed(format!("{url} cannot be asked: {reason}")));
        }
        _ => return Err(Failure::unconfirmed(format!("{url} does not answer"))),
    }
    drop(known);
    let asked = peer.call_within(Request::get("/v1/schema"), ONLINE).await;
    peer.close().await?;
    let answer = asked.map_err(|error| Failure::unconfirmed(format!("{url}: {error}")))?;
    match answer.status {
        200 => {}
        404 => return Err(Failure::not_found(format!("{url} has no schema"))),
        status => return Err(Failure::failed(format!("{url} answered {status}"))),
    }
    let schema = Schema::parse(&answer.body).map_err(|errors| {
        Failure::failed(format!("the schema of {url} cannot be used here: {errors}"))
    })?;
    Ok((Arc::new(schema), format!("the schema of {url}"), Some(SchemaHash::of(&answer.body))))
}
