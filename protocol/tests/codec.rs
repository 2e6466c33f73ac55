//! Messages to CBOR and back: every type, every form that clients write, and what none does.

#![allow(clippy::unwrap_used, reason = "in a test, a failure to prepare is a failure")]

use bytes::Bytes;
use concord_protocol::{
    Ack, Answer, Call, ChangeHash, DocumentId, Feature, Features, LeaseAction, LeaseHolder,
    LeaseRefusal, LeaseRequest, LeaseState, Limits, Message, PeerId, PeerMetadata, RefuseCode,
    Refused, RemoteHeads, SchemaHash, SessionId, SessionInfo, StorageId,
    codec::{self, DecodeError},
};
use quickcheck::{Arbitrary, Gen, quickcheck};

#[derive(Debug, Clone)]
struct Any(Message);

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(g: &mut Gen) -> T {
    const LETTERS: [char; 8] = ['a', 'Z', '0', '-', ' ', 'é', '漢', '👋'];
    let len = 1 + usize::arbitrary(g) % 40;
    let text: String = (0..len).map(|_| *g.choose(&LETTERS).unwrap()).collect();
    text.parse().unwrap()
}

fn document(g: &mut Gen) -> DocumentId {
    let mut bytes: Vec<u8> = Arbitrary::arbitrary(g);
    bytes.truncate(64);
    bytes.push(1);
    DocumentId::from_bytes(&bytes)
}

fn some<T>(g: &mut Gen, make: impl Fn(&mut Gen) -> T) -> Vec<T> {
    (0..u8::arbitrary(g) % 5).map(|_| make(g)).collect()
}

fn hash(g: &mut Gen) -> ChangeHash {
    ChangeHash(std::array::from_fn(|_| u8::arbitrary(g)))
}

fn metadata(g: &mut Gen) -> PeerMetadata {
    PeerMetadata {
        storage_id: bool::arbitrary(g).then(|| name(g)),
        is_ephemeral: Arbitrary::arbitrary(g),
        schema: bool::arbitrary(g).then(|| SchemaHash::of(&String::arbitrary(g))),
        features: Feature::ALL.into_iter().filter(|_| bool::arbitrary(g)).collect(),
        session: bool::arbitrary(g).then(|| session(g)),
    }
}

fn session(g: &mut Gen) -> SessionInfo {
    let mut maybe = || bool::arbitrary(g).then(|| name::<PeerId>(g).to_string());
    let (user, device) = (maybe(), maybe());
    SessionInfo { session: name(g), user, device }
}

fn lease_request(g: &mut Gen) -> LeaseRequest {
    use LeaseAction as Act;
    let actions = [Act::Acquire, Act::Release, Act::Renew, Act::Show, Act::TakeOver];
    LeaseRequest {
        id: Arbitrary::arbitrary(g),
        action: *g.choose(&actions).unwrap(),
        for_ms: Arbitrary::arbitrary(g),
        fence: u64::arbitrary(g) >> (11 + u32::arbitrary(g) % 53),
    }
}

fn lease_state(g: &mut Gen) -> LeaseState {
    let reasons = [LeaseRefusal::Held, LeaseRefusal::Limit, LeaseRefusal::Settling];
    LeaseState {
        id: Arbitrary::arbitrary(g),
        why: bool::arbitrary(g).then(|| *g.choose(&reasons).unwrap()),
        holder: bool::arbitrary(g).then(|| LeaseHolder {
            who: session(g),
            fence: u64::arbitrary(g) >> (11 + u32::arbitrary(g) % 53),
            left_ms: Arbitrary::arbitrary(g),
        }),
    }
}

fn data(g: &mut Gen) -> Bytes {
    Vec::<u8>::arbitrary(g).into()
}

fn refused(g: &mut Gen) -> Refused {
    use RefuseCode as Code;
    let codes = [
        Code::Malformed,
        Code::Equivocation,
        Code::OutOfSequence,
        Code::DanglingName,
        Code::Unmaterialisable,
        Code::Quota,
        Code::Leased,
    ];
    Refused {
        hash: bool::arbitrary(g).then(|| hash(g)),
        code: *g.choose(&codes).unwrap(),
        reason: Arbitrary::arbitrary(g),
    }
}

