//! Which record of a name is used, and what is kept: [`RecordTable`].
//!
//! The best record ever seen of each name is kept on disk with its sequence and the time when the network last confirmed
//! it. What is found is weighed against it:
//!
//! | found on the network | result |
//! |---|---|
//! | a higher sequence | used and kept |
//! | same sequence, same value | the one valid for longer is used and kept |
//! | same sequence, another value | [`IpnsError::Fork`], until a higher sequence appears |
//! | older than the highest seen, kept record still valid | the kept record, [`Warning::StaleAnswer`] |
//! | only older ones, kept record expired | [`IpnsError::Rollback`] |
//! | nothing valid, kept record valid | the kept record, [`Warning::KeptRecord`] |
//! | nothing valid, kept record expired | [`IpnsError::Expired`], or the kept record if stale ones are allowed |
//! | nothing valid, none kept | [`IpnsError::NotFound`] |
//!
//! A valid record is one that its key has signed and that has not expired.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use multiaddr::Multiaddr;
use multibase::Base;
use serde::{Deserialize, Serialize};

use super::Clock;
use super::record::SignedRecord;
use crate::event::{Emitter, Warning};
use crate::kind::{Cause, ErrorKind};
use crate::port::records::{NameRecords, RecordQuery, RecordShelf};
use crate::port::table::{Change, Space, Table, TableError};
use crate::reference::key::IpnsName;

/// The time of confirmation is written again only after this long, so that resolving in a loop does not wear the disk.
const CONFIRM_EVERY: TimeDelta = TimeDelta::seconds(30);
/// Most wrong answers that one resolution tells about.
const WARNINGS: usize = 8;

/// The record that a name leads by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The record.
    pub record: SignedRecord,
    /// Seconds since the network last confirmed it; 0 when it was just now.
    pub age: u64,
    /// Who gave it, for people; `kept` for the record on disk.
    pub source: String,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpnsError {
    /// Nobody had a valid record, and none is kept.
    #[error("no valid record of {name} was found")]
    NotFound {
        /// The name.
        name: IpnsName,
        /// Why nobody was asked, if nobody was.
        source: Option<Cause>,
    },
    /// Nobody had a valid record, and the kept one has expired.
    #[error("no valid record of {name} was found, and the kept one expired on {expired}")]
    Expired {
        /// The name.
        name: IpnsName,
        /// When.
        expired: DateTime<Utc>,
    },
    /// Everybody's records are older than one seen before.
    #[error("the network only has older records of {name} (sequence {found}) than one seen before ({seen})")]
    Rollback {
        /// The name.
        name: IpnsName,
        /// The highest sequence found.
        found: u64,
        /// The highest sequence ever seen.
        seen: u64,
    },
    /// The key has signed two values under one sequence.
    #[error("{name} has two values under sequence {sequence}: two homes may use one key")]
    Fork {
        /// The name.
        name: IpnsName,
        /// The sequence.
        sequence: u64,
    },
    /// The table failed.
    #[error("reading or keeping the record of {name} failed")]
    Table {
        /// The name.
        name: IpnsName,
        /// Why.
        source: TableError,
    },
    /// What is kept cannot be read.
    #[error("the kept record of {name} is damaged")]
    Damaged {
        /// The name.
        name: IpnsName,
        /// Why.
        source: Cause,
    },
}

impl IpnsError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Expired { .. } => ErrorKind::Unavailable,
            Self::Rollback { .. } | Self::Fork { .. } | Self::Damaged { .. } => ErrorKind::Integrity,
            Self::Table { source, .. } => source.kind(),
        }
    }
}

/// What is kept of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The best record seen; its sequence is the highest ever seen.
    pub record: SignedRecord,
    /// When the network last confirmed it.
    pub confirmed: DateTime<Utc>,
    /// Whether another value was seen under the same sequence.
    pub forked: bool,
}

/// How [`Kept`] lies in the table.
#[derive(Serialize, Deserialize)]
struct Row {
    record: String,
    confirmed: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forked: bool,
}

/// The records of names, found and kept.
#[derive(Clone, Debug)]
pub struct RecordTable {
    network: Arc<dyn NameRecords>,
    table: Arc<dyn Table>,
    clock: Clock,
    /// One name is read, weighed and kept by one task at a time.
    locks: Arc<Mutex<HashMap<IpnsName, Arc<tokio::sync::Mutex<()>>>>>,
}

impl RecordTable {
    /// Records of this network, kept in this table.
    pub fn new(network: Arc<dyn NameRecords>, table: Arc<dyn Table>, clock: Clock) -> Self {
        Self { network, table, clock, locks: Arc::default() }
    }

