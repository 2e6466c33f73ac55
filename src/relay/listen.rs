//! Where connections come from: TCP, or whatever a program or a test has in its place.

use std::{future::Future, io, net::SocketAddr, pin::Pin};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

/// A byte stream that a connection runs over.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}

/// A connection, and where it comes from.
pub type Accepted = (Box<dyn ByteStream>, SocketAddr);

/// The next connection, awaited.
pub type Accepting<'a> = Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send + 'a>>;

/// Something that clients connect to. It is dropped when no more are wanted.
pub trait Listener: Send + Sync + 'static {
    /// Waits for the next connection. After an error it is called again a little later.
    fn accept(&self) -> Accepting<'_>;

    /// Where clients find it.
    fn addr(&self) -> SocketAddr;
}

/// What a relay listens on.
pub struct Listeners {
    /// For clients.
    pub clients: Box<dyn Listener>,
    /// For operators, if they are to have one.
    pub admin: Option<Box<dyn Listener>>,
}

/// TCP, without Nagle's delay: messages are small and wait for nothing.
pub(super) struct Tcp {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Tcp {
    pub(super) async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        Ok(Self { addr: listener.local_addr()?, listener })
    }
}

impl Listener for Tcp {
    fn accept(&self) -> Accepting<'_> {
        Box::pin(async {
            let (stream, from) = self.listener.accept().await?;
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream) as Box<dyn ByteStream>, from))
        })
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }
}
