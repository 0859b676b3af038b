//! Pieces of layers that were stored before: [`Pieces`], in [`Space::Pieces`].
//!
//! A row leads from an encoding and a [`PieceHint`] to the SHA-256 of a leaf. It is never believed: the leaf is read, which checks it
//! against its CID, and has to decode to the piece at hand. So a row whose leaf is gone, or that speaks of another piece, costs a look
//! and nothing else. Layers that were kept as they came have rows too, which lead to their files; they serve to tell what encoding
//! them would have saved, and nothing else. Collections take rows away together with what they lead to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use super::error::TransferError;
use crate::dag::block::{RAW, SHA2_256};
use crate::dag::encode::{Encoding, PieceHint};
use crate::port::blocks::{BlockStore, Live, StoreError};
use crate::port::table::{Change, Space, Table, TableError};

/// Rows that are written at once. An operation that learns more writes the first before it ends: memory does not grow with the image.
const BATCH: usize = 1 << 12;
/// Rows that are looked for at once.
const AT_ONCE: usize = 1 << 10;

/// What a row is about, its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Kind {
    Opaque = 0,
    Gzip1 = 1,
    Zstd1 = 2,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Opaque, Self::Gzip1, Self::Zstd1];

    /// None where encoding is as fast as looking.
    fn of(encoding: Encoding) -> Option<Self> {
        match encoding {
            Encoding::AlignedGzip1 => Some(Self::Gzip1),
            Encoding::AlignedZstd1 => Some(Self::Zstd1),
            Encoding::AlignedNone1 => None,
        }
    }

    fn key(self, hint: PieceHint) -> Vec<u8> {
        [&[self as u8], &hint[..]].concat()
    }
}

/// The pieces of a home, and what one operation adds to them.
#[derive(Debug)]
pub(super) struct Pieces {
    tables: Arc<dyn Table>,
    blocks: Arc<dyn BlockStore>,
    encoding: Encoding,
    new: Mutex<HashMap<(Kind, PieceHint), Sha256>>,
}

/// The digest that a row leads to.
type Sha256 = [u8; 32];

/// Rows that are to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewPieces(Vec<((Kind, PieceHint), Sha256)>);

impl Pieces {
    /// The pieces that `tables` speaks of and `blocks` holds, for layers in `encoding`.
    pub(super) fn new(tables: Arc<dyn Table>, blocks: Arc<dyn BlockStore>, encoding: Encoding) -> Self {
        Self { tables, blocks, encoding, new: Mutex::default() }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The leaf that a piece may have been encoded to, whole.
    pub(super) async fn leaf(&self, hint: &PieceHint) -> Result<Option<Bytes>, TransferError> {
        let Some(kind) = Kind::of(self.encoding) else { return Ok(None) };
        let Some(cid) = self.row(kind, hint).await? else { return Ok(None) };
        match self.blocks.get(&cid).await {
            // It is stored anew.
            Err(StoreError::Corrupt { .. }) => Ok(None),
            leaf => Ok(leaf?),
        }
    }

    /// Notes what a piece was encoded to.
    pub(super) fn learn(&self, hint: PieceHint, leaf: &Cid) {
        if let Some(kind) = Kind::of(self.encoding) {
            self.note(kind, hint, leaf);
        }
    }

    /// How many bytes of the pieces of a layer that is kept as it came have been in layers before, as far as hints tell; notes the
    /// layer's own.
    pub(super) async fn survey(&self, hints: &[PieceHint], file: &Cid) -> Result<u64, TransferError> {
        let mut repeated = 0;
        for hints in hints.chunks(AT_ONCE) {
            let mut known = self.known(Kind::Opaque, hints).await?;
            if let Some(kind) = Kind::of(self.encoding) {
                let encoded = self.known(kind, hints).await?;
                known.iter_mut().zip(encoded).for_each(|(known, encoded)| *known |= encoded);
            }
            for (hint, _) in hints.iter().zip(known).filter(|(_, known)| *known) {
                repeated += hint[4..].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
            }
        }
        for hints in hints.chunks(AT_ONCE) {
            hints.iter().for_each(|hint| self.note(Kind::Opaque, *hint, file));
            self.make_room().await?;
        }
        Ok(repeated)
    }

    /// What was learnt since the last call.
    pub(super) fn take_new(&self) -> NewPieces {
        NewPieces(self.learnt().drain().collect())
    }

    /// Writes what was learnt, if it is much. What it leads to need not be durable yet, because rows are not believed.
    pub(super) async fn make_room(&self) -> Result<(), TableError> {
        let much = {
            let mut new = self.learnt();
            if new.len() < BATCH {
                return Ok(());
            }
            NewPieces(new.drain().collect())
        };
        much.write(&self.tables).await
    }

    async fn row(&self, kind: Kind, hint: &PieceHint) -> Result<Option<Cid>, TransferError> {
        let new = self.learnt().get(&(kind, *hint)).copied();
        if let Some(digest) = new {
            return Ok(leads_to(&digest));
        }
        let row = self.tables.get(Space::Pieces, &kind.key(*hint)).await?;
        Ok(row.and_then(|row| leads_to(&row)))
    }

    /// Which of the pieces have a row.
    async fn known(&self, kind: Kind, hints: &[PieceHint]) -> Result<Vec<bool>, TransferError> {
        let rows = self.tables.get_each(Space::Pieces, hints.iter().map(|hint| kind.key(*hint)).collect()).await?;
        let new = self.learnt();
        let rows = rows.into_iter().map(|row| row.is_some_and(|row| leads_to(&row).is_some()));
        Ok(hints.iter().zip(rows).map(|(hint, row)| row || new.contains_key(&(kind, *hint))).collect())
    }

    fn note(&self, kind: Kind, hint: PieceHint, cid: &Cid) {
        if let Ok(digest) = cid.hash().digest().try_into() {
            self.learnt().insert((kind, hint), digest);
        }
    }

    fn learnt(&self) -> MutexGuard<'_, HashMap<(Kind, PieceHint), Sha256>> {
        self.new.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NewPieces {
    /// Writes the rows.
    pub(super) async fn write(&self, tables: &Arc<dyn Table>) -> Result<(), TableError> {
        for rows in self.0.chunks(BATCH) {
            let put = |((kind, hint), digest): &((Kind, PieceHint), Sha256)| {
                Change::Put(Space::Pieces, kind.key(*hint), digest.to_vec())
            };
            tables.write(rows.iter().map(put).collect()).await?;
        }
        Ok(())
    }
}

/// Takes away the rows that lead to nothing `live`. Holds few of them at once, for a large home has millions.
pub(crate) async fn forget_stale(tables: &Arc<dyn Table>, live: &Live) -> Result<(), TableError> {
    let mut stale = Vec::new();
    for kind in Kind::ALL {
        for byte in 0..=u8::MAX {
            for (key, row) in tables.scan(Space::Pieces, &[kind as u8, byte]).await? {
                if leads_to(&row).is_none_or(|cid| !live.contains(&cid.hash().to_bytes())) {
                    stale.push(Change::Delete(Space::Pieces, key));
                }
            }
            if stale.len() >= BATCH {
                tables.write(std::mem::take(&mut stale)).await?;
            }
        }
    }
    if stale.is_empty() { Ok(()) } else { tables.write(stale).await }
}

/// A block by its SHA-256; stores do not look at codecs.
fn leads_to(row: &[u8]) -> Option<Cid> {
    let hash = Multihash::wrap(SHA2_256, row).ok().filter(|_| row.len() == 32)?;
    Some(Cid::new_v1(RAW, hash))
}

#[cfg(test)]
mod tests;
