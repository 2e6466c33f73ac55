//! Which message arrived when, out of a trace.

use std::collections::HashMap;

use concord_simulations::trace::{Entry, Kind};

/// A message of a trace.
#[derive(Debug, Clone)]
pub(crate) struct Message<'t> {
    pub(crate) sent_us: u64,
    /// Nothing if it was lost, or was on its way at the end.
    pub(crate) arrived_us: Option<u64>,
    pub(crate) what: &'t str,
}

/// All messages of a trace by number.
pub(crate) fn messages(trace: &[Entry]) -> HashMap<u64, Message<'_>> {
    let mut messages = HashMap::new();
    for entry in trace {
        match &entry.kind {
            Kind::Sent { number, what, .. } => {
                let sent_us = entry.at_us;
                let message = Message { sent_us, arrived_us: None, what };
                messages.insert(*number, message);
            }
            Kind::Arrived { number, .. } => {
                if let Some(message) = messages.get_mut(number) {
                    message.arrived_us = Some(entry.at_us);
                }
            }
            Kind::Wrote { .. } | Kind::Heads { .. } | Kind::Fault { .. } | Kind::Did { .. } => {}
        }
    }
    messages
}
