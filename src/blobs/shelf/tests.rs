use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::ReadBuf;

use super::*;
use crate::{blobs::BlobReader, store};

const PIECE: usize = BLOB_CHUNK_BYTES;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1].wrapping_mul(7)).collect()
}

fn outlined(bytes: &[u8]) -> Outline {
    let mut outlining = Outlining::default();
    bytes.chunks(PIECE).for_each(|piece| outlining.push(piece));
    outlining.finish()
}

fn shelf() -> Arc<Shelf> {
    Arc::new(Shelf::new(store::memory().unwrap(), Limits::default()))
}

/// The shelf after a restart.
fn again(shelf: &Shelf) -> Arc<Shelf> {
    Arc::new(Shelf::new(Arc::clone(&shelf.store), shelf.limits.clone()))
}

async fn all_of(shelf: &Arc<Shelf>, hash: BlobHash) -> Result<Vec<u8>, ShelfError> {
    let mut all = Vec::new();
    BlobReader::open(shelf, hash).await?.read_to_end(&mut all).await.unwrap();
    Ok(all)
}

async fn bring(shelf: &Arc<Shelf>, bytes: &[u8], to: usize) -> Result<u32, ShelfError> {
    let outline = outlined(bytes);
    let coming = shelf.begin(outline.hash(), outline.length(), Some(outline)).await?;
    let Some(coming) = coming else { return Ok(0) };
    let begin = coming.have();
    for (piece, at) in bytes.chunks(PIECE).zip(0..).take(to).skip(begin as usize) {
        shelf.add(&coming, at, Bytes::copy_from_slice(piece)).await?;
    }
    Ok(begin)
}

#[tokio::test]
async fn what_is_taken_in_is_given_and_is_there_after_a_restart() {
    for length in [0, 1, PIECE, PIECE + 1, 5 * PIECE, 5 * PIECE + 77] {
        let (shelf, bytes) = (shelf(), bytes(length));
        let outline = shelf.take_in(&bytes[..], false).await.unwrap();
        assert_eq!(outline, outlined(&bytes));
        assert_eq!(all_of(&shelf, outline.hash()).await.as_ref(), Ok(&bytes));
        let shelf = again(&shelf);
        assert_eq!(all_of(&shelf, outline.hash()).await.as_ref(), Ok(&bytes));
        assert_eq!(shelf.outline(&outline.hash()).await, Ok(outline));
        assert_eq!(shelf.catalogue().bytes(), bytes.len() as u64);
    }
}

