//! Recorded editing histories: reading them, and making one up.
//!
//! The format is that of the `editing-traces` collection: JSON, gzipped or not. Positions and
//! lengths count Unicode code points.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

/// Bytes of a trace once unpacked. The largest published one has 40 MB.
const TRACE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Somebody's editing of one text, or several people's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// The text before the first transaction.
    #[serde(default)]
    pub start_content: String,
    /// The text after the last one, everything merged.
    pub end_content: String,
    /// How many people wrote; 1 where the trace does not say.
    #[serde(default = "one")]
    pub num_agents: usize,
    /// What they did, each transaction after those that it builds on.
    #[serde(rename = "txns")]
    pub transactions: Vec<Transaction>,
}

/// Edits that were made at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Transaction {
    /// The transactions that its author had seen last. `None` in a sequential trace: the one
    /// before.
    #[serde(default)]
    pub parents: Option<Vec<usize>>,
    /// Who, from 0.
    #[serde(default)]
    pub agent: usize,
    /// The edits, each in the text that the one before left.
    pub patches: Vec<Patch>,
}

/// One replacement in a text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Patch(
    /// Where, in code points from the start.
    pub usize,
    /// How many code points go.
    pub usize,
    /// What comes.
    pub String,
);

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file cannot be read or unpacked.
    #[error("cannot read the trace {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a trace.
    #[error("{path} is not an editing trace: {source}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// It unpacks to more than is sensible.
    #[error("the trace {0} unpacks to more than {TRACE_BYTES_MAX} bytes")]
    TooLarge(PathBuf),
    /// A transaction names one that does not come before it, or an agent that there is not.
    #[error("transaction {0} of the trace names a later transaction or an unknown agent")]
    Order(usize),
    /// An edit is not within the text.
    #[error("transaction {0} of the trace edits beyond the end of the text")]
    Position(usize),
    /// Replayed, it ends in another text.
    #[error("the replayed text differs from the trace's end content at character {0}")]
    EndContent(usize),
}

fn one() -> usize {
    1
}

impl Trace {
    /// Reads a trace, gzipped if its first bytes say so.
    ///
    /// # Errors
    /// [`TraceError`] when it cannot be read or is not a trace.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let failed = |source| TraceError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.by_ref().take(TRACE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut unpacked = Vec::new();
            MultiGzDecoder::new(bytes.as_slice())
                .take(TRACE_BYTES_MAX + 1)
                .read_to_end(&mut unpacked)
                .map_err(failed)?;
            bytes = unpacked;
        }
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > TRACE_BYTES_MAX {
            return Err(TraceError::TooLarge(path.to_owned()));
        }
        let trace: Self = serde_json::from_slice(&bytes)
            .map_err(|source| TraceError::Format { path: path.to_owned(), source })?;
        trace.check_order()?;
        Ok(trace)
    }

    /// Makes a trace up: somebody who types words, goes back to correct some, and now and then
    /// pastes or deletes a phrase. The same seed gives the same trace.
    pub fn generate(seed: u64, transactions: u32) -> Self {
        let mut random = Random(seed);
        let mut text: Vec<char> = Vec::new();
        let mut cursor = 0;
        let transactions = (0..transactions)
            .map(|_| {
                let patch = match random.below(100) {
                    // Most of the time the cursor is where it was.
                    0..80 => Patch(cursor, 0, random.letter().to_string()),
                    80..92 if cursor > 0 => Patch(cursor - 1, 1, String::new()),
                    92..95 => {
                        cursor = random.below(text.len() + 1);
                        Patch(cursor, 0, random.letter().to_string())
                    }
                    95..97 if text.len() > 20 => {
                        let at = random.below(text.len() - 10);
                        Patch(at, 1 + random.below(9), String::new())
                    }
                    97 => {
                        let length = 2 + random.below(30);
                        Patch(cursor, 0, (0..length).map(|_| random.letter()).collect())
                    }
                    _ => Patch(cursor, 0, " ".to_owned()),
                };
                cursor = patch.0 + patch.2.chars().count();
                text.splice(patch.0..patch.0 + patch.1, patch.2.chars());
                Transaction { parents: None, agent: 0, patches: vec![patch] }
            })
            .collect();
        Self {
            start_content: String::new(),
            end_content: text.into_iter().collect(),
            num_agents: 1,
            transactions,
        }
    }

    /// Whether several people wrote at the same time.
    pub fn is_concurrent(&self) -> bool {
        self.num_agents > 1 || self.transactions.iter().any(|t| t.parents.is_some())
    }

    /// What a transaction builds on.
    pub fn parents(&self, index: usize) -> Vec<usize> {
        match self.transactions.get(index).and_then(|t| t.parents.as_ref()) {
            Some(parents) => parents.clone(),
            None => index.checked_sub(1).into_iter().collect(),
        }
    }

    /// Compares a text with what this trace ends in.
    ///
    /// # Errors
    /// [`TraceError::EndContent`] with the first character that differs.
    pub fn check_end(&self, text: &str) -> Result<(), TraceError> {
        if text == self.end_content {
            return Ok(());
        }
        let same = text.chars().zip(self.end_content.chars()).take_while(|(a, b)| a == b).count();
        Err(TraceError::EndContent(same))
    }

    fn check_order(&self) -> Result<(), TraceError> {
        for (index, transaction) in self.transactions.iter().enumerate() {
            let later = transaction.parents.iter().flatten().any(|parent| *parent >= index);
            if later || transaction.agent >= self.num_agents {
                return Err(TraceError::Order(index));
            }
        }
        Ok(())
    }
}

