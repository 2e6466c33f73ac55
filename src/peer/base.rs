//! What relays are known to have of a document without having said so in this run: all of it if it
//! is not in the outbox, else what its row says that they had before the first edit that waits.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use concord_protocol::ChangeHash;

/// Heads that are kept of a document. With more, all of it counts as not confirmed until a relay
/// says otherwise.
pub(super) const BASE_HEADS_MAX: usize = 64;

/// Heads of a document.
pub(super) type Heads = BTreeSet<ChangeHash>;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Base {
    /// It is not known yet what is in the outbox.
    #[default]
    Unknown,
    /// The same, and it was edited meanwhile, on top of this.
    Edited(Heads),
    /// They have all of it.
    All,
    /// They have this.
    Heads(Heads),
}

impl Base {
    /// Of a document that was made here just now.
    pub(super) fn nothing() -> Self {
        Self::Heads(Heads::new())
    }

    /// The document is about to be edited, on top of these heads.
    pub(super) fn edits(&mut self, heads: impl FnOnce() -> Heads) {
        match self {
            Self::Unknown => *self = Self::Edited(heads()),
            Self::All => *self = Self::Heads(heads()),
            Self::Edited(_) | Self::Heads(_) => {}
        }
    }

    /// It is known what was in the outbox before any of that: the heads of the document's row, if it
    /// has one.
    pub(super) fn told(&mut self, row: Option<Heads>) {
        let base = match (&mut *self, row) {
            (Self::Unknown, None) => Self::All,
            (Self::Edited(heads), None) => Self::Heads(std::mem::take(heads)),
            (Self::Unknown | Self::Edited(_), Some(heads)) => Self::Heads(heads),
            (Self::All | Self::Heads(_), _) => return,
        };
        *self = base;
    }

    /// What they have, for certain; `None` if that is all.
    pub(super) fn heads(&self) -> Option<Heads> {
        match self {
            Self::All => None,
            Self::Heads(heads) => Some(heads.clone()),
            Self::Unknown | Self::Edited(_) => Some(Heads::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(n: u8) -> Heads {
        Heads::from([ChangeHash([n; 32])])
    }

    #[test]
    fn what_waits_is_all_that_was_edited_since_a_relay_had_all() {
        let mut base = Base::default();
        assert_eq!(base.heads(), Some(Heads::new()), "nothing is known");
        base.told(None);
        assert_eq!(base.heads(), None);
        base.edits(|| heads(1));
        base.edits(|| heads(2));
        assert_eq!(base.heads(), Some(heads(1)));
        base.told(None);
        assert_eq!(base.heads(), Some(heads(1)), "what the outbox held before is known");
    }

    #[test]
    fn an_edit_before_the_outbox_is_known_counts_as_soon_as_it_is() {
        for (row, then) in [(None, heads(1)), (Some(heads(7)), heads(7))] {
            let mut base = Base::default();
            base.edits(|| heads(1));
            assert_eq!(base.heads(), Some(Heads::new()));
            base.told(row);
            assert_eq!(base.heads(), Some(then));
        }
        let mut base = Base::default();
        base.told(Some(heads(7)));
        base.edits(|| heads(1));
        assert_eq!(base.heads(), Some(heads(7)));
        assert_eq!(Base::nothing().heads(), Some(Heads::new()));
    }
}
