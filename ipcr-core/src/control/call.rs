//! One call: what it asks of the holder, and its answer.

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cid::Cid;
use cid::multihash::Multihash;
use serde::Serialize;
use tokio::sync::mpsc;

use super::client::Client;
use crate::dag::block::{Block, RAW};
use crate::event::{Emitter, Event};
use crate::kind::ErrorKind;
use crate::port::blocks::{Live, StoreError, StoreSession};
use crate::port::exchange::FetchRequest;
use crate::registry::wire::failure::Failure;
use crate::registry::wire::{self, Call, Frame, Kind, Report};

/// A result: its header, and its payload.
struct Answer {
    header: serde_json::Value,
    payload: Vec<Bytes>,
}

type Answered = Result<Answer, Failure>;

fn answer(header: &impl Serialize, payload: Vec<Bytes>) -> Answered {
    let header = serde_json::to_value(header);
    let header = header.map_err(|error| Failure::refused(ErrorKind::Failed, error.to_string()))?;
    Ok(Answer { header, payload })
}

fn plain(header: &impl Serialize) -> Answered {
    answer(header, Vec::new())
}

fn nonsense(error: io::Error) -> Failure {
    Failure::refused(ErrorKind::Usage, error.to_string())
}

/// Runs a call to its end and sends the answer.
pub(super) async fn run(client: &Arc<Client>, frame: Frame) {
    let id = frame.id;
    let call = match frame.header::<Call>() {
        Ok(call) => call,
        Err(error) => return finish(client, id, Err(nonsense(error))).await,
    };
    let payload = frame.into_payload();
    match call {
        Call::Open { root, hints, stall, share, watched } => {
            let (events, watcher) = watched.then(Emitter::watched).unzip();
            let request = FetchRequest { root, hints, stall, share, events: events.unwrap_or_default() };
            fetch_session(client, id, request, watcher).await;
        }
        Call::Resolve { request, watched } => {
            let holder = client.holder.clone();
            let work = |events| async move { holder.resolve(request, events).await };
            let outcome = watch(client, id, watched, work).await;
            finish(client, id, outcome.map_err(Failure::from).and_then(|root| plain(&root))).await;
        }
        Call::Change { request, watched } => {
            let holder = client.holder.clone();
            let work = |events| async move { holder.change(*request, events).await };
            let outcome = watch(client, id, watched, work).await;
            finish(client, id, outcome.map_err(Failure::from).and_then(|changed| plain(&changed))).await;
        }
        Call::Repair { request, watched } => {
            let holder = client.holder.clone();
            let work = |events| async move { holder.repair(request, events).await };
            let outcome = watch(client, id, watched, work).await;
            finish(client, id, outcome.map_err(Failure::from).and_then(|repaired| plain(&repaired))).await;
        }
        call => {
            let outcome = serve(client, id, call, payload).await;
            finish(client, id, outcome).await;
        }
    }
}

async fn finish(client: &Client, id: u64, outcome: Answered) {
    let frame = match outcome {
        Ok(Answer { header, payload }) => Frame::new(Kind::Done, id, &header, payload),
        Err(failure) => Frame::new(Kind::Failed, id, &failure, Vec::new()),
    };
    let frame = if frame.is_too_large() {
        Frame::new(Kind::Failed, id, &Failure::too_large("the answer"), Vec::new())
    } else {
        frame
    };
    client.opened().credits.remove(&id);
    // The client may be gone: then nobody waits for it.
    let _ = client.outgoing.send(frame).await;
}

