//! The facade: push, pull, resolve and the rest, in this process or through the socket of the one that holds the home.
//!
//! * [`Registry`]: the verbs. Each returns an [`operation::Operation`]: await it, or watch it.
//! * [`options`], [`outcome`], [`error`]: what goes in, what comes out, what can fail.
//! * [`places`]: sources and sinks of images, by spelling or of one's own.
//! * [`holder`]: what the process that holds the home offers; [`local`] is that process, [`remote`] reaches it from others.
//!
//! The library prints nothing, asks nothing and reads no environment: what it needs of its surroundings is given to it as
//! [`places::Surroundings`].

mod browse;
mod convert;
mod copy;
mod edit;
pub mod error;
mod gate;
pub mod holder;
pub mod keys;
pub mod local;
mod maintenance;
mod network;
mod open;
pub mod operation;
pub mod options;
pub mod outcome;
pub mod places;
pub mod profile;
mod pull;
mod push;
pub mod remote;
mod renewal;
pub(crate) mod wire;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio_util::task::TaskTracker;

use crate::reference::{Authority, ImageName, Reference, TargetName};
use error::RegistryError;
use holder::{Holder, Manner, RepairRequest};
use operation::Operation;
use options::{CopyOptions, GcOptions, PublishOptions, PullOptions, PushOptions, RemoveTarget, ResolveOptions};
use outcome::{
    CheckOutcome, CopyOutcome, EditOutcome, GcOutcome, Identity, Inspection, Listing, PullOutcome, PushOutcome,
    PushPlan, RepairOutcome, ResolveOutcome, TrustEntry, UsageOutcome,
};
use places::{Sink, Source, Surroundings};

/// A registry and the images of others: every verb of ipcr.
///
/// Clones are handles to the same home. Use [`Registry::shutdown`] to end gracefully; dropping the last handle aborts what is
/// under way, which loses nothing that was acknowledged.
#[derive(Clone, Debug)]
pub struct Registry {
    holder: Arc<dyn Holder>,
    surroundings: Arc<Surroundings>,
    /// What goes on for a moment after an operation was given up.
    tidying: TaskTracker,
}

impl Registry {
    /// The verbs, over a holder.
    pub fn new(holder: Arc<dyn Holder>, surroundings: Surroundings) -> Self {
        Self { holder, surroundings: Arc::new(surroundings), tidying: TaskTracker::new() }
    }

    /// What the verbs run against.
    pub fn holder(&self) -> &Arc<dyn Holder> {
        &self.holder
    }

    /// Who this registry is.
    pub fn identity(&self) -> Operation<Identity> {
        let holder = Arc::clone(&self.holder);
        Operation::new(move |_| async move { holder.identity().await })
    }

    /// Stores an image, lets a tag of this registry name it, and publishes the registry.
    pub fn push(&self, source: impl Into<Source>, options: PushOptions) -> Operation<PushOutcome> {
        let (this, source) = (self.clone(), source.into());
        Operation::new(move |events| async move { push::push(&this, source, options, events).await })
    }

    /// What [`Registry::push`] would do. Nothing is stored, and the source is not read as far as that can be avoided.
    pub fn plan_push(&self, source: impl Into<Source>, options: PushOptions) -> Operation<PushPlan> {
        let (this, source) = (self.clone(), source.into());
        Operation::new(move |events| async move { push::plan(&this, source, options, events).await })
    }

    /// Resolves a reference, fetches what the sink needs, verifies it and hands it over.
    pub fn pull(&self, reference: Reference, sink: impl Into<Sink>, options: PullOptions) -> Operation<PullOutcome> {
        let (this, sink) = (self.clone(), sink.into());
        Operation::new(move |events| async move { pull::pull(&this, reference, sink, options, events).await })
    }

    /// Follows a reference to a registry root and, if it names an image, to that.
    pub fn resolve(&self, reference: Reference, options: ResolveOptions) -> Operation<ResolveOutcome> {
        let this = self.clone();
        Operation::new(move |events| async move { browse::resolve(&this, reference, options, events).await })
    }

    /// The images of a registry (this one without an authority) or the tags of one image.
    pub fn list(
        &self,
        registry: Option<Authority>,
        image: Option<ImageName>,
        options: ResolveOptions,
    ) -> Operation<Listing> {
        let this = self.clone();
        Operation::new(move |events| async move { browse::list(&this, registry, image, options, events).await })
    }

    /// One image in detail.
    pub fn inspect(&self, reference: Reference, options: ResolveOptions) -> Operation<Inspection> {
        let this = self.clone();
        Operation::new(move |events| async move { browse::inspect(&this, reference, options, events).await })
    }

