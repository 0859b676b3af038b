//! Telling how far a blob is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;
use crate::event::{BlobFate, Emitter, Event};

/// Bytes between two hints.
const STEP: u64 = 1 << 20;

/// A blob under way.
#[derive(Debug)]
pub(crate) struct Progress {
    events: Emitter,
    label: Arc<str>,
    bytes: Arc<AtomicU64>,
}

impl Progress {
    /// Tells that work on a blob begins.
    pub(crate) async fn start(events: &Emitter, digest: Option<Digest>, label: String, size: u64) -> Self {
        events.tell(Event::BlobStarted { digest, label: label.clone(), size }).await;
        Self { events: events.clone(), label: label.into(), bytes: Arc::new(AtomicU64::new(0)) }
    }

    /// Something to call with every count of bytes that have passed.
    pub(crate) fn ticker(&self) -> impl FnMut(u64) + Send + 'static {
        let (events, label, bytes) = (self.events.clone(), Arc::clone(&self.label), Arc::clone(&self.bytes));
        move |count| {
            let before = bytes.fetch_add(count, Ordering::Relaxed);
            if before / STEP != (before + count) / STEP {
                events.hint(Event::BlobProgress { label: label.to_string(), done: before + count });
            }
        }
    }

    /// Tells what became of it.
    pub(crate) async fn done(self, fate: BlobFate) {
        self.events.tell(Event::BlobDone { label: self.label.to_string(), fate }).await;
    }
}
