//! The index beside a snapshot: every change in it, without its operations, in pages that are
//! read when somebody asks that far back. A change takes some 45 bytes there, 32 of them its hash.

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::{ActorId, ChangeHash};
use serde::{Deserialize, Serialize};

use crate::record::{self, RecordError};

/// Changes a topological page. 512 entries are about 17 KB: one read, one unit of caching.
pub const PAGE_ENTRIES: u32 = 512;

/// The part number of the first hash page; topological pages count from zero.
pub const HASH_PAGES_FROM: u32 = 1 << 31;

/// Heads of a snapshot among which a position is looked for before its page is.
const HEADS_LOOKED_AT: usize = 64;

/// Hash pages are split until they hold about this many entries of 12 bytes.
const HASH_PAGE_ENTRIES: usize = 512;

/// One change in a snapshot, as a materialiser describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The change.
    pub hash: [u8; 32],
    /// Its dependencies, as positions in the same topological order; all below its own.
    pub deps: Vec<u32>,
    /// Its writer, as a position in [`IndexRoot::actors`].
    pub actor: u32,
    /// Its number among its writer's changes, from 1.
    pub seq: u32,
    /// Its first operation's counter.
    pub start_op: u32,
    /// How many operations it has.
    pub ops: u32,
    /// The bytes of its chunk, uncompressed.
    pub bytes: u32,
    /// When it was made, seconds since 1970 by its writer's clock.
    pub time: i64,
}

/// What is always in memory of an active document's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRoot {
    /// How many changes.
    pub changes: u32,
    /// Heads of the snapshot, sorted.
    pub heads: Vec<[u8; 32]>,
    /// Where the heads are in the topological order, as `heads`.
    pub head_positions: Vec<u32>,
    /// Every writer, with its last sequence number.
    pub actors: Vec<IndexActor>,
    /// Every object made in the snapshot: counter and actor position, sorted.
    pub objects: Vec<(u32, u32)>,
    /// The largest operation counter.
    pub max_op: u32,
    /// Bytes of the snapshot chunk.
    pub snapshot_bytes: u64,
    /// Bytes of all its changes as chunks, not deflated.
    pub change_bytes: u64,
    /// There are 2 to the power of this many hash pages; a hash is in the page that its first
    /// bits name.
    pub hash_bits: u8,
    /// Snapshots that this one contains and that may be deleted.
    pub covers: Vec<[u8; 32]>,
}

/// One writer in an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexActor {
    /// Its id.
    pub actor: Vec<u8>,
    /// The sequence number of its last change.
    pub seq: u32,
}

/// A whole index, as a materialiser makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotIndex {
    /// The part that is always in memory.
    pub root: IndexRoot,
    /// The encoded pages: part number and bytes.
    pub pages: Vec<(u32, Vec<u8>)>,
}

/// Consecutive changes of the topological order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopoPage {
    #[serde(with = "halves")]
    hashes: Vec<[u8; 32]>,
    max_ops: Vec<u32>,
    dep_counts: Vec<u16>,
    deps: Vec<u32>,
}

/// Where the changes are whose hashes begin with certain bits, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HashPage {
    /// The first eight bytes, big-endian, and the position. The change itself says the rest.
    entries: Vec<(u64, u32)>,
}

/// Why an index could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A dependency comes after what depends on it, or a name is out of range.
    #[error("change {0} is out of order or names what is not there")]
    Inconsistent(ChangeHash),
    /// More than an index can count.
    #[error("too large to index")]
    TooLarge,
    /// A page or root could not be written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Hashes as pairs of numbers of 128 bits: the same bytes as 32 numbers of eight bits each, which
