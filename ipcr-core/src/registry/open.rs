//! Opening what a reference names: [`Opened`].

use std::sync::Arc;

use cid::Cid;
use multiaddr::Multiaddr;

use super::Registry;
use super::error::RegistryError;
use super::holder::ResolveRequest;
use super::options::ResolveOptions;
use super::places::Surroundings;
use crate::digest::Digest;
use crate::event::{Emitter, Stage};
use crate::exchange::path;
use crate::exchange::reader::Reader;
use crate::limits;
use crate::naming::chain::{ChainStep, TrustLevel};
use crate::pin::state::State;
use crate::port::blocks::StoreSession;
use crate::port::exchange::{FetchRequest, FetchSession, GatewayShare, PeerShare};
use crate::port::image::Blobs;
use crate::reference::{Authority, Reference, Tag};
use crate::transfer::folder::Home;
use crate::transfer::folder::open_folder;
use crate::transfer::ledger::Ledger;
use crate::tree::error::TreeError;
use crate::tree::read::{self, Found, Recognised, Wanted};

/// A registry that was resolved, with a reader of its blocks.
#[derive(Debug)]
pub(super) struct OpenedRoot {
    /// The reference's authority; `None` for this registry.
    pub(super) authority: Option<Authority>,
    /// The root; for `ipfs/<CID>`, whatever the CID is.
    pub(super) root: Cid,
    /// The root, or the folder below it that the name leads to.
    pub(super) base: Cid,
    pub(super) chain: Vec<ChainStep>,
    pub(super) trust: TrustLevel,
    pub(super) reader: Reader,
    pub(super) session: Arc<dyn StoreSession>,
    fetch: Arc<dyn FetchSession>,
    /// How this registry is called by others.
    own: String,
}

/// An image that was found.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) at: OpenedRoot,
    pub(super) found: Found,
    reference: Reference,
}

impl Registry {
    /// Follows the reference's authority and gets ready to read.
    pub(super) async fn open_root(
        &self,
        authority: Option<Authority>,
        options: &ResolveOptions,
        events: &Emitter,
    ) -> Result<OpenedRoot, RegistryError> {
        events.stage(Stage::Resolving).await;
        let identity = match self.holder.identity().await {
            Ok(identity) => Some(identity),
            Err(RegistryError::NoRegistry) => None,
            Err(error) => return Err(error),
        };
        let own = identity.as_ref().map_or_else(String::new, |i| i.domain.clone().unwrap_or_else(|| i.ipns.clone()));
        let authority = authority.filter(|authority| !identity.as_ref().is_some_and(|own| own.is_named_by(authority)));
        if authority.is_none() && identity.is_none() {
            return Err(RegistryError::NoRegistry);
        }
        let request = ResolveRequest {
            authority: authority.as_ref().map(ToString::to_string),
            allow_stale: options.allow_stale || self.surroundings.allow_stale,
            manner: self.manner(),
        };
        let resolved = self.holder.resolve(request, events.clone()).await?;
        let session: Arc<dyn StoreSession> = Arc::from(
            self.holder
                .blocks()
                .begin(limits::LEASE)
                .await
                .map_err(|error| RegistryError::from_store("opening the store", error))?,
        );
        let fetch = self.fetch_session(&resolved.root, resolved.hints, events).await?;
        let reader = Reader::new(self.holder.blocks(), Some(Arc::clone(&session)), Some(fetch.clone()));
        let base = if resolved.path.is_empty() {
            resolved.root
        } else {
            path::resolve(&reader, &resolved.root, &resolved.path.join("/"))
                .await
                .map_err(|error| RegistryError::from_path("opening the registry", error))?
        };
        Ok(OpenedRoot {
            authority,
            root: resolved.root,
            base,
            chain: resolved.chain,
            trust: resolved.trust,
            reader,
            session,
            fetch,
            own,
        })
    }

    /// The root of this registry; none before anything was ever tagged.
    pub(super) async fn own_root(&self) -> Result<Option<Cid>, RegistryError> {
        let state = State::load(&self.holder.tables()).await;
        Ok(state.map_err(|error| RegistryError::from_table("reading the registry's state", error))?.root)
    }

    /// A reader of this registry. Another home with its key may have published what is not stored here; that is fetched.
    pub(super) async fn own_reader(&self, root: &Cid) -> Result<Reader, RegistryError> {
        let fetch = self.fetch_session(root, self.surroundings.peers.clone(), &Emitter::silent()).await?;
        Ok(Reader::new(self.holder.blocks(), None, Some(fetch)))
    }

    /// A session with those who hold `root`.
    async fn fetch_session(
        &self,
        root: &Cid,
        hints: Vec<Multiaddr>,
        events: &Emitter,
    ) -> Result<Arc<dyn FetchSession>, RegistryError> {
        let Surroundings { stall, share, .. } = *self.surroundings;
        let request = FetchRequest { root: *root, hints, stall, share, events: events.clone() };
        let opened = self.holder.exchange().open(request).await;
        opened.map_err(|error| RegistryError::from_exchange("opening the exchange", error))
    }

