//! What goes over a home's socket.
//!
//! Frames in both directions: `length:u32 kind:u8 id:u64 header-length:u32 header payload`, big-endian; `length` counts
//! header and payload, the header is JSON. Each side begins with [`Kind::Hello`]. A client makes any number of calls at
//! once, each with an id of its own; the holder answers each with events, if the call asked for them, and then
//! [`Kind::Done`] or [`Kind::Failed`]. [`Kind::Cancel`] ends a call, or the session that it opened. Events are paid for
//! with [`Kind::Credit`], so that a slow watcher holds back its own operation and nothing else.

use std::collections::BTreeMap;
use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use cid::Cid;
use multiaddr::Multiaddr;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::holder::{ChangeRequest, RepairRequest, ResolveRequest};
use super::options::GcOptions;
use crate::dag::block::Block;
use crate::limits;
use crate::port::table::{Change, Space};

pub(crate) mod failure;

/// Changed whenever the meaning of anything here, or of a type that travels, changes.
pub(crate) const PROTOCOL: u32 = 6;
/// Events of one call that may be under way without having been paid for.
pub(crate) const EVENT_CREDIT: usize = 256;
/// Frames that wait to be written.
pub(crate) const QUEUED_FRAMES: usize = 64;
/// Bytes of length, kind, id and header length.
const HEAD: usize = 17;
/// Bytes that are allocated before they have arrived.
const AHEAD: usize = 1 << 20;

/// Who speaks, first frame of each side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// Of a holder: what it was opened with.
    pub(crate) settings: BTreeMap<String, String>,
}

impl Hello {
    pub(crate) fn own(settings: BTreeMap<String, String>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { protocol: PROTOCOL, version, pid: std::process::id(), settings }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A [`Hello`].
    Hello,
    /// A [`Call`] begins.
    Call,
    /// The client does not want a call, or what it opened, any more.
    Cancel,
    /// The client has dealt with as many events as the header says.
    Credit,
    /// An event of a call.
    Event,
    /// A call's result.
    Done,
    /// A call's [`failure::Failure`].
    Failed,
}

impl Kind {
    const ALL: [Self; 7] = [Self::Hello, Self::Call, Self::Cancel, Self::Credit, Self::Event, Self::Done, Self::Failed];

    fn code(self) -> u8 {
        Self::ALL.iter().position(|kind| *kind == self).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) header: Bytes,
    /// Written one after the other; read as one.
    pub(crate) payload: Vec<Bytes>,
}

impl Frame {
    pub(crate) fn new(kind: Kind, id: u64, header: &impl Serialize, payload: Vec<Bytes>) -> Self {
        let header = serde_json::to_vec(header).expect("what travels has string keys only");
        Self { kind, id, header: header.into(), payload }
    }

    /// The header, as what this frame has to have.
    pub(crate) fn header<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The payload in one piece.
    pub(crate) fn into_payload(mut self) -> Bytes {
        match self.payload.len() {
            0 => Bytes::new(),
            1 => self.payload.remove(0),
            _ => self.payload.concat().into(),
        }
    }

    /// Header and payload, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.header.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether it is larger than what the other side reads: writing it would end the connection, and all calls with it.
    pub(crate) fn is_too_large(&self) -> bool {
        self.len() > limits::CONTROL_FRAME_BYTES
    }
}

/// Reads one frame; `None` when the other side has ended between two.
pub(crate) async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD];
    match reader.read_exact(&mut head[..1]).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome.map(drop)?,
    }
    reader.read_exact(&mut head[1..]).await?;
    let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
    let (len, header_len) = (number(0), number(13));
    let id = u64::from_be_bytes(head[5..13].try_into().expect("eight bytes"));
    let refuse = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let kind = Kind::of(head[4]).ok_or_else(|| refuse("a frame of an unknown kind"))?;
    if len > limits::CONTROL_FRAME_BYTES || header_len > len {
        return Err(refuse("a frame of an impossible length"));
    }
    let mut data = Vec::with_capacity(len.min(AHEAD));
    reader.take(len as u64).read_to_end(&mut data).await?;
    if data.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut payload = Bytes::from(data);
    let header = payload.split_to(header_len);
    let payload = if payload.is_empty() { Vec::new() } else { vec![payload] };
    Ok(Some(Frame { kind, id, header, payload }))
}

