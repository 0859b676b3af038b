//! What a home knows of its own registry, durably: the root, what was published, how many changes it made of it.

use std::sync::Arc;

use cid::Cid;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::port::table::{Change, Space, Table, TableError};
use crate::reference::IpnsName;

/// The key of the state in [`Space::Registry`].
const KEY: &[u8] = b"state";
/// Roots that are remembered as known. A record of another home that is older than all of them was merged long ago.
const HISTORY: usize = 16;

/// The state. It is written whole, so that it is always the old or the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The registry's root; none before anything was ever tagged here.
    #[serde(with = "crate::dag::text::optional_cid")]
    pub root: Option<Cid>,
    /// The key that the records below are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<IpnsName>,
    /// The last record that this home signed.
    pub published: Option<Published>,
    /// Whether it took over a root of another home: then not all of it is stored here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Whether the key came from another home, and nothing of what that may have published was seen yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
    /// Roots that were published and that this home's root comes from, by sequence, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Step>,
    /// What this home is called among those with its key; empty before its first change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub home: String,
    /// The number of the first [change](super::changes) made under that name; 0 before there is one.
    #[serde(default)]
    pub first: u64,
    /// The number of the last one.
    #[serde(default)]
    pub change: u64,
}

/// A record that this home signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The root that it names.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// Its sequence.
    pub sequence: u64,
}

/// A published root that is part of this home's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The sequence of its record.
    pub sequence: u64,
    /// The root.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// The last change of this home that others are known to have seen with it; 0: of none it is known.
    #[serde(default)]
    pub change: u64,
}

impl State {
    /// Reads it.
    pub async fn load(tables: &Arc<dyn Table>) -> Result<Self, TableError> {
        let Some(bytes) = tables.get(Space::Registry, KEY).await? else { return Ok(Self::default()) };
        let mut state: Self = serde_json::from_slice(&bytes).map_err(|source| TableError {
            place: Space::Registry.name().into(),
            doing: "reading",
            kind: ErrorKind::Integrity,
            source: Box::new(source),
        })?;
        if let (true, Some(published)) = (state.history.is_empty(), &state.published) {
            let Published { root, sequence } = *published;
            state.history.push(Step { sequence, root, change: 0 });
        }
        Ok(state)
    }

    /// The same for the records of `key`: those of a key before it do not count.
    #[must_use]
    pub fn of(mut self, key: IpnsName) -> Self {
        if self.key.is_some_and(|before| before != key) {
            self.published = None;
            self.history.clear();
        }
        self.key = Some(key);
        self
    }

    /// Whether a published record has a root that this home's root does not come from. `None` is a value that is no root.
    pub fn is_foreign(&self, sequence: u64, root: Option<Cid>) -> bool {
        let known = self.history.iter().any(|step| Some(step.root) == root);
        !known && self.history.first().is_none_or(|oldest| sequence >= oldest.sequence)
    }

    /// The name that this home has, or one that no other has.
    pub fn name(&self) -> String {
        match self.home.as_str() {
            "" => fresh_name(),
            name => name.to_owned(),
        }
    }

    /// Notes a change made under a name, with the number after the last one's.
    pub fn changed(&mut self, home: String) {
        self.change += 1;
        if self.home != home {
            (self.home, self.first) = (home, self.change);
        }
    }

    /// Takes another name, because a copy of this home goes by its present one; changes from `first` on are made under it.
    pub fn rename(&mut self, first: u64) {
        (self.home, self.first) = (fresh_name(), first);
    }

    /// The last change that whoever signed a record of this sequence has seen, as far as this home can tell.
    pub fn seen_by(&self, sequence: u64) -> u64 {
        self.history.iter().filter(|step| step.sequence < sequence).map(|step| step.change).max().unwrap_or_default()
    }

    /// Notes that the root comes from published ones, by their sequences.
    pub fn merged(&mut self, theirs: impl IntoIterator<Item = (u64, Cid)>, merged: Cid) {
        for (sequence, root) in theirs {
            self.note(sequence, root, 0);
        }
        self.root = Some(merged);
        self.shared = true;
        self.imported = false;
    }

    /// Notes a record that this home signed.
    pub fn signed(&mut self, sequence: u64, root: Cid) {
        self.published = Some(Published { root, sequence });
        self.imported = false;
        self.note(sequence, root, 0);
    }

    /// Notes that others have accepted the last record.
    pub fn accepted(&mut self) {
        let Some(Published { sequence, root }) = self.published else { return };
        self.note(sequence, root, self.change);
    }

    fn note(&mut self, sequence: u64, root: Cid, change: u64) {
        match self.history.iter_mut().find(|step| step.sequence == sequence && step.root == root) {
            Some(step) => step.change = step.change.max(change),
            None => {
                let at = self.history.partition_point(|step| step.sequence <= sequence);
                self.history.insert(at, Step { sequence, root, change });
            }
        }
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }

    /// The change that writes it.
    pub fn write(&self) -> Change {
        let bytes = serde_json::to_vec(self).expect("the state is plain data");
        Change::Put(Space::Registry, KEY.to_vec(), bytes)
    }
}

/// A name for a home that no other has: 16 hexadecimal digits.
fn fresh_name() -> String {
    hex::encode(&Digest::sha256(&PeerId::random().to_bytes()).as_bytes()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(number: u8) -> Cid {
        *crate::dag::block::Block::raw(vec![number].into()).cid()
    }

    #[test]
    fn what_is_foreign_and_what_it_lacks() {
        let mut state = State::default();
        assert!(state.is_foreign(1, Some(root(1))));
        for sequence in [5, 6] {
            state.changed(state.name());
            state.signed(sequence.into(), root(sequence));
            state.accepted();
        }
        state.changed(state.name());
        assert!(!state.is_foreign(5, Some(root(5))) && !state.is_foreign(6, Some(root(6))));
        // Another home has signed the same sequence, a higher one, one from before everything that is known here.
        assert!(state.is_foreign(6, Some(root(7))) && state.is_foreign(9, Some(root(7))) && state.is_foreign(9, None));
        assert!(!state.is_foreign(4, Some(root(7))));
        assert_eq!([5, 6, 7, 9].map(|sequence| state.seen_by(sequence)), [0, 1, 2, 2]);
        state.merged([(6, root(7))], root(8));
        assert_eq!((state.root, state.change, state.first), (Some(root(8)), 3, 1));
        assert!(!state.is_foreign(6, Some(root(7))));
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
    }

    #[test]
    fn a_home_keeps_its_name_until_a_copy_has_it() {
        let mut state = State::default();
        state.changed(state.name());
        let name = state.home.clone();
        assert_eq!((name.len(), state.name()), (16, name.clone()));
        state.changed(state.name());
        assert_eq!((&state.home, state.first, state.change), (&name, 1, 2));
        state.rename(2);
        assert!(state.home != name && (state.first, state.change) == (2, 2));
    }

    #[test]
    fn history_is_bounded_and_belongs_to_a_key() {
        let mut state = State::default();
        for number in 0..40 {
            state.signed(number.into(), root(number));
        }
        assert_eq!((state.history.len(), state.history[0].sequence), (HISTORY, 24));
        let [one, other] = [(); 2].map(|()| crate::identity::RegistryKey::generate().name());
        let state = state.of(one);
        assert_eq!(state.history.len(), HISTORY);
        let state = state.of(other);
        assert_eq!((state.history.len(), &state.published, state.key), (0, &None, Some(other)));
    }
}