impl Arbitrary for Any {
    fn arbitrary(g: &mut Gen) -> Self {
        let sender: PeerId = name(g);
        let target: PeerId = name(g);
        let document = document(g);
        Self(match u8::arbitrary(g) % 23 {
            19 => Message::Lease { document, sender, target, request: lease_request(g) },
            20 => Message::LeaseState { document, sender, target, state: lease_state(g) },
            21 => Message::Unsubscribe { document, sender, target },
            0 => Message::Join {
                sender,
                metadata: metadata(g),
                versions: some(g, |g| name::<PeerId>(g).as_str().chars().take(8).collect()),
            },
            1 => Message::Peer { sender, target, metadata: metadata(g), version: "1".to_owned() },
            2 => Message::Error { sender, target, message: Arbitrary::arbitrary(g) },
            3 => Message::Leave { sender },
            4 => Message::Request { document, sender, target, data: data(g) },
            5 => Message::Sync { document, sender, target, data: data(g) },
            6 => Message::DocUnavailable { document, sender, target },
            7 => Message::Ephemeral {
                document,
                sender,
                target,
                count: u64::arbitrary(g) >> (11 + u32::arbitrary(g) % 53),
                session: name::<SessionId>(g),
                data: data(g),
            },
            8 => Message::RemoteSubscriptionChange {
                sender,
                target,
                add: some(g, name),
                remove: some(g, name),
            },
            9 => Message::RemoteHeadsChanged {
                document,
                sender,
                target,
                heads: some(g, |g| RemoteHeads {
                    storage_id: name::<StorageId>(g),
                    heads: some(g, hash),
                    timestamp_ms: f64::from(u32::arbitrary(g)) * 512.0 + 0.5,
                }),
            },
            10 => Message::Ack {
                document,
                sender,
                target,
                ack: Ack {
                    applied: some(g, hash),
                    durable: some(g, hash),
                    refused: some(g, refused),
                },
            },
            11 => Message::GoAway { sender, retry_after_ms: Arbitrary::arbitrary(g) },
            12 => Message::Misaddressed {
                document: name::<PeerId>(g).to_string(),
                sender,
                wants_answer: Arbitrary::arbitrary(g),
            },
            13 => {
                let text = String::arbitrary(g);
                Message::Schema { hash: SchemaHash::of(&text), text }
            }
            14 => Message::Call(Call {
                id: Arbitrary::arbitrary(g),
                method: "POST".to_owned(),
                path: String::arbitrary(g),
                if_match: bool::arbitrary(g).then(|| name::<PeerId>(g).to_string()),
                if_none_match: bool::arbitrary(g).then(|| name::<PeerId>(g).to_string()),
                body: Arbitrary::arbitrary(g),
            }),
            15 => Message::Answer(Answer {
                id: Arbitrary::arbitrary(g),
                status: Arbitrary::arbitrary(g),
                etag: bool::arbitrary(g).then(|| name::<PeerId>(g).to_string()),
                body: Arbitrary::arbitrary(g),
            }),
            16 => Message::Event {
                id: Arbitrary::arbitrary(g),
                event: name::<PeerId>(g).to_string(),
                data: Arbitrary::arbitrary(g),
            },
            17 => Message::HangUp { id: Arbitrary::arbitrary(g) },
            18 => Message::Compressed { length: Arbitrary::arbitrary(g), data: data(g) },
            _ => Message::Unknown { kind: format!("x{}", name::<PeerId>(g)) },
        })
    }
}

fn decode(frame: impl Into<Bytes>) -> Result<Vec<Message>, DecodeError> {
    codec::decode(&frame.into(), &Limits::default())
}

