//! Archives in bytes per second: reading what `docker save` writes, as a stream; writing what `docker load` reads.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::Cursor;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipcr_core::media::archive::writer::ArchiveWriter;
use ipcr_core::media::export::StreamExport;
use ipcr_core::media::place::Place;
use ipcr_core::port::image::Export;
use tokio::io::AsyncReadExt;

const LAYERS: usize = 8;
const LAYER_BYTES: usize = 8 << 20;

/// A layer as Docker's: it begins with a valid header, so that it is recognised as one.
fn layer(number: usize) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(format!("f{number:03}").as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", LAYER_BYTES - 2048).as_bytes());
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut layer = header.to_vec();
    layer.resize(LAYER_BYTES, u8::try_from(number).expect("few layers"));
    layer
}

async fn write(layers: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::with_capacity((LAYER_BYTES + 4096) * LAYERS));
    for (number, layer) in layers.iter().enumerate() {
        archive.file(&format!("{number:064x}/layer.tar"), layer).await.expect("memory takes everything");
    }
    archive.finish().await.expect("memory takes everything")
}

async fn read(archive: Vec<u8>, buffer: &mut [u8]) -> u64 {
    let stream = Box::pin(Cursor::new(archive));
    let mut export = StreamExport::new(stream, Place::new("bench"), None, HashMap::new());
    let mut total = 0;
    while let Some(mut layer) = export.next_layer().await.expect("it is an archive") {
        loop {
            match layer.data.read(buffer).await.expect("it is complete") {
                0 => break,
                count => total += count as u64,
            }
        }
    }
    assert_eq!(total, (LAYERS * LAYER_BYTES) as u64);
    total
}

fn archives(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be made");
    let layers: Vec<_> = (0..LAYERS).map(layer).collect();
    let archive = runtime.block_on(write(&layers));
    let mut group = criterion.benchmark_group("archive");
    group.throughput(Throughput::Bytes(archive.len() as u64)).sample_size(10);
    let mut buffer = vec![0; 256 << 10];
    group.bench_function("read a stream", |bencher| {
        bencher.iter_batched(
            || archive.clone(),
            |archive| black_box(runtime.block_on(read(archive, &mut buffer))),
            criterion::BatchSize::LargeInput,
        );
    });
    group.bench_function("write", |bencher| {
        bencher.iter(|| black_box(runtime.block_on(write(&layers)).len()));
    });
    group.finish();
}

criterion_group!(benches, archives);
criterion_main!(benches);
