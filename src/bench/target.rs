//! Where the load goes, and the rule that it stays on this machine.

use std::net::SocketAddr;

use tokio_tungstenite::tungstenite::http::Uri;

use super::BenchError;

/// A server whose address was looked up and allowed.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// As it goes into the WebSocket handshake.
    pub(super) url: String,
    /// Where to connect; resolved once, so that no later answer can point elsewhere.
    pub(super) address: SocketAddr,
}

impl Target {
    /// Looks the address up.
    pub(super) async fn resolve(url: &str, allow_remote: bool) -> Result<Self, BenchError> {
        let wrong = |reason: String| BenchError::Address { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|error| wrong(format!("{error}")))?;
        let default_port = match uri.scheme_str() {
            Some("ws") => 80,
            Some("wss") => 443,
            _ => return Err(wrong("the scheme is neither ws nor wss".to_owned())),
        };
        let host = uri.host().ok_or_else(|| wrong("no host".to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(default_port);
        let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| wrong(error.to_string()))?
            .collect();
        // `localhost` is both; servers bind the first more often.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().ok_or_else(|| wrong("no address".to_owned()))?;
        if !address.ip().is_loopback() && !allow_remote {
            return Err(BenchError::Remote(url.to_owned()));
        }
        Ok(Self { url: url.to_owned(), address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_machine_unless_told() {
        assert!(Target::resolve("ws://127.0.0.1:3030", false).await.is_ok());
        assert!(Target::resolve("ws://[::1]:3030/sync", false).await.is_ok());
        // An address from the block reserved for documentation: nothing is sent to it.
        let remote = Target::resolve("ws://192.0.2.1:3030", false).await;
        assert!(matches!(remote, Err(BenchError::Remote(_))));
        assert!(Target::resolve("ws://192.0.2.1:3030", true).await.is_ok());
    }

    #[tokio::test]
    async fn other_schemes_are_refused() {
        for url in ["http://127.0.0.1", "127.0.0.1:3030", "", "ws://"] {
            let found = Target::resolve(url, false).await;
            assert!(matches!(found, Err(BenchError::Address { .. })), "{url}");
        }
    }
}
