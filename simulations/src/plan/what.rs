//! What users do, and what goes wrong.

use serde::{Deserialize, Serialize};

use super::{DiskFault, Keep, Name, Way};

/// What a hostile peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Frames that are none.
    Garbage,
    /// Heads that nobody ever wrote, and asks for them.
    LyingHeads,
    /// What others sent, again.
    Replay,
    /// Changes whose dependencies never come.
    Orphans,
    /// Another change with an actor's sequence number.
    Equivocation,
    /// More than anybody needs.
    Flood,
    /// A frame of the hostile collection, damaged or not.
    Mutant,
    /// Its own presence, again and in another order.
    Echo,
    /// More changes than may wait for one that never comes.
    OrphanFlood,
    /// A document chunk that holds no document.
    Upload,
    /// Asks, in version 1, for all that came after an early change.
    Behind,
    /// Other changes with one actor's sequence number, without reading what is said to them.
    DeafLiar,
    /// A change that keeps every rule and that cannot be applied.
    Poison,
    /// A change that builds on such a one.
    OnPoison,
}

/// How bytes of a stranger come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wrapping {
    /// As a frame.
    Frame,
    /// As a sync message, in a frame that is well formed.
    Sync,
    /// As a chunk in a sync message that is well formed.
    Chunk,
}

/// Bytes, in hexadecimal digits where they are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub bytes::Bytes);

impl From<Hex> for String {
    fn from(Hex(bytes): Hex) -> Self {
        use std::fmt::Write as _;
        bytes.iter().fold(Self::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "not pairs of hexadecimal digits";
        let byte = |pair: &[u8]| match pair {
            [_, _] => {
                std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
            }
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.map(|bytes| Self(bytes.into())).ok_or(wrong)
    }
}

/// What a user does to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// Types so many characters, a change each.
    Type(u8),
    /// Deletes so many characters.
    Erase(u8),
    /// Writes a field of a map.
    Put,
    /// Removes a field.
    Remove,
    /// Writes a removed field again.
    Restore,
    /// Adds to a counter.
    Count,
    /// Inserts into a list.
    Insert,
    /// Removes from a list.
    Take,
    /// Writes a field that others write too: a conflict.
    Disagree,
    /// Puts in so many KiB at once.
    Paste(u8),
    /// Writes one of a few keys that everybody writes, one of a few values.
    Clash,
    /// Deletes one of them.
    Drop,
    /// Writes in one of a few objects, which is made if it is not there.
    Dig,
    /// Deletes one of those objects.
    Raze,
    /// Adds to a counter that others overwrite.
    Tick,
    /// Overwrites it.
    Reset,
    /// Decides an open conflict; which, by this number.
    Decide(u8),
    /// Makes an item, of which there is a little.
    Supply,
    /// Takes of what there is of it, if not all of it is promised.
    Sell,
    /// Promises of what there is of it.
    Promise,
    /// Gives it this name, which should be its alone.
    Name(u8),
    /// Makes it a part of what is in this document.
    Under(u8),
    /// Moves it.
    Place,
    /// Writes a field of which the greatest value stands.
    Level,
    /// Writes one that only moves forward.
    Step,
    /// Writes what the schema does not allow.
    Misfit,
    /// Deletes it.
    Bury,
    /// Takes that back.
    Raise,
}

/// What a user does with the lease of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tenure {
    /// Asks for it.
    Acquire,
    /// Goes on with it, as far as the user knows.
    Renew,
    /// Gives it back.
    Release,
    /// Takes it from whoever holds it.
    TakeOver,
}

