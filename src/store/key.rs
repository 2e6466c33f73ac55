//! The key of a row: tenant, document, kind, id, part, piece; in byte order as in that order.

use concord_protocol::DocumentId;

use super::{DocumentKey, Tenant};
use crate::replica::{Kind, RowKey};

/// The row that every store of ours has; sorts before all others.
pub(super) const SENTINEL: &[u8] = b"\0concord";

/// First byte of every row's key, so that other things can stand beside rows later.
const ROW_TAG: u8 = 1;

/// What ends a text; sorts before everything that can go on after it.
const TEXT_END: [u8; 2] = [0, 0];

/// Bytes after the document's prefix: kind, id, part, piece.
const TAIL_LEN: usize = 1 + 32 + 4 + 4;

/// What all rows of a tenant start with.
pub(super) fn tenant_prefix(tenant: &Tenant) -> Vec<u8> {
    let mut key = vec![ROW_TAG];
    put_text(&mut key, &tenant.0);
    key
}

/// What all rows of a document start with.
pub(super) fn document_prefix(key: &DocumentKey) -> Vec<u8> {
    let mut prefix = tenant_prefix(&key.tenant);
    put_text(&mut prefix, key.document.as_str());
    prefix
}

/// What sorts after all rows of a document and before the next document's, given its prefix.
pub(super) fn after_document(mut document_prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = document_prefix.last_mut() {
        // The end of the text is 0 0; a text that goes on has at least 0 255 there.
        *last = 1;
    }
    document_prefix
}

/// What all rows of one kind of a document start with.
pub(super) fn kind_prefix(document_prefix: &[u8], kind: Kind) -> Vec<u8> {
    [document_prefix, &[kind as u8]].concat()
}

/// What all pieces of a row start with.
pub(super) fn row_prefix(document_prefix: &[u8], row: &RowKey) -> Vec<u8> {
    [document_prefix, &[row.kind as u8], &row.id, &row.part.to_be_bytes()].concat()
}

/// The key of a piece of a row.
pub(super) fn piece(row_prefix: &[u8], number: u32) -> Vec<u8> {
    [row_prefix, &number.to_be_bytes()].concat()
}

/// Reads what comes after a document's prefix: which row, which piece of it.
pub(super) fn parse_tail(tail: &[u8]) -> Option<(RowKey, u32)> {
    let tail: &[u8; TAIL_LEN] = tail.try_into().ok()?;
    let (kind, rest) = tail.split_first()?;
    let (id, rest) = rest.split_first_chunk::<32>()?;
    let (part, rest) = rest.split_first_chunk::<4>()?;
    let piece: [u8; 4] = rest.try_into().ok()?;
    let row = RowKey { kind: parse_kind(*kind)?, id: *id, part: u32::from_be_bytes(*part) };
    Some((row, u32::from_be_bytes(piece)))
}

/// The document of a row's key, given its tenant's prefix, and the document's prefix.
pub(super) fn parse_document<'k>(
    tenant_prefix: &[u8],
    key: &'k [u8],
) -> Option<(DocumentId, &'k [u8])> {
    let rest = key.strip_prefix(tenant_prefix)?;
    // Document ids are base58, without zeros, so nothing in them was escaped.
    let len = rest.windows(2).position(|pair| pair == TEXT_END)?;
    let id = std::str::from_utf8(rest.get(..len)?).ok()?.parse().ok()?;
    Some((id, key.get(..tenant_prefix.len() + len + TEXT_END.len())?))
}

fn parse_kind(byte: u8) -> Option<Kind> {
    [Kind::Meta, Kind::IndexRoot, Kind::IndexPage, Kind::Snapshot, Kind::Change, Kind::Quarantine]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
}

/// Appends a text so that byte order is text order whatever follows: zero becomes 0 255.
fn put_text(key: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(255);
        }
    }
    key.extend_from_slice(&TEXT_END);
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn key(tenant: &str, document: &[u8]) -> DocumentKey {
        DocumentKey { tenant: Tenant(tenant.into()), document: DocumentId::from_bytes(document) }
    }

    #[test]
    fn a_key_is_what_it_was_in_the_first_version() {
        let row = RowKey { kind: Kind::Change, id: [7; 32], part: 0x0102 };
        let key = piece(&row_prefix(&document_prefix(&key("default", &[9; 16])), &row), 0x0304);
        let text = DocumentId::from_bytes(&[9; 16]);
        let mut expected = b"\x01default\0\0".to_vec();
        expected.extend_from_slice(text.as_str().as_bytes());
        expected.extend_from_slice(b"\0\0\x05");
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&[0, 0, 1, 2, 0, 0, 3, 4]);
        assert_eq!(key, expected);
    }

    #[test]
    fn malformed_tails_and_keys_are_not_read() {
        assert_eq!(parse_tail(&[]), None);
        assert_eq!(parse_tail(&[99; TAIL_LEN]), None);
        assert_eq!(parse_tail(&[1; TAIL_LEN + 1]), None);
        let tenant = tenant_prefix(&Tenant::default());
        assert_eq!(parse_document(&tenant, b"elsewhere"), None);
        assert_eq!(parse_document(&tenant, &[&tenant[..], b"no-base58\0\0x"].concat()), None);
    }

    quickcheck! {
        fn keys_order_as_what_they_name(
            a: (String, Vec<u8>, u8, u32, u32),
            b: (String, Vec<u8>, u8, u32, u32)
        ) -> bool {
            type Names = (String, Vec<u8>, u8, u32, u32);
            let encode = |(tenant, document, id, part, number): &Names| {
                let row = RowKey { kind: Kind::IndexPage, id: [*id; 32], part: *part };
                let document = document_prefix(&key(tenant, document));
                piece(&row_prefix(&document, &row), *number)
            };
            let names = |(tenant, document, id, part, number): &Names| {
                (tenant.clone(), DocumentId::from_bytes(document), *id, *part, *number)
            };
            encode(&a).cmp(&encode(&b)) == names(&a).cmp(&names(&b))
        }

        fn keys_are_read_back(tenant: String, document: Vec<u8>, id: u8, part: u32, n: u32) -> bool {
            let document = if document.is_empty() { vec![1] } else { document };
            let key = key(&tenant, &document);
            let prefix = document_prefix(&key);
            let row = RowKey { kind: Kind::Snapshot, id: [id; 32], part };
            let full = piece(&row_prefix(&prefix, &row), n);
            let tenant = tenant_prefix(&key.tenant);
            parse_document(&tenant, &full) == Some((key.document, &prefix[..]))
                && parse_tail(&full[prefix.len()..]) == Some((row, n))
                && after_document(prefix) > full
        }
    }
}
