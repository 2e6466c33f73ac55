//! Who is here: which sessions have a document open, and where in it they are.
//!
//! It is said in ephemeral messages, in the shape that the `Presence` class of automerge-repo gives
//! them (2.5.2 and later), so that JavaScript programs and we see one another: a snapshot of all that
//! somebody shows (to those who come), updates of one part, a heartbeat every 5 s, and a goodbye.
//! Nothing of it is stored, and what is lost on the way is made good by what is said next.
//!
//! What we show are these *channels*: `user`, `device`, `session`, `field`, `cursor`. Others may show
//! what they like; what has other names is in [`Present::more`].

mod message;
mod roster;

use concord_protocol::PeerId;
use serde_json::{Map, Value};
use tokio::sync::watch;

pub(super) use self::{message::Said, roster::Roster};
use super::{Document, core::Command};

/// Milliseconds between signs of life.
pub const HEARTBEAT_MS: u64 = 5_000;
/// Milliseconds of silence after which somebody who says that often that they are there is not.
pub const GONE_MS: u64 = 15_000;
/// Sessions that are known of a document at once; whoever comes then is not shown.
pub const PRESENT_MAX: usize = 256;
/// Bytes, as JSON, of what one session shows.
pub const SHOWN_BYTES_MAX: usize = 8 * 1024;

/// What a session shows of itself in a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Showing {
    /// Which field it is in, as a path of names: `title`, `address/city`.
    pub field: Option<String>,
    /// Where in it: a cursor or a selection, in whatever form the programs agree on.
    pub cursor: Option<Value>,
}

impl Showing {
    /// Here, and nowhere in particular.
    pub fn here() -> Self {
        Self::default()
    }

    /// In this field.
    pub fn field(path: impl Into<String>) -> Self {
        Self { field: Some(path.into()), cursor: None }
    }

    /// At this place in it.
    #[must_use]
    pub fn at(mut self, cursor: impl Into<Value>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }
}

/// Somebody who is in a document. All of it is their own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The peer that says so.
    pub peer: PeerId,
    /// Who it is.
    pub user: Option<String>,
    /// Where it runs.
    pub device: Option<String>,
    /// Which run of it.
    pub session: Option<String>,
    /// Which field it is in.
    pub field: Option<String>,
    /// Where in it.
    pub cursor: Option<Value>,
    /// What else it shows.
    pub more: Map<String, Value>,
}

impl Present {
    fn of(peer: &PeerId, shown: &Map<String, Value>) -> Self {
        let mut more = shown.clone();
        let mut text = |name: &str| match more.get(name) {
            Some(Value::String(text)) => {
                let text = text.clone();
                more.remove(name);
                Some(text)
            }
            Some(Value::Null) => {
                more.remove(name);
                None
            }
            _ => None,
        };
        let (user, device, session) = (text("user"), text("device"), text("session"));
        let field = text("field");
        let cursor = more.remove("cursor").filter(|cursor| !cursor.is_null());
        Self { peer: peer.clone(), user, device, session, field, cursor, more }
    }
}

/// What is shown is too much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes to show of a session: at most {SHOWN_BYTES_MAX}, as JSON")]
pub struct TooMuchShown {
    /// How much it is.
    pub bytes: usize,
}

impl Document {
    /// Who else is in the document, in the order of their peers, now and from now on. Whoever looks
    /// is not shown for that: see [`Document::set_presence`].
    pub fn presence(&self) -> watch::Receiver<Vec<Present>> {
        let present = self.held().present.subscribe();
        // A closed peer sees nobody.
        let _ = self.peer().0.engine.send(Command::Look(self.id().clone()));
        present
    }

    /// Shows others that this session is here, and where, until another call says something else,
    /// [`Document::clear_presence`], or the last handle of the document is dropped. It costs a small
    /// message every 5 s. What is shown at a fast pace is said 20 times a second at most.
    ///
    /// # Errors
    /// [`TooMuchShown`].
    pub fn set_presence(&self, showing: &Showing) -> Result<(), TooMuchShown> {
        let who = &self.peer().0.who;
        let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
        let shown = [
            ("user", text(&who.user)),
            ("device", text(&who.device)),
            ("session", Value::String(who.session.as_str().to_owned())),
            ("field", text(&showing.field)),
            ("cursor", showing.cursor.clone().unwrap_or(Value::Null)),
        ];
        let shown: Map<String, Value> =
            shown.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let bytes = roster::size(&shown);
        if bytes > SHOWN_BYTES_MAX {
            return Err(TooMuchShown { bytes });
        }
        // A closed peer is nowhere.
        let _ = self.peer().0.engine.send(Command::Show(self.id().clone(), shown));
        Ok(())
    }

    /// Says goodbye to those who are in the document.
    pub fn clear_presence(&self) {
        let _ = self.peer().0.engine.send(Command::Hide(self.id().clone()));
    }
}
