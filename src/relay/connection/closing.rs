//! The end of a connection: the close frame, and time for it to arrive.

use std::{future::poll_fn, time::Duration};

use concord_protocol::CloseCode;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::Utf8Bytes},
};

use super::{CLOSE_MS, Connection, End, Socket};

/// Longest reason in a close frame, in bytes: a control frame holds 125, the code takes 2.
const REASON_BYTES: usize = 123;
/// Bytes read and thrown away after a close frame. A socket that is closed with bytes unread is
/// reset, which may overtake the close frame.
const LINGER_BYTES: usize = 8 * 1024 * 1024;

impl Connection {
    /// Sends what there is to say last, and waits a little for the other side.
    pub(super) async fn end(&mut self, end: End) {
        let ending = async {
            match end {
                End::Lost => {}
                End::Closed(_) => _ = self.socket.flush().await,
                End::Close(code, reason) => {
                    if poll_fn(|cx| self.poll_write(cx)).await.is_ok() {
                        say_goodbye(&mut self.socket, code, &reason).await;
                    }
                }
            }
        };
        // Whoever does not take it in time is cut off.
        let _ = timeout(Duration::from_millis(CLOSE_MS), ending).await;
    }
}

/// Closes a connection that there is no room for.
pub(super) async fn turn_away(socket: &mut Socket) {
    let goodbye = say_goodbye(socket, CloseCode::Draining, "no room here at the moment");
    let _ = timeout(Duration::from_millis(CLOSE_MS), goodbye).await;
}

async fn say_goodbye(socket: &mut Socket, code: CloseCode, reason: &str) {
    let frame = CloseFrame { code: code.code().into(), reason: shortened(reason) };
    if socket.send(Message::Close(Some(frame))).await.is_err() {
        return;
    }
    // Until it answers the close, or for as long as it is readable as WebSocket.
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Close(_)) {
            let _ = socket.flush().await;
            return;
        }
    }
    let stream = socket.get_mut();
    stream.lift();
    let _ = stream.shutdown().await;
    // On the heap: an array would be part of every connection's task all its life.
    let mut scratch = vec![0; 16 * 1_024];
    let mut left = LINGER_BYTES;
    while let Ok(count @ 1..) = stream.read(&mut scratch).await
        && left > 0
    {
        left = left.saturating_sub(count);
    }
}

fn shortened(reason: &str) -> Utf8Bytes {
    let end = reason.floor_char_boundary(REASON_BYTES);
    reason.get(..end).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "é".repeat(100);
        let short = shortened(&reason);
        assert_eq!(short.len(), 122);
        assert!(reason.starts_with(short.as_str()));
        assert_eq!(shortened("short").as_str(), "short");
    }
}
