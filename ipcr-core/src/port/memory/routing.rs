//! Providers in memory: [`MemoryRouting`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cid::Cid;
use tokio::sync::mpsc;

use crate::port::routing::{Provider, Routing};

/// Knows what it was told. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryRouting {
    providers: Arc<Mutex<HashMap<Cid, Vec<Provider>>>>,
}

impl MemoryRouting {
    /// Somebody who knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a provider of a root.
    pub fn add(&self, root: &Cid, provider: Provider) {
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        providers.entry(*root).or_default().push(provider);
    }
}

#[async_trait]
impl Routing for MemoryRouting {
    async fn providers(&self, root: &Cid, found: mpsc::Sender<Provider>) -> bool {
        let known = self.providers.lock().unwrap_or_else(PoisonError::into_inner).get(root).cloned();
        for provider in known.unwrap_or_default() {
            if found.send(provider).await.is_err() {
                break;
            }
        }
        true
    }
}
