//! One peer's side of one document: what it said, what it was told, and what to tell it next.
//!
//! This is the Automerge sync protocol spoken from a change graph. It differs from automerge's
//! own speaker where that costs the history or can livelock:
//! - Heads that we name are on disk.
//! - What was sent is remembered as heads, not as a set of hashes; a connection is ordered and
//!   reliable, and what is asked for by name is always sent again.
//! - Filters cover only what lies beyond heads that both sides have.
//! - Something is said only when there is something new to say, so that two speakers whose
//!   heads differ for a while do not answer each other for ever.

use std::collections::BTreeSet;

use concord_protocol::{
    ChangeHash,
    sync::{Bloom, Have, SyncFlags, SyncMessage, SyncVersion},
};

use super::{
    graph::Graph, heads::Heads, index::Missing, orphans::Orphans, refused::Refused, silence::insist,
};

/// Changes asked for by name at once. More are asked for when these have come.
const NEED_MAX: usize = 1_024;

/// Times in one connection that a peer is told to forget what it believes it sent.
const FORGET_MAX: u8 = 8;

/// Bytes of changes sent in one message; the rest follows in further ones.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Changes taken out of a snapshot for one reader; beyond that it gets the snapshot.
const EXTRACT_MAX: usize = 10_000;

/// The state of one peer and document, fresh on every join.
#[derive(Debug, Default, Clone)]
pub(super) struct Reader {
    /// What it last said its heads are. `None`: it has said nothing yet.
    pub(super) their_heads: Option<Heads>,
    their_have: Vec<Have>,
    their_need: Vec<ChangeHash>,
    /// Heads of what it was sent.
    sent: Heads,
    /// The heads it was last told.
    named: Option<Heads>,
    /// What it was last asked for.
    asked: Vec<ChangeHash>,
    /// It said something since then that brought no changes.
    pub(super) empty_handed: bool,
    /// It understands that it is to forget what it believes it sent.
    resets: bool,
    /// How often it was told so.
    told_to_forget: u8,
    /// Where the document ended when it was told so last.
    told_at: Option<u32>,
    /// Of what it sent, something that had to wait was forgotten here: it has to send that again.
    pub(super) forgotten: bool,
    /// It is to be told in a form that it answers; see `silence`.
    pub(super) insists: bool,
    /// How often it was told so since it was last sent changes.
    pub(super) insisted: u8,
    /// What it said in this connection was forgotten: if it has the same as we it says no more.
    pub(super) is_forgotten: bool,
    /// It reads version 2.
    v2: bool,
    /// It takes no changes.
    read_only: bool,
    /// It waits to hear that what it sent is on disk.
    pub(super) awaits_ack: bool,
    /// It asked for the document and has neither got it nor been told that there is none.
    pub(super) asks: bool,
    /// A document chunk of it is being opened: do not ask for what is in it.
    pub(super) uploading: bool,
    /// Something may have to be said.
    pub(super) dirty: bool,
    /// Say it even if only our heads have changed.
    pub(super) confirm: bool,
    /// It is to begin again with us, as if it had sent nothing.
    anew: bool,
    /// The message that is due answers a lost or older state of ours.
    reset: bool,
    /// What it was refused, or named and could not bring, for the chunk that stood for it was: also
    /// when the document has left memory. Its word alone: another peer may have it.
    refused: Refused,
    /// It refused this, as it does everything of the document: it was deleted and purged there.
    /// Only heads are named to it from then on.
    pub(super) gone: Option<Box<concord_protocol::Refused>>,
    /// It was told that the document was purged here.
    pub(super) told_purged: bool,
}

/// What there is to send of changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Parcel {
    /// The snapshot comes first.
    pub(super) snapshot: bool,
    /// Changes to be taken out of the snapshot, as positions.
    pub(super) extract: Vec<u32>,
    /// Changes of the tail, as positions.
    pub(super) tail: Vec<u32>,
    /// More is left for another message.
    pub(super) more: bool,
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing.
    Nothing,
    /// Only that more of ours is on disk; no hurry.
    ConfirmLater,
    /// A sync message with these fields and these changes.
    Say { message: SyncMessage, parcel: Parcel },
}

