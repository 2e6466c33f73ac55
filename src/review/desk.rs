//! Questions about the conflicts of a document, for whoever cannot open it where it is asked: the
//! question goes to where it can be opened, and an answer comes back.

use automerge::{ActorId, Automerge};
use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{
    Choice, Conflict, ConflictId, Expires, Facts, Follower, NoChoice, NotAgain, Resolution,
    Summary, Unreadable, View,
    bulk::{BulkId, Preview},
    history, open,
    suggest::{self, Chosen, Likeness},
    summary::shortened,
    triage,
};
use crate::{
    entity::{Attachment, ROOT_KEY, Schema, SchemaErrors, type_name},
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
    /// What did people choose? Takes much longer than the other questions.
    Chosen,
    /// What would become of these?
    Preview {
        /// Which.
        conflicts: Vec<ConflictId>,
        /// What is wanted.
        wanted: Wanted,
    },
    /// How is this written that is decided between documents?
    Write(Writing),
    /// Of the review document: who looks after conflicts?
    Triage(triage::desk::Question),
}

/// A part of a decision between documents that is to be made into a change of this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Writing {
    /// On which conflict.
    pub conflict: ConflictId,
    /// What was chosen, in a word.
    pub choice: String,
    /// Why, for those who look later.
    pub reason: Option<String>,
    /// What is to be at which keys of the document; `null` for nothing.
    pub fields: Map<String, Json>,
    /// A key of the document in which a document is not to be referred to any more.
    pub without: Option<(String, String)>,
    /// Whose change it is: bytes that nobody else uses.
    pub actor: Vec<u8>,
    /// When, in seconds since 1970.
    pub time_s: i64,
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
    /// What it is decided together with. If it was decided before: only as a part of that.
    #[serde(default)]
    pub bulk: Option<BulkId>,
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
    /// What the side wants that was written last.
    Latest,
    /// What the only side wants that this author has a part in.
    Author(String),
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
        /// What it says that concerns other documents, if it is an entity.
        facts: Option<Facts>,
        /// What was decided: under which policy, of which code, with which change.
        settled: Vec<(String, String, Vec<u8>)>,
        /// Decisions that stand and were made together with others, the last [`LISTED_MAX`].
        #[serde(default)]
        bulks: Vec<(BulkId, ConflictId)>,
        /// Which decisions stand, in a word: what [`Question::Chosen`] says is the same while this
        /// is. `None` if there are none.
        #[serde(default)]
        decisions: Option<String>,
        /// When it may be purged, if it is deleted, nothing is open in it, and its type says so.
        #[serde(default)]
        expires: Option<Expires>,
        /// The attachments that it names.
        #[serde(default)]
        attachments: Vec<String>,
    },
    /// To [`Question::Chosen`].
    Chosen(Vec<Chosen>),
    /// To [`Question::Preview`].
    Previewed(Vec<Preview>),
    /// To [`Question::Show`].
    Shown {
        /// It.
        view: Box<View>,
        /// What it is about, for suggestions.
        likeness: Option<Likeness>,
    },
    /// To [`Question::Decide`]: the change that is to be stored, as a chunk.
    Decided(Vec<u8>),
    /// There is no such conflict, or not any more; what is open in its place now, if that is
    /// known.
    NotOpen(Option<ConflictId>),
    /// The decision cannot be written, for a reason that is the asker's.
    Refused(String),
    /// To [`Question::Triage`].
    Triage(triage::desk::Answer),
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
    /// See the error of automerge.
    #[error(transparent)]
    Automerge(#[from] automerge::AutomergeError),
    /// No document has such a name.
    #[error("{0:?} is not the id of a document")]
    Document(String),
}

