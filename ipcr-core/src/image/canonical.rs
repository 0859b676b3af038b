//! The manifest that ipcr writes for an image whose source has none.
//!
//! Equal layers and an equal configuration give equal bytes on every machine: an OCI image manifest with its members in a
//! fixed order, without annotations, without white space.

use bytes::Bytes;
use serde::Serialize;

use super::descriptor::Descriptor;
use super::media_type::{OCI_CONFIG, OCI_MANIFEST, oci_layer};
use crate::dag::compression::Compression;
use crate::digest::Digest;

/// A layer of a canonical manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanonicalLayer {
    /// How its bytes are compressed.
    pub compression: Compression,
    /// The digest of its bytes as they are stored.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

impl CanonicalLayer {
    /// As the manifest lists it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(oci_layer(self.compression), self.digest, self.size)
    }
}

/// Writes the manifest of an image: its descriptor and its bytes.
pub fn canonical_manifest(config: &[u8], layers: &[CanonicalLayer]) -> (Descriptor, Bytes) {
    let size = |length| u64::try_from(length).expect("a length in memory fits 64 bits");
    let document = Document {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: Descriptor::new(OCI_CONFIG, Digest::sha256(config), size(config.len())),
        layers: layers.iter().map(CanonicalLayer::descriptor).collect(),
    };
    let bytes = serde_json::to_vec(&document).expect("plain structures are written to memory without failing");
    (Descriptor::new(OCI_MANIFEST, Digest::sha256(&bytes), size(bytes.len())), bytes.into())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Parsed, parse_manifest};
    use super::*;

    #[test]
    fn the_bytes_are_fixed() {
        let layer = CanonicalLayer { compression: Compression::Gzip, digest: Digest::sha256(b"layer"), size: 5 };
        let (descriptor, bytes) = canonical_manifest(b"{}", &[layer]);
        let expected = concat!(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            r#""config":{"mediaType":"application/vnd.oci.image.config.v1+json","#,
            r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"#,
            r#""layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","#,
            r#""digest":"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","size":5}]}"#,
        );
        assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
        assert!(descriptor.digest.matches(&bytes));
        assert_eq!(descriptor.size, bytes.len() as u64);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(
            config: Vec<u8>,
            layers in proptest::collection::vec((0..3_usize, proptest::num::u64::ANY), 0..20),
        ) {
            let kinds = [Compression::None, Compression::Gzip, Compression::Zstd];
            let layers: Vec<_> = layers
                .into_iter()
                .map(|(kind, size)| CanonicalLayer {
                    compression: kinds[kind],
                    digest: Digest::sha256(&size.to_le_bytes()),
                    size,
                })
                .collect();
            let (descriptor, bytes) = canonical_manifest(&config, &layers);
            let Parsed::Manifest(parsed) = parse_manifest(bytes, &descriptor.media_type).unwrap() else {
                panic!("a manifest");
            };
            proptest::prop_assert!(parsed.config.digest.matches(&config));
            let expected: Vec<_> = layers.iter().map(CanonicalLayer::descriptor).collect();
            proptest::prop_assert_eq!(parsed.layers, expected);
        }
    }
}
