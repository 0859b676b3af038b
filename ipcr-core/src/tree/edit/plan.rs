//! Changes at many paths of one directory tree, made in one pass: [`Plan`].

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use cid::Cid;

use crate::dag::directory::Change;
use crate::dag::pb::Link;
use crate::tree::blocks::{self, Overlay};
use crate::tree::error::TreeError;

/// What is to be put and removed, by path.
#[derive(Debug, Default)]
pub(super) struct Plan {
    entries: BTreeMap<String, Option<Link>>,
    below: BTreeMap<String, Plan>,
}

impl Plan {
    /// Puts an entry (under the last component of `path`, whatever the link's name is) or, with `None`, removes it. The last
    /// call for a path counts.
    pub(super) fn set<'a>(&mut self, path: impl IntoIterator<Item = &'a str>, link: Option<Link>) {
        let mut components: Vec<&str> = path.into_iter().collect();
        let Some(name) = components.pop() else { return };
        let mut plan = self;
        for component in components {
            plan = plan.below.entry(component.to_owned()).or_default();
        }
        let link = link.map(|link| Link { name: name.to_owned(), ..link });
        plan.entries.insert(name.to_owned(), link);
    }

    /// Whether nothing is to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.below.is_empty()
    }

    /// Makes the changes. `None` when nothing is left in the directory; directories that become empty are removed.
    pub(super) fn apply<'a>(
        self,
        overlay: &'a Overlay<'_>,
        path: String,
        root: Option<Cid>,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Link>, TreeError>> + Send + 'a>> {
        Box::pin(async move {
            let mut changes = Vec::new();
            for (name, plan) in self.below {
                let path = format!("{path}/{name}");
                let old = match &root {
                    Some(root) => blocks::lookup(overlay, &path, root, &name).await?,
                    None => None,
                };
                changes.push(match plan.apply(overlay, path, old.map(|link| link.cid)).await? {
                    Some(link) => Change::Put(Link { name, ..link }),
                    None => Change::Remove(name),
                });
            }
            changes.extend(self.entries.into_iter().map(|(name, link)| match link {
                Some(link) => Change::Put(link),
                None => Change::Remove(name),
            }));
            let edited = overlay.edit(&path, root, changes).await?;
            let empty = crate::dag::directory::build([]).expect("nothing is wrong with no entries");
            Ok((edited.cid != empty.cid).then_some(edited))
        })
    }
}
