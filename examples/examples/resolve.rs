//! Follows names to a registry and prints every step.
//!
//! ```sh
//! cargo run --release -p ipcr-examples --example resolve [HOME REFERENCE]
//! ```
//!
//! Without arguments a registry is made on this machine, and followed by all of its names.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::path::Path;
use std::process::ExitCode;

use ipcr_core::registry::options::ResolveOptions;
use ipcr_core::registry::outcome::ResolveOutcome;
use ipcr_examples::hub::Hub;
use ipcr_examples::{Failure, home, run};

fn main() -> ExitCode {
    run(resolve())
}

async fn resolve() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => demonstrate().await,
        [path, reference] => {
            let registry = home::at_large(Path::new(path)).await?.registry;
            let resolved = registry.resolve(reference.parse()?, ResolveOptions::default()).await?;
            registry.shutdown().await?;
            show(&resolved);
            Ok(())
        }
        _ => Err("usage: resolve [HOME REFERENCE]".into()),
    }
}

/// Follows a domain, a key, a DID and a root to the same image.
async fn demonstrate() -> Result<(), Failure> {
    let hub = Hub::with_image(1 << 20).await?;
    let root = format!("ipfs/{}", hub.pushed.root);
    // The domain comes first: it tells where the registry is served.
    for authority in ["hub.test", &hub.identity.ipns, &hub.identity.did, &root] {
        let reference = format!("{authority}/app:1").parse()?;
        let resolved = hub.bob.resolve(reference, ResolveOptions::default()).await?;
        show(&resolved);
        if resolved.root != hub.pushed.root || resolved.digest != Some(hub.pushed.digest) {
            return Err(format!("{authority} leads elsewhere").into());
        }
    }
    hub.shutdown().await
}

fn show(resolved: &ResolveOutcome) {
    println!("{} ({:?})", resolved.reference, resolved.trust);
    for step in &resolved.chain {
        println!("  {:?} {} -> {} ({})", step.kind, step.name, step.value, step.source);
    }
}
