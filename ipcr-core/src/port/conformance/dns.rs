//! What every implementation of `port::dns` must do.