impl Reader {
    /// Whether two readers would be told the same.
    pub(super) fn alike(&self, other: &Self) -> bool {
        self.their_heads == other.their_heads
            && self.sent == other.sent
            && self.named == other.named
            && self.asked == other.asked
            && self.empty_handed == other.empty_handed
            && self.resets == other.resets
            && self.told_to_forget == other.told_to_forget
            && self.forgotten == other.forgotten
            && self.told_at == other.told_at
            && self.their_need == other.their_need
            && self.their_have == other.their_have
            && self.v2 == other.v2
            && self.read_only == other.read_only
            && self.awaits_ack == other.awaits_ack
            && self.uploading == other.uploading
            && self.confirm == other.confirm
            && self.insists == other.insists
            && self.insisted == other.insisted
            && self.is_forgotten == other.is_forgotten
            && self.anew == other.anew
            && self.reset == other.reset
            && self.refused == other.refused
            && self.gone == other.gone
            && self.told_purged == other.told_purged
    }

    /// Whether it has been told anything in this connection.
    pub(super) fn has_been_told(&self) -> bool {
        self.named.is_some()
    }

    /// The heads that it was last told.
    pub(super) fn named(&self) -> &[ChangeHash] {
        self.named.as_deref().unwrap_or_default()
    }

    /// For `mutant!(KeepTalking)`: it is told again what it was told.
    pub(super) fn repeat(&mut self) {
        self.named = None;
        self.dirty = true;
    }

    /// What it was sent did not get there, or was refused and is to be tried again.
    pub(super) fn forget_sent(&mut self) {
        self.sent.clear();
        self.named = None;
        self.gone = None;
        self.anew = true;
        self.dirty = true;
    }

    /// Whether it reads version 2.
    pub(super) fn reads_v2(&self) -> bool {
        self.v2
    }

    /// Takes in what it said.
    pub(super) fn hears(&mut self, message: SyncMessage) {
        if let Some(flags) = message.flags {
            self.v2 = true;
            self.read_only = flags.read_only;
            self.resets = flags.supports_reset;
            if flags.reset {
                mark!(ResetHeard, if !self.sent.is_empty());
                self.sent.clear();
            }
        }
        if message.heads.is_empty() || asks_to_begin_again(&message) {
            // It has nothing; or it has something, but not what we thought both sides have (a
            // false yes of its filter), and asks to begin again.
            mark!(ResetHeard, if !self.sent.is_empty());
            self.sent.clear();
            self.asked.clear();
        }
        self.their_heads = Some(message.heads.into_iter().collect());
        self.is_forgotten = false;
        self.their_have = message.have;
        self.their_need = message.need;
        self.dirty = true;
    }

    /// It has all of these on disk (`concord.v1` ack).
    pub(super) fn has(&mut self, heads: Vec<ChangeHash>) {
        self.their_heads = Some(heads.into_iter().collect());
        self.is_forgotten = false;
        self.dirty = true;
    }

    /// What it sent for these was refused: it is not asked for them again.
    pub(super) fn refuse(&mut self, hashes: impl IntoIterator<Item = ChangeHash>) {
        hashes.into_iter().for_each(|hash| self.refused.insert(hash));
    }

    /// What was refused may be taken now: it is asked for it, and to send it again.
    pub(super) fn take_back(&mut self, hash: &ChangeHash) {
        self.refused.remove(hash);
        self.asked.clear();
        self.dirty = true;
    }

    /// Whether what it sent for this was refused.
    pub(super) fn has_failed_at(&self, hash: &ChangeHash) -> bool {
        self.refused.contains(hash)
    }

    /// Shares with the document what is the same.
    pub(super) fn share(&mut self, graph: &Graph) {
        let heads = graph.durable_heads();
        let known = self.their_heads.iter_mut().chain(&mut self.named);
        known.chain([&mut self.sent]).for_each(|known| known.share(heads));
    }