    /// The record that a name leads by: see the table above.
    pub async fn follow(
        &self,
        name: &IpnsName,
        hints: &[Multiaddr],
        timeout: Duration,
        allow_stale: bool,
        events: &Emitter,
    ) -> Result<Followed, IpnsError> {
        let (found, offline) = self.find(name, hints, timeout, events).await;
        let lock = self.lock(name);
        let _guard = lock.lock().await;
        let now = self.clock.now();
        let kept = self.kept(name).await?;
        let best = best_of(name, &found, now);
        let Some(kept) = kept else {
            let not_found = || IpnsError::NotFound { name: *name, source: offline };
            let Best { record, source, forked } = best.ok_or_else(not_found)?;
            let sequence = record.sequence();
            self.write(&Kept { record: record.clone(), confirmed: now, forked }).await?;
            if forked {
                return Err(IpnsError::Fork { name: *name, sequence });
            }
            return Ok(Followed { record, age: 0, source });
        };
        let kept_is_valid = kept.record.is_valid_at(now);
        let use_kept = || Followed {
            age: seconds_between(kept.confirmed, now),
            record: kept.record.clone(),
            source: "kept".into(),
        };
        let fork = |sequence| IpnsError::Fork { name: *name, sequence };
        let Some(best) = best else {
            if kept.forked {
                return Err(fork(kept.record.sequence()));
            }
            if !kept_is_valid && !allow_stale {
                return Err(IpnsError::Expired { name: *name, expired: kept.record.valid_until() });
            }
            let followed = use_kept();
            events.warn(Warning::KeptRecord { name: name.to_string(), age: followed.age }).await;
            return Ok(followed);
        };
        let (found, seen) = (best.record.sequence(), kept.record.sequence());
        match found.cmp(&seen) {
            Ordering::Greater => {
                let Best { record, source, forked } = best;
                self.write(&Kept { record: record.clone(), confirmed: now, forked }).await?;
                if forked { Err(fork(found)) } else { Ok(Followed { record, age: 0, source }) }
            }
            Ordering::Equal => {
                if best.forked || kept.forked || best.record.target() != kept.record.target() {
                    if !kept.forked {
                        self.write(&Kept { forked: true, ..kept }).await?;
                    }
                    return Err(fork(seen));
                }
                let newer = best.record.rank(&kept.record) == Ordering::Greater;
                let record = if newer { best.record } else { kept.record };
                if newer || now - kept.confirmed >= CONFIRM_EVERY {
                    self.write(&Kept { record: record.clone(), confirmed: now, forked: false }).await?;
                }
                Ok(Followed { record, age: 0, source: best.source })
            }
            Ordering::Less if kept.forked => Err(fork(seen)),
            Ordering::Less if kept_is_valid => {
                let name = name.to_string();
                events.warn(Warning::StaleAnswer { name, found, used: seen }).await;
                Ok(use_kept())
            }
            Ordering::Less => Err(IpnsError::Rollback { name: *name, found, seen }),
        }
    }

    /// All valid records, found now or kept, best first, one for each value of a sequence; nothing is kept of them. For a publisher
    /// that looks whether another home was faster, and settles forks.
    pub async fn valid(
        &self,
        name: &IpnsName,
        hints: &[Multiaddr],
        timeout: Duration,
        events: &Emitter,
    ) -> Result<Vec<SignedRecord>, IpnsError> {
        let (found, _) = self.find(name, hints, timeout, events).await;
        let kept = self.kept(name).await?.map(|kept| kept.record);
        let now = self.clock.now();
        let known = found.into_iter().map(|(record, _)| record).chain(kept);
        let mut valid: Vec<_> = known.filter(|record| record.is_valid_at(now)).collect();
        valid.sort_by(|one, other| other.rank(one));
        let mut distinct: Vec<SignedRecord> = Vec::new();
        for record in valid {
            let same = |one: &SignedRecord| one.sequence() == record.sequence() && one.target() == record.target();
            if !distinct.iter().any(same) {
                distinct.push(record);
            }
        }
        Ok(distinct)
    }

    /// What is kept of a name.
    pub async fn kept(&self, name: &IpnsName) -> Result<Option<Kept>, IpnsError> {
        read(self.table.as_ref(), name).await
    }

    /// Keeps a record, such as one that was just signed, if it is better than what is kept. A second value under a sequence
    /// that was seen is refused, and so is a lower sequence.
    pub async fn keep(&self, record: &SignedRecord) -> Result<(), IpnsError> {
        let name = *record.name();
        let lock = self.lock(&name);
        let _guard = lock.lock().await;
        if let Some(kept) = self.kept(&name).await? {
            let (new, seen) = (record.sequence(), kept.record.sequence());
            match new.cmp(&seen) {
                Ordering::Less => return Err(IpnsError::Rollback { name, found: new, seen }),
                Ordering::Equal if kept.forked || record.target() != kept.record.target() => {
                    return Err(IpnsError::Fork { name, sequence: seen });
                }
                Ordering::Equal if record.rank(&kept.record) != Ordering::Greater => return Ok(()),
                _ => {}
            }
        }
        self.write(&Kept { record: record.clone(), confirmed: self.clock.now(), forked: false }).await
    }

