use super::*;
use crate::identity::RegistryKey;
use crate::kind::ErrorKind;
use crate::limits;
use crate::naming::handover::{Handover, leads};
use crate::tree::edit::NewKey;
use crate::tree::edit::folders;
use crate::tree::handover::handovers;
use crate::tree::read::Contents;

#[tokio::test]
async fn a_pushed_tag_is_found() {
    let mut hub = Hub::new().await;
    hub.assert_sound().await;
    let image = hub.image("linux/amd64", "1");
    let edited = hub.push("app", "1", &image, 0).await;
    hub.assert_sound().await;
    let found = hub.find("app", "1").await.unwrap();
    assert_eq!(found.digest(), Some(image.root.digest));
    assert_eq!(edited.folders, [Some(found.folder)]);
    let found = hub.find_digest("app", image.root.digest).await.unwrap();
    assert_eq!(edited.folders, [Some(found.folder)]);
    for (image, tag) in [("app", "2"), ("other", "1"), ("app/app", "1")] {
        assert_eq!(hub.find(image, tag).await.unwrap_err().kind(), ErrorKind::NotFound, "{image}:{tag}");
    }
    let tags = read::tags(&hub.reader, &hub.root, &"app".parse().unwrap()).await.unwrap();
    assert_eq!(tags.len(), 1);
    assert_eq!((tags[0].tag.as_str(), tags[0].digest), ("1", Some(image.root.digest)));
    assert_eq!((tags[0].size, tags[0].pushed), (Some(image.size()), Some(time(0))));
    assert_eq!(tags[0].platforms, ["linux/amd64"]);
    let images = read::images(&hub.reader, &hub.root).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!((images[0].name.as_str(), images[0].newest.as_deref(), images[0].tags), ("app", Some("1"), 1));
    let registry = read::registry(&hub.reader, &hub.root).await.unwrap().unwrap();
    assert_eq!((registry.counts.images, registry.counts.tags), (1, 1));
    let row = &hub.document("app").await.unwrap().manifests[&image.root.digest];
    assert_eq!(row.encodings, ["aligned-gzip/1", "aligned-gzip/1"]);
    assert_eq!(row.plain_size, Some(11));
}

#[tokio::test]
async fn what_a_tag_holds_already_changes_nothing() {
    let mut hub = Hub::new().await;
    let image = hub.image("linux/amd64", "1");
    hub.push("app", "1", &image, 0).await;
    let again = hub.push("app", "1", &image, 100).await;
    assert!(again.unchanged && again.blocks.is_empty());
    assert_eq!(again.folders, [Some(hub.find("app", "1").await.unwrap().folder)]);
    // Blobs that were cut in another way are the same blobs.
    let mut recut = image.clone();
    let nested = hub.add_directory(Vec::new());
    recut.blobs[1].cid = nested.cid;
    assert!(hub.push("app", "1", &recut, 100).await.unchanged);
    // A description is a change, and not of the tag.
    let described = hub.edit(&[describe("app", "one line", "# App")]).await.unwrap();
    assert!(!described.unchanged);
    assert!(hub.edit(&[describe("app", " one\nline ", "# App")]).await.unwrap().unchanged);
    assert_eq!(hub.document("app").await.unwrap().tags["1"].pushed, time(0));
    assert_eq!(hub.file("app/README-short.txt").await.as_deref(), Some("one line\n"));
    assert_eq!(hub.file("app/README.md").await.as_deref(), Some("# App"));
    hub.assert_sound().await;
    hub.edit(&[describe("app", "", "")]).await.unwrap();
    assert!(hub.at("app/README.md").await.is_none() && hub.at("app/README-short.txt").await.is_none());
    hub.assert_sound().await;
}

