//! Fills a home with many small blocks, for `cargo xtask accept`: `many COUNT --home DIR`.
//!
//! Every other block belongs to a file that counts as pulled, and so is kept; the others are of no use to anybody. Prints one JSON
//! object: `blocks` (all that are stored), `live` (those that are kept), `seconds`.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use ipcr_core::dag::block::Block;
use ipcr_core::dag::file::FileBuilder;
use ipcr_core::limits;
use ipcr_core::pin::cache::CacheEntry;
use ipcr_core::port::blocks::BlockStore as _;
use ipcr_core::port::table::Table;
use ipcr_core::store::Home;
use serde_json::json;

/// Bytes of each block.
const SIZE: usize = 100;
/// Blocks that are put at once, and so many times that until a commit.
const BATCH: u64 = 4096;
const BATCHES: u64 = 32;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [count, flag, home] = &args[..] else { return Err("usage: many COUNT --home DIR".into()) };
    if flag != "--home" {
        return Err("usage: many COUNT --home DIR".into());
    }
    let (count, begin): (u64, _) = (count.parse()?, Instant::now());
    let home = Home::open(Path::new(home), Duration::ZERO)?;
    let store = home.blocks()?;
    let tables: Arc<dyn Table> = Arc::new(home.table()?);
    let session = store.begin(limits::LEASE).await?;
    let mut file = FileBuilder::default();
    let (mut made, mut nodes) = (0, 0);
    while made < count {
        let mut batch = Vec::new();
        for number in made..count.min(made + BATCH) {
            let mut data = vec![0; SIZE];
            data[..8].copy_from_slice(&number.to_le_bytes());
            let leaf = Block::raw(data.into());
            if number % 2 == 0 {
                batch.extend(file.push(*leaf.cid(), SIZE as u64));
            }
            batch.push(leaf);
        }
        made = count.min(made + BATCH);
        nodes += batch.len() as u64;
        session.put(batch).await?;
        if made.is_multiple_of(BATCH * BATCHES) {
            session.commit().await?;
        }
    }
    let (root, rest) = file.finish();
    nodes += rest.len() as u64;
    session.put(rest).await?;
    session.commit().await?;
    let entry = CacheEntry { root: root.cid, size: root.size, used: Utc::now(), counted: None };
    entry.write(&tables, &root.cid).await?;
    let live = nodes - count / 2;
    println!("{}", json!({"blocks": nodes, "live": live, "seconds": begin.elapsed().as_secs_f64()}));
    Ok(())
}
