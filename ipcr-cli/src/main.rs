//! ipcr.
fn main() {}
