//! Registries: Debian's `docker-registry` on a port of its own, with `skopeo` as the judge, and servers that misbehave. Where a
//! program is missing the test says `SKIPPED: why`, or fails when `IPCR_TEST_REQUIRE_PEERS` is set.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail and tell like tests")]

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use ipcr_core::digest::Digest;
use ipcr_core::image::descriptor::Descriptor;
use ipcr_core::kind::{Cause, ErrorKind};
use ipcr_core::media::registry::credentials::{Credentials, Login};
use ipcr_core::media::registry::sink::RegistrySink;
use ipcr_core::media::registry::source::RegistrySource;
use ipcr_core::media::registry::{RegistryError, RegistryOptions};
use ipcr_core::net::{HostLookup, HttpClient, HttpPolicy, Reach};
use ipcr_core::port::image::{Blobs, ImageError, ImageParts, ImageSource, Opened};
use tokio::io::AsyncReadExt;
// What the conformance suite finds under `crate::` inside the library.
use ipcr_core::{digest, image, port};

#[path = "../src/port/conformance/engine.rs"]
#[expect(dead_code, reason = "only its sample images are used here")]
mod conformance;

use conformance::{Sample, stream};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Debug)]
struct Localhost;

#[async_trait::async_trait]
impl HostLookup for Localhost {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Cause> {
        if host == "localhost" { Ok(vec![Ipv4Addr::LOCALHOST.into()]) } else { Err("only localhost is known".into()) }
    }
}

fn http() -> HttpClient {
    HttpClient::new(HttpPolicy::new(Reach::Loopback), Arc::new(Localhost)).unwrap()
}

