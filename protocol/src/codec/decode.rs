use bytes::Bytes;
use minicbor::data::Type;

use super::{DecodeError, item::Item, names, types};
use crate::{
    Ack, Answer, BlobHash, BlobMessage, Call, ChangeHash, DocumentId, Feature, Features,
    ID_MAX_LEN, IdError, LeaseAction, LeaseHolder, LeaseRefusal, LeaseRequest, LeaseState, Limits,
    Message, PeerId, PeerMetadata, RefuseCode, Refused, RemoteHeads, SchemaHash, SessionInfo,
    StorageId, handshake,
    limits::{BLOB_CHUNK_BYTES, BLOB_OUTLINE_BYTES_MAX, SESSION_NAME_BYTES_MAX},
};

/// Messages in one frame, with `concord.v1`.
pub const MESSAGES_PER_FRAME_MAX: usize = 100;
/// Protocol versions in one join; clients name one.
const VERSIONS_MAX: usize = 16;
/// Bytes of one version's name; clients write `1`.
const VERSION_BYTES_MAX: usize = 64;
/// Bytes of a text that stands for a document id without being one, and is answered. A longer
/// one is nothing that any client makes.
const MISADDRESSED_BYTES_MAX: usize = 4 * ID_MAX_LEN;
/// Refused changes in one ack.
const REFUSED_MAX: usize = 1_024;
/// Bytes of a reason in words, and of the name of an unknown type; longer ones are cut.
const WORDS_BYTES_MAX: usize = 1_024;

/// Bytes of the method of a call, of a tag of what is meant, and of the name of an event: words of
/// HTTP, and hashes.
const WORD_BYTES_MAX: usize = 256;

/// Reads one WebSocket message: one CBOR map, or with `concord.v1` also an array of maps.
/// Data of sync and ephemeral messages is a slice of the frame, not a copy.
///
/// # Errors
/// [`DecodeError`] when it is not that, or over a limit.
pub fn decode(frame: &Bytes, limits: &Limits) -> Result<Vec<Message>, DecodeError> {
    let (len, max) = (frame.len(), limits.message_bytes);
    if len > max {
        return Err(DecodeError::TooLarge { what: "a frame", len, max });
    }
    let mut item = Item::new(frame);
    let mut messages = Vec::with_capacity(1);
    match item.kind()? {
        Type::Array | Type::ArrayIndef => {
            let mut entries = item.array("frame")?;
            while entries.more(&mut item)? {
                if messages.len() == MESSAGES_PER_FRAME_MAX {
                    let (count, max) = (MESSAGES_PER_FRAME_MAX + 1, MESSAGES_PER_FRAME_MAX);
                    return Err(DecodeError::TooMany { what: "messages", count, max });
                }
                messages.push(Fields::read(&mut item, frame, limits)?.message()?);
            }
        }
        _ => messages.push(Fields::read(&mut item, frame, limits)?.message()?),
    }
    match item.remaining() {
        0 => Ok(messages),
        more => Err(DecodeError::TrailingBytes(more)),
    }
}

/// The known keys of one map, each with the place where its value starts: types may come last,
/// and what a type has no use for is never looked at.
struct Fields<'a> {
    frame: &'a Bytes,
    limits: &'a Limits,
    places: [Option<Item<'a>>; FIELDS.len()],
}

/// The keys that messages have at their top level.
const FIELDS: [&str; 39] = [
    names::TYPE,
    names::SENDER_ID,
    names::TARGET_ID,
    names::DOCUMENT_ID,
    names::DATA,
    names::COUNT,
    names::SESSION_ID,
    names::MESSAGE,
    names::PEER_METADATA,
    names::SUPPORTED_VERSIONS,
    names::SELECTED_VERSION,
    names::ADD,
    names::REMOVE,
    names::NEW_HEADS,
    names::APPLIED,
    names::DURABLE,
    names::REFUSED,
    names::RETRY_AFTER_MS,
    names::HASH,
    names::TEXT,
    names::ID,
    names::METHOD,
    names::PATH,
    names::IF_MATCH,
    names::IF_NONE_MATCH,
    names::BODY,
    names::STATUS,
    names::ETAG,
    names::EVENT,
    names::ACT,
    names::FENCE,
    names::FOR_MS,
    names::HOLDER,
    names::WHY,
    names::LENGTH,
    names::AT,
    names::HAVE,
    names::OUTLINE,
    names::REASON,
];

