//! Writing through lenses: new fields as the older ones say, and older ones as the new ones do.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{
    AutomergeError, ObjType, Prop, ROOT, ScalarValue, Value as Stored, transaction::Transactable,
};

use super::{
    Chain, Kept, Lens, Made, Stands,
    standing::{BROUGHT, meant, tokens},
};
use crate::{
    digest::digest,
    entity::{Kind, Value, write},
};

impl Chain {
    /// Writes the newer fields as the older ones say, where those stand. Nothing where they cannot be
    /// read, nor of lenses that are `open` and have several newer ones: whoever writes one of them
    /// says nothing of the others. Gives the texts that it wrote in.
    ///
    /// # Errors
    /// Those of the transaction.
    pub(crate) fn bring(
        &self,
        tx: &mut impl Transactable,
        open: &Standings,
    ) -> Result<Brought, AutomergeError> {
        let found = self.standing(tx);
        let mut texts = BTreeSet::new();
        for (number, (lens, stands)) in self.lenses.iter().zip(&found.lenses).enumerate() {
            let is_open = open.0.get(number).copied().unwrap_or(false);
            if *stands != Stands::Older || is_open && lens.newer.len() > 1 {
                continue;
            }
            for kept in &lens.newer {
                let Some(Ok(value)) = found.values.get(&kept.slot) else { continue };
                let is_text = matches!(kept.kind, Kind::Text { .. });
                if value.is_none() && !is_text {
                    // That there is none is said, too: somebody may be writing one.
                    let now = tx.get(ROOT, kept.slot.as_str())?;
                    if !now.is_some_and(|(now, _)| now.is_null()) {
                        tx.put(ROOT, kept.slot.as_str(), ScalarValue::Null)?;
                    }
                } else if own(tx, kept, true, &found.values) != *value {
                    put(tx, kept, value.as_ref())?;
                    if is_text {
                        texts.insert(kept.slot.clone());
                    }
                }
            }
        }
        Ok(Brought(texts))
    }

    /// Writes the older fields as the newest ones are now, and marks that they are. Lenses that are
    /// `open` stay as they are, but for one whose only newer field was `written`. `brought` is what
    /// [`Chain::bring`] gave before, in the same change.
    ///
    /// # Errors
    /// Those of the transaction.
    pub(crate) fn align(
        &self,
        tx: &mut impl Transactable,
        written: Option<&str>,
        open: &Standings,
        brought: &Brought,
    ) -> Result<(), AutomergeError> {
        let found = self.standing(tx);
        let mut values = found.values;
        let mut done = BTreeSet::new();
        for (number, lens) in self.lenses.iter().enumerate().rev() {
            let is_open = open.0.get(number).copied().unwrap_or(false);
            let is_alone = lens.newer.len() == 1;
            let is_written =
                |slot: &str| lens.newer.iter().any(|kept| kept.slot == slot) && is_alone;
            if is_open && !written.is_some_and(is_written) {
                continue;
            }
            let own = |kept: &Kept| own(tx, kept, self.is_newest(&kept.slot), &values);
            let newer: Vec<Option<Value>> = lens.newer.iter().map(own).collect();
            for (kept, made) in lens.older.iter().zip(lens.backward(&newer)) {
                companion(tx, kept, &made)?;
                if let Ok(value) = made {
                    values.insert(kept.slot.clone(), Ok(value));
                }
            }
            done.insert(number);
        }
        for number in done {
            if let Some(lens) = self.lenses.get(number) {
                let brought = lens.newer.iter().any(|kept| brought.0.contains(&kept.slot));
                lens.put_mark(tx, &self.before(number), brought)?;
            }
        }
        Ok(())
    }

    /// Makes every place mean this; what cannot be read stays unread.
    ///
    /// # Errors
    /// Those of the transaction.
    pub(crate) fn impose(
        &self,
        tx: &mut impl Transactable,
        meant: &Meant,
    ) -> Result<(), AutomergeError> {
        let now = self.standing(tx).values;
        let is_known = |kept: &Kept| !matches!(meant.0.get(&kept.slot), Some(Err(_)));
        for kept in self.slots.values() {
            match meant.0.get(&kept.slot) {
                Some(Ok(None)) if self.is_newest(&kept.slot) => put(tx, kept, None)?,
                Some(made @ Ok(_)) => companion(tx, kept, made)?,
                Some(Err(_)) | None => {}
            }
        }
        for (number, lens) in self.lenses.iter().enumerate() {
            if lens.newer.iter().all(is_known) {
                // Should somebody else do the same at once, the text is there twice.
                let brought = lens.newer.iter().any(|kept| {
                    matches!(kept.kind, Kind::Text { .. })
                        && now.get(&kept.slot) != meant.0.get(&kept.slot)
                });
                lens.put_mark(tx, &self.before(number), brought)?;
            }
        }
        Ok(())
    }

    /// Which lenses are open for what cannot be read, and have none of these places.
    pub(crate) fn unread_besides(
        &self,
        doc: &impl automerge::ReadDoc,
        keys: &[String],
    ) -> Standings {
        let found = self.standing(doc);
        let open = self.lenses.iter().map(|lens| {
            let mut newer = lens.newer.iter();
            newer.all(|kept| !keys.contains(&kept.slot))
                && lens.newer.iter().any(|it| matches!(found.values.get(&it.slot), Some(Err(_))))
        });
        Standings(open.collect())
    }

