//! What a home knows of its own registry, durably: the root, the last published record, edits not published yet.

use std::sync::Arc;

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::kind::ErrorKind;
use crate::port::table::{Change, Space, Table, TableError};
use crate::tree::edit::Edit;

/// The key of the state in [`Space::Registry`].
const KEY: &[u8] = b"state";

/// The state. It is written whole, so that it is always the old or the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The registry's root; none before anything was ever tagged here.
    #[serde(with = "crate::dag::text::optional_cid")]
    pub root: Option<Cid>,
    /// The last record that this home signed.
    pub published: Option<Published>,
    /// Edits made since a record was last accepted by others, oldest first.
    pub pending: Vec<Edit>,
}

/// A record that this home signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The root that it names.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// Its sequence.
    pub sequence: u64,
    /// Whether at least one other party accepted it.
    pub accepted: bool,
}

impl State {
    /// Reads it.
    pub async fn load(tables: &Arc<dyn Table>) -> Result<Self, TableError> {
        let Some(bytes) = tables.get(Space::Registry, KEY).await? else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes).map_err(|source| TableError {
            place: Space::Registry.name().into(),
            doing: "reading",
            kind: ErrorKind::Integrity,
            source: Box::new(source),
        })
    }

    /// The change that writes it.
    pub fn change(&self) -> Change {
        let bytes = serde_json::to_vec(self).expect("the state is plain data");
        Change::Put(Space::Registry, KEY.to_vec(), bytes)
    }
}
