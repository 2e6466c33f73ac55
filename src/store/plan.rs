//! Turns writes of rows into batches of pieces.

use std::{collections::BTreeSet, ops::ControlFlow};

use super::{
    backend::{Backend, BackendError, Batch},
    key, value,
};
use crate::replica::{Kind, RowKey, RowWrite};

/// The key and the value of a piece.
type Piece = (Vec<u8>, Vec<u8>);

/// Applies writes in order. Rows stay whole through a crash at any moment: they are written and
/// removed in one batch, but those larger than a batch may be, whose first piece, without which a
/// row is not there, goes in last and out first. What a crash leaves of such a one is no row; it
/// takes room until it is written or deleted again.
pub(super) struct Plan<'b> {
    backend: &'b dyn Backend,
    batch: Batch,
    batch_bytes: usize,
    /// Bytes given to the engine, keys and values.
    pub(super) bytes: u64,
    /// Rows written or removed.
    pub(super) rows: u64,
}

impl<'b> Plan<'b> {
    pub(super) fn new(backend: &'b dyn Backend) -> Self {
        Self { backend, batch: Batch::new(), batch_bytes: 0, bytes: 0, rows: 0 }
    }

    /// Takes one write of the document with this prefix.
    pub(super) fn write(&mut self, document: &[u8], write: &RowWrite) -> Result<(), BackendError> {
        match write {
            RowWrite::Put(row, bytes) => self.put(document, row, bytes)?,
            RowWrite::Delete(row) => self.delete(document, row)?,
            RowWrite::Clear => return self.clear(document),
        }
        self.apply_if_large()
    }

    /// Applies the rest. Says whether anything was changed, and so needs a flush.
    pub(super) fn finish(&mut self) -> Result<bool, BackendError> {
        self.apply()?;
        Ok(self.bytes > 0)
    }