impl<'a> Fields<'a> {
    /// Passes over one map, remembering where what is.
    fn read(
        item: &mut Item<'a>,
        frame: &'a Bytes,
        limits: &'a Limits,
    ) -> Result<Self, DecodeError> {
        let mut places = [const { None }; FIELDS.len()];
        let mut entries = item.map("frame")?;
        while entries.more(item)? {
            let key = item.text("key")?;
            let known = FIELDS.iter().position(|field| *field == key);
            let place = item.clone();
            let absent = item.absent()?;
            if !absent {
                item.skip()?;
            }
            if let Some(slot) = known.and_then(|index| places.get_mut(index)) {
                *slot = (!absent).then_some(place);
            }
        }
        Ok(Self { frame, limits, places })
    }

    fn message(&self) -> Result<Message, DecodeError> {
        let kind = self.text(names::TYPE)?;
        match kind {
            types::JOIN => Ok(Message::Join {
                sender: self.peer(names::SENDER_ID)?,
                metadata: self.metadata()?,
                versions: self.versions()?,
            }),
            types::PEER => Ok(Message::Peer {
                sender: self.peer(names::SENDER_ID)?,
                target: self.peer(names::TARGET_ID)?,
                metadata: self.metadata()?,
                version: match self.get(names::SELECTED_VERSION) {
                    Some(mut item) => version(&mut item, names::SELECTED_VERSION)?,
                    None => handshake::VERSION.to_owned(),
                },
            }),
            types::ERROR => Ok(Message::Error {
                sender: self.peer(names::SENDER_ID)?,
                target: self.peer(names::TARGET_ID)?,
                message: match self.get(names::MESSAGE) {
                    Some(mut item) => cut(item.text(names::MESSAGE)?),
                    None => String::new(),
                },
            }),
            types::LEAVE => Ok(Message::Leave { sender: self.peer(names::SENDER_ID)? }),
            types::REMOTE_SUBSCRIPTION_CHANGE => Ok(Message::RemoteSubscriptionChange {
                sender: self.peer(names::SENDER_ID)?,
                target: self.peer(names::TARGET_ID)?,
                add: self.stores(names::ADD)?,
                remove: self.stores(names::REMOVE)?,
            }),
            types::GO_AWAY => Ok(Message::GoAway {
                sender: self.peer(names::SENDER_ID)?,
                retry_after_ms: self.retry_after_ms()?,
            }),
            types::SCHEMA => Ok(Message::Schema {
                hash: self.schema_hash()?,
                text: self.long(names::TEXT, self.limits.schema_bytes, "a schema")?,
            }),
            types::CALL => Ok(Message::Call(self.call()?)),
            types::ANSWER => Ok(Message::Answer(Answer {
                id: self.number(names::ID)?,
                status: self.number(names::STATUS)?,
                etag: self.maybe(names::ETAG, WORD_BYTES_MAX, "a tag")?,
                body: self.text(names::BODY)?.to_owned(),
            })),
            types::EVENT => Ok(Message::Event {
                id: self.number(names::ID)?,
                event: self.long(names::EVENT, WORD_BYTES_MAX, "the name of an event")?,
                data: self.text(names::DATA)?.to_owned(),
            }),
            types::ZSTD => {
                let (length, data) = (self.number(names::LENGTH)?, self.data()?);
                Ok(Message::Compressed { length, data })
            }
            types::HANG_UP => Ok(Message::HangUp { id: self.number(names::ID)? }),
            types::BLOB_ASK | types::BLOB_OFFER | types::BLOB_CHUNK | types::BLOB_STATE => {
                Ok(Message::Blob(self.blob(kind)?))
            }
            types::REQUEST
            | types::SYNC
            | types::DOC_UNAVAILABLE
            | types::EPHEMERAL
            | types::REMOTE_HEADS_CHANGED
            | types::LEASE
            | types::LEASE_STATE
            | types::UNSUBSCRIBE
            | types::ACK => self.document_message(kind),
            _ => Ok(Message::Unknown { kind: cut(kind) }),
        }
    }

