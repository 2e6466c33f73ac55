//! Decisions: what becomes of a slot, written as a change that has seen all sides and names the
//! conflict.

use std::sync::Arc;

use automerge::{
    Automerge, AutomergeError, Change, ChangeHash, ReadDoc as _,
    transaction::{CommitOptions, Transaction},
};

use serde_json::{Map, Value as Json};

use super::{
    Conflict, ConflictId, Content, SlotKey, Through,
    bulk::BulkId,
    part::{self, By, Carried, Part, is_as_inserted, unreadable},
    undone,
};
use crate::entity::{Chain, Schema};

/// The first word of the message of a change that decides a conflict.
const WORD: &str = "concord:resolve";
/// Before the name of what it was made together with, in a word after the choice.
const BULK: &str = "bulk-";

/// What somebody chose.
#[derive(Debug, Clone)]
pub enum Choice {
    /// What one of the sides wants, by its number from 0; what was edited comes back as it was on
    /// that side.
    Side(usize),
    /// What was there before.
    Before,
    /// What is shown until somebody decides.
    Now,
    /// Something else, or nothing.
    Other(Content),
}

/// A decision on a conflict, ready to be written.
#[derive(Debug)]
pub struct Resolution {
    conflict: ConflictId,
    chosen: String,
    reason: Option<String>,
    bulk: Option<BulkId>,
    parts: Vec<Part>,
}

/// Why a decision cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such side.
    #[error("the conflict has sides 1 to {sides}, and no side {}", side.saturating_add(1))]
    NoSide {
        /// Which was asked for, from 0.
        side: usize,
        /// How many there are.
        sides: usize,
    },
    /// The document is not the one that the conflict was found in.
    #[error("the place of the conflict is not in the document: {0}")]
    NoPlace(String),
    /// An element of a list was decided on, and is another element now.
    #[error(
        "the conflict was about an element of a list that is no longer there: edit the list itself"
    )]
    Gone,
    /// A content cannot be read.
    #[error("what was chosen cannot be read: {0}")]
    Unreadable(String),
    /// What a decision wrote is not there any more.
    #[error("`{key}` was written since: give it what it is to be")]
    Since {
        /// Where.
        key: String,
    },
    /// What is to be written is not what the conflict is about.
    #[error("the conflict is about {keys}: give an object with one or more of these fields")]
    NotFields {
        /// Which fields it is about.
        keys: String,
    },
}

/// What the message of a change says of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// On which conflict.
    pub conflict: ConflictId,
    /// What was chosen, in a word.
    pub choice: String,
    /// Why, if a reason was given.
    pub reason: Option<String>,
    /// What it was made together with, if it was one of many.
    pub bulk: Option<BulkId>,
}

impl Decided {
    /// Whether a policy of a schema decided.
    pub fn is_automatic(&self) -> bool {
        self.choice.starts_with("policy-")
    }

    /// Reads the message of a change; `None` if it is not that of a decision.
    pub fn read(message: &str) -> Option<Self> {
        let (line, reason) = match message.split_once('\n') {
            Some((line, reason)) => (line, Some(reason.to_owned())),
            None => (message, None),
        };
        let mut words = line.split(' ');
        (words.next() == Some(WORD)).then_some(())?;
        let conflict = words.next()?.parse().ok()?;
        let choice = words.next()?.to_owned();
        let bulk = words.next().and_then(|word| word.strip_prefix(BULK)?.parse().ok());
        Some(Self { conflict, choice, reason, bulk })
    }
}

/// What a side has, but for what is only shown.
fn of_these(content: Content, conflict: &Conflict, written: &[String]) -> Content {
    match content {
        Content::Fields { doc, keys } if Some(&keys) == conflict.place.key.shown().as_ref() => {
            Content::Fields { doc, keys: written.to_vec() }
        }
        other => other,
    }
}

