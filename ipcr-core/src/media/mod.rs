//! Sources and sinks that are files, streams or OCI registries.
