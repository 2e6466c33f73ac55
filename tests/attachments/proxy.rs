//! A line that counts, and is slow, cut or bad where it is told to be.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

const NEVER: u64 = u64::MAX;

/// What goes one way.
#[derive(Debug)]
pub(crate) struct Way {
    bytes: AtomicU64,
    /// Bytes after which the line is cut, once.
    pub(crate) cut_at: AtomicU64,
    /// Bytes after which a byte is changed, once.
    pub(crate) spoil_at: AtomicU64,
}

impl Way {
    fn new() -> Self {
        let never = || AtomicU64::new(NEVER);
        Self { bytes: AtomicU64::new(0), cut_at: never(), spoil_at: never() }
    }

    /// Bytes that went this way so far, over all connections.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(SeqCst)
    }

    fn is_due(at: &AtomicU64, bytes: u64) -> bool {
        bytes >= at.load(SeqCst) && at.swap(NEVER, SeqCst) != NEVER
    }
}

#[derive(Debug)]
pub(crate) struct Proxy {
    addr: SocketAddr,
    pub(crate) up: Arc<Way>,
    pub(crate) down: Arc<Way>,
    /// Bytes a second, each way; 0: as fast as it goes.
    pub(crate) rate: Arc<AtomicU64>,
    target: Arc<Mutex<SocketAddr>>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            addr: listener.local_addr().unwrap(),
            up: Arc::new(Way::new()),
            down: Arc::new(Way::new()),
            rate: Arc::default(),
            target: Arc::new(Mutex::new(target)),
        };
        let (up, down) = (proxy.up.clone(), proxy.down.clone());
        let (rate, target) = (proxy.rate.clone(), proxy.target.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = *target.lock().unwrap();
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                let up = carry(near_in, far_out, up.clone(), rate.clone());
                let down = carry(far_in, near_out, down.clone(), rate.clone());
                // Both ways end with either.
                tokio::spawn(async move {
                    tokio::select! { () = up => {}, () = down => {} }
                });
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Arc<Way>,
    rate: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(len @ 1..) = from.read(&mut buffer).await else { return };
        let bytes = way.bytes.fetch_add(len as u64, SeqCst) + len as u64;
        if Way::is_due(&way.cut_at, bytes) {
            return;
        }
        // In the middle of what is no word of a message.
        let is_noise = |near: &[u8]| near.iter().all(|byte| *byte >= 0x80);
        if bytes >= way.spoil_at.load(SeqCst)
            && let Some(at) = buffer[..len].windows(9).position(is_noise)
            && Way::is_due(&way.spoil_at, bytes)
        {
            buffer[at + 4] ^= 0x11;
        }
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
        let rate = rate.load(SeqCst);
        if let Some(micros) = (len as u64 * 1_000_000).checked_div(rate) {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }
}
