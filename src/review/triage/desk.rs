//! Questions about the review document, for whoever cannot open it where it is asked.

use std::collections::BTreeMap;

use automerge::{
    ActorId, Automerge, Change, ReadDoc as _,
    transaction::{CommitOptions, Transaction},
};
use serde::{Deserialize, Serialize};

use super::{Act, Entry, Refused, Standing, Triage, begin, forget, read, standings, write};
use crate::{history, review::ConflictId};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// How does it stand with all conflicts?
    All,
    /// What is there to say about this one?
    One(ConflictId),
    /// How is this written?
    Write(Order),
    /// How are notes about these taken away?
    Forget {
        /// Conflicts that are open no longer.
        conflicts: Vec<ConflictId>,
        /// The actor of the change: one that made no change of the document yet.
        actor: [u8; 16],
        /// The time of the change, in seconds since 1970.
        time_s: i64,
    },
}

/// Something that is to be made into a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// About which conflict.
    pub conflict: ConflictId,
    /// What is done.
    pub act: Act,
    /// By whom.
    pub who: String,
    /// The actor of the change: one that made no change of the document yet.
    pub actor: [u8; 16],
    /// The time of the change, in seconds since 1970.
    pub time_s: i64,
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::All`]: each with when something was last said, in seconds since 1970.
    All(BTreeMap<ConflictId, (Standing, i64)>),
    /// To [`Question::One`].
    One(Triage),
    /// To [`Question::Write`] and [`Question::Forget`]: the changes that are to be stored, as
    /// chunks, in order. None if all is so already.
    Written {
        /// The changes.
        changes: Vec<Vec<u8>>,
        /// What there is to say afterwards; nothing of what was forgotten.
        triage: Triage,
    },
    /// It cannot be done, for a reason that is the asker's.
    Refused {
        /// In words.
        reason: String,
        /// Because somebody else looks after it.
        is_held: bool,
    },
}

/// Answers a question about the review document, which is open here. One that has not begun is
/// empty.
///
/// # Errors
/// Those of automerge.
pub fn answer(doc: &mut Automerge, asked: &Question) -> Result<Answer, automerge::AutomergeError> {
    match asked {
        Question::All => Ok(Answer::All(standings(doc))),
        Question::One(id) => Ok(Answer::One(read(doc, *id))),
        Question::Write(order) => written(doc, order),
        Question::Forget { conflicts, actor, time_s } => {
            let conflicts = conflicts.iter().copied().collect();
            doc.set_actor(ActorId::from(*actor));
            let options = CommitOptions::default().with_message("concord:triage forget");
            let mut tx = doc.transaction();
            forget(&mut tx, &conflicts)?;
            let made = commit(tx, options.with_time(*time_s))
                .and_then(|hash| doc.get_change_by_hash(&hash));
            Ok(Answer::Written {
                changes: made.iter().map(chunk).collect(),
                triage: Triage::default(),
            })
        }
    }
}

fn written(doc: &mut Automerge, order: &Order) -> Result<Answer, automerge::AutomergeError> {
    let Order { conflict, act, who, actor, time_s } = order;
    let author = match history::author(who) {
        Ok(author) => author,
        Err(error) => return Ok(Answer::Refused { reason: error.to_string(), is_held: false }),
    };
    let mut changes: Vec<Change> = begin(doc)?.into_iter().collect();
    doc.set_author(Some(author)).set_actor(ActorId::from(*actor));
    // Nobody else has the actor, so nobody else has this.
    let entry = Entry { conflict: *conflict, act, who, time_s: *time_s, unique: *actor };
    let options = CommitOptions::default().with_message(entry.message()).with_time(*time_s);
    let mut tx = doc.transaction();
    match write(&mut tx, &entry) {
        Ok(_) => {}
        Err(Refused::Automerge(error)) => return Err(error),
        Err(refused) => {
            tx.rollback();
            let is_held = matches!(refused, Refused::Held { .. });
            return Ok(Answer::Refused { reason: refused.to_string(), is_held });
        }
    }
    let hash = commit(tx, options);
    changes.extend(hash.and_then(|hash| doc.get_change_by_hash(&hash)));
    Ok(Answer::Written {
        changes: changes.iter().map(chunk).collect(),
        triage: read(doc, *conflict),
    })
}

fn commit(tx: Transaction<'_>, options: CommitOptions) -> Option<automerge::ChangeHash> {
    tx.commit_with(options).0
}

fn chunk(change: &Change) -> Vec<u8> {
    change.raw_bytes().to_vec()
}
