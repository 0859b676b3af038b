//! Errors that travel: [`Failure`].
//!
//! Kind, topic, message and causes always arrive. Those variants that callers look into arrive as themselves.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::dag::block::BlockError;
use crate::kind::{self, Cause, ErrorKind};
use crate::limits;
use crate::port::blocks::StoreError;
use crate::port::exchange::ExchangeError;
use crate::port::table::TableError;
use crate::registry::error::{RegistryError, Topic};

/// Where a failure of the holder is said to have happened.
const DOING: &str = "working through the process that holds the home";
/// Causes that are passed on.
const CAUSES: usize = 16;

/// An error of the holder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) topic: Topic,
    pub(crate) message: String,
    /// The nearest first.
    pub(crate) causes: Vec<String>,
    pub(crate) detail: Option<Detail>,
}

/// The facts of variants that arrive as themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub(crate) enum Detail {
    Corrupt { cid: String },
    Mismatch { cid: String },
    Full { place: String },
    TooLarge { cid: String, size: usize },
    UnknownHash { cid: String, code: u64 },
    NoProvider { root: String, waited: Duration, tried: usize },
    Stalled { cid: String, waited: Duration, peers: usize },
    NotSent { cid: String, waited: Duration, peers: usize, gateways: usize, said: Option<String> },
    Offline { reason: String },
    AlreadyInitialised { ipns: String },
}

/// What the holder said, as a cause.
#[derive(Debug)]
pub(crate) struct Said {
    message: String,
    topic: Topic,
    source: Option<Box<Self>>,
}

