//! From the errors of the layers below to [`RegistryError`], with the topic by which hints are chosen.

use super::error::{RegistryError, Topic};
use super::wire::failure::Said;
use crate::exchange::path::PathError;
use crate::kind::{Cause, ErrorKind, chain};
use crate::naming::dnslink::LinkError;
use crate::naming::ipns::IpnsError;
use crate::naming::resolve::ResolveError;
use crate::naming::trust::TrustError;
use crate::port::blocks::StoreError;
use crate::port::dns::DnsError;
use crate::port::engine::EngineError;
use crate::port::exchange::ExchangeError;
use crate::port::image::ImageError;
use crate::port::table::TableError;
use crate::publish::error::PublishError;
use crate::reference::NameError;
use crate::transfer::error::TransferError;
use crate::tree::error::TreeError;

/// The topic of a kind, where nothing more particular is known.
fn topic_of(kind: ErrorKind) -> Topic {
    match kind {
        ErrorKind::Integrity => Topic::Corrupt,
        ErrorKind::DiskFull => Topic::DiskFull,
        ErrorKind::Locked => Topic::Locked,
        ErrorKind::Access => Topic::Access,
        ErrorKind::Engine => Topic::Engine,
        _ => Topic::Other,
    }
}

fn exchange_topic(error: &ExchangeError) -> Topic {
    match error {
        ExchangeError::NoProvider { .. } => Topic::NoProvider,
        ExchangeError::Stalled { .. } | ExchangeError::NotSent { .. } => Topic::Stalled,
        ExchangeError::Offline { .. } => Topic::Offline,
        ExchangeError::Refused { .. } => Topic::Corrupt,
        ExchangeError::HolderGone { kind: ErrorKind::Unavailable, .. } => Topic::HolderGone,
        ExchangeError::HolderGone { kind, .. } => topic_of(*kind),
    }
}

