//! Attachments of a peer: kept here at once, brought to relays in the background, fetched when they
//! are wanted.

mod courier;
mod line;
mod sweep;
mod transfer;

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use concord_protocol::BlobHash;
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::watch,
    time::{Instant, timeout_at},
};

pub use self::sweep::SweptAttachments;
use self::transfer::TransferError;
pub(super) use self::{
    courier::{Courier, Desk},
    line::Lines,
    sweep::Sweeper,
};
use super::{Document, FIND_MS, Peer, standing};
use crate::{
    blobs::{BlobReader, ShelfError},
    entity::Attachment,
};

/// Milliseconds for which a peer keeps an attachment that none of its documents names: a day. Relays
/// keep it longer, so what is wanted again is fetched again.
pub const ATTACHMENT_GRACE_MS: u64 = 24 * 60 * 60 * 1_000;

/// How much of attachments waits to be brought to a relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AttachmentCounts {
    /// Attachments that no relay has confirmed to have on disk.
    pub waiting: usize,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Of those, so many are on the relay's disk already: of the one that is being sent.
    pub sent_bytes: u64,
    /// Of those that wait, so many were refused by the relay that is connected.
    pub refused: usize,
    /// Why the last of them was, or why none is sent at the moment.
    pub reason: Option<String>,
    /// What was there at the start is counted too.
    pub is_complete: bool,
}

/// An attachment that is here, or is coming.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredAttachment {
    /// Its name.
    pub hash: BlobHash,
    /// Its bytes.
    pub length: u64,
    /// All of it is here.
    pub is_whole: bool,
    /// A relay has it.
    pub is_sent: bool,
}

/// What became of fetching ahead: see [`Peer::prefetch`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Prefetched {
    /// Attachments that are here now.
    pub here: usize,
    /// Those that are not, and why not.
    pub missing: Vec<(BlobHash, String)>,
}

/// Something went wrong with an attachment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachmentError {
    /// It is not here, and no relay can be asked. It may be fetched later.
    #[error("attachment {hash} is not here yet, and no relay can be asked ({reason})")]
    Offline {
        /// Which.
        hash: BlobHash,
        /// Why none can be asked.
        reason: String,
    },
    /// It is not here, and the relay does not have it either: whoever attached it has not brought it
    /// yet, or it was removed. Try again later.
    #[error(
        "attachment {0} is not here yet, nor at the relay: who attached it has to connect once"
    )]
    Unavailable(BlobHash),
    /// The relay gave something else. What was right of it is kept.
    #[error("the relay gave other bytes than those of attachment {0}: try again, or another relay")]
    Wrong(BlobHash),
    /// It could not be fetched in full. What came is kept, and is not fetched again.
    #[error("attachment {hash} was not fetched to its end: {reason}")]
    Interrupted {
        /// Which.
        hash: BlobHash,
        /// Why.
        reason: String,
    },
    /// It is larger than what is allowed here.
    #[error("an attachment of {length} bytes is larger than the {max} allowed")]
    TooLarge {
        /// What it has, as far as it was read.
        length: u64,
        /// What it may have.
        max: u64,
    },
    /// All together would be larger than what is allowed here.
    #[error("there is no room for {length} bytes: all attachments may have {max}. Remove some")]
    NoRoom {
        /// What was to be added.
        length: u64,
        /// What all may have.
        max: u64,
    },
    /// What was to be attached could not be read.
    #[error("cannot read what is to be attached: {0}")]
    Source(String),
    /// The disk, or what is on it.
    #[error("an attachment cannot be kept or read: {0}")]
    Store(String),
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

impl From<ShelfError> for AttachmentError {
    fn from(error: ShelfError) -> Self {
        match error {
            ShelfError::TooLarge { length, max } => Self::TooLarge { length, max },
            ShelfError::NoRoom { length, max } => Self::NoRoom { length, max },
            ShelfError::NotHere(hash) => Self::Unavailable(hash),
            ShelfError::Wrong { hash, .. } => Self::Wrong(hash),
            ShelfError::Source(reason) => Self::Source(reason),
            other => Self::Store(other.to_string()),
        }
    }
}