/// Fields that a conflict is about, for all versions: as they were in a document, if one is given.
fn carried(
    doc: &Automerge,
    conflict: &Conflict,
    keys: &[String],
    as_in: Option<&Automerge>,
    mut content: Content,
) -> Result<Vec<Part>, Refused> {
    let (mut carried, mut is_let_be) = (Vec::new(), false);
    for chain in &conflict.through.0 {
        let chain = Arc::clone(chain);
        if let (Some(then), Content::Fields { keys, .. }) = (as_in, &mut content) {
            keys.retain(|key| !chain.has(key));
            let meant = chain.meant(then);
            // What cannot be read would be written as it is there.
            if meant.is_unread() && meant == chain.meant(doc) && !chain.is_apart(doc) {
                is_let_be = true;
            } else {
                carried.push(Part::Imposed { chain, meant });
            }
            continue;
        }
        let keys = match &content {
            Content::Fields { keys, .. } => keys.clone(),
            _ => keys.to_vec(),
        };
        let by = if keys.iter().any(|it| chain.is_newest(it)) { By::Newest } else { By::Older };
        carried.push(Part::Carried(Carried { chain, by, keys }));
    }
    let is_all = matches!(&content, Content::Fields { keys, .. } if keys.is_empty());
    let mut parts = if is_all && (is_let_be || !carried.is_empty() && as_in.is_some()) {
        Vec::new()
    } else {
        part::fields(doc, keys, content)?
    };
    parts.extend(carried);
    Ok(parts)
}

