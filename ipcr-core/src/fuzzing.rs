//! What fuzzing feeds: one function for each form in which strangers' bytes come.
//!
//! Each holds for any input: the bytes are read and what was read comes back the same when it is written and read again, or they are
//! refused with a kind. Compiled for tests, which replay the seeds in `fuzz/seeds`, and with the feature `fuzzing`, for the targets in
//! `fuzz` (fuzz/README.md).

use std::io;

use bytes::Bytes;

use crate::dag::block::Block;
use crate::dag::car::{self, CarError, Section};
use crate::dag::compression::Compression;
use crate::dag::cut::{Cutter, PIECE_BYTES};
use crate::dag::decode::{Unpacker, sniff};
use crate::dag::directory::Part;
use crate::dag::pb::{Node, is_component};
pub use crate::exchange::routers::fuzz as routing_answer;
pub use crate::image::fuzz as image_documents;
use crate::kind::ErrorKind;
pub use crate::media::archive::fuzz as archives;
pub use crate::naming::dnslink::fuzz as txt_records;
use crate::naming::record::SignedRecord;
pub use crate::node::fuzzing::{bitswap_message, kademlia_message, swarm_message};
use crate::reference::Reference;
use crate::reference::key::IpnsName;
pub use crate::tree::document::fuzz as documents;

/// What is unpacked of one input, in bytes.
const UNPACKED: usize = 1 << 20;

/// A target: takes any bytes, and panics when what it says does not hold.
pub type Target = fn(&[u8]);

/// All of them, by the names of their folders.
pub const TARGETS: [(&str, Target); 14] = [
    ("archives", archives),
    ("bitswap_message", bitswap_message),
    ("car", car),
    ("dag_pb", dag_pb),
    ("documents", documents),
    ("image_documents", image_documents),
    ("ipns_record", ipns_record),
    ("kademlia_message", kademlia_message),
    ("layer", layer),
    ("reference", reference),
    ("routing_answer", routing_answer),
    ("swarm_message", swarm_message),
    ("txt_records", txt_records),
    ("unpack", unpack),
];

/// Streams of blocks (CAR).
pub fn car(bytes: &[u8]) {
    let (read, refused) = sections(bytes, bytes.len().max(1));
    let (again, refused_again) = sections(bytes, 7);
    assert_eq!(again, read, "what is read does not depend on how the stream came");
    assert_eq!(refused_again.as_ref().map(ToString::to_string), refused.as_ref().map(ToString::to_string));
    if let Some(error) = &refused {
        assert_refused(error.kind());
    }
    let Some((roots, blocks)) = read else { return };
    let mut written = Vec::new();
    car::put_header(&mut written, &roots);
    blocks.iter().for_each(|one| car::put_section(&mut written, &one.cid, &one.data));
    assert!(refused.is_some() || written.len() == bytes.len(), "there is one way to write them");
    let (read, refused) = sections(&written, 1024);
    assert!(refused.is_none(), "what was written is read: {refused:?}");
    assert_eq!(read, Some((roots, blocks)), "roots and blocks come back");
}

/// The roots and blocks of a stream that comes in steps, as far as it is one, and what is wrong with it.
fn sections(bytes: &[u8], step: usize) -> (Option<(Vec<cid::Cid>, Vec<Section>)>, Option<CarError>) {
    let (mut decoder, mut blocks) = (car::Decoder::new(), Vec::new());
    let mut read = || {
        for mut part in bytes.chunks(step) {
            while let Some(section) = decoder.push(&mut part)? {
                blocks.push(section);
            }
        }
        Ok(())
    };
    let outcome = read();
    let roots = decoder.roots().map(<[cid::Cid]>::to_vec);
    let refused = outcome.and_then(|()| decoder.finish()).err();
    (roots.map(|roots| (roots, blocks)), refused)
}

/// Nodes of dag-pb with UnixFS data: files, directories, shards of directories.
pub fn dag_pb(bytes: &[u8]) {
    let node = match Node::decode(&Bytes::copy_from_slice(bytes)) {
        Ok(node) => node,
        Err(error) => return assert_refused(error.kind()),
    };
    let written = Block::dag_pb(node.encode());
    assert_eq!(Node::decode(written.data()).expect("what was written is a node"), node, "a node comes back");
    assert_eq!(Node::decode_links(written.data()).expect("it has links"), node.links, "its links come back");
    match Part::decode(written.cid(), written.data()) {
        Ok(Part::Flat(entries)) => {
            assert!(
                entries.iter().all(|(name, link)| *name == link.name && is_component(name)),
                "names are components"
            );
        }
        Ok(Part::Shard(shard)) => {
            let (link, block) = shard.encode();
            assert_eq!(link.cid, *block.cid(), "a shard is linked by its block");
            let again = Part::decode(block.cid(), block.data()).expect("what was written is a directory");
            assert_eq!(again, Part::Shard(shard), "a shard comes back");
        }
        Err(error) => assert_refused(error.kind()),
    }
}

