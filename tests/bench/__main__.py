"""Runs every benchmark of this folder, or those that are named: `python -m tests.bench [NAME...]`."""

import importlib
import pkgutil
import sys

import tests.bench

__all__ = ["main"]


def main(names: list[str]) -> int:
    """Run the benchmarks in order of name; each checks itself. Answers 1 when a name is unknown or one failed."""
    known = sorted(one.name for one in pkgutil.iter_modules(tests.bench.__path__) if not one.name.startswith("_"))
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.stderr.write(f"no benchmark called {', '.join(unknown)}; there are {', '.join(known)}\n")
        return 1
    for name in names or known:
        module = importlib.import_module(f"tests.bench.{name}")
        if not hasattr(module, "main"):
            continue  # shared pieces, not a benchmark
        sys.stdout.write(f"== {name}\n")
        module.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
