//! The rules of presence, without I/O: what is said when, who is here, and who is not any more.

use std::collections::BTreeMap;

use concord_protocol::{DocumentId, PeerId};
use serde_json::{Map, Value};

use super::{GONE_MS, HEARTBEAT_MS, PRESENT_MAX, Present, SHOWN_BYTES_MAX, Said};

/// Milliseconds after which somebody is gone who does not say how often they say that they are here:
/// what automerge-repo waits by default, three times its heartbeat.
const GONE_UNTOLD_MS: u64 = 45_000;
/// The longest that anybody is waited for, in milliseconds, whatever they say.
const GONE_MAX_MS: u64 = 120_000;
/// Milliseconds between two updates of what we show.
const PACE_MS: u64 = 50;
/// Milliseconds between two answers to those who come.
const WELCOME_MS: u64 = 500;
/// Parts that one session may show.
const CHANNELS_MAX: usize = 32;

/// Something to be said in a document.
pub(super) type Saying = (DocumentId, Said);

/// Who is in which documents, of those in which we are or look.
#[derive(Debug, Default)]
pub(in crate::peer) struct Roster {
    places: BTreeMap<DocumentId, Place>,
    said: Vec<Saying>,
    changed: Vec<DocumentId>,
}

#[derive(Debug, Default)]
struct Place {
    /// What we show, if we are here.
    ours: Option<Map<String, Value>>,
    /// What others were told last that we show.
    told: Map<String, Value>,
    /// Somebody here looks who is in it.
    is_looked_at: bool,
    others: BTreeMap<PeerId, Other>,
    /// When we say next that we are here, in `mono_ms`.
    heartbeat_ms: Option<u64>,
    /// When what we show now is told.
    update_ms: Option<u64>,
    /// When those who have come are told of all that we show.
    welcome_ms: Option<u64>,
    updated_ms: u64,
    welcomed_ms: Option<u64>,
}

#[derive(Debug)]
struct Other {
    shown: Map<String, Value>,
    seen_ms: u64,
    gone_after_ms: u64,
}

/// Bytes of what somebody shows, as JSON.
pub(super) fn size(shown: &Map<String, Value>) -> usize {
    shown.iter().map(|(name, value)| name.len() + value.to_string().len() + 4).sum()
}

impl Roster {
    /// Somebody here wants to know who is in a document: those who are there are asked.
    pub(in crate::peer) fn look(&mut self, document: &DocumentId) {
        let place = self.places.entry(document.clone()).or_default();
        if !place.is_looked_at && place.ours.is_none() {
            // Whoever hears of somebody new says what they show.
            self.said.push((document.clone(), Said::Heartbeat(None)));
        }
        place.is_looked_at = true;
    }

    /// We are here, and show this.
    pub(in crate::peer) fn show(
        &mut self,
        now_ms: u64,
        document: &DocumentId,
        shown: Map<String, Value>,
    ) {
        let place = self.places.entry(document.clone()).or_default();
        if place.ours.replace(shown).is_none() {
            place.welcome_ms = Some(now_ms);
        } else if place.update_ms.is_none() {
            place.update_ms = Some(now_ms.max(place.updated_ms.saturating_add(PACE_MS)));
        }
        self.time(now_ms);
    }

    /// We are not here any more.
    pub(in crate::peer) fn hide(&mut self, document: &DocumentId) {
        let Some(place) = self.places.get_mut(document) else { return };
        if place.ours.take().is_some() {
            self.said.push((document.clone(), Said::Goodbye));
        }
        (place.heartbeat_ms, place.update_ms, place.welcome_ms) = (None, None, None);
        place.told.clear();
    }

    /// Nobody here has the document open any more.
    pub(in crate::peer) fn shut(&mut self, document: &DocumentId) {
        self.hide(document);
        self.places.remove(document);
    }

    /// We are nowhere any more.
    pub(in crate::peer) fn close(&mut self) {
        let documents: Vec<DocumentId> = self.places.keys().cloned().collect();
        for document in documents {
            self.shut(&document);
        }
    }

    /// A relay is there: others hear of us, and we of them.
    pub(in crate::peer) fn connected(&mut self, now_ms: u64) {
        for (document, place) in &mut self.places {
            if place.ours.is_some() {
                place.welcome_ms = Some(now_ms);
            } else {
                self.said.push((document.clone(), Said::Heartbeat(None)));
            }
        }
        self.time(now_ms);
    }