impl Resolution {
    /// Prepares a decision on a conflict of this document.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn prepare(
        doc: &Automerge,
        conflict: &Conflict,
        choice: &Choice,
        reason: Option<String>,
    ) -> Result<Self, Refused> {
        Self::since(None, doc, conflict, choice, reason)
    }

    /// The same for a conflict that is open no longer: in an earlier state of the document, `then`,
    /// it was.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn since(
        then: Option<&Automerge>,
        doc: &Automerge,
        conflict: &Conflict,
        choice: &Choice,
        reason: Option<String>,
    ) -> Result<Self, Refused> {
        if then.is_some_and(|then| conflict.is_gone(then) || !is_as_inserted(doc, &conflict.place))
        {
            return Err(Refused::Gone);
        }
        // That something is deleted is what a delete is about.
        let is_delete = matches!(choice, Choice::Other(Content::Nothing))
            && matches!(conflict.place.key, SlotKey::Tombstone { .. });
        let stays = then.is_none() && matches!(choice, Choice::Now) || is_delete;
        let then = then.unwrap_or(doc);
        let (chosen, content) = match choice {
            Choice::Side(number) => {
                let (side, sides) = (*number, conflict.sides.len());
                let wanted = conflict.sides.get(side).ok_or(Refused::NoSide { side, sides })?;
                let content = wanted.content(then, &conflict.place).map_err(unreadable)?;
                (format!("side-{}", number + 1), content)
            }
            Choice::Before => ("before".to_owned(), conflict.base(then).map_err(unreadable)?),
            Choice::Now => ("now".to_owned(), conflict.provisional(then).map_err(unreadable)?),
            Choice::Other(Content::Nothing) => ("delete".to_owned(), Content::Nothing),
            Choice::Other(content) => ("value".to_owned(), content.clone()),
        };
        let parts = match conflict.place.key.keys() {
            // Whatever was written once more would be wrong once more; but all versions are to show
            // what is shown here.
            Some(_) if stays => {
                let apart = conflict.through.0.iter().filter(|chain| chain.is_apart(doc));
                let imposed = |chain: &Arc<Chain>| {
                    let meant = chain.meant(doc);
                    Part::Imposed { chain: Arc::clone(chain), meant }
                };
                apart.map(imposed).collect()
            }
            Some(keys) => {
                let as_in = match choice {
                    Choice::Side(number) => conflict.sides.get(*number).map(|side| &*side.changes),
                    Choice::Before => Some(&*conflict.before),
                    Choice::Now | Choice::Other(_) => None,
                };
                let as_in = as_in.map(|heads| then.fork_at(heads)).transpose();
                let as_in = as_in.map_err(unreadable)?;
                let as_in = as_in.as_ref().or(matches!(choice, Choice::Now).then_some(then));
                let content = of_these(content, conflict, &keys);
                carried(doc, conflict, &keys, as_in, content)?
            }
            None => {
                let mut parts = vec![part::slot(doc, conflict, content)?];
                let keys = match &conflict.place.key {
                    SlotKey::Map(key) => vec![key.clone()],
                    _ => Vec::new(),
                };
                for chain in &conflict.through.0 {
                    let is_newest =
                        matches!(&conflict.place.key, SlotKey::Map(key) if chain.is_newest(key));
                    let by = if is_newest { By::Newest } else { By::Older };
                    let (chain, keys) = (Arc::clone(chain), keys.clone());
                    parts.push(Part::Carried(Carried { chain, by, keys }));
                }
                parts
            }
        };
        Ok(Self { conflict: conflict.id, chosen, reason, bulk: None, parts })
    }

    /// A decision on a conflict between documents, as far as it is about this one: what is to be at
    /// some of its keys, `null` for nothing; and a key in which a document is not to be referred to
    /// any more, by its id.
    ///
    /// # Errors
    /// [`Refused::Unreadable`].
    pub fn of_fields(
        doc: &Automerge,
        conflict: ConflictId,
        choice: &str,
        reason: Option<String>,
        fields: &Map<String, Json>,
        without: Option<(&str, &str)>,
    ) -> Result<Self, Refused> {
        let keys: Vec<String> = fields.keys().cloned().collect();
        let mut parts = if keys.is_empty() {
            Vec::new()
        } else {
            let written = fields.iter().filter(|(_, value)| !value.is_null());
            let content = Content::fields(written, keys.clone()).map_err(unreadable)?;
            part::fields(doc, &keys, content)?
        };
        if let Some((key, to)) = without {
            parts.extend(part::without(doc, key, to).map_err(unreadable)?);
        }
        Ok(Self { conflict, chosen: choice.to_owned(), reason, bulk: None, parts })
    }

    /// What takes back a decision as far as it is about this document: this change, made on these
    /// heads.
    ///
    /// # Errors
    /// [`Refused::Since`].
    pub(super) fn of_before(
        doc: &Automerge,
        conflict: ConflictId,
        reason: Option<String>,
        (change, knew): (ChangeHash, &[ChangeHash]),
    ) -> Result<Self, Refused> {
        let parts = undone::parts(doc, change, knew)?;
        Ok(Self { conflict, chosen: "now".to_owned(), reason, bulk: None, parts })
    }

    /// The same, as one of many that are made together.
    #[must_use]
    pub fn in_bulk(mut self, bulk: Option<BulkId>) -> Self {
        self.bulk = bulk;
        self
    }

    /// The same under the schema that is in force: what other versions of it have elsewhere is
    /// written there, too.
    #[must_use]
    pub fn under(mut self, doc: &Automerge, schema: Option<&Schema>) -> Self {
        if let Some(of) = schema.and_then(|schema| schema.recognise(doc)) {
            let keys: Vec<String> = self.parts.iter().filter_map(Part::root_key).collect();
            let by = By::Newest;
            let chains = Through::of(of, &keys).0.into_iter();
            let carried = |chain| Part::Carried(Carried { chain, by, keys: keys.clone() });
            self.parts.extend(chains.map(carried));
        }
        self
    }

    /// The message for the change that the decision is written in: it names the conflict, which
    /// is what closes it.
    pub fn message(&self) -> String {
        let line = format!("{WORD} {} {}", self.conflict, self.chosen);
        let line = self.bulk.iter().fold(line, |line, bulk| format!("{line} {BULK}{bulk}"));
        self.reason.iter().fold(line, |line, reason| format!("{line}\n{reason}"))
    }

    /// The same for a decision that a policy made.
    pub(super) fn by(&self, policy: &str) -> String {
        format!("{WORD} {} policy-{policy}", self.conflict)
    }

    /// Writes the decision. Whether there was something to write: if not, an empty change with the
    /// message does.
    ///
    /// # Errors
    /// Those of the transaction.
    pub fn write(&self, tx: &mut Transaction<'_>) -> Result<bool, AutomergeError> {
        part::write(&self.parts, tx)
    }

    /// Writes the decision as a change of this document, which is given.
    ///
    /// # Errors
    /// Those of automerge; the document is as it was then.
    pub(super) fn commit(
        &self,
        doc: &mut Automerge,
        message: &str,
        time_s: i64,
    ) -> Result<Change, AutomergeError> {
        let options = || CommitOptions::default().with_message(message).with_time(time_s);
        let mut tx = doc.transaction();
        if let Err(error) = self.write(&mut tx) {
            tx.rollback();
            return Err(error);
        }
        let (written, _) = tx.commit_with(options());
        let hash = written.unwrap_or_else(|| doc.empty_commit(options()));
        doc.get_change_by_hash(&hash).ok_or(AutomergeError::MissingHash(hash))
    }
}
