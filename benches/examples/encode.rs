//! How fast one core encodes layers, for `cargo xtask bench`: `encode LAYER...`, with plain tar archives.
//!
//! Prints one JSON object: `bytes` of the layers, `encoded` bytes, and the `seconds` that encoding took: neither reading nor
//! cutting.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipcr_core::dag::compression::Compression;
use ipcr_core::dag::cut::Cutter;
use ipcr_core::dag::encode::{Encoder, Encoding};
use serde_json::json;
use tikv_jemallocator::Jemalloc;

/// The one that `ipcr` has.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut encoder = Encoder::new(Encoding::current(Compression::Gzip))?;
    let (mut bytes, mut encoded, mut spent) = (0, 0, Duration::ZERO);
    for layer in std::env::args().skip(1) {
        let layer = std::fs::read(layer)?;
        bytes += layer.len();
        for piece in cut(&layer) {
            let start = Instant::now();
            encoded += encoder.encode(&piece)?.len();
            spent += start.elapsed();
        }
    }
    println!("{}", json!({"bytes": bytes, "encoded": encoded, "seconds": spent.as_secs_f64()}));
    Ok(())
}

fn cut(mut layer: &[u8]) -> Vec<Bytes> {
    let mut cutter = Cutter::new();
    let mut pieces = Vec::new();
    while let Some(piece) = cutter.push(&mut layer) {
        pieces.push(piece);
    }
    pieces.extend(cutter.finish());
    pieces
}
