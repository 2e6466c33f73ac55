//! What happened, for people; and its digest, for comparing two runs.

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When, in microseconds of the world.
    pub at_us: u64,
    /// What.
    pub kind: Kind,
}

/// Kinds of things that happen. Nodes are positions in [`crate::Report::nodes`].
#[derive(Debug, Clone)]
pub enum Kind {
    /// A message set off.
    Sent {
        /// Who sent it.
        from: usize,
        /// To whom.
        to: usize,
        /// Its number, unique in the world.
        number: u64,
        /// Bytes.
        bytes: usize,
        /// What it says, in short.
        what: String,
    },
    /// A message arrived.
    Arrived {
        /// Who sent it.
        from: usize,
        /// Where.
        to: usize,
        /// Its number.
        number: u64,
    },
    /// A user made a change.
    Wrote {
        /// At which node.
        node: usize,
        /// In which document.
        document: u8,
        /// The change, its first characters.
        change: String,
    },
    /// A node named, stored or showed heads of a document.
    Heads {
        /// Which node.
        node: usize,
        /// Of which document.
        document: u8,
        /// The heads, their first characters.
        heads: Vec<String>,
    },
    /// A fault began. It ends by itself at `until_us`.
    Fault {
        /// At which nodes.
        nodes: Vec<usize>,
        /// Which.
        what: String,
        /// Its end.
        until_us: u64,
    },
    /// Anything else that a node did.
    Did {
        /// Which node.
        node: usize,
        /// What.
        what: String,
    },
}

/// Takes note.
#[derive(Debug)]
pub struct Trace {
    is_on: bool,
    entries: Vec<Entry>,
    digest: u64,
    next_message: u64,
}

impl Trace {
    /// A digest only, or everything.
    pub const fn new(is_on: bool) -> Self {
        Self { is_on, entries: Vec::new(), digest: 0xcbf2_9ce4_8422_2325, next_message: 0 }
    }

    /// Whether entries are kept: making them costs more than the world itself.
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Keeps an entry, if entries are kept.
    pub fn note(&mut self, at_us: u64, kind: impl FnOnce() -> Kind) {
        if self.is_on {
            self.entries.push(Entry { at_us, kind: kind() });
        }
    }

    /// Adds to the digest.
    pub const fn mix(&mut self, number: u64) {
        let mixed = (self.digest ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.digest = mixed ^ (mixed >> 31);
    }

    /// A number for a message.
    pub const fn number(&mut self) -> u64 {
        self.next_message += 1;
        self.next_message
    }

    /// All that was kept, and the digest.
    pub fn finish(self) -> (Vec<Entry>, u64) {
        (self.entries, self.digest)
    }
}
