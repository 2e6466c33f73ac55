//! An attachment that is on its way in: its pieces come in order, and each is answered for when it is
//! on disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use concord_protocol::BlobHash;

use super::{
    catalogue::Place,
    outline::{Outline, piece_bytes},
    shelf::ShelfError,
};

/// See the module. Whoever brings pieces of the same attachment shares it.
#[derive(Debug)]
pub(crate) struct Coming {
    pub(crate) hash: BlobHash,
    pub(crate) length: u64,
    /// How many pieces it has.
    pub(crate) pieces: u32,
    pub(super) place: Place,
    /// What its pieces are checked by. Without one only the whole can be.
    pub(super) outline: Option<Outline>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Pieces that were given to the store, from the first.
    taken: u32,
    /// And are on disk.
    durable: u32,
    /// A piece is not on disk that should be: those behind it are not counted.
    is_broken: bool,
}

impl Coming {
    pub(super) fn new(
        (hash, length, pieces): (BlobHash, u64, u32),
        place: Place,
        outline: Option<Outline>,
        have: u32,
    ) -> Self {
        let progress = Progress { taken: have, durable: have, is_broken: false };
        Self { hash, length, pieces, place, outline, progress: Mutex::new(progress) }
    }

    /// So many pieces are on disk, from the first.
    pub(crate) fn have(&self) -> u32 {
        self.progress().durable
    }

    /// Checks a piece, and gives it its place in the order; `false`: it was there already.
    pub(super) fn take(&self, at: u32, data: &[u8]) -> Result<bool, ShelfError> {
        let is_right = match &self.outline {
            Some(outline) => outline.is_piece(at, data),
            None => piece_bytes(self.length, at) == Some(data.len()),
        };
        if !is_right {
            return Err(ShelfError::Wrong { hash: self.hash, at: Some(at) });
        }
        let mut progress = self.progress();
        if progress.is_broken || at > progress.taken {
            return Err(ShelfError::OutOfOrder { have: progress.durable });
        }
        let is_new = at == progress.taken;
        progress.taken += u32::from(is_new);
        Ok(is_new)
    }

    /// A piece that was taken is on disk, or is not. Gives how many are.
    pub(super) fn stored(&self, at: u32, is_stored: bool) -> u32 {
        let mut progress = self.progress();
        if !is_stored {
            progress.is_broken = true;
        } else if !progress.is_broken {
            // The store answers in the order that it was asked in.
            progress.durable = progress.durable.max(at + 1);
        }
        progress.durable
    }

    /// Only so many pieces are as they should be.
    pub(super) fn back_to(&self, have: u32) {
        let mut progress = self.progress();
        (progress.taken, progress.durable) = (have, have);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.progress().is_broken
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Nothing in here panics half way through a change.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_taken_in_order_and_once() {
        let sizes = (BlobHash([1; 32]), 3 * 65_536, 3);
        let coming = Coming::new(sizes, [0; 16], None, 1);
        let piece = vec![0; 65_536];
        let have = |have| Err(ShelfError::OutOfOrder { have });
        assert_eq!(coming.take(2, &piece), have(1));
        assert_eq!(coming.take(0, &piece), Ok(false));
        assert_eq!(coming.take(1, &piece), Ok(true));
        assert_eq!((coming.take(1, &piece), coming.have()), (Ok(false), 1));
        assert!(matches!(coming.take(2, &piece[1..]), Err(ShelfError::Wrong { .. })));
        assert_eq!(coming.take(2, &piece), Ok(true));
        assert!(coming.take(3, &piece).is_err());
        assert_eq!((coming.stored(1, false), coming.stored(2, true)), (1, 1));
        assert_eq!(coming.take(2, &piece), have(1), "nobody counts on what follows a gap");
    }
}
