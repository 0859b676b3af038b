//! What every implementation of `port::exchange` must do.