    /// A message about a document, or of something that is none.
    fn document_message(&self, kind: &str) -> Result<Message, DecodeError> {
        let text = self.text(names::DOCUMENT_ID)?;
        let sender = self.peer(names::SENDER_ID)?;
        let Ok(document) = text.parse::<DocumentId>() else {
            let (len, max) = (text.len(), MISADDRESSED_BYTES_MAX);
            if len > max {
                return Err(DecodeError::TooLarge { what: "a document id", len, max });
            }
            let wants_answer = matches!(kind, types::REQUEST | types::SYNC);
            return Ok(Message::Misaddressed { document: text.to_owned(), sender, wants_answer });
        };
        let target = self.peer(names::TARGET_ID)?;
        Ok(match kind {
            types::REQUEST => Message::Request { document, sender, target, data: self.data()? },
            types::SYNC => Message::Sync { document, sender, target, data: self.data()? },
            types::EPHEMERAL => {
                let data = self.data()?;
                let (len, max) = (data.len(), self.limits.ephemeral_bytes);
                if len > max {
                    return Err(DecodeError::TooLarge { what: "an ephemeral message", len, max });
                }
                let count = self.need(names::COUNT)?.count(names::COUNT)?;
                let session = id(self.text(names::SESSION_ID)?, names::SESSION_ID)?;
                Message::Ephemeral { document, sender, target, count, session, data }
            }
            types::REMOTE_HEADS_CHANGED => {
                let heads = self.remote_heads()?;
                Message::RemoteHeadsChanged { document, sender, target, heads }
            }
            types::LEASE => match self.lease_request()? {
                Some(request) => Message::Lease { document, sender, target, request },
                None => Message::Unknown { kind: cut(kind) },
            },
            types::LEASE_STATE => {
                Message::LeaseState { document, sender, target, state: self.lease_state()? }
            }
            types::UNSUBSCRIBE => Message::Unsubscribe { document, sender, target },
            types::ACK => Message::Ack { document, sender, target, ack: self.ack()? },
            _ => Message::DocUnavailable { document, sender, target },
        })
    }

