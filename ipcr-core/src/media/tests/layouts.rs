//! Folders with several images.

use std::fs::File;
use std::time::Duration;

use crate::digest::{Algorithm, Digest};
use crate::image::media_type::{OCI_CONFIG, OCI_LAYER};
use crate::kind::ErrorKind;
use crate::media::oci_layout::{LayoutFolder, LayoutSink};
use crate::port::conformance::image::{
    assert_same, blobs, config, deliver, layer, manifest, many_platforms, one_platform,
};
use crate::port::image::{ImageError, ImageSink, ImageSource, Opened};
use crate::port::memory::image::MemoryImage;

#[tokio::test]
async fn a_second_image_is_added_and_a_tag_moves() {
    let folder = tempfile::tempdir().unwrap();
    let (one, many) = (blobs(&one_platform()).await, blobs(&many_platforms()).await);
    let sink = |tag: &str| Box::new(LayoutSink::new(folder.path(), Some(tag.into())));
    deliver(&*one, sink("1"), Some("app:1")).await.unwrap();
    deliver(&*many, sink("2"), Some("app:2")).await.unwrap();
    let index = folder.path().join("index.json");
    // What others wrote into it stays.
    let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    text["annotations"] = serde_json::json!({ "kept": "yes" });
    text["manifests"][0]["data"] = "unknown".into();
    std::fs::write(&index, text.to_string()).unwrap();
    deliver(&*many, sink("3"), Some("app:3")).await.unwrap();
    let text: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    assert_eq!(text["annotations"]["kept"], "yes");
    assert_eq!(text["manifests"][0]["data"], "unknown");

    let error = LayoutFolder::new(folder.path(), None).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let ImageError::Ambiguous { names, .. } = error else { panic!("{error}") };
    assert_eq!(names, ["1", "2", "3"]);
    let open = async |want: &str| match LayoutFolder::new(folder.path(), Some(want.into())).open().await.unwrap() {
        Opened::Blobs(blobs) => blobs,
        Opened::Export(_) => panic!("a layout"),
    };
    for (want, image) in [("1", &one), ("app:2", &many), ("3", &many)] {
        let found = open(want).await;
        assert_eq!(found.root().digest, image.root().digest);
        assert_same(&*found, &**image).await;
    }
    // A member of an index, by its digest.
    let part = crate::port::conformance::image::gather(&*many, None).await.manifests[1].0.clone();
    assert_eq!(open(&part.digest.to_string()).await.root().digest, part.digest);

    deliver(&*one, sink("2"), Some("app:2")).await.unwrap();
    assert_eq!(open("2").await.root().digest, one.root().digest);
    assert_eq!(open("3").await.root().digest, many.root().digest);
    let absent = LayoutFolder::new(folder.path(), Some("4".into())).open().await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_there_is_checked_and_only_what_is_wrong_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let image = blobs(&one_platform()).await;
    deliver(&*image, Box::new(LayoutSink::new(folder.path(), None)), None).await.unwrap();
    let parts = crate::port::conformance::image::gather(&*image, None).await;
    let plan = async || {
        let mut sink = LayoutSink::new(folder.path(), None);
        crate::port::image::ImageSink::plan(&mut sink, &parts).await.unwrap()
    };
    assert!(plan().await.is_empty());
    let layer = &parts.images[0].layers[1];
    let path = folder.path().join(layer.digest.layout_path());
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    std::fs::write(&path, bad).unwrap();
    assert_eq!(plan().await.len(), 1);
    deliver(&*image, Box::new(LayoutSink::new(folder.path(), None)), None).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), good);
}

#[tokio::test]
async fn another_image_with_the_same_tag_takes_nothing_away() {
    let folder = tempfile::tempdir().unwrap();
    let (one, many) = (blobs(&one_platform()).await, blobs(&many_platforms()).await);
    let sink = || Box::new(LayoutSink::new(folder.path(), Some("1".into())).keeping_others(true));
    deliver(&*one, sink(), Some("hub.test/app:1")).await.unwrap();
    deliver(&*many, sink(), Some("hub.test/web:1")).await.unwrap();
    // The same again, and a newer one of the same name.
    deliver(&*many, sink(), Some("hub.test/web:1")).await.unwrap();
    let root = async |want: &str| match LayoutFolder::new(folder.path(), Some(want.into())).open().await.unwrap() {
        Opened::Blobs(blobs) => blobs.root().digest,
        Opened::Export(_) => panic!("a layout"),
    };
    assert_eq!(root("1").await, one.root().digest);
    assert_eq!(root("hub.test/web:1").await, many.root().digest);
    deliver(&*many, sink(), Some("hub.test/app:1")).await.unwrap();
    assert_eq!(root("1").await, many.root().digest);
}

