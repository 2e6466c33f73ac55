//! Reads rows out of an engine.

use std::ops::ControlFlow;

use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId};

use super::{
    Tenant,
    backend::{Backend, BackendError},
    key,
    value::Assembly,
};
use crate::replica::{Kind, RowKey, StoredDocument};

/// A row that is not what was written, and why.
pub(super) type Damage = (RowKey, String);

/// All that is resident of a document, without the bytes of snapshots and index pages.
pub(super) fn load(
    backend: &dyn Backend,
    document: &[u8],
) -> Result<(StoredDocument, Vec<Damage>), BackendError> {
    let mut stored = StoredDocument::default();
    let mut damage = Vec::new();
    let mut is_unknown = true;
    backend.scan(document, document, &mut |_, _| {
        is_unknown = false;
        ControlFlow::Break(())
    })?;
    if is_unknown {
        // One look instead of one a kind: most documents that are asked for are new.
        return Ok((stored, damage));
    }
    for kind in [Kind::Meta, Kind::IndexRoot, Kind::Change] {
        rows_of_kind(backend, document, kind, &mut |row, bytes| match bytes {
            Ok(bytes) => match kind {
                Kind::Meta => stored.meta = Some(bytes),
                Kind::IndexRoot => stored.roots.push((row.id, bytes)),
                _ => stored.changes.push((ChangeHash(row.id), bytes)),
            },
            Err(reason) => damage.push((row, reason)),
        })?;
    }
    stored.corrupt = damage.iter().map(|(row, _)| *row).collect();
    Ok((stored, damage))
}

/// One row; `Some(Err)` says what is wrong with it.
pub(super) fn read(
    backend: &dyn Backend,
    document: &[u8],
    row: &RowKey,
) -> Result<Option<Result<Bytes, String>>, BackendError> {
    let prefix = key::row_prefix(document, row);
    let mut assembly = Assembly::default();
    backend.scan(&prefix, &prefix, &mut |key, value| {
        let tail = key::parse_tail(key.get(document.len()..).unwrap_or_default());
        assembly.add(key, tail.map_or(u32::MAX, |(_, number)| number), value);
        ControlFlow::Continue(())
    })?;
    Ok(assembly.finish())
}

/// Documents of a tenant in key order, one seek each.
pub(super) fn documents(
    backend: &dyn Backend,
    tenant: &Tenant,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<DocumentId>, BackendError> {
    let prefix = key::tenant_prefix(tenant);
    let mut from = after.map_or_else(|| prefix.clone(), |last| key::after_document(last.to_vec()));
    let mut documents = Vec::new();
    while documents.len() < limit {
        let mut found = None;
        let mut unreadable = 0_u64;
        backend.scan(&from, &prefix, &mut |key, _| {
            if let Some((id, document)) = key::parse_document(&prefix, key) {
                found = Some((id, document.to_vec()));
                return ControlFlow::Break(());
            }
            unreadable += 1;
            ControlFlow::Continue(())
        })?;
        if unreadable > 0 {
            tracing::warn!(
                rows = unreadable,
                "store: rows whose key cannot be read were passed over"
            );
        }
        let Some((id, document)) = found else { break };
        documents.push(id);
        from = key::after_document(document);
    }
    Ok(documents)
}

fn rows_of_kind(
    backend: &dyn Backend,
    document: &[u8],
    kind: Kind,
    each: &mut dyn FnMut(RowKey, Result<Bytes, String>),
) -> Result<(), BackendError> {
    let prefix = key::kind_prefix(document, kind);
    let mut current: Option<(RowKey, Assembly)> = None;
    backend.scan(&prefix, &prefix, &mut |key, value| {
        let tail = key.get(document.len()..).unwrap_or_default();
        let Some((row, number)) = key::parse_tail(tail) else {
            tracing::warn!(
                len = key.len(),
                "store: a row whose key cannot be read was passed over"
            );
            return ControlFlow::Continue(());
        };
        if let Some((last, assembly)) = current.take_if(|(last, _)| *last != row)
            && let Some(bytes) = assembly.finish()
        {
            each(last, bytes);
        }
        current.get_or_insert_with(|| (row, Assembly::default())).1.add(key, number, value);
        ControlFlow::Continue(())
    })?;
    if let Some((last, assembly)) = current
        && let Some(bytes) = assembly.finish()
    {
        each(last, bytes);
    }
    Ok(())
}
