//! Domains: [`Domain`].

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{NameError, Problem};

/// A fully qualified host name of at least two labels, in lower case and ASCII, without a trailing dot.
///
/// Letters, digits and hyphens (RFC 1123, section 2.1); labels of at most 63 bytes and 253 in all (RFC 1035, section
/// 2.3.4). An international name is accepted in its ASCII form (`xn--…`) only, so that what is shown is what is asked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map(Self).map_err(|problem| NameError::new("a domain", text, problem))
    }
}

fn check(text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if !text.is_ascii() {
        return Err(Problem::NotAscii);
    }
    if text.len() > 253 {
        return Err(Problem::TooLong { limit: 253 });
    }
    if text.parse::<IpAddr>().is_ok() || text.starts_with('[') {
        return Err(Problem::IpAddress);
    }
    if let Some((host, _)) = text.split_once(':') {
        return Err(Problem::Port { host: host.to_owned() });
    }
    let lower = text.to_ascii_lowercase();
    for label in lower.split('.') {
        let inner = label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if label.is_empty() || label.len() > 63 || !inner || label.starts_with('-') || label.ends_with('-') {
            return Err(Problem::BadLabel { label: label.to_owned() });
        }
    }
    let Some((_, last)) = lower.rsplit_once('.') else { return Err(Problem::NoDot) };
    // Anything else would be an address in one of its many short forms (`127.1`).
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Problem::IpAddress);
    }
    Ok(lower)
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
