//! What is wrong is refused, with the right kind of error, and leaves nothing behind.

use std::io::Write;
use std::pin::Pin;

use tokio::io::AsyncReadExt;

use super::fixtures::{DOCKER_20, DOCKER_25, PODMAN_DOCKER, PODMAN_OCI, SKOPEO_OCI};
use crate::digest::{Algorithm, Digest};
use crate::image::config::parse_config;
use crate::image::media_type::{OCI_CONFIG, OCI_LAYER};
use crate::kind::ErrorKind;
use crate::limits;
use crate::media::archive_sink::{ArchiveOptions, ArchiveSink};
use crate::media::docker_archive::{ArchiveFile, ArchiveStream};
use crate::media::oci_layout::{LayoutFolder, LayoutSink};
use crate::port::conformance::image::{blobs, config, deliver, everything, layer, manifest, one_platform, plain};
use crate::port::image::{Blobs, Export, ImageError, ImageSource, Opened};
use crate::port::memory::image::MemoryImage;

/// Reads an image to its end as a push does, checking every digest: the configuration's.
async fn consume(source: &dyn ImageSource) -> Result<Digest, ErrorKind> {
    let kind = |error: ImageError| error.kind();
    match source.open().await.map_err(kind)? {
        Opened::Blobs(blobs) => walk(&*blobs, &[]).await,
        Opened::Export(mut export) => drain(&mut *export).await,
    }
}

async fn drain(export: &mut dyn Export) -> Result<Digest, ErrorKind> {
    let kind = |error: ImageError| error.kind();
    let mut layers = std::collections::HashMap::new();
    let mut blobs = Vec::new();
    while let Some(mut layer) = export.next_layer().await.map_err(kind)? {
        let mut bytes = Vec::new();
        layer.data.read_to_end(&mut bytes).await.map_err(|error| ErrorKind::of_io(&error))?;
        if let Some(digest) = layer.digest {
            if !digest.matches(&bytes) {
                return Err(ErrorKind::Integrity);
            }
            blobs.push(digest);
        }
        layers.insert(layer.key, bytes);
    }
    if let Some(kept) = export.manifests().await.map_err(kind)? {
        return walk(&*kept, &blobs).await;
    }
    let image = export.images().await.map_err(kind)?.remove(0);
    let config = parse_config(image.config).map_err(|error| error.kind())?;
    for (key, diff_id) in image.layers.iter().zip(&config.diff_ids) {
        let packed = &layers[key];
        // Flipped bits may look like a compression.
        let plain =
            if packed.starts_with(&[0x1f, 0x8b]) || packed.starts_with(&[0x28, 0xb5]) { &[][..] } else { packed };
        if !diff_id.matches(plain) {
            return Err(ErrorKind::Integrity);
        }
    }
    Ok(config.image_id())
}

async fn walk(blobs: &dyn Blobs, known: &[Digest]) -> Result<Digest, ErrorKind> {
    let mut todo = vec![blobs.root().clone()];
    let mut id = None;
    while let Some(descriptor) = todo.pop() {
        if known.contains(&descriptor.digest) {
            continue;
        }
        let mut bytes = Vec::new();
        let mut stream = blobs.blob(&descriptor).await.map_err(|error| error.kind())?;
        stream.read_to_end(&mut bytes).await.map_err(|error| ErrorKind::of_io(&error))?;
        if !descriptor.digest.matches(&bytes) || descriptor.size != bytes.len() as u64 {
            return Err(ErrorKind::Integrity);
        }
        if crate::image::media_type::is_config(&descriptor.media_type) {
            id = Some(descriptor.digest);
        } else if crate::image::media_type::layer_compression(&descriptor.media_type).is_none() {
            let parsed = crate::image::manifest::parse_manifest(bytes.into(), &descriptor.media_type);
            todo.extend(parsed.map_err(|error| error.kind())?.children().into_iter().cloned());
        }
    }
    Ok(id.expect("an image has a configuration"))
}

fn stream(bytes: Vec<u8>) -> ArchiveStream {
    ArchiveStream::new(Box::pin(std::io::Cursor::new(bytes)), "-")
}

