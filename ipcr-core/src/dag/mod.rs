//! Blocks and DAGs without any I/O: dag-pb and UnixFS, cutting, layer encodings.
//!
//! * [`block`]: bytes checked against their CID.
//! * [`pb`]: dag-pb nodes with UnixFS data, read from any origin and written canonically.
//! * [`chunk`], [`file`](mod@file): leaves of one size, and the balanced tree over leaves.
//! * [`directory`], [`hamt`]: flat and sharded directories, edited path by path.
//! * [`car`]: blocks one after another in a stream.
//! * [`varint`], [`protobuf`], [`cbor`]: what these formats, records and messages are written with.
//! * [`cut`], [`splitmix`], [`encode`], [`decode`]: layers cut along their files, pieces compressed alone, layers decompressed.
//!
//! Everything here works on slices and blocks: bytes in, blocks out, no task, file or socket.

pub mod block;
pub mod car;
pub(crate) mod cbor;
pub mod chunk;
pub mod compression;
pub mod cut;
pub mod decode;
pub mod directory;
pub mod encode;
pub mod file;
pub mod hamt;
pub mod pb;
pub(crate) mod protobuf;
pub(crate) mod splitmix;
pub mod text;
pub(crate) mod varint;
