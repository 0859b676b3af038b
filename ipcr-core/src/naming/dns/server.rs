//! How DNS servers are written: [`DnsServer`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A DNS server that the user named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DnsServer {
    /// `ADDR[:PORT]` (port 53): UDP, and TCP where that is needed.
    Plain(SocketAddr),
    /// `https://HOST[:PORT][/PATH]`: DNS over HTTPS (RFC 8484).
    Https {
        /// A host name or address.
        host: String,
        /// The port.
        port: u16,
        /// The path, `/dns-query` when none is written.
        path: String,
    },
}

/// Text that names no DNS server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no DNS server (ADDR[:PORT] or https://HOST[:PORT][/PATH])")]
pub struct ParseServerError {
    /// What was given.
    pub text: String,
}

impl FromStr for DnsServer {
    type Err = ParseServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseServerError { text: text.chars().take(160).collect() };
        if let Some(rest) = text.strip_prefix("https://") {
            let (authority, path) = match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| refused())?),
                _ => (authority, 443),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':');
            if host.is_empty() || !host.bytes().all(good) || !path.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(refused());
            }
            let path = if path.is_empty() { "/dns-query" } else { path };
            return Ok(Self::Https { host: host.to_owned(), port, path: path.to_owned() });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Plain(address));
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        let ip: IpAddr = bare.parse().map_err(|_| refused())?;
        Ok(Self::Plain(SocketAddr::new(ip, 53)))
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(address) => address.fmt(f),
            Self::Https { host, port, path } if host.contains(':') => write!(f, "https://[{host}]:{port}{path}"),
            Self::Https { host, port, path } => write!(f, "https://{host}:{port}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, shown) in [
            ("127.0.0.1", "127.0.0.1:53"),
            ("127.0.0.1:5300", "127.0.0.1:5300"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:5300", "[::1]:5300"),
            ("https://dns.test", "https://dns.test:443/dns-query"),
            ("https://dns.test:8443/q", "https://dns.test:8443/q"),
            ("https://[::1]/q", "https://[::1]:443/q"),
            ("https://192.0.2.1", "https://192.0.2.1:443/dns-query"),
        ] {
            let server: DnsServer = text.parse().unwrap();
            assert_eq!(server.to_string(), shown);
            assert_eq!(shown.parse::<DnsServer>().unwrap(), server);
        }
        for bad in ["", "dns.test", "127.0.0.1:x", "http://dns.test", "https://", "https://dns.test:x/", "1.2.3"] {
            assert!(bad.parse::<DnsServer>().is_err(), "{bad}");
        }
    }
}