/// Records of IPNS, read as such of the first name in their seeds; other names' are refused.
pub fn ipns_record(bytes: &[u8]) {
    let name: IpnsName = "k51qzi5uqu5dize7ivj3g49u86ash0ldyc6fok9vtd2jazb4vsbgbg3uwmjqsw".parse().expect("a name");
    let bytes = Bytes::copy_from_slice(bytes);
    match SignedRecord::verify(&name, bytes.clone()) {
        Ok(record) => {
            assert_eq!(*record.bytes(), bytes, "a record is kept as it came");
            assert_eq!(SignedRecord::verify(record.name(), bytes).ok().as_ref(), Some(&record), "a record comes back");
            assert!(record.rank(&record).is_eq(), "a record is as good as itself");
        }
        Err(error) => assert_refused(error.kind()),
    }
}

/// References to images.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Reference>() {
        Ok(reference) => {
            let written = reference.to_string();
            assert_eq!(
                written.parse::<Reference>().ok().as_ref(),
                Some(&reference),
                "{text:?} is written as {written:?}"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
}

/// Layers: whatever is cut comes back, in pieces that are not too long, wherever it was pushed apart.
pub fn layer(bytes: &[u8]) {
    let whole = pieces(bytes, bytes.len().max(1));
    assert_eq!(whole.concat(), bytes, "pieces are the layer");
    assert!(whole.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE_BYTES), "pieces have their sizes");
    assert_eq!(pieces(bytes, 509), whole, "pieces do not depend on how the layer came");
}

fn pieces(bytes: &[u8], step: usize) -> Vec<Bytes> {
    let mut cutter = Cutter::new();
    let mut pieces = Vec::new();
    for mut part in bytes.chunks(step) {
        while !part.is_empty() {
            pieces.extend(cutter.push(&mut part));
        }
    }
    pieces.extend(cutter.finish());
    pieces
}

/// Compressed layers, whole or not: what comes out does not depend on the steps in which it was taken.
pub fn unpack(bytes: &[u8]) {
    let compression = match sniff(bytes) {
        Ok(compression) => compression,
        Err(error) => return assert_refused(error.kind()),
    };
    let large = unpacked(compression, bytes, 64 << 10);
    let small = unpacked(compression, bytes, 61);
    let mut member = Vec::new();
    let whole = Unpacker::new(compression).and_then(|mut whole| whole.take_member(bytes, &mut member));
    // What one of the two decompressors refuses in a header or a code table, the other may pass over.
    if let (Ok(Some(length)), Ok(steps)) = (whole, &large) {
        assert!(member[..length] == steps[..], "whole and in steps it is the same");
    }
    match (large, small) {
        (Ok(large), Ok(small)) => assert_eq!(large, small, "the steps make no difference"),
        (Err(large), Err(small)) => {
            assert_refused(ErrorKind::of_io(&large));
            assert_refused(ErrorKind::of_io(&small));
        }
        (large, small) => panic!("the steps make a difference: {large:?}, {small:?}"),
    }
}

/// The first MiB of what is unpacked.
fn unpacked(compression: Compression, mut bytes: &[u8], room: usize) -> io::Result<Vec<u8>> {
    let mut unpacker = Unpacker::new(compression)?;
    let (mut out, mut buffer) = (Vec::new(), vec![0; room]);
    while (!bytes.is_empty() || unpacker.holds_output()) && out.len() < UNPACKED {
        let (taken, given) = unpacker.step(bytes, &mut buffer)?;
        assert!(taken > 0 || given > 0 || bytes.is_empty(), "a step goes forward");
        bytes = &bytes[taken..];
        out.extend_from_slice(&buffer[..given]);
    }
    if out.len() < UNPACKED {
        unpacker.finish()?;
    }
    out.truncate(UNPACKED);
    Ok(out)
}

/// What is refused is refused as what it is: wrong data, and nothing that a second attempt would mend.
fn assert_refused(kind: ErrorKind) {
    assert!(matches!(kind, ErrorKind::Integrity | ErrorKind::NotFound | ErrorKind::Usage), "refused as {kind:?}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn seeds_hold() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
        let folders: Vec<_> = fs::read_dir(&seeds).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(folders.len(), TARGETS.len(), "one folder for each target: {folders:?}");
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(seeds.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(files.len() >= 50, "{name} has {} seeds", files.len());
            for file in files {
                let bytes = fs::read(&file).unwrap();
                let held = std::panic::catch_unwind(|| target(&bytes));
                assert!(held.is_ok(), "{}", file.display());
            }
        }
    }
}
