"""A client's side of a job: fund it, hand it in, follow it, keep what only the client knows, check it afterwards."""
