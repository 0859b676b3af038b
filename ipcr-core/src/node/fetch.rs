//! `/libp2p/fetch/0.0.1`: one record by its binary key, straight from a peer.
//!
//! Source: libp2p specification, "fetch". The identifier is the routing key of an IPNS name (`/ipns/` and the binary
//! multihash), as in go-libp2p.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::AsyncWriteExt as _;
use ipcr_swarm::{Hub, OpenError, Stream, StreamProtocol};
use libp2p_identity::PeerId;
use tokio::time::timeout;

use super::frame;
use crate::dag::protobuf::{Fields, Malformed, put_bytes, put_number};
use crate::limits;
use crate::port::records::RecordShelf;

/// The protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/fetch/0.0.1");

/// Longest question, in bytes.
const REQUEST_BYTES: usize = 1024;
/// Longest answer: a record and its envelope, in bytes.
const ANSWER_BYTES: usize = limits::IPNS_RECORD_BYTES + 64;
/// How long a question may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The answer's status when the peer has the record; 1 is "not found", 2 an error.
const OK: u64 = 0;
const NOT_FOUND: u64 = 1;

/// Why a peer gave no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no stream: {0}")]
    Open(#[from] OpenError),
    #[error("the exchange failed: {0}")]
    Broken(#[from] io::Error),
}

/// Asks a connected peer for the record of a key.
pub(super) async fn ask(hub: &Hub, peer: &PeerId, key: &[u8]) -> Result<Option<Bytes>, FetchError> {
    let asking = async {
        let mut stream = hub.open(peer, &PROTOCOL).await?;
        let mut question = Vec::with_capacity(key.len() + 4);
        put_bytes(&mut question, 1, key);
        frame::write(&mut stream, &[&question]).await?;
        let answer = frame::read(&mut stream, ANSWER_BYTES).await?;
        let _ = stream.close().await;
        Ok(match answer {
            Some(answer) => read_answer(answer.into()).map_err(io::Error::other)?,
            None => None,
        })
    };
    timeout(ANSWER, asking).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Answers one question.
pub(super) async fn answer(mut stream: Stream, shelf: Arc<dyn RecordShelf>) -> io::Result<()> {
    let answering = async {
        let Some(question) = frame::read(&mut stream, REQUEST_BYTES).await? else { return Ok(()) };
        let mut key = &[][..];
        for field in Fields::of(&question) {
            if let (1, value) = field.map_err(io::Error::other)? {
                key = value.bytes().map_err(io::Error::other)?;
            }
        }
        let record = if key.starts_with(b"/ipns/") { shelf.record(key).await } else { None };
        frame::write(&mut stream, &[&write_answer(record.as_deref())]).await?;
        stream.close().await
    };
    timeout(ANSWER, answering).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn write_answer(record: Option<&[u8]>) -> Vec<u8> {
    let mut answer = Vec::new();
    match record {
        Some(record) => {
            put_number(&mut answer, 1, OK);
            put_bytes(&mut answer, 2, record);
        }
        None => put_number(&mut answer, 1, NOT_FOUND),
    }
    answer
}

fn read_answer(answer: Bytes) -> Result<Option<Bytes>, Malformed> {
    let (mut status, mut data) = (OK, Bytes::new());
    for field in Fields::of(&answer) {
        match field? {
            (1, value) => status = value.number()?,
            (2, value) => data = answer.slice_ref(value.bytes()?),
            _ => {}
        }
    }
    Ok((status == OK && !data.is_empty() && data.len() <= limits::IPNS_RECORD_BYTES).then_some(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back() {
        assert_eq!(read_answer(write_answer(Some(b"record")).into()), Ok(Some(Bytes::from_static(b"record"))));
        assert_eq!(read_answer(write_answer(None).into()), Ok(None));
        // go-libp2p leaves the status out when it is zero.
        assert_eq!(read_answer(Bytes::from_static(b"\x12\x01x")), Ok(Some(Bytes::from_static(b"x"))));
        let large = vec![1; limits::IPNS_RECORD_BYTES + 1];
        assert_eq!(read_answer(write_answer(Some(&large)).into()), Ok(None));
        assert!(read_answer(Bytes::from_static(b"\x12\x09x")).is_err());
    }
}