    /// Whether a write at this place settles what is open.
    pub(crate) fn is_to_settle(&self, slot: &str, open: &Standings) -> bool {
        self.lenses
            .iter()
            .zip(&open.0)
            .any(|(lens, is_open)| *is_open && matches!(&*lens.newer, [only] if only.slot == slot))
    }

    /// Whether what is at a place of the version in force counts no more: who wrote an older one later
    /// knew of it.
    pub(crate) fn is_overwritten(&self, doc: &impl automerge::ReadDoc, slot: &str) -> bool {
        let found = self.standing(doc);
        let mut all = self.lenses.iter().zip(&found.lenses);
        all.any(|(lens, stands)| {
            *stands == Stands::Older && lens.newer.iter().any(|kept| kept.slot == slot)
        })
    }

    /// Which lenses are open: of what cannot be read, what is apart, and what is a conflict of an
    /// earlier version.
    pub(crate) fn open_lenses(&self, doc: &impl automerge::ReadDoc) -> Standings {
        let found = self.standing(doc);
        let all = self.lenses.iter().zip(&found.lenses).zip(&found.disputed);
        let open = all.map(|((lens, stands), is_disputed)| {
            let is_unread = |kept: &Kept| matches!(found.values.get(&kept.slot), Some(Err(_)));
            match stands {
                Stands::Newer => false,
                Stands::Older => *is_disputed || lens.newer.iter().any(is_unread),
                Stands::Apart => true,
            }
        });
        Standings(open.collect())
    }
}

/// What every place of a chain means, or why it means nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Meant(pub(super) BTreeMap<String, Made>);

impl Meant {
    /// Whether some of it cannot be read.
    pub(crate) fn is_unread(&self) -> bool {
        self.0.values().any(Result::is_err)
    }
}

/// The texts that were written as older fields say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Brought(BTreeSet<String>);

/// Of each lens, whether it is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standings(Vec<bool>);

/// What a place means: what is there, if it is one of the last version; else what was worked out.
fn own(
    tx: &impl automerge::ReadDoc,
    kept: &Kept,
    is_newest: bool,
    values: &BTreeMap<String, Made>,
) -> Option<Value> {
    if !is_newest {
        return values.get(&kept.slot).cloned().and_then(Result::ok).flatten();
    }
    let (value, id) = tx.get(ROOT, kept.slot.as_str()).ok().flatten()?;
    meant(tx, &kept.kind, &value, &id).ok().flatten()
}

impl Lens {
    /// Marks what the older fields are now; earlier marks that are known go.
    fn put_mark(
        &self,
        tx: &mut impl Transactable,
        before: &BTreeSet<&str>,
        brought: bool,
    ) -> Result<(), AutomergeError> {
        let named = tokens(tx, before);
        let prefix = self.mark();
        let mut words = named;
        for kept in &self.newer {
            let slot = kept.slot.as_str();
            let newer = tokens(tx, &BTreeSet::from([slot]));
            words.extend(newer.into_iter().map(|token| format!("{slot}={token}")));
        }
        if brought {
            words.push(BROUGHT.to_owned());
        }
        let text = words.join(" ");
        // Nobody writes something else there, so that marks are never at odds with each other.
        let name = u128::from_be_bytes(digest(["concord mark 1", &text])) >> 64;
        let key = format!("{prefix}{name:016x}");
        for old in self.marks(tx).keys.into_iter().filter(|old| *old != key) {
            tx.delete(ROOT, old.as_str())?;
        }
        tx.put(ROOT, key.as_str(), text)
    }
}

/// Writes what an older field is then. There is always a write, so that who overwrites it is known to
/// have seen this; what has no counterpart stays as it was.
fn companion(tx: &mut impl Transactable, kept: &Kept, made: &Made) -> Result<(), AutomergeError> {
    let slot = kept.slot.as_str();
    if matches!(kept.kind, Kind::Text { .. }) {
        return match made {
            Ok(value) => put(tx, kept, value.as_ref()),
            Err(_) => Ok(()),
        };
    }
    let scalar = match made {
        Ok(value) => value.as_ref().and_then(write::scalar).unwrap_or(ScalarValue::Null),
        Err(_) => match tx.get(ROOT, slot)? {
            Some((Stored::Scalar(value), _)) => value.into_owned(),
            // A text that JavaScript wrote for a string.
            Some((Stored::Object(ObjType::Text), text)) => {
                ScalarValue::Str(tx.text(&text)?.as_str().into())
            }
            _ => ScalarValue::Null,
        },
    };
    // Writing what is there already would be no operation.
    let same = matches!(tx.get(ROOT, slot)?, Some((Stored::Scalar(now), _)) if *now == scalar);
    if same {
        tx.delete(ROOT, slot)?;
    }
    tx.put(ROOT, slot, scalar)
}

fn put(
    tx: &mut impl Transactable,
    kept: &Kept,
    value: Option<&Value>,
) -> Result<(), AutomergeError> {
    let prop = Prop::Map(kept.slot.clone());
    match value {
        Some(value) => write::set(tx, &ROOT, &prop, &kept.kind, value),
        None => write::clear(tx, &ROOT, &prop, &kept.kind),
    }
}
