//! What operations return. The field names are those of `docs/json.md`: serialising an outcome gives the command's object.

use chrono::{DateTime, Utc};
use cid::Cid;
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::naming::chain::{ChainStep, TrustLevel};
use crate::port::exchange::{GatewayShare, PeerShare};
use crate::reference::Authority;

/// Who this registry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The registry's IPNS name (`k51…`).
    pub ipns: String,
    /// The same key as a DID.
    pub did: String,
    /// The encryption recipient (`age1…`).
    pub recipient: String,
    /// The transport node.
    pub node: NodeIdentity,
    /// The TXT records to publish; empty without a domain.
    pub txt: Vec<TxtRecord>,
    /// The registry's domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The registry's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Identity {
    /// Whether an authority names this registry: its domain, or its key in any spelling.
    pub fn is_named_by(&self, authority: &Authority) -> bool {
        match authority {
            Authority::Domain(domain) | Authority::DidWeb(domain) => self.domain.as_deref() == Some(domain.as_str()),
            Authority::Key(key) => self.ipns.parse() == Ok(*key),
            _ => false,
        }
    }
}

/// The transport node's key and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Its peer id (`12D3Koo…`).
    pub peer_id: String,
    /// Addresses, each ending in `/p2p/<peer id>`.
    pub addresses: Vec<Multiaddr>,
}

/// One TXT record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxtRecord {
    /// Its owner name (`_dnslink.hub.test`).
    pub name: String,
    /// Its value (`dnslink=/ipns/k51…`).
    pub value: String,
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushOutcome {
    /// `authority/name:tag@digest`.
    pub reference: String,
    /// The image's name.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// What the tag names: a manifest or an index.
    pub digest: Digest,
    /// The configuration's digest; `None` for an index or another artifact.
    pub image_id: Option<Digest>,
    /// The tag folder.
    #[serde(with = "crate::dag::text::cid")]
    pub cid: Cid,
    /// The registry's root.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// The registry's IPNS name.
    pub ipns: String,
    /// The sequence of the registry's current record; 0 when none was ever signed.
    pub sequence: u64,
    /// Whether at least one other party accepted the record.
    pub published: bool,
    /// Who else confirmed to hold the root.
    pub holders: Vec<String>,
    /// Whether others find the root; `None` if that was not asked.
    pub findable: Option<bool>,
    /// Whether the tag held exactly this already.
    pub unchanged: bool,
    /// How its layers are stored.
    pub encodings: Vec<PushEncoding>,
    /// What `recompress` would have saved; `None` if no layer was stored as it came.
    pub recompress: Option<Recompress>,
    /// Sizes.
    pub bytes: PushBytes,
}

/// Layers of one encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushEncoding {
    /// Its id, or `opaque` for layers that are kept as they came.
    pub encoding: String,
    /// How many layers of the image have it.
    pub layers: u64,
    /// Their bytes as they are stored.
    pub bytes: u64,
}

/// What encoding layers anew would do for an image whose layers were kept as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recompress {
    /// About how many bytes of the layers that were stored hold what layers in this home had before, and need not be stored and sent
    /// again when all are encoded.
    pub shared: u64,
}

/// Sizes of a push, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushBytes {
    /// All blobs of the image, as they are stored (compressed).
    pub image: u64,
    /// Of these, what was read and stored by this push, known parts included.
    pub stored: u64,
    /// Block bytes that the store did not hold before.
    pub new: u64,
}

/// What a push would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPlan {
    /// The source.
    pub source: String,
    /// The image's name, if it is known before the source is read.
    pub name: Option<String>,
    /// The tag, if it is known before the source is read.
    pub tag: Option<String>,
    /// What the tag names now, if it exists.
    pub current: Option<Digest>,
    /// What it would name, if that is known before the source is read.
    pub digest: Option<Digest>,
    /// Its layers, lowest first.
    pub layers: Vec<PlannedLayer>,
    /// Whether the source would be read at all.
    pub reads_source: bool,
    /// Whether it is known before reading that nothing would change.
    pub unchanged: bool,
    /// Whether it would be published.
    pub publish: bool,
}

