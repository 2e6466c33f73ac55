//! One connection to a relay, from the first message to the last.

use std::time::Duration;

use bytes::Bytes;
use concord_protocol::{
    CloseCode, Limits, Message, PeerId, PeerMetadata, codec,
    handshake::{join, join_concord, welcomed_concord},
};
use futures_util::{Sink, SinkExt as _, StreamExt as _};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{
    self, Message as Frame,
    protocol::{CloseFrame, frame::coding::CloseCode as WireCode},
};

use super::{
    dialer::Ended,
    engine::Told,
    link::Wish,
    pulse::{Pulse, Sign},
    traffic::Traffic,
    transport::{Opened, Socket},
};
use crate::{
    frames::{self, Lanes, Takes},
    replica::{ConnectionId, Event, PeerInfo},
};

/// Time that the relay has to answer our close, in milliseconds.
const CLOSE_MS: u64 = 1_000;

/// What the engine has for a connection, in order.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// One message.
    Send(Bytes),
    /// One message that the engine does not want to hear of again.
    Say(Bytes),
    /// Nothing more.
    Close(CloseCode, String),
    /// Nothing more over this connection, and then another one.
    Renew,
}

/// Says who we are and hears who the relay is.
pub(super) async fn greet(
    opened: Opened,
    us: &PeerId,
    metadata: &PeerMetadata,
    limits: &Limits,
) -> Result<(Socket, PeerInfo), Ended> {
    let Opened { mut socket, concord } = opened;
    let conversation = async {
        let hello = if concord { join_concord(us, metadata) } else { join(us, metadata) };
        let hello = codec::encode(&hello);
        socket.send(Frame::Binary(hello)).await.map_err(|error| broke(&error))?;
        loop {
            match socket.next().await {
                Some(Ok(Frame::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Frame::Close(frame))) => return Err(closed(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broke(&error)),
                None => return Err(Ended::transient("the relay hung up before it answered")),
            }
        }
    };
    let reply = timeout(Duration::from_millis(limits.handshake_ms), conversation)
        .await
        .map_err(|_| Ended::transient("the relay did not say who it is"))??;
    let not_a_relay =
        |error: &dyn std::fmt::Display| Ended::permanent(format!("not a relay: {error}"));
    let messages = codec::decode(&reply, limits).map_err(|error| not_a_relay(&error))?;
    let first = messages.first().ok_or_else(|| not_a_relay(&"it said nothing"))?;
    // The word of the server, and not what its WebSocket library made of our offer.
    let (peer, metadata, understood) =
        welcomed_concord(first, us).map_err(|error| Ended::permanent(error.to_string()))?;
    Ok((socket, PeerInfo { peer, metadata, concord: concord && understood, dialled: true }))
}

/// One connection, and who is told of it.
pub(super) struct Line<'a, T> {
    pub(super) id: ConnectionId,
    /// What the relay takes, and we do.
    pub(super) takes: Takes,
    pub(super) limits: &'a Limits,
    pub(super) engine: &'a mpsc::Sender<Told>,
    pub(super) traffic: &'a Traffic,
    pub(super) wish: watch::Receiver<Wish>,
    /// Told of signs of life.
    pub(super) tell: T,
}