    /// Decides what to say.
    pub(super) fn plan(
        &self,
        graph: &Graph,
        orphans: &Orphans,
        refused: &Refused,
    ) -> Result<Plan, Missing> {
        let ours = graph.durable_heads();
        let heads = ours.to_vec();
        if self.gone.is_some() {
            if heads.is_empty() || self.named.as_ref() == Some(ours) {
                return Ok(Plan::Nothing);
            }
            let message = say(heads, Vec::new(), vec![graph.since_snapshot()]);
            return Ok(Plan::Say { message, parcel: Parcel::default() });
        }
        let Some(their_heads) = &self.their_heads else {
            // We speak first: say where we are, and ask for nothing before we know more. Who has
            // the same, or believes so, does not answer, until we have more. As long as nothing is
            // on disk there is nowhere to be.
            let is_unwritten = heads.is_empty() && !graph.is_empty();
            if (self.named.as_ref() == Some(ours) && !self.insists) || is_unwritten {
                return Ok(Plan::Nothing);
            }
            let have = if self.anew { Have::default() } else { graph.since_snapshot() };
            let mut message = say(heads, Vec::new(), vec![have]);
            if self.insists {
                insist(graph, &mut message)?;
            }
            return Ok(Plan::Say { message, parcel: Parcel::default() });
        };

        let is_refused = |hash: &ChangeHash| refused.contains(hash) || self.has_failed_at(hash);
        let mut common = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for head in their_heads.iter() {
            match graph.position(head)? {
                Some(position) => {
                    common.insert(position);
                }
                None if is_refused(head) => {}
                None => orphans.needed_for(*head, &mut unknown),
            }
        }
        // What it had at its last sync lies below its heads: news only where a head is unknown.
        let mut lost = false;
        for hash in self.their_have.iter().flat_map(|have| &have.last_sync) {
            match graph.position(hash)? {
                Some(position) if !unknown.is_empty() => {
                    common.insert(position);
                }
                Some(_) => {}
                None => lost = true,
            }
        }
        // Each side names what both have: without this, each would repeat all that was ever named.
        let common = graph.maximal(common)?;
        if lost && self.uploading {
            // What it takes us to have may be in what it just sent.
            return Ok(Plan::Nothing);
        }
        if lost && !self.reset {
            // It builds on what we had once: ask for everything from the start.
            mark!(ResetSaid);
            let have = vec![Have::default()];
            let message = say(heads, Vec::new(), have);
            return Ok(Plan::Say { message, parcel: Parcel::default() });
        }

        let need: Vec<ChangeHash> = if self.uploading {
            Vec::new()
        } else {
            unknown.iter().filter(|hash| !is_refused(hash)).take(NEED_MAX).copied().collect()
        };
        let parcel = self.parcel(graph, &common, !unknown.is_empty())?;
        let has_changes = parcel != Parcel::default();
        // It names what it does not give: automerge-repo believes that what was on its way when a
        // connection was lost has arrived, and does not send it again, not even when it is asked.
        // What was forgotten here is not asked for by name: that would go one by one from the last
        // to the first. Until its answer comes, more of what it sent before that may be forgotten.
        let gave_nothing = need == self.asked && self.empty_handed;
        let forgotten = self.forgotten && self.told_at != Some(graph.end());
        let forget =
            !need.is_empty() && (gave_nothing || forgotten) && self.told_to_forget < FORGET_MAX;
        let asks = !need.is_empty() && need != self.asked || forget;
        mark!(AskedByName, if asks);
        let heads_changed = self.named.as_ref() != Some(ours);
        if !has_changes && !asks && !self.insists && self.named.is_some() {
            if !heads_changed {
                return Ok(Plan::Nothing);
            }
            if !self.awaits_ack && !self.confirm {
                return Ok(Plan::ConfirmLater);
            }
        }

        let have = if forget && forgotten {
            // No filter, which would hide the same again.
            let last_sync = common.iter().map(|at| graph.hash_at(*at));
            let mut last_sync = last_sync.collect::<Result<Vec<_>, _>>()?;
            last_sync.sort_unstable();
            Have { last_sync, bloom: Bloom::default() }
        } else if their_heads.is_empty() && !parcel.more {
            // It will have everything when it has read this.
            Have { last_sync: graph.heads().to_vec(), bloom: Bloom::default() }
        } else {
            self.our_have(graph, &common, !unknown.is_empty())?
        };
        let mut message = say(heads, need, vec![have]);
        if forget {
            mark!(ToldToForget);
            self.have_it_forget(&mut message);
        } else if self.insists && !parcel.snapshot {
            // Heads beside a snapshot say what is in it: who has those does not open it.
            insist(graph, &mut message)?;
        }
        Ok(Plan::Say { message, parcel })
    }