    /// Finds the image that a reference names.
    pub(super) async fn open(
        &self,
        reference: &Reference,
        options: &ResolveOptions,
        events: &Emitter,
    ) -> Result<Opened, RegistryError> {
        let at = self.open_root(reference.authority.clone(), options, events).await?;
        let wanted = match reference.digest {
            Some(digest) => Wanted::Digest(digest),
            None => Wanted::Tag(reference.tag_or_latest().unwrap_or_else(Tag::latest)),
        };
        let found = match &reference.image {
            Some(image) => read::find(&at.reader, &at.base, image, &wanted).await,
            None => find_here(&at, &wanted).await,
        };
        match found {
            Ok(found) => Ok(Opened { at, found, reference: reference.clone() }),
            Err(error) => {
                let error = at.explain(reference, error);
                let _ = at.session.abort().await;
                Err(error)
            }
        }
    }
}

/// Finds an image where the name leads to an image folder or a tag folder itself.
async fn find_here(at: &OpenedRoot, wanted: &Wanted) -> Result<Found, TreeError> {
    match read::recognise(&at.reader, &at.base).await? {
        Recognised::Folder(found) => match wanted {
            Wanted::Digest(digest) if found.digest() != Some(*digest) => {
                Err(TreeError::NotFound { what: format!("manifest {digest}") })
            }
            _ => Ok(*found),
        },
        Recognised::Image => read::find_in_image(&at.reader, &at.base, &at.name(), wanted).await,
        Recognised::Registry => Err(TreeError::Kind { cid: at.base, found: "a registry", wanted: "an image" }),
        Recognised::Descriptor(_) => Err(TreeError::Kind {
            cid: at.base,
            found: "an OCI descriptor as nerdctl publishes them",
            wanted: "an image or a registry",
        }),
    }
}

impl OpenedRoot {
    /// The registry's name for people.
    pub(super) fn name(&self) -> String {
        self.authority.as_ref().map_or_else(|| self.own.clone(), ToString::to_string)
    }

    /// Who sent what so far.
    pub(super) fn peers(&self) -> Vec<PeerShare> {
        self.fetch.peers()
    }

    /// The same of gateways.
    pub(super) fn gateways(&self) -> Vec<GatewayShare> {
        self.fetch.gateways()
    }

    /// Whether it is another registry than this one.
    pub(super) fn is_foreign(&self) -> bool {
        self.authority.is_some()
    }

    fn explain(&self, reference: &Reference, error: TreeError) -> RegistryError {
        if let TreeError::NotFound { what } = error {
            // An image, one of its tags or one of its manifests.
            return RegistryError::NotFound { registry: self.name(), what, source: None };
        }
        if error.kind() == crate::kind::ErrorKind::NotFound {
            let mut what = reference.clone();
            what.authority = None;
            let what = match &what.image {
                Some(_) => format!("image {what}"),
                None => "image there".to_owned(),
            };
            return RegistryError::NotFound { registry: self.name(), what, source: Some(Box::new(error)) };
        }
        RegistryError::from_tree("opening the image", error)
    }
}

impl Opened {
    /// The image as a source of blobs.
    pub(super) async fn source(&self, this: &Registry, events: &Emitter) -> Result<Arc<dyn Blobs>, RegistryError> {
        let place = self.full_reference(None);
        let home = self.home();
        let ledger = Ledger::new(this.holder.tables(), this.holder.blocks());
        open_folder(place, &self.found, home, &self.at.reader, &self.at.session, ledger, events)
            .await
            .map_err(|error| RegistryError::from_transfer("opening the image", error))
    }

    /// Where the image lies in its registry; none for a folder that was named by its CID.
    pub(super) fn home(&self) -> Option<Home> {
        self.reference.image.clone().map(|image| Home { root: self.at.base, image })
    }

    /// `authority/name:tag@digest`, as far as its parts are there.
    pub(super) fn full_reference(&self, digest: Option<Digest>) -> String {
        let mut reference = self.reference.clone();
        reference.authority = None;
        reference.digest = digest.or(reference.digest);
        if reference.image.is_some() && reference.tag.is_none() && self.reference.digest.is_none() {
            reference.tag = self.reference.tag_or_latest();
        }
        let name = self.at.name();
        if reference.image.is_some() {
            format!("{name}/{reference}")
        } else {
            match reference.digest {
                Some(digest) => format!("{name}@{digest}"),
                None => name,
            }
        }
    }

    /// The name of the image in an engine (design section 5, "Names of results"); none for a pull by digest.
    pub(super) fn engine_name(&self) -> Option<String> {
        // A tag beside the digest is what it was once; who knows what it names by now.
        if self.reference.digest.is_some() {
            return None;
        }
        let tag = self.reference.tag_or_latest()?;
        let image = self.reference.image.as_ref().map(ToString::to_string);
        let name = match (&self.at.authority, image) {
            (None, Some(image)) => image,
            (None, None) => return None,
            (Some(Authority::Domain(domain) | Authority::DidWeb(domain)), image) => join(domain.as_str(), image),
            (Some(Authority::Key(key)), image) => join(&format!("ipns.localhost/{key}"), image),
            (Some(authority), image) => join(&authority.oci().replacen("ipfs/", "ipfs.localhost/", 1), image),
        };
        Some(format!("{name}:{tag}"))
    }
}

fn join(authority: &str, image: Option<String>) -> String {
    image.map_or_else(|| authority.to_owned(), |image| format!("{authority}/{image}"))
}
