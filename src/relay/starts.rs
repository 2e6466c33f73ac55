//! How often relays were started on a store: the number that makes the fences of leases go up over
//! restarts, whatever the clock says. It is on disk before any shard is told, so that no two starts
//! have the same.

use std::sync::Arc;

use super::{hub::Hub, shard::Inbound};
use crate::{
    record::{self, RecordError},
    replica::{Event, Kind, RowKey, RowWrite},
    store::{DocumentKey, Store, StoreError},
};

/// The row, of what the store has for its owner.
const ROW: RowKey = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };

/// Why starts cannot be counted.
#[derive(Debug, thiserror::Error)]
enum Uncounted {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Counts this start, and tells all shards.
pub(super) async fn tell(hub: Arc<Hub>, store: Arc<dyn Store>) {
    match count(&*store).await {
        Ok(number) => {
            hub.shards.tell_all(|| Inbound::Event(Event::Numbered(number))).await;
        }
        Err(error) => {
            tracing::error!(%error, "starts cannot be counted: no lease is granted in this run");
        }
    }
}

async fn count(store: &dyn Store) -> Result<u64, Uncounted> {
    let row = store.read(DocumentKey::starts(), vec![ROW]).await?.into_iter().next().flatten();
    let before: u64 = row.map_or(Ok(0), |row| record::decode(&row))?;
    let number = before.saturating_add(1);
    let row = RowWrite::Put(ROW, record::encode(&number)?.into());
    store.write(DocumentKey::starts(), vec![row]).await?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    #[tokio::test]
    async fn no_two_starts_have_the_same_number() {
        let store = store::memory().unwrap();
        for number in 1..4 {
            assert_eq!(count(&*store).await.unwrap(), number);
        }
        let spoilt = RowWrite::Put(ROW, vec![9, 9].into());
        store.write(DocumentKey::starts(), vec![spoilt]).await.unwrap();
        assert!(count(&*store).await.is_err(), "what cannot be read is not begun anew");
    }
}
