//! One trustless gateway: what is asked of it and how it answers ([`Gateway`]), and what it has earned ([`Standing`]).

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::plan::End;
use crate::dag::block::{Block, BlockError};
use crate::dag::car::{CarError, Decoder, Section};
use crate::kind::ErrorKind;
use crate::limits;
use crate::net::{Charge, HttpClient, HttpError, Rate, Response, StatusCode};

const RAW: &str = "application/vnd.ipld.raw";
const CAR: &str = "application/vnd.ipld.car";
const CAR_ASKED: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";
/// Wrong things after which a gateway is not asked any more.
const STRIKES: u32 = 3;
/// How long a gateway that did not give several blocks at once is asked for one at a time: it may have been the fault of what was asked
/// for.
const NO_RUNS: Duration = Duration::from_secs(300);
/// How long a gateway that failed is left alone, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The longest time that a gateway may ask to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Blocks in a row that it does not have, after which it is taken to have nothing of what is wanted.
const MISSES: u32 = 16;
/// Most bytes of one answer that nobody asked for: the nodes above what was asked for.
const EXTRA: usize = limits::BLOCK_BYTES + (1 << 20);
/// Blocks from this size on are hashed where they do not hold up others.
const LARGE: usize = 32 << 10;

/// What is asked in one request.
#[derive(Debug)]
pub(super) enum Question {
    /// One block.
    Block(Cid),
    /// Leaves that follow each other below a node.
    Run {
        /// The node.
        parent: Cid,
        /// The first and the last byte of the leaves, below the node; `None` for all of it.
        range: Option<(u64, u64)>,
        /// The leaves.
        leaves: HashSet<Multihash<64>>,
    },
}

/// Why a gateway did not give all that it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("it does not have the block")]
    Absent,
    #[error("it answers {status}")]
    Busy { status: StatusCode, pause: Option<Duration> },
    #[error("it does not answer in the form {form}")]
    Unspoken { form: &'static str },
    #[error("it sent what was not asked for")]
    Besides,
    #[error("its answer ended before all was there")]
    Short,
    #[error("it made no progress for {} s", limit.as_secs())]
    Stalled { limit: Duration },
    #[error("it sent something wrong")]
    Wrong(#[source] BlockError),
    #[error("it sent something wrong")]
    Garbled(#[source] CarError),
    #[error("it sent more than a block has")]
    Oversize,
}

impl AskError {
    /// Its class.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Http(error) => error.kind(),
            Self::Absent => ErrorKind::NotFound,
            Self::Wrong(_) | Self::Garbled(_) | Self::Oversize => ErrorKind::Integrity,
            _ => ErrorKind::Unavailable,
        }
    }

    /// What it means for what was asked for.
    pub(super) fn end(&self) -> End {
        match (self, self.kind()) {
            (Self::Unspoken { form: CAR } | Self::Besides, _) => End::Otherwise,
            (Self::Unspoken { .. }, _) => End::Refused,
            (_, ErrorKind::NotFound | ErrorKind::Integrity | ErrorKind::Access) => End::Refused,
            _ => End::Broken,
        }
    }
}

/// A gateway. What it has earned holds for all sessions.
pub(super) struct Gateway {
    /// Its base URL, without the slash at its end.
    url: String,
    client: HttpClient,
    /// What all sources together may take.
    download: Arc<Rate>,
    standing: Mutex<Standing>,
}

