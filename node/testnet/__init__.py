"""The local network: one data directory, one process a role, real gRPC between them."""
