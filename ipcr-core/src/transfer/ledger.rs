//! What this home has stored before: blobs by digest, layers by diff ID, whole images by image ID.
//!
//! An entry is believed only while the root block of its file is in the store. Collection removes entries together with the
//! blocks (`upkeep`), so a root that is there stands for the whole file - until the next collection. Who builds on an entry
//! asks a ledger [`Ledger::within`] a session, which takes the whole file into the session before it answers.

use std::sync::Arc;

use cid::Cid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::TransferError;
use super::pieces::NewPieces;
use crate::digest::Digest;
use crate::exchange::walk::hold_all;
use crate::kind::ErrorKind;
use crate::port::blocks::{BlockStore, StoreSession};
use crate::port::table::{Change, Space, Table, TableError};
use crate::tree::stored::{StoredBlob, StoredImage};

/// A layer that ipcr encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownLayer {
    /// The blob it became.
    pub(crate) blob: StoredBlob,
    /// Its media type.
    pub(crate) media_type: String,
    /// Its uncompressed digest.
    pub(crate) diff_id: Digest,
}

/// The entries, in the home's tables.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    tables: Arc<dyn Table>,
    blocks: Arc<dyn BlockStore>,
    /// What takes the files that are found.
    session: Option<Arc<dyn StoreSession>>,
}

impl Ledger {
    /// The ledger of a home, for looking.
    pub(crate) fn new(tables: Arc<dyn Table>, blocks: Arc<dyn BlockStore>) -> Self {
        Self { tables, blocks, session: None }
    }

    /// The same for building on what is found: it belongs to the session, so that no collection takes it while that lives.
    pub(crate) fn within(mut self, session: &Arc<dyn StoreSession>) -> Self {
        self.session = Some(Arc::clone(session));
        self
    }

    /// The blocks that its entries speak of.
    pub(crate) fn blocks(&self) -> Arc<dyn BlockStore> {
        Arc::clone(&self.blocks)
    }

    /// Where the entries are.
    pub(super) fn tables(&self) -> Arc<dyn Table> {
        Arc::clone(&self.tables)
    }

    /// A blob that was kept byte for byte.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Option<StoredBlob>, TransferError> {
        let Some(blob) = self.read::<StoredBlob>(Space::Layers, &blob_key(digest)).await? else { return Ok(None) };
        Ok(self.held(&[blob.cid]).await?.then_some(blob))
    }

    /// A layer in one encoding.
    pub(crate) async fn layer(&self, diff_id: &Digest, encoding: &str) -> Result<Option<KnownLayer>, TransferError> {
        let key = layer_key(diff_id, encoding);
        let Some(layer) = self.read::<KnownLayer>(Space::Layers, &key).await? else { return Ok(None) };
        Ok(self.held(&[layer.blob.cid]).await?.then_some(layer))
    }

    /// An image that ipcr wrote the manifest of, by its configuration's digest.
    pub(crate) async fn image(&self, image_id: &Digest, encoding: &str) -> Result<Option<StoredImage>, TransferError> {
        let key = layer_key(image_id, encoding);
        let Some(image) = self.read::<StoredImage>(Space::Images, &key).await? else { return Ok(None) };
        let roots: Vec<_> = image.blobs.iter().map(|blob| blob.cid).collect();
        Ok(self.held(&roots).await?.then_some(image))
    }

    /// What is known of what a layer unpacks to.
    pub(crate) async fn unpacked(&self, digest: &Digest) -> Result<Option<KnownLayer>, TransferError> {
        self.read::<KnownLayer>(Space::Layers, &unpacked_key(digest)).await
    }

    /// Remembers what layers that were kept byte for byte unpack to.
    pub(crate) async fn remember_unpacked(&self, layers: &[KnownLayer]) -> Result<(), TransferError> {
        let put = |layer: &KnownLayer| Change::Put(Space::Layers, unpacked_key(&layer.blob.digest), encode(layer));
        let batch: Vec<Change> = layers.iter().map(put).collect();
        if batch.is_empty() { Ok(()) } else { Ok(self.tables.write(batch).await?) }
    }

    /// Remembers committed blobs, layers with their pieces and, if given, the image made of them.
    pub(crate) async fn remember(
        &self,
        blobs: &[StoredBlob],
        layers: &[(KnownLayer, String)],
        image: Option<(&Digest, &str, &StoredImage)>,
        pieces: &NewPieces,
    ) -> Result<(), TransferError> {
        pieces.write(&self.tables).await?;
        let mut batch = Vec::new();
        for blob in blobs {
            batch.push(Change::Put(Space::Layers, blob_key(&blob.digest), encode(blob)));
        }
        for (layer, encoding) in layers {
            batch.push(Change::Put(Space::Layers, layer_key(&layer.diff_id, encoding), encode(layer)));
            batch.push(Change::Put(Space::Layers, unpacked_key(&layer.blob.digest), encode(layer)));
        }
        if let Some((image_id, encoding, image)) = image {
            batch.push(Change::Put(Space::Images, layer_key(image_id, encoding), encode(image)));
        }
        if !batch.is_empty() {
            self.tables.write(batch).await?;
        }
        Ok(())
    }

    /// Whether these files are stored.
    async fn held(&self, files: &[Cid]) -> Result<bool, TransferError> {
        if !self.blocks.has(files).await?.into_iter().all(|held| held) {
            return Ok(false);
        }
        let Some(session) = &self.session else { return Ok(true) };
        for file in files {
            if !hold_all(self.blocks.as_ref(), session.as_ref(), file).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn read<T: DeserializeOwned>(&self, space: Space, key: &[u8]) -> Result<Option<T>, TransferError> {
        let Some(value) = self.tables.get(space, key).await? else { return Ok(None) };
        serde_json::from_slice(&value).map(Some).map_err(|source| {
            TransferError::Table(TableError {
                place: space.name().into(),
                doing: "reading",
                kind: ErrorKind::Integrity,
                source: Box::new(source),
            })
        })
    }
}

/// An entry of the ledger, and what it speaks of.
pub(crate) struct Entry {
    /// The files that it takes for stored; none if it cannot be read.
    pub(crate) files: Vec<Cid>,
    /// The change that takes the entry away.
    pub(crate) forget: Change,
}

/// A value of [`Space::Layers`].
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Layer { blob: StoredBlob },
    Blob(StoredBlob),
}

/// All entries of a home.
pub(crate) async fn entries(tables: &Arc<dyn Table>) -> Result<Vec<Entry>, TableError> {
    let mut entries = Vec::new();
    for (key, value) in tables.scan(Space::Layers, &[]).await? {
        let files = match serde_json::from_slice(&value) {
            Ok(Value::Layer { blob } | Value::Blob(blob)) => vec![blob.cid],
            Err(_) => Vec::new(),
        };
        entries.push(Entry { files, forget: Change::Delete(Space::Layers, key) });
    }
    for (key, value) in tables.scan(Space::Images, &[]).await? {
        let image = serde_json::from_slice::<StoredImage>(&value).ok();
        let files = image.into_iter().flat_map(|image| image.blobs).map(|blob| blob.cid).collect();
        entries.push(Entry { files, forget: Change::Delete(Space::Images, key) });
    }
    Ok(entries)
}

fn blob_key(digest: &Digest) -> Vec<u8> {
    format!("blob/{digest}").into_bytes()
}

fn unpacked_key(digest: &Digest) -> Vec<u8> {
    format!("unpacked/{digest}").into_bytes()
}

fn layer_key(digest: &Digest, encoding: &str) -> Vec<u8> {
    format!("{encoding}/{digest}").into_bytes()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("ledger entries are plain data")
}
