//! What fuzzing feeds: the documents of images, as [`fuzz`] takes them.

use std::fmt::Debug;

use bytes::Bytes;

use super::canonical::{CanonicalLayer, canonical_manifest};
use super::config::parse_config;
use super::descriptor::Descriptor;
use super::layout::{
    check_oci_layout, inner_path, parse_archive, parse_layout_index, write_archive, write_layout_index,
};
use super::manifest::{Parsed, parse_manifest};
use super::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::v1_ids::v1_ids;
use crate::dag::compression::Compression;
use crate::kind::ErrorKind;

/// Manifests, indexes, configurations, and the lists of folders and archives: each has one meaning and comes back, or is refused.
pub fn fuzz(bytes: &[u8]) {
    manifests(&Bytes::copy_from_slice(bytes));
    config(&Bytes::copy_from_slice(bytes));
    if let Some(list) = read(parse_layout_index(bytes).map_err(|error| error.kind())) {
        descriptors(&list);
    }
    if let Some(images) = read(parse_archive(bytes).map_err(|error| error.kind())) {
        let again = parse_archive(&write_archive(&images)).expect("what was written is a list");
        assert_eq!(again, images, "a list of images comes back");
        for path in images.iter().flat_map(|image| image.layers.iter().chain([&image.config])) {
            assert_eq!(inner_path(path).as_ref(), Some(path), "paths stay inside");
        }
    }
    read(check_oci_layout(bytes).map_err(|error| error.kind()));
}

fn manifests(bytes: &Bytes) {
    let mut kinds = Vec::new();
    for declared in [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST] {
        let Some(parsed) = read(parse_manifest(bytes.clone(), declared).map_err(|error| error.kind())) else {
            continue;
        };
        assert_eq!((parsed.bytes(), parsed.media_type()), (bytes, declared), "a document is kept as it came");
        descriptors(&parsed.children().into_iter().chain(parsed.subject()).cloned().collect::<Vec<_>>());
        kinds.push(matches!(parsed, Parsed::Manifest(_)));
    }
    assert!(kinds.windows(2).all(|kinds| kinds[0] == kinds[1]), "no document is both manifest and index");
}

fn config(bytes: &Bytes) {
    let Some(config) = read(parse_config(bytes.clone()).map_err(|error| error.kind())) else { return };
    assert_eq!(config.bytes, *bytes, "a configuration is kept as it came");
    assert_eq!(config.chain_ids().len(), config.diff_ids.len(), "each layer has a chain");
    if let Some(names) = read(v1_ids(&config).map_err(|error| error.kind())) {
        assert_eq!(names.len(), config.diff_ids.len(), "each layer has a name");
    }
    let layer = |digest: &_| CanonicalLayer { compression: Compression::None, digest: *digest, size: 1024 };
    let layers: Vec<_> = config.diff_ids.iter().map(layer).collect();
    let (descriptor, written) = canonical_manifest(bytes, &layers);
    let manifest = parse_manifest(written, &descriptor.media_type).expect("what was written is a manifest");
    assert_eq!(manifest.children()[0].digest, config.image_id(), "it is the manifest of this configuration");
}

/// They come back in the index of a layout.
fn descriptors(list: &[Descriptor]) {
    let again = parse_layout_index(&write_layout_index(list)).expect("what was written is an index");
    assert_eq!(again, list, "descriptors come back");
}

fn read<T: Debug>(result: Result<T, ErrorKind>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(kind) => {
            assert_eq!(kind, ErrorKind::Integrity, "what is refused is damaged");
            None
        }
    }
}
