//! Documents whose operations nobody looks at: how the fast profile writes changes, and the
//! materialiser that makes snapshots of them.
//!
//! Changes are real change chunks: they pass the guard and are admitted as any others. A snapshot
//! is a document chunk in its frame only: inside are the names of its changes, and of large ones a
//! part of their bytes, so that it is smaller than they are, as a real one is. The library has them
//! by name.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use concord::{
    replica::{
        JobError, JobOutput,
        index::{IndexEntry, SnapshotIndex},
    },
    worker::WorkerJob,
};
use concord_protocol::{ActorId, ChangeHash, Limits, guard};
use sha2::{Digest as _, Sha256};

use crate::{plan::Profile, random::Rng};

/// What opens a chunk of any kind.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Type bytes of chunks.
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;

/// A change as the header tells it, with its bytes.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its name.
    pub(crate) hash: ChangeHash,
    /// What it builds on.
    pub(crate) deps: Vec<ChangeHash>,
    /// Its writer.
    pub(crate) actor: ActorId,
    /// Its number among its writer's.
    pub(crate) seq: u32,
    /// Its first operation's counter.
    pub(crate) start_op: u32,
    /// Its operations.
    pub(crate) ops: u32,
    /// Objects made by it, as counters: hostile ones may be real changes of automerge.
    pub(crate) objects_made: Vec<u32>,
    /// When.
    pub(crate) time: i64,
    /// The chunk.
    pub(crate) bytes: Bytes,
}

/// Hashes keys that are hashes already.
#[derive(Debug, Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.0 ^= u64::from_le_bytes(first);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write_usize(&mut self, _: usize) {}
}

/// A set of changes. Its order follows from its members alone, and nobody goes by it.
pub(crate) type Hashes = HashSet<ChangeHash, BuildHasherDefault<Identity>>;

/// A map by what is a hash already. Its order follows from its keys alone, and nobody goes by it.
pub(crate) type ByHash<K, V> = HashMap<K, V, BuildHasherDefault<Identity>>;

/// Reads change chunks, each once however many nodes hold it.
#[derive(Debug, Default)]
pub(crate) struct Library {
    members: RefCell<ByHash<u64, Rc<Members>>>,
    done: RefCell<BTreeMap<JobKey, Done>>,
    changes: RefCell<ByHash<u64, Rc<Change>>>,
    by_name: RefCell<ByHash<ChangeHash, Rc<Change>>>,
    snapshots: RefCell<ByHash<u64, Rc<[Rc<Change>]>>>,
    breaking: RefCell<Hashes>,
}

/// What the outcome of a job follows from: its kind and 128 bits.
type JobKey = (u8, u64, u64);

/// What a job gave.
type Done = Result<JobOutput, JobError>;

/// Changes in a chunk.
#[derive(Debug)]
pub(crate) struct Members {
    /// Each, with what it builds on.
    pub(crate) changes: Vec<(ChangeHash, Vec<ChangeHash>)>,
    /// 64 bits of them, whatever their order: those of several chunks are added up.
    key: u64,
}

/// 64 bits of bytes; a chunk has a SHA-256 of its own in it, so this cannot be unlucky often.
fn fingerprint(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let add = |to: u64, word: u64| {
        let mixed = (to ^ word).wrapping_mul(ODD);
        mixed ^ (mixed >> 29)
    };
    // Four at a time, of which none waits for another.
    let mut lanes = [0xcbf2_9ce4_8422_2325, ODD, 0x94D0_49BB_1331_11EB, bytes.len() as u64];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = add(*lane, u64::from_le_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = add(*lane, u64::from_le_bytes(*word));
    }
    let mut hash = lanes.into_iter().fold(0, add);
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ (hash >> 32)
}

/// Results of jobs that are kept.
const JOBS_KEPT_MAX: usize = 512;

/// A job, byte by byte.
fn key_of_bytes(job: &WorkerJob) -> JobKey {
    let (kind, parts): (u8, Vec<&[u8]>) = match job {
        WorkerJob::Build { base, incoming, explode_max } => {
            let kind = u8::from(*explode_max > 0);
            let base = base.iter().map(AsRef::as_ref);
            (
                kind,
                base.chain([&b"incoming"[..]]).chain(incoming.iter().map(AsRef::as_ref)).collect(),
            )
        }
        WorkerJob::Extract { snapshot, hashes } => {
            (2, [snapshot.as_ref()].into_iter().chain(hashes.iter().map(|h| &h.0[..])).collect())
        }
        WorkerJob::Check { base, incoming } => {
            let base = base.iter().map(AsRef::as_ref);
            (3, base.chain([&b"incoming"[..]]).chain(incoming.iter().map(AsRef::as_ref)).collect())
        }
    };
    let (mut first, mut second) = (0_u64, 1_u64);
    for part in parts {
        let print = fingerprint(part);
        first = (first.rotate_left(9) ^ print).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        second = second.wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(print ^ (print >> 7));
    }
    (kind, first, second)
}

