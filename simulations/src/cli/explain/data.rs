//! What a picture shows, as the page's script reads it: short rows, since there are many.

use std::{collections::HashMap, ops::RangeInclusive};

use concord_simulations::{
    Report,
    plan::Plan,
    trace::{Entry, Kind},
};
use serde::Serialize;

use super::super::{log::Log, message::messages, replay::heading};

/// Microseconds until a relay that drains ends; what is drawn as down begins there.
const DRAIN_US: u64 = 500_000;

/// A world. Times are microseconds, nodes are positions in `nodes`.
#[derive(Debug, Serialize)]
pub(crate) struct Picture {
    pub(crate) title: String,
    settings: String,
    nodes: Vec<String>,
    documents: u8,
    calm: u64,
    end: u64,
    failure: Option<Broken>,
    /// Entries that are shown, and earlier ones that are not.
    pub(crate) entries: u64,
    pub(crate) omitted: u64,
    messages: Vec<Message>,
    heads: Vec<Heads>,
    writes: Vec<Write>,
    faults: Vec<Fault>,
    notes: Vec<Note>,
    down: Vec<Down>,
}

#[derive(Debug, Serialize)]
struct Broken {
    rule: &'static str,
    at: u64,
    detail: String,
}

/// Sent, arrived if it was, from, to, number, bytes, documents, text.
#[derive(Debug, Serialize)]
struct Message(u64, Option<u64>, usize, usize, u64, usize, Vec<u8>, String);

/// When, node, document, heads, whether a user sees them (otherwise they were named to somebody).
#[derive(Debug, Serialize)]
struct Heads(u64, usize, u8, String, bool);

/// When, node, document, change.
#[derive(Debug, Serialize)]
struct Write(u64, usize, u8, String);

/// From, until, nodes, what.
#[derive(Debug, Serialize)]
struct Fault(u64, u64, Vec<usize>, String);

/// When, node, what.
#[derive(Debug, Serialize)]
struct Note(u64, usize, String);

/// Node, from, until.
#[derive(Debug, Serialize)]
struct Down(usize, u64, u64);

impl Picture {
    pub(crate) fn new(
        plan: &Plan,
        report: &Report,
        range_ms: &RangeInclusive<u64>,
        entries_max: usize,
    ) -> Self {
        let within = |entry: &&Entry| range_ms.contains(&(entry.at_us / 1_000));
        let shown: Vec<&Entry> = report.trace.iter().filter(within).collect();
        let omitted = shown.len().saturating_sub(entries_max);
        let shown = shown.get(omitted..).unwrap_or_default();
        let end = report.trace.last().map_or(0, |entry| entry.at_us);
        let heading = heading(plan);
        let (title, settings) = heading.split_once('\n').unwrap_or((&heading, ""));
        let mut picture = Self {
            title: title.to_owned(),
            settings: settings.to_owned(),
            nodes: report.nodes.clone(),
            documents: plan.documents,
            calm: plan.calm_ms * 1_000,
            end,
            failure: report.failure.as_ref().map(|failure| Broken {
                rule: failure.invariant.as_str(),
                // The last thing that happened is what broke it, if that was in the same moment.
                at: if end / 1_000 == failure.at_ms { end } else { failure.at_ms * 1_000 },
                detail: failure.detail.clone(),
            }),
            entries: shown.len() as u64,
            omitted: omitted as u64,
            messages: Vec::new(),
            heads: Vec::new(),
            writes: Vec::new(),
            faults: Vec::new(),
            notes: Vec::new(),
            down: down(report, end),
        };
        picture.fill(plan, report, shown);
        picture
    }

