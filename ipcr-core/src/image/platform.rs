//! Platforms: operating system, architecture and variant, in Go's spelling (OCI image-index, "platform").

use std::fmt;
use std::str::FromStr;

/// A platform such as `linux/amd64` or `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`, `windows`, …
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`, …
    pub variant: Option<String>,
}

/// Text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform (os/architecture[/variant], e.g. linux/amd64)")]
pub struct ParsePlatformError {
    /// What was given.
    pub text: String,
}

impl Platform {
    /// `linux/amd64`, or what this machine is.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// Whether it says for what; an image without a platform, or with half of one, does not.
    pub fn is_known(&self) -> bool {
        !self.os.is_empty() && !self.architecture.is_empty()
    }

    /// Whether an image of this platform is certainly for another one than `wanted`.
    pub fn is_other_than(&self, wanted: &Self) -> bool {
        self.is_known() && !self.serves(wanted)
    }

    /// Whether an image of this platform serves a request for `wanted`: equal, or `wanted` leaves the variant open, or the
    /// variant is the architecture's default (arm64 means v8).
    pub fn serves(&self, wanted: &Self) -> bool {
        let variant = |platform: &Self| match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("arm64", None) => Some("v8".to_owned()),
            ("amd64", None) => Some("v1".to_owned()),
            (_, variant) => variant.map(str::to_owned),
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_none() && wanted.architecture != "amd64" || variant(self) == variant(wanted))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParsePlatformError { text: text.chars().take(80).collect() };
        let part = |part: &str| {
            let good =
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if good { Ok(part.to_owned()) } else { Err(refuse()) }
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [os, architecture] => Ok(Self { os: part(os)?, architecture: part(architecture)?, variant: None }),
            [os, architecture, variant] => {
                Ok(Self { os: part(os)?, architecture: part(architecture)?, variant: Some(part(variant)?) })
            }
            _ => Err(refuse()),
        }
    }
}
