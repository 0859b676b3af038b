//! The old key of a registry names the new one: [`Handover`] (docs/format.md, section 4a).
//!
//! A hand-over lies in the registry's tree, where the new key leads, and is worth what its signature is worth: whoever hosts
//! the tree or answers for the domain cannot make one. It has no end: a key that was handed over stays handed over.

use chrono::{DateTime, SubsecRound as _, Utc};
use multibase::Base;
use serde::{Deserialize, Serialize};

use crate::identity::RegistryKey;
use crate::limits;
use crate::reference::key::IpnsName;

/// The old key of a registry names the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The old key.
    pub from: IpnsName,
    /// The new key.
    pub to: IpnsName,
    /// When, to the second.
    pub date: DateTime<Utc>,
    /// The old key's signature over all of the above, in multibase.
    pub signature: String,
}

impl Handover {
    /// Signs a hand-over.
    pub fn sign(from: &RegistryKey, to: IpnsName, date: DateTime<Utc>) -> Self {
        let mut handover = Self { from: from.name(), to, date: date.trunc_subsecs(0), signature: String::new() };
        handover.signature = multibase::encode(Base::Base64, from.sign(&handover.message()));
        handover
    }

    /// Whether the old key has signed it. Keys that their name does not contain (RSA, ECDSA) cannot hand over.
    pub fn is_valid(&self) -> bool {
        let (Some(key), Ok((_, signature))) = (self.from.public_key(), multibase::decode(&self.signature)) else {
            return false;
        };
        key.verify(&self.message(), &signature)
    }

    fn message(&self) -> Vec<u8> {
        format!("ipcr-handover:1:{}:{}:{}", self.from, self.to, self.date.timestamp()).into_bytes()
    }
}

/// Whether valid hand-overs lead from one key to another.
pub fn leads(handovers: &[Handover], from: IpnsName, to: IpnsName) -> bool {
    let mut reached = vec![from];
    for _ in 0..limits::HANDOVERS {
        let next = handovers.iter().find(|handover| {
            reached.contains(&handover.from) && !reached.contains(&handover.to) && handover.is_valid()
        });
        match next {
            Some(handover) if handover.to == to => return true,
            Some(handover) => reached.push(handover.to),
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests;