async fn consume_both(bytes: &[u8]) -> [Result<Digest, ErrorKind>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("archive");
    std::fs::write(&file, bytes).unwrap();
    let results = [consume(&stream(bytes.to_vec())).await, consume(&ArchiveFile::new(&file, None)).await];
    assert_eq!(super::files(folder.path()), 1);
    results
}

#[tokio::test]
async fn archives_cut_off_anywhere() {
    for packed in [DOCKER_20, DOCKER_25, PODMAN_DOCKER, PODMAN_OCI, SKOPEO_OCI] {
        let archive = plain(packed);
        let end = archive.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for cut in (0..end).step_by(331).chain((512..end).step_by(512)) {
            for result in consume_both(&archive[..cut]).await {
                assert_eq!(result, Err(ErrorKind::Integrity), "cut at {cut} of {end}");
            }
        }
        for cut in (1..packed.len()).step_by(97) {
            for result in consume_both(&packed[..cut]).await {
                assert_eq!(result, Err(ErrorKind::Integrity), "packed, cut at {cut}");
            }
        }
    }
}

#[tokio::test]
async fn archives_with_flipped_bits() {
    for packed in [DOCKER_20, DOCKER_25, PODMAN_DOCKER, PODMAN_OCI] {
        let archive = plain(packed);
        let [good, _] = consume_both(&archive).await;
        let good = good.unwrap();
        for at in (0..archive.len()).step_by(53) {
            let mut bad = archive.clone();
            bad[at] ^= 1 << (at % 8);
            for result in consume_both(&bad).await {
                // Padding and names are not covered by any digest; what is delivered is right in any case.
                assert!(result == Ok(good) || result == Err(ErrorKind::Integrity), "{result:?} at {at}");
            }
        }
        for at in (0..packed.len()).step_by(29) {
            let mut bad = packed.to_vec();
            bad[at] ^= 1 << (at % 8);
            for result in consume_both(&bad).await {
                assert!(result == Ok(good) || result == Err(ErrorKind::Integrity), "{result:?} at {at}, packed");
            }
        }
    }
}

/// An archive of these members; names are written as they are.
fn archive(members: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, kind, link, data) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        all.extend_from_slice(header.as_bytes());
        all.extend_from_slice(data);
        all.resize(all.len().next_multiple_of(512), 0);
    }
    all.resize(all.len() + 1024, 0);
    all
}

/// A good legacy archive whose members a test can change.
fn legacy() -> Vec<(String, tar::EntryType, String, Vec<u8>)> {
    let tar = layer("a", 100);
    let file = tar::EntryType::Regular;
    let list = br#"[{"Config":"c.json","RepoTags":null,"Layers":["x/layer.tar"]}]"#.to_vec();
    vec![
        ("x/layer.tar".into(), file, String::new(), tar.clone()),
        ("c.json".into(), file, String::new(), config(&[Digest::sha256(&tar)], "amd64").into_bytes()),
        ("manifest.json".into(), file, String::new(), list),
    ]
}