/// Something that happens to a world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum What {
    /// A user writes.
    Edit {
        /// Which user.
        peer: u8,
        /// In which document.
        document: u8,
        /// What.
        edit: Edit,
    },
    /// A user opens a document.
    Open {
        /// Which user.
        peer: u8,
        /// Which document.
        document: u8,
    },
    /// A user closes a document.
    Shut {
        /// Which user.
        peer: u8,
        /// Which document.
        document: u8,
    },
    /// A user shows where they are.
    Broadcast {
        /// Which user.
        peer: u8,
        /// In which document.
        document: u8,
    },
    /// A user wants to edit alone, or does not any more.
    Lease {
        /// Which user.
        peer: u8,
        /// Which relay is asked.
        relay: u8,
        /// Of which document.
        document: u8,
        /// What.
        act: Tenure,
    },
    /// The connections between them end.
    Cut {
        /// The peer.
        peer: u8,
        /// The relay.
        relay: u8,
        /// Nobody is told: both find out by silence.
        silent: bool,
    },
    /// Nothing gets through for a while.
    Partition {
        /// The peer.
        peer: u8,
        /// The relay.
        relay: u8,
        /// Which way.
        way: Way,
        /// Milliseconds.
        for_ms: u32,
    },
    /// A node does not read its sockets for a while.
    Stall {
        /// Which.
        node: Name,
        /// Milliseconds.
        for_ms: u32,
    },
    /// A node does nothing for a while.
    Pause {
        /// Which.
        node: Name,
        /// Milliseconds.
        for_ms: u32,
    },
    /// A node loses its power.
    Crash {
        /// Which.
        node: Name,
        /// What its disk keeps.
        keep: Keep,
        /// Milliseconds until it starts again.
        down_ms: u32,
    },
    /// A relay is shut down in order and started again.
    Drain {
        /// Which.
        relay: u8,
        /// Milliseconds until it starts again.
        down_ms: u32,
    },
    /// A disk fails.
    Disk {
        /// Whose.
        node: Name,
        /// How.
        fault: DiskFault,
        /// Milliseconds.
        for_ms: u32,
    },
    /// One bit of one stored value flips.
    Rot {
        /// On whose disk.
        node: Name,
        /// Chooses the value.
        choice: u64,
    },
    /// A clock jumps.
    Clock {
        /// Whose.
        node: Name,
        /// Milliseconds, forward or back.
        by_ms: i64,
    },
    /// A stranger does harm.
    Attack {
        /// To which relay.
        relay: u8,
        /// To which document.
        document: u8,
        /// How.
        attack: Attack,
        /// Chooses the bytes.
        choice: u64,
    },
    /// A stranger sends these bytes.
    Bytes {
        /// To which relay.
        relay: u8,
        /// About which document.
        document: u8,
        /// As what.
        wrapping: Wrapping,
        /// Which.
        bytes: Hex,
    },
    /// A user takes a change out of its document that a relay refused.
    Discard {
        /// Which user.
        peer: u8,
        /// Which of those that were refused, by this number.
        which: u8,
    },
    /// A user has a relay asked once more for what it refused.
    Retry {
        /// Which user.
        peer: u8,
        /// Which of the documents of which something was refused, by this number.
        which: u8,
    },
    /// A user is away: the peer loses its network for hours or days.
    Away {
        /// Which user.
        peer: u8,
        /// Milliseconds.
        for_ms: u64,
    },
}

/// What an action names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names {
    /// A peer.
    pub peer: Option<u8>,
    /// A relay.
    pub relay: Option<u8>,
    /// A document.
    pub document: Option<u8>,
}

impl What {
    /// The nodes and the document that it names.
    pub fn names(&self) -> Names {
        let mut copy = self.clone();
        let (peer, relay, document) = copy.names_mut();
        Names { peer: peer.copied(), relay: relay.copied(), document: document.copied() }
    }

    /// The same, to give them other numbers: peer, relay, document.
    pub const fn names_mut(&mut self) -> (Option<&mut u8>, Option<&mut u8>, Option<&mut u8>) {
        match self {
            Self::Edit { peer, document, .. }
            | Self::Open { peer, document }
            | Self::Shut { peer, document }
            | Self::Broadcast { peer, document } => (Some(peer), None, Some(document)),
            Self::Cut { peer, relay, .. } | Self::Partition { peer, relay, .. } => {
                (Some(peer), Some(relay), None)
            }
            Self::Drain { relay, .. } => (None, Some(relay), None),
            Self::Attack { relay, document, .. } | Self::Bytes { relay, document, .. } => {
                (None, Some(relay), Some(document))
            }
            Self::Lease { peer, relay, document, .. } => (Some(peer), Some(relay), Some(document)),
            Self::Away { peer, .. } | Self::Discard { peer, .. } | Self::Retry { peer, .. } => {
                (Some(peer), None, None)
            }
            Self::Stall { node, .. }
            | Self::Pause { node, .. }
            | Self::Crash { node, .. }
            | Self::Disk { node, .. }
            | Self::Rot { node, .. }
            | Self::Clock { node, .. } => match node {
                Name::Peer(peer) => (Some(peer), None, None),
                Name::Relay(relay) => (None, Some(relay), None),
            },
        }
    }
}
