//! What must be true, known from outside: who wrote what, what was promised to whom.

use std::collections::BTreeMap;

use concord::review::{ConflictId, Place};
use concord_protocol::{ChangeHash, RefuseCode};

use crate::{
    opaque::{ByHash, Hashes},
    tenure::Tenures,
};

/// A rule of the project, as a number in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// After the calm, all replicas that hold a document have the same of it.
    Convergence,
    /// What was promised to be on disk is on disk, whatever happened to the power.
    Durability,
    /// What a user wrote is there at the end, or its user was told that it is not.
    NoSilentLoss,
    /// Nothing is applied, answered or shown twice; presence never goes backward.
    AtMostOnce,
    /// Once all is the same everywhere, nobody says anything.
    Quiescence,
    /// A lease has at most one holder whose relay considers it valid, and its fences go up.
    OneLease,
    /// Nothing grows beyond its limit.
    Bounds,
    /// No document waits for ever, whatever became of another.
    Progress,
    /// An edit waits for its own disk and for nothing else.
    LocalFirst,
    /// No code of ours panics.
    NoPanic,
}

impl Invariant {
    /// Its name on the command line and in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Convergence => "convergence",
            Self::Durability => "durability",
            Self::NoSilentLoss => "no-silent-loss",
            Self::AtMostOnce => "at-most-once",
            Self::Quiescence => "quiescence",
            Self::OneLease => "one-lease",
            Self::Bounds => "bounds",
            Self::Progress => "progress",
            Self::LocalFirst => "local-first",
            Self::NoPanic => "no-panic",
        }
    }
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub invariant: Invariant,
    /// When, in milliseconds of the world.
    pub at_ms: u64,
    /// How.
    pub detail: String,
}

/// What became of a change that a user made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The call has not returned.
    Pending,
    /// The call returned: it is on the user's disk.
    Promised,
    /// The user was told that it was not taken.
    Refused,
    /// The process ended before the call returned: it may be there or not.
    Unknown,
    /// Its user took it out of the document; what it was is kept beside that.
    TakenOut,
    /// It was made behind one that its user took out, and is there under another name.
    WrittenAgain,
}

/// One change that a user made.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// In which document.
    pub document: u8,
    /// Which user.
    pub peer: u8,
    /// What became of it.
    pub fate: Fate,
    /// It was not on the user's disk any more when the user was told that the disk is damaged.
    pub is_mourned: bool,
}

/// What a user decided.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    /// In which document.
    pub(crate) document: u8,
    /// The change that says so.
    pub(crate) change: ChangeHash,
    /// On which conflict.
    pub(crate) conflict: ConflictId,
    /// Where that was.
    pub(crate) place: Place,
}

/// What users wrote, and what was promised.
#[derive(Debug, Default)]
pub struct Ledger {
    written: ByHash<ChangeHash, Written>,
    /// In the order of writing.
    order: Vec<ChangeHash>,
    added: Vec<(u8, ChangeHash, i64)>,
    /// What users took out of documents: at which node, of which document.
    pub(crate) letters: Vec<(usize, u8, ChangeHash)>,
    /// Changes that a narrow relay does not take.
    large: Hashes,
    /// What users decided.
    pub(crate) decisions: Vec<Decision>,
    /// Documents that a stranger may have spoiled: of those less is asked.
    pub attacked: u32,
    /// What relays said of leases.
    pub(crate) tenures: Tenures,
    /// Promises by the node that made them.
    named: BTreeMap<usize, ByHash<ChangeHash, u8>>,
}

impl Ledger {
    /// A user made a change.
    pub fn wrote(&mut self, hash: ChangeHash, document: u8, peer: u8) {
        self.written
            .insert(hash, Written { document, peer, fate: Fate::Pending, is_mourned: false });
        self.order.push(hash);
    }

    /// A change added so much to its document's counter.
    pub fn added(&mut self, hash: ChangeHash, document: u8, by: i64) {
        if by != 0 {
            self.added.push((document, hash, by));
        }
    }

    /// What these changes added to the counter of a document, together.
    pub(crate) fn sum(&self, document: u8, changes: &Hashes) -> i64 {
        let among =
            self.added.iter().filter(|(of, hash, _)| *of == document && changes.contains(hash));
        among.map(|(_, _, by)| by).sum()
    }

    /// A change is more than a narrow relay takes.
    pub(crate) fn is_large(&mut self, hash: ChangeHash) {
        self.large.insert(hash);
    }

