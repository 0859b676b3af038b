//! Pushes an image and prints what became of it.
//!
//! ```sh
//! cargo run --release -p ipcr-examples --example push [HOME SOURCE NAME:TAG]
//! ```
//!
//! `HOME` gets a registry if it has none. Without arguments an image is made and pushed in a temporary home.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::path::Path;
use std::process::ExitCode;

use ipcr_core::media::spec::ImageSpec;
use ipcr_core::registry::error::RegistryError;
use ipcr_core::registry::options::{InitOptions, PushOptions};
use ipcr_core::registry::outcome::PushOutcome;
use ipcr_examples::hub::{Hub, at};
use ipcr_examples::{Failure, home, run};

fn main() -> ExitCode {
    run(push())
}

async fn push() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => demonstrate().await,
        [path, source, name] => {
            let home = home::at_large(Path::new(path)).await?;
            if let Err(RegistryError::NoRegistry) = home.registry.identity().await {
                println!("a new registry: {}", home.init(InitOptions::default()).await?.ipns);
            }
            let mut options = PushOptions::default();
            options.target = Some(name.parse()?);
            let pushed = home.registry.push(ImageSpec::push_source(source)?, options).await?;
            home.registry.shutdown().await?;
            show(&pushed);
            Ok(())
        }
        _ => Err("usage: push [HOME SOURCE NAME:TAG]".into()),
    }
}

/// Pushes one image three times: anew, again, and under another tag.
async fn demonstrate() -> Result<(), Failure> {
    let hub = Hub::with_image(4 << 20).await?;
    show(&hub.pushed);
    let mut options = PushOptions::default();
    options.target = Some("app:1".parse()?);
    let again = hub.alice.push(at(&hub.made()), options.clone()).await?;
    show(&again);
    if !again.unchanged || again.root != hub.pushed.root || again.sequence != hub.pushed.sequence {
        return Err("pushing the same again changed something".into());
    }
    options.target = Some("app:2".parse()?);
    let other = hub.alice.push(at(&hub.made()), options).await?;
    show(&other);
    if other.sequence != hub.pushed.sequence + 1 || other.bytes.stored != 0 {
        return Err("another tag should cost one record and no data".into());
    }
    hub.shutdown().await
}

fn show(pushed: &PushOutcome) {
    println!("{}", pushed.reference);
    println!("  root /ipfs/{}, tag folder {}", pushed.root, pushed.cid);
    println!("  record {}{}", pushed.sequence, if pushed.unchanged { ", unchanged" } else { "" });
    let bytes = pushed.bytes;
    println!("  {} bytes, {} stored, {} new in blocks", bytes.image, bytes.stored, bytes.new);
}