    /// Somebody said something in a document.
    pub(in crate::peer) fn heard(
        &mut self,
        now_ms: u64,
        document: &DocumentId,
        from: &PeerId,
        said: Said,
    ) {
        let Some(place) = self.places.get_mut(document) else { return };
        let is_known = place.others.contains_key(from);
        if !is_known && said != Said::Goodbye && place.ours.is_some() {
            let earliest = place.welcomed_ms.map_or(0, |at_ms| at_ms.saturating_add(WELCOME_MS));
            place.welcome_ms.get_or_insert(now_ms.max(earliest));
        }
        let before = place.others.get(from).map(|other| other.shown.clone());
        match said {
            Said::Goodbye => _ = place.others.remove(from),
            // Of those who were not heard of before nothing is known: they say more, now that they
            // have heard of us.
            Said::Heartbeat(every) => {
                if let Some(other) = place.others.get_mut(from) {
                    other.seen(now_ms, every);
                }
            }
            Said::Update(channel, value) => {
                if let Some(other) = place.other(now_ms, from) {
                    other.show(channel, value);
                    other.seen(now_ms, None);
                }
            }
            Said::Snapshot(state, every) => {
                if let Some(other) = place.other(now_ms, from) {
                    for (channel, value) in state {
                        other.show(channel, value);
                    }
                    other.seen(now_ms, every);
                }
            }
        }
        if place.others.get(from).map(|other| &other.shown) != before.as_ref() {
            self.changed.push(document.clone());
        }
        self.time(now_ms);
    }

    /// Does what the time has come for.
    pub(in crate::peer) fn time(&mut self, now_ms: u64) {
        let is_due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        for (document, place) in &mut self.places {
            let gone = place.others.extract_if(.., |_, other| other.gone_ms() <= now_ms);
            if gone.count() > 0 {
                self.changed.push(document.clone());
            }
            let Some(ours) = &place.ours else { continue };
            if is_due(place.welcome_ms) {
                let all = Said::Snapshot(ours.clone(), Some(HEARTBEAT_MS));
                self.said.push((document.clone(), all));
                (place.welcome_ms, place.welcomed_ms) = (None, Some(now_ms));
            } else if is_due(place.update_ms) {
                for (channel, value) in ours {
                    if place.told.get(channel) != Some(value) {
                        let update = Said::Update(channel.clone(), value.clone());
                        self.said.push((document.clone(), update));
                    }
                }
            } else if is_due(place.heartbeat_ms) {
                self.said.push((document.clone(), Said::Heartbeat(Some(HEARTBEAT_MS))));
                place.heartbeat_ms = Some(now_ms.saturating_add(HEARTBEAT_MS));
                continue;
            } else {
                continue;
            }
            (place.told, place.update_ms, place.updated_ms) = (ours.clone(), None, now_ms);
            place.heartbeat_ms = Some(now_ms.saturating_add(HEARTBEAT_MS));
        }
    }

    /// When it wants to be told of the time, in `mono_ms`.
    pub(in crate::peer) fn wakes_at(&self) -> Option<u64> {
        let places = self.places.values().flat_map(|place| {
            let ours = [place.heartbeat_ms, place.update_ms, place.welcome_ms];
            ours.into_iter().flatten().chain(place.others.values().map(Other::gone_ms))
        });
        places.min()
    }

    /// Who else is in a document.
    pub(in crate::peer) fn present(&self, document: &DocumentId) -> Vec<Present> {
        let others = self.places.get(document).into_iter().flat_map(|place| &place.others);
        others.map(|(peer, other)| Present::of(peer, &other.shown)).collect()
    }

    /// What is to be said, and in which documents somebody is different.
    pub(in crate::peer) fn take(&mut self) -> (Vec<Saying>, Vec<DocumentId>) {
        (std::mem::take(&mut self.said), std::mem::take(&mut self.changed))
    }
}

impl Place {
    /// Somebody, if there is room for them.
    fn other(&mut self, now_ms: u64, peer: &PeerId) -> Option<&mut Other> {
        let is_full = self.others.len() >= PRESENT_MAX;
        match self.others.entry(peer.clone()) {
            std::collections::btree_map::Entry::Vacant(_) if is_full => None,
            entry => Some(entry.or_insert_with(|| Other {
                shown: Map::new(),
                seen_ms: now_ms,
                gone_after_ms: GONE_UNTOLD_MS,
            })),
        }
    }
}

impl Other {
    fn show(&mut self, channel: String, value: Value) {
        let before = self.shown.insert(channel.clone(), value);
        if self.shown.len() > CHANNELS_MAX || size(&self.shown) > SHOWN_BYTES_MAX {
            // It is shown without what is too much.
            match before {
                Some(before) => _ = self.shown.insert(channel, before),
                None => _ = self.shown.remove(&channel),
            }
        }
    }

    fn seen(&mut self, now_ms: u64, every_ms: Option<u64>) {
        self.seen_ms = now_ms;
        if let Some(every_ms) = every_ms {
            let three = every_ms.saturating_mul(GONE_MS / HEARTBEAT_MS);
            self.gone_after_ms = three.clamp(GONE_MS, GONE_MAX_MS);
        }
    }

