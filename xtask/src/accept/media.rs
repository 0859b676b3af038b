//! Media that checks write and read: layouts made by hand, an OCI registry, Podman.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use super::lab::{Lab, Process, free_port, wait_for};
use super::site::require;
use crate::shell::{Result, output, run};

/// Podman with a store of its own.
pub(crate) struct Podman<'a> {
    lab: &'a Lab,
}

impl<'a> Podman<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Result<Self> {
        lab.peer("podman")?;
        Ok(Self { lab })
    }

    pub(crate) fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.lab.peer("podman")?);
        command.arg("--root").arg(self.lab.path("pr")).arg("--runroot").arg(self.lab.path("ps"));
        command
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"])
            .args(args);
        Ok(command)
    }

    pub(crate) fn output(&self, args: &[&str]) -> Result<String> {
        output(&mut self.command(args)?)
    }

    /// Starts the API where homes look for it.
    pub(crate) fn serve(&self) -> Result<Process> {
        let socket = self.lab.path("p.sock");
        let mut command = self.command(&["system", "service", "--time=0"])?;
        command.arg(format!("unix://{}", socket.display())).stdout(Stdio::null());
        let process = Process::start(&mut command, &self.lab.path("podman.log"))?;
        wait_for("Podman's service", Duration::from_secs(30), || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })?;
        Ok(process)
    }

    /// The ID of an image, as Docker spells it.
    pub(crate) fn id(&self, name: &str) -> Result<String> {
        Ok(format!("sha256:{}", self.output(&["image", "inspect", "-f", "{{.Id}}", name])?))
    }
}

/// An OCI registry without any access control.
pub(crate) struct OciRegistry {
    pub(crate) host: String,
    _process: Process,
}

impl OciRegistry {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let host = format!("127.0.0.1:{}", free_port()?);
        let config = lab.path("registry.yml");
        let data = lab.path(&format!("registry-{}", host.replace(':', "-")));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
            data.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(lab.peer("docker-registry")?);
        command.arg("serve").arg(config).stdout(Stdio::null());
        let process = Process::start(&mut command, &lab.path("registry.log"))?;
        wait_for("the OCI registry", Duration::from_secs(30), || std::net::TcpStream::connect(&host).is_ok())?;
        Ok(Self { host, _process: process })
    }
}

/// containerd with a store of its own.
pub(crate) struct Containerd {
    socket: PathBuf,
    _process: Process,
}

impl Containerd {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let (socket, config) = (lab.path("c.sock"), lab.path("c.toml"));
        // Nothing but what an import needs, so that nothing of the machine is used.
        fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
        let mut command = Command::new(lab.peer("containerd")?);
        command.arg("--config").arg(config).arg("--address").arg(&socket);
        command.arg("--root").arg(lab.path("cr")).arg("--state").arg(lab.path("cs")).stdout(Stdio::null());
        let process = Process::start(&mut command, &lab.path("containerd.log"))?;
        let containerd = Self { socket, _process: process };
        wait_for("containerd", Duration::from_secs(30), || containerd.ctr(&["version"]).is_ok())?;
        Ok(containerd)
    }

    fn ctr(&self, args: &[&str]) -> Result<String> {
        output(Command::new("ctr").arg("--address").arg(&self.socket).args(args))
    }

    /// Imports an archive, which names its image, and takes the image away again.
    pub(crate) fn imports(&self, file: &str, name: &str) -> Result {
        self.ctr(&["images", "import", "--no-unpack", file])?;
        let images = self.ctr(&["images", "ls", "-q"])?;
        let found = images.lines().find(|image| image.ends_with(name));
        let found = found.ok_or_else(|| format!("containerd has {images:?} after importing {name}"))?;
        self.ctr(&["images", "check", &format!("name=={found}")])?;
        self.ctr(&["images", "rm", "--sync", found]).map(drop)
    }
}

/// What skopeo prints.
pub(crate) fn skopeo(lab: &Lab, args: &[&str]) -> Result<String> {
    let mut command = Command::new(lab.peer("skopeo")?);
    output(command.arg("--insecure-policy").args(args))
}