impl Said {
    /// A stable word for the reason.
    pub(crate) fn topic(&self) -> Topic {
        self.topic
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Said {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|said| said as &(dyn Error + 'static))
    }
}

fn chain(messages: impl DoubleEndedIterator<Item = String>) -> Option<Box<Said>> {
    messages.rev().fold(None, |source, message| Some(Box::new(Said { message, topic: Topic::Other, source })))
}

impl Failure {
    fn of(error: &(dyn Error + 'static), kind: ErrorKind, topic: Topic, detail: Option<Detail>) -> Self {
        let causes = kind::chain(error).skip(1).take(CAUSES).map(ToString::to_string).collect();
        Self { kind, topic, message: error.to_string(), causes, detail }
    }

    /// A call that makes no sense, or that nobody can serve.
    pub(crate) fn refused(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, topic: Topic::Other, message: message.into(), causes: Vec::new(), detail: None }
    }

    /// A call or an answer that does not fit in a frame.
    pub(crate) fn too_large(what: &str) -> Self {
        let message = format!("{what} is larger than {} bytes", limits::CONTROL_FRAME_BYTES);
        Self { topic: Topic::Limit, ..Self::refused(ErrorKind::Failed, message) }
    }

    /// The connection has ended.
    pub(crate) fn gone() -> Self {
        let message = "the process that held the home has ended or let go".into();
        Self { kind: ErrorKind::Unavailable, topic: Topic::HolderGone, message, causes: Vec::new(), detail: None }
    }

    fn cause(self) -> Cause {
        let Self { message, topic, causes, .. } = self;
        Box::new(Said { message, topic, source: chain(causes.into_iter()) })
    }

    pub(crate) fn into_store(self) -> StoreError {
        match &self.detail {
            Some(Detail::Corrupt { cid }) => {
                if let Ok(cid) = cid.parse() {
                    return StoreError::Corrupt { cid };
                }
            }
            Some(Detail::Mismatch { cid }) => {
                if let Ok(cid) = cid.parse() {
                    return StoreError::Refused { cid, source: BlockError::Mismatch { cid } };
                }
            }
            Some(Detail::TooLarge { cid, size }) => {
                if let Ok(cid) = cid.parse() {
                    return StoreError::Refused { cid, source: BlockError::TooLarge { cid, size: *size } };
                }
            }
            Some(Detail::Full { place }) => return StoreError::Full { place: place.clone(), doing: DOING },
            _ => {}
        }
        StoreError::Backend { doing: DOING, kind: self.kind, source: self.cause() }
    }

    pub(crate) fn into_table(self) -> TableError {
        TableError { place: "the home".into(), doing: "using", kind: self.kind, source: self.cause() }
    }

    pub(crate) fn into_exchange(self) -> ExchangeError {
        let parsed = |text: &str| text.parse::<Cid>().ok();
        let facts = match &self.detail {
            Some(Detail::NoProvider { root, waited, tried }) => {
                parsed(root).map(|root| ExchangeError::NoProvider { root, waited: *waited, tried: *tried })
            }
            Some(Detail::Stalled { cid, waited, peers }) => {
                parsed(cid).map(|cid| ExchangeError::Stalled { cid, waited: *waited, peers: *peers })
            }
            Some(Detail::NotSent { cid, waited, peers, gateways, said }) => {
                let (waited, peers, gateways, said) = (*waited, *peers, *gateways, said.clone());
                parsed(cid).map(|cid| ExchangeError::NotSent { cid, waited, peers, gateways, said })
            }
            Some(Detail::UnknownHash { cid, code }) => parsed(cid)
                .map(|cid| ExchangeError::Refused { cid, source: BlockError::UnknownHash { cid, code: *code } }),
            Some(Detail::TooLarge { cid, size }) => {
                parsed(cid).map(|cid| ExchangeError::Refused { cid, source: BlockError::TooLarge { cid, size: *size } })
            }
            Some(Detail::Mismatch { cid }) => {
                parsed(cid).map(|cid| ExchangeError::Refused { cid, source: BlockError::Mismatch { cid } })
            }
            Some(Detail::Offline { reason }) => Some(ExchangeError::Offline { reason: reason.clone() }),
            _ => None,
        };
        facts.unwrap_or_else(|| {
            let all = std::iter::once(self.message).chain(self.causes).collect::<Vec<_>>();
            ExchangeError::HolderGone { kind: self.kind, reason: all.join(": ") }
        })
    }

    pub(crate) fn into_registry(self) -> RegistryError {
        match (&self.detail, self.topic) {
            (_, Topic::NoRegistry) => return RegistryError::NoRegistry,
            (Some(Detail::AlreadyInitialised { ipns }), _) => {
                return RegistryError::AlreadyInitialised { ipns: ipns.clone() };
            }
            _ => {}
        }
        let Self { kind, topic, message, causes, .. } = self;
        let source = chain(causes.into_iter()).map(|said| said as Cause);
        RegistryError::Holder { kind, topic, message, source }
    }
}

fn block_detail(error: &BlockError) -> Detail {
    match error {
        BlockError::TooLarge { cid, size } => Detail::TooLarge { cid: cid.to_string(), size: *size },
        BlockError::UnknownHash { cid, code } => Detail::UnknownHash { cid: cid.to_string(), code: *code },
        BlockError::Mismatch { cid } => Detail::Mismatch { cid: cid.to_string() },
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let detail = match &error {
            StoreError::Corrupt { cid } => Some(Detail::Corrupt { cid: cid.to_string() }),
            StoreError::Full { place, .. } => Some(Detail::Full { place: place.clone() }),
            StoreError::Refused { source, .. } => Some(block_detail(source)),
            _ => None,
        };
        Self::of(&error, error.kind(), Topic::Other, detail)
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self::of(&error, error.kind(), Topic::Other, None)
    }
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        let detail = match &error {
            ExchangeError::NoProvider { root, waited, tried } => {
                Some(Detail::NoProvider { root: root.to_string(), waited: *waited, tried: *tried })
            }
            ExchangeError::Stalled { cid, waited, peers } => {
                Some(Detail::Stalled { cid: cid.to_string(), waited: *waited, peers: *peers })
            }
            ExchangeError::NotSent { cid, waited, peers, gateways, said } => {
                let (waited, peers, gateways, said) = (*waited, *peers, *gateways, said.clone());
                Some(Detail::NotSent { cid: cid.to_string(), waited, peers, gateways, said })
            }
            ExchangeError::Refused { source, .. } => Some(block_detail(source)),
            ExchangeError::Offline { reason } => Some(Detail::Offline { reason: reason.clone() }),
            ExchangeError::HolderGone { .. } => None,
        };
        Self::of(&error, error.kind(), Topic::Other, detail)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let detail = match &error {
            RegistryError::AlreadyInitialised { ipns } => Some(Detail::AlreadyInitialised { ipns: ipns.clone() }),
            _ => None,
        };
        Self::of(&error, error.kind(), error.topic(), detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn travel(failure: impl Into<Failure>) -> Failure {
        serde_json::from_slice(&serde_json::to_vec(&failure.into()).unwrap()).unwrap()
    }

    #[test]
    fn kind_message_and_causes_arrive() {
        let source = std::io::Error::other("the cable is cut");
        let error = StoreError::Io { place: "/home".into(), doing: "reading", source };
        let back = travel(error).into_store();
        assert_eq!(back.kind(), ErrorKind::Failed);
        let chain: Vec<String> = kind::chain(&back).skip(1).map(ToString::to_string).collect();
        assert_eq!(chain, ["reading in /home failed", "the cable is cut"]);
        let full = travel(StoreError::Full { place: "/home".into(), doing: "storing" }).into_store();
        assert!(matches!(full, StoreError::Full { .. }));
        assert!(matches!(travel(RegistryError::NoRegistry).into_registry(), RegistryError::NoRegistry));
        let conflict = RegistryError::Conflict { tag: "a:1".into(), theirs: "x".into(), ours: "y".into() };
        let text = conflict.to_string();
        let back = travel(conflict).into_registry();
        assert_eq!((back.kind(), back.topic(), back.to_string()), (ErrorKind::Integrity, Topic::Conflict, text));
        let offline = travel(ExchangeError::Offline { reason: "as asked".into() }).into_exchange();
        assert!(matches!(offline, ExchangeError::Offline { reason } if reason == "as asked"));
        let cid = *crate::dag::block::Block::raw(bytes::Bytes::new()).cid();
        let refused = || ExchangeError::Refused { cid, source: BlockError::Mismatch { cid } };
        let back = travel(refused()).into_exchange();
        assert!(matches!(back, ExchangeError::Refused { source: BlockError::Mismatch { .. }, .. }), "{back:?}");
        assert_eq!(back.to_string(), refused().to_string());
        let back = travel(StoreError::Refused { cid, source: BlockError::Mismatch { cid } }).into_store();
        assert!(matches!(back, StoreError::Refused { source: BlockError::Mismatch { .. }, .. }), "{back:?}");
        let waited = Duration::from_secs(60);
        let not_sent = || ExchangeError::NotSent { cid, waited, peers: 2, gateways: 1, said: Some("gone".into()) };
        let back = travel(not_sent()).into_exchange();
        assert!(
            matches!(back, ExchangeError::NotSent { .. }) && back.to_string() == not_sent().to_string(),
            "{back:?}"
        );
        let other = travel(Failure::refused(ErrorKind::DiskFull, "no room")).into_exchange();
        assert_eq!(other.kind(), ErrorKind::DiskFull);
        assert!(other.to_string().ends_with("no room"), "{other}");
        let gone = Failure::gone().into_table();
        assert_eq!(gone.kind(), ErrorKind::Unavailable);
        let gone = RegistryError::from_table("reading", gone);
        assert_eq!(gone.topic(), Topic::HolderGone);
        let gone = RegistryError::from_exchange("fetching", Failure::gone().into_exchange());
        assert_eq!((gone.kind(), gone.topic()), (ErrorKind::Unavailable, Topic::HolderGone));
    }
}
