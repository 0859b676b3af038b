//! Fixed chunks: the leaves of opaque blobs.
//!
//! The profile `unixfs-v1-2025` cuts every [`limits::LEAF_BYTES`]; equal bytes get equal CIDs with every tool that
//! follows it.

use bytes::{Bytes, BytesMut};

use crate::limits;

/// Cuts a stream into chunks of one size.
#[derive(Debug)]
pub struct Chunker {
    size: usize,
    pending: BytesMut,
}

impl Default for Chunker {
    fn default() -> Self {
        Self::new(limits::LEAF_BYTES)
    }
}

impl Chunker {
    /// A chunker of `size` bytes.
    ///
    /// # Panics
    /// When `size` is 0.
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "a chunk has at least one byte");
        Self { size, pending: BytesMut::new() }
    }

    /// Takes bytes from the front of `input`; a chunk as soon as one is full. Call again until `input` is empty.
    pub fn push(&mut self, input: &mut &[u8]) -> Option<Bytes> {
        if self.pending.is_empty() && !input.is_empty() {
            self.pending.reserve(self.size);
        }
        let (taken, rest) = input.split_at(input.len().min(self.size - self.pending.len()));
        self.pending.extend_from_slice(taken);
        *input = rest;
        (self.pending.len() == self.size).then(|| self.pending.split().freeze())
    }

    /// The last, shorter chunk, if bytes are left.
    pub fn finish(mut self) -> Option<Bytes> {
        (!self.pending.is_empty()).then(|| self.pending.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_do_not_depend_on_the_pushes() {
        let data: Vec<u8> = (0..100_u8).collect();
        for step in [1, 7, 30, 31, 100] {
            let mut chunker = Chunker::new(30);
            let mut chunks = Vec::new();
            for mut part in data.chunks(step) {
                while !part.is_empty() {
                    chunks.extend(chunker.push(&mut part));
                }
            }
            chunks.extend(chunker.finish());
            assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [30, 30, 30, 10]);
            assert_eq!(chunks.concat(), data);
        }
        assert_eq!(Chunker::default().finish(), None);
    }
}