impl Library {
    /// From now on a change is one that breaks its document: it keeps every rule, and no
    /// materialiser can apply it.
    pub(crate) fn spoil(&self, change: ChangeHash) {
        self.breaking.borrow_mut().insert(change);
    }

    /// Whether a change breaks its document by itself.
    pub(crate) fn breaks(&self, change: &ChangeHash) -> bool {
        self.breaking.borrow().contains(change)
    }

    /// The first of some changes that breaks its document.
    fn first_to_break(&self, changes: &[Rc<Change>]) -> Option<ChangeHash> {
        changes.iter().map(|change| change.hash).find(|hash| self.breaks(hash))
    }

    /// The change in a chunk, or why there is none.
    ///
    /// # Errors
    /// What the guard says.
    pub(crate) fn read(&self, chunk: &Bytes) -> Result<Rc<Change>, String> {
        let key = fingerprint(chunk);
        if let Some(known) = self.changes.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let header = guard::check_change(chunk, &Limits::default()).map_err(|e| e.to_string())?;
        let change = Rc::new(Change {
            hash: header.hash,
            deps: header.deps,
            actor: header.actor,
            seq: header.seq,
            start_op: header.start_op,
            objects_made: header.objects_made,
            ops: header.ops,
            time: header.time,
            bytes: Bytes::copy_from_slice(chunk),
        });
        self.changes.borrow_mut().insert(key, Rc::clone(&change));
        self.by_name.borrow_mut().insert(change.hash, Rc::clone(&change));
        Ok(change)
    }

    /// All changes in chunks, snapshots among them, in the order of the chunks.
    ///
    /// # Errors
    /// In words, if one is neither.
    pub(crate) fn read_all<'a>(
        &self,
        chunks: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<Vec<Rc<Change>>, String> {
        let mut changes = Vec::new();
        for chunk in chunks {
            if is_snapshot(chunk) {
                changes.extend(self.open(chunk)?.iter().cloned());
            } else {
                changes.push(self.read(chunk)?);
            }
        }
        Ok(changes)
    }

    /// Changes in a chunk of either profile, with what they build on.
    ///
    /// # Errors
    /// In words, if it cannot be read.
    pub(crate) fn members(&self, chunk: &Bytes, profile: Profile) -> Result<Rc<Members>, String> {
        let key = fingerprint(chunk);
        if let Some(known) = self.members.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let changes: Vec<_> = if is_snapshot(chunk) && profile == Profile::Automerge {
            let doc = automerge::Automerge::load(chunk).map_err(|error| error.to_string())?;
            let name = |hash: &automerge::ChangeHash| ChangeHash(hash.0);
            let changes = doc.get_changes(&[]);
            changes.iter().map(|c| (name(&c.hash()), c.deps().iter().map(name).collect())).collect()
        } else {
            let changes = self.read_all([chunk])?;
            changes.iter().map(|change| (change.hash, change.deps.clone())).collect()
        };
        let prints = changes.iter().map(|(hash, _)| fingerprint(&hash.0));
        let members = Rc::new(Members { key: prints.fold(0, u64::wrapping_add), changes });
        self.members.borrow_mut().insert(key, Rc::clone(&members));
        Ok(members)
    }

    /// Has `materialise` do a job, unless the same was done in this world lately: what it gives
    /// follows from what it is given, and nodes that have the same ask for the same.
    ///
    /// # Errors
    /// As `materialise`.
    pub(crate) fn once(
        &self,
        job: &WorkerJob,
        profile: Profile,
        materialise: impl FnOnce(&WorkerJob) -> Result<JobOutput, JobError>,
    ) -> Result<JobOutput, JobError> {
        let by_changes = self.key_of_changes(job, profile);
        if let Some(known) = by_changes.and_then(|key| self.done.borrow().get(&key).cloned()) {
            return known;
        }
        let by_bytes = key_of_bytes(job);
        if let Some(known) = self.done.borrow().get(&by_bytes) {
            return known.clone();
        }
        let done = materialise(job);
        let mut kept = self.done.borrow_mut();
        if kept.len() >= JOBS_KEPT_MAX {
            kept.clear();
        }
        // Why it fails may be in how the bytes are laid out.
        let by_changes = by_changes.filter(|_| done.is_ok());
        kept.insert(by_changes.unwrap_or(by_bytes), done.clone());
        done
    }

