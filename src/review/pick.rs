//! From what somebody wants to a choice: which side that is, where it is said by time or by author.

use automerge::Automerge;

use super::{Choice, Conflict, Content, Side, desk::Wanted, look::latest};

/// What somebody wants cannot be chosen of a conflict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoChoice {
    /// Sides have numbers from 1.
    #[error("sides have numbers from 1")]
    Zero,
    /// Nobody of this name has a side, or has one alone.
    #[error("{author} has {sides} of the sides, and not one")]
    Author {
        /// Who.
        author: String,
        /// How many sides are theirs.
        sides: usize,
    },
    /// What was given is no value.
    #[error(transparent)]
    Json(#[from] crate::json::JsonError),
}

impl Wanted {
    /// What is wanted of a conflict of this document.
    ///
    /// # Errors
    /// [`NoChoice`].
    pub fn choice(&self, doc: &Automerge, conflict: &Conflict) -> Result<Choice, NoChoice> {
        Ok(match self {
            Self::Side(0) => return Err(NoChoice::Zero),
            Self::Side(number) => Choice::Side(number - 1),
            Self::Latest => Choice::Side(latest_side(doc, conflict)),
            Self::Author(author) => Choice::Side(side_of(doc, conflict, author)?),
            Self::Before => Choice::Before,
            Self::Now => Choice::Now,
            Self::Delete => Choice::Other(Content::Nothing),
            Self::Value(value) => Choice::value(value.clone(), conflict)?,
        })
    }
}

/// The side that was written last: by the clock, then by the order that automerge knows.
pub(super) fn latest_side(doc: &Automerge, conflict: &Conflict) -> usize {
    let moment = |side: &Side| {
        let operation = |name: &String| {
            let (counter, actor) = name.split_once('@').unwrap_or((name, ""));
            (counter.parse::<u64>().unwrap_or_default(), actor.to_owned())
        };
        let last = side.operations.iter().map(operation).max();
        (latest(doc, &side.changes), last, side.changes.iter().max().copied())
    };
    let last = (conflict.sides.iter().enumerate()).max_by_key(|(_, side)| moment(side));
    last.map_or(0, |(number, _)| number)
}

/// The only side that this author has a part in.
fn side_of(doc: &Automerge, conflict: &Conflict, author: &str) -> Result<usize, NoChoice> {
    let is_theirs = |side: &Side| side.who(doc).iter().any(|who| who.name() == author);
    let mut theirs =
        (conflict.sides.iter().enumerate()).filter(|(_, side)| is_theirs(side)).map(|(n, _)| n);
    match (theirs.next(), theirs.count()) {
        (Some(one), 0) => Ok(one),
        (first, others) => {
            let sides = others + usize::from(first.is_some());
            Err(NoChoice::Author { author: author.to_owned(), sides })
        }
    }
}