#[tokio::test]
async fn any_prefix_resumes_behind_the_last_piece() {
    let bytes = bytes(9 * PIECE + 5);
    let hash = outlined(&bytes).hash();
    for cut in 0..=9 {
        let shelf = shelf();
        bring(&shelf, &bytes, cut).await.unwrap();
        assert_eq!(shelf.piece(&hash, 0).await, Err(ShelfError::NotHere(hash)));
        let shelf = again(&shelf);
        assert_eq!(bring(&shelf, &bytes, 99).await, Ok(u32::try_from(cut).unwrap()));
        assert_eq!(all_of(&shelf, hash).await.as_ref(), Ok(&bytes));
    }
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_what_came_before_stays() {
    let (shelf, bytes) = (shelf(), bytes(4 * PIECE));
    bring(&shelf, &bytes, 2).await.unwrap();
    let outline = outlined(&bytes);
    let hash = outline.hash();
    let coming = shelf.begin(hash, outline.length(), Some(outline)).await.unwrap().unwrap();
    let wrong = shelf.add(&coming, 2, vec![7; PIECE].into()).await;
    assert_eq!(wrong, Err(ShelfError::Wrong { hash, at: Some(2) }));
    assert_eq!(coming.have(), 2);
    drop(coming);
    assert_eq!(bring(&shelf, &bytes, 99).await, Ok(2));
    assert_eq!(all_of(&shelf, hash).await.as_ref(), Ok(&bytes));
}

#[tokio::test]
async fn without_an_outline_the_whole_is_checked_and_wrong_bytes_are_gone() {
    let (shelf, bytes) = (shelf(), bytes(3 * PIECE));
    let outline = outlined(&bytes);
    let (hash, length) = (outline.hash(), outline.length());
    for is_right in [false, true] {
        let coming = shelf.begin(hash, length, None).await.unwrap().unwrap();
        assert_eq!(coming.have(), 0);
        let mut last = Ok(0);
        for (piece, at) in bytes.chunks(PIECE).zip(0..) {
            let mut piece = piece.to_vec();
            piece[0] ^= u8::from(at == 1 && !is_right);
            last = shelf.add(&coming, at, piece.into()).await;
        }
        assert_eq!(last.is_ok(), is_right, "{last:?}");
    }
    assert_eq!(all_of(&shelf, hash).await.as_ref(), Ok(&bytes));
    assert_eq!(shelf.outline(&hash).await, Ok(outline));
}

#[tokio::test]
async fn what_cannot_be_checked_yet_gives_way_to_what_can() {
    let (shelf, bytes) = (shelf(), bytes(3 * PIECE));
    let outline = outlined(&bytes);
    let (hash, length) = (outline.hash(), outline.length());
    let spoiled = shelf.begin(hash, length, None).await.unwrap().unwrap();
    shelf.add(&spoiled, 0, vec![1; PIECE].into()).await.unwrap();
    assert_eq!(bring(&shelf, &bytes, 99).await, Ok(0));
    assert_eq!(all_of(&shelf, hash).await.as_ref(), Ok(&bytes));
    let late = shelf.add(&spoiled, 1, vec![1; PIECE].into()).await;
    assert!(late.is_ok(), "it is nowhere: {late:?}");
    assert_eq!(all_of(&again(&shelf), hash).await.as_ref(), Ok(&bytes));
}

#[tokio::test]
async fn the_same_bytes_are_kept_once() {
    let (shelf, bytes) = (shelf(), bytes(3 * PIECE));
    let first = shelf.take_in(&bytes[..], false).await.unwrap();
    shelf.take_in(&bytes[..], false).await.unwrap();
    assert_eq!(bring(&shelf, &bytes, 99).await, Ok(0));
    assert_eq!(shelf.catalogue().bytes(), first.length());
    let places = shelf.store.documents(Tenant::pieces(), None, 10).await.unwrap();
    assert_eq!(places.len(), 1);
}

#[tokio::test]
async fn limits_are_kept_and_leave_nothing_behind() {
    let (one, all) = (4 * PIECE as u64, 6 * PIECE as u64);
    let mut limits = Limits::default();
    (limits.blob_bytes, limits.blob_total_bytes) = (one, all);
    let shelf = Arc::new(Shelf::new(store::memory().unwrap(), limits));
    let too_large = shelf.take_in(&bytes(5 * PIECE)[..], false).await;
    assert!(matches!(too_large, Err(ShelfError::TooLarge { .. })));
    assert!(matches!(bring(&shelf, &bytes(5 * PIECE), 1).await, Err(ShelfError::TooLarge { .. })));
    shelf.take_in(&bytes(4 * PIECE)[..], false).await.unwrap();
    let full = shelf.take_in(&bytes(3 * PIECE)[..], false).await;
    assert!(matches!(full, Err(ShelfError::NoRoom { .. })));
    assert!(matches!(bring(&shelf, &bytes(3 * PIECE), 1).await, Err(ShelfError::NoRoom { .. })));
    assert_eq!(shelf.catalogue().bytes(), one);
    assert_eq!(shelf.store.documents(Tenant::pieces(), None, 10).await.unwrap().len(), 1);
    bring(&shelf, &bytes(2 * PIECE), 99).await.unwrap();
    assert_eq!(shelf.catalogue().bytes(), all);
}

/// Fails after some bytes.
struct Broken(usize);

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(std::io::Error::other("unplugged")));
        }
        let len = buf.remaining().min(self.0);
        buf.put_slice(&vec![3; len]);
        self.0 -= len;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_cannot_be_read_to_its_end_is_not_kept() {
    let shelf = shelf();
    let taken = shelf.take_in(Broken(3 * PIECE + 9), false).await;
    assert_eq!(taken, Err(ShelfError::Source("unplugged".to_owned())));
    assert_eq!(shelf.list().await, Ok(Vec::new()));
    assert_eq!(shelf.catalogue().bytes(), 0);
    assert_eq!(shelf.store.documents(Tenant::pieces(), None, 10).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_start_clears_pieces_that_have_no_entry() {
    let shelf = shelf();
    let kept = shelf.take_in(&bytes(2 * PIECE)[..], false).await.unwrap();
    let write = RowWrite::Put(piece_row(0), Bytes::from_static(b"orphan"));
    shelf.store.write(pieces_key(&[9; 16]), vec![write]).await.unwrap();
    let shelf = again(&shelf);
    assert_eq!(all_of(&shelf, kept.hash()).await.map(|all| all.len()), Ok(2 * PIECE));
    assert_eq!(shelf.store.documents(Tenant::pieces(), None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_nothing_refers_to_goes_after_a_grace() {
    let shelf = shelf();
    let mut hashes = Vec::new();
    for n in 1..=3 {
        hashes.push(shelf.take_in(&vec![n; 100][..], true).await.unwrap().hash());
    }
    let wanted = BTreeSet::from([hashes[0]]);
    let later = now_ms() + 1;
    let hour = Duration::from_hours(1);
    let swept = shelf.sweep(Some(&wanted), later, hour, false).await.unwrap();
    assert_eq!((swept.removed.len(), swept.waiting), (0, 2));
    let reading = shelf.hold(hashes[1]);
    let swept = shelf.sweep(Some(&wanted), later, Duration::ZERO, true).await.unwrap();
    assert_eq!(swept.removed, [(hashes[2], 100)], "a trial");
    let swept = shelf.sweep(Some(&wanted), later, Duration::ZERO, false).await.unwrap();
    assert_eq!(swept.removed, [(hashes[2], 100)]);
    drop(reading);
    // What was referred to until now has its grace from now on.
    let swept = shelf.sweep(Some(&BTreeSet::new()), later, Duration::ZERO, false).await.unwrap();
    assert_eq!((swept.removed.len(), swept.waiting), (1, 1));
    assert_eq!(all_of(&shelf, hashes[1]).await, Err(ShelfError::NotHere(hashes[1])));
    assert_eq!(all_of(&again(&shelf), hashes[0]).await, Ok(vec![1; 100]));
    let places = shelf.store.documents(Tenant::pieces(), None, 10).await.unwrap();
    assert_eq!(places.len(), 1);
    assert_eq!(bring(&shelf, &[3; 100], 9).await, Ok(0), "it may come again");
    assert_eq!(all_of(&shelf, hashes[2]).await, Ok(vec![3; 100]));
}
