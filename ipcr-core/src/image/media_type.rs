//! Media types of images: OCI (image-spec, "OCI Image Media Types") and Docker (distribution, "Image Manifest V2, Schema 2").

use crate::dag::compression::Compression;

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The blob `{}`, where an artifact has no configuration or content.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// An uncompressed layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A gzip layer.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A zstd layer.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// How every OCI layer that must not be distributed begins (deprecated, still found in Windows images).
pub const OCI_NONDISTRIBUTABLE_PREFIX: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

/// A Docker image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// An uncompressed layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A gzip layer.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A zstd layer.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// How every Docker layer that must not be distributed begins.
pub const DOCKER_FOREIGN_PREFIX: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// The OCI media type of a layer that is compressed like this.
pub fn oci_layer(compression: Compression) -> &'static str {
    match compression {
        Compression::None => OCI_LAYER,
        Compression::Gzip => OCI_LAYER_GZIP,
        Compression::Zstd => OCI_LAYER_ZSTD,
    }
}

/// Whether it names a manifest of Docker's schema 1, signed or not.
pub fn is_schema1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

/// Whether it names an image manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether it names an index or manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Whether it names a container image's configuration.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether it names a layer whose bytes are not meant to be handed on by registries.
pub fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with(OCI_NONDISTRIBUTABLE_PREFIX) || media_type.starts_with(DOCKER_FOREIGN_PREFIX)
}

/// How a layer of this media type is compressed; `None` for what is no layer of a container image.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    let rest = [OCI_NONDISTRIBUTABLE_PREFIX, DOCKER_FOREIGN_PREFIX, OCI_LAYER, DOCKER_LAYER]
        .iter()
        .find_map(|prefix| media_type.strip_prefix(prefix))?;
    match rest {
        "" => Some(Compression::None),
        "+gzip" | ".gzip" => Some(Compression::Gzip),
        "+zstd" | ".zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_say_how_they_are_compressed() {
        assert_eq!(layer_compression(OCI_LAYER), Some(Compression::None));
        assert_eq!(layer_compression(DOCKER_LAYER_GZIP), Some(Compression::Gzip));
        assert_eq!(layer_compression(OCI_LAYER_ZSTD), Some(Compression::Zstd));
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(layer_compression(foreign), Some(Compression::Gzip));
        assert!(is_nondistributable(foreign) && !is_nondistributable(DOCKER_LAYER_GZIP));
        assert_eq!(layer_compression("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), None);
        assert_eq!(layer_compression(OCI_EMPTY), None);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            assert_eq!(layer_compression(oci_layer(compression)), Some(compression));
        }
    }
}
