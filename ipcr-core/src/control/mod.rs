//! The home's socket: serving the facade to other processes.
