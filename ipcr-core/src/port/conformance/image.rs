//! What every implementation of `port::image` must do.
