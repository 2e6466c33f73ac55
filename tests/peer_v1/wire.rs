//! The network between peers and a server: can be cut, and mended.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Where peers connect. What is behind it may change.
pub(crate) struct Wire {
    pub(crate) url: String,
    to: Arc<Mutex<Option<SocketAddr>>>,
    cuts: watch::Sender<u64>,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let to = Arc::new(Mutex::new(Some(server)));
        let cuts = watch::Sender::new(0);
        let wire = Self { url, to: to.clone(), cuts: cuts.clone() };
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut cuts) = (*to.lock().unwrap(), cuts.subscribe());
                let Some(to) = to else { continue };
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
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

    pub(crate) fn mend(&self, server: SocketAddr) {
        *self.to.lock().unwrap() = Some(server);
    }
}
