//! The client's end of a home's socket: [`Connection`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::socket;
use crate::event::Emitter;
use crate::kind::ErrorKind;
use crate::registry::wire::failure::Failure;
use crate::registry::wire::{self, Call, EVENT_CREDIT, Frame, Hello, Kind, QUEUED_FRAMES};

/// Calls that are under way at once; more wait.
const CALLS: usize = 1024;
/// How long a holder may take to say hello.
const HELLO: Duration = Duration::from_secs(10);

/// Calls to the process at the other end, any number at once.
#[derive(Debug)]
pub(super) struct Connection {
    outgoing: mpsc::Sender<Frame>,
    calls: Arc<Mutex<Calls>>,
    next: AtomicU64,
    permits: Semaphore,
    /// Cancelled when either side has ended.
    gone: CancellationToken,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Calls {
    waiting: HashMap<u64, mpsc::Sender<Frame>>,
    closed: bool,
}

/// A call under way, or what it opened. Dropping it cancels that.
#[derive(Debug)]
pub(super) struct Ticket {
    connection: Arc<Connection>,
    pub(super) id: u64,
    frames: mpsc::Receiver<Frame>,
    finished: bool,
}

/// A call's result: its header and its payload.
#[derive(Debug)]
pub(super) struct Answer(Frame);

impl Answer {
    /// The result; an answer of another shape means that the other side is broken.
    pub(super) fn header<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.0.header().map_err(|error| broken(&error))
    }

    pub(super) fn payload(self) -> Bytes {
        self.0.into_payload()
    }
}

