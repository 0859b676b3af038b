//! Changing one image: tags, manifests without a tag, referrers (docs/format.md, sections 6-8).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SubsecRound as _, Utc};
use cid::Cid;
use serde_json::Map;

use super::folder::{Checked, Folder, untagged};
use super::plan::Plan;
use crate::dag::pb::Link;
use crate::digest::Digest;
use crate::image::descriptor::Descriptor;
use crate::image::layout::write_layout_index;
use crate::limits;
use crate::reference::{ImageName, Tag};
use crate::tree::blocks::{self, Overlay};
use crate::tree::document::{self, FORMAT, ImageDocument, Left, ManifestRow, TagRow};
use crate::tree::error::TreeError;
use crate::tree::layout::Layout;
use crate::tree::read::{self, IMAGE_FILE, MANIFESTS, REFERRERS, TAGS};
use crate::tree::stored::StoredImage;

/// How many manifests that a tag has left are kept.
pub(super) const RETAINED: usize = 10;

/// An image being changed.
pub(super) struct ImageEdit<'a> {
    overlay: &'a Overlay<'a>,
    name: &'a ImageName,
    folder: Option<Cid>,
    /// The document before the change; `None` when there was no image.
    before: Option<ImageDocument>,
    document: ImageDocument,
    referrers: BTreeMap<Digest, Vec<Descriptor>>,
    removed_tags: BTreeSet<String>,
    /// Whether the whole image was removed.
    removed: bool,
    plan: Plan,
}

/// A changed image.
pub(super) struct ImageChange {
    /// The document before; `None` when there was no image.
    pub(super) before: Option<ImageDocument>,
    /// The document after; `None` when there is no image any more.
    pub(super) after: Option<ImageDocument>,
    /// What to change below the root.
    pub(super) plan: Plan,
}

impl<'a> ImageEdit<'a> {
    pub(super) async fn open(overlay: &'a Overlay<'a>, root: &Cid, name: &'a ImageName) -> Result<Self, TreeError> {
        let folder = blocks::walk(overlay, root, name.components()).await?.map(|link| link.cid);
        let path = format!("{name}/{IMAGE_FILE}");
        let mut before: Option<ImageDocument> = None;
        if let Some(folder) = &folder
            && let Some(link) = blocks::lookup(overlay, &path, folder, IMAGE_FILE).await?
        {
            let bytes = blocks::read_file(overlay, &path, &link.cid, limits::METADATA_BYTES).await?;
            before = Some(document::parse_for_writing(&path, &bytes)?);
        }
        let fresh = || ImageDocument { format: FORMAT, name: name.to_string(), ..ImageDocument::default() };
        let document = before.clone().unwrap_or_else(fresh);
        Ok(Self {
            overlay,
            name,
            folder,
            before,
            document,
            referrers: BTreeMap::new(),
            removed_tags: BTreeSet::new(),
            removed: false,
            plan: Plan::default(),
        })
    }

