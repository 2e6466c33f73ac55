//! Heads: a few hashes in order. Nearly always there is one, and nearly always readers and
//! document have the same, so it is shared: what a document and its readers know of it costs one
//! small allocation. Changing it costs what is there; heads are few, and are named whole in every
//! message anyway.

use std::{ops::Deref, sync::Arc};

use concord_protocol::ChangeHash;

/// See the module. Clones share.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads(Option<Arc<[ChangeHash]>>);

impl Heads {
    /// Takes out what a change builds on, and puts the change in.
    pub(super) fn advance(&mut self, deps: &[ChangeHash], hash: ChangeHash) {
        if let (Some([only]), [dep]) = (self.0.as_mut().and_then(Arc::get_mut), deps)
            && only == dep
        {
            *only = hash;
            return;
        }
        let kept = self.iter().filter(|head| !deps.contains(head));
        *self = kept.copied().chain([hash]).collect();
    }

    pub(super) fn contains(&self, hash: &ChangeHash) -> bool {
        self.binary_search(hash).is_ok()
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Shares with `other` where both are the same.
    pub(super) fn share(&mut self, other: &Self) {
        if self == other {
            self.0.clone_from(&other.0);
        }
    }
}

/// In order, each once.
impl Deref for Heads {
    type Target = [ChangeHash];

    fn deref(&self) -> &[ChangeHash] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl PartialEq for Heads {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(ours), Some(theirs)) if Arc::ptr_eq(ours, theirs) => true,
            _ => **self == **other,
        }
    }
}

impl Eq for Heads {}

impl FromIterator<ChangeHash> for Heads {
    fn from_iter<T: IntoIterator<Item = ChangeHash>>(hashes: T) -> Self {
        let mut all: Vec<ChangeHash> = hashes.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Self((!all.is_empty()).then(|| all.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn they_are_a_set_in_order() {
        fn holds(steps: Vec<(u8, Vec<u8>, bool)>) -> bool {
            let hash = |byte: u8| ChangeHash([byte % 8; 32]);
            let (mut heads, mut model) = (Heads::default(), BTreeSet::new());
            let mut shared = Vec::new();
            steps.into_iter().all(|(new, deps, is_shared)| {
                let deps: Vec<ChangeHash> = deps.into_iter().map(hash).collect();
                if is_shared {
                    shared.push((heads.clone(), model.clone()));
                }
                heads.advance(&deps, hash(new));
                model.retain(|head| !deps.contains(head));
                model.insert(hash(new));
                let same = |(heads, model): (&Heads, &BTreeSet<ChangeHash>)| {
                    heads.iter().eq(model) && heads.len() == model.len()
                };
                same((&heads, &model))
                    && shared.iter().map(|(heads, model)| (heads, model)).all(same)
                    && (0..8).all(|n| heads.contains(&hash(n)) == model.contains(&hash(n)))
                    && heads == model.iter().rev().copied().collect()
            })
        }
        quickcheck::quickcheck(holds as fn(Vec<(u8, Vec<u8>, bool)>) -> bool);
    }
}
