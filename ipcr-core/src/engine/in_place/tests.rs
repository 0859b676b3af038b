use std::io::Write as _;
use std::os::unix::fs::symlink;

use flate2::Compression;
use flate2::write::GzEncoder;
use multibase::Base;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::image::platform::Platform;

/// A store with one layer: the parts of its stream, and what its folder holds.
struct Store {
    root: tempfile::TempDir,
    image: EngineImage,
}

impl Store {
    /// `plain` is the stream that the parts stand for.
    fn new(record: &str, plain: &[u8]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = b"{}";
        let diff_id = Digest::sha256(plain);
        let image = EngineImage {
            id: Digest::sha256(config),
            names: Vec::new(),
            repo_digests: Vec::new(),
            // The chain ID of the lowest layer is its diff ID. The second one is the same layer again.
            diff_ids: vec![diff_id, diff_id],
            platform: Platform::host(),
            size: 0,
            labels: std::collections::BTreeMap::new(),
        };
        let store = Self { root, image };
        store.put(&format!("image/overlay2/imagedb/content/sha256/{}", store.image.id.hex()), config);
        let row = store.row();
        store.put(&format!("{row}/diff"), diff_id.to_string().as_bytes());
        store.put(&format!("{row}/cache-id"), b"abc123");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(record.as_bytes()).unwrap();
        store.put(&format!("{row}/tar-split.json.gz"), &gzip.finish().unwrap());
        std::fs::create_dir_all(store.root.path().join("overlay2/abc123/diff")).unwrap();
        store
    }

    fn row(&self) -> String {
        format!("image/overlay2/layerdb/sha256/{}", self.image.diff_ids[0].hex())
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        self.put(&format!("overlay2/abc123/diff/{name}"), bytes);
    }

    fn open(&self) -> io::Result<InPlace> {
        InPlace::open(self.root.path(), DRIVER, &self.image)
    }

    async fn layer(&self) -> io::Result<Vec<u8>> {
        let mut export = self.open()?;
        let mut layer = export.next_layer().await.unwrap().unwrap();
        let mut bytes = Vec::new();
        layer.data.read_to_end(&mut bytes).await?;
        assert_eq!((layer.size, layer.diff_id), (length(&bytes), Some(self.image.diff_ids[0])));
        drop(layer);
        assert!(export.next_layer().await.unwrap().is_none(), "a layer that is there twice is read once");
        let images = export.images().await.unwrap();
        assert_eq!((&images[0].config[..], images[0].layers.len()), (&b"{}"[..], 2));
        Ok(bytes)
    }
}

fn segment(bytes: &[u8]) -> String {
    format!("{{\"type\":2,\"payload\":\"{}\",\"position\":0}}\n", Base::Base64Pad.encode(bytes))
}

fn file(name: &str, size: usize) -> String {
    format!("{{\"type\":1,\"name\":\"{name}\",\"size\":{size},\"payload\":\"AAAAAAAAAAA=\",\"position\":1}}\n")
}

#[tokio::test]
async fn streams_are_put_together_bit_for_bit() {
    // Larger than what travels at once, and not a multiple of it.
    let large: Vec<u8> = (0..3 * PIECE + 7).map(|i| (i % 251).to_le_bytes()[0]).collect();
    let raw_name = format!(
        "{{\"type\":1,\"name_raw\":\"{}\",\"size\":3,\"payload\":\"AAAAAAAAAAA=\",\"position\":4}}\n",
        Base::Base64Pad.encode(b"d/raw")
    );
    let record =
        [segment(b"head"), file("./large", large.len()), file("d", 0), segment(b""), raw_name, segment(b"end")]
            .concat();
    let plain = [&b"head"[..], &large, b"raw", b"end"].concat();
    let store = Store::new(&record, &plain);
    store.file("large", &large);
    store.file("d/raw", b"raw");
    assert_eq!(store.layer().await.unwrap(), plain);
}

#[test]
fn lengths_are_known_before_anything_is_decoded() {
    for count in 0..7 {
        let store = Store::new(&segment(&vec![7; count]), b"x");
        assert_eq!(store.open().unwrap().layers[0].size, length(&vec![0_u8; count]), "{count}");
    }
}

#[tokio::test]
async fn links_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"out").unwrap();
    let store = Store::new(&file("link/secret", 3), b"in.");
    let folder = store.root.path().join("overlay2/abc123/diff");
    symlink(outside.path(), folder.join("link")).unwrap();
    assert_eq!(store.layer().await.unwrap_err().kind(), io::ErrorKind::NotFound);
    // The same path below the layer's folder is what its own programs would see.
    store.file(&format!("{}/secret", outside.path().strip_prefix("/").unwrap().display()), b"in.");
    assert_eq!(store.layer().await.unwrap(), b"in.");
    let store = Store::new(&file("../../../secret", 3), b"in.");
    store.put("secret", b"out");
    assert_eq!(store.layer().await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_not_as_it_was_is_an_error() {
    let store = Store::new(&file("short", 9), b"123456789");
    store.file("short", b"12345678");
    assert_eq!(store.layer().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    let store = Store::new(&file("folder", 9), b"123456789");
    let diff = store.root.path().join("overlay2/abc123/diff");
    std::fs::create_dir(diff.join("folder")).unwrap();
    assert_eq!(store.layer().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    std::fs::remove_dir(diff.join("folder")).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(CWD, diff.join("folder"), kind, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_eq!(store.layer().await.unwrap_err().kind(), io::ErrorKind::InvalidData, "and nobody waits for a writer");
    // The same where the engine's own files belong.
    let row = store.root.path().join(store.row());
    std::fs::remove_file(row.join("tar-split.json.gz")).unwrap();
    rustix::fs::mknodat(CWD, row.join("tar-split.json.gz"), kind, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_eq!(store.open().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn what_is_no_such_store_is_not_opened() {
    let store = Store::new(&segment(b"x"), b"x");
    store.open().unwrap();
    assert!(InPlace::open(store.root.path(), "btrfs", &store.image).is_err());
    assert!(InPlace::open(&store.root.path().join("elsewhere"), DRIVER, &store.image).is_err());
    let row = store.row();
    for (name, wrong) in [
        ("cache-id", &b"./abc123"[..]),
        ("cache-id", b"elsewhere"),
        ("diff", Digest::sha256(b"another").to_string().as_bytes()),
        ("tar-split.json.gz", b"not gzip"),
    ] {
        let path = format!("{row}/{name}");
        let right = std::fs::read(store.root.path().join(&path)).unwrap();
        store.put(&path, wrong);
        assert!(store.open().is_err(), "{name}: {wrong:?}");
        store.put(&path, &right);
    }
    store.open().unwrap();
    for record in ["{\"type\":3}", "{\"type\":1,\"name\":\"x\",\"size\":-1}", "{\"type\":2,\"payload\":7}", "["] {
        assert!(Store::new(record, b"x").open().is_err(), "{record}");
    }
    let endless = file("x", usize::MAX).repeat(2);
    assert!(Store::new(&endless, b"x").open().is_err(), "a size beyond all numbers");
    let long = [segment(b"x"), segment(&vec![0; 4 << 20])].concat();
    assert!(Store::new(&long, b"x").open().is_err(), "more than is held in memory");
    Store::new(&segment(&vec![0; 2 << 20]), b"x").open().unwrap();
}
