//! Keys and what is derived from them: the registry key, the node key, the encryption identity, DIDs.
