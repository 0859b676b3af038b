//! Changing the registry: merging with the network's root, commit order, signing and announcing.
