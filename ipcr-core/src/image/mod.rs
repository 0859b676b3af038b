//! The OCI image model: descriptors, platforms, manifests, configurations, and what makes them valid.

pub mod descriptor;
pub mod platform;
