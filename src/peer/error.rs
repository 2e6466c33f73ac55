//! What can go wrong in a peer, and what to do about it.

use std::path::PathBuf;

use concord_protocol::{DocumentId, IdError, RefuseCode};

use super::LeaseHolder;
use crate::{history::AuthorError, replica::LocalError, store::StoreError};

/// An error of the program's own, out of the closure given to [`super::Document::change`].
pub type EditError = Box<dyn std::error::Error + Send + Sync>;

/// A peer could not be opened or is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The store could not be opened, read or closed.
    #[error("{}: {source}", directory.display())]
    Store {
        /// Where.
        directory: PathBuf,
        /// What it said.
        source: StoreError,
    },
    /// Not a relay's URL.
    #[error("{url:?} is not a relay URL ({reason}): expected ws://host:port or wss://host")]
    RelayUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was given to [`super::PeerBuilder::trust`] is no certificate.
    #[error("not a certificate to trust: {0}")]
    Certificate(String),
    /// What was given to [`super::PeerBuilder::author`] is no author's name.
    #[error(transparent)]
    Author(#[from] AuthorError),
    /// The operating system did not give us a thread or a random number.
    #[error("the operating system refused {what}: {reason}")]
    System {
        /// What was asked.
        what: &'static str,
        /// What it said.
        reason: String,
    },
    /// Not called inside a tokio runtime.
    #[error("a peer must be opened inside a tokio runtime (#[tokio::main] or Runtime::enter)")]
    NoRuntime,
    /// The bytes given to import are not an Automerge document.
    #[error("not an Automerge document: {0}")]
    NotADocument(String),
    /// A document could not be written.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

/// A document was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// Not a document id or URL.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Not stored here, and the relays that were asked do not have it.
    #[error(
        "document {0} is neither stored here nor on the relay: check the URL, or ask who made it to connect once"
    )]
    Unavailable(DocumentId),
    /// Not stored here, and no relay can be asked.
    #[error("document {document} is not stored here and no relay can be asked ({reason})")]
    Offline {
        /// Which.
        document: DocumentId,
        /// Why not.
        reason: String,
    },
    /// A relay was asked and did not answer in time.
    #[error("document {0} is not stored here and no relay answered in time: try again")]
    TimedOut(DocumentId),
    /// It is stored here and cannot be opened.
    #[error("document {document} cannot be opened: {reason}")]
    Broken {
        /// Which.
        document: DocumentId,
        /// Why.
        reason: String,
    },
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

/// A change was not made, or may not be on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The closure failed; nothing was changed.
    #[error("{0}")]
    Edit(EditError),
    /// It may not be on disk. The document takes no more changes until the program restarts.
    #[error(
        "the change may not be on disk ({0}): check the disk, then restart; the document takes no more changes until then"
    )]
    NotDurable(String),
    /// It breaks a limit. It was rolled back.
    #[error("the change was refused ({}): {reason}. It was rolled back", code.as_str())]
    Refused {
        /// The kind of reason.
        code: RefuseCode,
        /// In words.
        reason: String,
    },
    /// An earlier failure closed the document for changes.
    #[error("the document takes no changes: {0}")]
    Failed(String),
    /// Somebody else holds the lease of the document, which its type requires. Nothing was changed.
    #[error("{0} edits the document alone: wait until the lease is given back, or take it over")]
    Leased(LeaseHolder),
    /// A blocking call where blocking would stop the peer itself.
    #[error("change_blocking would stop the single-threaded runtime that has to do it: use change")]
    WouldBlock,
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

impl From<LocalError> for ChangeError {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::Storage(failure) => Self::NotDurable(failure.to_string()),
            LocalError::Refused { code, reason } => Self::Refused { code, reason },
            error @ LocalError::NotPurged(_) => Self::Failed(error.to_string()),
        }
    }
}

/// A wait for a relay's confirmation ended without one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// The deadline passed. What is not confirmed is on our disk and will be sent later.
    #[error(
        "{pending} of {total} documents not confirmed by a relay in time ({reason}); they are safe on this disk and will be sent later"
    )]
    TimedOut {
        /// How many are not confirmed.
        pending: usize,
        /// Of how many.
        total: usize,
        /// Where the peer stood.
        reason: String,
    },
    /// A document cannot be opened.
    #[error("document {document} cannot be opened: {reason}")]
    Broken {
        /// Which.
        document: DocumentId,
        /// Why.
        reason: String,
    },
    /// A relay takes nothing more of a document, or refused a change of it meanwhile, which is a dead
    /// letter then ([`super::Peer::dead_letters`]). What is here stays here.
    #[error("a relay refused document {document} ({}): {reason}", code.as_str())]
    Refused {
        /// Which.
        document: DocumentId,
        /// The kind of reason.
        code: RefuseCode,
        /// In words.
        reason: String,
    },
    /// No relay has some attachments in time, or the one that is connected does not take them. They are
    /// on our disk.
    #[error(
        "{pending} attachments not confirmed by a relay ({reason}); they are safe on this disk and will be sent later"
    )]
    Attachments {
        /// How many.
        pending: usize,
        /// Why the last was refused, or where the peer stood.
        reason: String,
    },
    /// The peer was closed, or its store failed.
    #[error("the peer is closed")]
    Closed,
}
