//! Small durable records: [`Table`].

use std::fmt::Debug;

use async_trait::async_trait;

use crate::kind::{Cause, ErrorKind};

/// A key space of its own inside a table. Values are JSON or bytes, as each owner says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// Encoded layers by diff ID and encoding.
    Layers,
    /// Written manifests by image ID and encoding.
    Images,
    /// Roots that are kept, by CID.
    Pins,
    /// This registry: root, tags not yet published, last published record.
    Registry,
    /// IPNS records by binary routing key: the best ever seen, with its sequence.
    Records,
    /// Remembered keys by domain.
    Trust,
    /// Pulled images by root, with times and sizes.
    Cache,
    /// Leaves of encoded layers by what they decode to.
    Pieces,
    /// When tag folders were last provided, by CID: milliseconds since 1970, little-endian.
    Provided,
}

impl Space {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Layers,
        Self::Images,
        Self::Pins,
        Self::Registry,
        Self::Records,
        Self::Trust,
        Self::Cache,
        Self::Pieces,
        Self::Provided,
    ];

    /// Its stable name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Images => "images",
            Self::Pins => "pins",
            Self::Registry => "registry",
            Self::Records => "records",
            Self::Trust => "trust",
            Self::Cache => "cache",
            Self::Pieces => "pieces",
            Self::Provided => "provided",
        }
    }
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// Sets a value.
    Put(Space, Vec<u8>, Vec<u8>),
    /// Removes a key; nothing happens if it is absent.
    Delete(Space, Vec<u8>),
}

/// An ordered, durable map per [`Space`].
#[async_trait]
pub trait Table: Debug + Send + Sync + 'static {
    /// The value of `key`.
    async fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;

    /// The same for each of `keys`, in their order: for a few thousand, which cost a table whose work is done by other threads little more
    /// than one.
    async fn get_each(&self, space: Space, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, TableError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.get(space, &key).await?);
        }
        Ok(found)
    }

    /// All pairs whose key begins with `prefix`, in key order.
    async fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, TableError>;

    /// Applies all changes or none; durable when it returns.
    async fn write(&self, batch: Vec<Change>) -> Result<(), TableError>;
}

/// A table's failure.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the table in {place} failed")]
pub struct TableError {
    /// Where it lives.
    pub place: String,
    /// What was being done.
    pub doing: &'static str,
    /// The class of the cause.
    pub kind: ErrorKind,
    /// Why.
    pub source: Cause,
}

impl TableError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
