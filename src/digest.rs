//! Names made of what they name: every replica makes them alike.

use sha2::{Digest as _, Sha256};

/// The first 16 bytes of the SHA-256 of several parts, each with its length before it, so that no
/// two lists of parts are alike. The first part tells what is named.
pub(crate) fn digest<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        // No part is longer than the address space, which is 64 bits at most.
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    first
}

/// A number for the heads of a document, whatever their order.
pub(crate) fn heads_number(heads: impl IntoIterator<Item = [u8; 32]>) -> u64 {
    /// Tells these hashes from all others; the index of peers keeps them on disk, and relays and
    /// peers compare them.
    const DOMAIN: &str = "concord index 1";
    let mut heads: Vec<[u8; 32]> = heads.into_iter().collect();
    heads.sort_unstable();
    let parts = std::iter::once(DOMAIN.as_bytes()).chain(heads.iter().map(|head| &head[..]));
    first_word(digest(parts))
}

/// The first of the two words of a digest.
pub(crate) fn first_word(digest: [u8; 16]) -> u64 {
    digest.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
