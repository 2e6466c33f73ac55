//! Connections over which attachments can be asked for, and the questions that wait for an answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use concord_protocol::{BlobHash, BlobMessage, Message, codec};
use tokio::{
    sync::{OwnedMutexGuard, mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    peer::{locked, socket::Outgoing},
    replica::ConnectionId,
    store::BoxFuture,
};

/// How long a relay may take to answer about a piece: to put it on a slow disk behind others.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// There is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the connection ended")]
    Lost,
    #[error("the relay does not answer")]
    TimedOut,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::peer) struct Lines {
    inner: Mutex<Inner>,
    /// Counts up whenever a line comes or goes, or there is something to send.
    news: watch::Sender<u64>,
    /// What is to be fetched ahead; `None`: nothing ever.
    ahead: Mutex<Option<BTreeSet<BlobHash>>>,
    /// One fetches an attachment, and the others wait for that.
    turns: Mutex<BTreeMap<BlobHash, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where to put what is for a relay. The engine has the strong ones.
    open: BTreeMap<ConnectionId, mpsc::WeakUnboundedSender<Outgoing>>,
    waiting: BTreeMap<u32, (ConnectionId, oneshot::Sender<BlobMessage>)>,
    next: u32,
    is_closed: bool,
}

impl Lines {
    /// As the default; with `is_ahead`, what documents name is fetched as soon as it is known.
    pub(in crate::peer) fn new(is_ahead: bool) -> Self {
        Self { ahead: Mutex::new(is_ahead.then(BTreeSet::new)), ..Self::default() }
    }

    /// Whether anything is fetched ahead.
    pub(in crate::peer) fn is_ahead(&self) -> bool {
        locked(&self.ahead).is_some()
    }

    /// A document names these.
    pub(in crate::peer) fn named(&self, named: BTreeSet<BlobHash>) {
        if let Some(ahead) = &mut *locked(&self.ahead)
            && !named.is_empty()
        {
            ahead.extend(named);
            self.news();
        }
    }

    /// What is to be fetched ahead.
    pub(super) fn wanted(&self) -> BTreeSet<BlobHash> {
        locked(&self.ahead).clone().unwrap_or_default()
    }

    /// It is here.
    pub(super) fn is_here(&self, hash: &BlobHash) {
        if let Some(ahead) = &mut *locked(&self.ahead) {
            ahead.remove(hash);
        }
    }

    /// A relay is there that speaks of attachments.
    pub(in crate::peer) fn opened(&self, id: ConnectionId, to: &mpsc::UnboundedSender<Outgoing>) {
        locked(&self.inner).open.insert(id, to.downgrade());
        self.news();
    }

    /// It is gone. Who waits for it hears so.
    pub(in crate::peer) fn lost(&self, id: ConnectionId) {
        let mut inner = locked(&self.inner);
        if inner.open.remove(&id).is_some() {
            inner.waiting.retain(|_, (asked, _)| *asked != id);
            drop(inner);
            self.news();
        }
    }

    /// A relay answered.
    pub(in crate::peer) fn heard(&self, from: ConnectionId, message: BlobMessage) {
        let mut inner = locked(&self.inner);
        let id = message.id();
        if inner.waiting.get(&id).is_some_and(|(asked, _)| *asked == from)
            && let Some((_, answered)) = inner.waiting.remove(&id)
        {
            // Who asked may have stopped waiting.
            let _ = answered.send(message);
        }
    }

    /// Nothing more is asked.
    pub(in crate::peer) fn close(&self) {
        let mut inner = locked(&self.inner);
        *inner = Inner { is_closed: true, ..Inner::default() };
        drop(inner);
        self.news();
    }

    pub(super) fn is_closed(&self) -> bool {
        locked(&self.inner).is_closed
    }

    /// The line that came last: those before it may be about to be left.
    pub(in crate::peer) fn current(&self) -> Option<ConnectionId> {
        locked(&self.inner).open.last_key_value().map(|(id, _)| *id)
    }

    pub(super) fn news(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Asks a relay; the question is on its way, in its order, when this returns.
    pub(super) fn ask(
        &self,
        over: ConnectionId,
        message: impl FnOnce(u32) -> BlobMessage,
    ) -> BoxFuture<Result<BlobMessage, NoAnswer>> {
        let asked = {
            let mut inner = locked(&self.inner);
            let id = inner.next;
            inner.next = inner.next.wrapping_add(1);
            // Whoever stopped waiting does not take room for ever.
            inner.waiting.retain(|_, (_, answered)| !answered.is_closed());
            let to = inner.open.get(&over).and_then(mpsc::WeakUnboundedSender::upgrade);
            to.and_then(|to| {
                let (answered, answer) = oneshot::channel();
                inner.waiting.insert(id, (over, answered));
                let message = codec::encode(&Message::Blob(message(id)));
                to.send(Outgoing::Say(message)).ok().map(|()| answer)
            })
        };
        Box::pin(async move {
            let answer = timeout(ANSWER_MAX, asked.ok_or(NoAnswer::Lost)?).await;
            answer.map_err(|_| NoAnswer::TimedOut)?.map_err(|_| NoAnswer::Lost)
        })
    }

    /// Waits until nobody else fetches this attachment.
    pub(super) async fn turn(&self, hash: BlobHash) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = locked(&self.turns);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(&hash).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(hash, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(id: u32) -> BlobMessage {
        BlobMessage::Ask { id, hash: BlobHash([1; 32]), at: None }
    }

    #[tokio::test]
    async fn an_answer_is_of_who_was_asked_and_a_lost_line_answers_all() {
        let lines = Lines::default();
        let (here, there) = (ConnectionId(1), ConnectionId(2));
        let (to_here, mut sent) = mpsc::unbounded_channel();
        lines.opened(here, &to_here);
        let (first, second) = (lines.ask(here, ask), lines.ask(here, ask));
        assert!(matches!(sent.try_recv(), Ok(Outgoing::Say(_))));
        lines.heard(there, ask(0));
        lines.heard(here, ask(0));
        assert_eq!(first.await, Ok(ask(0)));
        lines.lost(here);
        assert_eq!(second.await, Err(NoAnswer::Lost));
        assert_eq!(lines.ask(here, ask).await, Err(NoAnswer::Lost));
        assert_eq!(lines.current(), None);
    }
}
