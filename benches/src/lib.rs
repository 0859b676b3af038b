//! Criterion benches of `ipcr-core`: see the `benches` folder.
