//! Entities: documents of a declared type, opened by their key.

use automerge::{Automerge, Change};
use bytes::Bytes;
use concord_protocol::DocumentId;

use super::{ChangeError, Document, FindError, Peer, held::Phase};
use crate::entity::{self, EntityType};

/// An entity was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntityError {
    /// Its document cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// What it begins with is not on disk.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// What it begins with cannot be made.
    #[error("an entity of type `{type_name}` cannot be begun: {source}")]
    Begin {
        /// Of which type.
        type_name: String,
        /// What automerge says.
        source: automerge::AutomergeError,
    },
}

impl EntityError {
    pub(super) fn begin(of: &EntityType, source: automerge::AutomergeError) -> Self {
        Self::Begin { type_name: of.name.clone(), source }
    }
}

impl Peer {
    /// The document of the entity with this type and key, whether or not it is here, or anywhere.
    pub fn entity_id(&self, type_name: &str, key: &str) -> DocumentId {
        entity::entity_id(type_name, key)
    }

    /// The entity of this type with this key. It is the same document for everybody: what is not
    /// stored here begins here and now, without waiting for anybody, and whoever else begins it,
    /// offline too, begins it alike. What others wrote in it comes as with any document.
    ///
    /// Edit it with [`EntityType::edit`], or [`write::Writer`](crate::entity::write::Writer) and
    /// [`EntityType::validate_edit`], inside [`Document::change`].
    ///
    /// # Errors
    /// [`EntityError`].
    ///
    /// ```no_run
    /// # use concord::{entity::Schema, peer::Peer};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Task { title: String }
    /// # async fn example(peer: Peer, schema: Schema) -> Result<(), Box<dyn std::error::Error>> {
    /// let task = &schema.types["task"];
    /// let document = peer.entity(task, "2026-42").await?;
    /// let rename = |task: &mut Task| task.title.push_str(" (urgent)");
    /// document.change(|tx| Ok(task.edit(tx, rename)?)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn entity(&self, of: &EntityType, key: &str) -> Result<Document, EntityError> {
        let (document, is_there) = self.hold_entity(of, key).await?;
        self.complete(&document, is_there, of).await?;
        Ok(document)
    }

    /// The document of an entity, and whether something of it is stored here.
    pub(super) async fn hold_entity(
        &self,
        of: &EntityType,
        key: &str,
    ) -> Result<(Document, bool), EntityError> {
        self.schema_is_known().await;
        let document = self.hold(&self.entity_id(&of.name, key));
        let is_there = self.known(&document).await?;
        Ok((document, is_there))
    }

    /// Begins an entity with what its document lacks of what its type begins with.
    pub(super) async fn complete(
        &self,
        document: &Document,
        is_there: bool,
        of: &EntityType,
    ) -> Result<(), EntityError> {
        let lacking = if is_there {
            document.read(|doc| of.lacking(doc))?
        } else {
            of.lacking(&Automerge::new())
        };
        let begin = |source| EntityError::begin(of, source);
        let chunk = |change: Change| Bytes::copy_from_slice(change.raw_bytes());
        let lacking: Vec<Bytes> = lacking.map_err(begin)?.into_iter().map(chunk).collect();
        if !lacking.is_empty() {
            document.adopt(lacking, of.level_of_create()).await?;
        }
        Ok(())
    }

    /// Whether something of a document is stored here, once that is known.
    pub(super) async fn known(&self, document: &Document) -> Result<bool, FindError> {
        let mut phase = document.held().phase();
        loop {
            match phase.borrow_and_update().clone() {
                Phase::Ready => return Ok(true),
                Phase::Absent | Phase::Unavailable => return Ok(false),
                Phase::Broken(reason) | Phase::Failed(reason) => {
                    return Err(FindError::Broken { document: document.id().clone(), reason });
                }
                Phase::Loading => {}
            }
            tokio::select! {
                changed = phase.changed() => changed.map_err(|_| FindError::Closed)?,
                () = self.0.engine.closed() => return Err(FindError::Closed),
            }
        }
    }
}