/// Carries messages both ways until the end of the connection.
pub(super) async fn carry<T: Fn(Sign)>(
    line: Line<'_, T>,
    socket: Socket,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> Ended {
    let Line { id, takes, limits, engine, traffic, mut wish, tell } = line;
    let (mut sink, mut frames) = socket.split();
    let mut pulse = Pulse::new(traffic, tell);
    pulse.watch(wish.borrow_and_update().is_watched);
    let mut retry_after_ms = None;
    // Writing and reading go on independently: a relay that does not read must not keep us from
    // reading, or two full pipes would wait for each other.
    let (drained, mut written) = mpsc::unbounded_channel();
    let (pinged, ping_wanted) = mpsc::channel(1);
    let writer = async {
        let end = write(&mut sink, &mut outgoing, takes, ping_wanted, &drained).await;
        (end, sink)
    };
    tokio::pin!(writer);
    loop {
        tokio::select! {
            (end, mut sink) = &mut writer => {
                let _ = timeout(Duration::from_millis(CLOSE_MS), sink.close()).await;
                return end;
            }
            Some(bytes) = written.recv() => {
                pulse.active();
                if engine.send(Event::Drained(id, bytes).into()).await.is_err() {
                    break Ended::permanent("the peer is closed");
                }
            }
            Ok(()) = wish.changed() => {
                pulse.watch(wish.borrow_and_update().is_watched);
            }
            () = sleep_until(pulse.next()) => {}
            frame = frames.next() => {
                pulse.heard();
                let bytes = match frame {
                    Some(Ok(Frame::Binary(bytes))) => bytes,
                    Some(Ok(Frame::Close(frame))) => break Ended { retry_after_ms, ..closed(frame) },
                    Some(Ok(Frame::Pong(payload))) => {
                        pulse.pong(&payload);
                        continue;
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => break Ended { retry_after_ms, ..broke(&error) },
                    None => break Ended { retry_after_ms, ..Ended::transient("the relay hung up") },
                };
                pulse.active();
                let messages = match frames::open(&bytes, limits, takes.zstd) {
                    Ok((messages, _)) => messages,
                    Err(error) => {
                        tracing::warn!(%error, "a message that is not understood is left out");
                        continue;
                    }
                };
                for message in messages {
                    if let Message::GoAway { retry_after_ms: after, .. } = &message {
                        let after_ms = u64::from(*after);
                        retry_after_ms = Some(after_ms);
                        pulse.tell(Sign::GoingAway { retry_after_ms: after_ms });
                    }
                    if engine.send(Event::Received(id, message).into()).await.is_err() {
                        return Ended::permanent("the peer is closed");
                    }
                }
            }
        }
        match pulse.beat() {
            // A ping that still waits to be written is enough.
            Ok(Some(number)) => _ = pinged.try_send(number),
            Ok(None) => {}
            Err(dead) => break dead,
        }
    }
}

/// Sends one ping over a connection that is for nothing else; how long the answer took.
pub(super) async fn ping(mut socket: Socket) -> Result<Duration, Ended> {
    let asked = Instant::now();
    socket.send(Frame::Ping(Bytes::new())).await.map_err(|error| broke(&error))?;
    let trip = loop {
        match socket.next().await {
            Some(Ok(Frame::Pong(_))) => break asked.elapsed(),
            Some(Ok(Frame::Close(frame))) => return Err(closed(frame)),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(broke(&error)),
            None => return Err(Ended::transient("the relay hung up before it answered")),
        }
    };
    let frame = CloseFrame { code: WireCode::Normal, reason: "only a check".into() };
    let _ = timeout(Duration::from_millis(CLOSE_MS), socket.close(Some(frame))).await;
    Ok(trip)
}

/// Writes what the engine has. Each frame is flushed and reported: of a large message on a slow
/// line something is heard as it leaves, and pings fit in between.
async fn write<S>(
    sink: &mut S,
    outgoing: &mut mpsc::UnboundedReceiver<Outgoing>,
    takes: Takes,
    mut pings: mpsc::Receiver<u64>,
    drained: &mpsc::UnboundedSender<usize>,
) -> Ended
where
    S: Sink<Frame, Error = tungstenite::Error> + Unpin,
{
    let mut waiting = Waiting::new(takes);
    loop {
        let sent = tokio::select! {
            biased;
            Some(number) = pings.recv() => {
                sink.send(Frame::Ping(Bytes::copy_from_slice(&number.to_be_bytes()))).await
            }
            next = waiting.next(outgoing) => match next {
                Some(Next::Piece(len, frame)) => {
                    let sent = sink.send(frame).await;
                    if sent.is_ok() && len > 0 && drained.send(len).is_err() {
                        return Ended::permanent("the peer is closed");
                    }
                    sent
                }
                Some(Next::Close(code, reason, is_ours)) => {
                    let frame = CloseFrame {
                        code: WireCode::from(code.code()),
                        reason: reason.as_str().into(),
                    };
                    let goodbye = sink.send(Frame::Close(Some(frame)));
                    let _ = timeout(Duration::from_millis(CLOSE_MS), goodbye).await;
                    return if is_ours {
                        Ended::ours(reason)
                    } else if code.is_transient() {
                        Ended::transient(reason)
                    } else {
                        Ended::permanent(reason)
                    };
                }
                None => return Ended::permanent("the peer is closed"),
            },
        };
        if let Err(error) = sent {
            return broke(&error);
        }
    }
}

/// What is to be written next.
enum Next {
    /// A frame, and the bytes of what the engine counts that left with it, or were left out for it.
    Piece(usize, Frame),
    /// Whether that is for nothing that the relay did.
    Close(CloseCode, String, bool),
}

/// What the engine gave and is not written yet.
struct Waiting {
    /// Of each message, whether the engine counts its bytes.
    lanes: Lanes<bool>,
    /// Bytes of presence that was left out, to be reported.
    left_out: usize,
    /// How to close when all of it is written, and whether that is for nothing that the relay did.
    close: Option<(CloseCode, String, bool)>,
}

impl Waiting {
    fn new(takes: Takes) -> Self {
        let mut lanes = Lanes::default();
        lanes.set_takes(takes);
        Self { lanes, left_out: 0, close: None }
    }

    /// The next thing to write; `None` when there is no engine any more. Nothing is lost if it is
    /// dropped while it waits.
    async fn next(&mut self, outgoing: &mut mpsc::UnboundedReceiver<Outgoing>) -> Option<Next> {
        loop {
            // All that is there: what waits together goes together, and presence passes it.
            while self.close.is_none()
                && let Ok(more) = outgoing.try_recv()
            {
                self.take(more);
            }
            let mut counted = std::mem::take(&mut self.left_out);
            let piece = self.lanes.next(|left| counted += if *left.owner { left.bytes } else { 0 });
            if let Some((_, frame)) = piece {
                return Some(Next::Piece(counted, frame));
            }
            self.left_out = counted;
            if let Some((code, reason, is_ours)) = self.close.take() {
                return Some(Next::Close(code, reason, is_ours));
            }
            let first = outgoing.recv().await?;
            self.take(first);
        }
    }

    fn take(&mut self, outgoing: Outgoing) {
        let (is_counted, message) = match outgoing {
            Outgoing::Send(message) => (true, message),
            Outgoing::Say(message) => (false, message),
            Outgoing::Close(code, reason) => {
                self.close = Some((code, reason, false));
                return;
            }
            Outgoing::Renew => {
                self.close = Some((CloseCode::Normal, "for room in another".to_owned(), true));
                return;
            }
        };
        let left_out = &mut self.left_out;
        self.lanes.push(is_counted, message, |left| {
            *left_out += if *left.owner { left.bytes } else { 0 };
        });
    }
}

fn closed(frame: Option<CloseFrame>) -> Ended {
    frame.map_or_else(
        || Ended::transient("the relay closed the connection"),
        |frame| Ended::closed(frame.code.into(), &frame.reason),
    )
}

fn broke(error: &tungstenite::Error) -> Ended {
    Ended::transient(format!("the connection broke: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use super::*;
    use crate::frames::FRAGMENT_BYTES;

    /// A line that takes this many frames and then no more.
    struct Narrow {
        taken: Vec<Frame>,
        room: usize,
    }

    impl Sink<Frame> for Narrow {
        type Error = tungstenite::Error;

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            if self.taken.len() < self.room { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn start_send(mut self: Pin<&mut Self>, item: Frame) -> Result<(), Self::Error> {
            self.taken.push(item);
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_on_a_slow_line_is_reported_as_it_leaves() {
        let mut line = Narrow { taken: Vec::new(), room: 3 };
        let (tell, mut outgoing) = mpsc::unbounded_channel();
        let (drained, mut reports) = mpsc::unbounded_channel();
        let (_ping, pings) = mpsc::channel(1);
        tell.send(Outgoing::Send(Bytes::from(vec![7; 5 * FRAGMENT_BYTES]))).unwrap();
        let writing = write(&mut line, &mut outgoing, Takes::default(), pings, &drained);
        assert!(timeout(Duration::from_secs(1), writing).await.is_err(), "the line is full");
        let mut left = 0;
        while let Ok(bytes) = reports.try_recv() {
            left += bytes;
        }
        assert_eq!(left, 3 * FRAGMENT_BYTES);
    }

    #[tokio::test]
    async fn pings_go_between_the_pieces_of_a_message() {
        let mut line = Narrow { taken: Vec::new(), room: 10 };
        let (tell, mut outgoing) = mpsc::unbounded_channel();
        let (drained, _reports) = mpsc::unbounded_channel();
        let (ping, pings) = mpsc::channel(1);
        tell.send(Outgoing::Send(Bytes::from(vec![7; 2 * FRAGMENT_BYTES]))).unwrap();
        tell.send(Outgoing::Close(CloseCode::Normal, "enough".to_owned())).unwrap();
        ping.try_send(1).unwrap();
        write(&mut line, &mut outgoing, Takes::default(), pings, &drained).await;
        let kinds: Vec<&str> = line
            .taken
            .iter()
            .map(|frame| match frame {
                Frame::Frame(_) => "piece",
                Frame::Ping(_) => "ping",
                Frame::Close(_) => "close",
                _ => "other",
            })
            .collect();
        assert_eq!(kinds, ["ping", "piece", "piece", "close"]);
    }
}
