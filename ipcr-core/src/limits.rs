//! Every ceiling on foreign data, with its unit.
//!
//! A reader of foreign bytes takes its bound from here and from nowhere else; beyond it the data is refused with
//! [`crate::kind::ErrorKind::Integrity`].

use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Largest manifest or index, in bytes (OCI distribution-spec, "Pushing Manifests": at least 4 MiB).
pub const MANIFEST_BYTES: u64 = 4 * MIB;
/// Largest image configuration, in bytes.
pub const CONFIG_BYTES: u64 = 8 * MIB;
/// Most bytes of all manifests and configurations of one image.
pub const IMAGE_DOCUMENT_BYTES: u64 = 64 * MIB;
/// Most bytes of all shards of the catalogue of one registry that is listed.
pub const CATALOGUE_BYTES: u64 = 256 * MIB;
/// Deepest nesting of indexes.
pub const INDEX_DEPTH: usize = 8;
/// Most manifests and indexes below one root.
pub const INDEX_NODES: usize = 256;
/// Largest answer of a registry's token server, and largest error that a registry tells, in bytes.
pub const TOKEN_BYTES: u64 = 64 * KIB;
/// Most layers of an image that goes into an engine.
pub const ENGINE_LAYERS: usize = 128;
/// Most layers of an image that is copied.
pub const COPY_LAYERS: usize = 512;
/// Largest IPNS record, in bytes (IPNS specification, "Record Size Limit").
pub const IPNS_RECORD_BYTES: usize = 10 * 1024;
/// Largest answer of a router about providers, in bytes.
pub const ROUTING_BYTES: u64 = MIB;
/// Most providers that are taken from one answer of a router (Delegated Routing V1 HTTP API: 100 at most).
pub const ROUTING_PROVIDERS: usize = 100;
/// Most addresses that are taken of one provider.
pub const PROVIDER_ADDRESSES: usize = 32;
/// Longest chain of names.
pub const NAME_RECURSION: usize = 32;
/// Longest line of hand-overs from one key of a registry to the next.
pub const HANDOVERS: usize = 32;
/// Largest list of hand-overs, in bytes.
pub const HANDOVERS_BYTES: u64 = 64 * KIB;
/// Tag folders of one registry that are provided to the network, the newest first (design section 7).
pub const PROVIDED_FOLDERS: usize = 500;
/// Homes with one key of which a registry says what it holds; the one heard of least recently is forgotten first.
pub const HOMES: usize = 256;
/// Changes of its registry that a home remembers, to make them again upon a root that lacks them.
pub const CHANGES: u64 = 8192;
/// Largest block, in bytes (Bitswap specification).
pub const BLOCK_BYTES: usize = 2 << 20;
/// Largest leaf that is written, in bytes.
pub const LEAF_BYTES: usize = 1 << 20;
/// Longest digest of an identity CID, in bytes.
pub const IDENTITY_BYTES: usize = 128;
/// Largest header of a CAR, in bytes.
pub const CAR_HEADER_BYTES: usize = 32 << 10;
/// Most wants of one peer that are remembered.
pub const WANTS_PER_PEER: usize = 1024;
/// Largest Bitswap message, in bytes.
pub const BITSWAP_FRAME_BYTES: usize = 4 << 20;
/// Most peers that are told, or taken from one answer, of those who fetch a root.
pub const SWARM_PEERS: usize = 50;
/// Longest question for those who fetch a root, in bytes.
pub const SWARM_QUESTION_BYTES: usize = 2 << 10;
/// Longest answer to it, in bytes.
pub const SWARM_ANSWER_BYTES: usize = 64 << 10;
/// Most bytes that wait to be written to one peer.
pub const QUEUED_BYTES_PER_PEER: usize = 8 << 20;
/// Largest message on a home's socket, in bytes.
pub const CONTROL_FRAME_BYTES: usize = 64 << 20;
/// Most calls of one client that a home's socket serves at once.
pub const CONTROL_CALLS: usize = 4096;
/// Most clients of a home's socket.
pub const CONTROL_CLIENTS: usize = 256;
/// Most HTTP requests in progress.
pub const HTTP_REQUESTS: usize = 1024;
/// Largest README, in bytes.
pub const README_BYTES: u64 = 256 * KIB;
/// Longest one-line description, in bytes.
pub const DESCRIPTION_BYTES: usize = 1024;
/// Largest `registry.json`, `_image.json` or catalogue shard, in bytes.
pub const METADATA_BYTES: u64 = 16 * MIB;
/// Plain bytes after which [`DECOMPRESSION_RATIO`] applies.
pub const DECOMPRESSION_FREE_BYTES: u64 = 64 * MIB;
/// Largest ratio of plain to compressed bytes.
pub const DECOMPRESSION_RATIO: u64 = 1000;
/// Largest zstd window, as a power of two (128 MiB).
pub const ZSTD_WINDOW_LOG: u32 = 27;
/// Most links of one dag-pb node.
pub const NODE_LINKS: usize = 1 << 16;
/// Name and link entries of one directory that is listed.
pub const DIRECTORY_ENTRIES: usize = 1 << 20;
/// Most folders that are looked at to list the images of a registry without a catalogue.
pub const LISTED_FOLDERS: usize = 1 << 16;
/// Deepest DAG of one file or sharded directory.
pub const DAG_DEPTH: usize = 64;
/// Most entries of one image archive.
pub const ARCHIVE_ENTRIES: usize = 16_384;
/// Largest `_layers.json` of a tag folder, in bytes.
pub const LAYERS_JSON_BYTES: u64 = MIB;
/// Largest JSON file inside an image archive, in bytes.
pub const ARCHIVE_JSON_BYTES: u64 = 16 * MIB;
/// Longest tag (OCI distribution-spec, "Pulling manifests").
pub const TAG_CHARS: usize = 128;
/// Longest image name, with its authority (OCI distribution-spec).
pub const NAME_CHARS: usize = 255;
/// Largest file of keys, in bytes.
pub const KEY_FILE_BYTES: usize = 64 << 10;
/// The fewest bytes in a second to which what is sent or taken may be limited. A block of a mebibyte takes 16 s then, which is already more than
/// others wait before they ask again; at a fraction of it nobody would get one before [`STALL`].
pub const LEAST_RATE: u64 = 64 << 10;
/// The longest time without progress in one stage, unless told otherwise.
pub const STALL: Duration = Duration::from_secs(60);
/// The longest time that anything is waited for, whatever is asked for: a year.
pub const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the blocks of an unfinished pull are kept.
pub const LEASE: Duration = Duration::from_secs(24 * 3600);
/// Lifetime of an IPNS record, unless told otherwise.
pub const RECORD_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long resolvers may cache an IPNS record of ours.
pub const RECORD_TTL: Duration = Duration::from_secs(60);