/// The digest and the image ID that skopeo finds.
pub(crate) fn skopeo_finds(lab: &Lab, image: &str) -> Result<(String, String)> {
    let inspect = |what: &[&str]| {
        let mut command = Command::new(lab.peer("skopeo")?);
        command.args(["--insecure-policy", "inspect", "--tls-verify=false"]).args(what).arg(image);
        // Every byte counts.
        let output = command.stdin(Stdio::null()).output()?;
        let talk = String::from_utf8_lossy(&output.stderr);
        require(output.status.success(), || format!("skopeo inspect {what:?} {image}: {talk}"))?;
        Result::Ok(sha256(&output.stdout))
    };
    Ok((inspect(&["--raw"])?, inspect(&["--config", "--raw"])?))
}

/// `sha256:…`
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// Bytes that nothing compresses and nobody has seen before.
pub(crate) fn noise(bytes: usize) -> Result<Vec<u8>> {
    let mut noise = vec![0; bytes];
    fs::File::open("/dev/urandom")?.read_exact(&mut noise)?;
    Ok(noise)
}

/// An OCI image layout that is made by hand.
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

/// Media types.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

impl Layout {
    /// An empty one.
    pub(crate) fn create(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
        let layout = Self { dir };
        if !layout.dir.join("index.json").exists() {
            layout.write_index(&[])?;
        }
        Ok(layout)
    }

    /// The descriptors of `index.json`.
    pub(crate) fn entries(&self) -> Result<Vec<Value>> {
        let index: Value = serde_json::from_slice(&fs::read(self.dir.join("index.json"))?)?;
        Ok(index["manifests"].as_array().cloned().unwrap_or_default())
    }

    fn write_index(&self, entries: &[Value]) -> Result {
        let index = json!({ "schemaVersion": 2, "manifests": entries });
        Ok(fs::write(self.dir.join("index.json"), index.to_string())?)
    }

    /// Lists a descriptor in `index.json`, under a reference name if one is given.
    pub(crate) fn list(&self, descriptor: &Value, name: Option<&str>) -> Result {
        let mut entries = self.entries()?;
        let mut entry = descriptor.clone();
        if let Some(name) = name {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        entries.push(entry);
        self.write_index(&entries)
    }

    /// The path of a blob.
    pub(crate) fn path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replacen(':', "/", 1))
    }

    /// Adds a blob and describes it.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        self.add(media_type, sha256(bytes), bytes)
    }

    /// The same under a SHA-512 digest.
    pub(crate) fn blob512(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        self.add(media_type, sha512(bytes), bytes)
    }

    fn add(&self, media_type: &str, digest: String, bytes: &[u8]) -> Result<Value> {
        let path = self.path(&digest);
        fs::create_dir_all(path.parent().ok_or("blobs are in a folder")?)?;
        fs::write(path, bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }

    /// Adds a document.
    pub(crate) fn document(&self, media_type: &str, document: &Value) -> Result<Value> {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Adds an image of these layers (descriptor and uncompressed digest), for a platform such as `linux/arm/v7`; `more` are
    /// further members of the manifest.
    pub(crate) fn image(&self, platform: &str, layers: &[(Value, String)], more: &Value) -> Result<Value> {
        let parts: Vec<&str> = platform.split('/').collect();
        let diff_ids: Vec<&str> = layers.iter().map(|(_, diff_id)| diff_id.as_str()).collect();
        let mut config = json!({
            "created": "2026-01-02T03:04:05Z",
            "config": { "Env": ["IPCR=1"], "x-unknown": [1, null, "é"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "x-unknown": { "deep": [{}] },
        });
        let mut described = json!({});
        for (key, part) in ["os", "architecture", "variant"].iter().zip(&parts) {
            config[*key] = (*part).into();
            described[*key] = (*part).into();
        }
        let config = self.document(CONFIG, &config)?;
        let layers: Vec<&Value> = layers.iter().map(|(layer, _)| layer).collect();
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        for (key, value) in more.as_object().into_iter().flatten() {
            manifest[key] = value.clone();
        }
        let mut descriptor = self.document(MANIFEST, &manifest)?;
        if !platform.is_empty() {
            descriptor["platform"] = described;
        }
        Ok(descriptor)
    }

    /// Adds an artifact that refers to `subject`, with one blob of its own; without one its layer is the empty blob too.
    pub(crate) fn artifact(&self, kind: &str, subject: Option<&Value>, blob: Option<(&str, &[u8])>) -> Result<Value> {
        let empty = self.blob(EMPTY, b"{}")?;
        let layer = match blob {
            Some((media_type, bytes)) => self.blob(media_type, bytes)?,
            None => empty.clone(),
        };
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": empty, "layers": [layer],
            "annotations": { "org.opencontainers.image.created": "2026-01-02T03:04:05Z", "x": "ä\"\\" },
        });
        if let Some(subject) = subject {
            manifest["subject"] =
                json!({ "mediaType": subject["mediaType"], "digest": subject["digest"], "size": subject["size"] });
        }
        let mut descriptor = self.document(MANIFEST, &manifest)?;
        descriptor["artifactType"] = kind.into();
        Ok(descriptor)
    }

    /// Adds an index; `more` are further members.
    pub(crate) fn index(&self, members: &[&Value], more: &Value) -> Result<Value> {
        let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": members });
        for (key, value) in more.as_object().into_iter().flatten() {
            index[key] = value.clone();
        }
        self.document(INDEX, &index)
    }

    /// Paths below `blobs` of everything in the layout.
    pub(crate) fn blobs(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for algorithm in fs::read_dir(self.dir.join("blobs"))? {
            let algorithm = algorithm?;
            for blob in fs::read_dir(algorithm.path())? {
                let name = format!("{}/{}", algorithm.file_name().display(), blob?.file_name().display());
                found.insert(name);
            }
        }
        Ok(found)
    }

    /// What a blob is, by its digest.
    pub(crate) fn read(&self, descriptor: &Value) -> Result<Vec<u8>> {
        let digest = descriptor["digest"].as_str().ok_or("a descriptor has a digest")?;
        Ok(fs::read(self.path(digest))?)
    }
}

/// A layer of these files: its archive.
pub(crate) fn tar(lab: &Lab, files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let dir = lab.path(&format!("tar-{}", hex(&noise(6)?)));
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().ok_or("files are in a folder")?)?;
        fs::write(path, bytes)?;
    }
    fs::create_dir_all(&dir)?;
    let archive = dir.with_extension("tar");
    let names: BTreeSet<&str> = files.iter().filter_map(|(name, _)| name.split('/').next()).collect();
    let mut command = Command::new("tar");
    command.arg("-C").arg(&dir).args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf"]).arg(&archive);
    if names.is_empty() {
        command.args(["-T", "/dev/null"]);
    }
    output(command.args(names))?;
    let bytes = fs::read(&archive)?;
    fs::remove_file(archive)?;
    fs::remove_dir_all(dir)?;
    Ok(bytes)
}

