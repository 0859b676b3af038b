//! The whole way of an image, in one process: a publisher and somebody else, a domain, a push and a pull.
//!
//! ```sh
//! cargo run --release -p ipcr-examples --example quickstart [IMAGE]
//! ```
//!
//! `IMAGE` is an image of the container engine. Without it a small image of the engine is taken if one answers and has one,
//! else the program makes one. Everything is compared byte by byte; nothing is left behind.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use ipcr_core::media::spec::ImageSpec;
use ipcr_core::port::engine::{Engine, EngineKind};
use ipcr_core::registry::Registry;
use ipcr_core::registry::options::{PullOptions, PushOptions};
use ipcr_core::registry::outcome::PullOutcome;
use ipcr_examples::hub::at;
use ipcr_examples::zone::Zone;
use ipcr_examples::{Failure, home, layout, mebibytes, run};

/// What an engine's image may weigh to be taken unasked.
const MODEST: std::ops::Range<u64> = 1 << 20..150 << 20;

fn main() -> ExitCode {
    run(quickstart())
}

async fn quickstart() -> Result<(), Failure> {
    let began = Instant::now();
    let dir = tempfile::tempdir()?;
    let zone = Zone::serve().await?;

    println!("1. a publisher");
    let (alice, identity) = home::publisher(&dir.path().join("alice"), "hub.test", &zone).await?;
    println!("   {}", identity.ipns);
    for record in &identity.txt {
        println!("   {} TXT \"{}\"", record.name, record.value);
    }

    println!("2. an image");
    let engine = home::engines().discover(EngineKind::Docker).await.ok();
    let image = match (std::env::args().nth(1), &engine) {
        (Some(name), _) => Some(name),
        (None, Some(engine)) => modest_image(engine.as_ref()).await,
        (None, None) => None,
    };
    let made = dir.path().join("made");
    let source = if let Some(name) = &image {
        println!("   {name}, of the container engine");
        ImageSpec::push_source(&format!("docker-daemon:{name}"))?
    } else {
        let digest = layout::make(&made, "1", 1, 6 << 20)?;
        println!("   made here: {digest}");
        at(&made)
    };

    println!("3. push");
    let mut options = PushOptions::default();
    options.target = Some("app:1".parse()?);
    options.description = Some("The quickstart's image".into());
    let pushed = alice.push(source, options).await?;
    println!("   {}", pushed.reference);
    println!("   root /ipfs/{}, record {}, {}", pushed.root, pushed.sequence, mebibytes(pushed.bytes.image));

    println!("4. somebody else pulls hub.test/app:1");
    let bob = home::open(&dir.path().join("bob"), &zone).await?;
    let copy = dir.path().join("copy");
    let pulled = bob.pull("hub.test/app:1".parse()?, at(&copy), PullOptions::default()).await?;
    show(&pulled);
    if pulled.digest != pushed.digest || pulled.root != pushed.root {
        return Err("what came is not what was pushed".into());
    }
    // Equal pieces of layers come once, so that this can be less than the image.
    if pulled.bytes.fetched == 0 || pulled.peers.iter().all(|peer| peer.peer.to_string() != identity.node.peer_id) {
        return Err("it did not come from the publisher".into());
    }

    println!("5. digest by digest");
    if image.is_some() {
        // An engine keeps no manifests: the publisher's store has the one that the push wrote.
        let own = PullOptions::default();
        alice.pull("app:1".parse()?, at(&made), own).await?;
    }
    for (digest, size) in layout::compare(&made, &copy)? {
        println!("   same {digest} {size}");
    }

    println!("6. again");
    let again = dir.path().join("again");
    let second = bob.pull("hub.test/app:1".parse()?, at(&again), PullOptions::default()).await?;
    show(&second);
    layout::compare(&copy, &again)?;
    if second.bytes.fetched != 0 {
        return Err(format!("{} bytes were fetched a second time", second.bytes.fetched).into());
    }

    if let (Some(engine), Some(name)) = (&engine, &image) {
        println!("7. into the container engine");
        through_engine(&bob, engine, name).await?;
    }
    bob.shutdown().await?;
    alice.shutdown().await?;
    println!("all the same, in {:.1} s", began.elapsed().as_secs_f32());
    Ok(())
}

fn show(pulled: &PullOutcome) {
    for step in &pulled.chain {
        println!("   {:?} {} -> {} ({})", step.kind, step.name, step.value, step.source);
    }
    println!("   trust: {:?}", pulled.trust);
    for peer in &pulled.peers {
        println!("   {} from {} in {} blocks", mebibytes(peer.bytes), peer.peer, peer.blocks);
    }
    let bytes = pulled.bytes;
    println!("   image {}, fetched {}, own store {}", bytes.image, bytes.fetched, bytes.local);
    println!("   {}", pulled.reference);
}

/// Pulls into the engine under a name of our own, compares the image, and takes the name away again.
async fn through_engine(bob: &Registry, engine: &Arc<dyn Engine>, original: &str) -> Result<(), Failure> {
    let name = format!("ipcr-quickstart.test/app:{}", std::process::id());
    let mut options = PullOptions::default();
    options.name = Some(name.clone());
    let sink = ImageSpec::Engine { kind: EngineKind::Docker, name: Some(name.clone()) };
    let pulled = bob.pull("hub.test/app:1".parse()?, sink, options).await?;
    let (before, after) = (engine.image(original).await?, engine.image(&name).await?);
    engine.remove(&name).await?;
    let (before, after) = (before.ok_or("the image is gone")?, after.ok_or("the image did not arrive")?);
    println!("   {} is {}", pulled.sink, after.id);
    if before.id != after.id {
        return Err(format!("{original} is {}, and {name} was {}", before.id, after.id).into());
    }
    Ok(())
}

/// A small image of the engine, as its command-line client lists them.
async fn modest_image(engine: &dyn Engine) -> Option<String> {
    let api = engine.info().await.ok()?.api;
    let list = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"];
    let list = Command::new("docker").env("DOCKER_API_VERSION", api).args(list).output().ok()?;
    for name in String::from_utf8(list.stdout).ok()?.lines() {
        // Ours are those of tests, which may be gone at any time.
        if name.contains("<none>") || name.contains("ipcr") || name.contains(".test/") {
            continue;
        }
        if engine.image(name).await.ok().flatten().is_some_and(|image| MODEST.contains(&image.size)) {
            return Some(name.to_owned());
        }
    }
    None
}
