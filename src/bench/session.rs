//! A client and the documents that it follows.

use std::collections::HashMap;

use concord_protocol::{DocumentId, Message, sync::SyncMessage};

use super::{BenchError, Context, changes::Document, client::Client, light::LightDocument};

/// Messages taken in before answering: what came together is answered once, as programs do that
/// read their socket before they write.
const BATCH_MAX: usize = 64;

/// A joined client with its documents.
pub(super) struct Session {
    client: Client,
    context: Context,
    documents: HashMap<DocumentId, LightDocument>,
    messages: Vec<Message>,
    touched: Vec<DocumentId>,
}

impl Session {
    /// Connects and joins.
    pub(super) async fn open(context: &Context) -> Result<Self, BenchError> {
        Ok(Self {
            client: Client::open(context).await?,
            context: context.clone(),
            documents: HashMap::new(),
            messages: Vec::new(),
            touched: Vec::new(),
        })
    }

    /// Asks for a document that we have nothing of.
    pub(super) async fn request(
        &mut self,
        id: &DocumentId,
        mut document: LightDocument,
    ) -> Result<(), BenchError> {
        let data = document.opening().encode();
        self.documents.insert(id.clone(), document);
        let (sender, target) = (self.client.us.clone(), self.client.server.clone());
        let message = Message::Request { document: id.clone(), sender, target, data };
        self.client.feed(&message).await?;
        self.client.flush().await
    }

    /// Offers a document that we have.
    pub(super) async fn offer(
        &mut self,
        id: &DocumentId,
        mut document: LightDocument,
    ) -> Result<(), BenchError> {
        let opening = document.opening();
        self.documents.insert(id.clone(), document);
        self.feed(id, &opening).await?;
        self.client.flush().await
    }

    /// Offers a document and waits until the server says that it has it.
    pub(super) async fn upload(
        &mut self,
        id: &DocumentId,
        document: LightDocument,
    ) -> Result<(), BenchError> {
        self.offer(id, document).await?;
        while !self.document(id).is_some_and(LightDocument::is_settled) {
            self.exchange("uploading the document").await?;
        }
        Ok(())
    }

    /// Takes messages in and answers them.
    pub(super) async fn exchange(
        &mut self,
        what: &'static str,
    ) -> Result<Vec<DocumentId>, BenchError> {
        let context = self.context.clone();
        context
            .within(what, async {
                let touched = self.receive().await?;
                self.answer(&touched).await?;
                Ok(touched)
            })
            .await
    }

    /// Waits for messages and takes them in. Returns which documents they were about. May be
    /// dropped while it waits without losing anything.
    pub(super) async fn receive(&mut self) -> Result<Vec<DocumentId>, BenchError> {
        self.client.receive(&mut self.messages).await?;
        while self.messages.len() < BATCH_MAX {
            if !self.client.receive_ready(&mut self.messages)? {
                break;
            }
        }
        self.touched.clear();
        for message in self.messages.drain(..) {
            let (Message::Sync { document: id, data, .. }
            | Message::Request { document: id, data, .. }) = message
            else {
                continue;
            };
            let Some(document) = self.documents.get_mut(&id) else {
                continue;
            };
            let message = SyncMessage::decode(&data, &self.context.limits)?;
            document.receive(&message, &self.context.limits)?;
            if self.touched.last() != Some(&id) {
                self.touched.push(id);
            }
        }
        Ok(std::mem::take(&mut self.touched))
    }

    /// Answers what was taken in.
    pub(super) async fn answer(&mut self, touched: &[DocumentId]) -> Result<(), BenchError> {
        let mut answered = false;
        for id in touched {
            if let Some(answer) = self.documents.get_mut(id).and_then(LightDocument::answer) {
                self.feed(id, &answer).await?;
                answered = true;
            }
        }
        if answered { self.client.flush().await } else { Ok(()) }
    }

    /// Puts the next change of a document's run in the buffer. `false` when there is none.
    pub(super) async fn write(&mut self, id: &DocumentId) -> Result<bool, BenchError> {
        let Some(message) = self.documents.get_mut(id).and_then(LightDocument::write) else {
            return Ok(false);
        };
        self.feed(id, &message).await?;
        Ok(true)
    }

    /// Sends what is in the buffer.
    pub(super) async fn flush(&mut self) -> Result<(), BenchError> {
        self.client.flush().await
    }

    /// A document that is followed.
    pub(super) fn document(&self, id: &DocumentId) -> Option<&LightDocument> {
        self.documents.get(id)
    }

    /// Tells the server that we go.
    pub(super) async fn close(self) {
        self.client.close().await;
    }

    async fn feed(&mut self, id: &DocumentId, message: &SyncMessage) -> Result<(), BenchError> {
        let message = Message::Sync {
            document: id.clone(),
            sender: self.client.us.clone(),
            target: self.client.server.clone(),
            data: message.encode(),
        };
        self.client.feed(&message).await
    }
}

/// Uploads a document on a connection of its own, and returns that connection.
pub(super) async fn uploaded(
    context: &Context,
    id: &DocumentId,
    document: &Document,
    run: Option<std::sync::Arc<super::changes::Run>>,
) -> Result<Session, BenchError> {
    let mut session = Session::open(context).await?;
    session.upload(id, LightDocument::holding(document, run)).await?;
    Ok(session)
}

/// A name that no document has yet.
pub(super) fn random_document_id() -> Result<DocumentId, BenchError> {
    let mut bits = [0_u8; 16];
    getrandom::fill(&mut bits).map_err(BenchError::Random)?;
    Ok(DocumentId::from_random(bits))
}
