//! Programs that embed `ipcr-core`: see the `examples` folder.