fn pack(members: &[(String, tar::EntryType, String, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<_> = members.iter().map(|(a, b, c, d)| (a.as_str(), *b, c.as_str(), &d[..])).collect();
    archive(&members)
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = body + (body + 2).to_string().len();
        writeln!(all, "{length} {key}={value}").unwrap();
    }
    all
}

#[tokio::test]
async fn what_readers_understand_differently_is_refused() {
    use tar::EntryType as T;
    let none = || (String::new(), Vec::new());
    assert!(consume_both(&pack(&legacy())).await.iter().all(Result::is_ok));
    let mut cases: Vec<(&str, Vec<(String, T, String, Vec<u8>)>)> = Vec::new();
    let mut case = |what, members: &[(&str, T, &str, Vec<u8>)]| {
        let mut all: Vec<_> =
            members.iter().map(|(a, b, c, d)| ((*a).to_owned(), *b, (*c).to_owned(), d.clone())).collect();
        all.extend(legacy());
        cases.push((what, all));
    };
    let (_, empty) = none();
    for name in ["../x", "/x", "a/../x", "a/../../x", "..", "x/.."] {
        case(name, &[(name, T::Regular, "", empty.clone())]);
        case(name, &[(name, T::Directory, "", empty.clone())]);
        case("long", &[("l", T::GNULongName, "", name.into()), ("short", T::Regular, "", empty.clone())]);
        case("pax", &[("p", T::XHeader, "", pax(&[("path", name)])), ("short", T::Regular, "", empty.clone())]);
    }
    for target in ["/etc/passwd", "../../x", "..", "", "a/../../../x"] {
        case("symlink", &[("d/l", T::Symlink, target, empty.clone())]);
        case("pax link", &[("p", T::XHeader, "", pax(&[("linkpath", "/x")])), ("l", T::Symlink, "y", empty.clone())]);
        case("hard link", &[("l", T::Link, "../x", empty.clone())]);
    }
    for kind in [T::Char, T::Block, T::Fifo, T::Continuous, T::GNUSparse, T::new(b'Z')] {
        case("kind", &[("x", kind, "", empty.clone())]);
    }
    case("folder with data", &[("x", T::Directory, "", b"data".to_vec())]);
    case("link with data", &[("x", T::Symlink, "y", b"data".to_vec())]);
    case("file that is a folder", &[("x/", T::Regular, "", b"data".to_vec())]);
    case("twice", &[("x/layer.tar", T::Regular, "", empty.clone())]);
    case("twice, otherwise spelt", &[("./manifest.json", T::Regular, "", b"[]".to_vec())]);
    case("link in the place of a file", &[("c.json", T::Symlink, "other", empty.clone())]);
    let sized = |size: &str| ("p", T::XHeader, "", pax(&[("size", size)]));
    for size in ["0", "1025", "512", "-1", "1x", "99999999999"] {
        case("size", &[sized(size), ("x", T::Regular, "", vec![0; 1024])]);
    }
    case("unknown record", &[("p", T::XHeader, "", pax(&[("GNU.sparse.size", "5")])), ("x", T::Regular, "", vec![])]);
    case("unknown record", &[("p", T::XHeader, "", pax(&[("VENDOR.x", "5")])), ("x", T::Regular, "", vec![])]);
    case("global path", &[("p", T::XGlobalHeader, "", pax(&[("path", "y")]))]);
    case("broken record", &[("p", T::XHeader, "", b"99 path=x\n".to_vec()), ("x", T::Regular, "", vec![])]);
    case(
        "two names",
        &[
            ("p", T::XHeader, "", pax(&[("path", "y")])),
            ("l", T::GNULongName, "", b"z".to_vec()),
            ("x", T::Regular, "", vec![]),
        ],
    );
    case("large extension", &[("p", T::XHeader, "", vec![b' '; 70_000])]);
    for (what, members) in cases {
        for result in consume_both(&pack(&members)).await {
            assert_eq!(result, Err(ErrorKind::Integrity), "{what}");
        }
    }
    // What is harmless is read.
    let mut harmless: Vec<_> = vec![
        ("g".to_owned(), T::XGlobalHeader, String::new(), pax(&[("comment", "by hand")])),
        ("p".to_owned(), T::XHeader, String::new(), pax(&[("mtime", "1.5"), ("SCHILY.xattr.user.a", "b\nc")])),
        ("./d/".to_owned(), T::Directory, String::new(), Vec::new()),
        ("./".to_owned(), T::Directory, String::new(), Vec::new()),
        ("./l".to_owned(), T::Symlink, "c.json".to_owned(), Vec::new()),
    ];
    harmless.extend(legacy());
    assert!(consume_both(&pack(&harmless)).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn links_are_followed_one_hop() {
    use tar::EntryType as T;
    let mut members = legacy();
    members[0].0 = "real.tar".into();
    members.push(("x/layer.tar".into(), T::Symlink, "../real.tar".into(), Vec::new()));
    assert!(consume_both(&pack(&members)).await.iter().all(Result::is_ok));
    members[0].0 = "other.tar".into();
    members.push(("real.tar".into(), T::Link, "other.tar".into(), Vec::new()));
    assert_eq!(consume_both(&pack(&members)).await, [Err(ErrorKind::Integrity); 2]);
}

#[tokio::test]
async fn data_after_the_end_and_too_many_entries() {
    let mut bytes = pack(&legacy());
    bytes.extend(pack(&legacy()));
    assert_eq!(consume_both(&bytes).await, [Err(ErrorKind::Integrity); 2]);
    let name = |number| (format!("d{number}"), tar::EntryType::Directory, String::new(), Vec::new());
    let many: Vec<_> = (0..=limits::ARCHIVE_ENTRIES).map(name).collect();
    assert_eq!(consume_both(&pack(&many)).await, [Err(ErrorKind::Integrity); 2]);
    assert_eq!(consume_both(b"").await, [Err(ErrorKind::Integrity); 2]);
    assert_eq!(consume_both(&[0; 1024]).await, [Err(ErrorKind::Integrity); 2]);
    assert_eq!(consume_both(&[b'x'; 4096]).await, [Err(ErrorKind::Integrity); 2]);
    assert_eq!(consume_both(b"\xfd7zXZ\0 and so on").await, [Err(ErrorKind::Integrity); 2]);
}

#[tokio::test]
async fn documents_that_are_garbage_or_too_large() {
    let large = vec![b' '; usize::try_from(limits::ARCHIVE_JSON_BYTES).unwrap() + 1];
    let nested = vec![b'['; 100_000];
    for garbage in [&b"{"[..], b"[]", b"null", b"[{}]", b"\xff", &large, &nested] {
        for at in [1, 2] {
            let mut members = legacy();
            members[at].3 = garbage.to_vec();
            assert_eq!(consume_both(&pack(&members)).await, [Err(ErrorKind::Integrity); 2]);
        }
    }
    let mut missing = legacy();
    missing.remove(0);
    assert_eq!(consume_both(&pack(&missing)).await, [Err(ErrorKind::Integrity); 2]);
    let mut wrong = legacy();
    wrong[0].3 = layer("b", 100);
    assert_eq!(consume_both(&pack(&wrong)).await, [Err(ErrorKind::Integrity); 2]);
}

#[tokio::test]
async fn a_manifest_of_five_mebibytes() {
    let folder = tempfile::tempdir().unwrap();
    let image = blobs(&one_platform()).await;
    deliver(&*image, Box::new(LayoutSink::new(folder.path(), None)), None).await.unwrap();
    let mut manifest =
        everything(&*image).await.remove(&(image.root().digest, image.root().media_type.clone())).unwrap().to_vec();
    manifest.resize(5 << 20, b' ');
    let digest = Digest::sha256(&manifest);
    std::fs::write(folder.path().join(digest.layout_path()), &manifest).unwrap();
    let mut root = image.root().clone();
    (root.digest, root.size) = (digest, manifest.len() as u64);
    let index = crate::image::layout::write_layout_index(&[root]);
    std::fs::write(folder.path().join("index.json"), index).unwrap();
    assert_eq!(consume(&LayoutFolder::new(folder.path(), None)).await, Err(ErrorKind::Integrity));
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", folder.path()).unwrap();
    assert_eq!(consume_both(&archive.into_inner().unwrap()).await, [Err(ErrorKind::Integrity); 2]);
}

#[tokio::test]
async fn compressed_archives_that_grow_without_end() {
    let mut members = legacy();
    members.insert(0, ("zeros.tar".into(), tar::EntryType::Regular, String::new(), vec![0; 200 << 20]));
    let packed = zstd::encode_all(&pack(&members)[..], 1).unwrap();
    assert!(packed.len() < 100_000);
    assert_eq!(consume(&stream(packed)).await, Err(ErrorKind::Integrity));
}

#[tokio::test]
async fn more_layers_than_an_engine_takes() {
    let image = MemoryImage::new();
    let tars: Vec<_> = (0..=limits::ENGINE_LAYERS).map(|number| layer(&number.to_string(), 1)).collect();
    let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::sha256(tar)).collect();
    let layers: Vec<_> = tars.into_iter().map(|tar| image.add(OCI_LAYER, Algorithm::Sha256, tar)).collect();
    let config = image.add(OCI_CONFIG, Algorithm::Sha256, config(&diff_ids, "amd64"));
    image.set_root(manifest(&image, &config, &layers, None), None);
    let image = blobs(&image).await;
    let mut options = ArchiveOptions::docker();
    options.layers = limits::ENGINE_LAYERS;
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let error = deliver(&*image, Box::new(ArchiveSink::new(near, "engine", options)), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    let mut sent = Vec::new();
    Pin::new(&mut far).read_to_end(&mut sent).await.unwrap();
    assert!(sent.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let sink = LayoutSink::new(folder.path().join("new"), None);
    deliver(&*image, Box::new(sink), None).await.unwrap();
}
