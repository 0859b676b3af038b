//! Developer commands of ipcr.
fn main() {}