    fn fill(&mut self, plan: &Plan, report: &Report, shown: &[&Entry]) {
        let log = Log::new(plan, report);
        let messages = messages(&report.trace);
        let mut named: HashMap<(usize, u8), String> = HashMap::new();
        for entry in shown {
            let at = entry.at_us;
            match &entry.kind {
                Kind::Sent { from, to, number, bytes, what } => {
                    let text = log.readable(what);
                    let arrived = messages.get(number).and_then(|message| message.arrived_us);
                    let is_peer = report.nodes.get(*from).is_some_and(|n| n.starts_with("peer"));
                    // Of a peer the heads are shown that its user sees.
                    for (document, heads) in named_heads(&text).filter(|_| !is_peer) {
                        let last = named.entry((*from, document)).or_default();
                        if last != heads {
                            heads.clone_into(last);
                            self.heads.push(Heads(at, *from, document, heads.to_owned(), false));
                        }
                    }
                    let documents = documents(&text);
                    self.messages
                        .push(Message(at, arrived, *from, *to, *number, *bytes, documents, text));
                }
                // Drawn with what was sent.
                Kind::Arrived { .. } => {}
                Kind::Wrote { node, document, change } => {
                    self.writes.push(Write(at, *node, *document, change.clone()));
                }
                Kind::Heads { node, document, heads } => {
                    self.heads.push(Heads(at, *node, *document, heads.join(" "), true));
                }
                Kind::Fault { nodes, what, until_us } => {
                    // All faults end with the calm.
                    let until = (*until_us).min(self.calm.max(at)).max(at);
                    self.faults.push(Fault(at, until, nodes.clone(), what.clone()));
                }
                Kind::Did { node, what } => {
                    self.notes.push(Note(at, *node, log.readable(what)));
                }
            }
        }
    }
}

/// The documents that a text names, each once.
fn documents(text: &str) -> Vec<u8> {
    let mut found: Vec<u8> = numbered(text).map(|(document, _)| document).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Each `document N` of a text, and what follows it.
fn numbered(text: &str) -> impl Iterator<Item = (u8, &str)> {
    text.match_indices("document ").filter_map(|(at, word)| {
        let rest = text.get(at + word.len()..)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some((rest.get(..end)?.parse().ok()?, rest.get(end..)?))
    })
}

/// The heads that a message names, by document.
fn named_heads(text: &str) -> impl Iterator<Item = (u8, &str)> {
    numbered(text).filter_map(|(document, rest)| {
        let rest = rest.strip_prefix(" heads [")?;
        Some((document, rest.get(..rest.find(']')?)?))
    })
}

/// When which node was not running.
fn down(report: &Report, end: u64) -> Vec<Down> {
    let mut down = Vec::new();
    // Since when, or from when on.
    let mut since: HashMap<usize, u64> = HashMap::new();
    for entry in &report.trace {
        match &entry.kind {
            Kind::Fault { nodes, what, .. } if what == "crash" || what == "drain" => {
                let from = entry.at_us + if what == "drain" { DRAIN_US } else { 0 };
                for node in nodes {
                    let since = since.entry(*node).or_insert(from);
                    *since = (*since).min(from);
                }
            }
            Kind::Did { node, what } if what.starts_with("ends because") => {
                since.entry(*node).or_insert(entry.at_us);
            }
            Kind::Did { node, what } if what.starts_with("starts for") => {
                if let Some(from) = since.remove(node)
                    && from < entry.at_us
                {
                    down.push(Down(*node, from, entry.at_us));
                }
            }
            _ => {}
        }
    }
    let still = since.into_iter().filter(|(_, from)| *from < end);
    down.extend(still.map(|(node, from)| Down(node, from, end)));
    down.sort_by_key(|Down(node, from, _)| (*from, *node));
    down
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_heads_are_found_in_texts() {
        let text = "sync document 3 heads [ab cd] need 0; ack document 12 durable [ef]; \
                    request document 3 heads [] need 1";
        assert_eq!(documents(text), [3, 12]);
        let heads: Vec<_> = named_heads(text).collect();
        assert_eq!(heads, [(3, "ab cd"), (3, "")]);
        assert!(documents("starts for the 2. time").is_empty());
    }
}
