//! Messages about attachments: what is written is read, and what is too large is not.

use bytes::Bytes;
use concord_protocol::{
    BlobHash, BlobMessage, Limits, Message, codec,
    limits::{BLOB_CHUNK_BYTES, BLOB_OUTLINE_BYTES_MAX},
};
use quickcheck::quickcheck;

/// Numbers up to here are exact in JavaScript; larger ones are not read.
const EXACT: u64 = 1 << 53;

fn round_trip(message: BlobMessage) -> bool {
    let message = Message::Blob(message);
    codec::decode(&codec::encode(&message), &Limits::default()) == Ok(vec![message])
}

quickcheck! {
    fn asks_come_back(id: u32, hash: u8, at: Option<u32>) -> bool {
        round_trip(BlobMessage::Ask { id, hash: BlobHash([hash; 32]), at })
    }

    fn offers_come_back(id: u32, hash: u8, length: u64, outline: Vec<u8>) -> bool {
        let (hash, length) = (BlobHash([hash; 32]), length % EXACT);
        round_trip(BlobMessage::Offer { id, hash, length, outline: outline.into() })
    }

    fn pieces_come_back(id: u32, hash: u8, at: u32, data: Vec<u8>) -> bool {
        round_trip(BlobMessage::Chunk { id, hash: BlobHash([hash; 32]), at, data: data.into() })
    }

    fn states_come_back(
        id: u32,
        status: u16,
        words: Option<String>,
        length: Option<u64>,
        have: u32,
        outline: Option<Vec<u8>>
    ) -> bool {
        let (length, outline) = (length.map(|length| length % EXACT), outline.map(Bytes::from));
        round_trip(BlobMessage::State { id, status, reason: words, length, have, outline })
    }
}

#[test]
fn what_is_too_large_is_not_read() {
    let (id, hash) = (1, BlobHash([7; 32]));
    let limits = Limits::default();
    let read = |message| codec::decode(&codec::encode(&Message::Blob(message)), &limits);
    let chunk = |len| BlobMessage::Chunk { id, hash, at: 0, data: vec![0; len].into() };
    assert!(read(chunk(BLOB_CHUNK_BYTES)).is_ok());
    assert!(read(chunk(BLOB_CHUNK_BYTES + 1)).is_err());
    let offer = |len| BlobMessage::Offer { id, hash, length: 1, outline: vec![0; len].into() };
    assert!(read(offer(BLOB_OUTLINE_BYTES_MAX)).is_ok());
    assert!(read(offer(BLOB_OUTLINE_BYTES_MAX + 1)).is_err());
}