    fn get(&self, field: &'static str) -> Option<Item<'a>> {
        let index = FIELDS.iter().position(|name| *name == field)?;
        self.places.get(index).cloned().flatten()
    }

    fn need(&self, field: &'static str) -> Result<Item<'a>, DecodeError> {
        self.get(field).ok_or(DecodeError::Missing(field))
    }

    fn text(&self, field: &'static str) -> Result<&'a str, DecodeError> {
        self.need(field)?.text(field)
    }

    fn peer(&self, field: &'static str) -> Result<PeerId, DecodeError> {
        id(self.text(field)?, field)
    }

    /// The data, as a slice of the frame.
    fn data(&self) -> Result<Bytes, DecodeError> {
        self.slice(names::DATA)
    }

    fn slice(&self, field: &'static str) -> Result<Bytes, DecodeError> {
        let mut item = self.need(field)?;
        let len = item.bytes(field)?.len();
        Ok(self.frame.slice(item.position() - len..item.position()))
    }

    /// The same of at most so many bytes.
    fn short(
        &self,
        field: &'static str,
        max: usize,
        what: &'static str,
    ) -> Result<Bytes, DecodeError> {
        let bytes = self.slice(field)?;
        match bytes.len() {
            len if len > max => Err(DecodeError::TooLarge { what, len, max }),
            _ => Ok(bytes),
        }
    }

    fn metadata(&self) -> Result<PeerMetadata, DecodeError> {
        let mut metadata = PeerMetadata::default();
        let Some(mut item) = self.get(names::PEER_METADATA) else {
            return Ok(metadata);
        };
        let mut entries = item.map(names::PEER_METADATA)?;
        while entries.more(&mut item)? {
            match item.text(names::PEER_METADATA)? {
                names::STORAGE_ID => {
                    metadata.storage_id = if item.absent()? {
                        None
                    } else {
                        Some(id(item.text(names::STORAGE_ID)?, names::STORAGE_ID)?)
                    };
                }
                names::IS_EPHEMERAL => {
                    metadata.is_ephemeral = if item.absent()? {
                        None
                    } else {
                        Some(item.boolean(names::IS_EPHEMERAL)?)
                    };
                }
                // A later version may say more of it, and in another way.
                names::CONCORD_SCHEMA if item.kind()? == Type::String => {
                    metadata.schema = item.text(names::CONCORD_SCHEMA)?.parse().ok();
                }
                names::CONCORD_FEATURES if item.kind()? == Type::Array => {
                    metadata.features = features(&mut item)?;
                }
                names::CONCORD_SESSION if item.kind()? == Type::Map => {
                    metadata.session = Some(session(&mut item)?.0);
                }
                _ => item.skip()?,
            }
        }
        Ok(metadata)
    }

    /// The versions of a join; a missing list means the first.
    fn versions(&self) -> Result<Vec<String>, DecodeError> {
        match self.get(names::SUPPORTED_VERSIONS) {
            Some(mut item) => list(&mut item, names::SUPPORTED_VERSIONS, VERSIONS_MAX, version),
            None => Ok(vec![handshake::VERSION.to_owned()]),
        }
    }

    fn stores(&self, field: &'static str) -> Result<Vec<StorageId>, DecodeError> {
        let max = self.limits.remote_subscriptions;
        self.get(field).map_or(Ok(Vec::new()), |mut item| {
            list(&mut item, field, max, |item, field| id(item.text(field)?, field))
        })
    }

    fn remote_heads(&self) -> Result<Vec<RemoteHeads>, DecodeError> {
        const FIELD: &str = names::NEW_HEADS;
        let mut item = self.need(FIELD)?;
        let mut entries = item.map(FIELD)?;
        let max = self.limits.remote_subscriptions;
        let mut stores = Vec::with_capacity(entries.capacity(&item).min(max));
        while entries.more(&mut item)? {
            room(&stores, FIELD, max)?;
            let storage_id = id(item.text(FIELD)?, FIELD)?;
            let (mut heads, mut timestamp_ms) = (Vec::new(), None);
            let mut inner = item.map(FIELD)?;
            while inner.more(&mut item)? {
                match item.text(FIELD)? {
                    names::HEADS => heads = self.hashes(&mut item, names::HEADS)?,
                    names::TIMESTAMP => timestamp_ms = Some(item.number(names::TIMESTAMP)?),
                    _ => item.skip()?,
                }
            }
            let timestamp_ms = timestamp_ms.ok_or(DecodeError::Missing(names::TIMESTAMP))?;
            stores.push(RemoteHeads { storage_id, heads, timestamp_ms });
        }
        Ok(stores)
    }

    fn hashes(
        &self,
        item: &mut Item<'_>,
        field: &'static str,
    ) -> Result<Vec<ChangeHash>, DecodeError> {
        list(item, field, self.limits.sync_heads, hash)
    }

    fn ack(&self) -> Result<Ack, DecodeError> {
        let hashes = |field| {
            self.get(field).map_or(Ok(Vec::new()), |mut item| self.hashes(&mut item, field))
        };
        let refused = self.get(names::REFUSED).map_or(Ok(Vec::new()), |mut item| {
            list(&mut item, names::REFUSED, REFUSED_MAX, refused)
        })?;
        Ok(Ack { applied: hashes(names::APPLIED)?, durable: hashes(names::DURABLE)?, refused })
    }

    fn call(&self) -> Result<Call, DecodeError> {
        Ok(Call {
            id: self.number(names::ID)?,
            method: self.long(names::METHOD, WORD_BYTES_MAX, "a method")?,
            path: self.long(names::PATH, self.limits.call_path_bytes, "a path")?,
            if_match: self.maybe(names::IF_MATCH, WORD_BYTES_MAX, "a tag")?,
            if_none_match: self.maybe(names::IF_NONE_MATCH, WORD_BYTES_MAX, "a tag")?,
            body: self.maybe(names::BODY, self.limits.call_body_bytes, "the body of a call")?,
        })
    }

    /// `None`: a later version asks for something that this one does not know.
    fn lease_request(&self) -> Result<Option<LeaseRequest>, DecodeError> {
        let Some(action) = LeaseAction::parse(self.text(names::ACT)?) else {
            return Ok(None);
        };
        Ok(Some(LeaseRequest {
            id: self.number(names::ID)?,
            action,
            for_ms: self.get(names::FOR_MS).map_or(Ok(0), |_| self.number(names::FOR_MS))?,
            fence: self.get(names::FENCE).map_or(Ok(0), |_| self.number(names::FENCE))?,
        }))
    }

    fn lease_state(&self) -> Result<LeaseState, DecodeError> {
        // A reason of a later version is one all the same.
        let why = |mut item: Item<'_>| {
            let why = item.text(names::WHY)?;
            Ok::<_, DecodeError>(LeaseRefusal::parse(why).unwrap_or(LeaseRefusal::Held))
        };
        let holder = |mut item: Item<'_>| {
            let (who, fence, left_ms) = session(&mut item)?;
            Ok::<_, DecodeError>(LeaseHolder { who, fence, left_ms })
        };
        Ok(LeaseState {
            id: self.get(names::ID).map(|_| self.number(names::ID)).transpose()?,
            why: self.get(names::WHY).map(why).transpose()?,
            holder: self.get(names::HOLDER).map(holder).transpose()?,
        })
    }

    fn blob(&self, kind: &str) -> Result<BlobMessage, DecodeError> {
        let id = self.number(names::ID)?;
        let hash = || self.blob_hash();
        let outline =
            || self.short(names::OUTLINE, BLOB_OUTLINE_BYTES_MAX, "the outline of an attachment");
        Ok(match kind {
            types::BLOB_ASK => {
                let at = self.get(names::AT).map(|_| self.number(names::AT)).transpose()?;
                BlobMessage::Ask { id, hash: hash()?, at }
            }
            types::BLOB_OFFER => {
                let length = self.number(names::LENGTH)?;
                BlobMessage::Offer { id, hash: hash()?, length, outline: outline()? }
            }
            types::BLOB_CHUNK => {
                let data = self.short(names::DATA, BLOB_CHUNK_BYTES, "a piece of an attachment")?;
                BlobMessage::Chunk { id, hash: hash()?, at: self.number(names::AT)?, data }
            }
            _ => BlobMessage::State {
                id,
                status: self.number(names::STATUS)?,
                reason: self
                    .get(names::REASON)
                    .map(|_| self.text(names::REASON).map(cut))
                    .transpose()?,
                length: self.get(names::LENGTH).map(|_| self.number(names::LENGTH)).transpose()?,
                have: self.number(names::HAVE)?,
                outline: self.get(names::OUTLINE).map(|_| outline()).transpose()?,
            },
        })
    }

    fn blob_hash(&self) -> Result<BlobHash, DecodeError> {
        const EXPECTED: &str = "a BLAKE3 in hexadecimal digits";
        let field = names::HASH;
        let hash = self.text(field)?.parse();
        hash.map_err(|_| DecodeError::Field { field, expected: EXPECTED })
    }

    fn schema_hash(&self) -> Result<SchemaHash, DecodeError> {
        const EXPECTED: &str = "a SHA-256 in hexadecimal digits";
        let field = names::HASH;
        let hash = self.text(field)?.parse();
        hash.map_err(|_| DecodeError::Field { field, expected: EXPECTED })
    }

    /// A text of at most so many bytes.
    fn long(
        &self,
        field: &'static str,
        max: usize,
        what: &'static str,
    ) -> Result<String, DecodeError> {
        let text = self.text(field)?;
        match text.len() {
            len if len > max => Err(DecodeError::TooLarge { what, len, max }),
            _ => Ok(text.to_owned()),
        }
    }

    /// The same of a field that may be absent.
    fn maybe(
        &self,
        field: &'static str,
        max: usize,
        what: &'static str,
    ) -> Result<Option<String>, DecodeError> {
        self.get(field).map(|_| self.long(field, max, what)).transpose()
    }

    /// A number of as many bits as are wanted.
    fn number<T: TryFrom<u64>>(&self, field: &'static str) -> Result<T, DecodeError> {
        let count = self.need(field)?.count(field)?;
        let expected = "a number as small as it must be";
        T::try_from(count).map_err(|_| DecodeError::Field { field, expected })
    }

    fn retry_after_ms(&self) -> Result<u32, DecodeError> {
        const FIELD: &str = names::RETRY_AFTER_MS;
        let count = self.get(FIELD).map_or(Ok(0), |mut item| item.count(FIELD))?;
        u32::try_from(count)
            .map_err(|_| DecodeError::Field { field: FIELD, expected: "a number of 32 bits" })
    }
}

/// One refused change. A code of a later version is not understood, but the reason still is.
fn refused(item: &mut Item<'_>, field: &'static str) -> Result<Refused, DecodeError> {
    let mut refused = Refused { hash: None, code: RefuseCode::Malformed, reason: String::new() };
    let mut entries = item.map(field)?;
    while entries.more(item)? {
        match item.text(field)? {
            names::HASH => {
                refused.hash = if item.absent()? { None } else { Some(hash(item, names::HASH)?) };
            }
            names::CODE => {
                let code = item.text(names::CODE)?;
                refused.code = RefuseCode::parse(code).unwrap_or(RefuseCode::Malformed);
            }
            names::REASON => refused.reason = cut(item.text(names::REASON)?),
            _ => item.skip()?,
        }
    }
    Ok(refused)
}

/// Who somebody is; and of a lease its fence and the milliseconds that are left.
fn session(item: &mut Item<'_>) -> Result<(SessionInfo, u64, u32), DecodeError> {
    const WHO: &str = "who holds a session";
    let (mut session, mut user, mut device, mut fence, mut left_ms) = (None, None, None, 0, 0);
    let mut entries = item.map(WHO)?;
    while entries.more(item)? {
        match item.text(WHO)? {
            names::SESSION_ID => session = Some(id(item.text(WHO)?, names::SESSION_ID)?),
            names::USER => user = name(item, names::USER)?,
            names::DEVICE => device = name(item, names::DEVICE)?,
            names::FENCE => fence = item.count(names::FENCE)?,
            names::LEFT_MS => {
                left_ms = u32::try_from(item.count(names::LEFT_MS)?).unwrap_or(u32::MAX);
            }
            _ => item.skip()?,
        }
    }
    let session = session.ok_or(DecodeError::Missing(names::SESSION_ID))?;
    Ok((SessionInfo { session, user, device }, fence, left_ms))
}

/// A name in words, which may be absent.
fn name(item: &mut Item<'_>, field: &'static str) -> Result<Option<String>, DecodeError> {
    if item.absent()? {
        return Ok(None);
    }
    let text = item.text(field)?;
    let (len, max) = (text.len(), SESSION_NAME_BYTES_MAX);
    if len > max {
        return Err(DecodeError::TooLarge { what: "a name", len, max });
    }
    Ok(Some(text.to_owned()))
}

/// A hash, in one of its text forms or as 32 bytes.
fn hash(item: &mut Item<'_>, field: &'static str) -> Result<ChangeHash, DecodeError> {
    let hash = if item.kind()? == Type::String {
        ChangeHash::parse(item.text(field)?)
    } else {
        ChangeHash::from_slice(item.bytes(field)?)
    };
    hash.ok_or(DecodeError::Field { field, expected: "a list of hashes" })
}

fn version(item: &mut Item<'_>, field: &'static str) -> Result<String, DecodeError> {
    let version = item.text(field)?;
    let (len, max) = (version.len(), VERSION_BYTES_MAX);
    if len > max {
        return Err(DecodeError::TooLarge { what: "a protocol version", len, max });
    }
    Ok(version.to_owned())
}

fn id<T: std::str::FromStr<Err = IdError>>(
    text: &str,
    field: &'static str,
) -> Result<T, DecodeError> {
    text.parse().map_err(|source| DecodeError::Id { field, source })
}

/// A list of at most so many items.
fn list<'a, T>(
    item: &mut Item<'a>,
    field: &'static str,
    max: usize,
    read: impl Fn(&mut Item<'a>, &'static str) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut entries = item.array(field)?;
    let mut items = Vec::with_capacity(entries.capacity(item).min(max));
    while entries.more(item)? {
        room(&items, field, max)?;
        items.push(read(item, field)?);
    }
    Ok(items)
}

/// Those that are known; a later version has more, and may say them in another way.
fn features(item: &mut Item<'_>) -> Result<Features, DecodeError> {
    let mut features = Features::NONE;
    let mut entries = item.array(names::CONCORD_FEATURES)?;
    while entries.more(item)? {
        if item.kind()? == Type::String {
            let known = Feature::parse(item.text(names::CONCORD_FEATURES)?);
            features = known.map_or(features, |feature| features.with(feature));
        } else {
            item.skip()?;
        }
    }
    Ok(features)
}

fn room<T>(items: &[T], what: &'static str, max: usize) -> Result<(), DecodeError> {
    if items.len() < max {
        return Ok(());
    }
    Err(DecodeError::TooMany { what, count: items.len() + 1, max })
}

/// Words are for people and logs; beyond some length they are for neither.
fn cut(words: &str) -> String {
    words.get(..words.floor_char_boundary(WORDS_BYTES_MAX)).unwrap_or_default().to_owned()
}