/// Compressed by gzip.
pub(crate) fn gzip(lab: &Lab, bytes: &[u8]) -> Result<Vec<u8>> {
    filter(lab, Command::new("gzip").args(["-n", "-6", "-c"]), bytes)
}

/// What a filter makes of bytes.
pub(crate) fn filter(lab: &Lab, command: &mut Command, bytes: &[u8]) -> Result<Vec<u8>> {
    let file = lab.path(&format!("filter-{}", hex(&noise(6)?)));
    fs::write(&file, bytes)?;
    let result = command.stdin(fs::File::open(&file)?).output()?;
    fs::remove_file(file)?;
    require(result.status.success(), || String::from_utf8_lossy(&result.stderr).into_owned())?;
    Ok(result.stdout)
}

/// Builds an image of a few small layers with the laboratory's engine; returns its ID.
pub(crate) fn tiny(lab: &Lab, name: &str) -> Result<String> {
    if let Ok(id) = lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", name]) {
        return Ok(id);
    }
    let context = lab.path(&format!("build-{}", name.replace([':', '/'], "-")));
    fs::create_dir_all(&context)?;
    for file in ["a", "b", "c"] {
        fs::write(context.join(file), noise(150 << 10)?)?;
    }
    let text = "FROM scratch\nCOPY a /a\nCOPY b /x/b\nCOPY c /x/c\nLABEL ipcr=1\nCMD [\"/a\"]\n";
    fs::write(context.join("Dockerfile"), text)?;
    run(lab.docker(&["build", "-q", "--network", "none", "-t", name])?.arg(&context))?;
    fs::remove_dir_all(&context)?;
    lab.docker_output(&["image", "inspect", "-f", "{{.Id}}", name])
}

/// The names of all images of the engine.
pub(crate) fn docker_names(lab: &Lab) -> Result<BTreeSet<String>> {
    let listed = lab.docker_output(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
    Ok(listed.lines().filter(|name| !name.starts_with("<none>")).map(str::to_owned).collect())
}