    /// Whether a narrow relay may refuse a change of this user, which builds on a large one if it is
    /// none itself.
    pub(crate) fn may_be_refused(&self, hash: &ChangeHash, code: RefuseCode) -> bool {
        let Some(written) = self.written.get(hash) else { return false };
        let same = |other: &ChangeHash| {
            let other = self.written.get(other);
            other.is_some_and(|o| (o.peer, o.document) == (written.peer, written.document))
        };
        match code {
            // A change that is small deflated is large as it comes out of a snapshot.
            RefuseCode::Malformed | RefuseCode::OutOfSequence => self.large.iter().any(same),
            _ => false,
        }
    }

    /// Whether a change is more than a narrow relay takes.
    pub(crate) fn was_large(&self, hash: &ChangeHash) -> bool {
        self.large.contains(hash)
    }

    /// Its user took a change out of a document at this node.
    pub(crate) fn took_out(&mut self, node: usize, hash: ChangeHash) {
        if let Some(written) = self.written.get_mut(&hash) {
            written.fate = Fate::TakenOut;
        }
        self.decisions.retain(|decision| decision.change != hash);
        self.unnamed(node, &hash);
    }

    /// A change that was made behind one that was taken out has another name now.
    pub(crate) fn wrote_again(&mut self, node: usize, was: ChangeHash, now: ChangeHash) {
        let Some(written) = self.written.get_mut(&was) else { return };
        let again = *written;
        written.fate = Fate::WrittenAgain;
        self.written.insert(now, again);
        self.order.push(now);
        let added = self.added.iter().find(|(_, hash, _)| *hash == was).copied();
        self.added.extend(added.map(|(document, _, by)| (document, now, by)));
        if self.large.contains(&was) {
            self.large.insert(now);
        }
        let decisions = self.decisions.iter_mut().filter(|decision| decision.change == was);
        decisions.for_each(|decision| decision.change = now);
        self.unnamed(node, &was);
    }

    /// What a node named it does not have any more, by its user's will.
    fn unnamed(&mut self, node: usize, hash: &ChangeHash) {
        if let Some(named) = self.named.get_mut(&node) {
            named.remove(hash);
        }
    }

    /// What became of it.
    pub fn settle(&mut self, hash: ChangeHash, fate: Fate) {
        if let Some(written) = self.written.get_mut(&hash)
            && (written.fate == Fate::Pending || fate == Fate::Refused)
        {
            written.fate = fate;
        }
    }

    /// The process of this user ended: calls that had not returned never will.
    pub fn cut_short(&mut self, peer: u8) {
        for written in self.written.values_mut() {
            if written.peer == peer && written.fate == Fate::Pending {
                written.fate = Fate::Unknown;
            }
        }
    }

    /// A user was told that a document is damaged on their disk, where this much is left of it:
    /// what they wrote and is not there may be lost.
    pub(crate) fn told(&mut self, peer: u8, document: u8, left: &Hashes) {
        for (hash, written) in &mut self.written {
            let theirs = written.peer == peer && written.document == document;
            written.is_mourned |= theirs && !left.contains(hash);
        }
    }

    /// Whether a user made it, and which.
    pub fn who(&self, hash: &ChangeHash) -> Option<Written> {
        self.written.get(hash).copied()
    }

    /// A node named these heads of a document to somebody. Says whether one is new.
    pub fn named(&mut self, node: usize, document: u8, heads: &[ChangeHash]) {
        let named = self.named.entry(node).or_default();
        for head in heads {
            named.insert(*head, document);
        }
    }

    /// What a node named of a document.
    pub fn names(&self, node: usize, document: u8) -> impl Iterator<Item = &ChangeHash> {
        let named = self.named.get(&node).into_iter().flatten();
        named.filter(move |(_, of)| **of == document).map(|(hash, _)| hash)
    }

    /// What it named no longer counts: its disk was damaged.
    pub fn forgive(&mut self, node: usize) {
        self.named.remove(&node);
    }

    /// Changes of a document that users made, in order of writing.
    pub fn written_in(&self, document: u8) -> impl Iterator<Item = ChangeHash> {
        self.order.iter().copied().filter(move |hash| {
            self.written.get(hash).is_some_and(|written| written.document == document)
        })
    }

    /// Changes of a document whose users were promised that they are kept and not told of damage
    /// since, in order of writing.
    pub fn promised(&self, document: u8) -> impl Iterator<Item = ChangeHash> {
        self.order.iter().copied().filter(move |hash| {
            self.written.get(hash).is_some_and(|w| {
                w.document == document && w.fate == Fate::Promised && !w.is_mourned
            })
        })
    }

    /// Changes whose calls have not returned though their process goes on.
    pub fn pending(&self) -> impl Iterator<Item = (ChangeHash, Written)> {
        self.order.iter().filter_map(|hash| {
            let written = *self.written.get(hash)?;
            (written.fate == Fate::Pending).then_some((*hash, written))
        })
    }

    /// How many changes users made.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nobody wrote anything.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
