//! What nodes say: it must be true when it is said.

use bytes::Bytes;
use concord_protocol::{Limits, Message, sync::SyncMessage};

use super::{NodeId, World, short};
use crate::ledger::Invariant;

impl World<'_> {
    /// What is said must be true when it is said: heads that are named are on disk.
    pub(super) fn examine(&mut self, id: NodeId, message: &Message) {
        let heads = match message {
            Message::Sync { data, .. } | Message::Request { data, .. } => {
                match SyncMessage::decode(data, &Limits::default()) {
                    Ok(message) => message.heads,
                    Err(error) => {
                        let detail = format!("sent a sync message that cannot be read: {error}");
                        return self.broken(Invariant::NoPanic, detail);
                    }
                }
            }
            Message::Ack { ack, .. } => {
                if ack.refused.iter().any(|refused| {
                    refused.hash.is_some_and(|hash| self.ledger.who(&hash).is_some())
                }) {
                    self.refused_honest(id, &ack.refused);
                }
                ack.durable.clone()
            }
            _ => return,
        };
        let (Message::Sync { document, .. }
        | Message::Request { document, .. }
        | Message::Ack { document, .. }) = message
        else {
            return;
        };
        let document = self.document_number(document);
        if self.nodes[id].is_rotten {
            return;
        }
        let Some(process) = &self.nodes[id].process else { return };
        if let Some(head) = heads.iter().find(|head| !process.on_disk.contains(*head)) {
            let who = self.nodes[id].label();
            let detail =
                format!("{who} named {} of document {document}: not on its disk", short(head));
            return self.broken(Invariant::Durability, detail);
        }
        // Where jobs found no worker, some check may still be waited for.
        if self.is_reunion
            && self.plan.settings.job_failures == 0
            && let Some(head) = heads.iter().find(|head| self.is_spoiled(head))
        {
            let who = self.nodes[id].label();
            let detail = format!(
                "{who} still names {} of document {document}, which breaks it",
                short(head)
            );
            return self.broken(Invariant::Convergence, detail);
        }
        self.ledger.named(id, document, &heads);
    }

    fn refused_honest(&mut self, id: NodeId, refused: &[concord_protocol::Refused]) {
        let is_honest = |refused: &&concord_protocol::Refused| {
            refused.hash.is_some_and(|hash| {
                let is_expected = self.ledger.may_be_refused(&hash, refused.code);
                self.ledger.who(&hash).is_some() && !is_expected
            })
        };
        let Some(refused) = refused.iter().find(is_honest) else { return };
        let excused = self.ledger.attacked > 0;
        if !excused {
            let who = self.nodes[id].label();
            let detail = format!(
                "{who} refused an honest change {} ({}): {}",
                refused.hash.as_ref().map(short).unwrap_or_default(),
                refused.code.as_str(),
                refused.reason
            );
            self.broken(Invariant::NoSilentLoss, detail);
        }
    }
}

/// A message in short.
pub(super) fn describe(message: &Message) -> String {
    let sync = |data: &Bytes| match SyncMessage::decode(data, &Limits::default()) {
        Ok(message) => format!(
            "heads [{}] need {} changes {} ({} B)",
            message.heads.iter().map(short).collect::<Vec<_>>().join(" "),
            message.need.len(),
            message.changes.len(),
            message.changes.iter().map(Bytes::len).sum::<usize>()
        ),
        Err(error) => error.to_string(),
    };
    match message {
        Message::Sync { document, data, .. } => format!("sync {document:.6} {}", sync(data)),
        Message::Request { document, data, .. } => format!("request {document:.6} {}", sync(data)),
        Message::Ack { document, ack, .. } => format!(
            "ack {document:.6} durable [{}] refused {}",
            ack.durable.iter().map(short).collect::<Vec<_>>().join(" "),
            ack.refused.len()
        ),
        Message::DocUnavailable { document, .. } => format!("unavailable {document:.6}"),
        Message::Ephemeral { document, count, .. } => format!("presence {document:.6} {count}"),
        other => {
            let text = format!("{other:?}");
            text.split([' ', '{', '(']).next().unwrap_or_default().to_lowercase()
        }
    }
}