/// The bytes of an attachment, from its first. It is not removed while it is read.
#[derive(Debug)]
pub struct AttachmentReader {
    reader: BlobReader,
}

impl AttachmentReader {
    /// How many bytes there are in all.
    pub fn length(&self) -> u64 {
        self.reader.length()
    }
}

impl AsyncRead for AttachmentReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl Peer {
    /// Keeps bytes as an attachment, to their end. They are on disk when this returns, with a relay or
    /// without, and are brought to a relay in the background; [`Peer::flush`] waits for that. What is
    /// here already is not kept twice.
    ///
    /// The attachment is to be named by a document, as the value of a field of that kind: one that none
    /// names is removed after [`ATTACHMENT_GRACE_MS`].
    ///
    /// # Errors
    /// [`AttachmentError`]; then nothing is kept.
    pub async fn attach(
        &self,
        from: impl AsyncRead + Unpin + Send,
    ) -> Result<Attachment, AttachmentError> {
        let desk = &self.0.attachments;
        let outline = desk.shelf.take_in(from, false).await?;
        // Who flushes next waits for it.
        desk.count().await;
        desk.lines.news();
        Ok(Attachment::new(outline.hash(), outline.length()))
    }

    /// As [`Peer::attach`] of a file, with its name, and with a media type where the name tells it.
    ///
    /// # Errors
    /// As [`Peer::attach`].
    pub async fn attach_file(&self, path: impl AsRef<Path>) -> Result<Attachment, AttachmentError> {
        let path = path.as_ref();
        let failed = |error| AttachmentError::Source(format!("{}: {error}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let attachment = self.attach(file).await?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let attachment = attachment.named(&name);
        Ok(match media_type(&name) {
            Some(media_type) => attachment.of_type(media_type),
            None => attachment,
        })
    }

    /// The bytes of an attachment: from here, else from a relay, for which it waits up to
    /// [`FIND_MS`]. All of it is checked.
    ///
    /// # Errors
    /// [`AttachmentError`]. What came until then is kept, and a later call goes on from there.
    pub async fn open_attachment(
        &self,
        attachment: &Attachment,
    ) -> Result<AttachmentReader, AttachmentError> {
        let within = Duration::from_millis(FIND_MS);
        self.open_attachment_within(attachment, within, |_, _| ()).await
    }

    /// As [`Peer::open_attachment`], waiting so long at most while no relay is there or nothing comes;
    /// `progress` is told how many bytes of how many are here.
    ///
    /// # Errors
    /// As [`Peer::open_attachment`].
    pub async fn open_attachment_within(
        &self,
        attachment: &Attachment,
        within: Duration,
        progress: impl FnMut(u64, u64) + Send,
    ) -> Result<AttachmentReader, AttachmentError> {
        let hash = attachment.hash;
        // From the moment at which it is here.
        let _hold = self.0.attachments.shelf.hold(hash);
        self.fetch(hash, within, progress).await?;
        let shelf = &self.0.attachments.shelf;
        Ok(AttachmentReader { reader: BlobReader::open(shelf, hash).await? })
    }

    /// Whether all of an attachment is here.
    ///
    /// # Errors
    /// [`AttachmentError::Store`].
    pub async fn has_attachment(&self, attachment: &Attachment) -> Result<bool, AttachmentError> {
        let entry = self.0.attachments.shelf.find(&attachment.hash).await?;
        Ok(entry.is_some_and(|entry| entry.is_whole))
    }

    /// The attachments that are here, or on their way, in the order of their names.
    ///
    /// # Errors
    /// [`AttachmentError::Store`].
    pub async fn attachments(&self) -> Result<Vec<StoredAttachment>, AttachmentError> {
        let all = self.0.attachments.shelf.list().await?.into_iter();
        let shown = all.map(|(hash, entry)| StoredAttachment {
            hash,
            length: entry.length,
            is_whole: entry.is_whole,
            is_sent: entry.is_sent,
        });
        Ok(shown.collect())
    }

    /// How much of attachments waits to be brought to a relay, now and from now on.
    pub fn attachment_counts(&self) -> watch::Receiver<AttachmentCounts> {
        self.0.attachments.counts.subscribe()
    }

    /// Fetches the attachments that a document names, so that they are here when they are wanted; waits
    /// for a relay for so long in all.
    ///
    /// # Errors
    /// [`AttachmentError::Store`] and [`AttachmentError::Closed`]. Attachments that cannot be fetched
    /// are named in what is given back.
    pub async fn prefetch(
        &self,
        document: &Document,
        within: Duration,
    ) -> Result<Prefetched, AttachmentError> {
        let named = document
            .read(Attachment::all_in)
            .map_err(|error| AttachmentError::Store(error.to_string()))?;
        let deadline = Instant::now() + within;
        let mut fetched = Prefetched::default();
        for hash in named {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.fetch(hash, left, |_, _| ()).await {
                Ok(()) => fetched.here += 1,
                Err(error @ (AttachmentError::Store(_) | AttachmentError::Closed)) => {
                    return Err(error);
                }
                Err(error) => fetched.missing.push((hash, error.to_string())),
            }
        }
        Ok(fetched)
    }

    /// Has an attachment here, with the help of a relay.
    async fn fetch(
        &self,
        hash: BlobHash,
        within: Duration,
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<(), AttachmentError> {
        let Desk { shelf, lines, .. } = &*self.0.attachments;
        let mut news = lines.subscribe();
        let mut deadline = Instant::now() + within;
        let mut last = None;
        loop {
            if shelf.find(&hash).await?.is_some_and(|entry| entry.is_whole) {
                return Ok(());
            }
            news.borrow_and_update();
            if lines.is_closed() {
                return Err(AttachmentError::Closed);
            }
            if let Some(over) = lines.current() {
                // Who wants the same waits here, and finds it.
                let _turn = lines.turn(hash).await;
                let mut has_moved = false;
                let tell = |here, of| {
                    has_moved = true;
                    progress(here, of);
                };
                match transfer::fetch(lines, shelf, over, hash, tell).await {
                    Ok(()) => return Ok(()),
                    Err(TransferError::NotThere) => return Err(AttachmentError::Unavailable(hash)),
                    Err(TransferError::Shelf(error)) => return Err(error.into()),
                    Err(TransferError::Wrong) => return Err(AttachmentError::Wrong(hash)),
                    Err(error) => last = Some(error.to_string()),
                }
                if has_moved {
                    deadline = Instant::now() + within;
                }
            }
            let (_, reason) = standing(&self.status().borrow());
            let given_up = || match last.clone() {
                Some(reason) => AttachmentError::Interrupted { hash, reason },
                None => AttachmentError::Offline { hash, reason },
            };
            if lines.current().is_none() && !self.0.links.may_come_online() {
                return Err(given_up());
            }
            // A line that is there and failed is tried again after a while; another at once.
            let pause = Instant::now() + transfer::AGAIN;
            let until = if lines.current().is_some() { pause.min(deadline) } else { deadline };
            let waited = timeout_at(until, news.changed()).await;
            if waited.is_err() && Instant::now() >= deadline {
                return Err(given_up());
            }
        }
    }
}

/// The media type that the end of a file's name tells, of those that are common.
fn media_type(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "txt" | "log" => "text/plain",
        "md" => "text/markdown",
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "csv" => "text/csv",
        "js" | "mjs" => "text/javascript",
        "json" => "application/json",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "heic" => "image/heic",
        "svg" => "image/svg+xml",
        "mp3" => "audio/mpeg",
        "ogg" | "oga" => "audio/ogg",
        "wav" => "audio/wav",
        "m4a" => "audio/mp4",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mov" => "video/quicktime",
        _ => return None,
    })
}
