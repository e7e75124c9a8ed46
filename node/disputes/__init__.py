"""Disputes on a network: a client challenges an exact answer, a worker defends its own."""
