//! What a registry asks for when it answers 401 (RFC 9110, "WWW-Authenticate"), and which token servers are trusted.

use std::net::IpAddr;

/// A way to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from a server (distribution, "Token Authentication Specification").
    Bearer {
        /// The server's URL.
        realm: String,
        /// What it calls the registry.
        service: Option<String>,
        /// What is asked for.
        scope: Option<String>,
    },
}

/// Longest header that is looked at, in bytes.
const HEADER_BYTES: usize = 8 << 10;

/// The best challenge of the headers: a token, else a password.
pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<Challenge> = headers.filter(|header| header.len() <= HEADER_BYTES).filter_map(parse).collect();
    let bearer = all.iter().find(|challenge| **challenge != Challenge::Basic);
    bearer.or(all.first()).cloned()
}

fn parse(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted)?,
            None => after.split_once(',').map_or((after.to_owned(), ""), |(value, after)| (value.to_owned(), after)),
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// The text up to the closing quote, and what follows it.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// A URL of the plain kind that is left when everything is refused over which parsers are known to disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) https: bool,
    /// Host, without port.
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// The origin of a URL.
    pub(super) fn of(url: &'a str) -> Option<Self> {
        let (https, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'@' | b'\\' | b'#' | b'"' | b'<' | b'>');
        if !url.bytes().all(plain) {
            return None;
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, port) = split_port(&rest[..end])?;
        Some(Self { https, host, port })
    }

    /// Whether both are one origin.
    pub(super) fn same(&self, other: &Self) -> bool {
        let port = |origin: &Self| origin.port.unwrap_or(if origin.https { 443 } else { 80 });
        self.https == other.https && self.host.eq_ignore_ascii_case(other.host) && port(self) == port(other)
    }
}

/// `host[:port]` in two.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(_) => {
            let end = authority.find(']')?;
            (&authority[..=end], authority[end + 1..].strip_prefix(':').or((end + 1 == authority.len()).then_some("")))
        }
        None => authority.split_once(':').map_or((authority, Some("")), |(host, port)| (host, Some(port))),
    };
    let port = match port? {
        "" => None,
        port => Some(port.parse().ok()?),
    };
    (!host.is_empty()).then_some((host, port))
}

/// Whether a host (without port) is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the token server at `realm` may get the credentials for the registry at `host` (without port): of the same site and
/// over https, both on this machine, or allowed by name.
pub(super) fn trusted(realm: &str, host: &str, allowed: &[String]) -> bool {
    let Some(origin) = Origin::of(realm) else { return false };
    if is_loopback(host) && is_loopback(origin.host) {
        return true;
    }
    origin.https
        && (same_site(origin.host, host) || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin.host)))
}

/// Whether two hosts are run by the same people, as far as names tell: they share a domain of two labels, or of three where
/// the last two look like a public suffix (`co.uk`).
fn same_site(a: &str, b: &str) -> bool {
    if a.eq_ignore_ascii_case(b) {
        return true;
    }
    let is_address = |host: &str| host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    if is_address(a) || is_address(b) {
        return false;
    }
    let site = |host: &str| {
        let labels: Vec<String> = host.trim_end_matches('.').rsplit('.').map(str::to_ascii_lowercase).collect();
        let public = labels.len() >= 2 && labels[0].len() == 2 && labels[1].len() <= 3;
        let wanted = if public { 3 } else { 2 };
        (labels.len() >= wanted).then(|| labels[..wanted].join("."))
    };
    site(a).is_some_and(|site_of_a| site(b) == Some(site_of_a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with what parsing returns")]
    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) })
    }

    #[test]
    fn challenges() {
        let hub =
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        let scope = Some("repository:a/b:pull");
        assert_eq!(parse(hub), bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope));
        assert_eq!(
            parse(r#"bearer Realm="https://a/t\"x" , other=1,service=s"#),
            bearer("https://a/t\"x", Some("s"), None)
        );
        assert_eq!(parse(r#"Bearer realm="r",scope="a:b:pull,push""#), bearer("r", None, Some("a:b:pull,push")));
        for bad in ["Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", "Negotiate", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(choose(["Basic realm=\"x\"", hub].into_iter()), parse(hub));
        assert_eq!(choose(["Negotiate", "Basic realm=\"x\""].into_iter()), Some(Challenge::Basic));
        assert_eq!(choose(["Digest x"].into_iter()), None);
    }

    #[test]
    fn token_servers() {
        let allowed = ["sso.other.test".to_owned()];
        for (realm, host) in [
            ("https://auth.docker.io/token", "registry-1.docker.io"),
            ("https://r.test/token", "r.test"),
            ("https://gitlab.com/jwt/auth", "registry.gitlab.com"),
            ("https://r.test:8443/token?a=b", "r.test"),
            ("http://127.0.0.1:5001/token", "localhost"),
            ("http://[::1]:5001/token", "127.0.0.1"),
            ("https://sso.other.test/x", "r.test"),
            ("https://auth.shop.co.uk/x", "r.shop.co.uk"),
        ] {
            assert!(trusted(realm, host, &allowed), "{realm} for {host}");
        }
        for (realm, host) in [
            ("http://auth.docker.io/token", "registry-1.docker.io"),
            ("https://evil.test/token", "registry-1.docker.io"),
            ("https://docker.io.evil.test/token", "registry-1.docker.io"),
            ("https://r.test@evil.test/token", "r.test"),
            ("https://r.test\\@evil.test/token", "r.test"),
            ("https://evil.test#.r.test/", "r.test"),
            ("https://evil.test/?.r.test", "r.test"),
            ("https://other.co.uk/x", "r.co.uk"),
            ("https://test/x", "r.test"),
            ("https://10.0.0.1/x", "10.0.0.2"),
            ("http://127.0.0.1/x", "r.test"),
            ("http://169.254.169.254/latest", "r.test"),
            ("https://localhost/x", "r.test"),
            ("https://evil.test/", "127.0.0.1"),
            ("ftp://r.test/", "r.test"),
            ("//r.test/token", "r.test"),
            ("https://", "r.test"),
            ("https://r.test:x/", "r.test"),
            ("https://r.test/ x", "r.test"),
        ] {
            assert!(!trusted(realm, host, &allowed), "{realm} for {host}");
        }
    }

    #[test]
    fn origins() {
        let same = |a, b| Origin::of(a).unwrap().same(&Origin::of(b).unwrap());
        assert!(same("https://R.test/a", "https://r.test:443/b?c"));
        assert!(!same("https://r.test/a", "http://r.test/a") && !same("https://r.test/a", "https://r.test:444/a"));
        assert!(same("http://[::1]:5/a", "http://[::1]:5"));
        assert_eq!(split_port("[::1"), None);
        assert_eq!(split_port("[::1]x"), None);
        assert_eq!(split_port(":5"), None);
        assert_eq!(split_port("h:5"), Some(("h", Some(5))));
    }
}
