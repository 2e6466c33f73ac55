//! What nothing refers to any more is removed, some time after that was first seen.
//!
//! History and undo may bring a reference back, and a document that names an attachment may come after
//! it: so there is a grace. It begins when it is first seen that nothing refers to an attachment, and
//! again when somebody brings it once more.

use std::{collections::BTreeSet, time::Duration};

use concord_protocol::BlobHash;

use super::shelf::{Shelf, ShelfError, now_ms};

/// After which one that was begun and not finished is given up, if nobody goes on with it.
const UNFINISHED: Duration = Duration::from_hours(24);

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Swept {
    /// Which, with their lengths.
    pub(crate) removed: Vec<(BlobHash, u64)>,
    /// Nothing refers to so many others either, which are within the grace.
    pub(crate) waiting: usize,
}

impl Shelf {
    /// Notes what is referred to, these and no others, and removes what has not been for so long.
    /// What is read at the moment, or came after the look at documents began (`seen_ms`), stays.
    /// Without such a look only what nobody goes on bringing is removed.
    pub(crate) async fn sweep(
        &self,
        wanted: Option<&BTreeSet<BlobHash>>,
        seen_ms: u64,
        grace: Duration,
        is_trial: bool,
    ) -> Result<Swept, ShelfError> {
        self.ready().await?;
        let (mut swept, now) = (Swept::default(), now_ms());
        let all: Vec<BlobHash> = self.catalogue().entries().map(super::Entry::hash).collect();
        for hash in all {
            // One at a time: others need not wait for all.
            let _changing = self.changing().await;
            let Some(mut entry) = self.catalogue().get(&hash).cloned() else { continue };
            if self.is_held(&hash) || entry.unused_since_ms > seen_ms {
                continue;
            }
            if entry.is_whole && wanted.is_none_or(|wanted| wanted.contains(&hash)) {
                let is_looked_at = wanted.is_some();
                if is_looked_at && entry.unused_since_ms != 0 && !is_trial {
                    entry.unused_since_ms = 0;
                    self.keep(entry, None).await?;
                }
                continue;
            }
            if entry.unused_since_ms == 0 {
                swept.waiting += 1;
                if !is_trial {
                    entry.unused_since_ms = now;
                    self.keep(entry, None).await?;
                }
                continue;
            }
            let grace = if entry.is_whole { grace } else { UNFINISHED };
            let unused = Duration::from_millis(now.saturating_sub(entry.unused_since_ms));
            if unused < grace {
                swept.waiting += usize::from(entry.is_whole);
                continue;
            }
            if !is_trial {
                self.remove_locked(&hash).await?;
            }
            swept.removed.push((hash, entry.length));
        }
        Ok(swept)
    }
}
