//! Sources and sinks against each other, against archives of other programs and against those programs themselves.

mod fixtures;
mod layouts;
mod tools;
mod wrong;

use std::path::Path;

use super::archive_file::ArchiveFileSink;
use super::archive_sink::ArchiveOptions;
use super::docker_archive::ArchiveFile;
use super::none::NoneSink;
use super::oci_layout::{LayoutFolder, LayoutSink};
use crate::port::conformance::image::{self, Fixture};

fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| 1 + if path.is_dir() { files(&path) } else { 0 }).sum()
}

#[tokio::test]
async fn folders_conform() {
    image::run(async || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let layout = path.join("new/layout");
        Fixture {
            sink: Box::new(LayoutSink::new(&layout, Some("1".into()))),
            source: Box::new(LayoutFolder::new(&layout, None)),
            traces: Box::new(move || files(&path)),
            guard: Box::new(folder),
        }
    })
    .await;
}

async fn archives_conform(options: ArchiveOptions) {
    image::run(async || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let file = path.join("archive.tar");
        Fixture {
            sink: Box::new(ArchiveFileSink::new(&file, options.clone())),
            source: Box::new(ArchiveFile::new(&file, None)),
            traces: Box::new(move || files(&path)),
            guard: Box::new(folder),
        }
    })
    .await;
}

#[tokio::test]
async fn oci_archives_conform() {
    archives_conform(ArchiveOptions::oci()).await;
}

#[tokio::test]
async fn docker_archives_conform() {
    archives_conform(ArchiveOptions::docker()).await;
}

#[tokio::test]
async fn nothing_is_kept_but_everything_is_asked_for() {
    let blobs = image::blobs(&image::many_platforms()).await;
    let parts = image::gather(&*blobs, None).await;
    let mut sink = NoneSink;
    let needs = crate::port::image::ImageSink::plan(&mut sink, &parts).await.unwrap();
    assert_eq!(needs.len(), 3 + 3 + 2);
    image::deliver(&*blobs, Box::new(sink), None).await.unwrap();
}