    /// Makes a message one after which the other side sends what it sent before.
    fn have_it_forget(&self, message: &mut SyncMessage) {
        if self.resets {
            message.flags = Some(SyncFlags { reset: true, supports_reset: true, read_only: false });
        } else {
            // To have lost everything is something that all versions understand.
            message.heads.clear();
            message.have = vec![Have::default()];
        }
    }

    fn probe(&self, hash: &ChangeHash) -> bool {
        !self.their_have.is_empty() && self.their_have.iter().any(|have| have.bloom.contains(hash))
    }

    /// What we hold beyond what both sides have.
    fn our_have(
        &self,
        graph: &Graph,
        common: &BTreeSet<u32>,
        probing: bool,
    ) -> Result<Have, Missing> {
        let probing = probing && common.is_empty();
        let walk = graph.walk(common, |hash| self.probe(hash), probing)?;
        let mut last_sync = walk.frontier;
        for position in common {
            last_sync.push(graph.hash_at(*position)?);
        }
        last_sync.sort_unstable();
        let mut hashes = Vec::with_capacity(walk.ours.len());
        for position in walk.ours {
            hashes.push(graph.hash_at(position)?);
        }
        Ok(Have { last_sync, bloom: Bloom::from_hashes(hashes.iter()) })
    }

    /// What to send.
    fn parcel(
        &self,
        graph: &Graph,
        common: &BTreeSet<u32>,
        filter: bool,
    ) -> Result<Parcel, Missing> {
        if self.read_only || graph.is_empty() {
            return Ok(Parcel::default());
        }
        let mut send = BTreeSet::new();
        for hash in &self.their_need {
            if let Some(position) = graph.position(hash)?
                && graph.serves(position)
            {
                mark!(NeedServed);
                mark!(FilterHid, if self.probe(hash));
                send.insert(position);
            }
        }
        let mut theirs = common.clone();
        for hash in self.sent.iter() {
            theirs.extend(graph.position(hash)?);
        }
        if theirs.is_empty() && !filter && self.v2 && self.their_need.is_empty() {
            // It has nothing: the whole document, without a walk.
            mark!(ToldAll);
            let tail = graph.base()..graph.end();
            let mut parcel = self.pack(graph, &tail.filter(|&at| graph.serves(at)).collect());
            parcel.snapshot = graph.snapshot.is_some();
            return Ok(parcel);
        }
        // An empty `have` asks for what is named and no more.
        if !self.their_have.is_empty() || self.their_need.is_empty() {
            let probing = filter && theirs.is_empty();
            let walk = graph.walk(&theirs, |hash| self.probe(hash), probing)?;
            let filtering = filter && !probing;
            for position in walk.ours {
                // What its filter does not hold, and what builds on that.
                let wanted = !filtering
                    || !self.probe(&graph.hash_at(position)?)
                    || graph.deps_at(position)?.iter().any(|dep| send.contains(dep));
                if wanted {
                    send.insert(position);
                }
            }
        }
        Ok(self.pack(graph, &send))
    }