quickcheck! {
    fn messages_round_trip(message: Any) -> bool {
        decode(codec::encode(&message.0)) == Ok(vec![message.0])
    }

    fn several_in_one_frame_round_trip(messages: Vec<Any>) -> bool {
        let messages: Vec<_> = messages.into_iter().map(|Any(message)| message).collect();
        decode(codec::encode_many(&messages)) == Ok(messages)
    }

    fn the_short_way_for_sync_messages_writes_the_same(message: Any) -> bool {
        match &message.0 {
            Message::Sync { document, sender, target, data } => {
                codec::encode_sync(document, sender, target, data) == codec::encode(&message.0)
            }
            Message::DocUnavailable { document, sender, target } => {
                codec::encode_unavailable(document.as_str(), sender, target) == codec::encode(&message.0)
            }
            _ => true,
        }
    }

    fn data_is_a_slice_of_the_frame(message: Any) -> bool {
        let frame = codec::encode(&message.0);
        match decode(frame.clone()).unwrap().remove(0) {
            Message::Sync { data, .. } | Message::Request { data, .. } | Message::Ephemeral { data, .. } => {
                data.is_empty() || frame.as_ptr_range().contains(&data.as_ptr())
            }
            _ => true,
        }
    }

    fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>, head: u8) -> bool {
        let _ = decode(bytes.clone());
        decode([&[0x80 | (head & 0x3f)][..], &bytes].concat()).map_or(true, |read| read.len() <= bytes.len())
    }

    fn a_damaged_message_gives_messages_or_an_error(message: Any, at: usize, by: u8) -> bool {
        let mut bytes = codec::encode(&message.0).to_vec();
        let at = at % bytes.len();
        bytes[at] ^= by;
        decode(bytes).map_or(true, |read| read.len() <= 100)
    }

    fn a_message_cut_off_anywhere_is_refused(message: Any, at: usize) -> bool {
        let frame = codec::encode(&message.0);
        decode(frame.slice(..at % frame.len())) == Err(DecodeError::Truncated)
    }

    fn trailing_bytes_are_refused(message: Any, more: u8) -> bool {
        let frame = [&codec::encode(&message.0)[..], &[more]].concat();
        decode(frame) == Err(DecodeError::TrailingBytes(1))
    }
}

const ID: &str = "2akvofn6L1o4RMUEMQi7qzwRjKWZ";