    /// What the outcome of a job follows from if it goes well, where that is which changes it is
    /// given: in which chunks, and in which order, makes no difference then.
    fn key_of_changes(&self, job: &WorkerJob, profile: Profile) -> Option<JobKey> {
        let sum = |chunks: &[Bytes]| {
            let mut sum = 0_u64;
            for chunk in chunks {
                sum = sum.wrapping_add(self.members(chunk, profile).ok()?.key);
            }
            Some(sum)
        };
        match job {
            WorkerJob::Build { base, incoming, explode_max: 0 } if incoming.is_empty() => {
                Some((4, sum(base)?, 0))
            }
            WorkerJob::Check { base, incoming } => Some((5, sum(base)?, sum(incoming)?)),
            _ => None,
        }
    }

    /// Does what a materialiser does.
    ///
    /// # Errors
    /// As a materialiser.
    pub(crate) fn run(&self, job: &WorkerJob) -> Result<JobOutput, JobError> {
        match job {
            WorkerJob::Build { base, incoming, explode_max } => {
                let base = self.read_all(base).map_err(JobError::Base)?;
                let incoming = self.split(incoming).map_err(JobError::Incoming)?;
                for (changes, error) in
                    [(&base, JobError::Base as fn(String) -> _), (&incoming, JobError::Incoming)]
                {
                    if let Some(hash) = self.first_to_break(changes) {
                        return Err(error(broken_by(&hash)));
                    }
                }
                self.build(&base, &incoming, *explode_max)
            }
            WorkerJob::Extract { snapshot, hashes } => {
                let inside = self.read_all([snapshot]).map_err(JobError::Base)?;
                let inside: ByHash<ChangeHash, &Bytes> =
                    inside.iter().map(|change| (change.hash, &change.bytes)).collect();
                let found = hashes.iter().map(|hash| inside.get(hash).copied().cloned());
                let found: Option<Vec<Bytes>> = found.collect();
                found.map(JobOutput::Extracted).ok_or_else(|| JobError::Base("not in it".into()))
            }
            WorkerJob::Check { base, incoming } => {
                let base = self.read_all(base).map_err(JobError::Base)?;
                if let Some(hash) = self.first_to_break(&base) {
                    return Err(JobError::Base(broken_by(&hash)));
                }
                let incoming = self.read_all(incoming).map_err(JobError::Incoming)?;
                match self.first_to_break(&incoming) {
                    Some(hash) => Err(JobError::Breaks { hash, reason: broken_by(&hash) }),
                    None => Ok(JobOutput::Checked),
                }
            }
        }
    }

    /// Changes in runs of chunks, as peers send them.
    fn split(&self, runs: &[Bytes]) -> Result<Vec<Rc<Change>>, String> {
        let mut changes = Vec::new();
        for run in runs {
            let chunks = guard::split(run, &Limits::default()).map_err(|e| e.to_string())?;
            changes.extend(self.read_all(chunks.iter().map(|chunk| &chunk.bytes))?);
        }
        Ok(changes)
    }

    fn build(
        &self,
        base: &[Rc<Change>],
        incoming: &[Rc<Change>],
        explode_max: u32,
    ) -> Result<JobOutput, JobError> {
        let Some(all) = in_order(base.iter().chain(incoming)) else {
            let why = "a dependency is missing".to_owned();
            return Err(if incoming.is_empty() {
                JobError::Base(why)
            } else {
                JobError::Incoming(why)
            });
        };
        if explode_max > 0 && incoming.len() <= explode_max as usize {
            let ours: Hashes = base.iter().map(|change| change.hash).collect();
            let new = all.iter().filter(|change| !ours.contains(&change.hash));
            return Ok(JobOutput::Changes(new.map(|change| change.bytes.clone()).collect()));
        }
        let snapshot = close(&all);
        let index = index(&all, snapshot.len() as u64)?;
        self.snapshots.borrow_mut().insert(fingerprint(&snapshot), all.into());
        Ok(JobOutput::Built { snapshot, index: Arc::new(index) })
    }