    /// Splits what is to be sent into what is in the snapshot and what is not.
    fn pack(&self, graph: &Graph, send: &BTreeSet<u32>) -> Parcel {
        let base = graph.base();
        let mut parcel = Parcel::default();
        let below: Vec<u32> = send.range(..base).copied().collect();
        if let (false, Some(snapshot)) = (below.is_empty(), &graph.snapshot) {
            let root = &snapshot.index.root;
            let average = root.change_bytes / u64::from(root.changes.max(1));
            let estimate = average * below.len() as u64;
            let extract = below.len() <= EXTRACT_MAX && estimate < root.snapshot_bytes;
            if extract || !self.v2 {
                parcel.more = below.len() > EXTRACT_MAX;
                parcel.extract = below.into_iter().take(EXTRACT_MAX).collect();
                if parcel.more {
                    return parcel;
                }
            } else {
                parcel.snapshot = true;
            }
        }
        let mut bytes = 0;
        for position in send.range(base..) {
            let size = graph.node(*position).map_or(0, |node| node.bytes.len());
            if bytes > 0 && bytes + size > BATCH_BYTES {
                parcel.more = true;
                break;
            }
            bytes += size;
            parcel.tail.push(*position);
        }
        parcel
    }

    /// Takes note that this was said.
    pub(super) fn said(
        &mut self,
        graph: &Graph,
        message: &SyncMessage,
        parcel: &Parcel,
    ) -> Result<(), Missing> {
        self.insisted = self.insisted.saturating_add(u8::from(self.insists));
        self.insists = false;
        self.anew = false;
        if *parcel != Parcel::default() {
            self.sent = self.sent_with(graph, parcel)?;
            self.insisted = 0;
        }
        self.reset = message.have.first().is_some_and(|have| have.last_sync.is_empty())
            && self.their_have.iter().any(|have| !have.last_sync.is_empty());
        let lost_all = message.heads.is_empty() && !graph.durable_heads().is_empty();
        if lost_all || message.flags.is_some_and(|flags| flags.reset) {
            self.told_to_forget = self.told_to_forget.saturating_add(1);
            self.told_at = Some(graph.end());
            self.forgotten = false;
        }
        self.empty_handed = false;
        self.their_need.clear();
        self.named = Some(message.heads.iter().copied().collect());
        self.asked.clone_from(&message.need);
        let not_on_disk = |hash| graph.node_by_hash(hash).is_some_and(|node| !node.durable);
        let mut their_heads = self.their_heads.iter().flat_map(|heads| heads.iter());
        self.awaits_ack &= their_heads.any(not_on_disk);
        self.confirm = false;
        self.asks = self.asks && parcel == &Parcel::default();
        Ok(())
    }

    /// Heads of what it was sent, and of what it is sent now.
    fn sent_with(&self, graph: &Graph, parcel: &Parcel) -> Result<Heads, Missing> {
        let mut sent: BTreeSet<ChangeHash> = self.sent.iter().copied().collect();
        if parcel.snapshot
            && let Some(snapshot) = &graph.snapshot
        {
            sent.extend(snapshot.index.root.heads.iter().map(|hash| ChangeHash(*hash)));
        }
        for &position in parcel.extract.iter().chain(&parcel.tail) {
            if let Some(node) = graph.node(position) {
                for dep in &node.dep_hashes {
                    sent.remove(dep);
                }
            } else {
                for &dep in graph.deps_at(position)? {
                    sent.remove(&graph.hash_at(dep)?);
                }
            }
            sent.insert(graph.hash_at(position)?);
        }
        Ok(sent.into_iter().collect())
    }
}

/// Whether a message asks for everything from the start: its sender has nothing, or cannot say
/// what it has that the other side knows of.
pub(super) fn asks_to_begin_again(message: &SyncMessage) -> bool {
    message.have.iter().any(|have| have.last_sync.is_empty() && have.bloom.is_empty())
}

/// A sync message without changes.
fn say(heads: Vec<ChangeHash>, need: Vec<ChangeHash>, have: Vec<Have>) -> SyncMessage {
    SyncMessage {
        version: SyncVersion::V1,
        heads,
        need,
        have,
        changes: Vec::new(),
        flags: Some(SyncFlags { supports_reset: true, ..SyncFlags::default() }),
    }
}
