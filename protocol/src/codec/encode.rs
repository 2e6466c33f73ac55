use bytes::Bytes;

use super::{names, types, writer::Writer};
use crate::{
    Ack, Answer, BlobMessage, Call, LeaseHolder, LeaseRequest, LeaseState, Message, PeerId,
    PeerMetadata, Refused, RemoteHeads, SessionInfo, StorageId,
};

/// Room for the keys, the type and the lengths of a message, without its ids and data.
const OVERHEAD: usize = 96;
/// A head in its text form, with its length before it.
const HEAD_LEN: usize = 52;

/// The bytes of one message.
pub fn encode(message: &Message) -> Bytes {
    let mut out = Writer::with_capacity(size_hint(message));
    write(&mut out, message);
    out.finish()
}

/// Several messages in one frame (`concord.v1` only). No more than
/// [`super::MESSAGES_PER_FRAME_MAX`] are read at the other end.
pub fn encode_many(messages: &[Message]) -> Bytes {
    let room = messages.iter().map(size_hint).sum::<usize>();
    let mut out = Writer::with_capacity(room + 3);
    out.array(messages.len());
    for message in messages {
        write(&mut out, message);
    }
    out.finish()
}

/// Messages that are encoded already, in one frame (`concord.v1` only): as [`encode_many`].
pub fn frame_of<'a>(messages: impl ExactSizeIterator<Item = &'a Bytes> + Clone) -> Bytes {
    /// The head of a list that a frame may have.
    const LIST: usize = 3;
    let bytes = messages.clone().map(Bytes::len).sum::<usize>();
    let mut out = Writer::with_capacity(LIST + bytes);
    out.array(messages.len());
    messages.for_each(|message| out.encoded(message));
    out.finish()
}

/// Whether a message that was encoded here is a [`Message::Ephemeral`]: who queues messages need
/// not read them.
pub fn is_ephemeral(encoded: &[u8]) -> bool {
    // The type is the first entry of every map that is written here.
    let mut start = Writer::with_capacity(OVERHEAD);
    text(&mut start, names::TYPE, types::EPHEMERAL);
    encoded.get(1..).is_some_and(|entries| entries.starts_with(start.as_slice()))
}

/// A sync message, without building a [`Message`] of it first: the way of every change to every
/// reader.
pub fn encode_sync(
    document: &crate::DocumentId,
    sender: &PeerId,
    target: &PeerId,
    data: &[u8],
) -> Bytes {
    let ids = document.as_str().len() + sender.as_str().len() + target.as_str().len();
    let mut out = Writer::with_capacity(OVERHEAD + ids + data.len());
    with_data(&mut out, types::SYNC, document.as_str(), (sender, target), data);
    out.finish()
}

/// `doc-unavailable` for a text that is not a document id, so that who asked does not wait.
pub fn encode_unavailable(document: &str, sender: &PeerId, target: &PeerId) -> Bytes {
    let ids = document.len() + sender.as_str().len() + target.as_str().len();
    let mut out = Writer::with_capacity(OVERHEAD + ids);
    start(&mut out, types::DOC_UNAVAILABLE, 3);
    address(&mut out, document, (sender, target));
    out.finish()
}