/// Writes one frame, without flushing.
pub(crate) async fn write<W: AsyncWrite + Unpin>(writer: &mut W, frame: &Frame) -> io::Result<()> {
    let len = frame.len();
    if frame.is_too_large() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame that is too large"));
    }
    let number = |len: usize| u32::try_from(len).expect("bounded above");
    let mut head = BytesMut::with_capacity(HEAD + frame.header.len());
    head.put_u32(number(len));
    head.put_u8(frame.kind.code());
    head.put_u64(frame.id);
    head.put_u32(number(frame.header.len()));
    head.put_slice(&frame.header);
    writer.write_all(&head).await?;
    for part in &frame.payload {
        writer.write_all(part).await?;
    }
    Ok(())
}

/// What a client asks for. Where nothing is said, the payload is empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub(crate) enum Call {
    /// Payload: CIDs. Answer: a byte each, 1 for held.
    Has,
    /// Payload: CIDs. Answer: a size each, or nothing.
    Sizes,
    /// Payload: a CID. Answer: whether it is held, and the bytes.
    Get,
    /// Opens a store session under the id of the call.
    Begin {
        lease: std::time::Duration,
    },
    /// Payload: CIDs and bytes by turns. Answer: [`crate::port::blocks::Put`].
    Put {
        session: u64,
    },
    /// Like [`Call::Has`].
    Hold {
        session: u64,
    },
    Commit {
        session: u64,
    },
    Abort {
        session: u64,
    },
    /// Answer: [`crate::port::blocks::Usage`].
    Usage,
    /// Payload: multihashes. Answer: [`crate::port::blocks::Swept`].
    Weigh {
        keep_leases: bool,
    },
    /// Payload: multihashes. Answer: [`crate::port::blocks::Swept`].
    Doom {
        keep_leases: bool,
    },
    /// Answer: [`crate::port::blocks::Swept`].
    RemoveDoomed,
    SpareDoomed,
    /// Answer: [`Report`].
    CheckStore {
        read_data: bool,
    },
    /// Payload: a key. Answer: whether there is a value, and it.
    TableGet {
        space: Space,
    },
    /// Payload: a prefix. Answer: keys and values by turns.
    TableScan {
        space: Space,
    },
    /// Payload: changes.
    TableWrite,
    /// Opens a fetch session under the id of the call. Events go on until it is cancelled.
    Open {
        #[serde(with = "crate::dag::text::cid")]
        root: Cid,
        hints: Vec<Multiaddr>,
        stall: std::time::Duration,
        share: bool,
        watched: bool,
    },
    /// Payload: a CID. Answer: the session's peers, and the bytes.
    Fetch {
        session: u64,
    },
    Identity,
    Resolve {
        request: ResolveRequest,
        watched: bool,
    },
    Change {
        request: Box<ChangeRequest>,
        watched: bool,
    },
    TrustList,
    TrustAdd {
        domain: String,
        key: String,
    },
    TrustRemove {
        domain: String,
    },
    Trim,
    Collect {
        options: GcOptions,
    },
    Check {
        read_data: bool,
    },
    Repair {
        request: RepairRequest,
        watched: bool,
    },
    /// Answer: [`crate::registry::outcome::UsageOutcome`].
    HomeUsage,
    Activity,
    StartNode,
}

/// A [`crate::port::blocks::StoreReport`] that travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) blocks: u64,
    pub(crate) bytes_read: u64,
    pub(crate) damaged: Vec<String>,
    pub(crate) problems: Vec<String>,
}

/// Adds a field: its length and its bytes.
pub(crate) fn put_field(out: &mut BytesMut, field: &[u8]) {
    out.put_u32(u32::try_from(field.len()).unwrap_or(u32::MAX));
    out.put_slice(field);
}

/// Takes a payload apart into its fields.
pub(crate) fn fields(mut payload: Bytes) -> io::Result<Vec<Bytes>> {
    let refuse = || io::Error::new(io::ErrorKind::InvalidData, "a payload that ends within a field");
    let mut fields = Vec::new();
    while !payload.is_empty() {
        if payload.len() < 4 {
            return Err(refuse());
        }
        let head = payload.split_to(4);
        let len = u32::from_be_bytes(head[..].try_into().expect("four bytes")) as usize;
        if payload.len() < len {
            return Err(refuse());
        }
        fields.push(payload.split_to(len));
    }
    Ok(fields)
}

/// CIDs as a payload.
pub(crate) fn put_cids(cids: &[Cid]) -> Vec<Bytes> {
    let mut out = BytesMut::new();
    for cid in cids {
        put_field(&mut out, &cid.to_bytes());
    }
    vec![out.freeze()]
}

