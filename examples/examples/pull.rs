//! Pulls an image and prints where it came from.
//!
//! ```sh
//! cargo run --release -p ipcr-examples --example pull [HOME REFERENCE SINK]
//! ```
//!
//! Without arguments an image is made, pushed and pulled again on this machine.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::path::Path;
use std::process::ExitCode;

use ipcr_core::media::spec::ImageSpec;
use ipcr_core::registry::options::PullOptions;
use ipcr_core::registry::outcome::PullOutcome;
use ipcr_examples::hub::{Hub, at};
use ipcr_examples::{Failure, home, layout, run};

fn main() -> ExitCode {
    run(pull())
}

async fn pull() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => demonstrate().await,
        [path, reference, sink] => {
            let registry = home::at_large(Path::new(path)).await?.registry;
            let pulled = registry.pull(reference.parse()?, ImageSpec::sink(sink)?, PullOptions::default()).await?;
            registry.shutdown().await?;
            show(&pulled);
            Ok(())
        }
        _ => Err("usage: pull [HOME REFERENCE SINK]".into()),
    }
}

/// Pulls one image by tag and by digest.
async fn demonstrate() -> Result<(), Failure> {
    let hub = Hub::with_image(4 << 20).await?;
    let by_digest = format!("hub.test/app@{}", hub.pushed.digest);
    for (reference, folder) in [("hub.test/app:1", "by-tag"), (&by_digest, "by-digest")] {
        let folder = hub.path(folder);
        show(&hub.bob.pull(reference.parse()?, at(&folder), PullOptions::default()).await?);
        let blobs = layout::compare(&hub.made(), &folder)?;
        println!("  {} blobs are the same", blobs.len());
    }
    hub.shutdown().await
}

fn show(pulled: &PullOutcome) {
    println!("{}", pulled.reference);
    println!("  into {}", pulled.sink);
    println!("  {} bytes fetched, {} from the own store", pulled.bytes.fetched, pulled.bytes.local);
    for peer in &pulled.peers {
        println!("  {} bytes from {}", peer.bytes, peer.peer);
    }
    for gateway in &pulled.gateways {
        println!("  {} bytes from {}", gateway.bytes, gateway.url);
    }
}
