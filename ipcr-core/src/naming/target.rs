//! Where a name leads: [`Target`], the value of a DNSLink or an IPNS record.

use std::fmt;
use std::str::FromStr;

use cid::Cid;

use crate::dag::block::LIBP2P_KEY;
use crate::reference::Authority;
use crate::reference::domain::Domain;
use crate::reference::key::IpnsName;

/// Longest value, in bytes.
const VALUE_BYTES: usize = 2048;

/// `/ipfs/<CID>[/path]` or `/ipns/<key or domain>[/path]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// What the path starts at.
    pub root: TargetRoot,
    /// The segments below it; none is empty, `.` or `..`.
    pub path: Vec<String>,
}

/// What a [`Target`] starts at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetRoot {
    /// Content.
    Ipfs(Cid),
    /// A key.
    Ipns(IpnsName),
    /// A domain.
    Domain(Domain),
}

/// Text that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not /ipfs/<CID> or /ipns/<name>")]
pub struct ParseTargetError {
    /// What was given, cut after 160 characters.
    pub text: String,
}

impl From<&Authority> for Target {
    fn from(authority: &Authority) -> Self {
        let root = match authority {
            Authority::Domain(domain) | Authority::DidWeb(domain) => TargetRoot::Domain(domain.clone()),
            Authority::Key(key) => TargetRoot::Ipns(*key),
            Authority::Cid(cid) => TargetRoot::Ipfs(*cid),
        };
        Self { root, path: Vec::new() }
    }
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseTargetError { text: text.chars().take(160).collect() })
    }
}

fn parse(text: &str) -> Option<Target> {
    if text.len() > VALUE_BYTES || text.chars().any(char::is_control) {
        return None;
    }
    let (namespace, rest) = text.strip_prefix('/')?.split_once('/')?;
    let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
    let first = segments.next()?;
    let root = match namespace {
        "ipfs" => TargetRoot::Ipfs(Cid::try_from(first).ok().filter(|cid| cid.codec() != LIBP2P_KEY)?),
        "ipns" => match first.parse::<IpnsName>() {
            Ok(key) => TargetRoot::Ipns(key),
            Err(_) => TargetRoot::Domain(first.parse().ok()?),
        },
        _ => return None,
    };
    let path: Vec<_> = segments.map(str::to_owned).collect();
    (!path.iter().any(|segment| segment == "." || segment == "..")).then_some(Target { root, path })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            TargetRoot::Ipfs(cid) => write!(f, "/ipfs/{cid}")?,
            TargetRoot::Ipns(key) => write!(f, "/ipns/{key}")?,
            TargetRoot::Domain(domain) => write!(f, "/ipns/{domain}")?,
        }
        self.path.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let cid = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
        let key = "k51qzi5uqu5di1hxx9pv1iu2gxqya46jcu79pmx7oppjo8lp0wsc5nm13xslfb";
        for (text, shown) in [
            (format!("/ipfs/{cid}"), format!("/ipfs/{cid}")),
            (format!("/ipfs/{cid}/"), format!("/ipfs/{cid}")),
            (format!("/ipfs/{cid}//a b/ü"), format!("/ipfs/{cid}/a b/ü")),
            (format!("/ipns/{key}"), format!("/ipns/{key}")),
            ("/ipns/12D3KooWEqTTp5n78FnDxHQnLRDiWtPPpVG37zEg4ewdhGmzYn38/x".into(), format!("/ipns/{key}/x")),
            ("/ipns/Hub.Test".into(), "/ipns/hub.test".into()),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse::<Target>().unwrap(), target);
        }
        for bad in [
            String::new(),
            cid.to_owned(),
            format!("ipfs/{cid}"),
            "/ipfs/".into(),
            "/ipfs/hub.test".into(),
            format!("/ipfs/{key}"),
            format!("/ipns/{cid}"),
            "/ipns/localhost".into(),
            format!("/http/{cid}"),
            format!("/ipfs/{cid}/../x"),
            format!("/ipfs/{cid}/\u{1b}[2J"),
            format!("/ipfs/{cid}/{}", "a".repeat(VALUE_BYTES)),
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
