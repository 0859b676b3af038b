use super::*;
use crate::dag::pb::{Kind, Node, UnixFs};
use crate::image::layout::{ARCHIVE_FILE, INDEX_FILE, OCI_LAYOUT_FILE};
use crate::kind::ErrorKind;
use crate::tree::layout::Layout;
use crate::tree::read::{Contents, Recognised, recognise};

async fn layout(hub: &Hub, image: &str, tag: &str) -> Layout {
    match hub.find(image, tag).await.unwrap().contents {
        Contents::Layout(layout) => layout,
        other => panic!("a layout, not {other:?}"),
    }
}

#[tokio::test]
async fn a_tag_folder_is_an_image_layout() {
    let mut hub = Hub::new().await;
    let image = hub.image("linux/amd64", "1");
    hub.push("team/app", "1", &image, 0).await;
    assert_eq!(hub.file("team/app/tags/1/oci-layout").await.unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = hub.file("team/app/tags/1/index.json").await.unwrap();
    assert!(index.contains(r#""io.containerd.image.name":"docker.io/team/app:1""#), "{index}");
    let archive = hub.file("team/app/tags/1/manifest.json").await.unwrap();
    let [config, base, layer] = [0, 1, 2].map(|n: usize| image.blobs[n].digest.layout_path());
    let expected = format!(r#"[{{"Config":"{config}","RepoTags":["team/app:1"],"Layers":["{base}","{layer}"]}}]"#);
    assert_eq!(archive, expected);
    let layout = layout(&hub, "team/app", "1").await;
    for blob in &image.blobs {
        let file = layout.blob(&hub.reader, &blob.digest).await.unwrap().unwrap();
        assert_eq!((file.cid, file.size, file.tsize), (blob.cid, blob.size, blob.tsize));
    }
    assert!(layout.blob(&hub.reader, &Digest::sha256(b"?")).await.unwrap().is_none());
    let manifests = layout.manifests(&hub.reader).await.unwrap();
    assert_eq!(manifests.len(), 1);
    assert_eq!(manifests[0].1.bytes(), &image.manifests[0].bytes);
}

#[tokio::test]
async fn docker_gets_amd64_or_the_first_linux_image() {
    let mut hub = Hub::new().await;
    for (platforms, expected) in [
        (&["linux/arm64", "linux/amd64"][..], Some(2)),
        (&["windows/amd64", "linux/arm/v7", "linux/arm64"], Some(2)),
        (&["windows/amd64"], None),
        (&["unknown/unknown", "linux/s390x"], Some(2)),
    ] {
        let index = hub.index(platforms, "1");
        hub.push("app", "1", &index, 0).await;
        hub.assert_sound().await;
        let layout = layout(&hub, "app", "1").await;
        let expected = expected.map(|n: usize| {
            let text = String::from_utf8(index.manifests[n].bytes.to_vec()).unwrap();
            let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
            let digest: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
            digest.layout_path()
        });
        assert_eq!(layout.archive().map(|archive| archive.config.clone()), expected, "{platforms:?}");
        hub.edit(&[remove_image("app")]).await.unwrap();
    }
    // A single manifest says by its configuration what it is.
    hub.push("app", "1", &hub.image("windows/amd64", "1"), 0).await;
    assert!(layout(&hub, "app", "1").await.archive().is_none());
    hub.assert_sound().await;
}

#[tokio::test]
async fn layers_that_must_not_be_handed_on_may_be_missing() {
    let mut hub = Hub::new().await;
    let mut image = hub.image("linux/amd64", "1");
    let text = String::from_utf8(image.manifests[0].bytes.to_vec()).unwrap();
    let text = text.replacen("image.layer.v1.tar+gzip", "image.layer.nondistributable.v1.tar+gzip", 1);
    let replaced = stored(OCI_MANIFEST, text.into_bytes());
    image.root = replaced.root;
    image.manifests = replaced.manifests;
    let base = image.blobs.remove(1);
    hub.push("app", "1", &image, 0).await;
    hub.assert_sound().await;
    let layout = layout(&hub, "app", "1").await;
    assert!(layout.archive().is_none());
    assert!(layout.blob(&hub.reader, &base.digest).await.unwrap().is_none());
    // When it is there it is kept, and the folder is complete.
    image.blobs.push(base);
    hub.push("app", "1", &image, 1).await;
    assert!(hub.file("app/tags/1/manifest.json").await.is_some());
    hub.assert_sound().await;
}

#[tokio::test]
async fn folders_that_contradict_themselves_are_refused() {
    let mut hub = Hub::new().await;
    let image = hub.image("linux/amd64", "1");
    let other = hub.image("linux/amd64", "2");
    hub.push("app", "1", &image, 0).await;
    hub.push("app", "2", &other, 0).await;
    let sound = hub.root;
    let archive = hub.at("app/tags/2/manifest.json").await.unwrap();
    let index = hub.file("app/tags/1/index.json").await.unwrap();
    let two = index.replace("}]}", "},").replacen("\"manifests\":[", "", 1);
    let double =
        format!("{}{}", index.trim_end_matches("]}"), format_args!(",{}", two.rsplit("json\",").next().unwrap()));
    for (file, link) in [
        (ARCHIVE_FILE, archive),
        (ARCHIVE_FILE, hub.add_file(b"[]")),
        (ARCHIVE_FILE, hub.add_file(br#"[{"Config":"../x","Layers":[]}]"#)),
        (INDEX_FILE, hub.add_file(br#"{"schemaVersion":2,"manifests":[]}"#)),
        (INDEX_FILE, hub.add_file(double.as_bytes())),
        (INDEX_FILE, hub.at("app/tags/2/index.json").await.unwrap()),
        (OCI_LAYOUT_FILE, hub.add_file(br#"{"imageLayoutVersion":"2.0.0"}"#)),
        (&*image.root.digest.layout_path(), hub.add_file(b"{}")),
        (&*image.root.digest.layout_path(), hub.add_file(&[b' '; 1000])),
    ] {
        hub.root = sound;
        hub.tamper(&format!("app/tags/1/{file}"), Some(link)).await;
        let refused = hub.find("app", "1").await.unwrap_err();
        let lost = file == INDEX_FILE && refused.kind() == ErrorKind::NotFound;
        assert!(refused.kind() == ErrorKind::Integrity || lost, "{file}: {refused}");
        assert!(hub.find("app", "2").await.is_ok());
    }
    // Without manifest.json the folder is fine for us.
    hub.root = sound;
    hub.tamper("app/tags/1/manifest.json", None).await;
    assert!(hub.find("app", "1").await.is_ok());
}

fn symlink(target: &str) -> Block {
    let mut data = UnixFs::new(Kind::Symlink);
    data.data = bytes::Bytes::copy_from_slice(target.as_bytes());
    Block::dag_pb(Node { links: Vec::new(), data }.encode())
}

/// A file as Kubo wrote them in 2020: a CIDv0, the bytes inside a dag-pb node.
fn old_file(data: &[u8]) -> Block {
    let mut node = UnixFs::new(Kind::File);
    node.data = bytes::Bytes::copy_from_slice(data);
    node.filesize = Some(data.len() as u64);
    let block = Block::dag_pb(Node { links: Vec::new(), data: node }.encode());
    let cid = Cid::new_v0(*block.cid().hash()).unwrap();
    Block::verify(cid, block.data().clone()).unwrap()
}

async fn registry_of_2020() -> (Hub, Link) {
    let mut hub = Hub::new().await;
    let link = |name: &str, block: Block| {
        let link = Link { cid: *block.cid(), name: name.into(), tsize: block.data().len() as u64 };
        hub.store.insert(block);
        link
    };
    let manifest = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let files = [
        link("manifest.json", old_file(manifest)),
        link("c.json", old_file(b"{\"rootfs\":{}}")),
        link("repositories", old_file(b"{}")),
        Link { name: "a".into(), ..hub.add_directory(vec![link("layer.tar", old_file(b"tar"))]) },
        Link { name: "b".into(), ..hub.add_directory(vec![link("layer.tar", symlink("../a/layer.tar"))]) },
        Link { name: "x".into(), ..hub.add_directory(vec![link("layer.tar", symlink("../../../secret"))]) },
    ];
    let folder = hub.add_directory(files.to_vec());
    let tags = hub.add_directory(vec![Link { name: "1".into(), ..folder.clone() }]);
    let short = Link { name: "README-short.txt".into(), ..hub.add_file(b"An app\n") };
    let image = hub.add_directory(vec![Link { name: "tags".into(), ..tags }, short]);
    let root = hub.add_directory(vec![
        Link { name: "app".into(), ..image },
        Link { name: "README.md".into(), ..hub.add_file(b"text") },
    ]);
    hub.root = root.cid;
    (hub, folder)
}

#[tokio::test]
async fn folders_of_2020() {
    let (hub, folder) = registry_of_2020().await;
    let found = hub.find("app", "1").await.unwrap();
    assert_eq!((found.folder, found.digest()), (folder.cid, None));
    let Contents::Legacy(legacy) = found.contents else { panic!("a folder of 2020") };
    let [a, b] = [0, 1].map(|n: usize| legacy.archive().layers[n].clone());
    let file = legacy.file(&hub.reader, &a).await.unwrap();
    assert_eq!(file.size, 3);
    assert_eq!(legacy.file(&hub.reader, &b).await.unwrap(), file);
    assert_eq!(legacy.file(&hub.reader, "x/layer.tar").await.unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(legacy.file(&hub.reader, "a").await.unwrap_err().kind(), ErrorKind::Integrity);
    for missing in ["y/layer.tar", "../x", "a/layer.tar/x"] {
        assert_eq!(legacy.file(&hub.reader, missing).await.unwrap_err().kind(), ErrorKind::Integrity, "{missing}");
    }
    let images = read::images(&hub.reader, &hub.root).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!((images[0].name.as_str(), images[0].description.as_deref()), ("app", Some("An app")));
    let tags = read::tags(&hub.reader, &hub.root, &"app".parse().unwrap()).await.unwrap();
    assert_eq!((tags[0].tag.as_str(), tags[0].digest), ("1", None));
    assert_eq!(check(&hub.reader, &hub.root).await.unwrap().problems, []);
}

#[tokio::test]
async fn what_a_cid_is() {
    let mut hub = Hub::new().await;
    let kind = async |hub: &Hub, cid: &Cid| match recognise(&hub.reader, cid).await {
        Ok(Recognised::Registry) => "registry".to_owned(),
        Ok(Recognised::Image) => "image".to_owned(),
        Ok(Recognised::Folder(found)) => format!("folder {}", found.digest().is_some()),
        Ok(Recognised::Descriptor(descriptor)) => descriptor.media_type,
        Err(error) => error.to_string(),
    };
    assert_eq!(kind(&hub, &hub.root).await, "registry");
    let image = hub.image("linux/amd64", "1");
    hub.push("team/app", "1", &image, 0).await;
    assert_eq!(kind(&hub, &hub.root).await, "registry");
    let at = |path| {
        let hub = &hub;
        async move { hub.at(path).await.unwrap().cid }
    };
    assert_eq!(kind(&hub, &at("team/app").await).await, "image");
    assert_eq!(kind(&hub, &at("team/app/tags/1").await).await, "folder true");
    let file = kind(&hub, &at("team/app/_image.json").await).await;
    assert!(file.ends_with("is a file, not an image or a registry"), "{file}");
    let descriptor = hub.add_file(&serde_json::to_vec(&image.root).unwrap());
    assert_eq!(kind(&hub, &descriptor.cid).await, OCI_MANIFEST);
    let (old, folder) = registry_of_2020().await;
    assert_eq!(kind(&old, &old.root).await, "registry");
    assert_eq!(kind(&old, &old.at("app").await.unwrap().cid).await, "image");
    assert_eq!(kind(&old, &folder.cid).await, "folder false");
    // An image folder by its CID: its tags are found without a registry.
    let image_folder = hub.at("team/app").await.unwrap().cid;
    let wanted = Wanted::Tag("1".parse().unwrap());
    let found = read::find_in_image(&hub.reader, &image_folder, "app", &wanted).await.unwrap();
    assert_eq!(found.digest(), Some(image.root.digest));
}

#[tokio::test]
async fn a_registry_of_countless_folders_is_not_walked_to_the_end() {
    let hub = Hub::new().await;
    let mut root = None;
    for _ in 0..4 {
        // Few blocks, and a million folders.
        let entries = (0..100).filter_map(|number| {
            let cid = root?;
            Some(crate::dag::pb::Link { cid, name: format!("x{number}"), tsize: 0 })
        });
        let made = crate::dag::directory::build(entries.collect::<Vec<_>>()).unwrap();
        made.blocks.into_iter().for_each(|block| hub.store.insert(block));
        root = Some(made.cid);
    }
    let error = crate::tree::read::images(&hub.reader, &root.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
}