/// One layer of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// Its uncompressed or compressed digest, as far as the source tells.
    pub digest: Option<Digest>,
    /// Whether it is stored already.
    pub known: bool,
    /// Bytes in the source, if known.
    pub size: Option<u64>,
}

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullOutcome {
    /// `authority/name:tag@digest`.
    pub reference: String,
    /// What the reference names.
    pub digest: Digest,
    /// The delivered platform's manifest; `None` when all platforms were delivered.
    pub manifest: Option<Digest>,
    /// The delivered platform.
    pub platform: Option<String>,
    /// The configuration's digest, which is the image ID in most engines.
    pub image_id: Option<Digest>,
    /// The tag folder.
    #[serde(with = "crate::dag::text::cid")]
    pub cid: Cid,
    /// The registry's root.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// How the name was followed.
    pub chain: Vec<ChainStep>,
    /// Why the name is believed.
    pub trust: TrustLevel,
    /// Sizes.
    pub bytes: PullBytes,
    /// Who sent how much.
    pub peers: Vec<PeerShare>,
    /// The same of gateways that were asked.
    pub gateways: Vec<GatewayShare>,
    /// Where it went, and the name it has there.
    pub sink: String,
}

/// Sizes of a pull, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullBytes {
    /// All blobs of what was delivered.
    pub image: u64,
    /// Block bytes received from others.
    pub fetched: u64,
    /// Block bytes read from the own store.
    pub local: u64,
}

/// Where a reference leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveOutcome {
    /// `authority/name:tag@digest`, or without digest when no image was named.
    pub reference: String,
    /// How the name was followed.
    pub chain: Vec<ChainStep>,
    /// The registry's root.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// The tag folder, when an image was named.
    #[serde(with = "crate::dag::text::optional_cid")]
    pub cid: Option<Cid>,
    /// What the tag names, when an image was named.
    pub digest: Option<Digest>,
    /// Why the name is believed.
    pub trust: TrustLevel,
}

/// The images of a registry, or the tags of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The registry: its authority as given, or the own IPNS name.
    pub registry: String,
    /// The registry's root; `None` for a registry that has never held anything.
    #[serde(with = "crate::dag::text::optional_cid")]
    pub root: Option<Cid>,
    /// Its images, by name.
    pub images: Vec<ListedImage>,
}

/// One image of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedImage {
    /// Its name.
    pub name: String,
    /// Its one-line description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tag that was pushed last.
    pub newest: Option<String>,
    /// Bytes of the newest tag's blobs, compressed.
    pub size: Option<u64>,
    /// When the newest tag was pushed.
    pub updated: Option<DateTime<Utc>>,
    /// Its tags, newest first; filled where one image is listed.
    pub tags: Vec<ListedTag>,
}

/// One tag of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTag {
    /// Its name.
    pub tag: String,
    /// What it names; `None` for a folder that is no layout (2020).
    pub digest: Option<Digest>,
    /// Bytes of all blobs, compressed.
    pub size: Option<u64>,
    /// Its platforms.
    pub platforms: Vec<String>,
    /// When it was pushed.
    pub pushed: Option<DateTime<Utc>>,
}

/// One image in detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// `authority/name:tag@digest`.
    pub reference: String,
    /// What the reference names.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The tag folder.
    #[serde(with = "crate::dag::text::cid")]
    pub cid: Cid,
    /// The registry's root.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// How the name was followed.
    pub chain: Vec<ChainStep>,
    /// Why the name is believed.
    pub trust: TrustLevel,
    /// Its manifests.
    pub manifests: Vec<InspectedManifest>,
    /// Digests of manifests that refer to it.
    pub referrers: Vec<Digest>,
    /// The raw bytes of what the reference names.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// One image manifest in detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its platform; `None` where its configuration says none, and for what is no container image.
    pub platform: Option<String>,
    /// The image ID, the SHA-256 of the configuration; `None` for what is no container image.
    pub image_id: Option<Digest>,
    /// When the image was made, as its configuration says.
    pub created: Option<String>,
    /// Its layers, lowest first.
    pub layers: Vec<InspectedLayer>,
}