#[tokio::test]
async fn a_tag_learns_how_large_its_layers_are() {
    let mut hub = Hub::new().await;
    // As homes wrote it that did not know.
    let mut unknown = hub.image("linux/amd64", "1");
    unknown.blobs.iter_mut().for_each(|blob| blob.encoding = None);
    hub.push("app", "1", &unknown, 0).await;
    assert!(hub.at("app/tags/1/_layers.json").await.is_none());
    let mut known = unknown.clone();
    for (blob, size) in known.blobs[1..].iter_mut().zip([4, 7]) {
        blob.plain_size = Some(size);
    }
    assert!(!hub.push("app", "1", &known, 100).await.unchanged);
    assert_eq!(hub.document("app").await.unwrap().tags["1"].pushed, time(0), "the tag holds what it held");
    let Contents::Layout(layout) = hub.find("app", "1").await.unwrap().contents else { panic!("it is a layout") };
    let sizes = layout.plain_sizes(&hub.reader).await.unwrap();
    assert_eq!(sizes, known.blobs[1..].iter().zip([4, 7]).map(|(blob, size)| (blob.digest, size)).collect());
    hub.assert_sound().await;
    assert!(hub.push("app", "1", &known, 200).await.unchanged);
    assert!(hub.push("app", "1", &unknown, 200).await.unchanged, "what is known stays known");
    let mut fresh = Hub::new().await;
    fresh.image("linux/amd64", "1");
    let pushed = fresh.push("app", "1", &known, 300).await;
    assert_eq!(pushed.folders, [Some(*layout.folder())]);
    // A file that is none is told.
    let nonsense = hub.add_file(b"{}");
    hub.tamper("app/tags/1/_layers.json", Some(nonsense)).await;
    let report = check(&hub.reader, &hub.root).await.unwrap();
    assert!(report.problems.iter().any(|problem| format!("{problem:?}").contains("_layers.json")), "{report:?}");
}

#[tokio::test]
async fn keys_hand_over() {
    let mut hub = Hub::new().await;
    let image = hub.image("linux/amd64", "1");
    hub.push("app", "1", &image, 0).await;
    let before = hub.at("app").await.unwrap().cid;
    let keys = [(); 3].map(|()| RegistryKey::generate());
    let edit = |from: &RegistryKey, to: &RegistryKey| {
        let handover = Handover::sign(from, to.name(), time(0));
        let (did, ipns) = (to.did(), to.name().to_string());
        Edit::HandOver { key: Box::new(NewKey { did, ipns, did_document: "{}".into(), handover }) }
    };
    assert_eq!(handovers(&hub.reader, &hub.root).await.unwrap(), []);
    for pair in keys.windows(2) {
        let edit = edit(&pair[0], &pair[1]);
        let json = serde_json::to_string(&edit).unwrap();
        assert_eq!(serde_json::from_str::<Edit>(&json).unwrap(), edit);
        hub.edit(std::slice::from_ref(&edit)).await.unwrap();
        assert!(hub.edit(&[edit]).await.unwrap().unchanged);
        hub.assert_sound().await;
    }
    let registry = read::registry(&hub.reader, &hub.root).await.unwrap().unwrap();
    assert_eq!((registry.ipns, registry.did), (keys[2].name().to_string(), keys[2].did()));
    assert_eq!((registry.title.as_deref(), registry.counts.tags), (Some("Golden"), 1));
    assert_eq!(hub.at("app").await.unwrap().cid, before);
    let list = handovers(&hub.reader, &hub.root).await.unwrap();
    assert!(leads(&list, keys[0].name(), keys[2].name()));
    assert_eq!(hub.file(".well-known/did.json").await.as_deref(), Some("{}"));

    // What a later version wrote stays, and does not count here.
    let text = hub.file("_ipcr/handovers.json").await.unwrap();
    let more = text.replace("\"handovers\":[", "\"new\":1,\"handovers\":[{\"from\":1},");
    hub.tamper("_ipcr/handovers.json", Some(hub.add_file(more.as_bytes()))).await;
    let last = RegistryKey::generate();
    hub.edit(&[edit(&keys[2], &last)]).await.unwrap();
    let text = hub.file("_ipcr/handovers.json").await.unwrap();
    assert!(text.contains("\"new\":1") && text.contains("{\"from\":1}"), "{text}");
    let list = handovers(&hub.reader, &hub.root).await.unwrap();
    assert_eq!((list.len(), leads(&list, keys[0].name(), last.name())), (3, true));
    // A check sees what is forged, and what leads elsewhere.
    let forged = text.replace(&keys[1].name().to_string(), &RegistryKey::generate().name().to_string());
    hub.tamper("_ipcr/handovers.json", Some(hub.add_file(forged.as_bytes()))).await;
    assert_eq!(check(&hub.reader, &hub.root).await.unwrap().problems.len(), 2);
    // A list without an end is refused.
    let endless = format!("{{\"format\":1,\"handovers\":[\"{}\"]}}", "x".repeat(70_000));
    hub.tamper("_ipcr/handovers.json", Some(hub.add_file(endless.as_bytes()))).await;
    assert!(matches!(handovers(&hub.reader, &hub.root).await, Err(TreeError::TooLarge { .. })));
}