/// Answers a question about a document that is open here, and kept up with by this follower, which
/// may be new.
///
/// # Errors
/// [`DeskError`].
pub fn answer(
    doc: &mut Automerge,
    follower: &mut Follower,
    asked: &Asked,
) -> Result<Answer, DeskError> {
    let document: DocumentId =
        asked.document.parse().map_err(|_| DeskError::Document(asked.document.clone()))?;
    let schema = asked.schema.as_deref().map(Schema::parse).transpose()?;
    let schema = schema.as_ref();
    let root_key = schema.map_or(ROOT_KEY, |schema| &schema.root_key);
    follower.take_in(follower.news(doc))?;
    let find = |doc: &Automerge| open(doc, follower.detector(), &document, schema);
    match &asked.question {
        Question::List => {
            let settled = match schema {
                Some(schema) => follower.settle(doc, &document, schema),
                None => Vec::new(),
            };
            let open = open(doc, follower.detector(), &document, schema);
            let of = schema.and_then(|schema| schema.recognise(&*doc));
            // Not before what was just decided is stored, and looked at.
            let expires = of.filter(|_| settled.is_empty());
            let expires = expires.and_then(|of| Expires::of(doc, of));
            let shown = open.iter().take(LISTED_MAX);
            let of_type = type_name(doc, root_key, None);
            let summary = |conflict| Summary::of(doc, &document, of_type.as_deref(), conflict);
            let listed = shown.map(summary).collect();
            let decisions = history::seen(doc, follower.detector());
            let bulks = history::bulks(decisions.clone(), LISTED_MAX);
            let decisions = suggest::mark(doc, decisions);
            let settled = settled.into_iter();
            let settled =
                settled.map(|made| (made.policy, made.code.to_string(), made.bytes)).collect();
            let more = open.len().saturating_sub(LISTED_MAX);
            let facts = of.map(|of| Facts::of(doc, follower.detector(), of));
            let attachments = Attachment::all_in(doc).iter().map(ToString::to_string).collect();
            Ok(Answer::Listed {
                open: listed,
                more,
                facts,
                settled,
                bulks,
                decisions,
                expires,
                attachments,
            })
        }
        Question::Show(id) => match find(doc).iter().find(|conflict| conflict.id == *id) {
            Some(conflict) => {
                let of = type_name(doc, root_key, None);
                let likeness = Likeness::of(doc, of.as_deref(), conflict);
                let view = Box::new(View::of(doc, &document, conflict)?);
                Ok(Answer::Shown { view, likeness })
            }
            None => Ok(Answer::NotOpen(None)),
        },
        Question::Chosen => {
            let of = type_name(doc, root_key, None);
            Ok(Answer::Chosen(suggest::chosen(doc, &document, schema, of.as_deref())))
        }
        Question::Preview { conflicts, wanted } => {
            let open = find(doc);
            let preview = |id: &ConflictId| preview(doc, &document, &open, *id, wanted);
            Ok(Answer::Previewed(conflicts.iter().map(preview).collect()))
        }
        // On what is stored, and not on what policies have yet to decide.
        Question::Decide(order) => {
            let open = find(doc);
            decide(doc, &open, order)
        }
        Question::DecideAgain(order) => decide_again(doc, &document, schema, order),
        Question::Write(writing) => Ok(write(doc, schema, writing)),
        Question::Triage(question) => Ok(Answer::Triage(triage::desk::answer(doc, question)?)),
    }
}

fn decide(doc: &mut Automerge, open: &[Conflict], order: &Order) -> Result<Answer, DeskError> {
    let Some(conflict) = open.iter().find(|conflict| conflict.id == order.conflict) else {
        let in_slot = |slot: &String| open.iter().find(|conflict| conflict.place.digest() == *slot);
        let successor = order.slot.as_ref().and_then(in_slot);
        return Ok(Answer::NotOpen(successor.map(|conflict| conflict.id)));
    };
    carry_out(None, doc, conflict, order)
}

fn write(doc: &mut Automerge, schema: Option<&Schema>, writing: &Writing) -> Answer {
    let Writing { conflict, choice, reason, fields, without, actor, time_s } = writing;
    let without = without.as_ref().map(|(key, to)| (key.as_str(), to.as_str()));
    let resolution = Resolution::of_fields(doc, *conflict, choice, reason.clone(), fields, without);
    let resolution = match resolution {
        Ok(resolution) => resolution.under(doc, schema),
        Err(refused) => return Answer::Refused(refused.to_string()),
    };
    made(doc, &resolution, actor, *time_s)
}

