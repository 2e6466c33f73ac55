//! The change graph of one active document: every change since the last snapshot in memory, the
//! snapshot's index beside it, and no operations.
//!
//! Changes are numbered in a topological order: the snapshot's come first, as its index has
//! them, then the tail's in order of arrival. Walks go from the heads down and stop where the
//! other side's knowledge begins, so they cost the gap and not the history.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use concord_protocol::{
    ActorId, ChangeHash,
    guard::ChangeHeader,
    sync::{Bloom, Have},
};

use super::{
    ConnectionId,
    heads::Heads,
    index::{IndexRoot, Missing, PagedIndex, SnapshotIndex},
    writers::Writers,
};

/// A snapshot in storage.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) id: [u8; 32],
    pub(super) index: PagedIndex,
}

/// A change since the snapshot.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) hash: ChangeHash,
    pub(super) dep_hashes: Box<[ChangeHash]>,
    /// The positions of `dep_hashes`.
    deps: Box<[u32]>,
    pub(super) actor: u32,
    pub(super) seq: u32,
    pub(super) max_op: u32,
    /// Objects made by it, as counters.
    objects: Box<[u32]>,
    pub(super) bytes: Bytes,
    pub(super) durable: bool,
    /// A materialiser has applied it.
    pub(super) checked: bool,
    /// It broke the document, or builds on one that did: kept, but not served.
    pub(super) withheld: bool,
    /// Who brought it, while that connection lasts.
    pub(super) from: Option<ConnectionId>,
}

/// Our changes that the other side lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// Their positions, ascending.
    pub(super) ours: Vec<u32>,
    /// Where the walk stopped because `probe` said that the other side has it.
    pub(super) frontier: Vec<ChangeHash>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) snapshot: Option<Snapshot>,
    tail: Vec<Node>,
    by_hash: BTreeMap<ChangeHash, u32>,
    writers: Writers,
    /// Objects made since the snapshot; those before are in its root.
    objects: BTreeSet<(u32, u32)>,
    heads: Heads,
    durable_heads: Heads,
    tail_bytes: usize,
    /// Changes of the tail that are served and that no materialiser has applied yet.
    unchecked: usize,
    /// Changes of the tail that are withheld, and their bytes.
    withheld: (usize, usize),
}

impl Graph {
    /// A graph of what a snapshot holds.
    pub(super) fn with_snapshot(id: [u8; 32], mut root: IndexRoot) -> Self {
        let mut this = Self::default();
        this.adopt_root(&root);
        // They are in `writers` now.
        root.actors = Vec::new();
        this.snapshot = Some(Snapshot { id, index: PagedIndex::new(root) });
        this
    }

    fn adopt_root(&mut self, root: &IndexRoot) {
        self.writers = Writers::default();
        for actor in &root.actors {
            self.writers.wrote(&ActorId::from(actor.actor.as_slice()), actor.seq);
        }
        self.heads = root.heads.iter().map(|hash| ChangeHash(*hash)).collect();
        self.durable_heads = self.heads.clone();
    }

