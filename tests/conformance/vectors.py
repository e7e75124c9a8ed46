"""Where the test vectors are and how to read them: `.tar.gz` archives, folders, or single files. Data only."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["VECTORS", "names", "needs_vectors", "read"]

VECTORS = Path(__file__).parents[3] / "shared" / "vectors"

needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no test vectors at {VECTORS}")


def read(path: Path, suffix: str = ".json") -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file under `path` with this suffix, in order of name within a folder or as archived."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_dir() or child.name.endswith((suffix, ".tar.gz")):
                yield from read(child, suffix)
    elif path.name.endswith(".tar.gz"):
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(suffix) else None
                if content is not None:
                    yield member.name, content.read()
    else:
        yield str(path), path.read_bytes()


def names(path: Path, suffix: str = ".json") -> list[str]:
    """The names that `read` gives."""
    return [name for name, _ in read(path, suffix)]