#[tokio::test]
async fn what_others_count_on_stays_when_a_writer_gives_up() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let image = blobs(&one_platform()).await;
    let parts = crate::port::conformance::image::gather(&*image, None).await;
    let begin = async || {
        let mut sink = LayoutSink::new(&layout, None);
        let needs = ImageSink::plan(&mut sink, &parts).await.unwrap();
        for need in &needs {
            let data = image.blob(&need.blob).await.unwrap();
            sink.write(need, need.blob.size, data).await.unwrap();
        }
        sink.settle_all().await.unwrap();
        (sink, needs.len())
    };
    let (first, written) = begin().await;
    let (second, found) = begin().await;
    assert!(written > 0 && found == 0, "{written} {found}");
    drop(first);
    Box::new(second).finish().await.unwrap();
    let Opened::Blobs(read) = LayoutFolder::new(&layout, None).open().await.unwrap() else { panic!("a layout") };
    assert_same(&*read, &*image).await;
    // Alone, everything goes again.
    std::fs::remove_dir_all(&layout).unwrap();
    drop(begin().await);
    assert!(!layout.exists());
}

#[tokio::test]
async fn more_blobs_than_settle_at_once_come_whole_and_go_whole() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let image = MemoryImage::new();
    let tars: Vec<Vec<u8>> = (0..20).map(|number| layer(&format!("file{number}"), 5000)).collect();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::sha256(tar)).collect();
    let config = image.add(OCI_CONFIG, Algorithm::Sha256, config(&diff_ids, "amd64"));
    let layers: Vec<_> = tars.into_iter().map(|tar| image.add(OCI_LAYER, Algorithm::Sha256, tar)).collect();
    image.set_root(manifest(&image, &config, &layers, None), None);
    let image = blobs(&image).await;
    let parts = crate::port::conformance::image::gather(&*image, None).await;
    let mut sink = LayoutSink::new(&layout, None);
    let needs = ImageSink::plan(&mut sink, &parts).await.unwrap();
    for need in &needs {
        sink.write(need, need.blob.size, image.blob(&need.blob).await.unwrap()).await.unwrap();
    }
    let named = std::fs::read_dir(layout.join("blobs/sha256")).unwrap().count();
    assert!(named >= 20 - 8, "{named}");
    drop(sink);
    assert!(!layout.exists());
    deliver(&*image, Box::new(LayoutSink::new(&layout, None)), None).await.unwrap();
    let Opened::Blobs(read) = LayoutFolder::new(&layout, None).open().await.unwrap() else { panic!("a layout") };
    assert_same(&*read, &*image).await;
}

#[tokio::test]
async fn whoever_leaves_in_the_last_moment_leaves_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let image = blobs(&one_platform()).await;
    let parts = crate::port::conformance::image::gather(&*image, None).await;
    let mut sink = LayoutSink::new(&layout, None);
    for need in &ImageSink::plan(&mut sink, &parts).await.unwrap() {
        sink.write(need, need.blob.size, image.blob(&need.blob).await.unwrap()).await.unwrap();
    }
    // Another writer is at work on the index, so that this one waits, and is dropped while it does.
    let other = File::open(layout.join("oci-layout")).unwrap();
    other.lock().unwrap();
    tokio::time::timeout(Duration::from_secs(1), Box::new(sink).finish()).await.unwrap_err();
    other.unlock().unwrap();
    // Who writes to a layout holds a lock that is shared.
    File::open(layout.join("blobs")).unwrap().lock().unwrap();
    let Opened::Blobs(read) = LayoutFolder::new(&layout, None).open().await.unwrap() else { panic!("a layout") };
    assert_same(&*read, &*image).await;
}

#[tokio::test]
async fn folders_that_are_no_layouts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    let image = blobs(&one_platform()).await;
    let error = deliver(&*image, Box::new(LayoutSink::new(folder.path(), None)), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(super::files(folder.path()), 1);
    let error = LayoutFolder::new(folder.path(), None).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    let error = LayoutFolder::new(folder.path().join("absent"), None).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[cfg(unix)]
#[tokio::test]
async fn links_out_of_a_folder_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = blobs(&one_platform()).await;
    deliver(&*image, Box::new(LayoutSink::new(folder.path(), None)), None).await.unwrap();
    let parts = crate::port::conformance::image::gather(&*image, None).await;
    let layer = &parts.images[0].layers[0];
    let path = folder.path().join(layer.digest.layout_path());
    let away = outside.path().join("blob");
    std::fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink(&away, &path).unwrap();
    let Opened::Blobs(found) = LayoutFolder::new(folder.path(), None).open().await.unwrap() else { panic!() };
    let error = found.blob(layer).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    // Inside, they are.
    let inside = folder.path().join("blobs/other");
    std::fs::rename(&away, &inside).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("../other", &path).unwrap();
    assert!(found.blob(layer).await.is_ok());
}
