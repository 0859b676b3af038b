//! Archives of other programs, kept beside the code.

use std::collections::{BTreeMap, HashMap};

use tokio::io::AsyncReadExt;

use crate::digest::Digest;
use crate::image::config::parse_config;
use crate::image::v1_ids::v1_ids;
use crate::kind::ErrorKind;
use crate::media::docker_archive::{ArchiveFile, ArchiveStream};
use crate::media::export::StreamExport;
use crate::media::oci_layout::LayoutFolder;
use crate::media::place::Place;
use crate::port::conformance::image::{bytes, everything, plain};
use crate::port::image::{Export, ExportedImage, ImageError, ImageSource, Opened};

pub(super) const DOCKER_20: &[u8] = include_bytes!("../testdata/docker-20.10.tar.gz");
pub(super) const DOCKER_25: &[u8] = include_bytes!("../testdata/docker-25-style.tar.gz");
pub(super) const PODMAN_DOCKER: &[u8] = include_bytes!("../testdata/podman-4.3-docker.tar.gz");
pub(super) const PODMAN_OCI: &[u8] = include_bytes!("../testdata/podman-4.3-oci.tar.gz");
pub(super) const SKOPEO_OCI: &[u8] = include_bytes!("../testdata/skopeo-1.9-oci.tar.gz");

/// The image from which all of them were made.
const IMAGE_ID: &str = "sha256:354f3608a3617a686a750d4b423c6fcbf581c93850a74ee0bc01a882c2be3aae";
/// Its manifest after skopeo and podman compressed its layers.
const MANIFEST: &str = "sha256:722e70582b6f014c30bdd59eee8b25af14371a104d341c446cb6c7f2f2491615";

/// What an export yields: layers by key, with what was told about them.
type Layers = BTreeMap<String, (Vec<u8>, Option<Digest>, Option<Digest>)>;

async fn drain(export: &mut dyn Export) -> Layers {
    let mut layers = BTreeMap::new();
    while let Some(mut layer) = export.next_layer().await.unwrap() {
        let mut bytes = Vec::new();
        layer.data.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes.len() as u64, layer.size);
        assert!(layer.digest.is_none_or(|digest| digest.matches(&bytes)));
        assert!(layer.diff_id.is_none_or(|digest| digest.matches(&bytes)));
        layers.insert(layer.key, (bytes, layer.digest, layer.diff_id));
    }
    layers
}

/// That the export is the image, and that its layers are what its configuration says.
fn check(image: &ExportedImage, layers: &Layers) {
    let config = parse_config(image.config.clone()).unwrap();
    assert_eq!(config.image_id().to_string(), IMAGE_ID);
    assert_eq!(image.layers.len(), 3);
    for (key, diff_id) in image.layers.iter().zip(&config.diff_ids) {
        assert!(diff_id.matches(&plain(&layers[key].0)), "{key}");
    }
}

async fn export(source: &dyn ImageSource) -> Box<dyn Export> {
    match source.open().await.unwrap() {
        Opened::Export(export) => export,
        Opened::Blobs(_) => panic!("it has no manifests to keep"),
    }
}

#[tokio::test]
async fn docker_archives_in_streams() {
    for (archive, name) in
        [(DOCKER_20, "ipcr-media-fx:1"), (DOCKER_25, "ipcr-media-fx:1"), (PODMAN_DOCKER, "localhost/ipcr-media-fx:1")]
    {
        for archive in [archive.to_vec(), plain(archive)] {
            let source = ArchiveStream::new(Box::pin(std::io::Cursor::new(archive)), "-");
            let mut export = export(&source).await;
            let layers = drain(&mut *export).await;
            assert_eq!(layers.len(), 3);
            assert!(export.manifests().await.unwrap().is_none());
            let images = export.images().await.unwrap();
            assert_eq!(images[0].names, [name]);
            check(&images[0], &layers);
            let error = source.open().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
        }
    }
}

