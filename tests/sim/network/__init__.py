"""A network of a sequencer and workers in one process, under a clock that a seed and the tests move."""