/// What a gateway has earned.
#[derive(Debug, Default)]
struct Standing {
    strikes: u32,
    failures: u32,
    misses: u32,
    until: Option<Instant>,
    /// Until when it is not asked for several blocks at once.
    no_runs: Option<Instant>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Gateway {
    pub(super) fn new(client: HttpClient, url: &str, download: Arc<Rate>) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), client, download, standing: Mutex::default() }
    }

    /// Its base URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be asked at the moment.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        let standing = self.standing();
        standing.strikes < STRIKES && standing.until.is_none_or(|until| until <= now)
    }

    /// Whether it can be asked for several blocks at once, as far as is known.
    pub(super) fn gives_runs(&self) -> bool {
        self.standing().no_runs.is_none_or(|until| until <= Instant::now())
    }

    /// It gave what it was asked for.
    pub(super) fn delivered(&self) {
        let mut standing = self.standing();
        (standing.failures, standing.misses, standing.until) = (0, 0, None);
    }

    /// It did not; true if it is to be dropped because of that.
    pub(super) fn failed(&self, error: &AskError, now: Instant) -> bool {
        let mut standing = self.standing();
        match error {
            AskError::Wrong(_) | AskError::Garbled(_) | AskError::Oversize => {
                standing.strikes += 1;
                return standing.strikes == STRIKES;
            }
            AskError::Absent => {
                standing.misses += 1;
                if standing.misses < MISSES {
                    return false;
                }
            }
            AskError::Unspoken { form: CAR } | AskError::Besides => {
                standing.no_runs = Some(now + NO_RUNS);
                return false;
            }
            _ => {}
        }
        let asked = match error {
            AskError::Busy { pause, .. } => *pause,
            _ => None,
        };
        let pause = PAUSE.0.saturating_mul(1 << standing.failures.min(8)).min(PAUSE.1);
        standing.failures += 1;
        standing.until = Some(now + asked.map_or(pause, |asked| asked.clamp(PAUSE.0, LONGEST_PAUSE)));
        false
    }

    /// Asks; what comes is verified and then given to `deliver`. No block of it takes longer than `stall`, but for what is waited to keep to
    /// the limit.
    pub(super) async fn ask(
        &self,
        question: &Question,
        stall: Duration,
        mut deliver: impl FnMut(Block) + Send,
    ) -> Result<(), AskError> {
        match question {
            Question::Block(cid) => {
                let one = tokio::time::timeout(stall, self.block(cid)).await;
                let (block, charge) = one.map_err(|_| AskError::Stalled { limit: stall })??;
                deliver(block);
                charge.wait().await;
                Ok(())
            }
            Question::Run { parent, range, leaves } => self.run(parent, *range, leaves.clone(), stall, deliver).await,
        }
    }

    /// A block, and what is to be waited for before the next is asked for.
    async fn block(&self, cid: &Cid) -> Result<(Block, Charge), AskError> {
        let response = self.get(&format!("{}/ipfs/{cid}?format=raw", self.url), RAW, RAW).await?;
        let limit = u64::try_from(limits::BLOCK_BYTES).expect("a small constant");
        let data = response.bytes_at_most(limit).await.map_err(|error| match error {
            HttpError::TooLarge { .. } => AskError::Oversize,
            error => error.into(),
        })?;
        let charge = self.download.charge(data.len());
        Ok((verify(*cid, data).await?, charge))
    }

    async fn run(
        &self,
        parent: &Cid,
        range: Option<(u64, u64)>,
        mut leaves: HashSet<Multihash<64>>,
        stall: Duration,
        mut deliver: impl FnMut(Block) + Send,
    ) -> Result<(), AskError> {
        let stalled = |_| AskError::Stalled { limit: stall };
        let range = range.map_or_else(String::new, |(first, last)| format!("&entity-bytes={first}:{last}"));
        let url = format!("{}/ipfs/{parent}?format=car&dag-scope=entity{range}", self.url);
        let response = tokio::time::timeout(stall, self.get(&url, CAR_ASKED, CAR)).await.map_err(stalled)??;
        let mut chunks = std::pin::pin!(response.chunks());
        let (mut decoder, mut progress, mut extra) = (Decoder::new(), Instant::now(), 0);
        while let Some(chunk) = timeout_at(progress + stall, chunks.next()).await.map_err(stalled)? {
            let chunk = chunk?;
            let charge = self.download.charge(chunk.len());
            let mut bytes = &chunk[..];
            while let Some(Section { cid, data }) = decoder.push(&mut bytes).map_err(AskError::Garbled)? {
                if leaves.contains(cid.hash()) {
                    deliver(verify(cid, data).await?);
                    leaves.remove(cid.hash());
                    progress = Instant::now();
                } else {
                    // A section without bytes costs something, too.
                    extra += data.len() + 64;
                    if extra > EXTRA {
                        return Err(AskError::Besides);
                    }
                }
            }
            // Whoever needs what came has it. Nothing more is taken off the connection, and it is not the gateway that makes no progress.
            let waiting = Instant::now();
            charge.wait().await;
            progress += waiting.elapsed();
            if leaves.is_empty() {
                return Ok(());
            }
        }
        Err(AskError::Short)
    }

    /// The answer to a request, if it has the form that was asked for.
    async fn get(&self, url: &str, accept: &str, form: &'static str) -> Result<Response, AskError> {
        let response = self.client.get(url).header("accept", accept).send().await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::NO_CONTENT => return Err(AskError::Absent),
            status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                let pause = response.header("retry-after").and_then(|pause| pause.trim().parse().ok());
                return Err(match (status, form) {
                    // That is said of the form, not of the moment.
                    (StatusCode::NOT_IMPLEMENTED, CAR) => AskError::Unspoken { form },
                    _ => AskError::Busy { status, pause: pause.map(Duration::from_secs) },
                });
            }
            status => {
                tracing::debug!(%url, %status, "a gateway refuses");
                return Err(match status {
                    StatusCode::BAD_REQUEST | StatusCode::NOT_ACCEPTABLE | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                        AskError::Unspoken { form }
                    }
                    status => HttpError::Status { url: response.url(), status }.into(),
                });
            }
        }
        let kind = response.header("content-type").unwrap_or_default();
        if kind.split(';').next().map(str::trim) == Some(form) {
            Ok(response)
        } else {
            Err(AskError::Unspoken { form })
        }
    }
}

async fn verify(cid: Cid, data: Bytes) -> Result<Block, AskError> {
    let verified = if data.len() < LARGE {
        Block::verify(cid, data)
    } else {
        match tokio::task::spawn_blocking(move || Block::verify(cid, data)).await {
            Ok(verified) => verified,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    };
    verified.map_err(AskError::Wrong)
}