#[allow(clippy::too_many_lines, reason = "an arm for each message")]
fn write(out: &mut Writer, message: &Message) {
    match message {
        Message::Join { sender, metadata, versions } => {
            start(out, types::JOIN, 3);
            text(out, names::SENDER_ID, sender.as_str());
            write_metadata(out, metadata);
            out.text(names::SUPPORTED_VERSIONS);
            out.array(versions.len());
            for version in versions {
                out.text(version);
            }
        }
        Message::Peer { sender, target, metadata, version } => {
            start(out, types::PEER, 4);
            ends(out, (sender, target));
            write_metadata(out, metadata);
            text(out, names::SELECTED_VERSION, version);
        }
        Message::Error { sender, target, message } => {
            start(out, types::ERROR, 3);
            ends(out, (sender, target));
            text(out, names::MESSAGE, message);
        }
        Message::Leave { sender } => {
            start(out, types::LEAVE, 1);
            text(out, names::SENDER_ID, sender.as_str());
        }
        Message::RemoteSubscriptionChange { sender, target, add, remove } => {
            start(out, types::REMOTE_SUBSCRIPTION_CHANGE, 4);
            ends(out, (sender, target));
            write_stores(out, names::ADD, add);
            write_stores(out, names::REMOVE, remove);
        }
        Message::GoAway { sender, retry_after_ms } => {
            start(out, types::GO_AWAY, 2);
            text(out, names::SENDER_ID, sender.as_str());
            number(out, names::RETRY_AFTER_MS, *retry_after_ms);
        }
        Message::Request { document, sender, target, data } => {
            with_data(out, types::REQUEST, document.as_str(), (sender, target), data);
        }
        Message::Sync { document, sender, target, data } => {
            with_data(out, types::SYNC, document.as_str(), (sender, target), data);
        }
        Message::DocUnavailable { document, sender, target } => {
            start(out, types::DOC_UNAVAILABLE, 3);
            address(out, document.as_str(), (sender, target));
        }
        Message::Unsubscribe { document, sender, target } => {
            start(out, types::UNSUBSCRIBE, 3);
            address(out, document.as_str(), (sender, target));
        }
        Message::Ephemeral { document, sender, target, count, session, data } => {
            start(out, types::EPHEMERAL, 6);
            address(out, document.as_str(), (sender, target));
            out.text(names::COUNT);
            out.count(*count);
            text(out, names::SESSION_ID, session.as_str());
            bytes(out, data);
        }
        Message::RemoteHeadsChanged { document, sender, target, heads } => {
            start(out, types::REMOTE_HEADS_CHANGED, 4);
            address(out, document.as_str(), (sender, target));
            write_remote_heads(out, heads);
        }
        Message::Ack { document, sender, target, ack } => {
            start(out, types::ACK, 6);
            address(out, document.as_str(), (sender, target));
            write_ack(out, ack);
        }
        Message::Lease { document, sender, target, request } => {
            write_lease_request(out, document.as_str(), (sender, target), request);
        }
        Message::LeaseState { document, sender, target, state } => {
            write_lease_state(out, document.as_str(), (sender, target), state);
        }
        Message::Schema { hash, text: schema } => {
            start(out, types::SCHEMA, 2);
            text(out, names::HASH, &hash.to_string());
            text(out, names::TEXT, schema);
        }
        Message::Call(call) => write_call(out, call),
        Message::Answer(answer) => write_answer(out, answer),
        Message::Event { id, event, data } => {
            start(out, types::EVENT, 3);
            number(out, names::ID, *id);
            text(out, names::EVENT, event);
            text(out, names::DATA, data);
        }
        Message::Compressed { length, data } => {
            start(out, types::ZSTD, 2);
            number(out, names::LENGTH, *length);
            bytes(out, data);
        }
        Message::HangUp { id } => {
            start(out, types::HANG_UP, 1);
            number(out, names::ID, *id);
        }
        Message::Blob(blob) => write_blob(out, blob),
        // Neither is ever meant to be sent: what can be said of them is who, and of what.
        Message::Misaddressed { document, sender, wants_answer } => {
            start(out, if *wants_answer { types::REQUEST } else { types::DOC_UNAVAILABLE }, 2);
            text(out, names::DOCUMENT_ID, document);
            text(out, names::SENDER_ID, sender.as_str());
        }
        Message::Unknown { kind } => start(out, kind, 0),
    }
}

/// Opens the map of a message with its type and so many entries more.
fn start(out: &mut Writer, kind: &str, entries: usize) {
    out.map(entries + 1);
    text(out, names::TYPE, kind);
}

fn text(out: &mut Writer, name: &str, value: &str) {
    out.text(name);
    out.text(value);
}

fn number(out: &mut Writer, name: &str, value: u32) {
    out.text(name);
    out.count(u64::from(value));
}

/// What may be absent, if it is not.
fn texts<const N: usize>(out: &mut Writer, entries: [(&str, &Option<String>); N]) {
    for (name, value) in entries {
        if let Some(value) = value {
            text(out, name, value);
        }
    }
}

fn ends(out: &mut Writer, (sender, target): (&PeerId, &PeerId)) {
    text(out, names::SENDER_ID, sender.as_str());
    text(out, names::TARGET_ID, target.as_str());
}

