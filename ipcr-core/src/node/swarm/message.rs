//! The two messages of `/ipcr/swarm/1`, without any I/O.
//!
//! docs/protocols.md describes them. A message with broken protobuf structure is refused as a whole; peers and addresses that
//! cannot be read are left out, and so is what exceeds the limits.

use cid::Cid;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::dag::protobuf::{Fields, Malformed, put_bytes, put_number};
use crate::limits;
use crate::port::routing::Provider;

/// Most addresses of one peer.
pub(super) const ADDRESSES: usize = 8;
/// Longest address, in bytes.
const ADDRESS_BYTES: usize = 128;

/// Who else fetches a DAG?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The DAG's root.
    pub(super) root: Cid,
    /// Whether the one who asks fetches it too, and others may be told.
    pub(super) fetching: bool,
    /// Where the one who asks is reached, without `/p2p` at the end.
    pub(super) addresses: Vec<Multiaddr>,
    /// How many peers are enough.
    pub(super) most: usize,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Status {
    #[default]
    Ok,
    /// The one who was asked neither holds nor fetches the DAG.
    Unknown,
    /// It was asked too often.
    Busy,
}

const STATUSES: [Status; 3] = [Status::Ok, Status::Unknown, Status::Busy];

/// What the one who was asked knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// Whether it fetches the DAG itself, so that it has only a part of it.
    pub(super) fetching: bool,
    /// Who fetches it, at most [`limits::SWARM_PEERS`].
    pub(super) peers: Vec<Provider>,
}

impl Question {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &self.root.to_bytes());
        if self.fetching {
            put_number(&mut out, 2, 1);
        }
        for address in &self.addresses {
            put_bytes(&mut out, 3, address.as_ref());
        }
        put_number(&mut out, 4, self.most as u64);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut root, mut fetching, mut addresses, mut most) = (None, false, Vec::new(), limits::SWARM_PEERS);
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => root = Some(Cid::try_from(value.bytes()?).map_err(|_| Malformed::Wrong)?),
                (2, value) => fetching = value.number()? != 0,
                (3, value) => push_address(&mut addresses, value.bytes()?),
                (4, value) => most = usize::try_from(value.number()?).unwrap_or(usize::MAX).min(limits::SWARM_PEERS),
                _ => {}
            }
        }
        Ok(Self { root: root.ok_or(Malformed::Wrong)?, fetching, addresses, most })
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let status = STATUSES.iter().position(|status| *status == self.status).expect("all are listed");
        put_number(&mut out, 1, status as u64);
        if self.fetching {
            put_number(&mut out, 2, 1);
        }
        for Provider { peer, addresses } in &self.peers {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, &peer.to_bytes());
            for address in addresses {
                put_bytes(&mut entry, 2, address.as_ref());
            }
            put_bytes(&mut out, 3, &entry);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => {
                    let status = usize::try_from(value.number()?).ok();
                    answer.status = *status.and_then(|status| STATUSES.get(status)).ok_or(Malformed::Wrong)?;
                }
                (2, value) => answer.fetching = value.number()? != 0,
                (3, value) => {
                    let (mut peer, mut addresses) = (None, Vec::new());
                    for field in Fields::of(value.bytes()?) {
                        match field? {
                            (1, value) => peer = PeerId::from_bytes(value.bytes()?).ok(),
                            (2, value) => push_address(&mut addresses, value.bytes()?),
                            _ => {}
                        }
                    }
                    if let Some(peer) = peer
                        && answer.peers.len() < limits::SWARM_PEERS
                    {
                        answer.peers.push(Provider { peer, addresses });
                    }
                }
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Adds an address, unless it cannot be read or there are enough.
fn push_address(list: &mut Vec<Multiaddr>, bytes: &[u8]) {
    if list.len() < ADDRESSES && bytes.len() <= ADDRESS_BYTES {
        list.extend(Multiaddr::try_from(bytes.to_vec()));
    }
}

/// For `fuzzing`: a message comes back, whichever of the two it is read as.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    if let Ok(question) = Question::decode(bytes) {
        let encoded = question.encode();
        assert!(encoded.len() <= limits::SWARM_QUESTION_BYTES, "a question is short");
        assert_eq!(Question::decode(&encoded), Ok(question), "a question comes back");
    }
    if let Ok(answer) = Answer::decode(bytes) {
        let encoded = answer.encode();
        assert!(encoded.len() <= limits::SWARM_ANSWER_BYTES, "an answer is short");
        assert_eq!(Answer::decode(&encoded), Ok(answer), "an answer comes back");
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::dag::block::Block;

    fn root() -> Cid {
        *Block::raw("root".into()).cid()
    }

    fn address() -> Multiaddr {
        "/ip4/192.0.2.1/tcp/4001".parse().unwrap()
    }

    #[test]
    fn questions_are_encoded_as_the_page_says() {
        let question = Question { root: root(), fetching: true, addresses: vec![address()], most: 50 };
        let mut expected = vec![0x0a, 36];
        expected.extend(root().to_bytes());
        expected.extend([0x10, 1, 0x1a, 8, 4, 192, 0, 2, 1, 6, 0x0f, 0xa1, 0x20, 50]);
        assert_eq!(question.encode(), expected);
        assert_eq!(Question::decode(&expected), Ok(question));
    }

    #[test]
    fn a_question_without_a_root_is_none() {
        assert!(Question::decode(&[]).is_err());
        assert!(Question::decode(&[0x0a, 1, 7]).is_err());
    }

    #[test]
    fn answers_come_back_and_what_is_too_much_is_left_out() {
        let peer = |addresses: usize| Provider { peer: PeerId::random(), addresses: vec![address(); addresses] };
        let answer = Answer { status: Status::Ok, fetching: true, peers: vec![peer(1), peer(ADDRESSES), peer(0)] };
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer.clone()));
        let much = Answer { peers: (0..60).map(|_| peer(ADDRESSES + 3)).collect(), ..answer.clone() };
        let read = Answer::decode(&much.encode()).unwrap();
        assert_eq!(read.peers.len(), limits::SWARM_PEERS);
        assert!(read.peers.iter().all(|peer| peer.addresses.len() == ADDRESSES));
        let mut bytes = answer.encode();
        put_bytes(&mut bytes, 3, b"\x0a\x01x");
        assert_eq!(Answer::decode(&bytes), Ok(answer));
        assert!(Answer::decode(&[0x08, 9]).is_err());
    }

    #[test]
    fn the_longest_messages_are_within_their_limits() {
        let long: Multiaddr = format!("/ip4/192.0.2.1/tcp/4001/p2p/{}/p2p-circuit", PeerId::random()).parse().unwrap();
        assert!(long.as_ref().len() <= ADDRESS_BYTES);
        let peers = vec![Provider { peer: PeerId::random(), addresses: vec![long.clone(); ADDRESSES] }; 50];
        let answer = Answer { status: Status::Ok, fetching: true, peers };
        assert!(answer.encode().len() <= limits::SWARM_ANSWER_BYTES);
        let question = Question { root: root(), fetching: true, addresses: vec![long; ADDRESSES], most: 50 };
        assert!(question.encode().len() <= limits::SWARM_QUESTION_BYTES);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_or_are_refused(bytes in vec(any::<u8>(), 0..300)) {
            fuzz(&bytes);
        }
    }
}
