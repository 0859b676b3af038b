//! IPNS records by HTTP ([`HttpRecords`]), and several carriers at once ([`Combined`]).
//!
//! Sources: Delegated Routing V1 HTTP API, "IPNS API" (`GET` and `PUT /routing/v1/ipns/{name}`); Trustless Gateway
//! specification (`GET /ipns/{name}?format=ipns-record`).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use multiaddr::Multiaddr;
use tokio::time::{Instant, Sleep};

use super::record::SignedRecord;
use crate::limits;
use crate::net::{HttpClient, HttpError, Method, StatusCode};
use crate::port::records::{FoundRecord, NameRecords, RecordQuery, RecordsError};
use crate::reference::key::IpnsName;

const RECORD: &str = "application/vnd.ipfs.ipns-record";

/// The longest time that one HTTP server may take to accept a record.
const PUT: Duration = Duration::from_secs(30);

/// Delegated routers and trustless gateways. The client must let their hosts be asked.
#[derive(Clone, Debug)]
pub struct HttpRecords {
    client: HttpClient,
    routers: Vec<String>,
    gateways: Vec<String>,
}

impl HttpRecords {
    /// Asks these routers and gateways, given as base URLs, and puts to the routers.
    pub fn new(client: HttpClient, routers: &[String], gateways: &[String]) -> Self {
        let bare = |urls: &[String]| urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Self { client, routers: bare(routers), gateways: bare(gateways) }
    }

    /// One server's answer: `None` if it has no record, and if it fails, because others may not.
    async fn ask(&self, url: String) -> Option<FoundRecord> {
        match self.get(&url).await {
            Ok(record) => record.map(|record| FoundRecord { record, source: host_of(&url).to_owned() }),
            Err(error) => {
                tracing::debug!(%url, %error, "no record from this server");
                None
            }
        }
    }

    async fn get(&self, url: &str) -> Result<Option<Bytes>, HttpError> {
        let response = self.client.get(url).header("accept", RECORD).send().await?;
        if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::NO_CONTENT) {
            return Ok(None);
        }
        let response = response.success()?;
        // Routers may answer 200 with a text that says that there is none.
        let kind = response.header("content-type").unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some(RECORD) {
            return Ok(None);
        }
        let limit = u64::try_from(limits::IPNS_RECORD_BYTES).expect("a small constant");
        response.bytes_at_most(limit).await.map(Some)
    }

    async fn give(&self, router: &str, name: &IpnsName, record: Bytes) -> Option<String> {
        let url = format!("{router}/routing/v1/ipns/{name}");
        let request = self.client.request(Method::PUT, &url).header("content-type", RECORD).body(record);
        let outcome = tokio::time::timeout(PUT, async { request.send().await?.success() }).await;
        match outcome {
            Ok(Ok(_)) => Some(host_of(router).to_owned()),
            Ok(Err(error)) => {
                tracing::debug!(%url, %error, "this router did not take the record");
                None
            }
            Err(_) => {
                tracing::debug!(%url, "this router took too long");
                None
            }
        }
    }
}

/// The host and port of a URL, for people.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[async_trait]
impl NameRecords for HttpRecords {
    async fn find(&self, query: RecordQuery) -> Result<Vec<FoundRecord>, RecordsError> {
        let routers = self.routers.iter().map(|url| format!("{url}/routing/v1/ipns/{}", query.name));
        let gateways = self.gateways.iter().map(|url| format!("{url}/ipns/{}?format=ipns-record", query.name));
        let mut asked: FuturesUnordered<_> = routers.chain(gateways).map(|url| self.ask(url)).collect();
        let mut found = Vec::new();
        // Before whoever asks all carriers at once gives up, so that what has come by then counts.
        let limit = tokio::time::sleep(query.timeout / 10 * 9);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                answer = asked.next() => match answer {
                    Some(Some(record)) => {
                        if answers(&query.name, &record) {
                            hurry(&mut limit, Combined::GRACE);
                        }
                        found.push(record);
                    }
                    Some(None) => {}
                    None => break,
                },
                () = &mut limit => break,
            }
        }
        Ok(found)
    }

    async fn put(&self, name: &IpnsName, record: Bytes, _hints: &[Multiaddr]) -> Result<Vec<String>, RecordsError> {
        let given = join_all(self.routers.iter().map(|router| self.give(router, name, record.clone()))).await;
        Ok(given.into_iter().flatten().collect())
    }
}

/// Whether a record is one that the name has signed and that is valid: anybody may send anything else.
fn answers(name: &IpnsName, found: &FoundRecord) -> bool {
    SignedRecord::verify(name, found.record.clone()).is_ok_and(|record| record.is_valid_at(Utc::now()))
}

/// Lets a limit be over after `grace`, if it is not before.
fn hurry(limit: &mut Pin<&mut Sleep>, grace: Duration) {
    let soon = Instant::now() + grace;
    if soon < limit.deadline() {
        limit.as_mut().reset(soon);
    }
}

/// Several carriers, asked at the same time. Once one has found a valid record the others get a grace, and what they have not
/// said by then is not waited for, so that a slow DHT does not hold up what a hinted peer has answered.
#[derive(Clone, Debug)]
pub struct Combined {
    parts: Vec<Arc<dyn NameRecords>>,
    grace: Duration,
}

impl Combined {
    /// How long others are waited for once one has found something.
    pub const GRACE: Duration = Duration::from_secs(1);

    /// These carriers, with the usual grace.
    pub fn new(parts: Vec<Arc<dyn NameRecords>>) -> Self {
        Self { parts, grace: Self::GRACE }
    }

    /// The same with another grace.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

#[async_trait]
impl NameRecords for Combined {
    async fn find(&self, query: RecordQuery) -> Result<Vec<FoundRecord>, RecordsError> {
        let mut asked: FuturesUnordered<_> = self.parts.iter().map(|part| part.find(query.clone())).collect();
        let (mut found, mut failure, mut answered) = (Vec::new(), None, false);
        let limit = tokio::time::sleep(query.timeout);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                answer = asked.next() => match answer {
                    None => break,
                    Some(Err(error)) => failure = Some(error),
                    Some(Ok(mut records)) => {
                        answered = true;
                        if records.iter().any(|record| answers(&query.name, record)) {
                            hurry(&mut limit, self.grace);
                        }
                        found.append(&mut records);
                    }
                },
                () = &mut limit => return Ok(found),
            }
        }
        match failure {
            // Only when nobody could ask at all.
            Some(error) if !answered => Err(error),
            _ => Ok(found),
        }
    }

    async fn put(&self, name: &IpnsName, record: Bytes, hints: &[Multiaddr]) -> Result<Vec<String>, RecordsError> {
        let given = join_all(self.parts.iter().map(|part| part.put(name, record.clone(), hints))).await;
        let (mut accepted, mut failure, mut any) = (Vec::new(), None, false);
        for outcome in given {
            match outcome {
                Ok(mut names) => {
                    any = true;
                    accepted.append(&mut names);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !any => Err(error),
            _ => Ok(accepted),
        }
    }
}

#[cfg(test)]
mod tests;
