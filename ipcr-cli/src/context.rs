//! What a command that needs a registry works with: [`Context`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use ipcr_core::control::open::{self, OpenHome};
use ipcr_core::event::Warning;
use ipcr_core::image::platform::Platform;
use ipcr_core::kind::ErrorKind;
use ipcr_core::media::spec::SpecError;
use ipcr_core::reference::{IpnsName, NameError, Reference, Tag, TargetName};
use ipcr_core::registry::Registry;
use ipcr_core::registry::error::{RegistryError, Topic};
use ipcr_core::registry::holder::Changed;
use ipcr_core::registry::local::LocalHolder;
use ipcr_core::registry::operation::Operation;
use ipcr_core::registry::options::{InitOptions, PublishOptions, ResolveOptions};
use ipcr_core::registry::outcome::Identity;
use serde::Serialize;

use crate::environment::Environment;
use crate::failure::Failure;
use crate::home;
use crate::progress;
use crate::session::Purpose;
use crate::settings::Settings;
use crate::ui::Ui;

/// A registry, and everything around a command.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) ui: &'a Ui,
    pub(crate) settings: &'a Settings,
    pub(crate) environment: &'a Environment,
    pub(crate) registry: Registry,
    pub(crate) command: &'static str,
    /// Whether the command serves until it is interrupted, which is then how it succeeds.
    pub(crate) serving: AtomicBool,
    /// Warnings that were told before the command began.
    notices: Vec<Warning>,
    home: OpenHome,
}

impl<'a> Context<'a> {
    /// Opens the home.
    pub(crate) async fn open(purpose: Purpose<'a>) -> Result<Self, Failure> {
        let Purpose { ui, settings, environment, command, remote, looks, holds } = purpose;
        let wanted = if looks { open::Purpose::Look } else { open::Purpose::Work };
        let builder = home::builder(settings, environment, remote)?.command(format!("ipcr {command}")).purpose(wanted);
        let home = if holds { builder.hold().await } else { builder.open().await };
        let home = home.map_err(|error| Failure::registry(&error, command))?;
        let mut notices = Vec::new();
        if let Some(message) = overruled(settings, &home.overruled) {
            ui.warning(&message);
            notices.push(Warning::Other { message });
        }
        let registry = home.registry.clone();
        Ok(Self { ui, settings, environment, registry, command, serving: AtomicBool::new(false), notices, home })
    }

