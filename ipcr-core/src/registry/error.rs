//! What can fail in an operation: [`RegistryError`].

use crate::kind::{Cause, ErrorKind};

/// An operation's failure. The deeper reasons are its `source`s.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The home has no registry yet.
    #[error("there is no registry here yet")]
    NoRegistry,
    /// The home has a registry already.
    #[error("there is a registry here already: {ipns}")]
    AlreadyInitialised {
        /// Its IPNS name.
        ipns: String,
    },
    /// The source gives the image no usable name.
    #[error("{source_name} gives the image no name that a registry can use")]
    NameNeeded {
        /// The source.
        source_name: String,
    },
    /// The request makes no sense.
    #[error("{message}")]
    Usage {
        /// Why.
        message: String,
    },
    /// An image, tag or digest that the registry does not have.
    #[error("{registry} has no {what}")]
    NotFound {
        /// The registry.
        registry: String,
        /// What was asked for: `image app`, `tag app:2`, `manifest app@sha256:…`
        what: String,
        /// What was looked for in the registry and is not there.
        source: Option<Cause>,
    },
    /// A tag changed here and elsewhere since this home last published.
    #[error("tag {tag} was changed by another home with this key: it holds {theirs} there and {ours} here")]
    Conflict {
        /// `image:tag`.
        tag: String,
        /// What it holds in the published registry.
        theirs: String,
        /// What it would hold.
        ours: String,
    },
    /// The published registry could not be fetched, so ours could not be merged into it.
    #[error("stored and tagged here, but not published: the published root {root} could not be fetched")]
    NotMerged {
        /// The published root.
        root: cid::Cid,
        /// Why.
        source: Cause,
    },
    /// A step failed.
    #[error("{doing} failed")]
    Step {
        /// What was being done, as a noun: `storing the layers`.
        doing: &'static str,
        /// The class of the cause.
        kind: ErrorKind,
        /// A stable word for the reason, for hints.
        topic: Topic,
        /// Why.
        source: Cause,
    },
    /// The process that holds the home answered with an error.
    #[error("{message}")]
    Holder {
        /// Its class.
        kind: ErrorKind,
        /// A stable word for the reason.
        topic: Topic,
        /// What it said.
        message: String,
        /// Its causes.
        #[source]
        source: Option<Cause>,
    },
}

/// A stable word for the reason of a failure, by which hints are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Topic {
    /// Nothing in particular.
    #[default]
    Other,
    /// No registry here yet.
    NoRegistry,
    /// A registry here already.
    AlreadyInitialised,
    /// The key of the registry that is here is missing.
    KeyLost,
    /// `--as` is needed.
    NameNeeded,
    /// A reference or name does not follow the grammar.
    BadName,
    /// The registry lacks the image or tag.
    NoImage,
    /// The source lacks the image.
    NoSourceImage,
    /// The source holds several images.
    Ambiguous,
    /// The image has no manifest for the platform.
    NoPlatform,
    /// The domain has no DNSLink.
    NoDnslink,
    /// The domain has several DNSLinks.
    ManyDnslinks,
    /// No DNS server answered.
    DnsDown,
    /// DNSSEC says bogus.
    DnsBogus,
    /// No valid record was found, and none is kept.
    NoRecord,
    /// Only an expired record is kept.
    ExpiredRecord,
    /// Only records older than one seen before.
    Rollback,
    /// Two values under one sequence.
    Fork,
    /// The domain's key changed.
    KeyChanged,
    /// The registry's key has handed over to another one.
    HandedOver,
    /// A tag was changed elsewhere too.
    Conflict,
    /// The published registry lacks changes that this home does not remember any more.
    Forgotten,
    /// The published root could not be fetched.
    NotMerged,
    /// Nobody who holds it could be reached.
    NoProvider,
    /// Peers were reached and nothing came.
    Stalled,
    /// Offline mode.
    Offline,
    /// No engine answers.
    NoEngine,
    /// The engine failed.
    Engine,
    /// Data is not what it claims to be.
    Corrupt,
    /// A block of the home is damaged.
    DamagedBlock,
    /// Part of the registry is damaged or missing, so that it is not known what else it needs.
    Torn,
    /// The index of the home's blocks is damaged.
    DamagedIndex,
    /// The home's tables are damaged.
    DamagedTables,
    /// Something is beyond a limit.
    Limit,
    /// The home cannot be a home.
    BadHome,
    /// This user may not work on the home, or nobody may write to it.
    ClosedHome,
    /// Another process holds the home.
    Locked,
    /// The process that held the home, and worked for others, has ended.
    HolderGone,
    /// The disk is full.
    DiskFull,
    /// Refused access.
    Access,
}

impl RegistryError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRegistry | Self::NameNeeded { .. } | Self::Usage { .. } => ErrorKind::Usage,
            Self::AlreadyInitialised { .. } => ErrorKind::Failed,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Conflict { .. } => ErrorKind::Integrity,
            Self::NotMerged { .. } => ErrorKind::Unavailable,
            Self::Step { kind, .. } | Self::Holder { kind, .. } => *kind,
        }
    }

    /// A stable word for the reason.
    pub fn topic(&self) -> Topic {
        match self {
            Self::NoRegistry => Topic::NoRegistry,
            Self::AlreadyInitialised { .. } => Topic::AlreadyInitialised,
            Self::NameNeeded { .. } => Topic::NameNeeded,
            Self::Usage { .. } => Topic::Other,
            Self::NotFound { .. } => Topic::NoImage,
            Self::Conflict { .. } => Topic::Conflict,
            Self::NotMerged { .. } => Topic::NotMerged,
            Self::Step { topic, .. } | Self::Holder { topic, .. } => *topic,
        }
    }
}
