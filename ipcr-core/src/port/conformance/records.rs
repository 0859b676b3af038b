//! What every implementation of `port::records` must do.