/// Calls without events.
async fn serve(client: &Client, id: u64, call: Call, payload: Bytes) -> Answered {
    let holder = &client.holder;
    match call {
        Call::Identity => plain(&holder.identity().await?),
        Call::TrustList => plain(&holder.trust_list().await?),
        Call::TrustAdd { domain, key } => plain(&holder.trust_add(&domain, &key).await?),
        Call::TrustRemove { domain } => plain(&holder.trust_remove(&domain).await?),
        Call::Trim => plain(&holder.trim().await?),
        Call::Collect { options } => plain(&holder.collect(options).await?),
        Call::Check { read_data } => plain(&holder.check(read_data).await?),
        Call::HomeUsage => plain(&holder.usage().await?),
        Call::Activity => plain(&holder.activity().await?),
        Call::StartNode => plain(&holder.start_node().await?),
        Call::TableGet { space } => match holder.tables().get(space, &payload).await? {
            Some(value) => answer(&true, vec![value.into()]),
            None => plain(&false),
        },
        Call::TableScan { space } => {
            let mut pairs = BytesMut::new();
            for (key, value) in holder.tables().scan(space, &payload).await? {
                wire::put_field(&mut pairs, &key);
                wire::put_field(&mut pairs, &value);
            }
            answer(&(), vec![pairs.freeze()])
        }
        Call::TableWrite => {
            holder.tables().write(wire::changes(payload).map_err(nonsense)?).await?;
            plain(&())
        }
        Call::Fetch { session } => {
            let cid = wire::cid(&payload).map_err(nonsense)?;
            let fetch = client.opened().fetches.get(&session).cloned();
            let fetch = fetch.ok_or_else(|| Failure::refused(ErrorKind::Usage, "no such fetch session"))?;
            let (_, data) = fetch.fetch(&cid).await?.into_parts();
            answer(&(fetch.peers(), fetch.gateways()), vec![data])
        }
        call => store(client, id, call, payload).await,
    }
}

/// Calls to the block store.
async fn store(client: &Client, id: u64, call: Call, payload: Bytes) -> Answered {
    let blocks = client.holder.blocks();
    match call {
        Call::Has => {
            let held = blocks.has(&wire::cids(payload).map_err(nonsense)?).await?;
            answer(&(), vec![held.into_iter().map(u8::from).collect()])
        }
        Call::Sizes => plain(&blocks.sizes(&wire::cids(payload).map_err(nonsense)?).await?),
        Call::Get => match blocks.get(&wire::cid(&payload).map_err(nonsense)?).await? {
            Some(data) => answer(&true, vec![data]),
            None => plain(&false),
        },
        Call::Begin { lease } => {
            let session = blocks.begin(lease).await?;
            let mut opened = client.opened();
            // Cancelled in this moment: the session ends here.
            if opened.credits.contains_key(&id) {
                opened.sessions.insert(id, Arc::from(session));
            }
            plain(&())
        }
        Call::Put { session } => {
            let added = verified(payload).await?;
            let session = find(client, session)?;
            plain(&session.put(added).await?)
        }
        Call::Hold { session } => {
            let cids = wire::cids(payload).map_err(nonsense)?;
            let session = find(client, session)?;
            let held = session.hold(&cids).await?;
            answer(&(), vec![held.into_iter().map(u8::from).collect()])
        }
        Call::Commit { session } => {
            let session = find(client, session)?;
            session.commit().await?;
            plain(&())
        }
        Call::Abort { session } => {
            find(client, session)?.abort().await?;
            plain(&())
        }
        Call::Usage => plain(&blocks.usage().await?),
        Call::Weigh { keep_leases } => plain(&blocks.weigh(&live(payload)?, keep_leases).await?),
        Call::Doom { keep_leases } => plain(&blocks.doom(&live(payload)?, keep_leases).await?),
        Call::RemoveDoomed => plain(&blocks.remove_doomed().await?),
        Call::SpareDoomed => {
            blocks.spare_doomed().await?;
            plain(&())
        }
        Call::CheckStore { read_data } => {
            let report = blocks.check(read_data).await?;
            plain(&Report {
                blocks: report.blocks,
                bytes_read: report.bytes_read,
                damaged: report.damaged.iter().map(ToString::to_string).collect(),
                problems: report.problems,
            })
        }
        _ => Err(Failure::refused(ErrorKind::Usage, "a call that is served elsewhere")),
    }
}

