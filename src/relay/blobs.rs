//! Attachments at a relay: what connections and HTTP bring and take, and what nothing refers to.

mod http;
mod references;

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;

pub(super) use self::{http::routes, references::References};
use super::{
    hub::{Health, Hub},
    review::Reviewer,
};
use crate::blobs::{Shelf, ShelfError, now_ms};

/// How often it is looked what may be removed, at least and at most.
const SWEEP_MIN: Duration = Duration::from_millis(200);
const SWEEP_MAX: Duration = Duration::from_hours(1);

/// What is answered where something was not kept, or is not there: as in HTTP.
pub(super) fn status(error: &ShelfError) -> StatusCode {
    match error {
        ShelfError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ShelfError::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
        ShelfError::NotHere(_) => StatusCode::NOT_FOUND,
        ShelfError::Wrong { .. } | ShelfError::Outline(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ShelfError::OutOfOrder { .. } | ShelfError::OtherLength { .. } => StatusCode::CONFLICT,
        ShelfError::Source(_) => StatusCode::BAD_REQUEST,
        ShelfError::Store(_) | ShelfError::Record(_) | ShelfError::NoRandomness(_) => {
            tracing::warn!(%error, "an attachment cannot be kept or read");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// Removes what nothing refers to, for as long as the relay runs. Which documents refer to what is
/// known only where all of them are looked at: under a schema.
pub(super) async fn run(hub: Arc<Hub>, shelf: Arc<Shelf>, reviewer: Option<Arc<Reviewer>>) {
    let grace = Duration::from_millis(hub.config.blob_grace_ms);
    let pause = (grace / 4).clamp(SWEEP_MIN, SWEEP_MAX);
    let mut health = hub.watch_health();
    let sweeping = async {
        loop {
            tokio::time::sleep(pause).await;
            let seen_ms = now_ms();
            let wanted = reviewer.as_ref().and_then(|reviewer| reviewer.attachments());
            match shelf.sweep(wanted.as_ref(), seen_ms, grace, false).await {
                Ok(swept) if swept.removed.is_empty() => {}
                Ok(swept) => {
                    let count = swept.removed.len();
                    tracing::info!(count, "attachments that nothing refers to were removed");
                }
                Err(error) => tracing::warn!(%error, "attachments cannot be looked through"),
            }
        }
    };
    tokio::select! {
        () = sweeping => {}
        _ = health.wait_for(|health| *health != Health::Ready) => {}
    }
}