    fn path<'p>(&'p self, rest: impl IntoIterator<Item = &'p str>) -> Vec<String> {
        self.name.components().chain(rest).map(str::to_owned).collect()
    }

    fn set(&mut self, rest: &[&str], link: Option<Link>) {
        let path = self.path(rest.iter().copied());
        self.plan.set(path.iter().map(String::as_str), link);
    }

    fn set_own_folder(&mut self, digest: &Digest, link: Option<Link>) {
        self.set(&[MANIFESTS, digest.algorithm().name(), &digest.hex()], link);
    }

    async fn tag_folder(&self, tag: &str) -> Result<Option<Link>, TreeError> {
        match &self.folder {
            Some(folder) => blocks::walk(self.overlay, folder, [TAGS, tag]).await,
            None => Ok(None),
        }
    }

    /// Lets a tag name an image; returns the tag's folder.
    pub(super) async fn set_tag(
        &mut self,
        tag: &Tag,
        stored: &StoredImage,
        pushed: DateTime<Utc>,
    ) -> Result<Cid, TreeError> {
        let pushed = pushed.trunc_subsecs(0);
        let checked = Checked::new(stored)?;
        let new = checked.folder(self.overlay, &stored.root, Some((self.name, tag))).await?;
        let digest = stored.root.digest;
        let old = self.document.tags.get(tag.as_str()).cloned();
        let old_folder = self.tag_folder(tag.as_str()).await?;
        let cid = match &old_folder {
            Some(folder)
                if old.as_ref().is_some_and(|row| row.digest == digest)
                    && self.holds_all(&new)
                    && self.says_all(folder, &new).await =>
            {
                folder.cid
            }
            _ => {
                if let (Some(row), Some(folder)) = (&old, &old_folder)
                    && row.digest != digest
                {
                    self.leave(tag.as_str(), row, folder).await?;
                }
                let same = old.as_ref().filter(|row| row.digest == digest).map(|row| row.pushed);
                let other = old.map(|row| row.other).unwrap_or_default();
                let row = TagRow { digest, pushed: same.unwrap_or(pushed), other };
                self.document.tags.insert(tag.to_string(), row);
                let cid = new.link.cid;
                self.set(&[TAGS, tag.as_str()], Some(new.link.clone()));
                self.add(new).await?;
                cid
            }
        };
        self.come_back(tag.as_str(), &digest);
        for referrer in checked.referrers() {
            self.put(&checked, referrer, pushed).await?;
        }
        Ok(cid)
    }

    /// Whether a folder that is there says of its layers what a new one would say.
    async fn says_all(&self, folder: &Link, new: &Folder) -> bool {
        let said =
            async { Layout::open_unchecked(self.overlay, "", &folder.cid).await?.plain_sizes(self.overlay).await };
        said.await.is_ok_and(|said| new.plain_sizes.iter().all(|(layer, size)| said.get(layer) == Some(size)))
    }

    /// Whether everything in a new folder is in the image's folders already.
    fn holds_all(&self, new: &Folder) -> bool {
        new.rows
            .iter()
            .all(|(digest, row)| self.document.manifests.get(digest).is_some_and(|held| held.total >= row.total))
    }

    /// Stores an image without a tag.
    pub(super) async fn put_manifest(&mut self, stored: &StoredImage, pushed: DateTime<Utc>) -> Result<(), TreeError> {
        let pushed = pushed.trunc_subsecs(0);
        let checked = Checked::new(stored)?;
        self.put(&checked, &stored.root, pushed).await?;
        for referrer in checked.referrers() {
            self.put(&checked, referrer, pushed).await?;
        }
        Ok(())
    }

    async fn put(&mut self, checked: &Checked<'_>, root: &Descriptor, pushed: DateTime<Utc>) -> Result<(), TreeError> {
        let held = self.document.manifests.get(&root.digest);
        if held.is_some_and(|row| row.pushed.is_some()) {
            return Ok(());
        }
        let had_folder = held.is_some_and(ManifestRow::has_own_folder);
        let folder = checked.folder(self.overlay, root, None).await?;
        if !had_folder {
            self.set_own_folder(&root.digest, Some(folder.link.clone()));
        }
        self.add(folder).await?;
        if let Some(row) = self.document.manifests.get_mut(&root.digest) {
            row.pushed = Some(pushed);
        }
        Ok(())
    }

    /// Takes the rows and referrers of a new folder over.
    async fn add(&mut self, folder: Folder) -> Result<(), TreeError> {
        for (digest, mut row) in folder.rows {
            if let Some(old) = self.document.manifests.remove(&digest) {
                row.pushed = old.pushed;
                row.left = old.left;
                row.other = old.other;
            }
            self.document.manifests.insert(digest, row);
        }
        for (subject, descriptor) in folder.referrers {
            let list = self.referrers_of(&subject).await?;
            list.retain(|other| other.digest != descriptor.digest);
            list.push(descriptor);
            list.sort_by_key(|descriptor| descriptor.digest);
        }
        Ok(())
    }

    async fn referrers_of(&mut self, subject: &Digest) -> Result<&mut Vec<Descriptor>, TreeError> {
        if !self.referrers.contains_key(subject) {
            let list = match &self.folder {
                Some(folder) => read::referrers_in_image(self.overlay, folder, self.name.as_str(), subject).await?,
                None => Vec::new(),
            };
            self.referrers.insert(*subject, list);
        }
        Ok(self.referrers.entry(*subject).or_default())
    }

    /// Keeps what a tag named, now that it names it no longer.
    async fn leave(&mut self, tag: &str, row: &TagRow, folder: &Link) -> Result<(), TreeError> {
        let Some(manifest) = self.document.manifests.get_mut(&row.digest) else { return Ok(()) };
        let had_folder = manifest.has_own_folder();
        manifest.left.retain(|left| left.tag != tag);
        manifest.left.push(Left { tag: tag.to_owned(), pushed: row.pushed, other: Map::new() });
        manifest.left.sort_by(|a, b| a.pushed.cmp(&b.pushed).then_with(|| a.tag.cmp(&b.tag)));
        if !had_folder {
            let link = untagged(self.overlay, &format!("{}/{TAGS}/{tag}", self.name), folder).await?;
            self.set_own_folder(&row.digest, Some(link));
        }
        Ok(())
    }

    /// A manifest that a tag names is not left by it.
    fn come_back(&mut self, tag: &str, digest: &Digest) {
        let Some(row) = self.document.manifests.get_mut(digest) else { return };
        let had_folder = row.has_own_folder();
        row.left.retain(|left| left.tag != tag);
        if had_folder && !row.has_own_folder() {
            self.set_own_folder(digest, None);
        }
    }

    /// Removes a tag; what it named stays.
    pub(super) async fn remove_tag(&mut self, tag: &str) -> Result<(), TreeError> {
        let Some(folder) = self.tag_folder(tag).await? else {
            return Err(TreeError::not_found(format!("tag {}:{tag}", self.name)));
        };
        if let Some(row) = self.document.tags.remove(tag) {
            self.leave(tag, &row, &folder).await?;
        }
        self.set(&[TAGS, tag], None);
        self.removed_tags.insert(tag.to_owned());
        Ok(())
    }

    /// Removes a manifest and every tag that names it.
    pub(super) fn remove_digest(&mut self, digest: &Digest) -> Result<(), TreeError> {
        if !self.document.manifests.contains_key(digest) {
            return Err(TreeError::not_found(format!("manifest {}@{digest}", self.name)));
        }
        let tags = self.document.tags.iter().filter(|(_, row)| row.digest == *digest);
        for tag in tags.map(|(tag, _)| tag.clone()).collect::<Vec<_>>() {
            self.document.tags.remove(&tag);
            self.set(&[TAGS, &tag], None);
        }
        self.forget(digest);
        let holders = self.document.manifests.iter().filter(|(_, row)| row.children.contains(digest));
        if let Some((of, _)) = holders.into_iter().next() {
            return Err(TreeError::InUse { digest: *digest, of: *of });
        }
        Ok(())
    }

    /// Takes the own folder of a manifest away.
    fn forget(&mut self, digest: &Digest) {
        let Some(row) = self.document.manifests.get_mut(digest).filter(|row| row.has_own_folder()) else { return };
        row.pushed = None;
        row.left.clear();
        self.set_own_folder(digest, None);
    }

    /// Removes the image with everything in it, but not images whose names begin with its own.
    pub(super) async fn remove_image(&mut self) -> Result<(), TreeError> {
        let missing = || TreeError::not_found(format!("image {}", self.name));
        let folder = self.folder.ok_or_else(missing)?;
        let entries = blocks::list(self.overlay, self.name.as_str(), &folder).await?;
        if ![IMAGE_FILE, TAGS, MANIFESTS].iter().any(|marker| entries.contains_key(*marker)) {
            return Err(missing());
        }
        for (name, link) in entries {
            let reserved = name.starts_with(['_', '.']) || name == TAGS;
            let file = || blocks::stat(self.overlay, self.name.as_str(), &link.cid);
            if reserved || file().await? != blocks::Stat::Directory {
                self.set(&[&name], None);
            }
        }
        self.document.tags.clear();
        self.document.manifests.clear();
        self.removed = true;
        Ok(())
    }

    /// The image must exist.
    pub(super) fn require(&self) -> Result<(), TreeError> {
        match &self.before {
            Some(_) => Ok(()),
            None => Err(TreeError::not_found(format!("image {}", self.name))),
        }
    }

    /// Sets the one line (an empty one removes it) and the README (likewise).
    pub(super) fn describe(&mut self, description: Option<&str>, readme: Option<&str>) -> Result<(), TreeError> {
        if let Some(text) = description {
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if line.len() > limits::DESCRIPTION_BYTES {
                let limit = u64::try_from(limits::DESCRIPTION_BYTES).unwrap_or(u64::MAX);
                return Err(TreeError::TooLarge { path: format!("{}/README-short.txt", self.name), limit });
            }
            let line = (!line.is_empty()).then_some(line);
            if line != self.document.description {
                let file = line.as_ref().map(|line| self.overlay.add_file("", format!("{line}\n").as_bytes()));
                self.set(&["README-short.txt"], file);
                self.document.description = line;
            }
        }
        if let Some(text) = readme {
            if u64::try_from(text.len()).unwrap_or(u64::MAX) > limits::README_BYTES {
                let path = format!("{}/README.md", self.name);
                return Err(TreeError::TooLarge { path, limit: limits::README_BYTES });
            }
            let file = (!text.is_empty()).then(|| self.overlay.add_file("", text.as_bytes()));
            self.set(&["README.md"], file);
        }
        Ok(())
    }

    /// Applies retention, drops what nothing reaches any more, and writes the image's files.
    pub(super) async fn finish(mut self) -> Result<ImageChange, TreeError> {
        self.retain();
        self.drop_unreachable().await?;
        let folders = self.folders();
        for (digest, row) in &mut self.document.manifests {
            row.folder.clone_from(&folders[digest]);
        }
        for (subject, list) in std::mem::take(&mut self.referrers) {
            let file = (!list.is_empty()).then(|| self.overlay.add_file("", &write_layout_index(&list)));
            self.set(&[REFERRERS, subject.algorithm().name(), &subject.hex()], file);
        }
        let empty = self.document.manifests.is_empty() && self.document.tags.is_empty();
        let gone = self.removed || empty && !self.has_other_tags().await?;
        if gone {
            for file in [IMAGE_FILE, "README-short.txt", "README.md"] {
                self.set(&[file], None);
            }
        } else if self.before.as_ref() != Some(&self.document) {
            let file = self.overlay.add_file("", &document::write(&self.document));
            self.set(&[IMAGE_FILE], Some(file));
        }
        Ok(ImageChange { before: self.before, after: (!gone).then_some(self.document), plan: self.plan })
    }

    /// Whether tag folders are left that the document does not know (2020).
    async fn has_other_tags(&self) -> Result<bool, TreeError> {
        let Some(folder) = &self.folder else { return Ok(false) };
        let Some(tags) = blocks::lookup(self.overlay, self.name.as_str(), folder, TAGS).await? else {
            return Ok(false);
        };
        let known = |tag: &String| {
            let before = self.before.as_ref();
            self.removed_tags.contains(tag) || before.is_some_and(|document| document.tags.contains_key(tag))
        };
        let tags = blocks::list(self.overlay, self.name.as_str(), &tags.cid).await?;
        Ok(!tags.keys().all(known))
    }

    /// Forgets the oldest manifests that each tag has left.
    fn retain(&mut self) {
        let mut by_tag: BTreeMap<String, Vec<(DateTime<Utc>, Digest)>> = BTreeMap::new();
        for (digest, row) in &self.document.manifests {
            for left in &row.left {
                by_tag.entry(left.tag.clone()).or_default().push((left.pushed, *digest));
            }
        }
        for (tag, mut left) in by_tag {
            left.sort_by(|a, b| b.cmp(a));
            for (_, digest) in left.into_iter().skip(RETAINED) {
                if !self.has_referrers(&digest) {
                    self.come_back(&tag, &digest);
                }
            }
        }
    }

    fn has_referrers(&self, digest: &Digest) -> bool {
        let children = self.document.manifests.get(digest).map(|row| row.children.as_slice()).unwrap_or_default();
        self.document
            .manifests
            .values()
            .any(|row| row.subject.is_some_and(|subject| subject == *digest || children.contains(&subject)))
    }

    /// Drops rows that no folder holds, and referrers whose subject went with them.
    async fn drop_unreachable(&mut self) -> Result<(), TreeError> {
        loop {
            let rows = &self.document.manifests;
            let tagged = self.document.tags.values().map(|row| row.digest);
            let own = rows.iter().filter(|(_, row)| row.has_own_folder()).map(|(digest, _)| *digest);
            let roots: BTreeSet<Digest> = tagged.chain(own).collect();
            let children = roots.iter().filter_map(|root| rows.get(root)).flat_map(|row| row.children.iter().copied());
            let live: BTreeSet<Digest> = children.chain(roots.iter().copied()).collect();
            let dead: Vec<Digest> = rows.keys().filter(|digest| !live.contains(digest)).copied().collect();
            for digest in dead {
                let Some(row) = self.document.manifests.remove(&digest) else { continue };
                if let Some(subject) = row.subject {
                    self.referrers_of(&subject).await?.retain(|descriptor| descriptor.digest != digest);
                }
            }
            let before = self.before.as_ref().map(|document| &document.manifests);
            let orphan = |row: &ManifestRow| {
                row.has_own_folder()
                    && row.subject.is_some_and(|subject| {
                        before.is_some_and(|before| before.contains_key(&subject))
                            && !self.document.manifests.contains_key(&subject)
                    })
            };
            let orphans = self.document.manifests.iter().filter(|(_, row)| orphan(row));
            let orphans: Vec<Digest> = orphans.map(|(digest, _)| *digest).collect();
            if orphans.is_empty() {
                return Ok(());
            }
            for digest in orphans {
                self.forget(&digest);
            }
        }
    }

    fn folders(&self) -> BTreeMap<Digest, String> {
        folders(&self.document)
    }
}

/// Which folder each manifest of an image is said to be in.
pub(in crate::tree) fn folders(document: &ImageDocument) -> BTreeMap<Digest, String> {
    let own_folder = |digest: &Digest| format!("{MANIFESTS}/{}/{}", digest.algorithm().name(), digest.hex());
    let mut out = BTreeMap::new();
    let own = document.manifests.iter().filter(|(_, row)| row.has_own_folder());
    for (digest, _) in own.clone() {
        out.insert(*digest, own_folder(digest));
    }
    let tagged = document.tags.iter().map(|(tag, row)| (row.digest, format!("{TAGS}/{tag}")));
    for (root, folder) in tagged.chain(own.map(|(digest, _)| (*digest, own_folder(digest)))) {
        let children = document.manifests.get(&root).map(|row| row.children.as_slice()).unwrap_or_default();
        for digest in std::iter::once(&root).chain(children) {
            out.entry(*digest).or_insert_with(|| folder.clone());
        }
    }
    out
}