#[tokio::test]
async fn a_moved_tag_keeps_its_manifest() {
    let mut hub = Hub::new().await;
    let images: Vec<_> = (0..15).map(|n| hub.image("linux/amd64", &n.to_string())).collect();
    for (at, image) in (0..).zip(&images) {
        hub.push("app", "1", image, at).await;
        hub.assert_sound().await;
    }
    assert_eq!(hub.find("app", "1").await.unwrap().digest(), Some(images[14].root.digest));
    // The last ten are kept besides the one that the tag names.
    for (n, image) in images.iter().enumerate() {
        let found = hub.find_digest("app", image.root.digest).await;
        assert_eq!(found.is_ok(), n >= 4, "{n}");
    }
    // Going back takes the manifest from the kept ones, and keeps the one that was left.
    hub.push("app", "1", &images[10], 20).await;
    hub.assert_sound().await;
    let own = |digest: Digest| format!("app/_manifests/sha256/{}", digest.hex());
    assert!(hub.at(&own(images[10].root.digest)).await.is_none());
    assert!(hub.at(&own(images[14].root.digest)).await.is_some());
    // A removed tag leaves its manifest, too.
    hub.edit(&[remove_tag("app", "1")]).await.unwrap();
    hub.assert_sound().await;
    assert_eq!(hub.find("app", "1").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(hub.find_digest("app", images[10].root.digest).await.is_ok());
    let digests: Vec<_> = hub.document("app").await.unwrap().manifests.into_keys().collect();
    for digest in digests {
        hub.edit(&[remove_digest("app", digest)]).await.unwrap();
        hub.assert_sound().await;
    }
    assert!(hub.at("app").await.is_none());
    assert!(hub.document("app").await.is_none());
    assert_eq!(hub.root, Hub::new().await.root);
}

#[tokio::test]
async fn manifests_with_referrers_are_kept_and_go_together() {
    let mut hub = Hub::new().await;
    let signed = hub.index(&["linux/arm64", "linux/amd64"], "signed");
    let child = signed.manifests[1].descriptor.clone();
    let signature = hub.referrer(&child, "signature");
    let mut both = signed.clone();
    both.manifests.extend(signature.manifests.clone());
    both.blobs.extend(signature.blobs.clone());
    hub.push("app", "1", &both, 0).await;
    hub.assert_sound().await;
    let app = "app".parse().unwrap();
    let list = read::referrers(&hub.reader, &hub.root, &app, &child.digest).await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].digest, signature.root.digest);
    assert_eq!(list[0].artifact_type.as_deref(), Some("test/signature"));
    assert_eq!(list[0].annotations["note"], "signature");
    assert!(hub.push("app", "1", &both, 1).await.unchanged);
    // A referrer of the referrer, pushed by digest.
    let second = hub.referrer(&signature.root, "second");
    hub.edit(&[put("app", &second, 2)]).await.unwrap();
    assert!(hub.edit(&[put("app", &second, 3)]).await.unwrap().unchanged);
    for n in 0..15 {
        let image = hub.image("linux/amd64", &n.to_string());
        hub.push("app", "1", &image, 10 + n).await;
    }
    hub.assert_sound().await;
    // Long out of the last ten, but it has referrers.
    assert!(hub.find_digest("app", signed.root.digest).await.is_ok());
    assert_eq!(hub.find_digest("app", child.digest).await.unwrap().digest(), Some(child.digest));
    assert!(hub.find_digest("app", second.root.digest).await.is_ok());
    hub.edit(&[remove_digest("app", signed.root.digest)]).await.unwrap();
    hub.assert_sound().await;
    for gone in [signed.root.digest, child.digest, signature.root.digest, second.root.digest] {
        assert_eq!(hub.find_digest("app", gone).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert!(hub.at("app/_referrers").await.is_none());
    // Referrers may come before what they refer to.
    let early = hub.referrer(&hub.image("linux/amd64", "later").root, "early");
    hub.edit(&[put("app", &early, 50)]).await.unwrap();
    hub.assert_sound().await;
    assert!(hub.at("app/_referrers").await.is_some());
}

#[tokio::test]
async fn a_part_of_an_index_is_not_removed_alone() {
    let mut hub = Hub::new().await;
    let index = hub.index(&["linux/amd64", "linux/arm64"], "1");
    hub.push("app", "1", &index, 0).await;
    let root = hub.root;
    let refused = hub.edit(&[remove_digest("app", index.manifests[1].descriptor.digest)]).await.unwrap_err();
    assert!(matches!(refused, TreeError::InUse { of, .. } if of == index.root.digest), "{refused}");
    assert_eq!((refused.kind(), hub.root), (ErrorKind::Usage, root));
    let refused = hub.edit(&[remove_digest("app", Digest::sha256(b"?"))]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    hub.edit(&[remove_digest("app", index.root.digest)]).await.unwrap();
    assert!(hub.at("app").await.is_none());
    hub.assert_sound().await;
}

#[tokio::test]
async fn images_inside_names_of_images() {
    let mut hub = Hub::new().await;
    let image = hub.image("linux/amd64", "1");
    for name in ["team", "team/app", "team/app/deep", "alone/app"] {
        hub.push(name, "1", &image, 0).await;
        hub.assert_sound().await;
    }
    hub.edit(&[describe("team", "the team", "x")]).await.unwrap();
    let names = |images: Vec<read::ImageSummary>| images.into_iter().map(|image| image.name).collect::<Vec<_>>();
    let images = read::images(&hub.reader, &hub.root).await.unwrap();
    assert_eq!(names(images), ["alone/app", "team", "team/app", "team/app/deep"]);
    hub.edit(&[remove_image("team")]).await.unwrap();
    hub.assert_sound().await;
    assert_eq!(hub.find("team", "1").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(hub.find("team/app", "1").await.is_ok() && hub.at("team/README.md").await.is_none());
    hub.edit(&[remove_image("alone/app"), remove_image("team/app/deep"), remove_image("team/app")]).await.unwrap();
    assert_eq!(hub.root, Hub::new().await.root);
    for refused in [remove_image("team"), remove_tag("team", "1"), describe("team", "x", "x")] {
        assert_eq!(hub.edit(&[refused]).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn what_nobody_here_knows_is_kept() {
    let mut hub = Hub::new().await;
    let image = hub.image("linux/amd64", "1");
    hub.push("app", "1", &image, 0).await;
    let strange = hub.add_file(b"strange");
    for path in ["index.html", "_ipcr/web/app.js", "_ipcr/sealed/x/b/y", "app/_future", "app/notes.txt"] {
        hub.tamper(path, Some(strange.clone())).await;
    }
    for path in ["_ipcr/registry.json", "app/_image.json"] {
        let text = hub.file(path).await.unwrap();
        let link = hub.add_file(text.replacen('{', r#"{"future":[1],"#, 1).as_bytes());
        hub.tamper(path, Some(link)).await;
    }
    let second = hub.image("linux/amd64", "2");
    hub.push("app", "1", &second, 1).await;
    hub.push("other", "1", &second, 1).await;
    for path in ["index.html", "_ipcr/web/app.js", "_ipcr/sealed/x/b/y", "app/_future", "app/notes.txt"] {
        assert_eq!(hub.file(path).await.as_deref(), Some("strange"), "{path}");
    }
    for path in ["_ipcr/registry.json", "app/_image.json"] {
        assert!(hub.file(path).await.unwrap().contains(r#""future":[1]"#), "{path}");
    }
    hub.assert_sound().await;
}

#[tokio::test]
async fn newer_formats_are_not_written() {
    let mut hub = Hub::new().await;
    let image = hub.image("linux/amd64", "1");
    hub.push("app", "1", &image, 0).await;
    let sound = hub.root;
    let shard = format!("_ipcr/catalogue/{}", crate::tree::edit::shard_name("app"));
    for path in ["_ipcr/registry.json", "app/_image.json", &shard] {
        hub.root = sound;
        let text = hub.file(path).await.unwrap();
        let link = hub.add_file(text.replacen(r#""format":1"#, r#""format":2"#, 1).as_bytes());
        hub.tamper(path, Some(link)).await;
        let other = hub.image("linux/amd64", "2");
        let refused = hub.edit(&[set_tag("app", "1", &other, 1)]).await.unwrap_err();
        assert!(matches!(refused, TreeError::NewerFormat { found: 2, .. }), "{path}: {refused}");
        assert!(hub.find("app", "1").await.is_ok(), "{path}");
    }
    hub.root = sound;
    hub.tamper("_ipcr/registry.json", None).await;
    assert_eq!(hub.edit(&[remove_image("app")]).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn incomplete_and_wrong_images_are_refused() {
    let mut hub = Hub::new().await;
    let good = hub.image("linux/amd64", "1");
    let root = hub.root;
    let mut cases = Vec::new();
    let mut case = |change: &dyn Fn(&mut StoredImage)| {
        let mut image = good.clone();
        change(&mut image);
        cases.push(image);
    };
    case(&|image| drop(image.blobs.pop()));
    case(&|image| image.manifests.clear());
    case(&|image| image.blobs[1].size += 1);
    case(&|image| image.manifests[0].descriptor.size += 1);
    case(&|image| image.manifests[0].descriptor.digest = Digest::sha256(b"x"));
    case(&|image| image.manifests[0].descriptor.media_type = OCI_INDEX.into());
    case(&|image| image.root.digest = Digest::sha256(b"x"));
    for image in cases {
        assert!(hub.edit(&[set_tag("app", "1", &image, 0)]).await.is_err(), "{image:?}");
        assert_eq!(hub.root, root);
    }
    let long = "x".repeat(limits::DESCRIPTION_BYTES + 1);
    let readme = "x".repeat(usize::try_from(limits::README_BYTES).unwrap() + 1);
    hub.push("app", "1", &good, 0).await;
    for refused in [describe("app", &long, ""), describe("app", "", &readme)] {
        assert!(matches!(hub.edit(&[refused]).await, Err(TreeError::TooLarge { .. })));
    }
    assert!(hub.edit(&[describe("app", &long[1..], &readme[1..])]).await.is_ok());
    hub.assert_sound().await;
}

#[tokio::test]
async fn edits_survive_being_written_down() {
    let hub = Hub::new().await;
    let image = hub.index(&["linux/amd64", "linux/arm/v7"], "1");
    for edit in [set_tag("team/app", "1", &image, 0), put("app", &image, 0), remove_image("app")] {
        let text = serde_json::to_string(&edit).unwrap();
        assert_eq!(serde_json::from_str::<Edit>(&text).unwrap(), edit);
    }
}

#[tokio::test]
async fn damage_is_reported() {
    let mut hub = Hub::new().await;
    let index = hub.index(&["linux/amd64", "linux/arm64"], "1");
    let other = hub.image("linux/amd64", "2");
    hub.push("app", "1", &other, 0).await;
    hub.push("app", "1", &index, 1).await;
    hub.push("app", "2", &other, 2).await;
    hub.edit(&[put("app", &hub.referrer(&other.root, "x"), 3), describe("app", "text", "text")]).await.unwrap();
    hub.assert_sound().await;
    let sound = hub.root;
    let layer = other.blobs[2].digest;
    let own = format!("app/_manifests/sha256/{}", other.root.digest.hex());
    let shard = format!("_ipcr/catalogue/{}", crate::tree::edit::shard_name("app"));
    let image = hub.document("app").await.unwrap();
    assert_eq!(folders(&image)[&other.root.digest], own["app/".len()..]);
    for path in [
        "_ipcr/catalogue/names.txt.gz",
        &shard,
        "app/_image.json",
        "app/tags/1",
        "app/tags/2/index.json",
        "app/tags/2/manifest.json",
        &format!("app/tags/2/{}", layer.layout_path()),
        &own,
        "app/_referrers",
    ] {
        hub.root = sound;
        hub.tamper(path, None).await;
        let report = check(&hub.reader, &hub.root).await.unwrap();
        assert!(!report.problems.is_empty(), "{path} can be taken away unnoticed");
    }
    for (path, from, to) in [
        ("_ipcr/registry.json", r#""tags":2"#, r#""tags":3"#),
        ("app/_image.json", r#""total":"#, r#""total":1"#),
        ("app/_image.json", "tags/1", "tags/2"),
        ("app/tags/2/index.json", "app:2", "app:3"),
        ("app/tags/2/manifest.json", "app:2", "evil:2"),
        (&shard, r#""size":"#, r#""size":1"#),
    ] {
        hub.root = sound;
        let text = hub.file(path).await.unwrap();
        assert!(text.contains(from), "{path}: {text}");
        let link = hub.add_file(text.replace(from, to).as_bytes());
        hub.tamper(path, Some(link)).await;
        let report = check(&hub.reader, &hub.root).await.unwrap();
        assert!(!report.problems.is_empty(), "{path} can say {to} unnoticed");
    }
}