fn decide_again(
    doc: &mut Automerge,
    document: &DocumentId,
    schema: Option<&Schema>,
    order: &Order,
) -> Result<Answer, DeskError> {
    if let Some(bulk) = order.bulk
        && !history::bulks(history::decisions(doc), usize::MAX).contains(&(bulk, order.conflict))
    {
        return Ok(Answer::Refused("somebody decided it otherwise since".to_owned()));
    }
    match history::decided(doc, document, schema, order.conflict) {
        Ok((conflict, then)) => carry_out(Some(&then), doc, &conflict, order),
        Err(NotAgain::Unreadable(error)) => Err(error.into()),
        Err(NotAgain::NotDecided(_)) => Ok(Answer::NotOpen(None)),
        // It was between documents.
        Err(NotAgain::NotFound(id)) if order.decision.choice == Wanted::Now => {
            match history::taken_back(doc, schema, id, order.decision.reason.clone()) {
                Ok(resolution) => Ok(made(doc, &resolution, &order.actor, order.time_s)),
                Err(error) => Ok(Answer::Refused(error.to_string())),
            }
        }
        Err(error) => Ok(Answer::Refused(error.to_string())),
    }
}

/// Makes the change of a decision on a conflict that is open, or was `then`.
fn carry_out(
    then: Option<&Automerge>,
    doc: &mut Automerge,
    conflict: &Conflict,
    order: &Order,
) -> Result<Answer, DeskError> {
    // It is decided in what is there now, and chosen of what was there when it was open.
    let choice = match order.decision.choice.choice(then.unwrap_or(doc), conflict) {
        Ok(choice) => choice,
        Err(NoChoice::Json(error)) => return Err(error.into()),
        Err(error) => return Ok(Answer::Refused(error.to_string())),
    };
    let reason = order.decision.reason.clone();
    let resolution = match Resolution::since(then, doc, conflict, &choice, reason) {
        // What is taken back is no part of it any more.
        Ok(resolution) if then.is_none() => resolution.in_bulk(order.bulk),
        Ok(resolution) => resolution,
        Err(refused) => return Ok(Answer::Refused(refused.to_string())),
    };
    Ok(made(doc, &resolution, &order.actor, order.time_s))
}

/// Makes the change of a decision.
fn made(doc: &mut Automerge, resolution: &Resolution, actor: &[u8], time_s: i64) -> Answer {
    doc.set_actor(ActorId::from(actor));
    match resolution.commit(doc, &resolution.message(), time_s) {
        Ok(mut change) => Answer::Decided(change.bytes().into_owned()),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// What would become of a conflict.
fn preview(
    doc: &Automerge,
    document: &DocumentId,
    open: &[Conflict],
    id: ConflictId,
    wanted: &Wanted,
) -> Preview {
    let mut preview = Preview {
        id,
        document: document.as_str().to_owned(),
        path: None,
        becomes: None,
        refused: None,
    };
    let Some(conflict) = open.iter().find(|conflict| conflict.id == id) else {
        preview.refused = Some("it is not open any more".to_owned());
        return preview;
    };
    preview.path = conflict.path_text(doc).map(|path| shortened(&path));
    match becomes(doc, conflict, wanted) {
        Ok(becomes) => preview.becomes = becomes.map(|json| shortened(&json.to_string())),
        Err(reason) => preview.refused = Some(reason),
    }
    preview
}

/// What would be at the place of a conflict; an error is why it cannot be decided so.
///
/// # Errors
/// Why it cannot be decided so, in words.
pub fn becomes(
    doc: &Automerge,
    conflict: &Conflict,
    wanted: &Wanted,
) -> Result<Option<Json>, String> {
    let choice = wanted.choice(doc, conflict).map_err(|error| error.to_string())?;
    // What cannot be written is found out by preparing it.
    Resolution::prepare(doc, conflict, &choice, None).map_err(|refused| refused.to_string())?;
    let content = match choice {
        Choice::Side(number) => {
            let side =
                conflict.sides.get(number).ok_or_else(|| "there is no such side".to_owned())?;
            side.content(doc, &conflict.place)
        }
        Choice::Before => conflict.base(doc),
        Choice::Now => conflict.provisional(doc),
        Choice::Other(content) => Ok(content),
    };
    let content = content.map_err(|error| error.to_string())?;
    content.to_json().map_err(|error| error.to_string())
}
