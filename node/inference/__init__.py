"""Models at hand, without a network: one answer on the command line, or an OpenAI-compatible endpoint."""
