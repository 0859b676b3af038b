//! The IPFS node: swarm, block exchange, records and provider records.
