//! A node's failure to start: [`NodeError`].

use multiaddr::Multiaddr;

use crate::kind::{Cause, ErrorKind};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// An address outside of the network mode, or one that no transport understands.
    #[error("the node cannot use address {address}: {reason}")]
    BadAddress {
        /// The address.
        address: Multiaddr,
        /// Why, for people.
        reason: &'static str,
    },
    /// Nothing could be listened to.
    #[error("the node cannot listen at {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        source: Cause,
    },
    /// The swarm did not start.
    #[error("the node did not start")]
    Start {
        /// Why.
        source: Cause,
    },
}

impl NodeError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadAddress { .. } => ErrorKind::Usage,
            Self::Listen { .. } => ErrorKind::Unavailable,
            Self::Start { .. } => ErrorKind::Failed,
        }
    }
}