    /// Ends gracefully, when all are done who work through this process.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let command = self.command;
        // The home must be the only handle left, or those who work through this process would be waited for in vain.
        drop(self.registry);
        if self.home.control.as_ref().is_some_and(|control| control.clients() > 0) {
            self.ui.talk("done; others still work through this process, which Ctrl-C ends");
        }
        self.home.close().await.map_err(|error| Failure::registry(&error, command))
    }

    /// Ends because the user wants it, and takes nobody in meanwhile.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let command = self.command;
        drop(self.registry);
        self.home.stop().await.map_err(|error| Failure::registry(&error, command))
    }

    /// The holder, which commands that have to hold the home are.
    fn local(&self) -> Result<&Arc<LocalHolder>, Failure> {
        let held = || Failure::new(ErrorKind::Locked, "another process holds the home".to_owned());
        self.home.holder.as_ref().ok_or_else(held)
    }

    /// Makes keys and an empty registry.
    pub(crate) async fn init(&self, options: InitOptions) -> Result<Identity, Failure> {
        self.local()?.init(options).await.map_err(|error| self.failure(&error))
    }

    /// Gives the registry a new key; returns the name before, and what was published.
    pub(crate) async fn rotate_key(&self) -> Result<(IpnsName, Changed, Vec<Warning>), Failure> {
        let holder = Arc::clone(self.local()?);
        let rotation = Operation::new(move |events| async move { holder.rotate_key(events).await });
        let ((previous, changed), warnings) = self.watch(rotation).await?;
        Ok((previous, changed, warnings))
    }

    /// Publishes the registry again, if there is one; with `only_published`, if all of it was published before. False if nobody
    /// took its record.
    pub(crate) async fn refresh(&self, only_published: bool) -> Result<bool, Failure> {
        self.local()?.refresh(only_published).await.map_err(|error| self.failure(&error))
    }

    /// Provides the folders of what was published; does not end.
    pub(crate) async fn keep_provided(&self) -> Result<(), Failure> {
        self.local()?.keep_provided().await;
        Ok(())
    }

    /// Whether this process works without a network. What another one that holds the home does, is not known.
    pub(crate) fn is_offline(&self) -> bool {
        self.home.holder.is_some() && self.settings.offline
    }

    /// Says that this command goes on serving, so that what it publishes can be fetched.
    pub(crate) fn set_serving(&self) {
        self.serving.store(true, Ordering::Relaxed);
        if let Some(local) = &self.home.holder {
            local.set_serving();
        }
    }

    /// Runs an operation and shows it.
    pub(crate) async fn watch<T>(&self, operation: Operation<T>) -> Result<(T, Vec<Warning>), Failure>
    where
        T: Send + 'static,
    {
        progress::watch(self.ui, operation).await.map_err(|error| self.failure(&error))
    }

    /// Runs an operation on a source and shows it. The hints about missing images are for those of engines.
    pub(crate) async fn watch_source<T>(
        &self,
        of_engine: bool,
        operation: Operation<T>,
    ) -> Result<(T, Vec<Warning>), Failure>
    where
        T: Send + 'static,
    {
        progress::watch(self.ui, operation).await.map_err(|error| {
            let failure = self.failure(&error);
            if of_engine || error.topic() != Topic::NoSourceImage {
                return failure;
            }
            failure.with_hint("check the image's name or tag at the end of the source; an archive or layout with a single image needs none")
        })
    }

    /// A failure of this command.
    pub(crate) fn failure(&self, error: &RegistryError) -> Failure {
        Failure::registry(error, self.command)
    }

    /// Prints an outcome as JSON, or as text by `lines`.
    pub(crate) fn show<T: Serialize>(
        &self,
        outcome: &T,
        warnings: &[Warning],
        lines: impl FnOnce(&Ui, &T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if !self.ui.is_json() {
            return lines(self.ui, outcome);
        }
        let warnings: Vec<Warning> = self.notices.iter().chain(warnings).cloned().collect();
        self.ui.object(outcome, Some(&warnings))
    }

    /// Reads a reference.
    pub(crate) fn reference(&self, text: &str) -> Result<Reference, Failure> {
        text.parse().map_err(|error: NameError| self.bad_name(&error))
    }

    /// Reads a reference to a registry or an image. `some.domain` alone is a registry: no image has a dot in a first component
    /// without more.
    pub(crate) fn registry_or_image(&self, text: &str) -> Result<Reference, Failure> {
        match text.parse() {
            Ok(authority) => Ok(Reference { authority: Some(authority), image: None, tag: None, digest: None }),
            Err(_) => self.reference(text),
        }
    }

    /// Reads a reference to an image of this registry, whose own domain or key may stand before it.
    pub(crate) async fn own_reference(&self, text: &str) -> Result<Reference, Failure> {
        let mut reference = self.reference(text)?;
        if let Some(authority) = &reference.authority {
            let identity = self.registry.identity().await.map_err(|error| self.failure(&error))?;
            if !identity.is_named_by(authority) {
                let own = identity.domain.unwrap_or(identity.ipns);
                let message = format!("`{text}` is not in this registry, which is {own}");
                return Err(Failure::usage(message).with_hint("leave out the authority"));
            }
            reference.authority = None;
        }
        Ok(reference)
    }

    /// Reads a name for this registry, whose own domain or key may stand before it.
    pub(crate) async fn target(&self, text: &str) -> Result<TargetName, Failure> {
        match text.parse::<TargetName>() {
            Ok(target) => Ok(target),
            Err(error) => match text.parse::<Reference>() {
                Ok(Reference { authority: Some(_), digest: None, .. }) => {
                    let reference = self.own_reference(text).await?;
                    let tag = reference.tag_or_latest().unwrap_or_else(Tag::latest);
                    let image = reference.image.ok_or_else(|| self.bad_name(&error))?;
                    Ok(TargetName { image, tag })
                }
                _ => Err(self.bad_name(&error)),
            },
        }
    }

    /// A name that does not follow the grammar.
    pub(crate) fn bad_name(&self, error: &NameError) -> Failure {
        Failure::of(error, error.kind(), Topic::BadName, self.command)
    }

    /// A source or sink that is not spelt right.
    pub(crate) fn bad_spec(&self, error: &SpecError) -> Failure {
        Failure::of(error, error.kind(), Topic::Other, self.command).with_hint(match self.command {
            "cp" => "`ipcr push --help` lists the spellings of sources, `ipcr pull --help` those of sinks".to_owned(),
            command => format!("`ipcr {command} --help` lists the spellings"),
        })
    }

    /// How names are to be resolved.
    pub(crate) fn resolving(&self) -> ResolveOptions {
        let mut options = ResolveOptions::default();
        options.allow_stale = self.settings.allow_stale;
        options
    }

    /// How changes are to be published, at the time that the environment says.
    pub(crate) fn publishing(&self) -> Result<PublishOptions, Failure> {
        let mut options = PublishOptions::default();
        options.time = self.environment.source_date_epoch.as_deref().map(epoch).transpose()?;
        Ok(options)
    }

    /// The platform of `DOCKER_DEFAULT_PLATFORM`.
    pub(crate) fn default_platform(&self) -> Result<Option<Platform>, Failure> {
        let text = self.environment.docker_platform.as_deref();
        text.map(str::parse).transpose().map_err(|error: ipcr_core::image::platform::ParsePlatformError| {
            Failure::of(&error, ErrorKind::Usage, Topic::Other, self.command)
                .with_hint("this comes from DOCKER_DEFAULT_PLATFORM")
        })
    }
}

/// What to say of settings that have no effect, because the process that holds the home was started otherwise.
fn overruled(settings: &Settings, names: &[String]) -> Option<String> {
    let chosen = names.iter().filter(|name| settings.is_chosen(name)).map(|name| settings.place(name));
    let places: Vec<String> =
        chosen.map(|place| if place.starts_with('`') { place } else { format!("`{place}`") }).collect();
    let (last, others) = places.split_last()?;
    let (all, have) = match others {
        [] => (last.clone(), "has"),
        others => (format!("{} and {last}", others.join(", ")), "have"),
    };
    Some(format!("another process holds the home and works by its own settings: {all} {have} no effect on it"))
}

fn epoch(text: &str) -> Result<DateTime<Utc>, Failure> {
    let time = text.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.ok_or_else(|| {
        Failure::usage(format!("SOURCE_DATE_EPOCH is `{text}`, which is no number of seconds since 1970"))
    })
}