fn address(out: &mut Writer, document: &str, from_to: (&PeerId, &PeerId)) {
    text(out, names::DOCUMENT_ID, document);
    ends(out, from_to);
}

fn with_data(
    out: &mut Writer,
    kind: &str,
    document: &str,
    from_to: (&PeerId, &PeerId),
    data: &[u8],
) {
    start(out, kind, 4);
    address(out, document, from_to);
    bytes(out, data);
}

fn bytes(out: &mut Writer, data: &[u8]) {
    out.text(names::DATA);
    out.bytes(data);
}

fn write_metadata(out: &mut Writer, metadata: &PeerMetadata) {
    let PeerMetadata { storage_id, is_ephemeral, schema, features, session } = metadata;
    out.text(names::PEER_METADATA);
    let said = [
        storage_id.is_some(),
        is_ephemeral.is_some(),
        schema.is_some(),
        !features.is_empty(),
        session.is_some(),
    ];
    out.map(said.into_iter().filter(|said| *said).count());
    if let Some(storage_id) = storage_id {
        text(out, names::STORAGE_ID, storage_id.as_str());
    }
    if let Some(is_ephemeral) = is_ephemeral {
        out.text(names::IS_EPHEMERAL);
        out.boolean(*is_ephemeral);
    }
    if let Some(schema) = schema {
        text(out, names::CONCORD_SCHEMA, &schema.to_string());
    }
    if !features.is_empty() {
        out.text(names::CONCORD_FEATURES);
        out.array(features.iter().count());
        for feature in features.iter() {
            out.text(feature.as_str());
        }
    }
    if let Some(session) = session {
        out.text(names::CONCORD_SESSION);
        out.map(session_entries(session));
        write_session(out, session);
    }
}

fn session_entries(SessionInfo { user, device, .. }: &SessionInfo) -> usize {
    1 + usize::from(user.is_some()) + usize::from(device.is_some())
}

fn write_session(out: &mut Writer, SessionInfo { session, user, device }: &SessionInfo) {
    text(out, names::SESSION_ID, session.as_str());
    texts(out, [(names::USER, user), (names::DEVICE, device)]);
}

fn write_lease_request(
    out: &mut Writer,
    document: &str,
    from_to: (&PeerId, &PeerId),
    request: &LeaseRequest,
) {
    start(out, types::LEASE, 7);
    address(out, document, from_to);
    let LeaseRequest { id, action, for_ms, fence } = request;
    number(out, names::ID, *id);
    text(out, names::ACT, action.as_str());
    number(out, names::FOR_MS, *for_ms);
    out.text(names::FENCE);
    out.count(*fence);
}

fn write_lease_state(
    out: &mut Writer,
    document: &str,
    from_to: (&PeerId, &PeerId),
    LeaseState { id, why, holder }: &LeaseState,
) {
    let said = [id.is_some(), why.is_some(), holder.is_some()];
    start(out, types::LEASE_STATE, 3 + said.into_iter().filter(|said| *said).count());
    address(out, document, from_to);
    if let Some(id) = id {
        number(out, names::ID, *id);
    }
    if let Some(why) = why {
        text(out, names::WHY, why.as_str());
    }
    if let Some(LeaseHolder { who, fence, left_ms }) = holder {
        out.text(names::HOLDER);
        out.map(session_entries(who) + 2);
        write_session(out, who);
        out.text(names::FENCE);
        out.count(*fence);
        number(out, names::LEFT_MS, *left_ms);
    }
}

fn write_stores(out: &mut Writer, name: &str, stores: &[StorageId]) {
    out.text(name);
    out.array(stores.len());
    for store in stores {
        out.text(store.as_str());
    }
}

fn write_remote_heads(out: &mut Writer, stores: &[RemoteHeads]) {
    out.text(names::NEW_HEADS);
    out.map(stores.len());
    for RemoteHeads { storage_id, heads, timestamp_ms } in stores {
        out.text(storage_id.as_str());
        out.map(2);
        out.text(names::HEADS);
        out.array(heads.len());
        for head in heads {
            out.text(&head.to_bs58());
        }
        out.text(names::TIMESTAMP);
        out.float(*timestamp_ms);
    }
}