    fn gone_ms(&self) -> u64 {
        self.seen_ms.saturating_add(self.gone_after_ms)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> DocumentId {
        DocumentId::from_bytes(&[1; 16])
    }

    fn shown(field: &str) -> Map<String, Value> {
        json!({ "user": "ann", "field": field }).as_object().cloned().unwrap()
    }

    fn peer(name: &str) -> PeerId {
        name.parse().unwrap()
    }

    fn said(roster: &mut Roster) -> Vec<Said> {
        roster.take().0.into_iter().map(|(_, said)| said).collect()
    }

    #[test]
    fn who_comes_is_told_all_and_then_what_is_new() {
        let mut roster = Roster::default();
        roster.show(0, &document(), shown("title"));
        let all = Said::Snapshot(shown("title"), Some(HEARTBEAT_MS));
        assert_eq!(said(&mut roster), [all]);
        roster.show(10, &document(), shown("notes"));
        roster.show(20, &document(), shown("due"));
        assert_eq!((said(&mut roster), roster.wakes_at()), (vec![], Some(PACE_MS)));
        roster.time(PACE_MS);
        assert_eq!(said(&mut roster), [Said::Update("field".to_owned(), json!("due"))]);
        assert_eq!(roster.wakes_at(), Some(PACE_MS + HEARTBEAT_MS));
        // Somebody comes, and several do at once: they are told together.
        for name in ["ben", "carl", "dora"] {
            roster.heard(1_000, &document(), &peer(name), Said::Heartbeat(None));
        }
        assert_eq!(said(&mut roster), [Said::Snapshot(shown("due"), Some(HEARTBEAT_MS))]);
        roster.heard(1_001, &document(), &peer("eve"), Said::Heartbeat(None));
        assert_eq!(said(&mut roster), []);
        roster.time(1_000 + WELCOME_MS);
        assert_eq!(said(&mut roster).len(), 1);
        roster.time(1_000 + WELCOME_MS + HEARTBEAT_MS);
        assert_eq!(said(&mut roster), [Said::Heartbeat(Some(HEARTBEAT_MS))]);
        roster.hide(&document());
        assert_eq!(said(&mut roster), [Said::Goodbye]);
        assert_eq!(roster.wakes_at(), None);
        roster.hide(&document());
        assert_eq!(said(&mut roster), []);
    }

    #[test]
    fn who_is_silent_is_gone_after_as_long_as_they_said() {
        let mut roster = Roster::default();
        roster.look(&document());
        assert_eq!(said(&mut roster), [Said::Heartbeat(None)]);
        let ours = Said::Snapshot(shown("title"), Some(HEARTBEAT_MS));
        let theirs = Said::Snapshot(shown("x"), None);
        roster.heard(0, &document(), &peer("ours"), ours);
        roster.heard(0, &document(), &peer("javascript"), theirs);
        roster.heard(0, &document(), &peer("unknown"), Said::Heartbeat(None));
        let names = |roster: &Roster| -> Vec<String> {
            let present = roster.present(&document());
            present.into_iter().map(|present| present.peer.to_string()).collect()
        };
        assert_eq!(names(&roster), ["javascript", "ours"]);
        assert_eq!(roster.present(&document())[1].field.as_deref(), Some("title"));
        roster.heard(10_000, &document(), &peer("ours"), Said::Heartbeat(Some(HEARTBEAT_MS)));
        roster.take();
        roster.time(GONE_MS);
        assert_eq!((names(&roster).len(), roster.take().1.len()), (2, 0));
        roster.time(10_000 + GONE_MS);
        assert_eq!((names(&roster), roster.take().1.len()), (vec!["javascript".to_owned()], 1));
        roster.time(GONE_UNTOLD_MS - 1);
        assert_eq!(names(&roster).len(), 1);
        roster.time(GONE_UNTOLD_MS);
        assert_eq!(names(&roster).len(), 0);
    }

    #[test]
    fn what_others_show_is_bounded() {
        let mut roster = Roster::default();
        roster.look(&document());
        for n in 0..2 * PRESENT_MAX {
            let from = peer(&format!("p{n}"));
            roster.heard(0, &document(), &from, Said::Snapshot(shown("a"), None));
        }
        assert_eq!(roster.present(&document()).len(), PRESENT_MAX);
        for n in 0..1_000 {
            let update = Said::Update(format!("c{n}"), json!("x".repeat(1_000)));
            roster.heard(0, &document(), &peer("p0"), update);
        }
        let present = roster.present(&document());
        assert!(size(&present[0].more) <= SHOWN_BYTES_MAX);
        assert_eq!(present[0].field.as_deref(), Some("a"));
        // Of a document that nobody looks at nothing is kept.
        let other = DocumentId::from_bytes(&[2; 16]);
        roster.heard(0, &other, &peer("p0"), Said::Snapshot(shown("a"), None));
        assert!(roster.present(&other).is_empty());
    }
}
