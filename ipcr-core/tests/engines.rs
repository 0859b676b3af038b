//! Real container engines: Docker at `IPCR_TEST_DOCKER` (default `unix:///var/run/docker.sock`), and Podman, whose service
//! is started here. Where one is missing the test says `SKIPPED: why`, or fails when `IPCR_TEST_REQUIRE_PEERS` is set.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail and tell like tests")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipcr_core::engine::discovery::Discovery;
use ipcr_core::engine::docker::DockerEngine;
use ipcr_core::port::engine::{Engine, EngineError, EngineKind, EngineStore};
use ipcr_core::port::image::{Export, ImageSource, Opened};
use ipcr_core::transfer::engine::sink::EngineSink;
use ipcr_core::transfer::engine::source::EngineSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
// What the conformance suite finds under `crate::` inside the library.
use ipcr_core::{digest, image, port};

#[path = "../src/port/conformance/engine.rs"]
mod conformance;

use conformance::{Sample, failing, run};

fn skip(why: &str) {
    assert!(std::env::var_os("IPCR_TEST_REQUIRE_PEERS").is_none(), "needed by this run: {why}");
    println!("SKIPPED: {why}");
}

async fn docker() -> Option<DockerEngine> {
    let endpoint = std::env::var("IPCR_TEST_DOCKER").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    match DockerEngine::connect(&endpoint).await {
        Ok(engine) => Some(engine),
        Err(error) => {
            skip(&format!("no Docker Engine at {endpoint}: {error}"));
            None
        }
    }
}

/// A Podman service with a storage of its own.
struct Podman {
    folder: tempfile::TempDir,
    service: Child,
}

impl Podman {
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("unix://{}", folder.path().join("podman.sock").display());
        let service = podman(folder.path()).args(["system", "service", "--time=0", &socket]).spawn();
        let Ok(service) = service else {
            skip("podman is not installed");
            return None;
        };
        let podman = Self { folder, service };
        let begun = Instant::now();
        while DockerEngine::connect(&podman.endpoint()).await.is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                skip("podman's service does not come up");
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(podman)
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.folder.path().join("podman.sock").display())
    }
}

fn podman(folder: &std::path::Path) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
        // Its storage holds mounts; `system reset` takes them down so that the folder can go.
        let _ = podman(self.folder.path()).args(["system", "reset", "--force"]).status();
    }
}

#[tokio::test]
async fn docker_conforms() {
    let Some(engine) = docker().await else { return };
    let info = engine.info().await.unwrap();
    assert_eq!(info.name, "Docker");
    println!("Docker {} (API {}, {:?} store)", info.version, info.api, info.store);
    run(&engine, "localhost/ipcr-conformance").await;
    source_and_sink(Arc::new(engine), true).await;
}

#[tokio::test]
async fn podman_conforms() {
    let Some(podman) = Podman::start().await else { return };
    let engine = DockerEngine::connect(&podman.endpoint()).await.unwrap();
    let info = engine.info().await.unwrap();
    assert_eq!((info.name.as_str(), info.store, info.reads_zstd), ("Podman", EngineStore::Podman, true));
    println!("Podman {} (API {})", info.version, info.api);
    run(&engine, "localhost/ipcr-conformance").await;

    // A name without a host gets Podman's own, not Docker Hub's.
    let sample = Sample::new("names");
    engine.load(sample.archive(&[], &[])).await.unwrap();
    engine.tag(&sample.id().to_string(), "app:1").await.unwrap();
    assert_eq!(engine.image("app:1").await.unwrap().unwrap().names, ["localhost/app:1"]);
    engine.remove("app:1").await.unwrap();

    source_and_sink(Arc::new(engine), false).await;

    let mut discovery = Discovery::default();
    discovery.docker_host = Some(podman.endpoint());
    for kind in [EngineKind::Docker, EngineKind::Podman] {
        assert_eq!(discovery.discover(kind).await.unwrap().info().await.unwrap().name, "Podman");
    }
}

/// Two images through the adapters, into the engine and out again.
async fn source_and_sink(engine: Arc<dyn Engine>, skips: bool) {
    let sink = |name: &str| Box::new(EngineSink::new(Arc::clone(&engine), Some(name.into()), "the engine"));
    let name = |tag: &str| format!("localhost/ipcr-adapters:{}-{tag}", std::process::id());
    let first = Sample::new("adapters");
    let second = first.upon();
    let (asked, delivered) = first.deliver(sink(&name("1")), Some("never/used:1")).await.unwrap();
    assert_eq!((asked, delivered.image_id), (vec![0, 1, 2], Some(first.id())));
    let (asked, _) = second.deliver(sink(&name("2")), None).await.unwrap();
    assert_eq!(asked, if skips { vec![2] } else { vec![0, 1, 2] });
    assert_eq!(second.deliver(sink(&name("2")), None).await.unwrap().0, [] as [usize; 0]);
    for (sample, tag) in [(&first, "1"), (&second, "2")] {
        let image = engine.image(&name(tag)).await.unwrap().unwrap();
        assert_eq!((image.id, image.names), (sample.id(), vec![name(tag)]));
        let source = EngineSource::new(Arc::clone(&engine), name(tag), "the engine");
        let Opened::Export(export) = source.open().await.unwrap() else { panic!("it has no manifests") };
        let mut ways = vec![export];
        let in_place = source.open_in_place(&source.inspect().await.unwrap()).await;
        // Whoever may read the folders of a Docker on this machine does not need its export.
        let must = skips && std::env::var_os("IPCR_TEST_REQUIRE_PEERS").is_some();
        assert!(in_place.is_some() || !must, "nothing was read in place");
        ways.extend(in_place);
        for export in ways {
            assert_eq!(read(export).await, (sample.config.clone(), sample.diff_ids()));
        }
    }
    // A wrong layer: the engine refuses it, and keeps what it had.
    let wrong = Sample { layers: Sample::new("wrong").layers, config: Sample::new("right").config };
    let error = wrong.deliver(sink(&name("3")), None).await.unwrap_err();
    println!("{error}");
    assert!(engine.image(&wrong.id().to_string()).await.unwrap().is_none());
    assert!(engine.image(&name("3")).await.unwrap().is_none());
    for tag in ["1", "2"] {
        engine.remove(&name(tag)).await.unwrap();
    }
}