    /// The changes in a snapshot, in order.
    fn open(&self, chunk: &Bytes) -> Result<Rc<[Rc<Change>]>, String> {
        let key = fingerprint(chunk);
        if let Some(known) = self.snapshots.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let by_name = self.by_name.borrow();
        let named = names(chunk).ok_or("a snapshot that ends early")?;
        let changes = named.iter().map(|name| by_name.get(name).cloned());
        let changes: Option<Rc<[_]>> = changes.collect();
        let changes = changes.ok_or("a snapshot of changes that nobody made")?;
        self.snapshots.borrow_mut().insert(key, Rc::clone(&changes));
        Ok(changes)
    }
}

fn broken_by(change: &ChangeHash) -> String {
    format!("change {change} cannot be applied")
}

/// Each change once, after what it builds on, in an order that depends on the set alone; nothing if
/// something is missing that one of them builds on.
fn in_order<'a>(changes: impl Iterator<Item = &'a Rc<Change>>) -> Option<Vec<Rc<Change>>> {
    let mut positions: ByHash<ChangeHash, usize> = ByHash::default();
    let mut all: Vec<&Rc<Change>> = Vec::new();
    for change in changes {
        positions.entry(change.hash).or_insert_with(|| {
            all.push(change);
            all.len() - 1
        });
    }
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    let mut missing: Vec<usize> = Vec::with_capacity(all.len());
    let mut ready = BinaryHeap::new();
    for (at, change) in all.iter().enumerate() {
        for dep in &change.deps {
            dependents[*positions.get(dep)?].push(at);
        }
        missing.push(change.deps.len());
        if change.deps.is_empty() {
            ready.push(Reverse((change.start_op, change.hash, at)));
        }
    }
    let mut ordered = Vec::with_capacity(all.len());
    while let Some(Reverse((_, _, at))) = ready.pop() {
        ordered.push(Rc::clone(all[at]));
        for dependent in &dependents[at] {
            missing[*dependent] -= 1;
            if missing[*dependent] == 0 {
                let change = all[*dependent];
                ready.push(Reverse((change.start_op, change.hash, *dependent)));
            }
        }
    }
    Some(ordered)
}

fn index(changes: &[Rc<Change>], snapshot_bytes: u64) -> Result<SnapshotIndex, JobError> {
    let mut actors: Vec<&ActorId> = changes.iter().map(|change| &change.actor).collect();
    actors.sort_unstable();
    actors.dedup();
    let actors: Vec<ActorId> = actors.into_iter().cloned().collect();
    let positions: ByHash<ChangeHash, u32> =
        (0..).zip(changes).map(|(at, change)| (change.hash, at)).collect();
    // All were collected above.
    let actor_of = |change: &Change| {
        let at = actors.binary_search(&change.actor);
        at.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX))
    };
    let entries: Vec<IndexEntry> = changes
        .iter()
        .map(|change| IndexEntry {
            hash: change.hash.0,
            deps: change.deps.iter().filter_map(|dep| positions.get(dep).copied()).collect(),
            actor: actor_of(change),
            seq: change.seq,
            start_op: change.start_op,
            ops: change.ops,
            bytes: u32::try_from(change.bytes.len()).unwrap_or(u32::MAX),
            time: change.time,
        })
        .collect();
    let made = |change: &Rc<Change>| {
        let actor = actor_of(change);
        change.objects_made.clone().into_iter().map(move |counter| (counter, actor))
    };
    let objects = changes.iter().flat_map(made).collect();
    SnapshotIndex::build(&entries, &actors, objects, snapshot_bytes)
        .map_err(|error| JobError::Base(error.to_string()))
}

/// Whether a chunk is a snapshot.
pub(crate) fn is_snapshot(chunk: &Bytes) -> bool {
    chunk.get(8) == Some(&DOCUMENT)
}

/// Bytes of a change from which on a part of it is in a snapshot beside its name.
const LARGE_BYTES: usize = 1024;
/// Which part.
const LARGE_PART: usize = 32;

/// Makes a snapshot of changes in order.
fn close(changes: &[Rc<Change>]) -> Bytes {
    let mut inside = BytesMut::with_capacity(changes.len() * 36);
    for change in changes {
        let len = change.bytes.len();
        let part = if len < LARGE_BYTES { 0 } else { len / LARGE_PART };
        inside.put_slice(&change.hash.0);
        inside.put_u32_le(u32::try_from(part).unwrap_or(u32::MAX));
        inside.put_slice(&change.bytes[..part]);
    }
    seal(&inside)
}