    fn put(&mut self, document: &[u8], row: &RowKey, bytes: &[u8]) -> Result<(), BackendError> {
        let prefix = key::row_prefix(document, row);
        let crc = crc32c::crc32c(bytes);
        let mut sealed = value::cut(bytes).map(|(number, payload)| {
            let key = key::piece(&prefix, number);
            let value = value::seal(&key, number, payload, bytes, crc);
            (key, value)
        });
        let present = self.get(&key::piece(&prefix, 0))?.is_some();
        if present {
            // Usually it is there already, whole. If it differs, it is `Meta` or was damaged:
            // what came now is right, and pieces that it does not have must go.
            let sealed = sealed.collect::<Vec<_>>();
            let found = self.pieces(&prefix)?;
            let same = found.len() == sealed.len()
                && sealed.iter().zip(&found).all(|(new, old)| new == old);
            if same {
                return Ok(());
            }
            mark!(RowMended, if row.kind != crate::replica::Kind::Meta);
            for (old, _) in found.into_iter().skip(sealed.len()) {
                self.push(old, None);
            }
            for (key, value) in sealed.into_iter().rev() {
                self.push(key, Some(value));
            }
        } else {
            let is_large = bytes.len() >= value::LARGE_ROW_BYTES;
            if mutant!(FirstPieceFirst)
                && is_large
                && let Some((key, value)) = sealed.next()
            {
                self.push(key, Some(value));
                self.apply_if_large()?;
            }
            for (key, value) in sealed.rev() {
                self.push(key, Some(value));
                if is_large {
                    self.apply_if_large()?;
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn delete(&mut self, document: &[u8], row: &RowKey) -> Result<(), BackendError> {
        let keys = self.piece_keys(&key::row_prefix(document, row))?;
        let is_large = keys.len() > value::LARGE_LAST_PIECE as usize;
        for key in keys {
            self.push(key, None);
            if is_large {
                self.apply_if_large()?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Row after row, so that no batch leaves half a one.
    fn clear(&mut self, document: &[u8]) -> Result<(), BackendError> {
        let rows: BTreeSet<_> = (self.piece_keys(document)?.iter())
            .filter_map(|key| key::parse_tail(key.get(document.len()..)?))
            .map(|(row, _)| (row.kind, row.id, row.part))
            .filter(|(kind, ..)| *kind != Kind::Meta)
            .collect();
        for (kind, id, part) in rows {
            self.delete(document, &RowKey { kind, id, part })?;
            self.apply_if_large()?;
        }
        Ok(())
    }

    fn push(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
        self.batch_bytes += bytes;
        self.bytes += bytes as u64;
        self.batch.insert(key, value);
    }

    fn apply_if_large(&mut self) -> Result<(), BackendError> {
        if self.batch_bytes < self.backend.batch_bytes_max() {
            return Ok(());
        }
        self.apply()?;
        self.backend.settle()
    }

    fn apply(&mut self) -> Result<(), BackendError> {
        self.batch_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        self.backend.apply(std::mem::take(&mut self.batch))
    }

    /// A value as it will be after this batch.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        match self.batch.get(key) {
            Some(pending) => Ok(pending.clone()),
            None => Ok(self.backend.get(key)?.map(Into::into)),
        }
    }

    fn pieces(&self, row_prefix: &[u8]) -> Result<Vec<Piece>, BackendError> {
        let mut found = Batch::new();
        self.backend.scan(row_prefix, row_prefix, &mut |key, value| {
            found.insert(key.to_vec(), Some(value.to_vec()));
            ControlFlow::Continue(())
        })?;
        for (key, pending) in self.pending(row_prefix) {
            found.insert(key.clone(), pending.clone());
        }
        Ok(found.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }

    fn piece_keys(&self, row_prefix: &[u8]) -> Result<Vec<Vec<u8>>, BackendError> {
        let mut found = BTreeSet::new();
        self.backend.scan(row_prefix, row_prefix, &mut |key, _| {
            found.insert(key.to_vec());
            ControlFlow::Continue(())
        })?;
        for (key, pending) in self.pending(row_prefix) {
            if pending.is_some() {
                found.insert(key.clone());
            }
        }
        Ok(found.into_iter().collect())
    }

    fn pending<'p>(
        &'p self,
        row_prefix: &'p [u8],
    ) -> impl Iterator<Item = (&'p Vec<u8>, &'p Option<Vec<u8>>)> {
        self.batch
            .range(row_prefix.to_vec()..)
            .take_while(move |(key, _)| key.starts_with(row_prefix))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::Bytes;

    use super::{
        super::{backend::Visit, memory::MemoryBackend, rows},
        *,
    };

    const DOCUMENT: &[u8] = b"document";
    const BATCH_BYTES: usize = 4096;

    /// An engine of small batches. After each, which is where a crash may leave it, every row is
    /// whole or not there.
    #[derive(Default)]
    struct Stepwise(MemoryBackend);

    impl Backend for Stepwise {
        fn apply(&self, batch: Batch) -> Result<(), BackendError> {
            self.0.apply(batch)?;
            for row in every_row() {
                if let Some(Err(reason)) = rows::read(&self.0, DOCUMENT, &row)? {
                    panic!("{row:?}: {reason}");
                }
            }
            assert_eq!(rows::load(&self.0, DOCUMENT)?.1, [], "no damage");
            Ok(())
        }

        fn flush(&self) -> Result<(), BackendError> {
            self.0.flush()
        }

        fn batch_bytes_max(&self) -> usize {
            BATCH_BYTES
        }

        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
            self.0.get(key)
        }

        fn scan(&self, from: &[u8], prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
            self.0.scan(from, prefix, visit)
        }

        fn free_bytes(&self) -> io::Result<Option<u64>> {
            Ok(None)
        }
    }

    /// Lengths around those at which rows are cut, and at which they are large.
    const LENGTHS: [usize; 8] = [10, 4_000, 10_000, 32_684, 32_685, 32_767, 32_768, 100_000];

    fn every_row() -> impl Iterator<Item = RowKey> {
        [Kind::Meta, Kind::IndexRoot, Kind::IndexPage, Kind::Snapshot, Kind::Change]
            .into_iter()
            .flat_map(|kind| (0..8).map(move |n| RowKey { kind, id: [n; 32], part: 0 }))
    }

    #[test]
    fn no_batch_leaves_half_a_row() {
        let backend = Stepwise::default();
        // What a batch holds already decides where the next row meets its end.
        for before in 0..BATCH_BYTES / 64 {
            let filler = vec![u8::try_from(before).unwrap(); before * 64];
            let filler = |n| {
                let row = RowKey { kind: Kind::Quarantine, id: [n; 32], part: 0 };
                RowWrite::Put(row, filler.clone().into())
            };
            let mut plan = Plan::new(&backend);
            plan.write(DOCUMENT, &filler(1)).unwrap();
            for row in every_row() {
                let bytes = vec![7; LENGTHS[usize::from(row.id[0])]].into();
                plan.write(DOCUMENT, &RowWrite::Put(row, bytes)).unwrap();
            }
            assert!(plan.finish().unwrap());
            let mut plan = Plan::new(&backend);
            plan.write(DOCUMENT, &filler(2)).unwrap();
            for row in every_row() {
                plan.write(DOCUMENT, &RowWrite::Delete(row)).unwrap();
            }
            assert!(plan.finish().unwrap());
            for row in every_row() {
                assert_eq!(rows::read(&backend, DOCUMENT, &row), Ok(None));
            }
        }
    }

    #[test]
    fn all_rows_go_but_meta_and_no_batch_leaves_half_a_one() {
        const OTHER: &[u8] = b"documenu";
        let backend = Stepwise::default();
        let is_left =
            |document, row: &RowKey| rows::read(&backend, document, row).unwrap().is_some();
        let mut plan = Plan::new(&backend);
        for row in every_row() {
            let bytes: Bytes = vec![7; LENGTHS[usize::from(row.id[0])]].into();
            plan.write(DOCUMENT, &RowWrite::Put(row, bytes.clone())).unwrap();
            plan.write(OTHER, &RowWrite::Put(row, bytes)).unwrap();
        }
        plan.write(DOCUMENT, &RowWrite::Clear).unwrap();
        // What comes behind it is not concerned.
        let after = RowKey { kind: Kind::Quarantine, id: [1; 32], part: 3 };
        plan.write(DOCUMENT, &RowWrite::Put(after, "later".into())).unwrap();
        assert!(plan.finish().unwrap());
        for row in every_row() {
            assert_eq!(is_left(DOCUMENT, &row), row.kind == Kind::Meta, "{row:?}");
            assert!(is_left(OTHER, &row), "{row:?}");
        }
        assert!(is_left(DOCUMENT, &after));
    }
}
