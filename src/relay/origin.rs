//! Which web pages may connect.
//!
//! A browser lets every page open a WebSocket to every address, and only says in `Origin` whose
//! page it is. Unless somebody looks at that, a page that a person visits reads and changes the
//! documents of a relay on that person's machine (cross-site WebSocket hijacking).

use std::{fmt, net::IpAddr, str::FromStr};

use axum::http::{HeaderMap, Uri, header, uri::Authority};

/// The web pages that may connect, by their origin.
///
/// Always allowed are programs, which send no origin, pages of the host that was asked, and pages
/// of the browser's own machine (`localhost` and loopback addresses, on any port). Others are
/// those in the list, as text: origins with commas between, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedOrigins {
    any: bool,
    listed: Vec<Origin>,
}

/// `scheme://host:port` in lower case, or `null`, which pages without an address send.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    text: String,
    /// The host without brackets; none of `null`.
    host: Option<String>,
}

impl AllowedOrigins {
    /// Whether a request with these headers may connect.
    ///
    /// # Errors
    /// The origin that may not.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), String> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(first) = origins.next() else {
            return Ok(());
        };
        let origin = first.to_str().ok().and_then(Origin::parse);
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        match origin {
            _ if self.any => Ok(()),
            Some(origin) if origins.next().is_none() && self.allows(&origin, host) => Ok(()),
            _ => Err(String::from_utf8_lossy(first.as_bytes()).into_owned()),
        }
    }

    fn allows(&self, origin: &Origin, asked: Option<&str>) -> bool {
        if self.listed.contains(origin) {
            return true;
        }
        let Some(host) = &origin.host else {
            return false;
        };
        let asked = asked.and_then(|asked| asked.parse::<Authority>().ok());
        let is_same = |asked: Authority| bare(asked.host()).eq_ignore_ascii_case(host);
        is_this_machine(host) || asked.is_some_and(is_same)
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self { text: text.to_owned(), host: None });
        }
        let text = text.to_ascii_lowercase();
        // As browsers write them: without anything after the host and port.
        let (scheme, authority) = text.split_once("://")?;
        let uri: Uri = text.parse().ok()?;
        if authority.contains(['/', '?', '#', '@']) || uri.host().is_none_or(str::is_empty) {
            return None;
        }
        let host = Some(bare(uri.host()?).to_owned());
        let default = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let text = text.strip_suffix(default).unwrap_or(&text).to_owned();
        Some(Self { text, host })
    }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Names below `localhost` are never looked up in the DNS (RFC 6761).
fn is_this_machine(host: &str) -> bool {
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(is_loopback)
}

impl FromStr for AllowedOrigins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut allowed = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if part == "*" {
                allowed.any = true;
                continue;
            }
            allowed.listed.push(Origin::parse(part).ok_or_else(|| {
                format!(
                    "{part:?} is no origin: expected https://app.example.com, or with a port, \
                     with commas between several; or * for all pages"
                )
            })?);
        }
        Ok(allowed)
    }
}

impl fmt::Display for AllowedOrigins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = self.any.then_some("*");
        let listed = self.listed.iter().map(|origin| origin.text.as_str());
        f.write_str(&any.into_iter().chain(listed).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, origin: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        headers.insert(header::HOST, host.parse().unwrap());
        list.parse::<AllowedOrigins>().unwrap().check(&headers).is_ok()
    }

    #[test]
    fn programs_and_pages_of_this_machine_and_of_the_host_are_allowed() {
        assert_eq!(AllowedOrigins::default().check(&HeaderMap::new()), Ok(()));
        for (origin, host) in [
            ("http://localhost:5173", "127.0.0.1:3030"),
            ("http://app.localhost", "localhost:3030"),
            ("https://127.0.0.1", "notes.example.com"),
            ("http://127.8.9.1:80", "notes.example.com"),
            ("http://[::1]:5173", "[::1]:3030"),
            ("capacitor://localhost", "notes.example.com"),
            ("https://notes.example.com", "notes.example.com"),
            ("https://Notes.Example.com:8443", "notes.example.COM:3030"),
            ("http://192.0.2.7:8080", "192.0.2.7:3030"),
            ("http://[2001:db8::1]", "[2001:db8::1]:3030"),
        ] {
            assert!(allows("", origin, host), "{origin} at {host}");
        }
    }

    #[test]
    fn other_pages_are_not_unless_they_are_listed() {
        for origin in [
            "https://evil.example",
            "http://localhost.evil.example",
            "http://evil.example:3030",
            "https://127.0.0.1.evil.example",
            "http://evil.example/localhost",
            "http://localhost@evil.example",
            "null",
            "file://",
            "localhost",
            "",
            "http://",
        ] {
            assert!(!allows("", origin, "127.0.0.1:3030"), "{origin}");
            assert!(!allows("https://app.example.com", origin, "127.0.0.1:3030"), "{origin}");
            assert!(allows("*", origin, "127.0.0.1:3030"), "{origin}");
        }
        let list = "https://app.example.com, http://b.example:8080, null";
        for origin in
            ["https://app.example.com", "HTTPS://APP.example.com", "http://b.example:8080", "null"]
        {
            assert!(allows(list, origin, "127.0.0.1:3030"), "{origin}");
        }
        for origin in ["http://app.example.com", "https://app.example.com:444", "http://b.example"]
        {
            assert!(!allows(list, origin, "127.0.0.1:3030"), "{origin}");
        }
        assert!(allows("https://app.example.com:443", "https://app.example.com", "x"));
    }

    #[test]
    fn two_origins_are_none() {
        let mut headers = HeaderMap::new();
        for origin in ["http://localhost", "https://evil.example"] {
            headers.append(header::ORIGIN, origin.parse().unwrap());
        }
        assert!(AllowedOrigins::default().check(&headers).is_err());
    }

    #[test]
    fn a_list_is_read_and_written() {
        for (text, written) in [
            ("", ""),
            (" * ", "*"),
            (
                "https://A.example:443,http://b.example:8080 ,",
                "https://a.example, http://b.example:8080",
            ),
            ("null, *", "*, null"),
        ] {
            let list: AllowedOrigins = text.parse().unwrap();
            assert_eq!(list.to_string(), written);
            assert_eq!(list.to_string().parse(), Ok(list));
        }
        for wrong in ["app.example.com", "https://", "https://a.example/path", "**"] {
            assert!(wrong.parse::<AllowedOrigins>().unwrap_err().contains("is no origin"));
        }
    }
}
