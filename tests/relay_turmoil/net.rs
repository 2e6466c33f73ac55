//! TCP of the simulated network, under the relay and under peers.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use concord::{
    peer::{self, Dialling, Transport},
    relay::{self, Accepting, Listener},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// Most bytes that go in one piece; a connection has room for so many pieces.
const PACKET_BYTES: usize = 8 * 1024;

/// What a relay listens on.
pub(crate) struct Listening(TcpListener);

impl Listening {
    pub(crate) async fn on(port: u16) -> Box<dyn Listener> {
        Box::new(Self(TcpListener::bind(("0.0.0.0", port)).await.unwrap()))
    }
}

impl Listener for Listening {
    fn accept(&self) -> Accepting<'_> {
        Box::pin(async {
            let (stream, from) = self.0.accept().await?;
            let wire = Wire { stream, net: Arc::default() };
            Ok((Box::new(wire) as Box<dyn relay::ByteStream>, from))
        })
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

/// How a peer dials: keeps count, and can stop reading.
#[derive(Default)]
pub(crate) struct Net {
    dialled: Mutex<Vec<Duration>>,
    read: AtomicU64,
    written: AtomicU64,
    is_stuck: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Net {
    /// When it dialled, since the simulation began.
    pub(crate) fn dialled(&self) -> Vec<Duration> {
        self.dialled.lock().unwrap().clone()
    }

    /// Bytes read so far, over all connections.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes written so far, over all connections.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Reads nothing more, or reads again.
    pub(crate) fn stick(&self, is_stuck: bool) {
        self.is_stuck.store(is_stuck, Ordering::Relaxed);
        if !is_stuck {
            self.waiting.lock().unwrap().drain(..).for_each(Waker::wake);
        }
    }
}

/// [`Net`], as a peer takes it.
pub(crate) struct Dial(pub(crate) Arc<Net>);

impl Transport for Dial {
    fn dial(&self, host: &str, port: u16) -> Dialling {
        self.0.dialled.lock().unwrap().push(turmoil::sim_elapsed().unwrap());
        let (net, host) = (Arc::clone(&self.0), host.to_owned());
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            Ok(Box::new(Wire { stream, net }) as Box<dyn peer::ByteStream>)
        })
    }
}

/// A stream whose packets have a size: the simulated network would carry any in one piece.
struct Wire {
    stream: TcpStream,
    net: Arc<Net>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.net.is_stuck.load(Ordering::Relaxed) {
            self.net.waiting.lock().unwrap().push(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.net.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let packet = &buf[..buf.len().min(PACKET_BYTES)];
        let polled = Pin::new(&mut self.stream).poll_write(cx, packet);
        if let Poll::Ready(Ok(count)) = &polled {
            self.net.written.fetch_add(*count as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
