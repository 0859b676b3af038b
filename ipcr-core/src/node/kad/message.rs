//! The messages of the Kademlia DHT, without any I/O.
//!
//! Source: libp2p specification, "Kademlia DHT", "RPC messages".

use multiaddr::Multiaddr;

use crate::dag::protobuf::{Fields, Malformed, put_bytes, put_number};
use libp2p_identity::PeerId;

/// Most peers of one list that are read.
const PEERS: usize = 64;
/// Most addresses of one peer that are read.
const ADDRESSES: usize = 32;

/// What a message is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Store a record; the answer repeats the question.
    #[default]
    PutValue,
    /// Ask for a record.
    GetValue,
    /// Say who provides a key; has no answer.
    AddProvider,
    /// Ask who provides a key.
    GetProviders,
    /// Ask who is close to a key.
    FindNode,
}

const KINDS: [Kind; 5] = [Kind::PutValue, Kind::GetValue, Kind::AddProvider, Kind::GetProviders, Kind::FindNode];

/// A question or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) key: Vec<u8>,
    /// Key and value of the record, if there is one.
    pub(super) record: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) closer: Vec<Contact>,
    pub(super) providers: Vec<Contact>,
}

/// A peer and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Contact {
    pub(in crate::node) peer: PeerId,
    pub(in crate::node) addresses: Vec<Multiaddr>,
}

impl Message {
    pub(in crate::node) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = KINDS.iter().position(|kind| *kind == self.kind).expect("all kinds are listed");
        put_number(&mut out, 1, kind as u64);
        put_bytes(&mut out, 2, &self.key);
        if let Some((key, value)) = &self.record {
            let mut record = Vec::with_capacity(key.len() + value.len() + 8);
            put_bytes(&mut record, 1, key);
            put_bytes(&mut record, 2, value);
            put_bytes(&mut out, 3, &record);
        }
        for (field, contacts) in [(8, &self.closer), (9, &self.providers)] {
            for contact in contacts {
                put_bytes(&mut out, field, &contact.encode());
            }
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut message = Self::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => {
                    let kind = usize::try_from(value.number()?).ok();
                    message.kind = *kind.and_then(|kind| KINDS.get(kind)).ok_or(Malformed::Wrong)?;
                }
                (2, value) => message.key = value.bytes()?.to_vec(),
                (3, value) => {
                    let (mut key, mut data) = (Vec::new(), Vec::new());
                    for field in Fields::of(value.bytes()?) {
                        match field? {
                            (1, value) => key = value.bytes()?.to_vec(),
                            (2, value) => data = value.bytes()?.to_vec(),
                            _ => {}
                        }
                    }
                    message.record = Some((key, data));
                }
                (8, value) => push(&mut message.closer, value.bytes()?)?,
                (9, value) => push(&mut message.providers, value.bytes()?)?,
                _ => {}
            }
        }
        Ok(message)
    }
}

/// Adds a contact; one whose peer id cannot be read is left out.
fn push(list: &mut Vec<Contact>, bytes: &[u8]) -> Result<(), Malformed> {
    if let Some(contact) = Contact::decode(bytes)?
        && list.len() < PEERS
    {
        list.push(contact);
    }
    Ok(())
}

impl Contact {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &self.peer.to_bytes());
        for address in &self.addresses {
            put_bytes(&mut out, 2, address.as_ref());
        }
        // "Connected", so that the receiver does not leave it out as unknown.
        put_number(&mut out, 3, 1);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let (mut peer, mut addresses) = (None, Vec::new());
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => peer = PeerId::from_bytes(value.bytes()?).ok(),
                (2, value) if addresses.len() < ADDRESSES => {
                    addresses.extend(Multiaddr::try_from(value.bytes()?.to_vec()));
                }
                _ => {}
            }
        }
        Ok(peer.map(|peer| Self { peer, addresses }))
    }
}

/// For `fuzzing`: a message comes back.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(Message::decode(&message.encode()), Ok(message), "a message comes back");
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_is_encoded_as_the_specification_says() {
        let message = Message { kind: Kind::GetValue, key: b"/ipns/x".to_vec(), ..Message::default() };
        assert_eq!(message.encode(), b"\x08\x01\x12\x07/ipns/x");
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn contacts_come_back_and_bad_ones_are_left_out() {
        let contact = Contact { peer: PeerId::random(), addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()] };
        let message = Message {
            kind: Kind::GetProviders,
            record: Some((b"k".to_vec(), b"v".to_vec())),
            closer: vec![contact.clone()],
            providers: vec![contact],
            ..Message::default()
        };
        let mut bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Ok(message.clone()));
        put_bytes(&mut bytes, 8, b"\x0a\x01x");
        assert_eq!(Message::decode(&bytes), Ok(message));
        assert!(Message::decode(&[0x08, 9]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_or_are_refused(bytes in vec(any::<u8>(), 0..300)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }
}
