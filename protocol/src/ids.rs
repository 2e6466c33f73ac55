//! The names of documents, peers, stores and sessions, as they travel.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// A name that is not acceptable where it stood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not base58 with a valid checksum: mistyped or cut off. Copy the whole URL again.
    #[error(
        "{0:?} is not a document id: expected base58 with a checksum, as in automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ"
    )]
    NotADocumentId(String),
    /// Longer than any client makes.
    #[error("a name of {len} bytes is longer than the {max} allowed")]
    TooLong {
        /// What it had.
        len: usize,
        /// What it may have.
        max: usize,
    },
    /// Empty, or with control characters, which would damage logs.
    #[error("a peer, storage or session id may not be empty or hold control characters")]
    NotPrintable,
}

/// Longest text form of any id, in bytes. A document id of 16 bytes has 27 or 28 characters;
/// `idFactory` ids of 64 bytes have about 93.
pub const ID_MAX_LEN: usize = 256;

/// The name of a document: the bs58check text form, checksum-valid, otherwise opaque.
///
/// Cheap to clone. `automerge-repo` makes 16 random bytes, but nothing enforces that length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(Arc<str>);

impl DocumentId {
    /// Names a document by its raw bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bs58::encode(bytes).with_check().into_string().into())
    }

    /// A name for a new document, of random bits: a UUID of version 4, because automerge-repo 1.x
    /// opens no document that is named otherwise.
    pub fn from_random(mut bits: [u8; 16]) -> Self {
        bits[6] = bits[6] & 0x0F | 0x40;
        bits[8] = bits[8] & 0x3F | 0x80;
        Self::from_bytes(&bits)
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The raw bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Checked when it was read; what was made of bytes has a checksum too.
        bs58::decode(&*self.0).with_check(None).into_vec().unwrap_or_default()
    }
}

impl FromStr for DocumentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > ID_MAX_LEN {
            return Err(IdError::TooLong { len: text.len(), max: ID_MAX_LEN });
        }
        match bs58::decode(text).with_check(None).into_vec() {
            Ok(bytes) if !bytes.is_empty() => Ok(Self(text.into())),
            _ => Err(IdError::NotADocumentId(text.to_owned())),
        }
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `automerge:<document id>`, as applications pass documents around. A `#heads` part (a
/// client-side view) is accepted and dropped: it never crosses the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutomergeUrl(pub DocumentId);

impl FromStr for AutomergeUrl {
    type Err = IdError;

    /// Reads a URL, or a bare document id.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let id = text.strip_prefix("automerge:").unwrap_or(text);
        let id = id.split_once('#').map_or(id, |(id, _heads)| id);
        id.parse().map(Self)
    }
}

impl fmt::Display for AutomergeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "automerge:{}", self.0)
    }
}

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() > ID_MAX_LEN {
                    return Err(IdError::TooLong { len: text.len(), max: ID_MAX_LEN });
                }
                if text.is_empty() || text.chars().any(char::is_control) {
                    return Err(IdError::NotPrintable);
                }
                Ok(Self(text.into()))
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

opaque_id! {
    /// One running process as its peers see it: any string, new at every start.
    PeerId
}
opaque_id! {
    /// One durable store: outlives the processes that use it. A UUID in `automerge-repo`.
    StorageId
}
opaque_id! {
    /// One run of counted ephemeral messages of a sender.
    SessionId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_documents_are_named_by_uuids_of_version_4() {
        for bits in [[0; 16], [0xFF; 16]] {
            let id = DocumentId::from_random(bits);
            let bytes = bs58::decode(id.as_str()).with_check(None).into_vec().unwrap();
            assert_eq!((bytes.len(), bytes[6] >> 4, bytes[8] >> 6), (16, 4, 0b10));
        }
    }
}