/// serde hands on one by one.
mod halves {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        hashes: &[[u8; 32]],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(hashes.iter().map(|hash| {
            let (halves, _) = hash.as_chunks::<16>();
            (u128::from_le_bytes(halves[0]), u128::from_le_bytes(halves[1]))
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<[u8; 32]>, D::Error> {
        let halves = Vec::<(u128, u128)>::deserialize(deserializer)?;
        let whole = |(first, second): (u128, u128)| {
            let mut hash = [0; 32];
            hash[..16].copy_from_slice(&first.to_le_bytes());
            hash[16..].copy_from_slice(&second.to_le_bytes());
            hash
        };
        Ok(halves.into_iter().map(whole).collect())
    }
}

fn prefix(hash: &[u8; 32]) -> u64 {
    let mut first = [0_u8; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

fn hash_part(bits: u8, hash: &[u8; 32]) -> u32 {
    let bucket = prefix(hash).checked_shr(64 - u32::from(bits)).unwrap_or(0);
    HASH_PAGES_FROM | u32::try_from(bucket).unwrap_or(0)
}

impl IndexRoot {
    /// The part numbers of all its pages.
    pub fn parts(&self) -> impl Iterator<Item = u32> {
        let topological = self.changes.div_ceil(PAGE_ENTRIES);
        (0..topological).chain((0..1_u32 << self.hash_bits).map(|page| HASH_PAGES_FROM | page))
    }
}

impl SnapshotIndex {
    /// Makes the index of changes in topological order.
    ///
    /// `actors` lists each writer once, in the order that entries refer to; `objects` is what
    /// the changes made: counter and actor position.
    ///
    /// # Errors
    /// [`IndexError`] where entries do not fit each other.
    pub fn build(
        entries: &[IndexEntry],
        actors: &[ActorId],
        mut objects: Vec<(u32, u32)>,
        snapshot_bytes: u64,
    ) -> Result<Self, IndexError> {
        let changes = u32::try_from(entries.len()).map_err(|_| IndexError::TooLarge)?;
        if changes >= HASH_PAGES_FROM {
            return Err(IndexError::TooLarge);
        }
        let wanted = entries.len().div_ceil(HASH_PAGE_ENTRIES).max(1).next_power_of_two();
        let hash_bits = u8::try_from(wanted.trailing_zeros()).map_err(|_| IndexError::TooLarge)?;

        let mut head = vec![true; entries.len()];
        let mut seqs = vec![0_u32; actors.len()];
        let mut max_op = 0;
        let mut change_bytes = 0_u64;
        let mut hash_pages: BTreeMap<u32, Vec<(u64, u32)>> = BTreeMap::new();
        let mut pages = Vec::new();
        for (number, chunk) in (0_u32..).zip(entries.chunks(PAGE_ENTRIES as usize)) {
            let first = number * PAGE_ENTRIES;
            let mut page = TopoPage::with_capacity(chunk.len());
            for (position, entry) in (first..).zip(chunk) {
                let inconsistent = || IndexError::Inconsistent(ChangeHash(entry.hash));
                for &dep in &entry.deps {
                    if dep >= position {
                        return Err(inconsistent());
                    }
                    head[dep as usize] = false;
                }
                let seq = seqs.get_mut(entry.actor as usize).ok_or_else(inconsistent)?;
                *seq = (*seq).max(entry.seq);
                let last_op = entry.start_op.saturating_add(entry.ops).saturating_sub(1);
                max_op = max_op.max(last_op);
                change_bytes += u64::from(entry.bytes);
                hash_pages
                    .entry(hash_part(hash_bits, &entry.hash))
                    .or_default()
                    .push((prefix(&entry.hash), position));
                page.push(entry, last_op).ok_or_else(inconsistent)?;
            }
            let steps = page.stepped(first).ok_or(IndexError::TooLarge)?;
            pages.push((number, record::encode_packed(&steps)?));
        }
        for bucket in 0..1_u32 << hash_bits {
            let part = HASH_PAGES_FROM | bucket;
            let mut entries = hash_pages.remove(&part).unwrap_or_default();
            entries.sort_unstable();
            pages.push((part, record::encode(&HashPage { entries })?));
        }

        let mut heads: Vec<([u8; 32], u32)> = (0_u32..)
            .zip(entries)
            .filter(|(position, _)| head[*position as usize])
            .map(|(position, entry)| (entry.hash, position))
            .collect();
        heads.sort_unstable();
        objects.sort_unstable();
        objects.dedup();
        Ok(Self {
            root: IndexRoot {
                changes,
                heads: heads.iter().map(|(hash, _)| *hash).collect(),
                head_positions: heads.iter().map(|(_, position)| *position).collect(),
                actors: actors
                    .iter()
                    .zip(seqs)
                    .map(|(actor, seq)| IndexActor { actor: actor.as_bytes().to_vec(), seq })
                    .collect(),
                objects,
                max_op,
                snapshot_bytes,
                change_bytes,
                hash_bits,
                covers: Vec::new(),
            },
            pages,
        })
    }
}

impl TopoPage {
    fn with_capacity(entries: usize) -> Self {
        Self {
            hashes: Vec::with_capacity(entries),
            max_ops: Vec::with_capacity(entries),
            dep_counts: Vec::with_capacity(entries),
            deps: Vec::with_capacity(entries),
        }
    }

    fn push(&mut self, entry: &IndexEntry, max_op: u32) -> Option<()> {
        self.hashes.push(entry.hash);
        self.max_ops.push(max_op);
        self.dep_counts.push(u16::try_from(entry.deps.len()).ok()?);
        self.deps.extend_from_slice(&entry.deps);
        Some(())
    }

    /// Numbers as they are written: what they grow by, and how far back dependencies are. Those of
    /// one writer who goes on are all alike, and take no room once they are compressed.
    fn stepped(mut self, first: u32) -> Option<Self> {
        let mut before = 0;
        for max_op in &mut self.max_ops {
            let step = max_op.wrapping_sub(before);
            before = std::mem::replace(max_op, step);
        }
        self.turn(first)?;
        Some(self)
    }

    /// The inverse; `None` if the bytes were no page.
    fn summed(mut self, first: u32) -> Option<Self> {
        let mut before = 0_u32;
        for step in &mut self.max_ops {
            before = before.wrapping_add(*step);
            *step = before;
        }
        self.turn(first)?;
        Some(self)
    }

    /// Makes of each dependency how far before its change it is, or the other way round.
    fn turn(&mut self, first: u32) -> Option<()> {
        let mut deps = self.deps.iter_mut();
        for (position, count) in (first..).zip(&self.dep_counts) {
            for _ in 0..*count {
                let dep = deps.next()?;
                *dep = position.checked_sub(*dep)?;
            }
        }
        Some(())
    }
}

/// Pages that have to be read before a question can be answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Missing(pub(super) BTreeSet<u32>);

impl Missing {
    fn page(part: u32) -> Self {
        Self(BTreeSet::from([part]))
    }
}

/// One change as the pages tell it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Indexed<'a> {
    pub(super) hash: ChangeHash,
    pub(super) max_op: u32,
    pub(super) deps: &'a [u32],
}

/// An index of which only the root and some pages are in memory.
#[derive(Debug)]
pub(super) struct PagedIndex {
    pub(super) root: IndexRoot,
    topo: BTreeMap<u32, LoadedTopo>,
    hash: BTreeMap<u32, HashPage>,
}

#[derive(Debug)]
struct LoadedTopo {
    page: TopoPage,
    /// Where the dependencies of each entry begin in `page.deps`.
    offsets: Vec<u32>,
}

impl PagedIndex {
    pub(super) fn new(root: IndexRoot) -> Self {
        Self { root, topo: BTreeMap::new(), hash: BTreeMap::new() }
    }

    /// An index with all its pages at hand.
    pub(super) fn whole(index: &SnapshotIndex) -> Result<Self, IndexError> {
        let mut this = Self::new(index.root.clone());
        for (part, bytes) in &index.pages {
            this.insert_page(*part, bytes)?;
        }
        Ok(this)
    }

    /// Takes in a page that was read.
    pub(super) fn insert_page(&mut self, part: u32, bytes: &[u8]) -> Result<(), IndexError> {
        if part >= HASH_PAGES_FROM {
            self.hash.insert(part, record::decode(bytes)?);
            return Ok(());
        }
        let bad = || RecordError::Malformed(format!("index page {part} does not add up"));
        let first = part.checked_mul(PAGE_ENTRIES).ok_or_else(bad)?;
        let page: TopoPage = if record::is_packed(bytes) {
            let steps: TopoPage = record::decode_packed(bytes)?;
            steps.summed(first).ok_or_else(bad)?
        } else {
            // As an earlier version wrote it.
            record::decode(bytes)?
        };
        let expected = self.root.changes.saturating_sub(first).min(PAGE_ENTRIES) as usize;
        let mut offsets = Vec::with_capacity(expected + 1);
        let mut offset = 0_u32;
        for (position, &count) in (first..).zip(&page.dep_counts) {
            offsets.push(offset);
            let end = offset + u32::from(count);
            let deps = page.deps.get(offset as usize..end as usize).ok_or_else(bad)?;
            if deps.iter().any(|&dep| dep >= position) {
                return Err(bad().into());
            }
            offset = end;
        }
        offsets.push(offset);
        let whole = page.hashes.len() == expected
            && page.max_ops.len() == expected
            && page.dep_counts.len() == expected
            && page.deps.len() == offset as usize;
        if !whole {
            return Err(bad().into());
        }
        self.topo.insert(part, LoadedTopo { page, offsets });
        Ok(())
    }

    /// Forgets every page.
    pub(super) fn drop_pages(&mut self) {
        mark!(PagesDropped, if !self.topo.is_empty() || !self.hash.is_empty());
        self.topo.clear();
        self.hash.clear();
    }

    /// The change at a position.
    pub(super) fn entry(&self, position: u32) -> Result<Indexed<'_>, Missing> {
        let part = position / PAGE_ENTRIES;
        let loaded = self.topo.get(&part).ok_or_else(|| Missing::page(part))?;
        let at = (position % PAGE_ENTRIES) as usize;
        // Pages are checked on insertion to hold as many entries as the root says, and
        // positions come from pages and roots only.
        let (Some(hash), Some(max_op), Some(from), Some(to)) = (
            loaded.page.hashes.get(at),
            loaded.page.max_ops.get(at),
            loaded.offsets.get(at),
            loaded.offsets.get(at + 1),
        ) else {
            return Err(Missing::page(part));
        };
        let deps = loaded.page.deps.get(*from as usize..*to as usize).unwrap_or_default();
        Ok(Indexed { hash: ChangeHash(*hash), max_op: *max_op, deps })
    }

    /// The hash of the change at a position. The snapshot's heads need no page.
    pub(super) fn hash_at(&self, position: u32) -> Result<ChangeHash, Missing> {
        let mut heads = self.root.head_positions.iter().zip(&self.root.heads).take(HEADS_LOOKED_AT);
        match heads.find(|(at, _)| **at == position) {
            Some((_, hash)) => Ok(ChangeHash(*hash)),
            None => Ok(self.entry(position)?.hash),
        }
    }

    /// Where a change is, if it is in the snapshot.
    pub(super) fn position(&self, hash: &ChangeHash) -> Result<Option<u32>, Missing> {
        if let Ok(head) = self.root.heads.binary_search(&hash.0) {
            return Ok(self.root.head_positions.get(head).copied());
        }
        let part = hash_part(self.root.hash_bits, &hash.0);
        let page = self.hash.get(&part).ok_or_else(|| Missing::page(part))?;
        let wanted = prefix(&hash.0);
        let from = page.entries.partition_point(|(prefix, _)| *prefix < wanted);
        for &(_, position) in page.entries[from..].iter().take_while(|(p, _)| *p == wanted) {
            if position < self.root.changes && self.entry(position)?.hash == *hash {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32, deps: Vec<u32>) -> IndexEntry {
        let mut hash = [0_u8; 32];
        // Spread over the pages, as real hashes are.
        hash[..8]
            .copy_from_slice(&u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        hash[28..].copy_from_slice(&number.to_be_bytes());
        IndexEntry {
            hash,
            deps,
            actor: 0,
            seq: number + 1,
            start_op: number + 1,
            ops: 1,
            bytes: 100,
            time: 0,
        }
    }

    fn chain(changes: u32) -> Vec<IndexEntry> {
        (0..changes).map(|n| entry(n, n.checked_sub(1).into_iter().collect())).collect()
    }

    fn actor() -> ActorId {
        ActorId::from([7_u8; 16].as_slice())
    }

    #[test]
    fn every_change_is_found_where_it_is_and_nothing_else_is() {
        let entries = chain(5_000);
        let index = SnapshotIndex::build(&entries, &[actor()], vec![], 9).unwrap();
        assert_eq!(
            index.root.parts().collect::<Vec<_>>(),
            index.pages.iter().map(|(part, _)| *part).collect::<Vec<_>>()
        );
        let paged = PagedIndex::whole(&index).unwrap();
        for (position, entry) in (0_u32..).zip(&entries) {
            assert_eq!(paged.position(&ChangeHash(entry.hash)), Ok(Some(position)));
            let found = paged.entry(position).unwrap();
            assert_eq!((found.deps, found.max_op), (entry.deps.as_slice(), position + 1));
        }
        assert_eq!(paged.position(&ChangeHash([9; 32])), Ok(None));
        assert_eq!(index.root.heads, vec![entries[4_999].hash]);
        assert_eq!(index.root.actors[0].seq, 5_000);
    }

    #[test]
    fn hashes_are_written_byte_by_byte() {
        let mut page = TopoPage::with_capacity(3);
        for (number, entry) in chain(3).iter_mut().enumerate() {
            entry.hash = std::array::from_fn(|at| u8::try_from(at * (number + 3) % 251).unwrap());
            page.push(entry, 7).unwrap();
        }
        let bytes = record::encode(&page).unwrap();
        let plain = (&page.hashes, &page.max_ops, &page.dep_counts, &page.deps);
        assert_eq!(bytes, record::encode(&plain).unwrap());
        assert_eq!(record::decode::<TopoPage>(&bytes).unwrap(), page);
    }

    #[test]
    fn a_page_of_the_first_format_is_read() {
        let entries = chain(600);
        let index = SnapshotIndex::build(&entries, &[actor()], vec![], 0).unwrap();
        let mut paged = PagedIndex::new(index.root.clone());
        let mut page = TopoPage::with_capacity(88);
        for entry in &entries[512..] {
            page.push(entry, entry.start_op).unwrap();
        }
        let old = record::encode(&page).unwrap();
        let now = &index.pages[1].1;
        assert!(now.len() + 9 * 88 < old.len(), "{} of {}", now.len(), old.len());
        for bytes in [&old, now] {
            paged.insert_page(1, bytes).unwrap();
            let found = paged.entry(599).unwrap();
            assert_eq!((found.deps, found.max_op), (&[598][..], 600));
        }
    }

    #[test]
    fn dependencies_come_back_however_far_they_go() {
        fn law(deps: Vec<Vec<u32>>, first: u32, ops: Vec<u32>) -> bool {
            let mut page = TopoPage::with_capacity(deps.len());
            let first = first % HASH_PAGES_FROM;
            for ((position, deps), max_op) in (first..).zip(deps).zip(ops) {
                let deps = deps.iter().map(|dep| dep % position.max(1)).collect();
                page.push(&entry(position, deps), max_op).unwrap();
            }
            // The first of all can depend on nothing.
            let back = page.clone().stepped(first).and_then(|steps| steps.summed(first));
            back.as_ref() == Some(&page)
        }
        quickcheck::quickcheck(law as fn(Vec<Vec<u32>>, u32, Vec<u32>) -> bool);
    }

    #[test]
    fn a_missing_page_is_named_and_one_page_answers() {
        let entries = chain(2_000);
        let index = SnapshotIndex::build(&entries, &[actor()], vec![], 9).unwrap();
        let mut paged = PagedIndex::new(index.root.clone());
        assert_eq!(
            paged.position(&ChangeHash(entries[1_999].hash)),
            Ok(Some(1_999)),
            "heads need no page"
        );
        let wanted = ChangeHash(entries[700].hash);
        let mut reads = 0;
        while let Err(Missing(parts)) = paged.position(&wanted) {
            for part in parts {
                let (_, bytes) = index.pages.iter().find(|(p, _)| *p == part).unwrap();
                paged.insert_page(part, bytes).unwrap();
                reads += 1;
            }
        }
        assert_eq!((paged.position(&wanted), reads), (Ok(Some(700)), 2));
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let entries = vec![entry(0, vec![1]), entry(1, vec![])];
        assert!(matches!(
            SnapshotIndex::build(&entries, &[actor()], vec![], 0),
            Err(IndexError::Inconsistent(_))
        ));
        assert!(
            SnapshotIndex::build(&[entry(0, vec![])], &[], vec![], 0).is_err(),
            "no such actor"
        );
    }

    #[test]
    fn a_damaged_page_is_refused() {
        let index = SnapshotIndex::build(&chain(600), &[actor()], vec![], 0).unwrap();
        let mut paged = PagedIndex::new(index.root.clone());
        assert!(paged.insert_page(0, &index.pages[1].1).is_err(), "a page in another's place");
        assert!(paged.insert_page(0, &index.pages[0].1[..100]).is_err());
    }
}
