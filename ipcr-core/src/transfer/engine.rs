//! Engines as sources and sinks of images: [`source::EngineSource`], [`sink::EngineSink`].
//!
//! They join the [`crate::port::engine::Engine`], which knows nothing but byte streams, with the readers and writers of
//! archives in [`crate::media`].

pub mod sink;
pub mod source;

mod loading;
mod pipe;
mod steps;