    /// Whether there is nothing that anybody is given: no change, or only withheld ones.
    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Changes in the snapshot, which is the position of the first of the tail.
    pub(super) fn base(&self) -> u32 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index.root.changes)
    }

    /// The position after the last change.
    pub(super) fn end(&self) -> u32 {
        self.base() + u32::try_from(self.tail.len()).unwrap_or(u32::MAX)
    }

    /// Whether a change may be given out.
    pub(super) fn serves(&self, position: u32) -> bool {
        self.node(position).is_none_or(|node| !node.withheld)
    }

    /// What is held, told from the snapshot's heads on: cheap, whatever the history.
    pub(super) fn since_snapshot(&self) -> Have {
        let last_sync = self.snapshot.iter().flat_map(|s| &s.index.root.heads);
        let served = self.tail.iter().filter(|node| !node.withheld);
        let hashes: Vec<ChangeHash> = served.map(|node| node.hash).collect();
        Have {
            last_sync: last_sync.map(|hash| ChangeHash(*hash)).collect(),
            bloom: Bloom::from_hashes(hashes.iter()),
        }
    }

    /// Changes since the snapshot, in causal order.
    pub(super) fn tail(&self) -> &[Node] {
        &self.tail
    }

    /// Whether a change of the tail that is served was applied by no materialiser yet.
    pub(super) fn has_unchecked(&self) -> bool {
        self.unchecked > 0
    }

    fn count_unchecked(&mut self) {
        self.unchecked = self.tail.iter().filter(|node| !node.withheld && !node.checked).count();
    }

    /// Changes of the tail that a snapshot could take in, and their bytes.
    pub(super) fn served_tail(&self) -> (usize, usize) {
        let (changes, bytes) = self.withheld;
        (self.tail.len() - changes, self.tail_bytes - bytes)
    }

    /// Bytes of the tail's chunks.
    pub(super) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Heads of all that is served, on disk or not, sorted.
    pub(super) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Heads of what is on disk and served, sorted: the only heads ever named to anybody.
    pub(super) fn durable_heads(&self) -> &Heads {
        if mutant!(NameBeforeFlush) {
            return &self.heads;
        }
        &self.durable_heads
    }

    /// Where a change is.
    pub(super) fn position(&self, hash: &ChangeHash) -> Result<Option<u32>, Missing> {
        if let Some(position) = self.by_hash.get(hash) {
            return Ok(Some(*position));
        }
        self.snapshot.as_ref().map_or(Ok(None), |snapshot| snapshot.index.position(hash))
    }

    /// A change of the tail.
    pub(super) fn node(&self, position: u32) -> Option<&Node> {
        self.tail.get(position.checked_sub(self.base())? as usize)
    }

    pub(super) fn node_by_hash(&self, hash: &ChangeHash) -> Option<&Node> {
        self.node(*self.by_hash.get(hash)?)
    }

    fn node_mut(&mut self, hash: &ChangeHash) -> Option<&mut Node> {
        let at = self.by_hash.get(hash)?.checked_sub(self.base())?;
        self.tail.get_mut(at as usize)
    }

    /// The hash of a change.
    pub(super) fn hash_at(&self, position: u32) -> Result<ChangeHash, Missing> {
        match (self.node(position), &self.snapshot) {
            (Some(node), _) => Ok(node.hash),
            (None, Some(snapshot)) => snapshot.index.hash_at(position),
            (None, None) => Err(Missing::default()),
        }
    }

    pub(super) fn deps_at(&self, position: u32) -> Result<&[u32], Missing> {
        match (self.node(position), &self.snapshot) {
            (Some(node), _) => Ok(&node.deps),
            (None, Some(snapshot)) => Ok(snapshot.index.entry(position)?.deps),
            (None, None) => Ok(&[]),
        }
    }

    /// The counter of a change's last operation, or more where that costs no page.
    pub(super) fn max_op_bound(&self, position: u32, below: u32) -> Result<u32, Missing> {
        match (self.node(position), &self.snapshot) {
            (Some(node), _) => Ok(node.max_op),
            (None, Some(snapshot)) if snapshot.index.root.max_op < below => {
                Ok(snapshot.index.root.max_op)
            }
            (None, Some(snapshot)) => Ok(snapshot.index.entry(position)?.max_op),
            (None, None) => Ok(0),
        }
    }

    /// A writer's position and last sequence number.
    pub(super) fn actor(&self, actor: &ActorId) -> Option<(u32, u32)> {
        self.writers.find(actor)
    }

    /// Whether an object exists.
    pub(super) fn has_object(&self, object: (u32, u32)) -> bool {
        self.objects.contains(&object)
            || self
                .snapshot
                .as_ref()
                .is_some_and(|s| s.index.root.objects.binary_search(&object).is_ok())
    }

    /// Adds a change whose dependencies are at these positions. The caller has checked it.
    pub(super) fn insert(
        &mut self,
        header: ChangeHeader,
        deps: Vec<u32>,
        bytes: Bytes,
        durable: bool,
        from: Option<ConnectionId>,
    ) {
        let actor = self.writers.wrote(&header.actor, header.seq);
        self.objects.extend(header.objects_made.iter().map(|&counter| (counter, actor)));
        let withheld = deps.iter().any(|&dep| self.node(dep).is_some_and(|node| node.withheld));
        let node = Node {
            max_op: header.max_op(),
            hash: header.hash,
            dep_hashes: header.deps.into(),
            deps: deps.into(),
            actor,
            seq: header.seq,
            objects: header.objects_made.into(),
            bytes,
            durable: false,
            checked: false,
            withheld,
            from,
        };
        if withheld {
            self.withheld.0 += 1;
            self.withheld.1 += node.bytes.len();
        } else {
            advance(&mut self.heads, &node);
            self.unchecked += 1;
        }
        let position = self.base() + u32::try_from(self.tail.len()).unwrap_or(u32::MAX);
        self.by_hash.insert(node.hash, position);
        self.tail_bytes += node.bytes.len();
        let hash = node.hash;
        self.tail.push(node);
        if durable {
            self.mark_durable(&hash);
        }
    }

    /// Takes note that a change is on disk. Changes must be marked in causal order.
    pub(super) fn mark_durable(&mut self, hash: &ChangeHash) {
        let base = self.base();
        let at = self.by_hash.get(hash).and_then(|position| position.checked_sub(base));
        let Some(node) = at.and_then(|at| self.tail.get_mut(at as usize)) else {
            return;
        };
        node.durable = true;
        if !node.withheld {
            advance(&mut self.durable_heads, node);
        }
    }

    /// Takes note that a materialiser has applied these.
    pub(super) fn mark_checked(&mut self, hashes: &[ChangeHash]) {
        for hash in hashes {
            if let Some(node) = self.node_mut(hash) {
                node.checked = true;
            }
        }
        self.count_unchecked();
    }

    /// Withholds a change of the tail and all that builds on it; gives their hashes.
    pub(super) fn withhold(&mut self, hash: &ChangeHash) -> Vec<ChangeHash> {
        let Some(&first) = self.by_hash.get(hash) else {
            return Vec::new();
        };
        let base = self.base();
        let mut withheld = BTreeSet::from([first]);
        for (position, node) in (base..).zip(&mut self.tail) {
            if withheld.contains(&position) || node.deps.iter().any(|dep| withheld.contains(dep)) {
                withheld.insert(position);
                node.withheld = true;
            }
        }
        if mutant!(ServeWithheld) {
            self.tail.iter_mut().for_each(|node| node.withheld = false);
        }
        self.recompute_heads();
        withheld.iter().filter_map(|position| self.node(*position)).map(|node| node.hash).collect()
    }

    /// Who sent which of the changes that no materialiser has applied.
    pub(super) fn unchecked_senders(&self) -> BTreeMap<ChangeHash, ConnectionId> {
        let unchecked = self.tail.iter().filter(|node| !node.withheld && !node.checked);
        unchecked.filter_map(|node| Some((node.hash, node.from?))).collect()
    }

    fn recompute_heads(&mut self) {
        let base: Heads = self
            .snapshot
            .iter()
            .flat_map(|snapshot| snapshot.index.root.heads.iter().map(|hash| ChangeHash(*hash)))
            .collect();
        let (mut heads, mut durable_heads) = (base.clone(), base);
        for node in self.tail.iter().filter(|node| !node.withheld) {
            advance(&mut heads, node);
            if node.durable {
                advance(&mut durable_heads, node);
            }
        }
        self.heads = heads;
        self.durable_heads = durable_heads;
        let withheld = self.tail.iter().filter(|node| node.withheld);
        self.withheld = withheld.fold((0, 0), |(n, bytes), node| (n + 1, bytes + node.bytes.len()));
        self.count_unchecked();
    }

    /// Those of some positions that are no ancestors of others of them. Costs the distance
    /// between the first and the last.
    pub(super) fn maximal(&self, positions: BTreeSet<u32>) -> Result<BTreeSet<u32>, Missing> {
        let Some(&first) = positions.first().filter(|_| positions.len() > 1) else {
            return Ok(positions);
        };
        let mut maximal = positions.clone();
        let mut left = positions.len();
        let mut queue: BTreeMap<u32, bool> = positions.iter().map(|at| (*at, false)).collect();
        while left > 0 {
            let Some((position, below)) = queue.pop_last() else {
                break;
            };
            if positions.contains(&position) {
                left -= 1;
                if below {
                    maximal.remove(&position);
                }
            }
            for &dep in self.deps_at(position)? {
                if dep >= first {
                    queue.insert(dep, true);
                }
            }
        }
        Ok(maximal)
    }

    /// What we serve that is no ancestor of `theirs`, from the heads down.
    ///
    /// `probe` says whether the other side seems to have a change that is no known ancestor of
    /// `theirs`. It is believed where it says so of a change and of all that change's
    /// dependencies, which makes a false yes of a Bloom filter rare.
    pub(super) fn walk(
        &self,
        theirs: &BTreeSet<u32>,
        mut probe: impl FnMut(&ChangeHash) -> bool,
        probing: bool,
    ) -> Result<Walk, Missing> {
        // Position -> whether the other side has it. Popped from the top, and everything that
        // could change an entry lies above it, so an entry is final when it is popped.
        let mut queue: BTreeMap<u32, bool> =
            theirs.iter().map(|&position| (position, true)).collect();
        let mut open = 0_usize;
        for head in self.heads.iter() {
            if let Some(position) = self.position(head)? {
                queue.entry(position).or_insert_with(|| {
                    open += 1;
                    false
                });
            }
        }
        let mut walk = Walk { ours: Vec::new(), frontier: Vec::new() };
        while open > 0 {
            let Some((position, had)) = queue.pop_last() else {
                break;
            };
            let mut had = had;
            let deps = self.deps_at(position)?;
            if !had {
                open -= 1;
                if probing {
                    let hash = self.hash_at(position)?;
                    if probe(&hash) {
                        let mut all = true;
                        for &dep in deps {
                            all = all && probe(&self.hash_at(dep)?);
                        }
                        if all {
                            had = true;
                            mark!(FilterStopped);
                            walk.frontier.push(hash);
                        }
                    }
                }
                if !had {
                    walk.ours.push(position);
                }
            }
            for &dep in deps {
                match queue.get_mut(&dep) {
                    None => {
                        queue.insert(dep, had);
                        open += usize::from(!had);
                    }
                    Some(known) if had && !*known => {
                        *known = true;
                        open -= 1;
                    }
                    Some(_) => {}
                }
            }
        }
        walk.ours.reverse();
        walk.frontier.sort_unstable();
        Ok(walk)
    }

    /// Puts a new snapshot in place of the old one and of the tail's changes that it holds,
    /// which are given back.
    pub(super) fn adopt_snapshot(
        &mut self,
        id: [u8; 32],
        index: &SnapshotIndex,
    ) -> Result<Vec<ChangeHash>, super::index::IndexError> {
        let whole = PagedIndex::whole(index)?;
        let held = |hash: &ChangeHash| {
            matches!(whole.position(hash), Ok(Some(_))) || mutant!(CompactionDropsTail)
        };
        let (covered, kept): (Vec<Node>, Vec<Node>) =
            std::mem::take(&mut self.tail).into_iter().partition(|node| held(&node.hash));

        // Positions in the new order for what stays; what it depends on is in one of the two.
        let base = whole.root.changes;
        let mut by_hash = BTreeMap::new();
        let old_writers = std::mem::take(&mut self.writers);
        self.adopt_root(&whole.root);
        self.objects.clear();
        self.tail_bytes = 0;
        let mut tail = Vec::with_capacity(kept.len());
        for (position, mut node) in (base..).zip(kept) {
            node.deps = node
                .dep_hashes
                .iter()
                .filter_map(|dep| {
                    by_hash.get(dep).copied().or_else(|| whole.position(dep).ok().flatten())
                })
                .collect();
            if let Some(actor) = old_writers.id(node.actor) {
                node.actor = self.writers.wrote(actor, node.seq);
            }
            self.objects.extend(node.objects.iter().map(|&counter| (counter, node.actor)));
            self.tail_bytes += node.bytes.len();
            by_hash.insert(node.hash, position);
            tail.push(node);
        }
        self.tail = tail;
        self.by_hash = by_hash;
        let mut root = whole.root;
        // They are in `writers` now.
        root.actors = Vec::new();
        self.snapshot = Some(Snapshot { id, index: PagedIndex::new(root) });
        self.recompute_heads();
        Ok(covered.into_iter().map(|node| node.hash).collect())
    }
}

/// Moves heads forward over one more change.
fn advance(heads: &mut Heads, node: &Node) {
    heads.advance(&node.dep_hashes, node.hash);
}
