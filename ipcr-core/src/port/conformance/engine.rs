//! What every implementation of `port::engine` must do.
