//! Who made a change, when, and what for.

use automerge::{Automerge, ChangeMetadata};
use concord_protocol::ChangeHash;
use serde::{Serialize, Serializer};

use super::{author_name, hash::native};

/// Who made a change, when, and what for, as the change says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// The change.
    #[serde(serialize_with = "in_hex")]
    pub change: ChangeHash,
    /// The writer it was made by, in hexadecimal: one of a program's runs.
    pub actor: String,
    /// Which of the writer's changes it is, from 1.
    pub seq: u64,
    /// The author, if the change names one.
    pub author: Option<String>,
    /// By the clock of its writer: seconds since 1970. 0 if it was not said.
    #[serde(rename = "time")]
    pub time_s: i64,
    /// What it was for, if that was said.
    pub message: Option<String>,
}

impl Stamp {
    /// Of a change of a document; `None` if it is not in it.
    pub fn of(doc: &Automerge, change: &ChangeHash) -> Option<Self> {
        doc.get_change_meta_by_hash(&native(change)).as_ref().map(Self::from)
    }

    /// Whom people would say it was: the author, else the writer.
    pub fn name(&self) -> &str {
        self.author.as_deref().unwrap_or(&self.actor)
    }
}

impl From<&ChangeMetadata<'_>> for Stamp {
    fn from(change: &ChangeMetadata<'_>) -> Self {
        let ChangeMetadata { hash, actor, seq, author, timestamp, message, .. } = change;
        Self {
            change: ChangeHash(hash.0),
            actor: actor.to_string(),
            seq: *seq,
            author: author.as_ref().map(author_name),
            time_s: *timestamp,
            message: message.as_deref().map(str::to_owned),
        }
    }
}

/// A hash as people and programs write it.
pub(super) fn in_hex<S: Serializer>(hash: &ChangeHash, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(hash)
}

/// Several of them.
pub(super) fn all_in_hex<S: Serializer>(hashes: &[ChangeHash], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(hashes.iter().map(ToString::to_string))
}
