//! Who looks after conflicts, for the program that has the peer: the review document, which is here
//! whether or not a relay can be reached, and goes to everybody as every other.

use std::{collections::BTreeMap, time::Duration};

use automerge::{Automerge, transaction::Transaction};
use bytes::Bytes;
use concord_protocol::DocumentId;

use super::{ChangeError, Document, EntityError, FindError, Peer, edit::times_of};
use crate::{
    entity::{Level, TENANT},
    history,
    review::{
        ConflictId,
        triage::{
            self, Act, Entry, Refused, Standing, Triage, lacking, review_document_id, standings,
        },
    },
};

/// Milliseconds for which a relay that is connected is asked for the review document.
const ASK_MS: u64 = 1_000;

/// Nothing was done about a conflict, or it is not known who looks after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TriageError {
    /// The review document cannot be opened.
    #[error(transparent)]
    Open(#[from] EntityError),
    /// The review document cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Nobody knows who does it.
    #[error("say who you are: nobody can look after a conflict without a name")]
    NoAuthor,
    /// It is not done.
    #[error(transparent)]
    Refused(Refused),
    /// What was done is not on disk.
    #[error(transparent)]
    Change(ChangeError),
}

impl Peer {
    /// The id of the review document: it is the same for everybody.
    pub fn review_document_id(&self) -> DocumentId {
        review_document_id(TENANT)
    }

    /// The document that says who looks after which conflicts; watch it to be told. What is not
    /// stored here begins here and now, alike for everybody, without waiting for anybody. Whoever
    /// only reads it need not begin it: see [`Peer::triage`].
    ///
    /// # Errors
    /// [`EntityError`].
    pub async fn review_document(&self) -> Result<Document, EntityError> {
        let document = self.hold(&self.review_document_id());
        let is_there = self.known(&document).await?;
        let lacking = if is_there { document.read(lacking)? } else { lacking(&Automerge::new()) };
        let begin = |source| EntityError::Begin { type_name: "concord:review".to_owned(), source };
        if let Some(change) = lacking.map_err(begin)? {
            let change = Bytes::copy_from_slice(change.raw_bytes());
            document.adopt(vec![change], Level::NORMAL).await?;
        }
        Ok(document)
    }

    /// The same if it is stored here, or a relay that is connected has it.
    pub(super) async fn review_document_here(&self) -> Result<Option<Document>, FindError> {
        let id = self.review_document_id();
        let document = self.hold(&id);
        if self.known(&document).await? {
            return Ok(Some(document));
        }
        // A relay that is there says at once whether it has it; else nobody waits.
        if !self.status().borrow().is_online() {
            return Ok(None);
        }
        match self.find_within(id.as_str(), Duration::from_millis(ASK_MS)).await {
            Ok(document) => Ok(Some(document)),
            Err(FindError::Closed) => Err(FindError::Closed),
            Err(_) => Ok(None),
        }
    }

    /// Who looks after a conflict, and what was said about it, as far as that is known here.
    ///
    /// # Errors
    /// [`TriageError::Find`].
    pub async fn triage(&self, conflict: ConflictId) -> Result<Triage, TriageError> {
        Ok(self.triage_of(&[conflict]).await?.pop().unwrap_or_default())
    }

    /// The same of several conflicts, in their order.
    ///
    /// # Errors
    /// [`TriageError::Find`].
    pub async fn triage_of(&self, conflicts: &[ConflictId]) -> Result<Vec<Triage>, TriageError> {
        let Some(document) = self.review_document_here().await? else {
            return Ok(vec![Triage::default(); conflicts.len()]);
        };
        let read = |doc: &Automerge| conflicts.iter().map(|id| triage::read(doc, *id)).collect();
        Ok(document.read(read)?)
    }

    /// Who looks after which conflicts, in a few words. Some of them may not be open any more.
    ///
    /// # Errors
    /// As [`Peer::triage`].
    pub async fn triages(&self) -> Result<BTreeMap<ConflictId, Standing>, TriageError> {
        let Some(document) = self.review_document_here().await? else { return Ok(BTreeMap::new()) };
        let found = document.read(standings)?;
        Ok(found.into_iter().map(|(id, (standing, _))| (id, standing)).collect())
    }

    /// Does something about a conflict without deciding it, in the name of
    /// [`PeerBuilder::author`](super::PeerBuilder::author): claims it, says something about it, puts
    /// it off. It is on disk when this returns. Gives what there is to say about the conflict then.
    ///
    /// # Errors
    /// [`TriageError`]; [`TriageError::NoAuthor`] for a peer without a name.
    pub async fn act(&self, conflict: ConflictId, act: &Act) -> Result<Triage, TriageError> {
        let who = self.0.author.as_deref().ok_or(TriageError::NoAuthor)?;
        let document = self.review_document().await?;
        let home = &document.held().home;
        let (now, unique) = (home.seconds(), home.fresh());
        let times = document.read(|doc| times_of(doc, &doc.get_heads()))?;
        let time_s = history::change_time(now, times);
        let entry = Entry { conflict, act, who, time_s, unique };
        let write = |tx: &mut Transaction<'_>| Ok(triage::write(tx, &entry)?);
        let written = document.change_with(Some(&entry.message()), write).await;
        written.map_err(|error| match error {
            ChangeError::Edit(error) => match error.downcast::<Refused>() {
                Ok(refused) => TriageError::Refused(*refused),
                Err(error) => TriageError::Change(ChangeError::Edit(error)),
            },
            other => TriageError::Change(other),
        })?;
        Ok(document.read(|doc| triage::read(doc, conflict))?)
    }
}
