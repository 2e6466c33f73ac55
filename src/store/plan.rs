//! Turns writes of rows into batches of pieces.

use std::{collections::BTreeSet, ops::ControlFlow};

use super::{
    backend::{Backend, BackendError, Batch},
    key, value,
};
use crate::replica::{RowKey, RowWrite};

/// The key and the value of a piece.
type Piece = (Vec<u8>, Vec<u8>);

/// Applies writes in order. Rows stay whole through a crash at any moment: they are written in one
/// batch, but those larger than a batch may be, whose first piece, without which a row is not
/// there, goes in last and out first. What a crash leaves of a half written one is no row; it takes
/// room until it is written or deleted again.
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
        let sealed = value::cut(bytes).map(|(number, payload)| {
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
            for (old, _) in found.into_iter().skip(sealed.len()) {
                self.push(old, None);
            }
            for (key, value) in sealed.into_iter().rev() {
                self.push(key, Some(value));
            }
        } else {
            let is_large = bytes.len() >= value::LARGE_ROW_BYTES;
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
        let prefix = key::row_prefix(document, row);
        for key in self.piece_keys(&prefix)? {
            self.push(key, None);
            self.apply_if_large()?;
        }
        self.rows += 1;
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
