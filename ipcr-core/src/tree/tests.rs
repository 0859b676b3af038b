//! A registry in memory, and images made of a few bytes.

mod edits;
mod folders;
mod golden;
mod random;
mod size;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use cid::Cid;

use super::blocks::{self, small_file};
use super::check::check;
use super::document::ImageDocument;
use super::edit::{Edit, Edited, RegistryInfo, apply, empty};
use super::error::TreeError;
use super::read::{self, Found, Wanted};
use super::stored::{LayerEncoding, StoredBlob, StoredImage, StoredManifest};
use crate::dag::block::Block;
use crate::dag::compression::Compression;
use crate::dag::directory;
use crate::dag::pb::Link;
use crate::digest::Digest;
use crate::exchange::reader::Reader;
use crate::image::canonical::{CanonicalLayer, canonical_manifest};
use crate::image::descriptor::{Descriptor, PlatformField};
use crate::image::media_type::{OCI_EMPTY, OCI_INDEX, OCI_MANIFEST};
use crate::port::memory::blocks::MemoryBlocks;

/// A registry with its blocks.
pub(crate) struct Hub {
    pub(crate) store: MemoryBlocks,
    pub(crate) reader: Reader,
    pub(crate) root: Cid,
}

pub(crate) fn info() -> RegistryInfo {
    RegistryInfo {
        did: "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp".into(),
        ipns: "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r".into(),
        title: Some("Golden".into()),
        domain: Some("hub.test".into()),
        key_agreement: vec!["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".into()],
        mirrors: Vec::new(),
        did_document: r#"{"id":"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"}"#.into(),
    }
}

impl Hub {
    pub(crate) async fn new() -> Self {
        let store = MemoryBlocks::new();
        let made = empty(&info()).await.unwrap();
        for block in made.blocks {
            store.insert(block);
        }
        let reader = Reader::local(Arc::new(store.clone()));
        Self { store, reader, root: made.root }
    }

    /// Applies edits; the blocks that came with it.
    pub(crate) async fn edit(&mut self, edits: &[Edit]) -> Result<Edited, TreeError> {
        let edited = apply(&self.reader, &self.root, edits, None).await?;
        assert_eq!(edited.unchanged, edited.root == self.root);
        for block in &edited.blocks {
            self.store.insert(block.clone());
        }
        self.root = edited.root;
        Ok(edited)
    }

    pub(crate) async fn push(&mut self, image: &str, tag: &str, stored: &StoredImage, at: i64) -> Edited {
        self.edit(&[set_tag(image, tag, stored, at)]).await.unwrap()
    }

    pub(crate) async fn find(&self, image: &str, tag: &str) -> Result<Found, TreeError> {
        let wanted = Wanted::Tag(tag.parse().unwrap());
        read::find(&self.reader, &self.root, &image.parse().unwrap(), &wanted).await
    }

    pub(super) async fn find_digest(&self, image: &str, digest: Digest) -> Result<Found, TreeError> {
        read::find(&self.reader, &self.root, &image.parse().unwrap(), &Wanted::Digest(digest)).await
    }

    pub(super) async fn document(&self, image: &str) -> Option<ImageDocument> {
        read::image(&self.reader, &self.root, &image.parse().unwrap()).await.unwrap()
    }

    /// The link at a path of the registry.
    pub(super) async fn at(&self, path: &str) -> Option<Link> {
        blocks::walk(&self.reader, &self.root, path.split('/')).await.unwrap()
    }

