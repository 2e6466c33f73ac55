//! What goes over a WebSocket, on both sides: messages that wait, put together into frames
//! (`lanes`), which may be compressed (`squeeze`) and are sent in pieces (`fragments`).

mod fragments;
mod lanes;
mod squeeze;

pub(crate) use fragments::FRAGMENT_BYTES;
pub(crate) use lanes::{Lanes, Left, Takes};
pub(crate) use squeeze::open;