    /// Hands a record to the network; returns who accepted it.
    pub async fn put(
        &self,
        record: &SignedRecord,
        hints: &[Multiaddr],
    ) -> Result<Vec<String>, crate::port::records::RecordsError> {
        self.network.put(record.name(), record.bytes().clone(), hints).await
    }

    /// Everything valid in form that the network has, and why nobody was asked if that is so.
    async fn find(
        &self,
        name: &IpnsName,
        hints: &[Multiaddr],
        timeout: Duration,
        events: &Emitter,
    ) -> (Vec<(SignedRecord, String)>, Option<Cause>) {
        let query = RecordQuery { name: *name, hints: hints.to_vec(), timeout };
        let answers = match self.network.find(query).await {
            Ok(answers) => answers,
            Err(error) => return (Vec::new(), Some(error.into())),
        };
        let mut found = Vec::with_capacity(answers.len());
        let mut warned = 0;
        for answer in answers {
            match SignedRecord::verify(name, answer.record) {
                Ok(record) => found.push((record, answer.source)),
                Err(error) if warned < WARNINGS => {
                    warned += 1;
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                    events.warn(Warning::BadPeer { peer: answer.source, reason: format!("{error}{cause}") }).await;
                }
                Err(_) => {}
            }
        }
        (found, None)
    }

    fn lock(&self, name: &IpnsName) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(*name).or_default().clone()
    }

    async fn write(&self, kept: &Kept) -> Result<(), IpnsError> {
        let name = *kept.record.name();
        let record = multibase::encode(Base::Base64, kept.record.bytes());
        let row = Row { record, confirmed: kept.confirmed, forked: kept.forked };
        let value = serde_json::to_vec(&row).expect("strings serialise");
        let change = Change::Put(Space::Records, name.routing_key(), value);
        self.table.write(vec![change]).await.map_err(|source| IpnsError::Table { name, source })
    }
}

/// The best valid record found.
struct Best {
    record: SignedRecord,
    source: String,
    /// Another valid one has the same sequence and another value.
    forked: bool,
}

fn best_of(name: &IpnsName, found: &[(SignedRecord, String)], now: DateTime<Utc>) -> Option<Best> {
    debug_assert!(found.iter().all(|(record, _)| record.name() == name), "only records of the name were verified");
    let valid = || found.iter().filter(|(record, _)| record.is_valid_at(now));
    let (record, source) = valid().max_by(|(one, _), (other, _)| one.rank(other))?;
    let forked = valid().any(|(other, _)| other.sequence() == record.sequence() && other.target() != record.target());
    Some(Best { record: record.clone(), source: source.clone(), forked })
}

fn seconds_between(then: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
    u64::try_from((now - then).num_seconds()).unwrap_or_default()
}

async fn read(table: &dyn Table, name: &IpnsName) -> Result<Option<Kept>, IpnsError> {
    let damaged = |source: Cause| IpnsError::Damaged { name: *name, source };
    let row = table.get(Space::Records, &name.routing_key()).await;
    let Some(value) = row.map_err(|source| IpnsError::Table { name: *name, source })? else { return Ok(None) };
    let row: Row = serde_json::from_slice(&value).map_err(|error| damaged(error.into()))?;
    let (_, bytes) = multibase::decode(&row.record).map_err(|error| damaged(error.into()))?;
    let record = SignedRecord::verify(name, bytes.into()).map_err(|error| damaged(error.into()))?;
    Ok(Some(Kept { record, confirmed: row.confirmed, forked: row.forked }))
}

/// The kept records, for those who ask this node: all that are valid now and have no rival.
#[derive(Clone, Debug)]
pub struct KeptShelf {
    table: Arc<dyn Table>,
    clock: Clock,
}

impl KeptShelf {
    /// The records kept in this table.
    pub fn new(table: Arc<dyn Table>, clock: Clock) -> Self {
        Self { table, clock }
    }
}

#[async_trait]
impl RecordShelf for KeptShelf {
    async fn record(&self, routing_key: &[u8]) -> Option<Bytes> {
        let hash = routing_key.strip_prefix(b"/ipns/")?;
        let name = IpnsName::from_peer_id(libp2p_identity::PeerId::from_bytes(hash).ok()?);
        match read(self.table.as_ref(), &name).await {
            Ok(kept) => {
                let kept = kept.filter(|kept| !kept.forked && kept.record.is_valid_at(self.clock.now()))?;
                Some(kept.record.bytes().clone())
            }
            Err(error) => {
                tracing::warn!(%name, %error, "a kept record cannot be given out");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
