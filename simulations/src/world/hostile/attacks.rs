//! What strangers do to relays.

use bytes::Bytes;
use concord::replica::Event;
use concord_protocol::{
    ChangeHash, Message, PeerId, SessionId, codec,
    sync::{Have, SyncFlags, SyncMessage, SyncVersion},
};

use super::{super::World, Poison};
use crate::{
    opaque::{junk, poison, write},
    plan::{Attack, Profile, Wrapping},
    random::{Rng, fate},
};

/// A counter that no user's operation comes to.
const OP_ABOVE_ALL: u32 = 1 << 24;

impl World<'_> {
    #[expect(clippy::too_many_lines, reason = "a list of attacks, each a few lines")]
    pub(in crate::world) fn attack(
        &mut self,
        relay: u8,
        document: u8,
        attack: Attack,
        choice: u64,
    ) {
        let what = match attack {
            Attack::Garbage => "garbage",
            Attack::LyingHeads => "lying heads",
            Attack::Replay => "replay",
            Attack::Orphans => "orphans",
            Attack::Equivocation => "equivocation",
            Attack::Flood => "flood",
            Attack::Mutant => "mutated frame",
            Attack::Echo => "echo",
            Attack::OrphanFlood => "orphan flood",
            Attack::Upload => "hostile upload",
            Attack::Behind => "old reader",
            Attack::DeafLiar => "deaf liar",
            Attack::Poison => "change that breaks the document",
            Attack::OnPoison => "change on one that breaks the document",
        };
        let Some((id, connection)) = self.strike(relay, what) else { return };
        let mut rng = Rng::new(fate(self.plan.seed, 0xBAD, choice));
        let number = document;
        let document = self.documents[usize::from(document)].clone();
        match attack {
            Attack::Garbage => {
                let len = rng.between(1, 400);
                let bytes: Vec<u8> =
                    (0..len).map(|_| u8::try_from(rng.below(256)).unwrap_or(0)).collect();
                self.say_raw(id, connection, &bytes.into());
            }
            Attack::LyingHeads => {
                let heads = hashes(&mut rng, 3);
                let need = hashes(&mut rng, 2);
                let have = vec![Have { last_sync: hashes(&mut rng, 2), ..Have::default() }];
                let message = message(heads, need, have, Vec::new());
                self.say(id, connection, document, &message);
            }
            Attack::Replay => {
                let count = rng.between(1, 8);
                for _ in 0..count {
                    let remembered = &self.strangers.remembered;
                    let at = usize::try_from(rng.below(remembered.len() as u64)).unwrap_or(0);
                    let Some(message) = remembered.get(at).cloned() else { return };
                    self.tell(id, Event::Received(connection, message));
                }
            }
            Attack::Orphans => {
                let mut changes = Vec::new();
                let mut deps = hashes(&mut rng, 1);
                for seq in 1..=u32::try_from(rng.between(1, 40)).unwrap_or(1) {
                    let chunk = write(&actor(&mut rng), 1, seq + 5, 0, &deps, rng.next());
                    if let Ok(change) = self.library.read(&chunk) {
                        deps = vec![change.hash];
                    }
                    changes.push(chunk);
                }
                let message = message(deps, Vec::new(), Vec::new(), changes);
                self.say(id, connection, document, &message);
            }
            Attack::OrphanFlood => {
                // All wait for one that never comes, and who sends them may not read the answers.
                if choice.is_multiple_of(2) {
                    self.strangers.deaf.insert(connection);
                }
                let deps = hashes(&mut rng, 1);
                let count = rng.between(150, 400);
                let changes: Vec<Bytes> =
                    (0..count).map(|n| write(&actor(&mut rng), 1, 5, 0, &deps, n)).collect();
                for some in changes.chunks(50) {
                    let message = message(deps.clone(), Vec::new(), Vec::new(), some.to_vec());
                    self.say(id, connection, document.clone(), &message);
                }
            }
            Attack::Echo => {
                let Ok(session) = format!("echo-{choice:x}").parse::<SessionId>() else { return };
                let (Ok(sender), Ok(target)) = ("stranger".parse(), "relay".parse()) else {
                    return;
                };
                for count in [1_u64, 2, 2, 1, 7, 3] {
                    let message = Message::Ephemeral {
                        document: document.clone(),
                        sender: PeerId::clone(&sender),
                        target: PeerId::clone(&target),
                        count,
                        session: session.clone(),
                        data: [session.as_str().as_bytes(), &count.to_be_bytes()].concat().into(),
                    };
                    self.tell(id, Event::Received(connection, message));
                }
            }
            Attack::Behind => {
                let all: Vec<ChangeHash> = self.ledger.written_in(number).collect();
                let early = all.len() as u64 / 2;
                let at = usize::try_from(rng.below(early.max(1))).unwrap_or(0);
                let heads: Vec<ChangeHash> = all.get(at).copied().into_iter().collect();
                let have = vec![Have { last_sync: heads.clone(), ..Have::default() }];
                let message = SyncMessage {
                    version: SyncVersion::V1,
                    heads,
                    need: Vec::new(),
                    have,
                    changes: Vec::new(),
                    flags: None,
                };
                self.say(id, connection, document, &message);
            }
            Attack::DeafLiar => {
                self.strangers.deaf.insert(connection);
                let actor = actor(&mut rng);
                for value in 0..rng.between(300, 900) {
                    let chunk = write(&actor, 1, 1, 0, &[], value);
                    let heads = self.library.read(&chunk).map(|change| vec![change.hash]);
                    let message =
                        message(heads.unwrap_or_default(), Vec::new(), Vec::new(), vec![chunk]);
                    self.say(id, connection, document.clone(), &message);
                }
            }
            Attack::Poison => {
                let actor = actor(&mut rng);
                let chunk = match self.plan.profile {
                    Profile::Automerge => poison(&actor),
                    Profile::Opaque => {
                        // On top of nothing, or of what the relay may have or not.
                        let all: Vec<ChangeHash> = self.ledger.written_in(number).collect();
                        let at = usize::try_from(rng.below(2 * all.len() as u64)).unwrap_or(0);
                        let deps: Vec<ChangeHash> = all.get(at).copied().into_iter().collect();
                        write(&actor, 1, OP_ABOVE_ALL, 0, &deps, rng.next())
                    }
                };
                let Ok(change) = self.library.read(&chunk) else { return };
                let poison = Poison { hash: change.hash, on_top: Vec::new() };
                self.library.spoil(poison.hash);
                self.strangers.poisons.entry((id, number)).or_default().push(poison);
                let message = message(vec![change.hash], Vec::new(), Vec::new(), vec![chunk]);
                self.say(id, connection, document, &message);
            }
            Attack::OnPoison => {
                let poisons = self.strangers.poisons.get_mut(&(id, number));
                let Some(poison) = poisons.and_then(|poisons| poisons.last_mut()) else { return };
                let chunk =
                    write(&actor(&mut rng), 1, 2 * OP_ABOVE_ALL, 0, &[poison.hash], rng.next());
                let Ok(change) = self.library.read(&chunk) else { return };
                poison.on_top.push(change.hash);
                let message = message(vec![change.hash], Vec::new(), Vec::new(), vec![chunk]);
                self.say(id, connection, document, &message);
            }
            Attack::Upload => {
                // It may name what somebody else is about to bring.
                let newest = self.ledger.written_in(number).last();
                let newest = newest.filter(|_| choice.is_multiple_of(2));
                let heads = newest.map_or_else(|| hashes(&mut rng, 1), |newest| vec![newest]);
                let message = message(heads, Vec::new(), Vec::new(), vec![junk(rng.next())]);
                self.say(id, connection, document, &message);
            }
            Attack::Equivocation => {
                // Under a name of its own: without accounts nobody owns one.
                let actor = actor(&mut rng);
                let [first, second] = [0, 1].map(|value| write(&actor, 1, 1, 0, &[], value));
                let Ok(refused) = self.library.read(&second).map(|change| change.hash) else {
                    return;
                };
                let another = |seq: u32| write(&actor, seq, seq, 0, &[refused], 0);
                // The second is refused, with what waits for it and what comes after it.
                for chunk in [first, another(2), second, another(3)] {
                    let heads = self.library.read(&chunk).map(|change| vec![change.hash]);
                    let message =
                        message(heads.unwrap_or_default(), Vec::new(), Vec::new(), vec![chunk]);
                    self.say(id, connection, document.clone(), &message);
                }
            }
            Attack::Flood => {
                for _ in 0..rng.between(20, 300) {
                    let heads = hashes(&mut rng, 1);
                    let message = message(heads.clone(), heads, Vec::new(), Vec::new());
                    self.say(id, connection, document.clone(), &message);
                }
            }
            Attack::Mutant => {
                let remembered = &self.strangers.remembered;
                let at = usize::try_from(rng.below(remembered.len() as u64)).unwrap_or(0);
                let Some(message) = remembered.get(at) else { return };
                let mut bytes = codec::encode(message).to_vec();
                for _ in 0..rng.between(1, 6) {
                    let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap_or(0);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << rng.below(8);
                    }
                }
                self.say_raw(id, connection, &bytes.into());
            }
        }
    }

    /// A stranger sends bytes that somebody chose.
    pub(in crate::world) fn inject(
        &mut self,
        relay: u8,
        document: u8,
        wrapping: Wrapping,
        bytes: &Bytes,
    ) {
        let Some((id, connection)) = self.strike(relay, "hostile bytes") else { return };
        let document = self.documents[usize::from(document)].clone();
        match wrapping {
            Wrapping::Frame => self.say_raw(id, connection, bytes),
            Wrapping::Sync => {
                let (Ok(sender), Ok(target)) = ("stranger".parse(), "relay".parse()) else {
                    return;
                };
                let message = Message::Sync { document, sender, target, data: bytes.clone() };
                self.say_raw(id, connection, &codec::encode(&message));
            }
            Wrapping::Chunk => {
                let message = message(Vec::new(), Vec::new(), Vec::new(), vec![bytes.clone()]);
                self.say(id, connection, document, &message);
            }
        }
    }
}

fn hashes(rng: &mut Rng, count: usize) -> Vec<ChangeHash> {
    let mut hashes: Vec<ChangeHash> = (0..count)
        .map(|_| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&rng.next().to_le_bytes());
            hash[8..16].copy_from_slice(&rng.next().to_le_bytes());
            ChangeHash(hash)
        })
        .collect();
    hashes.sort_unstable();
    hashes
}

fn actor(rng: &mut Rng) -> [u8; 16] {
    let mut actor = [0; 16];
    actor[..8].copy_from_slice(&rng.next().to_le_bytes());
    actor
}

fn message(
    heads: Vec<ChangeHash>,
    need: Vec<ChangeHash>,
    have: Vec<Have>,
    changes: Vec<Bytes>,
) -> SyncMessage {
    let flags = Some(SyncFlags { supports_reset: true, ..SyncFlags::default() });
    SyncMessage { version: SyncVersion::V1, heads, need, have, changes, flags }
}
