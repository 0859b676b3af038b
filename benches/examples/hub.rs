//! Fills a registry with many images, for `cargo xtask bench hub`: `hub COUNT --home DIR`.
//!
//! The home's registry holds one image, `app`. Its folder gets other names until there are COUNT images, and what the registry says
//! of itself follows: the catalogue, the list of names, the counts. Prints one JSON object: `images`, `tags`, `blocks`, `seconds`.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;
use flate2::Compression;
use flate2::write::GzEncoder;
use ipcr_core::dag::block::Block;
use ipcr_core::dag::directory::Change;
use ipcr_core::dag::pb::Link;
use ipcr_core::digest::Digest;
use ipcr_core::exchange::directory::edit;
use ipcr_core::exchange::path;
use ipcr_core::exchange::reader::Reader;
use ipcr_core::limits;
use ipcr_core::pin::state::State;
use ipcr_core::port::blocks::{BlockStore, ReadBlocks as _};
use ipcr_core::port::table::Table;
use ipcr_core::store::Home;
use ipcr_core::tree::document::{CatalogueShard, RegistryDocument};
use serde_json::json;

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const IMAGE: &str = "app";

#[tokio::main]
async fn main() -> Result {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [count, flag, home] = &args[..] else { return Err("usage: hub COUNT --home DIR".into()) };
    if flag != "--home" {
        return Err("usage: hub COUNT --home DIR".into());
    }
    let (count, begin): (u64, _) = (count.parse()?, Instant::now());
    let home = Home::open(Path::new(home), Duration::ZERO)?;
    let store: Arc<dyn BlockStore> = Arc::new(home.blocks()?);
    let tables: Arc<dyn Table> = Arc::new(home.table()?);
    let reader = Reader::local(store.clone());
    let mut state = State::load(&tables).await?;
    let root = state.root.ok_or("the registry is empty")?;
    let mut hub = Hub { reader, blocks: Vec::new() };

    let mut names: Vec<String> = (1..count).map(|number| format!("some-name-of-an-image-{number:05}")).collect();
    names.push(IMAGE.into());
    names.sort();
    let image = path::lookup(&hub.reader, &root, IMAGE).await?.ok_or("the registry has no such image")?;
    let shard: CatalogueShard =
        serde_json::from_slice(&hub.read(&root, &format!("_ipcr/catalogue/{}", shard_name(IMAGE))).await?)?;
    let row = shard.images.get(IMAGE).ok_or("the catalogue does not list the image")?.clone();
    let tags = row.tags;

    let mut shards: BTreeMap<String, CatalogueShard> = BTreeMap::new();
    let mut list = GzEncoder::new(Vec::new(), Compression::best());
    for name in &names {
        let fresh = || CatalogueShard { images: BTreeMap::new(), ..shard.clone() };
        shards.entry(shard_name(name)).or_insert_with(fresh).images.insert(name.clone(), row.clone());
        writeln!(list, "{name}\t")?;
    }
    let mut catalogue = Vec::new();
    for (name, shard) in shards {
        catalogue.push(hub.file(&name, serde_json::to_vec(&shard)?));
    }
    catalogue.push(hub.file("names.txt.gz", list.finish()?));
    let mut registry: RegistryDocument = serde_json::from_slice(&hub.read(&root, "_ipcr/registry.json").await?)?;
    registry.counts.images = count;
    registry.counts.tags = count * tags;

    let old = path::resolve(&hub.reader, &root, "_ipcr/catalogue").await?;
    let catalogue = hub.edit(&old, "catalogue", catalogue).await?;
    let registry = hub.file("registry.json", serde_json::to_vec(&registry)?);
    let old = path::resolve(&hub.reader, &root, "_ipcr").await?;
    let own = hub.edit(&old, "_ipcr", vec![catalogue, registry]).await?;
    let mut entries: Vec<Link> = names.into_iter().map(|name| Link { name, ..image.clone() }).collect();
    entries.push(own);
    let root = hub.edit(&root, "", entries).await?.cid;

    let session = store.begin(limits::LEASE).await?;
    let blocks = hub.blocks.len();
    session.put(hub.blocks).await?;
    session.commit().await?;
    state.root = Some(root);
    tables.write(vec![state.write()]).await?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", json!({"images": count, "tags": count * tags, "blocks": blocks, "seconds": seconds}));
    Ok(())
}

/// What is read, and what is made.
struct Hub {
    reader: Reader,
    blocks: Vec<Block>,
}

impl Hub {
    /// What is in a file of one block.
    async fn read(&self, root: &Cid, place: &str) -> Result<Bytes> {
        let cid = path::resolve(&self.reader, root, place).await?;
        Ok(self.reader.read(&cid).await?)
    }

    /// A file of one block.
    fn file(&mut self, name: &str, bytes: Vec<u8>) -> Link {
        let block = Block::raw(bytes.into());
        let link = Link { cid: *block.cid(), name: name.to_owned(), tsize: block.data().len() as u64 };
        self.blocks.push(block);
        link
    }

    /// A directory with these entries instead of those that it has by their names.
    async fn edit(&mut self, directory: &Cid, name: &str, entries: Vec<Link>) -> Result<Link> {
        let edited = edit(&self.reader, Some(*directory), entries.into_iter().map(Change::Put)).await?;
        self.blocks.extend(edited.blocks);
        Ok(Link { cid: edited.cid, name: name.to_owned(), tsize: edited.tsize })
    }
}

/// The file of the catalogue that lists an image (docs/format.md, section 4).
fn shard_name(image: &str) -> String {
    format!("{:02x}.json", Digest::sha256(image.as_bytes()).as_bytes()[0])
}
