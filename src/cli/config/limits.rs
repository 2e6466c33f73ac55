//! Every cap that can be set, by its key in `[limits]`.

use concord::relay::RelayConfig;

/// Where a value goes.
pub(super) enum Slot<'a> {
    Size(&'a mut usize),
    Count(&'a mut u64),
    Rate(&'a mut u32),
}

/// Every key of `[limits]`, and where it goes.
pub(super) fn limits(config: &mut RelayConfig) -> Vec<(&'static str, Slot<'_>)> {
    let RelayConfig { limits, rates, connections, connections_per_address, blob_grace_ms, .. } =
        config;
    vec![
        ("connections", Slot::Size(connections)),
        ("connections-per-address", Slot::Size(connections_per_address)),
        ("handshake-ms", Slot::Count(&mut limits.handshake_ms)),
        ("message-bytes", Slot::Size(&mut limits.message_bytes)),
        ("document-bytes", Slot::Size(&mut limits.document_bytes)),
        ("ephemeral-bytes", Slot::Size(&mut limits.ephemeral_bytes)),
        ("change-bytes", Slot::Size(&mut limits.change_bytes)),
        ("change-inflated-bytes", Slot::Size(&mut limits.change_inflated_bytes)),
        ("change-ops", Slot::Count(&mut limits.change_ops)),
        ("change-deps", Slot::Size(&mut limits.change_deps)),
        ("change-actors", Slot::Size(&mut limits.change_actors)),
        ("change-columns", Slot::Size(&mut limits.change_columns)),
        ("change-message-bytes", Slot::Size(&mut limits.change_message_bytes)),
        ("sync-changes", Slot::Size(&mut limits.sync_changes)),
        ("sync-heads", Slot::Size(&mut limits.sync_heads)),
        ("sync-need", Slot::Size(&mut limits.sync_need)),
        ("sync-haves", Slot::Size(&mut limits.sync_haves)),
        ("remote-subscriptions", Slot::Size(&mut limits.remote_subscriptions)),
        ("orphans", Slot::Size(&mut limits.orphans)),
        ("orphan-bytes", Slot::Size(&mut limits.orphan_bytes)),
        ("queue-bytes", Slot::Size(&mut limits.queue_bytes)),
        ("documents-per-connection", Slot::Size(&mut limits.documents_per_connection)),
        ("blob-bytes", Slot::Count(&mut limits.blob_bytes)),
        ("blob-total-bytes", Slot::Count(&mut limits.blob_total_bytes)),
        ("blob-grace-ms", Slot::Count(blob_grace_ms)),
        ("frames-per-second", Slot::Rate(&mut rates.frames)),
        ("frame-burst", Slot::Rate(&mut rates.frame_burst)),
        ("bytes-per-second", Slot::Rate(&mut rates.bytes)),
        ("byte-burst", Slot::Rate(&mut rates.byte_burst)),
        ("sustained-ms", Slot::Count(&mut rates.sustained_ms)),
    ]
}
