//! One client: its frames, its calls, and what they opened.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::call;
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::blocks::StoreSession;
use crate::port::exchange::FetchSession;
use crate::registry::holder::Holder;
use crate::registry::wire::failure::Failure;
use crate::registry::wire::{self, EVENT_CREDIT, Frame, Hello, Kind, QUEUED_FRAMES};

/// How long a client may take to say hello.
const HELLO: Duration = Duration::from_secs(10);

/// What the calls of one client share.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) holder: Arc<dyn Holder>,
    pub(super) outgoing: mpsc::Sender<Frame>,
    opened: Mutex<Opened>,
}

/// What calls opened, by their ids.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) sessions: HashMap<u64, Arc<dyn StoreSession>>,
    pub(super) fetches: HashMap<u64, Arc<dyn FetchSession>>,
    /// Events that each call under way may still send.
    pub(super) credits: HashMap<u64, Arc<Semaphore>>,
}

impl Client {
    pub(super) fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a client until it goes away; then its calls end, and what they opened is dropped.
pub(super) async fn serve(stream: UnixStream, holder: Arc<dyn Holder>) {
    let (reader, writer) = stream.into_split();
    let (mut reader, mut writer) = (BufReader::new(reader), BufWriter::new(writer));
    match tokio::time::timeout(HELLO, greet(&mut reader, &mut writer, holder.as_ref())).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) | Err(_) => return,
        Ok(Err(error)) => return tracing::debug!(%error, "a client did not say hello"),
    }
    let (outgoing, queue) = mpsc::channel(QUEUED_FRAMES);
    let client = Arc::new(Client { holder, outgoing, opened: Mutex::default() });
    let outcome = tokio::select! {
        outcome = read_all(&mut reader, client) => outcome,
        outcome = write_all(&mut writer, queue) => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "the connection to a client failed");
    }
}

/// Whether the client speaks as this side does.
async fn greet(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut BufWriter<OwnedWriteHalf>,
    holder: &dyn Holder,
) -> io::Result<bool> {
    wire::write(writer, &Frame::new(Kind::Hello, 0, &Hello::own(holder.settings()), Vec::new())).await?;
    writer.flush().await?;
    let frame = wire::read(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let hello: Hello = frame.header()?;
    Ok(frame.kind == Kind::Hello && hello.protocol == wire::PROTOCOL)
}

async fn read_all(reader: &mut BufReader<OwnedReadHalf>, client: Arc<Client>) -> io::Result<()> {
    // Dropping it, when the client is gone, ends all calls.
    let mut tasks = JoinSet::new();
    let mut running: HashMap<u64, AbortHandle> = HashMap::new();
    while let Some(frame) = wire::read(reader).await? {
        while let Some(ended) = tasks.try_join_next() {
            if let Ok(id) = ended {
                running.remove(&id);
            }
        }
        let id = frame.id;
        match frame.kind {
            Kind::Call if tasks.len() >= limits::CONTROL_CALLS => {
                let failure = Failure::refused(ErrorKind::Unavailable, "too many calls at once");
                let refused = Frame::new(Kind::Failed, id, &failure, Vec::new());
                client.outgoing.send(refused).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            Kind::Call => {
                client.opened().credits.insert(id, Arc::new(Semaphore::new(EVENT_CREDIT)));
                let client = client.clone();
                let task = tasks.spawn(async move {
                    call::run(&client, frame).await;
                    id
                });
                running.insert(id, task);
            }
            Kind::Cancel => {
                if let Some(task) = running.remove(&id) {
                    task.abort();
                }
                let mut opened = client.opened();
                let gone = (opened.sessions.remove(&id), opened.fetches.remove(&id), opened.credits.remove(&id));
                drop(opened);
                drop(gone);
            }
            Kind::Credit => {
                let paid: usize = frame.header()?;
                if let Some(credit) = client.opened().credits.get(&id)
                    && credit.available_permits() + paid.min(EVENT_CREDIT) <= EVENT_CREDIT
                {
                    credit.add_permits(paid.min(EVENT_CREDIT));
                }
            }
            Kind::Hello | Kind::Event | Kind::Done | Kind::Failed => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(())
}

async fn write_all(writer: &mut BufWriter<OwnedWriteHalf>, mut queue: mpsc::Receiver<Frame>) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        wire::write(writer, &frame).await?;
        if queue.is_empty() {
            writer.flush().await?;
        }
    }
    writer.flush().await
}
