//! What can fail when a registry is changed: [`PublishError`].

use cid::Cid;

use crate::kind::{Cause, ErrorKind};
use crate::naming::ipns::IpnsError;
use crate::port::blocks::StoreError;
use crate::port::table::TableError;
use crate::reference::IpnsName;
use crate::tree::error::TreeError;

/// A change's failure. Except for [`PublishError::NotMerged`], nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A tag was changed here and by another home with this key.
    #[error("tag {tag} was changed by another home with this key: it names {theirs} there and {ours} here")]
    Conflict {
        /// `image:tag`.
        tag: String,
        /// What the published registry says.
        theirs: String,
        /// What this home says.
        ours: String,
    },
    /// The published registry could not be fetched: the change is kept here and was not published.
    #[error("stored and tagged here, but not published: the published root {root} could not be fetched")]
    NotMerged {
        /// The published root.
        root: Cid,
        /// Why.
        source: Cause,
    },
    /// The published record's value is no root.
    #[error("this registry's published record names `{value}`, which is no root that ipcr could continue")]
    ForeignValue {
        /// The value.
        value: String,
    },
    /// The published registry lacks changes of this home that it does not remember any more.
    #[error(
        "the published registry lacks {lost} changes that this home made so long ago that it cannot make them again"
    )]
    Forgotten {
        /// How many.
        lost: u64,
    },
    /// The key has handed over to another one, which alone can publish now.
    #[error("the key {from} of this registry has handed over to {to}: only homes with the new key can publish")]
    HandedOver {
        /// The key of this home.
        from: IpnsName,
        /// The new key.
        to: IpnsName,
    },
    /// Reading or editing the tree failed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The registry's own record could not be read, weighed or kept.
    #[error(transparent)]
    Record(#[from] IpnsError),
}

impl PublishError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } | Self::Forgotten { .. } | Self::ForeignValue { .. } | Self::HandedOver { .. } => {
                ErrorKind::Integrity
            }
            Self::NotMerged { .. } => ErrorKind::Unavailable,
            Self::Tree(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Table(error) => error.kind(),
            Self::Record(error) => error.kind(),
        }
    }
}
