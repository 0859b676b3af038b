//! What every implementation of `port::table` must do.