pub(crate) fn cid(field: &[u8]) -> io::Result<Cid> {
    Cid::try_from(field).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(crate) fn cids(payload: Bytes) -> io::Result<Vec<Cid>> {
    fields(payload)?.iter().map(|field| cid(field)).collect()
}

/// Blocks as a payload, their bytes shared.
pub(crate) fn put_blocks(blocks: &[Block]) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(2 * blocks.len());
    for block in blocks {
        let mut head = BytesMut::new();
        put_field(&mut head, &block.cid().to_bytes());
        head.put_u32(u32::try_from(block.data().len()).unwrap_or(u32::MAX));
        parts.push(head.freeze());
        parts.push(block.data().clone());
    }
    parts
}

/// Pairs of fields.
pub(crate) fn pairs(payload: Bytes) -> io::Result<Vec<(Bytes, Bytes)>> {
    let fields = fields(payload)?;
    if fields.len() % 2 == 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a payload with half a pair"));
    }
    Ok(fields.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

pub(crate) fn put_changes(batch: &[Change]) -> Vec<Bytes> {
    let mut out = BytesMut::new();
    for change in batch {
        let (code, space, key, value) = match change {
            Change::Put(space, key, value) => (1, space, key, value.as_slice()),
            Change::Delete(space, key) => (0, space, key, &[][..]),
        };
        let mut what = vec![code];
        what.extend_from_slice(space.name().as_bytes());
        put_field(&mut out, &what);
        put_field(&mut out, key);
        put_field(&mut out, value);
    }
    vec![out.freeze()]
}

pub(crate) fn changes(payload: Bytes) -> io::Result<Vec<Change>> {
    let refuse = || io::Error::new(io::ErrorKind::InvalidData, "a change that is none");
    let change = |fields: &[Bytes]| {
        let [what, key, value] = fields else { return Err(refuse()) };
        let (code, name) = what.split_first().ok_or_else(refuse)?;
        let space = Space::ALL.into_iter().find(|space| space.name().as_bytes() == name).ok_or_else(refuse)?;
        match code {
            1 => Ok(Change::Put(space, key.to_vec(), value.to_vec())),
            0 => Ok(Change::Delete(space, key.to_vec())),
            _ => Err(refuse()),
        }
    };
    fields(payload)?.chunks(3).map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_and_bad_ones_do_not() {
        let call = Call::Put { session: 7 };
        let parts = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let frame = Frame::new(Kind::Call, 9, &call, parts);
        let mut bytes = Vec::new();
        write(&mut bytes, &frame).await.unwrap();
        write(&mut bytes, &Frame::new(Kind::Cancel, 10, &(), Vec::new())).await.unwrap();
        let mut reader = &bytes[..];
        let back = read(&mut reader).await.unwrap().unwrap();
        assert_eq!((back.kind, back.id), (Kind::Call, 9));
        assert!(matches!(back.header().unwrap(), Call::Put { session: 7 }));
        assert_eq!(back.into_payload(), &b"abc"[..]);
        assert_eq!(read(&mut reader).await.unwrap().unwrap().kind, Kind::Cancel);
        assert!(read(&mut reader).await.unwrap().is_none());
        for cut in 1..frame.len() + HEAD {
            assert!(read(&mut &bytes[..cut]).await.is_err(), "cut at {cut}");
        }
        for (at, value) in [(0, 0x7f), (4, 99), (13, 1)] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert_eq!(read(&mut &bad[..]).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
    }

    #[test]
    fn payloads_come_back_and_bad_ones_do_not() {
        let batch = vec![
            Change::Put(Space::Pins, b"key".to_vec(), vec![]),
            Change::Delete(Space::Trust, vec![]),
            Change::Put(Space::Layers, vec![], vec![0; 70_000]),
        ];
        let payload = put_changes(&batch).concat();
        assert_eq!(changes(payload.clone().into()).unwrap(), batch);
        assert!(changes(payload[..payload.len() - 1].to_vec().into()).is_err());
        let blocks = [Block::raw(Bytes::from_static(b"one")), Block::raw(Bytes::new())];
        let all = *blocks[0].cid();
        let read = pairs(put_blocks(&blocks).concat().into()).unwrap();
        assert_eq!(cid(&read[0].0).unwrap(), all);
        assert_eq!((&read[0].1[..], &read[1].1[..]), (&b"one"[..], &b""[..]));
        assert_eq!(cids(put_cids(&[all]).concat().into()).unwrap(), [all]);
        assert!(pairs(put_cids(&[all]).concat().into()).is_err());
    }
}
