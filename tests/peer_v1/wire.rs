//! The network between peers and a server: can be cut, and mended, and can lose what the server
//! says.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Where peers connect. What is behind it may change.
pub(crate) struct Wire {
    pub(crate) url: String,
    to: Arc<Mutex<Option<SocketAddr>>>,
    cuts: watch::Sender<u64>,
    muted: Arc<AtomicBool>,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let to = Arc::new(Mutex::new(Some(server)));
        let cuts = watch::Sender::new(0);
        let muted = Arc::<AtomicBool>::default();
        let wire = Self { url, to: to.clone(), cuts: cuts.clone(), muted: muted.clone() };
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (to, mut cuts) = (*to.lock().unwrap(), cuts.subscribe());
                let Some(to) = to else { continue };
                let muted = muted.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        () = carry(near, far, &muted) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        wire
    }

    /// Ends every connection in the middle of whatever it carries, and lets none through.
    pub(crate) fn cut(&self) {
        *self.to.lock().unwrap() = None;
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on what the server says is lost, but not what it is told; or no longer.
    pub(crate) fn mute(&self, muted: bool) {
        self.muted.store(muted, Ordering::Relaxed);
    }

    pub(crate) fn mend(&self, server: SocketAddr) {
        *self.to.lock().unwrap() = Some(server);
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, muted: &AtomicBool) {
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let up = async {
        let _ = copy(&mut from_near, &mut to_far).await;
        let _ = to_far.shutdown().await;
    };
    let down = async {
        while pass(&mut from_far, &mut to_near, muted).await.is_some() {}
        let _ = to_near.shutdown().await;
    };
    tokio::join!(up, down);
}

/// One piece; `None` at the end.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    muted: &AtomicBool,
) -> Option<()> {
    let mut piece = [0; 8 * 1024];
    let size = from.read(&mut piece).await.ok().filter(|size| *size > 0)?;
    if muted.load(Ordering::Relaxed) {
        return Some(());
    }
    to.write_all(&piece[..size]).await.ok()
}
