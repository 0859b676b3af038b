//! Working on a home that another process holds: [`RemoteHolder`].
//!
//! * [`socket`]: where a home's socket is.
//! * `connection`: calls, answers and events over it.
//! * `blocks`, `exchange`: the ports.
//!
//! Outcomes, errors and events are those of the process at the other end. When that process ends, every call fails with kind
//! [`ErrorKind::Unavailable`](crate::kind::ErrorKind::Unavailable) and topic
//! [`Topic::HolderGone`](super::error::Topic::HolderGone), and [`RemoteHolder::is_gone`] says so: the caller can take the lock and
//! go on by itself. Dropping a call cancels it there; what a vanished client had begun to store stays leased.

mod blocks;
mod connection;
mod exchange;
pub mod socket;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use multiaddr::Multiaddr;
use serde::de::DeserializeOwned;

use super::error::RegistryError;
use super::holder::{Activity, ChangeRequest, Changed, Holder, RepairRequest, ResolveRequest, ResolvedRoot};
use super::options::GcOptions;
use super::outcome::{CheckOutcome, GcOutcome, Identity, RepairOutcome, TrustEntry, UsageOutcome};
use super::wire::Call;
use super::wire::failure::Failure;
use crate::event::Emitter;
use crate::port::blocks::BlockStore;
use crate::port::exchange::Exchange;
use crate::port::table::Table;
use blocks::{RemoteBlocks, RemoteTable};
use connection::Connection;
use exchange::RemoteExchange;

/// The process that holds a home, reached through the home's socket.
#[derive(Debug)]
pub struct RemoteHolder {
    connection: Arc<Connection>,
    pid: u32,
    settings: BTreeMap<String, String>,
}

impl RemoteHolder {
    /// Attaches to the process that serves the home's socket; `None` when none does, or when it has just stopped taking
    /// clients. Needs a tokio runtime.
    pub async fn connect(home: &Path) -> io::Result<Option<Self>> {
        let opened = Connection::open(home).await?;
        Ok(opened.map(|(connection, hello)| Self { connection, pid: hello.pid, settings: hello.settings }))
    }

    /// The process id of the holder.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the connection has ended.
    pub fn is_gone(&self) -> bool {
        self.connection.is_gone()
    }

    /// Waits until the connection has ended.
    pub async fn gone(&self) {
        self.connection.gone().await;
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call, events: &Emitter) -> Result<T, RegistryError> {
        let answer = self.connection.call_telling(&call, Vec::new(), events).await;
        answer.and_then(|answer| answer.header()).map_err(Failure::into_registry)
    }
}

#[async_trait]
impl Holder for RemoteHolder {
    fn blocks(&self) -> Arc<dyn BlockStore> {
        Arc::new(RemoteBlocks(self.connection.clone()))
    }

    fn tables(&self) -> Arc<dyn Table> {
        Arc::new(RemoteTable(self.connection.clone()))
    }

    fn exchange(&self) -> Arc<dyn Exchange> {
        Arc::new(RemoteExchange(self.connection.clone()))
    }

    async fn identity(&self) -> Result<Identity, RegistryError> {
        self.ask(Call::Identity, &Emitter::silent()).await
    }

    async fn resolve(&self, request: ResolveRequest, events: Emitter) -> Result<ResolvedRoot, RegistryError> {
        self.ask(Call::Resolve { request, watched: events.is_watched() }, &events).await
    }

    async fn change(&self, request: ChangeRequest, events: Emitter) -> Result<Changed, RegistryError> {
        self.ask(Call::Change { request: Box::new(request), watched: events.is_watched() }, &events).await
    }

    async fn trust_list(&self) -> Result<Vec<TrustEntry>, RegistryError> {
        self.ask(Call::TrustList, &Emitter::silent()).await
    }

    async fn trust_add(&self, domain: &str, key: &str) -> Result<TrustEntry, RegistryError> {
        self.ask(Call::TrustAdd { domain: domain.into(), key: key.into() }, &Emitter::silent()).await
    }

    async fn trust_remove(&self, domain: &str) -> Result<bool, RegistryError> {
        self.ask(Call::TrustRemove { domain: domain.into() }, &Emitter::silent()).await
    }

    async fn trim(&self) -> Result<(), RegistryError> {
        self.ask(Call::Trim, &Emitter::silent()).await
    }

    async fn collect(&self, options: GcOptions) -> Result<GcOutcome, RegistryError> {
        self.ask(Call::Collect { options }, &Emitter::silent()).await
    }

    async fn check(&self, read_data: bool) -> Result<CheckOutcome, RegistryError> {
        self.ask(Call::Check { read_data }, &Emitter::silent()).await
    }

    async fn repair(&self, request: RepairRequest, events: Emitter) -> Result<RepairOutcome, RegistryError> {
        self.ask(Call::Repair { request, watched: events.is_watched() }, &events).await
    }

    async fn usage(&self) -> Result<UsageOutcome, RegistryError> {
        self.ask(Call::HomeUsage, &Emitter::silent()).await
    }

    async fn activity(&self) -> Result<Activity, RegistryError> {
        self.ask(Call::Activity, &Emitter::silent()).await
    }

    async fn start_node(&self) -> Result<Vec<Multiaddr>, RegistryError> {
        self.ask(Call::StartNode, &Emitter::silent()).await
    }

    fn settings(&self) -> BTreeMap<String, String> {
        self.settings.clone()
    }

    /// Lets go of the holder, which goes on.
    async fn shutdown(&self) -> Result<(), RegistryError> {
        self.connection.close();
        Ok(())
    }
}
