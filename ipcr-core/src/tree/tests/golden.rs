//! The golden registry of docs/golden, and Kubo's view of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/golden")
}

/// A registry with everything that the format has, in a few kilobytes.
async fn registry() -> Hub {
    let mut hub = Hub::new().await;
    let first = hub.image("linux/amd64", "first");
    let second = hub.image("linux/amd64", "second");
    let index = hub.index(&["linux/arm64", "linux/amd64"], "index");
    let signature = hub.referrer(&index.root, "signature");
    let mut signed = index.clone();
    signed.manifests.extend(signature.manifests);
    signed.blobs.extend(signature.blobs);
    let edits = [
        set_tag("app", "1", &first, 0),
        set_tag("app", "latest", &first, 0),
        set_tag("app", "latest", &second, 60),
        describe("app", "An application.", "# App\n\nIt does nothing.\n"),
        set_tag("team/app", "2", &signed, 120),
    ];
    hub.edit(&edits).await.unwrap();
    hub
}

async fn files(hub: &Hub) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![(String::new(), hub.root)];
    while let Some((path, cid)) = todo.pop() {
        if blocks::stat(&hub.reader, &path, &cid).await.unwrap() == blocks::Stat::Directory {
            for (name, link) in blocks::list(&hub.reader, &path, &cid).await.unwrap() {
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                todo.push((path, link.cid));
            }
        } else {
            out.insert(path.clone(), blocks::read_file(&hub.reader, &path, &cid, 1 << 24).await.unwrap().to_vec());
        }
    }
    out
}

fn read_folder(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            out.insert(name, fs::read(&path).unwrap());
        }
    }
    out
}

fn write_folder(root: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, data) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }
}

#[tokio::test]
async fn the_golden_tree_is_what_is_written() {
    let hub = registry().await;
    hub.assert_sound().await;
    let files = files(&hub).await;
    if std::env::var_os("IPCR_WRITE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(golden().join("tree"));
        write_folder(&golden().join("tree"), &files);
        fs::write(golden().join("ROOT"), format!("{}\n", hub.root)).unwrap();
    }
    let written = read_folder(&golden().join("tree"));
    assert_eq!(written.keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>());
    for (name, data) in files {
        assert_eq!(String::from_utf8_lossy(&written[&name]), String::from_utf8_lossy(&data), "{name}");
    }
    assert_eq!(fs::read_to_string(golden().join("ROOT")).unwrap().trim(), hub.root.to_string());
}

/// Says why a test with Kubo cannot run; that is a failure where all peers are required.
fn skip(why: &str) {
    assert!(std::env::var_os("IPCR_TEST_REQUIRE_PEERS").is_none(), "{why}");
    println!("SKIPPED: {why}");
}

#[tokio::test]
async fn kubo_adds_the_same_and_reads_ours() {
    let hub = registry().await;
    let home = tempfile::tempdir().unwrap();
    let ipfs = |arguments: &[&str]| {
        let run = Command::new("ipfs").args(arguments).env("IPFS_PATH", home.path().join("repo")).output();
        run.map(|output| {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "ipfs {arguments:?}: {error}");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        })
    };
    if ipfs(&["version"]).is_err() {
        return skip("ipfs (Kubo) is not installed");
    }
    ipfs(&["init", "--empty-repo", "--profile=test,unixfs-v1-2025"]).unwrap();
    // What Kubo makes of the files is what we made of them.
    let tree = home.path().join("tree");
    write_folder(&tree, &files(&hub).await);
    let added = ipfs(&["add", "-r", "-Q", "--hidden", "--only-hash", tree.to_str().unwrap()]).unwrap();
    assert_eq!(added, hub.root.to_string());
    // What Kubo reads from our blocks is the files.
    let car = home.path().join("tree.car");
    fs::write(&car, archive(&hub)).unwrap();
    ipfs(&["dag", "import", "--offline", "--pin-roots=false", car.to_str().unwrap()]).unwrap();
    let out = home.path().join("out");
    ipfs(&["--offline", "get", "-o", out.to_str().unwrap(), &hub.root.to_string()]).unwrap();
    assert_eq!(read_folder(&out), files(&hub).await);
}

/// All blocks as a CARv1 file.
fn archive(hub: &Hub) -> Vec<u8> {
    fn section(out: &mut Vec<u8>, parts: &[&[u8]]) {
        let mut length = parts.iter().map(|part| part.len()).sum::<usize>();
        while length >= 0x80 {
            out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).unwrap());
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
    let root = hub.root.to_bytes();
    // {"roots": [42(h'00' + CID)], "version": 1} in DAG-CBOR.
    let mut header = b"\xa2\x65roots\x81\xd8\x2a\x58".to_vec();
    header.push(u8::try_from(root.len() + 1).unwrap());
    header.push(0);
    header.extend_from_slice(&root);
    header.extend_from_slice(b"\x67version\x01");
    let mut out = Vec::new();
    section(&mut out, &[&header]);
    for cid in hub.store.cids() {
        let data = futures::executor::block_on(crate::port::blocks::BlockStore::get(&hub.store, &cid)).unwrap();
        section(&mut out, &[&cid.to_bytes(), &data.unwrap()]);
    }
    out
}
