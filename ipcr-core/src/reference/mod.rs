//! Names: references to images, image names, tags and keys.

pub mod key;