/// The configuration and the layers of an exported image, lowest first.
async fn read(mut export: Box<dyn Export>) -> (Vec<u8>, Vec<digest::Digest>) {
    let (mut layers, mut told) = (std::collections::HashMap::new(), 0);
    while let Some(mut layer) = export.next_layer().await.unwrap() {
        let mut bytes = Vec::new();
        layer.data.read_to_end(&mut bytes).await.unwrap();
        let digest = digest::Digest::sha256(&bytes);
        told += usize::from(layer.diff_id.is_some_and(|diff_id| diff_id == digest));
        assert!(layer.diff_id.is_none_or(|diff_id| diff_id == digest), "a wrong expectation");
        layers.insert(layer.key, digest);
    }
    // All are recognised before they are read, but for the top layer of Docker 20.10.
    assert!(told >= 2, "{told} layers are recognised");
    let image = export.images().await.unwrap().remove(0);
    (image.config.to_vec(), image.layers.iter().map(|key| layers[key]).collect())
}

/// A large image goes into Docker in steps, of which nothing stays, also where it is given up halfway.
#[tokio::test]
async fn docker_loads_in_steps() {
    let Some(engine) = docker().await else { return };
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let name = format!("localhost/ipcr-steps:{}", std::process::id());
    let sample = Sample::sized("steps", &[26, 1, 26, 9]);
    let lowest = sample.diff_ids()[0];
    let of_sample = async || {
        let images = engine.images().await.unwrap();
        images.into_iter().filter(|image| image.diff_ids.first() == Some(&lowest)).collect::<Vec<_>>()
    };
    for written in [1, 2, 4] {
        let tidying = tokio_util::task::TaskTracker::new();
        let sink = EngineSink::new(Arc::clone(&engine), Some(name.clone()), "the engine").tidying(tidying.clone());
        let mut sink: Box<dyn port::image::ImageSink> = Box::new(sink);
        let needs = sink.plan(&sample.parts(None)).await.unwrap();
        for (need, layer) in needs.iter().zip(&sample.layers).take(written) {
            sink.write(need, layer.len() as u64, conformance::stream(layer.clone())).await.unwrap();
        }
        let begun = Instant::now();
        while of_sample().await.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no step after {written} layers");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(sink);
        tidying.close();
        tidying.wait().await;
        assert_eq!(of_sample().await, [], "after {written} layers");
    }
    let sink = EngineSink::new(Arc::clone(&engine), Some(name.clone()), "the engine");
    sample.deliver(Box::new(sink), None).await.unwrap();
    let images = of_sample().await;
    assert_eq!((images.len(), images[0].id), (1, sample.id()));
    assert_eq!((&images[0].names, &images[0].diff_ids), (&vec![name.clone()], &sample.diff_ids()));
    engine.remove(&name).await.unwrap();
}

#[tokio::test]
async fn docker_is_not_podman() {
    let Some(engine) = docker().await else { return };
    let mut discovery = Discovery::default();
    discovery.container_host = Some(engine.info().await.unwrap().endpoint);
    let error = discovery.discover(EngineKind::Podman).await.unwrap_err();
    assert!(matches!(error, EngineError::Absent { source: Some(_), .. }), "{error:?}");
}

#[tokio::test]
async fn a_long_archive_that_is_none_is_refused_in_the_engines_words() {
    let Some(engine) = docker().await else { return };
    // Far more than any buffer between here and the engine: it answers while it is still being sent.
    let long = Box::pin(tokio::io::repeat(0x55).take(256 << 20));
    let error = engine.load(long).await.unwrap_err();
    let EngineError::Refused { message, .. } = &error else { panic!("{error:?}") };
    assert!(message.contains("tar"), "{message}");
}

#[tokio::test]
async fn dropping_a_load_ends_it() {
    let Some(engine) = docker().await else { return };
    let engine = Arc::new(engine);
    let sample = Sample::new("dropped");
    let (reader, mut writer) = tokio::io::duplex(64 << 10);
    let archive = sample.bytes(&[], &[]);
    let loading = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.load(Box::pin(reader)).await }
    });
    writer.write_all(&archive[..archive.len() / 2]).await.unwrap();
    loading.abort();
    assert!(loading.await.unwrap_err().is_cancelled());
    // The other end of the pipe notices: nobody reads any more.
    let rest = async { while writer.write_all(&[0; 4096]).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), rest).await.expect("the archive was dropped");
    assert_eq!(engine.image(&sample.id().to_string()).await.unwrap(), None);
}

#[tokio::test]
async fn an_archive_that_fails_at_its_very_end_is_an_error_too() {
    let Some(engine) = docker().await else { return };
    let sample = Sample::new("late");
    // The engine has got everything; only the end of the request is missing.
    let told = std::io::Error::new(std::io::ErrorKind::InvalidData, "wrong digest");
    match engine.load(failing(sample.bytes(&[], &[]), told)).await {
        Err(EngineError::Archive { source }) => assert_eq!(source.to_string(), "wrong digest"),
        other => panic!("{other:?}"),
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("loaded all the same: {}", engine.image(&sample.id().to_string()).await.unwrap().is_some());
    let _ = engine.remove(&sample.id().to_string()).await;
}
