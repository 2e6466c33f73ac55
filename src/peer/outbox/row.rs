//! What is on disk of a document's place in the outbox: one row, of the peer's own rows.

use bytes::Bytes;
use concord_protocol::{ChangeHash, RefuseCode};
use serde::{Deserialize, Serialize};

use crate::{
    entity::Level,
    record::{self, RecordError},
};

/// Bytes that are kept of a relay's reason.
const REASON_BYTES_MAX: usize = 1_024;

/// The row of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::peer) struct Row {
    /// When the first edit was made that no relay has confirmed, milliseconds since 1970; 0: there is
    /// none.
    pub(in crate::peer) since_ms: u64,
    /// What relays refused of it, in the order in which they did.
    pub(in crate::peer) refused: Vec<RowRefused>,
    /// What was refused and is dealt with.
    pub(in crate::peer) letters: Vec<RowLetter>,
    /// The number of the level of the most urgent edit that no relay has confirmed; 0: of a row that
    /// says nothing of it.
    pub(super) level: u8,
    /// Heads that a relay had before the first edit that no relay has confirmed, as far as was known;
    /// none: nothing is known.
    pub(super) base: Vec<[u8; 32]>,
    /// What was refused and is sent once more, until a relay has said what it does with it. Of this run
    /// alone.
    #[serde(skip)]
    pub(in crate::peer) sent_again: Vec<RowRefused>,
}

/// The row as it was before there were bases.
#[derive(Serialize, Deserialize)]
struct RowWithoutBase {
    since_ms: u64,
    refused: Vec<RowRefused>,
    letters: Vec<RowLetter>,
    level: u8,
}

/// The row as it was before there were levels.
#[derive(Serialize, Deserialize)]
struct RowWithoutLevel {
    since_ms: u64,
    refused: Vec<RowRefused>,
    letters: Vec<RowLetter>,
}

/// A change that a relay refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::peer) struct RowRefused {
    pub(in crate::peer) hash: [u8; 32],
    /// The name of the code on the wire.
    code: String,
    /// In words.
    pub(in crate::peer) reason: String,
    /// When it was refused first, milliseconds since 1970.
    pub(in crate::peer) first_ms: u64,
    /// And last.
    pub(in crate::peer) last_ms: u64,
    /// How often.
    pub(in crate::peer) times: u32,
}

/// A change that was refused, and taken out of the document by somebody here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::peer) struct RowLetter {
    pub(in crate::peer) refused: RowRefused,
    /// When it was taken out, milliseconds since 1970.
    pub(in crate::peer) when_ms: u64,
    /// Who did, as far as the peer knows; empty: it does not.
    pub(in crate::peer) who: String,
}

impl RowRefused {
    pub(super) fn new(hash: ChangeHash, code: RefuseCode, reason: &str, now_ms: u64) -> Self {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            hash: hash.0,
            code: code.as_str().to_owned(),
            reason: reason[..end].to_owned(),
            first_ms: now_ms,
            last_ms: now_ms,
            times: 1,
        }
    }

    /// It was refused once more.
    pub(super) fn again(&mut self, now_ms: u64) {
        self.last_ms = now_ms;
        self.times = self.times.saturating_add(1);
    }

    /// It was refused before, too.
    pub(super) fn follows(&mut self, before: &Self) {
        self.first_ms = before.first_ms;
        self.times = before.times.saturating_add(1);
    }

    /// The code; one of a later version is a limit that this one does not know.
    pub(in crate::peer) fn code(&self) -> RefuseCode {
        RefuseCode::parse(&self.code).unwrap_or(RefuseCode::Quota)
    }
}

/// The row of a document, if it says that relays have all of it and they may not.
pub(in crate::peer) fn on_its_way(row: &[u8]) -> Option<Bytes> {
    let mut row = Row::read(row).ok().filter(|row| row.since_ms == 0)?;
    row.since_ms = row.letters.last().map_or(1, |letter| letter.when_ms.max(1));
    Some(row.write())
}

impl Row {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        // One is never the other with something missing or behind it: records have no rest.
        record::decode(bytes).or_else(|error| {
            if let Ok(row) = record::decode(bytes) {
                let RowWithoutBase { since_ms, refused, letters, level } = row;
                return Ok(Self { since_ms, refused, letters, level, ..Self::default() });
            }
            let RowWithoutLevel { since_ms, refused, letters } =
                record::decode(bytes).map_err(|_| error)?;
            Ok(Self { since_ms, refused, letters, ..Self::default() })
        })
    }

    /// The level of the most urgent edit.
    pub(in crate::peer) fn level(&self) -> Level {
        Level::new(self.level).unwrap_or_default()
    }

    /// The row as bytes.
    pub(super) fn write(&self) -> Bytes {
        // It is far below the limit of records: both lists are bounded. An empty row would still say
        // that there are edits.
        record::encode(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_earlier_versions_are_read() {
        let refused = vec![RowRefused::new(ChangeHash([7; 32]), RefuseCode::Quota, "too much", 5)];
        let when = RowLetter { refused: refused[0].clone(), when_ms: 6, who: "ann".to_owned() };
        let old = RowWithoutLevel { since_ms: 4, refused: refused.clone(), letters: vec![when] };
        let read = Row::read(&record::encode(&old).unwrap()).unwrap();
        assert_eq!((read.since_ms, &read.refused, read.letters.len()), (4, &refused, 1));
        assert_eq!(read.level(), Level::NORMAL);
        let with_level = RowWithoutBase {
            since_ms: 4,
            refused: refused.clone(),
            letters: read.letters.clone(),
            level: 5,
        };
        let also = Row::read(&record::encode(&with_level).unwrap()).unwrap();
        assert_eq!(also, Row { level: 5, ..read.clone() });
        let row = Row { level: 1, base: vec![[8; 32]], ..read };
        assert_eq!(Row::read(&row.write()), Ok(row.clone()));
        assert_eq!(row.level(), Level::CRITICAL);
        assert!(Row::read(&row.write()[..20]).is_err());
    }
}
