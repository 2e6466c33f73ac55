//! What a change does, operation by operation.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Change, ExpandedChange};

/// The operations of a change; `None` if automerge cannot read them: its reader panics on what it
/// does not know.
pub(crate) fn expanded(change: &Change) -> Option<ExpandedChange> {
    catch_unwind(AssertUnwindSafe(|| change.decode())).ok()
}