pub(super) fn broken(error: &io::Error) -> Failure {
    Failure::refused(ErrorKind::Failed, format!("the process that holds the home gave an answer that is none: {error}"))
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Connects to a home's socket; `None` when nobody serves it.
    pub(super) async fn open(home: &Path) -> io::Result<Option<(Arc<Self>, Hello)>> {
        let path = match socket::path(home) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        socket::check_folder(&path, home)?;
        if !socket::is_trusted(stream.peer_cred()?.uid()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user serves this home's socket"));
        }
        match tokio::time::timeout(HELLO, Self::greet(stream)).await {
            Ok(Ok(connection)) => Ok(Some(connection)),
            // It ended, or stopped taking clients, in this very moment.
            Ok(Err(error)) if is_gone(error.kind()) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the process that holds the home does not answer")),
        }
    }

    async fn greet(stream: UnixStream) -> io::Result<(Arc<Self>, Hello)> {
        let (reader, writer) = stream.into_split();
        let (mut reader, mut writer) = (BufReader::new(reader), BufWriter::new(writer));
        wire::write(&mut writer, &Frame::new(Kind::Hello, 0, &Hello::own(BTreeMap::new()), Vec::new())).await?;
        writer.flush().await?;
        let frame = wire::read(&mut reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let hello: Hello = frame.header()?;
        if frame.kind != Kind::Hello || hello.protocol != wire::PROTOCOL {
            let message = format!("the home is held by process {} of version {}", hello.pid, hello.version);
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        let (outgoing, queue) = mpsc::channel(QUEUED_FRAMES);
        let connection = Arc::new(Self {
            outgoing,
            calls: Arc::default(),
            next: AtomicU64::new(1),
            permits: Semaphore::new(CALLS),
            gone: CancellationToken::new(),
        });
        tokio::spawn(read_all(reader, connection.calls.clone(), connection.gone.clone()));
        tokio::spawn(write_all(writer, queue, connection.gone.clone()));
        Ok((connection, hello))
    }

    pub(super) fn close(&self) {
        self.gone.cancel();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Makes a call that has no events.
    pub(super) async fn call(self: &Arc<Self>, call: &Call, payload: Vec<Bytes>) -> Result<Answer, Failure> {
        self.call_telling(call, payload, &Emitter::silent()).await
    }

    /// Makes a call and passes its events on.
    pub(super) async fn call_telling(
        self: &Arc<Self>,
        call: &Call,
        payload: Vec<Bytes>,
        events: &Emitter,
    ) -> Result<Answer, Failure> {
        let (mut ticket, answer) = self.begin(call, payload, events).await?;
        ticket.finished = true;
        Ok(answer)
    }

    /// Makes a call that opens something, which lives until the ticket is dropped.
    pub(super) async fn begin(
        self: &Arc<Self>,
        call: &Call,
        payload: Vec<Bytes>,
        events: &Emitter,
    ) -> Result<(Ticket, Answer), Failure> {
        let _permit = self.permits.acquire().await.map_err(|_| Failure::gone())?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let call = Frame::new(Kind::Call, id, call, payload);
        if call.is_too_large() {
            return Err(Failure::too_large("the message"));
        }
        // Room for all events that have not been paid for, and the answer: the reading task never waits.
        let (sender, frames) = mpsc::channel(EVENT_CREDIT + 2);
        {
            let mut calls = lock(&self.calls);
            if calls.closed {
                return Err(Failure::gone());
            }
            calls.waiting.insert(id, sender);
        }
        let mut ticket = Ticket { connection: self.clone(), id, frames, finished: false };
        self.outgoing.send(call).await.map_err(|_| Failure::gone())?;
        loop {
            let frame = ticket.frames.recv().await.ok_or_else(Failure::gone)?;
            match frame.kind {
                Kind::Event => ticket.tell(&frame, events).await?,
                Kind::Done => return Ok((ticket, Answer(frame))),
                _ => {
                    ticket.finished = true;
                    return Err(frame.header::<Failure>().unwrap_or_else(|error| broken(&error)));
                }
            }
        }
    }

    fn cancel(&self, id: u64) {
        lock(&self.calls).waiting.remove(&id);
        let frame = Frame::new(Kind::Cancel, id, &(), Vec::new());
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.outgoing.try_send(frame)
            && let Ok(runtime) = Handle::try_current()
        {
            let outgoing = self.outgoing.clone();
            runtime.spawn(async move { outgoing.send(frame).await });
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl Ticket {
    /// Passes an event on, then pays for it.
    async fn tell(&self, frame: &Frame, events: &Emitter) -> Result<(), Failure> {
        events.relay(frame.header().map_err(|error| broken(&error))?).await;
        let credit = Frame::new(Kind::Credit, self.id, &1_usize, Vec::new());
        self.connection.outgoing.send(credit).await.map_err(|_| Failure::gone())
    }

    /// Passes events on for as long as what was opened lives.
    pub(super) async fn tell_all(mut self, events: Emitter) {
        while let Some(frame) = self.frames.recv().await {
            if self.tell(&frame, &events).await.is_err() {
                break;
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.finished {
            lock(&self.connection.calls).waiting.remove(&self.id);
        } else {
            self.connection.cancel(self.id);
        }
    }
}

fn is_gone(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

async fn read_all<R: tokio::io::AsyncRead + Unpin>(mut reader: R, calls: Arc<Mutex<Calls>>, gone: CancellationToken) {
    let all = async {
        while let Some(frame) = wire::read(&mut reader).await? {
            let waiting = lock(&calls).waiting.get(&frame.id).cloned();
            // Full means that the other side sends events that were not paid for.
            if let Some(waiting) = waiting
                && let Err(mpsc::error::TrySendError::Full(_)) = waiting.try_send(frame)
            {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        outcome = all => if let Err(error) = outcome {
            tracing::debug!(%error, "the connection to the process that holds the home failed");
        },
        () = gone.cancelled() => {}
    }
    gone.cancel();
    let mut calls = lock(&calls);
    calls.closed = true;
    calls.waiting.clear();
}

async fn write_all<W: tokio::io::AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: mpsc::Receiver<Frame>,
    gone: CancellationToken,
) {
    let all = async {
        while let Some(frame) = queue.recv().await {
            wire::write(&mut writer, &frame).await?;
            if queue.is_empty() {
                writer.flush().await?;
            }
        }
        writer.shutdown().await
    };
    tokio::select! {
        outcome = all => if let Err(error) = outcome {
            tracing::debug!(%error, "the connection to the process that holds the home failed");
        },
        () = gone.cancelled() => {}
    }
    gone.cancel();
}
