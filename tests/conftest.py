"""Settings of all tests: hypothesis draws the same examples in every run, and a busy machine fails no test."""

from hypothesis import settings

settings.register_profile("warpgrid", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("warpgrid")