/// splitmix64: a trace needs variety and repeatability, not secrecy.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// Mostly plain letters; some that UTF-8 and UTF-16 count differently.
    fn letter(&mut self) -> char {
        const LETTERS: [char; 30] = [
            'e', 't', 'a', 'o', 'i', 'n', 's', 'r', 'h', 'l', 'd', 'c', 'u', 'm', 'f', 'p', 'g',
            'w', 'y', 'b', 'v', 'k', 'x', '.', ',', '\n', 'ä', 'é', '漢', '🎉',
        ];
        LETTERS.get(self.below(LETTERS.len())).copied().unwrap_or(' ')
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(json: &str) -> Result<Trace, TraceError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(json.as_bytes()).unwrap();
        Trace::read(file.path())
    }

    #[test]
    fn reads_both_kinds() {
        let sequential = parse(
            r#"{"startContent":"","endContent":"hé","txns":[
                {"time":"2020","patches":[[0,0,"h"]]},{"patches":[[1,0,"é"]]}]}"#,
        )
        .unwrap();
        assert!(!sequential.is_concurrent());
        assert_eq!(sequential.parents(1), [0]);
        let concurrent = parse(
            r#"{"kind":"concurrent","endContent":"ab","numAgents":2,"txns":[
                {"parents":[],"numChildren":1,"agent":0,"patches":[[0,0,"a"]]},
                {"parents":[0],"numChildren":0,"agent":1,"patches":[[1,0,"b"]]}]}"#,
        )
        .unwrap();
        assert!(concurrent.is_concurrent());
        assert_eq!(concurrent.transactions[1].agent, 1);
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        assert!(matches!(parse("{"), Err(TraceError::Format { .. })));
        let gone = Trace::read(Path::new("no/such/trace"));
        assert!(matches!(gone, Err(TraceError::Read { .. })));
        let order = r#"{"endContent":"","numAgents":2,"txns":[{"parents":[0],"patches":[]}]}"#;
        assert!(matches!(parse(order), Err(TraceError::Order(0))));
        let agent = r#"{"endContent":"","txns":[{"agent":7,"patches":[]}]}"#;
        assert!(matches!(parse(agent), Err(TraceError::Order(0))));
    }

    #[test]
    fn made_up_traces_repeat_and_stay_within_the_text() {
        let trace = Trace::generate(5, 3_000);
        assert_eq!(trace, Trace::generate(5, 3_000));
        assert_ne!(trace, Trace::generate(6, 3_000));
        let mut text: Vec<char> = Vec::new();
        for Patch(at, deleted, inserted) in trace.transactions.iter().flat_map(|t| &t.patches) {
            assert!(at + deleted <= text.len());
            text.splice(*at..at + deleted, inserted.chars());
        }
        trace.check_end(&text.iter().collect::<String>()).unwrap();
        let wrong = trace.check_end(&trace.end_content[..10]);
        assert!(matches!(wrong, Err(TraceError::EndContent(_))));
        assert!(text.len() > 1_000);
    }
}
