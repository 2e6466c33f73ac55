//! Who looks after a conflict, and what they say of it: claims, an assignee, comments, and whether
//! it is put off or dismissed.
//!
//! All of it is in one document of the tenant, the *review document*, which replicates as every
//! other: whoever has it, offline too, has the same. It is a set of *notes*, each of which is
//! written once, under a key that nobody else writes, and can only be taken away again by somebody
//! who has seen it. So there is nothing in it that two people could disagree on: what is shown is
//! worked out from the notes that are there, and whoever has the same notes sees the same.
//!
//! A note is a string in the map `notes` of the document, JSON with `who`, `at` (seconds since 1970)
//! and what belongs to it (`text`, `to`, `until`). Its key is the conflict's id, a blank, a letter
//! (`a`ssign, `c`laim, `t`ext, `d`ismiss, `s`nooze), a blank, and 32 hexadecimal digits that were
//! drawn for it.
//!
//! Two who claim one conflict, not knowing of each other, have both claimed it. The one who did so
//! first by the clock holds it, and of two at the same second the one whose note has the lesser key;
//! the others are named beside them, to everybody ([`Triage::claims`]). Of other notes that say
//! otherwise the latest counts.
//!
//! Notes of a conflict that is open no longer are taken away by a relay that knows of all documents,
//! after [`FORGET_AFTER_S`]; what was said stays in the history of the document.
//!
//! What is read is what strangers may have written: it is bounded, and what is no note is passed
//! over.

pub mod desk;
mod document;
mod note;
mod read;
mod write;

use serde::{Deserialize, Serialize};

use super::{View, suggest::Suggestion};

pub use self::{
    document::{begin, is_review_document, lacking, review_document_id},
    read::{read, standings},
    write::{Entry, Refused, forget, write},
};

/// Bytes of a comment, or of a reason: a page of text.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Comments on one conflict; whoever has more to say writes a document.
pub const COMMENTS_MAX: usize = 200;
/// Notes of one kind on one conflict that are looked at: more than the writers here make.
const NOTES_MAX: usize = COMMENTS_MAX + 56;
/// Conflicts that are told of at once.
pub const STANDINGS_MAX: usize = 50_000;
/// Notes of a conflict that is open no longer are kept so long, in seconds: 30 days.
pub const FORGET_AFTER_S: i64 = 30 * 86_400;
/// The last second that can be written: the end of the year 9999.
const TIME_S_MAX: i64 = 253_402_300_799;

/// What somebody does about a conflict, without deciding it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Look after it.
    Claim {
        /// Also where somebody else does, who then does not any more.
        take: bool,
    },
    /// Look after it no more.
    Release,
    /// Say who should look after it; `None` for nobody.
    Assign(Option<String>),
    /// Say something about it.
    Comment(String),
    /// Put it off until then, in seconds since 1970.
    Snooze(i64),
    /// Say that it needs no decision, and why.
    Dismiss(Option<String>),
    /// It is neither put off nor dismissed any more.
    Reopen,
}

impl Act {
    /// Its name, for programs and for the history.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Claim { .. } => "claim",
            Self::Release => "release",
            Self::Assign(_) => "assign",
            Self::Comment(_) => "comment",
            Self::Snooze(_) => "snooze",
            Self::Dismiss(_) => "dismiss",
            Self::Reopen => "reopen",
        }
    }
}

/// Somebody who looks after a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who.
    pub who: String,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

/// Who should look after a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Who should.
    pub to: String,
    /// Who said so.
    pub who: String,
    /// When, in seconds since 1970.
    pub time: i64,
}

/// What somebody said about a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// Who.
    pub who: String,
    /// When, in seconds since 1970.
    pub time: i64,
    /// What.
    pub text: String,
}

/// Until when a conflict is put off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snooze {
    /// Until then, in seconds since 1970.
    pub until: i64,
    /// Who put it off.
    pub who: String,
    /// When, in seconds since 1970.
    pub time: i64,
}

/// That a conflict needs no decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dismissal {
    /// Who says so.
    pub who: String,
    /// When, in seconds since 1970.
    pub time: i64,
    /// Why, if a reason was given.
    pub why: Option<String>,
}

/// All that is known about who looks after a conflict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triage {
    /// Who claimed it. The first holds it; others did so not knowing of that.
    pub claims: Vec<Claim>,
    /// Who should look after it.
    pub assigned: Option<Assignment>,
    /// Until when it was put off, which may be over.
    pub snoozed: Option<Snooze>,
    /// Who dismissed it.
    pub dismissed: Option<Dismissal>,
    /// What was said, the earliest first.
    pub comments: Vec<Comment>,
}

/// The same in a few words, for lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Who claimed it; the first holds it.
    pub claimed_by: Vec<String>,
    /// Who should look after it.
    pub assignee: Option<String>,
    /// Until when it was put off, in seconds since 1970, which may be over.
    pub snoozed_until: Option<i64>,
    /// Whether it was dismissed.
    pub dismissed: bool,
    /// How many comments there are.
    pub comments: usize,
}

/// How it stands with a conflict that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody looks after it.
    Open,
    /// Somebody does.
    Claimed,
    /// It is put off.
    Snoozed,
    /// It needs no decision.
    Dismissed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Claimed, Self::Snoozed, Self::Dismissed];

    /// Its name, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed => "claimed",
            Self::Snoozed => "snoozed",
            Self::Dismissed => "dismissed",
        }
    }

    /// Whether somebody has yet to do something about it.
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Open | Self::Claimed)
    }
}

impl Triage {
    /// Who looks after it.
    pub fn holder(&self) -> Option<&str> {
        self.claims.first().map(|claim| claim.who.as_str())
    }

    /// How it stands at this time, in seconds since 1970.
    pub fn state(&self, now_s: i64) -> State {
        self.standing().state(now_s)
    }

    /// In a few words.
    pub fn standing(&self) -> Standing {
        Standing {
            claimed_by: self.claims.iter().map(|claim| claim.who.clone()).collect(),
            assignee: self.assigned.as_ref().map(|assigned| assigned.to.clone()),
            snoozed_until: self.snoozed.as_ref().map(|snoozed| snoozed.until),
            dismissed: self.dismissed.is_some(),
            comments: self.comments.len(),
        }
    }
}

/// A conflict with all that is shown of it, and who looks after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// What it is.
    #[serde(flatten)]
    pub view: View,
    /// How it stands.
    pub state: State,
    /// Who looks after it, and what they say.
    pub triage: Triage,
    /// What people chose of conflicts like it.
    #[serde(default)]
    pub suggestion: Option<Suggestion>,
}

impl Shown {
    /// What there is to show at this time, in seconds since 1970.
    pub fn of(view: View, triage: Triage, now_s: i64) -> Self {
        Self { view, state: triage.state(now_s), triage, suggestion: None }
    }
}

impl Standing {
    /// How it stands at this time, in seconds since 1970.
    pub fn state(&self, now_s: i64) -> State {
        if self.dismissed {
            State::Dismissed
        } else if self.snoozed_until.is_some_and(|until| until > now_s) {
            State::Snoozed
        } else if self.claimed_by.is_empty() {
            State::Open
        } else {
            State::Claimed
        }
    }
}
