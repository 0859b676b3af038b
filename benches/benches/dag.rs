//! Cutting layers, encoding pieces, building and reading DAG nodes: bytes per second on one core.
//!
//! `IPCR_BENCH_TAR=FILE` measures a tar of one's own; without it a synthetic one of 32 MiB is made.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ipcr_benches::tar_header;
use ipcr_core::dag::block::Block;
use ipcr_core::dag::chunk::Chunker;
use ipcr_core::dag::cut::Cutter;
use ipcr_core::dag::encode::{Encoder, Encoding};
use ipcr_core::dag::file::FileBuilder;
use ipcr_core::dag::pb::{Link, Node};
use ipcr_core::dag::{decode, directory};

/// A tar of text-like files of all sizes.
fn layer() -> Vec<u8> {
    if let Some(path) = std::env::var_os("IPCR_BENCH_TAR") {
        return std::fs::read(path).expect("IPCR_BENCH_TAR names a readable file");
    }
    let words = ["lib", "usr", "share", "version ", "copyright ", "the ", "of ", "\n", "0x", "=", "license", ";"];
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits")
    };
    let mut tar = Vec::new();
    let mut number = 0;
    while tar.len() < 32 << 20 {
        number += 1;
        let size = if number % 12 == 0 { 30_000 + next() % 800_000 } else { next() % 12_000 };
        tar.extend(tar_header(&format!("usr/share/doc/package-{number}/file"), size));
        let end = (tar.len() + size).next_multiple_of(512);
        while tar.len() < end {
            tar.extend_from_slice(words[next() % words.len()].as_bytes());
            if next() % 4 == 0 {
                tar.extend_from_slice(format!("{:x}", next()).as_bytes());
            }
        }
        tar.truncate(end);
    }
    tar.extend_from_slice(&[0; 1024]);
    tar
}

fn cut(mut data: &[u8]) -> Vec<Bytes> {
    let mut cutter = Cutter::new();
    let mut pieces = Vec::new();
    while !data.is_empty() {
        pieces.extend(cutter.push(&mut data));
    }
    pieces.extend(cutter.finish());
    pieces
}

fn encode(encoding: Encoding, pieces: &[Bytes]) -> Vec<Bytes> {
    let mut encoder = Encoder::new(encoding).expect("the encoder starts");
    pieces.iter().map(|piece| encoder.encode(piece).expect("pieces can be encoded")).collect()
}

fn layers(criterion: &mut Criterion) {
    let tar = layer();
    let pieces = cut(&tar);
    let mut group = criterion.benchmark_group("layer");
    group.sample_size(10).throughput(Throughput::Bytes(tar.len() as u64));
    group.bench_function("cut", |bench| bench.iter(|| cut(black_box(&tar)).len()));
    for encoding in Encoding::ALL {
        let name = format!("cut and encode {encoding}");
        group.bench_function(name, |bench| bench.iter(|| encode(encoding, &cut(black_box(&tar))).len()));
        let blob = encode(encoding, &pieces).concat();
        group.bench_function(format!("decode {encoding}"), |bench| {
            bench.iter(|| {
                let mut decoder = decode::Decoder::new(black_box(&blob[..])).expect("the blob begins well");
                std::io::copy(&mut decoder, &mut std::io::sink()).expect("the blob is sound")
            });
        });
    }
    group.finish();
}

fn files(criterion: &mut Criterion) {
    let data = vec![7_u8; 64 << 20];
    let mut group = criterion.benchmark_group("file");
    group.sample_size(10).throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("chunk, hash and build", |bench| {
        bench.iter(|| {
            let (mut chunker, mut builder) = (Chunker::default(), FileBuilder::default());
            let mut rest = black_box(&data[..]);
            while !rest.is_empty() {
                if let Some(chunk) = chunker.push(&mut rest) {
                    let leaf = Block::raw(chunk);
                    builder.push(*leaf.cid(), leaf.data().len() as u64);
                }
            }
            builder.finish().0
        });
    });
    group.finish();
}

fn nodes(criterion: &mut Criterion) {
    let leaf = *Block::raw(Bytes::from_static(b"x")).cid();
    let links = |count: usize| (0..count).map(move |i| Link { cid: leaf, name: format!("entry-{i}"), tsize: 1 });
    let flat = directory::build(links(4000)).expect("names differ").blocks.remove(0).into_parts().1;
    let mut group = criterion.benchmark_group("node");
    group.throughput(Throughput::Bytes(flat.len() as u64));
    group.bench_function("decode", |bench| bench.iter(|| Node::decode(black_box(&flat)).expect("a sound node")));
    group.sample_size(10).throughput(Throughput::Elements(20_000));
    group.bench_function("build a directory of 20,000", |bench| {
        bench.iter_batched(|| links(20_000).collect::<Vec<_>>(), directory::build, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, layers, files, nodes);
criterion_main!(benches);
