//! Container engines: discovery, Docker and Podman behind one port.
