//! Who looks after conflicts, for the program that has the peer: the review document, which is here
//! whether or not a relay can be reached, and goes to everybody as every other.

use std::collections::BTreeMap;

use automerge::{Automerge, transaction::Transaction};
use bytes::Bytes;

use super::{ChangeError, Document, EntityError, FindError, Peer, entity::TENANT};
use crate::{
    history,
    review::{
        ConflictId,
        triage::{
            self, Act, Entry, Refused, Standing, Triage, lacking, review_document_id, standings,
        },
    },
};

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
    /// The document that says who looks after which conflicts; watch it to be told. What is not
    /// stored here begins here and now, alike for everybody, without waiting for anybody.
    ///
    /// # Errors
    /// [`EntityError`].
    pub async fn review_document(&self) -> Result<Document, EntityError> {
        let document = self.hold(&review_document_id(TENANT));
        let is_there = self.known(&document).await?;
        let lacking = if is_there { document.read(lacking)? } else { lacking(&Automerge::new()) };
        let begin = |source| EntityError::Begin { type_name: "concord:review".to_owned(), source };
        if let Some(change) = lacking.map_err(begin)? {
            document.adopt(vec![Bytes::copy_from_slice(change.raw_bytes())]).await?;
        }
        Ok(document)
    }

    /// Who looks after a conflict, and what was said about it.
    ///
    /// # Errors
    /// [`TriageError::Open`] and [`TriageError::Find`].
    pub async fn triage(&self, conflict: ConflictId) -> Result<Triage, TriageError> {
        let document = self.review_document().await?;
        Ok(document.read(|doc| triage::read(doc, conflict))?)
    }

    /// Who looks after which conflicts, in a few words. Some of them may not be open any more.
    ///
    /// # Errors
    /// As [`Peer::triage`].
    pub async fn triages(&self) -> Result<BTreeMap<ConflictId, Standing>, TriageError> {
        let document = self.review_document().await?;
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
        let heads = document.read(|doc| {
            let times = doc
                .get_heads()
                .into_iter()
                .filter_map(|head| Some(doc.get_change_meta_by_hash(&head)?.timestamp));
            times.collect::<Vec<i64>>()
        })?;
        let time_s = history::change_time(now, heads);
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
