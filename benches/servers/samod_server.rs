//! The smallest server that samod 0.16 makes: axum takes the sockets, the file system keeps the
//! documents. It is what `concord bench` is compared with, so it does nothing else.
//!
//! `PORT` (0 or absent: any free one) and `DATA_DIR` are read as the JavaScript sync server reads
//! them; the address is printed when it listens.

use std::{error::Error, future::ready, path::PathBuf};

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    routing::get,
};
use futures_util::{SinkExt, StreamExt};
use samod::{Repo, ShareConfig, Transport, storage::TokioFilesystemStorage};

/// Bytes of the largest message, as the `ws` package of the JavaScript servers has it.
const MESSAGE_BYTES_MAX: usize = 100 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::var("PORT").map_or(Ok(0), |text| text.parse())?;
    let data_dir = std::env::var_os("DATA_DIR").map_or_else(|| PathBuf::from(".samod"), Into::into);

    // Like the JavaScript sync server: documents go to those who ask, nobody is told of others.
    let repo = Repo::build_tokio()
        .with_storage(TokioFilesystemStorage::new(data_dir))
        .with_share_policy(ShareConfig::read_write().with_announce(false))
        .load()
        .await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let acceptor = repo.make_acceptor(url.parse()?)?;
    println!("Listening on {url}");

    let app = Router::new().route(
        "/",
        get(move |upgrade: WebSocketUpgrade| {
            let acceptor = acceptor.clone();
            async move {
                upgrade
                    .max_message_size(MESSAGE_BYTES_MAX)
                    .max_frame_size(MESSAGE_BYTES_MAX)
                    .on_upgrade(move |socket| async move {
                        // It fails only when the repository was stopped, which this program
                        // never does.
                        let _ = acceptor.accept(transport(socket));
                    })
            }
        }),
    );
    axum::serve(listener, app).await?;
    Ok(())
}

/// The binary messages of a socket, both ways.
fn transport(socket: WebSocket) -> Transport {
    let (sink, stream) = socket.split();
    let stream = stream.filter_map(|message| {
        ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes.to_vec())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    });
    let sink =
        sink.with(|bytes: Vec<u8>| ready(Ok::<_, axum::Error>(Message::Binary(bytes.into()))));
    Transport::new(stream, sink)
}
