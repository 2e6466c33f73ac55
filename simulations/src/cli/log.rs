//! What happened in a world, a line each, as far as it is asked for.

use std::{collections::HashMap, fmt::Write as _};

use concord_simulations::{
    Report,
    plan::Plan,
    trace::{Entry, Kind},
};

use super::{
    message::{Message, messages},
    text::count,
};

/// Kinds of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KindArg {
    Sent,
    Arrived,
    Wrote,
    Heads,
    Fault,
    Did,
}

/// Which lines are wanted. Whatever is empty or absent asks for nothing.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) nodes: Vec<String>,
    pub(crate) document: Option<u8>,
    pub(crate) kinds: Vec<KindArg>,
    pub(crate) from_ms: Option<u64>,
    pub(crate) to_ms: Option<u64>,
    pub(crate) last: Option<usize>,
}

/// See the module.
pub(crate) struct Log<'t> {
    report: &'t Report,
    messages: HashMap<u64, Message<'t>>,
    /// The ids of documents, in their order.
    documents: Vec<String>,
    name_width: usize,
    time_width: usize,
}

impl<'t> Log<'t> {
    pub(crate) fn new(plan: &Plan, report: &'t Report) -> Self {
        let longest = report.nodes.iter().map(String::len).max().unwrap_or(0);
        let end_us = report.trace.last().map_or(0, |entry| entry.at_us);
        Self {
            report,
            messages: messages(&report.trace),
            documents: (0..plan.documents).map(|n| Plan::document_id(n).to_string()).collect(),
            name_width: longest,
            time_width: millis(end_us).len(),
        }
    }

    /// The lines that a filter lets through.
    pub(crate) fn lines(&self, filter: &Filter) -> Result<Vec<String>, String> {
        let mut nodes = Vec::new();
        for name in &filter.nodes {
            let found = self.report.nodes.iter().position(|node| plain(node) == plain(name));
            nodes.push(found.ok_or_else(|| {
                format!("no node is called {name}; there are: {}", self.report.nodes.join(", "))
            })?);
        }
        let wanted = self.report.trace.iter().filter(|entry| {
            let ms = entry.at_us / 1_000;
            filter.from_ms.is_none_or(|from| ms >= from)
                && filter.to_ms.is_none_or(|to| ms <= to)
                && (filter.kinds.is_empty() || filter.kinds.contains(&kind(entry)))
                && (nodes.is_empty() || involved(entry).iter().any(|node| nodes.contains(node)))
                && filter.document.is_none_or(|document| self.may_be_of(entry, document))
        });
        let mut wanted: Vec<&Entry> = wanted.collect();
        if let Some(last) = filter.last {
            wanted.drain(..wanted.len().saturating_sub(last));
        }
        Ok(wanted.into_iter().map(|entry| self.line(entry)).collect())
    }

    /// False if an entry is of other documents only. What belongs to none stays: without a
    /// restart or a lost connection the rest cannot be understood.
    fn may_be_of(&self, entry: &Entry, document: u8) -> bool {
        match &entry.kind {
            Kind::Wrote { document: of, .. } | Kind::Heads { document: of, .. } => *of == document,
            Kind::Sent { what, .. } | Kind::Did { what, .. } => self.text_may_be_of(what, document),
            Kind::Arrived { number, .. } => self
                .messages
                .get(number)
                .is_none_or(|message| self.text_may_be_of(message.what, document)),
            Kind::Fault { .. } => true,
        }
    }

    fn text_may_be_of(&self, text: &str, document: u8) -> bool {
        let text = self.readable(text);
        let mut named = text.match_indices("document ").filter_map(|(at, word)| {
            let rest = &text[at + word.len()..];
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse::<u8>().ok()
        });
        match named.next() {
            None => true,
            Some(first) => first == document || named.any(|other| other == document),
        }
    }

    /// With documents by number.
    pub(crate) fn readable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (number, id) in self.documents.iter().enumerate() {
            if text.contains(id.as_str()) {
                text = text.replace(id.as_str(), &format!("document {number}"));
            }
        }
        text
    }

    fn name(&self, node: usize) -> &str {
        self.report.nodes.get(node).map_or("?", String::as_str)
    }

    fn line(&self, entry: &Entry) -> String {
        let (width, time_width) = (self.name_width, self.time_width);
        let mut line = format!("{:>time_width$}  ", millis(entry.at_us));
        let who = |node: usize| format!("{:<width$}", self.name(node));
        // Writing to a string cannot fail.
        let _ = match &entry.kind {
            Kind::Sent { from, to, number, bytes, what } => {
                let message = self.messages.get(number);
                let is_lost = message.is_some_and(|message| message.arrived_us.is_none());
                write!(
                    line,
                    "{} --> {} #{number} {}, {} B{}",
                    who(*from),
                    who(*to),
                    self.readable(what),
                    count(*bytes as u64),
                    if is_lost { ", never arrives" } else { "" }
                )
            }
            Kind::Arrived { from, to, number } => match self.messages.get(number) {
                Some(message) => write!(
                    line,
                    "{} <-- {} #{number} after {} ms: {}",
                    who(*to),
                    who(*from),
                    millis(entry.at_us - message.sent_us),
                    self.readable(message.what)
                ),
                None => write!(line, "{} <-- {} #{number}", who(*to), who(*from)),
            },
            Kind::Wrote { node, document, change } => {
                write!(line, "{}  +  writes {change} in document {document}", who(*node))
            }
            Kind::Heads { node, document, heads } => {
                let heads = heads.join(" ");
                write!(line, "{}  =  document {document} is at [{heads}]", who(*node))
            }
            Kind::Fault { nodes, what, until_us } => {
                let (first, rest) = nodes.split_first().map_or((0, &[][..]), |(a, b)| (*a, b));
                let rest: Vec<&str> = rest.iter().map(|node| self.name(*node)).collect();
                let others =
                    if rest.is_empty() { String::new() } else { format!(" ({})", rest.join(", ")) };
                let until = if *until_us > entry.at_us {
                    format!(", until {}", millis(*until_us))
                } else {
                    String::new()
                };
                write!(line, "{}  !  {what}{others}{until}", who(first))
            }
            Kind::Did { node, what } => {
                write!(line, "{}  .  {}", who(*node), self.readable(what))
            }
        };
        line
    }
}

/// Microseconds as milliseconds.
pub(crate) fn millis(us: u64) -> String {
    format!("{}.{:03}", us / 1_000, us % 1_000)
}

/// `Relay-0`, `relay 0` and `relay0` are one.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

const fn kind(entry: &Entry) -> KindArg {
    match &entry.kind {
        Kind::Sent { .. } => KindArg::Sent,
        Kind::Arrived { .. } => KindArg::Arrived,
        Kind::Wrote { .. } => KindArg::Wrote,
        Kind::Heads { .. } => KindArg::Heads,
        Kind::Fault { .. } => KindArg::Fault,
        Kind::Did { .. } => KindArg::Did,
    }
}

fn involved(entry: &Entry) -> Vec<usize> {
    match &entry.kind {
        Kind::Sent { from, to, .. } | Kind::Arrived { from, to, .. } => vec![*from, *to],
        Kind::Wrote { node, .. } | Kind::Heads { node, .. } | Kind::Did { node, .. } => vec![*node],
        Kind::Fault { nodes, .. } => nodes.clone(),
    }
}