    pub(super) async fn file(&self, path: &str) -> Option<String> {
        let link = self.at(path).await?;
        let bytes = blocks::read_file(&self.reader, path, &link.cid, 1 << 24).await.unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Puts a file or directory at a path, past all rules.
    pub(super) async fn tamper(&mut self, path: &str, link: Option<Link>) {
        let mut names: Vec<&str> = path.split('/').collect();
        let mut change = match link {
            Some(link) => directory::Change::Put(Link { name: names.pop().unwrap().into(), ..link }),
            None => directory::Change::Remove(names.pop().unwrap().into()),
        };
        loop {
            let parent = blocks::walk(&self.reader, &self.root, names.iter().copied()).await.unwrap();
            let parent = parent.map(|link| link.cid);
            let edited = crate::exchange::directory::edit(&self.reader, parent, [change]).await.unwrap();
            for block in edited.blocks {
                self.store.insert(block);
            }
            let Some(name) = names.pop() else {
                self.root = edited.cid;
                return;
            };
            change = directory::Change::Put(Link { cid: edited.cid, name: name.into(), tsize: edited.tsize });
        }
    }

    pub(super) fn add_file(&self, data: &[u8]) -> Link {
        let (root, blocks) = small_file(data);
        for block in blocks {
            self.store.insert(block);
        }
        Link { cid: root.cid, name: String::new(), tsize: root.tsize }
    }

    pub(super) fn add_directory(&self, entries: Vec<Link>) -> Link {
        let edited = directory::build(entries).unwrap();
        for block in edited.blocks {
            self.store.insert(block);
        }
        Link { cid: edited.cid, name: String::new(), tsize: edited.tsize }
    }

    fn blob(&self, data: &[u8], encoding: Option<LayerEncoding>) -> StoredBlob {
        let link = self.add_file(data);
        StoredBlob {
            digest: Digest::sha256(data),
            size: data.len() as u64,
            cid: link.cid,
            tsize: link.tsize,
            encoding,
            plain_size: None,
        }
    }

    /// An image of two layers; `seed` makes it differ.
    pub(crate) fn image(&self, platform: &str, seed: &str) -> StoredImage {
        let layers = [b"base".to_vec(), format!("layer {seed}").into_bytes()];
        let config = config(platform, &layers);
        let encoding = |plain: &[u8]| LayerEncoding {
            id: "aligned-gzip/1".into(),
            diff_id: Digest::sha256(plain),
            plain_size: plain.len() as u64,
        };
        let mut blobs = vec![self.blob(&config, None)];
        blobs.extend(layers.iter().map(|layer| self.blob(layer, Some(encoding(layer)))));
        let list: Vec<_> = blobs[1..]
            .iter()
            .map(|blob| CanonicalLayer { compression: Compression::Gzip, digest: blob.digest, size: blob.size })
            .collect();
        let (root, bytes) = canonical_manifest(&config, &list);
        let manifests = vec![StoredManifest { descriptor: root.clone(), bytes }];
        StoredImage { root, manifests, blobs }
    }

    /// An index of images.
    pub(super) fn index(&self, platforms: &[&str], seed: &str) -> StoredImage {
        let images: Vec<_> = platforms.iter().map(|platform| self.image(platform, seed)).collect();
        let entries: Vec<Descriptor> = images
            .iter()
            .zip(platforms)
            .map(|(image, platform)| Descriptor { platform: Some(platform_field(platform)), ..image.root.clone() })
            .collect();
        let bytes = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries,
        }));
        let mut stored = stored(OCI_INDEX, bytes.unwrap());
        for image in images {
            stored.manifests.extend(image.manifests);
            stored.blobs.extend(image.blobs);
        }
        let mut blobs: BTreeMap<Digest, StoredBlob> = BTreeMap::new();
        blobs.extend(stored.blobs.into_iter().map(|blob| (blob.digest, blob)));
        stored.blobs = blobs.into_values().collect();
        stored
    }

    /// An artifact that refers to `subject`.
    pub(super) fn referrer(&self, subject: &Descriptor, note: &str) -> StoredImage {
        let blob = self.blob(b"{}", None);
        let bytes = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "test/signature",
            "config": Descriptor::new(OCI_EMPTY, blob.digest, blob.size), "layers": [],
            "subject": subject, "annotations": { "note": note },
        }));
        let mut stored = stored(OCI_MANIFEST, bytes.unwrap());
        stored.blobs.push(blob);
        stored
    }

    /// The registry must be without contradictions, and every directory the one that a fresh build gives.
    pub(super) async fn assert_sound(&self) {
        self.assert_sound_at(&self.root).await;
    }

    /// The same for another root.
    pub(crate) async fn assert_sound_at(&self, root: &Cid) {
        let report = check(&self.reader, root).await.unwrap();
        assert_eq!(report.problems, []);
        let mut todo = vec![*root];
        while let Some(cid) = todo.pop() {
            if blocks::stat(&self.reader, "", &cid).await.unwrap() != blocks::Stat::Directory {
                continue;
            }
            let entries = blocks::list(&self.reader, "", &cid).await.unwrap();
            assert_eq!(directory::build(entries.clone().into_values()).unwrap().cid, cid);
            todo.extend(entries.into_values().map(|link| link.cid));
        }
    }
}

fn stored(media_type: &str, bytes: Vec<u8>) -> StoredImage {
    let root = Descriptor::new(media_type, Digest::sha256(&bytes), bytes.len() as u64);
    let manifests = vec![StoredManifest { descriptor: root.clone(), bytes: bytes.into() }];
    StoredImage { root, manifests, blobs: Vec::new() }
}

fn platform_field(platform: &str) -> PlatformField {
    let platform: crate::image::platform::Platform = platform.parse().unwrap();
    PlatformField {
        architecture: platform.architecture,
        os: platform.os,
        os_version: None,
        os_features: Vec::new(),
        variant: platform.variant,
    }
}

fn config(platform: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let platform = platform_field(platform);
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    let mut config = serde_json::json!({
        "architecture": platform.architecture, "os": platform.os,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    if let Some(variant) = platform.variant {
        config["variant"] = variant.into();
    }
    serde_json::to_vec(&config).unwrap()
}

pub(super) fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

pub(crate) fn set_tag(image: &str, tag: &str, stored: &StoredImage, at: i64) -> Edit {
    Edit::SetTag {
        image: image.parse().unwrap(),
        tag: tag.parse().unwrap(),
        stored: Box::new(stored.clone()),
        description: None,
        readme: None,
        pushed: time(at),
    }
}

pub(crate) fn remove_tag(image: &str, tag: &str) -> Edit {
    Edit::RemoveTag { image: image.parse().unwrap(), tag: tag.parse().unwrap() }
}

pub(super) fn remove_digest(image: &str, digest: Digest) -> Edit {
    Edit::RemoveDigest { image: image.parse().unwrap(), digest }
}

pub(crate) fn remove_image(image: &str) -> Edit {
    Edit::RemoveImage { image: image.parse().unwrap() }
}

pub(super) fn put(image: &str, stored: &StoredImage, at: i64) -> Edit {
    Edit::PutManifest { image: image.parse().unwrap(), stored: Box::new(stored.clone()), pushed: time(at) }
}

pub(super) fn describe(image: &str, description: &str, readme: &str) -> Edit {
    Edit::Describe { image: image.parse().unwrap(), description: Some(description.into()), readme: Some(readme.into()) }
}

pub(super) fn bytes_of(blocks: &[Block]) -> usize {
    blocks.iter().map(|block| block.data().len()).sum()
}