/// One layer in detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedLayer {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub size: u64,
    /// How ipcr stores it, if the registry says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// What `tag`, `rm` or `publish` changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditOutcome {
    /// What was edited: `name:tag@digest`, `name@digest` or `name`; empty for `publish`.
    pub changed: Vec<String>,
    /// The registry's root.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// The registry's IPNS name.
    pub ipns: String,
    /// The sequence of the registry's current record; 0 when none was ever signed.
    pub sequence: u64,
    /// Whether at least one other party accepted the record.
    pub published: bool,
    /// Who else confirmed to hold the root.
    pub holders: Vec<String>,
    /// Whether others find the root; `None` if that was not asked.
    pub findable: Option<bool>,
    /// Whether nothing had to change.
    pub unchanged: bool,
}

/// What a copy did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOutcome {
    /// The source.
    pub source: String,
    /// Where it went, and the name it has there.
    pub sink: String,
    /// What was copied: a manifest or an index.
    pub digest: Digest,
    /// The configuration's digest when one image was copied.
    pub image_id: Option<Digest>,
    /// Bytes of all blobs.
    pub bytes: u64,
}

/// What a garbage collection removed or, as a plan, would remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcOutcome {
    /// Blocks kept.
    pub kept_blocks: u64,
    /// Blocks removed.
    pub removed_blocks: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Bytes given back to the disk.
    pub freed_bytes: u64,
}

/// What a check found. It found nothing when `problems` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// Blocks looked at.
    pub blocks: u64,
    /// Bytes read and hashed.
    pub bytes_read: u64,
    /// Tags of this registry that were walked.
    pub tags: u64,
    /// What is wrong, for people.
    pub problems: Vec<String>,
}

/// What a repair found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairOutcome {
    /// What was found, before anything was done.
    pub found: CheckOutcome,
    /// Blocks that were known to be lacking. Below them, more may have been.
    pub lacking: u64,
    /// The first of them.
    pub lacking_cids: Vec<String>,
    /// Blocks that others sent, and their bytes.
    pub fetched: Used,
    /// Blocks that were made again here.
    pub made: u64,
    /// Damaged blocks that nothing needs, which were taken away; also whatever else nothing needed.
    pub removed: u64,
    /// Blocks that are lacking still.
    pub lost: u64,
    /// Whether some of these are because nobody could be asked.
    pub unasked: bool,
    /// What is wrong still; for a dry run, what was found.
    pub problems: Vec<String>,
}

/// What a home uses, and for what. Each block counts once: for the first of own images, metadata, cache and interrupted pulls
/// that needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageOutcome {
    /// Own images: everything in the folders of tags and manifests.
    pub own: ImagesUsed,
    /// What else this registry has: catalogue, documents, directories.
    pub metadata: Used,
    /// Pulled images that are kept.
    pub cache: CacheUsed,
    /// What interrupted pulls and pushes have left, to go on from.
    pub interrupted: Used,
    /// What a collection would remove.
    pub reclaimable: Used,
    /// Files, in bytes on the disk.
    pub files: FilesUsed,
    /// The disk that the home is on.
    pub disk: DiskRoom,
}

/// Blocks, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What own images use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesUsed {
    /// Images.
    pub images: u64,
    /// Their tags.
    pub tags: u64,
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What pulled images use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUsed {
    /// Images.
    pub images: u64,
    /// Blocks that no own image has.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The most bytes that are kept.
    pub limit: u64,
}

/// Bytes of a home's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesUsed {
    /// Packs: blocks, and dead space between them.
    pub packs: u64,
    /// The index of the packs.
    pub index: u64,
    /// The tables.
    pub tables: u64,
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRoom {
    /// All of it.
    pub size: u64,
    /// What is free for this user.
    pub free: u64,
}

/// One remembered key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustEntry {
    /// The domain.
    pub domain: String,
    /// Its IPNS name, or `keyless`.
    pub key: String,
    /// Whether it was ever seen secured by DNSSEC.
    pub dnssec: bool,
    /// Since when.
    pub since: DateTime<Utc>,
}
