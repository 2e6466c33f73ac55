//! How a command fails: one line for people and an exit code for scripts.

use std::{io, process::ExitCode};

use concord::{
    history::HistoryError,
    json::JsonError,
    peer::{
        ChangeError, CollectionError, ConfirmError, DeleteError, EntityError, FindError,
        LeaseError, PastError, PeerError, PurgeError, ReviewError, TriageError,
    },
    store::StoreError,
};

/// The kinds of failure that scripts can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    /// It is done as far as the reader wanted: nobody reads our output any more.
    Enough = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Unconfirmed = 4,
}

impl Exit {
    fn name(self) -> &'static str {
        match self {
            Self::Enough => "enough",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    reason: String,
}

impl Failure {
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, reason: reason.into() }
    }

    pub(super) fn usage(reason: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, reason: reason.into() }
    }

    pub(super) fn not_found(reason: impl Into<String>) -> Self {
        Self { exit: Exit::NotFound, reason: reason.into() }
    }

    pub(super) fn unconfirmed(reason: impl Into<String>) -> Self {
        Self { exit: Exit::Unconfirmed, reason: reason.into() }
    }

    /// The same with more to say.
    pub(super) fn and(mut self, more: &str) -> Self {
        self.reason = format!("{}; {more}", self.reason);
        self
    }

    /// Says it on standard error, and gives the exit code.
    pub(super) fn report(self, json: bool) -> ExitCode {
        use io::Write as _;
        if self.exit != Exit::Enough {
            let line = if json {
                serde_json::json!({ "error": self.exit.name(), "reason": self.reason }).to_string()
            } else {
                format!("concord: {}", self.reason.replace('\n', " "))
            };
            // Nothing can be done about a standard error that is gone.
            let _ = writeln!(io::stderr(), "{line}");
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit =
            if error.kind() == io::ErrorKind::BrokenPipe { Exit::Enough } else { Exit::Failed };
        Self { exit, reason: format!("cannot write the output: {error}") }
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        let exit = match &error {
            PeerError::RelayUrl { .. }
            | PeerError::Certificate(_)
            | PeerError::Author(_)
            | PeerError::Store {
                source:
                    StoreError::Locked { .. }
                    | StoreError::Newer { .. }
                    | StoreError::NotOurs { .. }
                    | StoreError::OtherEngine { .. },
                ..
            } => Exit::Usage,
            _ => Exit::Failed,
        };
        let reason = match error {
            // These name the directory themselves.
            PeerError::Store { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        Self { exit, reason }
    }
}

impl From<CollectionError> for Failure {
    fn from(error: CollectionError) -> Self {
        match error {
            CollectionError::Read(error) => error.into(),
            CollectionError::Unknown(_) => Self::not_found(error.to_string()),
            CollectionError::NotAnId(_) | CollectionError::TooMany => {
                Self::usage(error.to_string())
            }
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        let exit = match &error {
            FindError::Id(_) => Exit::Usage,
            FindError::Unavailable(_) | FindError::Offline { .. } | FindError::TimedOut(_) => {
                Exit::NotFound
            }
            _ => Exit::Failed,
        };
        Self { exit, reason: error.to_string() }
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        match error {
            error @ (LeaseError::Offline | LeaseError::Lost | LeaseError::TimedOut) => {
                Self::unconfirmed(error.to_string())
            }
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<ReviewError> for Failure {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::Find(error) => error.into(),
            ReviewError::Change(error) => error.into(),
            ReviewError::Documents(error) => error.into(),
            error @ ReviewError::NotSo(_) => Self::usage(error.to_string()),
            error @ ReviewError::NotOpen(_) => Self::not_found(error.to_string()),
            error @ (ReviewError::Refused(_) | ReviewError::NotAgain(_)) => {
                Self::usage(error.to_string())
            }
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<DeleteError> for Failure {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::Find(error) => error.into(),
            DeleteError::Change(error) => error.into(),
            DeleteError::Review(error) => error.into(),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<PurgeError> for Failure {
    fn from(error: PurgeError) -> Self {
        match error {
            PurgeError::Find(error) => error.into(),
            PurgeError::Store(error) => error.into(),
            error @ PurgeError::NotDeleted(_) => {
                Self::usage(format!("{error}: concord doc delete DOC"))
            }
            error @ PurgeError::Unconfirmed(_) => Self::unconfirmed(error.to_string()),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<EntityError> for Failure {
    fn from(error: EntityError) -> Self {
        match error {
            EntityError::Find(error) => error.into(),
            EntityError::Change(error) => error.into(),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<TriageError> for Failure {
    fn from(error: TriageError) -> Self {
        match error {
            TriageError::Open(error) => error.into(),
            TriageError::Find(error) => error.into(),
            TriageError::Change(error) => error.into(),
            error @ TriageError::NoAuthor => {
                Self::usage(format!("{error}: --author ann@example.org or CONCORD_AUTHOR"))
            }
            error @ TriageError::Refused(_) => Self::usage(error.to_string()),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<PastError> for Failure {
    fn from(error: PastError) -> Self {
        match error {
            PastError::Find(error) => error.into(),
            PastError::Change(error) => error.into(),
            PastError::History(
                error @ (HistoryError::NoChange(_) | HistoryError::NoPath { .. }),
            ) => Self::not_found(error.to_string()),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Edit(error) => match error.downcast::<Self>() {
                Ok(failure) => *failure,
                Err(error) => Self::failed(error.to_string()),
            },
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<ConfirmError> for Failure {
    fn from(error: ConfirmError) -> Self {
        match error {
            ConfirmError::TimedOut { .. } | ConfirmError::Attachments { .. } => {
                Self::unconfirmed(error.to_string())
            }
            ConfirmError::Refused { .. } => {
                Self::unconfirmed(format!("{error}: see concord dead-letters ls"))
            }
            other => Self::failed(other.to_string()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Failure {}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<automerge::AutomergeError> for Failure {
    fn from(error: automerge::AutomergeError) -> Self {
        Self::failed(error.to_string())
    }
}
