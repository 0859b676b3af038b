//! Garbage collection and checks.
//!
//! What a home keeps is what can be reached from this registry's root, and the pulled images of [`crate::pin::cache`]. Trees may be
//! incomplete here: another home with the same key publishes tags whose blobs only it holds, and a pull fetches one platform.
//! So marking follows what is stored and passes over what is not; [`inspect`] says which tags of this home lack something, [`repair`] gets it
//! again, [`retain`] says which
//! pulled images stay, [`usage`] what takes how much.

pub mod collect;
pub mod inspect;
pub mod repair;
pub mod retain;
pub mod usage;

#[cfg(test)]
mod tests;