    /// Lets a tag of this registry name an image of this or another registry.
    pub fn tag(&self, from: Reference, to: TargetName, options: PublishOptions) -> Operation<EditOutcome> {
        let this = self.clone();
        Operation::new(move |events| async move { edit::tag(&this, from, to, options, events).await })
    }

    /// Removes a tag, a manifest or an image of this registry.
    pub fn remove(&self, target: RemoveTarget, options: PublishOptions) -> Operation<EditOutcome> {
        let this = self.clone();
        Operation::new(move |events| async move { edit::remove(&this, target, options, events).await })
    }

    /// What [`Registry::remove`] would take away, as far as this home knows, or why it would refuse. Nothing is changed.
    pub fn plan_remove(&self, target: RemoveTarget) -> Operation<Vec<String>> {
        let this = self.clone();
        Operation::new(move |_| async move { edit::plan_remove(&this, target).await })
    }

    /// Publishes the registry as it is, again if need be.
    pub fn publish(&self, options: PublishOptions) -> Operation<EditOutcome> {
        let this = self.clone();
        Operation::new(move |events| async move { edit::publish(&this, options, events).await })
    }

    /// Copies an image from any source to any sink. Digests are kept where the source has manifests.
    pub fn copy(
        &self,
        source: impl Into<Source>,
        sink: impl Into<Sink>,
        options: CopyOptions,
    ) -> Operation<CopyOutcome> {
        let (this, source, sink) = (self.clone(), source.into(), sink.into());
        Operation::new(move |events| async move { copy::copy(&this, source, sink, options, events).await })
    }

    /// Keys that are remembered for domains.
    pub fn trusted(&self) -> Operation<Vec<TrustEntry>> {
        let holder = Arc::clone(&self.holder);
        Operation::new(move |_| async move { holder.trust_list().await })
    }

    /// Remembers a key for a domain, in place of any other: an IPNS name in any spelling, or `keyless`.
    pub fn trust(&self, domain: String, key: String) -> Operation<TrustEntry> {
        let holder = Arc::clone(&self.holder);
        Operation::new(move |_| async move { holder.trust_add(&domain, &key).await })
    }

    /// Forgets a domain's key; false if there was none.
    pub fn distrust(&self, domain: String) -> Operation<bool> {
        let holder = Arc::clone(&self.holder);
        Operation::new(move |_| async move { holder.trust_remove(&domain).await })
    }

    /// Collects what nothing refers to. Refused, with [`Topic::Torn`](error::Topic::Torn), while part of the registry is damaged or missing,
    /// unless forced.
    pub fn collect(&self, options: GcOptions) -> Operation<GcOutcome> {
        let holder = Arc::clone(&self.holder);
        Operation::new(move |_| async move { holder.collect(options).await })
    }

    /// Looks for damage; with `read_data` every block is read and hashed. Changes nothing.
    pub fn check(&self, read_data: bool) -> Operation<CheckOutcome> {
        let holder = Arc::clone(&self.holder);
        Operation::new(move |_| async move { holder.check(read_data).await })
    }

    /// Looks for damage and mends it: what is missing or damaged is made again, or fetched from others. With `dry_run` it is only said
    /// what would be; with `read_data` every block is read and hashed first.
    pub fn repair(&self, read_data: bool, dry_run: bool) -> Operation<RepairOutcome> {
        let holder = Arc::clone(&self.holder);
        let request = RepairRequest { read_data, dry_run, manner: self.manner() };
        Operation::new(move |events| async move { holder.repair(request, events).await })
    }

    /// What the home uses, and for what.
    pub fn usage(&self) -> Operation<UsageOutcome> {
        let holder = Arc::clone(&self.holder);
        Operation::new(move |_| async move { holder.usage().await })
    }

    /// How the network is to be used for what this handle asks of the holder.
    fn manner(&self) -> Manner {
        let Surroundings { peers, stall, share, .. } = &*self.surroundings;
        Manner { hints: peers.clone(), stall: *stall, share: *share }
    }

    /// Ends gracefully: what is acknowledged is durable already; peers are told good-bye. What operations had begun in an engine before they
    /// failed or were dropped is taken back, for two seconds at most.
    pub async fn shutdown(self) -> Result<(), RegistryError> {
        self.tidying.close();
        self.tidying.wait().await;
        self.holder.shutdown().await
    }
}

/// Now, or the time that the caller wants written, to the second.
fn time_of(options: &PublishOptions) -> DateTime<Utc> {
    let time = options.time.unwrap_or_else(Utc::now);
    DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)
}