fn write_ack(out: &mut Writer, Ack { applied, durable, refused }: &Ack) {
    for (name, hashes) in [(names::APPLIED, applied), (names::DURABLE, durable)] {
        out.text(name);
        out.array(hashes.len());
        for hash in hashes {
            out.text(&hash.to_bs58());
        }
    }
    out.text(names::REFUSED);
    out.array(refused.len());
    for Refused { hash, code, reason } in refused {
        out.map(2 + usize::from(hash.is_some()));
        if let Some(hash) = hash {
            text(out, names::HASH, &hash.to_bs58());
        }
        text(out, names::CODE, code.as_str());
        text(out, names::REASON, reason);
    }
}

fn write_call(out: &mut Writer, call: &Call) {
    let Call { id, method, path, if_match, if_none_match, body } = call;
    let more = [if_match, if_none_match, body].into_iter().flatten().count();
    start(out, types::CALL, 3 + more);
    number(out, names::ID, *id);
    text(out, names::METHOD, method);
    text(out, names::PATH, path);
    let tags = [(names::IF_MATCH, if_match), (names::IF_NONE_MATCH, if_none_match)];
    texts(out, tags);
    texts(out, [(names::BODY, body)]);
}

fn write_answer(out: &mut Writer, answer: &Answer) {
    let Answer { id, status, etag, body } = answer;
    start(out, types::ANSWER, 3 + usize::from(etag.is_some()));
    number(out, names::ID, *id);
    number(out, names::STATUS, u32::from(*status));
    texts(out, [(names::ETAG, etag)]);
    text(out, names::BODY, body);
}

fn write_blob(out: &mut Writer, blob: &BlobMessage) {
    let (kind, entries) = match blob {
        BlobMessage::Ask { at, .. } => (types::BLOB_ASK, 2 + usize::from(at.is_some())),
        BlobMessage::Offer { .. } => (types::BLOB_OFFER, 4),
        BlobMessage::Chunk { .. } => (types::BLOB_CHUNK, 4),
        BlobMessage::State { reason, length, outline, .. } => {
            let more = [reason.is_some(), length.is_some(), outline.is_some()];
            (types::BLOB_STATE, 3 + more.into_iter().filter(|said| *said).count())
        }
    };
    start(out, kind, entries);
    number(out, names::ID, blob.id());
    match blob {
        BlobMessage::Ask { hash, at, .. } => {
            text(out, names::HASH, &hash.to_string());
            if let Some(at) = at {
                number(out, names::AT, *at);
            }
        }
        BlobMessage::Offer { hash, length, outline, .. } => {
            text(out, names::HASH, &hash.to_string());
            out.text(names::LENGTH);
            out.count(*length);
            out.text(names::OUTLINE);
            out.bytes(outline);
        }
        BlobMessage::Chunk { hash, at, data, .. } => {
            text(out, names::HASH, &hash.to_string());
            number(out, names::AT, *at);
            out.text(names::DATA);
            out.bytes(data);
        }
        BlobMessage::State { status, reason, length, have, outline, .. } => {
            number(out, names::STATUS, u32::from(*status));
            texts(out, [(names::REASON, reason)]);
            if let Some(length) = length {
                out.text(names::LENGTH);
                out.count(*length);
            }
            number(out, names::HAVE, *have);
            if let Some(outline) = outline {
                out.text(names::OUTLINE);
                out.bytes(outline);
            }
        }
    }
}

/// About how many bytes a message takes: exact enough for those that are sent often.
fn size_hint(message: &Message) -> usize {
    /// A document id and two peer ids, as clients make them.
    const IDS: usize = 160;
    OVERHEAD
        + IDS
        + match message {
            Message::Request { data, .. }
            | Message::Compressed { data, .. }
            | Message::Sync { data, .. }
            | Message::Ephemeral { data, .. }
            | Message::Blob(BlobMessage::Chunk { data, .. }) => data.len(),
            Message::RemoteHeadsChanged { heads, .. } => {
                heads.iter().map(|store| 80 + store.heads.len() * HEAD_LEN).sum()
            }
            Message::Schema { text, .. } => text.len(),
            Message::Call(call) => call.body.as_ref().map_or(0, String::len),
            Message::Answer(answer) => answer.body.len(),
            Message::Event { data, .. } => data.len(),
            Message::Ack { ack, .. } => (ack.applied.len() + ack.durable.len()) * HEAD_LEN,
            _ => 0,
        }
}