fn skip(why: &str) {
    assert!(std::env::var_os("IPCR_TEST_REQUIRE_PEERS").is_none(), "needed by this run: {why}");
    println!("SKIPPED: {why}");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Registry {
    folder: tempfile::TempDir,
    service: Child,
    host: String,
}

impl Registry {
    async fn start(auth: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let host = format!("127.0.0.1:{}", free_port());
        // The user `me` has the password `s3cret`.
        let users = "me:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";
        std::fs::write(folder.path().join("users"), users).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\n\
             http: {{addr: '{host}'}}\n{}",
            auth.replace("USERS", &folder.path().join("users").display().to_string()),
            root = folder.path().join("data").display(),
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let service = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(service) = service else {
            skip("docker-registry is not installed");
            return None;
        };
        let registry = Self { folder, service, host };
        let begun = Instant::now();
        while http().naming(&registry.host).unwrap().get(&format!("http://{}/v2/", registry.host)).send().await.is_err()
        {
            assert!(begun.elapsed() < Duration::from_secs(20), "docker-registry does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

fn sink(host: &str, image: &str, options: RegistryOptions) -> Box<RegistrySink> {
    Box::new(RegistrySink::new(http(), format!("{host}/{image}").parse().unwrap(), options))
}

async fn opened(host: &str, image: &str, options: RegistryOptions) -> Result<Arc<dyn Blobs>, ImageError> {
    let source = RegistrySource::new(http(), format!("{host}/{image}").parse().unwrap(), options);
    match source.open().await? {
        Opened::Blobs(blobs) => Ok(blobs),
        Opened::Export(_) => panic!("a registry has manifests"),
    }
}

async fn read(blobs: &dyn Blobs, descriptor: &Descriptor) -> Bytes {
    let mut bytes = Vec::new();
    blobs.blob(descriptor).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert_eq!((Digest::sha256(&bytes), bytes.len() as u64), (descriptor.digest, descriptor.size));
    bytes.into()
}

fn skopeo(arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new("skopeo").args(arguments).output() {
        Err(_) => {
            skip("skopeo is not installed");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(output.stdout)
        }
    }
}

fn described(media_type: &str, json: &serde_json::Value) -> (Descriptor, Bytes) {
    let bytes = Bytes::from(serde_json::to_vec(json).unwrap());
    (Descriptor::new(media_type, Digest::sha256(&bytes), bytes.len() as u64), bytes)
}

/// Two platforms, and a signature that refers to the first one.
fn family(images: &[&Sample; 2]) -> ImageParts {
    let mut all: Vec<ImageParts> = images.iter().map(|sample| sample.parts(None)).collect();
    let members: Vec<serde_json::Value> = all
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(parts, architecture)| {
            let mut member = serde_json::to_value(&parts.root).unwrap();
            member["platform"] = serde_json::json!({ "architecture": architecture, "os": "linux" });
            member
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": members });
    let (root, bytes) = described(INDEX, &index);
    let empty = serde_json::json!({});
    let (mut config, config_bytes) = described("application/vnd.oci.empty.v1+json", &empty);
    config.artifact_type = None;
    let signature = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.signature",
        "config": config, "layers": [config], "subject": all[0].root,
    });
    let (signature, signature_bytes) = described(MANIFEST, &signature);
    let mut manifests = vec![(root.clone(), bytes)];
    manifests.extend(all.iter().flat_map(|parts| parts.manifests.clone()));
    manifests.push((signature.clone(), signature_bytes));
    let mut parts: Vec<_> = all.iter_mut().flat_map(|parts| std::mem::take(&mut parts.images)).collect();
    parts.push(port::image::ImagePart {
        manifest: signature.digest,
        config: (config, config_bytes),
        layers: Vec::new(),
        diff_ids: Vec::new(),
    });
    ImageParts { root, name: None, manifests, images: parts, absent: HashSet::new(), plain_sizes: HashMap::new() }
}

#[tokio::test]
async fn an_image_goes_there_and_back() {
    let Some(registry) = Registry::start("").await else { return };
    let (host, none) = (registry.host.as_str(), RegistryOptions::default);
    let sample = Sample::new("there");
    let root = sample.parts(None).root;
    let (asked, delivered) = sample.deliver(sink(host, "team/app:1", none()), None).await.unwrap();
    assert_eq!((asked, delivered.place), (vec![0, 1, 2], format!("docker://{host}/team/app:1")));
    assert_eq!(sample.deliver(sink(host, "team/app:2", none()), None).await.unwrap().0, [] as [usize; 0]);

    for name in ["team/app:1".to_owned(), "team/app:2".to_owned(), format!("team/app@{}", root.digest)] {
        let blobs = opened(host, &name, none()).await.unwrap();
        assert_eq!(blobs.root(), &root);
        let parts = sample.parts(None);
        for descriptor in parts.images[0].layers.iter().chain([&parts.images[0].config.0, &root]) {
            read(&*blobs, descriptor).await;
        }
        let mut absent = root.clone();
        for media_type in [MANIFEST, "application/octet-stream"] {
            absent.digest = Digest::sha256(b"absent");
            absent.media_type = media_type.into();
            assert!(matches!(blobs.blob(&absent).await, Err(ImageError::NoBlob { .. })));
        }
        assert!(blobs.referrers(&root.digest).await.unwrap().is_empty());
    }
    for name in ["team/app:3", "no/such:1"] {
        let error = opened(host, name, none()).await.unwrap_err();
        assert!(matches!(&error, ImageError::NoImage { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    let url = format!("docker://{host}/team/app:1");
    let Some(raw) = skopeo(&["inspect", "--raw", "--tls-verify=false", &url]) else { return };
    assert_eq!(Digest::sha256(&raw), root.digest);
    // The other way: what skopeo writes is read.
    let copy = format!("docker://{host}/copied:1");
    skopeo(&["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", &url, &copy]);
    let copied = opened(host, "copied:1", none()).await.unwrap();
    assert_eq!((copied.root(), copied.name()), (&root, Some(format!("{host}/copied:1"))));
}

#[tokio::test]
async fn a_whole_index_with_what_refers_to_it() {
    let Some(registry) = Registry::start("").await else { return };
    let (host, none) = (registry.host.as_str(), RegistryOptions::default);
    let first = Sample::new("first");
    let second = first.upon();
    let parts = family(&[&first, &second]);
    let bytes_of: HashMap<Digest, Vec<u8>> = [&first, &second]
        .iter()
        .flat_map(|sample| sample.layers.iter().map(|layer| conformance::gzip(layer)))
        .map(|bytes| (Digest::sha256(&bytes), bytes))
        .collect();
    for round in 0..2 {
        use ipcr_core::port::image::ImageSink;
        let mut sink: Box<dyn ImageSink> = sink(host, "family:1", none());
        let needs = sink.plan(&parts).await.unwrap();
        // Four different layers, and the empty blob of the signature is no layer of an image.
        assert_eq!(needs.len(), if round == 0 { 4 } else { 0 });
        for need in needs {
            let bytes = bytes_of[&need.blob.digest].clone();
            sink.write(&need, bytes.len() as u64, stream(bytes)).await.unwrap();
        }
        sink.finish().await.unwrap();
    }
    let blobs = opened(host, "family:1", none()).await.unwrap();
    assert_eq!(blobs.root(), &parts.root);
    for (descriptor, bytes) in &parts.manifests {
        assert_eq!(&read(&*blobs, descriptor).await, bytes);
    }
    // This registry has no referrers API: the tag stands in.
    let referrers = blobs.referrers(&parts.images[0].manifest).await.unwrap();
    assert_eq!(referrers.len(), 1);
    assert_eq!(referrers[0].digest, parts.manifests[3].0.digest);
    assert_eq!(referrers[0].artifact_type.as_deref(), Some("application/vnd.example.signature"));

    let layout = registry.folder.path().join("layout");
    let target = format!("oci:{}:1", layout.display());
    let url = format!("docker://{host}/family:1");
    let Some(_) = skopeo(&["copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false", &url, &target])
    else {
        return;
    };
    for blob in std::iter::once(&parts.root.digest).chain(bytes_of.keys()) {
        let path = Path::new(&layout).join(blob.layout_path());
        assert!(blob.matches(&std::fs::read(&path).unwrap()), "{}", path.display());
    }
}

#[tokio::test]
async fn a_layer_that_is_not_what_it_claims_to_be() {
    use ipcr_core::port::image::ImageSink;
    let Some(registry) = Registry::start("").await else { return };
    let (host, none) = (registry.host.as_str(), RegistryOptions::default);
    let sample = Sample::new("broken");
    let parts = sample.parts(None);
    let good = conformance::gzip(&sample.layers[0]);
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    let told = || std::io::Error::new(std::io::ErrorKind::InvalidData, "the layer is not what it claims to be");
    let cases = [
        (stream(flipped), ErrorKind::Failed),
        (stream(good[..good.len() - 1].to_vec()), ErrorKind::Unavailable),
        (conformance::failing(good[..good.len() - 1].to_vec(), told()), ErrorKind::Integrity),
    ];
    for (data, kind) in cases {
        let mut sink: Box<dyn ImageSink> = sink(host, "broken:1", none());
        let needs = sink.plan(&parts).await.unwrap();
        assert_eq!(needs.len(), 3);
        let error = sink.write(&needs[0], good.len() as u64, data).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(matches!(sink.finish().await, Err(ImageError::NoBlob { .. })));
    }
    assert!(matches!(opened(host, "broken:1", none()).await, Err(ImageError::NoImage { .. })));
    let by_digest = format!("broken@{}", Digest::sha256(b"other"));
    let error = sink(host, &by_digest, none()).plan(&parts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn with_a_password() {
    let auth = "auth: {htpasswd: {realm: test, path: USERS}}\n";
    let Some(registry) = Registry::start(auth).await else { return };
    let host = registry.host.as_str();
    let sample = Sample::new("password");
    let with = |login: Option<Login>| {
        let mut options = RegistryOptions::default();
        options.login = login;
        options
    };
    for login in [None, Some(Login::new("me", "wrong"))] {
        let error = sample.deliver(sink(host, "app:1", with(login)), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    }
    let file = format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6czNjcmV0"}}}}}}"#);
    let credentials = Credentials::parse(file.as_bytes()).unwrap();
    let login = credentials.login(host, "app").cloned();
    sample.deliver(sink(host, "app:1", with(login.clone())), None).await.unwrap();
    assert_eq!(opened(host, "app:1", with(login)).await.unwrap().root(), &sample.parts(None).root);
}

#[tokio::test]
async fn nobody_there() {
    let host = format!("127.0.0.1:{}", free_port());
    let error = opened(&host, "app:1", RegistryOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    // Plain http is for this machine only: another host is asked over https, and here not at all.
    let error = opened("192.0.2.1:5000", "app:1", RegistryOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
}

/// A server that answers as it is told and remembers what it was asked: method, path and query, authorization.
#[derive(Clone, Default)]
struct Played {
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
}

type Asked = (String, String, Option<String>);
type Answer = Arc<dyn Fn(Option<&str>) -> Response + Send + Sync>;

impl Played {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let app = Router::new().fallback(Self::answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        host
    }

    fn on(&self, path: &str, answer: impl Fn(Option<&str>) -> Response + Send + Sync + 'static) {
        self.answers.lock().unwrap().insert(path.to_owned(), Arc::new(answer));
    }

    #[expect(clippy::unused_async, reason = "handlers are")]
    async fn answer(State(played): State<Self>, request: Request) -> Response {
        let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let path = request.uri().path().to_owned();
        let whole = request.uri().to_string();
        played.asked.lock().unwrap().push((request.method().to_string(), whole, authorization.clone()));
        let answer = played.answers.lock().unwrap().get(&path).cloned();
        answer.map_or_else(|| status(404).body(Body::empty()).unwrap(), |answer| answer(authorization.as_deref()))
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn status(code: u16) -> axum::http::response::Builder {
    Response::builder().status(code)
}

fn challenge(realm: &str) -> Response {
    let header = format!("Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:app:pull\"");
    status(401).header("www-authenticate", header).body(Body::empty()).unwrap()
}

fn manifest(bytes: &Bytes) -> Response {
    status(200).header("content-type", MANIFEST).body(Body::from(bytes.clone())).unwrap()
}

fn me() -> RegistryOptions {
    let mut options = RegistryOptions::default();
    options.login = Some(Login::new("me", "s3cret"));
    options
}

#[tokio::test]
async fn with_a_token() {
    let (registry, tokens) = (Played::default(), Played::default());
    let (host, realm) = (registry.start().await, format!("http://{}/token", tokens.start().await));
    let bytes = Sample::new("token").parts(None).manifests[0].1.clone();
    registry.on("/v2/app/manifests/1", move |authorization| match authorization {
        Some("Bearer T") => manifest(&bytes),
        _ => challenge(&realm),
    });
    tokens.on("/token", |_| status(200).body(Body::from(r#"{"token":"T","expires_in":300}"#)).unwrap());
    let blobs = opened(&host, "app:1", me()).await.unwrap();
    let token = &tokens.asked()[0];
    assert_eq!(token.1, "/token?service=the%20registry&scope=repository%3Aapp%3Apull&account=me");
    assert_eq!(token.2.as_deref(), Some("Basic bWU6czNjcmV0"));
    // The registry itself never sees the password, and the token is kept.
    let _ = blobs.referrers(&Digest::sha256(b"")).await;
    assert_eq!(tokens.asked().len(), 1);
    assert!(registry.asked().iter().all(|(_, _, seen)| seen.as_deref().is_none_or(|seen| seen == "Bearer T")));
    // Anonymous: a token all the same.
    opened(&host, "app:1", RegistryOptions::default()).await.unwrap();
    assert_eq!(tokens.asked()[1].2, None);
}

#[tokio::test]
async fn credentials_do_not_travel() {
    let (registry, tokens, thief) = (Played::default(), Played::default(), Played::default());
    let (host, token_host, thief_host) = (registry.start().await, tokens.start().await, thief.start().await);

    // A token server elsewhere.
    registry.on("/v2/app/manifests/1", |_| challenge("https://evil.test/token"));
    let error = opened(&host, "app:1", me()).await.unwrap_err();
    let ImageError::Remote { kind: ErrorKind::Access, source, .. } = &error else { panic!("{error:?}") };
    assert!(
        matches!(source.downcast_ref(), Some(RegistryError::Realm { realm }) if realm == "https://evil.test/token")
    );

    // A token server that redirects, one that floods, one that has nothing.
    let realm = format!("http://{token_host}/token");
    registry.on("/v2/app/manifests/1", move |_| challenge(&realm));
    let elsewhere = format!("http://{thief_host}/stolen");
    tokens.on("/token", move |_| status(307).header("location", &elsewhere).body(Body::empty()).unwrap());
    assert!(opened(&host, "app:1", me()).await.is_err());
    tokens
        .on("/token", |_| status(200).body(Body::from(format!("{{\"token\":\"{}\"}}", "x".repeat(1 << 20)))).unwrap());
    assert_eq!(opened(&host, "app:1", me()).await.unwrap_err().kind(), ErrorKind::Integrity);
    tokens.on("/token", |_| status(200).body(Body::from("{}")).unwrap());
    assert_eq!(opened(&host, "app:1", me()).await.unwrap_err().kind(), ErrorKind::Integrity);
    assert!(thief.asked().is_empty());

    // A registry that redirects: what is behind gets the request, not the authorization, and cannot ask for one.
    let bytes = Sample::new("elsewhere").parts(None).manifests[0].1.clone();
    registry.on("/v2/app/manifests/1", move |authorization| match authorization {
        Some(_) => manifest(&bytes),
        None => status(401).header("www-authenticate", "Basic realm=\"x\"").body(Body::empty()).unwrap(),
    });
    let blob = Digest::sha256(b"blob");
    let elsewhere = format!("http://{thief_host}/blob");
    registry.on(&format!("/v2/app/blobs/{blob}"), move |_| {
        status(307).header("location", &elsewhere).body(Body::empty()).unwrap()
    });
    thief.on("/blob", |_| status(401).header("www-authenticate", "Basic realm=\"x\"").body(Body::empty()).unwrap());
    let blobs = opened(&host, "app:1", me()).await.unwrap();
    let descriptor = Descriptor::new("application/octet-stream", blob, 4);
    assert_eq!(blobs.blob(&descriptor).await.err().unwrap().kind(), ErrorKind::Access);
    thief.on("/blob", |_| status(200).body(Body::from("blob and much more")).unwrap());
    let mut bytes = Vec::new();
    blobs.blob(&descriptor).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"blob ", "one byte more than announced shows that it is too long");
    assert!(thief.asked().iter().all(|(_, _, authorization)| authorization.is_none()));

    // An upload whose place is elsewhere.
    let upload = format!("http://{thief_host}/upload?state=1");
    registry.on("/v2/app/blobs/uploads/", move |authorization| match authorization {
        Some(_) => status(202).header("location", &upload).body(Body::empty()).unwrap(),
        None => status(401).header("www-authenticate", "Basic realm=\"x\"").body(Body::empty()).unwrap(),
    });
    thief.on("/upload", |_| status(201).body(Body::empty()).unwrap());
    let _ = Sample::new("upload").deliver(sink(&host, "app:1", me()), None).await;
    let uploads: Vec<_> = thief.asked().into_iter().filter(|(method, _, _)| method == "PUT").collect();
    assert!(uploads.len() >= 3 && uploads.iter().all(|(_, _, authorization)| authorization.is_none()), "{uploads:?}");
    assert!(uploads[0].1.contains("state=1&digest=sha256%3A"), "{uploads:?}");
}

#[tokio::test]
async fn wrong_answers() {
    let registry = Played::default();
    let host = registry.start().await;
    let bytes = Sample::new("wrong").parts(None).manifests[0].1.clone();
    let other = Digest::sha256(b"other");
    let answers: Vec<(Box<dyn Fn() -> Response>, ErrorKind)> = vec![
        (
            Box::new(|| status(200).header("content-type", MANIFEST).body(Body::from(vec![b' '; 5 << 20])).unwrap()),
            ErrorKind::Integrity,
        ),
        (
            Box::new(|| status(200).header("content-type", MANIFEST).body(Body::from("{}")).unwrap()),
            ErrorKind::Integrity,
        ),
        (
            Box::new(|| status(200).header("content-type", "text/html").body(Body::from("<html>")).unwrap()),
            ErrorKind::Integrity,
        ),
        (Box::new(|| status(200).body(Body::from("{}")).unwrap()), ErrorKind::Integrity),
        (Box::new(|| status(500).body(Body::empty()).unwrap()), ErrorKind::Unavailable),
        (Box::new(|| status(429).body(Body::empty()).unwrap()), ErrorKind::Unavailable),
        (
            Box::new(|| {
                status(403).body(Body::from(r#"{"errors":[{"code":"DENIED","message":"no\u001b[0m"}]}"#)).unwrap()
            }),
            ErrorKind::Access,
        ),
        (
            Box::new(|| status(401).header("www-authenticate", "Negotiate").body(Body::empty()).unwrap()),
            ErrorKind::Access,
        ),
    ];
    for (n, (answer, kind)) in answers.into_iter().enumerate() {
        let answer = Mutex::new(Some(answer()));
        registry.on("/v2/app/manifests/1", move |_| {
            answer.lock().unwrap().take().unwrap_or_else(|| status(500).body(Body::empty()).unwrap())
        });
        let error = opened(&host, "app:1", RegistryOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "answer {n}: {error:?}");
        if let ImageError::Remote { source, .. } = &error {
            assert!(!source.to_string().contains('\u{1b}'), "{source}");
        }
    }
    // Another manifest than the digest's, and a header that lies about the tag's.
    let body = bytes.clone();
    registry.on(&format!("/v2/app/manifests/{other}"), move |_| manifest(&body));
    let error = opened(&host, &format!("app@{other}"), RegistryOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    registry.on("/v2/app/manifests/1", move |_| {
        let lying = status(200).header("content-type", MANIFEST).header("docker-content-digest", other.to_string());
        lying.body(Body::from(bytes.clone())).unwrap()
    });
    assert_eq!(opened(&host, "app:1", RegistryOptions::default()).await.unwrap_err().kind(), ErrorKind::Integrity);
}

#[tokio::test]
async fn the_referrers_api() {
    let registry = Played::default();
    let host = registry.start().await;
    let bytes = Sample::new("api").parts(None).manifests[0].1.clone();
    registry.on("/v2/app/manifests/1", move |_| manifest(&bytes));
    let subject = Digest::sha256(b"subject");
    let page = |n: u8| {
        let descriptor = Descriptor::new(MANIFEST, Digest::sha256(&[n]), 1);
        serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor] }).to_string()
    };
    let first = format!("/v2/app/referrers/{subject}");
    registry.on(&first, move |_| {
        let answer = status(200).header("content-type", INDEX).header("link", "</v2/app/more>; rel=\"next\"");
        answer.body(Body::from(page(1))).unwrap()
    });
    registry.on("/v2/app/more", move |_| status(200).header("content-type", INDEX).body(Body::from(page(2))).unwrap());
    let blobs = opened(&host, "app:1", RegistryOptions::default()).await.unwrap();
    let found: Vec<Digest> = blobs.referrers(&subject).await.unwrap().iter().map(|found| found.digest).collect();
    assert_eq!(found, [Digest::sha256(&[1]), Digest::sha256(&[2])]);
}