/// Puts the frame of a document chunk around it.
fn seal(inside: &[u8]) -> Bytes {
    frame(DOCUMENT, inside)
}

/// Puts the frame of a chunk around it.
fn frame(kind: u8, inside: &[u8]) -> Bytes {
    let mut chunk = BytesMut::with_capacity(inside.len() + 19);
    chunk.put_slice(&MAGIC);
    chunk.put_u32(0);
    chunk.put_u8(kind);
    put_number(&mut chunk, inside.len() as u64);
    chunk.put_slice(inside);
    let hash = Sha256::digest(&chunk[8..]);
    chunk[4..8].copy_from_slice(&hash[..4]);
    chunk.freeze()
}

/// Writes a number in LEB128.
fn put_number(to: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        to.put_u8((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8((number & 0x7F) as u8);
}

/// Writes a number in signed LEB128.
fn put_signed(to: &mut BytesMut, mut number: i64) {
    while !(-0x40..0x40).contains(&number) {
        to.put_u8((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8((number & 0x7F) as u8);
}

/// The names of the changes in a snapshot, in order.
fn names(chunk: &[u8]) -> Option<Vec<ChangeHash>> {
    let len_bytes = chunk.get(9..)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let mut rest = chunk.get(9 + len_bytes..)?;
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_first_chunk::<32>()?;
        let (part, after) = after.split_first_chunk::<4>()?;
        rest = after.get(u32::from_le_bytes(*part) as usize..)?;
        names.push(ChangeHash(*name));
    }
    Some(names)
}

/// A document chunk in its frame that holds no document.
pub(crate) fn junk(value: u64) -> Bytes {
    seal(&value.to_le_bytes())
}

/// So many bytes that do not compress.
pub(crate) fn noise(value: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng::new(value);
    let mut noise: Vec<u8> =
        std::iter::repeat_with(|| rng.next().to_le_bytes()).take(bytes / 8 + 1).flatten().collect();
    noise.truncate(bytes);
    noise
}

/// What a change sets its field to.
pub(crate) enum Value {
    /// A number.
    Number(u64),
    /// Anything.
    Data(Vec<u8>),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// Writes a change that sets one field of the root, as automerge would.
pub(crate) fn write(
    actor: &[u8],
    seq: u32,
    start_op: u32,
    time: i64,
    deps: &[ChangeHash],
    value: impl Into<Value>,
) -> Bytes {
    /// A run of one row.
    const ONE: u8 = 0x7F;
    let mut raw = BytesMut::new();
    let kind = match value.into() {
        Value::Number(number) => {
            put_number(&mut raw, number);
            3
        }
        Value::Data(data) => {
            raw.put_slice(&data);
            7
        }
    };
    let mut meta = BytesMut::from(&[ONE][..]);
    put_number(&mut meta, (raw.len() as u64) << 4 | kind);
    // Key, whether it inserts, what it does, its value's kind and bytes, what it overwrites.
    let columns: [(u8, &[u8]); 6] = [
        (0x15, b"\x7f\x05field"),
        (0x34, &[1]),
        (0x42, &[ONE, 1]),
        (0x56, &meta),
        (0x57, &raw),
        (0x70, &[ONE, 0]),
    ];
    let mut body = BytesMut::with_capacity(deps.len() * 32 + actor.len() + raw.len() + 64);
    let mut deps = deps.to_vec();
    deps.sort_unstable();
    put_number(&mut body, deps.len() as u64);
    deps.iter().for_each(|dep| body.put_slice(&dep.0));
    put_number(&mut body, actor.len() as u64);
    body.put_slice(actor);
    put_number(&mut body, seq.into());
    put_number(&mut body, start_op.into());
    put_signed(&mut body, time);
    // No message, no other actors.
    body.put_slice(&[0, 0, 6]);
    for (column, data) in columns {
        body.put_u8(column);
        put_number(&mut body, data.len() as u64);
    }
    columns.iter().for_each(|(_, data)| body.put_slice(data));
    frame(CHANGE, &body)
}

/// A change of the Automerge profile that keeps every rule and that automerge 0.12 cannot apply:
/// one that was found by changing honest ones at random, under another name.
pub(crate) fn poison(actor: &[u8; 16]) -> Bytes {
    const FOUND: &[u8] = include_bytes!("../../tests/peer_hostile/poison.change");
    /// Where its actor is.
    const ACTOR: usize = 13;
    let mut chunk = FOUND.to_vec();
    chunk[ACTOR..ACTOR + actor.len()].copy_from_slice(actor);
    let hash = Sha256::digest(&chunk[8..]);
    chunk[4..8].copy_from_slice(&hash[..4]);
    chunk.into()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use automerge::{
        ExpandedChange, ScalarValue,
        legacy::{Key, ObjectId, Op, OpType, SortedVec},
    };
    use concord::worker::WorkerLimits;

    use super::*;

    /// The same change as automerge writes it.
    fn automerges(
        actor: &[u8],
        seq: u32,
        time: i64,
        deps: &[ChangeHash],
        to: ScalarValue,
    ) -> Bytes {
        let put = Op {
            action: OpType::Put(to),
            obj: ObjectId::Root,
            key: Key::Map("field".into()),
            pred: SortedVec::new(),
            insert: false,
        };
        let change = automerge::Change::from(ExpandedChange {
            operations: vec![put],
            actor_id: automerge::ActorId::from(actor),
            hash: None,
            seq: seq.into(),
            start_op: NonZeroU64::new(u64::from(seq) * 2).unwrap(),
            time,
            message: None,
            deps: deps.iter().map(|dep| automerge::ChangeHash(dep.0)).collect(),
            extra_bytes: Vec::new(),
            author: None,
        });
        Bytes::copy_from_slice(change.raw_bytes())
    }

    #[test]
    fn changes_are_those_of_automerge() {
        let deps = [ChangeHash([3; 32]), ChangeHash([2; 32]), ChangeHash([1; 32])];
        for (seq, time) in [(1, 0), (64, 63), (65, 64), (300, 1_700_000_000), (70_000, -5_000)] {
            for number in [0, 1, 63, 64, 127, 128, u64::from(u32::MAX), u64::MAX] {
                let deps = &deps[..seq as usize % 4];
                let ours = write(&[7; 16], seq, seq * 2, time, deps, number);
                assert_eq!(ours, automerges(&[7; 16], seq, time, deps, ScalarValue::Uint(number)));
            }
            for bytes in [0, 1, 7, 8, 200] {
                let data = noise(5, bytes);
                let ours = write(&[7; 9], seq, seq * 2, time, &[], Value::Data(data.clone()));
                assert_eq!(ours, automerges(&[7; 9], seq, time, &[], ScalarValue::Bytes(data)));
            }
        }
    }

    #[test]
    fn poison_passes_the_guard_under_any_name_and_no_materialiser_applies_it() {
        let library = Library::default();
        let chunks = [poison(&[7; 16]), poison(&[8; 16])];
        let [one, two] = chunks.each_ref().map(|chunk| library.read(chunk).unwrap());
        assert_ne!(one.hash, two.hash);
        for (change, chunk) in [(&one, &chunks[0]), (&two, &chunks[1])] {
            let job = WorkerJob::Check { base: vec![], incoming: vec![chunk.clone()] };
            let real = concord::worker::materialise::run(&job, &WorkerLimits::default());
            let Err(JobError::Breaks { hash, .. }) = real else { panic!("{real:?}") };
            assert_eq!(hash, change.hash);
            // That of the opaque profile names it when it is told.
            assert!(matches!(library.run(&job), Ok(JobOutput::Checked)));
            library.spoil(hash);
            let told = library.run(&job);
            assert!(matches!(told, Err(JobError::Breaks { hash: named, .. }) if named == hash));
        }
    }

    #[test]
    fn a_snapshot_holds_its_changes_and_passes_the_guard() {
        let library = Library::default();
        let first = write(&[1; 16], 1, 1, 0, &[], 7);
        let first_hash = library.read(&first).unwrap().hash;
        let second = write(&[2; 16], 1, 2, 0, &[first_hash], 8);
        let job = WorkerJob::Build {
            base: vec![second.clone(), first.clone()],
            incoming: vec![],
            explode_max: 0,
        };
        let Ok(JobOutput::Built { snapshot, index }) = library.run(&job) else { panic!() };
        guard::check_document(&snapshot, &Limits::default()).unwrap();
        assert_eq!(index.root.changes, 2);
        let inside = library.read_all([&snapshot]).unwrap();
        assert_eq!(inside.iter().map(|c| c.bytes.clone()).collect::<Vec<_>>(), [first, second]);
        let lacks = WorkerJob::Build {
            base: vec![inside[1].bytes.clone()],
            incoming: vec![],
            explode_max: 0,
        };
        assert!(matches!(library.run(&lacks), Err(JobError::Base(_))));
    }
}
