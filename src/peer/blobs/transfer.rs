//! One attachment to a relay, or from one: a few pieces under way at a time, so that documents on the
//! same line wait behind little.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use concord_protocol::{BlobHash, BlobMessage, limits::BLOB_CHUNK_BYTES};
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tokio::time::sleep;

use super::line::{Lines, NoAnswer};
use crate::{
    blobs::{Outline, Shelf, ShelfError, pieces},
    replica::ConnectionId,
};

/// Pieces under way at once: 256 KiB fill a line of 100 Mbit/s with 20 ms to the relay and back.
const WINDOW: usize = 4;
/// How often a relay may say that it wants another piece first before it is given up for now.
const REWINDS_MAX: usize = 8;
/// How long before somebody who could not is asked again.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// It did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// The relay does not have it.
    #[error("the relay does not have it")]
    NotThere,
    /// The relay gave other bytes than those.
    #[error("the relay gave other bytes")]
    Wrong,
    /// The relay does not take it, or cannot give it.
    #[error("the relay says {status}: {reason}")]
    Refused { status: u16, reason: String },
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

impl TransferError {
    fn refused(status: u16, reason: Option<String>) -> Self {
        Self::Refused { status, reason: reason.unwrap_or_else(|| "without a reason".to_owned()) }
    }

    /// Whether it will be no different if it is tried again there.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { status: 400 | 413 | 422, .. })
    }
}

/// What a relay says of an attachment that is brought to it.
enum Said {
    /// It has all of it on disk.
    Whole,
    /// It has so many pieces.
    Has(u32),
    /// It wants that piece first, or cannot take more at the moment.
    Wants,
}

fn said(answer: BlobMessage) -> Result<Said, TransferError> {
    match answer {
        BlobMessage::State { status: 200, .. } => Ok(Said::Whole),
        BlobMessage::State { status: 202, have, .. } => Ok(Said::Has(have)),
        BlobMessage::State { status: 409 | 429, .. } => Ok(Said::Wants),
        BlobMessage::State { status, reason, .. } => Err(TransferError::refused(status, reason)),
        _ => Err(TransferError::Wrong),
    }
}

/// Brings an attachment that is here to a relay: returns when the relay has it on disk. `progress` is
/// told of bytes that it has.
pub(super) async fn send(
    lines: &Lines,
    shelf: &Arc<Shelf>,
    over: ConnectionId,
    hash: BlobHash,
    progress: impl Fn(u64) + Send,
) -> Result<(), TransferError> {
    let _hold = shelf.hold(hash);
    let outline = shelf.outline(&hash).await?;
    let (length, list) = (outline.length(), outline.to_bytes());
    let count = pieces(length).unwrap_or(0);
    for rewinds in 0..REWINDS_MAX {
        let offer = |id| BlobMessage::Offer { id, hash, length, outline: list.clone() };
        let begin = match said(lines.ask(over, offer).await?)? {
            Said::Whole => return Ok(()),
            Said::Has(have) => have,
            Said::Wants => {
                sleep(AGAIN * u32::try_from(rewinds + 1).unwrap_or(1)).await;
                continue;
            }
        };
        let (mut next, mut under_way) = (begin, FuturesOrdered::new());
        let mut is_behind = false;
        loop {
            while under_way.len() < WINDOW && next < count && !is_behind {
                let (at, data) = (next, shelf.piece(&hash, next).await?);
                let chunk = |id| BlobMessage::Chunk { id, hash, at, data };
                under_way.push_back(lines.ask(over, chunk));
                next += 1;
            }
            match under_way.next().await {
                Some(answer) => match said(answer?)? {
                    Said::Whole => return Ok(()),
                    Said::Has(have) => progress(u64::from(have) * BLOB_CHUNK_BYTES as u64),
                    // Those behind it are answered alike: then it is asked what is there.
                    Said::Wants => is_behind = true,
                },
                None => break,
            }
        }
        sleep(AGAIN).await;
    }
    Err(TransferError::refused(409, Some("it always wants another piece first".to_owned())))
}

/// Fetches an attachment from a relay: returns when all of it is on disk here. `progress` is told of
/// bytes here, of how many.
pub(super) async fn fetch(
    lines: &Lines,
    shelf: &Arc<Shelf>,
    over: ConnectionId,
    hash: BlobHash,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<(), TransferError> {
    let asked = lines.ask(over, |id| BlobMessage::Ask { id, hash, at: None });
    let outline = match asked.await? {
        BlobMessage::State { status: 200, length: Some(length), outline: Some(list), .. } => {
            Outline::read(hash, length, &list).map_err(|_| TransferError::Wrong)?
        }
        BlobMessage::State { status: 404, .. } => return Err(TransferError::NotThere),
        BlobMessage::State { status, reason, .. } if status != 200 => {
            return Err(TransferError::refused(status, reason));
        }
        _ => return Err(TransferError::Wrong),
    };
    let length = outline.length();
    let Some(coming) = shelf.begin(hash, length, Some(outline)).await? else {
        return Ok(());
    };
    let here = |have: u32| (u64::from(have) * BLOB_CHUNK_BYTES as u64).min(length);
    let mut next = coming.have();
    if next == coming.pieces {
        shelf.finish(&coming).await?;
        return Ok(());
    }
    progress(here(next), length);
    let (mut asked, mut writes) = (FuturesOrdered::new(), FuturesOrdered::new());
    loop {
        while asked.len() + writes.len() < WINDOW && next < coming.pieces {
            let at = next;
            let answer = lines.ask(over, |id| BlobMessage::Ask { id, hash, at: Some(at) });
            asked.push_back(async move { (at, answer.await) });
            next += 1;
        }
        tokio::select! {
            Some((at, answer)) = asked.next(), if !asked.is_empty() => {
                writes.push_back(shelf.add(&coming, at, piece(at, answer?)?));
            }
            Some(written) = writes.next(), if !writes.is_empty() => {
                match written {
                    Ok(have) => progress(here(have), length),
                    Err(ShelfError::Wrong { .. }) => return Err(TransferError::Wrong),
                    Err(error) => return Err(error.into()),
                }
            }
            else => break,
        }
    }
    Ok(())
}

fn piece(wanted: u32, answer: BlobMessage) -> Result<Bytes, TransferError> {
    match answer {
        BlobMessage::Chunk { at, data, .. } if at == wanted => Ok(data),
        BlobMessage::State { status: 404, .. } => Err(TransferError::NotThere),
        BlobMessage::State { status, reason, .. } if status != 200 => {
            Err(TransferError::refused(status, reason))
        }
        _ => Err(TransferError::Wrong),
    }
}
