"""Fuzzes one target of `tests.fuzz.targets` with atheris: `python -m tests.fuzz.coverage_guided NAME -runs=N ...`.

One process a target, for libFuzzer ends its process. A finding is written to a file that is named, and the status is
not 0.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import atheris

WATCHED = ("core", "protos")  # where coverage guides


def main() -> None:
    """Run libFuzzer; it reads the arguments after the target's name, and does not return."""
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=list(WATCHED)):
        target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for index, seed in enumerate(target.seeds):
            (Path(corpus) / f"seed-{index}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, corpus], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
