use super::*;
use crate::tree::document::{self, CatalogueShard, Counts, FORMAT, RegistryDocument};
use crate::tree::edit::{catalogue_row, shard_name};

/// 10,000 images of 100 tags: one tag writes at most 1 MiB, and nothing of the others is read.
#[tokio::test]
async fn one_tag_among_a_million_is_cheap() {
    let mut hub = Hub::new().await;
    // One image of 100 tags, each of which has left as many manifests as are kept.
    for round in 0..11 {
        let edits: Vec<_> = (0..100)
            .map(|tag| {
                let image = hub.image("linux/amd64", &format!("{round} {tag}"));
                set_tag("app", &format!("1.{tag}"), &image, round)
            })
            .collect();
        hub.edit(&edits).await.unwrap();
    }
    hub.edit(&[describe("app", "An application that does this and that", "# App")]).await.unwrap();
    hub.assert_sound().await;
    let document = hub.document("app").await.unwrap();
    assert_eq!((document.tags.len(), document.manifests.len()), (100, 1100));

    // The same image under 10,000 names.
    let image = hub.at("app").await.unwrap();
    let mut names: Vec<String> = (0..9_999).map(|n| format!("some-longer-name-of-an-image-{n:05}")).collect();
    names.push("app".into());
    let mut shards: BTreeMap<String, CatalogueShard> = BTreeMap::new();
    let mut lines = String::new();
    names.sort();
    for name in &names {
        let fresh = || CatalogueShard { format: FORMAT, ..CatalogueShard::default() };
        let shard = shards.entry(shard_name(name)).or_insert_with(fresh);
        shard.images.insert(name.clone(), catalogue_row(&document));
        lines += &format!("{name}\t{}\n", document.description.as_deref().unwrap());
    }
    let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, lines.as_bytes()).unwrap();
    let mut catalogue: Vec<Link> =
        shards.into_iter().map(|(name, shard)| Link { name, ..hub.add_file(&document::write(&shard)) }).collect();
    catalogue.push(Link { name: "names.txt.gz".into(), ..hub.add_file(&gzip.finish().unwrap()) });
    let text = hub.file("_ipcr/registry.json").await.unwrap();
    let mut registry: RegistryDocument = document::parse("", text.as_bytes()).unwrap();
    registry.counts = Counts { images: 10_000, tags: 1_000_000, ..Counts::default() };
    let ipcr = hub.add_directory(vec![
        Link { name: "catalogue".into(), ..hub.add_directory(catalogue) },
        Link { name: "registry.json".into(), ..hub.add_file(&document::write(&registry)) },
    ]);
    let mut entries: Vec<Link> = names.into_iter().map(|name| Link { name, ..image.clone() }).collect();
    entries.push(Link { name: "_ipcr".into(), ..ipcr });
    entries.push(Link { name: ".well-known".into(), ..hub.at(".well-known").await.unwrap() });
    hub.root = hub.add_directory(entries).cid;

    let before = hub.reader.traffic().local;
    let pushed = hub.image("linux/amd64", "new");
    let edited = hub.push("app", "1.50", &pushed, 100).await;
    let read = hub.reader.traffic().local - before;
    let written = bytes_of(&edited.blocks);
    assert!(written <= 1 << 20, "one tag wrote {written} bytes");
    assert!(read <= 2 << 20, "one tag read {read} bytes");
    // A new image also writes the list of names.
    let edited = hub.push("brand-new", "1", &pushed, 101).await;
    let written = bytes_of(&edited.blocks);
    assert!(written <= 1 << 20, "one image wrote {written} bytes");
    assert_eq!(read::images(&hub.reader, &hub.root).await.unwrap().len(), 10_001);
    assert_eq!(hub.find("app", "1.50").await.unwrap().digest(), Some(pushed.root.digest));
}

/// The list of names goes when it becomes too large, and nothing else does.
#[tokio::test]
async fn a_list_of_names_that_is_too_large_is_left_out() {
    let mut hub = Hub::new().await;
    let image = hub.image("linux/amd64", "1");
    hub.push("app", "1", &image, 0).await;
    let mut lines = String::new();
    for n in 0..12_000_u32 {
        let noise = Digest::sha256(&n.to_le_bytes()).hex();
        lines += &format!("image-{n:06}\t{noise}{noise}\n");
    }
    let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, lines.as_bytes()).unwrap();
    let large = hub.add_file(&gzip.finish().unwrap());
    assert!(large.tsize > 512 << 10);
    hub.tamper("_ipcr/catalogue/names.txt.gz", Some(large)).await;
    hub.push("second", "1", &image, 1).await;
    assert!(hub.at("_ipcr/catalogue/names.txt.gz").await.is_none());
    hub.push("third", "1", &image, 1).await;
    assert!(hub.at("_ipcr/catalogue/names.txt.gz").await.is_none());
    assert_eq!(read::images(&hub.reader, &hub.root).await.unwrap().len(), 3);
}
