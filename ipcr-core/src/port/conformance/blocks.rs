//! What every implementation of `port::blocks` must do.
