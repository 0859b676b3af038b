//! A program with a source of images and a progress display of its own.
//!
//! ```sh
//! cargo run --release -p ipcr-examples --example embed [FOLDER]
//! ```
//!
//! Any folder is pushed as an image that is made on the fly (default: the sources of this package), and pulled by somebody
//! else as an archive for `docker load`, which the program takes as a stream.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::collections::HashMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use ipcr_core::digest::Digest;
use ipcr_core::event::Event;
use ipcr_core::port::image::{Export, ExportedImage, ExportedLayer, ImageError, ImageSource, Opened};
use ipcr_core::registry::operation::Operation;
use ipcr_core::registry::options::{PullOptions, PushOptions};
use ipcr_core::registry::places::{Output, Sink};
use ipcr_examples::zone::Zone;
use ipcr_examples::{Failure, home, mebibytes, run};
use serde_json::json;

fn main() -> ExitCode {
    run(embed())
}

async fn embed() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/src").to_owned());
    let dir = tempfile::tempdir()?;
    let zone = Zone::serve().await?;
    let (alice, _) = home::publisher(&dir.path().join("alice"), "hub.test", &zone).await?;
    let bob = home::open(&dir.path().join("bob"), &zone).await?;

    let source: Arc<dyn ImageSource> = Arc::new(FolderSource(folder.into()));
    let pushed = display(alice.push(source, PushOptions::default())).await?;
    println!("pushed {}", pushed.reference);

    let archive = dir.path().join("image.tar");
    let sink = Sink::Stream(Output::new(tokio::fs::File::create(&archive).await?), "the archive".into());
    let reference = "hub.test/folder:latest".parse()?;
    let pulled = display(bob.pull(reference, sink, PullOptions::default())).await?;
    let size = tokio::fs::metadata(&archive).await?.len();
    println!("pulled {} into {}: {size} bytes", pulled.reference, pulled.sink);
    if pulled.image_id != pushed.image_id || size < pulled.bytes.image {
        return Err("the image changed on its way".into());
    }
    bob.shutdown().await?;
    alice.shutdown().await?;
    Ok(())
}

/// Runs an operation and tells what it does, one line for each fact.
async fn display<T: Send + 'static>(operation: Operation<T>) -> Result<T, Failure> {
    let (mut events, mut outcome) = operation.watch();
    let mut sizes = HashMap::new();
    loop {
        // Both are polled: the work waits while nobody reads what it tells.
        tokio::select! {
            biased;
            Some(event) = events.recv() => show(event, &mut sizes),
            done = &mut outcome => {
                while let Ok(event) = events.try_recv() {
                    show(event, &mut sizes);
                }
                return Ok(done?);
            }
        }
    }
}

fn show(event: Event, sizes: &mut HashMap<String, u64>) {
    match event {
        Event::Stage { stage } => println!("{stage:?}"),
        Event::Name { kind, name, value, .. } => println!("  {kind} {name} -> {value}"),
        Event::Peer { peer, address, .. } => println!("  peer {peer} at {address}"),
        Event::BlobStarted { label, size, .. } => {
            sizes.insert(label, size);
        }
        Event::BlobProgress { label, done } => {
            let percent = done * 100 / sizes.get(&label).copied().unwrap_or(0).max(1);
            println!("  {label} {percent} %");
        }
        Event::BlobDone { label, fate } => println!("  {label} {fate:?}"),
        Event::Received { bytes, peers } => println!("  {} from {peers}", mebibytes(bytes)),
        Event::Warning(warning) => println!("  warning: {warning:?}"),
        // More kinds may come; whoever does not know them goes without.
        _ => {}
    }
}

/// A folder as an image of one layer.
#[derive(Debug)]
struct FolderSource(PathBuf);

#[async_trait]
impl ImageSource for FolderSource {
    fn describe(&self) -> String {
        format!("folder {}", self.0.display())
    }

    async fn open(&self) -> Result<Opened, ImageError> {
        let (folder, place) = (self.0.clone(), self.describe());
        let packed = tokio::task::spawn_blocking(move || pack(&folder)).await.map_err(std::io::Error::other);
        let tar = packed.and_then(|tar| tar).map_err(|source| ImageError::Io { place, doing: "reading", source })?;
        Ok(Opened::Export(Box::new(FolderExport { diff_id: Digest::sha256(&tar), tar: Some(tar) })))
    }
}

fn pack(folder: &Path) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.mode(tar::HeaderMode::Deterministic);
    tar.append_dir_all("srv", folder)?;
    tar.into_inner()
}

/// What an engine's export has: layers first, then what they belong to.
#[derive(Debug)]
struct FolderExport {
    diff_id: Digest,
    /// The layer, until it was handed out.
    tar: Option<Vec<u8>>,
}

#[async_trait]
impl Export for FolderExport {
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError> {
        Ok(self.tar.take().map(|tar| ExportedLayer {
            key: "layer".into(),
            diff_id: Some(self.diff_id),
            digest: None,
            size: tar.len() as u64,
            data: Box::pin(Cursor::new(tar)),
        }))
    }

    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError> {
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [self.diff_id.to_string()] },
        });
        let (layers, names) = (vec!["layer".into()], vec!["folder:latest".into()]);
        Ok(vec![ExportedImage { config: config.to_string().into_bytes().into(), layers, names }])
    }
}