#[tokio::test]
async fn docker_archives_in_files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    for archive in [DOCKER_20, DOCKER_25, PODMAN_DOCKER] {
        let unpacked = tempfile::tempdir().unwrap();
        tar::Archive::new(&plain(archive)[..]).unpack(unpacked.path()).unwrap();
        let file = folder.path().join("archive");
        std::fs::write(&file, plain(archive)).unwrap();
        let sources: [Box<dyn ImageSource>; 3] = [
            Box::new(ArchiveFile::new(&file, None)),
            Box::new(ArchiveFile::new(&file, Some("ipcr-media-fx:1".into()))),
            Box::new(LayoutFolder::new(unpacked.path(), Some(IMAGE_ID.into()))),
        ];
        for source in sources {
            let mut export = export(&*source).await;
            let layers = drain(&mut *export).await;
            assert!(layers.values().all(|layer| layer.2.is_some()), "files tell their layers before they are read");
            check(&export.images().await.unwrap()[0], &layers);
        }
        let absent = ArchiveFile::new(&file, Some("ipcr-media-fx:2".into())).open().await.unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound, "{absent}");
    }
}

#[tokio::test]
async fn layers_that_are_not_read_are_passed_over() {
    let source = ArchiveStream::new(Box::pin(std::io::Cursor::new(DOCKER_20)), "-");
    let mut export = export(&source).await;
    let mut count = 0;
    while let Some(mut layer) = export.next_layer().await.unwrap() {
        let mut some = vec![0; 700 * count];
        layer.data.read_exact(&mut some).await.unwrap();
        count += 1;
    }
    assert_eq!(count, 3);
    assert_eq!(export.images().await.unwrap()[0].layers.len(), 3);
}

#[tokio::test]
async fn folders_of_known_layers_are_recognised() {
    let source = ArchiveStream::new(Box::pin(std::io::Cursor::new(DOCKER_20)), "-");
    let mut first = export(&source).await;
    drain(&mut *first).await;
    let config = parse_config(first.images().await.unwrap()[0].config.clone()).unwrap();
    let hints: HashMap<_, _> = v1_ids(&config).unwrap().into_iter().zip(config.diff_ids.clone()).collect();
    let stream = Box::pin(std::io::Cursor::new(DOCKER_20));
    let mut export = StreamExport::new(stream, Place::new("-"), None, hints);
    let layers = drain(&mut export).await;
    assert_eq!(layers.values().filter(|layer| layer.2.is_some()).count(), 3);
}

#[tokio::test]
async fn podman_names_layers_by_their_digest() {
    let source = ArchiveStream::new(Box::pin(std::io::Cursor::new(PODMAN_DOCKER)), "-");
    let layers = drain(&mut *export(&source).await).await;
    assert!(layers.values().all(|layer| layer.2.is_some()));
}

#[tokio::test]
async fn oci_archives_keep_their_manifests_in_files_and_streams() {
    let folder = tempfile::tempdir().unwrap();
    for (archive, name) in [(PODMAN_OCI, "localhost/ipcr-media-fx:1"), (SKOPEO_OCI, "1")] {
        // A tag alone names nothing.
        let full = Some(name).filter(|name| name.contains(':'));
        let file = folder.path().join("archive");
        std::fs::write(&file, plain(archive)).unwrap();
        for want in [None, Some(name), Some(MANIFEST)] {
            let Opened::Blobs(blobs) = ArchiveFile::new(&file, want.map(Into::into)).open().await.unwrap() else {
                panic!("it has manifests");
            };
            assert_eq!(blobs.root().digest.to_string(), MANIFEST);
            assert_eq!((blobs.name().as_deref(), blobs.ref_name().as_deref()), (full, Some(name)));
            assert_eq!(everything(&*blobs).await.len(), 5);
        }

        let source = ArchiveStream::new(Box::pin(std::io::Cursor::new(archive)), "-");
        let mut export = export(&source).await;
        let layers = drain(&mut *export).await;
        assert_eq!(layers.len(), 3);
        assert!(layers.values().all(|layer| layer.1.is_some()));
        let kept = export.manifests().await.unwrap().expect("an OCI archive has manifests");
        assert_eq!(kept.root().digest.to_string(), MANIFEST);
        assert_eq!((kept.name().as_deref(), kept.ref_name().as_deref()), (full, Some(name)));
        let manifest = bytes(&*kept, kept.root()).await;
        let parsed = crate::image::manifest::parse_manifest(manifest, &kept.root().media_type).unwrap();
        let crate::image::manifest::Parsed::Manifest(manifest) = parsed else { panic!("an image") };
        bytes(&*kept, &manifest.config).await;
        for layer in &manifest.layers {
            assert!(matches!(kept.blob(layer).await, Err(ImageError::NoBlob { .. })));
            assert!(layers.values().any(|found| found.1 == Some(layer.digest)));
        }
    }
}