/// What a sweep is to keep.
fn live(payload: Bytes) -> Result<Live, Failure> {
    let mut live = Live::default();
    for hash in wire::fields(payload).map_err(nonsense)? {
        let hash = Multihash::from_bytes(&hash);
        let hash = hash.map_err(|error| Failure::refused(ErrorKind::Usage, error.to_string()))?;
        live.insert(&Cid::new_v1(RAW, hash));
    }
    Ok(live)
}

fn find(client: &Client, session: u64) -> Result<Arc<dyn StoreSession>, Failure> {
    let session = client.opened().sessions.get(&session).cloned();
    session.ok_or_else(|| Failure::refused(ErrorKind::Usage, "no such store session"))
}

/// The blocks of a payload. A client is not a stranger, but what makes a block is that somebody here checked it.
async fn verified(payload: Bytes) -> Result<Vec<Block>, Failure> {
    let pairs = wire::pairs(payload).map_err(nonsense)?;
    let check = move || {
        let block = |(cid, data): (Bytes, Bytes)| {
            let cid = wire::cid(&cid).map_err(nonsense)?;
            // The fields share one large allocation; a store that keeps them in memory must not keep that.
            let data = Bytes::copy_from_slice(&data);
            Block::verify(cid, data).map_err(|source| Failure::from(StoreError::Refused { cid, source }))
        };
        pairs.into_iter().map(block).collect()
    };
    let checked = tokio::task::spawn_blocking(check).await;
    checked.unwrap_or_else(|_| Err(Failure::refused(ErrorKind::Interrupted, "the holder is shutting down")))
}

/// Runs work and passes its events on; all that were told before its end arrive before its answer.
async fn watch<T, F, Fut>(client: &Client, id: u64, watched: bool, work: F) -> T
where
    F: FnOnce(Emitter) -> Fut,
    Fut: Future<Output = T>,
{
    if !watched {
        return work(Emitter::silent()).await;
    }
    let (events, mut watcher) = Emitter::watched();
    let mut work = std::pin::pin!(work(events));
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            Some(event) = watcher.recv() => tell(client, id, &event).await,
        }
    };
    while let Ok(event) = watcher.try_recv() {
        tell(client, id, &event).await;
    }
    outcome
}

/// Sends an event once the client has paid for an earlier one; leaves an ephemeral one out until then.
async fn tell(client: &Client, id: u64, event: &Event) {
    let credit = client.opened().credits.get(&id).cloned();
    let Some(credit) = credit else { return };
    let permit = if event.is_ephemeral() { credit.try_acquire().ok() } else { credit.acquire().await.ok() };
    let Some(permit) = permit else { return };
    permit.forget();
    let _ = client.outgoing.send(Frame::new(Kind::Event, id, event, Vec::new())).await;
}

/// Opens a fetch session and keeps it, passing its events on, until the client cancels the call.
async fn fetch_session(client: &Arc<Client>, id: u64, request: FetchRequest, watcher: Option<mpsc::Receiver<Event>>) {
    let session = match client.holder.exchange().open(request).await {
        Ok(session) => session,
        Err(error) => return finish(client, id, Err(error.into())).await,
    };
    let _close = Close { client, id };
    {
        let mut opened = client.opened();
        // Cancelled in this moment: the session ends here.
        if !opened.credits.contains_key(&id) {
            return;
        }
        opened.fetches.insert(id, session);
    }
    let opened = Frame::new(Kind::Done, id, &(), Vec::new());
    if client.outgoing.send(opened).await.is_err() {
        return;
    }
    if let Some(mut watcher) = watcher {
        while let Some(event) = watcher.recv().await {
            tell(client, id, &event).await;
        }
    }
    std::future::pending::<()>().await;
}

/// Drops a fetch session with the call that opened it.
struct Close<'c> {
    client: &'c Client,
    id: u64,
}

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut opened = self.client.opened();
        opened.credits.remove(&self.id);
        let session = opened.fetches.remove(&self.id);
        drop(opened);
        drop(session);
    }
}
