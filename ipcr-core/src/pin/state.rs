//! What a home knows of its own registry, durably: the root, what was published, edits not published yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::kind::ErrorKind;
use crate::port::table::{Change, Space, Table, TableError};
use crate::reference::{IpnsName, Tag};
use crate::tree::edit::Edit;

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
    /// Edits made since a record was last accepted by others, oldest first.
    pub pending: Vec<Pending>,
    /// Whether it took over a root of another home: then not all of it is stored here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Roots that were published and that this home's root comes from, by sequence, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Step>,
}

/// A record that this home signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The root that it names.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// Its sequence.
    pub sequence: u64,
    /// Whether at least one other party accepted it.
    pub accepted: bool,
}

/// An edit, and what it was made upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The edit.
    #[serde(flatten)]
    pub edit: Edit,
    /// What the tag that it changes named before, if it changes one that named anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
    /// What the tags of an image named that is removed as a whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Tag, Digest>,
}

impl Pending {
    /// An edit made upon nothing that it could conflict with.
    pub fn new(edit: Edit) -> Self {
        Self { edit, before: None, tags: BTreeMap::new() }
    }
}

/// A published root that is part of this home's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The sequence of its record.
    pub sequence: u64,
    /// The root.
    #[serde(with = "crate::dag::text::cid")]
    pub root: Cid,
    /// The edits of this home that this record was the first to hold. Another home that signs the same or a higher sequence may
    /// not have seen them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Pending>,
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
            let Published { root, sequence, .. } = *published;
            state.history.push(Step { sequence, root, edits: Vec::new() });
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

    /// The edits of this home that a foreign record of this sequence may lack, oldest first, and that are to be made again.
    pub fn unseen_by(&self, sequence: u64) -> Vec<Pending> {
        let published = self.history.iter().filter(|step| step.sequence >= sequence);
        published.flat_map(|step| &step.edits).chain(&self.pending).cloned().collect()
    }

    /// Notes that the root comes from published ones, by their sequences, and that edits since a sequence were made again upon it.
    pub fn merged(
        &mut self,
        since: u64,
        theirs: impl IntoIterator<Item = (u64, Cid)>,
        merged: Cid,
        edits: Vec<Pending>,
    ) {
        for step in self.history.iter_mut().filter(|step| step.sequence >= since) {
            step.edits.clear();
        }
        for (sequence, root) in theirs {
            self.note(sequence, root, Vec::new());
        }
        self.root = Some(merged);
        self.shared = true;
        self.pending = edits;
    }

    /// Notes a record that this home signed.
    pub fn signed(&mut self, sequence: u64, root: Cid) {
        self.published = Some(Published { root, sequence, accepted: false });
        self.note(sequence, root, Vec::new());
    }

    /// Notes that others have accepted the last record.
    pub fn accepted(&mut self) {
        let Some(published) = &mut self.published else { return };
        published.accepted = true;
        let (sequence, root) = (published.sequence, published.root);
        let edits = std::mem::take(&mut self.pending);
        self.note(sequence, root, edits);
    }

    fn note(&mut self, sequence: u64, root: Cid, edits: Vec<Pending>) {
        match self.history.iter_mut().find(|step| step.sequence == sequence && step.root == root) {
            Some(step) => step.edits.extend(edits),
            None => {
                let at = self.history.partition_point(|step| step.sequence <= sequence);
                self.history.insert(at, Step { sequence, root, edits });
            }
        }
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }

    /// The change that writes it.
    pub fn change(&self) -> Change {
        let bytes = serde_json::to_vec(self).expect("the state is plain data");
        Change::Put(Space::Registry, KEY.to_vec(), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(number: u8) -> Cid {
        *crate::dag::block::Block::raw(vec![number].into()).cid()
    }

    fn removal(tag: &str) -> Pending {
        let (image, tag) = ("app".parse().unwrap(), tag.parse().unwrap());
        Pending { before: Some(Digest::sha256(b"before")), ..Pending::new(Edit::RemoveTag { image, tag }) }
    }

    #[test]
    fn what_is_foreign_and_what_it_lacks() {
        let mut state = State::default();
        assert!(state.is_foreign(1, Some(root(1))));
        state.pending = vec![removal("a")];
        state.signed(5, root(5));
        state.accepted();
        state.pending = vec![removal("b")];
        state.signed(6, root(6));
        state.accepted();
        state.pending = vec![removal("c")];
        assert!(!state.is_foreign(5, Some(root(5))) && !state.is_foreign(6, Some(root(6))));
        // Another home has signed the same sequence, a higher one, one from before everything that is known here.
        assert!(state.is_foreign(6, Some(root(7))) && state.is_foreign(9, Some(root(7))) && state.is_foreign(9, None));
        assert!(!state.is_foreign(4, Some(root(7))));
        assert_eq!(state.unseen_by(6), [removal("b"), removal("c")]);
        assert_eq!(state.unseen_by(7), [removal("c")]);
        state.merged(6, [(6, root(7))], root(8), state.unseen_by(6));
        assert_eq!((state.root, state.pending.len(), state.unseen_by(6).len()), (Some(root(8)), 2, 2));
        assert!(!state.is_foreign(6, Some(root(7))));
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
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