/// The topic of the deepest cause that has one.
fn deepest(error: &(dyn std::error::Error + 'static), fallback: Topic) -> Topic {
    let mut topic = fallback;
    for cause in chain(error) {
        if let Some(error) = cause.downcast_ref::<ExchangeError>() {
            topic = exchange_topic(error);
        } else if let Some(said) = cause.downcast_ref::<Said>() {
            if said.topic() != Topic::Other {
                topic = said.topic();
            }
        } else if let Some(StoreError::Corrupt { .. }) = cause.downcast_ref() {
            topic = Topic::DamagedBlock;
        } else if let Some(StoreError::DamagedIndex { .. }) = cause.downcast_ref() {
            topic = Topic::DamagedIndex;
        } else if cause.downcast_ref().is_some_and(|error: &TableError| error.kind() == ErrorKind::Integrity) {
            topic = Topic::DamagedTables;
        } else if let Some(error) = cause.downcast_ref::<EngineError>() {
            topic = match error {
                EngineError::Absent { .. } => Topic::NoEngine,
                EngineError::NoImage { .. } => Topic::NoSourceImage,
                _ => Topic::Engine,
            };
        } else if let Some(error) = cause.downcast_ref::<ImageError>() {
            topic = match error {
                ImageError::NoImage { .. } => Topic::NoSourceImage,
                ImageError::Ambiguous { .. } => Topic::Ambiguous,
                ImageError::Engine(EngineError::Absent { .. }) => Topic::NoEngine,
                ImageError::Engine(EngineError::NoImage { .. }) => Topic::NoSourceImage,
                _ => topic,
            };
        } else if let Some(error) = cause.downcast_ref::<TransferError>() {
            topic = match error {
                TransferError::NoPlatform { .. } => Topic::NoPlatform,
                TransferError::TooManyLayers { .. } => Topic::Limit,
                TransferError::Image(ImageError::NoImage { .. }) => Topic::NoSourceImage,
                TransferError::Image(ImageError::Ambiguous { .. }) => Topic::Ambiguous,
                TransferError::Image(ImageError::Engine(EngineError::Absent { .. })) => Topic::NoEngine,
                TransferError::Image(ImageError::Engine(EngineError::NoImage { .. })) => Topic::NoSourceImage,
                _ => topic,
            };
        }
    }
    topic
}

impl RegistryError {
    fn step(doing: &'static str, kind: ErrorKind, source: Cause) -> Self {
        let topic = deepest(source.as_ref(), topic_of(kind));
        Self::Step { doing, kind, topic, source }
    }

    pub(super) fn from_transfer(doing: &'static str, error: TransferError) -> Self {
        Self::step(doing, error.kind(), Box::new(error))
    }

    pub(super) fn from_image(doing: &'static str, error: ImageError) -> Self {
        Self::step(doing, error.kind(), Box::new(error))
    }

    pub(super) fn from_tree(doing: &'static str, error: TreeError) -> Self {
        Self::step(doing, error.kind(), Box::new(error))
    }

    pub(super) fn from_store(doing: &'static str, error: StoreError) -> Self {
        Self::step(doing, error.kind(), Box::new(error))
    }

    pub(super) fn from_table(doing: &'static str, error: TableError) -> Self {
        Self::step(doing, error.kind(), Box::new(error))
    }

    pub(super) fn from_path(doing: &'static str, error: PathError) -> Self {
        Self::step(doing, error.kind(), Box::new(error))
    }

    /// A name, reference or domain that does not follow the grammar.
    pub(super) fn from_name(error: NameError) -> Self {
        Self::Step { doing: "reading the name", kind: ErrorKind::Usage, topic: Topic::BadName, source: Box::new(error) }
    }

    pub(super) fn from_exchange(doing: &'static str, error: ExchangeError) -> Self {
        Self::step(doing, error.kind(), Box::new(error))
    }

    pub(super) fn from_publish(doing: &'static str, error: PublishError) -> Self {
        match error {
            PublishError::Conflict { tag, theirs, ours } => Self::Conflict { tag, theirs, ours },
            PublishError::NotMerged { root, source } => Self::NotMerged { root, source },
            PublishError::HandedOver { .. } => {
                Self::Step { doing, kind: error.kind(), topic: Topic::HandedOver, source: Box::new(error) }
            }
            PublishError::Forgotten { .. } => {
                Self::Step { doing, kind: error.kind(), topic: Topic::Forgotten, source: Box::new(error) }
            }
            error => Self::step(doing, error.kind(), Box::new(error)),
        }
    }

    pub(super) fn from_resolve(error: ResolveError) -> Self {
        let topic = match &error {
            ResolveError::Link(error) => match error {
                LinkError::Missing { .. } => Topic::NoDnslink,
                LinkError::Several { .. } => Topic::ManyDnslinks,
                LinkError::Dns { source: DnsError::Unreachable { .. }, .. } => Topic::DnsDown,
                LinkError::Dns { source: DnsError::Bogus { .. }, .. } => Topic::DnsBogus,
                LinkError::Dns { source: DnsError::Offline { .. }, .. } => Topic::Offline,
                _ => topic_of(error.kind()),
            },
            ResolveError::Ipns(error) => match error {
                // Nobody was asked, because nobody can be.
                IpnsError::NotFound { source: Some(_), .. } => Topic::Offline,
                IpnsError::NotFound { .. } => Topic::NoRecord,
                IpnsError::Expired { .. } => Topic::ExpiredRecord,
                IpnsError::Rollback { .. } => Topic::Rollback,
                IpnsError::Fork { .. } => Topic::Fork,
                _ => topic_of(error.kind()),
            },
            ResolveError::Trust(TrustError::Changed { .. } | TrustError::NoLongerSecure { .. }) => Topic::KeyChanged,
            _ => topic_of(error.kind()),
        };
        Self::Step { doing: "resolving the name", kind: error.kind(), topic, source: Box::new(error) }
    }

    pub(super) fn from_trust(error: TrustError) -> Self {
        Self::step("reading what is remembered", error.kind(), Box::new(error))
    }
}
