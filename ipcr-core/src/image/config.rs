//! Image configurations (OCI image-spec, "Image Configuration"; Docker's is the same document) and chain IDs.

use bytes::Bytes;
use serde::Deserialize;

use super::descriptor::null_is_default;
use super::platform::Platform;
use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::limits;

/// What ipcr needs to know of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// Its bytes; their digest is the image ID.
    pub bytes: Bytes,
    /// The platform; empty texts where the document says nothing.
    pub platform: Platform,
    /// When the image was made, as the document spells it (RFC 3339).
    pub created: Option<String>,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// How the image came to be, oldest step first.
    pub history: Vec<History>,
}

/// One step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, as the document spells it.
    pub created: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// A remark.
    pub comment: Option<String>,
    /// Whether the step made no layer.
    pub empty_layer: bool,
}

/// Why a document is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The document is larger than [`limits::CONFIG_BYTES`].
    #[error("the image configuration has {size} bytes, more than {limit}", limit = limits::CONFIG_BYTES)]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The image has more layers than [`limits::COPY_LAYERS`].
    #[error("the image configuration lists {found} layers, more than {limit}", limit = limits::COPY_LAYERS)]
    TooMany {
        /// How many.
        found: usize,
    },
    /// The document is of another shape.
    #[error("this is not an image configuration")]
    Malformed {
        /// Why.
        source: serde_json::Error,
    },
    /// The file system is not made of layers.
    #[error("the image's root file system is of type `{found}` instead of `layers`")]
    RootFs {
        /// As found.
        found: String,
    },
}

impl ConfigError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Integrity
    }
}

/// Reads a configuration.
pub fn parse_config(bytes: Bytes) -> Result<ImageConfig, ConfigError> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > limits::CONFIG_BYTES {
        return Err(ConfigError::TooLarge { size });
    }
    let wire: Wire = serde_json::from_slice(&bytes).map_err(|source| ConfigError::Malformed { source })?;
    if wire.rootfs.kind != "layers" {
        return Err(ConfigError::RootFs { found: wire.rootfs.kind.chars().take(80).collect() });
    }
    let found = wire.rootfs.diff_ids.len();
    if found > limits::COPY_LAYERS {
        return Err(ConfigError::TooMany { found });
    }
    Ok(ImageConfig {
        bytes,
        platform: Platform {
            os: wire.os,
            architecture: wire.architecture,
            variant: wire.variant.filter(|variant| !variant.is_empty()),
        },
        created: wire.created,
        diff_ids: wire.rootfs.diff_ids,
        history: wire.history,
    })
}

impl ImageConfig {
    /// The image ID: the digest of the configuration.
    pub fn image_id(&self) -> Digest {
        Digest::sha256(&self.bytes)
    }

    /// See [`chain_ids`].
    pub fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.diff_ids)
    }
}

/// The chain ID of each layer, lowest first: what names a layer together with all below it (OCI image-spec, "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Option<Digest> = None;
    diff_ids
        .iter()
        .map(|diff_id| {
            let next = match chain {
                None => *diff_id,
                Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
            };
            chain = Some(next);
            next
        })
        .collect()
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    created: Option<String>,
    rootfs: RootFs,
    #[serde(default, deserialize_with = "null_is_default")]
    history: Vec<History>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ImageConfig, ConfigError> {
        parse_config(Bytes::copy_from_slice(text.as_bytes()))
    }

    const SAVED: &str = include_str!("../../testdata/docker-20.10-config.json");

    #[test]
    fn a_configuration_of_docker() {
        let config = parse(SAVED).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!(config.diff_ids.len(), 3);
        assert_eq!(config.history.iter().filter(|step| !step.empty_layer).count(), 3);
        assert_eq!(
            config.image_id().to_string(),
            "sha256:3f3c47139896665c3a8af128759b66472dd40671de1aa389041a64541c8b3685"
        );
    }

    #[test]
    fn chain_ids_as_the_specification_computes_them() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|data| Digest::sha256(data));
        let ab = Digest::sha256(format!("{a} {b}").as_bytes());
        let abc = Digest::sha256(format!("{ab} {c}").as_bytes());
        assert_eq!(chain_ids(&[a, b, c]), [a, ab, abc]);
        assert!(chain_ids(&[]).is_empty());
    }

    #[test]
    fn an_image_without_layers() {
        for ids in ["null", "[]"] {
            let text = format!(
                r#"{{"os":"linux","architecture":"arm","variant":"v7","rootfs":{{"type":"layers","diff_ids":{ids}}}}}"#
            );
            let config = parse(&text).unwrap();
            assert_eq!(config.platform.to_string(), "linux/arm/v7");
            assert!(config.diff_ids.is_empty() && config.history.is_empty());
        }
    }

    #[test]
    fn refusals() {
        assert!(matches!(parse("{}"), Err(ConfigError::Malformed { .. })));
        assert!(matches!(parse("[]"), Err(ConfigError::Malformed { .. })));
        let refused = parse(r#"{"rootfs":{"type":"layers+base","diff_ids":[]}}"#);
        assert!(matches!(refused, Err(ConfigError::RootFs { .. })));
        let refused = parse(r#"{"rootfs":{"type":"layers","diff_ids":["../x"]}}"#);
        assert!(matches!(refused, Err(ConfigError::Malformed { .. })));
        let id = format!("\"{}\"", Digest::sha256(b""));
        let many =
            |count| format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, vec![id.clone(); count].join(","));
        assert!(parse(&many(limits::COPY_LAYERS)).is_ok());
        assert!(matches!(parse(&many(limits::COPY_LAYERS + 1)), Err(ConfigError::TooMany { found: 513 })));
        let whole = usize::try_from(limits::CONFIG_BYTES).unwrap();
        let padded = format!("{SAVED}{}", " ".repeat(whole + 1 - SAVED.len()));
        assert!(matches!(parse(&padded), Err(ConfigError::TooLarge { .. })));
        assert!(parse(&padded[..whole]).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse_config(bytes.into());
        }
    }
}
