//! Questions about the conflicts of a document, for whoever cannot open it where it is asked: the
//! question goes to where it can be opened, and an answer comes back.

use automerge::{ActorId, Automerge, Change, ReadDoc as _, transaction::CommitOptions};
use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    Choice, Conflict, ConflictId, Content, Detector, NotAgain, Resolution, Summary, Unreadable,
    View, history, settle,
};
use crate::{
    entity::{Schema, SchemaErrors},
    json::JsonError,
};

/// Conflicts of one document that are listed; a document with more is in a state in which the
/// thousandth is nobody's concern yet.
pub const LISTED_MAX: usize = 1_000;

/// A question about one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Which document: the names of conflicts depend on it.
    pub document: String,
    /// The schema file in force, if there is one: what its policies decide is no conflict.
    pub schema: Option<String>,
    /// What is asked.
    pub question: Question,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// What is open?
    List,
    /// What is there to see of this one?
    Show(ConflictId),
    /// How is this decided?
    Decide(Order),
    /// How is this decided otherwise, which was decided before?
    DecideAgain(Order),
}

/// A decision that is to be made into a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// On which conflict.
    pub conflict: ConflictId,
    /// The slot that it was about, if that is known: what is open there now is its successor.
    pub slot: Option<String>,
    /// What was decided.
    pub decision: Decision,
    /// The actor of the change: one that made no change of the document yet.
    pub actor: Vec<u8>,
    /// The time of the change, in seconds since 1970.
    pub time_s: i64,
}

/// What somebody decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// What is to be there.
    pub choice: Wanted,
    /// Why, for those who look later.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// What this side wants, by its number from 1.
    Side(usize),
    /// What was there before.
    Before,
    /// What is shown until somebody decides.
    Now,
    /// This.
    Value(Json),
    /// Nothing.
    Delete,
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::List`]: the first [`LISTED_MAX`], how many more there are, and the changes
    /// with which policies decided others, as chunks that are to be stored.
    Listed {
        /// Open ones.
        open: Vec<Summary>,
        /// How many more.
        more: usize,
        /// What was decided: under which policy, with which change.
        settled: Vec<(String, Vec<u8>)>,
    },
    /// To [`Question::Show`].
    Shown(Box<View>),
    /// To [`Question::Decide`]: the change that is to be stored, as a chunk.
    Decided(Vec<u8>),
    /// There is no such conflict, or not any more; what is open in its place now, if that is
    /// known.
    NotOpen(Option<ConflictId>),
    /// The decision cannot be written, for a reason that is the asker's.
    Refused(String),
}

/// No answer can be given.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// See [`Unreadable`].
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// See [`JsonError`].
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The schema is none.
    #[error(transparent)]
    Schema(#[from] SchemaErrors),
    /// No document has such a name.
    #[error("{0:?} is not the id of a document")]
    Document(String),
}

/// Answers a question about a document that is open here.
///
/// # Errors
/// [`DeskError`].
pub fn answer(doc: &mut Automerge, asked: &Asked) -> Result<Answer, DeskError> {
    let document: DocumentId =
        asked.document.parse().map_err(|_| DeskError::Document(asked.document.clone()))?;
    let look = |doc: &Automerge| Detector::of(&doc.get_changes(&[]));
    match &asked.question {
        Question::List => {
            let schema = asked.schema.as_deref().map(Schema::parse).transpose()?;
            let mut detector = look(doc)?;
            let settled = match &schema {
                Some(schema) => settle(doc, &mut detector, &document, schema),
                None => Vec::new(),
            };
            let open = detector.open(&document);
            let shown = open.iter().take(LISTED_MAX);
            let listed = shown.map(|conflict| Summary::of(doc, &document, conflict)).collect();
            let settled = settled.into_iter().map(|made| (made.policy, made.bytes)).collect();
            let more = open.len().saturating_sub(LISTED_MAX);
            Ok(Answer::Listed { open: listed, more, settled })
        }
        Question::Show(id) => {
            let open = look(doc)?.open(&document);
            match open.iter().find(|conflict| conflict.id == *id) {
                Some(conflict) => Ok(Answer::Shown(Box::new(View::of(doc, &document, conflict)?))),
                None => Ok(Answer::NotOpen(None)),
            }
        }
        // On what is stored, and not on what policies have yet to decide.
        Question::Decide(order) => decide(doc, &look(doc)?.open(&document), order),
        Question::DecideAgain(order) => decide_again(doc, &document, order),
    }
}

fn decide_again(
    doc: &mut Automerge,
    document: &DocumentId,
    order: &Order,
) -> Result<Answer, DeskError> {
    let (_, conflict, then) = match history::decided(doc, document, order.conflict) {
        Ok(found) => found,
        Err(NotAgain::Unreadable(error)) => return Err(error.into()),
        Err(NotAgain::NotDecided(_)) => return Ok(Answer::NotOpen(None)),
        Err(error) => return Ok(Answer::Refused(error.to_string())),
    };
    let Some(choice) = choice(&order.decision.choice, &conflict)? else {
        return Ok(Answer::Refused(FROM_ONE.to_owned()));
    };
    let reason = order.decision.reason.clone();
    match Resolution::again(doc, &then, &conflict, &choice, reason) {
        Ok(resolution) => Ok(written(doc, &resolution, order)),
        Err(refused) => Ok(Answer::Refused(refused.to_string())),
    }
}

const FROM_ONE: &str = "sides have numbers from 1";

/// What is wanted; `None` for a side that nobody has.
fn choice(wanted: &Wanted, conflict: &Conflict) -> Result<Option<Choice>, JsonError> {
    Ok(Some(match wanted {
        Wanted::Side(0) => return Ok(None),
        Wanted::Side(number) => Choice::Side(number - 1),
        Wanted::Before => Choice::Before,
        Wanted::Now => Choice::Now,
        Wanted::Delete => Choice::Other(Content::Nothing),
        Wanted::Value(value) => Choice::value(value.clone(), conflict)?,
    }))
}

fn decide(doc: &mut Automerge, open: &[Conflict], order: &Order) -> Result<Answer, DeskError> {
    let Some(conflict) = open.iter().find(|conflict| conflict.id == order.conflict) else {
        let in_slot = |slot: &String| open.iter().find(|conflict| conflict.place.digest() == *slot);
        let successor = order.slot.as_ref().and_then(in_slot);
        return Ok(Answer::NotOpen(successor.map(|conflict| conflict.id)));
    };
    let Some(choice) = choice(&order.decision.choice, conflict)? else {
        return Ok(Answer::Refused(FROM_ONE.to_owned()));
    };
    match Resolution::prepare(doc, conflict, &choice, order.decision.reason.clone()) {
        Ok(resolution) => Ok(written(doc, &resolution, order)),
        Err(refused) => Ok(Answer::Refused(refused.to_string())),
    }
}

/// Writes a decision.
fn written(doc: &mut Automerge, resolution: &Resolution, order: &Order) -> Answer {
    doc.set_actor(ActorId::from(order.actor.as_slice()));
    let options =
        || CommitOptions::default().with_message(resolution.message()).with_time(order.time_s);
    let mut tx = doc.transaction();
    if let Err(error) = resolution.write(&mut tx) {
        tx.rollback();
        return Answer::Refused(error.to_string());
    }
    let (written, _) = tx.commit_with(options());
    let hash = written.unwrap_or_else(|| doc.empty_commit(options()));
    doc.get_change_by_hash(&hash)
        .map_or(Answer::NotOpen(None), |change| Answer::Decided(bytes(change)))
}

fn bytes(mut change: Change) -> Vec<u8> {
    change.bytes().into_owned()
}
