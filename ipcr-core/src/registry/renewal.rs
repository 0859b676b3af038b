//! What a process that serves does for ever, so that others go on finding what it published: the record is published again before it
//! runs out, and the folders of the newest tags are provided.

use std::sync::Arc;
use std::time::Duration;

use cid::Cid;

use super::error::RegistryError;
use super::holder::Holder;
use super::local::LocalHolder;
use super::profile;
use crate::event::Emitter;
use crate::exchange::reader::Reader;
use crate::limits;
use crate::naming::Clock;
use crate::node::Share;
use crate::publish::provide::{Provided, newest_folders, provide_due};

/// How often it is looked whether folders have to be provided.
const LOOK: Duration = Duration::from_secs(15);
/// The same while nobody takes provider records.
const LONGEST_LOOK: Duration = Duration::from_secs(3600);

impl LocalHolder {
    /// Publishes the registry again, so that its record does not run out; false if nobody took the record. With `only_published`, a
    /// root that was not published yet stays so, and the record goes on naming the one that was.
    pub async fn refresh(&self, only_published: bool) -> Result<bool, RegistryError> {
        match profile::identity(&self.config.path) {
            Err(RegistryError::NoRegistry) => return Ok(true),
            Err(error) => return Err(error),
            Ok(_) if self.config.node.offline => return Ok(true),
            Ok(_) => {}
        }
        let state = self.state().await?;
        if only_published && state.published.as_ref().is_none_or(|published| Some(published.root) != state.root) {
            let Some(published) = state.published else { return Ok(true) };
            let (publisher, network) = (self.publisher().await?, self.publishing_network(self.manner()).await?);
            let _turn = self.turn.read().await;
            let renewed = publisher.renew(&published, &network).await;
            return renewed.map_err(|error| RegistryError::from_publish("publishing the record again", error));
        }
        Ok(self.change(self.request(Vec::new()), Emitter::silent()).await?.published)
    }

    /// Provides the folders of what was published, for as long as it is awaited: it does not end.
    pub async fn keep_provided(&self) {
        if self.config.node.offline || matches!(self.config.node.share, Share::Nothing) {
            return std::future::pending().await;
        }
        let (mut folders, mut pause): (Option<(Cid, Vec<Cid>)>, _) = (None, LOOK);
        loop {
            pause = match self.provide_some(&mut folders).await {
                Ok(Provided { taken: 0, left: 0 }) => LOOK,
                Ok(Provided { taken: 0, .. }) => (pause * 2).min(LONGEST_LOOK),
                Ok(_) => Duration::from_secs(1),
                Err(error) => {
                    tracing::debug!(%error, "the folders of the registry could not be provided");
                    (pause * 2).min(LONGEST_LOOK)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Provides those that are due, some of them at most; `folders` are those of the root that was published last.
    async fn provide_some(&self, folders: &mut Option<(Cid, Vec<Cid>)>) -> Result<Provided, RegistryError> {
        let Some(root) = self.state().await?.published.map(|published| published.root) else {
            return Ok(Provided::default());
        };
        let listed = match folders.take() {
            Some((of, listed)) if of == root => listed,
            _ => {
                let reader = Reader::local(Arc::clone(&self.blocks));
                let listed = newest_folders(&reader, &root, limits::PROVIDED_FOLDERS).await;
                listed.map_err(|error| RegistryError::from_tree("reading the registry", error))?
            }
        };
        let node = Arc::clone(&self.network.start().await?.node);
        let done = provide_due(&listed, &self.own_tables(), node.as_ref(), Clock::default().now()).await;
        *folders = Some((root, listed));
        done.map_err(|error| RegistryError::from_table("noting what was provided", error))
    }
}
