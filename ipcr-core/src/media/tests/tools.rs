//! The programs whose files these are: each test writes for one of them and reads what it writes.

use std::path::Path;
use std::process::Command;

use tokio::io::AsyncReadExt;

use crate::digest::{Algorithm, Digest};
use crate::image::config::chain_ids;
use crate::image::media_type::{OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_ZSTD};
use crate::media::archive_file::ArchiveFileSink;
use crate::media::archive_sink::{ArchiveOptions, ArchiveSink};
use crate::media::docker_archive::{ArchiveFile, ArchiveStream};
use crate::media::oci_layout::{LayoutFolder, LayoutSink};
use crate::port::conformance::image::{
    assert_same, blobs, config, deliver, everything, gzip, layer, manifest, many_platforms, one_platform, plain,
};
use crate::port::image::{Blobs, ImageSource, Opened};
use crate::port::memory::image::MemoryImage;

/// Whether these programs are installed. Where everything is meant to be there, a missing one is a failure.
fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join(program).is_file());
        !found
    });
    match missing {
        None => true,
        Some(program) if std::env::var_os("CI").is_some() => panic!("{program} is not installed"),
        Some(program) => {
            eprintln!("SKIPPED: {program} is not installed");
            false
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("DOCKER_API_VERSION", "1.41").output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn docker() -> bool {
    if !have(&["docker"]) {
        return false;
    }
    let answers = Command::new("docker").arg("version").env("DOCKER_API_VERSION", "1.41").output().unwrap();
    if !answers.status.success() {
        assert!(std::env::var_os("CI").is_none(), "no engine answers");
        eprintln!("SKIPPED: no engine answers");
    }
    answers.status.success()
}

/// An image that no other test run has, with three distinct layers, one of them twice.
fn fresh(text: &str, zstd: bool) -> (MemoryImage, String, Vec<Digest>) {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let text = format!("{text}-{}-{time}", std::process::id());
    let image = MemoryImage::new();
    let tars = [layer(&format!("{text}-a"), 5000), layer(&format!("{text}-b"), 50_000), layer(&format!("{text}-c"), 1)];
    let mut layers = vec![
        image.add(OCI_LAYER_GZIP, Algorithm::Sha256, gzip(&tars[0])),
        image.add(OCI_LAYER_GZIP, Algorithm::Sha256, gzip(&tars[1])),
        image.add(OCI_LAYER_GZIP, Algorithm::Sha256, gzip(&tars[2])),
    ];
    if zstd {
        layers[1] = image.add(OCI_LAYER_ZSTD, Algorithm::Sha256, zstd::encode_all(&tars[1][..], 1).unwrap());
    }
    layers.push(layers[0].clone());
    let diff_ids: Vec<Digest> = [0, 1, 2, 0].iter().map(|at: &usize| Digest::sha256(&tars[*at])).collect();
    let config = image.add(OCI_CONFIG, Algorithm::Sha256, config(&diff_ids, "amd64"));
    let id = config.digest.to_string();
    image.set_root(manifest(&image, &config, &layers, None), None);
    (image, id, diff_ids)
}

/// Checks that an archive of another program holds this image, whatever it made of its layers' compression.
async fn holds(source: &dyn ImageSource, diff_ids: &[Digest], id: Option<&str>) {
    let mut found = Vec::new();
    match source.open().await.unwrap() {
        Opened::Blobs(blobs) => {
            for ((_, media_type), bytes) in everything(&*blobs).await {
                if media_type.contains(".layer.") || media_type.contains("rootfs.diff") {
                    found.push(Digest::sha256(&plain(&bytes)));
                }
            }
        }
        Opened::Export(mut export) => {
            while let Some(mut layer) = export.next_layer().await.unwrap() {
                let mut bytes = Vec::new();
                layer.data.read_to_end(&mut bytes).await.unwrap();
                found.push(Digest::sha256(&plain(&bytes)));
            }
            if export.manifests().await.unwrap().is_none() {
                let image = export.images().await.unwrap().remove(0);
                assert!(id.is_none_or(|id| Digest::sha256(&image.config).to_string() == id));
                assert_eq!(image.layers.len(), diff_ids.len());
            }
        }
    }
    for diff_id in diff_ids {
        assert!(found.contains(diff_id), "{diff_id}");
    }
}

async fn write(image: &dyn Blobs, path: &Path, options: ArchiveOptions, name: &str) {
    deliver(image, Box::new(ArchiveFileSink::new(path, options)), Some(name)).await.unwrap();
}

#[tokio::test]
async fn docker_loads_and_saves() {
    if !docker() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("archive.tar");
    let path = file.to_str().unwrap();
    let name = format!("ipcr-media-{}:1", std::process::id());
    // With a layout in it, and without because a layer was decompressed.
    let (whole, id, _) = fresh("docker", false);
    write(&*blobs(&whole).await, &file, ArchiveOptions::docker(), &name).await;
    run("docker", &["load", "-q", "-i", path]);
    assert_eq!(run("docker", &["inspect", "-f", "{{.Id}}", &name]).trim(), id);
    run("docker", &["rmi", &name]);
    let (image, id, diff_ids) = fresh("docker", true);
    write(&*blobs(&image).await, &file, ArchiveOptions::docker(), &name).await;
    run("docker", &["load", "-q", "-i", path]);
    assert_eq!(run("docker", &["inspect", "-f", "{{.Id}}", &name]).trim(), id);

    let saved = folder.path().join("saved.tar");
    run("docker", &["save", "-o", saved.to_str().unwrap(), &name]);
    holds(&ArchiveFile::new(&saved, Some(name.clone())), &diff_ids, Some(&id)).await;
    let stream = Box::pin(tokio::fs::File::open(&saved).await.unwrap());
    holds(&ArchiveStream::new(stream, "-"), &diff_ids, Some(&id)).await;

    // A second image on top of it: the layers that the engine has are left out.
    let top = layer(&format!("{name}-top"), 777);
    let mut all = diff_ids.clone();
    all.push(Digest::sha256(&top));
    let manifests = blobs(&image).await;
    let parts = crate::port::conformance::image::gather(&*manifests, None).await;
    let mut layers = parts.images[0].layers.clone();
    layers.push(image.add(OCI_LAYER_GZIP, Algorithm::Sha256, gzip(&top)));
    let config = image.add(OCI_CONFIG, Algorithm::Sha256, config(&all, "amd64"));
    image.set_root(manifest(&image, &config, &layers, None), None);
    let mut options = ArchiveOptions::docker();
    options.skip_chains = chain_ids(&diff_ids).into_iter().collect();
    let second = format!("ipcr-media-{}:2", std::process::id());
    options.repo_tags = vec![second.clone()];
    let parts = crate::port::conformance::image::gather(&*blobs(&image).await, None).await;
    let mut sink = ArchiveSink::new(tokio::io::sink(), "engine", options.clone());
    assert_eq!(crate::port::image::ImageSink::plan(&mut sink, &parts).await.unwrap().len(), 1);
    write(&*blobs(&image).await, &file, options, "ignored:1").await;
    run("docker", &["load", "-q", "-i", path]);
    assert_eq!(run("docker", &["inspect", "-f", "{{.Id}}", &second]).trim(), config.digest.to_string());
    run("docker", &["rmi", &name, &second]);
}

#[tokio::test]
async fn podman_loads_and_saves() {
    if !have(&["podman"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let podman = |arguments: &[&str]| {
        let (root, state) = (at("root"), at("state"));
        let own = ["--root", &root, "--runroot", &state, "--storage-driver", "vfs"];
        run("podman", &own.into_iter().chain(arguments.iter().copied()).collect::<Vec<_>>())
    };
    let (image, id, diff_ids) = fresh("podman", true);
    let whole = one_platform();
    let name = "hub.test/app:1";
    // Without a layout (a zstd layer was decompressed), and with one.
    write(&*blobs(&image).await, Path::new(&at("a.tar")), ArchiveOptions::docker(), name).await;
    podman(&["load", "-q", "-i", &at("a.tar")]);
    let found = podman(&["inspect", "--type", "image", "-f", "{{.Id}}", name]);
    assert_eq!(format!("sha256:{}", found.trim()), id);
    podman(&["save", "-q", "--format", "docker-archive", "-o", &at("docker.tar"), name]);
    holds(&ArchiveFile::new(at("docker.tar"), None), &diff_ids, Some(&id)).await;
    let stream = Box::pin(tokio::fs::File::open(at("docker.tar")).await.unwrap());
    holds(&ArchiveStream::new(stream, "-"), &diff_ids, Some(&id)).await;
    podman(&["save", "-q", "--format", "oci-archive", "-o", &at("oci.tar"), name]);
    holds(&ArchiveFile::new(at("oci.tar"), None), &diff_ids, None).await;

    let mut options = ArchiveOptions::docker();
    options.zstd = true;
    write(&*blobs(&whole).await, Path::new(&at("b.tar")), options, "hub.test/whole:1").await;
    podman(&["load", "-q", "-i", &at("b.tar")]);
    podman(&["inspect", "--type", "image", "hub.test/whole:1"]);
    // Its storage has folders that nobody may remove otherwise.
    podman(&["rmi", "--all", "--force"]);
}

#[tokio::test]
async fn skopeo_reads_and_writes() {
    if !have(&["skopeo"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let image = blobs(&many_platforms()).await;
    deliver(&*image, Box::new(LayoutSink::new(at("layout"), Some("1".into()))), Some("app:1")).await.unwrap();
    let raw = run("skopeo", &["inspect", "--raw", &format!("oci:{}:1", at("layout"))]);
    assert_eq!(Digest::sha256(raw.as_bytes()), image.root().digest);

    // Its own copies of one platform, into a folder, a file and a stream.
    let (image, _, diff_ids) = fresh("skopeo", false);
    let image = blobs(&image).await;
    deliver(&*image, Box::new(LayoutSink::new(at("layout"), Some("2".into()))), None).await.unwrap();
    let from = format!("oci:{}:2", at("layout"));
    run("skopeo", &["copy", "-q", &from, &format!("oci:{}:3", at("copied"))]);
    run("skopeo", &["copy", "-q", &from, &format!("oci-archive:{}:3", at("copied.tar"))]);
    run("skopeo", &["copy", "-q", &from, &format!("docker-archive:{}:app:3", at("docker.tar"))]);
    for source in [
        Box::new(LayoutFolder::new(at("copied"), Some("3".into()))) as Box<dyn ImageSource>,
        Box::new(ArchiveFile::new(at("copied.tar"), Some("3".into()))),
    ] {
        let found = blobs(&*source).await;
        assert_eq!(found.root().digest, image.root().digest);
        assert_same(&*found, &*image).await;
    }
    holds(&ArchiveFile::new(at("docker.tar"), Some("app:3".into())), &diff_ids, None).await;
    // The digest survives a stream: every blob was yielded by it.
    let stream = Box::pin(tokio::fs::File::open(at("copied.tar")).await.unwrap());
    let Opened::Export(mut export) = ArchiveStream::new(stream, "-").open().await.unwrap() else { panic!("a stream") };
    let mut yielded = Vec::new();
    while let Some(layer) = export.next_layer().await.unwrap() {
        yielded.push(layer.digest.unwrap());
    }
    let kept = export.manifests().await.unwrap().unwrap();
    assert_eq!(kept.root().digest, image.root().digest);
    assert_eq!(yielded.len(), 3);

    // And it reads archives of both kinds.
    write(&*image, Path::new(&at("ours.tar")), ArchiveOptions::oci(), "app:4").await;
    let raw = run("skopeo", &["inspect", "--raw", &format!("oci-archive:{}:4", at("ours.tar"))]);
    assert_eq!(Digest::sha256(raw.as_bytes()), image.root().digest);
    write(&*image, Path::new(&at("ours.tar")), ArchiveOptions::docker(), "app:4").await;
    run("skopeo", &["copy", "-q", &format!("docker-archive:{}:app:4", at("ours.tar")), &format!("dir:{}", at("dir"))]);
}

#[tokio::test]
async fn umoci_reads_and_writes() {
    if !have(&["umoci"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let path = layout.to_str().unwrap();
    run("umoci", &["init", "--layout", path]);
    run("umoci", &["new", "--image", &format!("{path}:made")]);
    let (image, _, _) = fresh("umoci", true);
    let image = blobs(&image).await;
    deliver(&*image, Box::new(LayoutSink::new(&layout, Some("added".into()))), None).await.unwrap();
    assert_eq!(run("umoci", &["list", "--layout", path]).lines().count(), 2);
    run("umoci", &["stat", "--image", &format!("{path}:added")]);
    let made = blobs(&LayoutFolder::new(&layout, Some("made".into()))).await;
    assert_eq!(everything(&*made).await.len(), 2);
    let added = blobs(&LayoutFolder::new(&layout, Some("added".into()))).await;
    assert_same(&*added, &*image).await;
}

/// containerd, started for one test.
struct Containerd {
    process: std::process::Child,
    folder: tempfile::TempDir,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Containerd {
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("config.toml"), "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n").unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let process = Command::new("containerd")
            .args(["-c", &at("config.toml"), "--root", &at("root"), "--state", &at("state"), "-a", &at("socket")])
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self { process, folder };
        for _ in 0..100 {
            if started.ctr(&["version"]).status.success() {
                return Some(started);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        None
    }

    fn ctr(&self, arguments: &[&str]) -> std::process::Output {
        let socket = self.folder.path().join("socket");
        let mut command = Command::new("ctr");
        command.arg("-a").arg(socket).args(["-n", "ipcr-media"]).args(arguments).output().unwrap()
    }
}

#[tokio::test]
async fn containerd_imports() {
    if !have(&["containerd", "ctr"]) {
        return;
    }
    let Some(containerd) = Containerd::start() else {
        assert!(std::env::var_os("CI").is_none(), "containerd does not start");
        eprintln!("SKIPPED: containerd does not start");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("archive.tar");
    let path = file.to_str().unwrap();
    // With a layout, and without one because a layer was decompressed.
    for (zstd, name) in [(false, "hub.test/whole:1"), (true, "hub.test/plain:1")] {
        let (image, _, _) = fresh("containerd", zstd);
        let image = blobs(&image).await;
        write(&*image, &file, ArchiveOptions::docker(), name).await;
        let output = containerd.ctr(&["images", "import", "--snapshotter", "native", path]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listed = String::from_utf8(containerd.ctr(&["images", "ls"]).stdout).unwrap();
        let line = listed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{listed}"));
        assert!(zstd || line.contains(&image.root().digest.to_string()), "{listed}");
    }
}

#[tokio::test]
async fn buildah_reads_and_writes() {
    if !have(&["buildah"]) {
        return;
    }
    // It takes paths for names, which must be in lower case.
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("ipcr-media-{}-{time}", std::process::id());
    let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let buildah = |arguments: &[&str]| {
        let (root, state) = (at("root"), at("state"));
        let own = ["--root", &root, "--runroot", &state, "--storage-driver", "vfs"];
        run("buildah", &own.into_iter().chain(arguments.iter().copied()).collect::<Vec<_>>())
    };
    let (image, id, diff_ids) = fresh("buildah", false);
    let image = blobs(&image).await;
    deliver(&*image, Box::new(LayoutSink::new(at("layout"), Some("1".into()))), None).await.unwrap();
    let pulled = buildah(&["pull", "-q", &format!("oci:{}:1", at("layout"))]);
    assert_eq!(format!("sha256:{}", pulled.trim()), id);
    buildah(&["push", "-q", pulled.trim(), &format!("oci:{}:2", at("pushed"))]);
    holds(&LayoutFolder::new(at("pushed"), None), &diff_ids, None).await;
    buildah(&["push", "-q", pulled.trim(), &format!("oci-archive:{}:2", at("pushed.tar"))]);
    holds(&ArchiveFile::new(at("pushed.tar"), Some("2".into())), &diff_ids, None).await;
    buildah(&["rmi", "--all", "--force"]);
}