/// A text as CBOR, up to 255 bytes.
fn text(text: &str) -> Vec<u8> {
    [&[0x78, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

/// A map as cbor-x writes it: its length in two bytes, whatever it is.
fn map(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0xb9, 0, u8::try_from(entries.len()).unwrap()];
    for (key, value) in entries {
        out.extend(text(key));
        out.extend_from_slice(value);
    }
    out
}

fn peer(name: &str) -> PeerId {
    name.parse().unwrap()
}

#[test]
fn the_join_of_a_real_client_is_read() {
    let metadata = map(&[("storageId", &[0xf7]), ("isEphemeral", &[0xf5])]);
    let versions = [&[0x81][..], &text("1")].concat();
    let join = |versions: &[u8]| {
        decode(map(&[
            ("type", &text("join")),
            ("senderId", &text("peer-1")),
            ("peerMetadata", &metadata),
            ("supportedProtocolVersions", versions),
        ]))
    };
    let expected = Message::Join {
        sender: peer("peer-1"),
        metadata: PeerMetadata { is_ephemeral: Some(true), ..PeerMetadata::default() },
        versions: vec!["1".to_owned()],
    };
    assert_eq!(join(&versions), Ok(vec![expected.clone()]));
    assert_eq!(join(&[0xf7]), Ok(vec![expected.clone()]));
    assert_eq!(join(&[0xf6]), Ok(vec![expected]));
}

#[test]
fn keys_come_in_any_order_and_unknown_ones_are_passed_over() {
    let nested =
        [0xbf, 0x01, 0x9f, 0xc1, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0x41, 0x00, 0xe0, 0xff];
    let entries: &[(&str, &[u8])] = &[
        ("data", &[0xd8, 64, 0x42, 7, 8]),
        ("later", &nested),
        ("documentId", &text(ID)),
        ("half", &[0xf9, 0x3c, 0x00]),
        ("type", &text("ephemeral")),
        ("senderId", &text("overridden")),
        ("count", &[0xfb, 0x41, 0xf0, 0, 0, 0, 0, 0, 0]),
        ("sessionId", &text("s")),
        ("targetId", &text("b")),
        ("senderId", &text("a")),
    ];
    let expected = Message::Ephemeral {
        document: ID.parse().unwrap(),
        sender: peer("a"),
        target: peer("b"),
        count: 1 << 32,
        session: "s".parse().unwrap(),
        data: Bytes::from_static(&[7, 8]),
    };
    let frame = map(entries);
    assert_eq!(decode(frame.clone()), Ok(vec![expected.clone()]));
    let indefinite = [&[0xbf][..], &frame[3..], &[0xff]].concat();
    assert_eq!(decode(indefinite), Ok(vec![expected]));
}

#[test]
fn numbers_are_written_as_javascript_reads_them() {
    let message = |count| Message::Ephemeral {
        document: ID.parse().unwrap(),
        sender: peer("a"),
        target: peer("b"),
        count,
        session: "s".parse().unwrap(),
        data: Bytes::new(),
    };
    let written = |count| codec::encode(&message(count));
    let holds = |frame: &[u8], part: &[u8]| frame.windows(part.len()).any(|window| window == part);
    assert!(holds(&written(0xffff_ffff), b"count\x1a\xff\xff\xff\xff"));
    assert!(holds(&written(1 << 32), b"count\xfb\x41\xf0\0\0\0\0\0\0"));
    assert!(written(7).starts_with(b"\xa7\x64type\x69ephemeral"));
}

#[test]
fn heads_of_older_clients_are_read_from_hex() {
    let head = ChangeHash([0xab; 32]);
    let heads = [&[0x82][..], &text(&head.to_string()), &text(&head.to_bs58())].concat();
    let store = map(&[("heads", &heads), ("timestamp", &[0x1b, 0, 0, 1, 0x8f, 0, 0, 0, 0])]);
    let read = decode(map(&[
        ("type", &text("remote-heads-changed")),
        ("documentId", &text(ID)),
        ("senderId", &text("a")),
        ("targetId", &text("b")),
        ("newHeads", &map(&[("store", &store)])),
    ]));
    let Message::RemoteHeadsChanged { heads, .. } = read.unwrap().remove(0) else { panic!() };
    assert_eq!(heads[0].heads, [head, head]);
    assert_eq!(heads[0].timestamp_ms.to_bits(), f64::to_bits(1_713_691_951_104.0));
}

#[test]
fn a_document_id_that_is_none_is_answered_not_refused() {
    let with = |kind: &str, id: &str| {
        let entries: &[(&str, &[u8])] =
            &[("type", &text(kind)), ("documentId", &text(id)), ("senderId", &text("a"))];
        decode(map(entries)).map(|mut messages| messages.remove(0))
    };
    for id in ["", "nonsense", "2akvofn6L1o4RMUEMQi7qzwRjKWY", "0OIl"] {
        for (kind, wants_answer) in [
            ("request", true),
            ("sync", true),
            ("ephemeral", false),
            ("doc-unavailable", false),
            ("remote-heads-changed", false),
            ("concord-ack", false),
        ] {
            let document = id.to_owned();
            let expected = Message::Misaddressed { document, sender: peer("a"), wants_answer };
            assert_eq!(with(kind, id), Ok(expected));
        }
    }
    assert_eq!(with("sync", ID), Err(DecodeError::Missing("targetId")));
}

#[test]
fn what_crashes_the_javascript_servers_is_refused() {
    assert_eq!(decode(vec![0xff, 0xff]), Err(not_a_map()));
    assert_eq!(decode(vec![0xf6]), Err(not_a_map()));
    assert_eq!(decode(vec![]), Err(DecodeError::Truncated));
    assert_eq!(decode(vec![0xa0]), Err(DecodeError::Missing("type")));
    assert_eq!(decode(vec![0xd8, 64, 0xa0]), Err(not_a_map()));
    assert_eq!(decode(vec![0x81, 0x81, 0xa0]), Err(not_a_map()));
    assert_eq!(decode(vec![0x80]), Ok(vec![]));
}

fn not_a_map() -> DecodeError {
    DecodeError::Field { field: "frame", expected: "a map" }
}

#[test]
fn texts_in_pieces_and_keys_of_bytes_are_refused() {
    let pieces = [0x7f, 0x61, b'a', 0xff];
    assert!(decode(map(&[("type", &pieces)])).is_err());
    assert!(decode(map(&[("later", &[0x5f, 0x41, 1, 0xff])])).is_err());
    assert!(decode(vec![0xa1, 0x44, b't', b'y', b'p', b'e', 0x61, b'x']).is_err());
    assert!(decode(map(&[("type", &[0x61, 0xff])])).is_err());
    let tagged = [&[0xc0][..], &text("x")].concat();
    assert!(decode(map(&[("type", &tagged)])).is_err());
}

#[test]
fn limits_hold_before_anything_is_built() {
    let limits = Limits::default();
    let large = Message::Ephemeral {
        document: ID.parse().unwrap(),
        sender: peer("a"),
        target: peer("b"),
        count: 1,
        session: "s".parse().unwrap(),
        data: vec![0; limits.ephemeral_bytes + 1].into(),
    };
    assert!(matches!(decode(codec::encode(&large)), Err(DecodeError::TooLarge { .. })));
    let stores = |count: usize| Message::RemoteSubscriptionChange {
        sender: peer("a"),
        target: peer("b"),
        add: vec!["store".parse().unwrap(); count],
        remove: vec![],
    };
    assert!(decode(codec::encode(&stores(limits.remote_subscriptions))).is_ok());
    let many = codec::encode(&stores(limits.remote_subscriptions + 1));
    assert!(matches!(decode(many), Err(DecodeError::TooMany { what: "add", .. })));
    let leave = Message::Leave { sender: peer("a") };
    assert_eq!(decode(codec::encode_many(&vec![leave.clone(); 100])).unwrap().len(), 100);
    let frame = codec::encode_many(&vec![leave; 101]);
    assert!(matches!(decode(frame), Err(DecodeError::TooMany { what: "messages", .. })));
    let declared = [&[0x9b, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0xa0]].concat();
    assert_eq!(decode(declared), Err(DecodeError::Missing("type")));
    let mut small = limits;
    small.message_bytes = 4;
    let frame = Bytes::from_static(&[0xa0, 0, 0, 0, 0]);
    assert!(matches!(codec::decode(&frame, &small), Err(DecodeError::TooLarge { len: 5, .. })));
}

#[test]
fn ids_that_would_damage_logs_are_refused() {
    for sender in ["", "a\nb", "\u{7f}"] {
        let read = decode(map(&[("type", &text("leave")), ("senderId", &text(sender))]));
        assert!(matches!(read, Err(DecodeError::Id { field: "senderId", .. })), "{sender:?}");
    }
}

#[test]
fn types_of_later_versions_are_unknown_not_wrong() {
    let read = decode(map(&[("type", &text("hologram")), ("senderId", &[0x01])]));
    assert_eq!(read, Ok(vec![Message::Unknown { kind: "hologram".to_owned() }]));
}

/// What a client of another language writes and reads: these bytes do not change.
#[test]
fn messages_of_concord_are_what_they_were_in_the_first_version() {
    let hash = SchemaHash::of("abc");
    let digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let schema =
        [b"\xa3\x64type\x6econcord-schema\x64hash\x78\x40", digits.as_bytes(), b"\x64text\x63abc"];
    let call = Call {
        id: 7,
        method: "POST".to_owned(),
        path: "/v1/x".to_owned(),
        if_match: Some("\"a\"".to_owned()),
        if_none_match: None,
        body: Some("{}".to_owned()),
    };
    let called: &[u8] = b"\xa6\x64type\x6cconcord-call\x62id\x07\x66method\x64POST\x64path\x65/v1/x\x67ifMatch\x63\"a\"\x64body\x62{}";
    let answer =
        Answer { id: 7, status: 200, etag: Some("\"b\"".to_owned()), body: "{}".to_owned() };
    let answered: &[u8] = b"\xa5\x64type\x6econcord-answer\x62id\x07\x66status\x18\xc8\x64etag\x63\"b\"\x64body\x62{}";
    let event = Message::Event { id: 300, event: "opened".to_owned(), data: "1".to_owned() };
    let told: &[u8] =
        b"\xa4\x64type\x6dconcord-event\x62id\x19\x01\x2c\x65event\x66opened\x64data\x611";
    let hung_up: &[u8] = b"\xa2\x64type\x6fconcord-hang-up\x62id\x01";
    for (message, bytes) in [
        (Message::Schema { hash, text: "abc".to_owned() }, &schema.concat()[..]),
        (Message::Call(call), called),
        (Message::Answer(answer), answered),
        (event, told),
        (Message::HangUp { id: 1 }, hung_up),
    ] {
        assert_eq!(codec::encode(&message), bytes, "{message:?}");
        assert_eq!(decode(bytes.to_vec()), Ok(vec![message]));
    }
    let metadata = PeerMetadata { schema: Some(hash), ..PeerMetadata::default() };
    let join = codec::encode(&Message::Join { sender: peer("a"), metadata, versions: vec![] });
    let says = [b"\xa1\x6dconcordSchema\x78\x40", digits.as_bytes()].concat();
    assert!(join.windows(says.len()).any(|part| part == says), "{join:?}");
}

#[test]
fn calls_and_schemas_have_limits_and_a_strange_one_of_a_join_is_passed_over() {
    let long = |len: usize| "x".repeat(len);
    let refused = |message: &Message| {
        let read = decode(codec::encode(message));
        assert!(matches!(read, Err(DecodeError::TooLarge { .. })), "{read:?}");
    };
    let limits = Limits::default();
    let call = |path: usize, body: usize, tag: usize| {
        let (path, body) = (long(path), Some(long(body)));
        let (if_match, if_none_match) = (Some(long(tag)), None);
        Message::Call(Call { id: 1, method: "GET".to_owned(), path, if_match, if_none_match, body })
    };
    let (path, body) = (limits.call_path_bytes, limits.call_body_bytes);
    assert!(decode(codec::encode(&call(path, body, 256))).is_ok());
    refused(&call(path + 1, 0, 0));
    refused(&call(0, body + 1, 0));
    refused(&call(0, 0, 257));
    let schema = |len| {
        let text = long(len);
        Message::Schema { hash: SchemaHash::of(&text), text }
    };
    assert!(decode(codec::encode(&schema(limits.schema_bytes))).is_ok());
    refused(&schema(limits.schema_bytes + 1));
    let id = |id: &[u8]| decode(map(&[("type", &text("concord-hang-up")), ("id", id)]));
    assert_eq!(id(&[0xfb, 0x40, 0, 0, 0, 0, 0, 0, 0]), Ok(vec![Message::HangUp { id: 2 }]));
    for wrong in [&[0x1b, 0, 0, 0, 1, 0, 0, 0, 0][..], &[0x20], &[0x61, b'1']] {
        assert!(matches!(id(wrong), Err(DecodeError::Field { field: "id", .. })), "{wrong:x?}");
    }
    assert!(matches!(
        decode(map(&[
            ("type", &text("concord-schema")),
            ("hash", &text("ab")),
            ("text", &text(""))
        ])),
        Err(DecodeError::Field { field: "hash", .. })
    ));
    for strange in [&text("none of ours")[..], &[0x07], &[0xa0], &[0xf6]] {
        let metadata = map(&[("concordSchema", strange)]);
        let join =
            map(&[("type", &text("join")), ("senderId", &text("a")), ("peerMetadata", &metadata)]);
        let Message::Join { metadata, .. } = decode(join).unwrap().remove(0) else { panic!() };
        assert_eq!(metadata, PeerMetadata::default());
        let metadata = map(&[("concordFeatures", strange)]);
        let join =
            map(&[("type", &text("join")), ("senderId", &text("a")), ("peerMetadata", &metadata)]);
        let Message::Join { metadata, .. } = decode(join).unwrap().remove(0) else { panic!() };
        assert_eq!(metadata, PeerMetadata::default());
    }
    let some = [&[0x83][..], &text("later"), &[0xa0], &text("zstd")].concat();
    let metadata = map(&[("concordFeatures", &some)]);
    let join =
        map(&[("type", &text("join")), ("senderId", &text("a")), ("peerMetadata", &metadata)]);
    let Message::Join { metadata, .. } = decode(join).unwrap().remove(0) else { panic!() };
    assert_eq!(metadata.features, Features::NONE.with(Feature::Zstd));
}
