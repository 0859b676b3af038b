//! The holder's blocks and tables.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cid::Cid;

use super::connection::{Connection, Ticket, broken};
use crate::dag::block::{Block, identity_data};
use crate::event::Emitter;
use crate::port::blocks::{BlockStore, Live, Put, StoreError, StoreReport, StoreSession, Swept, Usage};
use crate::port::table::{Change, Space, Table, TableError};
use crate::registry::wire::failure::Failure;
use crate::registry::wire::{self, Call, Report};

/// Bytes of blocks that go in one message.
const PUT_BYTES: usize = 4 << 20;

/// The block store of the process at the other end.
#[derive(Clone, Debug)]
pub(super) struct RemoteBlocks(pub(super) Arc<Connection>);

fn hashes(live: &Live) -> Bytes {
    let mut hashes = BytesMut::new();
    for hash in live.multihashes() {
        wire::put_field(&mut hashes, hash);
    }
    hashes.freeze()
}

fn flags(payload: &Bytes, count: usize) -> Result<Vec<bool>, StoreError> {
    if payload.len() != count {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "not one answer for each block");
        return Err(broken(&error).into_store());
    }
    Ok(payload.iter().map(|flag| *flag == 1).collect())
}

#[async_trait]
impl BlockStore for RemoteBlocks {
    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
        let answer = self.0.call(&Call::Has, wire::put_cids(cids)).await.map_err(Failure::into_store)?;
        flags(&answer.payload(), cids.len())
    }

    async fn sizes(&self, cids: &[Cid]) -> Result<Vec<Option<u32>>, StoreError> {
        let answer = self.0.call(&Call::Sizes, wire::put_cids(cids)).await;
        answer.and_then(|answer| answer.header()).map_err(Failure::into_store)
    }

    async fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        if let Some(data) = identity_data(cid) {
            return Ok(Some(data));
        }
        let answer = self.0.call(&Call::Get, vec![cid.to_bytes().into()]).await.map_err(Failure::into_store)?;
        let held: bool = answer.header().map_err(Failure::into_store)?;
        Ok(held.then(|| answer.payload()))
    }

    async fn begin(&self, lease: Duration) -> Result<Box<dyn StoreSession>, StoreError> {
        let begun = self.0.begin(&Call::Begin { lease }, Vec::new(), &Emitter::silent()).await;
        let (ticket, _) = begun.map_err(Failure::into_store)?;
        Ok(Box::new(RemoteSession { connection: self.0.clone(), ticket }))
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let answer = self.0.call(&Call::Usage, Vec::new()).await;
        answer.and_then(|answer| answer.header()).map_err(Failure::into_store)
    }

    async fn weigh(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        let answer = self.0.call(&Call::Weigh { keep_leases }, vec![hashes(live)]).await;
        answer.and_then(|answer| answer.header()).map_err(Failure::into_store)
    }

    async fn doom(&self, live: &Live, keep_leases: bool) -> Result<Swept, StoreError> {
        let answer = self.0.call(&Call::Doom { keep_leases }, vec![hashes(live)]).await;
        answer.and_then(|answer| answer.header()).map_err(Failure::into_store)
    }

    async fn remove_doomed(&self) -> Result<Swept, StoreError> {
        let answer = self.0.call(&Call::RemoveDoomed, Vec::new()).await;
        answer.and_then(|answer| answer.header()).map_err(Failure::into_store)
    }

    async fn spare_doomed(&self) -> Result<(), StoreError> {
        self.0.call(&Call::SpareDoomed, Vec::new()).await.map(drop).map_err(Failure::into_store)
    }

    async fn check(&self, read_data: bool) -> Result<StoreReport, StoreError> {
        let answer = self.0.call(&Call::CheckStore { read_data }, Vec::new()).await;
        let report: Report = answer.and_then(|answer| answer.header()).map_err(Failure::into_store)?;
        Ok(StoreReport {
            blocks: report.blocks,
            bytes_read: report.bytes_read,
            damaged: report.damaged.iter().filter_map(|cid| cid.parse().ok()).collect(),
            problems: report.problems,
        })
    }
}

/// Blocks being added to the holder's store. Dropping the ticket ends the session there.
#[derive(Debug)]
struct RemoteSession {
    connection: Arc<Connection>,
    ticket: Ticket,
}

impl RemoteSession {
    async fn call(&self, call: Call) -> Result<(), StoreError> {
        self.connection.call(&call, Vec::new()).await.map(drop).map_err(Failure::into_store)
    }
}

#[async_trait]
impl StoreSession for RemoteSession {
    async fn put(&self, blocks: Vec<Block>) -> Result<Put, StoreError> {
        StoreError::refuse_oversize(&blocks)?;
        let mut all = Put::default();
        let mut rest = &blocks[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |block: &&Block| {
                bytes += block.data().len() + 128;
                bytes <= PUT_BYTES
            };
            let (batch, behind) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = behind;
            let call = Call::Put { session: self.ticket.id };
            let answer = self.connection.call(&call, wire::put_blocks(batch)).await;
            let put: Put = answer.and_then(|answer| answer.header()).map_err(Failure::into_store)?;
            all.new_blocks += put.new_blocks;
            all.new_bytes += put.new_bytes;
        }
        Ok(all)
    }

    async fn hold(&self, cids: &[Cid]) -> Result<Vec<bool>, StoreError> {
        let call = Call::Hold { session: self.ticket.id };
        let answer = self.connection.call(&call, wire::put_cids(cids)).await.map_err(Failure::into_store)?;
        flags(&answer.payload(), cids.len())
    }

    async fn commit(&self) -> Result<(), StoreError> {
        self.call(Call::Commit { session: self.ticket.id }).await
    }

    async fn abort(&self) -> Result<(), StoreError> {
        self.call(Call::Abort { session: self.ticket.id }).await
    }
}

/// The tables of the process at the other end.
#[derive(Clone, Debug)]
pub(super) struct RemoteTable(pub(super) Arc<Connection>);

#[async_trait]
impl Table for RemoteTable {
    async fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let payload = vec![Bytes::copy_from_slice(key)];
        let answer = self.0.call(&Call::TableGet { space }, payload).await.map_err(Failure::into_table)?;
        let found: bool = answer.header().map_err(Failure::into_table)?;
        Ok(found.then(|| answer.payload().to_vec()))
    }

    async fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, TableError> {
        let payload = vec![Bytes::copy_from_slice(prefix)];
        let answer = self.0.call(&Call::TableScan { space }, payload).await.map_err(Failure::into_table)?;
        let pairs = wire::pairs(answer.payload()).map_err(|error| broken(&error).into_table())?;
        Ok(pairs.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
    }

    async fn write(&self, batch: Vec<Change>) -> Result<(), TableError> {
        let answer = self.0.call(&Call::TableWrite, wire::put_changes(&batch)).await;
        answer.map(drop).map_err(Failure::into_table)
    }
}
